//! Cases and sets.

use bellwether_evalsets::case::EXPECTED_BYTES;
use bellwether_evalsets::{EvalSet, Keyed, Leak, Split, TARGET, coverage, leaks};
use serde_json::json;

use super::{AWKWARD, awkward, case};

#[test]
fn an_edited_case_is_refused_and_a_superseding_one_is_not() {
    let set = EvalSet::new("refunds", 1, vec![case("a", "x"), case("b", "y")]).expect("a set");
    let mut edited = case("a", "x");
    edited.expected = Some("no".to_owned());
    let error = set.next(vec![edited.clone(), case("b", "y")]).expect_err("edited");
    assert!(error.message().contains("was edited"), "{error}");
    edited.version = 2;
    assert!(set.next(vec![edited.clone()]).is_err(), "it does not say which version it supersedes");
    edited.provenance.supersedes = serde_json::from_value(json!({ "version": 1, "reason": "policy" })).expect("one");
    let next = set.next(vec![edited, case("c", "z")]).expect("the next version");
    let difference = set.difference(&next);
    assert_eq!(
        (difference.added, difference.removed, difference.superseded),
        (vec!["c".to_owned()], vec!["b".to_owned()], vec!["a".to_owned()])
    );
    assert_eq!(next.version, 2);
}

#[test]
fn a_stored_version_that_was_changed_is_not_read() {
    let set = awkward(AWKWARD);
    let (manifest, text) = (set.manifest().expect("one"), set.to_jsonl().expect("text"));
    assert_eq!(EvalSet::verified(&manifest, &text, false).expect("as written"), set);
    let error = EvalSet::verified(&manifest, &text.replace("yes", "no!"), false).expect_err("changed");
    assert!(error.message().contains("differ from their manifest"), "{error}");
}

#[test]
fn retiring_a_case_makes_the_next_version_without_it() {
    let next = awkward(AWKWARD).without("case-2").expect("the next version");
    assert_eq!((next.version, next.cases().len()), (4, 1));
    assert!(next.without("case-9").is_err());
}

#[test]
fn limits_and_missing_fields_are_named() {
    for (change, says) in [
        (json!({ "expected": "x".repeat(1_000_000) }), format!("the limit is {EXPECTED_BYTES}")),
        (json!({ "expected": null }), "no answer could pass".to_owned()),
        (json!({ "input": [] }), "neither `input`".to_owned()),
        (json!({ "id": "" }), "its id is empty".to_owned()),
        (json!({ "provenance": { "inclusion_probability": 0.0 } }), "not in (0, 1]".to_owned()),
    ] {
        let mut value = serde_json::to_value(case("a", "x")).expect("JSON");
        for (key, to) in change.as_object().expect("fields") {
            value[key] = to.clone();
        }
        let case = serde_json::from_value(value).expect("a case");
        let error = EvalSet::new("refunds", 1, vec![case]).expect_err("invalid");
        assert!(error.message().contains(&says), "{error}");
    }
    assert!(EvalSet::new("../up", 1, vec![case("a", "x")]).is_err());
    assert!(EvalSet::new("a", 1, vec![case("a", "x"), case("a", "y")]).is_err());
}

#[test]
fn coverage_counts_kinds_and_says_which_are_missing() {
    let found = coverage(awkward(AWKWARD).cases(), TARGET.0);
    assert_eq!((found[0].by_kind, found[0].wanted), ([0, 0, 2, 0], 18));
    assert_eq!(found[0].missing, ["normal", "edge", "must_fail_safely"]);
}

#[test]
fn leaks_are_found_between_splits_and_to_few_shot_examples_only() {
    let keyed = |id: &str, split, exact: &str, near: &str| Keyed {
        id: id.to_owned(),
        split,
        exact: exact.to_owned(),
        near: vec![near.to_owned()],
    };
    let inputs = [
        keyed("a", Some(Split::Regression), "1", "n"),
        keyed("b", Some(Split::Regression), "1", "n"),
        keyed("c", Some(Split::Holdout), "2", "n"),
        keyed("d", Some(Split::Holdout), "3", "n"),
        keyed("shot", None, "2", "m"),
    ];
    // Inputs that share a key may still be too different.
    let found = leaks(&inputs, |a, b| inputs[a].id != "d" && inputs[b].id != "d");
    let leak = |case: &str, other: &str, few_shot, exact| Leak {
        case: case.to_owned(),
        other: other.to_owned(),
        few_shot,
        exact,
    };
    assert_eq!(found, [leak("c", "a", false, false), leak("c", "b", false, false), leak("c", "shot", true, true)]);
}

#[test]
fn a_rule_that_no_tool_can_use_is_refused() {
    let with = |rule: &str| {
        let rules = serde_json::from_str(&format!("[{rule}]")).expect("a rule");
        bellwether_evalsets::EvalCase { grading: rules, ..case("c", "x") }.check()
    };
    for (rule, why) in [
        (r#"{"type": "regex", "value": "("}"#, "no pattern"),
        (r#"{"type": "regex", "value": ""}"#, "an empty value"),
        (r#"{"type": "contains", "value": ""}"#, "an empty value"),
        (r#"{"type": "not_contains", "value": " "}"#, "an empty value"),
        (r#"{"type": "rubric", "value": ""}"#, "an empty value"),
    ] {
        let error = with(rule).expect_err(rule);
        assert!(error.message().contains(why) && error.message().contains("case `c`"), "{rule}: {error}");
    }
    for pattern in ["^a+$", "(?<!x)y", r"(a)\\1", r"\\p{L}"] {
        with(&format!(r#"{{"type": "regex", "value": "{pattern}"}}"#)).expect(pattern);
    }
}
