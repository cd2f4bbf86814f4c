//! The progress line of a long command, on standard error. Without a terminal there is none.

use std::io::{IsTerminal, Write};

/// A line that is overwritten as work goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatusLine {
    terminal: bool,
}

// === impl StatusLine ===

impl StatusLine {
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal() }
    }

    /// Shows a text instead of the one before.
    pub(crate) fn show(&self, text: &str) {
        if self.terminal {
            // Progress is optional: a closed standard error is fine.
            drop(write!(std::io::stderr(), "\r\x1b[K{text}"));
        }
    }

    /// Returns true if there is a terminal that shows the line.
    pub(crate) fn is_shown(&self) -> bool {
        self.terminal
    }

    /// Clears the line, before something else is printed.
    pub(crate) fn clear(&self) {
        self.show("");
    }
}
