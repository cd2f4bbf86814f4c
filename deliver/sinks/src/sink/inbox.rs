//! The local inbox: a file of JSON Lines, each a document as the webhook sends it, and readable text on standard output.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bellwether_base::{Clock, Result};
use serde::{Deserialize, Serialize};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, SeekFrom};
use tokio::sync::Mutex;

use crate::document::document;
use crate::render::{Detail, Message, terminal};
use crate::sink::{Failure, Notice, Receipt, Sink};
use crate::time;

const KIND: &str = "inbox";

/// Longest line.
const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;

/// Width of text on standard output.
const WIDTH: usize = 100;

/// Settings of the inbox. With neither, it would do nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InboxSettings {
    /// The file, created if it is not there. Its folder must exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Also prints each message on standard output.
    #[serde(default)]
    pub stdout: bool,
}

pub(crate) struct Inbox {
    settings: InboxSettings,
    clock: Arc<dyn Clock>,
    /// One line at a time.
    writing: Mutex<()>,
}

// === impl InboxSettings ===

impl InboxSettings {
    pub(crate) fn problems(&self, problems: &mut Vec<String>) {
        if self.path.is_none() && !self.stdout {
            problems.push("give `path`, `stdout = true`, or both".to_owned());
        }
        if self.path.as_ref().is_some_and(|path| path.file_name().is_none()) {
            problems.push("`path` must name a file".to_owned());
        }
    }
}

// === impl Inbox ===

impl Inbox {
    pub(crate) fn new(settings: InboxSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        Ok(Self { settings, clock, writing: Mutex::new(()) })
    }

    fn line(&self, notice: &Notice) -> String {
        let mut document = document(notice, MAX_DOCUMENT_BYTES);
        document["time"] = time::rfc3339(self.clock.now_micros()).into();
        document.to_string()
    }
}

#[async_trait]
impl Sink for Inbox {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn takes_late_evidence(&self) -> bool {
        true
    }

    async fn send(&self, notice: &Notice, _earlier: Option<&Receipt>) -> Result<Receipt, Failure> {
        let _writing = self.writing.lock().await;
        let mut answers = Vec::new();
        if let Some(path) = &self.settings.path {
            append(path, &self.line(notice)).await.map_err(|error| Failure::Later {
                reason: format!("cannot write `{}`: {error}", path.display()),
                after: None,
            })?;
            answers.push(format!("appended to {}", path.display()));
        }
        if self.settings.stdout {
            let mut out = tokio::io::stdout();
            let written = async {
                out.write_all(text(notice).as_bytes()).await?;
                out.flush().await
            };
            written.await.map_err(|error| Failure::Later {
                reason: format!("cannot write to standard output: {error}"),
                after: None,
            })?;
            answers.push("printed".to_owned());
        }
        Ok(Receipt { reference: String::new(), answer: answers.join(", ") })
    }
}

/// Returns a notice as text.
fn text(notice: &Notice) -> String {
    let message = Message::new(notice, Detail::FULL);
    let mut text = String::new();
    for page in &notice.pages {
        text.push_str(&terminal(page, WIDTH, false));
        text.push('\n');
    }
    if let Some(missed) = message.missed {
        text.push_str(&missed);
        text.push('\n');
    }
    text
}

/// Appends a line and makes it durable. The file is opened each time, so that it may be rotated.
async fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true);
    // Pages quote events.
    #[cfg(unix)]
    options.mode(0o600);
    let mut file = options.open(path).await?;
    // A line that a crash cut off must not swallow this one.
    let torn = !ends_with_line_feed(&mut file).await?;
    let mut bytes = Vec::with_capacity(line.len() + 2);
    if torn {
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(line.as_bytes());
    bytes.push(b'\n');
    file.write_all(&bytes).await?;
    file.flush().await?;
    file.sync_data().await
}

async fn ends_with_line_feed(file: &mut File) -> std::io::Result<bool> {
    if file.metadata().await?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1)).await?;
    let mut last = [0];
    file.read_exact(&mut last).await?;
    Ok(last == [b'\n'])
}
