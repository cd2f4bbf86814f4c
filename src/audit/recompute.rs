//! `bellwether audit --recompute`: compares each derived table with what it was made of, bit for bit.

use std::collections::BTreeMap;

use bellwether_aggregate::recompute::{self, PART_ROWS, Sources};
use bellwether_aggregate::rollup::compare::{Sides, compare};
use bellwether_aggregate::{Compared, recomputed_from};
use bellwether_audit::{Basis, Check};
use bellwether_base::{ErrorKind, Result};
use bellwether_lake::rollup::{kept_from, rolled_generation, rolled_to};
use bellwether_lake::{AddedFile, Lake, Layout, RollUp, Snapshot};
use bellwether_tables::{AppId, Table};

const TENANT: &str = "a tenant is being erased: run `bellwether erase --tenant` again";

/// Checks that `metrics` equals the same SQL over the events it has read (L-4).
pub(super) async fn check_metrics(lake: &Lake, basis: Option<&Basis>) -> Result<Check> {
    let Some(basis) = basis else {
        return Ok(Check::skipped("metrics", "cannot determine which `events` the table `metrics` has read"));
    };
    if let Some(why) = being_erased(lake, basis).await? {
        return Ok(Check::skipped("metrics", why));
    }
    let compared = async {
        let sources = match shards_of(lake, basis).await? {
            Some(shards) => (shards, erased_of(&basis.events_applications)),
            None => (vec![basis.events.clone()], basis.erased),
        };
        // Older windows may lack events, or partial rows, that were kept for long enough.
        let kept_from =
            kept_from(&snapshot(&basis.applications)).max(recomputed_from(&snapshot(&basis.events_applications)));
        let sources = Sources { shards: sources.0, erased: sources.1, kept_from, part_rows: PART_ROWS };
        Box::pin(recompute::compare(lake, basis.metrics.clone(), &sources)).await
    };
    let mut check = Check::new("metrics");
    match compared.await {
        Ok(Compared { groups, saturated, difference }) => {
            check.counts.push(("groups", i64::try_from(groups).unwrap_or(i64::MAX)));
            if saturated > 0 {
                check.counts.push(("saturated", i64::try_from(saturated).unwrap_or(i64::MAX)));
            }
            check.counts.push(("events_version", basis.next - 1));
            check.summary = match basis.next {
                0 => "`metrics` is empty: aggregate has not read any `events` yet".to_owned(),
                next => {
                    format!("{groups} groups equal the same SQL over `events` up to version {}, bit for bit", next - 1)
                }
            };
            if saturated > 0 {
                check
                    .summary
                    .push_str(&format!(", except for {saturated} groups with saturated sums (column `saturated`)"));
            }
            if let Some(what) = difference {
                let hint = "run `bellwether rebuild`, which recomputes `metrics` and `releases` from `events`";
                check.findings.add("metrics", what, hint);
            }
        }
        // The check `files` names the file.
        Err(error) if matches!(error.kind(), ErrorKind::Data | ErrorKind::Bug) => {
            check.skipped = Some(format!("cannot read the tables: {}", error.chain()));
        }
        Err(error) => return Err(error),
    }
    Ok(check)
}

/// Returns the files of `events` that each shard has read, or `None` if there is only one shard.
async fn shards_of(lake: &Lake, basis: &Basis) -> Result<Option<Vec<Vec<AddedFile>>>> {
    let metrics = Snapshot::new(0, basis.applications.clone());
    let Some(layout) = Layout::of(&metrics).filter(|layout| layout.shards > 1) else { return Ok(None) };
    let mut shards = Vec::new();
    for (_, next) in layout.positions(&metrics) {
        shards.push(if next == 0 { Vec::new() } else { lake.files_at(Table::Events, next - 1).await? });
    }
    Ok(Some(shards))
}

fn erased_of(events: &BTreeMap<String, i64>) -> Option<i64> {
    events.get(&AppId::Erased.to_string()).copied()
}

fn tenants_of(applications: &BTreeMap<String, i64>) -> Option<i64> {
    applications.get(&AppId::ErasedTenants.to_string()).copied()
}

