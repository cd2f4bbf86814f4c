//! The edges between the rooms, as ARCHITECTURE.md has them.

mod exceptions;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::common::repository;

/// A room: its crate, the rooms it may use, and libraries it must not know.
struct Room {
    name: &'static str,
    rooms: &'static [&'static str],
    not: &'static [&'static str],
}

const ROOMS: &[Room] = &[
    Room {
        name: "bellwether-event",
        rooms: &[],
        not: &["tokio", "rdkafka", "arrow", "parquet", "datafusion", "deltalake", "object_store", "chrono"],
    },
    Room {
        name: "bellwether-stats",
        rooms: &[],
        not: &["tokio", "rdkafka", "arrow", "datafusion", "deltalake", "serde"],
    },
    Room {
        name: "bellwether-detect",
        rooms: &["bellwether-stats"],
        not: &["tokio", "rdkafka", "arrow", "datafusion", "deltalake", "serde"],
    },
    Room {
        name: "bellwether-base",
        rooms: &[],
        not: &["rdkafka", "datafusion", "deltalake", "object_store", "parquet", "prometheus", "serde_json"],
    },
    Room {
        name: "bellwether-tables",
        rooms: &[],
        not: &["tokio", "rdkafka", "datafusion", "deltalake", "object_store", "parquet", "prometheus"],
    },
    Room {
        name: "bellwether-lake",
        rooms: &["bellwether-base", "bellwether-tables"],
        not: &["rdkafka", "datafusion", "prometheus"],
    },
    Room {
        name: "bellwether-audit",
        rooms: &["bellwether-base", "bellwether-tables", "bellwether-lake"],
        not: &["rdkafka", "datafusion", "deltalake", "prometheus"],
    },
    Room {
        name: "bellwether-follow",
        rooms: &["bellwether-base", "bellwether-tables", "bellwether-lake"],
        not: &["rdkafka", "datafusion", "deltalake", "object_store", "parquet"],
    },
    Room {
        name: "bellwether-metrics",
        rooms: &["bellwether-stats"],
        not: &["tokio", "rdkafka", "deltalake", "object_store", "parquet"],
    },
    Room {
        name: "bellwether-ingest",
        rooms: &["bellwether-tables", "bellwether-base", "bellwether-event", "bellwether-lake"],
        not: &["datafusion", "deltalake", "object_store"],
    },
    Room {
        name: "bellwether-aggregate",
        rooms: &[
            "bellwether-base",
            "bellwether-tables",
            "bellwether-follow",
            "bellwether-lake",
            "bellwether-metrics",
            "bellwether-stats",
        ],
        not: &["rdkafka", "deltalake", "object_store"],
    },
    Room {
        name: "bellwether-queries",
        rooms: &["bellwether-tables", "bellwether-base", "bellwether-lake", "bellwether-metrics", "bellwether-stats"],
        not: &["rdkafka"],
    },
    Room {
        name: "bellwether-alerts",
        rooms: &[
            "bellwether-base",
            "bellwether-tables",
            "bellwether-detect",
            "bellwether-stats",
            "bellwether-follow",
            "bellwether-lake",
            "bellwether-queries",
        ],
        not: &["rdkafka", "deltalake", "object_store", "parquet", "datafusion"],
    },
    // Measures the others; nothing uses it but tests.
    Room {
        name: "bellwether-bench",
        rooms: &[
            "bellwether-tables",
            "bellwether-base",
            "bellwether-event",
            "bellwether-lake",
            "bellwether-ingest",
            "bellwether-aggregate",
            "bellwether-alerts",
            "bellwether-stats",
            "bellwether-bench-detection",
        ],
        not: &["datafusion", "deltalake", "object_store"],
    },
    Room {
        name: "bellwether-bench-detection",
        rooms: &["bellwether-stats", "bellwether-detect"],
        not: &["tokio", "rdkafka", "arrow", "datafusion", "deltalake", "object_store"],
    },
    Room {
        name: "bellwether",
        rooms: &[
            "bellwether-audit",
            "bellwether-event",
            "bellwether-stats",
            "bellwether-base",
            "bellwether-tables",
            "bellwether-lake",
            "bellwether-follow",
            "bellwether-metrics",
            "bellwether-ingest",
            "bellwether-aggregate",
            "bellwether-queries",
            "bellwether-alerts",
        ],
        not: &["deltalake", "object_store"],
    },
];

/// Direct dependencies of every package of the workspace, those for tests and builds left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(repository(""))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let text = |value: &Value| value.as_str().expect("a name").to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    let normal = |package: &Value| {
        let all = package["dependencies"].as_array().expect("dependencies");
        all.iter()
            .filter(|dependency| dependency["kind"].is_null())
            .map(|dependency| text(&dependency["name"]))
            .collect()
    };
    packages.iter().map(|package| (text(&package["name"]), normal(package))).collect()
}

#[test]
fn rooms_use_only_the_rooms_they_may() {
    let dependencies = dependencies();
    let known: BTreeSet<&str> = ROOMS.iter().map(|room| room.name).collect();
    let there: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(there, known, "a new crate needs its room here and in ARCHITECTURE.md");
    for room in ROOMS {
        for used in &dependencies[room.name] {
            let allowed = !known.contains(used.as_str()) || room.rooms.contains(&used.as_str());
            assert!(allowed, "`{}` must not use room `{used}`", room.name);
            assert!(!room.not.contains(&used.as_str()), "`{}` must not know `{used}`", room.name);
        }
    }
}
