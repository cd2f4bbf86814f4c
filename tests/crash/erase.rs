//! Erasures that are killed, beside a watcher, and in an object store.

use std::time::Duration;

use bellwether_aggregate::recompute::first_difference;
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;

use super::Random;
use super::stores::Store;
use crate::common::program::{ConfigText, KEEP_HISTORY, Running, text};
use crate::common::{Setup, bellwether, until_or};
use crate::pipeline::erase::{erased, fed, holding, in_values, is_exact, runs_of};

const KILLS: usize = 6;

/// An erasure of a few runs takes about so long in a debug build.
const ERASING: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_killed_at_any_moment_beside_a_watcher_can_be_repeated() {
    let mut random = Random::new("crash::erase");
    let feed = Box::pin(fed()).await;
    let (root, before) = (feed.root().to_owned(), feed.folded().await);
    let tables = format!("root = \"{}\"\n", text(&root));
    let setup = with_tables(&tables);
    setup.catch_up_role("watch");
    let alerts = || setup.number("SELECT count(*) FROM alerts");
    let alerted = alerts();
    let mut watcher = setup.start("watch");
    let ready = || watcher.get("/readyz").filter(|(status, _)| *status == 200);
    until_or(ready, || format!("the watcher is ready\n{}", watcher.printed()));
    for kill in 0..KILLS {
        let erasure = Running::start(&["erase", "--root", text(&root), "--user-key", "usr-ada", "--now"]);
        random.sleep_up_to(ERASING);
        erasure.kill();
        let audit = bellwether(&["audit", "--recompute", "--root", text(&root)]);
        assert_eq!(audit.code, Some(0), "kill {kill}\n{}{}", audit.stdout, audit.stderr);
        assert_eq!(first_difference(&feed.folded().await, &before), None, "kill {kill}");
    }
    let (done, code) = erased(&root, &["--user-key", "usr-ada", "--now"]);
    assert_eq!(code, Some(0), "{done}");
    for name in ["usr-ada", "run-ada-", "run-more-", "ses-three"] {
        assert_eq!(holding(&root, name), [""; 0], "{name}");
    }
    assert_eq!(setup.number("SELECT count(*) FROM runs"), 5, "others stay");
    assert!(watcher.runs(), "the watcher goes on\n{}", watcher.printed());
    watcher.stop();
    setup.catch_up_role("watch");
    assert_eq!(alerts(), alerted, "an erasure changes no alert");
    is_exact(&feed).await;
}

/// Configures commands that read and write these tables, and no broker.
fn with_tables(tables: &str) -> Setup {
    let (brokers, topics) = ("127.0.0.1:9", &["unused"]);
    Setup::with(&ConfigText { brokers, topics, tables: Some(tables), extra: KEEP_HISTORY, ..ConfigText::default() })
}

/// Returns the paths of the objects of a store that hold some text.
async fn objects_holding(address: &str, what: &str) -> Vec<String> {
    let builder = AmazonS3Builder::new().with_endpoint(format!("http://{address}")).with_allow_http(true);
    let builder = builder.with_region("us-east-1").with_bucket_name("bellwether");
    let store = builder.with_access_key_id("tests").with_secret_access_key("tests").build().expect("a store");
    let objects: Vec<_> = store.list(None).try_collect().await.expect("lists");
    let mut found = Vec::new();
    for object in objects {
        let path = object.location;
        let bytes = store.get(&path).await.expect("reads").bytes().await.expect("reads").to_vec();
        let raw = bytes.windows(what.len()).any(|window| window == what.as_bytes());
        if raw || path.as_ref().ends_with(".parquet") && in_values(bytes, what) {
            found.push(path.to_string());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_leaves_every_object_of_a_store() {
    let Some(store) = Store::s3() else { return };
    let setup = with_tables(&store.tables());
    let mut events = runs_of("run-ada", 4, "usr-ada", "ses-one");
    events.extend(runs_of("run-bob", 3, "usr-bob", "ses-two"));
    setup.replay_and_watch(&events);
    assert!(!objects_holding(&store.address, "usr-ada").await.is_empty(), "the search finds what is there");
    let config = setup.config();
    let erase =
        |more: &[&str]| bellwether(&[&["erase", "--config", text(&config), "--user-key", "usr-ada"], more].concat());
    let erasure = Running::start(&["erase", "--config", text(&config), "--user-key", "usr-ada", "--now"]);
    Random::new("crash::erase").sleep_up_to(ERASING);
    erasure.kill();
    let done = erase(&["--now"]).succeeds();
    for name in ["usr-ada", "run-ada-", "ses-one"] {
        assert_eq!(objects_holding(&store.address, name).await, [""; 0], "{name}\n{done}");
    }
    assert!(!objects_holding(&store.address, "usr-bob").await.is_empty(), "others stay");
    bellwether(&["audit", "--recompute", "--config", text(&config)]).succeeds();
    let rows = setup.sql("SELECT CAST(sum(runs) AS BIGINT) AS n FROM metrics");
    assert_eq!(rows[0]["n"], Value::from(7));
}
