//! Inputs that never reject an event: malformed descriptions, nulls, lone surrogates and unknown fields.

mod common;

use bellwether_event::record::{entries, kept};
use bellwether_event::{Decoder, Envelope, Event, Limits, Payload, Reason, check, problems, schema};
use common::{NOW, accepted, examples, minimal_with, published_schema, rejected, truncated, wide_open};
use serde_json::{Value, json};

#[test]
fn descriptive_text_is_cut_between_characters_and_the_run_is_kept() {
    let long = "é".repeat(2000);
    let body = minimal_with(|event| {
        event["supersedes"] = json!(long);
        let data = &mut event["data"];
        data["environment"] = json!(long);
        data["outcome"]["reason_code"] = json!(long);
        data["failure_point"] = json!({ "component": long, "step": long, "error_type": long });
        data["validation"] =
            json!({ "valid": false, "fields": [{ "path": long, "valid": false, "rule": long, "message": long }] });
        data["tool_calls"] = json!([{ "name": long, "status": long, "error_type": long }]);
        data["escalation"] = json!({ "reason_code": long });
        data["scores"] =
            json!([{ "name": "n", "kind": "llm", "evaluator": { "id": "e" }, "label": long, "explanation": long }]);
        data["segments"] = json!({ "region": long });
        data["release"] = json!({ "id": "1", "prompt": { "version": long } });
    });
    accepted(&body, |event| {
        let mut listed = truncated(event);
        listed.sort();
        let expected = [
            "/data/environment",
            "/data/escalation/reason_code",
            "/data/failure_point/component",
            "/data/failure_point/error_type",
            "/data/failure_point/step",
            "/data/outcome/reason_code",
            "/data/release/prompt/version",
            "/data/scores/0/explanation",
            "/data/scores/0/label",
            "/data/segments/region",
            "/data/tool_calls/0/error_type",
            "/data/tool_calls/0/name",
            "/data/tool_calls/0/status",
            "/data/validation/fields/0/message",
            "/data/validation/fields/0/path",
            "/data/validation/fields/0/rule",
            "/supersedes",
        ];
        assert_eq!(listed, expected.map(|pointer| (pointer.to_owned(), "cut")));
        let Payload::Completed(completed) = &event.payload else { panic!("a completed run") };
        let explanation = completed.run.scores.as_ref().and_then(|scores| scores.kept()[0].explanation.as_deref());
        assert_eq!(explanation, Some("é".repeat(1024).as_str()));
        assert_eq!(completed.release.prompt_version.as_deref(), Some("é".repeat(128).as_str()));
    });
    let warned = check(&body, 32);
    assert_eq!(warned.len(), 17, "{warned:?}");
    assert!(warned.iter().all(|problem| !problem.rejects && problem.reason == Reason::TooLong));
}

#[test]
fn lists_are_cut_at_their_limit_and_totals_count_all_entries() {
    let calls: Vec<Value> = (0..300)
        .map(|n| json!({ "name": format!("tool-{n}"), "status": if n < 290 { "ok" } else { "error" } }))
        .collect();
    let body = minimal_with(|event| {
        event["data"]["tool_calls"] = json!(calls);
        event["data"]["segments"] = (0..20).map(|n| (format!("k{n:02}"), json!("v"))).collect();
        event["data"]["truncated"] = json!(["content"]);
    });
    accepted(&body, |event| {
        let mut listed = truncated(event);
        listed.sort_unstable();
        let expected = [("/data/segments", "cut"), ("/data/tool_calls", "cut"), ("content", "stated")];
        assert_eq!(listed, expected.map(|(pointer, done)| (pointer.to_owned(), done)));
        let Payload::Completed(completed) = &event.payload else { panic!("a completed run") };
        let calls = completed.run.tool_calls.as_ref();
        assert_eq!(kept(calls).len(), 256);
        assert_eq!(entries(calls).iter().filter(|call| call.failed()).count(), 10);
        assert_eq!(completed.run.segments.as_ref().map(|segments| segments.0.len()), Some(16));
        let extra: Value = serde_json::from_str(event.extra.as_deref().expect("some")).expect("JSON");
        assert_eq!(extra["data"]["segments"], json!({ "k16": "v", "k17": "v", "k18": "v", "k19": "v" }));
    });
}

