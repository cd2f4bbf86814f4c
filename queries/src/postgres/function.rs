//! The functions by which clients read the schema `pg_catalog`.
//!
//! Most have one answer here: there is one database, one user, and everything is visible.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, plan_datafusion_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::scalar::ScalarValue;

use super::kind::PgType;
use super::{FIRST_FUNCTION, FIRST_RELATION, relation_oid};
use crate::catalog::{CATALOG, SCHEMA};
use crate::function::FunctionInfo;

/// The version of Postgres whose protocol and catalogue are served.
pub const SERVER_VERSION: &str = "14.0";

/// The schemas in which names are looked up.
pub(super) const SCHEMAS: [&str; 2] = ["pg_catalog", SCHEMA];

/// Settings that clients read with `current_setting` or from `pg_settings`. `SHOW` reads those of a session.
pub(super) const SETTINGS: [(&str, &str); 4] = [
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("server_version", SERVER_VERSION),
    ("server_version_num", "140000"),
];

/// The name of a relation by its object id. `rewrite` writes it for `oid::regclass`.
pub(super) const RELATION_NAME: &str = "pg_relation_name";

/// A function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct PgFunction {
    name: &'static str,
    body: Body,
    signature: Signature,
}

/// The result of a function.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Body {
    /// The same for all arguments.
    Constant(ScalarValue),
    /// The text of the first argument, an object id; null for others.
    Text(BTreeMap<i64, String>),
    /// The object id of the first argument, a name; null for others.
    Oid(Find),
    /// The first argument, as SQL writes an identifier.
    Quoted,
    /// The second argument.
    Second,
    /// The value of the setting that the first argument names.
    Setting,
}

/// The objects of which a name may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Find {
    Relation,
    Type,
}

/// Returns all functions.
pub(super) fn all(functions: &[FunctionInfo]) -> Vec<ScalarUDF> {
    let text = |text: &str| Body::Constant(ScalarValue::Utf8(Some(text.to_owned())));
    let nothing = || Body::Constant(ScalarValue::Utf8(None));
    let yes = || Body::Constant(ScalarValue::Boolean(Some(true)));
    let no = || Body::Constant(ScalarValue::Boolean(Some(false)));
    let number = |number: i64| Body::Constant(ScalarValue::Int64(Some(number)));
    let schemas = ScalarValue::new_list_nullable(&SCHEMAS.map(ScalarValue::from), &DataType::Utf8);
    let types = PgType::all().map(|kind| (i64::from(kind.oid), kind.sql.to_owned())).collect();
    let relation_names = (FIRST_RELATION..).zip(crate::catalog::names()).collect();
    let calls: BTreeMap<i64, String> = (FIRST_FUNCTION..).zip(functions.iter().map(arguments)).collect();
    let bodies = vec![
        ("version", text(&format!("PostgreSQL {SERVER_VERSION} (Bellwether {})", env!("CARGO_PKG_VERSION")))),
        ("current_database", text(CATALOG)),
        ("current_catalog", text(CATALOG)),
        ("current_schema", text(SCHEMA)),
        ("current_schemas", Body::Constant(ScalarValue::List(schemas))),
        ("current_user", text(CATALOG)),
        ("session_user", text(CATALOG)),
        ("user", text(CATALOG)),
        ("pg_get_userbyid", text(CATALOG)),
        ("pg_encoding_to_char", text("UTF8")),
        ("pg_backend_pid", number(0)),
        ("pg_my_temp_schema", number(0)),
        ("pg_is_in_recovery", no()),
        ("pg_is_other_temp_schema", no()),
        ("pg_table_is_visible", yes()),
        ("pg_function_is_visible", yes()),
        ("pg_type_is_visible", yes()),
        ("has_schema_privilege", yes()),
        ("has_table_privilege", yes()),
        ("has_any_column_privilege", yes()),
        ("has_database_privilege", yes()),
        ("has_function_privilege", yes()),
        ("pg_get_expr", nothing()),
        ("pg_get_viewdef", nothing()),
        ("pg_get_indexdef", nothing()),
        ("pg_get_constraintdef", nothing()),
        ("pg_get_triggerdef", nothing()),
        ("pg_get_ruledef", nothing()),
        ("pg_get_serial_sequence", nothing()),
        ("pg_get_partkeydef", nothing()),
        ("shobj_description", nothing()),
        ("pg_get_function_sqlbody", nothing()),
        ("pg_tablespace_location", nothing()),
        ("pg_size_pretty", nothing()),
        ("pg_database_size", Body::Constant(ScalarValue::Int64(None))),
        ("pg_tablespace_size", Body::Constant(ScalarValue::Int64(None))),
        ("pg_table_size", Body::Constant(ScalarValue::Int64(None))),
        ("pg_relation_size", Body::Constant(ScalarValue::Int64(None))),
        ("pg_total_relation_size", Body::Constant(ScalarValue::Int64(None))),
        ("format_type", Body::Text(types)),
        (RELATION_NAME, Body::Text(relation_names)),
        ("pg_get_function_arguments", Body::Text(calls.clone())),
        ("pg_get_function_identity_arguments", Body::Text(calls)),
        ("pg_get_function_result", nothing()),
        ("to_regclass", Body::Oid(Find::Relation)),
        ("to_regtype", Body::Oid(Find::Type)),
        ("quote_ident", Body::Quoted),
        ("set_config", Body::Second),
        ("current_setting", Body::Setting),
    ];
    let any = || Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], Volatility::Immutable);
    let made = bodies.into_iter().map(|(name, body)| ScalarUDF::from(PgFunction { name, body, signature: any() }));
    made.collect()
}

