//! The section `[deliver]` of a configuration: sinks, routes and maintenance windows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use chrono::DateTime;
use serde::Deserialize;

use crate::hours::Hours;
use crate::matcher::{Matcher, RawCondition};
use crate::route::{Maintenance, Period, Route};

/// Name of the route of a configuration without routes.
pub const DEFAULT_ROUTE: &str = "default";

/// Time for which the first message of a group waits for further alerts, unless the route says otherwise. Short, because a page
/// should arrive within seconds.
const GROUP_WAIT: Duration = Duration::from_secs(10);

/// Least time between two messages about a group, unless the route says otherwise.
const GROUP_INTERVAL: Duration = Duration::from_secs(60);

/// Least time between two repetitions.
const LEAST_REPEAT: Duration = Duration::from_secs(60);

/// Jaro-Winkler similarity from which a known name is suggested for an unknown one.
const SIMILAR: f64 = 0.8;

/// The section, validated.
#[derive(Clone, Default)]
pub struct DeliverSettings {
    /// Settings of each sink by its name, as written.
    pub sinks: BTreeMap<String, toml::Value>,
    /// Routes in order.
    pub routes: Vec<Route>,
    /// Maintenance windows.
    pub maintenance: Vec<Maintenance>,
}

/// Shows only the names of the sinks: their settings may hold secrets.
impl fmt::Debug for DeliverSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("DeliverSettings");
        shown.field("sinks", &self.sinks.keys());
        shown.field("routes", &self.routes).field("maintenance", &self.maintenance).finish()
    }
}

#[derive(Deserialize)]
struct RawFile {
    #[serde(default)]
    deliver: RawDeliver,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDeliver {
    #[serde(default)]
    sinks: BTreeMap<String, toml::Value>,
    #[serde(default)]
    routes: Vec<RawRoute>,
    #[serde(default)]
    maintenance: Vec<RawMaintenance>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoute {
    name: String,
    #[serde(default, rename = "match")]
    conditions: BTreeMap<String, RawCondition>,
    hours: Option<String>,
    weekdays: Option<Vec<String>>,
    time_zone: Option<String>,
    sinks: Vec<String>,
    #[serde(default, rename = "continue")]
    goes_on: bool,
    #[serde(default)]
    group_by: Vec<String>,
    group_wait: Option<String>,
    group_interval: Option<String>,
    repeat_interval: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMaintenance {
    name: String,
    #[serde(default, rename = "match")]
    conditions: BTreeMap<String, RawCondition>,
    from: Option<toml::Value>,
    until: Option<toml::Value>,
    hours: Option<String>,
    weekdays: Option<Vec<String>>,
    time_zone: Option<String>,
}

// === impl DeliverSettings ===

impl DeliverSettings {
    /// Reads the section of a configuration; without it, nothing is delivered. Does no I/O.
    ///
    /// # Errors
    /// Every problem found, each in one sentence.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let (settings, problems) = Self::read(text);
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    /// Reads the section of a configuration as far as it is valid, with every problem found, each in one sentence. Does no I/O.
    pub fn read(text: &str) -> (Self, Vec<String>) {
        let file: RawFile = match toml::from_str(text) {
            Ok(file) => file,
            Err(error) => return (Self::default(), vec![error.message().to_owned()]),
        };
        let RawDeliver { sinks, routes, maintenance } = file.deliver;
        let mut problems = Vec::new();
        let mut settings = Self::default();
        if !routes.is_empty() && sinks.is_empty() {
            problems.push("`deliver.routes` is set, but there is no sink; add one under `deliver.sinks`".to_owned());
        }
        for raw in routes {
            match route(raw, &sinks) {
                Ok(route) => settings.routes.push(route),
                Err(more) => problems.extend(more),
            }
        }
        for raw in maintenance {
            match window(raw) {
                Ok(window) => settings.maintenance.push(window),
                Err(more) => problems.extend(more),
            }
        }
        settings.sinks = sinks;
        if problems.is_empty() && settings.routes.is_empty() && !settings.sinks.is_empty() {
            settings.routes.push(Route::to_all(DEFAULT_ROUTE, settings.sinks.keys().cloned().collect()));
        }
        problems.extend(settings.unreachable());
        (settings, problems)
    }

    /// Returns true if there is somewhere to deliver to.
    pub fn delivers(&self) -> bool {
        !self.sinks.is_empty()
    }

    /// Returns a route by its name.
    pub fn route(&self, name: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.name == name)
    }

    /// Returns what is allowed and hardly meant, each in one sentence.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for window in self.maintenance.iter().filter(|window| window.matcher.is_everything()) {
            warnings
                .push(format!("maintenance window `{}` matches every alert: no page is sent during it", window.name));
        }
        let used: BTreeSet<&String> = self.routes.iter().flat_map(|route| &route.sinks).collect();
        for sink in self.sinks.keys().filter(|sink| !used.contains(sink)) {
            warnings.push(format!("sink `{sink}` is in no route: nothing is sent to it"));
        }
        warnings
    }

