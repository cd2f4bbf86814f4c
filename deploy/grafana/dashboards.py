#!/usr/bin/env python3
"""Grafana dashboards on Bellwether's Prometheus metrics, as code.

    dashboards.py write            write deploy/grafana/dashboards/*.json
    dashboards.py check            fail if a file differs from what `write` writes
    dashboards.py queries          print each query with its dashboard and panel, separated by tabs, as any client can send it
    dashboards.py rows PROMETHEUS  send every query to a Prometheus at this address; fail if one returns no rows
"""

import json
import sys
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent / "dashboards"
COLUMNS = 24
GROUP = 'tenant=~"$tenant", task=~"$task"'
# What a client without Grafana puts in place of a variable.
VALUES = {"$span": "1h", "$tenant": ".*", "$task": ".*", "$release": ".*", "$__rate_interval": "1m"}


@dataclass
class Panel:
    title: str
    queries: dict[str, str]  # legend → PromQL
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    about: str = ""
    thresholds: list = field(default_factory=list)


@dataclass
class Dashboard:
    name: str
    title: str
    panels: list[Panel]
    variables: tuple[str, ...] = ()


def of_task(metric: str, more: str = "") -> str:
    return f'bellwether_task_{metric}{{span="$span", {GROUP}{more}}}'


def share(part: str, whole: str, by: str) -> str:
    return f"sum by ({by}) ({of_task(part)}) / (sum by ({by}) ({of_task(whole)}) > 0)"


def success_of(stage: str) -> str:
    only = f', stage="{stage}"'
    return f"sum by (task) ({of_task('success', only)}) / (sum by (task) ({of_task('judged', only)}) > 0)"


def figures(by: str, legend: str) -> list[Panel]:
    """The figures of each group: rates come from sums of counts, so that several groups together have the right one."""
    latency = f"histogram_quantile(0.95, sum by ({by}, le) ({of_task('latency_seconds_bucket')}))"
    cost = f"sum by ({by}, currency) ({of_task('cost')}) / (sum by ({by}, currency) ({of_task('cost_success')}) > 0)"
    return [
        Panel("Runs in the span", {legend: f"sum by ({by}) ({of_task('runs')})"}),
        Panel("Success of judged runs", {legend: share("success", "judged", by)}, "percentunit"),
        Panel("Judged share of runs", {legend: share("judged", "runs", by)}, "percentunit",
              about="Success says little while few runs are judged."),
        Panel("Escalated to a person", {legend: share("escalated", "runs", by)}, "percentunit"),
        Panel("Answers that match their schema", {legend: share("schema_valid", "schema_applicable", by)}, "percentunit"),
        Panel("Latency, 95 %", {legend: latency}, "s"),
        Panel("Cost per completed task", {legend + " {{currency}}": cost}),
    ]


