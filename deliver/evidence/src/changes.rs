//! Changes in a release: how its configuration differs from that of its baseline, by the table `releases`.
//!
//! An alert without a baseline is compared with the release that ran before in the task. An alert that is about no release is only
//! explained by one that began near the change.

use std::collections::BTreeMap;

use bellwether_base::Result;
use bellwether_queries::{Session, quoted};
use bellwether_sinks::page::Change;
use serde::Deserialize;
use serde_json::Value;

use crate::ask::moment;
use crate::comparison;
use crate::record::AlertRecord;
use crate::slices::cut;

/// How long before a change a release may have begun that is named although the alert is about none, microseconds.
const NEAR: i64 = 2 * DAY;

/// How far back the releases of a task are looked for, microseconds: by the minute and by the hour.
const MINUTES: i64 = 2 * DAY;
const HOURS: i64 = 60 * DAY;

const DAY: i64 = 86_400_000_000;

/// Most differences on a page.
const MOST: usize = 20;

/// Fields that name a release, or that the provider reports.
const NO_CHANGE: [&str; 4] = ["id", "fingerprint", "parent_id", "model.system_fingerprint"];

/// The names of the parts on a page, by the field of the configuration.
const NAMES: [(&str, &str); 7] = [
    ("prompt.version", "prompt"),
    ("model.requested", "model"),
    ("tools.schema_version", "tools"),
    ("output_schema.version", "schema"),
    ("policy.version", "policy"),
    ("code.version", "code"),
    ("retrieval.config_version", "retrieval"),
];

/// The differences of two releases, and notes about the comparison.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    pub changes: Vec<Change>,
    pub notes: Vec<String>,
}

/// A release that ran in a task.
#[derive(Clone, Debug, Deserialize)]
struct Ran {
    release_id: String,
    first: i64,
    last: i64,
}

/// A configuration of a release.
#[derive(Clone, Debug, Deserialize)]
struct Configuration {
    release_id: String,
    release_json: String,
}

/// A release whose configuration is asked about. Times are microseconds since the epoch.
struct Question<'a> {
    task: Option<&'a str>,
    tenant: Option<&'a str>,
    /// The release; none means the newest one, if it began near `since`.
    release: Option<&'a str>,
    /// The release to compare with; none means the one that ran before.
    baseline: Option<&'a str>,
    since: i64,
    /// Only releases that ran before this time are known.
    at: i64,
    /// Only configurations that were seen before this time are known; none means all of them.
    seen_before: Option<i64>,
}

/// Returns the differences of the release of an alert from its baseline.
pub(crate) async fn changes(session: &Session, record: &AlertRecord) -> Result<Changes> {
    let question = Question {
        task: comparison::task(record),
        tenant: comparison::tenant(record),
        release: record.release_id.as_deref(),
        baseline: record.baseline_release.as_deref(),
        since: record.since.unwrap_or(record.at),
        at: record.at,
        seen_before: Some(record.at.max(record.complete_to).saturating_add(1)),
    };
    answer(session, &question).await
}

/// Returns the differences of a release from the one that ran before in a task, in words: the part, its value before and after. The
/// release is looked for in the time before `at`, microseconds since the epoch; none if it is not found.
///
/// # Errors
/// As the session's statements.
pub async fn changes_of_release(
    session: &Session,
    tenant: Option<&str>,
    task: &str,
    release: &str,
    at: i64,
) -> Result<Changes> {
    let question =
        Question { task: Some(task), tenant, release: Some(release), baseline: None, since: at, at, seen_before: None };
    answer(session, &question).await
}

async fn answer(session: &Session, question: &Question<'_>) -> Result<Changes> {
    let Some((before, after)) = pair(session, question).await? else { return Ok(Changes::default()) };
    let tenant = question.tenant.map_or_else(String::new, |tenant| {
        format!(" AND (coalesce(tenant, '') = {} OR coalesce(tenant, '') = '')", quoted(tenant))
    });
    let seen = question.seen_before.map_or_else(String::new, |at| format!(" AND first_seen < {}", moment(at)));
    let query = format!(
        "SELECT release_id, release_json FROM releases WHERE release_id IN ({}, {}){seen}{tenant} ORDER BY first_seen, release_json",
        quoted(&before),
        quoted(&after),
    );
    let found: Vec<Configuration> = session.rows(&query).await?;
    let of = |release: &str| {
        let json = found.iter().filter(|row| row.release_id == release).map(|row| row.release_json.as_str());
        let mut all: Vec<BTreeMap<String, String>> = json.filter_map(fields).collect();
        all.dedup();
        all
    };
    let (earlier, later) = (of(&before), of(&after));
    let mut notes = Vec::new();
    if later.len() > 1 {
        notes.push(format!(
            "Release {} has run with {} configurations; the newest is compared.",
            cut(&after),
            later.len()
        ));
    }
    let (Some(old), Some(new)) = (earlier.last(), later.last()) else { return Ok(Changes::default()) };
    let changes = differences(old, new);
    if changes.is_empty() {
        notes.push(format!("The configurations of {} and {} do not differ.", cut(&before), cut(&after)));
    }
    if question.baseline.is_none() {
        notes.push(format!("The configuration is compared with that of {}, which ran before.", cut(&before)));
    }
    Ok(Changes { changes, notes })
}

