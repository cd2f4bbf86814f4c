//! The program in a terminal: what a person types, and what the screen then shows.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::pty::{Winsize, openpty};

use crate::common::until_or;

/// Rows and columns of the screen.
const SIZE: (u16, u16) = (24, 80);

/// What the prompt shows when it waits for a statement.
pub(super) const PROMPT: &str = "bellwether>";

pub(super) const CTRL_C: &str = "\x03";
pub(super) const CTRL_D: &str = "\x04";
pub(super) const CTRL_R: &str = "\x12";
pub(super) const UP: &str = "\x1b[A";

/// A program on a terminal of its own.
pub(super) struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
}

// === impl Terminal ===

impl Terminal {
    /// Starts the program. It is the leader of a session, so that Ctrl-C reaches it as a signal.
    pub(super) fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let size = Winsize { ws_row: SIZE.0, ws_col: SIZE.1, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).expect("a pseudo-terminal");
        let end = || Stdio::from(pair.slave.try_clone().expect("a copy"));
        let child = Command::new("setsid")
            .args(["--ctty", "--wait", env!("CARGO_BIN_EXE_bellwether")])
            .args(arguments)
            .env_remove("RUST_LOG")
            .env_remove("BELLWETHER_CONFIG")
            .env_remove("NO_COLOR")
            .env_remove("PAGER")
            .env("TERM", "xterm-256color")
            .envs(environment.iter().copied())
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("`setsid` of util-linux starts the program");
        drop(pair.slave);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(SIZE.0, SIZE.1, 0)));
        let reader = Some(read(pair.master.try_clone().expect("a copy"), Arc::clone(&screen)));
        Self { child, keyboard: File::from(pair.master), screen, reader }
    }

    pub(super) fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("the terminal takes keys");
    }

    /// Returns the text of the screen.
    pub(super) fn screen(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen().contents()
    }

    /// Waits until the screen is as expected, and returns its text.
    pub(super) fn until(&self, expected: &str, is: impl Fn(&str) -> bool) -> String {
        let check = || Some(self.screen()).filter(|screen| is(screen));
        until_or(check, || format!("{expected}; the screen shows\n{}", self.screen()))
    }

    /// Waits until the screen shows a text.
    pub(super) fn shows(&self, text: &str) -> String {
        self.until(&format!("`{text}` on the screen"), |screen| screen.contains(text))
    }

    /// Waits until the prompt is ready, with nothing typed, and returns the text of the screen.
    pub(super) fn ready(&self) -> String {
        self.until("the prompt is ready", |screen| screen.trim_end().ends_with(PROMPT))
    }

    /// Clears the screen, types a line and waits until the prompt is ready again. Returns the text of the screen.
    pub(super) fn enters(&mut self, line: &str) -> String {
        self.types("\x0c");
        self.until("a clear screen", |screen| screen.trim() == PROMPT);
        self.types(&format!("{line}\r"));
        self.until(&format!("an answer to `{line}`"), |screen| {
            screen.trim() != PROMPT && screen.trim_end().ends_with(PROMPT)
        })
    }

    /// Waits until the program has ended, and returns its exit code.
    pub(super) fn ends(mut self) -> Option<i32> {
        let ended = || self.child.try_wait().expect("a child of this process");
        let mut ended = ended;
        until_or(&mut ended, || "the program does not end".to_owned()).code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Closing the terminal hangs up on the program.
        drop(self.child.kill());
        drop(self.child.wait());
        if let Ok(null) = File::open("/dev/null") {
            self.keyboard = null;
        }
        drop(self.reader.take());
    }
}

/// Shows what the program writes on the screen.
fn read(terminal: OwnedFd, screen: Arc<Mutex<vt100::Parser>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut terminal = File::from(terminal);
        let mut bytes = [0; 4096];
        // Linux reports an error once the program has closed its end.
        while let Ok(count) = terminal.read(&mut bytes) {
            if count == 0 {
                break;
            }
            screen.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..count]);
        }
    })
}
