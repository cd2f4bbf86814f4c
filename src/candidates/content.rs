//! Input and output of a run: stored with it, somewhere else, or known by their hash only.
//!
//! A reference is text from an event, so the configured command gets it as one argument and no shell reads it.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bellwether_base::{Error, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Most bytes that are fetched.
const MOST_BYTES: u64 = 1 << 20;

/// Longest time for a fetch.
const DEADLINE: Duration = Duration::from_secs(30);

/// Place of the reference in the configured command.
pub(crate) const PLACE: &str = "{ref}";

/// Input or output of a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    /// Stored with the run, redacted.
    Stored(Value),
    /// Kept elsewhere by the producer.
    Elsewhere {
        reference: String,
        sha256: Option<String>,
    },
    /// Only its hash is known.
    Hash(String),
    /// It was sent and not kept, as this word in the column `truncated` says.
    NotKept(String),
    Absent,
}

/// Returns input and output of a run from the columns `content_json` and `truncated`.
pub(crate) fn parts(content: Option<&str>, truncated: &Value) -> [(&'static str, Part); 2] {
    let content: Value = content.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    ["input", "output"].map(|name| {
        let text = |field: &str| content[format!("{name}_{field}")].as_str().map(str::to_owned);
        let part = match (&content[name], text("ref"), text("sha256")) {
            (Value::Null, Some(reference), sha256) => Part::Elsewhere { reference, sha256 },
            (Value::Null, None, Some(sha256)) => Part::Hash(sha256),
            (Value::Null, None, None) => not_kept(name, truncated).map_or(Part::Absent, Part::NotKept),
            (stored, ..) => Part::Stored(stored.clone()),
        };
        (name, part)
    })
}

/// Returns the word for a part that was sent and is not kept. Ingest lists it by its pointer, and producers as they please.
fn not_kept(name: &str, truncated: &Value) -> Option<String> {
    let pointers =
        [format!("/data/content/{name}"), "/data/content".to_owned(), "/content".to_owned(), "content".to_owned()];
    pointers.iter().find_map(|pointer| truncated[pointer].as_str()).map(str::to_owned)
}

// === impl Part ===

impl Part {
    /// Says what is missing, and how to get it; none if the part is there. `can_fetch` is true if a command is configured.
    pub(super) fn missing(&self, name: &str, source: &str, run_id: &str, can_fetch: bool) -> Option<String> {
        let ask = format!("ask the producer `{source}` for run `{run_id}`");
        match self {
            Self::Stored(_) => None,
            Self::Elsewhere { reference, .. } if can_fetch => {
                Some(format!("The {name} is not stored here. It is at {reference}: fetch it (--fetch, or key f)."))
            }
            Self::Elsewhere { reference, .. } => Some(format!(
                "The {name} is not stored here. It is at {reference}: set `evals.fetch_content` to fetch it, or {ask}."
            )),
            Self::Hash(sha256) => Some(format!("The {name} is not stored here, only its hash {sha256}: {ask}.")),
            Self::NotKept(why) => Some(match why.as_str() {
                "off" => format!("The {name} is not stored here, because `ingest.content` was off: {ask}."),
                "stated" => format!("The producer left the {name} out: {ask}."),
                _ => {
                    format!("The {name} was too large to be stored (`ingest.max_content_bytes`), or malformed: {ask}.")
                }
            }),
            Self::Absent => Some(format!("The {name} was not sent: {ask}.")),
        }
    }

    /// Runs the configured command and returns what it prints.
    ///
    /// # Errors
    /// `Config` if the part is not elsewhere, or the reference looks like an option; `Unavailable` if the command fails, takes too
    /// long or prints too much; `Data` if the content does not have the hash that the event states, or is not text.
    pub(crate) fn fetch(&self, command: &[String]) -> Result<String> {
        let Self::Elsewhere { reference, sha256 } = self else {
            return Err(Error::config("there is no reference to fetch"));
        };
        let bytes = output(command, reference, DEADLINE)?;
        if let Some(stated) = sha256 {
            let digits: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            let found = format!("sha256:{digits}");
            if found != *stated {
                return Err(Error::data(format!("the content of `{}` is not what the run had", shown(reference)))
                    .with_hint(format!("its hash is {found}, but the event states {stated}")));
            }
        }
        String::from_utf8(bytes).map_err(|_| {
            Error::data(format!("the content of `{}` is not text", shown(reference)))
                .with_hint("look at it with a program for its format")
        })
    }
}

fn shown(reference: &str) -> String {
    crate::screen::one_line(reference)
}

fn output(command: &[String], reference: &str, deadline: Duration) -> Result<Vec<u8>> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Error::config("no command fetches content").with_hint("set `evals.fetch_content`"));
    };
    if reference.starts_with('-') {
        return Err(Error::config(format!("the reference `{}` looks like an option", shown(reference)))
            .with_hint("ask its producer for a reference that does not begin with `-`"));
    }
    let failed = |what: &str| {
        Error::unavailable(format!("cannot fetch `{}`: {what}", shown(reference)))
            .with_hint("check the command `evals.fetch_content`")
    };
    let arguments = arguments.iter().map(|argument| argument.replace(PLACE, reference));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| failed(&format!("`{program}` does not start")).with_source(source))?;
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A command that prints more is stopped by the closed pipe.
        stdout.map_or(Ok(0), |stdout| stdout.take(MOST_BYTES + 1).read_to_end(&mut bytes)).map(|_| bytes)
    });
    let started = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if started.elapsed() < deadline => std::thread::sleep(Duration::from_millis(20)),
            _ => break None,
        }
    };
    let Some(status) = status else {
        // It may have ended by itself in the meantime.
        drop(child.kill());
        drop(child.wait());
        return Err(failed(&format!("`{program}` takes longer than {} s", deadline.as_secs())));
    };
    let bytes = match reader.join() {
        Ok(Ok(bytes)) => bytes,
        _ => return Err(failed("its output cannot be read")),
    };
    if bytes.len() as u64 > MOST_BYTES {
        return Err(failed("it has more than 1 MiB"));
    }
    if !status.success() {
        return Err(failed(&format!("`{program}` failed ({status})")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elsewhere(reference: &str, sha256: Option<&str>) -> Part {
        Part::Elsewhere { reference: reference.to_owned(), sha256: sha256.map(str::to_owned) }
    }

    fn command(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn content_is_stored_elsewhere_hashed_or_absent_and_what_is_missing_is_said() {
        let text = r#"{"input": "refund me", "output_ref": "s3://b/k", "output_sha256": "sha256:00"}"#;
        let [(_, input), (_, output)] = parts(Some(text), &Value::Null);
        assert_eq!(input, Part::Stored("refund me".into()));
        assert_eq!(output, elsewhere("s3://b/k", Some("sha256:00")));
        assert_eq!(input.missing("input", "bot", "r1", false), None);
        let said = |part: &Part, can_fetch| part.missing("output", "bot", "r1", can_fetch).expect("missing");
        assert!(said(&output, true).contains("s3://b/k: fetch it"));
        assert!(said(&output, false).contains("`evals.fetch_content`"));
        let [(_, hash), (_, absent)] = parts(Some(r#"{"input_sha256": "sha256:00"}"#), &Value::Null);
        assert!(said(&hash, true).contains("only its hash sha256:00: ask the producer `bot` for run `r1`"));
        assert!(said(&absent, true).contains("was not sent"));
        for nothing in [None, Some("not JSON"), Some("[1]"), Some("{}")] {
            let parts = parts(nothing, &Value::Null);
            assert_eq!(parts.map(|(_, part)| part), [Part::Absent, Part::Absent], "{nothing:?}");
        }
        // Content that was sent and not kept is never reported as not sent.
        for (pointer, done, says) in [
            ("/data/content/input", "off", "`ingest.content` was off"),
            ("/data/content/input", "left out", "too large"),
            ("/data/content", "left out", "too large"),
            ("content", "stated", "The producer left the input out"),
        ] {
            let mut truncated = Value::Null;
            truncated[pointer] = done.into();
            let [(_, input), _] = parts(None, &truncated);
            let missing = input.missing("input", "bot", "r1", false).expect("missing");
            assert!(missing.contains(says) && missing.contains("ask the producer `bot`"), "{missing}");
        }
    }

    #[test]
    fn a_reference_is_one_argument_that_no_shell_reads() {
        let part = elsewhere("a b; echo $HOME", None);
        assert_eq!(part.fetch(&command(&["printf", "%s", PLACE])).expect("fetched"), "a b; echo $HOME");
        let option = elsewhere("--help", None).fetch(&command(&["printf", "%s", PLACE])).expect_err("refused");
        assert!(option.message().contains("looks like an option"), "{option}");
    }

    #[test]
    fn content_with_another_hash_or_that_is_no_text_is_refused() {
        let right = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let printf = command(&["printf", "%s", PLACE]);
        assert_eq!(elsewhere("hello", Some(right)).fetch(&printf).expect("its hash"), "hello");
        let wrong = elsewhere("hullo", Some(right)).fetch(&printf).expect_err("another hash");
        assert!(wrong.message().contains("not what the run had"), "{wrong}");
        let binary = elsewhere("x", None).fetch(&command(&["printf", r"\377\000", PLACE])).expect_err("binary");
        assert!(binary.message().contains("is not text"), "{binary}");
    }

    #[test]
    fn a_command_that_fails_prints_too_much_or_never_ends_is_an_error() {
        let fetch = |words: &[&str]| output(&command(words), "x", Duration::from_millis(300)).expect_err("refused");
        for (words, what) in [
            (&["false"][..], "`false` failed"),
            (&["no-such-command-9", PLACE], "does not start"),
            (&["head", "-c", "2000000", "/dev/zero"], "more than 1 MiB"),
            (&["sleep", "20"], "takes longer"),
            (&[], "no command"),
        ] {
            let error = fetch(words);
            assert!(error.message().contains(what), "{words:?}: {error}");
        }
    }
}
