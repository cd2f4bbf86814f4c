//! `bellwether serve` answers clients of Arrow Flight SQL: ADBC's driver, and the Flight client of pyarrow.

use std::process::Command;

use crate::common::program::text;
use crate::common::{bellwether, python};

use super::command::{address, certificate, tables, with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_flight_sql_are_answered() {
    let Some(python) = python() else { return };
    let feed = tables().await;
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens.toml");
    let api = format!(
        "[api]\naddress = \"127.0.0.1:0\"\nflight_address = \"127.0.0.1:0\"\nstatements = 1\nmax_rows = 300000\n\
         tokens_file = \"{}\"\n{}",
        tokens.display(),
        certificate(folder.path())
    );
    let setup = with(&feed, &api);
    let config = setup.config();
    let token = |tenant| {
        let ended = bellwether(&["serve", "token", "add", tenant, "--tenant", tenant, "--config", text(&config)]);
        ended.succeeds().trim_end().to_owned()
    };
    let (acme, globex) = (token("acme"), token("globex"));
    let process = setup.start("serve");
    let served = address(&process, "flight");
    let port = served.rsplit(':').next().expect("a port");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/serve/flight.py");
    let mut clients = Command::new(python);
    clients.args([script, "bellwether.test", port]).arg(folder.path().join("tls.crt")).args([acme, globex]);
    let ended = clients.output().expect("starts");
    let shown = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && shown.contains("all clients were answered"), "{shown}");
    process.stop();
}
