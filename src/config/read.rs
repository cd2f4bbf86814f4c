//! Reads the values of a configuration and collects every problem. A value that is missing or invalid is its default.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use bellwether_base::{Error, Result};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Jaro-Winkler similarity from which a known key is suggested for an unknown one.
const SIMILAR: f64 = 0.8;

/// Tables with arbitrary keys.
const FREE: &[&str] = &["tables.options", "kafka.properties", "kafka.security.extensions"];

/// Tables that the crates `alerts` and `deliver` read themselves.
const READ_ELSEWHERE: [&str; 2] = ["contracts", "deliver"];

/// Source of secrets, and of what the machine offers.
pub(crate) trait Secrets {
    fn env(&self, name: &str) -> Option<String>;
    fn file(&self, path: &str) -> std::io::Result<String>;
    /// Returns the memory that this process may use, bytes; none if that is not known.
    fn usable_bytes(&self) -> Option<usize> {
        None
    }
}

/// The environment and files of the process.
pub(crate) struct Environment;

impl Secrets for Environment {
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> std::io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn usable_bytes(&self) -> Option<usize> {
        crate::budget::usable_bytes()
    }
}

type Values<'a> = BTreeMap<String, Spanned<DeValue<'a>>>;

/// A configuration text. The reference says which keys exist.
pub(crate) struct ConfigReader<'a> {
    name: &'a str,
    text: &'a str,
    values: Values<'a>,
    known: BTreeSet<String>,
    /// Known keys that have not been asked for yet.
    unread: BTreeSet<String>,
    secrets: &'a dyn Secrets,
    problems: Vec<(usize, String)>,
}

// === impl ConfigReader ===

impl<'a> ConfigReader<'a> {
    /// Parses a text and records unknown keys as problems.
    pub(crate) fn new(name: &'a str, text: &'a str, reference: &str, secrets: &'a dyn Secrets) -> Result<Self> {
        let parsed = DeTable::parse(text).map_err(|error| {
            let line = line_of(text, error.span().map_or(0, |span| span.start));
            Error::config(format!("{name}:{line}: {}", error.message()))
                .with_hint("write valid TOML: see https://toml.io")
        })?;
        let known = known_keys(reference);
        let (values, unread) = (flatten(parsed.into_inner()), known.clone());
        let mut reader = Self { name, text, values, known, unread, secrets, problems: Vec::new() };
        reader.refuse_unknown();
        Ok(reader)
    }

    fn refuse_unknown(&mut self) {
        let is_known = |key: &str| self.known.contains(key) || in_free_table(key) || READ_ELSEWHERE.contains(&key);
        let unknown = self.values.iter().filter(|(key, _)| !is_known(key));
        let problems = unknown.map(|(key, value)| {
            let near = self
                .known
                .iter()
                .map(|name| (strsim::jaro_winkler(name, key), name))
                .filter(|(score, _)| *score >= SIMILAR)
                .max_by(|a, b| a.0.total_cmp(&b.0));
            let advice = match near {
                Some((_, name)) => format!("; did you mean `{name}`?"),
                None => "; `bellwether config reference` lists all keys".to_owned(),
            };
            (line_of(self.text, value.span().start), format!("unknown key `{key}`{advice}"))
        });
        self.problems = problems.collect();
    }

    /// Records a problem with a key's value.
    pub(crate) fn problem(&mut self, key: &str, what: &str) {
        let line = self.values.get(key).map_or(0, |value| line_of(self.text, value.span().start));
        self.problems.push((line, format!("`{key}` {what}")));
    }

    /// Returns all problems as one error.
    pub(crate) fn finish(mut self) -> Result<()> {
        debug_assert!(self.unread.is_empty(), "keys of the reference that nothing reads: {:?}", self.unread);
        self.problems.sort();
        self.problems.dedup();
        let lines: Vec<String> = self
            .problems
            .iter()
            .map(|(line, what)| match line {
                0 => format!("{}: {what}", self.name),
                line => format!("{}:{line}: {what}", self.name),
            })
            .collect();
        match lines.as_slice() {
            [] => Ok(()),
            [one] => Err(Error::config(one.clone())),
            many => {
                Err(Error::config(format!("the configuration has {} problems\n  {}", many.len(), many.join("\n  "))))
            }
        }
    }

