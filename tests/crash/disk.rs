//! A disk that is full, or read-only, and then not: ingest waits, says so, and goes on by itself. Where waiting cannot help,
//! it ends.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::ledger::{Plan, Publisher};
use super::proof::{Stands, ends_whole, exactly_once};
use super::real_broker;
use crate::common::program::{ConfigText, Running, text};
use crate::common::{Setup, bellwether, skipped, until_or};

/// A small disk in memory.
struct Disk {
    at: PathBuf,
}

impl Disk {
    /// None where this user may not mount one.
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a folder to mount at");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m", "none", text(at)]).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { at: at.to_owned() });
        }
        skipped("a small disk cannot be mounted; that takes the rights of root");
        None
    }

    /// Takes all space there is.
    fn fill(&self) -> PathBuf {
        let path = self.at.join("filler");
        let mut file = File::create(&path).expect("there is space yet");
        for size in [1 << 20, 1 << 12, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }

    /// Mounts it anew as something else.
    fn remount(&self, mode: &str) {
        // Refused as long as a file is open for writing.
        until_or(
            || {
                let done = Command::new("mount").args(["-o", &format!("remount,{mode}"), text(&self.at)]).output();
                done.is_ok_and(|output| output.status.success()).then_some(())
            },
            || format!("`{}` is {mode}", self.at.display()),
        );
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that a failed test leaves behind may still have files open.
        drop(Command::new("umount").args(["-l", text(&self.at)]).status());
    }
}

/// Waits until health gives the system's own words for what is wrong.
fn complains(worker: &Running, words: &str) {
    until_or(
        || worker.get("/readyz").filter(|(status, body)| *status == 503 && body.contains(words)),
        || format!("health says: {words}; it says {:?}\n{}", worker.get("/readyz"), worker.printed()),
    );
}

#[test]
fn a_full_and_a_read_only_disk_are_waited_for() {
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
    let mut stands = Stands::new(&setup, &topic);
    stands.pass(0, Instant::now(), || worker.printed());
    let goes_on = |stands: &mut Stands| {
        let before = stands.all();
        stands.pass(before + 100, Instant::now(), || worker.printed());
        until_or(
            || worker.get("/readyz").filter(|(status, _)| *status == 200),
            || format!("health is good again: {:?}\n{}", worker.get("/readyz"), worker.printed()),
        );
    };

    let filler = disk.fill();
    complains(&worker, "No space left on device");
    std::fs::remove_file(filler).expect("space is made");
    goes_on(&mut stands);

    disk.remount("ro");
    complains(&worker, "Read-only file system");
    disk.remount("rw");
    goes_on(&mut stands);

    ends_whole(&setup, &topic, publisher, Some(worker));
}

#[test]
fn a_torn_table_ends_the_worker_with_its_code_while_messages_come() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("torn", 2);
    let setup = Setup::with(&ConfigText {
        brokers: &broker.address,
        topics: &[&topic],
        extra: "[ingest]\nflush_interval = \"50ms\"\n",
        ..ConfigText::default()
    });
    bellwether(&["aggregate", "--until-caught-up", "--config", text(&setup.config())]).succeeds();
    // Read when the first bad message comes: the worker holds partitions and an open batch by then.
    let torn = setup.root().join("quarantine/_delta_log/_last_checkpoint");
    std::fs::write(&torn, "garbage").expect("the table is torn");
    let publisher = Publisher::start(&broker.address, &topic, Plan { partitions: 2, only_bad: None, burst: 4 });
    let ended = setup.start("ingest").end();
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert!(ended.stderr.contains("`_last_checkpoint` of table `quarantine` is not readable"), "{}", ended.stderr);
    // A person has mended it.
    std::fs::remove_file(torn).expect("the file is there");
    let ledger = publisher.finish();
    setup.catch_up();
    exactly_once(&setup, &topic, &ledger);
}
