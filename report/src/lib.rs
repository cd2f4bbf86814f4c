//! The report of a week: what got worse and better, the releases and their verdicts, failures, alerts and reviews.
//!
//! * [`gather`] asks the tables about an ISO week, in UTC, and returns a [`WeeklyReport`], a structure of plain values.
//! * `tasks` has the metrics of both weeks, `change` decides which differences are clear, `releases` asks the gate, `failures` groups
//!   failed runs and exceptions, `alarms` counts alerts, `candidates` reads the sample for review, and `first` orders what deserves
//!   attention.
//! * [`html`] and [`markdown`] render the structure; `chart` draws, `words` formats numbers.
//!
//! Rules: a figure comes from the views and functions of crate `queries`, never from a formula of its own; this crate writes no
//! file and knows no Kafka.

mod alarms;
mod candidates;
mod change;
mod chart;
mod failures;
mod first;
mod gathered;
mod releases;
mod render;
mod tasks;
mod words;

pub use gathered::{MOST_VERDICTS, Sources, WeeklyReport, default_week, gather};
pub use render::{html, markdown};
