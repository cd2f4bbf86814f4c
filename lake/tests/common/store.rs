//! A store in memory that counts its calls, can fail, and can let another writer write at a given moment.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) inner: InMemory,
    /// Makes every call fail with an error that may pass.
    pub(crate) down: AtomicBool,
    pub(crate) puts: AtomicUsize,
    pub(crate) gets: AtomicUsize,
    /// How many more objects can be deleted until every call fails; none: any number.
    pub(crate) deletes_left: Mutex<Option<usize>>,
    /// Makes every write fail, as on a full disk.
    pub(crate) full: AtomicBool,
    /// An object that is written just after the next data file.
    pub(crate) behind_a_file: Mutex<Option<(Path, String)>>,
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl Watched {
    fn call(&self) -> Result<()> {
        match self.down.load(Ordering::Relaxed) {
            true => Err(Error::Generic { store: "Watched", source: "down for the moment".into() }),
            false => Ok(()),
        }
    }

    /// Returns the number of puts and gets so far.
    pub(crate) fn calls(&self) -> (usize, usize) {
        (self.puts.load(Ordering::Relaxed), self.gets.load(Ordering::Relaxed))
    }
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.call()?;
        self.puts.fetch_add(1, Ordering::Relaxed);
        if self.full.load(Ordering::Relaxed) {
            return Err(Error::Generic { store: "Watched", source: "no space left on device".into() });
        }
        let put = self.inner.put_opts(location, payload, options).await?;
        if location.as_ref().ends_with(".parquet") {
            let other = self.behind_a_file.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some((path, text)) = other {
                self.inner.put(&path, PutPayload::from(text)).await?;
            }
        }
        Ok(put)
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.call()?;
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.call()?;
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let mut left = self.deletes_left.lock().unwrap_or_else(PoisonError::into_inner);
        match left.as_mut() {
            Some(0) => self.down.store(true, Ordering::Relaxed),
            Some(left) => *left -= 1,
            None => {}
        }
        match self.call() {
            Ok(()) => self.inner.delete_stream(locations),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.call() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.call()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Creates a lake in such a store.
pub(crate) async fn watched() -> (Arc<Watched>, bellwether_lake::Lake) {
    let store = Arc::new(Watched::default());
    let clock = Arc::new(bellwether_base::ManualClock::at(1_764_000_000_000_000));
    let lake = bellwether_lake::Lake::on_store(Arc::clone(&store) as _, clock).await.expect("opens");
    (store, lake)
}
