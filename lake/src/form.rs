//! The form of a table according to its log (protocol and metadata), compared with the one that this program reads and writes.
//!
//! * A table of an earlier version lacks optional columns; [`Form::widened`] adds them.
//! * A table of a later version, or one that another program has extended, has more columns. They stay, and are null in our
//!   rows.
//! * [`Form::refusal`] refuses, by name, a feature or column that our rows do not fit or would violate.
//!
//! Rules: only tested features count as harmless. A feature that is listed but not in use is harmless.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::log::{LogEntry, Protocol, TableMetadata};
use bellwether_base::{Error, Result};
use bellwether_tables::{Column, ColumnType, Table, delta_field, delta_type};

/// The protocol versions that list their features by name; lower versions imply theirs.
const READER_VERSION: i32 = 3;
const WRITER_VERSION: i32 = 7;

/// Features that do not affect reading or writing here, with the reason for each.
const HARMLESS: [&str; 10] = [
    "appendOnly",          // rows are appended; a rebuild, which replaces them, checks this first
    "changeDataFeed",      // readers derive the changes of our commits from their files
    "timestampNtz",        // no column of ours has this type
    "v2Checkpoint",        // both forms of log checkpoints are read
    "vacuumProtocolCheck", // the protocol is read before anything is removed
    // The metadata shows whether these are in use, and is checked separately.
    "invariants",
    "checkConstraints",
    "generatedColumns",
    "identityColumns",
    "columnMapping",
];

/// Keys in the metadata of a column, each with the feature that it uses.
const OF_COLUMNS: [(&str, &str); 4] = [
    ("delta.invariants", "invariants"),
    ("delta.generationExpression", "generatedColumns"),
    ("delta.identity.", "identityColumns"),
    ("CURRENT_DEFAULT", "allowColumnDefaults"),
];

/// Protocol and metadata of a table, as far as its log has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    pub protocol: Option<Protocol>,
    pub metadata: Option<TableMetadata>,
}

// === impl Form ===

impl Form {
    /// Returns true if an entry changes the form.
    pub fn is_changed_by(entry: &LogEntry) -> bool {
        entry.protocol.is_some() || entry.metadata.is_some()
    }

    /// Returns the form after an entry.
    pub fn after(&self, entry: &LogEntry) -> Self {
        Self {
            protocol: entry.protocol.clone().or_else(|| self.protocol.clone()),
            metadata: entry.metadata.clone().or_else(|| self.metadata.clone()),
        }
    }

    /// Returns the reason why this program must not write to the table; `None` if it may, or if the form is unknown.
    pub fn refusal(&self, table: Table) -> Option<Error> {
        let name = table.name();
        let features = self.features();
        if let Some(first) = features.first() {
            let all = features.join("`, `");
            let error = Error::data(format!("table `{name}` uses `{all}`, which bellwether does not support"));
            return Some(error.with_hint(remedy(first)));
        }
        let what = match self.metadata.as_ref().map(|metadata| fit(table, metadata)) {
            None | Some(Ok(_)) => return None,
            Some(Err(what)) => what,
        };
        Some(Error::data(format!("`{name}` is not a table of bellwether: {what}")).with_hint(
            "check the root: another program's table may be in this place; otherwise, revert the change or restore the \
             table from a backup",
        ))
    }

    /// Returns the unsupported features in use.
    fn features(&self) -> Vec<String> {
        let listed = self.protocol.as_ref().map(unsupported).unwrap_or_default();
        let used = self.metadata.as_ref().and_then(in_use);
        let used = used.filter(|feature| !listed.contains(feature));
        listed.into_iter().chain(used).collect()
    }

    /// Returns true if the table does not allow replacing files by files with other rows.
    pub(crate) fn only_appends(&self) -> bool {
        let set = self.metadata.as_ref().and_then(|metadata| metadata.configuration.get("delta.appendOnly"));
        set.and_then(Option::as_deref) == Some("true")
    }

    /// Returns the metadata with the columns that it lacks added, and their names; `None` if it has all of them.
    ///
    /// # Errors
    /// `Data` if our columns do not fit.
    pub(crate) fn widened(&self, table: Table) -> Result<Option<(TableMetadata, Vec<String>)>> {
        if let Some(refusal) = self.refusal(table) {
            return Err(refusal);
        }
        let Some(metadata) = &self.metadata else { return Ok(None) };
        let Ok((schema, added)) = fit(table, metadata) else { return Ok(None) };
        if added.is_empty() {
            return Ok(None);
        }
        Ok(Some((TableMetadata { schema_string: schema.to_string(), ..metadata.clone() }, added)))
    }

    /// Returns true if the table has columns, or fields in records, that this program does not know.
    pub fn has_unknown_columns(&self, table: Table) -> bool {
        let schema = self.metadata.as_ref().and_then(|metadata| parsed(metadata).ok());
        schema.is_some_and(|schema| unknown_in(table.columns(), &schema))
    }
}

/// Returns the hint about an unsupported feature.
fn remedy(feature: &str) -> String {
    match feature {
        "checkConstraints" => {
            "drop the table's constraints (`ALTER TABLE ... DROP CONSTRAINT`); then start bellwether again".to_owned()
        }
        feature if feature.contains(' ') => {
            "run a version of bellwether that supports it, or restore the table from a backup".to_owned()
        }
        feature => format!(
            "turn it off with the engine that turned it on (`ALTER TABLE ... DROP FEATURE {feature}`), or restore the table \
             from a backup; then start bellwether again"
        ),
    }
}

