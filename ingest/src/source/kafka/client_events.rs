//! Errors and statistics that the Kafka client reports beside polling.

use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;

use super::context::Context;
use crate::topic_partition::TopicPartition;

/// Returns true if the client reports the end of a partition, which is not an error.
fn is_partition_end(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) || matches!(error, KafkaError::PartitionEOF(_))
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is also reported as an error; polling handles it.
        if is_partition_end(&error) {
            return;
        }
        tracing::warn!(%error, reason, "Kafka client error");
        self.health.note(|status| status.broker = Some(format!("{error}: {reason}")));
    }

    fn stats(&self, statistics: Statistics) {
        let (mut behind, mut assigned) = (0, 0);
        let mut open = self.open();
        for (topic, partition, known) in statistics.topics.iter().flat_map(|(topic, statistics)| {
            statistics.partitions.iter().map(move |(id, partition)| (topic, *id, partition))
        }) {
            let topic_partition = TopicPartition::new(topic, partition);
            let Some(position) = open.positions.get(&topic_partition).copied() else { continue };
            assigned += 1;
            // All partitions share one queue: if it is empty, every fetched message of this partition has been taken.
            open.note_fetched(&topic_partition, known.next_offset, known.fetchq_cnt == 0);
            // A negative offset is still unknown to the client.
            if known.hi_offset < 0 {
                continue;
            }
            let lag = (known.hi_offset - position.committed.unwrap_or_else(|| known.lo_offset.max(0))).max(0);
            behind += lag;
            self.metrics
                .lag
                .with_label_values(&[&*topic_partition.topic, &topic_partition.partition.to_string()])
                .set(lag);
        }
        drop(open);
        self.health.note(|status| {
            status.behind = behind;
            status.assigned = assigned;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_partition_is_recognised_in_every_form() {
        assert!(is_partition_end(&KafkaError::PartitionEOF(3)));
        assert!(is_partition_end(&KafkaError::Global(RDKafkaErrorCode::PartitionEOF)));
        assert!(is_partition_end(&KafkaError::MessageConsumption(RDKafkaErrorCode::PartitionEOF)));
        assert!(!is_partition_end(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown)));
        assert!(!is_partition_end(&KafkaError::MessageConsumption(RDKafkaErrorCode::BrokerTransportFailure)));
    }
}
