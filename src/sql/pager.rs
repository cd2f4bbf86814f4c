//! The pager: results that are longer than the screen go through another program, by which one scrolls.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::process::{Child, Command, Stdio};

use unicode_width::UnicodeWidthStr;

/// The pager, if `$PAGER` names none: lines are not wrapped, and what was shown stays on the screen.
const DEFAULT: &str = "less -SRFX";

/// Exit code of a shell that does not find a command.
const NOT_FOUND: i32 = 127;

/// Returns the command of the pager, or `None` if there is none: `$PAGER` is empty, or it is not set and `less` is missing.
pub(super) fn command() -> Option<String> {
    match std::env::var("PAGER") {
        Ok(command) => Some(command).filter(|command| !command.trim().is_empty()),
        Err(_) => is_installed("less", std::env::var_os("PATH").as_deref()).then(|| DEFAULT.to_owned()),
    }
}

fn is_installed(program: &str, path: Option<&OsStr>) -> bool {
    path.is_some_and(|path| std::env::split_paths(path).any(|folder| folder.join(program).is_file()))
}

/// The screen: a text that fits goes to standard output, a longer one to the pager as it arrives.
pub(super) struct Screen {
    pager: Option<String>,
    columns: usize,
    rows: usize,
    state: State,
}

enum State {
    /// May still fit.
    Held(Vec<u8>),
    Direct,
    Paged(Child),
}

// === impl Screen ===

impl Screen {
    /// Takes the size of the terminal. Without a pager, or if standard output is no terminal, everything goes there.
    pub(super) fn new(pager: Option<&str>) -> Self {
        let pager = pager.filter(|_| io::stdout().is_terminal());
        let (columns, rows) = crossterm::terminal::size().unwrap_or((80, 24));
        Self::of_size(pager, usize::from(columns), usize::from(rows))
    }

    fn of_size(pager: Option<&str>, columns: usize, rows: usize) -> Self {
        let state = if pager.is_some() { State::Held(Vec::new()) } else { State::Direct };
        Self { pager: pager.map(str::to_owned), columns: columns.max(1), rows, state }
    }

    /// Shows what is left and waits until the person has left the pager.
    ///
    /// # Errors
    /// If the text cannot be written, or there is no such pager.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.state, State::Direct) {
            State::Direct => io::stdout().flush(),
            State::Held(text) => {
                io::stdout().write_all(&text)?;
                io::stdout().flush()
            }
            State::Paged(mut child) => {
                drop(child.stdin.take());
                if child.wait()?.code() == Some(NOT_FOUND) {
                    let pager = self.pager.as_deref().unwrap_or_default();
                    return Err(io::Error::other(format!("there is no pager `{pager}`: set PAGER, or type \\pager")));
                }
                Ok(())
            }
        }
    }

    /// Returns true if a text and the next prompt fit on the screen.
    fn fits(&self, text: &[u8]) -> bool {
        let text = String::from_utf8_lossy(text);
        let lines: usize = text.lines().map(|line| line.width().div_ceil(self.columns).max(1)).sum();
        lines < self.rows
    }

    fn open(pager: &str) -> io::Result<Child> {
        let mut command = Command::new("sh");
        command.args(["-c", pager]).stdin(Stdio::piped());
        // Frames of tables are not ASCII, which `less` would print as codes in the locale C.
        if std::env::var_os("LESSCHARSET").is_none() {
            command.env("LESSCHARSET", "utf-8");
        }
        command.spawn()
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let State::Held(text) = &mut self.state {
            text.extend_from_slice(bytes);
            let text = std::mem::take(text);
            if self.fits(&text) {
                self.state = State::Held(text);
                return Ok(bytes.len());
            }
            let pager = self.pager.as_deref().unwrap_or_default();
            let mut child = Self::open(pager)?;
            let written = child.stdin.as_mut().map_or(Ok(()), |stdin| stdin.write_all(&text));
            self.state = State::Paged(child);
            written?;
            return Ok(bytes.len());
        }
        match &mut self.state {
            State::Paged(child) => child.stdin.as_mut().map_or(Ok(bytes.len()), |stdin| stdin.write(bytes)),
            _ => io::stdout().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.state {
            State::Held(_) => Ok(()),
            State::Direct => io::stdout().flush(),
            State::Paged(child) => child.stdin.as_mut().map_or(Ok(()), Write::flush),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_fits_is_held_and_a_longer_one_is_paged() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("paged");
        let pager = format!("cat > {}", file.display());
        let mut screen = Screen::of_size(Some(&pager), 10, 4);
        // A line of 20 columns takes two of the four rows.
        screen.write_all(b"12345678901234567890\n1\n").expect("is held");
        assert!(matches!(screen.state, State::Held(_)));
        screen.write_all(b"2\n3\n").expect("is paged");
        screen.write_all(b"4\n").expect("is paged");
        screen.finish().expect("the pager ends");
        assert_eq!(std::fs::read_to_string(file).expect("was paged"), "12345678901234567890\n1\n2\n3\n4\n");
    }

    #[test]
    fn leaving_the_pager_early_closes_the_pipe() {
        let mut screen = Screen::of_size(Some("true"), 80, 2);
        let written = (0..100_000).find_map(|_| screen.write_all(b"a line of text\n").err());
        assert_eq!(written.expect("the pipe is closed").kind(), io::ErrorKind::BrokenPipe);
        screen.finish().expect("the pager has ended");
    }

    #[test]
    fn a_pager_that_does_not_exist_is_named() {
        let mut screen = Screen::of_size(Some("no-such-pager-here 2> /dev/null"), 80, 2);
        // The shell may have ended by now.
        drop(screen.write_all(b"1\n2\n3\n"));
        let error = screen.finish().expect_err("no pager");
        assert!(error.to_string().contains("no-such-pager-here"), "{error}");
    }

    #[test]
    fn a_program_is_looked_for_in_the_path() {
        assert!(is_installed("sh", Some(OsStr::new("/nowhere:/bin"))));
        assert!(!is_installed("no-such-pager-here", Some(OsStr::new("/bin"))));
        assert!(!is_installed("sh", None));
    }
}
