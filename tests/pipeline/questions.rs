//! Maps, structs, lists and JSON in every clause over every table and view: statements generated from the columns, run
//! against tables that ingest has written.

use bellwether_lake::{Lake, StorageOptions};
use bellwether_queries::{Session, SessionSettings, TableInfo};
use serde_json::json;

use super::views::full;
use crate::common::program::text;
use crate::common::{Setup, bellwether};

/// An expression that selects a value within a nested column.
struct NestedValue {
    column: String,
    value: String,
    /// The name of a field, if the column is a list of records.
    field: Option<String>,
}

/// Returns expressions for values within the nested columns of a relation, in every notation.
fn within(info: &TableInfo) -> Vec<NestedValue> {
    let mut found = Vec::new();
    for column in &info.columns {
        let name = &column.name;
        let mut add = |value: String, field: Option<&str>| {
            found.push(NestedValue { column: name.clone(), value, field: field.map(str::to_owned) });
        };
        if column.kind.starts_with("map of") {
            add(format!("{name}['region']"), None);
        } else if let Some(fields) = column.kind.strip_prefix("list of (") {
            let field = fields.split(' ').next().unwrap_or_default();
            add(format!("{name}[1]['{field}']"), Some(field));
            add(format!("{name}[1].{field}"), Some(field));
            add(format!("cardinality({name})"), None);
        } else if column.kind.starts_with("list of ") {
            add(format!("{name}[1]"), None);
        } else if name == "extra" || name.ends_with("_json") {
            add(format!("({name} ->> 'channel')"), None);
            add(format!("json_get_json({name}, 'channel', 'hops', 0)"), None);
        }
    }
    found
}

