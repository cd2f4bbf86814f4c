//! What became of values that are not kept as they were sent: the pointers of those that were cut or left out, and the object
//! `extra` with those that have no column.
//!
//! The reader notes places in a text and nothing more. Here the text is gone through once again for the pointers, which few
//! messages need.

use std::borrow::Cow;

use crate::json::{Fast, Known, Mark, Note, Reader};
use crate::surrogate::mended;

/// Bytes of unknown fields that are kept.
pub(crate) const EXTRA_BYTES: usize = 8 * 1024;

/// Values of one message that are listed at most.
const LISTED: usize = 100;

/// A value, by its pointer, and what became of it.
pub(crate) type Marked<'a> = (Cow<'a, str>, &'static str);

/// What was done where.
pub(crate) const CUT: &str = "cut";
pub(crate) const LEFT_OUT: &str = "left out";
pub(crate) const BOUNDED: &str = "bounded";
pub(crate) const DROPPED: &str = "dropped";
pub(crate) const STATED: &str = "stated";

/// A step down from an object or a list.
#[derive(Clone, Debug)]
pub(crate) enum Step<'a> {
    Key(Cow<'a, str>),
    Entry(usize),
}

/// Values by where they stood; a list is an object of its places, so that pointers stay what they were.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    fields: Vec<(String, Kept)>,
    bytes: usize,
    dropped: usize,
}

#[derive(Debug)]
enum Kept {
    Value(String),
    Below(Vec<(String, Kept)>),
}

/// What was found out of a message's notes.
#[derive(Debug, Default)]
pub(crate) struct Marks<'a> {
    pub(crate) listed: Vec<Marked<'a>>,
    pub(crate) extra: Extra,
    beyond: usize,
}

struct Walk<'n, 'a> {
    notes: &'n [Note],
    path: Vec<Step<'a>>,
    marks: Marks<'a>,
}

/// Nothing is known: all is gone through.
struct Nothing;

impl Known for Nothing {
    fn length_in(&self, _text: &str) -> usize {
        0
    }
}

// === impl Marks ===

impl<'a> Marks<'a> {
    /// Looks up the notes on a text that was read.
    pub(crate) fn of(text: &'a str, mut notes: Vec<Note>, levels: usize) -> Fast<Self> {
        notes.sort_by_key(|note| note.from);
        let mut walk = Walk { notes: &notes, path: Vec::new(), marks: Self::default() };
        walk.value(&mut Reader::new(text, levels, &Nothing), false)?;
        Ok(walk.marks)
    }

    /// Lists a value, once.
    pub(crate) fn list(&mut self, pointer: impl Into<Cow<'a, str>>, done: &'static str) {
        let pointer = pointer.into();
        if self.listed.iter().any(|(known, _)| *known == pointer) {
            return;
        }
        if self.listed.len() == LISTED {
            self.beyond += 1;
        } else {
            self.listed.push((pointer, done));
        }
    }

    /// The values that were listed; the last entry says how many more there are.
    pub(crate) fn into_listed(mut self) -> Vec<Marked<'a>> {
        if self.beyond > 0 {
            self.listed.push((Cow::Owned(format!("{} more", self.beyond)), CUT));
        }
        self.listed
    }
}

// === impl Walk ===

impl<'a> Walk<'_, 'a> {
    /// `kept`: what is below is in `extra` already.
    fn value(&mut self, json: &mut Reader<'a, '_>, mut kept: bool) -> Fast<()> {
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
                if !self.marks.extra.add(&self.path, &mended(json.between(note.from, note.end))) {
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
                self.path.push(Step::Key(key));
                self.value(json, kept)?;
                self.path.pop();
                Ok(())
            }),
            b'[' => {
                let mut place = 0;
                json.list(|json| {
                    self.path.push(Step::Entry(place));
                    self.value(json, kept)?;
                    self.path.pop();
                    place += 1;
                    Ok(())
                })
            }
            _ => json.raw().map(drop),
        }
    }
}

fn pointer(path: &[Step<'_>]) -> String {
    path.iter()
        .map(|step| match step {
            Step::Key(key) => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Step::Entry(place) => format!("/{place}"),
        })
        .collect()
}

// === impl Extra ===

impl Extra {
    /// Keeps a value, which is JSON, if there is room.
    pub(crate) fn add(&mut self, path: &[Step<'_>], json: &str) -> bool {
        let names: Vec<String> = path
            .iter()
            .map(|step| match step {
                Step::Key(key) => key.clone().into_owned(),
                Step::Entry(place) => place.to_string(),
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
            // Values come in the order of the text: what belongs together comes together.
            let known = fields.iter().position(|(known, kept)| known == name && matches!(kept, Kept::Below(_)));
            let place = known.unwrap_or_else(|| {
                self.bytes += name.len() + 6;
                fields.push((name.clone(), Kept::Below(Vec::new())));
                fields.len() - 1
            });
            match &mut fields[place].1 {
                Kept::Below(below) => fields = below,
                Kept::Value(_) => return false,
            }
        }
        self.bytes += bytes;
        fields.push((last.clone(), Kept::Value(json.to_owned())));
        true
    }

    /// All of it as one JSON object; none where there is nothing.
    pub(crate) fn into_json(mut self) -> Option<String> {
        if self.dropped > 0 {
            self.fields.push(("_dropped".to_owned(), Kept::Value(self.dropped.to_string())));
        }
        (!self.fields.is_empty()).then(|| {
            let mut text = String::with_capacity(self.bytes + 32);
            write(&self.fields, &mut text);
            text
        })
    }
}

fn write(fields: &[(String, Kept)], text: &mut String) {
    text.push('{');
    for (n, (name, kept)) in fields.iter().enumerate() {
        if n > 0 {
            text.push(',');
        }
        text.push_str(&serde_json::Value::from(name.as_str()).to_string());
        text.push(':');
        match kept {
            Kept::Value(json) => text.push_str(json),
            Kept::Below(fields) => write(fields, text),
        }
    }
    text.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_places_and_kept_under_their_pointers() {
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
        let marks = Marks::of(text, notes, 9).expect("JSON");
        assert_eq!(marks.extra.into_json().as_deref(), Some(r#"{"b/c":{"0":{"x":"12"},"1":{"y":[2, 3]}}}"#));
        let listed: Vec<(&str, &str)> = marks.listed.iter().map(|(pointer, done)| (&**pointer, *done)).collect();
        assert_eq!(listed, [("/a", BOUNDED), ("/b~1c/0/x", LEFT_OUT), ("/d/e", CUT)]);
    }

    #[test]
    fn what_has_no_room_is_counted_and_listed() {
        let text = format!(r#"{{"a":"{}","b":1}}"#, "x".repeat(EXTRA_BYTES));
        let (from, end) = (5, text.len() - 7);
        let notes =
            vec![Note { from, end, mark: Mark::Unknown }, Note { from: end + 5, end: end + 6, mark: Mark::Unknown }];
        let marks = Marks::of(&text, notes, 9).expect("JSON");
        assert_eq!(marks.listed, [(Cow::Borrowed("/a"), DROPPED)]);
        assert_eq!(marks.extra.into_json().as_deref(), Some(r#"{"b":1,"_dropped":1}"#));
    }
}
