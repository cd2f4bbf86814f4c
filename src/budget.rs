//! The memory budget of a process, and how it is divided among the parts of the program.
//!
//! The budget is `memory.budget_bytes`, or follows from the memory that the process may use: the least of the machine's, its
//! control group's and its resource limit's. Each part takes a fixed share of it (`[memory]` in `config/reference.toml`); a key
//! of the part itself wins over its share. With the usual budget every share is the default of the crate that obeys it.

use std::path::Path;

/// Budget where there is enough memory.
pub(crate) const USUAL: usize = 1 << 30;

/// Least budget: with less, the parts would have too little to work.
pub(crate) const LEAST: usize = 256 << 20;

/// The budget of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// All parts together, bytes.
    pub(crate) bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: USUAL }
    }
}

// === impl Budget ===

impl Budget {
    /// Returns the default budget of a process that may use this much memory: half of it, within the least and the usual one.
    /// The other half is for the cache of files, and for other processes.
    pub(crate) fn within(usable_bytes: Option<usize>) -> Self {
        Self { bytes: usable_bytes.map_or(USUAL, |bytes| (bytes / 2).clamp(LEAST, USUAL)) }
    }

    /// Rows that ingest collects for a commit.
    pub(crate) fn batch(self) -> usize {
        self.bytes / 16
    }

    /// Messages that the Kafka client has fetched in advance.
    pub(crate) fn fetched(self) -> usize {
        self.bytes / 16
    }

    /// Rows handed from ingest to aggregate.
    pub(crate) fn handover(self) -> usize {
        self.bytes / 16
    }

    /// Returns the share of the index of runs.
    pub(crate) fn index(self) -> usize {
        self.bytes / 8
    }

    /// Queries that compute contributions and metrics.
    pub(crate) fn sums(self) -> usize {
        self.bytes / 8
    }

    /// Returns the share of the query that computes a span of `rolling_history`; it runs in turn with those of [`Budget::sums`].
    pub(crate) fn history(self) -> usize {
        self.bytes / 8
    }

    /// Returns the share of folding metrics by hour and by day.
    pub(crate) fn rollup(self) -> usize {
        self.bytes / 8
    }

    /// Queries that sample runs for review.
    pub(crate) fn samples(self) -> usize {
        self.bytes / 8
    }

    /// Returns the share of the statements of all who ask the server. It is off by default.
    pub(crate) fn served(self) -> usize {
        self.bytes / 4
    }

    /// Queries of rules on whole tables.
    pub(crate) fn rules(self) -> usize {
        self.bytes / 4
    }

    /// Returns the share of a statement of `bellwether sql`, which does nothing else.
    pub(crate) fn statement(self) -> usize {
        self.bytes / 2
    }
}

/// Returns the memory that this process may use, bytes: the least of the limits that the system reports; none if it reports
/// none.
pub(crate) fn usable_bytes() -> Option<usize> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    usable_from(&read)
}

fn usable_from(read: &dyn Fn(&Path) -> Option<String>) -> Option<usize> {
    let text = |path: &str| read(Path::new(path)).unwrap_or_default();
    let machine = text("/proc/meminfo");
    let machine = machine.lines().find_map(|line| line.strip_prefix("MemTotal:")).and_then(kibibytes);
    let address_space = text("/proc/self/limits");
    let address_space = address_space.lines().find_map(|line| line.strip_prefix("Max address space")).and_then(number);
    let groups = text("/proc/self/cgroup");
    let groups = groups.lines().filter_map(|line| {
        // Either `0::PATH`, or `NUMBER:CONTROLLERS:PATH` of the earlier hierarchies.
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        match controllers {
            "" => limit_of_group(read, "/sys/fs/cgroup", path, "memory.max"),
            named if named.split(',').any(|name| name == "memory") => {
                limit_of_group(read, "/sys/fs/cgroup/memory", path, "memory.limit_in_bytes")
            }
            _ => None,
        }
    });
    groups.chain(machine).chain(address_space).min()
}

/// Returns the least limit of a control group and those above it. A process may see only part of the path, as in a container.
fn limit_of_group(read: &dyn Fn(&Path) -> Option<String>, root: &str, path: &str, file: &str) -> Option<usize> {
    let group = Path::new(root).join(path.trim_start_matches('/'));
    let above = group.ancestors().take_while(|folder| folder.starts_with(root));
    above.filter_map(|folder| read(&folder.join(file)).as_deref().and_then(number)).min()
}

/// Reads the first number of a text; `max` and `unlimited` are none.
fn number(text: &str) -> Option<usize> {
    text.split_whitespace().next()?.parse().ok()
}

fn kibibytes(text: &str) -> Option<usize> {
    number(text)?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable(files: &[(&str, &str)]) -> Option<usize> {
        usable_from(&|path: &Path| {
            files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| (*text).to_owned())
        })
    }

    const MACHINE: (&str, &str) = ("/proc/meminfo", "MemTotal:       16384 kB\nMemFree:  1 kB\n");

    #[test]
    fn the_least_limit_counts() {
        assert_eq!(usable(&[]), None);
        assert_eq!(usable(&[MACHINE]), Some(16 << 20));
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max address space         4194304              unlimited            bytes     \n";
        assert_eq!(usable(&[MACHINE, ("/proc/self/limits", limits)]), Some(4 << 20));
        let unlimited = "Max address space         unlimited            unlimited            bytes     \n";
        assert_eq!(usable(&[MACHINE, ("/proc/self/limits", unlimited)]), Some(16 << 20));
    }

    #[test]
    fn the_limits_of_control_groups_count_and_of_those_above_them() {
        let own = ("/proc/self/cgroup", "0::/pods/a\n");
        let limit = |value| ("/sys/fs/cgroup/pods/memory.max", value);
        assert_eq!(usable(&[MACHINE, own, limit("8388608\n")]), Some(8 << 20));
        assert_eq!(usable(&[MACHINE, own, limit("max\n")]), Some(16 << 20));
        let older = ("/proc/self/cgroup", "5:devices:/\n4:cpu,memory:/pods/a\n0::/\n");
        let file = ("/sys/fs/cgroup/memory/pods/a/memory.limit_in_bytes", "2097152\n");
        let root = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(usable(&[MACHINE, older, file, root]), Some(2 << 20));
        // In a container the path leads nowhere, and the root is the container's own group.
        assert_eq!(
            usable(&[MACHINE, older, ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "3145728")]),
            Some(3 << 20)
        );
    }

    #[test]
    fn the_default_is_half_of_the_memory_within_bounds() {
        for (usable, budget) in
            [(None, USUAL), (Some(64 << 30), USUAL), (Some(1 << 30), 512 << 20), (Some(100 << 20), LEAST)]
        {
            assert_eq!(Budget::within(usable).bytes, budget, "{usable:?}");
        }
    }

    #[test]
    fn the_parts_of_a_service_fit_in_its_budget() {
        let budget = Budget::default();
        // A batch is held up to three times: as it is filled, as it waits, and as it is written.
        let of_ingest = 3 * budget.batch() + budget.fetched() + budget.handover();
        let parts = of_ingest + budget.index() + budget.sums() + budget.rules();
        assert!(parts <= budget.bytes * 7 / 8, "an eighth is for everything that has no share: {parts}");
    }
}
