//! Arguments that select a part of the queue.

use bellwether_base::Week;
use bellwether_queries::quoted;
use clap::Args;

/// Filters of candidates.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct FilterArgs {
    /// Only candidates of this task.
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Only candidates of this week, such as 2026-W48 [default: all weeks].
    #[arg(long, value_name = "WEEK")]
    week: Option<Week>,
}

// === impl FilterArgs ===

impl FilterArgs {
    /// Returns conditions on columns of the views of candidates.
    pub(super) fn conditions(&self) -> Vec<String> {
        let task = self.task.as_deref().map(|task| format!("task = {}", quoted(task)));
        let week = self.week.map(|week| format!("week = '{week}'"));
        task.into_iter().chain(week).collect()
    }

    /// Returns the conditions joined by AND; `true` if there are none.
    pub(super) fn condition(&self) -> String {
        self.conditions().into_iter().chain(["true".to_owned()]).collect::<Vec<_>>().join(" AND ")
    }
}
