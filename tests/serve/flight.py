"""Clients of Arrow Flight SQL ask `bellwether serve`: ADBC's driver, and the Flight client of pyarrow.

Arguments: the address of the server, the port, the file of its certificate, and tokens of the tenants `acme` and `globex`.
The server runs one statement at a time, and an answer has at most 300,000 rows.
"""

import datetime
import sys
import threading
import time

import pyarrow
import pyarrow.flight as flight
from adbc_driver_flightsql import DatabaseOptions, dbapi

HOST, PORT, CERTIFICATE, TOKEN, RIVAL = sys.argv[1:6]
URI = f"grpc+tls://127.0.0.1:{PORT}"
MANY = "SELECT i AS n, repeat('x', 20) AS x FROM unnest(range(0, 200000)) AS a(i)"
LONG = "SELECT count(*) AS n FROM unnest(range(0, 100000)) AS a(i), unnest(range(0, 100000)) AS b(j) WHERE i * j % 7 = 3"
MOMENT = datetime.datetime(2026, 11, 24, 18, 0, 0, 250000, tzinfo=datetime.timezone.utc)


def connect(**options):
    """Connects by ADBC; without options, with the token of `acme`."""
    with open(CERTIFICATE, encoding="ascii") as file:
        trusted = {DatabaseOptions.TLS_ROOT_CERTS.value: file.read(), DatabaseOptions.TLS_OVERRIDE_HOSTNAME.value: HOST}
    known = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {TOKEN}"}
    return dbapi.connect(URI, db_kwargs=trusted | (options or known), autocommit=True)


def refused(kind, part, action):
    """Checks that an action fails with an error of a kind that says something."""
    try:
        action()
    except kind as error:
        assert part in str(error), error
        return
    raise AssertionError("answered")


