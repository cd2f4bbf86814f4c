//! Measures single crates within this process: decoding, writing Parquet, aggregating.

use std::sync::Arc;
use std::time::Duration;

use bellwether_aggregate::{Aggregator, AggregatorSettings, event_columns};
use bellwether_base::{Clock, Error, Result, SystemClock, unique_id};
use bellwether_bench::events::{Event, Generator, Size};
use bellwether_bench::process::cpu_seconds;
use bellwether_bench::yardstick;
use bellwether_event::Limits;
use bellwether_ingest::{Message, Pushed, RowBuilder};
use bellwether_lake::{
    Advance, Chunk, Commit, CommitLog, EncodedRows, Handover, Lake, Outcome, RowEncoder, StorageOptions, WrittenFile,
};
use bellwether_redact::Redactor;
use bellwether_tables::Table;
use prometheus::Registry;
use uuid::Uuid;

use crate::Bench;
use crate::report::Bound;

/// Rows per chunk, as in ingest.
const CHUNK_ROWS: usize = 2048;

/// Rows per batch: about one second at full speed.
const BATCH_ROWS: usize = 50_000;

/// Bytes of rows that may wait for the aggregator: unlimited in effect.
const HANDOVER_BYTES: usize = 8 << 30;

/// Returns the CPU time of this process so far.
fn own_cpu_s() -> Result<f64> {
    cpu_seconds(std::process::id())
        .ok_or_else(|| Error::unavailable("`/proc` does not report the CPU time of this process"))
}

fn name_of(size: Size) -> &'static str {
    match size {
        Size::Small => "events of 0.8 kB",
        Size::Large => "events of 3 kB",
        Size::Conversation => "conversations of 11 kB",
    }
}

fn events(seed: u64, size: Size, count: usize) -> Vec<Event> {
    let mut generator = Generator::new(seed, size);
    let now = SystemClock.now_micros();
    // Half an hour of traffic, which rarely crosses midnight.
    let step = i64::try_from(Duration::from_secs(1800).as_micros() / count.max(1) as u128).unwrap_or(1);
    (0..count as i64).map(|index| generator.next(now - 1_800_000_000 + index * step)).collect()
}

/// Keeps all content: it is the harder case.
fn limits() -> Limits {
    Limits { content_bytes: Some(usize::MAX), ..Limits::default() }
}

/// Decodes events into chunks of rows, calling `done` with each.
fn decode_all(events: &[Event], builder: &mut RowBuilder, mut done: impl FnMut(Chunk)) -> Result<()> {
    let now = SystemClock.now_micros();
    for (offset, event) in (0..).zip(events) {
        let message = Message { topic: "bench", offset, payload: Some(&event.payload), ..Message::default() };
        if let Pushed::Quarantined(reason) = builder.push(&message, now) {
            return Err(Error::bug(format!("a generated event was rejected: {reason}")));
        }
        if builder.rows() == CHUNK_ROWS {
            done(builder.finish().0);
        }
    }
    if builder.rows() > 0 {
        done(builder.finish().0);
    }
    Ok(())
}

fn chunks(seed: u64, count: usize) -> Result<Vec<Chunk>> {
    let mut chunks = Vec::new();
    decode_all(&events(seed, Size::Small, count), &mut RowBuilder::new(limits()), |chunk| chunks.push(chunk))?;
    Ok(chunks)
}

/// Encodes rows into batches, with the columns that an aggregator receives in memory.
fn batches(chunks: &[Chunk]) -> Result<Vec<EncodedRows>> {
    let mut encoder = RowEncoder::new(Table::Events).handing_on(event_columns())?;
    let mut batches = Vec::new();
    for (n, chunk) in chunks.iter().enumerate() {
        encoder.push(chunk)?;
        if encoder.rows() >= BATCH_ROWS || n + 1 == chunks.len() {
            batches.push(encoder.finish()?);
        }
    }
    Ok(batches)
}

