//! The root of the tables that a command reads: named on the command line, or by a configuration.

use std::path::{Path, PathBuf};

use bellwether_base::{Error, Result};
use bellwether_lake::{Lake, StorageOptions};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::config::Config;

/// Arguments of commands that read tables and need nothing else. An argument overrides the environment.
#[derive(Debug)]
pub(crate) struct RootArgs(Given);

#[derive(Args, Debug)]
struct Given {
    /// Root of the tables: a folder, or s3://, gs:// or az://BUCKET/PREFIX.
    #[arg(long, value_name = "ROOT", env = "BELLWETHER_ROOT")]
    root: Option<String>,
    /// Configuration file that names the root.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG")]
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

impl FromArgMatches for RootArgs {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let mut given = Given::from_arg_matches(matches)?;
        let is_argument = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
        match (is_argument("root"), is_argument("config")) {
            (true, false) => given.config = None,
            (false, true) => given.root = None,
            (true, true) => {
                let message = "the argument '--root <ROOT>' cannot be used with '--config <FILE>'";
                return Err(clap::Error::raw(ErrorKind::ArgumentConflict, message));
            }
            (false, false) if given.root.is_some() && given.config.is_some() => {
                let message =
                    "BELLWETHER_ROOT and BELLWETHER_CONFIG are both set; unset one, or give --root or --config";
                return Err(clap::Error::raw(ErrorKind::ArgumentConflict, message));
            }
            (false, false) => {}
        }
        Ok(Self(given))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for RootArgs {
    fn augment_args(command: Command) -> Command {
        Given::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Given::augment_args_for_update(command)
    }
}

impl RootArgs {
    /// Returns whether an argument names the root.
    pub(crate) fn is_named(&self) -> bool {
        self.0.root.is_some() || self.0.config.is_some()
    }

    /// Returns the configuration file, if one is named.
    pub(crate) fn config(&self) -> Option<&Path> {
        self.0.config.as_deref()
    }

    /// Returns the root.
    ///
    /// # Errors
    /// `Config` if no argument names a root, or the configuration is invalid.
    pub(crate) fn resolve(&self) -> Result<Root> {
        match (&self.0.root, &self.0.config) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses arguments. `HOME`, which is set everywhere, stands for a variable of the environment.
    fn parsed(arguments: &[&str], environment: bool) -> std::result::Result<(Option<String>, bool), String> {
        let variable = if environment { "HOME" } else { "BELLWETHER_NO_SUCH_VARIABLE" };
        let command = RootArgs::augment_args(Command::new("test"))
            .mut_arg("root", |root| root.env("BELLWETHER_NO_SUCH_VARIABLE"))
            .mut_arg("config", |config| config.env(variable));
        let matches = command.try_get_matches_from(std::iter::once(&"test").chain(arguments));
        let args =
            matches.and_then(|matches| RootArgs::from_arg_matches(&matches)).map_err(|error| error.to_string())?;
        Ok((args.0.root, args.0.config.is_some()))
    }

    #[test]
    fn an_argument_goes_before_the_environment() {
        assert_eq!(parsed(&[], true), Ok((None, true)));
        assert_eq!(parsed(&["--root", "a"], true), Ok((Some("a".to_owned()), false)));
        assert_eq!(parsed(&["-c", "b"], true), Ok((None, true)));
        assert_eq!(parsed(&[], false), Ok((None, false)));
        let error = parsed(&["--root", "a", "--config", "b"], false).expect_err("both");
        assert!(error.contains("'--root <ROOT>' cannot be used with '--config <FILE>'"), "{error}");
    }
}
