"""Aggregate runs by minute, task and release to Parquet with Quix Streams: the Python peer of `make bench-peers`.

Set up as its documentation recommends: exactly-once processing, state with changelog topics, `group_by` for a custom
key, a tumbling window with named aggregations that emits final results, and the local file sink with Parquet.
The sink is at-least-once, as documented for all sinks.

    peer.py BROKER TOPIC GROUP FOLDER
"""

import os
import sys
from datetime import datetime, timedelta

import quixstreams.dataframe.windows.aggregations as agg
from quixstreams import Application
from quixstreams.sinks.community.file.formats import ParquetFormat
from quixstreams.sinks.community.file.local import LocalFileSink

broker, topic_name, group, folder = sys.argv[1:]
os.chdir(folder)  # the sink does not accept a path with dots


def ended_ms(value, _headers, _timestamp_ms, _timestamp_type) -> int:
    """Return the event time that windows use."""
    return round(datetime.fromisoformat(value["data"]["ended_at"]).timestamp() * 1000)


def needed(value: dict) -> dict:
    """Return only the fields that the windows need, to keep the repartition topic small."""
    data = value["data"]
    return {
        "task": data["task"],
        "release": data["release"]["id"],
        "success": int(data["outcome"]["status"] == "success"),
        "cost_micros": round(float(data["cost"]["amount"]) * 1e6),
        "tokens_input": data["tokens"]["input"],
        "tokens_output": data["tokens"]["output"],
    }


def row(window: dict, key: str, _timestamp, _headers) -> dict:
    task, release = (key.decode() if isinstance(key, bytes) else key).split("|")
    return {
        "window_start": window["start"],
        "task": task,
        "release": release,
        **{name: window[name] for name in SUMS},
    }


SUMS = ["runs", "success", "cost_micros", "tokens_input", "tokens_output"]

app = Application(
    broker_address=broker,
    consumer_group=group,
    auto_offset_reset="earliest",
    processing_guarantee="exactly-once",
    state_dir="state",
    loglevel="WARNING",
)
topic = app.topic(topic_name, value_deserializer="json", timestamp_extractor=ended_ms)
rows = (
    app.dataframe(topic)
    .apply(needed)
    .group_by(lambda value: f"{value['task']}|{value['release']}", name="task-release")
    # While catching up, one partition is ahead of another in event time: less grace would lose rows.
    .tumbling_window(timedelta(minutes=1), grace_ms=timedelta(hours=1))
    .agg(runs=agg.Count(), **{name: agg.Sum(name) for name in SUMS[1:]})
    .final(closing_strategy="partition")
    .apply(row, metadata=True)
)
rows.sink(LocalFileSink(directory="out", format=ParquetFormat(compression="zstd")))
app.run()
