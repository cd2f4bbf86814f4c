//! The yardstick: the simplest program for the task, with typed serde, forty Arrow columns and Parquet with zstd 1;
//! without Kafka, metrics, validation, exactly-once or syncing. Speed differs between machines, and on a shared machine
//! from minute to minute; a rate relative to the yardstick, measured in the same run, is comparable.
//!
//! Rules: it uses nothing of the program, and the program uses nothing of it.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::Deserialize;

use crate::events::Event;

/// Text without escapes, as the generator produces: borrowed.
type Text<'a> = Option<&'a str>;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    spec: Text<'a>,
    #[serde(borrow, rename = "type")]
    event_type: Text<'a>,
    #[serde(borrow)]
    source: Text<'a>,
    #[serde(borrow)]
    run_id: Text<'a>,
    #[serde(borrow)]
    time: Text<'a>,
    #[serde(borrow)]
    data: Run<'a>,
}

#[derive(Deserialize)]
struct Run<'a> {
    #[serde(borrow)]
    task: Text<'a>,
    #[serde(borrow)]
    environment: Text<'a>,
    #[serde(borrow)]
    release: Release<'a>,
    #[serde(borrow, default)]
    rollout: Rollout<'a>,
    #[serde(borrow)]
    started_at: Text<'a>,
    #[serde(borrow)]
    ended_at: Text<'a>,
    #[serde(borrow)]
    session_id: Text<'a>,
    #[serde(borrow, default)]
    segments: Segments<'a>,
    #[serde(borrow)]
    outcome: Outcome<'a>,
    #[serde(default)]
    tokens: Tokens,
    #[serde(borrow, default)]
    cost: Cost<'a>,
    #[serde(default)]
    latency: Latency,
    #[serde(borrow, default)]
    tool_calls: Vec<ToolCall<'a>>,
    #[serde(borrow)]
    escalation: Option<Escalation<'a>>,
    llm_calls: Option<i64>,
    turns: Option<i64>,
}

/// Defines a record in which all fields are optional text.
macro_rules! texts {
    ($name:ident { $($field:ident),* }) => {
        #[derive(Default, Deserialize)]
        struct $name<'a> { $(#[serde(borrow)] $field: Text<'a>,)* }
    };
}

texts!(Prompt { name, version });
texts!(Model { provider, requested, responded });
texts!(Rollout { stage, cohort });
texts!(Segments { locale, plan });
texts!(Outcome { status, source, reason_code });
texts!(Cost { amount, currency });
texts!(Escalation { reason_code, to });

#[derive(Default, Deserialize)]
struct Release<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow, default)]
    prompt: Prompt<'a>,
    #[serde(borrow, default)]
    model: Model<'a>,
}

#[derive(Default, Deserialize)]
struct Tokens {
    input: Option<i64>,
    input_cache_read: Option<i64>,
    output: Option<i64>,
}

#[derive(Default, Deserialize)]
struct Latency {
    total_ms: Option<f64>,
    ttft_ms: Option<f64>,
    llm_ms: Option<f64>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
    latency_ms: Option<f64>,
}

/// Defines the columns, and the function that appends an event to them.
macro_rules! columns {
    ($event:ident; texts { $($text:ident = $of_text:expr;)* } longs { $($long:ident = $of_long:expr;)* }
     doubles { $($double:ident = $of_double:expr;)* } booleans { $($boolean:ident = $of_boolean:expr;)* }) => {
        #[derive(Default)]
        struct Columns {
            $($text: StringBuilder,)*
            $($long: Int64Builder,)*
            $($double: Float64Builder,)*
            $($boolean: BooleanBuilder,)*
        }

        impl Columns {
            fn append(&mut self, $event: &Envelope<'_>) {
                $(self.$text.append_option($of_text);)*
                $(self.$long.append_option($of_long);)*
                $(self.$double.append_option($of_double);)*
                $(self.$boolean.append_value($of_boolean);)*
            }

            fn finish(&mut self) -> Vec<ArrayRef> {
                vec![
                    $(Arc::new(self.$text.finish()),)*
                    $(Arc::new(self.$long.finish()),)*
                    $(Arc::new(self.$double.finish()),)*
                    $(Arc::new(self.$boolean.finish()),)*
                ]
            }

            fn schema() -> Schema {
                Schema::new(vec![
                    $(Field::new(stringify!($text), DataType::Utf8, true),)*
                    $(Field::new(stringify!($long), DataType::Int64, true),)*
                    $(Field::new(stringify!($double), DataType::Float64, true),)*
                    $(Field::new(stringify!($boolean), DataType::Boolean, true),)*
                ])
            }
        }
    };
}

