//! The contract as a producer meets it: golden examples, every reason code, and the decoder held against the schema.

use bellwether_event::{Decoder, Envelope, Limits, Payload, Reason, check, problems, schema};
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: i64 = 1_795_543_200_000_000; // 2026-11-24T18:00:00Z

fn wide_open() -> Limits {
    Limits { max_future_micros: i64::MAX / 4, max_age_micros: i64::MAX / 4, ..Limits::default() }
}

fn examples() -> Vec<Value> {
    serde_json::from_str(include_str!("golden/examples.json")).expect("the examples are JSON")
}

fn rejected(body: &str, limits: Limits) -> Vec<(Reason, String)> {
    let rejection = Decoder::new(limits)
        .decode(body.as_bytes(), &Envelope::default(), NOW)
        .expect_err(&format!("accepted: {body}"));
    rejection.problems.into_iter().map(|problem| (problem.reason, problem.pointer)).collect()
}

/// The smallest event that a producer may send, with a change.
fn minimal_with(change: impl FnOnce(&mut Value)) -> String {
    let mut event = json!({
        "spec": "run-event/1", "run_id": "r-1",
        "data": {
            "task": "t", "release": { "id": "1" }, "started_at": "2026-11-23T10:00:00Z",
            "ended_at": "2026-11-23T10:00:01.5Z", "outcome": { "status": "success" },
        },
    });
    change(&mut event);
    event.to_string()
}

#[test]
fn the_minimal_event_gets_its_defaults() {
    let body = minimal_with(|_| {});
    let mut decoder = Decoder::new(Limits::default());
    let event = decoder.decode(body.as_bytes(), &Envelope::default(), NOW).expect("accepted");
    assert_eq!((event.source.as_ref(), event.id.as_ref()), ("unknown", "r-1:completed:1:0"));
    assert_eq!(event.time_micros, 1_795_428_001_500_000);
    let Payload::Completed(completed) = event.payload else { panic!("a completed run") };
    assert_eq!((completed.stage, completed.attempt, completed.weight_micros), ("full", 1, 1_000_000));
    assert_eq!(completed.latency_total_micros(), Some(1_500_000));
    assert!(completed.release.fingerprint.starts_with("sha256:44136fa3"));
}

#[test]
fn the_published_examples_are_accepted_and_read_exactly() {
    let mut decoder = Decoder::new(Limits::default());
    let examples = examples();
    let bodies: Vec<String> = examples.iter().map(ToString::to_string).collect();
    for body in &bodies {
        decoder.decode(body.as_bytes(), &Envelope::default(), NOW).expect("accepted");
    }
    let event = decoder.decode(bodies[0].as_bytes(), &Envelope::default(), NOW).expect("accepted");
    let Payload::Completed(completed) = event.payload else { panic!("a completed run") };
    let run = &completed.run;
    assert_eq!(run.cost.as_ref().and_then(|cost| cost.amount).map(|amount| amount.0), Some(4_713_000));
    assert_eq!(run.latency.as_ref().and_then(|latency| latency.ttft).map(|ttft| ttft.0), Some(640_000));
    assert_eq!(run.tool_calls.as_ref().map(|calls| calls.kept().len()), Some(2));
    assert_eq!(completed.stage, "canary");
    assert!(completed.release.stated_fingerprint.is_some(), "the example states another fingerprint");
}

