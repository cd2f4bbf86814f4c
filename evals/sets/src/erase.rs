//! Erasure: a case loses its content with the run that it was made of, and stays as a tombstone.

use bellwether_base::Result;

use crate::case::{EvalCase, RunIdentity};
use crate::set::EvalSet;

/// The text in place of an identifier that was erased.
pub const ERASED: &str = "erased";

/// Runs that are erased.
#[derive(Clone, Copy)]
pub struct ErasedRuns<'a> {
    /// Returns true for such a run.
    pub has: &'a dyn Fn(&RunIdentity) -> bool,
    /// Returns true for a text that has one of their identifiers as a whole word.
    pub are_named: &'a dyn Fn(&str) -> bool,
}

// === impl EvalCase ===

impl EvalCase {
    /// Returns the case without erased runs. If it was made of one, input, answer, rules, tags and signature go; id, version, task,
    /// kind, split, release, reviewer, decision and probability stay. A run with the same input only leaves the list of runs.
    pub fn without_runs(&self, erased: ErasedRuns<'_>) -> Self {
        let mut case = self.clone();
        let provenance = &mut case.provenance;
        provenance.runs.retain(|run| !(erased.has)(run));
        if let Some(run) = provenance.run.as_mut().filter(|run| (erased.has)(run)) {
            ERASED.clone_into(&mut run.run_id);
            if let Some(tenant) = run.tenant.as_mut().filter(|tenant| (erased.are_named)(tenant)) {
                ERASED.clone_into(tenant);
            }
            provenance.signature = None;
            case.erased = true;
            (case.content_ref, case.content_sha256, case.expected) = (None, None, None);
            case.input.clear();
            case.grading.clear();
            case.tags.clear();
        }
        if let Some(old) = case.provenance.supersedes.as_mut().filter(|old| (erased.are_named)(&old.reason)) {
            ERASED.clone_into(&mut old.reason);
        }
        case
    }
}

// === impl EvalSet ===

impl EvalSet {
    /// Returns the version without erased runs; `None` if it has none of them.
    ///
    /// # Errors
    /// `Bug` if the version would be invalid.
    pub fn without_runs(&self, erased: ErasedRuns<'_>) -> Result<Option<Self>> {
        let cases: Vec<EvalCase> = self.cases().iter().map(|case| case.without_runs(erased)).collect();
        if cases == self.cases() {
            return Ok(None);
        }
        let mut without = Self::new(&self.name, self.version, cases)?;
        without.frozen = self.frozen;
        Ok(Some(without))
    }

    /// Returns how many cases lost their content.
    pub fn erased(&self) -> usize {
        self.cases().iter().filter(|case| case.erased).count()
    }
}
