//! `bellwether evalset complete`: gives a case its input if its event had only a hash or a reference.

use std::path::PathBuf;
use std::process::ExitCode;

use bellwether_base::{Error, Result};
use bellwether_evals::cases::input_of;
use bellwether_evalsets::{EvalCase, Superseded};
use clap::Args;
use sha2::{Digest, Sha256};

use super::{SetArgs, read, redacted, redactor, write_next};

#[derive(Args, Debug)]
pub(crate) struct CompleteArgs {
    #[command(flatten)]
    pub(super) set: SetArgs,
    /// Id of the case.
    case: String,
    /// File with the input, text or JSON.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Configuration whose `[redaction]` applies [default: the default policy].
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    config: Option<PathBuf>,
}

/// Writes the next version of a set, in which a case has its input.
///
/// # Errors
/// `Config` if the set lacks the case, the case already has its input, or the file cannot be read, is empty or too long; `Data` if the
/// file does not have the hash that the case states.
pub(super) fn run(args: &CompleteArgs) -> Result<ExitCode> {
    let set = args.set.store().version(None)?;
    let Some(old) = set.cases().iter().find(|case| case.id == args.case) else {
        return Err(Error::config(format!("`{}` v{} has no case `{}`", set.name, set.version, args.case))
            .with_hint(format!("`bellwether evalset status {}` lists the cases without input", set.name)));
    };
    if old.erased {
        return Err(Error::config(format!("case `{}` was erased with its run", old.id))
            .with_hint("its input must not come back"));
    }
    if old.missing_content().is_none() {
        return Err(Error::config(format!("case `{}` has its input", old.id))
            .with_hint("another input is another case: `bellwether evalset create --from FILE`"));
    }
    let text = read(&args.input)?;
    let case = with_input(old, verified(old, &text)?);
    case.check()?;
    if case.input.is_empty() {
        return Err(Error::config(format!("`{}` has no text", args.input.display())).with_hint("nothing was written"));
    }
    write_next(&args.set, vec![redacted(&case, &*redactor(args.config.as_deref())?)?])
}

/// Returns the text if it has the hash that the case states, with or without its last newline, which an editor may have added.
fn verified<'t>(case: &EvalCase, text: &'t str) -> Result<&'t str> {
    let Some(stated) = &case.content_sha256 else { return Ok(text) };
    let hash = |text: &str| -> String { Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect() };
    let lines = [text, text.strip_suffix('\n').unwrap_or(text)];
    lines.into_iter().find(|text| hash(text).eq_ignore_ascii_case(stated.trim_start_matches("sha256:"))).ok_or_else(
        || {
            Error::data(format!("the file is not the input of case `{}`", case.id))
                .with_hint(format!("its SHA-256 is {}, but the case states {stated}", hash(text)))
        },
    )
}

/// Makes the next version of a case, with an input. Everything else stays as it was.
fn with_input(old: &EvalCase, text: &str) -> EvalCase {
    let mut case = EvalCase { input: input_of(text), version: old.version + 1, ..old.clone() };
    case.provenance.supersedes = Some(Superseded { version: old.version, reason: "input given by hand".to_owned() });
    case
}
