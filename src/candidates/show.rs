//! `bellwether candidates show`: a candidate with its run and the statements about it.

use std::process::ExitCode;

use bellwether_base::Result;
use bellwether_queries::{Session, SessionSettings};
use clap::Args;

use super::case::Case;
use super::content::Part;
use super::find;
use crate::root::{RootArgs, open_to_read};
use crate::screen;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bellwether candidates show 3fa9c01d --root bellwether-data
  bellwether candidates show 3fa9c01d --config bellwether.toml --fetch")]
pub(crate) struct ShowArgs {
    /// Id of the candidate, or its first characters.
    id: String,
    /// Fetch input and output that are stored elsewhere, by the command `evals.fetch_content`.
    #[arg(long)]
    fetch: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    root: RootArgs,
}

/// Shows a candidate.
///
/// # Errors
/// `Config` if there is no such candidate; with `--fetch`, as [`Part::fetch`].
pub(super) async fn run(args: &ShowArgs) -> Result<ExitCode> {
    let root = args.root.resolve()?;
    let command = root.config.as_ref().map(|config| config.evals.fetch_content.clone()).unwrap_or_default();
    let lake = open_to_read(&root.uri, &root.options).await?;
    let session = Session::open(&lake, SessionSettings::default()).await?;
    let candidate = find(&session, &args.id).await?;
    let mut case = Case::load(&session, candidate).await?;
    if args.fetch {
        for (name, part) in case.parts() {
            if matches!(part, Part::Elsewhere { .. }) {
                case.fetched.push((name, part.fetch(&command)?));
            }
        }
    }
    if args.json {
        let fetched: serde_json::Map<String, serde_json::Value> =
            case.fetched.iter().map(|(name, text)| ((*name).to_owned(), text.clone().into())).collect();
        let all = serde_json::json!({
            "candidate": case.row,
            "run": case.run,
            "statements": case.statements,
            "changes": case.changes.changes,
            "neighbours": case.neighbours,
            "fetched": fetched,
        });
        return crate::print(&format!("{all:#}"));
    }
    crate::print(&shown(&case, !command.is_empty(), screen::width().unwrap_or(super::WIDE)))
}

/// Returns a case as text.
fn shown(case: &Case, can_fetch: bool, width: usize) -> String {
    let candidate = &case.candidate;
    let mut state = candidate.state.replace('_', " ");
    if let (Some(person), Some(until)) = (&candidate.leased_by, candidate.leased_until) {
        state = format!("{state} by {} until {}", screen::one_line(person), crate::rules::time(until));
    }
    let mut lines = vec![format!("Candidate {} is {state}", candidate.candidate_id)];
    for section in case.sections(can_fetch) {
        lines.push(String::new());
        lines.push(screen::one_line(&section.title));
        for line in section.lines {
            lines.extend(screen::wrap(&line.text, width.saturating_sub(2)).into_iter().map(|text| format!("  {text}")));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidates::case::tests::example;

    #[test]
    fn a_case_is_printed_within_the_width_and_without_control_characters() {
        let text = shown(&example(), false, 60);
        assert!(text.lines().all(|line| unicode_width::UnicodeWidthStr::width(line) <= 60), "{text}");
        assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
        assert!(text.starts_with("Candidate 3fa9c01d00000000 is queued") && text.contains("👋 שלום"), "{text}");
    }
}
