//! Records what `bellwether --version` says about a build: the commit, the features and the platform.
//!
//! Only release builds ask git for the commit, so that a commit alone does not link the program of a development build again. A
//! build without git states it by the environment variable `BELLWETHER_COMMIT`.

use std::env;
use std::process::Command;

/// The files that the program is made of.
const SOURCES: [&str; 7] = ["--", ".", ":!docs", ":!tests", ":!scripts", ":!deploy", ":!*.md"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=BELLWETHER_COMMIT");
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = match env::var("BELLWETHER_COMMIT") {
        Ok(stated) if !stated.is_empty() => stated,
        _ if is_release => commit().unwrap_or_else(|| "unknown".to_owned()),
        _ => "development build".to_owned(),
    };
    println!("cargo::rustc-env=BELLWETHER_COMMIT={commit}");
    println!("cargo::rustc-env=BELLWETHER_FEATURES={}", features());
    println!("cargo::rustc-env=BELLWETHER_TARGET={}", env::var("TARGET").unwrap_or_default());
}

/// Returns the commit that is checked out, marked if sources differ from it; none outside of a repository.
fn commit() -> Option<String> {
    let head = git(&["rev-parse", "--short=12", "HEAD"])?;
    // A change of any of these makes another program, or another answer.
    let reference_log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    let sources = git(&[&["ls-files"], &SOURCES[..]].concat())?;
    for file in [reference_log.trim()].into_iter().chain(sources.lines()) {
        println!("cargo::rerun-if-changed={file}");
    }
    let changes = git(&[&["status", "--porcelain", "--untracked-files=no"], &SOURCES[..]].concat())?;
    let mark = if changes.is_empty() { "" } else { " with changes" };
    Some(format!("{}{mark}", head.trim()))
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the features of the program that are on, separated by commas, or `none`.
fn features() -> String {
    let mut names: Vec<String> = env::vars()
        .filter_map(|(name, _)| name.strip_prefix("CARGO_FEATURE_").map(|name| name.to_lowercase().replace('_', "-")))
        .filter(|name| name != "default")
        .collect();
    names.sort();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
