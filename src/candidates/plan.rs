//! `bellwether candidates plan`: what a weekly budget would give.

use std::process::ExitCode;

use bellwether_base::{Error, Result, Week};
use bellwether_evals::outlook::{Outlook, Stratum, outlook};
use bellwether_evals::{EvalsSettings, evaluate};
use bellwether_queries::{Session, SessionSettings};
use clap::Args;

use crate::root::{RootArgs, open_to_read};
use crate::screen;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bellwether candidates plan --config bellwether.toml --budget 100
  bellwether candidates plan --root bellwether-data --budget 30 --week 2026-W48 --json

Nothing is written. The role `evals` takes these runs if its configuration has this budget.")]
pub(crate) struct PlanArgs {
    /// Runs to review in the week [default: `evals.weekly_budget`].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    budget: Option<u32>,
    /// Most runs of one failure signature [default: `evals.per_signature`].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    per_signature: Option<u32>,
    /// Week, such as 2026-W48 [default: the newest week that has runs].
    #[arg(long, value_name = "WEEK")]
    week: Option<Week>,
    /// Most strata in the table.
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: usize,
    /// Print JSON, with all strata.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    root: RootArgs,
}

/// Prints the outlook of a week.
///
/// # Errors
/// `Config` if there is no such week, or no run in it; `Unavailable` if storage does not respond.
pub(super) async fn run(args: &PlanArgs) -> Result<ExitCode> {
    let root = args.root.resolve()?;
    let configured = root.config.as_ref().map_or_else(EvalsSettings::default, |config| config.evals.sampler.clone());
    let settings = EvalsSettings {
        weekly_budget: args.budget.unwrap_or(configured.weekly_budget),
        per_signature: args.per_signature.unwrap_or(configured.per_signature),
        ..configured
    };
    let lake = open_to_read(&root.uri, &root.options).await?;
    let session = Session::open(&lake, SessionSettings::default()).await?;
    let week = week(&session, args.week).await?;
    let outlook = Box::pin(outlook(&session, week, &settings)).await?;
    if args.json {
        let json = serde_json::to_string_pretty(&outlook)
            .map_err(|source| Error::bug("the plan is not JSON").with_source(source))?;
        return crate::print(&json);
    }
    crate::print(&shown(&outlook, args.limit, screen::width().unwrap_or(super::WIDE)))
}

/// Returns the week to plan: the named one, or the newest.
async fn week(session: &Session, named: Option<Week>) -> Result<Week> {
    let weeks = evaluate::all_weeks(session).await?;
    let newest = weeks.last().copied().ok_or_else(|| {
        Error::config("there are no runs to sample").with_hint("`bellwether ingest` reads them from Kafka")
    })?;
    let week = named.unwrap_or(newest);
    if weeks.contains(&week) {
        return Ok(week);
    }
    let known: Vec<String> = weeks.iter().rev().take(5).map(Week::to_string).collect();
    Err(Error::config(format!("no run ended in {week}"))
        .with_hint(format!("the newest weeks are {}", known.join(", "))))
}

fn shown(outlook: &Outlook, limit: usize, width: usize) -> String {
    let Outlook { week, runs, budget, per_signature, taken, critical, .. } = outlook;
    let mut lines = vec![format!(
        "{week}: {taken} of {runs} runs are taken, with a budget of {budget} and at most {per_signature} of a failure signature."
    )];
    if *critical > 0 {
        let beyond = match outlook.over_budget {
            0 => String::new(),
            over => format!("; {over} exceed the budget"),
        };
        lines.push(format!("{critical} are critical and taken whatever the budget{beyond}."));
    }
    if outlook.signatures > 0 {
        let (covered, all) = (outlook.signatures_covered, outlook.signatures);
        lines.push(match covered == all {
            true => format!("Each of the {all} failure signatures is seen at least once."),
            false => format!("{covered} of {all} failure signatures are seen for certain; a larger budget covers all."),
        });
    }
    let headers =
        ["class", "runs", "taken", "probability", "capped", "(tenant /) task / release / stage"].map(str::to_owned);
    let rows: Vec<Vec<screen::Value>> = outlook.strata.iter().take(limit).map(row).collect();
    lines.push(screen::table(&headers, &rows, width).text);
    lines.extend(
        outlook
            .strata
            .len()
            .checked_sub(limit)
            .filter(|more| *more > 0)
            .map(|more| format!("{more} more strata: add --limit {}, or --json", outlook.strata.len())),
    );
    lines.push("capped: runs left out because their failure signature has all its places".to_owned());
    lines.join("\n")
}

fn row(stratum: &Stratum) -> Vec<screen::Value> {
    let text = |text: &str| screen::Value { text: screen::one_line(text), ..screen::Value::default() };
    let number = |text: String| screen::Value { text, whole: true, right: true };
    let (place, class) = stratum.stratum.rsplit_once(" / ").unwrap_or(("", &stratum.stratum));
    let (low, high) = (stratum.probability_low, stratum.probability_high);
    let (low, high) = (probability(low), probability(high));
    let probability = if low == high { high } else { format!("{low} to {high}") };
    vec![
        text(class),
        number(stratum.runs.to_string()),
        number(count(stratum.taken)),
        number(probability),
        number(count(stratum.suppressed)),
        text(place),
    ]
}

/// Returns a probability with three digits after its leading zeros, so that a small one is not printed as 0.
fn probability(number: f64) -> String {
    let zeros = (1..12).take_while(|place| number > 0.0 && number * 10_f64.powi(*place) < 1.0).count();
    format!("{number:.0$}", zeros + 3)
}

/// Returns a count, or an expected one with a decimal.
fn count(number: f64) -> String {
    if (number - number.round()).abs() < 1e-6 { format!("{number:.0}") } else { format!("{number:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_a_terminal_and_shows_expectations_with_a_decimal() {
        let stratum = |kind, stratum: &str, taken, low, suppressed| Stratum {
            kind,
            stratum: stratum.to_owned(),
            runs: 120,
            critical: 0,
            taken,
            probability_low: low,
            probability_high: 0.25,
            suppressed,
        };
        let outlook = Outlook {
            week: "2026-W48".to_owned(),
            runs: 1200,
            budget: 50,
            per_signature: 5,
            taken: 52,
            critical: 2,
            over_budget: 2,
            signatures: 12,
            signatures_covered: 11,
            strata: vec![
                stratum("failure", "refund / a \u{1b}[31m release / canary / tool_failure", 5.0, 0.25, 115.0),
                stratum("failure", "a / b / full / judged_bad", 1.5, 0.125, 0.0),
                stratum("control", "a / b / full / success", 7.0, 0.25, 0.0),
            ],
        };
        let text = shown(&outlook, 2, 80);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        for part in ["52 of 1200", "2 exceed the budget", "11 of 12", "0.125 to 0.250", "1.5", "115", "1 more strata"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let printed = [1.0, 0.25, 0.0312, 0.000_123_4, 0.0].map(probability);
        assert_eq!(printed, ["1.000", "0.250", "0.0312", "0.000123", "0.000"]);
        assert!(!text.contains('\u{1b}') && !text.contains("success"), "{text}");
    }
}
