//! Rows as messages of Arrow: their schema, and batches of bounded size that are made as the client reads them.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::{
    DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions, write_message,
};
use bellwether_base::Error;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::InUse;
use super::message::FlightData;
use crate::recorded::Recorded;
use crate::refused::{Answered, Refused};
use crate::stall::EndAfter;
use crate::start::Started;

/// Bytes of rows of a message: clients accept 4 MiB by default, and a slow one must read a message in time.
const MESSAGE_BYTES: usize = 512 << 10;

/// Writes rows as messages.
pub(super) struct Writer {
    schema: SchemaRef,
    generator: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    options: IpcWriteOptions,
    context: IpcWriteContext,
}

/// An answer that is sent message by message, with everything that it holds.
struct Flow {
    batches: BoxStream<'static, bellwether_base::Result<RecordBatch>>,
    recorded: Recorded,
    writer: Writer,
    ready: VecDeque<FlightData>,
    /// Ends the connection of a client that does not ask for the next message, or that takes too long for all.
    stalled: Option<EndAfter>,
    _end: EndAfter,
    _slot: OwnedSemaphorePermit,
    _ticket: InUse,
}

/// Returns the columns of an answer as they are sent: without dictionaries and views of texts, which not every client reads.
pub(super) fn sent(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(plain_field).collect::<Vec<_>>()))
}

fn plain_field(field: &FieldRef) -> FieldRef {
    let kind = plain(field.data_type());
    if kind == *field.data_type() && field.metadata().is_empty() {
        return FieldRef::clone(field);
    }
    Arc::new(Field::new(field.name(), kind, field.is_nullable()))
}

fn plain(kind: &DataType) -> DataType {
    match kind {
        DataType::Dictionary(_, value) => plain(value),
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(field) => DataType::List(plain_field(field)),
        DataType::LargeList(field) => DataType::LargeList(plain_field(field)),
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(plain_field(field), *size),
        DataType::Map(field, is_sorted) => DataType::Map(plain_field(field), *is_sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        other => other.clone(),
    }
}

/// Returns a schema in the form that fields of messages have.
pub(super) fn schema_bytes(schema: &Schema) -> Answered<Bytes> {
    let mut bytes = Vec::new();
    write_message(&mut bytes, schema_data(schema), &IpcWriteOptions::default()).map_err(unwritable)?;
    Ok(bytes.into())
}

fn schema_data(schema: &Schema) -> EncodedData {
    let (options, mut dictionaries) = (IpcWriteOptions::default(), DictionaryTracker::new(false));
    IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(schema, &mut dictionaries, &options)
}

fn unwritable(source: ArrowError) -> Refused {
    Error::bug("the rows cannot be written in the format of Arrow").with_source(source).into()
}

/// Sends the rows of a statement as they are computed.
pub(super) fn stream(started: Started, ticket: InUse) -> BoxStream<'static, Result<FlightData, Status>> {
    let Started { answer, recorded, slot } = started;
    let settings = &recorded.server.settings;
    let end = EndAfter::new(&recorded.connection, settings.timeout + settings.patience);
    let (writer, first) = Writer::new(&answer.schema);
    let ready = VecDeque::from([first]);
    let batches = answer.batches;
    let flow = Flow { batches, recorded, writer, ready, stalled: None, _end: end, _slot: slot, _ticket: ticket };
    futures::stream::unfold(Some(flow), Flow::next).boxed()
}

/// Sends rows that are at hand.
pub(super) fn whole(rows: &RecordBatch) -> Answered<BoxStream<'static, Result<FlightData, Status>>> {
    let (mut writer, first) = Writer::new(&rows.schema());
    let mut messages = vec![Ok(first)];
    messages.extend(writer.write(rows)?.into_iter().map(Ok));
    Ok(futures::stream::iter(messages).boxed())
}

// === impl Writer ===

impl Writer {
    /// Begins to write rows; returns their schema as the first message.
    fn new(schema: &Schema) -> (Self, FlightData) {
        let schema = sent(schema);
        let header = schema_data(&schema).ipc_message.into();
        let writer = Self {
            schema,
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(false),
            options: IpcWriteOptions::default(),
            context: IpcWriteContext::default(),
        };
        (writer, FlightData { data_header: header, ..FlightData::default() })
    }

