//! Reads configuration values: the user's text first, then the reference, collecting every problem.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use bellwether_lake::{Error, Result};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Jaro-Winkler similarity from which a known key is suggested for an unknown one.
const SIMILAR: f64 = 0.8;

/// Tables with arbitrary keys.
const FREE: &[&str] = &["tables.options", "kafka.properties"];

/// A table that the crate `alerts` reads itself.
const CONTRACTS: &str = "contracts";

/// Source of secrets.
pub(crate) trait Secrets {
    fn env(&self, name: &str) -> Option<String>;
    fn file(&self, path: &str) -> std::io::Result<String>;
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
}

type Values<'a> = BTreeMap<String, Spanned<DeValue<'a>>>;

/// A configuration text, with the reference for its defaults.
pub(crate) struct ConfigReader<'a> {
    name: &'a str,
    text: &'a str,
    user: Values<'a>,
    defaults: Values<'a>,
    secrets: &'a dyn Secrets,
    problems: Vec<(usize, String)>,
}

// === impl ConfigReader ===

impl<'a> ConfigReader<'a> {
    /// Parses both texts and records unknown keys as problems.
    pub(crate) fn new(name: &'a str, text: &'a str, reference: &'a str, secrets: &'a dyn Secrets) -> Result<Self> {
        let parsed = DeTable::parse(text).map_err(|error| {
            let line = line_of(text, error.span().map_or(0, |span| span.start));
            Error::config(format!("{name}:{line}: {}", error.message()))
                .with_hint("write valid TOML: see https://toml.io")
        })?;
        let defaults = DeTable::parse(reference)
            .map_err(|error| Error::bug("the reference configuration is not TOML").with_source(error))?;
        let mut reader = Self {
            name,
            text,
            user: flatten(parsed.into_inner()),
            defaults: flatten(defaults.into_inner()),
            secrets,
            problems: Vec::new(),
        };
        reader.refuse_unknown(&known_keys(reference));
        Ok(reader)
    }

    fn refuse_unknown(&mut self, known: &BTreeSet<String>) {
        let unknown: Vec<(String, usize)> = self
            .user
            .iter()
            .filter(|(key, _)| !known.contains(*key) && !in_free_table(key) && *key != CONTRACTS)
            .map(|(key, value)| (key.clone(), line_of(self.text, value.span().start)))
            .collect();
        for (key, line) in unknown {
            let near = known
                .iter()
                .map(|name| (strsim::jaro_winkler(name, &key), name))
                .filter(|(score, _)| *score >= SIMILAR)
                .max_by(|a, b| a.0.total_cmp(&b.0));
            let advice = match near {
                Some((_, name)) => format!("; did you mean `{name}`?"),
                None => "; `bellwether config reference` lists all keys".to_owned(),
            };
            self.problems.push((line, format!("unknown key `{key}`{advice}")));
        }
    }

    /// Records a problem with a key's value.
    pub(crate) fn problem(&mut self, key: &str, what: &str) {
        let line = self.user.get(key).map_or(0, |value| line_of(self.text, value.span().start));
        self.problems.push((line, format!("`{key}` {what}")));
    }

    /// Returns all problems as one error.
    pub(crate) fn finish(mut self) -> Result<()> {
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

    fn value(&self, key: &str) -> Option<DeValue<'a>> {
        self.user.get(key).or_else(|| self.defaults.get(key)).map(|value| value.get_ref().clone())
    }

