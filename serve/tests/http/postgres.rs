//! The protocol of Postgres: access, the boundary between tenants, errors, limits, cancellation, and hostile clients.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bellwether_serve::{Scope, ServerSettings, Tokens};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::client::{Client, extended, message};
use super::{RIVAL, Served, answer, settings, tables, tenants, tokens};

/// Statements by which somebody may hope to see more in the catalogue.
const CATALOGUE: &[&str] = &[
    "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM pg_description",
    "SELECT * FROM pg_attribute",
    "SELECT * FROM pg_tables",
    "SELECT * FROM pg_settings",
    "SELECT c.relname, (SELECT max(task) FROM events) AS a FROM pg_class c",
    "SELECT e.task FROM pg_class c JOIN events e ON c.relname <> e.task",
    "SELECT obj.relname FROM pg_class obj WHERE EXISTS (SELECT 1 FROM events WHERE tenant <> 'acme')",
    "SELECT quote_ident(task), format_type(25), 'events'::regclass FROM events",
    "SELECT CAST(task AS REGCLASS) FROM events",
    "SELECT set_config('tenant', 'acme', false), current_user, version() FROM runs WHERE tenant <> 'acme'",
    "SELECT task FROM events WHERE task OPERATOR(pg_catalog.~) 'x' COLLATE pg_catalog.default UNION SELECT max(task) FROM runs",
];

