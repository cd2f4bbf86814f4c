//! Statements: prepared, with their values, and running.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use bellwether_queries::{Answer, PgType, Prepared, ScalarValue};
use futures::StreamExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::command::Command;
use super::failure::Failure;
use super::message::{Column, Form};
use super::value::{self, Rows};
use super::wire::{PART_BYTES, Wire};
use crate::recorded::Recorded;
use crate::refused::Refused;

/// A prepared statement.
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) work: Work,
    /// Types that the client declared for its first parameters; 0 for open ones.
    pub(super) declared: Vec<u32>,
}

/// The work of a prepared statement.
pub(super) enum Work {
    Nothing,
    Command(Command),
    Query(Prepared),
}

/// A prepared statement with values.
pub(super) struct Portal {
    pub(super) statement: Arc<Statement>,
    pub(super) values: Vec<ScalarValue>,
    pub(super) forms: Vec<i16>,
    pub(super) state: State,
}

/// How far a portal has come.
pub(super) enum State {
    New,
    Running(Box<Running>),
    Ended,
}

/// A statement that runs, with everything that it holds.
pub(super) struct Running {
    pub(super) recorded: Recorded,
    answer: Answer,
    forms: Vec<Form>,
    /// Rows that were computed, and how many of them are sent.
    ready: Option<(Rows, usize)>,
    /// When a client that reads too slowly, or asks for no more rows, loses it.
    pub(super) deadline: Instant,
    tag: &'static str,
    _slot: OwnedSemaphorePermit,
}

/// Why a statement ends before its last row.
pub(super) enum End {
    Failed(Failure),
    /// The client has gone.
    Gone,
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

// === impl Statement ===

impl Statement {
    /// Returns the types of the parameters, as they are described to the client.
    pub(super) fn parameters(&self) -> Vec<u32> {
        let Work::Query(prepared) = &self.work else { return Vec::new() };
        let kinds = prepared.parameters().iter().enumerate();
        kinds.map(|(place, kind)| self.oid(place, kind)).collect()
    }

    fn oid(&self, place: usize, kind: &DataType) -> u32 {
        let declared = self.declared.get(place).copied().unwrap_or(0);
        if declared == 0 || declared == 705 { PgType::of_parameter(kind) } else { declared }
    }

    /// Reads the values of the parameters.
    pub(super) fn values(&self, forms: &[i16], values: &[Option<Vec<u8>>]) -> Result<Vec<ScalarValue>, Failure> {
        let oids = self.parameters();
        if oids.len() != values.len() {
            let (needed, given) = (oids.len(), values.len());
            return Err(Failure::protocol(format!("the statement has {needed} parameters, and {given} values came")));
        }
        let read = |(place, (oid, bytes)): (usize, (u32, &Option<Vec<u8>>))| {
            value::parameter(place, oid, Form::at(forms, place)?, bytes.as_deref())
        };
        oids.into_iter().zip(values).enumerate().map(read).collect()
    }

    /// Returns the columns of its rows; none if it has no rows.
    pub(super) fn columns(&self, forms: &[i16]) -> Result<Option<Vec<Column<'_>>>, Failure> {
        Ok(match &self.work {
            Work::Nothing => None,
            Work::Command(Command::Show { name, .. }) => Some(vec![text_column(name)]),
            Work::Command(_) => None,
            Work::Query(prepared) => Some(columns(prepared.schema(), forms)?),
        })
    }
}

/// Returns a column of texts.
pub(super) fn text_column(name: &str) -> Column<'_> {
    Column { name, oid: PgType::TEXT.oid, bytes: PgType::TEXT.bytes, form: Form::Text }
}

/// Returns the columns of an answer.
pub(super) fn columns<'a>(schema: &'a Schema, forms: &[i16]) -> Result<Vec<Column<'a>>, Failure> {
    let column = |(place, field): (usize, &'a Arc<arrow::datatypes::Field>)| {
        let kind = PgType::of(field.data_type());
        Ok(Column { name: field.name(), oid: kind.oid, bytes: kind.bytes, form: Form::at(forms, place)? })
    };
    schema.fields().iter().enumerate().map(column).collect()
}

// === impl Running ===

impl Running {
    pub(super) fn new(
        recorded: Recorded,
        slot: OwnedSemaphorePermit,
        answer: Answer,
        forms: &[i16],
        deadline: Instant,
    ) -> Result<Self, Failure> {
        let forms = (0..answer.schema.fields().len()).map(|place| Form::at(forms, place)).collect::<Result<_, _>>()?;
        Ok(Self { recorded, answer, forms, ready: None, deadline, tag: "SELECT", _slot: slot })
    }

    /// Names the statement in the message that completes it.
    pub(super) fn tagged(mut self, tag: &'static str) -> Self {
        self.tag = tag;
        self
    }

    /// Returns the columns of the answer.
    pub(super) fn schema(&self) -> &Schema {
        &self.answer.schema
    }

    /// Returns the message that completes it.
    pub(super) fn tag(&self) -> String {
        if self.tag == "SELECT" { format!("SELECT {}", self.recorded.rows) } else { self.tag.to_owned() }
    }

    /// Sends at most `most` rows; returns true if these were the last.
    pub(super) async fn send(&mut self, wire: &mut Wire, most: u64) -> Result<bool, End> {
        let deadline = self.deadline;
        let sent = timeout_at(deadline, self.send_rows(wire, most)).await;
        let sent = sent.unwrap_or_else(|_| {
            let message = "the client did not read its answer in time";
            Err(End::Failed(Failure::new("57014", message).fatal()))
        });
        match &sent {
            Ok(true) => self.recorded.status = Some(200),
            Err(End::Failed(failure)) => {
                self.recorded.error.get_or_insert_with(|| failure.message.clone());
            }
            Ok(false) | Err(End::Gone) => {}
        }
        sent
    }

    async fn send_rows(&mut self, wire: &mut Wire, most: u64) -> Result<bool, End> {
        let max_bytes = self.recorded.server.settings.max_bytes;
        let mut sent = 0;
        loop {
            if let Some((rows, next)) = &mut self.ready {
                while *next < rows.count {
                    if sent == most {
                        return Ok(false);
                    }
                    let before = wire.replies.0.len();
                    wire.replies.add(b'D', |body| rows.write(*next, &self.forms, body));
                    *next += 1;
                    sent += 1;
                    self.recorded.rows += 1;
                    self.recorded.bytes += (wire.replies.0.len() - before) as u64;
                    if self.recorded.bytes > max_bytes as u64 {
                        return Err(self.refuse(Refused::too_many_bytes(max_bytes)));
                    }
                    if wire.replies.0.len() >= PART_BYTES {
                        wire.flush().await.map_err(|_| End::Gone)?;
                    }
                }
            }
            let batch = wire.hold(self.answer.batches.next()).await.ok_or(End::Gone)?;
            match batch.transpose() {
                Ok(Some(batch)) => self.ready = Some((Rows::new(&batch)?, 0)),
                Ok(None) => return Ok(true),
                Err(error) => return Err(self.refuse(Refused::from(error))),
            }
        }
    }

    fn refuse(&mut self, refused: Refused) -> End {
        End::Failed(self.recorded.refuse(refused).into())
    }
}
