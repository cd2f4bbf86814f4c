//! The report as one HTML page and as Markdown.

mod candidates;

use bellwether_base::{Error, Result};
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

use crate::alarms::{Alarm, Alarms, Precision};
use crate::change::{MEASURES, Measure};
use crate::chart;
use crate::failures::{Reason, Signature};
use crate::gathered::{Reviews, WeeklyReport};
use crate::releases::{NewRelease, Verdict};
use crate::tasks::{Change, Changes, Day, Metrics, TaskWeek};
use crate::words::{self, count, day, percent, shown, time};
use candidates::CandidatesView;

/// Measures in the table of a task, by their columns.
const IN_TABLE: [&str; 4] = ["success_rate", "schema_adherence", "escalation_rate", "cost_per_completed_task"];

/// Tasks with charts: the page stays small.
const MOST_CHARTS: usize = 24;

/// A cell of the table of tasks.
#[derive(Serialize)]
struct Cell {
    name: &'static str,
    now: String,
    /// The value of the week before, if there is one.
    before: String,
    /// `worse`, `better` or empty: the change is clear.
    class: &'static str,
}

/// A task, with its charts.
#[derive(Serialize)]
struct TaskRow {
    name: String,
    runs: String,
    runs_before: String,
    cells: Vec<Cell>,
    success_chart: String,
    cost_chart: String,
}

#[derive(Serialize)]
struct ReleaseRow {
    name: String,
    task: String,
    stages: String,
    runs: String,
    success: String,
    verdict: String,
    reason: String,
    class: &'static str,
}

#[derive(Serialize)]
struct FailureRow {
    signature: String,
    task: String,
    runs: String,
    before: String,
    is_new: bool,
    last_seen: String,
    releases: String,
}

#[derive(Serialize)]
struct ReasonRow {
    reason: String,
    task: String,
    runs: String,
    before: String,
}

#[derive(Serialize)]
struct AlarmRow {
    title: String,
    severity: String,
    state: String,
    firing: bool,
    at: String,
    times: i64,
}

#[derive(Serialize)]
struct PrecisionRow {
    rule: String,
    useful: i64,
    firings: i64,
}

/// The values of the templates. Every text from data has been through [`shown`].
#[derive(Serialize)]
struct View {
    heading: String,
    subtitle: String,
    first: Vec<String>,
    rows: Vec<TaskRow>,
    compared: String,
    worse: Vec<String>,
    better: Vec<String>,
    releases: Vec<ReleaseRow>,
    failures: Vec<FailureRow>,
    gone: Vec<FailureRow>,
    reasons: Vec<ReasonRow>,
    alarms: Vec<AlarmRow>,
    alarms_sentence: String,
    precision: Vec<PrecisionRow>,
    coverage: Vec<(String, String, String)>,
    reviews_sentence: String,
    sample: CandidatesView,
}

/// Renders a report as one HTML page that loads nothing else.
///
/// # Errors
/// `Bug` if the template fails.
pub fn html(report: &WeeklyReport) -> Result<String> {
    rendered("weekly.html", include_str!("../templates/weekly.html"), &report.view(true))
}

/// Renders a report as Markdown, without charts.
///
/// # Errors
/// `Bug` if the template fails.
pub fn markdown(report: &WeeklyReport) -> Result<String> {
    rendered("weekly.md", include_str!("../templates/weekly.md"), &report.view(false))
}

/// Renders a template: the end of its name decides whether values are escaped for HTML.
fn rendered(name: &str, template: &str, view: &View) -> Result<String> {
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    templates.add_filter("md", markdown_text);
    templates
        .render_named_str(name, template, Serde(view))
        .map_err(|source| Error::bug("cannot render the report").with_source(source))
}

/// Writes a text inside a line or a cell of Markdown: marks of its notation lose their meaning.
fn markdown_text(text: &str) -> String {
    let mut safe = String::new();
    for char in text.chars() {
        if matches!(char, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' | '!' | '&') {
            safe.push('\\');
        }
        safe.push(char);
    }
    safe
}

