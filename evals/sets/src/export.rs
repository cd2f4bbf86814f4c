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
    /// Returns why the format cannot hold a case that is within its limits.
    fn refusal(&self, _case: &EvalCase) -> Option<Refusal> {
        None
    }
    /// Returns the files. The cases are within the limits, and the format has no refusal for them.
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

/// Why a case cannot be exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub what: String,
    /// The remedy.
    pub hint: String,
}

/// The treatment of cases that cannot be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// There is no export.
    Refuse,
    /// The others are exported.
    LeaveOut,
}

/// A case that is not in an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub case: String,
    pub reason: String,
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
    pub left_out: Vec<LeftOut>,
}

/// Content of [`MANIFEST_FILE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportManifest {
    pub format: String,
    pub set: String,
    pub version: u32,
    pub cases: usize,
    /// Cases of the set that are not in the export.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
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
/// `Config` if the format is unknown, a case cannot be exported and `unfit` refuses that, or no case is left; the error of the redactor
/// otherwise.
pub fn export(set: &EvalSet, format: &str, redactor: &dyn Redactor, unfit: Unfit) -> Result<Exported> {
    let Some(format) = formats().iter().find(|it| it.name() == format) else {
        let names: Vec<&str> = formats().iter().map(|it| it.name()).collect();
        return Err(Error::config(format!("`{format}` is not an export format"))
            .with_hint(format!("use one of {}", names.join(", "))));
    };
    let (mut cases, mut left_out, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for case in set.cases() {
        let refusal = if case.erased {
            Some("it lost its content by an erasure".to_owned())
        } else {
            let case = case.redacted(redactor)?;
            match refusal_of(&case, *format)? {
                None => {
                    cases.push(case);
                    None
                }
                Some(refusal) => {
                    let reason = format!("{}: {}", refusal.what, refusal.hint);
                    refused.push((case.id, refusal));
                    Some(reason)
                }
            }
        };
        left_out.extend(refusal.map(|reason| LeftOut { case: case.id.clone(), reason }));
    }
    if let [(id, refusal), others @ ..] = refused.as_slice()
        && (unfit == Unfit::Refuse || cases.is_empty())
    {
        let others = match others {
            [] => String::new(),
            [(other, _)] => format!(" (and case `{other}`)"),
            [(other, _), more @ ..] => format!(" (and case `{other}` and {} more)", more.len()),
        };
        let what = format!("cannot export case `{id}` as {}: {}{others}", format.name(), refusal.what);
        let skip = if unfit == Unfit::Refuse { "; or leave such cases out with --skip-unfit" } else { "" };
        return Err(Error::config(what).with_hint(format!("{}{skip}", refusal.hint)));
    }
    if cases.is_empty() {
        return Err(Error::config(format!("all cases of `{}` v{} were erased", set.name, set.version))
            .with_hint("export another version, or add cases with `bellwether evalset create`"));
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
        left_out: left_out.clone(),
        files: listed,
    };
    files.push(ExportFile { path: MANIFEST_FILE.to_owned(), bytes: text::pretty(&manifest)? });
    Ok(Exported { files, left_out })
}

/// Returns why a case cannot be exported in a format.
fn refusal_of(case: &EvalCase, format: &dyn Format) -> Result<Option<Refusal>> {
    let limits = format.limits();
    let refuse = |what: &str, hint: &str| Some(Refusal { what: what.to_owned(), hint: hint.to_owned() });
    if let Some(missing) = case.missing_content() {
        let hint = format!("{missing}; or take the case out with `bellwether evalset retire`");
        return Ok(refuse("its input is not stored here", &hint));
    }
    if limits.needs_expected && case.expected.is_none() {
        return Ok(refuse("the format needs an expected answer", "add `expected`, or export as promptfoo"));
    }
    if !limits.nul && text::has_nul(case) {
        return Ok(refuse("it holds U+0000, which the tool's database refuses", "remove the character"));
    }
    let json = serde_json::to_string(case).map_err(|source| Error::bug("cannot write a case").with_source(source))?;
    if json.len() > limits.case_bytes {
        let what = format!("it has {} bytes; the limit is {}", json.len(), limits.case_bytes);
        return Ok(refuse(&what, "shorten the case, or export as inspect"));
    }
    Ok(format.refusal(case))
}
