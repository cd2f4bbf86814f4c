//! The table of endpoints, of which the router and the OpenAPI document are made.

use bellwether_tables::Table;

/// An endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) verb: Verb,
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) parameters: &'static [Parameter],
    pub(crate) work: Work,
}

/// The method of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verb {
    Get,
    Post,
    Delete,
}

/// The work that an endpoint does for a request.
#[derive(Debug)]
pub(crate) enum Work {
    Sql,
    Select(Select),
    Alerts,
    Gate,
    Statements,
    Cancel,
    OpenApi,
}

/// Rows of a view or table.
#[derive(Debug)]
pub(crate) struct Select {
    /// The statement up to its conditions.
    pub(crate) from: &'static str,
    pub(crate) order: &'static str,
    /// Stored tables on which the answer depends.
    pub(crate) tables: &'static [Table],
}

/// A parameter of an endpoint.
#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) kind: Kind,
    /// The condition: up to the value, or with `?` wherever it stands.
    pub(crate) condition: &'static str,
    pub(crate) default: Option<&'static str>,
    pub(crate) is_required: bool,
}

/// The kind of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    /// A time, or a duration before now.
    Time,
    OneOf(&'static [&'static str]),
    /// Part of the path.
    Path,
}

const METRICS: &[Table] = &[Table::Metrics, Table::MetricsHourly, Table::MetricsDaily];

const STAGES: Kind = Kind::OneOf(&["offline_eval", "internal", "shadow", "canary", "full"]);

const TASK: Parameter = text("task", "task = ", "Only this task");
const TENANT: Parameter = text("tenant", "tenant = ", "Only this tenant");
const RELEASE: Parameter = text("release", "release_id = ", "Only this release");
const STAGE: Parameter = Parameter { kind: STAGES, ..text("stage", "stage = ", "Only this stage") };

const fn text(name: &'static str, condition: &'static str, doc: &'static str) -> Parameter {
    Parameter { name, doc, kind: Kind::Text, condition, default: None, is_required: false }
}

const fn get(path: &'static str, summary: &'static str, parameters: &'static [Parameter], work: Work) -> Endpoint {
    Endpoint { verb: Verb::Get, path, summary, parameters, work }
}

const fn rows(from: &'static str, order: &'static str, tables: &'static [Table]) -> Work {
    Work::Select(Select { from, order, tables })
}