#[test]
fn only_identity_time_and_outcome_reject_a_run() {
    let wrong = [
        ("/data/llm_calls", json!(-1)),
        ("/data/llm_calls", json!("2")),
        ("/data/tokens", json!({ "input": -1, "output": 7 })),
        ("/data/tokens", json!({ "input": 9_007_199_254_740_991_u64, "output": 7 })),
        ("/data/tokens", json!([])),
        ("/data/cost", json!({ "amount": "1e3", "currency": "USD" })),
        ("/data/cost", json!({ "amount": "999999999", "currency": "USD" })),
        ("/data/cost", json!({ "amount": 0.5, "currency": "USD" })),
        ("/data/cost", json!({ "currency": "USD" })),
        ("/data/latency", json!({ "total_ms": -5 })),
        ("/data/latency", json!({ "total_ms": 9e12 })),
        ("/data/trace", json!({ "trace_id": "not hexadecimal" })),
        ("/data/tool_calls", json!([{ "name": "a", "status": "ok", "risk": "extreme" }])),
        ("/data/tool_calls", json!([7, { "status": "ok" }])),
        ("/data/policy_exceptions", json!([{ "policy_id": "p", "severity": "urgent" }])),
        ("/data/scores", json!([{ "name": "n" }])),
        ("/data/validation", json!({ "applicable": "yes", "valid": true })),
        ("/data/rollout", json!({ "stage": "full", "traffic_fraction": 2 })),
        ("/data/steps", json!("none")),
        ("/data/content", json!("text")),
        ("/data/session_id", json!(7)),
        ("/data/segments", json!({ "tier": 3 })),
        ("/data/started_at", json!("0001-01-01T00:00:00Z")),
    ];
    for (pointer, value) in wrong {
        let body = minimal_with(|event| {
            let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
            event.pointer_mut(parent).expect("there")[name] = value.clone();
        });
        accepted(&body, |event| {
            let listed = truncated(event);
            assert!(
                listed.iter().all(|(listed, done)| listed.starts_with(pointer) && *done == "left out"),
                "{listed:?}"
            );
            assert!(!listed.is_empty(), "{body}");
            let extra = event.extra.as_deref().unwrap_or_else(|| panic!("{body} leaves nothing"));
            let extra: Value = serde_json::from_str(extra).expect("JSON");
            for (pointer, _) in &listed {
                assert!(extra.pointer(pointer).is_some(), "{pointer} is kept in {extra}");
            }
        });
        let warned = check(&body, 32);
        assert!(!warned.is_empty() && warned.iter().all(|problem| !problem.rejects), "{body}: {warned:?}");
    }
}

#[test]
fn a_zero_start_time_yields_no_duration() {
    for started in ["0001-01-01T00:00:00Z", "0000-00-00", "1970-01-01T00:00:00Z", "2026-11-23T10:00:09Z"] {
        let body = minimal_with(|event| event["data"]["started_at"] = json!(started));
        if started == "0000-00-00" {
            assert_eq!(rejected(&body, wide_open()), [(Reason::TimeFormat, "/data/started_at".to_owned())]);
            continue;
        }
        accepted(&body, |event| {
            let Payload::Completed(completed) = &event.payload else { panic!("a completed run") };
            assert_eq!(completed.latency_total_micros(), None, "{started}");
        });
    }
}

#[test]
fn a_probability_below_its_bound_counts_as_the_bound() {
    let body = minimal_with(|event| event["data"]["sampling"] = json!({ "probability": 1e-9 }));
    accepted(&body, |event| {
        let Payload::Completed(completed) = &event.payload else { panic!("a completed run") };
        assert_eq!(completed.weight_micros(""), 1_000_000_000_000);
        assert_eq!(truncated(event), [("/data/sampling/probability".to_owned(), "bounded")]);
    });
}

