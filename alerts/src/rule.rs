//! Rules: TOML files that say what is looked at (SQL that returns observations), what is looked for (a detector), and who
//! acts on it.
//!
//! * `rule/shipped.rs` holds those of the program; a folder of one's own adds rules, replaces them by name, or disables them.
//! * `rule/settings.rs` turns the detector of a file, and a task's contract, into [`bellwether_detect::Detector`].
//!
//! Rules kept here: one broken file is a problem of that rule and of no other; a detector that could never fire is refused
//! when it is read, with the reason.

mod settings;
mod shipped;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bellwether_lake::Table;
use serde::Deserialize;

use crate::contract::Contract;
pub use settings::{Needs, Settings};

/// Who is told, and how urgently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Somebody is woken.
    Page,
    /// Somebody looks within the day.
    Ticket,
    /// For whoever wants to know.
    Info,
}

/// Where observations come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// New rows of `metrics`, as they are committed: the query has to be a sum over rows.
    Metrics,
    /// New rows of `events`, as they are committed: the same.
    Events,
    /// The whole tables, asked anew every time.
    Tables,
}

/// What it means that a series is not in the answer of a rule on whole tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Absent {
    /// The query returns what is wrong only: a series that is not there is right.
    #[default]
    Clear,
    /// Nothing is known of it.
    Keep,
}

/// A rule as its file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    doc: String,
    severity: Severity,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    runbook: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default = "one")]
    weight: f64,
    source: Source,
    #[serde(default)]
    series: Vec<String>,
    #[serde(default)]
    strata: Vec<String>,
    #[serde(default)]
    every: Option<String>,
    #[serde(default)]
    absent: Absent,
    /// What the value is called in an alert's title.
    value: String,
    sql: String,
    detector: Settings,
}

fn one() -> f64 {
    1.0
}

/// A rule that can be watched.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Name: letters, digits and `_`.
    pub name: String,
    /// What it watches and why.
    pub doc: String,
    /// Who is told.
    pub severity: Severity,
    /// Who acts.
    pub owner: Option<String>,
    /// What to do.
    pub runbook: Option<String>,
    /// Labels that its alerts carry.
    pub labels: BTreeMap<String, String>,
    /// Its share of the severity's budget, beside the others.
    pub weight: f64,
    /// Where observations come from.
    pub source: Source,
    /// Columns that tell series apart, but for the release.
    pub series: Vec<String>,
    /// Columns that tell strata apart.
    pub strata: Vec<String>,
    /// Minutes between two evaluations of a rule on whole tables.
    pub every: i64,
    /// What a series means that is not in the answer.
    pub absent: Absent,
    /// What the value is called.
    pub value: String,
    /// The query.
    pub sql: String,
    /// What is looked for.
    pub settings: Settings,
    /// Where it comes from: a file, or `shipped`.
    pub origin: String,
}

/// A rule that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its name, or its file where it has none.
    pub name: String,
    /// Where it comes from.
    pub origin: String,
    /// What is wrong.
    pub why: String,
}

/// All rules there are.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Those that can be watched, by name.
    pub rules: Vec<Rule>,
    /// Those that cannot.
    pub broken: Vec<Broken>,
    /// Names of those that are disabled.
    pub disabled: Vec<String>,
}

// === impl Severity ===

impl Severity {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Ticket => "ticket",
            Self::Info => "info",
        }
    }
}

// === impl Source ===

impl Source {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Events => "events",
            Self::Tables => "tables",
        }
    }

    /// The table whose new rows it follows.
    pub const fn table(self) -> Option<Table> {
        match self {
            Self::Metrics => Some(Table::Metrics),
            Self::Events => Some(Table::Events),
            Self::Tables => None,
        }
    }
}

// === impl Rule ===

