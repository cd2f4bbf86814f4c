//! The contract as a producer sees it: golden examples, every reason code, and the decoder compared with the schema.

#[expect(dead_code, reason = "each test file uses a part of it")]
mod common;

use bellwether_event::{Decoder, Envelope, Limits, Payload, Reason, check, problems};
use common::{NOW, examples, minimal_with, published_schema, rejected, wide_open};
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn the_minimal_event_gets_its_defaults() {
    let body = minimal_with(|_| {});
    let mut decoder = Decoder::new(Limits::default());
    let event = decoder.decode(body.as_bytes(), &Envelope::default(), NOW).expect("accepted");
    assert_eq!((event.source.as_ref(), event.id.as_ref()), ("unknown", "r-1:completed:1:0"));
    assert_eq!(event.time_micros, 1_795_428_001_500_000);
    let Payload::Completed(completed) = event.payload else { panic!("a completed run") };
    assert_eq!((completed.stage, completed.attempt, completed.weight_micros("")), ("full", 1, 1_000_000));
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
fn nesting_is_limited_wherever_it_occurs() {
    // Values nested up to 30 levels fit at each of these places; values nested 33 levels or more never do.
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
    // Problems of format, age and framing are listed together.
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
fn framing_that_contradicts_the_body_rejects() {
    let body = minimal_with(|event| event["source"] = json!("a"));
    let envelope = Envelope { source: Some("b"), ..Envelope::default() };
    let rejection = Decoder::default().decode(body.as_bytes(), &envelope, NOW).expect_err("refused");
    assert_eq!(rejection.problems[0].reason, Reason::HeaderMismatch);
}

#[test]
fn framing_attributes_must_satisfy_the_contract() {
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
        // A malformed attribute also contradicts the body if the body has the field.
        assert_eq!(found.first(), Some(&(reason, pointer)), "{envelope:?}");
        assert!(found[1..].iter().all(|(reason, _)| *reason == Reason::HeaderMismatch), "{found:?}");
    }
}

#[test]
fn cloud_event_types_are_matched_as_a_whole() {
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
        assert_eq!(bellwether_event::EventType::from_cloud_event(name).map(|found| found.name()), expected, "{name}");
    }
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
fn releases_with_the_same_first_bytes_are_distinguished_each_time() {
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
            // The bytes after a known release are still parsed.
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

#[test]
fn decoder_and_validator_agree_on_a_number_too_large_for_a_double_in_every_field() {
    for example in examples() {
        let mut all = Vec::new();
        pointers(&example, "", &mut all);
        for pointer in all {
            let mut event = example.clone();
            *event.pointer_mut(&pointer).expect("there") = json!("BEYOND");
            let body = event.to_string().replace("\"BEYOND\"", "-1e999");
            let decoded = Decoder::new(wide_open()).decode(body.as_bytes(), &Envelope::default(), NOW);
            let found = check(&body, 32);
            assert!(!found.is_empty(), "{pointer}");
            assert_eq!(decoded.is_err(), found.iter().any(|problem| problem.rejects), "{pointer}: {found:?}");
            assert!(pointer != "/data/tokens/input" || decoded.is_ok());
            assert!(pointer != "/data/attempt" || decoded.is_err());
        }
    }
}

#[test]
fn decoder_and_validator_agree_on_a_duplicate_key_in_every_object() {
    for example in examples() {
        let mut all = Vec::new();
        pointers(&example, "", &mut all);
        for pointer in all {
            let Some((parent, name)) = pointer.rsplit_once('/') else { continue };
            let mut event = example.clone();
            let value = event.pointer(&pointer).expect("there").clone();
            let Some(fields) = event.pointer_mut(parent).and_then(Value::as_object_mut) else { continue };
            fields.insert("AGAIN".to_owned(), value);
            let body = event.to_string().replace("AGAIN", name);
            let decoded = Decoder::new(wide_open()).decode(body.as_bytes(), &Envelope::default(), NOW);
            let found = check(&body, 32);
            assert!(found.iter().any(|problem| problem.reason == Reason::DuplicateKey), "{pointer}: {found:?}");
            assert_eq!(decoded.is_err(), found.iter().any(|problem| problem.rejects), "{pointer}: {found:?}");
            let identity = ["/run_id", "/data/task", "/data/outcome/status", "/data/ended_at", "/data/review_id"];
            assert!(!identity.contains(&pointer.as_str()) || decoded.is_err(), "{pointer}");
            let described = ["/data/tokens/input", "/data/validation/schema_id", "/data/content/input_ref"];
            assert!(!described.contains(&pointer.as_str()) || decoded.is_ok(), "{pointer}");
        }
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

/// A published example with up to three changes: a value replaced, removed or added.
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

thread_local! {
    static VALIDATOR: jsonschema::Validator = published_schema();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn decoder_schema_and_validator_agree(event in changed_example()) {
        let body = event.to_string();
        let by_schema = VALIDATOR.with(|validator| validator.is_valid(&event));
        let mut decoder = Decoder::new(wide_open());
        let decoded = decoder.decode(body.as_bytes(), &Envelope::default(), NOW);
        let found = check(&body, 32);
        prop_assert_eq!(decoded.is_err(), found.iter().any(|problem| problem.rejects), "{} {:?} {:?}", body, decoded.err(), found);
        prop_assert!(decoded.is_ok() || !by_schema, "{} {:?}", body, decoded.err());
        prop_assert!(by_schema || !found.is_empty(), "{}", body);
        if let Ok(event) = &decoded {
            let unreported = event.truncated.iter().filter(|(pointer, done)| {
                !matches!(*done, "stated" | "dropped")
                    && !found.iter().any(|problem| problem.pointer.starts_with(&**pointer) || pointer.starts_with(&problem.pointer))
            });
            prop_assert_eq!(unreported.count(), 0, "{} {:?} {:?}", body, event.truncated, found);
        }
        prop_assert_eq!(problems(&event), found);
    }

    #[test]
    fn any_valid_event_decodes_to_the_values_sent(
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
        // A weight has a bounded number of values.
        let share = completed.weight_micros(&run_id) as f64 * probability / 1e6;
        prop_assert!((0.968..=1.033).contains(&share), "{}", share);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let decoded = Decoder::default().decode(&bytes, &Envelope::default(), NOW);
        prop_assert!(decoded.is_err());
    }

    #[test]
    fn a_truncated_message_is_rejected(cut in any::<prop::sample::Index>()) {
        let body = examples()[0].to_string();
        let cut = cut.index(body.len());
        let decoded = Decoder::new(wide_open()).decode(&body.as_bytes()[..cut], &Envelope::default(), NOW);
        prop_assert!(decoded.is_err());
    }
}
