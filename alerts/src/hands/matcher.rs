//! Label matchers in Alertmanager's notation: `task="refund"`, `rule=~"success_.*"`, `tenant!="acme"`, `release_id!~"v1\\..*"`.
//!
//! A label that an alert does not have is empty. A regular expression matches the whole value. Quotation marks may be left
//! out if the value has none of the characters `{}!=~,\"'` and no blank.

use std::collections::BTreeMap;
use std::fmt;

use bellwether_base::{Error, Result};
use regex::{Regex, RegexBuilder};

/// Most bytes of a list of matchers.
const MOST_BYTES: usize = 4096;

/// Most bytes of a compiled regular expression.
const MOST_COMPILED: usize = 1 << 20;

/// A value that no one chooses: a matcher that matches it matches about everything.
const ANYTHING: &str = "\u{F8FF}anything\u{F8FF}";

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

/// A condition on one label.
#[derive(Clone, Debug)]
pub struct Matcher {
    pub label: String,
    pub how: Match,
    pub value: String,
    regex: Option<Regex>,
}

/// Conditions that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matchers(Vec<Matcher>);

// === impl Match ===

impl Match {
    /// Returns the operator.
    pub fn operator(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }

    /// Returns true if the value is a regular expression (`isRegex` of Alertmanager).
    pub fn is_regex(self) -> bool {
        matches!(self, Self::Regex | Self::NotRegex)
    }

    /// Returns true if the value must match (`isEqual` of Alertmanager).
    pub fn is_equal(self) -> bool {
        matches!(self, Self::Equal | Self::Regex)
    }
}

// === impl Matcher ===

impl Matcher {
    /// Makes a matcher.
    ///
    /// # Errors
    /// `Config` if the regular expression is invalid or too large.
    pub fn new(label: String, how: Match, value: String) -> Result<Self> {
        let regex = match how.is_regex() {
            true => Some(compiled(&value)?),
            false => None,
        };
        Ok(Self { label, how, value, regex })
    }

    /// Returns true if the label has a value that this matcher asks for.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.accepts(labels.get(&self.label).map_or("", String::as_str))
    }

    fn accepts(&self, value: &str) -> bool {
        let found = self.regex.as_ref().map_or_else(|| self.value == value, |regex| regex.is_match(value));
        found == self.how.is_equal()
    }

    /// Returns true if any value will do, or almost any.
    fn is_open(&self) -> bool {
        self.accepts("") || self.accepts(ANYTHING)
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.label, self.how, &self.value) == (&other.label, other.how, &other.value)
    }
}

impl Eq for Matcher {}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.label.chars().all(is_plain) {
            true => f.write_str(&self.label)?,
            false => quoted(f, &self.label)?,
        }
        f.write_str(self.how.operator())?;
        quoted(f, &self.value)
    }
}

// === impl Matchers ===

impl Matchers {
    /// Parses conditions: one, several separated by commas, or such a list in braces.
    ///
    /// # Errors
    /// `Config` if the text is not in this notation.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > MOST_BYTES {
            return Err(Error::config(format!("matchers have {} bytes; at most {MOST_BYTES} are allowed", text.len())));
        }
        let inner = text.trim();
        let inner = match inner.strip_prefix('{') {
            Some(rest) => rest.strip_suffix('}').ok_or_else(|| wrong(text, "the brace is not closed"))?,
            None => inner,
        };
        let mut cursor = Cursor { whole: text, rest: inner.trim_start() };
        let mut matchers = Vec::new();
        while !cursor.rest.is_empty() {
            matchers.push(cursor.matcher()?);
            cursor.rest = cursor.rest.trim_start();
            match cursor.rest.strip_prefix(',') {
                Some(rest) => cursor.rest = rest.trim_start(),
                None if cursor.rest.is_empty() => {}
                None => return Err(wrong(text, "expected `,` between two matchers")),
            }
        }
        Ok(Self(matchers))
    }

    /// Returns the conditions of both.
    #[must_use]
    pub fn and(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }

    /// Returns true if all conditions hold.
    pub fn match_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|matcher| matcher.matches(labels))
    }

    /// Returns true if there is no condition that most alerts fail: each accepts an absent label or any value.
    pub fn match_everything(&self) -> bool {
        self.0.iter().all(Matcher::is_open)
    }

    /// Returns the conditions in order.
    pub fn iter(&self) -> impl Iterator<Item = &Matcher> {
        self.0.iter()
    }

    /// Returns true if there are no conditions.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value that a label must have, if there is such a condition.
    pub fn required(&self, label: &str) -> Option<&str> {
        let named = |matcher: &&Matcher| matcher.label == label && matcher.how == Match::Equal;
        self.0.iter().find(named).map(|matcher| matcher.value.as_str())
    }
}

impl fmt::Display for Matchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(Matcher::to_string).collect();
        write!(f, "{{{}}}", all.join(","))
    }
}

/// The rest of a text that is being parsed.
struct Cursor<'a> {
    whole: &'a str,
    rest: &'a str,
}

// === impl Cursor ===