    /// Writes rows in one or several messages.
    fn write(&mut self, rows: &RecordBatch) -> Answered<Vec<FlightData>> {
        let rows = self.plain(rows).map_err(unwritable)?;
        let size = |column: &arrow::array::ArrayRef| {
            column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
        };
        let bytes: usize = rows.columns().iter().map(size).sum();
        let most = (rows.num_rows() * MESSAGE_BYTES / bytes.max(1)).max(1);
        let starts = (0..rows.num_rows()).step_by(most);
        starts.map(|start| self.message(&rows.slice(start, most.min(rows.num_rows() - start)))).collect()
    }

    fn message(&mut self, rows: &RecordBatch) -> Answered<FlightData> {
        let encoded = self.generator.encode(rows, &mut self.dictionaries, &self.options, &mut self.context);
        let (_, rows) = encoded.map_err(unwritable)?;
        let (header, body) = (rows.ipc_message.into(), rows.arrow_data.into());
        Ok(FlightData { flight_descriptor: None, data_header: header, data_body: body })
    }

    /// Casts rows to the columns that are sent.
    fn plain(&self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let columns = rows.columns().iter().zip(self.schema.fields());
        let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => cast(column, field.data_type()),
        });
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns.collect::<Result<_, _>>()?, &options)
    }
}

// === impl Flow ===

impl Flow {
    async fn next(flow: Option<Self>) -> Option<(Result<FlightData, Status>, Option<Self>)> {
        let mut flow = flow?;
        flow.stalled = None;
        match flow.message().await {
            Ok(Some(message)) => {
                flow.stalled = Some(EndAfter::new(&flow.recorded.connection, flow.recorded.server.settings.patience));
                Some((Ok(message), Some(flow)))
            }
            Ok(None) => {
                flow.recorded.status = Some(200);
                None
            }
            Err(refused) => Some((Err(flow.recorded.refuse(refused).into()), None)),
        }
    }

    async fn message(&mut self) -> Answered<Option<FlightData>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                self.recorded.bytes += (message.data_header.len() + message.data_body.len()) as u64;
                let most = self.recorded.server.settings.max_bytes;
                if self.recorded.bytes > most as u64 {
                    return Err(Refused::too_many_bytes(most));
                }
                return Ok(Some(message));
            }
            let Some(rows) = self.batches.next().await.transpose()? else { return Ok(None) };
            self.recorded.rows += rows.num_rows() as u64;
            self.ready.extend(self.writer.write(&rows)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, DictionaryArray, Int64Array, ListArray, StringArray, StringViewArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn rows_are_sent_in_messages_of_bounded_size_without_dictionaries_and_views() {
        let texts: Vec<String> = (0..4000).map(|number| format!("{number:0>1000}")).collect();
        let dictionary: DictionaryArray<Int32Type> = texts.iter().map(|_| Some("a")).collect();
        let item = Arc::new(Field::new("item", DataType::Utf8View, true));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths(texts.iter().map(|_| 1));
        let views = Arc::new(StringViewArray::from_iter_values(&texts));
        let list = ListArray::new(item, offsets, views, None);
        let rows = RecordBatch::try_from_iter([
            ("numbers", Arc::new(Int64Array::from_iter_values(0..4000)) as arrow::array::ArrayRef),
            ("words", Arc::new(dictionary)),
            ("lists", Arc::new(list)),
        ])
        .expect("rows");
        let (mut writer, first) = Writer::new(&rows.schema());
        assert!(!first.data_header.is_empty() && first.data_body.is_empty());
        let messages = writer.write(&rows).expect("written");
        assert!(messages.len() >= 8, "{} messages", messages.len());
        assert!(messages.iter().all(|message| message.data_body.len() < 2 * MESSAGE_BYTES));
        assert_eq!(writer.schema.field(1).data_type(), &DataType::Utf8);
        let plain = writer.plain(&rows).expect("plain");
        let lists = plain.column(2).as_any().downcast_ref::<ListArray>().expect("lists");
        let words = lists.value(7);
        assert_eq!(words.as_any().downcast_ref::<StringArray>().expect("texts").value(0), texts[7]);
        // An answer without columns or without rows is no message of rows.
        let (mut writer, _) = Writer::new(&Schema::empty());
        assert!(writer.write(&RecordBatch::new_empty(SchemaRef::new(Schema::empty()))).expect("nothing").is_empty());
    }
}
