//! Settings of an engine and of its sessions, with their defaults.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bellwether_tables::Table;
use chrono::{DateTime, Utc};

/// Default memory of an engine, and of a session, which fits on a laptop.
const MEMORY_LIMIT_BYTES: usize = 512 << 20;

/// Rows of a batch, as in the engine's own default. Fewer cost speed, more cost memory.
pub(crate) const BATCH_ROWS: usize = 8192;

/// Access to the memory of a process that does nothing but run statements.
#[derive(Clone, Copy, Debug)]
pub struct Gauge {
    /// Returns the bytes that the process holds.
    pub used_bytes: fn() -> usize,
    /// Sets the bytes at which the process gives up; `None` means never. Only the allocator sees a single large request in
    /// time.
    pub give_up_at: fn(Option<usize>),
    /// Ends the process.
    pub give_up: fn(),
}

/// Small files whose rows are kept in memory; by default none.
#[derive(Clone, Copy, Debug, Default)]
pub struct SmallFiles {
    /// The tables.
    pub tables: &'static [Table],
    /// Bytes of files of each table. The rows take several times as much.
    pub bytes: u64,
}

/// Limits of an engine, which all its sessions share.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Memory that sorts, joins and aggregations of all sessions may hold together; sorts and aggregations spill to disk
    /// beyond it.
    pub memory_limit_bytes: usize,
    /// Disk space for spilled data, in the system's folder for temporary files; `None` means the engine's default of 100 GiB.
    pub spill_limit_bytes: Option<u64>,
    /// Rows of a batch.
    pub batch_rows: usize,
    /// Reports the memory that the process holds, so that memory which the pool does not account for is held within a
    /// session's limit as well. For a process that runs one statement at a time and does nothing else.
    pub gauge: Option<Gauge>,
    /// Tables of which a frozen engine keeps the rows of small files in memory, beside the limit. For many statements over tables
    /// that were just written: each commit has left a file, and opening it costs more than its rows.
    pub small_files: SmallFiles,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            memory_limit_bytes: MEMORY_LIMIT_BYTES,
            spill_limit_bytes: None,
            batch_rows: BATCH_ROWS,
            gauge: None,
            small_files: SmallFiles::default(),
        }
    }
}

/// The present time of a session: `now()` returns it, and each table has only the rows up to that time, by the time in the
/// row. Clones share it: setting it applies to later statements.
#[derive(Clone, Debug, Default)]
pub struct Present(Arc<AtomicI64>);

impl Present {
    /// Sets it, in microseconds since 1970 UTC.
    pub fn set(&self, micros: i64) {
        self.0.store(micros, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0.load(Ordering::Relaxed)).unwrap_or_default()
    }
}

/// Limits of a session, within those of its engine.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Memory that sorts, joins and aggregations of the session may hold together; at most the engine's.
    pub memory_limit_bytes: usize,
    /// Longest time for a statement; `None` means no limit.
    pub timeout: Option<Duration>,
    /// Most rows of an answer; `None` means no limit.
    pub max_rows: Option<u64>,
    /// Threads of a statement; `None` means as many as there are cores, and at most one for each 64 MiB of the memory limit.
    pub threads: Option<usize>,
    /// The present time; `None` means that of the clock.
    pub present: Option<Present>,
    /// Restricts the session to the rows of one tenant; `None` means all rows. Rows without a tenant belong to no tenant.
    pub tenant: Option<String>,
    /// Serves a client of Postgres: there is a schema `pg_catalog`, and statements may have the forms of SQL by which clients read it.
    pub postgres: bool,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            memory_limit_bytes: MEMORY_LIMIT_BYTES,
            timeout: None,
            max_rows: None,
            threads: None,
            present: None,
            tenant: None,
            postgres: false,
        }
    }
}