/// Returns the arguments of a function, as its documentation writes the call.
fn arguments(function: &FunctionInfo) -> String {
    let inner = function.syntax.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
    inner.map(|(inner, _)| inner.to_owned()).unwrap_or_default()
}

/// Relations of the schema that clients name, with the object ids that they have in every Postgres.
const CATALOG_OIDS: [(&str, i64); 14] = [
    ("pg_type", 1247),
    ("pg_attribute", 1249),
    ("pg_proc", 1255),
    ("pg_class", 1259),
    ("pg_authid", 1260),
    ("pg_database", 1262),
    ("pg_tablespace", 1213),
    ("pg_constraint", 2606),
    ("pg_language", 2612),
    ("pg_namespace", 2615),
    ("pg_rewrite", 2618),
    ("pg_trigger", 2620),
    ("pg_extension", 3079),
    ("pg_event_trigger", 3466),
];

/// Returns the object id of a relation, whose name may be quoted and have its schema.
pub(super) fn find_relation(name: &str) -> Option<i64> {
    let name = name.trim();
    let plain = name.strip_prefix("pg_catalog.").unwrap_or(name);
    if let Some((_, oid)) = CATALOG_OIDS.iter().find(|(known, _)| *known == plain) {
        return Some(*oid);
    }
    let name = name.strip_prefix("public.").unwrap_or(name);
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => relation_oid(quoted),
        None => relation_oid(&name.to_lowercase()),
    }
}

/// Returns the object id of a type.
pub(super) fn find_type(name: &str) -> Option<i64> {
    PgType::named(name).map(|kind| i64::from(kind.oid))
}

impl ScalarUDFImpl for PgFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match &self.body {
            Body::Constant(value) => value.data_type(),
            Body::Oid(_) => DataType::Int64,
            Body::Text(_) | Body::Quoted | Body::Second | Body::Setting => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let argument = |place: usize, kind: &DataType| -> Result<Option<ArrayRef>> {
            let Some(value) = args.args.get(place) else { return Ok(None) };
            Ok(Some(cast(&value.to_array(rows)?, kind)?))
        };
        let all_null = || Ok(ColumnarValue::Scalar(ScalarValue::try_from(args.return_type())?));
        let column: ArrayRef = match &self.body {
            Body::Constant(value) => return Ok(ColumnarValue::Scalar(value.clone())),
            Body::Text(texts) => {
                let Some(oids) = argument(0, &DataType::Int64)? else { return all_null() };
                let oids = oids.as_primitive::<Int64Type>();
                Arc::new(oids.iter().map(|oid| texts.get(&oid?)).collect::<StringArray>())
            }
            Body::Oid(of) => {
                let Some(names) = argument(0, &DataType::Utf8)? else { return all_null() };
                let find = if *of == Find::Relation { find_relation } else { find_type };
                Arc::new(names.as_string::<i32>().iter().map(|name| find(name?)).collect::<Int64Array>())
            }
            Body::Quoted => {
                let Some(names) = argument(0, &DataType::Utf8)? else { return all_null() };
                Arc::new(names.as_string::<i32>().iter().map(|name| Some(identifier(name?))).collect::<StringArray>())
            }
            Body::Setting => {
                let Some(names) = argument(0, &DataType::Utf8)? else { return all_null() };
                let values: Result<StringArray> =
                    names.as_string::<i32>().iter().map(|name| name.map(setting).transpose()).collect();
                Arc::new(values?)
            }
            Body::Second => match argument(1, &DataType::Utf8)? {
                Some(values) => values,
                None => return all_null(),
            },
        };
        Ok(ColumnarValue::Array(column))
    }
}

/// Returns the value of a setting.
fn setting(name: &str) -> Result<&'static str> {
    let found = SETTINGS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| *value).ok_or_else(|| plan_datafusion_err!("there is no setting `{name}`"))
}

/// Returns a name as SQL writes it: in quotation marks unless it consists of small letters, digits and underscores.
fn identifier(name: &str) -> String {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    if name.chars().all(plain) && !name.starts_with(|first: char| first.is_ascii_digit()) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relation_is_found_by_each_form_of_its_name() {
        let runs = relation_oid("runs");
        assert!(runs.is_some());
        for name in ["runs", "RUNS", "public.runs", "\"runs\"", "public.\"runs\"", " runs "] {
            assert_eq!(find_relation(name), runs, "{name}");
        }
        assert_eq!(find_relation("pg_class"), Some(1259));
        assert_eq!(find_relation("pg_catalog.pg_proc"), Some(1255));
        assert_eq!(find_relation("\"RUNS\""), None);
        assert_eq!(find_relation("nothing"), None);
    }

    #[test]
    fn an_identifier_is_quoted_if_it_must_be() {
        assert_eq!(identifier("runs_1"), "runs_1");
        assert_eq!(identifier("1a"), "\"1a\"");
        assert_eq!(identifier("A\"b"), "\"A\"\"b\"");
    }
}
