//! Parameters of saved questions: their kinds, and values as literals of SQL.

use std::time::UNIX_EPOCH;

use bellwether_base::{Error, Result};

use crate::statement::quoted;

/// The default of a parameter that may be left out: null, with which a query leaves out its condition.
const ANY: &str = "any";

/// Most characters of a value.
const LONGEST: usize = 1000;

/// A parameter of a question.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name, without `$`.
    pub name: String,
    /// Value if none is given; a question cannot be asked without those that have none.
    pub default: Option<String>,
    /// Its meaning.
    pub doc: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Number,
    /// A moment, or a duration before now.
    Time,
    OneOf(Vec<String>),
}

/// Parses a moment, or a duration before now, into microseconds since the epoch.
///
/// # Errors
/// `Config` if the text is neither.
pub fn since(text: &str, now: i64) -> Result<i64> {
    // A day stands for its beginning.
    let day = text.len() == "2026-11-12".len() && text.contains('-');
    let moment = if day {
        humantime::parse_rfc3339_weak(&format!("{text}T00:00:00"))
    } else {
        humantime::parse_rfc3339_weak(text)
    };
    if let Ok(time) = moment {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        return Ok(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX));
    }
    let ago = humantime::parse_duration(text).map_err(|_| {
        Error::config(format!("`{text}` is neither a time nor a duration"))
            .with_hint("give a time such as 2026-11-12T08:00:00Z, or a duration before now such as 6h")
    })?;
    Ok(now.saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX)))
}

// === impl Parameter ===

impl Parameter {
    /// Parses `NAME KIND = DEFAULT: MEANING`; the default may be left out.
    pub(super) fn parse(declaration: &str) -> Result<Self> {
        let malformed = || {
            Error::config(format!("cannot read the parameter `{declaration}`"))
                .with_hint("write -- param NAME text|integer|number|time|WORD|WORD = DEFAULT: MEANING")
        };
        let (head, doc) = declaration.split_once(": ").ok_or_else(malformed)?;
        let (head, default) = match head.split_once(" = ") {
            Some((head, default)) => (head, Some(default.trim().to_owned())),
            None => (head, None),
        };
        let [name, kind] = head.split_whitespace().collect::<Vec<_>>()[..] else { return Err(malformed()) };
        let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        let kind = match kind {
            "text" => Kind::Text,
            "integer" => Kind::Integer,
            "number" => Kind::Number,
            "time" => Kind::Time,
            words if words.contains('|') => Kind::OneOf(words.split('|').map(str::to_owned).collect()),
            _ => return Err(malformed()),
        };
        if !is_name || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
            return Err(Error::config(format!("`{name}` is no name of a parameter"))
                .with_hint("use small letters, digits and _, and begin with a letter"));
        }
        let parameter = Self { name: name.to_owned(), default, doc: doc.trim().to_owned(), kind };
        if parameter.default.is_some() {
            parameter.literal(None, 0)?;
        }
        Ok(parameter)
    }

    /// Returns the kind in words.
    pub fn kind(&self) -> String {
        match &self.kind {
            Kind::Text => "text".to_owned(),
            Kind::Integer => "integer".to_owned(),
            Kind::Number => "number".to_owned(),
            Kind::Time => "time or duration before now".to_owned(),
            Kind::OneOf(words) => words.join(", "),
        }
    }

    /// Returns the words of which the value is one, if the parameter takes no others.
    pub fn words(&self) -> Option<&[String]> {
        match &self.kind {
            Kind::OneOf(words) => Some(words),
            _ => None,
        }
    }

    /// Returns a value, or the default, as a literal.
    pub(super) fn literal(&self, value: Option<&str>, now_micros: i64) -> Result<String> {
        let Some(text) = value.or(self.default.as_deref()) else {
            return Err(Error::config(format!("parameter `{}` is missing: {}", self.name, self.doc))
                .with_hint(format!("add --param {}=VALUE", self.name)));
        };
        if value.is_none() && text == ANY {
            return Ok("NULL".to_owned());
        }
        let is_not = |kind: &str, hint: &str| {
            let shown: String = text.chars().take(60).collect();
            Error::config(format!("parameter `{}` is `{shown}`, which is not {kind}", self.name)).with_hint(hint)
        };
        if text.chars().count() > LONGEST {
            return Err(is_not("short enough", &format!("give at most {LONGEST} characters")));
        }
        match &self.kind {
            Kind::Text => Ok(quoted(text)),
            Kind::Integer => {
                let number: i64 = text.parse().map_err(|_| is_not("an integer", "give digits only, such as 20"))?;
                Ok(number.to_string())
            }
            Kind::Number => {
                let number: Option<f64> = text.parse().ok().filter(|number: &f64| number.is_finite());
                let number = number.ok_or_else(|| is_not("a number", "write it as 4.50"))?;
                Ok(format!("CAST({number:?} AS DOUBLE)"))
            }
            Kind::Time => {
                let micros =
                    since(text, now_micros).map_err(|error| is_not("a time", error.hint().unwrap_or_default()))?;
                let time = chrono::DateTime::from_timestamp_micros(micros)
                    .ok_or_else(|| is_not("a time within range", "give a shorter duration"))?;
                Ok(quoted(&time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)))
            }
            Kind::OneOf(words) if words.iter().any(|word| word == text) => Ok(quoted(text)),
            Kind::OneOf(words) => Err(is_not("one of its values", &format!("give one of {}", words.join(", ")))),
        }
    }
}
