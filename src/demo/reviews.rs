//! What the demo leaves for people: a sample of its runs to review, and the report of the week.

use std::path::{Path, PathBuf};

use bellwether_alerts::gate::GateReader;
use bellwether_base::Result;
use bellwether_evals::{EvalsSettings, Sample, resample};
use bellwether_follow::FollowHealth;
use bellwether_lake::Lake;
use bellwether_queries::{Session, SessionSettings};
use bellwether_report::{Sources, default_week, gather, html, markdown};
use prometheus::Registry;
use serde::Deserialize;

use crate::report;
use crate::status_line::StatusLine;

/// Most releases that the report judges: the canaries. Each verdict takes seconds in a development build.
const MOST_VERDICTS: usize = 3;

/// The runs to review and the files of the report.
pub(crate) struct Reviews {
    /// Runs that wait for a decision.
    waiting: i64,
    /// Failure signatures among them.
    signatures: i64,
    report: Vec<PathBuf>,
    /// Sentences of the report about what to look at first.
    first: Vec<String>,
}

#[derive(Default, Deserialize)]
struct Queue {
    waiting: i64,
    signatures: i64,
}

/// Draws the sample of each week as the role `evals` does, and writes the report of the week into a folder.
///
/// # Errors
/// `Unavailable` if the tables cannot be read or written; `Config` if the folder cannot be written.
pub(crate) async fn prepare(lake: &Lake, gate: &GateReader, folder: &Path) -> Result<Reviews> {
    let line = StatusLine::new();
    line.show("drawing the runs to review");
    let settings = EvalsSettings::default();
    let sample = Sample { settings, lake: lake.clone(), health: FollowHealth::default() };
    Box::pin(resample(sample, &Registry::new())).await?;
    let session = Session::open(lake, SessionSettings::default()).await?;
    let counts = "SELECT count(*) AS waiting, count(DISTINCT nullif(signature, '')) AS signatures FROM review_queue";
    let queue: Vec<Queue> = session.rows(counts).await?;
    let Queue { waiting, signatures } = queue.into_iter().next().unwrap_or_default();
    let sources =
        Sources { lake, session: &session, gate, most_verdicts: MOST_VERDICTS, tasks: Vec::new(), tenant: None };
    let week = Box::pin(default_week(&sources)).await?;
    let written =
        Box::pin(gather(&sources, week, |part| line.show(&format!("writing the weekly report: {part}")))).await;
    line.clear();
    let written = written?;
    let texts = [("html", html(&written)?), ("md", markdown(&written)?)];
    let first = written.first().to_vec();
    Ok(Reviews { waiting, signatures, report: report::write(&written, &texts, folder)?, first })
}

// === impl Reviews ===

impl Reviews {
    /// Returns what waits for people, with the commands that open it.
    pub(crate) fn shown(&self, root: &str) -> String {
        let mut lines = vec![format!(
            "{} runs wait for a review, with {} failure signatures. To open them: bellwether candidates list --root {root}",
            self.waiting, self.signatures
        )];
        lines.extend(self.report.first().map(|page| format!("The weekly report is in {}", page.display())));
        lines.extend(self.first.first().map(|item| format!("It says first: {item}")));
        lines.join("\n")
    }
}
