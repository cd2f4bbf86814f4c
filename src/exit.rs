//! Exit codes, and how an error is told to a person.

use std::error::Error as StdError;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use bellwether_lake::{Error, ErrorKind};

/// Text of the table of codes, for `--help`.
pub(crate) const HELP: &str = "Exit codes:
  0    done; the answer is yes
  1    the answer is no: a check found problems, or a query failed
  2    the command line or the configuration is wrong
  3    Kafka or the tables cannot be reached, or a query reached a limit of time, memory or rows
  4    stored data contradicts itself; a person is needed
  70   a bug in bellwether
  130  stopped at once by a second signal";

/// Code of a stop by a second signal, as shells have it for an interrupt.
pub(crate) const INTERRUPTED: u8 = 130;

/// Characters of a cause that are told: whoever needs all of it finds it in the log.
const CAUSE_CHARACTERS: usize = 200;

/// The answer is no.
pub(crate) const NO: u8 = 1;

/// What is needed cannot be had: a broker, the tables, memory or time.
pub(crate) const OUT_OF_REACH: u8 = 3;

/// Ends the process as it stands, without a step of its own.
pub(crate) fn at_once(code: u8) -> ! {
    #[expect(unsafe_code, reason = "the only way out that runs nothing on its way, and so needs no memory")]
    // SAFETY: it takes a number and does not come back.
    unsafe {
        nix::libc::_exit(i32::from(code))
    }
}

/// Which code an error ends the program with.
pub(crate) fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::BadEvent => NO,
        ErrorKind::Config => 2,
        ErrorKind::Unavailable | ErrorKind::Fenced => OUT_OF_REACH,
        ErrorKind::Data => 4,
        ErrorKind::Bug => 70,
    }
}

/// Tells an error on standard error and returns its exit code.
pub(crate) fn report(error: &Error) -> ExitCode {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = render(error, colour);
    // Where standard error is closed there is nobody left to tell; the code still says it.
    drop(std::io::stderr().write_all(text.as_bytes()));
    ExitCode::from(code(error.kind()))
}

fn render(error: &Error, colour: bool) -> String {
    let (red, dim, plain) = if colour { ("\x1b[1;31m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
    let mut text = format!("{red}error:{plain} {}\n", error.message());
    if let Some(hint) = error.hint() {
        text.push_str(&format!("  hint: {hint}\n"));
    }
    let mut cause = StdError::source(error);
    let mut told = String::new();
    while let Some(source) = cause {
        let whole = source.to_string();
        // Many libraries repeat their cause in their own message: one telling is enough.
        if !told.contains(&whole) {
            let line = whole.lines().next().unwrap_or_default();
            let cut = line.chars().count() > CAUSE_CHARACTERS;
            let line: String = line.chars().take(CAUSE_CHARACTERS).collect();
            text.push_str(&format!("{dim}  because: {line}{}{plain}\n", if cut { "…" } else { "" }));
            told = whole;
        }
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_hint_and_its_causes() {
        let error = Error::unavailable("broker `b:9092` does not answer")
            .with_hint("check `kafka.brokers`")
            .with_source(std::io::Error::other("connection refused"));
        let expected =
            "error: broker `b:9092` does not answer\n  hint: check `kafka.brokers`\n  because: connection refused\n";
        assert_eq!(render(&error, false), expected);
        assert_eq!(code(error.kind()), 3);
    }
}
