//! The stores under a lake: a durable local file system, and the object stores of cloud providers.
//!
//! `object_store`'s local file system never calls fsync, so a commit could survive a power loss without the data that it
//! names. [`DurableFileSystem`] writes to a staging file, syncs it, links it under its name and syncs the folder: once a
//! call has returned, the whole file exists after any crash.

mod disk;
#[cfg(test)]
mod power_loss;
mod remote;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, UploadPart,
};
use url::Url;

use crate::stored::Stored;
use bellwether_base::unique_id;
use bellwether_base::{Error, Result};
use disk::{Disk, LocalDisk};
use remote::Provider;

/// Settings of the store, by the names that object stores use (`aws_endpoint`, `azure_storage_account_name`, ...).
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

/// The supported kinds of roots, for hints.
pub(crate) const ROOTS: &str = "a folder, or s3://, gs:// or az://BUCKET/PREFIX";

/// The place that the address of a root names.
enum Place<'a> {
    Folder(&'a str),
    Remote(Provider),
}

/// Returns the place of a root.
fn place(root: &str) -> Result<Place<'_>> {
    match root.split_once("://") {
        None => Ok(Place::Folder(root)),
        Some(("file", path)) => Ok(Place::Folder(path)),
        Some((scheme, _)) => Provider::of(scheme).map(Place::Remote).ok_or_else(|| {
            Error::config(format!("tables cannot be kept at `{root}`"))
                .with_hint(format!("`{scheme}://` is not supported: use {ROOTS}"))
        }),
    }
}

/// Opens a folder or an address in an object store. Creates the folder; verifies that the store honours conditional puts.
pub(crate) async fn open(root: &str, options: &StorageOptions) -> Result<OpenRoot> {
    match place(root)? {
        Place::Folder(path) => open_folder(FilePath::new(path)),
        Place::Remote(provider) => {
            let opened = provider.root(root, options)?;
            provider.probe(&opened).await?;
            Ok(opened)
        }
    }
}

/// Opens a folder or an address in an object store without writing anything.
pub(crate) fn open_as_it_is(root: &str, options: &StorageOptions) -> Result<OpenRoot> {
    let folder = match place(root)? {
        Place::Folder(path) => path,
        Place::Remote(provider) => return provider.root(root, options),
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

fn open_folder(path: &FilePath) -> Result<OpenRoot> {
    let refuse = |source: io::Error| {
        Error::config(format!("the tables' root `{}` cannot be created or read", path.display()))
            .with_hint("name a folder that this user may write to")
            .with_source(source)
    };
    if path.as_os_str().is_empty() {
        return Err(Error::config("the tables' root is empty").with_hint(format!("name {ROOTS}")));
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
    use object_store::ObjectStoreExt;

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
        assert!(error.hint().is_some_and(|hint| hint.contains(ROOTS)), "{error:?}");
    }
}