fn rows(report: &WeeklyReport, charts: bool) -> Vec<TaskRow> {
    let row = |(place, task): (usize, &TaskWeek)| {
        let drawn = charts && place < MOST_CHARTS && task.now.is_some();
        let picture = |draw: fn(&[Day], &str) -> String| {
            if drawn { draw(&task.days, &shown(&task.key.1)) } else { String::new() }
        };
        TaskRow {
            name: named(&task.key.0, &task.key.1),
            runs: count(task.runs()),
            runs_before: task.before.as_ref().map_or_else(String::new, |before| count(before.runs())),
            cells: cells(task, &report.changes),
            success_chart: picture(chart::success),
            cost_chart: picture(chart::cost),
        }
    };
    report.tasks.iter().enumerate().map(row).collect()
}

fn cells(task: &TaskWeek, changes: &Changes) -> Vec<Cell> {
    let clear = |changes: &[Change], measure: &Measure| {
        changes.iter().any(|change| change.key == task.key && change.measure == measure)
    };
    let text = |metrics: Option<&Metrics>, measure: &Measure| {
        let figure = metrics.and_then(|metrics| Some((metrics.figure(measure)?, metrics.currency())));
        figure.map_or_else(String::new, |(figure, currency)| words::value(measure, figure.value, currency))
    };
    let shown = MEASURES.iter().filter(|measure| IN_TABLE.contains(&measure.column));
    shown
        .map(|measure| Cell {
            name: measure.name,
            now: text(task.now.as_ref(), measure),
            before: text(task.before.as_ref(), measure),
            class: match (clear(&changes.worse, measure), clear(&changes.better, measure)) {
                (true, _) => "worse",
                (_, true) => "better",
                _ => "",
            },
        })
        .collect()
}

/// Returns the name of a task, after that of its tenant.
fn named(tenant: &str, task: &str) -> String {
    if tenant.is_empty() { shown(task) } else { format!("{} / {}", shown(tenant), shown(task)) }
}

// === impl WeeklyReport ===

impl WeeklyReport {
    fn view(&self, charts: bool) -> View {
        let lines = |changes: &[Change]| changes.iter().map(Change::line).collect();
        let reasons = |reasons: &[Reason], kind: &str| -> Vec<ReasonRow> {
            reasons.iter().map(|reason| reason.row(kind)).collect()
        };
        let mut all = reasons(&self.failures.escalations, "escalated");
        all.extend(reasons(&self.failures.exceptions, "policy"));
        View {
            heading: self.heading(),
            subtitle: self.subtitle(),
            first: self.first.iter().map(|item| shown(item)).collect(),
            rows: rows(self, charts),
            compared: self.compared(),
            worse: lines(&self.changes.worse),
            better: lines(&self.changes.better),
            releases: self.releases.iter().map(NewRelease::row).collect(),
            failures: self.failures.top.iter().map(Signature::row).collect(),
            gone: self.failures.gone.iter().map(Signature::row).collect(),
            reasons: all,
            alarms: self.alarms.listed.iter().map(Alarm::row).collect(),
            alarms_sentence: self.alarms.sentence(),
            precision: self.alarms.precision.iter().map(Precision::row).collect(),
            coverage: self.coverage(),
            reviews_sentence: self.reviews.sentence(),
            sample: CandidatesView::of(&self.candidates, charts),
        }
    }

    fn heading(&self) -> String {
        format!("Week {}: {}", self.week, words::dates(self.week))
    }

    fn subtitle(&self) -> String {
        let scope = self.tenant.as_ref().map_or_else(String::new, |tenant| format!(" for tenant {}", shown(tenant)));
        let partial = if self.is_partial() { " The week is not over." } else { "" };
        format!("Written {}{scope}.{partial}", time(self.made_at))
    }