/// All endpoints.
pub(crate) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        verb: Verb::Post,
        path: "/v1/sql",
        summary: "Run one statement of SQL",
        parameters: &[],
        work: Work::Sql,
    },
    get(
        "/v1/tasks",
        "Every metric of each task over the last day: the columns of view `last_day`",
        &[TASK, TENANT],
        rows("SELECT * FROM last_day", "tenant, task", METRICS),
    ),
    get(
        "/v1/releases",
        "Every metric of each release over all time: the columns of view `release_summary`",
        &[TASK, TENANT, RELEASE, STAGE],
        rows("SELECT * FROM release_summary", "tenant, task, first_day DESC, release_id, stage", METRICS),
    ),
    get(
        "/v1/rolling",
        "Every metric by task, release and stage over a span up to now: the columns of view `rolling`",
        &[
            Parameter {
                kind: Kind::OneOf(&["5m", "1h", "24h", "7d", "30d", "90d"]),
                default: Some("1h"),
                ..text("span", "span = ", "Length of time")
            },
            TASK,
            TENANT,
            RELEASE,
            STAGE,
        ],
        rows("SELECT * FROM rolling", "tenant, task, release_id, stage", METRICS),
    ),
    get(
        "/v1/series",
        "Every metric of a task by minute: the columns of view `metrics_1m`",
        &[
            Parameter { is_required: true, ..TASK },
            TENANT,
            RELEASE,
            STAGE,
            Parameter {
                kind: Kind::Time,
                default: Some("1h"),
                ..text(
                    "since",
                    "window_start >= ",
                    "Only from this time on: a time, or a duration before now such as 6h",
                )
            },
            Parameter {
                kind: Kind::Time,
                ..text("until", "window_start < ", "Only before this time: a time, or a duration before now")
            },
        ],
        rows("SELECT * FROM metrics_1m", "window_start, tenant, task, release_id, stage", &[Table::Metrics]),
    ),
    get(
        "/v1/alerts",
        "The present state of each alert",
        &[
            Parameter {
                kind: Kind::OneOf(&["inactive", "pending", "firing", "resolved"]),
                ..text("state", "", "Only alerts in this state")
            },
            text("task", "", "Only alerts about this task"),
        ],
        Work::Alerts,
    ),
    get(
        "/v1/alerts/{id}",
        "The transitions of one alert, with their evidence: the columns of table `alerts`",
        &[Parameter { kind: Kind::Path, is_required: true, ..text("id", "alert_id = ", "Id of the alert") }],
        rows("SELECT * FROM alerts", "evaluation, at", &[Table::Alerts]),
    ),
    get(
        "/v1/runs/{id}",
        "One run, a row for each attempt: the columns of view `runs`",
        &[
            Parameter { kind: Kind::Path, is_required: true, ..text("id", "run_id = ", "Id of the run") },
            text("source", "source = ", "Only the run of this source"),
        ],
        rows("SELECT * FROM runs", "tenant, source, attempt", &[Table::Events]),
    ),
    get(
        "/v1/candidates",
        "The runs in the samples for review, the most urgent first: the columns of view `current_candidates`",
        &[
            Parameter {
                kind: Kind::OneOf(&["open", "queued", "leased", "second_review", "decided", "eval_case", "retired"]),
                default: Some("open"),
                ..text(
                    "state",
                    "CASE WHEN ? = 'open' THEN state IN ('queued', 'leased', 'second_review') ELSE state = ? END",
                    "Only candidates in this state; open ones need a review",
                )
            },
            text("week", "week = ", "Only the sample of this week, such as 2026-W48"),
            TASK,
            TENANT,
            text("class", "class = ", "Only this class of failure"),
            text("severity", "severity = ", "Only this severity"),
        ],
        rows("SELECT * FROM current_candidates", "priority", &[Table::Candidates, Table::Events]),
    ),
    get(
        "/v1/candidates/{id}",
        "One candidate, with its state and its reviews so far: the columns of view `current_candidates`",
        &[Parameter { kind: Kind::Path, is_required: true, ..text("id", "candidate_id = ", "Id of the candidate") }],
        rows("SELECT * FROM current_candidates", "candidate_id", &[Table::Candidates, Table::Events]),
    ),
    get(
        "/v1/gate",
        "May a release go on? The answer of `bellwether gate`",
        &[
            Parameter { is_required: true, ..text("task", "", "Task") },
            text("canary", "", "Release on trial; without one, the newest canary"),
            text("baseline", "", "Release to compare with"),
            text("tenant", "", "Compare only the runs of this tenant"),
            Parameter { kind: Kind::Time, ..text("since", "", "Leave out runs before this time") },
            Parameter { kind: Kind::OneOf(&["live", "offline"]), ..text("mode", "", "Runs in production, or offline") },
        ],
        Work::Gate,
    ),
    get(
        "/v1/statements",
        "The statements of the caller that run now; for scope admin, those of all",
        &[],
        Work::Statements,
    ),
    Endpoint {
        verb: Verb::Delete,
        path: "/v1/statements/{id}",
        summary: "Cancel a statement",
        parameters: &[Parameter {
            kind: Kind::Path,
            is_required: true,
            ..text("id", "", "Id of the request, from the header `Bellwether-Request` or from the list")
        }],
        work: Work::Cancel,
    },
    get("/v1/openapi.json", "This description of all endpoints", &[], Work::OpenApi),
];