#[test]
fn traces_and_currencies_are_read_in_either_case() {
    let body = minimal_with(|event| {
        event["data"]["trace"] =
            json!({ "trace_id": "4BF92F3577B34DA6A3CE929D0E0E4736", "span_id": "00F067AA0BA902B7" });
        event["data"]["cost"] = json!({ "amount": "1", "currency": "usd" });
    });
    accepted(&body, |event| {
        let Payload::Completed(completed) = &event.payload else { panic!("a completed run") };
        let trace = completed.run.trace.as_ref().expect("a trace");
        assert_eq!(trace.trace_id.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert_eq!(trace.span_id.as_deref(), Some("00f067aa0ba902b7"));
        assert_eq!(completed.run.cost.as_ref().and_then(|cost| cost.currency.as_deref()), Some("USD"));
    });
    let warned = check(&body, 32);
    let trace = warned.iter().find(|problem| problem.pointer == "/data/trace/trace_id").expect("reported");
    assert!(!trace.rejects && trace.message.contains("lower-case"), "{trace:?}");
}

/// Returns an event with every absent optional field set to null, at every depth.
fn with_nulls(value: &Value, definition: &Value, root: &Value) -> Value {
    let definition = definition.pointer("/anyOf/0").filter(|of| of.get("$ref").is_some()).unwrap_or(definition);
    let definition = match definition.get("$ref").and_then(Value::as_str) {
        Some(name) => root.pointer(&name[1..]).expect("a definition"),
        None => definition,
    };
    match value {
        Value::Object(fields) => {
            let mut fields = fields.clone();
            for (name, definition) in definition["properties"].as_object().into_iter().flatten() {
                match fields.get(name) {
                    Some(value) => fields[name] = with_nulls(value, definition, root),
                    None => {
                        fields.insert(name.clone(), Value::Null);
                    }
                }
            }
            Value::Object(fields)
        }
        Value::Array(entries) => entries.iter().map(|entry| with_nulls(entry, &definition["items"], root)).collect(),
        _ => value.clone(),
    }
}

#[test]
fn a_null_field_counts_as_absent_at_every_depth() {
    let root: Value = serde_json::from_str(schema()).expect("JSON");
    let definitions = [
        ("run.completed", "completed"),
        ("run.score", "score"),
        ("run.review", "review"),
        ("run.escalated", "escalation"),
        ("run.policy_exception", "policy_exception"),
    ];
    for example in examples() {
        let event_type = example["type"].as_str().unwrap_or("run.completed");
        let name = definitions.iter().find(|(known, _)| *known == event_type).expect("a type").1;
        let mut nulls = with_nulls(&example, &root, &root);
        nulls["data"] = with_nulls(&example["data"], &root["$defs"][name], &root);
        for name in ["tool_calls", "scores"] {
            if let Some(entries) = nulls["data"].get_mut(name).and_then(Value::as_array_mut) {
                entries.push(Value::Null);
            }
        }
        assert_ne!(nulls, example);
        assert!(problems(&nulls).is_empty(), "{nulls}: {:?}", problems(&nulls));
        assert!(published_schema().is_valid(&nulls), "{nulls}");
        let seen = |event: &Event<'_>| {
            let mut event = event.clone();
            // These are kept as sent, including nulls.
            if let Payload::Completed(completed) = &mut event.payload {
                (completed.run.content, completed.run.steps) = (None, None);
                completed.run.release = None;
            }
            format!("{event:?}")
        };
        let (with, without) = (accepted(&nulls.to_string(), seen), accepted(&example.to_string(), seen));
        assert_eq!(with, without);
    }
}

#[test]
fn a_byte_order_mark_is_skipped() {
    accepted(&format!("\u{feff}{}", minimal_with(|_| {})), |event| assert_eq!(event.run_id, "r-1"));
}

