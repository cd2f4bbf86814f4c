//! How many cases of each kind a task has, against a target.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::case::{CaseKind, EvalCase};

/// Cases of one task with which to start: at least, and at most.
pub const TARGET: (usize, usize) = (20, 50);

/// Coverage of one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Coverage {
    pub task: String,
    /// Cases by kind, in the order of [`CaseKind::ALL`].
    pub by_kind: [usize; 4],
    pub cases: usize,
    /// Cases that the task needs to reach the target.
    pub wanted: usize,
    /// Kinds without any case.
    pub missing: Vec<&'static str>,
    /// Cases of which only the hash or address of the content is known.
    pub without_content: usize,
}

/// Returns the coverage of each task, by name.
pub fn coverage(cases: &[EvalCase], target: usize) -> Vec<Coverage> {
    let mut tasks: BTreeMap<&str, ([usize; 4], usize)> = BTreeMap::new();
    for case in cases.iter().filter(|case| !case.erased) {
        let (by_kind, without_content) = tasks.entry(&case.task).or_default();
        by_kind[case.kind as usize] += 1;
        *without_content += usize::from(case.input.is_empty());
    }
    let one = |(task, (by_kind, without_content)): (&str, ([usize; 4], usize))| {
        let cases = by_kind.iter().sum();
        let missing =
            CaseKind::ALL.iter().filter(|kind| by_kind[**kind as usize] == 0).map(|kind| kind.name()).collect();
        Coverage {
            task: task.to_owned(),
            by_kind,
            cases,
            wanted: target.saturating_sub(cases),
            missing,
            without_content,
        }
    };
    tasks.into_iter().map(one).collect()
}
