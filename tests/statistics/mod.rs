//! Compares the SQL functions for detection with scipy, statsmodels and confseq.

use std::process::Command;

use crate::common::program::{Running, text};
use crate::common::{Setup, cache, repository, skipped};

#[test]
fn the_functions_agree_with_independent_libraries() {
    let python = cache("statistics/bin/python");
    if !python.exists() {
        return skipped("no Python environment with scipy and statsmodels; `scripts/setup statistics` creates it");
    }
    let setup = Setup::new("127.0.0.1:9", "unused", "");
    setup.catch_up_role("aggregate");
    let mut command = Command::new(python);
    command.args([
        text(&repository("tests/statistics/check.py")),
        env!("CARGO_BIN_EXE_bellwether"),
        text(&setup.root()),
    ]);
    let answer = Running::spawn(&mut command, "the independent statistics".to_owned()).end().succeeds();
    println!("{answer}");
    assert!(answer.contains("cases agree"), "{answer}");
}
