//! Arrow Flight SQL: access, the boundary between tenants, tickets, errors, limits, cancellation, and hostile clients.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bellwether_serve::{Scope, ServerSettings, Tokens};
use prost::Message;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::flight_client::{Client, Reply, framed};
use super::message::{
    Action, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, ActionResult, Any,
    CancelFlightInfoRequest, CancelResult, CommandGetTables, CommandPreparedStatementQuery, CommandStatementQuery,
    FlightData, FlightDescriptor, FlightInfo, Ticket, TicketStatementQuery,
};
use super::{RIVAL, Served, answer, settings, tables, tenants, tokens};

/// Numbers of the status of a call.
const OK: i32 = 0;
const CANCELLED: i32 = 1;
const INVALID: i32 = 3;
const DEADLINE: i32 = 4;
const EXHAUSTED: i32 = 8;
const OUT_OF_RANGE: i32 = 11;
const UNIMPLEMENTED: i32 = 12;
const UNAUTHENTICATED: i32 = 16;

/// The server is patient for a second; a busy machine may take longer.
const SOON: Duration = Duration::from_secs(20);

/// An answer of many megabytes.
const ENDLESS: &str = "SELECT repeat('x', 10000) AS x FROM unnest(range(0, 40000)) AS a(i)";

fn with_flight(settings: ServerSettings) -> ServerSettings {
    ServerSettings { flight: Some(SocketAddr::from(([127, 0, 0, 1], 0))), ..settings }
}

