"""Clients of Postgres ask `bellwether serve`: psycopg, asyncpg, SQLAlchemy's reflection, and psql at a terminal.

Arguments: the address of the server, the port, the file of its certificate, and a token of the tenant `acme`.
"""

import asyncio
import datetime
import decimal
import os
import pty
import select
import ssl
import sys
import time

import asyncpg
import psycopg
import sqlalchemy

HOST, PORT, CERTIFICATE, TOKEN = sys.argv[1:5]
QUERY = "SELECT run_id, tenant, started_at, latency_ms, segments, tool_calls FROM runs ORDER BY run_id LIMIT 3"
VALUES = "SELECT %s::bigint, %s::double precision, %s::text, %s::boolean, %s::date, %s::timestamptz"
MOMENT = datetime.datetime(2026, 11, 24, 18, 0, 0, 250000, tzinfo=datetime.timezone.utc)
SENT = (2**40, 0.25, "a'b", True, datetime.date(2026, 2, 28), MOMENT)


def with_psycopg():
    options = {"sslmode": "verify-full", "sslrootcert": CERTIFICATE, "hostaddr": "127.0.0.1"}
    connection = psycopg.connect(host=HOST, port=PORT, user="anybody", password=TOKEN, **options)
    assert connection.info.server_version == 140000
    for binary in (False, True):
        with connection.cursor(binary=binary) as cursor:
            rows = cursor.execute(QUERY).fetchall()
            assert [row[1] for row in rows] == ["acme"] * 3, rows
            assert rows[0][2].tzinfo is not None and rows[0][5] == [], rows[0]
            assert cursor.execute(VALUES, SENT).fetchone() == SENT
            found = cursor.execute("SELECT count(*) FROM runs WHERE task = %s", ("acme-task",), prepare=True).fetchone()
            assert found == (20,), found
            for items in (["acme-task"], ["x, y", 'a"\\b', "acme-task", None]):
                found = cursor.execute("SELECT count(*) FROM runs WHERE task = ANY(%s)", (items,)).fetchone()
                assert found == (20,), (items, found)
            found = cursor.execute("SELECT count(*) FROM runs WHERE latency_ms > ANY(%s)", ([0.5, 1e9],)).fetchone()
            assert found == (20,), found
            for numbers in ([1, 2, 2**40], [1, 2, 3], []):
                found = cursor.execute("SELECT count(*) FROM unnest(range(0, 9)) AS a(i) WHERE i = ANY(%s)", (numbers,)).fetchone()
                assert found == (sum(number < 9 for number in numbers),), (numbers, found)
            assert cursor.execute("SELECT 1.5::decimal(10, 3), NULL").fetchone() == (decimal.Decimal("1.500"), None)
            try:
                cursor.execute("SELECT * FROM nothing")
                raise AssertionError("answered")
            except psycopg.errors.UndefinedTable as error:
                assert "there is no table or view" in str(error), error
            connection.rollback()
    assert connection.execute("SELECT DISTINCT tenant FROM events").fetchall() == [("acme",)]
    connection.commit()
    try:
        connection.execute("DELETE FROM events")
        raise AssertionError("answered")
    except psycopg.errors.ReadOnlySqlTransaction:
        pass
    connection.close()


async def with_asyncpg():
    context = ssl.create_default_context(cafile=CERTIFICATE)
    connection = await asyncpg.connect(host="127.0.0.1", port=int(PORT), user="anybody", password=TOKEN,
                                       database="bellwether", ssl=named(context))
    rows = await connection.fetch(QUERY)
    assert [row["tenant"] for row in rows] == ["acme"] * 3 and rows[0]["started_at"].tzinfo is not None, rows
    statement = await connection.prepare("SELECT count(*) AS n, $1::text AS given FROM runs WHERE task = $2")
    assert [tuple(row) for row in await statement.fetch("ü", "acme-task")] == [(20, "ü")]
    sent = await connection.fetchrow("SELECT $1::bigint, $2::double precision, $3::date, $4::timestamptz",
                                     SENT[0], SENT[1], SENT[4], SENT[5])
    assert tuple(sent) == (SENT[0], SENT[1], SENT[4], SENT[5]), sent
    count = "SELECT count(*) FROM runs WHERE task = ANY($1) AND run_id <> ALL($2)"
    assert await connection.fetchval(count, ["acme-task", "x"], ["acme-3"]) == 19
    # Types of lists other than that of text are none that asyncpg knows without asking.
    count = "SELECT count(*) FROM unnest(range(0, 9)) AS a(i) WHERE i = ANY($1::text[]::bigint[])"
    assert await connection.fetchval(count, ["1", "2", "100"]) == 2
    async with connection.transaction(readonly=True):
        numbers = [row["i"] async for row in connection.cursor("SELECT i FROM unnest(range(0, 120)) AS a(i) ORDER BY i")]
        assert numbers == list(range(120)), numbers
    await connection.close()


def named(context):
    """Returns a context that checks for the name in the certificate, although the client connects to a number."""
    context.check_hostname = False
    return context


def with_sqlalchemy():
    url = sqlalchemy.URL.create("postgresql+psycopg", "anybody", TOKEN, HOST, int(PORT), "bellwether")
    options = {"sslmode": "verify-full", "sslrootcert": CERTIFICATE, "hostaddr": "127.0.0.1"}
    engine = sqlalchemy.create_engine(url, connect_args=options)
    found = sqlalchemy.inspect(engine)
    assert {"events", "metrics", "alerts"} <= set(found.get_table_names()), found.get_table_names()
    assert {"runs", "rolling", "tool_calls"} <= set(found.get_view_names()), found.get_view_names()
    columns = {column["name"]: column for column in found.get_columns("runs")}
    assert isinstance(columns["task"]["type"], sqlalchemy.Text), columns["task"]
    assert isinstance(columns["started_at"]["type"], sqlalchemy.TIMESTAMP), columns["started_at"]
    assert found.get_pk_constraint("events")["constrained_columns"] == []
    assert found.get_indexes("events") == [] and found.get_foreign_keys("events") == []
    table = sqlalchemy.Table("runs", sqlalchemy.MetaData(), autoload_with=engine)
    with engine.connect() as connection:
        query = sqlalchemy.select(table.c.task, sqlalchemy.func.count()).group_by(table.c.task)
        assert connection.execute(query).all() == [("acme-task", 20)]
    engine.dispose()


def at_a_terminal():
    """psql completes the name of a view and of a column, for which it reads the catalogue."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(PGPASSWORD=TOKEN, PGSSLMODE="verify-full", PGSSLROOTCERT=CERTIFICATE, PGHOSTADDR="127.0.0.1",
                          TERM="dumb", PAGER="cat", HOME="/nonexistent")
        os.execvp("psql", ["psql", "-X", "-h", HOST, "-p", PORT, "-U", "anybody", "bellwether"])
    shown = until(terminal, "=>")
    for typed, expected in [("SELECT count(*) AS runs_of_acme FROM tool_ca\t", "tool_calls"), (";\n", "runs_of_acme")]:
        os.write(terminal, typed.encode())
        shown = until(terminal, expected)
    os.write(terminal, b"\\q\n")
    assert "ERROR" not in shown, shown
    os.waitpid(process, 0)


def until(terminal, expected):
    """Reads what a terminal shows until it has shown a text."""
    shown, ends = "", time.monotonic() + 20
    while expected not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0, ends - time.monotonic()))
        assert ready, f"no {expected!r} in {shown!r}"
        shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


with_psycopg()
asyncio.run(with_asyncpg())
with_sqlalchemy()
if len(sys.argv) > 5:
    at_a_terminal()
print("all clients were answered")
