//! Rules of the source tree: which crate may use which, as ARCHITECTURE.md says, and where unsafe code is.

mod exceptions;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::common::repository;

/// The crates on which a crate may depend directly.
struct Rule {
    name: &'static str,
    /// Crates of this workspace that it may use.
    may_use: &'static [&'static str],
    /// Third-party crates that it must not use.
    must_not_use: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        name: "bellwether-event",
        may_use: &[],
        must_not_use: &["tokio", "rdkafka", "arrow", "parquet", "datafusion", "deltalake", "object_store", "chrono"],
    },
    Rule {
        name: "bellwether-stats",
        may_use: &[],
        must_not_use: &["tokio", "rdkafka", "arrow", "datafusion", "deltalake", "serde"],
    },
    Rule {
        name: "bellwether-detect",
        may_use: &["bellwether-stats"],
        must_not_use: &["tokio", "rdkafka", "arrow", "datafusion", "deltalake", "serde"],
    },
    Rule {
        name: "bellwether-sample",
        may_use: &["bellwether-stats"],
        must_not_use: &["tokio", "rdkafka", "arrow", "datafusion", "deltalake", "serde"],
    },
    Rule {
        name: "bellwether-redact",
        may_use: &[],
        must_not_use: &["tokio", "rdkafka", "arrow", "parquet", "datafusion", "deltalake", "object_store", "chrono"],
    },
    Rule {
        name: "bellwether-evalsets",
        may_use: &["bellwether-base"],
        must_not_use: &["tokio", "rdkafka", "datafusion", "deltalake", "object_store"],
    },
    Rule {
        name: "bellwether-base",
        may_use: &[],
        must_not_use: &["rdkafka", "datafusion", "deltalake", "object_store", "parquet", "prometheus", "serde_json"],
    },
    Rule {
        name: "bellwether-tables",
        may_use: &[],
        must_not_use: &["tokio", "rdkafka", "datafusion", "deltalake", "object_store", "parquet", "prometheus"],
    },
    Rule {
        name: "bellwether-lake",
        may_use: &["bellwether-base", "bellwether-tables"],
        must_not_use: &["rdkafka", "datafusion", "prometheus"],
    },
    Rule {
        name: "bellwether-audit",
        may_use: &["bellwether-base", "bellwether-tables", "bellwether-lake"],
        must_not_use: &["rdkafka", "datafusion", "deltalake", "prometheus"],
    },
    Rule {
        name: "bellwether-follow",
        may_use: &["bellwether-base", "bellwether-tables", "bellwether-lake"],
        must_not_use: &["rdkafka", "datafusion", "deltalake", "object_store", "parquet"],
    },
    Rule {
        name: "bellwether-metrics",
        may_use: &["bellwether-stats"],
        must_not_use: &["tokio", "rdkafka", "deltalake", "object_store", "parquet"],
    },
    Rule {
        name: "bellwether-login",
        may_use: &["bellwether-base"],
        must_not_use: &["rdkafka", "arrow", "datafusion", "deltalake", "parquet", "prometheus"],
    },
    Rule {
        name: "bellwether-ingest",
        may_use: &[
            "bellwether-tables",
            "bellwether-base",
            "bellwether-event",
            "bellwether-lake",
            "bellwether-login",
            "bellwether-redact",
        ],
        must_not_use: &["datafusion", "deltalake", "object_store"],
    },
    Rule {
        name: "bellwether-aggregate",
        may_use: &[
            "bellwether-base",
            "bellwether-tables",
            "bellwether-follow",
            "bellwether-lake",
            "bellwether-metrics",
            "bellwether-stats",
        ],
        must_not_use: &["rdkafka", "deltalake", "object_store"],
    },
    Rule {
        name: "bellwether-queries",
        may_use: &["bellwether-tables", "bellwether-base", "bellwether-lake", "bellwether-metrics", "bellwether-stats"],
        must_not_use: &["rdkafka"],
    },
    Rule {
        name: "bellwether-alerts",
        may_use: &[
            "bellwether-base",
            "bellwether-tables",
            "bellwether-detect",
            "bellwether-stats",
            "bellwether-follow",
            "bellwether-lake",
            "bellwether-queries",
        ],
        must_not_use: &["rdkafka", "deltalake", "object_store", "parquet", "datafusion"],
    },
    Rule {
        name: "bellwether-sinks",
        may_use: &["bellwether-base"],
        must_not_use: &["rdkafka", "arrow", "datafusion", "deltalake", "object_store", "parquet", "prometheus"],
    },
    Rule {
        name: "bellwether-deliver",
        may_use: &[
            "bellwether-base",
            "bellwether-tables",
            "bellwether-follow",
            "bellwether-lake",
            "bellwether-sinks",
            "bellwether-evidence",
        ],
        must_not_use: &["rdkafka", "deltalake", "object_store", "parquet", "datafusion", "reqwest", "lettre"],
    },
    Rule {
        name: "bellwether-evidence",
        may_use: &[
            "bellwether-base",
            "bellwether-tables",
            "bellwether-stats",
            "bellwether-lake",
            "bellwether-queries",
            "bellwether-alerts",
            "bellwether-sinks",
        ],
        must_not_use: &["rdkafka", "reqwest", "datafusion", "deltalake", "object_store", "parquet", "prometheus"],
    },
    Rule {
        name: "bellwether-report",
        may_use: &["bellwether-base", "bellwether-stats", "bellwether-lake", "bellwether-queries", "bellwether-alerts"],
        must_not_use: &[
            "rdkafka",
            "reqwest",
            "arrow",
            "datafusion",
            "deltalake",
            "object_store",
            "parquet",
            "prometheus",
        ],
    },
    Rule {
        name: "bellwether-serve",
        may_use: &[
            "bellwether-base",
            "bellwether-tables",
            "bellwether-lake",
            "bellwether-queries",
            "bellwether-alerts",
        ],
        must_not_use: &["rdkafka", "deltalake", "object_store", "datafusion", "reqwest"],
    },
    Rule {
        name: "bellwether-evals",
        may_use: &[
            "bellwether-base",
            "bellwether-tables",
            "bellwether-follow",
            "bellwether-lake",
            "bellwether-queries",
            "bellwether-sample",
            "bellwether-evalsets",
            "bellwether-redact",
        ],
        must_not_use: &["rdkafka", "deltalake", "object_store", "parquet", "datafusion", "reqwest"],
    },
    // Measures the others; only tests use it.
    Rule {
        name: "bellwether-bench",
        may_use: &[
            "bellwether-tables",
            "bellwether-base",
            "bellwether-event",
            "bellwether-lake",
            "bellwether-ingest",
            "bellwether-redact",
            "bellwether-aggregate",
            "bellwether-alerts",
            "bellwether-stats",
            "bellwether-bench-detection",
        ],
        must_not_use: &["datafusion", "deltalake", "object_store"],
    },
    Rule {
        name: "bellwether-bench-detection",
        may_use: &["bellwether-stats", "bellwether-detect"],
        must_not_use: &["tokio", "rdkafka", "arrow", "datafusion", "deltalake", "object_store"],
    },
    Rule {
        name: "bellwether",
        may_use: &[
            "bellwether-audit",
            "bellwether-event",
            "bellwether-stats",
            "bellwether-base",
            "bellwether-tables",
            "bellwether-lake",
            "bellwether-follow",
            "bellwether-metrics",
            "bellwether-ingest",
            "bellwether-login",
            "bellwether-aggregate",
            "bellwether-queries",
            "bellwether-alerts",
            "bellwether-deliver",
            "bellwether-sinks",
            "bellwether-evidence",
            "bellwether-report",
            "bellwether-serve",
            "bellwether-redact",
            "bellwether-evalsets",
            "bellwether-evals",
        ],
        must_not_use: &["deltalake", "object_store"],
    },
];

/// Returns the direct dependencies of every package of the workspace, without those of tests and build scripts.
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
fn crates_use_only_the_crates_they_may() {
    let dependencies = dependencies();
    let known: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    let there: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(there, known, "a new crate needs a rule here and in ARCHITECTURE.md");
    for rule in RULES {
        for used in &dependencies[rule.name] {
            let allowed = !known.contains(used.as_str()) || rule.may_use.contains(&used.as_str());
            assert!(allowed, "`{}` must not use `{used}`", rule.name);
            assert!(!rule.must_not_use.contains(&used.as_str()), "`{}` must not use `{used}`", rule.name);
        }
    }
}
