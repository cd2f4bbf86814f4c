//! A statement as a client holds it, in tickets and in handles of prepared statements, so that the server need not keep it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::ipc::convert::try_schema_from_flatbuffer_bytes;
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::root_as_message;
use bellwether_base::unique_id;
use bellwether_queries::ScalarValue;
use bytes::Bytes;
use prost::Message;

use super::message::FlightData;
use crate::access::Caller;
use crate::refused::{Answered, Refused};
use crate::statement::BODY_BYTES;

/// Form of the handles; it changes with their fields.
const FORM: u32 = 1;

/// A statement with the values of its parameters, and who asked for it.
///
/// It is not secret and proves nothing: whoever changes it could ask the same without it. The name of the token keeps clients that
/// share something from mixing up their statements.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Handle {
    #[prost(uint32, tag = "1")]
    form: u32,
    /// By which a statement that runs is cancelled.
    #[prost(string, tag = "2")]
    pub(super) id: String,
    #[prost(string, tag = "3")]
    caller: String,
    #[prost(string, optional, tag = "4")]
    tenant: Option<String>,
    #[prost(string, tag = "5")]
    pub(super) sql: String,
    #[prost(message, optional, tag = "6")]
    values: Option<Values>,
}

/// Values of parameters: a row in Arrow's form, as the client sent it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Values {
    #[prost(bytes = "bytes", tag = "1")]
    schema: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    header: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    body: Bytes,
}

// === impl Handle ===

impl Handle {
    /// Makes the handle of a statement that was not bound to values.
    pub(super) fn new(caller: &Caller, sql: &str) -> Answered<Self> {
        if sql.len() > BODY_BYTES {
            let message = format!("the statement is longer than {} KiB", BODY_BYTES >> 10);
            return Err(
                Refused::bad(message).with_hint("shorten the statement, or put long lists into a table of their own")
            );
        }
        let (name, tenant) = (caller.name.to_string(), caller.tenant.as_deref().map(str::to_owned));
        Ok(Self { form: FORM, id: id(), caller: name, tenant, sql: sql.to_owned(), values: None })
    }

    /// Reads a handle that a client sent.
    pub(super) fn read(bytes: &[u8], caller: &Caller) -> Answered<Self> {
        let unknown = || {
            Refused::bad("the handle or ticket is none of this server, or of another version of it")
                .with_hint("ask for the statement again, or prepare it again")
        };
        let handle = Self::decode(bytes).map_err(|_| unknown())?;
        if handle.form != FORM || handle.id.is_empty() || handle.sql.len() > BODY_BYTES {
            return Err(unknown());
        }
        if *handle.caller != *caller.name || handle.tenant.as_deref() != caller.tenant.as_deref() {
            return Err(Refused::bad("the handle or ticket belongs to another token")
                .with_hint("ask for the statement with the token by which you fetch its rows"));
        }
        Ok(handle)
    }

    /// Returns it as a client gets it.
    pub(super) fn bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// Returns a handle of the same statement by which it is run once more.
    pub(super) fn once_more(&self) -> Self {
        Self { id: id(), ..self.clone() }
    }

    /// Returns a handle of the same statement with other values.
    pub(super) fn with_values(&self, values: Option<Values>) -> Self {
        Self { values, ..self.once_more() }
    }

    /// Returns the values of the parameters `$1`, `$2`, ….
    pub(super) fn values(&self) -> Answered<Vec<ScalarValue>> {
        self.values.as_ref().map_or_else(|| Ok(Vec::new()), Values::read)
    }
}

fn id() -> String {
    unique_id().simple().to_string()
}

// === impl Values ===

impl Values {
    /// Takes values from the messages in which they come.
    pub(super) fn new(schema: &FlightData, row: FlightData) -> Answered<Self> {
        let values = Self { schema: schema.data_header.clone(), header: row.data_header, body: row.data_body };
        values.read()?;
        Ok(values)
    }

    /// Reads the values.
    fn read(&self) -> Answered<Vec<ScalarValue>> {
        // The reader of Arrow panics on some messages that no client makes.
        let read = catch_unwind(AssertUnwindSafe(|| self.columns()));
        read.unwrap_or_else(|_| Err(malformed("they cannot be read")))
    }

    fn columns(&self) -> Answered<Vec<ScalarValue>> {
        let arrow = |error: ArrowError| malformed(&error.to_string());
        let schema = Arc::new(try_schema_from_flatbuffer_bytes(&self.schema).map_err(arrow)?);
        let message = root_as_message(&self.header).map_err(|_| malformed("their header is no message"))?;
        let rows = message.header_as_record_batch().ok_or_else(|| malformed("they are no rows"))?;
        if rows.compression().is_some() {
            return Err(malformed("they are compressed"));
        }
        if let Some(field) = schema.fields().iter().find(|field| has_dictionary(field.data_type())) {
            return Err(malformed(&format!("`{}` is encoded by a dictionary", field.name())));
        }
        let length = self.body.len() as u64;
        let within = |offset: i64, size: i64| {
            let end = u64::try_from(offset).ok().zip(u64::try_from(size).ok());
            end.and_then(|(offset, size)| offset.checked_add(size)).is_some_and(|end| end <= length)
        };
        if !rows.buffers().into_iter().flatten().all(|buffer| within(buffer.offset(), buffer.length())) {
            return Err(malformed("they are incomplete"));
        }
        if rows.length() != 1 {
            let message = format!("values for {} executions of the statement came, and one is possible", rows.length());
            return Err(Refused::bad(message).with_hint("bind one row of values at a time"));
        }
        let body = Buffer::from(self.body.as_ref());
        let row = read_record_batch(&body, rows, schema, &HashMap::new(), None, &message.version()).map_err(arrow)?;
        let value =
            |column: &ArrayRef| ScalarValue::try_from_array(column, 0).map_err(|error| malformed(&error.to_string()));
        row.columns().iter().map(value).collect()
    }
}

