//! An in-memory object store that fails in every named way; each process has its own handle.
//!
//! Some calls come from threads of the Delta library, or from work that runs to completion at once. They must not wait, and
//! their faults depend on the path and the count of calls only.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

use async_trait::async_trait;
use bellwether_base::Clock;
use bellwether_lake::commit::faulty::{Call, Fault, SLOW, TIME_OUT};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::control::{Control, CrashPoint};
use super::protocol::{Mutation, latency};
use super::scheduler::ProcessId;

/// How long a stale listing hides written objects.
const LISTED_AFTER_MICROS: i64 = 3_000_000;

/// The role of a process, which selects its crash points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Worker,
    Aggregate,
    Rollup,
    Maintain,
}

/// A write that lands after its client has given up.
#[derive(Debug)]
struct LateWrite {
    at: i64,
    path: Path,
    payload: PutPayload,
    options: PutOptions,
}

/// The objects that all processes share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    pub(crate) inner: Arc<InMemory>,
    written: Arc<Mutex<BTreeMap<Path, i64>>>,
    late: Arc<Mutex<Vec<LateWrite>>>,
}

/// The handle of one process.
#[derive(Clone, Debug)]
pub(crate) struct FaultyStore {
    pub(crate) objects: Objects,
    pub(crate) control: Control,
    pub(crate) process: ProcessId,
    pub(crate) role: Role,
    pub(crate) thread: ThreadId,
    pub(crate) mutation: Mutation,
    /// A data file that [`Mutation::LogBeforeData`] has not written yet.
    pub(crate) owed: Arc<Mutex<Option<(Path, PutPayload, PutOptions)>>>,
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

fn broken(what: &str) -> Error {
    Error::Generic { store: "FaultyStore", source: format!("{what} (injected)").into() }
}

impl FaultyStore {
    /// True for calls that must not wait.
    fn aside(&self) -> bool {
        std::thread::current().id() != self.thread || futures::executor::enter().is_err()
    }

    fn fault(&self, call: Call, path: &str) -> Fault {
        if self.aside() { self.control.fault_aside(call, path) } else { self.control.fault(self.process, call) }
    }

    async fn wait(&self, time: std::time::Duration) {
        if !self.aside() {
            self.control.clock.sleep(time).await;
        }
    }

    fn alive(&self) -> Result<()> {
        if self.control.is_dead(self.process) { Err(broken("the process is dead")) } else { Ok(()) }
    }

    /// Passes a crash point. A process that dies there no longer changes the store.
    async fn pass(&self, point: Option<CrashPoint>) -> Result<()> {
        let Some(point) = point else { return Ok(()) };
        if self.control.dies_at(self.process, point) {
            if !self.aside() {
                std::future::pending::<()>().await;
            }
            return self.alive();
        }
        Ok(())
    }

    /// Lands the writes that are due although their client has given up.
    async fn land_late_ones(&self) {
        let now = self.control.clock.now_micros();
        let due: Vec<LateWrite> = {
            let mut late = self.objects.late.lock().unwrap_or_else(PoisonError::into_inner);
            late.extract_if(.., |one| one.at <= now).collect()
        };
        for LateWrite { path, payload, options, .. } in due {
            let landed = self.objects.inner.put_opts(&path, payload, options).await.is_ok();
            if landed {
                self.note_written(&path);
            }
            if !self.aside() {
                self.control.note(self.process, format_args!("a late write of {path} arrives: {landed}"));
            }
        }
    }

    fn note_written(&self, path: &Path) {
        let mut written = self.objects.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(path.clone(), self.control.clock.now_micros());
        drop(written);
        self.control.landed();
    }

    async fn land(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if self.mutation == Mutation::LogBeforeData && path.as_ref().contains("part-") {
            let late = {
                let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
                owed.replace((path.clone(), payload, options))
            };
            if let Some((path, payload, options)) = late {
                self.objects.inner.put_opts(&path, payload, options).await?;
            }
            return Ok(PutResult { e_tag: None, version: None });
        }
        let result = self.objects.inner.put_opts(path, payload, options).await?;
        self.note_written(path);
        Ok(result)
    }

    async fn put_with(&self, fault: Fault, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = matches!(options.mode, PutMode::Create);
        let taken = |source: &str| Error::AlreadyExists { path: path.to_string(), source: source.to_owned().into() };
        match fault {
            Fault::LostResponse => {
                self.land(path, payload, options).await?;
                Err(broken("response lost"))
            }
            Fault::Partial => {
                // A log entry is created completely or not at all; a data file may be truncated.
                if !path.as_ref().contains("_delta_log") {
                    let whole: Vec<u8> = payload.iter().flat_map(|part| part.iter().copied()).collect();
                    let half = PutPayload::from(Bytes::copy_from_slice(&whole[..whole.len() / 2]));
                    self.land(path, half, options).await?;
                }
                Err(broken("broken off"))
            }
            Fault::Conflict if create => Err(taken("409: another writer at the same moment")),
            Fault::PreconditionFailed => {
                self.land(path, payload, options).await?;
                let source = "412: the client's own first attempt".to_owned().into();
                Err(Error::Precondition { path: path.to_string(), source })
            }
            Fault::TimedOut if !self.aside() => {
                if self.control.chance(|chance| chance.one_in(2)) {
                    let wait = self.control.chance(|chance| chance.between(1_000_000, 45_000_000));
                    let at = self.control.clock.now_micros() + wait;
                    let late = LateWrite { at, path: path.clone(), payload, options };
                    self.objects.late.lock().unwrap_or_else(PoisonError::into_inner).push(late);
                }
                self.control.clock.sleep(TIME_OUT).await;
                Err(broken("timed out"))
            }
            Fault::None | Fault::Slow | Fault::StaleList => {
                if fault == Fault::Slow {
                    self.wait(SLOW).await;
                }
                self.land(path, payload, options).await
            }
            Fault::LostRequest | Fault::Conflict | Fault::Overloaded | Fault::TimedOut | Fault::Unavailable => {
                Err(broken("503"))
            }
        }
    }

