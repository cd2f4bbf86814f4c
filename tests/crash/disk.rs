//! A disk that is full or read-only for a while: ingest reports it, waits, and resumes by itself. If waiting cannot help,
//! ingest ends.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::ledger::{Plan, Publisher};
use super::proof::{TableProgress, assert_exactly_once, finish_and_verify};
use crate::common::program::{ConfigText, Running, text};
use crate::common::{Setup, real_broker, skipped, until_or};

/// A small in-memory file system.
struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Mounts it. Returns none if this user may not mount.
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a folder to mount at");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m", "none", text(at)]).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { at: at.to_owned() });
        }
        skipped("cannot mount a small disk; that needs root");
        None
    }

    /// Fills it with one file and returns the path.
    fn fill(&self) -> PathBuf {
        let path = self.at.join("filler");
        let mut file = File::create(&path).expect("there is space left");
        for size in [1 << 20, 1 << 12, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }

    /// Mounts it again as `ro` or `rw`.
    fn remount(&self, mode: &str) {
        // The kernel refuses as long as a file is open for writing.
        until_or(
            || {
                let done = Command::new("mount").args(["-o", &format!("remount,{mode}"), text(&self.at)]).output();
                done.is_ok_and(|output| output.status.success()).then_some(())
            },
            || format!("`{}` can be remounted as {mode}", self.at.display()),
        );
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, because a process that a failed test leaves behind may still have files open.
        drop(Command::new("umount").args(["-l", text(&self.at)]).status());
    }
}

/// Waits until readiness fails with the operating system's error.
fn reports(worker: &Running, error: &str) {
    until_or(
        || worker.get("/readyz").filter(|(status, body)| *status == 503 && body.contains(error)),
        || format!("readiness reports `{error}`: {:?}\n{}", worker.get("/readyz"), worker.printed()),
    );
}

#[test]
fn a_worker_waits_while_the_disk_is_full_or_read_only() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("disk", 2);
    let setup = Setup::with(&ConfigText {
        brokers: &broker.address,
        topics: &[&topic],
        extra: "[ingest]\nflush_interval = \"200ms\"\n",
        ..ConfigText::default()
    });
    let Some(disk) = Disk::mount(&setup.root()) else { return };
    let publisher = Publisher::start(&broker.address, &topic, Plan { partitions: 2, only_bad: None, burst: 2 });
    let worker = setup.start("run");
    let mut progress = TableProgress::new(&setup, &topic);
    progress.wait_past(0, Instant::now(), || worker.printed());
    let resumes = |progress: &mut TableProgress| {
        let before = progress.processed();
        progress.wait_past(before + 100, Instant::now(), || worker.printed());
        until_or(
            || worker.get("/readyz").filter(|(status, _)| *status == 200),
            || format!("readiness recovers: {:?}\n{}", worker.get("/readyz"), worker.printed()),
        );
    };

    let filler = disk.fill();
    reports(&worker, "No space left on device");
    std::fs::remove_file(filler).expect("the file can be removed");
    resumes(&mut progress);

    disk.remount("ro");
    reports(&worker, "Read-only file system");
    disk.remount("rw");
    resumes(&mut progress);

    finish_and_verify(&setup, &topic, publisher, Some(worker));
}

#[test]
fn a_damaged_table_ends_the_worker_with_exit_code_4() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("torn", 2);
    let setup = Setup::with(&ConfigText {
        brokers: &broker.address,
        topics: &[&topic],
        extra: "[ingest]\nflush_interval = \"50ms\"\n",
        ..ConfigText::default()
    });
    setup.catch_up_role("aggregate");
    // The worker reads this file at the first bad message, when it already owns partitions and has an open batch.
    let damaged = setup.root().join("quarantine/_delta_log/_last_checkpoint");
    std::fs::write(&damaged, "garbage").expect("the file can be written");
    let publisher = Publisher::start(&broker.address, &topic, Plan { partitions: 2, only_bad: None, burst: 4 });
    let ended = setup.start("ingest").end();
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert!(ended.stderr.contains("`_last_checkpoint` of table `quarantine` is not readable"), "{}", ended.stderr);
    // Somebody repairs it.
    std::fs::remove_file(damaged).expect("the file exists");
    let ledger = publisher.finish();
    setup.catch_up();
    assert_exactly_once(&setup, &topic, &ledger);
}
