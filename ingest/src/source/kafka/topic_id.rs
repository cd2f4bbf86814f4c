//! The id of a topic, which distinguishes a recreated topic from the original.
//!
//! The safe client does not return it, so this module calls librdkafka's `DescribeTopics` itself. All unsafe code is inside one
//! function.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::ptr;
use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::bindings;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::{RDKafka, RDKafkaRespErr};

use super::context::Context;
use crate::commit_pipeline::TopicIds;

/// Timeout of a request for topic ids. Without a reply the check is skipped.
pub(super) const TOPIC_IDS_TIMEOUT: Duration = Duration::from_secs(3);

/// Requests topic ids over the consumer's connections while the consumer exists.
pub(crate) struct ConsumerTopicIds(pub(super) Weak<BaseConsumer<Context>>);

#[async_trait]
impl TopicIds for ConsumerTopicIds {
    async fn ids(&self, topics: &BTreeSet<String>) -> BTreeMap<String, i64> {
        let Some(consumer) = self.0.upgrade() else { return BTreeMap::new() };
        let topics = topics.clone();
        let ids = tokio::task::spawn_blocking(move || {
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            topic_ids(consumer.client().native_ptr(), &names, TOPIC_IDS_TIMEOUT)
        });
        ids.await.unwrap_or_default()
    }
}

/// Requests the ids of topics, and returns the upper half of each id without its sign. Topics without an id (old brokers, the
/// embedded one) are left out, and so are all topics if there is no reply in time.
#[expect(unsafe_code, reason = "librdkafka's DescribeTopics has no safe wrapper")]
pub(super) fn topic_ids(client: *mut RDKafka, topics: &[&str], timeout: Duration) -> BTreeMap<String, i64> {
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(*topic).ok()).collect();
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let mut ids = BTreeMap::new();
    // SAFETY: `client` belongs to a consumer that the caller borrows for the whole call. `pointers` and the strings they point
    // to live until the collection has copied them. Every object created here is destroyed here, once, after its last use, and
    // values read from the event are copied before the event is destroyed.
    unsafe {
        let collection = bindings::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let kind = bindings::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = bindings::rd_kafka_AdminOptions_new(client, kind);
        let queue = bindings::rd_kafka_queue_new(client);
        bindings::rd_kafka_AdminOptions_set_request_timeout(options, timeout, ptr::null_mut(), 0);
        bindings::rd_kafka_DescribeTopics(client, collection, options, queue);
        let event = bindings::rd_kafka_queue_poll(queue, timeout);
        if !event.is_null() {
            let result = bindings::rd_kafka_event_DescribeTopics_result(event);
            if !result.is_null() {
                let mut count = 0;
                let described = bindings::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
                for index in 0..count {
                    let topic = *described.add(index);
                    let error = bindings::rd_kafka_error_code(bindings::rd_kafka_TopicDescription_error(topic));
                    let id = bindings::rd_kafka_TopicDescription_topic_id(topic);
                    let name = bindings::rd_kafka_TopicDescription_name(topic);
                    if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && !id.is_null() && !name.is_null() {
                        let half = bindings::rd_kafka_Uuid_most_significant_bits(id) & i64::MAX;
                        let name = CStr::from_ptr(name).to_string_lossy().into_owned();
                        // A broker without topic ids returns zero.
                        if half != 0 {
                            ids.insert(name, half);
                        }
                    }
                }
            }
            bindings::rd_kafka_event_destroy(event);
        }
        bindings::rd_kafka_queue_destroy(queue);
        bindings::rd_kafka_AdminOptions_destroy(options);
        bindings::rd_kafka_TopicCollection_destroy(collection);
    }
    ids
}
