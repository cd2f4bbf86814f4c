//! Rules: TOML files with SQL that returns observations, a detector that judges them, and the people who act.
//!
//! * `rule/shipped.rs` holds the rules of the program. A folder of custom rules adds to them or replaces them by name.
//! * `rule/settings.rs` turns the detector of a file and a task's contract into a [`bellwether_detect::Detector`].
//!
//! Invariants: a broken file affects only its own rule; a detector that could never fire is refused when its file is read,
//! with the reason.

mod settings;
mod shipped;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bellwether_tables::Table;
use serde::Deserialize;

use crate::contract::Contract;
pub use settings::{DetectorSettings, Needs};

/// How urgently people must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// At once: it may wake a person.
    Page,
    /// Within the day.
    Ticket,
    /// For information.
    Info,
}

/// The rows that a rule's query reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// New rows of `metrics`, as they are committed. The query must be a sum over rows.
    Metrics,
    /// New rows of `events`, as they are committed. The query must be a sum over rows.
    Events,
    /// The whole tables, at every evaluation.
    Tables,
}

/// The meaning of a series that is missing from the result of a rule on whole tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Absent {
    /// The query returns only what is wrong: a missing series is healthy.
    #[default]
    Clear,
    /// Unknown: its state stays.
    Keep,
}

/// The keys of a rule's file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
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
    /// Name of the value in an alert's title.
    value: String,
    sql: String,
    detector: DetectorSettings,
}

fn one() -> f64 {
    1.0
}

/// A rule that can be evaluated.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Name: letters, digits and `_`.
    pub name: String,
    /// Purpose of the rule.
    pub doc: String,
    /// How urgently people must act.
    pub severity: Severity,
    /// The people who act.
    pub owner: Option<String>,
    /// The page that says what to do.
    pub runbook: Option<String>,
    /// Labels of its alerts.
    pub labels: BTreeMap<String, String>,
    /// Its share of the budget of its severity, relative to the weights of the others.
    pub weight: f64,
    /// The rows that the query reads.
    pub source: Source,
    /// Columns that tell series apart, except the release.
    pub series: Vec<String>,
    /// Columns that tell strata apart.
    pub strata: Vec<String>,
    /// Minutes between two evaluations of a rule on whole tables.
    pub every: i64,
    /// The meaning of a missing series.
    pub absent: Absent,
    /// Name of the value in an alert's title.
    pub value: String,
    /// The query.
    pub sql: String,
    /// The detector.
    pub settings: DetectorSettings,
    /// Its file, or `shipped`.
    pub origin: String,
}

/// A rule that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its name, or its file if it has none.
    pub name: String,
    /// Its file, `shipped`, or the key of the configuration that names it.
    pub origin: String,
    /// The problem.
    pub why: String,
}

/// All rules.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Rules that can be evaluated, by name.
    pub rules: Vec<Rule>,
    /// Rules that cannot.
    pub broken: Vec<Broken>,
    /// Names of disabled rules.
    pub disabled: Vec<String>,
}

// === impl Severity ===

impl Severity {
    /// Returns the name.
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
    /// Returns the name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Events => "events",
            Self::Tables => "tables",
        }
    }

    /// Returns the table whose new rows it follows; none for whole tables.
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
    /// Parses the file of a rule.
    ///
    /// # Errors
    /// Describes the problem, with its line if it has one.
    pub fn parse(text: &str, origin: &str) -> Result<Self, Broken> {
        let raw: RawRule = toml::from_str(text).map_err(|error| {
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
            return Err(broken(format!(
                "name is `{}`; it must consist of lower-case letters, digits and `_`",
                raw.name
            )));
        }
        if raw.name == crate::record::RULE_FAILING {
            return Err(broken(format!("name is `{}`, which is reserved for alerts about failing rules", raw.name)));
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
                "source is `tables`; its detector must be `threshold`, on the column `value`"
            } else {
                "detector is `threshold`; its source must be `tables`"
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

    /// Makes a rule in place of one that no longer exists: only its name and the severity of its alerts are known.
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
            settings: DetectorSettings::Threshold { above: None, below: None, hold: None, clear: None },
            origin: String::new(),
        }
    }

    /// Returns the columns that its query must return.
    pub fn needs(&self) -> Needs {
        self.settings.needs()
    }

    /// Returns the name of its kind of detector.
    pub fn settings_name(&self) -> &'static str {
        self.settings.name()
    }

    /// Returns the contract of the task of a series.
    pub fn contract<'a>(&self, contracts: &'a BTreeMap<String, Contract>, values: &[String]) -> Option<&'a Contract> {
        let place = self.series.iter().position(|column| column == "task")?;
        contracts.get(values.get(place)?)
    }
}

impl RawRule {
    fn settings_are_plain(&self) -> bool {
        matches!(self.detector, DetectorSettings::Threshold { .. })
    }
}

/// Returns the name in the text of a file that cannot be parsed.
fn name_in(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("name")?.trim_start().strip_prefix('='))?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned()).filter(|name| !name.is_empty())
}

// === impl Rules ===

impl Rules {
    /// Returns the shipped rules.
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

    /// Returns the shipped rules with those of a folder laid over them and some disabled. Rules that cannot be used are in
    /// [`Rules::broken`].
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
                    why: format!("no rule has this name{hint}"),
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
                        let why = format!(
                            "two rules have this name: `{}` and `{origin}`; neither is evaluated",
                            first.origin
                        );
                        self.broken.push(Broken { name: rule.name.clone(), origin, why });
                        twice.insert(rule.name);
                    } else {
                        own.insert(rule.name.clone(), rule);
                    }
                }
                Err(broken) => {
                    // A shipped rule that a broken file was meant to replace must not go on in its old form unnoticed.
                    self.rules.retain(|rule| rule.name != broken.name);
                    self.broken.push(broken);
                }
            }
        }
        self.rules.retain(|rule| !own.contains_key(&rule.name));
        self.rules.extend(own.into_values().filter(|rule| !twice.contains(&rule.name)));
    }
}

/// Lists the rule files of a folder by name; files that end in `.test.toml` are tests.
fn files_of(folder: &Path) -> Result<Vec<std::path::PathBuf>, String> {
    let entries =
        std::fs::read_dir(folder).map_err(|error| format!("the folder of custom rules cannot be read: {error}"))?;
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
    fn problems_of_a_file_are_reported() {
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
        assert!(burns.contains("which is impossible"), "{burns}");
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
        assert!(of("schema_regression").is_none(), "a rule whose replacement is broken does not go on as it was");
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
