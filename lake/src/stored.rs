//! Converts errors of the storage libraries to errors of this program.
//!
//! `object_store`, `parquet` and `deltalake` are known to this crate only, so the conversions live here and not beside
//! [`Error`].

use std::error::Error as StdError;

use arrow::error::ArrowError;
use bellwether_base::{Error, Result};

/// Converts a result of a storage library to one of this program.
pub trait Stored<T> {
    /// Converts the error.
    fn stored(self) -> Result<T>;
}

impl<T> Stored<T> for Result<T, object_store::Error> {
    fn stored(self) -> Result<T> {
        self.map_err(from_store)
    }
}

impl<T> Stored<T> for Result<T, parquet::errors::ParquetError> {
    fn stored(self) -> Result<T> {
        self.map_err(from_parquet)
    }
}

impl<T> Stored<T> for Result<T, deltalake::DeltaTableError> {
    fn stored(self) -> Result<T> {
        self.map_err(from_delta)
    }
}

/// Converts an error of the store. Another attempt can succeed unless an object is missing.
pub(crate) fn from_store(source: object_store::Error) -> Error {
    use object_store::Error as Store;
    let error = match &source {
        _ if lacks_bucket(&source) => Error::config("the bucket or container of the tables' root does not exist")
            .with_hint("create it, which Bellwether never does itself, or correct the root"),
        Store::NotFound { path, .. } => Error::data(format!("`{path}` is not in the table store")),
        Store::PermissionDenied { path, .. } => {
            Error::unavailable(format!("the table store refuses access to `{path}`"))
                .with_hint("check the credentials and permissions of the tables' root")
        }
        Store::Unauthenticated { path, .. } => {
            Error::unavailable(format!("the table store could not authenticate the request for `{path}`"))
                .with_hint("check the credentials of the tables' root")
        }
        _ => Error::unavailable("the table store does not answer"),
    };
    error.with_source(source)
}

/// Returns true if a provider says that the bucket or container is missing, and not only an object in it. `object_store` passes
/// this on only in the text of its error.
fn lacks_bucket(source: &object_store::Error) -> bool {
    let text = source.to_string();
    ["<Code>NoSuchBucket</Code>", "<Code>ContainerNotFound</Code>"].iter().any(|code| text.contains(code))
}

/// Converts an error of the Parquet library. It is permanent.
pub(crate) fn from_parquet(source: parquet::errors::ParquetError) -> Error {
    Error::data("a Parquet file cannot be read or written").with_source(source)
}

/// Converts an error of the Delta library. Another attempt can succeed if storage did not answer, but not if it returned
/// something unreadable or unsupported.
pub(crate) fn from_delta(source: deltalake::DeltaTableError) -> Error {
    let error = match is_permanent(&source) {
        true => Error::data("a Delta table cannot be read").with_hint(
            "run `bellwether audit` to find the damage; restore the damaged log entry or file from a backup",
        ),
        false => Error::unavailable("a Delta table cannot be opened"),
    };
    error.with_source(source)
}

/// Returns true if an error is about stored data, so that another attempt would fail in the same way. The innermost known
/// cause of errors of `object_store`, Parquet, Arrow and the Delta library decides.
pub fn is_permanent(error: &(dyn StdError + 'static)) -> bool {
    use buoyant_kernel::Error as Kernel;
    use deltalake::DeltaTableError as Delta;
    use deltalake::kernel::Error as Older;
    use parquet::errors::ParquetError;
    let inner = |source: &(dyn StdError + Send + Sync + 'static)| is_permanent(source);
    if let Some(error) = error.downcast_ref::<Delta>() {
        return match error {
            Delta::KernelError(source) => is_permanent(source),
            Delta::Kernel { source } => is_permanent(source),
            Delta::ObjectStore { source } => is_permanent(source),
            Delta::Parquet { source } => is_permanent(source),
            Delta::Arrow { source } => is_permanent(source),
            Delta::GenericError { source } => inner(source.as_ref()),
            Delta::InvalidJsonLog { .. } | Delta::InvalidStatsJson { .. } | Delta::UnsupportedColumnMapping { .. } => {
                true
            }
            _ => false,
        };
    }
    if let Some(error) = error.downcast_ref::<Older>() {
        return match error {
            Older::Arrow(source) => is_permanent(source),
            Older::Parquet(source) => is_permanent(source),
            Older::ObjectStore(source) => is_permanent(source),
            Older::GenericError { source } => inner(source.as_ref()),
            Older::MalformedJson(_) | Older::DeletionVector(_) => true,
            _ => false,
        };
    }
    if let Some(error) = error.downcast_ref::<Kernel>() {
        return match error {
            Kernel::Backtraced { source, .. } => is_permanent(source.as_ref()),
            Kernel::Arrow(source) => is_permanent(source),
            Kernel::Parquet(source) => is_permanent(source),
            Kernel::ObjectStore(source) => is_permanent(source),
            Kernel::GenericError { source } => inner(source.as_ref()),
            Kernel::MalformedJson(_)
            | Kernel::InvalidProtocol(_)
            | Kernel::Unsupported(_)
            | Kernel::InvalidCheckpoint(_)
            | Kernel::DeletionVector(_) => true,
            _ => false,
        };
    }
    if let Some(error) = error.downcast_ref::<ArrowError>() {
        return match error {
            ArrowError::ExternalError(source) => inner(source.as_ref()),
            ArrowError::IoError(..) => false,
            _ => true,
        };
    }
    if let Some(error) = error.downcast_ref::<ParquetError>() {
        return match error {
            ParquetError::External(source) => inner(source.as_ref()),
            _ => true,
        };
    }
    matches!(error.downcast_ref(), Some(object_store::Error::NotFound { .. }))
}
