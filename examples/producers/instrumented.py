"""Publishes the runs of an app, and a person's review of one of them afterwards.

    pip install confluent-kafka
    BROKERS=localhost:9092 TOPIC=llm.runs python instrumented.py
"""

import json
import os
import time
import uuid
from contextlib import contextmanager
from datetime import datetime, timezone

from confluent_kafka import Producer

TOPIC = os.environ.get("TOPIC", "llm.runs")
RELEASE = {"id": "2026-11-20.3", "model": {"requested": "model-a"}, "prompt": {"name": "refund", "version": "14"}}

producer = Producer({"bootstrap.servers": os.environ.get("BROKERS", "localhost:9092"), "enable.idempotence": True})


def now():
    return datetime.now(timezone.utc).isoformat()


def publish(event):
    # All events about a run share its key, and so its partition.
    producer.produce(TOPIC, key=event["run_id"], value=json.dumps(event))


@contextmanager
def run(task):
    """Publishes one run, also if the task raises."""
    run_id = str(uuid.uuid4())
    data = {"task": task, "release": RELEASE, "rollout": {"stage": "full"}, "started_at": now(), "tool_calls": []}
    try:
        yield run_id, data
        data.setdefault("outcome", {"status": "success"})
    except TimeoutError as error:
        data["outcome"] = {"status": "timeout", "reason_code": str(error)}
    except Exception as error:
        data["outcome"] = {"status": "error", "reason_code": type(error).__name__}
        raise
    finally:
        data["ended_at"] = now()
        publish({"spec": "run-event/1.0", "run_id": run_id, "source": "support-bot", "data": data})


def call_tool(data, name, tool, *arguments):
    """Calls a tool and records the call."""
    begun = time.monotonic()
    status = "ok"
    try:
        return tool(*arguments)
    except Exception:
        status = "error"
        raise
    finally:
        latency_ms = (time.monotonic() - begun) * 1000
        data["tool_calls"].append({"name": name, "status": status, "latency_ms": latency_ms})


def look_up(order):
    if order == "A-3":
        raise TimeoutError("orders_unreachable")
    return {"order": order, "amount": 12.5}


reviewed = None
for order in ["A-1", "A-2", "A-3"]:
    with run("refund_triage") as (run_id, data):
        call_tool(data, "lookup_order", look_up, order)
        data["tokens"] = {"input": 1200, "output": 80}
        data["cost"] = {"amount": "0.0125", "currency": "USD"}
        data["validation"] = {"applicable": True, "valid": True, "schema_id": "refund/2"}
        reviewed = run_id

# A person looks at the last good run and disagrees: it counts as a failure from then on, in the window in which it ended.
publish({
    "spec": "run-event/1.0", "type": "run.review", "source": "review-desk", "run_id": reviewed, "time": now(),
    "data": {"review_id": str(uuid.uuid4()), "decision": "reject", "reviewer": "reviewer-7"},
})

waiting = producer.flush(30)
if waiting:
    raise SystemExit(f"{waiting} events were not delivered")