#[test]
fn an_answer_with_a_validation_result_has_a_schema() {
    for (validation, applicable) in [
        (json!({ "valid": true }), Some(true)),
        (json!({ "valid": false, "applicable": null }), Some(true)),
        (json!({ "applicable": false, "valid": null }), Some(false)),
        (json!({ "schema_id": "s" }), None),
    ] {
        let body = minimal_with(|event| event["data"]["validation"] = validation.clone());
        accepted(&body, |event| {
            let Payload::Completed(completed) = &event.payload else { panic!("a completed run") };
            let found = completed.run.validation.as_ref().and_then(|validation| validation.is_applicable());
            assert_eq!(found, applicable, "{validation}");
            assert_eq!(truncated(event), []);
        });
    }
}

#[test]
fn the_same_statement_at_another_time_gets_another_id() {
    let exception = |time: &str, tenant: &str| {
        let body = json!({
            "spec": "run-event/1", "type": "run.policy_exception", "run_id": "r", "time": time, "tenant": tenant,
            "data": { "policy_id": "p", "severity": "low" },
        });
        accepted(&body.to_string(), |event| event.id.to_string())
    };
    let first = exception("2026-11-23T10:00:00Z", "a");
    assert_eq!(first, exception("2026-11-23T11:00:00+01:00", "a"), "sent again");
    assert_ne!(first, exception("2026-11-23T10:01:40Z", "a"));
    assert_ne!(first, exception("2026-11-23T10:00:00Z", "b"));
}

#[test]
fn a_message_above_the_limit_loses_content_steps_and_unknown_fields() {
    let body = minimal_with(|event| {
        event["data"]["content"] = json!({ "input": "x".repeat(2000) });
        event["data"]["steps"] = json!([{ "name": "s" }]);
        event["data"]["mood"] = json!("good");
    });
    let mut decoder = Decoder::new(Limits { max_bytes: 1000, content_bytes: Some(10_000), ..Limits::default() });
    let event = decoder.decode(body.as_bytes(), &Envelope::default(), NOW).expect("accepted");
    let expected = [("/data/content/input", "left out"), ("/data/steps", "left out"), ("extra", "left out")];
    assert_eq!(truncated(&event), expected.map(|(pointer, done)| (pointer.to_owned(), done)));
    assert_eq!(event.extra, None);
}

#[test]
fn content_is_kept_if_it_is_on_and_short_and_its_references_always() {
    let hash = format!("sha256:{}", "0".repeat(64));
    let body = minimal_with(|event| {
        event["data"]["content"] = json!({ "input": "x".repeat(500), "output_ref": "s3://b/k", "output_sha256": hash });
    });
    let kept = |content_bytes| {
        let mut decoder = Decoder::new(Limits { content_bytes, ..Limits::default() });
        let event = decoder.decode(body.as_bytes(), &Envelope::default(), NOW).expect("accepted");
        let Payload::Completed(completed) = &event.payload else { panic!("a completed run") };
        let content: Value =
            serde_json::from_str(completed.run.content.as_ref().expect("references").get()).expect("JSON");
        assert_eq!((&content["output_ref"], &content["output_sha256"]), (&json!("s3://b/k"), &json!(hash)));
        (content["input"].is_string(), truncated(&event))
    };
    assert_eq!(kept(Some(1000)), (true, vec![]));
    let marked = |done| vec![("/data/content/input".to_owned(), done)];
    assert_eq!(kept(Some(500)), (false, marked("left out")));
    assert_eq!(kept(None), (false, marked("off")), "the default");
    assert_eq!(Limits::default().content_bytes, None);
}

#[test]
fn content_in_a_wrong_form_or_place_obeys_the_switch_too() {
    for (place, pointer) in [("/data/content", "/data/content"), ("/content", "/content")] {
        for content in [json!("a secret question"), json!(["a secret question"])] {
            let body = minimal_with(|event| {
                event["data"]["content"] = json!({});
                event["content"] = json!({});
                *event.pointer_mut(place).expect("is there") = content.clone();
                let other = if place == "/content" { &mut event["data"] } else { &mut *event };
                other.as_object_mut().expect("an object").remove("content");
            });
            let kept = |content_bytes| {
                let mut decoder = Decoder::new(Limits { content_bytes, ..Limits::default() });
                let event = decoder.decode(body.as_bytes(), &Envelope::default(), NOW).expect("accepted");
                let is_there = event.extra.as_deref().is_some_and(|extra| extra.contains("a secret question"));
                (is_there, truncated(&event).iter().any(|(marked, _)| marked == pointer))
            };
            assert_eq!(kept(None), (false, true), "{body}");
            assert_eq!(kept(Some(10)), (false, true), "{body}");
            assert!(kept(Some(1000)).0, "nothing is lost if content is kept: {body}");
        }
    }
}

