//! The calls of Arrow Flight, as Flight SQL uses them.

use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{Field, Schema};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use prost::Message;
use tonic::Status;

use super::call::{Call, Messages, Replies, none, one, refuse, serve, token};
use super::catalogue;
use super::command::{Catalogue, Command, decode, no_transactions, only_reads, refuse_transaction};
use super::handle::{Handle, Values};
use super::message::{
    Action, ActionCancelQueryRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    ActionResult, ActionType, Any, CancelFlightInfoRequest, CancelResult, CloseSessionResult,
    DoPutPreparedStatementResult, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest,
    HandshakeResponse, PutResult, SchemaResult, Ticket, TicketStatementQuery,
};
use super::{Flight, rows};
use crate::audit::Record;
use crate::refused::{Answered, Refused};

/// Path of the service.
const SERVICE: &str = "/arrow.flight.protocol.FlightService/";

/// The actions, with their descriptions.
const ACTIONS: [(&str, &str); 5] = [
    ("CreatePreparedStatement", "Prepare a statement with parameters $1, $2, ..."),
    ("ClosePreparedStatement", "Do nothing: the server keeps no prepared statement"),
    ("CancelFlightInfo", "Cancel the statement of a flight"),
    ("CancelQuery", "Cancel the statement of a flight"),
    ("CloseSession", "Do nothing: the server keeps no session"),
];

const CANCELLED: i32 = 1;
const NOT_CANCELLABLE: i32 = 3;
const CLOSED: i32 = 1;

/// Answers a call.
pub(super) async fn answer(State(flight): State<Arc<Flight>>, request: Request) -> Response {
    match request.uri().path().strip_prefix(SERVICE).unwrap_or_default() {
        "Handshake" => handshake(flight, request).await,
        "GetFlightInfo" => serve(flight, request, get_flight_info).await,
        "GetSchema" => serve(flight, request, get_schema).await,
        "DoGet" => serve(flight, request, do_get).await,
        "DoPut" => serve(flight, request, do_put).await,
        "DoAction" => serve(flight, request, do_action).await,
        "ListActions" => serve(flight, request, list_actions).await,
        _ => refuse(
            Refused::unsupported("the call is not supported")
                .with_hint("use a client of Arrow Flight SQL, and call GetFlightInfo with a statement"),
        ),
    }
}

/// Exchanges a user name and a password, which is the token, for the header of later calls.
async fn handshake(flight: Arc<Flight>, request: Request) -> Response {
    let token = token(request.headers());
    let mut response = serve(flight, request, greet).await;
    let bearer = HeaderValue::try_from(format!("Bearer {}", token.unwrap_or_default()));
    if let (Ok(bearer), false) = (bearer, response.headers().contains_key("grpc-status")) {
        response.headers_mut().insert(header::AUTHORIZATION, bearer);
    }
    response
}

async fn greet(_: Call, _: Messages<HandshakeRequest>) -> Result<Replies<HandshakeResponse>, Status> {
    Ok(one(HandshakeResponse::default()))
}

async fn get_flight_info(call: Call, messages: Messages<FlightDescriptor>) -> Result<Replies<FlightInfo>, Status> {
    let descriptor = messages.only().await?;
    let (schema, ticket) = match Command::read(&descriptor.cmd)? {
        // The schema comes with the rows: planning the statement once is enough.
        Command::Statement(sql) => (Bytes::new(), ticket(&Handle::new(&call.caller, &sql)?)),
        Command::Prepared(handle) => (Bytes::new(), ticket(&Handle::read(&handle, &call.caller)?.once_more())),
        Command::Catalogue(asked) => (rows::schema_bytes(&catalogue::schema(&asked))?, descriptor.cmd.clone()),
        Command::Ticket(_) => return Err(Refused::bad("a ticket is for DoGet").into()),
    };
    Ok(one(FlightInfo {
        schema,
        flight_descriptor: Some(descriptor),
        endpoint: vec![FlightEndpoint { ticket: Some(Ticket { ticket }) }],
        total_records: -1,
        total_bytes: -1,
        ordered: true,
    }))
}

fn ticket(handle: &Handle) -> Bytes {
    Any::pack("TicketStatementQuery", &TicketStatementQuery { statement_handle: handle.bytes() })
}

async fn get_schema(call: Call, messages: Messages<FlightDescriptor>) -> Result<Replies<SchemaResult>, Status> {
    let sql = match Command::read(&messages.only().await?.cmd)? {
        Command::Catalogue(asked) => {
            return Ok(one(SchemaResult { schema: rows::schema_bytes(&catalogue::schema(&asked))? }));
        }
        Command::Statement(sql) => Handle::new(&call.caller, &sql)?.sql,
        Command::Prepared(handle) | Command::Ticket(handle) => Handle::read(&handle, &call.caller)?.sql,
    };
    let (schema, _) = prepare(&call, &sql).await?;
    Ok(one(SchemaResult { schema }))
}

/// Returns the columns of the rows and the parameters of a statement, as schemas.
async fn prepare(call: &Call, sql: &str) -> Answered<(Bytes, Bytes)> {
    let _place = call.flight.server.reading().await?;
    let asker = call.asker();
    let prepared = Box::pin(asker.prepare(&asker.session()?, sql, &[])).await?;
    let parameter =
        |(place, kind): (usize, &arrow::datatypes::DataType)| Field::new(format!("${}", place + 1), kind.clone(), true);
    let parameters: Vec<Field> = prepared.parameters().iter().enumerate().map(parameter).collect();
    let (columns, parameters) = (rows::sent(prepared.schema()), rows::sent(&Schema::new(parameters)));
    Ok((rows::schema_bytes(&columns)?, rows::schema_bytes(&parameters)?))
}

