//! Selects and checks rows by their topic, partition and offset.

use std::collections::BTreeSet;

use bellwether_base::{Error, Result};
use bellwether_lake::{EncodedRows, PartitionRange, Span};

use super::{Batch, PartitionBatch};

/// Checks that a batch satisfies the protocol. A violation is a bug of the source.
pub(super) fn check(batch: &Batch) -> Result<()> {
    let mut seen = BTreeSet::new();
    for PartitionBatch { range, expected } in &batch.partitions {
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
        batch.partitions.iter().any(|part| is_within(span, &part.range) && around(&part.range))
    };
    if batch.events.spans().iter().chain(batch.quarantine.spans()).all(inside) {
        return Ok(());
    }
    Err(Error::bug("a row is outside the offset ranges of its batch"))
}

/// Returns true if a span is in the partition of a range.
pub(super) fn is_within(span: &Span, range: &PartitionRange) -> bool {
    span.partition == range.partition && span.topic == range.topic
}

/// Returns the rows of some partitions. In the usual case, all of them, nothing is copied.
pub(super) fn rows_of(rows: &EncodedRows, partitions: &[PartitionBatch]) -> Result<EncodedRows> {
    if rows.spans().iter().all(|span| partitions.iter().any(|part| is_within(span, &part.range))) {
        return Ok(rows.clone());
    }
    let wanted = |topic: &str, partition: i32| {
        partitions.iter().any(|part| part.range.topic == topic && part.range.partition == partition)
    };
    rows.kept(|topic, partition, _| wanted(topic, partition))
}
