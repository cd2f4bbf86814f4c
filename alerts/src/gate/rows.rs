//! The queries for the rows of `metrics` that the gate judges: those of the table, or the definition of the metrics over some runs.
//!
//! The rows get into memory, and the queries of the shipped rules run over them as they do in the watcher.

use bellwether_detect::Minute;
use bellwether_queries::{CONTRIBUTION_COLUMNS, metrics_sql, quoted};

use crate::read::moment;

/// The policy of exceptions that Bellwether derives from high-risk calls without an approval.
const UNAPPROVED: &str = "unapproved_action";

/// Segment with the version of a case.
const CASE_VERSION: &str = "case_version";

/// The stage of runs before any traffic.
pub(super) const OFFLINE: &str = "offline_eval";

/// The subject of the rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// All runs.
    All,
    /// Those of a tenant.
    Tenant(String),
    /// Those that called a tool; of their tool calls, those of this tool.
    Tool(String),
    /// Those with a value in a segment.
    Segment(String, String),
}

/// The runs to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runs<'a> {
    pub(super) task: &'a str,
    /// Baseline and canary.
    pub(super) releases: [&'a str; 2],
    pub(super) from: Minute,
    pub(super) to: Minute,
}

/// How runs of an offline evaluation are put side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pairing {
    /// By their case.
    Cases,
    /// By their place in the order of time: the first runs of both releases, the second ones, and so on.
    Order,
}

// === impl Kind ===

impl Kind {
    /// Returns the name of the slice; empty for all runs.
    pub(super) fn name(&self) -> String {
        match self {
            Self::All => String::new(),
            Self::Tenant(name) => format!("tenant {name}"),
            Self::Tool(name) => format!("tool {name}"),
            Self::Segment(key, value) => format!("{key} {value}"),
        }
    }

    /// Returns true if the rows are in the table: it keeps neither tools nor segments.
    pub(super) const fn is_in_table(&self) -> bool {
        matches!(self, Self::All | Self::Tenant(_))
    }

    fn condition(&self) -> Option<String> {
        match self {
            Self::All | Self::Tool(_) => None,
            Self::Tenant(name) => Some(format!("tenant = {}", quoted(name))),
            Self::Segment(key, value) => Some(format!("segments[{}] = {}", quoted(key), quoted(value))),
        }
    }
}

// === impl Runs ===

