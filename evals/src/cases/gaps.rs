//! Candidates of the queue that would fill the gaps of a set.

use std::collections::BTreeSet;

use bellwether_base::Result;
use bellwether_queries::{Session, quoted};
use serde::{Deserialize, Serialize};

use super::kind_of;

/// A candidate that needs a review.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    pub candidate_id: String,
    pub task: String,
    pub class: String,
    /// Empty for uncertain runs and successes.
    pub signature: String,
}

/// Reads the queue of some tasks, the most urgent first.
///
/// # Errors
/// As the session's statements.
pub async fn queue(session: &Session, tasks: &BTreeSet<&str>) -> Result<Vec<Waiting>> {
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let tasks: Vec<String> = tasks.iter().map(|task| quoted(task)).collect();
    let sql = format!(
        "SELECT candidate_id, task, class, signature FROM review_queue WHERE task IN ({}) ORDER BY priority",
        tasks.join(", ")
    );
    session.rows(&sql).await
}

/// Chooses candidates of a task that fill its gaps: first one of each missing kind, then up to `most` in all with other signatures,
/// since another signature shows another failure.
pub fn proposals<'a>(queue: &'a [Waiting], task: &str, missing: &[&str], most: usize) -> Vec<&'a Waiting> {
    let of_task: Vec<&Waiting> = queue.iter().filter(|one| one.task == task).collect();
    let of_kind = |kind: &&str| of_task.iter().copied().find(|one| kind_of(&one.class).name() == *kind);
    let mut chosen: Vec<&Waiting> = missing.iter().filter_map(of_kind).collect();
    for one in of_task {
        if chosen.len() >= most {
            break;
        }
        if chosen.iter().all(|other| other.signature != one.signature) {
            chosen.push(one);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_fill_missing_kinds_first_and_show_different_failures() {
        let one = |id: &str, class: &str, signature: &str| Waiting {
            candidate_id: id.to_owned(),
            task: "refund".to_owned(),
            class: class.to_owned(),
            signature: signature.to_owned(),
        };
        let queue = [
            one("a", "tool_failure", "s1"),
            one("b", "tool_failure", "s1"),
            one("c", "escalated", "s2"),
            one("d", "uncertain", ""),
            one("e", "success", ""),
        ];
        let ids = |missing: &[&str], most| {
            proposals(&queue, "refund", missing, most).iter().map(|one| one.candidate_id.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&["edge"], 3), ["d", "a", "c"]);
        assert_eq!(ids(&["normal", "must_fail_safely"], 1), ["e"]);
        assert!(proposals(&queue, "other", &["edge"], 3).is_empty());
    }
}
