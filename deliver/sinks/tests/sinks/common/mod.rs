//! Helpers that the tests share.

pub(crate) mod contract;
pub(crate) mod server;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bellwether_base::{Clock, ManualClock};
use bellwether_sinks::page::{
    Acknowledgement, Arm, Change, CostImpact, Coverage, Effect, Evidence, ExampleRun, Link, Mix, Page, Reproduce,
    Rollback, Severity, SliceShare, Status, Suppressed,
};
use bellwether_sinks::{Notice, Sink, SinkSettings};
use jsonschema::Validator;
use serde_json::Value;

/// The time of the tests, microseconds since the epoch.
pub(crate) const NOW: i64 = 1_790_000_000_000_000;
const MINUTE: i64 = 60_000_000;

/// Prints that a test is skipped, and how to enable it, past the test runner's capture.
pub(crate) fn skipped(why: &str) {
    drop(writeln!(std::io::stderr(), "skipped: {why}"));
}

/// Returns a path in the folder where the project's scripts keep what they fetch.
pub(crate) fn cache(path: &str) -> PathBuf {
    let cache = std::env::var_os("BELLWETHER_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/bellwether"),
        PathBuf::from,
    );
    cache.join(path)
}

/// Returns a clock that stands at [`NOW`].
pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::at(NOW))
}

/// Reads settings from TOML.
pub(crate) fn settings(text: &str) -> SinkSettings {
    toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Creates a sink from settings in TOML.
pub(crate) fn sink(text: &str) -> Arc<dyn Sink> {
    settings(text).build(clock()).unwrap_or_else(|error| panic!("{error:?}\n{text}"))
}

/// Writes a secret into a file of a folder and returns the setting that names it.
pub(crate) fn secret(dir: &Path, name: &str, value: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, format!("{value}\n")).expect("a file");
    format!("{{ file = \"{}\" }}", path.display())
}

/// Reads a schema of the folder `data`.
pub(crate) fn schema(name: &str) -> Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(format!("{name}.schema.json"));
    validator(&read_json(&path))
}

/// Returns a validator of a published schema of Bellwether's own that also refuses fields that the schema does not name.
pub(crate) fn published(name: &str) -> Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(format!("{name}.schema.json"));
    let mut schema = read_json(&path);
    close(&mut schema);
    validator(&schema)
}

fn close(schema: &mut Value) {
    if let Value::Object(fields) = schema {
        if fields.contains_key("properties") && !fields.contains_key("additionalProperties") {
            fields.insert("additionalProperties".to_owned(), false.into());
        }
        fields.values_mut().for_each(close);
    } else if let Value::Array(values) = schema {
        values.iter_mut().for_each(close);
    }
}

fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

fn validator(schema: &Value) -> Validator {
    jsonschema::options().should_validate_formats(true).build(schema).expect("a schema")
}