async fn do_get(call: Call, messages: Messages<Ticket>) -> Result<Replies<FlightData>, Status> {
    match Command::read(&messages.only().await?.ticket)? {
        Command::Ticket(handle) => {
            let handle = Handle::read(&handle, &call.caller)?;
            let values = handle.values()?;
            let begun = call.asker().begin(&handle.sql).await?;
            let used = call.flight.uses(&handle.id, &begun.recorded.id);
            let started = Box::pin(begun.start(&handle.sql, &values)).await?;
            Ok(rows::stream(started, used))
        }
        Command::Catalogue(asked) => Ok(describe(&call, &asked).await?),
        Command::Statement(_) | Command::Prepared(_) => {
            Err(Refused::bad("a statement is no ticket").with_hint("call GetFlightInfo, which returns one").into())
        }
    }
}

/// Sends a description, and puts it on record.
async fn describe(call: &Call, asked: &Catalogue) -> Answered<Replies<FlightData>> {
    let began = Instant::now();
    let described = Box::pin(catalogue::rows(call, asked)).await;
    let server = &call.flight.server;
    let (id, rows) = (bellwether_base::unique_id().simple().to_string(), described.as_ref().ok());
    server.audit.write(&Record {
        event: "answered",
        endpoint: asked.endpoint(),
        status: Some(described.as_ref().err().map_or(200, |refused| refused.status.as_u16())),
        rows: rows.map(|rows| rows.num_rows() as u64),
        duration_ms: Some(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)),
        error: described.as_ref().err().map(|refused| refused.message.as_str()),
        ..Record::of(&call.caller, &id, &call.connection.client)
    })?;
    rows::whole(&described?)
}

/// Binds a prepared statement to values: the answer is a handle that holds them.
async fn do_put(call: Call, mut messages: Messages<FlightData>) -> Result<Replies<PutResult>, Status> {
    let missing = || Refused::bad("the request has no descriptor");
    let first = messages.next().await?.ok_or_else(missing)?;
    let descriptor = first.flight_descriptor.as_ref().ok_or_else(missing)?;
    let Command::Prepared(handle) = Command::read(&descriptor.cmd)? else { return Err(only_reads().into()) };
    let handle = Handle::read(&handle, &call.caller)?;
    let values = match messages.next().await? {
        Some(row) => Some(Values::new(&first, row)?),
        None => None,
    };
    if messages.next().await?.is_some() {
        return Err(Refused::bad("several batches of values came")
            .with_hint("bind one row of values at a time")
            .into());
    }
    let handle = handle.with_values(values).bytes();
    let bound = DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) };
    Ok(one(PutResult { app_metadata: bound.encode_to_vec().into() }))
}

async fn do_action(call: Call, messages: Messages<Action>) -> Result<Replies<ActionResult>, Status> {
    let action = messages.only().await?;
    let malformed = |_| Refused::bad(format!("the body of the action `{}` is malformed", action.r#type));
    let result = match action.r#type.as_str() {
        "CreatePreparedStatement" => {
            let asked: ActionCreatePreparedStatementRequest = decode(&Any::decode(&*action.body).map_err(malformed)?)?;
            refuse_transaction(asked.transaction_id.as_ref())?;
            let handle = Handle::new(&call.caller, &asked.query)?;
            let (dataset_schema, parameter_schema) = prepare(&call, &asked.query).await?;
            let prepared_statement_handle = handle.bytes();
            let prepared =
                ActionCreatePreparedStatementResult { prepared_statement_handle, dataset_schema, parameter_schema };
            Any::pack("ActionCreatePreparedStatementResult", &prepared)
        }
        "ClosePreparedStatement" => return Ok(none()),
        "CancelFlightInfo" => {
            let asked = CancelFlightInfoRequest::decode(&*action.body).map_err(malformed)?;
            cancel(&call, asked.info)?.encode_to_vec().into()
        }
        "CancelQuery" => {
            let asked: ActionCancelQueryRequest = decode(&Any::decode(&*action.body).map_err(malformed)?)?;
            let info = FlightInfo::decode(&*asked.info).map_err(malformed)?;
            Any::pack("ActionCancelQueryResult", &cancel(&call, Some(info))?)
        }
        "CloseSession" => CloseSessionResult { status: CLOSED }.encode_to_vec().into(),
        "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint" => {
            return Err(no_transactions().into());
        }
        other => {
            let names = ACTIONS.map(|(name, _)| name).join(", ");
            return Err(Refused::unsupported(format!("the action `{other}` is not supported"))
                .with_hint(format!("the actions are {names}"))
                .into());
        }
    };
    Ok(one(ActionResult { body: result }))
}

/// Cancels the statement of a flight.
fn cancel(call: &Call, info: Option<FlightInfo>) -> Answered<CancelResult> {
    let ticket = info.and_then(|info| info.endpoint.into_iter().next()?.ticket);
    let ticket = ticket.ok_or_else(|| Refused::bad("the flight has no ticket"))?;
    let Command::Ticket(handle) = Command::read(&ticket.ticket)? else {
        return Ok(CancelResult { status: NOT_CANCELLABLE });
    };
    let handle = Handle::read(&handle, &call.caller)?;
    let is_cancelled = call.flight.cancel(&handle.id, &call.caller);
    Ok(CancelResult { status: if is_cancelled { CANCELLED } else { NOT_CANCELLABLE } })
}

async fn list_actions(_: Call, _: Messages<Empty>) -> Result<Replies<ActionType>, Status> {
    let action = |(name, description): (&str, &str)| {
        Ok(ActionType { r#type: name.to_owned(), description: description.to_owned() })
    };
    Ok(Box::pin(futures::stream::iter(ACTIONS.map(action))))
}
