//! Generates the reference of views, tables and functions: `docs/sql.md`.

use std::fmt::Write;

use bellwether_base::Result;

use crate::catalog::{TableInfo, TableKind};
use crate::function::FunctionInfo;
use crate::question::{Question, questions};
use crate::{Session, SessionSettings};

/// Returns the reference as Markdown, the same bytes for the same code.
///
/// # Errors
/// `Bug` if a view cannot be planned over empty tables.
pub async fn reference_markdown() -> Result<String> {
    let (relations, functions) = plan_over_nothing().await?;
    let questions = questions()?;
    let mut text = String::from(
        "# SQL reference\n\n\
         Generated from the code by `bellwether reference sql`; do not edit.\n\n\
         `bellwether sql \"SELECT ...\"` runs one or more statements; without any it opens a prompt. Everything is \
         read-only. Times are UTC. Every example can be run as it is.\n\n",
    );
    contents(&mut text, &relations, &functions, &questions);
    text.push_str("## Views\n\n");
    relations.iter().filter(|info| info.kind == TableKind::View).for_each(|info| relation(&mut text, info));
    text.push_str("## Tables\n\n");
    relations.iter().filter(|info| info.kind == TableKind::Table).for_each(|info| relation(&mut text, info));
    text.push_str("## Functions\n\n");
    text.push_str("The functions of Apache DataFusion are available too; list them with `\\functions`.\n\n");
    functions.iter().filter(|function| function.own).for_each(|info| describe_function(&mut text, info));
    text.push_str("## Saved questions\n\n");
    text.push_str(
        "`bellwether sql --name NAME --param NAME=VALUE` asks one. A time is a moment, or a duration before now such as `6h`. \
         [Asking](asking.md#saved-questions) says how to add your own.\n\n",
    );
    questions.iter().for_each(|question| describe_question(&mut text, question));
    Ok(format!("{}\n", text.trim_end()))
}

/// Plans every view over empty tables, which yields columns and types without a lake.
async fn plan_over_nothing() -> Result<(Vec<TableInfo>, Vec<FunctionInfo>)> {
    let session = Session::in_memory(SessionSettings::default())?;
    Ok((session.describe().await?, session.functions().to_vec()))
}

fn contents(text: &mut String, relations: &[TableInfo], functions: &[FunctionInfo], questions: &[Question]) {
    let link = |name: &str| format!("[`{name}`](#{name})");
    let names =
        |kind| relations.iter().filter(|info| info.kind == kind).map(|info| link(&info.name)).collect::<Vec<_>>();
    let own: Vec<String> =
        functions.iter().filter(|function| function.own).map(|function| link(&function.name)).collect();
    push(text, format_args!("* Views: {}\n", names(TableKind::View).join(", ")));
    push(text, format_args!("* Tables: {}\n", names(TableKind::Table).join(", ")));
    let questions: Vec<String> = questions.iter().map(|question| link(&question.name)).collect();
    push(text, format_args!("* Functions: {}\n", own.join(", ")));
    push(text, format_args!("* Saved questions: {}\n\n", questions.join(", ")));
}

fn relation(text: &mut String, info: &TableInfo) {
    push(text, format_args!("### {}\n\n{}\n\n", info.name, info.doc));
    if let Some(example) = &info.example {
        push(text, format_args!("```sql\n{example}\n```\n\n"));
    }
    text.push_str("| column | type | meaning |\n| --- | --- | --- |\n");
    for column in &info.columns {
        push(text, format_args!("| `{}` | {} | {} |\n", column.name, cell(&column.kind), cell(&column.doc)));
    }
    text.push('\n');
}

fn describe_function(text: &mut String, info: &FunctionInfo) {
    push(text, format_args!("### {}\n\n`{}` ({})\n\n{}\n\n", info.name, info.syntax, info.kind.name(), info.doc));
    for (name, meaning) in &info.arguments {
        push(text, format_args!("* `{name}`: {meaning}\n"));
    }
    if !info.arguments.is_empty() {
        text.push('\n');
    }
    if let Some(example) = &info.example {
        let fence = if example.contains("```") { "" } else { "```" };
        let language = if fence.is_empty() { "" } else { "sql" };
        push(text, format_args!("{fence}{language}\n{}\n{fence}\n\n", example.trim()));
    }
}

fn describe_question(text: &mut String, question: &Question) {
    push(text, format_args!("### {}\n\n{}\n\n", question.name, question.doc));
    if let Some(arguments) = &question.example {
        push(text, format_args!("```sh\nbellwether sql --root ROOT --name {} {arguments}\n```\n\n", question.name));
    }
    text.push_str("| parameter | value | default | meaning |\n| --- | --- | --- | --- |\n");
    for parameter in &question.parameters {
        let default = parameter.default.as_ref().map_or("required".to_owned(), |default| format!("`{default}`"));
        push(text, format_args!("| `{}` | {} | {default} | {} |\n", parameter.name, parameter.kind(), parameter.doc));
    }
    text.push('\n');
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Appends formatted text, which cannot fail for a string.
fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes whatever is written to it");
}