    /// Returns the problems of routes with each other: equal names, and routes that no alert reaches.
    fn unreachable(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut names = BTreeSet::new();
        let mut stops: Option<&str> = None;
        for route in &self.routes {
            if !names.insert(route.name.as_str()) {
                problems
                    .push(format!("there are two routes `{}` in `deliver.routes`; give each its own name", route.name));
            }
            if let Some(earlier) = stops {
                problems.push(format!(
                    "no alert reaches route `{}`, because route `{earlier}` before it takes every alert; move it, or set \
                     `continue = true` there",
                    route.name
                ));
            }
            if !route.goes_on && route.hours.is_none() && route.matcher.is_everything() {
                stops = stops.or(Some(&route.name));
            }
        }
        problems
    }
}

fn route(raw: RawRoute, sinks: &BTreeMap<String, toml::Value>) -> Result<Route, Vec<String>> {
    let name = raw.name;
    let mut problems = Vec::new();
    let mut problem = |what: String| problems.push(format!("route `{name}` in `deliver.routes`: {what}"));
    if name.is_empty() {
        problem("`name` is empty; give it a name".to_owned());
    }
    if raw.sinks.is_empty() {
        problem("`sinks` is empty; name at least one".to_owned());
    }
    for sink in raw.sinks.iter().filter(|sink| !sinks.contains_key(*sink)) {
        let near = sinks.keys().map(|known| (strsim::jaro_winkler(known, sink), known));
        let near = near.filter(|(score, _)| *score >= SIMILAR).max_by(|a, b| a.0.total_cmp(&b.0));
        let advice = match near {
            Some((_, known)) => format!("did you mean `{known}`?"),
            None => "add it under `deliver.sinks`".to_owned(),
        };
        problem(format!("there is no sink `{sink}`; {advice}"));
    }
    let matcher = Matcher::parse(&raw.conditions).unwrap_or_else(|more| {
        more.into_iter().for_each(|what| problem(format!("`match`: {what}")));
        Matcher::default()
    });
    let hours = Hours::parse(raw.hours.as_deref(), raw.weekdays.as_deref(), raw.time_zone.as_deref());
    let hours = hours.unwrap_or_else(|more| {
        more.into_iter().for_each(&mut problem);
        None
    });
    let grouped = !raw.group_by.is_empty();
    let mut duration = |key: &str, text: Option<String>, least: Duration| {
        let text = text?;
        match humantime::parse_duration(&text) {
            Ok(duration) if duration >= least => return Some(duration),
            Ok(_) => problem(format!("`{key}` is `{text}`; it must be at least {}", humantime::format_duration(least))),
            Err(_) => problem(format!("`{key}` is `{text}`; it must be a duration such as \"30s\" or \"5m\"")),
        }
        None
    };
    let usual = |duration: Duration| if grouped { duration } else { Duration::ZERO };
    let group_wait = duration("group_wait", raw.group_wait, Duration::ZERO).unwrap_or(usual(GROUP_WAIT));
    let group_interval =
        duration("group_interval", raw.group_interval, Duration::ZERO).unwrap_or(usual(GROUP_INTERVAL));
    let repeat_interval = duration("repeat_interval", raw.repeat_interval, LEAST_REPEAT);
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Route {
        name,
        matcher,
        hours,
        sinks: raw.sinks,
        goes_on: raw.goes_on,
        group_by: raw.group_by,
        group_wait,
        group_interval,
        repeat_interval,
    })
}

fn window(raw: RawMaintenance) -> Result<Maintenance, Vec<String>> {
    let name = raw.name;
    let mut problems = Vec::new();
    let mut problem = |what: String| problems.push(format!("window `{name}` in `deliver.maintenance`: {what}"));
    let matcher = Matcher::parse(&raw.conditions).unwrap_or_else(|more| {
        more.into_iter().for_each(|what| problem(format!("`match`: {what}")));
        Matcher::default()
    });
    let hours = Hours::parse(raw.hours.as_deref(), raw.weekdays.as_deref(), raw.time_zone.as_deref());
    let hours = hours.unwrap_or_else(|more| {
        more.into_iter().for_each(&mut problem);
        None
    });
    let has_span = raw.from.is_some() || raw.until.is_some();
    let mut moment = |key: &str, value: Option<toml::Value>| {
        let found = value.as_ref().and_then(micros);
        if found.is_none() {
            let shown = value.map_or_else(|| "missing".to_owned(), |value| format!("`{value}`"));
            problem(format!("`{key}` is {shown}; it must be a time with its offset, as in 2026-12-24T18:00:00Z"));
        }
        found.unwrap_or_default()
    };
    let period = match (has_span, hours) {
        (true, None) => {
            let (from, until) = (moment("from", raw.from), moment("until", raw.until));
            if problems.is_empty() && from >= until {
                problems.push(format!("window `{name}` in `deliver.maintenance`: it ends before it begins"));
            }
            Period::Once { from, until }
        }
        (false, Some(hours)) => Period::Weekly(hours),
        (true, Some(hours)) => {
            problem("it has both a span and hours of the week; use two windows".to_owned());
            Period::Weekly(hours)
        }
        (false, None) => {
            problem("it has no time; set `from` and `until`, or `weekdays` and `hours`".to_owned());
            Period::Once { from: 0, until: 0 }
        }
    };
    if problems.is_empty() { Ok(Maintenance { name, matcher, period }) } else { Err(problems) }
}

