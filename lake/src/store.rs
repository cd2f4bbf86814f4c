//! The object stores under a lake: a durable local file system, and S3.
//!
//! `object_store`'s local file system never calls fsync, so a commit could survive a power loss without the data that it
//! names. [`DurableFileSystem`] writes to a staging file, syncs it, links it under its name and syncs the folder: once a
//! call has returned, the whole file exists after any crash.

mod disk;
#[cfg(test)]
mod power_loss;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, UploadPart,
};
use url::Url;

use crate::stored::{Stored, from_store};
use bellwether_base::unique_id;
use bellwether_base::{Error, Result};
use disk::{Disk, LocalDisk};

/// Settings of the store, by the names that object stores use (`aws_access_key_id`, `aws_endpoint`, ...).
/// Values are secrets: they are never printed.
#[derive(Clone, Default)]
pub struct StorageOptions(pub BTreeMap<String, String>);

impl fmt::Debug for StorageOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Hint if a root does not exist.
pub const NAME_THE_ROOT: &str = "name the root that `bellwether run` or `bellwether demo` printed";

/// An open root.
#[derive(Clone, Debug)]
pub(crate) struct OpenRoot {
    /// Address of the root folder, with a slash at its end.
    pub(crate) url: Url,
    /// The store that holds the root.
    pub(crate) store: Arc<dyn ObjectStore>,
    /// Path of the root in the store.
    pub(crate) base: Path,
}

/// Opens a folder or an `s3://` address.
pub(crate) async fn open(root: &str, options: &StorageOptions) -> Result<OpenRoot> {
    match root.split_once("://") {
        None => open_folder(FilePath::new(root)),
        Some(("file", path)) => open_folder(FilePath::new(path)),
        Some(("s3" | "s3a", _)) => open_s3(root, options).await,
        Some((scheme, _)) => Err(unsupported(root, scheme)),
    }
}

/// Opens a folder or an `s3://` address without writing anything.
pub(crate) fn open_as_it_is(root: &str, options: &StorageOptions) -> Result<OpenRoot> {
    let folder = match root.split_once("://") {
        None => root,
        Some(("file", path)) => path,
        Some(("s3" | "s3a", _)) => return s3_root(root, options),
        Some((scheme, _)) => return Err(unsupported(root, scheme)),
    };
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => open_folder(FilePath::new(folder)),
        Ok(_) => Err(Error::config(format!("`{folder}` is not a folder")).with_hint(NAME_THE_ROOT)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            Err(Error::config(format!("there is no folder `{folder}`")).with_hint(NAME_THE_ROOT).with_source(source))
        }
        Err(source) => Err(Error::unavailable(format!("the folder `{folder}` cannot be opened")).with_source(source)),
    }
}

fn unsupported(root: &str, scheme: &str) -> Error {
    Error::config(format!("tables cannot be kept at `{root}`"))
        .with_hint(format!("`{scheme}://` is not supported: use a folder or s3://BUCKET/PREFIX"))
}

fn open_folder(path: &FilePath) -> Result<OpenRoot> {
    let refuse = |source: io::Error| {
        Error::config(format!("the tables' root `{}` cannot be created or read", path.display()))
            .with_hint("name a folder that this user may write to")
            .with_source(source)
    };
    if path.as_os_str().is_empty() {
        return Err(Error::config("the tables' root is empty").with_hint("name a folder or s3://BUCKET/PREFIX"));
    }
    fs::create_dir_all(path).map_err(refuse)?;
    let path = path.canonicalize().map_err(refuse)?;
    open_disk(&path, Arc::new(LocalDisk))
}

/// Opens an existing folder.
fn open_disk(path: &FilePath, disk: Arc<dyn Disk>) -> Result<OpenRoot> {
    let url = Url::from_directory_path(path)
        .map_err(|()| Error::config(format!("the tables' root `{}` is not an absolute path", path.display())))?;
    let base = Path::from_absolute_path(path).map_err(object_store::Error::from).stored()?;
    Ok(OpenRoot { url, store: Arc::new(DurableFileSystem::new(disk)), base })
}

async fn open_s3(root: &str, options: &StorageOptions) -> Result<OpenRoot> {
    let root = s3_root(root, options)?;
    probe_conditional_put(&root).await?;
    Ok(root)
}