/// Measures the events per CPU-second of the simplest program: JSON to columns, and on to Parquet in memory.
pub(crate) fn plainest(bench: &Bench) -> Result<[f64; 2]> {
    let failed = |why: String| Error::bug(format!("the yardstick failed: {why}"));
    let events = events(bench.seed, Size::Small, (bench.sizes.crate_events / 4).max(1));
    let rounds = (bench.sizes.crate_events * 2 / events.len()).max(1);
    let rate = |work: &mut dyn FnMut() -> Result<()>| -> Result<f64> {
        work()?;
        let before = own_cpu_s()?;
        (0..rounds).try_for_each(|_| work())?;
        Ok((events.len() * rounds) as f64 / (own_cpu_s()? - before).max(0.01))
    };
    Ok([
        rate(&mut || yardstick::decode(&events, CHUNK_ROWS, drop).map_err(failed))?,
        rate(&mut || yardstick::parquet(&events, CHUNK_ROWS).map(|_| ()).map_err(failed))?,
    ])
}

/// Measures what redaction adds to JSON text to rows, where events have content: CPU times of both, in turns, within one run.
fn redaction(bench: &mut Bench, size: Size) -> Result<()> {
    let events = events(bench.seed, size, (bench.sizes.crate_events / 16).max(1));
    let rounds = (bench.sizes.crate_events / events.len()).max(1);
    let mut with = RowBuilder::new(limits());
    let mut without = RowBuilder::new(limits()).redacting(Arc::new(Redactor::that_redacts_nothing()));
    let cpu_s = |builder: &mut RowBuilder| -> Result<f64> {
        let before = own_cpu_s()?;
        (0..rounds).try_for_each(|_| decode_all(&events, builder, drop))?;
        Ok((own_cpu_s()? - before).max(0.01))
    };
    // The first round of each warms up.
    let mut shares = Vec::new();
    for _ in 0..=bench.sizes.runs {
        let plain = cpu_s(&mut without)?;
        shares.push(cpu_s(&mut with)? / plain - 1.0);
    }
    let name = format!("redaction, {}", name_of(size));
    bench.report.section("decode").note(name, &shares[1..], "of decoding without it", Some(Bound::AtMost(0.25)));
    Ok(())
}

/// Measures JSON text to rows.
pub(crate) fn decode(bench: &mut Bench) -> Result<()> {
    for (size, count, required) in [
        (Size::Small, bench.sizes.crate_events / 4, Some(Bound::AtLeast(500_000.0))),
        (Size::Large, bench.sizes.crate_events / 16, None),
    ] {
        let events = events(bench.seed, size, count.max(1));
        let bytes: usize = events.iter().map(|event| event.payload.len()).sum();
        let mut builder = RowBuilder::new(limits());
        let mut warm_up = |times: usize| -> Result<f64> {
            let before = own_cpu_s()?;
            for _ in 0..times {
                decode_all(&events, &mut builder, drop)?;
            }
            Ok(own_cpu_s()? - before)
        };
        warm_up(1)?;
        // Enough rounds that the clock's steps of 10 ms do not matter.
        let rounds = (bench.sizes.crate_events * 2 / events.len()).max(1);
        let (mut rates, mut megabytes) = (Vec::new(), Vec::new());
        for _ in 0..bench.sizes.runs {
            let cpu_s = warm_up(rounds)?.max(0.01);
            rates.push((events.len() * rounds) as f64 / cpu_s);
            megabytes.push((bytes * rounds) as f64 / cpu_s / 1e6);
        }
        let name = name_of(size);
        if size == Size::Small {
            let [plain, _] = plainest(bench)?;
            bench.report.section("decode").note("typed serde to columns (yardstick)", &[plain], "events / CPU-s", None);
            let ratios: Vec<f64> = rates.iter().map(|rate| rate / plain).collect();
            bench.report.section("decode").note(format!("JSON to rows, {name}"), &ratios, "× yardstick", None);
        }
        bench.report.section("decode").note(format!("JSON to rows, {name}"), &rates, "events / CPU-s", required);
        bench.report.section("decode").note(format!("JSON to rows, {name}"), &megabytes, "MB / CPU-s", None);
    }
    redaction(bench, Size::Large)?;
    redaction(bench, Size::Conversation)
}

