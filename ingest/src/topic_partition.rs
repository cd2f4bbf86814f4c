//! A partition of a topic, by name and number.

use std::fmt;
use std::sync::Arc;

use bellwether_lake::PartitionRange;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

// === impl TopicPartition ===

impl TopicPartition {
    /// Creates the partition of a topic with this number.
    pub fn new(topic: &str, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }

    /// Returns the partition of a range.
    pub(crate) fn of_range(range: &PartitionRange) -> Self {
        Self::new(&range.topic, range.partition)
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}