    fn default_of(&self, key: &str) -> Option<DeValue<'a>> {
        self.defaults.get(key).map(|value| value.get_ref().clone())
    }

    /// Reads an optional text.
    pub(crate) fn optional(&mut self, key: &str) -> Option<String> {
        let value = self.value(key)?;
        self.string(key, &value)
    }

    /// Reads a text.
    pub(crate) fn text(&mut self, key: &str) -> String {
        self.optional(key).or_else(|| self.default_of(key)?.as_str().map(str::to_owned)).unwrap_or_default()
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
    pub(crate) fn parsed<T: FromStr>(&mut self, key: &str, expected: &str) -> Option<T> {
        let text = self.optional(key)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.problem(key, &format!("is `{text}`; it must be {expected}"));
        }
        parsed
    }

    /// Reads a whole number between two bounds, both included.
    pub(crate) fn integer(&mut self, key: &str, least: u64, most: u64) -> u64 {
        let Some(value) = self.value(key) else { return least };
        let number = integer(&value);
        match number {
            Some(number) if (least..=most).contains(&number) => number,
            _ => {
                let expected =
                    if least == most { format!("{least}") } else { format!("a whole number from {least} to {most}") };
                self.problem(key, &format!("is {}; it must be {expected}", shown(&value)));
                least
            }
        }
    }

    /// Reads a number between two bounds, both included.
    pub(crate) fn number(&mut self, key: &str, least: f64, most: f64) -> f64 {
        let Some(value) = self.value(key) else { return least };
        let number = match &value {
            DeValue::Integer(_) | DeValue::Float(_) => plain(&value).replace('_', "").parse::<f64>().ok(),
            _ => None,
        };
        match number {
            Some(number) if (least..=most).contains(&number) => number,
            _ => {
                self.problem(key, &format!("is {}; it must be a number from {least} to {most}", shown(&value)));
                least
            }
        }
    }

    /// Reads true or false.
    pub(crate) fn boolean(&mut self, key: &str) -> bool {
        match self.value(key) {
            Some(DeValue::Boolean(value)) => value,
            Some(other) => {
                self.problem(key, &format!("is {}; it must be true or false", shown(&other)));
                false
            }
            None => false,
        }
    }

    /// Reads a duration such as "30s".
    pub(crate) fn duration(&mut self, key: &str, least: Duration) -> Duration {
        let Some(value) = self.value(key) else { return least };
        match value.as_str().and_then(|text| humantime::parse_duration(text).ok()) {
            Some(duration) if duration >= least => duration,
            Some(_) => {
                let shortest = humantime::format_duration(least);
                self.problem(key, &format!("is {}; it must be at least \"{shortest}\"", shown(&value)));
                least
            }
            None => {
                self.problem(key, &format!("is {}; it must be a duration such as \"30s\" or \"5m\"", shown(&value)));
                least
            }
        }
    }

    /// Reads a size in bytes: a number, or text with a unit.
    pub(crate) fn bytes(&mut self, key: &str, least: usize) -> usize {
        let Some(value) = self.value(key) else { return least };
        let bytes = match &value {
            DeValue::String(text) => parse_bytes(text),
            other => integer(other),
        };
        match bytes.and_then(|bytes| usize::try_from(bytes).ok()) {
            Some(bytes) if bytes >= least => bytes,
            Some(_) => {
                self.problem(key, &format!("is {}; it must be at least {least} bytes", shown(&value)));
                least
            }
            None => {
                self.problem(
                    key,
                    &format!("is {}; it must be a number of bytes or text such as \"64MiB\"", shown(&value)),
                );
                least
            }
        }
    }

    /// Reads a list of texts; a single text counts as a list of one.
    pub(crate) fn list(&mut self, key: &str) -> Vec<String> {
        match self.value(key) {
            Some(DeValue::Array(items)) => items.iter().filter_map(|item| self.string(key, item.get_ref())).collect(),
            Some(value) => self.string(key, &value).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// Reads a table with arbitrary keys.
    pub(crate) fn map(&mut self, table: &str) -> BTreeMap<String, String> {
        let prefix = format!("{table}.");
        let entries: Vec<(String, DeValue<'a>)> = self
            .user
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
        "kafka",
        "kafka.security",
        "kafka.properties",
        "ingest",
        "aggregate",
        "serve",
        "queries",
        "alerts",
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
