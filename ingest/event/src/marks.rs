//! Values that are not kept as sent: the pointers of those that were cut or left out, and the object `extra` that keeps those
//! without a column.
//!
//! The reader notes only byte ranges. This module reads the text a second time to find their pointers, which few messages need.

use std::borrow::Cow;

use crate::json::{JsonReader, KnownValues, Mark, Note, Parsed};
use crate::schema::escape;
use crate::surrogate::replace_lone_surrogates;

/// Most bytes of unknown fields that are kept.
pub(crate) const EXTRA_BYTES: usize = 8 * 1024;

/// Most values listed for one message.
const LISTED: usize = 100;

/// The pointer of a value, and what happened to it.
pub(crate) type Marked<'a> = (Cow<'a, str>, &'static str);

// How a value was changed. The column `truncated` of `events` stores these words.
pub(crate) const CUT: &str = "cut";
pub(crate) const LEFT_OUT: &str = "left out";
pub(crate) const BOUNDED: &str = "bounded";
pub(crate) const DROPPED: &str = "dropped";
pub(crate) const OFF: &str = "off";
pub(crate) const STATED: &str = "stated";

/// One step of a JSON pointer.
#[derive(Clone, Debug)]
pub(crate) enum PathStep<'a> {
    Key(Cow<'a, str>),
    Index(usize),
}

/// Values under their original pointers. An array becomes an object keyed by index, so that pointers stay valid.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    fields: Vec<(String, ExtraNode)>,
    bytes: usize,
    dropped: usize,
}

#[derive(Debug)]
enum ExtraNode {
    Value(String),
    Object(Vec<(String, ExtraNode)>),
}

/// The result of locating the notes on a message.
#[derive(Debug, Default)]
pub(crate) struct Marks<'a> {
    pub(crate) listed: Vec<Marked<'a>>,
    pub(crate) extra: Extra,
    /// Values beyond [`LISTED`].
    unlisted: usize,
}

struct Walk<'n, 'a> {
    notes: &'n [Note],
    path: Vec<PathStep<'a>>,
    marks: Marks<'a>,
}

/// No known values: the reader parses everything.
struct NoKnownValues;

impl KnownValues for NoKnownValues {
    fn known_length(&self, _text: &str) -> usize {
        0
    }
}

// === impl Marks ===

impl<'a> Marks<'a> {
    /// Finds the pointers of the notes on a text.
    pub(crate) fn locate(text: &'a str, mut notes: Vec<Note>, levels: usize) -> Parsed<Self> {
        notes.sort_by_key(|note| note.from);
        let mut walk = Walk { notes: &notes, path: Vec::new(), marks: Self::default() };
        walk.value(&mut JsonReader::new(text, levels, &NoKnownValues), false)?;
        Ok(walk.marks)
    }

    /// Lists a value unless it is listed already.
    pub(crate) fn list(&mut self, pointer: impl Into<Cow<'a, str>>, done: &'static str) {
        let pointer = pointer.into();
        if self.listed.iter().any(|(known, _)| *known == pointer) {
            return;
        }
        if self.listed.len() == LISTED {
            self.unlisted += 1;
        } else {
            self.listed.push((pointer, done));
        }
    }

    /// Returns the listed values. A final entry counts the values beyond the limit.
    pub(crate) fn into_listed(mut self) -> Vec<Marked<'a>> {
        if self.unlisted > 0 {
            self.listed.push((Cow::Owned(format!("{} more", self.unlisted)), CUT));
        }
        self.listed
    }
}

// === impl Walk ===

impl<'a> Walk<'_, 'a> {
    /// Walks a value. `kept` is true if an enclosing value is in `extra` already.
    fn value(&mut self, json: &mut JsonReader<'a, '_>, mut kept: bool) -> Parsed<()> {
        let from = json.start();
        while let Some((note, rest)) = self.notes.split_first().filter(|(note, _)| note.from == from) {
            self.notes = rest;
            let mut done = match note.mark {
                Mark::Cut => Some(CUT),
                Mark::LeftOut => Some(LEFT_OUT),
                Mark::Bounded => Some(BOUNDED),
                Mark::Unknown => None,
            };
            if matches!(note.mark, Mark::Unknown | Mark::LeftOut) && !kept {
                kept = true;
                if !self.marks.extra.add(&self.path, &replace_lone_surrogates(json.between(note.from, note.end))) {
                    done = done.or(Some(DROPPED));
                }
            }
            if let Some(done) = done {
                self.marks.list(pointer(&self.path), done);
            }
        }
        if self.notes.is_empty() {
            return json.raw().map(drop);
        }
        match json.peek() {
            b'{' => json.object(|json, key| {
                self.path.push(PathStep::Key(key));
                self.value(json, kept)?;
                self.path.pop();
                Ok(())
            }),
            b'[' => {
                let mut index = 0;
                json.list(|json| {
                    self.path.push(PathStep::Index(index));
                    self.value(json, kept)?;
                    self.path.pop();
                    index += 1;
                    Ok(())
                })
            }
            _ => json.raw().map(drop),
        }
    }
}