#[test]
fn each_kind_of_bad_message_has_its_reason_and_pointer() {
    let set = |path: &'static str, value: Value| {
        minimal_with(|event| {
            let (parent, name) = path.rsplit_once('/').expect("a pointer");
            event.pointer_mut(parent).expect("there")[name] = value;
        })
    };
    let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
    let minimal = minimal_with(|_| {});
    let cases: Vec<(String, Reason, &str)> = vec![
        (String::new(), Reason::Tombstone, ""),
        ("not json".to_owned(), Reason::NotJson, ""),
        (r#"{"spec": NaN}"#.to_owned(), Reason::NotJson, "/spec"),
        (minimal.replace("\"t\"", "\"t\",\"tokens\":{\"input\":-Infinity}"), Reason::NotJson, "/data/tokens/input"),
        (format!("{minimal}{minimal}"), Reason::TrailingData, ""),
        (format!(r#"{{"a":{deep}}}"#), Reason::TooDeep, ""),
        ("[]".to_owned(), Reason::WrongType, ""),
        (minimal.replacen('{', r#"{"run_id":"other","#, 1), Reason::DuplicateKey, "/run_id"),
        (set("/spec", json!("run-event/2")), Reason::UnknownSpec, "/spec"),
        (set("/type", json!("run.finished")), Reason::UnknownValue, "/type"),
        (set("/run_id", json!(7)), Reason::WrongType, "/run_id"),
        (set("/run_id", json!("")), Reason::TooShort, "/run_id"),
        (set("/tenant", json!("x".repeat(129))), Reason::TooLong, "/tenant"),
        (set("/data/task", json!(null)), Reason::MissingField, "/data/task"),
        (set("/data/ended_at", json!(null)), Reason::MissingField, "/data/ended_at"),
        (set("/data/rollout", json!({ "stage": null })), Reason::MissingField, "/data/rollout/stage"),
        (set("/data/rollout", json!({ "stage": "prod" })), Reason::UnknownValue, "/data/rollout/stage"),
        (set("/data/rollout", json!({})), Reason::MissingField, "/data/rollout/stage"),
        (set("/data/started_at", json!("2025-08-01T15:57:33")), Reason::TimeFormat, "/data/started_at"),
        (set("/data/attempt", json!(-1)), Reason::OutOfRange, "/data/attempt"),
        (set("/data/attempt", json!(2_147_483_648_u64)), Reason::OutOfRange, "/data/attempt"),
        (set("/data/attempt", json!(1.5)), Reason::WrongType, "/data/attempt"),
        (set("/data/ended_at", json!("0001-01-01T00:00:00Z")), Reason::TimeTooOld, "/data/ended_at"),
        (set("/data/ended_at", json!("2200-01-01T00:00:00Z")), Reason::TimeInFuture, "/data/ended_at"),
        (set("/data/sampling", json!({ "probability": 0 })), Reason::OutOfRange, "/data/sampling/probability"),
        (set("/data/release", json!({ "name": "x" })), Reason::MissingField, "/data/release/id"),
        (set("/data/release", json!({ "id": null })), Reason::MissingField, "/data/release/id"),
        (set("/data/sampling", json!([])), Reason::WrongType, "/data/sampling"),
        (set("/data/ended_at", json!("2027-01-01T00:00:00Z")), Reason::TimeInFuture, "/data/ended_at"),
        (set("/time", json!("2020-01-01T00:00:00Z")), Reason::TimeTooOld, "/time"),
        (set("/type", json!("run.score")), Reason::MissingField, "/time"),
    ];
    for (body, reason, pointer) in cases {
        let found = rejected(&body, Limits::default());
        assert!(found.contains(&(reason, pointer.to_owned())), "{body}: {found:?}");
    }
    let mut decoder = Decoder::new(Limits { max_bytes: minimal.len() / 4 - 1, ..Limits::default() });
    let large = decoder.decode(minimal.as_bytes(), &Envelope::default(), NOW).expect_err("too large");
    assert_eq!(large.problems[0].reason, Reason::TooLarge);
    let not_utf8 = Decoder::default().decode(b"{\"a\":\"\xff\"}", &Envelope::default(), NOW).expect_err("not UTF-8");
    assert_eq!(not_utf8.problems[0].reason, Reason::InvalidUtf8);
}

#[test]
fn nesting_is_followed_wherever_it_hides_and_no_further_than_it_goes() {
    // A value of some nesting: 30 and below fit with all that may be around them, 33 and above never do.
    let nested = |levels: usize| -> Value {
        (1..levels).fold(json!(["]]}}"]), |inner, n| if n % 2 == 0 { json!([inner]) } else { json!({ "a": inner }) })
    };
    let wide = json!(vec![json!({ "name": "lookup", "status": "ok" }); 40]);
    let places = ["/data/unknown", "/data/outcome/unknown", "/data/content/input", "/data/release/unknown", "/unknown"];
    for place in places {
        for (levels, accepted) in [(20, true), (26, true), (33, false), (60, false)] {
            let body = minimal_with(|event| {
                event["data"]["tool_calls"] = wide.clone();
                event["data"]["content"] = json!({});
                let (parent, name) = place.rsplit_once('/').expect("a pointer");
                event.pointer_mut(parent).expect("there")[name] = nested(levels);
            });
            let decoded = Decoder::default().decode(body.as_bytes(), &Envelope::default(), NOW);
            match decoded {
                Ok(_) => assert!(accepted, "{levels} levels at {place} were accepted"),
                Err(rejection) => {
                    let reasons: Vec<Reason> = rejection.problems.iter().map(|problem| problem.reason).collect();
                    assert!(!accepted && reasons == [Reason::TooDeep], "{levels} levels at {place}: {reasons:?}");
                }
            }
        }
    }
}

#[test]
fn every_problem_of_a_message_is_listed_at_once() {
    let body = minimal_with(|event| {
        event["data"]["task"] = json!(3);
        event["data"]["outcome"] = json!({ "status": "ok" });
        event["data"].as_object_mut().expect("object").remove("ended_at");
    });
    let found = rejected(&body, Limits::default());
    assert_eq!(found.len(), 3, "{found:?}");
    // Whatever it is about: form, age, and framing.
    let body = minimal_with(|event| {
        event["time"] = json!("2020-01-01T00:00:00Z");
        event["source"] = json!("a");
        event["data"]["task"] = json!("");
        event["data"]["ended_at"] = json!("2099-01-01T00:00:00Z");
    });
    let envelope = Envelope { source: Some("b"), id: Some(""), event_type: Some("run.scored"), ..Envelope::default() };
    let problems = Decoder::default().decode(body.as_bytes(), &envelope, NOW).expect_err("rejected").problems;
    let mut found: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, ["/ce_id", "/ce_type", "/data/ended_at", "/data/task", "/source", "/time"], "{problems:?}");
}

#[test]
fn framing_that_contradicts_the_body_is_refused() {
    let body = minimal_with(|event| event["source"] = json!("a"));
    let envelope = Envelope { source: Some("b"), ..Envelope::default() };
    let rejection = Decoder::default().decode(body.as_bytes(), &envelope, NOW).expect_err("refused");
    assert_eq!(rejection.problems[0].reason, Reason::HeaderMismatch);
}

#[test]
fn framing_is_held_to_the_contract_as_the_body_is() {
    let body = minimal_with(|_| {});
    let long = "x".repeat(129);
    let fine = Envelope { id: Some("e"), source: Some("s"), time: Some("2026-11-23T10:00:00Z"), ..Envelope::default() };
    Decoder::default().decode(body.as_bytes(), &fine, NOW).expect("accepted");
    let cases = [
        (Envelope { id: Some(""), ..fine }, Reason::TooShort, "/ce_id"),
        (Envelope { id: Some(&long), ..fine }, Reason::TooLong, "/ce_id"),
        (Envelope { source: Some(""), ..fine }, Reason::TooShort, "/ce_source"),
        (Envelope { subject: Some(&long), ..fine }, Reason::TooLong, "/ce_subject"),
        (Envelope { time: Some("yesterday"), ..fine }, Reason::TimeFormat, "/ce_time"),
        (Envelope { time: Some("0001-01-01T00:00:00Z"), ..fine }, Reason::TimeTooOld, "/ce_time"),
        (Envelope { time: Some("2020-01-01T00:00:00Z"), ..fine }, Reason::TimeTooOld, "/ce_time"),
        (Envelope { event_type: Some("run.completed_badly"), ..fine }, Reason::UnknownValue, "/ce_type"),
    ];
    for (envelope, reason, pointer) in cases {
        let problems = Decoder::default().decode(body.as_bytes(), &envelope, NOW).expect_err("rejected").problems;
        let found: Vec<_> = problems.iter().map(|problem| (problem.reason, problem.pointer.as_str())).collect();
        // One that is wrong also differs from what the body says, where it says something.
        assert_eq!(found.first(), Some(&(reason, pointer)), "{envelope:?}");
        assert!(found[1..].iter().all(|(reason, _)| *reason == Reason::HeaderMismatch), "{found:?}");
    }
}

#[test]
fn types_of_cloud_events_are_matched_whole() {
    for (name, expected) in [
        ("run.completed", Some("run.completed")),
        ("io.example.run.completed", Some("run.completed")),
        ("io.example.run.completed.v1", Some("run.completed")),
        ("com.acme.run.policy_exception.v12", Some("run.policy_exception")),
        ("run.completed.draft", None),
        ("run.completed.v", None),
        ("run.completed.v1a", None),
        ("run.completed_badly", None),
        ("prerun.completed", None),
        (".run.completed", None),
        ("run.score.deleted", None),
        ("run.score_deleted", None),
        ("run", None),
        ("", None),
    ] {
        assert_eq!(bellwether_event::EventType::of_cloud_event(name).map(|found| found.name()), expected, "{name}");
    }
}

fn accepted<T>(body: &str, look: impl FnOnce(&bellwether_event::Event<'_>) -> T) -> T {
    let mut decoder = Decoder::new(wide_open());
    let event = decoder.decode(body.as_bytes(), &Envelope::default(), NOW);
    look(&event.unwrap_or_else(|rejection| panic!("{rejection}: {body}")))
}

fn truncated(event: &bellwether_event::Event<'_>) -> Vec<(String, &'static str)> {
    event.truncated.iter().map(|(pointer, done)| (pointer.to_string(), *done)).collect()
}

#[test]
fn text_that_describes_is_cut_within_no_character_and_the_run_is_kept() {
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
fn lists_beyond_their_limit_are_cut_and_totals_are_of_all() {
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
        assert_eq!(bellwether_event::record::kept(calls).len(), 256);
        assert_eq!(bellwether_event::record::entries(calls).iter().filter(|call| call.failed()).count(), 10);
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
fn a_time_that_was_never_set_gives_no_duration() {
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
        assert_eq!(completed.weight_micros, 1_000_000_000_000);
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
    let trace = warned.iter().find(|problem| problem.pointer == "/data/trace/trace_id").expect("told of");
    assert!(!trace.rejects && trace.message.contains("lower case"), "{trace:?}");
}

/// An event with null in place of every field that may be left out, at every depth.
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
fn null_is_the_same_as_leaving_a_field_out_at_every_depth() {
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
        let seen = |event: &bellwether_event::Event<'_>| {
            let mut event = event.clone();
            // Kept as it was sent, nulls and all.
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
fn a_byte_order_mark_is_passed_over() {
    accepted(&format!("\u{feff}{}", minimal_with(|_| {})), |event| assert_eq!(event.run_id, "r-1"));
}

#[test]
fn an_answer_that_is_said_to_fit_has_a_schema() {
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
fn a_statement_at_another_time_is_another_statement() {
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
fn a_message_that_is_too_large_is_kept_without_what_is_large() {
    let body = minimal_with(|event| {
        event["data"]["content"] = json!({ "input": "x".repeat(2000) });
        event["data"]["steps"] = json!([{ "name": "s" }]);
        event["data"]["mood"] = json!("good");
    });
    let mut decoder = Decoder::new(Limits { max_bytes: 1000, ..Limits::default() });
    let event = decoder.decode(body.as_bytes(), &Envelope::default(), NOW).expect("accepted");
    let expected = [("/data/content", "left out"), ("/data/steps", "left out"), ("extra", "left out")];
    assert_eq!(truncated(&event), expected.map(|(pointer, done)| (pointer.to_owned(), done)));
    assert_eq!(event.extra, None);
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
fn a_high_risk_call_without_approval_is_unapproved() {
    let call = |approval: Value| {
        minimal_with(|event| {
            event["data"]["tool_calls"] = json!([{ "name": "refund", "status": "ok", "risk": "high", "side_effect": true, "approval": approval }]);
        })
    };
    for (approval, unapproved) in [
        (json!({ "required": true, "decision": "approved" }), false),
        (json!({ "required": true, "decision": "none" }), true),
        (json!({ "required": true }), true),
        (json!({ "required": false }), false),
        (json!({}), true),
    ] {
        let body = call(approval);
        let event = Decoder::default().decode(body.as_bytes(), &Envelope::default(), NOW).expect("accepted");
        let Payload::Completed(completed) = event.payload else { panic!("a completed run") };
        let calls = completed.run.tool_calls.expect("calls");
        assert_eq!(calls.kept()[0].unapproved(), unapproved, "{body}");
    }
}

#[test]
fn releases_that_begin_alike_are_told_apart_however_often_they_come() {
    let released = |model: &str| {
        minimal_with(|event| {
            event["data"]["release"] = json!({ "id": "2026-11-23.1", "model": { "requested": model } })
        })
    };
    let mut decoder = Decoder::new(Limits::default());
    for round in 0..3 {
        for model in ["a", "b", "ab"] {
            let body = released(model);
            let event = decoder.decode(body.as_bytes(), &Envelope::default(), NOW).expect("accepted");
            let Payload::Completed(completed) = event.payload else { panic!("a completed run") };
            assert_eq!(completed.release.model.as_deref(), Some(model), "round {round}");
            // What comes after a release that is known is looked at all the same.
            for (after, reason) in [("}", Reason::TrailingData), ("]", Reason::NotJson), (" 1", Reason::NotJson)] {
                let torn = body.replacen(&format!("\"{model}\"}}}}"), &format!("\"{model}\"}}}}{after}"), 1);
                assert_ne!(torn, body);
                let problems =
                    decoder.decode(torn.as_bytes(), &Envelope::default(), NOW).expect_err("refused").problems;
                assert_eq!(problems[0].reason, reason, "{torn}");
            }
        }
    }
}

#[test]
fn a_text_that_was_cut_within_a_character_is_kept_wherever_it_stands() {
    // What JavaScript makes of half an emoji, and what is kept of it.
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
        let seen = |event: &bellwether_event::Event<'_>| {
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

fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| pointers(value, &format!("{at}/{name}"), found))
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(n, value)| pointers(value, &format!("{at}/{n}"), found))
        }
        _ => {}
    }
}

fn some_value() -> impl Strategy<Value = Value> {
    let long = "x".repeat(1025);
    prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(1)),
        Just(json!(1.0)),
        Just(json!(2.5)),
        Just(json!(9_007_199_254_740_991_u64)),
        Just(json!(9_007_199_254_740_993_u64)),
        Just(json!(u64::MAX)),
        Just(json!(1e300)),
        Just(json!("")),
        Just(json!("x")),
        Just(json!(long)),
        Just(json!([])),
        Just(json!({})),
        Just(json!([1])),
        Just(json!({ "a": 1 })),
        Just(json!("success")),
        Just(json!("canary")),
        Just(json!("run.score")),
        Just(json!("run.completed")),
        Just(json!("human")),
        Just(json!("2026-11-23T10:00:00Z")),
        Just(json!("2026-02-30T10:00:00Z")),
        Just(json!("2026-11-23 10:00:00Z")),
        Just(json!("0.5")),
        Just(json!("1234567890")),
        Just(json!("USD")),
        Just(json!("high")),
        Just(json!("é".repeat(64))),
        Just(json!("é".repeat(129))),
        Just(json!(vec!["a"; 20])),
        "[a-z]{0,10}".prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|n| json!(n)),
    ]
}

/// A published example with one to three changes: something replaced, removed or added.
fn changed_example() -> impl Strategy<Value = Value> {
    let change = (any::<prop::sample::Index>(), 0..3_u8, some_value(), any::<prop::sample::Index>());
    (0..examples().len(), prop::collection::vec(change, 0..4)).prop_map(|(example, changes)| {
        let mut event = examples().swap_remove(example);
        for (place, what, value, other) in changes {
            let mut all = Vec::new();
            pointers(&event, "", &mut all);
            let pointer = &all[place.index(all.len())];
            match (what, pointer.rsplit_once('/')) {
                (0, _) => *event.pointer_mut(pointer).expect("there") = value,
                (1, Some((parent, name))) => {
                    if let Some(fields) = event.pointer_mut(parent).and_then(Value::as_object_mut) {
                        fields.remove(name);
                    }
                }
                _ => {
                    let name = all[other.index(all.len())].rsplit('/').next().unwrap_or("x").to_owned();
                    if let Some(fields) = event.pointer_mut(pointer).and_then(Value::as_object_mut) {
                        fields.insert(name, value);
                    }
                }
            }
        }
        event
    })
}

fn published_schema() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(schema()).expect("the schema is JSON");
    jsonschema::options().should_validate_formats(true).build(&schema).expect("the schema is a schema")
}

thread_local! {
    static VALIDATOR: jsonschema::Validator = published_schema();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn decoder_schema_and_explanation_agree(event in changed_example()) {
        let body = event.to_string();
        let by_schema = VALIDATOR.with(|validator| validator.is_valid(&event));
        let mut decoder = Decoder::new(wide_open());
        let decoded = decoder.decode(body.as_bytes(), &Envelope::default(), NOW);
        let told = check(&body, 32);
        prop_assert_eq!(decoded.is_err(), told.iter().any(|problem| problem.rejects), "{} {:?} {:?}", body, decoded.err(), told);
        prop_assert!(decoded.is_ok() || !by_schema, "{} {:?}", body, decoded.err());
        prop_assert!(by_schema || !told.is_empty(), "{}", body);
        if let Ok(event) = &decoded {
            let unsaid = event.truncated.iter().filter(|(pointer, done)| {
                !matches!(*done, "stated" | "dropped")
                    && !told.iter().any(|problem| problem.pointer.starts_with(&**pointer) || pointer.starts_with(&problem.pointer))
            });
            prop_assert_eq!(unsaid.count(), 0, "{} {:?} {:?}", body, event.truncated, told);
        }
        prop_assert_eq!(problems(&event), told);
    }

    #[test]
    fn any_valid_event_survives_the_way_from_producer_to_reader(
        task in "\\PC{1,60}", run_id in "[ -~]{1,40}", tenant in proptest::option::of("\\PC{0,20}"),
        micros in 0..4_000_000_000_000_000_i64, duration in 0..1_000_000_000_i64,
        tokens in 0..1_000_000_000_000_i64, whole in 0..300_000_i64, nanos in 0..1_000_000_000_i64,
        latency in 0..300_000_000_000_000_i64, status in 0..6_usize, probability in 0.000_1..=1.0_f64,
    ) {
        let time = |micros: i64| chrono::DateTime::from_timestamp_micros(micros).expect("in range").to_rfc3339();
        let statuses = ["success", "failure", "error", "timeout", "abandoned", "unknown"];
        let mut event = json!({
            "spec": "run-event/1.7", "run_id": run_id, "data": {
                "task": task, "release": { "id": "r" }, "started_at": time(micros), "ended_at": time(micros + duration),
                "outcome": { "status": statuses[status] }, "tokens": { "input": tokens },
                "cost": { "amount": format!("{whole}.{nanos:09}"), "currency": "EUR" },
                "latency": { "total_ms": latency as f64 / 1000.0 }, "sampling": { "probability": probability },
            },
        });
        if let Some(tenant) = &tenant {
            event["tenant"] = json!(tenant);
        }
        prop_assume!(task.chars().count() <= 128);
        let body = serde_json::to_string_pretty(&event).expect("JSON");
        let mut decoder = Decoder::new(wide_open());
        let read = decoder.decode(body.as_bytes(), &Envelope::default(), NOW).expect("accepted");
        prop_assert_eq!(read.run_id.as_ref(), run_id.as_str());
        prop_assert_eq!(read.tenant.as_deref(), tenant.as_deref());
        prop_assert_eq!(read.time_micros, micros + duration);
        let Payload::Completed(completed) = read.payload else { panic!("a completed run") };
        let run = &completed.run;
        prop_assert_eq!(run.task.as_deref(), Some(task.as_str()));
        prop_assert_eq!((completed.started_micros, completed.status), (Some(micros), statuses[status]));
        prop_assert_eq!(run.tokens.as_ref().and_then(|tokens| tokens.input).map(|n| n.0), Some(tokens));
        prop_assert_eq!(run.cost.as_ref().and_then(|cost| cost.amount).map(|n| n.0), Some(whole * 1_000_000_000 + nanos));
        prop_assert_eq!(completed.latency_total_micros(), Some(latency));
        prop_assert_eq!(completed.weight_micros, (1e6 / probability).round() as i64);
    }

    #[test]
    fn any_bytes_are_answered_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let answer = Decoder::default().decode(&bytes, &Envelope::default(), NOW);
        prop_assert!(answer.is_err());
    }

    #[test]
    fn a_torn_message_is_rejected_and_never_half_read(cut in any::<prop::sample::Index>()) {
        let body = examples()[0].to_string();
        let cut = cut.index(body.len());
        let answer = Decoder::new(wide_open()).decode(&body.as_bytes()[..cut], &Envelope::default(), NOW);
        prop_assert!(answer.is_err());
    }
}
