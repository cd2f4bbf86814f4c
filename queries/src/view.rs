//! The views: one SQL file each, whose leading comment documents the view and its columns.
//!
//! Comment lines of the form `-- column NAME: TEXT` document a column; the lines before them document the view.

use std::sync::LazyLock;

/// A view: its name, its documentation and its SQL text.
#[derive(Clone, Debug)]
pub struct View {
    /// Name in SQL.
    pub name: &'static str,
    /// What a row is.
    pub doc: String,
    /// Documented columns, in the order of the file.
    pub columns: Vec<(String, String)>,
    /// An example to try.
    pub example: Option<String>,
    /// Its query.
    pub sql: String,
}

/// Files of the views, in the order of the reference.
const FILES: &[(&str, &str)] = &[
    ("runs", include_str!("view/runs.sql")),
    ("tool_calls", include_str!("view/tool_calls.sql")),
    ("field_errors", include_str!("view/field_errors.sql")),
    ("policy_exceptions", include_str!("view/policy_exceptions.sql")),
    ("stale_sources", include_str!("view/stale_sources.sql")),
    ("freshness", include_str!("view/freshness.sql")),
    ("completeness", include_str!("view/completeness.sql")),
    ("quarantine_summary", include_str!("view/quarantine_summary.sql")),
];

static VIEWS: LazyLock<Vec<View>> = LazyLock::new(|| {
    let mut views: Vec<View> = FILES.iter().map(|(name, text)| parse(name, text)).collect();
    for (place, view) in [rolling(), metrics_1m(), release_summary()].into_iter().enumerate() {
        views.insert(place + 1, view);
    }
    views
});

/// Every view, in the order of the reference.
pub fn views() -> &'static [View] {
    &VIEWS
}

/// The rolling metrics as they stand now; the definition of this and the next two belongs to the metrics room.
fn rolling() -> View {
    defined("rolling", include_str!("view/rolling.sql"), &bellwether_metrics::rolling_sql(bellwether_metrics::NEWEST))
}

fn metrics_1m() -> View {
    defined("metrics_1m", include_str!("view/metrics_1m.sql"), &bellwether_metrics::metrics_1m_sql())
}

fn release_summary() -> View {
    defined("release_summary", include_str!("view/release_summary.sql"), &bellwether_metrics::release_summary_sql())
}

/// A view whose documentation is here and whose query is not.
fn defined(name: &'static str, documentation: &str, sql: &str) -> View {
    parse(name, &format!("{documentation}{sql}"))
}

fn parse(name: &'static str, text: &str) -> View {
    let mut doc = Vec::new();
    let mut columns = Vec::new();
    let mut example = None;
    for line in text.lines().map_while(|line| line.strip_prefix("--")).map(str::trim) {
        if let Some((column, meaning)) = line.strip_prefix("column ").and_then(|rest| rest.split_once(": ")) {
            columns.push((column.to_owned(), meaning.to_owned()));
        } else if let Some(sql) = line.strip_prefix("example: ") {
            example = Some(sql.to_owned());
        } else {
            doc.push(line);
        }
    }
    let sql = text.lines().skip_while(|line| line.starts_with("--")).collect::<Vec<_>>().join("\n");
    View { name, doc: doc.join(" "), columns, example, sql }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_view_is_documented_and_has_an_example() {
        for view in views() {
            assert!(!view.doc.is_empty(), "{} has no documentation", view.name);
            assert!(view.example.is_some(), "{} has no example", view.name);
            assert!(!view.sql.trim().is_empty(), "{} has no query", view.name);
        }
    }
}