columns! { event;
    texts {
        spec = event.spec;
        event_type = event.event_type;
        source = event.source;
        run_id = event.run_id;
        time = event.time;
        task = event.data.task;
        environment = event.data.environment;
        release_id = event.data.release.id;
        prompt = event.data.release.prompt.name;
        prompt_version = event.data.release.prompt.version;
        provider = event.data.release.model.provider;
        model = event.data.release.model.requested;
        model_responded = event.data.release.model.responded;
        stage = event.data.rollout.stage;
        cohort = event.data.rollout.cohort;
        started_at = event.data.started_at;
        ended_at = event.data.ended_at;
        session_id = event.data.session_id;
        locale = event.data.segments.locale;
        plan = event.data.segments.plan;
        status = event.data.outcome.status;
        outcome_source = event.data.outcome.source;
        reason_code = event.data.outcome.reason_code;
        amount = event.data.cost.amount;
        currency = event.data.cost.currency;
        first_tool = event.data.tool_calls.first().and_then(|call| call.name);
        escalation_reason = event.data.escalation.as_ref().and_then(|escalation| escalation.reason_code);
        escalated_to = event.data.escalation.as_ref().and_then(|escalation| escalation.to);
    }
    longs {
        tokens_input = event.data.tokens.input;
        tokens_cached = event.data.tokens.input_cache_read;
        tokens_output = event.data.tokens.output;
        llm_calls = event.data.llm_calls;
        turns = event.data.turns;
        tool_calls = i64::try_from(event.data.tool_calls.len()).ok();
        tool_errors = i64::try_from(
            event.data.tool_calls.iter().filter(|call| call.status != Some("ok")).count()
        ).ok();
    }
    doubles {
        total_ms = event.data.latency.total_ms;
        ttft_ms = event.data.latency.ttft_ms;
        llm_ms = event.data.latency.llm_ms;
        slowest_tool_ms = event.data.tool_calls.iter().filter_map(|call| call.latency_ms).reduce(f64::max);
    }
    booleans {
        escalated = event.data.escalation.is_some();
    }
}

/// Converts JSON to columns, in chunks of events.
///
/// # Errors
/// Fails if an event does not have the generator's form.
pub fn decode(events: &[Event], chunk: usize, mut done: impl FnMut(RecordBatch)) -> Result<(), String> {
    let schema = Arc::new(Columns::schema());
    let mut columns = Columns::default();
    for part in events.chunks(chunk.max(1)) {
        for event in part {
            let event: Envelope<'_> = serde_json::from_slice(&event.payload).map_err(|error| error.to_string())?;
            columns.append(&event);
        }
        done(RecordBatch::try_new(Arc::clone(&schema), columns.finish()).map_err(|error| error.to_string())?);
    }
    Ok(())
}

/// Converts JSON to a Parquet file in memory; returns its size.
///
/// # Errors
/// Same as [`decode`].
pub fn parquet(events: &[Event], chunk: usize) -> Result<usize, String> {
    let level = ZstdLevel::try_new(1).map_err(|error| error.to_string())?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::new(Columns::schema()), Some(properties))
        .map_err(|error| error.to_string())?;
    let mut failed = None;
    decode(events, chunk, |batch| {
        if let Err(error) = writer.write(&batch) {
            failed.get_or_insert(error.to_string());
        }
    })?;
    match failed {
        Some(error) => Err(error),
        None => writer.into_inner().map(|bytes| bytes.len()).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Generator, Size};

    #[test]
    fn the_yardstick_reads_generated_events() {
        let mut generator = Generator::new(3, Size::Small);
        let events: Vec<Event> = (0..100).map(|n| generator.next(1_700_000_000_000_000 + n)).collect();
        let mut rows = 0;
        decode(&events, 30, |batch| {
            rows += batch.num_rows();
            for name in ["run_id", "task", "release_id", "status", "tokens_input", "total_ms", "amount"] {
                assert_eq!(batch.column_by_name(name).map(|column| column.null_count()), Some(0), "{name}");
            }
        })
        .expect("reads");
        assert_eq!(rows, 100);
        assert!(parquet(&events, 30).expect("writes") > 1000);
    }
}
