//! Exit codes, and the report of an error on standard error.

use std::error::Error as StdError;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use bellwether_base::{Error, ErrorKind};

/// Table of exit codes for `--help`.
pub(crate) const HELP: &str = "Exit codes:
  0    success
  1    a check failed, an event was rejected, or a query is invalid
  2    the command line or the configuration is invalid
  3    Kafka or the tables are unreachable, or a query exceeded its time, memory or row limit
  4    stored data is inconsistent and needs investigation
  5    an erasure is not complete: objects that hold the subject are left
  64   `bellwether gate` was asked wrongly: 0, 1 and 2 are its decisions
  70   internal error: a bug in bellwether
  130  stopped at once by a second signal; `bellwether sql` stops at the first";

/// Stopped by a second signal; shells use this code for an interrupt.
pub(crate) const INTERRUPTED: u8 = 130;

/// Characters of a cause that are printed. The log has all of it.
const CAUSE_CHARACTERS: usize = 200;

/// A check failed, an event was rejected, or a query is invalid.
pub(crate) const FAILED: u8 = 1;

/// A broker or the tables are unreachable, or a limit was exceeded.
pub(crate) const UNAVAILABLE: u8 = 3;

/// Objects that hold an erased subject are left.
pub(crate) const LEFT: u8 = 5;

/// The command line, the configuration or the policy of a gate is invalid: `EX_USAGE` of sysexits.h. The usual code 2 would look like
/// a decision to roll back.
pub(crate) const MISUSED: u8 = 64;

/// Ends the process at once, without running destructors or exit handlers.
pub(crate) fn at_once(code: u8) -> ! {
    #[expect(unsafe_code, reason = "the only exit that runs nothing first, and so allocates nothing")]
    // SAFETY: takes a number and does not return.
    unsafe {
        nix::libc::_exit(i32::from(code))
    }
}

/// Returns the exit code for an error.
pub(crate) fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::BadEvent => FAILED,
        ErrorKind::Config => 2,
        ErrorKind::Unavailable | ErrorKind::Fenced => UNAVAILABLE,
        ErrorKind::Data => 4,
        ErrorKind::Bug => 70,
    }
}

/// Prints an error to standard error and returns its exit code.
pub(crate) fn report(error: &Error) -> ExitCode {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = render(error, colour);
    // If standard error is closed, the exit code still reports the failure.
    drop(std::io::stderr().write_all(text.as_bytes()));
    ExitCode::from(code(error.kind()))
}

/// Prints a warning to standard error.
pub(crate) fn warn(what: &str, hint: &str) {
    // If standard error is closed, no one reads it.
    drop(std::io::stderr().write_all(format!("warning: {what}\n  hint: {hint}\n").as_bytes()));
}

fn render(error: &Error, colour: bool) -> String {
    let (red, dim, plain) = if colour { ("\x1b[1;31m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
    let mut text = format!("{red}error:{plain} {}\n", error.message());
    if let Some(hint) = error.hint() {
        text.push_str(&format!("  hint: {hint}\n"));
    }
    let mut cause = StdError::source(error);
    let mut printed = String::new();
    while let Some(source) = cause {
        let whole = source.to_string();
        // Many libraries repeat their cause in their own message; print it once.
        if !printed.contains(&whole) {
            let line = whole.lines().next().unwrap_or_default();
            let cut = line.chars().count() > CAUSE_CHARACTERS;
            let line: String = line.chars().take(CAUSE_CHARACTERS).collect();
            text.push_str(&format!("{dim}  because: {line}{}{plain}\n", if cut { "…" } else { "" }));
            printed = whole;
        }
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_printed_with_its_hint_and_causes() {
        let error = Error::unavailable("broker `b:9092` does not answer")
            .with_hint("check `kafka.brokers`")
            .with_source(std::io::Error::other("connection refused"));
        let expected =
            "error: broker `b:9092` does not answer\n  hint: check `kafka.brokers`\n  because: connection refused\n";
        assert_eq!(render(&error, false), expected);
        assert_eq!(code(error.kind()), 3);
    }
}
