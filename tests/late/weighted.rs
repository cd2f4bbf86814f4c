//! Sampled runs: quantiles and intervals depend on the runs and their weights, not on the windows and groups of the runs.

use bellwether_aggregate::AggregatorSettings;
use serde_json::{Value, json};

use super::feed::Feed;

/// Builds runs of which the quick ones have 55 % of the weight, although sampling kept more slow ones.
fn runs() -> Vec<Value> {
    let quick = (0..77).map(|n| (n, 10.0, 0.7));
    let slow = (77..167).map(|n| (n, 1000.0, 1.0));
    quick
        .chain(slow)
        .map(|(n, latency, probability)| {
            json!({
                "spec": "run-event/1", "type": "run.completed", "run_id": format!("r-{n}"), "source": "app",
                "data": {
                    "task": "t", "release": { "id": "v1", "model": { "requested": "m" } },
                    "session_id": format!("s-{}", n % 29),
                    "started_at": "2026-11-23T10:00:00Z", "ended_at": "2026-11-23T10:05:30Z",
                    "outcome": { "status": (["success", "failure", "unknown"][n % 3]) },
                    "latency": { "total_ms": latency, "ttft_ms": latency / 2.0 },
                    "cost": { "amount": format!("0.0{}", 1 + n % 9), "currency": "USD" },
                    "sampling": { "probability": probability },
                },
            })
        })
        .collect()
}

/// Builds the same runs, spread over many minutes and groups; rolling metrics do not group by fingerprint.
fn scattered() -> Vec<Value> {
    let scatter = |(n, mut run): (usize, Value)| {
        run["data"]["ended_at"] = json!(format!("2026-11-23T10:{:02}:{:02}Z", 5 + n % 50, n % 60));
        run["data"]["release"]["model"]["requested"] = json!(format!("m-{}", n % 7));
        run
    };
    runs().into_iter().enumerate().map(scatter).collect()
}

async fn figures(events: &[Value], cut: usize) -> Value {
    let mut feed = Feed::new().await;
    for part in events.chunks(cut) {
        feed.commit_events(part).await;
        feed.aggregate(AggregatorSettings::default()).await;
    }
    feed.folded().await;
    let mut rows = feed
        .sql(
            "SELECT runs_observed, latency_ms_p50, latency_ms_p90, latency_ms_p95, latency_ms_p99, ttft_ms_p50, cost_p50, \
                cost_p95, success_rate_low, success_rate_high, escalation_rate_high, cost_per_completed_task_low, \
                cost_per_completed_task_high \
             FROM rolling WHERE span = '24h'",
        )
        .await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.swap_remove(0)
}

fn near(one: &Value, other: &Value) -> bool {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else { return false };
    one.len() == other.len()
        && one.iter().all(|(name, value)| {
            let (found, wanted) = (value.as_f64().expect("a number"), other[name].as_f64().expect("a number"));
            // Quantiles are exactly equal; rates are sums of doubles, which may differ in the last digits.
            if name.contains("_p") && !name.starts_with("cost_per") {
                found == wanted
            } else {
                (found - wanted).abs() <= 1e-9 * wanted.abs()
            }
        })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weighted_quantile_and_an_interval_do_not_depend_on_windows_and_groups() {
    let together = figures(&runs(), 1000).await;
    let p50 = together["latency_ms_p50"].as_f64().expect("a median");
    assert!((p50 - 10.0).abs() <= 0.1, "55 % of the weight is at 10 ms, and the median is {p50} ms");
    let p90 = together["latency_ms_p90"].as_f64().expect("a quantile");
    assert!((p90 - 1000.0).abs() <= 10.0, "{p90}");
    for cut in [1000, 40] {
        let apart = figures(&scattered(), cut).await;
        assert!(near(&apart, &together), "{apart:#} instead of {together:#}");
    }
}