impl Runs<'_> {
    fn releases(&self) -> String {
        format!("({}, {})", quoted(self.releases[0]), quoted(self.releases[1]))
    }

    /// Returns the query for rows of the table.
    pub(super) fn of_table(&self, kind: &Kind) -> String {
        let mut conditions = vec![
            format!("task = {}", quoted(self.task)),
            format!("release_id IN {}", self.releases()),
            format!("window_start >= {} AND window_start < {}", moment(self.from), moment(self.to)),
            "stage IN ('canary', 'full')".to_owned(),
        ];
        conditions.extend(kind.condition());
        format!("SELECT * FROM metrics WHERE {}", conditions.join(" AND "))
    }

    fn of_runs(&self, stages: &str) -> String {
        format!(
            "task = {} AND release_id IN {} AND stage IN ({stages}) AND ended_at >= {} AND ended_at < {}",
            quoted(self.task),
            self.releases(),
            moment(self.from),
            moment(self.to)
        )
    }

    /// Returns the query for rows computed from runs by the definition of the metrics. With `unapproved`, unapproved actions are the
    /// only policy exceptions.
    pub(super) fn computed(&self, kind: &Kind, unapproved: bool) -> String {
        let mut conditions = vec![self.of_runs("'canary', 'full'")];
        conditions.extend(kind.condition());
        let source = format!("SELECT * FROM runs WHERE {}", conditions.join(" AND "));
        self.defined(&source, kind, unapproved, None)
    }

    /// Returns the query for rows of an offline evaluation. Cases, or places in the order, stand for windows, the baseline for the
    /// release in full rollout.
    pub(super) fn offline(&self, kind: &Kind, unapproved: bool, pairing: Pairing, segment: &str) -> String {
        let mut conditions = vec![self.of_runs(&quoted(OFFLINE))];
        conditions.extend(kind.condition());
        let source =
            format!("SELECT *, {} AS eval_case FROM runs WHERE {}", eval_case(segment), conditions.join(" AND "));
        let window = match pairing {
            Pairing::Cases => "dense_rank() OVER (ORDER BY eval_case)",
            Pairing::Order => "row_number() OVER (PARTITION BY release_id ORDER BY ended_at, run_id, attempt)",
        };
        let kept = match pairing {
            Pairing::Cases => {
                "\n    WHERE eval_case IN (SELECT eval_case FROM chosen GROUP BY eval_case HAVING count(DISTINCT release_id) = 2)"
            }
            Pairing::Order => "",
        };
        let placed = format!(
            "SELECT *, arrow_cast(to_timestamp_micros(60000000 * CAST({window} AS BIGINT)), 'Timestamp(Microsecond, Some(\"UTC\"))') AS window_of_case\n    \
             FROM chosen{kept}"
        );
        self.defined(&source, kind, unapproved, Some(&placed))
    }

    /// Returns the query for the runs of an offline evaluation by release: all, and those whose case both releases ran.
    pub(super) fn cases(&self, segment: &str) -> String {
        format!(
            "WITH chosen AS (\n    SELECT release_id, {} AS eval_case FROM runs WHERE {}\n),\n\
             shared AS (\n    SELECT eval_case FROM chosen WHERE eval_case IS NOT NULL GROUP BY eval_case \
             HAVING count(DISTINCT release_id) = 2\n)\n\
             SELECT c.release_id, count(*) AS runs, count(s.eval_case) AS shared\n\
             FROM chosen AS c LEFT JOIN shared AS s ON c.eval_case = s.eval_case GROUP BY 1",
            eval_case(segment),
            self.of_runs(&quoted(OFFLINE))
        )
    }

    fn defined(&self, source: &str, kind: &Kind, unapproved: bool, placed: Option<&str>) -> String {
        let key = "tenant, source, run_id, attempt";
        let same = |other: &str| {
            ["tenant", "source", "run_id", "attempt"]
                .map(|column| format!("r.{column} = {other}.{column}"))
                .join(" AND ")
        };
        let span = format!(
            "task = {} AND ended_at >= {} AND ended_at < {}",
            quoted(self.task),
            moment(self.from),
            moment(self.to)
        );
        let mut joins = String::new();
        if let Kind::Tool(tool) = kind {
            joins.push_str(&format!(
                "\n    JOIN (SELECT {key}, count(*) AS calls, count(*) FILTER (WHERE failed) AS failed FROM tool_calls \
                 WHERE tool = {} AND {span} GROUP BY {key}) AS c ON {}",
                quoted(tool),
                same("c")
            ));
        }
        if unapproved {
            joins.push_str(&format!(
                "\n    LEFT JOIN (SELECT {key}, count(*) AS actions FROM policy_exceptions \
                 WHERE policy_id = {} AND derived AND {span} GROUP BY {key}) AS u ON {}",
                quoted(UNAPPROVED),
                same("u")
            ));
        }
        let column = |name: &str| match name {
            "tool_calls_total" if matches!(kind, Kind::Tool(_)) => "c.calls AS tool_calls_total".to_owned(),
            "tool_calls_failed" if matches!(kind, Kind::Tool(_)) => "c.failed AS tool_calls_failed".to_owned(),
            "policy_exceptions_high" if unapproved => "coalesce(u.actions, 0) AS policy_exceptions_high".to_owned(),
            _ if unapproved && name.starts_with("policy_exceptions_") => format!("CAST(0 AS BIGINT) AS {name}"),
            "ended_at" if placed.is_some() => "r.window_of_case AS ended_at".to_owned(),
            "stage" if placed.is_some() => {
                format!("CASE WHEN r.release_id = {} THEN 'canary' ELSE 'full' END AS stage", quoted(self.releases[1]))
            }
            _ => format!("r.{name}"),
        };
        let columns: Vec<String> = CONTRIBUTION_COLUMNS.iter().map(|name| column(name)).collect();
        let placed = placed.unwrap_or("SELECT * FROM chosen");
        format!(
            "WITH chosen AS (\n    {source}\n),\nplaced AS (\n    {placed}\n),\ncontributions AS (\n    \
             SELECT {}, CAST(r.label_delay_s * 1e6 AS BIGINT) AS label_delay_micros, CAST(1 AS BIGINT) AS sign\n    \
             FROM placed AS r{joins}\n)\n{}",
            columns.join(", "),
            metrics_sql()
        )
    }
}

/// Returns the SQL expression for the case of a run. Two versions of a case have different expected answers, so they are no pair.
fn eval_case(segment: &str) -> String {
    let case = format!("segments[{}]", quoted(segment));
    format!("CASE WHEN {case} IS NOT NULL THEN concat_ws(' v', {case}, segments[{}]) END", quoted(CASE_VERSION))
}
