//! The messages of Arrow Flight and Flight SQL, as `Flight.proto` and `FlightSql.proto` of Apache Arrow define them.
//!
//! Fields that the server neither reads nor sends are left out; clients and servers skip fields that they do not know.

use bytes::Bytes;
use prost::Message;

/// Package of the messages of Flight SQL, as in the types of [`Any`].
const PACKAGE: &str = "arrow.flight.protocol.sql.";

/// A message of any type.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
}

// === Flight ===

#[derive(Clone, PartialEq, Message)]
pub(super) struct HandshakeRequest {
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) payload: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HandshakeResponse {
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) payload: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ActionType {
    #[prost(string, tag = "1")]
    pub(super) r#type: String,
    #[prost(string, tag = "2")]
    pub(super) description: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Action {
    #[prost(string, tag = "1")]
    pub(super) r#type: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) body: Bytes,
}

/// The result of an action.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ActionResult {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) body: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CancelFlightInfoRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) info: Option<FlightInfo>,
}

/// The result of a cancellation: 1 for cancelled, 3 for nothing to cancel. `ActionCancelQueryResult` is the same.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CancelResult {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

/// The result of the end of a session: 1 for ended.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CloseSessionResult {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SchemaResult {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) schema: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FlightDescriptor {
    /// 2 for a command.
    #[prost(int32, tag = "1")]
    pub(super) r#type: i32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) cmd: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FlightInfo {
    /// Empty if it is not known before the rows.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) schema: Bytes,
    #[prost(message, optional, tag = "2")]
    pub(super) flight_descriptor: Option<FlightDescriptor>,
    #[prost(message, repeated, tag = "3")]
    pub(super) endpoint: Vec<FlightEndpoint>,
    /// -1 if it is not known, as the next.
    #[prost(int64, tag = "4")]
    pub(super) total_records: i64,
    #[prost(int64, tag = "5")]
    pub(super) total_bytes: i64,
    #[prost(bool, tag = "6")]
    pub(super) ordered: bool,
}

/// A place where rows are fetched: without a location, the server that was asked.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FlightEndpoint {
    #[prost(message, optional, tag = "1")]
    pub(super) ticket: Option<Ticket>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Ticket {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) ticket: Bytes,
}

/// A message of Arrow's interprocess communication: a schema or some rows.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FlightData {
    #[prost(message, optional, tag = "1")]
    pub(super) flight_descriptor: Option<FlightDescriptor>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) data_header: Bytes,
    #[prost(bytes = "bytes", tag = "1000")]
    pub(super) data_body: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PutResult {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) app_metadata: Bytes,
}

// === Flight SQL ===

#[derive(Clone, PartialEq, Message)]
pub(super) struct CommandStatementQuery {
    #[prost(string, tag = "1")]
    pub(super) query: String,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(super) transaction_id: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CommandPreparedStatementQuery {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) prepared_statement_handle: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TicketStatementQuery {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) statement_handle: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CommandGetSqlInfo {
    #[prost(uint32, repeated, tag = "1")]
    pub(super) info: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CommandGetXdbcTypeInfo {
    #[prost(int32, optional, tag = "1")]
    pub(super) data_type: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CommandGetDbSchemas {
    #[prost(string, optional, tag = "1")]
    pub(super) catalog: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) db_schema_filter_pattern: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CommandGetTables {
    #[prost(string, optional, tag = "1")]
    pub(super) catalog: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) db_schema_filter_pattern: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) table_name_filter_pattern: Option<String>,
    #[prost(string, repeated, tag = "4")]
    pub(super) table_types: Vec<String>,
    #[prost(bool, tag = "5")]
    pub(super) include_schema: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ActionCreatePreparedStatementRequest {
    #[prost(string, tag = "1")]
    pub(super) query: String,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(super) transaction_id: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ActionCreatePreparedStatementResult {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) prepared_statement_handle: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) dataset_schema: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) parameter_schema: Bytes,
}

/// The answer to values of parameters: the handle that has them.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DoPutPreparedStatementResult {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub(super) prepared_statement_handle: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ActionCancelQueryRequest {
    /// A [`FlightInfo`].
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) info: Bytes,
}

// === impl Any ===

impl Any {
    /// Packs a message of Flight SQL.
    pub(super) fn pack(name: &str, message: &impl Message) -> Bytes {
        let type_url = format!("type.googleapis.com/{PACKAGE}{name}");
        Self { type_url, value: message.encode_to_vec().into() }.encode_to_vec().into()
    }

    /// Returns the name of the message of Flight SQL that it holds.
    pub(super) fn name(&self) -> Option<&str> {
        self.type_url.rsplit('/').next()?.strip_prefix(PACKAGE)
    }
}
