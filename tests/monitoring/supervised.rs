//! The program under a service manager: what it says on the socket in `NOTIFY_SOCKET`, and when a restart is asked for.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use crate::common::program::{Running, text};
use crate::common::{Setup, bellwether, until_or};

/// Waits for a message to the service manager that contains a text, and returns all messages so far.
fn heard(socket: &UnixDatagram, so_far: &mut String, wanted: &str) {
    let mut buffer = [0_u8; 4096];
    until_or(
        || {
            if let Ok(length) = socket.recv(&mut buffer) {
                so_far.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
            so_far.contains(wanted).then_some(())
        },
        || format!("the service manager hears `{wanted}`"),
    );
}

#[test]
fn the_service_manager_hears_that_a_process_is_ready_what_it_waits_for_that_it_lives_and_that_it_stops() {
    // Port 9 (discard) is closed on any machine that tests run on.
    let setup = Setup::new("127.0.0.1:9", "nowhere", "[serve]\naddress = \"127.0.0.1:0\"\nstale_after = \"6s\"\n");
    let path = setup.file("notify.socket");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time limit");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether"));
    command.args(["run", "--config", text(&setup.config())]).env_remove("RUST_LOG").env_remove("BELLWETHER_CONFIG");
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "600000").env_remove("WATCHDOG_PID");
    let running = Running::spawn(&mut command, "bellwether run".to_owned());
    let mut said = String::new();
    heard(&socket, &mut said, "READY=1\n");
    heard(&socket, &mut said, "Kafka is unreachable");
    assert!(said.starts_with("READY=1\n"), "{said}");
    // It stays alive for the watchdog: no restart brings Kafka back. Health says all the same that nothing moves.
    said.clear();
    for _ in 0..3 {
        heard(&socket, &mut said, "WATCHDOG=1\n");
        said.clear();
    }
    let address = until_or(|| running.address(), || running.printed());
    let check = |more: &[&str]| bellwether(&[&["check", "health", "--address", &address], more].concat());
    until_or(|| (check(&[]).code == Some(1)).then_some(()), || "health says that ingest is stale".to_owned());
    let listed = check(&["--ready"]).exits_with(1);
    assert!(listed.contains("ingest     Kafka is unreachable"), "{listed}");
    check(&["--live"]).succeeds();
    running.signal("TERM");
    heard(&socket, &mut said, "STOPPING=1\n");
    running.end().succeeds();
    check(&[]).exits_with(3);
}

#[test]
fn the_program_says_of_what_it_was_built() {
    let version = bellwether(&["--version"]).succeeds();
    for part in [concat!("bellwether ", env!("CARGO_PKG_VERSION"), "\n"), "\ncommit: ", "\nfeatures: ", "\ntarget: "] {
        assert!(version.contains(part), "{part:?} in {version}");
    }
    assert_eq!(bellwether(&["-V"]).succeeds().lines().count(), 1);
}
