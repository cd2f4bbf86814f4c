//! Framings that ingest accepts besides plain JSON.

use serde_json::json;

use crate::common::event::{now, rfc3339, run};
use crate::common::{Message, Setup, broker};

#[test]
fn cloudevents_in_both_modes_give_the_same_rows_as_plain_json() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("framing", 1);
    let data = run("unused")["data"].clone();
    let structured = json!({
        "specversion": "1.0", "id": "structured:1", "source": "tests", "type": "run.completed",
        "time": rfc3339(now()), "subject": "structured", "data": data,
    });
    broker.publish(
        &topic,
        [
            Message::new(run("plain").to_string()),
            Message::new(data.to_string()).with_headers(&[
                ("ce_specversion", "1.0"),
                ("ce_id", "binary:1"),
                ("ce_source", "tests"),
                ("ce_type", "run.completed"),
                ("ce_subject", "binary"),
                ("content-type", "application/json"),
            ]),
            Message::new(structured.to_string())
                .with_headers(&[("content-type", "application/cloudevents+json; charset=UTF-8")]),
        ],
    );
    let setup = Setup::new(&broker.address, &topic, "");
    setup.catch_up();
    let rejected = setup.sql("SELECT \"offset\", reason, pointer, message FROM quarantine");
    assert!(rejected.is_empty(), "{rejected:?}");
    let rows = setup.sql("SELECT run_id, source, task, cost_nanos, tool_calls_failed FROM runs ORDER BY \"offset\"");
    let expected = |run_id: &str| json!({"run_id": run_id, "source": "tests", "task": "refund_triage", "cost_nanos": 12_500_000, "tool_calls_failed": 1});
    assert_eq!(rows, ["plain", "binary", "structured"].map(expected));
}
