//! Roots in the object store of a provider: Amazon S3 and stores with its API, Google Cloud Storage, Azure Blob Storage.
//!
//! A commit creates an object that must not exist yet, and each provider decides that in the same step in which it writes:
//! S3 by `If-None-Match: *`, Google by `x-goog-if-generation-match: 0`, Azure by `If-None-Match: *`. Of several writers one
//! succeeds, and the others are refused with 409 or 412. [`Provider::probe`] verifies this before any table is written.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use url::Url;

use super::{OpenRoot, StorageOptions};
use crate::stored::{Stored, from_store};
use bellwether_base::unique_id;
use bellwether_base::{Error, Result};

/// Environment variables that Azure's own tools read, but `object_store` does not.
const FROM_AZURE_TOOLS: [(&str, AzureConfigKey); 2] =
    [("AZURE_STORAGE_ACCOUNT", AzureConfigKey::AccountName), ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey)];

/// A provider of object stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Provider {
    /// Amazon S3, and stores with its API.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::S3 => "Amazon S3",
            Self::Google => "Google Cloud Storage",
            Self::Azure => "Azure Blob Storage",
        })
    }
}

// === impl Provider ===

impl Provider {
    /// Returns the provider that a scheme of an address names.
    pub(super) fn of(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" | "s3a" => Some(Self::S3),
            "gs" => Some(Self::Google),
            "az" | "abfs" | "abfss" => Some(Self::Azure),
            _ => None,
        }
    }

    /// Returns the provider's word for a bucket.
    fn bucket(self) -> &'static str {
        match self {
            Self::S3 | Self::Google => "bucket",
            Self::Azure => "container",
        }
    }

    /// Returns the form of an address.
    fn form(self) -> &'static str {
        match self {
            Self::S3 => "s3://BUCKET/PREFIX",
            Self::Google => "gs://BUCKET/PREFIX",
            Self::Azure => "az://CONTAINER/PREFIX or abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX",
        }
    }

    /// Returns a pattern for the names of the environment variables with settings and credentials.
    fn variables(self) -> &'static str {
        match self {
            Self::S3 => "AWS_*",
            Self::Google => "GOOGLE_*",
            Self::Azure => "AZURE_*",
        }
    }

    /// Sets up the store of a root. Sends no request.
    ///
    /// # Errors
    /// `Config` if the address or an option is invalid, or the credentials cannot be read.
    pub(super) fn root(self, root: &str, options: &StorageOptions) -> Result<OpenRoot> {
        let refuse = |what: String| Error::config(what).with_hint(format!("write it as {}", self.form()));
        let mut url = Url::parse(root).map_err(|e| refuse(format!("`{root}` is not an address")).with_source(e))?;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let bucket = url.host_str().filter(|host| !host.is_empty());
        let bucket = bucket.ok_or_else(|| refuse(format!("`{root}` names no {}", self.bucket())))?;
        let store = match self {
            Self::S3 => self.s3(bucket, options)?,
            Self::Google => self.google(bucket, options)?,
            Self::Azure => self.azure(&url, options)?,
        };
        let store = store.map_err(|e| {
            Error::config(format!("the store of `{root}` cannot be set up"))
                .with_hint(format!("check [tables.options] and the variables {}", self.variables()))
                .with_source(e)
        })?;
        let base = Path::from_url_path(url.path()).map_err(object_store::Error::from).stored()?;
        Ok(OpenRoot { url, store, base })
    }

    fn s3(self, bucket: &str, options: &StorageOptions) -> Result<object_store::Result<Arc<dyn ObjectStore>>> {
        let mut builder = AmazonS3Builder::from_env().with_conditional_put(S3ConditionalPut::ETagMatch);
        if names_plain_http(options) {
            builder = builder.with_allow_http(true);
        }
        let builder = self.configured(builder, options, AmazonS3Builder::with_config)?;
        // The root says which bucket it is, whatever the options and the environment name.
        Ok(builder.with_bucket_name(bucket).build().map(|store| Arc::new(store) as _))
    }

    fn google(self, bucket: &str, options: &StorageOptions) -> Result<object_store::Result<Arc<dyn ObjectStore>>> {
        let builder = GoogleCloudStorageBuilder::from_env();
        let builder = self.configured(builder, options, GoogleCloudStorageBuilder::with_config)?;
        Ok(builder.with_bucket_name(bucket).build().map(|store| Arc::new(store) as _))
    }

    fn azure(self, url: &Url, options: &StorageOptions) -> Result<object_store::Result<Arc<dyn ObjectStore>>> {
        let mut builder = MicrosoftAzureBuilder::from_env();
        for (variable, key) in FROM_AZURE_TOOLS {
            if builder.get_config_value(&key).is_none()
                && let Ok(value) = std::env::var(variable)
            {
                builder = builder.with_config(key, value);
            }
        }
        if names_plain_http(options) {
            builder = builder.with_allow_http(true);
        }
        let builder = self.configured(builder, options, MicrosoftAzureBuilder::with_config)?;
        Ok(builder.with_url(url.as_str()).build().map(|store| Arc::new(store) as _))
    }

    /// Applies the options to a builder.
    fn configured<B, K>(
        self,
        builder: B,
        options: &StorageOptions,
        with_config: impl Fn(B, K, String) -> B,
    ) -> Result<B>
    where
        K: FromStr<Err = object_store::Error>,
    {
        options.0.iter().try_fold(builder, |builder, (key, value)| {
            let known = key.parse().map_err(|e| {
                Error::config(format!("`{key}` is not a storage option of {self}"))
                    .with_hint("correct or remove it in [tables.options]")
                    .with_source(e)
            })?;
            Ok(with_config(builder, known, value.clone()))
        })
    }

    /// Refuses a store that lets two writers create the same object, because commits would be lost on it.
    ///
    /// # Errors
    /// `Config` if the store ignores conditions, or its bucket does not exist; `Unavailable` if it does not answer.
    pub(super) async fn probe(self, root: &OpenRoot) -> Result<()> {
        let path = root.base.clone().join("_bellwether").join(format!("probe-{}", unique_id()));
        let create = || root.store.put_opts(&path, PutPayload::from_static(b"probe"), PutMode::Create.into());
        match create().await {
            Ok(_) => {}
            // Only a missing bucket makes the creation of an object fail with "not found".
            Err(source @ object_store::Error::NotFound { .. }) => return Err(self.no_bucket(&root.url, source)),
            Err(source) => return Err(from_store(source)),
        }
        let second = create().await;
        // If the probe cannot be removed, it remains as litter; that does not disqualify the store.
        drop(root.store.delete(&path).await);
        match second {
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(()),
            Ok(_) => {
                let condition = if self == Self::Google { "x-goog-if-generation-match" } else { "If-None-Match" };
                Err(Error::config(format!("the store of `{}` ignores `{condition}`", root.url)).with_hint(
                    "two writers could overwrite each other's commits there: use a store with conditional puts",
                ))
            }
            Err(source) => Err(from_store(source)),
        }
    }

    fn no_bucket(self, url: &Url, source: object_store::Error) -> Error {
        let name = if url.username().is_empty() { url.host_str().unwrap_or_default() } else { url.username() };
        let bucket = self.bucket();
        Error::config(format!("the {bucket} `{name}` of the tables' root `{url}` does not exist"))
            .with_hint(format!("create the {bucket}, which Bellwether never does itself, or correct the root"))
            .with_source(source)
    }
}

