//! Measures CPU time and memory of processes, from Linux's `/proc`.
//!
//! * [`cpu_seconds`] and [`memory`] inspect any process at any time.
//! * [`Measured`] starts a process and measures it, and the processes it starts, until it ends.
//!
//! Rule: CPU time counts, not wall time, because only CPU time is repeatable on a machine with other load. It is read
//! after the process has ended and before it is reaped, so that it is complete.

use std::fs;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Unit in which Linux reports CPU time to programs, on every current architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Time between two polls of a process. The kernel records the peak of a single process; only sums over several are
/// sampled.
const LOOK: Duration = Duration::from_millis(10);

/// Memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident bytes.
    pub resident: u64,
    /// Peak of resident bytes so far.
    pub peak: u64,
}

/// The resource usage of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time of the process and of the children it has waited for.
    pub cpu_s: f64,
    /// Wall time from start to end.
    pub wall_s: f64,
    /// Peak of resident bytes, summed over the process tree.
    pub peak_bytes: u64,
}

/// A process that is being measured.
#[derive(Debug)]
pub struct Measured {
    what: String,
    child: Child,
    id: u32,
    begun: Instant,
    peak: Arc<AtomicU64>,
    watch: Option<JoinHandle<()>>,
    output: Option<JoinHandle<String>>,
}

/// Returns the user and system CPU time of a process so far, including the children it has waited for. None if there is
/// no such process.
pub fn cpu_seconds(process: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field, the name, may contain anything; it is followed by state, parent, ….
    let (_, fields) = stat.rsplit_once(')')?;
    let times = fields.split_whitespace().skip(11).take(4);
    let ticks: f64 = times.filter_map(|field| field.parse::<f64>().ok()).sum();
    Some(ticks / TICKS_PER_SECOND)
}

/// Returns the memory of a process; none if it has ended or is about to.
pub fn memory(process: u32) -> Option<Memory> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let bytes = |key: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kilobytes * 1024)
    };
    Some(Memory { resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
}

/// Returns true if a process has ended but has not been reaped.
fn has_ended(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, fields)| fields.trim_start().starts_with(['Z', 'X']))
}

/// Returns a process and its running descendants.
fn tree(process: u32) -> Vec<u32> {
    let mut all = vec![process];
    let mut next = 0;
    while let Some(process) = all.get(next).copied() {
        next += 1;
        let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        }
    }
    all
}

// === impl Measured ===

impl Measured {
    /// Starts a process. Its output is kept and shown if it fails.
    ///
    /// # Errors
    /// Fails if it cannot be started.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let what = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let begun = Instant::now();
        let mut child = command.spawn().map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))?;
        let id = child.id();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let errors = std::thread::spawn(move || read_all(err));
        let output = std::thread::spawn(move || {
            let printed = read_all(out);
            printed + &errors.join().unwrap_or_default()
        });
        let peak = Arc::new(AtomicU64::new(0));
        let noted = Arc::clone(&peak);
        let watch = std::thread::spawn(move || {
            while !has_ended(id) {
                let sum = tree(id).into_iter().filter_map(memory).map(|memory| memory.peak).sum();
                noted.fetch_max(sum, Ordering::Relaxed);
                std::thread::sleep(LOOK);
            }
        });
        Ok(Self { what, child, id, begun, peak, watch: Some(watch), output: Some(output) })
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Returns the peak of resident bytes so far, summed over the process tree.
    pub fn peak_bytes(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Returns true if it has ended.
    pub fn has_ended(&self) -> bool {
        has_ended(self.id)
    }

    /// Sends it SIGTERM.
    ///
    /// # Errors
    /// Fails if the signal cannot be sent.
    pub fn terminate(&self) -> io::Result<()> {
        let sent = Command::new("kill").args(["-s", "TERM", &self.id.to_string()]).status()?;
        if sent.success() { Ok(()) } else { Err(io::Error::other(format!("cannot signal {}", self.what))) }
    }

    /// Waits for it to end.
    ///
    /// # Errors
    /// Fails if the process failed, with its output.
    pub fn end(mut self) -> io::Result<(Usage, String)> {
        if let Some(watch) = self.watch.take() {
            drop(watch.join()); // The thread only polls; its failure is not a failure of the process.
        }
        let cpu_s = cpu_seconds(self.id).unwrap_or_default();
        let wall_s = self.begun.elapsed().as_secs_f64();
        let status = self.child.wait()?;
        let printed = self.output.take().and_then(|output| output.join().ok()).unwrap_or_default();
        if !status.success() {
            return Err(io::Error::other(format!("{} ended with {status}\n{printed}", self.what)));
        }
        Ok((Usage { cpu_s, wall_s, peak_bytes: self.peak.load(Ordering::Relaxed) }, printed))
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        // A benchmark that fails half-way must leave no process behind; an ended process needs no killing.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read_all(from: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        // Output read before an error is still worth showing.
        drop(from.read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_that_has_ended_is_read_whole() {
        // A shell that computes for a while, and a child of it that does too.
        let work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let script = format!("{work}; sh -c '{work}'; echo done");
        let (usage, printed) =
            Measured::start(Command::new("sh").args(["-c", &script])).expect("starts").end().expect("ends well");
        assert_eq!(printed, "done\n");
        assert!(usage.cpu_s > 0.0 && usage.wall_s > 0.0, "{usage:?}");
        assert!(usage.peak_bytes > 100_000, "{usage:?}");
    }

    #[test]
    fn a_failed_process_reports_its_output() {
        let error = Measured::start(Command::new("sh").args(["-c", "echo why >&2; exit 3"]))
            .expect("starts")
            .end()
            .expect_err("it fails");
        assert!(error.to_string().contains("why"), "{error}");
    }

    #[test]
    fn this_process_has_memory_and_a_process_that_is_not_there_has_none() {
        let own = memory(std::process::id()).expect("there");
        assert!(own.peak >= own.resident && own.resident > 0);
        assert_eq!(memory(u32::MAX), None);
        assert_eq!(cpu_seconds(u32::MAX), None);
    }
}