fn s3_root(root: &str, options: &StorageOptions) -> Result<OpenRoot> {
    let refuse = |what: String| Error::config(what).with_hint("write it as s3://BUCKET/PREFIX");
    let mut url = Url::parse(root).map_err(|e| refuse(format!("`{root}` is not an address")).with_source(e))?;
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    let bucket = url.host_str().ok_or_else(|| refuse(format!("`{root}` names no bucket")))?;
    let mut builder =
        AmazonS3Builder::from_env().with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch);
    // An endpoint without encryption is a deliberate choice.
    if options.0.iter().any(|(key, value)| key.ends_with("endpoint") && value.starts_with("http://")) {
        builder = builder.with_allow_http(true);
    }
    for (key, value) in &options.0 {
        let known = key.parse().map_err(|e: object_store::Error| {
            Error::config(format!("`{key}` is not a storage option")).with_source(e)
        })?;
        builder = builder.with_config(known, value);
    }
    let store = builder.build().map_err(|e| {
        Error::config(format!("the S3 store of `{root}` cannot be set up"))
            .with_hint("check [tables.options] and the AWS_* variables")
            .with_source(e)
    })?;
    let base = Path::from_url_path(url.path()).map_err(object_store::Error::from).stored()?;
    Ok(OpenRoot { url, store: Arc::new(store), base })
}

/// Refuses a store that lets two writers create the same object, because commits would be lost on it.
async fn probe_conditional_put(root: &OpenRoot) -> Result<()> {
    let path = root.base.clone().join("_bellwether").join(format!("probe-{}", unique_id()));
    let create = || root.store.put_opts(&path, PutPayload::from_static(b"probe"), PutMode::Create.into());
    create().await.stored()?;
    let second = create().await;
    // If the probe cannot be removed, it remains as litter; that does not disqualify the store.
    drop(root.store.delete(&path).await);
    match second {
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(()),
        Ok(_) => Err(Error::config(format!("the store of `{}` ignores `If-None-Match`", root.url))
            .with_hint("two writers could overwrite each other's commits there: use a store with conditional puts")),
        Err(source) => Err(from_store(source)),
    }
}

/// The local file system with durable writes.
#[derive(Clone, Debug)]
pub(crate) struct DurableFileSystem {
    inner: Arc<LocalFileSystem>,
    disk: Arc<dyn Disk>,
    /// Folders with entries in their parents that this process has made durable.
    synced: Arc<Mutex<HashSet<PathBuf>>>,
}

impl fmt::Display for DurableFileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DurableFileSystem")
    }
}

impl DurableFileSystem {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { inner: Arc::new(LocalFileSystem::new()), disk, synced: Arc::default() }
    }
}

/// Writes a file durably. `create` refuses to replace an existing file.
fn write_durably(store: &DurableFileSystem, path: &FilePath, payload: &PutPayload, create: bool) -> io::Result<()> {
    let disk = store.disk.as_ref();
    let folder = path.parent().ok_or_else(|| io::Error::other("a file needs a folder"))?;
    create_folder_durably(disk, &store.synced, folder)?;
    // `object_store` leaves names that end in `#digits` out of listings.
    let staging = PathBuf::from(format!("{}#{}", path.display(), unique_id().as_u128()));
    let written = (|| {
        let mut file = disk.create(&staging)?;
        payload.iter().try_for_each(|part| file.write(part))?;
        file.sync()?;
        if create { disk.link(&staging, path) } else { disk.rename(&staging, path) }
    })();
    if create || written.is_err() {
        // A failure leaves litter; only the outcome of the write matters.
        drop(disk.remove(&staging));
    }
    written?;
    disk.sync_folder(folder)
}

/// Creates a folder, and makes its entry and those of the folders above it durable. Each process does so once for each
/// folder: the process that created an existing folder may have ended before it synced the entry.
fn create_folder_durably(disk: &dyn Disk, synced: &Mutex<HashSet<PathBuf>>, folder: &FilePath) -> io::Result<()> {
    // Nothing can panic half-way through a change, so a poisoned lock still guards a consistent value.
    let known = |folder: &FilePath| synced.lock().unwrap_or_else(PoisonError::into_inner).contains(folder);
    if known(folder) && folder.is_dir() {
        return Ok(());
    }
    let mut missing: Vec<&FilePath> = folder.ancestors().take_while(|ancestor| !ancestor.is_dir()).collect();
    missing.reverse();
    for folder in missing {
        match disk.create_folder(folder) {
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {}
            done => done?,
        }
        synced.lock().unwrap_or_else(PoisonError::into_inner).remove(folder);
    }
    for entry in folder.ancestors().take_while(|entry| !known(entry)) {
        let Some(parent) = entry.parent() else { break };
        match disk.sync_folder(parent) {
            // A folder that this user cannot list contains nothing that this user created.
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => break,
            done => done?,
        }
    }
    let all = folder.ancestors().map(FilePath::to_path_buf);
    synced.lock().unwrap_or_else(PoisonError::into_inner).extend(all);
    Ok(())
}

