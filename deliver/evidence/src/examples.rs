//! Three to five runs that show the problem: the worst, typical ones and the newest, each with links.
//!
//! A run is described by ids, statuses, classes of errors, durations and costs. Everything else could be text of a user.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_sinks::page::ExampleRun;
use bellwether_stats::figure;

use crate::links::Links;
use crate::measure::Kind;
use crate::runs::Run;

/// Most examples.
const MOST: usize = 5;

/// Most typical runs, each of another class of failures.
const MOST_TYPICAL: usize = 2;

/// Newest runs, as long as there are places.
const MOST_NEWEST: usize = 2;

/// Longest class of an error, characters.
const LONGEST_CLASS: usize = 64;

/// The class of a failure.
type Class<'a> = (&'a str, Option<&'a str>, Option<&'a str>);

/// Chooses examples among the runs of the side under judgement.
pub(crate) fn examples(runs: &[Run], kind: Kind, links: &Links) -> Vec<ExampleRun> {
    let shows = |run: &&Run| run.own && (run.amount > 0.0 || kind == Kind::Latency);
    let mut all: Vec<&Run> = runs.iter().filter(shows).collect();
    // The newest first; the order of the tables says nothing.
    all.sort_by(|a, b| (b.ended_at, &b.run_id, b.attempt).cmp(&(a.ended_at, &a.run_id, a.attempt)));
    let mut chosen: Vec<(&str, &Run)> = Vec::new();
    if let Some(worst) = all.iter().min_by(|a, b| badness(b, kind).total_cmp(&badness(a, kind))) {
        chosen.push(("worst", worst));
    }
    let typical = if matches!(kind, Kind::Latency | Kind::Cost) { middle(&all, kind) } else { most_common(&all) };
    let kinds = [("typical", typical, MOST_TYPICAL), ("newest", all, MOST_NEWEST)];
    for (name, runs, most) in kinds {
        let taken: BTreeSet<(&str, &str, i64)> = chosen.iter().map(|(_, run)| key(run)).collect();
        let fresh = runs.into_iter().filter(|run| !taken.contains(&key(run)));
        chosen.extend(fresh.take(most).map(|run| (name, run)));
    }
    chosen.into_iter().take(MOST).map(|(name, run)| example(name, run, links)).collect()
}

fn key(run: &Run) -> (&str, &str, i64) {
    (&run.source, &run.run_id, run.attempt)
}

/// Returns how bad a run is: by its policy exceptions and its status, or by what the rule measures.
fn badness(run: &Run, kind: Kind) -> Badness {
    let measured = match kind {
        Kind::Latency => return Badness(0, run.amount),
        Kind::Cost => return Badness(0, run.cost.unwrap_or(0.0)),
        Kind::ToolCalls | Kind::Calls => run.amount,
        Kind::Outcome | Kind::Share => 0.0,
    };
    let status = match run.status.as_str() {
        "error" => 4,
        "timeout" => 3,
        "failure" => 2,
        "abandoned" => 1,
        _ => 0,
    };
    let exceptions = if run.critical > 0 {
        20
    } else if run.high > 0 {
        10
    } else {
        0
    };
    Badness(exceptions + status, measured)
}

/// A severity, and a quantity that decides between equals.
#[derive(Clone, Copy)]
struct Badness(u8, f64);

// === impl Badness ===

impl Badness {
    fn total_cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0).then(self.1.total_cmp(&other.1))
    }
}

/// Returns the newest run of each class of failures, the most common class first.
fn most_common<'a>(runs: &[&'a Run]) -> Vec<&'a Run> {
    let mut classes: BTreeMap<Class<'_>, (usize, &Run)> = BTreeMap::new();
    for run in runs {
        let class = (run.status.as_str(), run.component.as_deref(), run.error_type.as_deref());
        classes.entry(class).or_insert((0, run)).0 += 1;
    }
    let mut classes: Vec<(usize, &Run)> = classes.into_values().collect();
    classes.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.ended_at.cmp(&a.1.ended_at)));
    classes.into_iter().map(|(_, run)| run).collect()
}

/// Returns the run in the middle of what the rule measures.
fn middle<'a>(runs: &[&'a Run], kind: Kind) -> Vec<&'a Run> {
    let mut sorted = runs.to_vec();
    sorted.sort_by(|a, b| badness(a, kind).total_cmp(&badness(b, kind)));
    sorted.get(sorted.len() / 2).copied().into_iter().collect()
}

fn example(name: &str, run: &Run, links: &Links) -> ExampleRun {
    let value = |placeholder: &str| match placeholder {
        "trace_id" => run.trace_id.clone(),
        "run_id" => Some(run.run_id.clone()),
        "source" => Some(run.source.clone()),
        "attempt" => Some(run.attempt.to_string()),
        "tenant" => Some(run.tenant.clone()),
        "task" => Some(run.task.clone()),
        "release" => Some(run.release_id.clone()),
        _ => None,
    };
    ExampleRun {
        kind: name.to_owned(),
        run_id: run.run_id.clone(),
        source: run.source.clone(),
        attempt: run.attempt,
        ended_at: run.ended_at,
        summary: summary(run),
        links: links.of_run(value),
    }
}

