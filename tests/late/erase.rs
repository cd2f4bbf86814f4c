//! Erasures between random statements of several sources and tenants: the figures stay exact, whatever is erased and whenever.

use std::time::Duration;

use bellwether_aggregate::erase::{EraseSettings, Subject, erase};
use bellwether_aggregate::recompute::{first_difference, folded};
use bellwether_aggregate::{AggregatorSettings, rebuild};
use proptest::prelude::*;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::feed::Feed;
use super::order::{Statement, block_on, event, statement};

/// Which run is erased: that of a statement, with or without its source and its tenant.
type Choice = (usize, bool, bool);

fn subject(statements: &[Statement], (choice, source, tenant): Choice) -> Subject {
    let event = event(&statements[choice % statements.len()]);
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    Subject::Run {
        run_id: text("run_id"),
        source: source.then(|| text("source")),
        tenant: tenant.then(|| text("tenant")),
    }
}

async fn compare(statements: &[Statement], parts: usize, choices: &[Choice], looked_up: bool) {
    // Without room in the index, each run is looked up in the files.
    let (index_memory_bytes, horizon) =
        if looked_up { (0, Duration::ZERO) } else { (1 << 20, Duration::from_secs(86_400)) };
    let settings = AggregatorSettings { index_memory_bytes, horizon, ..AggregatorSettings::default() };
    let mut feed = Feed::new().await;
    let mut standing = Box::pin(feed.aggregator(settings, None)).await;
    let erasing = EraseSettings { patience: Duration::from_secs(5), dry_run: false };
    let mut choices = choices.iter();
    for part in statements.chunks(statements.len().div_ceil(parts)) {
        let events: Vec<Value> = part.iter().map(event).collect();
        Box::pin(feed.commit_events(&events)).await;
        Box::pin(standing.run_until_caught_up()).await.expect("catches up");
        let before = feed.folded().await;
        let Some(choice) = choices.next() else { continue };
        let subject = subject(statements, *choice);
        Box::pin(erase(&feed.lake, &subject, erasing, |_| {})).await.expect("erases");
        assert_eq!(first_difference(&feed.folded().await, &before), None, "{subject:?}");
        Box::pin(standing.run_until_caught_up()).await.expect("takes the erasure");
    }
    let before = feed.folded().await;
    let stop = CancellationToken::new();
    Box::pin(rebuild(&feed.lake, AggregatorSettings::default(), |_| {}, &stop)).await.expect("rebuilds");
    assert_eq!(first_difference(&folded(&feed.lake).await.expect("folds"), &before), None, "a rebuild");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn figures_stay_exact_whatever_is_erased(
        statements in prop::collection::vec(statement(), 1..70),
        parts in 2..5_usize,
        choices in prop::collection::vec((any::<usize>(), any::<bool>(), any::<bool>()), 1..4),
        looked_up in any::<bool>(),
    ) {
        block_on(compare(&statements, parts, &choices, looked_up));
    }
}
