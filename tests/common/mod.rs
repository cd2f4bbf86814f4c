//! Helpers that the tests share.

pub(crate) mod broker;
pub(crate) mod event;
pub(crate) mod program;
pub(crate) mod wait;

use std::io::Write;
use std::path::PathBuf;

pub(crate) use broker::{Broker, Message, broker, real_broker};
pub(crate) use program::{Setup, bellwether};
pub(crate) use wait::{until, until_or};

/// Prints a line that the test runner does not capture, so that passing tests show it too.
pub(crate) fn say(text: &str) {
    // A closed standard error is no reason to fail.
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Prints that a test is skipped, and how to enable it.
pub(crate) fn skipped(why: &str) {
    say(&format!("skipped: {why}"));
}

/// Returns the path of a file or folder of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Returns a path in the folder where the project's scripts keep what they fetch.
pub(crate) fn cache(path: &str) -> PathBuf {
    let cache = std::env::var_os("BELLWETHER_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/bellwether"),
        PathBuf::from,
    );
    cache.join(path)
}

/// Returns Prometheus's own checker, if it is installed.
pub(crate) fn promtool() -> Option<PathBuf> {
    service(&["promtool"], "prometheus/usr/bin/promtool")
}

/// Returns Prometheus, if it is installed.
pub(crate) fn prometheus() -> Option<PathBuf> {
    service(&["prometheus"], "prometheus/usr/bin/prometheus")
}

/// Returns Alertmanager, if it is installed: as Debian names it, or as its project does.
pub(crate) fn alertmanager() -> Option<PathBuf> {
    service(&["prometheus-alertmanager", "alertmanager"], "services/usr/bin/prometheus-alertmanager")
}

/// Finds a program by one of its names, or at the place to which `scripts/setup services` unpacks it.
fn service(names: &[&str], fetched: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&paths).flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    let found = installed.chain([cache(fetched)]).find(|file| file.is_file());
    if found.is_none() {
        skipped(&format!("no {}; `scripts/setup services` downloads it", names[0]));
    }
    found
}

/// Returns the Python interpreter that has the independent readers and the Kafka client, if `scripts/setup` installed it.
pub(crate) fn python() -> Option<PathBuf> {
    let python = cache("venv/bin/python");
    if python.exists() {
        return Some(python);
    }
    skipped("no Python environment; `scripts/setup python` creates it");
    None
}