    fn value(&mut self, key: &str) -> Option<DeValue<'a>> {
        debug_assert!(self.known.contains(key), "`{key}` is not in the reference");
        self.unread.remove(key);
        self.values.get(key).map(|value| value.get_ref().clone())
    }

    /// Reads an optional text.
    pub(crate) fn optional(&mut self, key: &str) -> Option<String> {
        let value = self.value(key)?;
        self.string(key, &value)
    }

    /// Reads a text.
    pub(crate) fn text(&mut self, key: &str, default: &str) -> String {
        self.optional(key).unwrap_or_else(|| default.to_owned())
    }

    /// Reads an optional secret, which must be in a file or the environment. Messages do not show it.
    pub(crate) fn secret_only(&mut self, key: &str) -> Option<String> {
        match self.value(key)? {
            DeValue::Table(table) => self.secret(key, &table),
            _ => {
                self.problem(key, "is in the configuration itself; use { file = \"…\" } or { env = \"…\" }");
                None
            }
        }
    }

    fn string(&mut self, key: &str, value: &DeValue<'_>) -> Option<String> {
        match value {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Table(table) => self.secret(key, table),
            other => {
                self.problem(key, &format!("is {}; it must be text, as in \"…\"", kind(other)));
                None
            }
        }
    }

    fn secret(&mut self, key: &str, table: &DeTable<'_>) -> Option<String> {
        let mut entries = table.iter();
        let (Some((from, place)), None) = (entries.next(), entries.next()) else {
            self.problem(key, "must be text, { file = \"…\" } or { env = \"…\" }");
            return None;
        };
        let place = place.get_ref().as_str().unwrap_or_default().to_owned();
        let from: &str = from.get_ref().as_ref();
        match from {
            "env" => {
                let found = self.secrets.env(&place);
                if found.is_none() {
                    self.problem(key, &format!("reads the environment variable `{place}`, which is not set"));
                }
                found
            }
            "file" => match self.secrets.file(&place) {
                Ok(text) => Some(text.trim_end_matches(['\n', '\r']).to_owned()),
                Err(error) => {
                    self.problem(key, &format!("reads the file `{place}`, which cannot be read ({error})"));
                    None
                }
            },
            other => {
                self.problem(key, &format!("has `{other}`; a secret is {{ file = \"…\" }} or {{ env = \"…\" }}"));
                None
            }
        }
    }

    /// Reads one of several words.
    pub(crate) fn choice(&mut self, key: &str, allowed: &[&str]) -> Option<String> {
        let text = self.optional(key)?;
        if allowed.contains(&text.as_str()) {
            return Some(text);
        }
        self.problem(key, &format!("is `{text}`; it must be one of `{}`", allowed.join("`, `")));
        None
    }

    /// Reads a text that parses as `T`; `expected` describes it.
    pub(crate) fn parsed<T: FromStr>(&mut self, key: &str, expected: &str, default: T) -> T {
        self.parsed_if_given(key, expected).unwrap_or(default)
    }

    /// Reads an optional value that is written as text.
    pub(crate) fn parsed_if_given<T: FromStr>(&mut self, key: &str, expected: &str) -> Option<T> {
        let text = self.optional(key)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.problem(key, &format!("is `{text}`; it must be {expected}"));
        }
        parsed
    }

    /// Reads a whole number.
    pub(crate) fn integer(&mut self, key: &str, range: RangeInclusive<u64>, default: u64) -> u64 {
        let Some(value) = self.value(key) else { return default };
        match integer(&value) {
            Some(number) if range.contains(&number) => number,
            _ => {
                let (least, most) = range.into_inner();
                let expected =
                    if least == most { format!("{least}") } else { format!("a whole number from {least} to {most}") };
                self.problem(key, &format!("is {}; it must be {expected}", shown(&value)));
                default
            }
        }
    }

    /// Reads a whole number into a narrower type, which holds all of `range`.
    pub(crate) fn number_of<T: TryFrom<u64> + Copy>(&mut self, key: &str, range: RangeInclusive<u64>, default: T) -> T
    where
        u64: TryFrom<T>,
    {
        let wide = u64::try_from(default).unwrap_or(*range.start());
        T::try_from(self.integer(key, range, wide)).unwrap_or(default)
    }

    /// Reads a number.
    pub(crate) fn number(&mut self, key: &str, range: RangeInclusive<f64>, default: f64) -> f64 {
        let Some(value) = self.value(key) else { return default };
        let number = match &value {
            DeValue::Integer(_) | DeValue::Float(_) => plain(&value).replace('_', "").parse::<f64>().ok(),
            _ => None,
        };
        match number {
            Some(number) if range.contains(&number) => number,
            _ => {
                let (least, most) = range.into_inner();
                self.problem(key, &format!("is {}; it must be a number from {least} to {most}", shown(&value)));
                default
            }
        }
    }

    /// Reads true or false.
    pub(crate) fn boolean(&mut self, key: &str, default: bool) -> bool {
        match self.value(key) {
            Some(DeValue::Boolean(value)) => value,
            Some(other) => {
                self.problem(key, &format!("is {}; it must be true or false", shown(&other)));
                default
            }
            None => default,
        }
    }

    /// Reads a duration such as "30s".
    pub(crate) fn duration(&mut self, key: &str, least: Duration, default: Duration) -> Duration {
        let Some(value) = self.value(key) else { return default };
        match value.as_str().and_then(|text| humantime::parse_duration(text).ok()) {
            Some(duration) if duration >= least => return duration,
            Some(_) => {
                let shortest = humantime::format_duration(least);
                self.problem(key, &format!("is {}; it must be at least \"{shortest}\"", shown(&value)));
            }
            None => {
                self.problem(key, &format!("is {}; it must be a duration such as \"30s\" or \"5m\"", shown(&value)));
            }
        }
        default
    }

    /// Reads a duration as microseconds.
    pub(crate) fn micros(&mut self, key: &str, least: Duration, default: i64) -> i64 {
        let default = Duration::from_micros(default.unsigned_abs());
        i64::try_from(self.duration(key, least, default).as_micros()).unwrap_or(i64::MAX)
    }

    /// Reads a size in bytes: a number, or text with a unit.
    pub(crate) fn bytes(&mut self, key: &str, least: usize, default: usize) -> usize {
        let Some(value) = self.value(key) else { return default };
        let bytes = match &value {
            DeValue::String(text) => parse_bytes(text),
            other => integer(other),
        };
        match bytes.and_then(|bytes| usize::try_from(bytes).ok()) {
            Some(bytes) if bytes >= least => return bytes,
            Some(_) => self.problem(key, &format!("is {}; it must be at least {least} bytes", shown(&value))),
            None => {
                let expected = "a number of bytes or text such as \"64MiB\"";
                self.problem(key, &format!("is {}; it must be {expected}", shown(&value)));
            }
        }
        default
    }

    /// Reads a list of texts; a single text counts as a list of one.
    pub(crate) fn list(&mut self, key: &str, default: &[String]) -> Vec<String> {
        match self.value(key) {
            Some(DeValue::Array(items)) => items.iter().filter_map(|item| self.string(key, item.get_ref())).collect(),
            Some(value) => self.string(key, &value).into_iter().collect(),
            None => default.to_vec(),
        }
    }

    /// Returns true if the configuration has a key, whatever its value.
    pub(crate) fn is_given(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Reads a table with arbitrary keys.
    pub(crate) fn map(&mut self, table: &str) -> BTreeMap<String, String> {
        let prefix = format!("{table}.");
        let entries: Vec<(String, DeValue<'a>)> = self
            .values
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix))
            .map(|(key, value)| (key.clone(), value.get_ref().clone()))
            .collect();
        let mut map = BTreeMap::new();
        for (key, value) in entries {
            let text = match &value {
                DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => Some(plain(&value)),
                other => self.string(&key, other),
            };
            if let Some(text) = text {
                map.insert(key[prefix.len()..].to_owned(), text);
            }
        }
        map
    }
}