fn with_postgres(settings: ServerSettings) -> ServerSettings {
    ServerSettings { postgres: Some(SocketAddr::from(([127, 0, 0, 1], 0))), ..settings }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_the_password_and_its_tenant_the_boundary() {
    let feed = Box::pin(tables()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (file, audit) = (folder.path().join("tokens.toml"), folder.path().join("audit.ndjson"));
    let texts = tokens(&file, &[("acme", Scope::Read, Some("acme")), ("all", Scope::Read, None)]);
    let settings = ServerSettings { tokens: Some(file.clone()), audit: Some(audit.clone()), ..settings() };
    let served = Served::start(&feed, with_postgres(settings)).await;
    let address = served.postgres();
    for wrong in ["", "bellwether_0", "acme", &texts[0][1..]] {
        let refused = Client::connect(address, Some(wrong)).await.err().expect("refused");
        assert_eq!(refused.code(), "28P01", "{wrong}: {}", refused.shown());
        assert_eq!(refused.letters, "RE", "nothing but the question and the error");
    }
    let mut acme = Client::connect(address, Some(&texts[0])).await.expect("admitted");
    let mut answers = 0;
    for sql in tenants::STATEMENTS.iter().chain(CATALOGUE) {
        let reply = acme.ask(&extended(sql, &[], 0)).await;
        let shown = reply.shown().replace("glob' || 'ex", "");
        assert!(!shown.contains(RIVAL), "{sql}\n{shown}");
        assert_eq!(reply.state, Some(b'I'), "{sql}: the connection goes on: {shown}");
        answers += usize::from(shown.contains("acme"));
    }
    assert!(answers > 20, "{answers} answers have rows of the tenant itself");
    let hidden = "SELECT count(*) AS n FROM runs WHERE tenant = $1 OR $2";
    let reply = acme.ask(&extended(hidden, &[RIVAL, "true"], 0)).await;
    assert_eq!(reply.rows, [["100"]], "only the tenant's own: {}", reply.shown());
    let reply = acme.ask(&extended("SELECT count(*) AS n FROM runs WHERE task = $1", &["' OR '1'='1"], 0)).await;
    assert_eq!(reply.rows, [["0"]], "a value is never SQL: {}", reply.shown());
    let mut all = Client::connect(address, Some(&texts[1])).await.expect("admitted");
    assert!(all.query(tenants::STATEMENTS[0]).await.shown().contains(RIVAL), "the words would be seen");

    let records = std::fs::read_to_string(&audit).expect("a log");
    let record =
        records.lines().find(|line| line.contains("\"text\":\"SELECT count(*) AS n FROM runs WHERE task = $1\""));
    let record: serde_json::Value = serde_json::from_str(record.expect("recorded")).expect("JSON");
    assert_eq!((record["caller"].as_str(), record["endpoint"].as_str()), (Some("acme"), Some("postgres")));
    assert!(!records.contains("OR '1'='1") && !records.contains(&texts[0]), "no values and no tokens");

    // A token that is revoked meanwhile opens nothing any more.
    let mut left = Tokens::load(&file).expect("loaded");
    left.revoke("acme");
    left.save(&file).expect("saved");
    let reply = acme.query("SELECT 1 AS a").await;
    assert_eq!((reply.code(), reply.state), ("28P01", None), "{}", reply.shown());
    assert!(all.query("SELECT 1 AS a").await.error.is_none());
    drop((acme, all));
    served.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_their_codes_and_hostile_clients_leave_nothing_behind() {
    let feed = Box::pin(tables()).await;
    let limited = ServerSettings { statements: 1, max_rows: 50_000, connections: 20, ..settings() };
    let served = Served::start(&feed, with_postgres(limited)).await;
    let address = served.postgres();
    let mut client = Client::connect(address, None).await.expect("this machine needs no token");
    Box::pin(codes(&mut client)).await;
    Box::pin(transactions(&mut client)).await;
    Box::pin(portals(&mut client)).await;
    Box::pin(beginnings(address)).await;

    // A statement of 10 MB is refused, and the connection goes on.
    let long = client.query(&format!("SELECT '{}'", "x".repeat(10 << 20))).await;
    assert_eq!((long.code(), long.state), ("54000", Some(b'I')), "{}", long.shown());
    let parse = message(b'P', format!("\0SELECT '{}'\0\0\0", "x".repeat(1 << 20)).as_bytes());
    let long = client.ask(&[parse, message(b'S', b"")].concat()).await;
    assert_eq!((long.code(), long.letters.as_str()), ("54000", "EZ"));
    let wrong = client.ask(&[message(b'B', b"\0\0\xff"), message(b'E', b""), message(b'S', b"")].concat()).await;
    assert_eq!((wrong.code(), wrong.letters.as_str()), ("08P01", "EZ"), "one error up to Sync");
    assert_eq!(client.query("SELECT 1 AS a").await.rows, [["1"]]);

    // Cancelled by the key of the connection, and not by another.
    let (process, secret) = client.key;
    client.send(&message(b'Q', format!("{}\0", super::sql::LONG).as_bytes())).await;
    running(&served).await;
    for secret in [secret ^ 1, secret] {
        let mut other = TcpStream::connect(address).await.expect("connects");
        let parts = [16, 80_877_102, process, secret].map(u32::to_be_bytes);
        other.write_all(&parts.concat()).await.expect("sent");
    }
    let reply = client.reply().await;
    assert_eq!((reply.code(), reply.state), ("57014", Some(b'I')), "{}", reply.shown());

    // A client that goes away ends its statement, before there are rows and after; so does one that reads nothing.
    for sql in [super::sql::LONG, "SELECT repeat('x', 1000) AS x FROM unnest(range(0, 40000)) AS a(i)"] {
        let mut gone = Client::connect(address, None).await.expect("connects");
        gone.send(&message(b'Q', format!("{sql}\0").as_bytes())).await;
        running(&served).await;
        drop(gone);
        served.comes_to_rest().await;
    }
    let mut stalled = Client::connect(address, None).await.expect("connects");
    let endless = "SELECT repeat('x', 10000) AS x FROM unnest(range(0, 40000)) AS a(i)";
    stalled.send(&message(b'Q', format!("{endless}\0").as_bytes())).await;
    running(&served).await;
    served.comes_to_rest().await;
    assert!(served.metric("bellwether_serve_cut_total") >= 3.0);
    assert!(answer(served.get("/v1/statements")).await.1 == json!([]));
    assert_eq!(client.query("SELECT 1 AS a").await.rows, [["1"]], "the one place is free again");
    served.stop.cancel();
    assert_eq!(client.reply().await.code(), "57P01", "the server says that it stops");
}

async fn running(served: &Served) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while served.metric("bellwether_serve_statements") < 1.0 {
        assert!(Instant::now() < deadline, "the statement does not begin");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Checks the code of each kind of error.
async fn codes(client: &mut Client) {
    for (sql, code) in [
        ("SELECT (1", "42601"),
        ("SELECT 'open", "42601"),
        ("SELECT * FROM run", "42P01"),
        ("SELECT tusk FROM runs", "42703"),
        ("SELECT sum(tusk) FROM runs", "42703"),
        ("SELECT a.task FROM runs a, runs b WHERE task = 'a'", "42702"),
        ("SELECT nothing_such(1)", "42883"),
        ("SELECT 'nothing'::regclass", "42P01"),
        ("SELECT 'hstore'::regtype", "42704"),
        ("DELETE FROM events", "25006"),
        ("COPY events TO '/tmp/stolen.csv'", "25006"),
        ("SELECT CAST(task AS BIGINT) AS a FROM runs", "22P02"),
        ("SELECT i FROM unnest(range(0, 60000)) AS a(i)", "54000"),
        ("SHOW work_mem", "42704"),
    ] {
        let reply = client.query(sql).await;
        assert_eq!((reply.code(), reply.state), (code, Some(b'I')), "{sql}: {}", reply.shown());
    }
    let reply = client.query("SELECT 1 AS a; SELECT 2 AS a; SHOW server_version; SELECT (; SELECT 3").await;
    assert_eq!((reply.rows.len(), reply.code()), (3, "42601"), "{}", reply.shown());
    assert_eq!(client.query("-- nothing").await.letters.as_bytes(), [b'I', b'Z']);
}

/// A transaction is but a state, and fails as in Postgres.
async fn transactions(client: &mut Client) {
    for (sql, tag, state) in [
        ("BEGIN", "BEGIN", b'T'),
        ("SELECT 1 AS a", "SELECT 1", b'T'),
        ("SELECT (", "", b'E'),
        ("SELECT 1 AS a", "", b'E'),
        ("ROLLBACK TO SAVEPOINT a", "ROLLBACK", b'T'),
        ("SELECT (", "", b'E'),
        ("COMMIT", "ROLLBACK", b'I'),
    ] {
        let reply = client.query(sql).await;
        let last = reply.tags.last().map(String::as_str).unwrap_or_default();
        assert_eq!((last, reply.state), (tag, Some(state)), "{sql}: {}", reply.shown());
    }
}

/// Rows are fetched in parts, and a name is used once.
async fn portals(client: &mut Client) {
    client.query("BEGIN").await;
    let some = client.ask(&extended("SELECT i FROM unnest(range(0, 5)) AS a(i) ORDER BY i", &[], 2)).await;
    assert_eq!((some.rows.len(), some.letters.as_str()), (2, "12TDDsZ"));
    let more = [message(b'E', b"\0\0\0\0\x00"), message(b'S', b"")].concat();
    let rest = client.ask(&more).await;
    assert_eq!(
        (rest.rows, rest.tags),
        (vec![vec!["2".to_owned()], vec!["3".to_owned()], vec!["4".to_owned()]], vec!["SELECT 5".to_owned()])
    );
    client.query("COMMIT").await;
    let ended = client.ask(&more).await;
    assert_eq!(ended.code(), "34000", "{}", ended.shown());
    let prepare = [message(b'P', b"s\0SELECT $1 AS a\0\0\0"), message(b'D', b"Ss\0"), message(b'S', b"")].concat();
    assert_eq!(client.ask(&prepare).await.letters, "1tTZ");
    assert_eq!(client.ask(&prepare).await.code(), "42P05");
    assert_eq!(client.query("DEALLOCATE s").await.tags, ["DEALLOCATE"]);
    assert_eq!(client.query("DEALLOCATE s").await.code(), "26000");
    let odd = message(b'P', b"\0SELECT $1 AS a\0\0\x01\0\0\x02\x58");
    assert_eq!(client.ask(&[odd, message(b'S', b"")].concat()).await.code(), "0A000");
}

/// A connection that starts incompletely or wrongly is closed, and no other client waits for it.
async fn beginnings(address: SocketAddr) {
    let garbage: [&[u8]; 7] = [
        b"",
        b"\0\0",
        b"\0\0\0\x09\0\x03\0\0",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\0\0\0\x09\0\x02\0\0\0",
        b"\0\0\0\x08\x04\xd2\x16\x2f\0\0\0\x08\x04\xd2\x16\x2f\0\0\0\x08\x04\xd2\x16\x2f\0\0\0\x08\x04\xd2\x16\x2f",
    ];
    let mut open = Vec::new();
    for bytes in garbage.iter().cycle().take(40) {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        drop(stream.write_all(bytes).await);
        open.push(Client { stream, key: (0, 0) });
    }
    let mut honest = Client::connect(address, None).await.expect("admitted after those");
    assert_eq!(honest.query("SELECT 1 AS a").await.rows, [["1"]]);
    for mut client in open {
        assert!(client.has_ended().await);
    }
    // An older version of the protocol gets an error that it can show.
    let mut old = Client { stream: TcpStream::connect(address).await.expect("connects"), key: (0, 0) };
    assert_eq!(old.ask(b"\0\0\0\x09\0\x02\0\0\0").await.code(), "08P01");
    // The answer to a client of a newer version names the version in use.
    let mut new = Client { stream: TcpStream::connect(address).await.expect("connects"), key: (0, 0) };
    let reply = new.ask(b"\0\0\0\x10\0\x03\0\x02user\0a\0\0").await;
    assert!(reply.letters.starts_with("vR") && reply.state == Some(b'I'), "{}", reply.letters);
}