/// Describes a run in one line.
fn summary(run: &Run) -> String {
    let mut parts = vec![run.status.clone()];
    parts.extend(run.component.as_deref().filter(|name| is_class(name)).map(|name| format!("in {name}")));
    parts.extend(run.error_type.clone().filter(|name| is_class(name)));
    let failed: BTreeSet<&str> =
        run.tools.iter().filter(|(_, failed)| *failed).map(|(tool, _)| tool.as_str()).collect();
    parts.extend(failed.into_iter().filter(|tool| is_class(tool)).take(2).map(|tool| format!("tool {tool} failed")));
    if run.critical > 0 {
        parts.push("critical policy exception".to_owned());
    }
    parts.extend(run.latency_micros.map(micros));
    if let (Some(cost), Some(currency)) = (run.cost, run.currency.as_deref().filter(|name| is_class(name))) {
        parts.push(format!("{} {currency}", figure::number(cost)));
    }
    parts.join(", ")
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn micros(latency: i64) -> String {
    figure::duration(latency as f64)
}

/// Returns true for the name of a class. What has spaces or is long may be a message, and hold personal data.
fn is_class(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte);
    !text.is_empty() && text.len() <= LONGEST_CLASS && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str, status: &str, error_type: &str, ended_at: i64) -> Run {
        Run {
            own: true,
            amount: 1.0,
            run_id: id.to_owned(),
            status: status.to_owned(),
            error_type: Some(error_type.to_owned()),
            ended_at,
            latency_micros: Some(1_500_000 + ended_at),
            ..Run::default()
        }
    }

    fn chosen(runs: &[Run], kind: Kind) -> Vec<(String, String)> {
        examples(runs, kind, &Links::default()).into_iter().map(|example| (example.kind, example.run_id)).collect()
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(kind, id)| ((*kind).to_owned(), (*id).to_owned())).collect()
    }

    #[test]
    fn the_worst_typical_and_newest_runs_are_chosen_once_each() {
        let mut runs: Vec<Run> = (0..6).map(|n| run(&format!("f{n}"), "failure", "Refused", n)).collect();
        runs.push(run("e", "error", "Crash", 3));
        runs.push(run("t1", "timeout", "Slow", 1));
        runs.push(run("t2", "timeout", "Slow", 2));
        runs.push(Run { own: false, ..run("baseline", "error", "Crash", 99) });
        runs.push(Run { amount: 0.0, ..run("good", "success", "", 99) });
        let expected =
            pairs(&[("worst", "e"), ("typical", "f5"), ("typical", "t2"), ("newest", "f4"), ("newest", "f3")]);
        assert_eq!(chosen(&runs, Kind::Outcome), expected);
        runs.reverse();
        assert_eq!(chosen(&runs, Kind::Outcome), expected, "whatever the order of the rows");
        let one = [run("only", "failure", "Refused", 1)];
        assert_eq!(chosen(&one, Kind::Outcome), pairs(&[("worst", "only")]));
        assert_eq!(chosen(&[], Kind::Outcome), []);
    }

    #[test]
    fn a_critical_policy_exception_is_worse_than_any_status() {
        let critical = Run { critical: 1, ..run("p", "success", "", 1) };
        let chosen = chosen(&[run("e", "error", "Crash", 2), critical], Kind::Share);
        assert_eq!(chosen[0], ("worst".to_owned(), "p".to_owned()));
    }

    #[test]
    fn slow_runs_are_ranked_by_their_duration() {
        let runs: Vec<Run> = [3, 1, 9, 5, 7]
            .iter()
            .map(|n| Run { amount: f64::from(*n), ..run(&format!("l{n}"), "success", "", i64::from(10 - n)) })
            .collect();
        let expected = pairs(&[("worst", "l9"), ("typical", "l5"), ("newest", "l1"), ("newest", "l3")]);
        assert_eq!(chosen(&runs, Kind::Latency), expected);
    }

    #[test]
    fn only_classes_durations_and_costs_are_shown() {
        let mut run = run("r", "error", "ToolTimeout", 0);
        run.component = Some("tool".to_owned());
        run.tools = vec![("charge".to_owned(), true), ("Ann Lee <ann@x.org>".to_owned(), true)];
        (run.cost, run.currency) = (Some(0.0125), Some("USD".to_owned()));
        assert_eq!(summary(&run), "error, in tool, ToolTimeout, tool charge failed, 1.5 s, 0.0125 USD");
        for text in ["no refund for Ann Lee", "<!channel>", "a\nb", "\u{202e}x", &"x".repeat(65)] {
            run.error_type = Some(text.to_owned());
            assert!(!summary(&run).contains(text), "{text}");
        }
    }
}