/// Returns the unsupported versions or features of a protocol.
fn unsupported(protocol: &Protocol) -> Vec<String> {
    if protocol.min_reader_version > READER_VERSION {
        return vec![format!("reader version {}", protocol.min_reader_version)];
    }
    if protocol.min_writer_version > WRITER_VERSION {
        return vec![format!("writer version {}", protocol.min_writer_version)];
    }
    let features = [&protocol.reader_features, &protocol.writer_features];
    let features: BTreeSet<&String> = features.into_iter().flatten().flatten().collect();
    features.into_iter().filter(|feature| !HARMLESS.contains(&feature.as_str())).cloned().collect()
}

/// Returns an unsupported feature that the metadata uses.
fn in_use(metadata: &TableMetadata) -> Option<String> {
    let set = |key: &str| metadata.configuration.get(key).and_then(Option::as_deref);
    if set("delta.columnMapping.mode").is_some_and(|mode| mode != "none") {
        return Some("columnMapping".to_owned());
    }
    if metadata.configuration.keys().any(|key| key.starts_with("delta.constraints.")) {
        return Some("checkConstraints".to_owned());
    }
    of_columns(&parsed(metadata).ok()?).map(str::to_owned)
}

/// Returns a feature that the metadata of a column uses, at any depth.
fn of_columns(schema: &Value) -> Option<&'static str> {
    match schema {
        Value::Object(entries) => {
            let named = |key: &String| OF_COLUMNS.iter().find(|(name, _)| key.starts_with(name));
            let own = entries.get("metadata").and_then(Value::as_object);
            let own = own.and_then(|metadata| metadata.keys().find_map(named)).map(|(_, feature)| *feature);
            own.or_else(|| {
                entries.iter().filter(|(key, _)| *key != "metadata").find_map(|(_, value)| of_columns(value))
            })
        }
        Value::Array(values) => values.iter().find_map(of_columns),
        _ => None,
    }
}

fn parsed(metadata: &TableMetadata) -> Result<Value, String> {
    serde_json::from_str(&metadata.schema_string).map_err(|_| "its schema is not readable".to_owned())
}

/// Returns the schema with the columns that it lacks added, and their names.
///
/// # Errors
/// The reason why our columns do not fit.
pub(crate) fn fit(table: Table, metadata: &TableMetadata) -> Result<(Value, Vec<String>), String> {
    let wanted: Vec<&str> = table.partition_column().into_iter().collect();
    let partitioned: Vec<&str> = metadata.partition_columns.iter().map(String::as_str).collect();
    let mut schema = parsed(metadata)?;
    let mut added = Vec::new();
    merge(table.columns(), &mut schema, "", &mut added)?;
    if partitioned != wanted {
        return Err("it has other partition columns".to_owned());
    }
    Ok((schema, added))
}

/// Adds the fields that a record lacks, each after its predecessor in our list.
fn merge(columns: &[Column], record: &mut Value, above: &str, added: &mut Vec<String>) -> Result<(), String> {
    let fields = record["fields"].as_array_mut().ok_or("its schema is not readable")?;
    let named = |field: &Value, name: &str| field["name"].as_str().is_some_and(|it| it.eq_ignore_ascii_case(name));
    let mut next = 0;
    for column in columns {
        let path = format!("{above}{}", column.name);
        let Some(place) = fields.iter().position(|field| named(field, column.name)) else {
            if column.required {
                return Err(format!("it has no column `{path}`"));
            }
            fields.insert(next, delta_field(column));
            next += 1;
            added.push(path);
            continue;
        };
        let field = &mut fields[place];
        if field["name"] != column.name {
            return Err(format!("its column {} differs from `{path}` only in case", field["name"]));
        }
        merge_type(column.kind, &mut field["type"], &path, added)?;
        if !column.required && field["nullable"] == false {
            field["nullable"] = Value::Bool(true);
            added.push(path);
        }
        next = place + 1;
    }
    let unknown = |field: &&Value| !columns.iter().any(|column| field["name"] == column.name);
    match fields.iter().filter(unknown).find(|field| field["nullable"] == false) {
        Some(field) => Err(format!("its column {} is unknown to bellwether and must not be null", field["name"])),
        None => Ok(()),
    }
}

fn merge_type(kind: ColumnType, stored: &mut Value, path: &str, added: &mut Vec<String>) -> Result<(), String> {
    if let ColumnType::List(columns) = kind
        && stored["type"] == "array"
        && stored["elementType"]["type"] == "struct"
    {
        return merge(columns, &mut stored["elementType"], &format!("{path}[]."), added);
    }
    let (found, wanted) = (type_name(stored), type_name(&delta_type(kind)));
    if found == wanted {
        return Ok(());
    }
    Err(format!("column `{path}` is {found}, not {wanted}"))
}

/// Names a type, regardless of nullability.
fn type_name(kind: &Value) -> String {
    match kind {
        Value::String(name) => name.replace(' ', ""),
        nested => match nested["type"].as_str().unwrap_or_default() {
            "array" => format!("array of {}", type_name(&nested["elementType"])),
            "map" => format!("map of {} by {}", type_name(&nested["valueType"]), type_name(&nested["keyType"])),
            other => other.to_owned(),
        },
    }
}

fn unknown_in(columns: &[Column], record: &Value) -> bool {
    let fields = record["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
    fields.iter().any(|field| match columns.iter().find(|column| field["name"] == column.name) {
        None => true,
        Some(Column { kind: ColumnType::List(fields), .. }) => unknown_in(fields, &field["type"]["elementType"]),
        Some(_) => false,
    })
}

#[cfg(test)]
mod tests;
