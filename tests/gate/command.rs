//! `bellwether gate`: its exit codes are its answer, and no error looks like one.

use bellwether_alerts::gate::Policy;
use serde_json::Value;

use super::{Arm, runs_of, tables};
use crate::common::bellwether;
use crate::common::program::text;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_code_is_the_decision_and_errors_have_others() {
    let thin = Arm { per_minute: 1, minutes: (30, 10), ..Arm::canary("thin", 3) };
    let feed = tables(runs_of(&[Arm::default(), Arm::canary("bad", 7), Arm::canary("twin", 3), thin])).await;
    let root = text(feed.root()).to_owned();
    let folder = tempfile::tempdir().expect("a folder");
    let (wrong, missing) = (folder.path().join("wrong.toml"), folder.path().join("none.toml"));
    std::fs::write(&wrong, Policy::SHIPPED.replace("promote_alpha = 0.05", "promote_alpha = 2")).expect("written");
    let gate = |more: &[&str]| {
        let mut arguments = vec!["gate", "--root", &root];
        arguments.extend(more);
        bellwether(&arguments)
    };
    let of = |canary: &'static str| ["--task", "refunds", "--canary", canary];

    let shown = gate(&of("twin")).exits_with(0);
    assert!(shown.starts_with("promote: refunds twin against v1"), "{shown}");
    let shown = gate(&of("thin")).exits_with(1);
    assert!(shown.starts_with("hold: refunds thin against v1") && shown.contains("80 more"), "{shown}");
    let shown = gate(&of("bad")).exits_with(2);
    assert!(shown.starts_with("roll back: refunds bad against v1"), "{shown}");
    let answer: Value =
        serde_json::from_str(&gate(&[&of("bad")[..], &["--json"]].concat()).exits_with(2)).expect("JSON");
    assert_eq!((answer["decision"].as_str(), answer["version"].as_u64()), (Some("roll_back"), Some(1)));

    // A deadline holds; a decision does not wait for it.
    let ended = gate(&[&of("thin")[..], &["--wait", "1s"]].concat());
    assert!(ended.stderr.contains("hold; not known yet"), "{}", ended.stderr);
    ended.exits_with(1);
    gate(&[&of("twin")[..], &["--wait", "1h"]].concat()).exits_with(0);

    // Unknown names hold, and list what is near.
    let shown = gate(&["--task", "refund", "--canary", "twin"]).exits_with(1);
    assert!(shown.contains("no run of task `refund`") && shown.contains("did you mean `refunds`?"), "{shown}");
    let shown = gate(&of("twins")).exits_with(1);
    assert!(shown.contains("did you mean `twin`"), "{shown}");

    for (more, expected) in [
        (vec!["--task", "refunds", "--canary", "v1", "--baseline", "v1"], "are the same release `v1`"),
        (vec!["--task", "refunds", "--canary", "twin", "--policy", text(&wrong)], "promote_alpha is `2`"),
        (vec!["--task", "refunds", "--canary", "twin", "--policy", text(&missing)], "cannot read the policy"),
        (vec!["--task", "refunds", "--canary", "twin", "--since", "soon"], "neither a time nor a duration"),
        (vec!["--task", "refunds", "--canary", "twin", "--tenant", ""], "tenant of a session is empty"),
        (vec!["--task", "refunds"], "--canary"),
        (vec!["--task", "refunds", "--canary", "twin", "--wait", "soon"], "soon"),
    ] {
        let ended = gate(&more);
        assert!(ended.stderr.contains(expected), "{more:?}: {}", ended.stderr);
        ended.exits_with(64);
    }
    let ended = bellwether(&["gate", "--root", text(folder.path()), "--task", "refunds", "--canary", "twin"]);
    assert!(ended.stderr.contains("no tables under"), "{}", ended.stderr);
    ended.exits_with(64);
    assert_eq!(bellwether(&["gate", "--print-policy"]).succeeds().trim_end(), Policy::SHIPPED.trim_end());
}
