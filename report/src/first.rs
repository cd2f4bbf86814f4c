//! The items that deserve attention first.

use crate::gathered::WeeklyReport;
use crate::releases::Verdict;
use crate::words::{self, count, percent};

/// Most items.
const MOST: usize = 7;

/// Most items of one kind.
const OF_A_KIND: usize = 3;

/// Coverage of outcomes below which nothing certain can be said of success.
const LOW_COVERAGE: f64 = 0.5;

/// Returns at most seven sentences about a report, the most urgent one first.
pub(crate) fn items(report: &WeeklyReport) -> Vec<String> {
    let WeeklyReport { alarms, releases, changes, failures, tasks, .. } = report;
    let firing = alarms
        .listed
        .iter()
        .filter(|alarm| alarm.is_firing())
        .map(|alarm| format!("The alert `{}` still fires: {}.", alarm.rule, alarm.title.trim_end_matches('.')));
    let bad = releases.iter().filter_map(|release| match &release.verdict {
        Verdict::Answered { roll_back: true, summary, .. } => {
            Some(format!("Roll back release {} of {}: {summary}.", release.release_id, release.task))
        }
        _ => None,
    });
    let worse = changes.worse.iter().map(|change| format!("{}.", words::sentence(change)));
    let new = failures.new.iter().map(|signature| {
        format!(
            "{} {} of {} failed in a new way: {}.",
            count(signature.runs),
            if signature.runs == 1.0 { "run" } else { "runs" },
            signature.task,
            signature.signature
        )
    });
    let reviews = report.candidates.all();
    let critical = (reviews.critical > 0).then(|| match reviews.critical {
        1 => "One critical run of the sample waits for a review.".to_owned(),
        critical => format!("{critical} critical runs of the sample wait for a review."),
    });
    let open = reviews.sampled - reviews.decided;
    let undecided = (!report.is_partial() && 2 * open > reviews.sampled)
        .then(|| format!("{open} of the {} sampled runs wait for a review.", reviews.sampled));
    let unknown = tasks.iter().filter_map(|task| {
        let coverage = task.now.as_ref()?.number("coverage")?;
        let say = || format!("Only {} of the runs of {} have a known outcome.", percent(coverage), task.key.1);
        (coverage < LOW_COVERAGE).then(say)
    });
    let mut items: Vec<String> = firing.take(OF_A_KIND).collect();
    items.extend(bad.take(OF_A_KIND));
    items.extend(worse.take(OF_A_KIND));
    items.extend(critical);
    items.extend(new.take(OF_A_KIND));
    items.extend(undecided);
    items.extend(unknown.take(OF_A_KIND));
    items.truncate(MOST);
    items
}