async fn fresh_lake(bench: &Bench) -> Result<Lake> {
    let root = bench.scratch.join(unique_id().simple().to_string());
    Lake::open(&root.display().to_string(), &StorageOptions::default()).await
}

/// Measures rows to durable Parquet files.
pub(crate) async fn parquet(bench: &mut Bench) -> Result<()> {
    let chunks = chunks(bench.seed, bench.sizes.crate_events)?;
    let rows: usize = chunks.iter().map(|chunk| chunk.rows).sum();
    let lake = fresh_lake(bench).await?;
    let (mut rates, mut sizes) = (Vec::new(), Vec::new());
    for _ in 0..bench.sizes.runs {
        let before = own_cpu_s()?;
        let mut bytes = 0;
        for batch in batches(&chunks)? {
            bytes += lake.store(&batch).await?.iter().map(|file| file.file.size).sum::<i64>();
        }
        rates.push(rows as f64 / (own_cpu_s()? - before).max(0.01));
        sizes.push(bytes as f64 / rows as f64);
    }
    bench.report.section("parquet").note("rows to durable files, events of 0.8 kB", &rates, "events / CPU-s", None);
    bench.report.section("parquet").note("size of a row in Parquet", &sizes, "bytes", None);
    Ok(())
}

/// Commits rows to `events`, as ingest would.
pub(crate) async fn commit(lake: &Lake, files: &[WrittenFile], from: i64) -> Result<Uuid> {
    let log = lake.log(Table::Events);
    let on = log.load().await?;
    let rows: i64 = files.iter().map(|file| file.file.rows).sum();
    let commit = Commit {
        uuid: unique_id(),
        advances: vec![Advance { app_id: "bench/t/0".to_owned(), expected: on.next("bench/t/0"), next: from + rows }],
        files: files.iter().map(|file| file.file.clone()).collect(),
        operation: "ingest",
        ranges: Vec::new(),
        facts: serde_json::Map::new(),
    };
    match log.try_commit(&on, &commit).await? {
        Outcome::Committed(_) => Ok(commit.uuid),
        other => Err(Error::bug(format!("a commit without concurrent writers ended as {other:?}"))),
    }
}

/// Measures rows of `events` to rows of `metrics`: handed over in memory, as in one process, and read back from
/// Parquet.
pub(crate) async fn aggregate(bench: &mut Bench) -> Result<()> {
    let batches = batches(&chunks(bench.seed, bench.sizes.crate_events)?)?;
    let rows: usize = batches.iter().map(EncodedRows::rows).sum();
    for handed_over in [true, false] {
        let mut rates = Vec::new();
        for _ in 0..bench.sizes.runs {
            let lake = fresh_lake(bench).await?;
            let handover = handed_over.then(|| Handover::new(HANDOVER_BYTES, event_columns()));
            let mut aggregator =
                Box::pin(Aggregator::open(&lake, AggregatorSettings::default(), handover.clone(), &Registry::new()))
                    .await?;
            let (mut cpu_s, mut next) = (0.0, 0);
            for batch in &batches {
                let files = lake.store(batch).await?;
                let id = commit(&lake, &files, next).await?;
                next += batch.rows() as i64;
                if let Some(handover) = &handover {
                    handover.offer(id, files);
                }
                // One step per commit, as under live traffic.
                let before = own_cpu_s()?;
                Box::pin(aggregator.run_until_caught_up()).await?;
                cpu_s += own_cpu_s()? - before;
            }
            rates.push(rows as f64 / cpu_s.max(0.01));
        }
        let how = if handed_over { "handed over in memory" } else { "read back from Parquet" };
        bench.report.section("aggregate").note(format!("events to metrics, {how}"), &rates, "events / CPU-s", None);
    }
    Ok(())
}
