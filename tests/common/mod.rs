//! What the tests share.

pub(crate) mod broker;
pub(crate) mod event;
pub(crate) mod program;
pub(crate) mod wait;

use std::io::Write;
use std::path::PathBuf;

pub(crate) use broker::{Broker, Message, broker};
pub(crate) use program::{Setup, bellwether};
pub(crate) use wait::{until, until_or};

/// Says something past the capture of a passing test's output.
pub(crate) fn say(text: &str) {
    // Where standard error is closed there is nobody to tell.
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Says that a test does nothing here, and what would help: a run that leaves something out shows it.
pub(crate) fn skipped(why: &str) {
    say(&format!("skipped: {why}"));
}

/// A file or folder of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Where the project's scripts keep what they have fetched.
pub(crate) fn cache(path: &str) -> PathBuf {
    let cache = std::env::var_os("BELLWETHER_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/bellwether"),
        PathBuf::from,
    );
    cache.join(path)
}

/// Python with the readers and the client, where `scripts/setup` has made it.
pub(crate) fn python() -> Option<PathBuf> {
    let python = cache("venv/bin/python");
    if python.exists() {
        return Some(python);
    }
    skipped("no Python environment; `scripts/setup python` makes it");
    None
}
