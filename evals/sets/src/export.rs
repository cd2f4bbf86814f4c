//! Projections of an eval set onto the formats of evaluation tools. One file for each format.

mod braintrust;
mod csv;
mod deepeval;
mod huggingface;
mod inspect;
mod langfuse;
mod langsmith;
mod mlflow;
mod openai;
mod opik;
mod parquet;
mod phoenix;
mod promptfoo;
mod ragas;
mod text;

use bellwether_base::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::case::{EvalCase, hex};
use crate::redact::Redactor;
use crate::set::EvalSet;

/// File that lists the others of an export. A folder that has it belongs to an export.
pub const MANIFEST_FILE: &str = "bellwether-export.json";

/// A format of an evaluation tool.
pub trait Format: Sync {
    /// Name on the command line.
    fn name(&self) -> &'static str;
    /// The tool, and how it reads the files.
    fn about(&self) -> &'static str;
    /// Values that the format cannot hold.
    fn limits(&self) -> Limits;
    /// Returns the files. The cases are within the limits.
    ///
    /// # Errors
    /// `Config` if a value cannot be expressed.
    fn files(&self, set: &EvalSet) -> Result<Vec<ExportFile>>;
}

/// Limits of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Whether each case needs `expected`.
    pub needs_expected: bool,
    /// Whether texts may hold U+0000. Databases such as PostgreSQL refuse it.
    pub nul: bool,
    /// Most bytes of one case as JSON.
    pub case_bytes: usize,
}

/// A file of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportFile {
    /// Path inside the folder, with `/`.
    pub path: String,
    pub bytes: Vec<u8>,
}

/// A whole export: its manifest is the last file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    pub files: Vec<ExportFile>,
}

/// Content of [`MANIFEST_FILE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportManifest {
    pub format: String,
    pub set: String,
    pub version: u32,
    pub cases: usize,
    pub files: Vec<ExportedFile>,
}

/// A file in the manifest of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedFile {
    pub path: String,
    pub sha256: String,
}

/// Returns all formats, by name.
pub fn formats() -> &'static [&'static dyn Format] {
    &[
        &braintrust::Braintrust,
        &csv::Csv,
        &deepeval::DeepEval,
        &huggingface::HuggingFace,
        &inspect::Inspect,
        &langfuse::Langfuse,
        &langsmith::LangSmith,
        &mlflow::Mlflow,
        &openai::OpenAiApi,
        &openai::OpenAiEvals,
        &opik::Opik,
        &parquet::Parquet,
        &phoenix::Phoenix,
        &promptfoo::Promptfoo,
        &ragas::Ragas,
    ]
}

/// Exports a set: leaves out erased cases, redacts each text, checks the limits and projects. The same set gives the same bytes.
///
/// # Errors
/// `Config` if the format is unknown, content is missing or a limit is exceeded; the error of the redactor otherwise.
pub fn export(set: &EvalSet, format: &str, redactor: &dyn Redactor) -> Result<Exported> {
    let Some(format) = formats().iter().find(|it| it.name() == format) else {
        let names: Vec<&str> = formats().iter().map(|it| it.name()).collect();
        return Err(Error::config(format!("`{format}` is not an export format"))
            .with_hint(format!("use one of {}", names.join(", "))));
    };
    let living = set.cases().iter().filter(|case| !case.erased);
    let cases = living.map(|case| case.redacted(redactor)).collect::<Result<Vec<_>>>()?;
    if cases.is_empty() {
        return Err(Error::config(format!("all cases of `{}` v{} were erased", set.name, set.version))
            .with_hint("export another version, or add cases with `bellwether evalset create`"));
    }
    for case in &cases {
        within(case, format.name(), format.limits())?;
    }
    let set = EvalSet::new(&set.name, set.version, cases)?;
    let mut files = format.files(&set)?;
    let listed = files
        .iter()
        .map(|file| ExportedFile { path: file.path.clone(), sha256: hex(&Sha256::digest(&file.bytes)) })
        .collect();
    let manifest = ExportManifest {
        format: format.name().to_owned(),
        set: set.name.clone(),
        version: set.version,
        cases: set.cases().len(),
        files: listed,
    };
    files.push(ExportFile { path: MANIFEST_FILE.to_owned(), bytes: text::pretty(&manifest)? });
    Ok(Exported { files })
}

/// Checks a case against the limits of a format.
fn within(case: &EvalCase, format: &str, limits: Limits) -> Result<()> {
    let refuse = |what: &str, hint: String| {
        Err(Error::config(format!("cannot export case `{}` as {format}: {what}", case.id)).with_hint(hint))
    };
    if let Some(missing) = case.missing_content() {
        let hint = format!("{missing}; or take the case out with `bellwether evalset retire`");
        return refuse("its input is not stored here", hint);
    }
    if limits.needs_expected && case.expected.is_none() {
        return refuse("the format needs an expected answer", "add `expected`, or export as promptfoo".to_owned());
    }
    let json = serde_json::to_string(case).map_err(|source| Error::bug("cannot write a case").with_source(source))?;
    if !limits.nul && text::has_nul(case) {
        return refuse("it holds U+0000, which the tool's database refuses", "remove the character".to_owned());
    }
    if json.len() > limits.case_bytes {
        let what = format!("it has {} bytes; the limit is {}", json.len(), limits.case_bytes);
        return refuse(&what, "shorten the case, or export as inspect".to_owned());
    }
    Ok(())
}