/// Fails unless a value is valid, with every reason.
pub(crate) fn assert_valid(schema: &Validator, value: &Value) {
    let errors: Vec<String> =
        schema.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{}\n{value:#}", errors.join("\n"));
}

/// Returns a notice of pages.
pub(crate) fn notice(pages: Vec<Page>) -> Notice {
    Notice { route: "on-call".to_owned(), pages, ..Notice::default() }
}

/// Returns a page with all evidence.
pub(crate) fn page() -> Page {
    let labels = [("release_id", "r142"), ("task", "checkout"), ("stage", "production"), ("tool-name", "refund")];
    Page {
        incident: "a1b2c3/1789999000000000".to_owned(),
        alert_id: "a1b2c3".to_owned(),
        status: Status::Firing,
        severity: Severity::Page,
        rule: "release-regression".to_owned(),
        owner: Some("checkout-team".to_owned()),
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        tenant: Some("acme".to_owned()),
        task: Some("checkout".to_owned()),
        release: Some("r142".to_owned()),
        baseline_release: Some("r141".to_owned()),
        title: "checkout: failure rate 8.1 % → 14.2 % on release r142 against r141 (1204 against 10880 runs)"
            .to_owned(),
        started_at: NOW - 10 * MINUTE,
        ended_at: None,
        acknowledgement: None,
        test: false,
        evidence: evidence(),
        links: vec![
            link("runbook", "https://wiki.example/runbooks/checkout?a=1&b=2"),
            link("dashboard", "https://grafana.example/d/llm?var-task=checkout"),
        ],
        suppressed: vec![Suppressed {
            alert_id: "d4".to_owned(),
            title: "checkout: cost per completed task 0.021 → 0.034 USD".to_owned(),
            reason: "fewer completed runs raise the cost of each".to_owned(),
        }],
    }
}

/// Returns the page once it is resolved.
pub(crate) fn resolved(mut page: Page) -> Page {
    page.status = Status::Resolved;
    page.ended_at = Some(NOW - MINUTE);
    page
}

/// Returns the page once it is acknowledged.
pub(crate) fn acknowledged(mut page: Page) -> Page {
    page.status = Status::Acknowledged;
    let (person, note) = ("Ada".to_owned(), Some("looking at the refund tool".to_owned()));
    page.acknowledgement = Some(Acknowledgement { person, at: NOW - 2 * MINUTE, until: None, note });
    page
}

fn evidence() -> Evidence {
    Evidence {
        since: Some(NOW - 14 * MINUTE),
        baseline: Some(arm("r141", 881, 10_880)),
        canary: Some(arm("r142", 171, 1204)),
        effect: Some(Effect {
            kind: "odds_ratio".to_owned(),
            value: 1.88,
            low: Some(1.41),
            high: Some(2.49),
            words: "the odds of failure are 1.88 times as high, and at least 1.41 and at most 2.49 times with 95 %"
                .to_owned(),
        }),
        false_alarm: Some("At most 1 in 100 releases without a regression ever raises this alert.".to_owned()),
        coverage: Some(Coverage { complete_to: NOW - MINUTE, stated: Some(0.973) }),
        changes: vec![change("prompt", "17", "18"), change("model", "small-2026-05", "small-2026-08")],
        mix: Some(Mix { mix: 0.004, rate: 0.057 }),
        slices: vec![SliceShare {
            dimension: "tool".to_owned(),
            value: "refund_order".to_owned(),
            share: 0.62,
            baseline: Some(arm("r141", 90, 2100)),
            canary: Some(arm("r142", 106, 240)),
        }],
        examples: vec![ExampleRun {
            kind: "worst".to_owned(),
            run_id: "run-8f3a".to_owned(),
            source: "shop".to_owned(),
            attempt: 1,
            ended_at: NOW - 5 * MINUTE,
            summary: "failed: tool `refund_order` returned invalid arguments".to_owned(),
            links: vec![link("trace", "https://traces.example/run-8f3a")],
        }],
        cost: Some(CostImpact {
            currency: "USD".to_owned(),
            amount: 118.0,
            words: "about 118 USD a day for runs that end without a result".to_owned(),
        }),
        eval_candidates: vec!["c-77".to_owned()],
        reproduce: Some(Reproduce {
            sql:
                "SELECT release_id, sum(failure), sum(runs)\nFROM metrics\nWHERE task = 'checkout'\nGROUP BY release_id"
                    .to_owned(),
            metrics_version: 4711,
            checked: true,
        }),
        rollback: Some(Rollback {
            release: "r141".to_owned(),
            reason: "both releases ran at the same time, and only r142 is worse".to_owned(),
        }),
        notes: vec!["12 runs were sampled with a probability of 0.1.".to_owned()],
    }
}

fn arm(name: &str, events: u64, runs: u64) -> Arm {
    Arm { name: name.to_owned(), events: Some(events), runs: Some(runs), value: None }
}

fn change(part: &str, before: &str, after: &str) -> Change {
    Change { part: part.to_owned(), before: Some(before.to_owned()), after: Some(after.to_owned()) }
}

pub(crate) fn link(name: &str, url: &str) -> Link {
    Link { name: name.to_owned(), url: url.to_owned() }
}

/// Returns a page in which every text is `text`, and there are `count` of everything.
pub(crate) fn page_of(text: &str, count: usize) -> Page {
    let text = || text.to_owned();
    let arm = || Arm { name: text(), events: Some(u64::MAX), runs: Some(u64::MAX), value: Some(f64::NAN) };
    let links = || vec![Link { name: text(), url: text() }, link(&text(), "https://example.org/?q=<!channel>&x=|y")];
    let many = |index: usize| format!("{index} {}", text());
    Page {
        incident: text(),
        alert_id: text(),
        status: Status::Firing,
        severity: Severity::Page,
        rule: text(),
        owner: Some(text()),
        labels: (0..count).map(|index| (many(index), text())).collect::<BTreeMap<_, _>>(),
        tenant: Some(text()),
        task: Some(text()),
        release: Some(text()),
        baseline_release: Some(text()),
        title: text(),
        started_at: i64::MAX,
        ended_at: Some(i64::MIN),
        acknowledgement: Some(Acknowledgement {
            person: text(),
            at: i64::MIN,
            until: Some(i64::MAX),
            note: Some(text()),
        }),
        test: false,
        links: links(),
        suppressed: (0..count).map(|_| Suppressed { alert_id: text(), title: text(), reason: text() }).collect(),
        evidence: Evidence {
            since: Some(i64::MIN),
            baseline: Some(arm()),
            canary: Some(arm()),
            effect: Some(Effect { kind: text(), value: f64::INFINITY, low: None, high: None, words: text() }),
            false_alarm: Some(text()),
            coverage: Some(Coverage { complete_to: i64::MAX, stated: Some(f64::NAN) }),
            changes: (0..count).map(|_| Change { part: text(), before: Some(text()), after: Some(text()) }).collect(),
            mix: Some(Mix { mix: f64::NAN, rate: 0.0 }),
            slices: (0..count)
                .map(|_| SliceShare {
                    dimension: text(),
                    value: text(),
                    share: f64::NEG_INFINITY,
                    baseline: Some(arm()),
                    canary: Some(arm()),
                })
                .collect(),
            examples: (0..count)
                .map(|_| ExampleRun {
                    kind: text(),
                    run_id: text(),
                    source: text(),
                    attempt: 1,
                    ended_at: 0,
                    summary: text(),
                    links: links(),
                })
                .collect(),
            cost: Some(CostImpact { currency: text(), amount: f64::MAX, words: text() }),
            eval_candidates: (0..count).map(|_| text()).collect(),
            reproduce: Some(Reproduce { sql: text(), metrics_version: 1, checked: false }),
            rollback: Some(Rollback { release: text(), reason: text() }),
            notes: (0..count).map(|_| text()).collect(),
        },
    }
}
