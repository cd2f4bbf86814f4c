//! The demo without a terminal: publishes the history and some live traffic, then prints the tables.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_base::Result;
use bellwether_stats::figure::number;

use super::apps::{INVOICE_CANARY, SUPPORT_CANARY};
use super::observe::{Observer, TextResult};
use super::{Demo, QUERIES, gates, pages};
use crate::roles::{aggregate, deliver, watch};
use crate::screen;

/// Time between two looks at the tables.
const TICK: Duration = Duration::from_millis(500);

/// Time between two lines of progress.
const LINE: Duration = Duration::from_secs(3);

/// Longest wait for the last messages to be committed.
const SETTLE: Duration = Duration::from_secs(60);

/// Longest wait for the page after that.
const DELIVERED: Duration = Duration::from_secs(15);

/// Width of pages and alerts that do not go to a terminal, columns.
const WIDTH: usize = 100;

pub(crate) async fn run(demo: &Demo, live: Duration) -> Result<()> {
    let mut text = format!("tables  {}\nbroker  {}  topic {}\n", demo.root(), demo.brokers, super::TOPIC);
    text.push_str(&format!("health  http://{}/healthz\n", demo.process.address));
    crate::print(&text)?;
    let mut observer = Observer::open(demo).await?;
    follow(demo, &mut observer, live).await?;
    demo.progress.stop();
    settle(demo, &mut observer).await?;
    observer.look("1h").await?;
    for line in observer.view().news.iter().rev() {
        // All of it was read at the end, so that its time says nothing.
        crate::print(&format!("  {}", line.split_once("  ").map_or(line.as_str(), |(_, text)| text)))?;
    }
    show(&observer, "Rolling metrics, last hour", "SELECT task, release_id, stage, runs, round(success_rate, 3) AS success, \
        round(success_rate_low, 3) AS low, round(success_rate_high, 3) AS high, round(schema_adherence, 3) AS schema_ok, \
        round(coverage, 3) AS coverage, round(label_delay_s_p50) AS label_delay_s, \
        round(escalation_rate, 3) AS escalated, round(latency_ms_p95, 0) AS p95_ms \
        FROM rolling WHERE span = '1h' ORDER BY task, stage DESC, release_id").await?;
    show(&observer, "Late outcomes: verdicts of the judge model and of people arrive minutes after the run, so older runs are better covered", "SELECT \
        CAST(date_part('epoch', m.newest) - date_part('epoch', r.ended_at) AS BIGINT) / 300 * 5 AS minutes_ago, count(*) AS runs, \
        round(avg(CAST(judged AS DOUBLE)), 3) AS coverage, round(avg(CASE WHEN judged THEN CAST(completed AS DOUBLE) END), 3) AS success, \
        count(*) FILTER (WHERE outcome_source = 'llm') AS by_judge, count(*) FILTER (WHERE outcome_source = 'human') AS by_people, \
        round(median(label_delay_s)) AS delay_s FROM runs AS r CROSS JOIN (SELECT max(ended_at) AS newest FROM runs) AS m \
        WHERE task = 'policy_answer' AND r.ended_at > m.newest - INTERVAL '30 minutes' GROUP BY 1 ORDER BY 1").await?;
    show(&observer, "Corrected rates: success according to the judge model alone, and after human reviews", "WITH judge AS (SELECT run_id, \
        scores[1]['passed'] AS passed FROM events WHERE event_type = 'run.score') SELECT task, release_id, count(*) AS judged, \
        round(avg(CAST(j.passed AS DOUBLE)), 3) AS success_by_judge, round(avg(CAST(completed AS DOUBLE)), 3) AS success_now, \
        count(*) FILTER (WHERE outcome_source = 'human') AS reviewed, \
        count(*) FILTER (WHERE completed <> j.passed) AS corrected FROM runs AS r JOIN judge AS j ON r.run_id = j.run_id \
        WHERE judged GROUP BY task, release_id").await?;
    show(
        &observer,
        "Quarantine",
        "SELECT reason, messages, example_pointer, example_message FROM quarantine_summary ORDER BY messages DESC",
    )
    .await?;
    show(
        &observer,
        "Freshness",
        "SELECT table_name, count(*) AS partitions, sum(table_rows) AS table_rows, \
        round(min(event_lag_s), 1) AS event_lag_s FROM freshness GROUP BY table_name ORDER BY table_name",
    )
    .await?;
    print_alerts(&observer).await?;
    print_page(demo).await?;
    print_gates(demo).await?;
    crate::print("\nQueries to try")?;
    for (question, sql) in QUERIES {
        crate::print(&format!("  {question:<28} {sql}"))?;
    }
    Ok(())
}

