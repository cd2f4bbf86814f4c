//! `make bench-detection`: runs all shipped rules together over fleets; see [`bellwether_bench::all_rules`].

use std::process::ExitCode;

use bellwether_bench::all_rules::{Arguments, run};
use clap::Parser;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}