/// Returns why `metrics` cannot be compared while an erasure is under way, if one is.
async fn being_erased(lake: &Lake, basis: &Basis) -> Result<Option<&'static str>> {
    if tenants_of(&basis.events_applications) != tenants_of(&basis.applications) {
        return Ok(Some(TENANT));
    }
    let metrics = snapshot(&basis.applications);
    let Some(layout) = Layout::of(&metrics).filter(|layout| layout.shards > 1) else { return Ok(None) };
    if erased_of(&basis.events_applications).is_none() {
        return Ok(None);
    }
    // The record of erased contributions is not divided by shard, so every shard must have read the newest erasure.
    let log = lake.log(Table::Events);
    let newest = log.latest_version().await?;
    let first = layout.positions(&metrics).map(|(_, next)| next).min().unwrap_or(0);
    for version in first..=newest {
        if log.entry(version).await?.is_some_and(|entry| entry.erases()) {
            return Ok(Some("an aggregator has not read an erasure yet; try again in a few seconds"));
        }
    }
    Ok(None)
}

fn snapshot(applications: &BTreeMap<String, i64>) -> Snapshot {
    Snapshot::new(0, applications.clone())
}

/// Checks that each roll-up equals its source, folded by its windows.
pub(super) async fn check_rollups(lake: &Lake, basis: Option<&Basis>) -> Result<Check> {
    const NAME: &str = "rollups";
    let Some(basis) = basis else { return Ok(Check::skipped(NAME, "cannot determine what `metrics` has read")) };
    let mut check = Check::new(NAME);
    let mut groups = 0;
    for rollup in RollUp::ALL {
        let name = rollup.table().name();
        let sides = match sides(rollup, basis) {
            Ok(sides) => sides,
            Err(note) => {
                check.notes.push(note);
                continue;
            }
        };
        match Box::pin(compare(lake, sides)).await {
            Ok(Compared { groups: compared, saturated, difference }) => {
                groups += compared;
                check.counts.push((name, i64::try_from(compared).unwrap_or(i64::MAX)));
                if saturated > 0 {
                    check
                        .notes
                        .push(format!("`{name}`: {saturated} groups have saturated sums, which are not compared"));
                }
                if let Some(what) = difference {
                    let hint = "run `bellwether rebuild`, which makes the roll-ups again";
                    check.findings.add(name, what, hint);
                }
            }
            // The check `files` names the file.
            Err(error) if matches!(error.kind(), ErrorKind::Data | ErrorKind::Bug) => {
                check.skipped = Some(format!("cannot read the tables: {}", error.chain()));
            }
            Err(error) => return Err(error),
        }
    }
    check.summary = format!("{groups} groups of the roll-ups equal their sources, bit for bit");
    Ok(check)
}

/// Returns a roll-up and its source, or the reason why there is nothing to compare.
fn sides(rollup: RollUp, basis: &Basis) -> std::result::Result<Sides, String> {
    let name = rollup.table().name();
    let Some(own) = basis.rollups.get(&rollup.table()) else { return Err(format!("`{name}` does not exist")) };
    let (source_numbers, source) = match rollup {
        RollUp::Hours => (&basis.applications, &basis.metrics),
        RollUp::Days => {
            let hourly = basis.rollups.get(&Table::MetricsHourly);
            let hourly = hourly.ok_or_else(|| format!("`{name}` has no source"))?;
            (&hourly.applications, &hourly.files)
        }
    };
    if tenants_of(&own.applications) != tenants_of(source_numbers) {
        return Err(format!("`{name}`: {TENANT}"));
    }
    let (on, source_on) = (snapshot(&own.applications), snapshot(source_numbers));
    let Some(generation) = rolled_generation(&on) else { return Err(format!("`{name}` holds nothing yet")) };
    if rollup.source_generation(&source_on) != Some(generation) {
        return Err(format!("`{name}` was made from another rebuild of `metrics`; the role rollup makes it again"));
    }
    Ok(Sides {
        rollup,
        files: own.files.clone(),
        source: source.clone(),
        rolled_to: rolled_to(&on),
        kept_from: kept_from(&source_on).max(kept_from(&on)),
    })
}