    /// Returns the crash points before and after a write.
    fn points(&self, path: &str) -> (Option<CrashPoint>, Option<CrashPoint>) {
        use CrashPoint as At;
        let entry = path.contains("_delta_log/") && path.ends_with(".json");
        let both = |before, after| (Some(before), Some(after));
        match self.role {
            Role::Aggregate if entry && path.starts_with("metrics/") => {
                both(At::BeforeMetricsCommit, At::AfterMetricsCommit)
            }
            Role::Aggregate if entry && path.starts_with("releases/") => {
                both(At::BeforeReleasesCommit, At::AfterReleasesCommit)
            }
            Role::Aggregate if entry && path.starts_with("rolling_history/") => {
                both(At::BeforeHistoryCommit, At::AfterHistoryCommit)
            }
            Role::Rollup if entry && path.starts_with("metrics_hourly/") => {
                both(At::BeforeHoursCommit, At::AfterHoursCommit)
            }
            Role::Rollup if entry && path.starts_with("metrics_daily/") => {
                both(At::BeforeDaysCommit, At::AfterDaysCommit)
            }
            Role::Maintain if path.ends_with("_last_checkpoint") => {
                both(At::BeforeCheckpointIsNamed, At::AfterCheckpoint)
            }
            Role::Maintain if path.contains(".checkpoint.") => (Some(At::BeforeCheckpoint), None),
            Role::Maintain if entry => both(At::BeforeRewriteCommit, At::AfterRewriteCommit),
            Role::Maintain if path.contains("part-") => both(At::BeforeRewriteData, At::AfterRewriteData),
            _ => (None, None),
        }
    }

    /// Returns the objects that a stale listing hides.
    fn unlisted(&self, prefix: Option<&Path>) -> Result<Vec<Path>> {
        self.alive()?;
        match self.fault(Call::List, prefix.map_or("", |prefix| prefix.as_ref())) {
            Fault::StaleList => {
                let since = self.control.clock.now_micros() - LISTED_AFTER_MICROS;
                let written = self.objects.written.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(written.iter().filter(|(_, at)| **at > since).map(|(path, _)| path.clone()).collect())
            }
            Fault::None => Ok(Vec::new()),
            _ => Err(broken("503")),
        }
    }

    fn listed(
        &self,
        prefix: Option<&Path>,
        all: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.unlisted(prefix) {
            Ok(hidden) => {
                all.try_filter(move |object| futures::future::ready(!hidden.contains(&object.location))).boxed()
            }
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.wait(self.latency()).await;
        self.land_late_ones().await;
        let (before, after) = self.points(path.as_ref());
        self.pass(before).await?;
        self.alive()?;
        let fault = self.fault(Call::Write, path.as_ref());
        let result = self.put_with(fault, path, payload, options).await;
        if result.is_ok() {
            self.pass(after).await?;
        }
        if !self.aside() {
            let shown = result.as_ref().map_or_else(ToString::to_string, |_| "done".to_owned());
            self.control.note(self.process, format_args!("put {path}: {shown}"));
        }
        self.wait(self.latency()).await;
        result
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.pass(self.points(path.as_ref()).0).await?;
        self.alive()?;
        match self.fault(Call::Write, path.as_ref()) {
            Fault::None => {
                let upload = self.objects.inner.put_multipart_opts(path, options).await?;
                self.note_written(path);
                Ok(upload)
            }
            _ => Err(broken("503")),
        }
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.wait(self.latency()).await;
        self.land_late_ones().await;
        self.alive()?;
        match self.fault(Call::Read, path.as_ref()) {
            Fault::None => {}
            Fault::Slow => self.wait(SLOW).await,
            _ => return Err(broken("503")),
        }
        self.objects.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.alive() {
            Ok(()) => self.objects.inner.delete_stream(paths),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, self.objects.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, self.objects.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let hidden = self.unlisted(prefix)?;
        let mut listed = self.objects.inner.list_with_delimiter(prefix).await?;
        listed.objects.retain(|object| !hidden.contains(&object.location));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.alive()?;
        self.objects.inner.copy_opts(from, to, options).await?;
        self.note_written(to);
        Ok(())
    }
}

impl FaultyStore {
    fn latency(&self) -> std::time::Duration {
        if self.aside() { std::time::Duration::ZERO } else { self.control.chance(latency) }
    }
}

/// Returns the names of all objects and, except for log checkpoints, their contents, for comparison.
pub(crate) async fn contents(objects: &Objects) -> String {
    let mut all: Vec<ObjectMeta> = objects.inner.list(None).try_collect().await.expect("memory lists");
    all.sort_by(|a, b| a.location.cmp(&b.location));
    let mut text = String::new();
    for object in all {
        let path = &object.location;
        if path.as_ref().contains("checkpoint") {
            text.push_str(&format!("{path}\n"));
            continue;
        }
        let bytes = objects.inner.get(path).await.expect("memory reads").bytes().await.expect("memory reads");
        let sum = bytes.iter().fold(0, |sum, byte| super::random::mix(sum ^ u64::from(*byte)));
        text.push_str(&format!("{path} {} {sum:016x}\n", bytes.len()));
    }
    text
}
