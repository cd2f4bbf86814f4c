"""Answers the questions of `make bench PARTS=years` with DuckDB on the same files, and prints times and answers as JSON.

Usage: spans.py ROOT AS_OF RUNS SPAN…

Each SPAN is NAME=MINUTES, up to AS_OF (microseconds since the epoch). DuckDB reads the files of `metrics` with one scan for all
spans and adds up plain columns; it computes no quantiles and no intervals, of which Bellwether's views have dozens. `deltalake`
lists the files; that is not timed, and neither is starting Python.
"""

import json
import resource
import sys
import time
from pathlib import Path

import duckdb
from deltalake import DeltaTable

SUMS = ("runs", "success", "tool_calls", "latency_runs", "tokens_input")


def main() -> None:
    root, as_of, runs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    spans = {name: int(minutes) for name, minutes in (span.split("=") for span in sys.argv[4:])}
    uris = DeltaTable(str(root / "metrics")).file_uris()
    listed = ", ".join("'{}'".format(uri.removeprefix("file://").replace("'", "''")) for uri in uris)
    files = f"read_parquet([{listed}], hive_partitioning = false, union_by_name = true)"

    def since(minutes: int) -> str:
        return f"window_start >= to_timestamp({as_of // 1_000_000 - minutes * 60})"

    columns = [f"sum({name}) FILTER (WHERE {since(minutes)})" for minutes in spans.values() for name in SUMS]
    key = "task, release_id, stage"
    rolling = f"SELECT {key}, {', '.join(columns)} FROM {files} WHERE {since(max(spans.values()))} GROUP BY {key}"
    totals = ", ".join(f"sum({name})" for name in SUMS)
    summary = f"SELECT {key}, model, {totals} FROM {files} GROUP BY {key}, model"

    def timed(query: str) -> tuple[list[float], list[tuple]]:
        connection, times, rows = duckdb.connect(), [], []
        for _ in range(1 + runs):
            begun = time.perf_counter()
            rows = connection.sql(query).fetchall()
            times.append((time.perf_counter() - begun) * 1000)
        return times, rows

    rolling_ms, wide = timed(rolling)
    summary_ms, rows = timed(summary)
    found = []
    for row in wide:
        for place, name in enumerate(spans):
            sums = row[3 + place * len(SUMS) : 3 + (place + 1) * len(SUMS)]
            if sums[0] is not None:
                found.append([name, *row[:3], *(int(value or 0) for value in sums)])
    print(json.dumps({
        "rolling_ms": rolling_ms,
        "summary_ms": summary_ms,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "rolling": found,
        "summary": [[row[3], *row[:3], *(int(value or 0) for value in row[4:])] for row in rows],
    }))


main()
