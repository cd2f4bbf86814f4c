//! How far a running statement is, by the metrics of its plan.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;

/// Name of the metric of bytes that a scan of Parquet files counts.
const BYTES: &str = "bytes_scanned";

/// A view of a running statement.
///
/// It holds the scans of the plan only: other operators may hold rows for as long as they exist.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    scans: Vec<Arc<dyn ExecutionPlan>>,
}

/// The rows and bytes that a statement has read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadSoFar {
    /// Rows of all tables together.
    pub rows: u64,
    /// Bytes of Parquet files; zero for other rows.
    pub bytes: u64,
}

// === impl Progress ===

impl Progress {
    pub(crate) fn of(plan: &Arc<dyn ExecutionPlan>) -> Self {
        let mut scans = Vec::new();
        gather(plan, &mut scans);
        Self { scans }
    }

    /// Returns what the statement has read so far.
    pub fn read(&self) -> ReadSoFar {
        let mut read = ReadSoFar::default();
        for metrics in self.scans.iter().filter_map(|scan| scan.metrics()) {
            read.rows += metrics.output_rows().unwrap_or(0) as u64;
            read.bytes += metrics.sum_by_name(BYTES).map_or(0, |bytes| bytes.as_usize()) as u64;
        }
        read
    }
}

/// Gathers the operators without inputs.
fn gather(plan: &Arc<dyn ExecutionPlan>, scans: &mut Vec<Arc<dyn ExecutionPlan>>) {
    let inputs = plan.children();
    if inputs.is_empty() {
        scans.push(Arc::clone(plan));
    }
    inputs.into_iter().for_each(|input| gather(input, scans));
}
