//! Which statements are about no run that has come, so that people see how many wait.
//!
//! The rule is that of `runs.sql` and of the view `orphans`, for a count that no number depends on.

use std::collections::{HashMap, HashSet};

use arrow::array::RecordBatch;
use bellwether_lake::Result;

use crate::statement::{Kind, Statements};

/// A statement, by the hash of its run id and by that of what it says.
type Said = (u64, u64);

/// The tenants that have runs of one id.
#[derive(Default)]
struct Tenants<'a> {
    all: HashSet<&'a str>,
    by_source: HashMap<&'a str, HashSet<&'a str>>,
}

// === impl Tenants ===

impl Tenants<'_> {
    fn has_run_for(&self, source: &str, tenant: &str) -> bool {
        if !tenant.is_empty() {
            return self.all.contains(tenant);
        }
        // Of several tenants none is meant, unless there is a run that names none either.
        let meant = self.by_source.get(source).unwrap_or(&self.all);
        meant.len() == 1 || meant.contains("")
    }
}

/// The late statements that wait, of all that is said of some runs.
pub(crate) fn waiting(said: &[RecordBatch]) -> Result<HashSet<Said>> {
    let batches = said.iter().map(Statements::of).collect::<Result<Vec<_>>>()?;
    let rows_of = |wanted: fn(Kind) -> bool| {
        let rows = batches.iter().flat_map(|rows| (0..rows.rows()).map(move |n| (rows, n)));
        rows.filter(move |(rows, n)| wanted(rows.kind(*n)))
    };
    let mut runs: HashMap<&str, Tenants<'_>> = HashMap::new();
    for (rows, n) in rows_of(|kind| kind == Kind::Completed) {
        let tenants = runs.entry(rows.run_id(n)).or_default();
        tenants.all.insert(rows.tenant(n));
        tenants.by_source.entry(rows.source(n)).or_default().insert(rows.tenant(n));
    }
    let waits = |(rows, n): &(&Statements<'_>, usize)| {
        runs.get(rows.run_id(*n)).is_none_or(|tenants| !tenants.has_run_for(rows.source(*n), rows.tenant(*n)))
    };
    Ok(rows_of(|kind| kind != Kind::Completed).filter(waits).map(|(rows, n)| (rows.run(n), rows.said(n))).collect())
}
