//! The part of the report about runs to review and eval cases.

use bellwether_stats::figure;
use serde::Serialize;

use crate::candidates::{Candidates, History, Sampled, Signature};
use crate::chart;
use crate::words::{count, day, percent, shown};

/// The values of the part. Every text from data has been through [`shown`].
#[derive(Serialize)]
pub(super) struct CandidatesView {
    sentences: Vec<String>,
    /// Reviews by task; empty without a sample.
    tasks: Vec<TaskRow>,
    signatures: Vec<SignatureRow>,
    /// Signatures that the table leaves out.
    more: String,
    gone: Vec<GoneRow>,
    growth_sentence: String,
    growth_chart: String,
}

#[derive(Serialize)]
struct TaskRow {
    task: String,
    sampled: i64,
    decided: String,
    waiting: i64,
    new_cases: i64,
    cases: i64,
}

#[derive(Serialize)]
struct SignatureRow {
    signature: String,
    task: String,
    /// `new`, or how long it was absent; empty otherwise.
    mark: String,
    runs: String,
    before: String,
    reviewed: String,
}

#[derive(Serialize)]
struct GoneRow {
    signature: String,
    task: String,
    last_seen: String,
}

// === impl CandidatesView ===

impl CandidatesView {
    pub(super) fn of(candidates: &Candidates, charts: bool) -> Self {
        let all = candidates.all();
        let more = candidates.signatures - candidates.top.len();
        let compared = all.earlier > 0;
        Self {
            sentences: sentences(candidates, &all),
            tasks: candidates.tasks.iter().filter(|task| task.sampled + task.cases > 0).map(Sampled::row).collect(),
            signatures: candidates.top.iter().map(|signature| signature.row(compared)).collect(),
            more: if more > 0 { format!("{more} more signatures are in the sample.") } else { String::new() },
            gone: candidates.gone.iter().map(Signature::gone).collect(),
            growth_sentence: growth(&all),
            growth_chart: if charts { chart::growth(&candidates.growth) } else { String::new() },
        }
    }
}

fn sentences(candidates: &Candidates, all: &Sampled) -> Vec<String> {
    if candidates.tasks.is_empty() {
        return vec![
            "No sample was drawn. Turn on `evals.sample` in the configuration to get runs to review.".to_owned(),
        ];
    }
    let mut sentences = Vec::new();
    if all.sampled == 0 {
        sentences.push("No run of the week is in a sample.".to_owned());
    } else {
        sentences.push(format!(
            "The sample has {} runs, which stand for {}. People have decided about {} of them ({}).",
            all.sampled,
            count(all.stands_for),
            all.decided,
            share(all.decided, all.sampled),
        ));
    }
    sentences.push(match all.waiting {
        0 => "No run waits for a decision.".to_owned(),
        1 => format!("One run waits for a decision, for {} now.", age(all.oldest_s)),
        waiting => {
            format!("{waiting} runs of all weeks wait for a decision, the oldest for {}.", age(all.oldest_s))
        }
    });
    if all.waiting > 0 {
        sentences.push("`bellwether candidates list` shows them.".to_owned());
    }
    sentences
}

fn growth(all: &Sampled) -> String {
    match (all.new_cases, all.cases) {
        (_, 0) => "No review has asked for an eval case yet.".to_owned(),
        (0, 1) => "One eval case has come of reviews; none in this week.".to_owned(),
        (new, 1) => format!("{new} eval case has come of reviews, in this week."),
        (0, cases) => format!("{cases} eval cases have come of reviews; none in this week."),
        (new, cases) => format!("{cases} eval cases have come of reviews; {new} of them in this week."),
    }
}

/// Writes an age to the hour, and to the day from two days on.
fn age(seconds: f64) -> String {
    let hours = (seconds / 3600.0).round();
    if hours < 1.0 {
        "less than an hour".to_owned()
    } else if hours < 48.0 {
        format!("{} h", figure::number(hours))
    } else {
        format!("{} days", figure::number((hours / 24.0).round()))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of reviewed runs are small")]
fn share(some: i64, all: i64) -> String {
    percent(some as f64 / all as f64)
}

// === impl Sampled ===

impl Sampled {
    fn row(&self) -> TaskRow {
        TaskRow {
            task: shown(&self.task),
            sampled: self.sampled,
            decided: self.decided.to_string(),
            waiting: self.waiting,
            new_cases: self.new_cases,
            cases: self.cases,
        }
    }
}

// === impl Signature ===

impl Signature {
    /// Returns the class and the cause. The task has a column of its own.
    fn short(&self) -> String {
        let prefix = format!("task={} | ", self.task);
        let text = self.signature.strip_prefix(&prefix).unwrap_or(&self.signature);
        shown(&text.strip_prefix("class=").unwrap_or(text).replacen(" | ", ": ", 1).replace(" | ", ", "))
    }

    /// Returns the row. Without an earlier sample, nothing is said about the weeks before.
    fn row(&self, compared: bool) -> SignatureRow {
        SignatureRow {
            signature: self.short(),
            task: shown(&self.task),
            mark: match self.history {
                History::Known => String::new(),
                History::New => "new".to_owned(),
                History::Back(1) => "back after a week".to_owned(),
                History::Back(weeks) => format!("back after {weeks} weeks"),
            },
            runs: count(self.runs),
            before: if compared { count(self.before) } else { String::new() },
            reviewed: format!("{} of {}", self.decided, self.sampled),
        }
    }

    fn gone(&self) -> GoneRow {
        GoneRow {
            signature: self.short(),
            task: shown(&self.task),
            last_seen: self.seen_before.map_or_else(String::new, day),
        }
    }
}