/// Returns statements with the expression in every clause.
fn statements(relation: &str, within: &NestedValue) -> Vec<String> {
    let NestedValue { column, value, field } = within;
    let of = |alias: &str| {
        let place = value.find(column.as_str()).unwrap_or(0);
        format!("{}{alias}.{}", &value[..place], &value[place..])
    };
    let (l, r) = (of("l"), of("r"));
    let mut all = vec![
        format!("SELECT {value}, {column} FROM {relation} WHERE {value} IS NOT NULL"),
        format!("SELECT {value} AS v FROM {relation} WHERE {value} = {value} ORDER BY {value} DESC LIMIT 3"),
        format!("SELECT {value}, count(*) FROM {relation} GROUP BY 1 ORDER BY 2, 1"),
        format!("SELECT count(*), max({value}) FROM {relation} GROUP BY {value} HAVING max({value}) IS NOT NULL"),
        format!(
            "SELECT max({value}), count(DISTINCT {value}), count({value}) FILTER (WHERE {value} IS NOT NULL) FROM {relation}"
        ),
        format!(
            "SELECT row_number() OVER (PARTITION BY {value} ORDER BY {value}), lag({value}) OVER (ORDER BY {value}) FROM {relation}"
        ),
        format!("SELECT count(*) FROM {relation} AS l JOIN {relation} AS r ON {l} = {r}"),
        format!(
            "SELECT {l}, {r} FROM {relation} AS l LEFT JOIN {relation} AS r ON {l} = {r} WHERE {r} IS NOT NULL LIMIT 5"
        ),
        format!(
            "SELECT count(*) FROM {relation} WHERE {value} IN (SELECT {value} FROM {relation} WHERE {value} IS NOT NULL)"
        ),
        format!("SELECT count(*) FROM {relation} AS l WHERE EXISTS (SELECT 1 FROM {relation} AS r WHERE {l} = {r})"),
        format!("SELECT count(*) FROM {relation} WHERE {value} = (SELECT max({value}) FROM {relation})"),
        format!(
            "WITH c AS (SELECT {value} AS v, {column} FROM {relation}) SELECT v, count(*) FROM c WHERE {value} IS NOT NULL GROUP BY v"
        ),
        format!(
            "SELECT v, count(*) FROM (SELECT {value} AS v FROM {relation} UNION ALL SELECT {value} FROM {relation} WHERE {value} IS NULL) GROUP BY v"
        ),
        format!("SELECT {value} FROM {relation} UNION SELECT {value} FROM {relation}"),
        format!("SELECT DISTINCT {value} FROM {relation}"),
        format!("SELECT CASE WHEN {value} IS NULL THEN 0 ELSE 1 END AS there, count(*) FROM {relation} GROUP BY there"),
        format!(
            "SELECT v FROM (SELECT * FROM (SELECT *, {value} AS v FROM {relation}) WHERE v IS NOT NULL) ORDER BY v LIMIT 1"
        ),
    ];
    if let Some(field) = field {
        all.push(format!(
            "SELECT x['{field}'], count(*) FROM (SELECT unnest({column}) AS x FROM {relation}) GROUP BY 1"
        ));
        all.push(format!(
            "SELECT e.x.{field} FROM (SELECT unnest({column}) AS x FROM {relation}) AS e WHERE e.x.{field} IS NOT NULL"
        ));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_columns_work_in_every_clause_of_every_view() {
    let setup = full();
    let lake = Lake::open(text(&setup.root()), &StorageOptions::default()).await.expect("opens");
    let session = Session::open(&lake, SessionSettings::default()).await.expect("opens");
    let relations = [session.tables().await.expect("known"), session.views().await.expect("known")].concat();
    let (mut asked, mut failed) = (0, Vec::new());
    for info in &relations {
        for within in within(info) {
            for sql in statements(&info.name, &within) {
                asked += 1;
                let answer = match session.execute(&sql).await {
                    Ok(answer) => answer.collect().await.map(|_| ()),
                    Err(error) => Err(error),
                };
                if let Err(error) = answer {
                    failed.push(format!("{sql}\n    {}", error.chain()));
                }
            }
        }
    }
    assert!(asked > 300, "{asked} statements only");
    assert!(failed.is_empty(), "{} of {asked} fail:\n{}", failed.len(), failed.join("\n"));
}

fn one(setup: &Setup, sql: &str) -> serde_json::Value {
    setup.sql(sql).first().cloned().unwrap_or_default()
}

#[test]
fn queries_of_nested_columns_return_the_right_values() {
    let setup = full();
    let rows =
        setup.sql("SELECT segments['region'] AS region, count(*) AS runs FROM runs GROUP BY 1 ORDER BY 1 NULLS LAST");
    assert_eq!(
        json!(rows),
        json!([{ "region": "eu", "runs": 17 }, { "region": "us", "runs": 16 }, { "region": null, "runs": 1 }])
    );
    let tool = "SELECT tool_calls[1].name AS tool, count(*) AS runs FROM runs WHERE tool_calls[2].failed GROUP BY tool";
    assert_eq!(one(&setup, tool), json!({ "tool": "lookup_order", "runs": 34 }));
    let calls = "SELECT call.name AS tool, count(*) AS calls FROM (SELECT unnest(tool_calls) AS call FROM runs) WHERE call.failed GROUP BY 1";
    assert_eq!(one(&setup, calls), json!({ "tool": "issue_refund", "calls": 34 }));
    let region = "SELECT l.segments['region'] AS region, count(*) AS pairs FROM runs AS l JOIN runs AS r ON l.segments['region'] = r.segments['region'] GROUP BY 1 ORDER BY 1";
    assert_eq!(one(&setup, region), json!({ "region": "eu", "pairs": 17 * 17 }));
    let column = one(&setup, "SELECT extra FROM runs WHERE extra IS NOT NULL LIMIT 1");
    assert!(column.to_string().contains("channel"), "{column}");
    let web = "SELECT count(*) AS n FROM runs WHERE extra -> 'data' -> 'channel' ->> 'kind' = 'web'";
    assert_eq!(setup.number(web), 33);
}

#[test]
fn describe_and_records_are_readable_and_piped_tables_are_not_truncated() {
    let setup = full();
    let root = setup.root();
    let ask = |arguments: &[&str]| {
        let root = ["sql", "--root", text(&root)];
        bellwether(&[root.as_slice(), arguments].concat()).succeeds()
    };
    let described = ask(&["DESCRIBE runs"]);
    assert!(described.contains("map of text by text") && !described.contains("metadata"), "{described}");
    let record =
        ask(&["--format", "record", "SELECT run_id, segments FROM runs WHERE segments['region'] = 'eu' LIMIT 1"]);
    assert!(record.contains("\n  segments  {region: eu}"), "{record}");
    let wide = ask(&["SELECT 999999.7 AS a, 250000.2 AS b, repeat('x', 300) AS c"]);
    assert!(wide.contains("999999.7") && wide.contains("250000.2") && wide.contains(&"x".repeat(300)), "{wide}");
}
