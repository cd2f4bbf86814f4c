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
    assert_eq!(run.tool_calls.as_ref().map(|calls| calls.0.len()), Some(2));
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
        (r#"{"spec": NaN}"#.to_owned(), Reason::NotJson, ""),
        (format!("{minimal}{minimal}"), Reason::TrailingData, ""),
        (format!(r#"{{"a":{deep}}}"#), Reason::TooDeep, ""),
        ("[]".to_owned(), Reason::WrongType, ""),
        (minimal.replacen('{', r#"{"run_id":"other","#, 1), Reason::DuplicateKey, "/run_id"),
        (set("/spec", json!("run-event/2")), Reason::UnknownSpec, "/spec"),
        (set("/type", json!("run.finished")), Reason::UnknownValue, "/type"),
        (set("/run_id", json!(7)), Reason::WrongType, "/run_id"),
        (set("/run_id", json!("")), Reason::TooShort, "/run_id"),
        (set("/tenant", json!("x".repeat(129))), Reason::TooLong, "/tenant"),
        (set("/data/task", json!(null)), Reason::WrongType, "/data/task"),
        (set("/data/rollout", json!({ "stage": "prod" })), Reason::UnknownValue, "/data/rollout/stage"),
        (set("/data/rollout", json!({})), Reason::MissingField, "/data/rollout/stage"),
        (set("/data/started_at", json!("2025-08-01T15:57:33")), Reason::TimeFormat, "/data/started_at"),
        (set("/data/llm_calls", json!(-1)), Reason::OutOfRange, "/data/llm_calls"),
        (set("/data/llm_calls", json!(1.5)), Reason::WrongType, "/data/llm_calls"),
        (set("/data/cost", json!({ "amount": "1e3", "currency": "USD" })), Reason::Pattern, "/data/cost/amount"),
        (set("/data/sampling", json!({ "probability": 0 })), Reason::OutOfRange, "/data/sampling/probability"),
        (set("/data/truncated", json!(vec!["x"; 17])), Reason::TooMany, "/data/truncated"),
        (set("/data/release", json!({ "name": "x" })), Reason::MissingField, "/data/release/id"),
        (set("/data/content", json!({ "input": 5 })), Reason::WrongType, "/data/content/input"),
        (set("/data/ended_at", json!("2027-01-01T00:00:00Z")), Reason::TimeInFuture, "/time"),
        (set("/time", json!("2020-01-01T00:00:00Z")), Reason::TimeTooOld, "/time"),
        (set("/type", json!("run.score")), Reason::MissingField, "/time"),
    ];
    for (body, reason, pointer) in cases {
        let found = rejected(&body, Limits::default());
        assert!(found.contains(&(reason, pointer.to_owned())), "{body}: {found:?}");
    }
    let mut decoder = Decoder::new(Limits { max_bytes: 100, ..Limits::default() });
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
}

#[test]
fn framing_that_contradicts_the_body_is_refused() {
    let body = minimal_with(|event| event["source"] = json!("a"));
    let envelope = Envelope { source: Some("b"), ..Envelope::default() };
    let rejection = Decoder::default().decode(body.as_bytes(), &envelope, NOW).expect_err("refused");
    assert_eq!(rejection.problems[0].reason, Reason::HeaderMismatch);
}

#[test]
fn unknown_fields_are_kept() {
    let body = minimal_with(|event| {
        event["new_field"] = json!([1, 2]);
        event["data"]["mood"] = json!("good");
        event["data"]["huge"] = json!("x".repeat(9000));
    });
    let event = Decoder::default().decode(body.as_bytes(), &Envelope::default(), NOW).expect("accepted").extra;
    let extra: Value = serde_json::from_str(&event.expect("kept")).expect("JSON");
    assert_eq!(extra, json!({ "new_field": [1, 2], "data": { "mood": "good" }, "_dropped": 1 }));
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
        assert_eq!(calls.0[0].unapproved(), unapproved, "{body}");
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
fn a_text_that_was_cut_within_a_character_is_kept_where_nobody_reads_it() {
    // What JavaScript makes of half an emoji.
    let half = r#""cut \ud83d""#;
    let body = minimal_with(|event| event["data"]["content"] = json!({ "input": "HERE", "output": ["HERE"] }));
    let body = body.replace(r#""HERE""#, half);
    let mut decoder = Decoder::new(Limits::default());
    let event = decoder.decode(body.as_bytes(), &Envelope::default(), NOW).expect("accepted");
    let Payload::Completed(completed) = event.payload else { panic!("a completed run") };
    let content = completed.run.content.as_ref().map(|content| content.raw.get());
    assert_eq!(content, Some(format!(r#"{{"input":{half},"output":[{half}]}}"#).as_str()));
    let task = minimal_with(|event| event["data"]["task"] = json!("HERE")).replace(r#""HERE""#, half);
    assert_eq!(rejected(&task, Limits::default())[0].0, Reason::NotJson, "a task is read");
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
        prop_assert_eq!(decoded.is_ok(), by_schema, "{} {:?}", body, decoded.err());
        prop_assert_eq!(problems(&event).is_empty(), by_schema, "{}", body);
        prop_assert_eq!(check(&body, 32).is_empty(), by_schema);
    }

    #[test]
    fn any_valid_event_survives_the_way_from_producer_to_reader(
        task in "\\PC{1,60}", run_id in "[ -~]{1,40}", tenant in proptest::option::of("\\PC{0,20}"),
        micros in 0..4_000_000_000_000_000_i64, duration in 0..1_000_000_000_i64,
        tokens in 0..9_007_199_254_740_991_i64, whole in 0..999_999_999_i64, nanos in 0..1_000_000_000_i64,
        latency in 0..9_000_000_000_000_i64, status in 0..6_usize, probability in 0.000_1..=1.0_f64,
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
        prop_assert_eq!((completed.started_micros, completed.status), (micros, statuses[status]));
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