fn pointer(path: &[PathStep<'_>]) -> String {
    path.iter()
        .map(|step| match step {
            PathStep::Key(key) => format!("/{}", escape(key)),
            PathStep::Index(index) => format!("/{index}"),
        })
        .collect()
}

// === impl Extra ===

impl Extra {
    /// Adds a JSON value; returns false if there is no room for it.
    pub(crate) fn add(&mut self, path: &[PathStep<'_>], json: &str) -> bool {
        let names: Vec<String> = path
            .iter()
            .map(|step| match step {
                PathStep::Key(key) => key.clone().into_owned(),
                PathStep::Index(index) => index.to_string(),
            })
            .collect();
        let bytes = json.len() + names.last().map_or(0, String::len) + 4;
        if self.bytes + bytes > EXTRA_BYTES {
            self.dropped += 1;
            return false;
        }
        let Some((last, above)) = names.split_last() else { return false };
        let mut fields = &mut self.fields;
        for name in above {
            let known = fields.iter().position(|(known, node)| known == name && matches!(node, ExtraNode::Object(_)));
            let index = known.unwrap_or_else(|| {
                self.bytes += name.len() + 6;
                fields.push((name.clone(), ExtraNode::Object(Vec::new())));
                fields.len() - 1
            });
            match &mut fields[index].1 {
                ExtraNode::Object(inner) => fields = inner,
                ExtraNode::Value(_) => return false,
            }
        }
        self.bytes += bytes;
        fields.push((last.clone(), ExtraNode::Value(json.to_owned())));
        true
    }

    /// Removes a value of more than `most` bytes, or any if that is `None`. Returns true if there was one.
    pub(crate) fn remove(&mut self, path: &[&str], most: Option<usize>) -> bool {
        let Some((last, above)) = path.split_last() else { return false };
        let mut fields = &mut self.fields;
        for name in above {
            let inner = fields.iter_mut().find(|(known, _)| known == name);
            let Some((_, ExtraNode::Object(inner))) = inner else { return false };
            fields = inner;
        }
        let stays = |(name, node): &(String, ExtraNode)| {
            name != last || matches!((node, most), (ExtraNode::Value(json), Some(most)) if json.len() <= most)
        };
        let before = fields.len();
        fields.retain(stays);
        fields.len() < before
    }

    /// Returns all values as one JSON object; `None` if there are none.
    pub(crate) fn into_json(mut self) -> Option<String> {
        if self.dropped > 0 {
            self.fields.push(("_dropped".to_owned(), ExtraNode::Value(self.dropped.to_string())));
        }
        (!self.fields.is_empty()).then(|| {
            let mut text = String::with_capacity(self.bytes + 32);
            write(&self.fields, &mut text);
            text
        })
    }
}

fn write(fields: &[(String, ExtraNode)], text: &mut String) {
    text.push('{');
    for (n, (name, node)) in fields.iter().enumerate() {
        if n > 0 {
            text.push(',');
        }
        text.push_str(&serde_json::Value::from(name.as_str()).to_string());
        text.push(':');
        match node {
            ExtraNode::Value(json) => text.push_str(json),
            ExtraNode::Object(fields) => write(fields, text),
        }
    }
    text.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_located_by_their_byte_ranges_and_kept_under_their_pointers() {
        let text = r#"{"a":1,"b/c":[{"x":"12"},{"y":[2, 3]}],"d":{"e":"long"},"f":null}"#;
        let note = |value: &str, mark| {
            let from = text.find(value).expect("there");
            Note { from, end: from + value.len(), mark }
        };
        let notes = vec![
            note(r#""long""#, Mark::Cut),
            note("[2, 3]", Mark::Unknown),
            note("1,", Mark::Bounded),
            note(r#""12""#, Mark::LeftOut),
        ];
        let marks = Marks::locate(text, notes, 9).expect("JSON");
        assert_eq!(marks.extra.into_json().as_deref(), Some(r#"{"b/c":{"0":{"x":"12"},"1":{"y":[2, 3]}}}"#));
        let listed: Vec<(&str, &str)> = marks.listed.iter().map(|(pointer, done)| (&**pointer, *done)).collect();
        assert_eq!(listed, [("/a", BOUNDED), ("/b~1c/0/x", LEFT_OUT), ("/d/e", CUT)]);
    }

    #[test]
    fn values_without_room_are_counted_and_listed() {
        let text = format!(r#"{{"a":"{}","b":1}}"#, "x".repeat(EXTRA_BYTES));
        let (from, end) = (5, text.len() - 7);
        let notes =
            vec![Note { from, end, mark: Mark::Unknown }, Note { from: end + 5, end: end + 6, mark: Mark::Unknown }];
        let marks = Marks::locate(&text, notes, 9).expect("JSON");
        assert_eq!(marks.listed, [(Cow::Borrowed("/a"), DROPPED)]);
        assert_eq!(marks.extra.into_json().as_deref(), Some(r#"{"b":1,"_dropped":1}"#));
    }
}
