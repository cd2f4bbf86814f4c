//! SQL functions: mergeable sketches, exact signed sums, totals by random group, and intervals.

mod aggregate;
#[cfg(test)]
mod cuts;
mod fold;
mod scalar;
mod sketches;
mod weighted;
mod whole;

use arrow::array::ArrayRef;
use datafusion::common::Result;
use datafusion::logical_expr::scalar_doc_sections::DOC_SECTION_OTHER;
use datafusion::logical_expr::{AggregateUDF, Documentation, DocumentationBuilder};
use datafusion::prelude::SessionContext;

/// A function with its documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionEntry {
    /// Name in SQL.
    pub name: String,
    /// `scalar` or `aggregate`.
    pub kind: &'static str,
    /// Syntax of a call.
    pub syntax: String,
    /// Description of its result.
    pub description: String,
    /// An example statement.
    pub example: String,
}

/// Returns, for each row, whether one of the columns is at an end of its type's range, where sums saturate.
///
/// Columns of unbounded types are ignored.
///
/// # Errors
/// Fails if the columns cannot be read.
pub fn at_bound(columns: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let known: Vec<ArrayRef> = columns.iter().filter(|column| whole::has_bound(column.data_type())).cloned().collect();
    whole::at_bound(&known, rows)
}

/// Returns the aggregate function `whole_sum`, for queries that substitute it for `sum`.
pub fn whole_sum() -> AggregateUDF {
    whole::whole_sum()
}

/// Registers every function.
pub fn register(context: &SessionContext) {
    for function in scalar::all() {
        context.register_udf(function);
    }
    for function in aggregate::all() {
        context.register_udaf(function);
    }
}

/// Returns every function with its documentation.
pub fn catalogue() -> Vec<FunctionEntry> {
    let entry = |name: &str, kind, documentation: Option<&Documentation>| FunctionEntry {
        name: name.to_owned(),
        kind,
        syntax: documentation.map(|text| text.syntax_example.clone()).unwrap_or_default(),
        description: documentation.map(|text| text.description.clone()).unwrap_or_default(),
        example: documentation.and_then(|text| text.sql_example.clone()).unwrap_or_default(),
    };
    let scalars = scalar::all().into_iter().map(|function| entry(function.name(), "scalar", function.documentation()));
    let aggregates =
        aggregate::all().into_iter().map(|function| entry(function.name(), "aggregate", function.documentation()));
    scalars.chain(aggregates).collect()
}

/// Builds the documentation of a function.
fn documentation(syntax: &str, description: &str, example: &str, arguments: &[(&str, &str)]) -> Documentation {
    let start: DocumentationBuilder = Documentation::builder(DOC_SECTION_OTHER, description, syntax);
    let text = start.with_sql_example(example);
    arguments.iter().fold(text, |text, (name, meaning)| text.with_argument(*name, *meaning)).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_function_is_documented_and_its_example_runs() {
        let context = SessionContext::new();
        register(&context);
        for entry in catalogue() {
            assert!(!entry.description.is_empty() && entry.syntax.starts_with(&entry.name), "{}", entry.name);
            assert!(entry.example.contains(&format!("{}(", entry.name)), "{}", entry.name);
            let answer = context.sql(&entry.example).await.unwrap_or_else(|error| panic!("{}: {error}", entry.name));
            let rows: usize = answer
                .collect()
                .await
                .unwrap_or_else(|error| panic!("{}: {error}", entry.name))
                .iter()
                .map(|batch| batch.num_rows())
                .sum();
            assert!(rows > 0, "{}", entry.name);
        }
    }
}
