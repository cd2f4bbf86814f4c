//! The root of the tables that a command reads: named on the command line, or by a configuration.

use std::path::{Path, PathBuf};

use bellwether_base::{Error, Result};
use bellwether_lake::{Lake, StorageOptions};
use clap::Args;

use crate::config::Config;

/// Arguments of commands that read tables and need nothing else.
#[derive(Args, Debug)]
pub(crate) struct RootArgs {
    /// Root of the tables: a folder, or s3://, gs:// or az://BUCKET/PREFIX.
    #[arg(long, value_name = "ROOT", env = "BELLWETHER_ROOT")]
    root: Option<String>,
    /// Configuration file that names the root.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG", conflicts_with = "root")]
    config: Option<PathBuf>,
}

/// A root with the options of its object store.
pub(crate) struct Root {
    pub(crate) uri: String,
    pub(crate) options: StorageOptions,
    /// The configuration that names it, if one does.
    pub(crate) config: Option<Config>,
}

// === impl RootArgs ===

impl RootArgs {
    /// Returns whether an argument names the root.
    pub(crate) fn is_named(&self) -> bool {
        self.root.is_some() || self.config.is_some()
    }

    /// Returns the configuration file, if one is named.
    pub(crate) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Returns the root.
    ///
    /// # Errors
    /// `Config` if no argument names a root, or the configuration is invalid.
    pub(crate) fn resolve(&self) -> Result<Root> {
        match (&self.root, &self.config) {
            (Some(root), _) => Ok(Root { uri: root.clone(), options: StorageOptions::default(), config: None }),
            (None, Some(file)) => {
                let config = Config::load(file)?;
                let (uri, options) = (config.tables.root.clone(), StorageOptions(config.tables.options.clone()));
                Ok(Root { uri, options, config: Some(config) })
            }
            (None, None) => Err(unnamed()),
        }
    }

    /// Opens the tables for reading.
    ///
    /// # Errors
    /// `Config` if there are no tables under the root, `Unavailable` if storage does not respond.
    pub(crate) async fn open_to_read(&self) -> Result<Lake> {
        let root = self.resolve()?;
        open_to_read(&root.uri, &root.options).await
    }

    /// Opens existing tables for writing.
    ///
    /// # Errors
    /// As [`RootArgs::open_to_read`]; `Data` if this program cannot write to a table.
    pub(crate) async fn open_to_write(&self) -> Result<Lake> {
        let root = self.resolve()?;
        open_to_read(&root.uri, &root.options).await?;
        Lake::open(&root.uri, &root.options).await
    }
}

/// Makes the error of a command that needs tables if no argument names them.
pub(crate) fn unnamed() -> Error {
    Error::config("no root of tables given").with_hint("add --root ROOT or --config FILE, or set BELLWETHER_ROOT")
}

/// Opens existing tables for reading. A folder without tables is refused, since opening it would create them.
///
/// # Errors
/// `Config` if there are no tables under the root, `Unavailable` if storage does not respond.
pub(crate) async fn open_to_read(uri: &str, options: &StorageOptions) -> Result<Lake> {
    if !uri.contains("://") && !Path::new(uri).join("events").is_dir() {
        return Err(Error::config(format!("no tables under `{uri}`"))
            .with_hint("use the root that `bellwether run` or `bellwether demo` printed"));
    }
    Lake::open_to_read(uri, options).await
}
