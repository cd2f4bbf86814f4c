//! Conditions on the labels of an alert, as routes and maintenance windows state them.

use std::collections::BTreeMap;

use bellwether_evidence::AlertRecord;
use regex::Regex;
use serde::Deserialize;

/// Longest pattern. Longer ones are lists that belong into a list of values.
const LONGEST: usize = 1000;

/// A condition as written: one value or several.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum RawCondition {
    One(String),
    Any(Vec<String>),
}

/// One pattern for a value.
#[derive(Clone, Debug)]
enum Pattern {
    Equal(String),
    /// The text, and the expression that it means.
    Matches(String, Regex),
}

/// Conditions on labels, all of which must hold. None at all hold for every alert.
#[derive(Clone, Debug, Default)]
pub struct Matcher(BTreeMap<String, Vec<Pattern>>);

// === impl Pattern ===

impl Pattern {
    /// Reads a value: `/…/` is a regular expression, a text with `*` or `?` a glob, and any other text itself.
    fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("has {} characters; it may have {LONGEST}", text.len()));
        }
        let inner = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')).filter(|inner| !inner.is_empty());
        let expression = match inner {
            Some(inner) => inner.to_owned(),
            None if text.contains(['*', '?']) => regex::escape(text).replace(r"\*", ".*").replace(r"\?", "."),
            None => return Ok(Self::Equal(text.to_owned())),
        };
        match Regex::new(&format!("(?s)^(?:{expression})$")) {
            Ok(compiled) => Ok(Self::Matches(text.to_owned(), compiled)),
            Err(_) => Err(format!("`{text}` is no regular expression")),
        }
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Equal(text) => text == value,
            Self::Matches(_, expression) => expression.is_match(value),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Equal(text) | Self::Matches(text, _) => text,
        }
    }
}

// === impl Matcher ===

impl Matcher {
    /// Reads conditions.
    ///
    /// # Errors
    /// Every problem in one sentence, without the place.
    pub(crate) fn parse(raw: &BTreeMap<String, RawCondition>) -> Result<Self, Vec<String>> {
        let (mut conditions, mut problems) = (BTreeMap::new(), Vec::new());
        for (label, condition) in raw {
            let values = match condition {
                RawCondition::One(value) => std::slice::from_ref(value),
                RawCondition::Any(values) => values.as_slice(),
            };
            if values.is_empty() {
                problems.push(format!("`{label}` has no values, so that no alert matches; name one or leave it out"));
            }
            let mut patterns = Vec::new();
            for value in values {
                match Pattern::parse(value) {
                    Ok(pattern) => patterns.push(pattern),
                    Err(why) => problems.push(format!("`{label}`: {why}")),
                }
            }
            let known = ["page", "ticket", "info"];
            if label == "severity" && !patterns.is_empty() && !known.iter().any(|name| any(&patterns, name)) {
                problems.push(format!(
                    "`severity` is `{}`, so that no alert matches; it must be one of `page`, `ticket`, `info`",
                    patterns.iter().map(Pattern::text).collect::<Vec<_>>().join("`, `")
                ));
            }
            conditions.insert(label.clone(), patterns);
        }
        if problems.is_empty() { Ok(Self(conditions)) } else { Err(problems) }
    }

    /// Returns the conditions of alerts with one of these severities.
    pub(crate) fn severities(names: &[&str]) -> Self {
        let patterns = names.iter().map(|name| Pattern::Equal((*name).to_owned())).collect();
        Self(BTreeMap::from([("severity".to_owned(), patterns)]))
    }

    /// Returns true if the alert fulfils all conditions.
    pub fn matches(&self, alert: &AlertRecord) -> bool {
        self.0.iter().all(|(label, patterns)| any(patterns, alert.label(label)))
    }

    /// Returns true if every alert fulfils the conditions.
    pub fn is_everything(&self) -> bool {
        let all = |pattern: &Pattern| pattern.text().chars().all(|c| c == '*') || matches!(pattern.text(), "/.*/");
        self.0.values().all(|patterns| patterns.iter().any(all))
    }
}

fn any(patterns: &[Pattern], value: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(text: &str) -> Result<Matcher, Vec<String>> {
        Matcher::parse(&toml::from_str(text).expect("TOML"))
    }

    fn alert() -> AlertRecord {
        AlertRecord {
            rule: "success_regression".to_owned(),
            severity: "page".to_owned(),
            task: Some("refund_triage".to_owned()),
            labels: BTreeMap::from([("area".to_owned(), "quality".to_owned())]),
            ..AlertRecord::default()
        }
    }

    #[test]
    fn values_are_equal_one_of_several_globs_or_expressions() {
        for (text, expected) in [
            ("", true),
            ("task = \"refund_triage\"", true),
            ("task = \"refund\"", false),
            ("task = [\"other\", \"refund_triage\"]", true),
            ("task = \"refund_*\"", true),
            ("task = \"*fund\"", false),
            ("task = \"refund?triage\"", true),
            ("rule = \"/success_(regression|drift)/\"", true),
            ("rule = \"/regression/\"", false),
            ("area = \"quality\"\nseverity = \"page\"", true),
            ("area = \"quality\"\nseverity = \"ticket\"", false),
            ("tenant = \"\"", true),
            ("tenant = \"?*\"", false),
        ] {
            assert_eq!(matcher(text).expect("valid").matches(&alert()), expected, "{text}");
        }
    }

    #[test]
    fn conditions_that_no_alert_fulfils_are_problems() {
        for (text, part) in [
            ("task = []", "no values"),
            ("severity = \"critical\"", "`critical`"),
            ("task = \"/(/\"", "`/(/` is no regular expression"),
        ] {
            assert!(matcher(text).expect_err("refused")[0].contains(part), "{text}");
        }
        assert!(matcher(&format!("task = \"{}\"", "x".repeat(1001))).is_err());
    }

    #[test]
    fn conditions_that_every_alert_fulfils_are_recognised() {
        assert!(matcher("").expect("valid").is_everything());
        assert!(matcher("task = \"*\"").expect("valid").is_everything());
        assert!(!matcher("task = \"?*\"").expect("valid").is_everything());
    }
}
