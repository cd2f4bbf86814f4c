//! Turns forms of SQL that only Postgres has into others that the engine plans.
//!
//! * `pg_catalog.now()` becomes `now()`, and `pg_class` becomes `pg_catalog.pg_class`.
//! * `a OPERATOR(pg_catalog.~) b COLLATE pg_catalog.default` becomes `a ~ b`.
//! * `'runs'::regclass` becomes the object id, and `oid::regclass` the name; the same for `regtype`.
//! * `col_description(oid, 1)` becomes a subquery of `pg_description`.
//! * Types such as `name` and `oid` become text and numbers.
//! * A subquery that looks up a value in the schema becomes an aggregate, and a constant that is repeated gets a name.
//! * Queries that read an empty relation become queries without rows.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bellwether_base::{Error, Result};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, Expr, Function, FunctionArguments, Ident, ObjectName, ObjectNamePart, Query, Select,
    SelectItem, SetExpr, Statement as Sql, TableFactor, Value, VisitMut, VisitorMut, visit_expressions,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::function::{RELATION_NAME, SCHEMAS, find_relation, find_type};
use super::{PG_CATALOG, empty};

/// Rewrites a statement.
///
/// # Errors
/// `Config` if it names a relation or a type that does not exist.
pub(crate) fn rewrite(statement: &mut Statement) -> Result<()> {
    let inner = match statement {
        Statement::Statement(sql) => sql.as_mut(),
        Statement::Explain(explain) => return rewrite(explain.statement.as_mut()),
        _ => return Ok(()),
    };
    match inner.visit(&mut Rewriter) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = Error;

    fn pre_visit_statement(&mut self, statement: &mut Sql) -> ControlFlow<Error> {
        if let Sql::Query(query) = statement
            && let Some(nothing) = without_rows(query)
        {
            *query = nothing;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        if let SetExpr::Select(select) = query.body.as_mut() {
            leave_out_keywords(select);
            name_repeated_values(&mut select.projection);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &mut ObjectName) -> ControlFlow<Error> {
        if let [ObjectNamePart::Identifier(ident)] = name.0.as_slice()
            && ident.value.to_lowercase().starts_with("pg_")
        {
            name.0.insert(0, ObjectNamePart::Identifier(Ident::new(PG_CATALOG)));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        match expr {
            Expr::Subquery(query) if empty::is_empty(query) => {
                let conditions = unused(query);
                *expr = if conditions.is_empty() {
                    null()
                } else {
                    parsed(&format!("CASE WHEN true{conditions} THEN NULL END"))
                };
            }
            Expr::Subquery(query) if empty::is_lookup(query) => aggregate(query),
            Expr::Exists { subquery, negated } if empty::is_empty(subquery) => {
                *expr = Expr::value(Value::Boolean(*negated));
            }
            Expr::Function(call) if counts_schemas(call) => *expr = number(&SCHEMAS.len().to_string()),
            Expr::Function(call) if is_empty_array(call) => *expr = parsed("CAST(NULL AS VARCHAR[])"),
            Expr::Collate { expr: inner, .. } => *expr = std::mem::replace(inner.as_mut(), null()),
            Expr::Function(call) if call.name.0.len() == 2 && is(&call.name.0[0], PG_CATALOG) => {
                call.name.0.remove(0);
            }
            Expr::BinaryOp { op: op @ BinaryOperator::PGCustomBinaryOperator(_), .. } => {
                if let BinaryOperator::PGCustomBinaryOperator(parts) = op
                    && let Some(known) = parts.last().and_then(|last| operator(last))
                {
                    *op = known;
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let Some(subquery) = description(expr) {
            *expr = subquery;
        }
        let Expr::Cast { expr: inner, data_type, .. } = expr else { return ControlFlow::Continue(()) };
        let Some(name) = type_name(data_type) else { return ControlFlow::Continue(()) };
        match name.as_str() {
            "regclass" | "regtype" => match object(inner, &name) {
                Ok(found) => *expr = found,
                Err(error) => return ControlFlow::Break(error),
            },
            "oid" | "xid" | "int8" => *data_type = DataType::BigInt(None),
            "int4" => *data_type = DataType::Integer(None),
            "int2" => *data_type = DataType::SmallInt(None),
            "bool" => *data_type = DataType::Boolean,
            "name" | "char" | "text" | "varchar" | "bpchar" | "regproc" | "regnamespace" | "regrole" => {
                *data_type = DataType::Text;
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Returns a query of the same columns without rows, for one that returns none.
fn without_rows(query: &Query) -> Option<Box<Query>> {
    if !empty::is_empty(query) {
        return None;
    }
    let columns = empty::columns(query)?;
    let column = |name: &String| format!("CAST(NULL AS VARCHAR) AS \"{}\"", name.replace('"', "\"\""));
    let columns: Vec<String> = columns.iter().map(column).collect();
    let sql = format!("SELECT {} WHERE false{}", columns.join(", "), unused(query));
    match Parser::parse_sql(&GenericDialect {}, &sql).ok()?.pop()? {
        Sql::Query(query) => Some(query),
        _ => None,
    }
}

/// Wraps the value of a subquery that returns at most one row in an aggregate. The engine requires an aggregate if the subquery depends
/// on the outer row.
fn aggregate(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    if let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] =
        select.projection.as_mut_slice()
    {
        *value = call("max", value);
    }
}

/// Replaces calls of `pg_get_keywords` by the empty relation of that name: the server has no keywords besides those of SQL.
fn leave_out_keywords(select: &mut Select) {
    for tables in &mut select.from {
        if let TableFactor::Table { name, args, .. } = &mut tables.relation
            && args.is_some()
            && name.0.last().is_some_and(|last| is(last, "pg_get_keywords"))
        {
            *args = None;
            select.selection = None;
        }
    }
}

/// Names constants that occur more than once in a list of results, as in `SELECT NULL, NULL`: the engine requires unique names.
fn name_repeated_values(results: &mut [SelectItem]) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for item in results {
        let SelectItem::UnnamedExpr(value @ Expr::Value(_)) = item else { continue };
        let name = value.to_string();
        let times = seen.entry(name.clone()).and_modify(|times| *times += 1).or_insert(1);
        if *times > 1 {
            let alias = Ident::with_quote('"', format!("{name} {times}"));
            *item = SelectItem::ExprWithAlias { expr: std::mem::replace(value, null()), alias };
        }
    }
}

/// Returns conditions that use the parameters of a query that is left out: a client gives a value for each.
fn unused(query: &Query) -> String {
    let mut conditions = String::new();
    let walked: ControlFlow<()> = visit_expressions(query, |expr| {
        if let Expr::Value(value) = expr
            && let Value::Placeholder(name) = &value.value
        {
            conditions.push_str(&format!(" AND {name} IS NULL"));
        }
        ControlFlow::Continue(())
    });
    debug_assert!(walked.is_continue(), "the visitor never breaks");
    conditions
}

fn is(part: &ObjectNamePart, name: &str) -> bool {
    part.as_ident().is_some_and(|ident| ident.value.eq_ignore_ascii_case(name))
}

fn null() -> Expr {
    Expr::value(Value::Null)
}

fn operator(name: &str) -> Option<BinaryOperator> {
    Some(match name {
        "~" => BinaryOperator::PGRegexMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "~~*" => BinaryOperator::PGILikeMatch,
        "!~~*" => BinaryOperator::PGNotILikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        ">" => BinaryOperator::Gt,
        _ => return None,
    })
}

/// Returns the name of a type that the engine does not have.
fn type_name(kind: &DataType) -> Option<String> {
    match kind {
        DataType::Regclass => Some("regclass".to_owned()),
        DataType::Custom(name, _) => {
            let known = match name.0.as_slice() {
                [_] => true,
                [schema, _] => is(schema, PG_CATALOG),
                _ => false,
            };
            name.0.last().filter(|_| known).and_then(|part| part.as_ident()).map(|ident| ident.value.to_lowercase())
        }
        _ => None,
    }
}

/// Returns the object id of a name, or the name of an object id.
fn object(inner: &Expr, kind: &str) -> Result<Expr> {
    let is_class = kind == "regclass";
    match inner {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(name) if name.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => {
                Ok(number(name))
            }
            Value::SingleQuotedString(name) => {
                let (found, what) =
                    if is_class { (find_relation(name), "relation") } else { (find_type(name), "type") };
                let unknown = || Error::config(format!("there is no {what} `{name}`"));
                Ok(number(&found.ok_or_else(unknown)?.to_string()))
            }
            Value::Number(..) => Ok(call(if is_class { RELATION_NAME } else { "format_type" }, inner)),
            Value::Placeholder(_) => Ok(call(if is_class { "to_regclass" } else { "to_regtype" }, inner)),
            _ => Ok(inner.clone()),
        },
        _ => Ok(call(if is_class { RELATION_NAME } else { "format_type" }, inner)),
    }
}

fn number(text: &str) -> Expr {
    Expr::value(Value::Number(text.to_owned(), false))
}

/// Returns a call of a function with one argument.
fn call(function: &str, argument: &Expr) -> Expr {
    parsed(&format!("{function}({argument})"))
}

fn parsed(text: &str) -> Expr {
    let expr = Parser::new(&GenericDialect {}).try_with_sql(text).and_then(|mut parser| parser.parse_expr());
    expr.unwrap_or_else(|_| null())
}

/// Returns true for `ARRAY(SELECT …)` over an empty relation, or over a list of the catalogue such as `reloptions`: none has elements.
fn is_empty_array(call: &Function) -> bool {
    let FunctionArguments::Subquery(query) = &call.args else { return false };
    matches!(call.name.0.as_slice(), [name] if is(name, "array"))
        && (empty::is_empty(query) || empty::reads_functions(query))
}

/// Returns true for `array_upper(current_schemas(…), 1)`, which clients use as the end of a series: the engine requires a constant there.
fn counts_schemas(call: &Function) -> bool {
    let FunctionArguments::List(list) = &call.args else { return false };
    let of = list.args.first().map(ToString::to_string).unwrap_or_default();
    call.name.0.last().is_some_and(|last| is(last, "array_upper"))
        && of.trim_start_matches("pg_catalog.").starts_with("current_schemas(")
}

/// Returns the subquery for a call that asks for the description of a relation or a column.
fn description(expr: &Expr) -> Option<Expr> {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr else { return None };
    let [.., last] = name.0.as_slice() else { return None };
    let (of, rest) = list.args.split_first()?;
    let number = match (is(last, "obj_description"), is(last, "col_description"), rest) {
        (true, _, _) => "0".to_owned(),
        (_, true, [number]) => number.to_string(),
        _ => return None,
    };
    let table = format!("{PG_CATALOG}.pg_description AS described");
    Some(parsed(&format!(
        "(SELECT max(described.description) FROM {table} WHERE described.objoid = {of} AND described.objsubid = {number})"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> String {
        let mut statement = crate::statement::parse(text).expect("parses");
        match rewrite(&mut statement) {
            Ok(()) => statement.to_string(),
            Err(error) => error.message().to_owned(),
        }
    }

    #[test]
    fn forms_of_postgres_become_those_of_the_engine() {
        let runs = find_relation("runs").expect("a relation");
        for (text, same) in [
            ("SELECT pg_catalog.version()", "SELECT version()".to_owned()),
            ("SELECT oid FROM pg_class", "SELECT oid FROM pg_catalog.pg_class".to_owned()),
            (
                "SELECT 1 FROM runs WHERE a OPERATOR(pg_catalog.~) 'b' COLLATE pg_catalog.default",
                "SELECT 1 FROM runs WHERE a ~ 'b'".to_owned(),
            ),
            ("SELECT 'runs'::regclass", format!("SELECT {runs}")),
            ("SELECT 'public.runs'::regclass::oid", format!("SELECT {runs}::BIGINT")),
            ("SELECT '16384'::pg_catalog.regclass", "SELECT 16384".to_owned()),
            ("SELECT c.oid::regclass FROM c", "SELECT pg_relation_name(c.oid) FROM c".to_owned()),
            ("SELECT a::pg_catalog.regtype::pg_catalog.text FROM c", "SELECT format_type(a)::TEXT FROM c".to_owned()),
            ("SELECT $1::regtype", "SELECT to_regtype($1)".to_owned()),
            ("SELECT 'nothing'::regclass", "there is no relation `nothing`".to_owned()),
            ("SELECT 'hstore'::regtype", "there is no type `hstore`".to_owned()),
            ("SELECT runs.task FROM runs", "SELECT runs.task FROM runs".to_owned()),
            ("SELECT 'pg_catalog.pg_class'::regclass", "SELECT 1259".to_owned()),
            ("SELECT NULL, 1, NULL AS a, NULL", "SELECT NULL, 1, NULL AS a, NULL AS \"NULL 2\"".to_owned()),
            (
                "SELECT (SELECT c.relkind = 'c' FROM pg_catalog.pg_class c WHERE c.oid = t.x) FROM t",
                "SELECT (SELECT max(c.relkind = 'c') FROM pg_catalog.pg_class c WHERE c.oid = t.x) FROM t".to_owned(),
            ),
            (
                "SELECT r FROM generate_series(1, array_upper(current_schemas(false), 1)) AS s (r)",
                "SELECT r FROM generate_series(1, 2) AS s (r)".to_owned(),
            ),
            (
                "SELECT max(word) FROM pg_catalog.pg_get_keywords() WHERE word <> ALL ('{a}'::text[])",
                "SELECT max(word) FROM pg_catalog.pg_get_keywords".to_owned(),
            ),
            (
                "SELECT array(SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attacl IS NOT NULL) FROM c",
                "SELECT CAST(NULL AS VARCHAR[]) FROM c".to_owned(),
            ),
        ] {
            assert_eq!(rewritten(text), same, "{text}");
        }
    }

    #[test]
    fn a_query_without_rows_needs_no_plan_and_others_are_left_alone() {
        let nothing = "SELECT CAST(NULL AS VARCHAR) AS \"a\", CAST(NULL AS VARCHAR) AS \"indkey\" WHERE false";
        for text in [
            "SELECT x.oid::regclass AS a, i.indkey FROM pg_index i, pg_class x",
            "SELECT x.oid::regclass AS a, i.indkey FROM pg_class x JOIN pg_catalog.pg_index i ON true ORDER BY 1",
            "SELECT 1 AS a, indkey FROM pg_index UNION SELECT 2, indkey FROM (SELECT indkey FROM pg_index) AS t",
            "SELECT array(SELECT max(b) FROM c) AS a, indkey FROM pg_index GROUP BY 1",
        ] {
            assert_eq!(rewritten(text), nothing, "{text}");
        }
        assert_eq!(
            rewritten(
                "SELECT a, (SELECT adbin FROM pg_attrdef WHERE adrelid = a) FROM c WHERE EXISTS (SELECT 1 FROM pg_index)"
            ),
            "SELECT a, NULL FROM c WHERE false"
        );
        assert_eq!(
            rewritten("SELECT a, (SELECT adbin FROM pg_attrdef WHERE adrelid = $2) FROM c WHERE b = $1"),
            "SELECT a, CASE WHEN true AND $2 IS NULL THEN NULL END FROM c WHERE b = $1"
        );
        assert!(rewritten("SELECT adbin FROM pg_attrdef WHERE adnum = $1").ends_with("WHERE false AND $1 IS NULL"));
        let lists = "SELECT a || array(SELECT x FROM pg_catalog.unnest(b) AS x), ARRAY(SELECT member FROM pg_auth_members) FROM c";
        assert_eq!(rewritten(lists), "SELECT a || CAST(NULL AS VARCHAR[]), CAST(NULL AS VARCHAR[]) FROM c");
        for text in [
            "SELECT count(*) AS a FROM pg_catalog.pg_index",
            "SELECT a FROM pg_catalog.pg_class LEFT JOIN pg_catalog.pg_index ON true",
            "SELECT a FROM pg_catalog.pg_index FULL JOIN pg_catalog.pg_class ON true",
            "SELECT a FROM pg_catalog.pg_index UNION ALL SELECT 1",
            "WITH pg_index AS (SELECT 1 AS a) SELECT a FROM pg_catalog.pg_index",
            "SELECT a FROM public.pg_index",
            "SELECT * FROM pg_catalog.pg_index",
        ] {
            assert_eq!(rewritten(text), text);
        }
    }
}