impl Cursor<'_> {
    fn matcher(&mut self) -> Result<Matcher> {
        let label = self.word()?;
        if label.is_empty() {
            return Err(wrong(self.whole, "a label is missing"));
        }
        self.rest = self.rest.trim_start();
        let operators = [Match::Regex, Match::NotRegex, Match::NotEqual, Match::Equal];
        let Some(how) = operators.into_iter().find(|how| self.rest.starts_with(how.operator())) else {
            return Err(wrong(self.whole, "expected `=`, `!=`, `=~` or `!~` after the label"));
        };
        self.rest = self.rest[how.operator().len()..].trim_start();
        let value = self.word()?;
        Matcher::new(label, how, value)
    }

    /// Takes a word, with or without quotation marks.
    fn word(&mut self) -> Result<String> {
        let Some(rest) = self.rest.strip_prefix('"') else {
            let end = self.rest.find(|letter| !is_plain(letter)).unwrap_or(self.rest.len());
            let (word, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Ok(word.to_owned());
        };
        let (mut word, mut letters) = (String::new(), rest.char_indices());
        while let Some((place, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.rest = &rest[place + 1..];
                    return Ok(word);
                }
                '\\' => match letters.next() {
                    Some((_, 'n')) => word.push('\n'),
                    Some((_, same @ ('"' | '\\'))) => word.push(same),
                    // As in Alertmanager's older notation: the backslash of `\d` needs no second one.
                    Some((_, other)) => word.extend(['\\', other]),
                    None => break,
                },
                other => word.push(other),
            }
        }
        Err(wrong(self.whole, "a quotation mark is not closed"))
    }
}

/// Returns true for a letter that needs no quotation marks.
fn is_plain(letter: char) -> bool {
    !letter.is_whitespace() && !letter.is_control() && !"{}!=~,\\\"'`".contains(letter)
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn compiled(value: &str) -> Result<Regex> {
    RegexBuilder::new(&format!("^(?:{value})$")).dot_matches_new_line(true).size_limit(MOST_COMPILED).build().map_err(
        |source| {
            Error::config(format!("`{value}` is not a regular expression"))
                .with_hint("use the syntax of RE2, as Alertmanager does; quote special characters with a backslash")
                .with_source(source)
        },
    )
}

fn wrong(text: &str, why: &str) -> Error {
    Error::config(format!("cannot read the matcher `{text}`: {why}"))
        .with_hint("write matchers as Alertmanager does: task=\"refund\", rule=~\"success_.*\", tenant!=\"acme\"")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn parsed(text: &str) -> Matchers {
        Matchers::parse(text).expect("matchers")
    }

    #[test]
    fn each_operator_compares_as_in_alertmanager() {
        let alert = labels(&[("task", "refund"), ("rule", "success_drift")]);
        for (text, expected) in [
            ("task=\"refund\"", true),
            ("task=refund", true),
            ("task=refund_triage", false),
            ("task!=\"other\"", true),
            ("rule=~\"success_.*\"", true),
            // A regular expression matches the whole value.
            ("rule=~\"success\"", false),
            ("rule!~\"success\"", true),
            ("{ task = \"refund\" , rule =~ \"success_(drift|regression)\" }", true),
            ("task=refund,rule=cost", false),
            // An absent label is empty.
            ("tenant=\"\"", true),
            ("tenant!=acme", true),
            ("tenant=~\".+\"", false),
        ] {
            assert_eq!(parsed(text).match_labels(&alert), expected, "{text}");
        }
    }

    #[test]
    fn matchers_that_exclude_hardly_anything_match_everything() {
        for (text, expected) in [
            ("", true),
            ("{}", true),
            ("task=~\".*\"", true),
            ("task=~\".+\"", true),
            ("task!=refund", true),
            ("task=~\".*\",rule!~\"a\"", true),
            ("task=\"\"", true),
            ("task=refund", false),
            ("task=~\".*\",rule=cost", false),
            ("task=~\"refund.*\"", false),
        ] {
            assert_eq!(parsed(text).match_everything(), expected, "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_matcher_is_refused_with_the_reason() {
        for (text, why) in [
            ("task", "expected `=`"),
            ("=\"x\"", "a label is missing"),
            ("task=\"x", "quotation mark"),
            ("{task=x", "brace"),
            ("task=x rule=y", "expected `,`"),
            ("task=~\"(\"", "regular expression"),
            ("task=~\"(a{1000}){1000}\"", "regular expression"),
        ] {
            let error = Matchers::parse(text).expect_err(text);
            assert!(error.message().contains(why), "{text}: {}", error.message());
            assert!(error.hint().is_some());
        }
        assert!(Matchers::parse(&"x".repeat(5000)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(label in "[a-z.]{1,6}|[ -~]{1,6}", value in "\\PC{0,12}|[\"\\\\\n{},=a]{0,8}", equal: bool) {
            let how = if equal { Match::Equal } else { Match::NotEqual };
            let one = Matchers(vec![Matcher::new(label, how, value).expect("no regular expression")]);
            let both = one.clone().and(one);
            prop_assert_eq!(Matchers::parse(&both.to_string()).expect("its own notation"), both);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            drop(Matchers::parse(&text));
        }
    }
}