#[test]
fn unknown_fields_are_kept_at_every_level() {
    let body = minimal_with(|event| {
        event["new_field"] = json!([1, 2]);
        event["data"]["mood"] = json!("good");
        event["data"]["huge"] = json!("x".repeat(9000));
        event["data"]["outcome"]["certainty"] = json!(0.5);
        event["data"]["tool_calls"] =
            json!([{ "name": "a", "status": "ok" }, { "name": "b", "status": "ok", "cache": true }]);
        event["data"]["retrieval"] = json!([{ "source_id": "kb", "documents": [{ "id": "d", "page": 7 }] }]);
    });
    accepted(&body, |event| {
        let extra: Value = serde_json::from_str(event.extra.as_deref().expect("kept")).expect("JSON");
        let expected = json!({
            "new_field": [1, 2],
            "data": {
                "mood": "good",
                "outcome": { "certainty": 0.5 },
                "tool_calls": { "1": { "cache": true } },
                "retrieval": { "0": { "documents": { "0": { "page": 7 } } } },
            },
            "_dropped": 1,
        });
        assert_eq!(extra, expected);
        assert_eq!(truncated(event), [("/data/huge".to_owned(), "dropped")]);
    });
    let score = json!({
        "spec": "run-event/1", "type": "run.score", "run_id": "r", "time": "2026-11-23T10:00:00Z", "a": 1,
        "data": { "name": "n", "kind": "llm", "evaluator": { "id": "e", "mood": "bad" }, "passed": true, "b": "\u{e9}" },
    });
    accepted(&score.to_string(), |event| {
        let extra: Value = serde_json::from_str(event.extra.as_deref().expect("kept")).expect("JSON");
        assert_eq!(extra, json!({ "a": 1, "data": { "b": "é", "evaluator": { "mood": "bad" } } }));
    });
}

#[test]
fn lone_surrogates_are_replaced_in_every_field() {
    // Half an emoji as JavaScript writes it, and its replacement.
    let (half, whole) = (r"cut \ud83d", r"cut \ufffd");
    let body = minimal_with(|event| {
        event["run_id"] = json!("r HERE");
        event["new HERE"] = json!({ "HERE": "HERE" });
        event["data"]["task"] = json!("t HERE");
        event["data"]["content"] = json!({ "input": "HERE", "output": ["HERE"] });
        event["data"]["release"] = json!({ "id": "1 HERE", "params": { "stop HERE": ["HERE"] } });
        event["data"]["segments"] = json!({ "HERE": "HERE" });
    });
    let replaced = body.replace("HERE", half);
    assert!(check(&replaced, 32).is_empty(), "{:?}", check(&replaced, 32));
    accepted(&replaced, |event| {
        let seen = |event: &Event<'_>| {
            let Payload::Completed(completed) = &event.payload else { panic!("a completed run") };
            let content = completed.run.content.as_ref().map(|content| content.get().to_owned());
            let segments = completed.run.segments.as_ref().map(|segments| segments.0.clone());
            let texts = (event.run_id.to_string(), event.extra.clone(), completed.release.json.clone());
            format!("{texts:?} {content:?} {segments:?} {:?}", completed.run.task)
        };
        let expected = accepted(&body.replace("HERE", whole), seen);
        assert_eq!(seen(event), expected);
        assert!(expected.contains(char::REPLACEMENT_CHARACTER) && !expected.contains("ud83d"), "{expected}");
    });
}
