//! Measures CPU and memory of an idle service with an empty index.

use std::time::Duration;

use bellwether_base::{Error, Result};
use bellwether_bench::process::{cpu_seconds, memory};

use crate::Bench;
use crate::kafka;
use crate::part::flow::{Setup, stop};
use crate::report::Bound;

/// Time for joining the group and other start-up work.
const SETTLE: Duration = Duration::from_secs(8);

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let topic = kafka::topic(bench.broker.as_deref().unwrap_or_default())?;
    let window = Duration::from_secs(bench.sizes.window_s);
    let (mut cpu, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..bench.sizes.runs {
        let setup = Setup::new(bench, &topic)?;
        let worker = setup.start(&["run"])?;
        std::thread::sleep(SETTLE.min(window));
        let gone = || Error::unavailable("the program ended while idle");
        let before = cpu_seconds(worker.id()).ok_or_else(gone)?;
        std::thread::sleep(window);
        let after = cpu_seconds(worker.id()).ok_or_else(gone)?;
        resident.push(memory(worker.id()).ok_or_else(gone)?.resident as f64 / 1024.0 / 1024.0);
        cpu.push((after - before) / window.as_secs_f64() * 100.0);
        stop(worker)?;
        setup.remove();
    }
    let report = &mut bench.report;
    report.section("idle").note("`run` with an empty index", &cpu, "% of a core", Some(Bound::AtMost(1.0)));
    report.section("idle").note("`run` with an empty index", &resident, "MiB resident", Some(Bound::AtMost(150.0)));
    Ok(())
}
