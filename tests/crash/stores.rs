//! Servers with the APIs of object stores, all in memory: moto for S3, fake-gcs-server for Google Cloud Storage, Azurite for Azure.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::common::program::Running;
use crate::common::{cache, python, skipped, until_or};

/// Azurite's account and its key, which Microsoft publishes.
const AZURE_ACCOUNT: &str = "devstoreaccount1";
const AZURE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// An object store with a bucket `bellwether`.
pub(super) struct Store {
    scheme: &'static str,
    /// HOST:PORT of the server.
    pub(super) address: String,
    /// Keys of `[tables.options]`.
    options: String,
    /// Keys of the same store with another credential.
    other_options: Option<String>,
    /// The server; none if the test has its own.
    running: Option<Running>,
}

// === impl Store ===

impl Store {
    /// Describes a store with the API of S3 at an address.
    pub(super) fn s3_at(address: &str) -> Self {
        let options = format!(
            "aws_endpoint = \"http://{address}\"\naws_region = \"us-east-1\"\n\
             aws_access_key_id = \"tests\"\naws_secret_access_key = \"tests\"\n"
        );
        Self { scheme: "s3", address: address.to_owned(), options, other_options: None, running: None }
    }

    /// Describes a store with the API of Google Cloud Storage at an address, which asks for no credentials.
    pub(super) fn google_at(address: &str) -> Self {
        let account = format!(
            r#"{{"gcs_base_url": "http://{address}", "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}}"#
        );
        let options = format!("google_service_account_key = '{account}'\n");
        Self { scheme: "gs", address: address.to_owned(), options, other_options: None, running: None }
    }

    /// Describes a store with the API of Azure at an address: with a key, or with a shared access signature.
    pub(super) fn azure_at(address: &str) -> Self {
        let common = format!(
            "azure_storage_account_name = \"{AZURE_ACCOUNT}\"\nazure_storage_endpoint = \"http://{address}/{AZURE_ACCOUNT}\"\n"
        );
        let with_key = format!("{common}azure_storage_account_key = \"{AZURE_KEY}\"\n");
        let with_signature = format!("{common}azure_storage_sas_token = \"{}\"\n", shared_access_signature());
        let address = address.to_owned();
        Self { scheme: "az", address, options: with_key, other_options: Some(with_signature), running: None }
    }

    /// Starts a server of S3. Returns none if it is not installed.
    pub(super) fn s3() -> Option<Self> {
        python()?;
        let program = cache("venv/bin/moto_server");
        if !program.exists() {
            skipped("no S3 server; `scripts/setup python` installs moto");
            return None;
        }
        let address = free_address();
        let (host, port) = address.split_once(':').expect("host and port");
        let running = start(program, &["-H", host, "-p", port]);
        until_or(|| answers(&address, "PUT /bellwether", " 200 "), || said("S3", &running));
        Some(Self { running: Some(running), ..Self::s3_at(&address) })
    }

    /// Starts a server of Google Cloud Storage. Returns none if it is not installed.
    pub(super) fn google() -> Option<Self> {
        let program = cache("stores/gcs");
        if !program.exists() {
            skipped("no server of Google Cloud Storage; `scripts/setup stores` builds one");
            return None;
        }
        let address = free_address();
        let running = start(program, &[&address, "bellwether"]);
        until_or(|| answers(&address, "GET /bellwether", " 200 "), || said("Google", &running));
        Some(Self { running: Some(running), ..Self::google_at(&address) })
    }

    /// Starts a server of Azure Blob Storage. Returns none if it is not installed.
    pub(super) fn azure() -> Option<Self> {
        let program = cache("stores/azurite/node_modules/.bin/azurite-blob");
        if !program.exists() {
            skipped("no server of Azure Blob Storage; `scripts/setup stores` installs Azurite");
            return None;
        }
        let address = free_address();
        let (host, port) = address.split_once(':').expect("host and port");
        let mut arguments = vec!["--blobHost", host, "--blobPort", port, "--inMemoryPersistence"];
        // It refuses versions of the API that are newer than itself.
        arguments.extend(["--skipApiVersionCheck", "--disableTelemetry"]);
        let running = start(program, &arguments);
        let create = format!("PUT /{AZURE_ACCOUNT}/bellwether?restype=container&{}", shared_access_signature());
        until_or(|| answers(&address, &create, " 201 "), || said("Azure", &running));
        Some(Self { running: Some(running), ..Self::azure_at(&address) })
    }

    /// Returns the address of the root in a bucket.
    pub(super) fn root(&self, bucket: &str) -> String {
        format!("{}://{bucket}/llm/", self.scheme)
    }

    /// Returns the `[tables]` keys of a configuration with its tables on the store.
    pub(super) fn tables(&self) -> String {
        format!("root = \"{}://bellwether/llm\"\n[tables.options]\n{}", self.scheme, self.options)
    }

    /// Returns a configuration with the same tables and another credential, if the store has one.
    pub(super) fn by_another_credential(&self, config: &str) -> String {
        match &self.other_options {
            Some(other) => config.replace(&self.options, other),
            None => config.to_owned(),
        }
    }

    /// Returns the output of the server so far; that of S3 has a line for each request.
    pub(super) fn printed(&self) -> String {
        self.running.as_ref().map(Running::printed).unwrap_or_default()
    }
}

fn start(program: PathBuf, arguments: &[&str]) -> Running {
    let what = program.display().to_string();
    Running::spawn(Command::new(program).args(arguments), what)
}

fn said(what: &str, running: &Running) -> String {
    format!("the server of {what} has a bucket\n{}", running.printed())
}

/// Returns an address with a free port.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

/// Sends a request without a body. Returns `None` unless the first line of the answer has the status.
fn answers(address: &str, request: &str, status: &str) -> Option<()> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "{request} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().next()?.contains(status).then_some(())
}

/// Returns a shared access signature for the whole account of Azurite, as a query.
/// <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>
fn shared_access_signature() -> String {
    let (rights, services, kinds) = ("rwdlac", "b", "sco");
    let (ends, protocols, version) = ("2099-01-01T00:00:00Z", "https,http", "2020-08-04");
    let signed = format!("{AZURE_ACCOUNT}\n{rights}\n{services}\n{kinds}\n\n{ends}\n\n{protocols}\n{version}\n");
    let key = STANDARD.decode(AZURE_KEY).expect("a key");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length");
    mac.update(signed.as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("sv={version}&ss={services}&srt={kinds}&sp={rights}&se={ends}&spr={protocols}&sig={signature}")
}
