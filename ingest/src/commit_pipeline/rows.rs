//! Rows by their coordinates: topic, partition and offset.

use std::collections::BTreeSet;

use bellwether_base::{Error, Result};
use bellwether_lake::{EncodedRows, PartitionRange, Span};

use super::{Batch, Touched};

/// Refuses a batch that would break the protocol: it can only come from a mistake in the source.
pub(super) fn check(batch: &Batch) -> Result<()> {
    let mut seen = BTreeSet::new();
    for Touched { range, expected } in &batch.touched {
        let place = format!("`{}/{}`", range.topic, range.partition);
        if !seen.insert((range.topic.as_str(), range.partition)) {
            return Err(Error::bug(format!("partition {place} occurs twice in a batch")));
        }
        if range.next <= range.from || expected.is_some_and(|expected| expected != range.from) {
            return Err(Error::bug(format!("range [{}, {}) of {place} does not advance", range.from, range.next)));
        }
    }
    let inside = |span: &Span| {
        let around = |range: &PartitionRange| span.first >= range.from && span.next <= range.next;
        batch.touched.iter().any(|one| is_of(span, &one.range) && around(&one.range))
    };
    if batch.events.spans().iter().chain(batch.quarantine.spans()).all(inside) {
        return Ok(());
    }
    Err(Error::bug("a row is outside the offset ranges of its batch"))
}

/// True where a span is of the partition of a range.
pub(super) fn is_of(span: &Span, range: &PartitionRange) -> bool {
    span.partition == range.partition && span.topic == range.topic
}

/// The rows of some partitions. All of them, as nearly always, costs nothing.
pub(super) fn of(rows: &EncodedRows, touched: &[Touched]) -> Result<EncodedRows> {
    if rows.spans().iter().all(|span| touched.iter().any(|one| is_of(span, &one.range))) {
        return Ok(rows.clone());
    }
    let wanted = |topic: &str, partition: i32| {
        touched.iter().any(|one| one.range.topic == topic && one.range.partition == partition)
    };
    rows.kept(|topic, partition, _| wanted(topic, partition))
}
