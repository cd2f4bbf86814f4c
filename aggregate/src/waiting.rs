//! Finds the late statements that wait for their run, to count them.
//!
//! The rule is that of `runs.sql` and of the view `orphans`. No figure depends on this count.

use std::collections::{HashMap, HashSet};

use arrow::array::RecordBatch;
use bellwether_base::Result;

use crate::statement::{StatementKind, Statements};

/// A statement: the hash of its run id, and its own.
type StatementKey = (u64, u64);

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
        // A statement without a tenant is about a run only if one tenant has such a run, or if a run names no tenant either.
        let candidates = self.by_source.get(source).unwrap_or(&self.all);
        candidates.len() == 1 || candidates.contains("")
    }
}

/// Returns the late statements that wait, given all statements about some runs.
pub(crate) fn waiting(statements: &[RecordBatch]) -> Result<HashSet<StatementKey>> {
    let batches = statements.iter().map(Statements::of).collect::<Result<Vec<_>>>()?;
    let rows_of = |wanted: fn(StatementKind) -> bool| {
        let rows = batches.iter().flat_map(|rows| (0..rows.rows()).map(move |n| (rows, n)));
        rows.filter(move |(rows, n)| wanted(rows.kind(*n)))
    };
    let mut runs: HashMap<&str, Tenants<'_>> = HashMap::new();
    for (rows, n) in rows_of(|kind| kind == StatementKind::Completed) {
        let tenants = runs.entry(rows.run_id(n)).or_default();
        tenants.all.insert(rows.tenant(n));
        tenants.by_source.entry(rows.source(n)).or_default().insert(rows.tenant(n));
    }
    let waits = |(rows, n): &(&Statements<'_>, usize)| {
        runs.get(rows.run_id(*n)).is_none_or(|tenants| !tenants.has_run_for(rows.source(*n), rows.tenant(*n)))
    };
    let late = rows_of(|kind| kind != StatementKind::Completed).filter(waits);
    Ok(late.map(|(rows, n)| (rows.run(n), rows.hash(n))).collect())
}