fn in_free_table(key: &str) -> bool {
    FREE.iter().any(|table| key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.')))
}

/// Returns all keys of the reference, including those in comments.
fn known_keys(reference: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut table = String::new();
    for line in reference.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = format!("{name}.");
            continue;
        }
        let Some((key, _)) = line.strip_prefix("# ").unwrap_or(line).split_once(" = ") else { continue };
        if key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && !in_free_table(&format!("{table}{key}"))
        {
            keys.insert(format!("{table}{key}"));
        }
    }
    keys
}

/// Returns the leaves of a table by their dotted path. A secret `{ file = … }` is a leaf, as is a table inside a free one.
fn flatten(table: DeTable<'_>) -> Values<'_> {
    const TABLES: &[&str] = &[
        "tables",
        "tables.options",
        "memory",
        "kafka",
        "kafka.security",
        "kafka.security.extensions",
        "kafka.properties",
        "ingest",
        "redaction",
        "aggregate",
        "rollup",
        "serve",
        "queries",
        "alerts",
        "evals",
        "api",
        "gate",
        "links",
        "heartbeat",
        "maintain",
        "retention",
    ];
    fn walk<'a>(prefix: &str, table: DeTable<'a>, values: &mut Values<'a>) {
        for (key, value) in table {
            let key: &str = key.get_ref().as_ref();
            let path = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
            let span = value.span();
            match value.into_inner() {
                DeValue::Table(inner) if TABLES.contains(&path.as_str()) => walk(&path, inner, values),
                other => {
                    values.insert(path, Spanned::new(span, other));
                }
            }
        }
    }
    let mut values = Values::new();
    walk("", table, &mut values);
    values
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    match value {
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    }
}

pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    const UNITS: &[(&str, u64)] =
        &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("kB", 1000), ("MB", 1_000_000), ("GB", 1_000_000_000)];
    let (number, unit) = UNITS
        .iter()
        .find_map(|(unit, bytes)| text.strip_suffix(unit).map(|number| (number, *bytes)))
        .unwrap_or((text, 1));
    number.trim().parse::<u64>().ok()?.checked_mul(unit)
}

fn plain(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        _ => kind(value).to_owned(),
    }
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Array(_) | DeValue::Table(_) | DeValue::Datetime(_) => kind(value).to_owned(),
        other => format!("`{}`", plain(other)),
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
