//! Actions on alerts over real tables: several people at once, retries, rewritten files.

use bellwether_alerts::hands::{Action, ActionKind, Appended, Hands, Origin, Verdict, append};
use bellwether_alerts::{Contracts, Rules, Watch, WatchSettings, Watcher};
use bellwether_base::ErrorKind;
use bellwether_follow::FollowHealth;
use bellwether_lake::{Lake, MaintainSettings, StorageOptions};
use bellwether_tables::Table;
use prometheus::{Registry, TextEncoder};

async fn lake() -> (tempfile::TempDir, Lake) {
    let folder = tempfile::tempdir().expect("a folder");
    let lake = open(folder.path()).await;
    (folder, lake)
}

async fn open(root: &std::path::Path) -> Lake {
    Lake::open(root.to_str().expect("UTF-8"), &StorageOptions::default()).await.expect("opens")
}

fn ack(id: &str, alert: &str, person: &str) -> Action {
    Action {
        alert_id: Some(alert.to_owned()),
        ..Action::new(id.to_owned(), ActionKind::Ack, person, 1_000, Origin::Cli)
    }
}

async fn stored_rows(lake: &Lake) -> i64 {
    let (_, files) = lake.active_files(Table::AlertActions).await.expect("lists");
    files.iter().filter_map(|file| file.rows).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn people_who_act_at_once_lose_and_double_nothing() {
    let (folder, lake) = lake().await;
    // Each of eight processes records its own action and one that all of them record, as after a retry.
    let people = (0..8).map(|person| {
        let root = folder.path().to_owned();
        async move {
            let lake = open(&root).await;
            let mut hands = Hands::default();
            let own = ack(&format!("own-{person}"), &format!("alert-{person}"), "ada");
            let done =
                append(&lake, &mut hands, &[own.clone(), ack("shared", "alert-0", "bob")]).await.expect("appends");
            assert!(hands.knows("shared") && hands.knows(&own.action_id));
            // Its own retry, after a lost answer.
            let again = append(&lake, &mut Hands::default(), &[own]).await.expect("appends");
            assert_eq!(again, Appended { added: 0, known: 1 });
            done.added
        }
    });
    let added: usize = futures::future::join_all(people).await.into_iter().sum();
    assert_eq!(added, 9, "eight of their own and a single shared one");
    assert_eq!(stored_rows(&lake).await, 9);
    assert_eq!(Hands::load(&lake).await.expect("loads").actions().count(), 9);
}

#[tokio::test]
async fn two_actions_with_one_id_in_one_call_are_one() {
    let (_folder, lake) = lake().await;
    let twice = [ack("1", "a", "ada"), ack("1", "a", "ada")];
    let done = append(&lake, &mut Hands::default(), &twice).await.expect("appends");
    assert_eq!((done, stored_rows(&lake).await), (Appended { added: 1, known: 1 }, 1));
}

#[tokio::test]
async fn a_reader_follows_new_actions_and_rewritten_files() {
    let (_folder, lake) = lake().await;
    let (mut writer, mut reader) = (Hands::default(), Hands::load(&lake).await.expect("loads"));
    assert!(!reader.refresh(&lake).await.expect("reads"));
    for number in 0..12 {
        append(&lake, &mut writer, &[ack(&format!("{number}"), "a", "ada")]).await.expect("appends");
        assert!(reader.refresh(&lake).await.expect("reads"));
        assert_eq!(reader, writer);
    }
    let settings = MaintainSettings { compact_files: 2, ..MaintainSettings::default() };
    assert!(lake.compact(Table::AlertActions, &settings).await.expect("compacts") > 0);
    reader.refresh(&lake).await.expect("reads");
    assert_eq!(reader.actions().collect::<Vec<_>>(), writer.actions().collect::<Vec<_>>());
    append(&lake, &mut writer, &[ack("after", "a", "ada"), ack("3", "a", "ada")]).await.expect("appends");
    assert_eq!(stored_rows(&lake).await, 13);
    assert_eq!(Hands::load(&lake).await.expect("loads"), writer);
}

#[tokio::test]
async fn an_invalid_action_is_refused_before_anything_is_written() {
    let (_folder, lake) = lake().await;
    let endless = Action { kind: ActionKind::Silence, ..ack("1", "a", "ada") };
    let error = append(&lake, &mut Hands::default(), &[ack("2", "a", "ada"), endless]).await.expect_err("no end");
    assert_eq!((error.kind(), stored_rows(&lake).await), (ErrorKind::Config, 0));
}

#[tokio::test]
async fn feedback_is_exported_for_the_rules_that_are_watched() {
    let (_folder, lake) = lake().await;
    let mut rules = Rules::load(None, &[]);
    rules.rules.retain(|rule| rule.name == "success_regression");
    let (settings, contracts, health) = (WatchSettings::default(), Contracts::new(), FollowHealth::default());
    let watch = Watch { settings, rules, contracts, lake: lake.clone(), health };
    let registry = Registry::new();
    let mut watcher = Watcher::open(&watch, &registry).await.expect("opens");
    let feedback = |id: &str, rule: &str, verdict| Action {
        rule: Some(rule.to_owned()),
        verdict: Some(verdict),
        firing_since: Some(id.len() as i64),
        kind: ActionKind::Feedback,
        ..ack(id, "a", "ada")
    };
    let said = [
        feedback("1", "success_regression", Verdict::Useful),
        feedback("22", "success_regression", Verdict::Useful),
        feedback("333", "success_regression", Verdict::Useful),
        feedback("4444", "success_regression", Verdict::Noise),
        feedback("55555", "a rule of before", Verdict::Noise),
    ];
    append(&lake, &mut Hands::default(), &said).await.expect("appends");
    watcher.turn().await.expect("reads");
    let text = TextEncoder::new().encode_to_string(&registry.gather()).expect("metrics");
    for line in [
        "bellwether_alerts_feedback{rule=\"success_regression\",verdict=\"useful\"} 3",
        "bellwether_alerts_feedback{rule=\"success_regression\",verdict=\"noise\"} 1",
        "bellwether_alerts_precision{rule=\"success_regression\"} 0.75",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("a rule of before"), "a rule that is not watched has no series");
}
