//! Where results go: standard output, a file, or the screen of the prompt.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use bellwether_base::{Error, Result};

use super::pager::Screen;
use super::waiting::Waiting;
use crate::screen;

/// A target of results.
pub(super) enum Sink {
    /// Standard output.
    Stdout,
    /// A file that is created when its first result comes: a wrong statement leaves an older file alone.
    New(PathBuf),
    /// A file.
    File(File),
    /// The terminal, by way of the pager for long results.
    Screen(Screen),
}

// === impl Sink ===

impl Sink {
    /// Creates the file, if there is none yet.
    ///
    /// # Errors
    /// As [`create`].
    pub(super) fn open(&mut self) -> Result<()> {
        if let Self::New(path) = self {
            *self = Self::File(create(path)?);
        }
        Ok(())
    }

    /// Returns true if a person sees the results at once.
    pub(super) fn is_terminal(&self) -> bool {
        match self {
            Self::Stdout | Self::Screen(_) => io::stdout().is_terminal(),
            Self::New(_) | Self::File(_) => false,
        }
    }

    /// Returns the width of the terminal that shows the results.
    pub(super) fn width(&self) -> Option<usize> {
        if self.is_terminal() { screen::width() } else { None }
    }

    /// Writes what is held back. For a pager it waits until the person has left it.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Screen(screen) => screen.finish(),
            other => other.flush(),
        }
    }

    /// Returns true if rows do not hide the line of progress: they go to a file.
    fn is_file(&self) -> bool {
        match self {
            Self::Stdout => is_regular_file(),
            Self::New(_) | Self::File(_) => true,
            Self::Screen(_) => false,
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout => io::stdout().write(bytes),
            Self::New(_) => Err(io::ErrorKind::NotConnected.into()),
            Self::File(file) => file.write(bytes),
            Self::Screen(screen) => screen.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().flush(),
            Self::New(_) => Ok(()),
            Self::File(file) => file.flush(),
            Self::Screen(screen) => screen.flush(),
        }
    }
}

/// Returns true if standard output is a file. A pipe may lead to a pager, which shares the terminal.
fn is_regular_file() -> bool {
    use std::os::fd::AsFd;
    let copy = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    copy.and_then(|file| file.metadata()).is_ok_and(|metadata| metadata.is_file())
}

/// A sink that clears the line of progress before its first bytes, unless they go to a file.
pub(super) struct Clearing<'a> {
    sink: &'a mut Sink,
    waiting: &'a Waiting,
    file: bool,
}

// === impl Clearing ===

impl<'a> Clearing<'a> {
    pub(super) fn new(sink: &'a mut Sink, waiting: &'a Waiting) -> Self {
        let file = sink.is_file();
        Self { sink, waiting, file }
    }
}

impl Write for Clearing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.file {
            self.waiting.end();
        }
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Creates a file, in place of one that exists.
///
/// # Errors
/// `Config` if it cannot be written.
pub(super) fn create(path: &Path) -> Result<File> {
    File::create(path).map_err(|source| Error::config(format!("cannot write `{}`", path.display())).with_source(source))
}

/// Returns a path as a person writes it: `~/` is the home folder.
pub(super) fn path(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(text),
    }
}