def rows(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def with_queries(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT run_id, tenant, started_at, segments, tool_calls FROM runs ORDER BY run_id LIMIT 3")
        table = cursor.fetch_arrow_table()
    assert table.column("tenant").to_pylist() == ["acme"] * 3, table
    assert table.schema.field("started_at").type == pyarrow.timestamp("us", tz="UTC"), table.schema
    assert table.column("tool_calls").to_pylist() == [[], [], []], table
    assert rows(connection, "SELECT DISTINCT tenant FROM events") == [("acme",)]
    assert rows(connection, "SELECT 1 AS n WHERE false") == []
    assert "n" in str(rows(connection, "EXPLAIN SELECT 1 AS n"))
    refused(dbapi.Error, "there is no table or view", lambda: rows(connection, "SELECT * FROM nothing"))
    refused(dbapi.Error, "is refused", lambda: rows(connection, "DELETE FROM events"))
    with connection.cursor() as cursor:
        refused(dbapi.Error, "only reads", lambda: cursor.adbc_ingest("events", pyarrow.table({"a": [1]}), mode="append"))
    refused(dbapi.Error, "transaction support", lambda: connection.adbc_connection.set_autocommit(False))


def with_parameters(connection):
    found = rows(connection, "SELECT count(*) FROM runs WHERE task = $1 AND latency_ms >= $2", ("acme-task", 0.5))
    assert found == [(20,)], found
    assert rows(connection, "SELECT count(*) FROM runs WHERE task = $1", ("' OR '1'='1",)) == [(0,)]
    assert rows(connection, "SELECT count(*) FROM runs WHERE started_at < $1", ("2000-01-01T08:00:00Z",)) == [(0,)]
    sent = (2**40, 0.25, "ä'b", True, datetime.date(2026, 2, 28), MOMENT)
    casts = "$1::bigint, $2::double, $3::text, $4::boolean, $5::date, $6::timestamp"
    assert rows(connection, f"SELECT {casts}", sent) == [(*sent[:5], MOMENT.replace(tzinfo=None))]
    with connection.cursor() as cursor:
        query = "SELECT count(*) FROM runs WHERE run_id = $1"
        for run, expected in [("acme-3", 1), ("globex-3", 0), ("acme-4", 1)]:
            cursor.execute(query, (run,))
            assert cursor.fetchall() == [(expected,)], run
        schema = cursor.adbc_prepare(query)
        assert [(field.name, field.type) for field in schema] == [("$1", pyarrow.string())], schema
    refused(dbapi.Error, "2 parameters", lambda: rows(connection, "SELECT $1::text, $2::text", ("a",)))
    refused(dbapi.Error, "not of type", lambda: rows(connection, "SELECT $1::bigint", ("many",)))


def with_metadata(connection):
    tree = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    assert [catalog["catalog_name"] for catalog in tree] == ["bellwether"], tree
    (schema,) = tree[0]["catalog_db_schemas"]
    tables = {table["table_name"]: table for table in schema["db_schema_tables"]}
    assert tables["runs"]["table_type"] == "VIEW" and tables["events"]["table_type"] == "TABLE", tables.keys()
    assert {"task", "tenant", "started_at"} <= {column["column_name"] for column in tables["runs"]["table_columns"]}
    assert tables["events"]["table_constraints"] == [], tables["events"]
    named = connection.adbc_get_objects(depth="tables", table_name_filter="tool\\_c%").read_all().to_pylist()
    assert [table["table_name"] for table in named[0]["catalog_db_schemas"][0]["db_schema_tables"]] == ["tool_calls"]
    assert connection.adbc_get_table_schema("runs").field("task").type == pyarrow.string()
    assert sorted(connection.adbc_get_table_types()) == ["TABLE", "VIEW"]
    assert connection.adbc_get_info()["vendor_name"] == "bellwether", connection.adbc_get_info()


def with_many_rows(connection):
    with connection.cursor() as cursor:
        cursor.execute(MANY)
        batches = cursor.fetch_record_batch()
        count = total = 0
        for batch in batches:
            count, total = count + batch.num_rows, total + sum(batch.column(0).to_pylist())
        assert (count, total) == (200_000, 19_999_900_000), (count, total)
        # Further rows than there may be, of which many were sent.
        cursor.execute(MANY.replace("200000", "400000"))
        refused(dbapi.Error, "api.max_rows", cursor.fetch_arrow_table)
        # A reader that stops early leaves no statement behind, although the server runs one at a time.
        cursor.execute(MANY)
        batches = cursor.fetch_record_batch()
        assert batches.read_next_batch().num_rows > 0
        batches.close()
    assert rows(connection, "SELECT 1 AS n") == [(1,)]


def with_cancellation(connection):
    with connection.cursor() as cursor:
        timer = threading.Timer(1.0, cursor.adbc_cancel)
        timer.start()
        began = time.monotonic()
        refused(dbapi.Error, "ancel", lambda: (cursor.execute(LONG), cursor.fetchall()))
        assert time.monotonic() - began < 20, "the statement went on"
    assert rows(connection, "SELECT 1 AS n") == [(1,)], "its place is free"


def with_tokens():
    wrong = {DatabaseOptions.AUTHORIZATION_HEADER.value: "Bearer bellwether_0"}
    refused(dbapi.Error, "no valid token", lambda: rows(connect(**wrong), "SELECT 1"))
    refused(dbapi.Error, "no valid token", lambda: connect(username="me", password="bellwether_0"))
    # The token as a password, for which the client gets the header of its later calls.
    with connect(username="anybody", password=RIVAL) as connection:
        assert rows(connection, "SELECT DISTINCT tenant FROM events") == [("globex",)]


def number(tag, body):
    """Encodes a field of bytes of Protocol Buffers."""
    size, length = len(body), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([tag << 3 | 2]) + length + bytes([size]) + body


def command(name, fields):
    return number(1, f"type.googleapis.com/arrow.flight.protocol.sql.{name}".encode()) + number(2, fields)


def with_pyarrow():
    with open(CERTIFICATE, "rb") as file:
        options = {"tls_root_certs": file.read(), "override_hostname": HOST}
    asked = flight.FlightDescriptor.for_command(command("CommandStatementQuery", number(1, b"SELECT max(tenant) AS t FROM runs")))
    with flight.FlightClient(URI, **options) as client:
        own, other = (flight.FlightCallOptions(headers=[client.authenticate_basic_token("me", token)]) for token in (TOKEN, RIVAL))
        ticket = client.get_flight_info(asked, own).endpoints[0].ticket
        assert client.do_get(ticket, own).read_all().to_pylist() == [{"t": "acme"}]
        refused(pyarrow.ArrowException, "belongs to another token", lambda: client.do_get(ticket, other).read_all())
        refused(flight.FlightUnauthenticatedError, "no valid token", lambda: client.do_get(ticket).read_all())
        assert client.get_schema(asked, own).schema.names == ["t"]
        actions = [action.type for action in client.list_actions(own)]
        assert "CreatePreparedStatement" in actions, actions
        refused(pyarrow.ArrowException, "no transactions", lambda: list(client.do_action(("BeginTransaction", b""), own)))


with connect() as connected:
    with_queries(connected)
    with_parameters(connected)
    with_metadata(connected)
    with_many_rows(connected)
    with_cancellation(connected)
with_tokens()
with_pyarrow()
print("all clients were answered")