/// Returns true if an option names an endpoint without encryption, which is a deliberate choice.
fn names_plain_http(options: &StorageOptions) -> bool {
    options.0.iter().any(|(key, value)| key.ends_with("endpoint") && value.starts_with("http://"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn opened(root: &str, options: &[(&str, &str)]) -> Result<OpenRoot> {
        let options: BTreeMap<String, String> =
            options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let provider = Provider::of(root.split_once("://").expect("an address").0).expect("a provider");
        provider.root(root, &StorageOptions(options))
    }

    #[test]
    fn each_provider_opens_its_addresses() {
        let account: &[_] = &[("azure_storage_account_name", "acme"), ("azure_storage_account_key", "c2VjcmV0")];
        for (root, options, store) in [
            ("s3://acme/a/b", &[][..], "AmazonS3(acme)"),
            ("gs://acme/a/b", &[("google_skip_signature", "true")], "GoogleCloudStorage(acme)"),
            ("az://tables/a/b", account, "MicrosoftAzure { account: acme, container: tables }"),
            (
                "abfss://tables@acme.dfs.core.windows.net/a/b",
                &account[1..],
                "MicrosoftAzure { account: acme, container: tables }",
            ),
        ] {
            let opened = opened(root, options).expect(root);
            assert_eq!(opened.store.to_string(), store, "{root}");
            assert_eq!(opened.base, Path::from("a/b"), "{root}");
            assert_eq!(opened.url.as_str(), format!("{root}/"));
        }
    }

    #[test]
    fn the_root_names_the_bucket_whatever_the_options_say() {
        for (root, option, store) in [
            ("s3://acme/x", "aws_bucket", "AmazonS3(acme)"),
            ("gs://acme/x", "google_bucket", "GoogleCloudStorage(acme)"),
        ] {
            assert_eq!(opened(root, &[(option, "other")]).expect("opens").store.to_string(), store, "{root}");
        }
    }

    #[test]
    fn an_option_of_another_provider_is_refused_without_its_value() {
        let error = opened("gs://acme/x", &[("aws_access_key_id", "a secret")]).expect_err("refused");
        assert_eq!(error.message(), "`aws_access_key_id` is not a storage option of Google Cloud Storage");
        assert!(!error.chain().contains("a secret"), "{}", error.chain());
    }

    #[test]
    fn an_address_without_a_bucket_says_how_to_write_it() {
        for (root, hint) in
            [("s3:///x", "write it as s3://BUCKET/PREFIX"), ("gs:///x", "write it as gs://BUCKET/PREFIX")]
        {
            assert_eq!(opened(root, &[]).expect_err("refused").hint(), Some(hint));
        }
        let error = opened("az:///x", &[]).expect_err("refused");
        assert_eq!(error.message(), "`az:///x` names no container");
    }
}