impl Rule {
    /// Reads one rule.
    ///
    /// # Errors
    /// What is wrong, with the line where there is one.
    pub fn parse(text: &str, origin: &str) -> Result<Self, Broken> {
        let raw: Raw = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            Broken {
                name: name_in(text).unwrap_or_else(|| origin.to_owned()),
                origin: origin.to_owned(),
                why: format!("line {line}: {}", error.message()),
            }
        })?;
        let broken = |why: String| Broken { name: raw.name.clone(), origin: origin.to_owned(), why };
        if raw.name.is_empty()
            || !raw.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        {
            return Err(broken(format!("name is `{}`; it must be of lower-case letters, digits and `_`", raw.name)));
        }
        if raw.name == crate::record::RULE_FAILING {
            return Err(broken(format!("name is `{}`, under which failing rules are told", raw.name)));
        }
        if !(raw.weight > 0.0 && raw.weight.is_finite()) {
            return Err(broken(format!("weight is `{}`; it must be above 0", raw.weight)));
        }
        let every = match &raw.every {
            None => 1,
            Some(text) => match humantime::parse_duration(text) {
                Ok(every) if every.as_secs() >= 60 => i64::try_from(every.as_secs() / 60).unwrap_or(i64::MAX),
                _ => return Err(broken(format!("every is `{text}`; it must be at least \"1m\""))),
            },
        };
        if raw.sql.trim().is_empty() {
            return Err(broken("sql is empty; it must be a query that returns observations".to_owned()));
        }
        let whole = matches!(raw.source, Source::Tables);
        if whole != raw.settings_are_plain() {
            let right = if whole {
                "a rule on whole tables is asked anew every time: its detector must be `threshold` with the column `value`"
            } else {
                "a `threshold` compares a value as it stands: its source must be `tables`"
            };
            return Err(broken(right.to_owned()));
        }
        raw.detector.check().map_err(broken)?;
        Ok(Self {
            name: raw.name,
            doc: raw.doc,
            severity: raw.severity,
            owner: raw.owner,
            runbook: raw.runbook,
            labels: raw.labels,
            weight: raw.weight,
            source: raw.source,
            series: raw.series,
            strata: raw.strata,
            every,
            absent: raw.absent,
            value: raw.value,
            sql: raw.sql.trim().trim_end_matches(';').to_owned(),
            settings: raw.detector,
            origin: origin.to_owned(),
        })
    }

    /// A rule that is not there any more, of which only its name and how urgent its alerts were is known.
    pub(crate) fn removed(name: &str, severity: &str) -> Self {
        Self {
            name: name.to_owned(),
            doc: String::new(),
            severity: if severity == "page" { Severity::Page } else { Severity::Ticket },
            owner: None,
            runbook: None,
            labels: BTreeMap::new(),
            weight: 1.0,
            source: Source::Tables,
            series: Vec::new(),
            strata: Vec::new(),
            every: 1,
            absent: Absent::Keep,
            value: String::new(),
            sql: String::new(),
            settings: Settings::Threshold { above: None, below: None, hold: None, clear: None },
            origin: String::new(),
        }
    }

    /// The columns that its query has to return.
    pub fn needs(&self) -> Needs {
        self.settings.needs()
    }

    /// The name of its kind of detector.
    pub fn settings_name(&self) -> &'static str {
        self.settings.name()
    }

    /// The contract of a series, by its task.
    pub fn contract<'a>(&self, contracts: &'a BTreeMap<String, Contract>, values: &[String]) -> Option<&'a Contract> {
        let place = self.series.iter().position(|column| column == "task")?;
        contracts.get(values.get(place)?)
    }
}

impl Raw {
    fn settings_are_plain(&self) -> bool {
        matches!(self.detector, Settings::Threshold { .. })
    }
}

/// The name that a text states, though it is no rule.
fn name_in(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("name")?.trim_start().strip_prefix('='))?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned()).filter(|name| !name.is_empty())
}

// === impl Rules ===

impl Rules {
    /// The shipped rules.
    pub fn shipped() -> Self {
        let mut rules = Self::default();
        for (file, text) in shipped::FILES {
            match Rule::parse(text, "shipped") {
                Ok(rule) => rules.rules.push(rule),
                Err(broken) => rules.broken.push(Broken { name: (*file).to_owned(), ..broken }),
            }
        }
        rules
    }

    /// The shipped rules, with the files of a folder laid over them and some disabled. Nothing here is an error: what
    /// cannot be used is in [`Rules::broken`].
    pub fn load(folder: Option<&Path>, disabled: &[String]) -> Self {
        let mut all = Self::shipped();
        if let Some(folder) = folder {
            all.lay_over(folder);
        }
        let known: BTreeSet<String> = all
            .rules
            .iter()
            .map(|rule| rule.name.clone())
            .chain(all.broken.iter().map(|broken| broken.name.clone()))
            .collect();
        for name in disabled {
            if known.contains(name) {
                all.rules.retain(|rule| rule.name != *name);
                all.broken.retain(|broken| broken.name != *name);
                all.disabled.push(name.clone());
            } else {
                let near =
                    known.iter().max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
                let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                all.broken.push(Broken {
                    name: name.clone(),
                    origin: "alerts.disabled".to_owned(),
                    why: format!("there is no rule of this name{hint}"),
                });
            }
        }
        all.rules.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn lay_over(&mut self, folder: &Path) {
        let mut own: BTreeMap<String, Rule> = BTreeMap::new();
        let mut twice: BTreeSet<String> = BTreeSet::new();
        let files = match files_of(folder) {
            Ok(files) => files,
            Err(why) => {
                let origin = folder.display().to_string();
                return self.broken.push(Broken { name: origin.clone(), origin, why });
            }
        };
        for file in files {
            let origin = file.display().to_string();
            let text = match std::fs::read_to_string(&file) {
                Ok(text) => text,
                Err(error) => {
                    self.broken.push(Broken {
                        name: origin.clone(),
                        origin,
                        why: format!("the file cannot be read: {error}"),
                    });
                    continue;
                }
            };
            match Rule::parse(&text, &origin) {
                Ok(rule) => {
                    if let Some(first) = own.get(&rule.name) {
                        let why =
                            format!("two rules have this name: `{}` and `{origin}`; neither is watched", first.origin);
                        self.broken.push(Broken { name: rule.name.clone(), origin, why });
                        twice.insert(rule.name);
                    } else {
                        own.insert(rule.name.clone(), rule);
                    }
                }
                Err(broken) => {
                    // A shipped rule that somebody meant to replace must not go on in its old form unnoticed.
                    self.rules.retain(|rule| rule.name != broken.name);
                    self.broken.push(broken);
                }
            }
        }
        self.rules.retain(|rule| !own.contains_key(&rule.name));
        self.rules.extend(own.into_values().filter(|rule| !twice.contains(&rule.name)));
    }
}

/// Rule files of a folder, in order of their names; those that end in `.test.toml` are tests.
fn files_of(folder: &Path) -> Result<Vec<std::path::PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("the folder of rules cannot be read: {error}"))?;
    let mut files: Vec<std::path::PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.ends_with(".toml") && !name.ends_with(".test.toml")
        })
        .collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = r#"