/// Returns a time with an offset as microseconds since the epoch.
fn micros(value: &toml::Value) -> Option<i64> {
    let text = match value {
        toml::Value::Datetime(moment) => moment.to_string(),
        toml::Value::String(text) => text.clone(),
        _ => return None,
    };
    DateTime::parse_from_rfc3339(&text).ok().map(|moment| moment.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINKS: &str = "[deliver.sinks.chat]\nkind = \"slack\"\n[deliver.sinks.pager]\nkind = \"pagerduty\"\n";

    fn refused(text: &str) -> Vec<String> {
        DeliverSettings::parse(&format!("{SINKS}{text}")).expect_err("refused")
    }

    #[test]
    fn one_line_is_enough() {
        let line = "deliver.sinks.chat = { kind = \"slack\", url = { file = \"/run/secrets/slack\" } }\n";
        let settings = DeliverSettings::parse(line).expect("valid");
        let route = settings.route(DEFAULT_ROUTE).expect("the default route");
        assert_eq!(route.sinks, ["chat"]);
        assert!(settings.delivers() && settings.warnings().is_empty());
        assert!(!format!("{settings:?}").contains("/run/secrets"), "{settings:?}");
        assert!(!DeliverSettings::parse("version = 1\n").expect("valid").delivers());
    }

    #[test]
    fn a_route_has_conditions_times_and_groups() {
        let text = format!(
            "{SINKS}[[deliver.routes]]\nname = \"night\"\nmatch = {{ severity = \"page\", task = [\"refund_*\", \"/pay.+/\"] }}\n\
             hours = \"18:00-08:00\"\nweekdays = [\"mon-fri\"]\ntime_zone = \"Europe/Berlin\"\nsinks = [\"pager\"]\n\
             continue = true\ngroup_by = [\"tenant\", \"task\"]\nrepeat_interval = \"4h\"\n\
             [[deliver.maintenance]]\nname = \"move\"\nfrom = 2026-12-24T18:00:00Z\nuntil = \"2026-12-25T06:00:00+01:00\"\n"
        );
        let settings = DeliverSettings::parse(&text).expect("valid");
        let route = &settings.routes[0];
        assert_eq!((route.group_wait, route.group_interval), (GROUP_WAIT, GROUP_INTERVAL));
        assert_eq!(route.repeat_interval, Some(Duration::from_secs(4 * 3600)));
        let warnings = settings.warnings();
        assert!(
            warnings[0].contains("`move` matches every alert") && warnings[1].contains("sink `chat`"),
            "{warnings:?}"
        );
        let Period::Once { from, until } = settings.maintenance[0].period.clone() else { panic!("a span") };
        assert_eq!(until - from, 11 * 3600 * 1_000_000);
    }

    #[test]
    fn each_problem_is_one_sentence_with_a_remedy() {
        let route = |rest: &str| format!("[[deliver.routes]]\nname = \"r\"\n{rest}");
        let window = |rest: &str| format!("[[deliver.maintenance]]\nname = \"w\"\n{rest}");
        for (text, part) in [
            (route("sinks = [\"chatt\"]\n"), "there is no sink `chatt`; did you mean `chat`?"),
            (route("sinks = []\n"), "`sinks` is empty"),
            (route("sinks = [\"chat\"]\nmatch = { severity = \"critical\" }\n"), "`critical`"),
            (route("sinks = [\"chat\"]\nhours = \"08:00-08:00\"\n"), "`hours`"),
            (route("sinks = [\"chat\"]\ngroup_wait = \"soon\"\n"), "`group_wait` is `soon`"),
            (route("sinks = [\"chat\"]\nrepeat_interval = \"1s\"\n"), "at least 1m"),
            (route("sinks = [\"chat\"]\nhour = \"1\"\n"), "unknown field `hour`"),
            (
                route("sinks = [\"chat\"]\n[[deliver.routes]]\nname = \"late\"\nsinks = [\"pager\"]\n"),
                "no alert reaches route `late`",
            ),
            (
                route("sinks = [\"chat\"]\ncontinue = true\n[[deliver.routes]]\nname = \"r\"\nsinks = [\"pager\"]\n"),
                "two routes `r`",
            ),
            (window("from = 2026-12-24T18:00:00Z\n"), "`until` is missing"),
            (window("from = 2026-12-24T18:00:00\nuntil = 2026-12-24T19:00:00Z\n"), "with its offset"),
            (window("from = 2026-12-24T18:00:00Z\nuntil = 2026-12-24T17:00:00Z\n"), "ends before it begins"),
            (window("match = { task = \"a\" }\n"), "it has no time"),
        ] {
            let problems = refused(&text);
            assert!(problems.len() == 1 && problems[0].contains(part), "{part}: {problems:?}");
        }
        let without =
            DeliverSettings::parse("[[deliver.routes]]\nname = \"r\"\nsinks = [\"chat\"]\n").expect_err("refused");
        assert!(without[0].contains("there is no sink"), "{without:?}");
    }
}
