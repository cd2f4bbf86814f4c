//! `bellwether serve` answers the clients of Postgres that people use: psql, psycopg, asyncpg, SQLAlchemy and JDBC.

use std::path::Path;
use std::process::Command;

use crate::common::program::text;
use crate::common::{bellwether, cache, python, skipped};

use super::command::{address, certificate, tables, with};

/// Commands of psql, with parts of what it shows.
const PSQL: &[(&str, &[&str])] = &[
    ("\\conninfo", &["SSL connection"]),
    ("\\d", &["public|events|table|bellwether", "public|rolling|view|bellwether"]),
    ("\\dt", &["public|metrics|table|bellwether"]),
    ("\\dv", &["public|tool_calls|view|bellwether"]),
    ("\\d runs", &["task|text", "started_at|timestamp with time zone", "segments|json"]),
    ("\\d events", &["run_id|text||not null"]),
    ("\\d+ rolling", &["success_rate|double precision"]),
    ("\\dn", &["public|bellwether"]),
    ("\\l", &["bellwether|bellwether|UTF8"]),
    ("\\df e2x2*", &["public|e2x2_log_e|"]),
    ("\\df+ e2x2_log_e", &["public|e2x2_log_e|"]),
    ("\\dti", &["metrics"]),
    ("\\dp runs", &["public|runs|view"]),
    ("\\du", &["bellwether|"]),
    ("\\db+", &["pg_default|bellwether"]),
    ("\\dT", &[]),
    ("\\ddp", &[]),
    ("\\dL", &[]),
    ("\\dF", &[]),
    ("\\dAf", &[]),
    // \dconfig, which psql has since version 15.
    (
        "SELECT s.name, pg_catalog.current_setting(s.name) FROM pg_catalog.pg_settings s \
         WHERE s.source <> 'default' AND s.setting IS DISTINCT FROM s.boot_val ORDER BY 1",
        &[],
    ),
    ("SELECT 1, 1, current_setting('max_index_keys')", &["1|1|32"]),
    ("SELECT count(*) FROM runs", &["20"]),
    ("SELECT tenant, count(*) AS n FROM events GROUP BY 1", &["acme|20"]),
    ("SHOW server_version", &["14.0"]),
    ("BEGIN; SELECT 1 AS a; COMMIT", &["1"]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_of_postgres_that_people_use_are_answered() {
    let (psql, python) = (Command::new("psql").arg("--version").output().is_ok(), python());
    if !psql {
        skipped("no psql; `scripts/setup system` installs it");
    }
    if !psql && python.is_none() {
        return;
    }
    let feed = tables().await;
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens.toml");
    let api = format!(
        "[api]\naddress = \"127.0.0.1:0\"\npostgres_address = \"127.0.0.1:0\"\ntokens_file = \"{}\"\n{}",
        tokens.display(),
        certificate(folder.path())
    );
    let setup = with(&feed, &api);
    let add =
        ["serve", "token", "add", "acme", "--tenant", "acme", "--config", text(&setup.config())].map(str::to_owned);
    let token = bellwether(&add.each_ref().map(String::as_str)).succeeds().trim_end().to_owned();
    let process = setup.start("serve");
    let served = address(&process, "postgres");
    let port = served.rsplit(':').next().expect("a port");
    let pem = folder.path().join("tls.crt");
    if psql {
        with_psql(port, &pem, &token);
    }
    with_jdbc(port, &pem, &token);
    if let Some(python) = python {
        let mut clients = Command::new(python);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/serve/postgres.py");
        clients.args([script, "bellwether.test", port]).arg(&pem).arg(&token);
        if psql {
            clients.arg("terminal");
        }
        let ended = clients.output().expect("starts");
        let shown = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success() && shown.contains("all clients were answered"), "{shown}");
    }
    process.stop();
}

/// Runs the JDBC driver, if it is installed, with Java, which compiles its one file itself.
fn with_jdbc(port: &str, pem: &Path, token: &str) {
    let folder = cache("clients/jdbc");
    if !folder.join("ready").exists() || Command::new("java").arg("--version").output().is_err() {
        skipped("no JDBC driver or no Java; `scripts/setup system clients` installs both");
        return;
    }
    let mut client = Command::new("java");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/serve/Postgres.java");
    client.arg("-cp").arg(folder.join("*")).args([program, port]).arg(pem).arg(token);
    let ended = client.output().expect("starts");
    let shown = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && shown.contains("the JDBC driver was answered"), "{shown}");
}

fn with_psql(port: &str, pem: &Path, token: &str) {
    let ask = |password: &str, mode: &str, commands: &[&str]| {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-A", "-t", "-h", "bellwether.test", "-p", port, "-U", "anybody", "-d", "bellwether"]);
        psql.env("PGHOSTADDR", "127.0.0.1")
            .env("PGPASSWORD", password)
            .env("PGSSLMODE", mode)
            .env("PGSSLROOTCERT", pem);
        for command in commands {
            psql.args(["-c", command, "-c", "\\echo ---"]);
        }
        let ended = psql.output().expect("starts");
        (String::from_utf8_lossy(&ended.stdout).into_owned(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    let commands: Vec<&str> = PSQL.iter().map(|(command, _)| *command).collect();
    let (shown, errors) = ask(token, "verify-full", &commands);
    assert_eq!(errors, "", "{shown}");
    for ((command, parts), shown) in PSQL.iter().zip(shown.split("---\n")) {
        for part in *parts {
            assert!(shown.contains(part), "no `{part}` after `{command}`:\n{shown}");
        }
        assert!(!shown.contains("globex"), "{command}: {shown}");
    }
    let (_, refused) = ask("bellwether_0", "verify-full", &["SELECT 1"]);
    assert!(refused.contains("no valid token"), "{refused}");
    let (_, refused) = ask(token, "disable", &["SELECT 1"]);
    assert!(refused.contains("TLS alone"), "{refused}");
}
