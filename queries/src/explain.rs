//! Turns DataFusion's errors into one message and a hint.
//!
//! DataFusion reports unknown names and wrong arguments as text only, so this module reads that text; tests cover each form.

use bellwether_base::{Error, ErrorKind};
use bellwether_lake::is_permanent;
use datafusion::arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

/// Least similarity, 0 to 1, of a name to be suggested.
const SIMILAR: f64 = 0.6;

/// Hint on turning lists into rows, for people who write it as in other engines.
const UNNEST: &str =
    "unnest in a subquery: SELECT run_id, call.name FROM (SELECT run_id, unnest(tool_calls) AS call FROM runs)";

/// Explains an error. `names` are the tables, views and functions that may be suggested.
pub(crate) fn explain(source: DataFusionError, names: &[String]) -> Error {
    let (kind, message, hint) = describe(source.find_root(), names);
    let (message, hint) = with_own_hint(message, hint);
    let error = Error::new(kind, message);
    let error = if let Some(hint) = hint { error.with_hint(hint) } else { error };
    // The message of an invalid statement includes the cause; a source would print it again.
    if kind == ErrorKind::Config { error } else { error.with_source(source) }
}

fn describe(root: &DataFusionError, names: &[String]) -> (ErrorKind, String, Option<String>) {
    match root {
        DataFusionError::SchemaError(schema, _) => {
            let (message, hint) = describe_schema(schema);
            (ErrorKind::Config, message, hint)
        }
        DataFusionError::SQL(source, _) => {
            let text = source.to_string();
            let text = text.trim_start_matches("sql parser error: ");
            (ErrorKind::Config, format!("cannot parse the SQL text: {}", one_line(text)), None)
        }
        DataFusionError::Plan(text) => describe_plan(text, names),
        DataFusionError::ResourcesExhausted(_) => (
            ErrorKind::Unavailable,
            "the query needs more memory than this session may use".to_owned(),
            Some("narrow it by time or columns, or raise --memory-limit".to_owned()),
        ),
        DataFusionError::NotImplemented(text) if text.contains("OuterReferenceColumn") => (
            ErrorKind::Config,
            "a subquery in FROM cannot refer to the tables beside it; other subqueries can only within conditions"
                .to_owned(),
            Some(UNNEST.to_owned()),
        ),
        DataFusionError::NotImplemented(text) => {
            (ErrorKind::Config, format!("not supported: {}", one_line(text)), None)
        }
        DataFusionError::ObjectStore(source) => describe_storage(source.as_ref()),
        DataFusionError::ParquetError(source) => describe_storage(source.as_ref()),
        DataFusionError::ArrowError(source, _) if is_of_a_file(source) => describe_storage(source.as_ref()),
        DataFusionError::External(source) if is_permanent(source.as_ref()) => describe_storage(source.as_ref()),
        DataFusionError::Internal(text) => {
            (ErrorKind::Bug, format!("internal error of the query engine: {}", one_line(text)), None)
        }
        other => (ErrorKind::Config, format!("the query failed: {}", one_line(&plain(other))), None),
    }
}

/// Returns true for an error of reading a file, and false for one of computing with its rows.
fn is_of_a_file(error: &ArrowError) -> bool {
    match error {
        ArrowError::ParquetError(_) => true,
        ArrowError::ExternalError(source) => is_permanent(source.as_ref()),
        _ => false,
    }
}

/// Explains an error of storage.
fn describe_storage(source: &(dyn std::error::Error + 'static)) -> (ErrorKind, String, Option<String>) {
    if !is_permanent(source) {
        return (ErrorKind::Unavailable, "the table store failed to answer".to_owned(), None);
    }
    let what = format!("a file of the tables is missing or damaged: {}", one_line(&source.to_string()));
    (ErrorKind::Data, what, Some("find it with `bellwether audit` and restore it from a backup".to_owned()))
}

/// Unwraps an error of our functions about their arguments: DataFusion adds text of its own, and has no field for a hint.
fn with_own_hint(message: String, hint: Option<String>) -> (String, Option<String>) {
    let own = message
        .split_once("coercion failed with: Error during planning: ")
        .and_then(|(_, rest)| rest.split_once(". No function matches"))
        .map_or(message.as_str(), |(own, _)| own);
    match own.split_once("; hint: ") {
        Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
        None => (own.to_owned(), hint),
    }
}

fn describe_schema(schema: &SchemaError) -> (String, Option<String>) {
    match schema {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<String> = valid_fields.iter().map(|column| column.name.clone()).collect();
            let hint = match nearest(&field.name, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let some: Vec<&str> = names.iter().take(12).map(String::as_str).collect();
                    let more = if names.len() > some.len() { ", ..." } else { "" };
                    format!("the columns are {}{more}", some.join(", "))
                }
            };
            (format!("there is no column `{}`", field.name), Some(hint))
        }
        SchemaError::AmbiguousReference { field } => (
            format!("column `{}` is ambiguous: more than one table has it", field.name),
            Some(format!("write TABLE.{}", field.name)),
        ),
        other => (one_line(&other.to_string()), None),
    }
}

