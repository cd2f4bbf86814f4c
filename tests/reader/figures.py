"""Computes the figures of runs from the files of `events` with plain arithmetic, and prints them as JSON.

Usage: figures.py ROOT AS_OF MINUTES KEY…

Prints one object per group of the KEY columns, named by their values joined with `|`, over runs that ended in the MINUTES
before AS_OF (microseconds since the epoch). Shares no code with Bellwether: `deltalake` lists the files, `pyarrow` reads them.
Every run counts 1 / its sampling probability. A quantity that a run does not state is in no numerator and no denominator.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import pyarrow
import pyarrow.parquet
from deltalake import DeltaTable

SEVERITIES = ("info", "low", "medium", "high", "critical")
TOKENS = ("input", "input_cache_read", "input_cache_write", "output", "reasoning")


def runs_of(root: Path) -> list[dict]:
    """Returns one row per completed run; repeats in these tests are equal, so any of them will do."""
    found = {}
    for uri in DeltaTable(str(root / "events")).file_uris():
        table = pyarrow.parquet.read_table(uri.removeprefix("file://"), partitioning=None)
        keep = [name for name in table.column_names if not pyarrow.types.is_nested(table.schema.field(name).type)]
        for row in table.select(keep).cast(table.select(keep).schema).to_pylist():
            if row["event_type"] == "run.completed":
                # A file lacks the columns of which it has no value.
                found[(row["tenant"], row["source"], row["run_id"], row["attempt"])] = defaultdict(lambda: None, row)
    return list(found.values())


def over(numerator: float, denominator: float):
    """Returns a ratio, or None if the denominator is 0."""
    return numerator / denominator if denominator else None


def figures(runs: list[dict]) -> dict:
    """Computes the figures of some runs."""

    def total(value, where=lambda run: True) -> float:
        return sum(weight(run) * value(run) for run in runs if where(run))

    def weight(run) -> float:
        # Weights are whole millionths.
        return round(1e6 / (run["sampling_probability"] or 1.0)) / 1e6

    def one(_run) -> int:
        return 1

    def judged(run) -> bool:
        return run["outcome_status"] != "unknown"

    def priced(run) -> bool:
        return run["cost_nanos"] is not None

    def succeeded(run) -> bool:
        return run["outcome_status"] == "success"

    def checked(run) -> bool:
        return bool(run["validation_applicable"]) and run["validation_valid"] is not None

    def states_tokens(run) -> bool:
        return any(run[f"tokens_{kind}"] is not None for kind in TOKENS)

    every = total(one)
    squares = sum(weight(run) ** 2 for run in runs)
    currencies = {run["cost_currency"] for run in runs if priced(run)}
    exceptions = total(lambda run: sum(run[f"policy_exceptions_{severity}"] for severity in SEVERITIES))
    latency = [run for run in runs if run["latency_total_micros"] is not None]
    retrievals = total(lambda run: run["retrieval_calls"])
    return {
        "runs": every,
        "runs_observed": len(runs),
        "runs_effective": over(every * every, squares),
        "coverage": over(total(one, judged), every),
        "unknown_share": over(every - total(one, judged), every),
        "success_rate": over(total(one, succeeded), total(one, judged)),
        "escalation_rate": over(total(one, lambda run: run["escalated"]), every),
        "schema_adherence": over(total(one, lambda run: checked(run) and run["validation_valid"]), total(one, checked)),
        "tool_failure_rate": over(total(lambda run: run["tool_calls_failed"]), total(lambda run: run["tool_calls_total"])),
        "retrieval_empty_rate": over(total(lambda run: run["retrieval_empty"]), retrievals),
        "policy_exceptions_per_1000": over(1000 * exceptions, every),
        "latency_ms_mean": over(
            sum(weight(run) * run["latency_total_micros"] for run in latency) / 1000, sum(weight(run) for run in latency)
        ),
        "cost_coverage": over(total(one, priced), every),
        "cost_per_completed_task": (
            over(total(lambda run: run["cost_nanos"] / 1e9, priced), total(one, lambda run: priced(run) and succeeded(run)))
            if len(currencies) == 1
            else None
        ),
        "tokens_coverage": over(total(one, states_tokens), every),
        "tokens_input_per_run": over(
            total(lambda run: run["tokens_input"], lambda run: run["tokens_input"] is not None),
            total(one, lambda run: run["tokens_input"] is not None),
        ),
        "tokens_output_per_run": over(
            total(lambda run: run["tokens_output"], lambda run: run["tokens_output"] is not None),
            total(one, lambda run: run["tokens_output"] is not None),
        ),
    }


def main() -> None:
    root, as_of, minutes, key = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    groups = defaultdict(list)
    for run in runs_of(root):
        ended = int(run["ended_at"].timestamp() * 1_000_000)
        if as_of - minutes * 60_000_000 <= ended < as_of:
            groups["|".join(str(run[name]) for name in key)].append(run)
    json.dump({name: figures(runs) for name, runs in groups.items()}, sys.stdout)


main()