    fn compared(&self) -> String {
        match self.changes.comparisons {
            0 => "No task ran in both weeks, so nothing was compared.".to_owned(),
            n => format!(
                "{n} figures were compared with the week before. A change is listed if it is clear: with no true change \
                 at all, a report lists one in 5 % of weeks at most."
            ),
        }
    }

    fn coverage(&self) -> Vec<(String, String, String)> {
        let of = |task: &TaskWeek| {
            let now = task.now.as_ref()?;
            let by_people = now.number("judged_by_human").unwrap_or_default() / now.runs().max(1.0);
            let known = now.number("coverage").map_or_else(|| "unknown".to_owned(), percent);
            Some((named(&task.key.0, &task.key.1), known, percent(by_people)))
        };
        self.tasks.iter().filter_map(of).collect()
    }
}

// === impl Change ===

impl Change {
    fn line(&self) -> String {
        format!("{} ({})", words::sentence(self), words::moved(self))
    }
}

// === impl NewRelease ===

impl NewRelease {
    fn row(&self) -> ReleaseRow {
        let (verdict, reason, class) = self.verdict.words();
        ReleaseRow {
            name: shown(&self.release_id),
            task: named(&self.tenant, &self.task),
            stages: shown(&self.stages),
            runs: count(self.runs),
            success: self.success_rate.map_or_else(|| "unknown".to_owned(), percent),
            verdict,
            reason,
            class,
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// Returns the verdict, its reason and its class: `worse`, `better` or empty.
    fn words(&self) -> (String, String, &'static str) {
        match self {
            Self::Answered { decision, summary, baseline, .. } => {
                let compared =
                    if baseline.is_empty() { String::new() } else { format!(", compared with {}", shown(baseline)) };
                let class = match *decision {
                    "roll back" => "worse",
                    "promote" => "better",
                    _ => "",
                };
                (format!("{decision}{compared}"), shown(summary), class)
            }
            Self::NotAsked => ("not judged".to_owned(), String::new(), ""),
            Self::Failed(why) => ("no verdict".to_owned(), shown(why), ""),
        }
    }
}

// === impl Signature ===

impl Signature {
    fn row(&self) -> FailureRow {
        FailureRow {
            signature: shown(&self.signature),
            task: shown(&self.task),
            runs: count(self.runs),
            before: count(self.before),
            is_new: self.is_new,
            last_seen: day(self.last_seen),
            releases: shown(&self.releases),
        }
    }
}

// === impl Reason ===

impl Reason {
    fn row(&self, kind: &str) -> ReasonRow {
        ReasonRow {
            reason: format!("{kind}: {}", shown(&self.reason)),
            task: shown(&self.task),
            runs: count(self.runs),
            before: count(self.before),
        }
    }
}

// === impl Reviews ===

impl Reviews {
    fn sentence(&self) -> String {
        match self.reviews {
            0 => "Nobody reviewed a run.".to_owned(),
            1 => "One run was reviewed.".to_owned(),
            n => format!("Reviews: {n}. Reviewed runs: {}. Reviewers: {}.", self.runs, self.reviewers),
        }
    }
}

// === impl Alarms ===

impl Alarms {
    fn sentence(&self) -> String {
        match (self.fired, self.firing) {
            (0, _) => "No alert fired.".to_owned(),
            (1, 0) => "One alert fired; it does not fire any more.".to_owned(),
            (1, _) => "One alert fired; it still does.".to_owned(),
            (fired, firing) => format!("{fired} alerts fired; {firing} of them still fire."),
        }
    }
}

// === impl Alarm ===

impl Alarm {
    fn row(&self) -> AlarmRow {
        AlarmRow {
            title: shown(self.title.trim_end_matches('.')),
            severity: shown(&self.severity),
            state: shown(&self.state),
            firing: self.is_firing(),
            at: time(self.at),
            times: self.times,
        }
    }
}

// === impl Precision ===

impl Precision {
    fn row(&self) -> PrecisionRow {
        PrecisionRow { rule: shown(&self.rule), useful: self.useful, firings: self.useful + self.noise }
    }
}