fn describe_plan(text: &str, names: &[String]) -> (ErrorKind, String, Option<String>) {
    for (start, what, help) in [
        ("table '", "table or view", "list them with \\d or SHOW TABLES"),
        ("table function '", "table function", "list them with \\functions"),
        ("Invalid function '", "function", "list them with \\functions"),
    ] {
        let Some((name, rest)) = text.strip_prefix(start).and_then(|rest| rest.split_once('\'')) else { continue };
        if start.starts_with("table") && !rest.starts_with(" not found") {
            continue;
        }
        let name = name.rsplit('.').next().unwrap_or(name);
        if start == "table function '" && name == "unnest" {
            return (ErrorKind::Config, "`unnest` cannot be called like this".to_owned(), Some(UNNEST.to_owned()));
        }
        if what == "function" && names.iter().any(|known| known == name) {
            let hint = "a window function needs OVER (ORDER BY ...); a table function belongs in FROM";
            return (ErrorKind::Config, format!("`{name}` cannot be called like this"), Some(hint.to_owned()));
        }
        let hint = match nearest(name, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => help.to_owned(),
        };
        return (ErrorKind::Config, format!("there is no {what} `{name}`"), Some(hint));
    }
    (ErrorKind::Config, one_line(text), None)
}

/// Returns the name most similar to the one that was written, if any is similar enough.
pub fn nearest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    names
        .map(|name| (strsim::jaro_winkler(&written, &name.to_lowercase()), name))
        .filter(|(score, name)| {
            *score >= SIMILAR && (*score >= 0.8 || strsim::damerau_levenshtein(&written, name) <= name.len() / 2)
        })
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, name)| name)
}

/// Returns the text of an error without DataFusion's prefix.
fn plain(error: &DataFusionError) -> String {
    match error {
        DataFusionError::Execution(text) | DataFusionError::Configuration(text) => text.clone(),
        DataFusionError::ArrowError(source, _) => source.to_string(),
        DataFusionError::External(source) => source.to_string(),
        other => other.strip_backtrace(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_arguments_keeps_its_hint() {
        let wrapped = "Execution error: Function 'f' user-defined coercion failed with: Error during planning: f takes 2, \
                       not 1 arguments; hint: f(a, b). No function matches the given name and argument types 'f(Int64)'.";
        let (message, hint) = with_own_hint(wrapped.to_owned(), None);
        assert_eq!((message.as_str(), hint.as_deref()), ("f takes 2, not 1 arguments", Some("f(a, b)")));
        let other = with_own_hint("something else".to_owned(), Some("do this".to_owned()));
        assert_eq!(other, ("something else".to_owned(), Some("do this".to_owned())));
    }

    #[test]
    fn a_window_function_without_a_window_is_explained() {
        let source = DataFusionError::Plan("Invalid function 'esr'.".to_owned());
        let (_, message, hint) = describe(&source, &["esr".to_owned()]);
        assert_eq!(message, "`esr` cannot be called like this");
        assert!(hint.is_some_and(|hint| hint.contains("OVER")));
    }

    #[test]
    fn only_a_similar_name_is_suggested() {
        let names = ["latency_ms", "run_id", "release_id", "task"];
        assert_eq!(nearest("releas_id", names.into_iter()), Some("release_id"));
        assert_eq!(nearest("TASKS", names.into_iter()), Some("task"));
        assert_eq!(nearest("zzz", names.into_iter()), None);
    }
}