DASHBOARDS = [
    Dashboard("fleet", "Bellwether: fleet", [
        Panel("Firing alerts", {"{{severity}}": "sum by (severity) (bellwether_alerts_firing)"}, kind="stat", width=6, height=5),
        Panel("Age of the figures", {"{{span}}": "span:bellwether_task_age:seconds"}, "s", kind="stat", width=6, height=5),
        Panel("Messages that wait", {"messages": "sum(bellwether_ingest_lag_messages)"}, kind="stat", width=6, height=5),
        Panel("Roles that make no progress", {"roles": "count(bellwether_role_fresh == 0) or vector(0)"}, kind="stat", width=6, height=5,
              thresholds=[(None, "green"), (1, "red")]),
        *figures("tenant, task", "{{tenant}} {{task}}"),
    ], ("span", "tenant", "task")),
    Dashboard("task", "Bellwether: task by release", [
        *figures("task, release_id, stage", "{{release_id}} {{stage}}"),
        Panel("Latency, median and 99 %", {
            "{{release_id}} {{stage}} 50 %": f"histogram_quantile(0.5, sum by (release_id, stage, le) ({of_task('latency_seconds_bucket')}))",
            "{{release_id}} {{stage}} 99 %": f"histogram_quantile(0.99, sum by (release_id, stage, le) ({of_task('latency_seconds_bucket')}))",
        }, "s"),
        Panel("Distribution of latency", {"{{le}}": f"sum by (le) ({of_task('latency_seconds_bucket')})"}, kind="bargauge"),
    ], ("span", "tenant", "task")),
    Dashboard("release", "Bellwether: comparison of releases", [
        Panel("Success of judged runs", {"{{task}} {{release_id}} {{stage}}": share("success", "judged", "task, release_id, stage")},
              "percentunit", "bargauge", 12),
        Panel("Judged runs: how much the figures beside are worth", {
            "{{task}} {{release_id}} {{stage}}": f"sum by (task, release_id, stage) ({of_task('judged')})"}, "short", "bargauge", 12),
        Panel("Canary minus full: success", {"{{task}}": f"{success_of('canary')} - {success_of('full')}"}, "percentunit", width=12,
              about="A difference, not a verdict: `bellwether gate` says whether it is more than chance."),
        Panel("Latency, 95 %", {"{{task}} {{release_id}} {{stage}}":
              f"histogram_quantile(0.95, sum by (task, release_id, stage, le) ({of_task('latency_seconds_bucket')}))"}, "s", width=12),
    ], ("span", "tenant", "task")),
    Dashboard("alerts", "Bellwether: alerts and their delivery", [
        Panel("Firing", {"{{severity}}": "sum by (severity) (bellwether_alerts_firing)"}),
        Panel("Pages in 30 days", {"pages": "max(bellwether_alerts_pages_30d)", "retracted": "max(bellwether_alerts_pages_retracted_30d)"}),
        Panel("False pages a month", {"budget": "max(bellwether_alerts_false_pages_budget)", "bound": "max(bellwether_alerts_false_pages_bound)"},
              about="The bound is what the thresholds of the rules guarantee; it stays below the budget."),
        Panel("Transitions", {"{{severity}} {{state}}": "sum by (severity, state) (bellwether_watch_transitions_total)"}),
        Panel("Rules that fail", {"{{rule}}": "max by (rule) (bellwether_watch_rule_failing)"}),
        Panel("Messages to sinks", {"{{sink}} {{result}}": "sum by (sink, result) (increase(bellwether_deliver_messages_total[$__rate_interval]))"}),
        Panel("Oldest alert that is not delivered", {"age": "max(bellwether_deliver_oldest_undelivered_seconds)"}, "s"),
        Panel("Time of an evaluation", {"{{instance}}": "bellwether_watch_evaluation_seconds"}, "s"),
    ]),
    Dashboard("pipeline", "Bellwether: pipeline health", [
        Panel("Roles that make progress", {"{{instance}} {{role}}": "bellwether_role_fresh"}, kind="stat", width=12, height=6,
              thresholds=[(None, "red"), (1, "green")]),
        Panel("Heartbeat through the whole pipeline", {
            "age of the last": "time() - max(bellwether_heartbeat_last_success_timestamp_seconds)"}, "s", width=12, height=6),
        Panel("Messages", {"read": "sum(rate(bellwether_ingest_messages_total[$__rate_interval]))",
                           "stored": "sum(rate(bellwether_ingest_rows_committed_total[$__rate_interval]))"}, "cps"),
        Panel("Messages that wait", {"{{topic}} {{partition}}": "bellwether_ingest_lag_messages"}),
        Panel("Halted partitions", {"{{instance}}": "bellwether_ingest_halted_partitions"}),
        Panel("Time of a commit, 99 %", {
            "commit": "histogram_quantile(0.99, sum by (le) (rate(bellwether_ingest_commit_seconds_bucket[$__rate_interval])))"}, "s"),
        Panel("Waiting work by role", {"{{instance}} {{role}}": "bellwether_role_waiting"}),
        Panel("Processes that fence one another", {"{{role}}": "role:bellwether_fenced:increase15m"}),
        Panel("Memory", {"{{instance}}": 'process_resident_memory_bytes{job="bellwether"}',
                         "{{instance}} next commit": "bellwether_ingest_held_bytes"}, "bytes"),
        Panel("CPU", {"{{instance}}": 'rate(process_cpu_seconds_total{job="bellwether"}[$__rate_interval])'}),
        Panel("Open files", {"{{instance}}": 'process_open_fds{job="bellwether"}'}),
    ]),
]