name = "mine"
doc = "Mine."
severity = "ticket"
source = "metrics"
series = ["task"]
value = "rate"
sql = "SELECT window_start, task, release_id, stage, failure AS events, runs FROM metrics"
detector = { kind = "regression" }
"#;

    #[test]
    fn every_shipped_rule_can_be_used() {
        let rules = Rules::shipped();
        assert_eq!(rules.broken, []);
        assert!(rules.rules.len() >= 25, "{}", rules.rules.len());
        for rule in &rules.rules {
            assert!(rule.doc.ends_with('.') && rule.runbook.is_some(), "{}", rule.name);
        }
    }

    #[test]
    fn every_shipped_rule_has_its_section_in_the_documentation() {
        let documentation = include_str!("../../docs/alerts.md");
        for rule in Rules::shipped().rules {
            assert!(
                documentation.contains(&format!("### {}\n\n{} *{}*", rule.name, rule.doc, rule.severity.name())),
                "{}",
                rule.name
            );
        }
    }

    fn refused(from: &str, to: &str) -> String {
        let text = RULE.replace(from, to);
        assert_ne!(text, RULE);
        Rule::parse(&text, "file.toml").expect_err("it is wrong").why
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told() {
        assert_eq!(Rule::parse(RULE, "file.toml").expect("right").name, "mine");
        assert!(refused("severity = \"ticket\"", "severity = \"loud\"").contains("line 4"));
        assert!(refused("value = \"rate\"", "vallue = \"rate\"").contains("vallue"));
        assert!(refused("\"mine\"", "\"My Rule\"").contains("lower-case letters"));
        assert!(refused("kind = \"regression\"", "kind = \"regression\", margin = -1.0").contains("margin is `-1`"));
        assert!(refused("kind = \"regression\"", "kind = \"magic\"").contains("magic"));
        assert!(refused("source = \"metrics\"", "source = \"tables\"").contains("must be `threshold`"));
        assert!(refused("kind = \"regression\"", "kind = \"threshold\", above = 1.0").contains("must be `tables`"));
        let burns = refused(
            "kind = \"regression\"",
            "kind = \"burn_rate\", objective = 0.9, windows = [{ long = \"1h\", short = \"5m\", factor = 14.4 }]",
        );
        assert!(burns.contains("which cannot be"), "{burns}");
        let never = RULE
            .replace("source = \"metrics\"", "source = \"tables\"")
            .replace("kind = \"regression\"", "kind = \"threshold\"");
        assert!(Rule::parse(&never, "x").expect_err("wrong").why.contains("can never fire"));
    }

    #[test]
    fn a_folder_adds_replaces_and_disables_and_one_broken_file_stops_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("it is written");
        write("mine.toml", RULE);
        write("success.toml", &RULE.replace("\"mine\"", "\"success_regression\""));
        write("torn.toml", "name = \"schema_regression\"\nthis is no rule");
        write("a.toml", &RULE.replace("\"mine\"", "\"twin\""));
        write("b.toml", &RULE.replace("\"mine\"", "\"twin\""));
        write("mine.test.toml", "no rule either");
        let rules =
            Rules::load(Some(folder.path()), &["latency_regression".to_owned(), "latency_regresion".to_owned()]);
        let of = |name: &str| rules.rules.iter().find(|rule| rule.name == name);
        assert!(of("mine").is_some() && of("twin").is_none() && of("latency_regression").is_none());
        assert_eq!(of("success_regression").map(|rule| rule.doc.as_str()), Some("Mine."));
        assert!(of("schema_regression").is_none(), "a rule that was to be replaced does not go on as it was");
        let why = |name: &str| {
            rules.broken.iter().find(|broken| broken.name == name).map(|broken| broken.why.clone()).unwrap_or_default()
        };
        assert!(why("schema_regression").contains("line 2"), "{:?}", rules.broken);
        assert!(why("twin").contains("two rules have this name"));
        assert!(why("latency_regresion").contains("did you mean `latency_regression`?"));
        assert_eq!(rules.broken.len(), 3);
        let none = Rules::load(Some(Path::new("/nowhere/at/all")), &[]);
        assert!(none.rules.len() >= 25 && none.broken[0].why.contains("cannot be read"));
    }
}
