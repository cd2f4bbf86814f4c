//! The report of a week over tables that ingest and aggregate wrote, against counts of the events themselves.

use std::sync::Arc;

use bellwether_aggregate::AggregatorSettings;
use bellwether_base::{ManualClock, Week};
use bellwether_evals::{EvalsSettings, Sample, resample};
use bellwether_follow::FollowHealth;
use prometheus::Registry;
use serde_json::{Value, json};

use crate::common::bellwether;
use crate::common::program::text;
use crate::late::feed::{Feed, NOW};

const DAY: i64 = 86_400_000_000;
const MINUTE: i64 = 60_000_000;

/// A name that would be markup in HTML and in Markdown.
const HOSTILE: &str = "<script>alert(1)</script>|[x](https://example.com)";

/// The week before the one of the last events.
fn week() -> Week {
    Week::of(NOW).before()
}

fn rfc3339(micros: i64) -> String {
    let moment = arrow::temporal_conversions::timestamp_us_to_datetime(micros).expect("in range");
    moment.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Makes one run of a task that ended at a time.
fn run(task: &str, release: (&str, &str), ended: i64, number: usize, success: bool, more: &Value) -> Value {
    let mut data = json!({
        "task": task,
        "release": { "id": release.0, "model": { "requested": "m" } },
        "rollout": { "stage": release.1 },
        "started_at": rfc3339(ended - 900_000), "ended_at": rfc3339(ended),
        "outcome": { "status": if success { "success" } else { "failure" } },
        "latency": { "total_ms": 900 },
        "cost": { "amount": "0.01", "currency": "USD" },
    });
    if let (Value::Object(data), Value::Object(more)) = (&mut data, more) {
        data.extend(more.clone());
    }
    json!({
        "spec": "run-event/1", "type": "run.completed", "source": "app", "data": data,
        "run_id": format!("{}-{}-{number}", task.len(), release.0),
    })
}

/// Returns two weeks of runs: `refunds` gets worse, `search` gets better, and the hostile task stays as it is. In the second week
/// `refunds` has a canary that fails half of its runs, for a reason that no run had before.
fn runs() -> Vec<Value> {
    let mut runs = Vec::new();
    for day in 0..14_i64 {
        for number in 0..60_usize {
            let place = i64::try_from(number).expect("few");
            let ended = week().before().start() + day * DAY + 9 * 60 * MINUTE + place * MINUTE;
            let all = usize::try_from(day).expect("few") * 60 + number;
            let bad = |share: usize| (number * 7 + number / 10) % 10 < share;
            let later = day >= 7;
            let fails = bad(if later { 4 } else { 1 });
            let reason = json!({ "outcome": { "status": "failure", "reason_code": "wrong_amount" } });
            runs.push(run("refunds", ("v1", "full"), ended, all, !fails, if fails { &reason } else { &Value::Null }));
            let escalated = json!({ "escalation": { "escalated": true, "reason_code": "asked_for_a_person" } });
            let fails = bad(if later { 1 } else { 5 });
            runs.push(run("search", ("s1", "full"), ended, all, !fails, if fails { &escalated } else { &Value::Null }));
            runs.push(run(HOSTILE, ("h1", "full"), ended, all, !bad(2), &Value::Null));
            if later {
                let fails = bad(9);
                let reason = json!({ "outcome": { "status": "failure", "reason_code": "tool_loop" } });
                let more = if fails { &reason } else { &Value::Null };
                runs.push(run("refunds", ("v2", "canary"), ended + 1_000_000, all, !fails, more));
            }
        }
    }
    runs
}

/// Counts runs of a task in the week of the report, and the successful ones.
fn counted(runs: &[Value], task: &str) -> (usize, usize) {
    let (from, to) = (rfc3339(week().start()), rfc3339(week().end()));
    let of_week = runs.iter().filter(|run| {
        let ended = run["data"]["ended_at"].as_str().expect("a time");
        run["data"]["task"] == task && ended >= from.as_str() && ended < to.as_str()
    });
    let (all, good): (Vec<_>, Vec<_>) =
        (of_week.clone().collect(), of_week.filter(|run| run["data"]["outcome"]["status"] == "success").collect());
    (all.len(), good.len())
}

async fn tables(runs: &[Value]) -> Feed {
    let mut feed = Feed::with_clock(Arc::new(ManualClock::at(NOW))).await;
    feed.newest_event_micros = Some(NOW);
    feed.commit_events(runs).await;
    Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    feed
}

/// Draws the samples, and has a person judge two runs in the week of the report and ask for eval cases. Only the edited one has an
/// answer to become one.
async fn reviewed(feed: &mut Feed) {
    let sample =
        Sample { settings: EvalsSettings::default(), lake: feed.lake.clone(), health: FollowHealth::default() };
    assert_eq!(Box::pin(resample(sample, &Registry::new())).await.expect("draws"), 100, "two weeks");
    let query = format!("SELECT run_id FROM candidates WHERE week = '{}' AND signature LIKE '%tool_loop%'", week());
    let failed = feed.sql(&query).await;
    let review = |(place, run): (usize, &Value)| {
        let decision = if place == 0 { "edit" } else { "reject" };
        json!({
            "spec": "run-event/1", "type": "run.review", "run_id": run["run_id"], "source": "app",
            "time": rfc3339(week().end() - 1),
            "data": { "review_id": format!("v{place}"), "reviewer": "ana", "decision": decision, "make_eval_case": true },
        })
    };
    let reviews: Vec<Value> = failed.iter().take(2).enumerate().map(review).collect();
    feed.commit_events(&reviews).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_says_what_the_events_say_and_first_what_matters() {
    let runs = runs();
    let mut feed = tables(&runs).await;
    reviewed(&mut feed).await;
    let folder = tempfile::tempdir().expect("a folder");
    let week = week().to_string();
    let (root, output) = (text(feed.root()), text(folder.path()));
    let weekly = |more: &[&str]| {
        let arguments = [&["report", "weekly", "--root", root, "--week", &week], more].concat();
        bellwether(&arguments)
    };
    let said = weekly(&["--output", output]).exits_with(0);
    let page = std::fs::read_to_string(folder.path().join(format!("weekly-{week}.html"))).expect("a page");
    let plain = std::fs::read_to_string(folder.path().join(format!("weekly-{week}.md"))).expect("a text");

    // The figures are those of the events.
    for task in ["refunds", "search"] {
        let (all, good) = counted(&runs, task);
        let row = plain.lines().find(|line| line.starts_with(&format!("| {task} | {all} (before: "))).expect("a row");
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let rate = format!("{:.1} %", 100.0 * good as f64 / all as f64);
        assert!(row.contains(&rate), "{rate}: {row}");
    }
    // What matters comes first: the canary, then the task that got worse, then the new failure.
    let first: Vec<&str> = said.lines().skip_while(|line| *line != "Look at first:").skip(1).collect();
    assert!(first[0].contains("Roll back release v2 of refunds: worse than the margin: success"), "{said}");
    assert!(first[1].contains("Task success of refunds fell from 90.0 % to 3"), "{said}");
    assert!(first.iter().any(|line| line.contains("of refunds failed in a new way: failure tool_loop")), "{said}");
    let better: Vec<&str> = plain.lines().skip_while(|line| *line != "Better:").take(4).collect();
    assert!(better.join("\n").contains("Task success of search rose from 50.0 % to 90.0 % (+40.0 points)"), "{plain}");
    assert!(plain.contains("| escalated: asked\\_for\\_a\\_person | search | 42 | 210 |"), "{plain}");
    // The sample, its new signature, what people decided and the eval case that came of it.
    assert!(
        plain.contains("The sample has 50 runs, which stand for 1,680. People have decided about 2 of them (4.0 %)."),
        "{plain}"
    );
    let signature =
        plain.lines().find(|line| line.contains("message=tool\\_loop (new) | refunds |")).expect("a new signature");
    assert!(signature.contains(" | 0 | 2 of "), "{signature}");
    assert!(plain.contains("1 eval case has come of reviews, in this week."), "{plain}");
    assert!(first.iter().any(|line| line.contains("48 of the 50 sampled runs wait for a review.")), "{said}");
    // The task that did not change is not listed as changed.
    assert!(!plain.contains("of \\<script\\>alert(1)\\</script\\>\\|\\[x\\](https://example.com) fell"), "{plain}");

    // Data cannot become markup, and the page loads nothing.
    assert!(!page.contains("<script") && !plain.replace("\\<", "").contains("<script"), "{page}");
    for attribute in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(attribute), "{attribute}");
    }
    assert!(plain.contains("\\<script\\>alert(1)\\</script\\>\\|\\[x\\](https://example.com)"), "{plain}");
    assert_eq!(page.matches("<svg role=\"img\"").count(), 7, "two charts a task, and the eval cases");

    // One task, on standard output.
    let one = weekly(&["--task", "search", "--format", "markdown", "--output", "-"]).exits_with(0);
    assert!(one.contains("| search |") && !one.contains("| refunds |"), "{one}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_week_without_runs_is_reported_as_such_and_bad_arguments_are_refused() {
    let feed = tables(&runs()[..1]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (root, output) = (text(feed.root()), text(folder.path()));
    let weekly = |more: &[&str]| bellwether(&[&["report", "weekly", "--root", root], more].concat());
    let said = weekly(&["--week", "2020-W01", "--output", output]).exits_with(0);
    assert!(said.contains("No task had a run in week 2020-W01."), "{said}");
    let file = folder.path().join("taken");
    std::fs::write(&file, "a file").expect("writes");
    for (more, expected) in [
        (vec!["--week", "2026-W60"], "is not a week"),
        (vec!["--output", "-"], "`--output -` prints one format"),
        (vec!["--tenant", ""], "tenant of a session is empty"),
        (vec!["--week", "2020-W01", "--output", text(&file)], "cannot create"),
    ] {
        let ended = weekly(&more);
        assert!(ended.stderr.contains(expected) && ended.code == Some(2), "{more:?}: {}", ended.stderr);
    }
    assert_eq!(std::fs::read_to_string(&file).expect("reads"), "a file");
}