def variable(name: str) -> dict:
    if name == "span":
        spans = ["5m", "1h", "24h", "7d", "30d", "90d"]
        options = [{"text": span, "value": span, "selected": span == "1h"} for span in spans]
        return {"name": name, "type": "custom", "query": ",".join(spans), "options": options, "current": options[1]}
    return {
        "name": name, "type": "query", "datasource": {"type": "prometheus", "uid": "prometheus"}, "refresh": 2, "sort": 1,
        "query": {"query": f"label_values(bellwether_task_runs, {name})", "refId": name},
        "includeAll": True, "allValue": ".*", "multi": True, "current": {"text": "All", "value": "$__all"},
    }


def rendered(dashboard: Dashboard) -> str:
    panels, x, y, row = [], 0, 0, 0
    for number, panel in enumerate(dashboard.panels, start=1):
        if x + panel.width > COLUMNS:
            x, y, row = 0, y + row, 0
        steps = [{"value": value, "color": colour} for value, colour in panel.thresholds or [(None, "blue")]]
        panels.append({
            "id": number, "title": panel.title, "description": panel.about, "type": panel.kind,
            "datasource": {"type": "prometheus", "uid": "prometheus"},
            "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
            "fieldConfig": {"defaults": {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}, "overrides": []},
            "targets": [
                {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend, "instant": panel.kind != "timeseries",
                 "range": panel.kind == "timeseries", "datasource": {"type": "prometheus", "uid": "prometheus"}}
                for index, (legend, expression) in enumerate(panel.queries.items())
            ],
        })
        x, row = x + panel.width, max(row, panel.height)
    page = {
        "uid": f"bellwether-{dashboard.name}", "title": dashboard.title, "tags": ["bellwether"], "editable": False,
        "schemaVersion": 39, "version": 1, "refresh": "30s", "time": {"from": "now-6h", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["bellwether"], "title": "Bellwether", "asDropdown": True, "keepTime": True}],
        "templating": {"list": [variable(name) for name in dashboard.variables]}, "panels": panels,
    }
    return json.dumps(page, indent=1) + "\n"


def queries() -> list[tuple[str, str, str]]:
    found = []
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for expression in panel.queries.values():
                for name, value in VALUES.items():
                    expression = expression.replace(name, value)
                assert "$" not in expression, expression
                found.append((dashboard.name, panel.title, expression))
    return found


def rows(address: str) -> int:
    empty = 0
    for dashboard, panel, expression in queries():
        request = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(request, timeout=30) as answer:
            result = json.load(answer)["data"]["result"]
        if not result:
            empty += 1
            print(f"{dashboard}: {panel}: no rows from {expression}", file=sys.stderr)
    print(f"{len(queries()) - empty} of {len(queries())} queries return rows")
    return 1 if empty else 0


def main() -> int:
    match sys.argv[1:]:
        case ["write"]:
            FOLDER.mkdir(exist_ok=True)
            for dashboard in DASHBOARDS:
                (FOLDER / f"{dashboard.name}.json").write_text(rendered(dashboard))
        case ["check"]:
            wrong = [d.name for d in DASHBOARDS if (FOLDER / f"{d.name}.json").read_text() != rendered(d)]
            if wrong:
                print(f"differ from dashboards.py: {', '.join(wrong)}; run `deploy/grafana/dashboards.py write`", file=sys.stderr)
                return 1
        case ["queries"]:
            for query in queries():
                print("\t".join(query))
        case ["rows", address]:
            return rows(address)
        case _:
            print(__doc__.split("\n\n", 1)[1].rstrip(), file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
