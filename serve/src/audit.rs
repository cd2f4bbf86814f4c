//! The audit log: who asked what, and what became of it. One JSON object a line.
//!
//! A statement is recorded before it runs. If the record cannot be written, it does not run. Values of parameters are never
//! recorded. The file is opened for each record, so that it may be moved away at any time. Without a file, records go to the log of
//! the process, without statements: logs hold no text of people.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use bellwether_base::{Clock, Error, Result};
use serde::Serialize;

use crate::access::Caller;

/// Longest recorded text of a statement or an address, bytes.
const TEXT_BYTES: usize = 16 << 10;

/// Writes records.
pub(crate) struct Audit {
    file: Option<PathBuf>,
    clock: Arc<dyn Clock>,
}

/// One record.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Record<'a> {
    /// Id of the request.
    pub(crate) request: &'a str,
    /// `asked` or `answered`.
    pub(crate) event: &'static str,
    pub(crate) caller: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<&'a str>,
    pub(crate) client: &'a str,
    /// Method and path.
    pub(crate) endpoint: &'a str,
    /// The statement, or the parameters of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<&'a str>,
    /// The status, or `cut` if the answer ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rows: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<&'a str>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    record: &'a Record<'a>,
}

// === impl Record ===

impl<'a> Record<'a> {
    pub(crate) fn of(caller: &'a Caller, request: &'a str, client: &'a str) -> Self {
        Self { request, caller: &caller.name, tenant: caller.tenant.as_deref(), client, ..Self::default() }
    }
}

// === impl Audit ===

impl Audit {
    /// Opens the file once, so that a wrong path is found at the start.
    ///
    /// # Errors
    /// `Config` if the file cannot be written.
    pub(crate) fn new(file: Option<PathBuf>, clock: Arc<dyn Clock>) -> Result<Self> {
        let audit = Self { file, clock };
        audit.append(b"").map_err(|source| {
            let name = audit.file.as_deref().unwrap_or_else(|| "".as_ref()).display();
            Error::config(format!("cannot write the audit log `{name}`"))
                .with_hint("change `api.audit_file`, or the rights on its folder")
                .with_source(source)
        })?;
        Ok(audit)
    }

    /// Writes a record.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be written.
    pub(crate) fn write(&self, record: &Record<'_>) -> Result<()> {
        if self.file.is_none() {
            let Record { request, event, caller, tenant, client, endpoint, status, rows, bytes, duration_ms, .. } =
                record;
            tracing::info!(request, event, caller, tenant, client, endpoint, status, rows, bytes, duration_ms, "query");
            return Ok(());
        }
        let cut = |text: &'_ str| text.floor_char_boundary(TEXT_BYTES.min(text.len()));
        let record = Record { text: record.text.map(|text| &text[..cut(text)]), ..Record { ..*record } };
        let micros = self.clock.now_micros();
        let time = chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
        let line = Line { time: time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true), record: &record };
        let mut text = serde_json::to_vec(&line)
            .map_err(|source| Error::bug("a record of the audit log cannot be written").with_source(source))?;
        text.push(b'\n');
        self.append(&text).map_err(|source| Error::unavailable("the audit log cannot be written").with_source(source))
    }

    fn append(&self, bytes: &[u8]) -> std::io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        // One write, so that records of several threads do not mix.
        options.open(file)?.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use bellwether_base::ManualClock;
    use serde_json::Value;

    use super::*;
    use crate::token::Scope;

    #[test]
    fn a_record_is_one_line_and_long_statements_are_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("audit.ndjson");
        let audit = Audit::new(Some(file.clone()), Arc::new(ManualClock::at(1_795_543_200_000_000))).expect("opens");
        let caller = Caller { name: "grafana".into(), scope: Scope::Read, tenant: Some("acme".into()) };
        let text = format!("SELECT 1\n-- {}", "ä".repeat(TEXT_BYTES));
        let record = Record::of(&caller, "r-1", "127.0.0.1:5");
        audit.write(&Record { event: "asked", text: Some(&text), ..record }).expect("written");
        std::fs::rename(&file, folder.path().join("moved.ndjson")).expect("moved");
        audit.write(&Record { status: Some(200), ..Record::of(&caller, "r-1", "127.0.0.1:5") }).expect("written");
        let moved = std::fs::read_to_string(folder.path().join("moved.ndjson")).expect("read");
        let line: Value = serde_json::from_str(moved.trim_end()).expect("one object");
        assert_eq!((line["caller"].as_str(), line["tenant"].as_str()), (Some("grafana"), Some("acme")));
        assert_eq!(line["time"], "2026-11-24T18:00:00.000000Z");
        assert!(line["text"].as_str().is_some_and(|text| text.len() <= TEXT_BYTES && text.starts_with("SELECT 1\n")));
        assert!(std::fs::read_to_string(&file).expect("a new file").contains("\"status\":200"));
        let error = Audit::new(Some(folder.path().join("none/audit")), Arc::new(ManualClock::at(0))).err();
        assert!(error.expect("no folder").hint().is_some_and(|hint| hint.contains("api.audit_file")));
    }
}