async fn follow(demo: &Demo, observer: &mut Observer, live: Duration) -> Result<()> {
    let mut printed = Instant::now() - LINE;
    let mut live_since = None;
    loop {
        observer.count(demo).await?;
        if printed.elapsed() >= LINE {
            let view = observer.view();
            let phase = if demo.progress.is_live() { "live" } else { "history" };
            crate::print(&format!(
                "{phase:<8} published {:>6}  committed {:>6}  {:>6.0} events/s  commits {}",
                demo.progress.published(),
                demo.progress.committed(),
                view.per_second,
                view.commits
            ))?;
            printed = Instant::now();
        }
        if demo.progress.is_live() && live_since.get_or_insert_with(Instant::now).elapsed() >= live {
            return Ok(());
        }
        if demo.process.is_stopping() {
            return Ok(());
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Waits until every published message is committed and counted.
async fn settle(demo: &Demo, observer: &mut Observer) -> Result<()> {
    let (begun, mut probes) = (Instant::now(), demo.process.probes());
    while begun.elapsed() < SETTLE && !demo.process.is_stopping() {
        observer.count(demo).await?;
        let committed = demo.progress.committed() >= demo.progress.published();
        let mut is_behind = !committed;
        for role in [aggregate::NAME, watch::NAME, deliver::NAME] {
            is_behind |= probes.behind(role).await? != 0;
        }
        if !is_behind {
            break;
        }
        tokio::time::sleep(TICK).await;
    }
    Ok(())
}

/// Prints the alerts of the bad canary with their bounds of false alarms, and counts those of its harmless twin.
async fn print_alerts(observer: &Observer) -> Result<()> {
    let fired = |release: &str| {
        format!(
            "SELECT severity, rule, at, canary_runs, baseline_runs, false_alarm, false_alarm_unit, title FROM alerts \
             WHERE release_id = '{release}' AND state = 'firing' AND NOT stale AND change <> 'retracted' ORDER BY at, rule"
        )
    };
    crate::print("\nAlerts")?;
    let width = screen::width().unwrap_or(WIDTH);
    let bad = observer.ask(&fired(INVOICE_CANARY)).await?;
    for cells in &bad.rows {
        if let [severity, rule, at, canary, baseline, bound, unit, title] = cells.as_slice() {
            let bound: f64 = bound.parse().unwrap_or(f64::NAN);
            let promise = match unit.as_str() {
                "per_release" => format!("at most 1 in {:.0} such releases alerts falsely", 1.0 / bound),
                "a_month" => format!("at most {} false alarms per month", number(bound)),
                _ => "no bound on false alarms".to_owned(),
            };
            crate::print(&format!("  {severity:<7} {rule}"))?;
            let fired = format!("fired at {at} on {canary} canary runs against {baseline} baseline runs; {promise}");
            for line in [title, &fired].into_iter().flat_map(|text| screen::wrap(text, width.saturating_sub(10))) {
                crate::print(&format!("          {line}"))?;
            }
        }
    }
    let twin = observer.ask(&fired(SUPPORT_CANARY)).await?;
    let first = bad.rows.first().map_or("not caught", |_| "caught");
    crate::print(&format!(
        "  Bad canary {INVOICE_CANARY}: {first}. Harmless canary {SUPPORT_CANARY}: {} alerts.",
        twin.rows.len()
    ))?;
    Ok(())
}

/// Prints the page about the bad canary, and writes it as a message for Slack.
async fn print_page(demo: &Demo) -> Result<()> {
    crate::print("\nThe page, as it arrives")?;
    let begun = Instant::now();
    loop {
        // Delivery takes up to some seconds for the evidence.
        let pages = demo.pages.read();
        if let Some(page) = pages::about(&pages, INVOICE_CANARY) {
            let page = Box::pin(pages::complete(&demo.process.lake, page)).await?;
            demo.pages.write_slack(&page)?;
            let width = screen::width().unwrap_or(WIDTH);
            return crate::print(&pages::shown(&page, width, pages::colour())).map(|_| ());
        }
        if begun.elapsed() >= DELIVERED || demo.process.is_stopping() {
            return crate::print("  none: the canary had too few runs to be judged").map(|_| ());
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Prints whether the canaries may go on.
async fn print_gates(demo: &Demo) -> Result<()> {
    crate::print("\nThe gate: may a release go on?")?;
    let answers = gates::ask(Arc::clone(&demo.gate), demo.process.lake.clone()).await?;
    crate::print(gates::shown(demo, &answers, screen::width()).trim_end()).map(|_| ())
}

async fn show(observer: &Observer, title: &str, sql: &str) -> Result<()> {
    let answer = observer.ask(sql).await?;
    crate::print(&format!("\n{title}\n{}\n", table(&answer)))?;
    Ok(())
}

/// Formats a result as a table.
pub(crate) fn table(answer: &TextResult) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(&answer.columns);
    for row in &answer.rows {
        table.add_row(row);
    }
    table.to_string()
}