fn statement(sql: &str) -> FlightDescriptor {
    let asked = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
    FlightDescriptor { r#type: 2, cmd: Any::pack("CommandStatementQuery", &asked) }
}

fn action(kind: &str, body: impl Into<bytes::Bytes>) -> Action {
    Action { r#type: kind.to_owned(), body: body.into() }
}

/// Asks for the rows of a statement.
async fn query(client: &Client, sql: &str) -> Reply {
    let info = client.call("GetFlightInfo", &statement(sql)).await;
    if info.code != OK {
        return info;
    }
    client.call("DoGet", &ticket(&info)).await
}

fn ticket(info: &Reply) -> Ticket {
    let info = info.one::<FlightInfo>();
    info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket).expect("a ticket")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_asked_for_in_each_call_and_its_tenant_is_the_boundary() {
    let feed = Box::pin(tables()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (file, audit) = (folder.path().join("tokens.toml"), folder.path().join("audit.ndjson"));
    let texts = tokens(&file, &[("acme", Scope::Read, Some("acme")), ("all", Scope::Read, None)]);
    let settings = ServerSettings { tokens: Some(file.clone()), audit: Some(audit.clone()), ..settings() };
    let served = Served::start(&feed, with_flight(settings)).await;
    let address = served.flight();
    for wrong in ["", "bellwether_0", "acme", &texts[0][1..]] {
        let client = Client::connect(address, Some(wrong)).await;
        let refused = client.call("GetFlightInfo", &statement("SELECT 1 AS a")).await;
        assert_eq!(refused.code, UNAUTHENTICATED, "{wrong}: {}", refused.shown());
        assert!(refused.messages.is_empty(), "nothing but the error");
    }
    let acme = Client::connect(address, Some(&texts[0])).await;
    let mut answers = 0;
    for sql in tenants::STATEMENTS {
        let reply = query(&acme, sql).await;
        let shown = reply.shown().replace("glob' || 'ex", "");
        assert!(!shown.contains(RIVAL), "{sql}\n{shown}");
        assert!([OK, INVALID, EXHAUSTED].contains(&reply.code), "{sql}: {shown}");
        answers += usize::from(shown.contains("acme"));
    }
    assert!(answers > 20, "{answers} answers have rows of the tenant itself");
    let all = Client::connect(address, Some(&texts[1])).await;
    assert!(query(&all, tenants::STATEMENTS[0]).await.shown().contains(RIVAL), "the words would be seen");

    // Schemas, prepared statements and descriptions say nothing of another tenant either.
    let asked = CommandGetTables { include_schema: true, ..CommandGetTables::default() };
    let listed = acme.call("DoGet", &Ticket { ticket: Any::pack("CommandGetTables", &asked) }).await;
    assert!(listed.code == OK && listed.shown().contains("tool_calls") && !listed.shown().contains(RIVAL));
    let prepared = prepare(&acme, "SELECT * FROM runs WHERE tenant = $1").await;
    assert!(!prepared.shown().contains(RIVAL), "{}", prepared.shown());

    // A ticket or a handle of one token is worth nothing to another.
    let own = ticket(&acme.call("GetFlightInfo", &statement("SELECT max(task) AS a FROM runs")).await);
    assert!(acme.call("DoGet", &own).await.shown().contains("acme-task"));
    let foreign = ticket(&all.call("GetFlightInfo", &statement("SELECT max(task) AS a FROM runs")).await);
    for (client, ticket) in [(&acme, &foreign), (&all, &own)] {
        let refused = client.call("DoGet", ticket).await;
        assert_eq!(refused.code, INVALID, "{}", refused.shown());
        assert!(refused.message.contains("belongs to another token") && refused.messages.is_empty());
    }
    let handle = handle_of(&prepared);
    let refused = all.call("GetFlightInfo", &of_prepared(&handle)).await;
    assert!(refused.message.contains("belongs to another token"), "{}", refused.shown());

    let records = std::fs::read_to_string(&audit).expect("a log");
    let record = records.lines().find(|line| line.contains("\"text\":\"SELECT max(task) AS a FROM runs\""));
    let record: serde_json::Value = serde_json::from_str(record.expect("recorded")).expect("JSON");
    assert_eq!((record["caller"].as_str(), record["endpoint"].as_str()), (Some("acme"), Some("flight")));
    assert!(records.contains("flight GetTables") && !records.contains(&texts[0]), "no tokens");

    // A token that is revoked meanwhile opens nothing any more, nor does its ticket.
    let mut left = Tokens::load(&file).expect("loaded");
    left.revoke("acme");
    left.save(&file).expect("saved");
    assert_eq!(acme.call("DoGet", &own).await.code, UNAUTHENTICATED);
    assert_eq!(query(&all, "SELECT 1 AS a").await.code, OK);
    served.comes_to_rest().await;
}

async fn prepare(client: &Client, sql: &str) -> Reply {
    let asked = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
    let body = Any::pack("ActionCreatePreparedStatementRequest", &asked);
    client.call("DoAction", &action("CreatePreparedStatement", body)).await
}

fn handle_of(prepared: &Reply) -> bytes::Bytes {
    let result = Any::decode(&*prepared.one::<ActionResult>().body).expect("a result");
    ActionCreatePreparedStatementResult::decode(&*result.value).expect("a result").prepared_statement_handle
}

fn of_prepared(handle: &bytes::Bytes) -> FlightDescriptor {
    let asked = CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() };
    FlightDescriptor { r#type: 2, cmd: Any::pack("CommandPreparedStatementQuery", &asked) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_their_status_and_hostile_clients_leave_nothing_behind() {
    let feed = Box::pin(tables()).await;
    let limited =
        ServerSettings { statements: 1, max_rows: 50_000, max_bytes: 20 << 20, connections: 20, ..settings() };
    let served = Served::start(&feed, with_flight(limited)).await;
    let client = Client::connect(served.flight(), None).await;
    Box::pin(statuses(&client)).await;
    Box::pin(malformed(&client)).await;
    Box::pin(beginnings(served.flight())).await;

    // Cancelled by its ticket.
    let info = client.call("GetFlightInfo", &statement(super::sql::LONG)).await;
    let (ticket, info) = (ticket(&info), info.one::<FlightInfo>());
    let cancel = async |info: &FlightInfo| {
        let asked = CancelFlightInfoRequest { info: Some(info.clone()) };
        let reply = client.call("DoAction", &action("CancelFlightInfo", asked.encode_to_vec())).await;
        CancelResult::decode(&*reply.one::<ActionResult>().body).expect("a result").status
    };
    assert_eq!(cancel(&info).await, 3, "it does not run");
    let get = client.call("DoGet", &ticket);
    let stop = async {
        running(&served).await;
        cancel(&info).await
    };
    let (reply, status) = tokio::join!(get, stop);
    assert_eq!((reply.code, status), (CANCELLED, 1), "{}", reply.shown());

    // A client that goes away ends its statement, before there are rows and after; so does one that reads nothing.
    for (sql, some) in [(super::sql::LONG, false), (ENDLESS, true)] {
        let gone = Client::connect(served.flight(), None).await;
        let ticket = self::ticket(&gone.call("GetFlightInfo", &statement(sql)).await);
        let started = gone.begin("DoGet", &ticket);
        let read = async {
            let body = started.await;
            if some {
                assert!(body.expect("begins").first().await > 0);
            }
        };
        tokio::select! {
            () = read => {}
            () = running(&served), if !some => {}
        }
        drop(gone);
        served.comes_to_rest().await;
    }
    let stalled = Client::connect(served.flight(), None).await;
    let ticket = self::ticket(&stalled.call("GetFlightInfo", &statement(ENDLESS)).await);
    let body = stalled.begin("DoGet", &ticket).await;
    running(&served).await;
    let began = Instant::now();
    served.comes_to_rest().await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    drop((body, stalled));
    assert!(served.metric("bellwether_serve_cut_total") >= 3.0);
    assert!(answer(served.get("/v1/statements")).await.1 == json!([]));
    assert_eq!(query(&client, "SELECT 1 AS a").await.code, OK, "the one place is free again");
}

async fn running(served: &Served) {
    let deadline = Instant::now() + SOON;
    while served.metric("bellwether_serve_statements") < 1.0 {
        assert!(Instant::now() < deadline, "the statement does not begin");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Checks the status of each kind of error.
async fn statuses(client: &Client) {
    for (sql, code, part) in [
        ("SELECT (1", INVALID, "cannot parse"),
        ("SELECT * FROM run", INVALID, "hint: "),
        ("DELETE FROM events", INVALID, "is refused"),
        ("COPY events TO '/tmp/stolen.csv'", INVALID, "is refused"),
        ("SELECT i FROM unnest(range(0, 60000)) AS a(i)", EXHAUSTED, "`api.max_rows` of the server"),
        ("SELECT repeat('x', 30000) AS x FROM unnest(range(0, 40000)) AS a(i)", EXHAUSTED, "`api.max_bytes`"),
        ("SELECT 1 AS a", OK, ""),
    ] {
        let reply = query(client, sql).await;
        assert_eq!(reply.code, code, "{sql}: {}", reply.shown());
        assert!(reply.message.contains(part), "{sql}: {}", reply.message);
    }
    let update = FlightDescriptor { r#type: 2, cmd: Any::pack("CommandStatementUpdate", &Ticket::default()) };
    let put = FlightData { flight_descriptor: Some(update.clone()), ..FlightData::default() };
    let savepoint = action("BeginSavepoint", "");
    for reply in [
        client.call("GetFlightInfo", &update).await,
        client.call("DoPut", &put).await,
        client.call("DoAction", &action("BeginTransaction", "")).await,
        client.call("DoAction", &savepoint).await,
        client.call("DoAction", &action("DropTable", "")).await,
        client.call("DoExchange", &put).await,
        client.call("ListFlights", &savepoint).await,
    ] {
        assert_eq!(reply.code, UNIMPLEMENTED, "{}", reply.shown());
        assert!(!reply.message.is_empty());
    }
    let within = CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: Some("t".into()) };
    let within = FlightDescriptor { r#type: 2, cmd: Any::pack("CommandStatementQuery", &within) };
    assert!(client.call("GetFlightInfo", &within).await.message.contains("no transactions"));
}

/// Requests that no client makes are refused, and the connection goes on.
async fn malformed(client: &Client) {
    let of = |name: &str, bytes: &'static [u8]| {
        let any = Any { type_url: format!("x/arrow.flight.protocol.sql.{name}"), value: bytes.into() };
        Ticket { ticket: any.encode_to_vec().into() }
    };
    let handle = TicketStatementQuery { statement_handle: "\u{8}\u{2}garbage".into() };
    for ticket in [
        Ticket::default(),
        Ticket { ticket: b"\xff\xff\xff".as_slice().into() },
        of("TicketStatementQuery", b"\x0a\xff"),
        of("TicketStatementQuery", b""),
        of("CommandGetTables", b"\xff"),
        of("CommandStatementQuery", b""),
        Ticket { ticket: Any::pack("TicketStatementQuery", &handle) },
    ] {
        let reply = client.call("DoGet", &ticket).await;
        assert_eq!(reply.code, INVALID, "{ticket:?}: {}", reply.shown());
    }
    let long = client.call("GetFlightInfo", &statement(&format!("SELECT '{}'", "x".repeat(300 << 10)))).await;
    assert!(long.code == INVALID && long.message.contains("longer than 256 KiB"), "{}", long.shown());
    let long = client.call("GetFlightInfo", &statement(&format!("SELECT '{}'", "x".repeat(10 << 20)))).await;
    assert_eq!(long.code, OUT_OF_RANGE, "{}", long.shown());
    // Half a message, and none.
    let whole = framed(&statement("SELECT 1 AS a"));
    for part in [&whole[..whole.len() - 1], &[]] {
        let late = client.unfinished("GetFlightInfo", part.to_vec()).await;
        assert!(late.code == DEADLINE && late.message.contains("within 1 s"), "{}", late.shown());
    }
    assert_eq!(client.call_as("text/plain", "GetFlightInfo", &statement("SELECT 1")).await.http, 415);
    // Values that cannot be read: the message of rows is none, or lies about its size.
    let handle = handle_of(&prepare(client, "SELECT $1::text AS a").await);
    for row in [b"".as_slice(), b"\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", b"\xff\xff\xff\xff\xff\xff\xff\xff"] {
        let first = FlightData { flight_descriptor: Some(of_prepared(&handle)), ..FlightData::default() };
        let row = FlightData { data_header: bytes::Bytes::from_static(row), ..FlightData::default() };
        let reply = client.send("DoPut", [framed(&first), framed(&row)].concat()).await;
        assert_eq!(reply.code, INVALID, "{}", reply.shown());
    }
    assert_eq!(query(client, "SELECT 1 AS a").await.code, OK);
}

/// A connection that begins incompletely or wrongly is closed, and no other client waits for it.
async fn beginnings(address: SocketAddr) {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat();
    let garbage: [&[u8]; 6] =
        [b"", b"PRI * HT", PREFACE, &settings, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\x02\0\x01"];
    let mut open = Vec::new();
    for bytes in garbage.iter().cycle().take(40) {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        drop(stream.write_all(bytes).await);
        open.push(stream);
    }
    let honest = Client::connect(address, None).await;
    assert_eq!(query(&honest, "SELECT 1 AS a").await.code, OK);
    for mut stream in open {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the connection stays open");
    }
}
