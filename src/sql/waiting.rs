//! The line that says how far a statement is, on a terminal, while one waits for its rows.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bellwether_base::grouped;
use bellwether_queries::{Progress, ReadSoFar};

use crate::maintain::bytes;
use crate::screen;
use crate::status_line::StatusLine;

/// Time after which a statement counts as long.
const LONG: Duration = Duration::from_secs(1);

/// Time between two looks at the statement.
const LOOK: Duration = Duration::from_millis(250);

/// A statement that one waits for. Dropping it clears the line.
pub(super) struct Waiting {
    line: StatusLine,
    started: Instant,
    progress: Mutex<Option<Progress>>,
    written: AtomicU64,
    shown: AtomicBool,
    over: AtomicBool,
}

// === impl Waiting ===

impl Waiting {
    /// Begins to wait.
    pub(super) fn begin() -> Self {
        Self {
            line: StatusLine::new(),
            started: Instant::now(),
            progress: Mutex::default(),
            written: AtomicU64::new(0),
            shown: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    /// Shows the line from the first second on.
    pub(super) async fn show(&self) -> Infallible {
        tokio::time::sleep(LONG).await;
        loop {
            if !self.over.load(Ordering::Relaxed) {
                let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let read = progress.map(|progress| progress.read());
                let text = text(self.started.elapsed(), read, self.written.load(Ordering::Relaxed));
                // A line that is wrapped cannot be cleared.
                let width = crossterm::terminal::size().map_or(80, |(columns, _)| usize::from(columns)).max(20) - 1;
                self.line.show(&screen::cut(&text, width));
                self.shown.store(true, Ordering::Relaxed);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Notes that the statement is planned and runs.
    pub(super) fn runs(&self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    /// Notes that rows were written.
    pub(super) fn wrote(&self, rows: usize) {
        self.written.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Clears the line for good, before something else is printed.
    pub(super) fn end(&self) {
        if !self.over.swap(true, Ordering::Relaxed) && self.shown.load(Ordering::Relaxed) {
            self.line.clear();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.end();
    }
}

/// Returns the line of a statement that has read and written so much; `None` means that it is not planned yet.
fn text(elapsed: Duration, read: Option<ReadSoFar>, written: u64) -> String {
    let seconds = elapsed.as_secs();
    let elapsed =
        if seconds < 60 { format!("{seconds} s") } else { format!("{}:{:02} min", seconds / 60, seconds % 60) };
    let mut parts = Vec::new();
    match read {
        None => parts.push(format!("planning, {elapsed}")),
        Some(read) => {
            parts.push(format!("running, {elapsed}"));
            if read.rows > 0 {
                let size = if read.bytes > 0 { format!(" ({})", bytes(read.bytes)) } else { String::new() };
                parts.push(format!("{} rows read{size}", grouped(read.rows)));
            }
            if written > 0 {
                parts.push(format!("{} rows written", grouped(written)));
            }
        }
    }
    parts.push("Ctrl-C cancels".to_owned());
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_the_time_and_what_is_known() {
        let read = |rows, bytes| Some(ReadSoFar { rows, bytes });
        for (seconds, read, written, expected) in [
            (1, None, 0, "planning, 1 s · Ctrl-C cancels"),
            (2, read(0, 0), 0, "running, 2 s · Ctrl-C cancels"),
            (59, read(1_234_567, 0), 0, "running, 59 s · 1,234,567 rows read · Ctrl-C cancels"),
            (
                125,
                read(999, 3 << 20),
                1000,
                "running, 2:05 min · 999 rows read (3.0 MiB) · 1,000 rows written · Ctrl-C cancels",
            ),
        ] {
            assert_eq!(text(Duration::from_secs(seconds), read, written), expected);
        }
    }
}