fn malformed(problem: &str) -> Refused {
    Refused::bad(format!("the values of the parameters are refused: {problem}"))
        .with_hint("send one row of plain columns in the format of Arrow")
}

fn has_dictionary(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, _) | DataType::RunEndEncoded(_, _) => true,
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            has_dictionary(field.data_type())
        }
        DataType::Map(field, _) => has_dictionary(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_dictionary(field.data_type())),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch, StringArray, new_empty_array};
    use arrow::datatypes::{Field, Schema};
    use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};

    use super::*;
    use crate::token::Scope;

    fn caller(name: &str, tenant: Option<&str>) -> Caller {
        Caller { name: name.into(), scope: Scope::Read, tenant: tenant.map(Arc::from) }
    }

    /// Returns rows as a client sends them.
    fn sent(rows: &RecordBatch) -> (FlightData, FlightData) {
        let (options, mut dictionaries) = (IpcWriteOptions::default(), DictionaryTracker::new(false));
        let generator = IpcDataGenerator::default();
        let schema = generator.schema_to_bytes_with_dictionary_tracker(&rows.schema(), &mut dictionaries, &options);
        let (_, row) = generator.encode(rows, &mut dictionaries, &options, &mut Default::default()).expect("encoded");
        let data = |header: Vec<u8>, body: Vec<u8>| FlightData {
            data_header: header.into(),
            data_body: body.into(),
            ..FlightData::default()
        };
        (data(schema.ipc_message, Vec::new()), data(row.ipc_message, row.arrow_data))
    }

    fn two_columns(count: usize) -> RecordBatch {
        let columns = [
            ("a", Arc::new(Int64Array::from(vec![7; count])) as ArrayRef),
            ("b", Arc::new(StringArray::from(vec!["x"; count]))),
        ];
        RecordBatch::try_from_iter(columns).expect("rows")
    }

    #[test]
    fn a_handle_holds_the_statement_and_its_values_for_one_token() {
        let acme = caller("acme", Some("acme"));
        let (schema, row) = sent(&two_columns(1));
        let handle = Handle::new(&acme, "SELECT $1, $2").expect("short");
        let bound = handle.with_values(Some(Values::new(&schema, row).expect("values")));
        let read = Handle::read(&bound.bytes(), &acme).expect("its own");
        assert_eq!(
            (read.sql.as_str(), read.values().expect("values")),
            ("SELECT $1, $2", vec![7_i64.into(), "x".into()])
        );
        assert!(handle.values().expect("none").is_empty() && handle.id != bound.id);
        for other in [caller("acme", None), caller("acme", Some("globex")), caller("b", Some("acme"))] {
            assert!(Handle::read(&bound.bytes(), &other).expect_err("foreign").message.contains("another token"));
        }
        for wrong in [&b""[..], b"\xff", b"\x08\x02", &bound.bytes()[..40]] {
            assert!(Handle::read(wrong, &acme).expect_err("unknown").message.contains("none of this server"));
        }
        assert!(Handle::new(&acme, &"x".repeat(BODY_BYTES + 1)).is_err());
    }

    #[test]
    fn values_that_lie_about_themselves_are_refused() {
        let refused = |schema: &FlightData, row: FlightData| Values::new(schema, row).expect_err("refused").message;
        let (schema, row) = sent(&two_columns(1));
        for count in [0, 2] {
            assert!(refused(&schema, sent(&two_columns(count)).1).contains(&format!("for {count} executions")));
        }
        for length in 0..row.data_body.len() {
            let short = FlightData { data_body: row.data_body.slice(..length), ..row.clone() };
            assert!(Values::new(&schema, short).is_err() || length >= 65, "{length}");
        }
        for place in 0..row.data_header.len() {
            let mut header = row.data_header.to_vec();
            header[place] ^= 0xff;
            // Whatever comes of it, it ends, and without a panic beyond.
            drop(Values::new(&schema, FlightData { data_header: header.into(), ..row.clone() }));
            let mut header = schema.data_header.to_vec();
            header[place % schema.data_header.len()] ^= 0xff;
            drop(Values::new(&FlightData { data_header: header.into(), ..schema.clone() }, row.clone()));
        }
        let words = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let fields = Arc::new(Schema::new(vec![Field::new("a", words.clone(), true)]));
        let (schema, _) = sent(&RecordBatch::try_new(fields, vec![new_empty_array(&words)]).expect("rows"));
        assert!(refused(&schema, row).contains("dictionary"));
    }
}
