//! Runs the statements of the prompt: on the screen, into a file, or as a chart.

use std::fs::File;
use std::io::{self, IsTerminal, Seek};
use std::path::{Path, PathBuf};
use std::time::Instant;

use bellwether_base::{Error, Result, grouped};
use bellwether_queries::split;
use futures::StreamExt;

use super::{Prompt, println};
use crate::exit;
use crate::screen;
use crate::sql::answer;
use crate::sql::chart::{self, Canvas};
use crate::sql::output::{Format, Kept, Written};
use crate::sql::pager::Screen;
use crate::sql::sink::{self, Sink};
use crate::sql::waiting::Waiting;

/// Most rows of a chart.
const CHART_ROWS: usize = 100_000;

/// How a statement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With all its rows.
    Whole,
    /// With an error, or by Ctrl-C.
    Early,
}

/// A file for results.
pub(super) struct OutputFile {
    path: PathBuf,
    file: File,
    /// By the ending of its name.
    format: Option<Format>,
    /// Number of results in it.
    results: usize,
}

// === impl OutputFile ===

impl OutputFile {
    /// Creates the file, in place of one that exists.
    ///
    /// # Errors
    /// `Config` if it cannot be written.
    pub(super) fn create(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), file: sink::create(path)?, format: Format::of_file(path), results: 0 })
    }

    /// Returns its format; `otherwise` that of a file whose ending says none.
    pub(super) fn format(&self, otherwise: Format) -> Format {
        self.format.unwrap_or(otherwise)
    }

    /// Returns the sink of the next result.
    ///
    /// # Errors
    /// `Config` if the file has a result already and can hold only one.
    fn next(&self, format: Format) -> Result<Sink> {
        if self.results > 0 && format.holds_one() {
            let what = format!("`{}` has a result: a {} file holds one", self.path.display(), format.name());
            return Err(Error::config(what).with_hint("\\o FILE names another file, \\o returns to the screen"));
        }
        let copy = self.file.try_clone();
        Ok(Sink::File(copy.map_err(|source| Error::unavailable("cannot write the result").with_source(source))?))
    }

    /// Removes a result that ended early from a file that holds one: the next one could not be read behind it.
    fn discard(&mut self, format: Format) {
        if format.holds_one() && self.results == 0 {
            drop(self.file.set_len(0).and_then(|()| self.file.rewind()));
        }
    }
}

// === impl Prompt ===

impl Prompt<'_> {
    /// Runs statements; Ctrl-C cancels the running one.
    pub(super) async fn answer(&mut self, text: &str) -> Ended {
        self.last = Some(text.to_owned());
        (self.kept, self.drawn) = (None, None);
        let started = Instant::now();
        let done = tokio::select! {
            biased;
            done = Box::pin(self.run_all(text)) => Some(done),
            _ = tokio::signal::ctrl_c() => None,
        };
        let ended = match done {
            Some(Ok(())) => Ended::Whole,
            Some(Err(error)) => {
                exit::report(&error);
                Ended::Early
            }
            None => {
                println("cancelled");
                Ended::Early
            }
        };
        let format = self.format;
        if let Some(output) = self.output.as_mut().filter(|_| ended == Ended::Early) {
            output.discard(output.format(format));
        }
        if self.timing {
            println(&format!("Time: {:.3} s", started.elapsed().as_secs_f64()));
        }
        ended
    }

    async fn run_all(&mut self, text: &str) -> Result<()> {
        for statement in split(text)? {
            let (mut sink, format) = match &self.output {
                Some(output) => {
                    let format = output.format(self.format);
                    (output.next(format)?, format)
                }
                None => (Sink::Screen(Screen::new(self.pager())), self.format),
            };
            let Written { rows, kept, .. } = answer(self.session, &statement, format, &mut sink).await??;
            if let Some(output) = &mut self.output {
                output.results += 1;
                let what = if rows == 1 { "row" } else { "rows" };
                println(&format!("({} {what} written to {})", grouped(rows as u64), output.path.display()));
            }
            self.kept = kept;
        }
        Ok(())
    }

    /// Draws the result of a statement, which runs again unless its rows are still here.
    pub(super) async fn chart(&mut self, text: &str, columns: &[String]) -> Ended {
        if self.kept.is_none() {
            let done = tokio::select! {
                biased;
                done = Box::pin(self.collect(text)) => done,
                _ = tokio::signal::ctrl_c() => {
                    println("cancelled");
                    return Ended::Early;
                }
            };
            match done {
                Ok(kept) => self.kept = kept,
                Err(error) => {
                    exit::report(&error);
                    return Ended::Early;
                }
            }
        }
        let Some(kept) = &self.kept else {
            println("there is no statement yet");
            return Ended::Early;
        };
        let (_, height) = crossterm::terminal::size().unwrap_or((80, 24));
        let dumb = std::env::var("TERM").is_ok_and(|terminal| terminal == "dumb");
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() && !dumb;
        let width = screen::width().unwrap_or(80);
        match chart::draw(kept, columns, Canvas { width, height: usize::from(height), colour }) {
            Ok(text) => {
                println(&text);
                self.drawn = Some(columns.to_vec());
                Ended::Whole
            }
            Err(error) => {
                exit::report(&error);
                Ended::Early
            }
        }
    }

    /// Returns the rows of the last of several statements, as many as a chart takes.
    async fn collect(&self, text: &str) -> Result<Option<Kept>> {
        let Some(statement) = split(text)?.pop() else { return Ok(None) };
        let waiting = Waiting::begin();
        let work = async {
            let mut answer = self.session.execute(&statement).await?;
            waiting.runs(answer.progress.clone());
            let (mut batches, mut rows) = (Vec::new(), 0);
            while let Some(batch) = answer.batches.next().await {
                let batch = batch?;
                let room = CHART_ROWS - rows;
                if batch.num_rows() > room {
                    batches.push(batch.slice(0, room));
                    waiting.end();
                    println(&format!("only the first {} rows are drawn", grouped(CHART_ROWS as u64)));
                    break;
                }
                rows += batch.num_rows();
                batches.push(batch);
                tokio::task::yield_now().await;
            }
            Ok(Some(Kept { schema: answer.schema, batches }))
        };
        tokio::select! {
            biased;
            done = work => done,
            never = waiting.show() => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_that_holds_one_result_refuses_a_second_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut output = OutputFile::create(&dir.path().join("a.parquet")).expect("is created");
        assert_eq!(output.format(Format::Table), Format::Parquet);
        assert!(output.next(Format::Parquet).is_ok());
        output.results = 1;
        let error = output.next(Format::Parquet).err().expect("refused");
        assert!(error.message().contains("holds one") && error.hint().is_some(), "{error}");
        let mut text = OutputFile::create(&dir.path().join("a.txt")).expect("is created");
        text.results = 1;
        assert!(text.next(text.format(Format::Table)).is_ok());
        assert!(text.next(text.format(Format::Csv)).is_err());
    }

    #[test]
    fn half_a_result_is_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.csv");
        let mut output = OutputFile::create(&path).expect("is created");
        let mut sink = output.next(Format::Csv).expect("a sink");
        sink.write_all(b"a,b\n1").expect("is written");
        output.discard(Format::Csv);
        let mut sink = output.next(Format::Csv).expect("a sink");
        sink.write_all(b"c\n").expect("is written");
        assert_eq!(std::fs::read_to_string(path).expect("a file"), "c\n");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let error = OutputFile::create(Path::new("/no/such/folder/a.csv")).err().expect("refused");
        assert!(error.message().contains("/no/such/folder/a.csv"), "{error}");
    }
}