fn sync_file_and_folder(disk: &dyn Disk, path: &FilePath) -> io::Result<()> {
    disk.sync_file(path)?;
    match path.parent() {
        Some(folder) => disk.sync_folder(folder),
        None => Ok(()),
    }
}

fn store_error(path: &FilePath, source: io::Error) -> object_store::Error {
    let path = path.display().to_string();
    match source.kind() {
        io::ErrorKind::AlreadyExists => object_store::Error::AlreadyExists { path, source: source.into() },
        io::ErrorKind::NotFound => object_store::Error::NotFound { path, source: source.into() },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            object_store::Error::PermissionDenied { path, source: source.into() }
        }
        _ => object_store::Error::Generic { store: "DurableFileSystem", source: source.into() },
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> object_store::Result<T> + Send + 'static,
) -> object_store::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| object_store::Error::Generic { store: "DurableFileSystem", source: source.into() })?
}

#[async_trait]
impl ObjectStore for DurableFileSystem {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return self.inner.put_opts(location, payload, options).await,
        };
        let path = self.inner.path_to_filesystem(location)?;
        let store = self.clone();
        blocking(move || {
            write_durably(&store, &path, &payload, create).map_err(|source| store_error(&path, source))?;
            Ok(PutResult { e_tag: None, version: None })
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let path = self.inner.path_to_filesystem(location)?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(DurableUpload { inner, path, disk: Arc::clone(&self.disk) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        let path = self.inner.path_to_filesystem(to)?;
        let disk = Arc::clone(&self.disk);
        blocking(move || sync_file_and_folder(disk.as_ref(), &path).map_err(|source| store_error(&path, source))).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.inner.rename_opts(from, to, options).await?;
        let path = self.inner.path_to_filesystem(to)?;
        let disk = Arc::clone(&self.disk);
        blocking(move || sync_file_and_folder(disk.as_ref(), &path).map_err(|source| store_error(&path, source))).await
    }
}

/// A multipart upload that is durable once it is complete.
#[derive(Debug)]
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    path: PathBuf,
    disk: Arc<dyn Disk>,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let result = self.inner.complete().await?;
        let (path, disk) = (self.path.clone(), Arc::clone(&self.disk));
        blocking(move || sync_file_and_folder(disk.as_ref(), &path).map_err(|source| store_error(&path, source)))
            .await?;
        Ok(result)
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn opened() -> (tempfile::TempDir, OpenRoot) {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("a new/folder");
        let root = open(path.to_str().expect("text"), &StorageOptions::default()).await.expect("opens");
        (folder, root)
    }

    #[tokio::test]
    async fn a_created_file_is_whole_and_cannot_be_created_twice() {
        let (_folder, root) = opened().await;
        let path = root.base.clone().join("_delta_log").join("0.json");
        let put = |text: &'static str, mode: PutMode| {
            root.store.put_opts(&path, PutPayload::from_static(text.as_bytes()), mode.into())
        };
        put("first", PutMode::Create).await.expect("first create");
        let second = put("second", PutMode::Create).await;
        assert!(matches!(second, Err(object_store::Error::AlreadyExists { .. })), "{second:?}");
        let read = root.store.get(&path).await.expect("get").bytes().await.expect("bytes");
        assert_eq!(read, "first");
        put("third", PutMode::Overwrite).await.expect("overwrite");
        let listed: Vec<_> = futures::StreamExt::collect(root.store.list(Some(&root.base))).await;
        assert_eq!(listed.len(), 1, "no staging file is left: {listed:?}");
    }

    #[tokio::test]
    async fn an_unknown_scheme_says_what_would_be_right() {
        let error = open("gopher://x/y", &StorageOptions::default()).await.expect_err("refused");
        assert!(error.hint().is_some_and(|hint| hint.contains("s3://")), "{error:?}");
    }
}