/// Returns the releases to compare, the earlier one first.
async fn pair(session: &Session, question: &Question<'_>) -> Result<Option<(String, String)>> {
    if let (Some(before), Some(after)) = (question.baseline, question.release) {
        return Ok(Some((before.to_owned(), after.to_owned())));
    }
    let mut ran = releases_of_task(session, question).await?;
    ran.sort_by(|a, b| a.first.cmp(&b.first).then(a.release_id.cmp(&b.release_id)));
    let after = match question.release {
        Some(release) => ran.iter().find(|ran| ran.release_id == release),
        // The newest release, if it began near the change.
        None => ran.last().filter(|ran| ran.first >= question.since.saturating_sub(NEAR)),
    };
    let Some(after) = after.cloned() else { return Ok(None) };
    let before = ran.iter().filter(|other| other.first < after.first).max_by_key(|other| other.last);
    Ok(before.map(|before| (before.release_id.clone(), after.release_id)))
}

/// Returns the releases that ran in a task, with their first and last windows. Older ones are in the roll-ups.
async fn releases_of_task(session: &Session, question: &Question<'_>) -> Result<Vec<Ran>> {
    let Some(task) = question.task else { return Ok(Vec::new()) };
    let tenant = question.tenant.map_or_else(String::new, |tenant| format!(" AND tenant = {}", quoted(tenant)));
    let part = |table: &str, back: i64| {
        format!(
            "SELECT release_id, window_start FROM {table} WHERE task = {}{tenant} AND stage IN ('canary', 'full') AND runs > 0 \
             AND window_start >= {} AND window_start < {}",
            quoted(task),
            moment(question.at.saturating_sub(back)),
            moment(question.at)
        )
    };
    let query = format!(
        "SELECT release_id, min(window_start) AS first, max(window_start) AS last \
         FROM ({} UNION ALL {}) AS ran GROUP BY release_id",
        part("metrics", MINUTES),
        part("metrics_hourly", HOURS)
    );
    session.rows(&query).await
}

/// Returns the fields of a configuration by their paths; lists are one value.
fn fields(json: &str) -> Option<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    flatten("", &serde_json::from_str(json).ok()?, &mut all);
    all.retain(|path, _| !NO_CHANGE.contains(&path.as_str()));
    Some(all)
}

fn flatten(path: &str, value: &Value, all: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                flatten(&if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, value, all);
            }
        }
        Value::Null => {}
        Value::String(text) => drop(all.insert(path.to_owned(), text.clone())),
        other => drop(all.insert(path.to_owned(), other.to_string())),
    }
}

/// Returns the differences of two configurations, those with names first. A hash is left out if the version beside it differs.
fn differences(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<Change> {
    let mut paths: Vec<&String> = old.keys().chain(new.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    paths.retain(|path| old.get(*path) != new.get(*path));
    let explained: Vec<String> = paths
        .iter()
        .filter_map(|path| path.rsplit_once('.'))
        .filter(|(_, field)| *field != "sha256")
        .map(|(part, _)| part.to_owned())
        .collect();
    paths.retain(|path| path.strip_suffix(".sha256").is_none_or(|part| !explained.iter().any(|known| known == part)));
    let place = |path: &str| NAMES.iter().position(|(known, _)| *known == path);
    paths.sort_by_key(|path| place(path).unwrap_or(NAMES.len()));
    let shown = |value: Option<&String>| value.map(|value| said(value));
    let change = |path: &String| Change {
        part: place(path).map_or_else(|| cut(path), |place| NAMES[place].1.to_owned()),
        before: shown(old.get(path)),
        after: shown(new.get(path)),
    };
    paths.into_iter().take(MOST).map(change).collect()
}

/// Longest value that is shown, characters. A longer one may be the text of a prompt.
const LONGEST: usize = 80;

fn said(value: &str) -> String {
    let characters = value.chars().count();
    if characters > LONGEST { format!("{characters} characters") } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(value: &Value) -> BTreeMap<String, String> {
        fields(&value.to_string()).expect("JSON")
    }

    #[test]
    fn versions_and_parameters_that_differ_are_named() {
        let old = json!({
            "id": "r1", "fingerprint": "a", "prompt": {"name": "refund", "version": "17", "sha256": "x"},
            "model": {"requested": "m1", "system_fingerprint": "p"}, "params": {"temperature": 0.2, "stop": ["a"]},
            "tools": {"sha256": "t1"}, "policy": {"version": "4"},
        });
        let new = json!({
            "id": "r2", "fingerprint": "b", "parent_id": "r1", "prompt": {"name": "refund", "version": "18", "sha256": "y"},
            "model": {"requested": "m1", "system_fingerprint": "q"}, "params": {"temperature": 0.7, "stop": ["a"]},
            "tools": {"sha256": "t2"}, "output_schema": {"version": "2"},
        });
        let found: Vec<(String, Option<String>, Option<String>)> = differences(&of(&old), &of(&new))
            .into_iter()
            .map(|change| (change.part, change.before, change.after))
            .collect();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            found,
            [
                ("prompt".to_owned(), text("17"), text("18")),
                ("schema".to_owned(), None, text("2")),
                ("policy".to_owned(), text("4"), None),
                ("params.temperature".to_owned(), text("0.2"), text("0.7")),
                ("tools.sha256".to_owned(), text("t1"), text("t2")),
            ]
        );
        assert_eq!(differences(&of(&old), &of(&old)), []);
    }

    #[test]
    fn a_long_text_is_not_shown() {
        let (old, new) = (json!({"system": "x".repeat(81)}), json!({"system": "y".repeat(500)}));
        let change = &differences(&of(&old), &of(&new))[0];
        assert_eq!(change.before.as_deref(), Some("81 characters"));
        assert_eq!(change.after.as_deref(), Some("500 characters"));
    }

    #[test]
    fn text_that_is_no_json_has_no_fields() {
        assert_eq!(fields("{"), None);
    }
}
