//! The error of every room above the leaf crates: what happened, what to do about it, and which action it calls for.

use std::error::Error as StdError;
use std::fmt;

use arrow::error::ArrowError;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an error asks of whoever meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A setting is wrong: fix it and start again.
    Config,
    /// One message is bad: quarantine it and go on.
    BadEvent,
    /// Something outside is out of reach: try again.
    Unavailable,
    /// Another owner has committed: rebuild from the table.
    Fenced,
    /// What is stored contradicts itself: stop and call a person.
    Data,
    /// A rule of the program itself is broken.
    Bug,
}

/// An error with a message, an optional hint and its cause.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error of a kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// A setting is wrong.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// One message is bad.
    pub fn bad_event(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadEvent, message)
    }

    /// Something outside is out of reach.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// Another owner has committed.
    pub fn fenced(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Fenced, message)
    }

    /// What is stored contradicts itself.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// A rule of the program itself is broken.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Bug, message)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What it asks of whoever meets it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What happened, without the cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The whole chain of causes in one line, for logs.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = StdError::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

/// Storage errors are worth another try, but for those that a person has to mend.
impl From<object_store::Error> for Error {
    fn from(source: object_store::Error) -> Self {
        use object_store::Error as Store;
        let error = match &source {
            Store::NotFound { path, .. } => Self::data(format!("`{path}` is not in the table store")),
            Store::PermissionDenied { path, .. } => {
                Self::unavailable(format!("the table store refuses access to `{path}`"))
                    .with_hint("check the credentials and permissions of the tables' root")
            }
            Store::Unauthenticated { path, .. } => {
                Self::unavailable(format!("the table store does not know who asks for `{path}`"))
                    .with_hint("check the credentials of the tables' root")
            }
            _ => Self::unavailable("the table store does not answer as it should"),
        };
        error.with_source(source)
    }
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(source: parquet::errors::ParquetError) -> Self {
        Self::data("a Parquet file cannot be read or written").with_source(source)
    }
}

impl From<ArrowError> for Error {
    fn from(source: ArrowError) -> Self {
        Self::bug("a batch does not have the form its table asks for").with_source(source)
    }
}

/// What storage does not give at the moment is worth another try; what it gave and is not readable, or asks for what the
/// library does not have, is not.
impl From<deltalake::DeltaTableError> for Error {
    fn from(source: deltalake::DeltaTableError) -> Self {
        let error = match lasts(&source) {
            true => Self::data("a Delta table cannot be read").with_hint(
                "`bellwether audit` says what is the matter with it; restore its log or its file from a copy",
            ),
            false => Self::unavailable("a Delta table cannot be opened"),
        };
        error.with_source(source)
    }
}

/// True where an error is about what is stored, by the innermost cause that says so; whatever storage may answer otherwise
/// the next time is none of these. For errors of storage, of Parquet, of Arrow and of the Delta library.
pub fn lasts(error: &(dyn StdError + 'static)) -> bool {
    use buoyant_kernel::Error as Kernel;
    use deltalake::DeltaTableError as Delta;
    use deltalake::kernel::Error as Older;
    use parquet::errors::ParquetError;
    let inner = |source: &(dyn StdError + Send + Sync + 'static)| lasts(source);
    if let Some(error) = error.downcast_ref::<Delta>() {
        return match error {
            Delta::KernelError(source) => lasts(source),
            Delta::Kernel { source } => lasts(source),
            Delta::ObjectStore { source } => lasts(source),
            Delta::Parquet { source } => lasts(source),
            Delta::Arrow { source } => lasts(source),
            Delta::GenericError { source } => inner(source.as_ref()),
            Delta::InvalidJsonLog { .. } | Delta::InvalidStatsJson { .. } | Delta::UnsupportedColumnMapping { .. } => {
                true
            }
            _ => false,
        };
    }
    if let Some(error) = error.downcast_ref::<Older>() {
        return match error {
            Older::Arrow(source) => lasts(source),
            Older::Parquet(source) => lasts(source),
            Older::ObjectStore(source) => lasts(source),
            Older::GenericError { source } => inner(source.as_ref()),
            Older::MalformedJson(_) | Older::DeletionVector(_) => true,
            _ => false,
        };
    }
    if let Some(error) = error.downcast_ref::<Kernel>() {
        return match error {
            Kernel::Backtraced { source, .. } => lasts(source.as_ref()),
            Kernel::Arrow(source) => lasts(source),
            Kernel::Parquet(source) => lasts(source),
            Kernel::ObjectStore(source) => lasts(source),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_leaves_the_cause_to_the_chain() {
        let error =
            Error::data("the log is torn").with_source(std::io::Error::other("short read")).with_hint("restore");
        assert_eq!(error.to_string(), "the log is torn");
        assert_eq!(error.chain(), "the log is torn: short read");
        assert_eq!(error.hint(), Some("restore"));
    }
}
