//! Measures recall and false positives on values that Faker generates in the formats of ten countries, and on recorded
//! conversations. docs/privacy.md has the tables; `make privacy` writes them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bellwether_redact::Redactor;
use serde::Deserialize;

/// The lines that mark the start and the end of the tables in docs/privacy.md.
const MARKS: [&str; 2] = ["<!-- measured: begin -->\n", "<!-- measured: end -->\n"];

/// Set to write the tables instead of comparing them.
const WRITE: &str = "BELLWETHER_WRITE";

/// Most changed ordinary texts that are printed for each form.
const SHOWN: usize = 4;

/// A generated value in two sentences.
#[derive(Deserialize)]
struct Generated {
    kind: String,
    of: String,
    bare: String,
    labelled: String,
    value: String,
}

/// Counts of the values of one form.
#[derive(Default)]
struct Found {
    values: usize,
    /// Values that disappeared from a sentence without a word that names them.
    bare: usize,
    labelled: usize,
    /// Values that became a placeholder of their kind, and nothing else, after such a word.
    named: usize,
}

type Table = BTreeMap<(String, String), Found>;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn cache(path: &str) -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/bellwether");
    std::env::var_os("BELLWETHER_CACHE").map_or_else(home, PathBuf::from).join(path)
}

fn redacted(redactor: &Redactor, text: &str) -> String {
    redactor.session().text(text).into_owned()
}

/// Generates the values; none if Faker is not installed.
fn generated() -> Option<Vec<Generated>> {
    let python = cache("privacy/bin/python");
    if !python.exists() {
        println!("skipped: no Python environment with Faker; `scripts/setup privacy` creates it");
        return None;
    }
    let output = Command::new(python).arg(repository("redact/tests/measured/values.py")).output().expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    Some(text.lines().map(|line| serde_json::from_str(line).expect("a value")).collect())
}

fn measure(values: &[Generated]) -> Table {
    let redactor = Redactor::default();
    let mut table = Table::new();
    for Generated { kind, of, bare, labelled, value } in values {
        let found = table.entry((kind.clone(), of.clone())).or_default();
        found.values += 1;
        let (bare_now, labelled_now) = (redacted(&redactor, bare), redacted(&redactor, labelled));
        if kind == "ordinary" {
            found.bare += usize::from(bare_now != *bare);
            if bare_now != *bare && found.bare <= SHOWN {
                println!("{of}: `{value}`: {bare_now}");
            }
            found.labelled += usize::from(labelled_now != *labelled);
            continue;
        }
        found.bare += usize::from(!bare_now.contains(value.as_str()));
        found.labelled += usize::from(!labelled_now.contains(value.as_str()));
        found.named += usize::from(labelled_now == labelled.replace(value.as_str(), &format!("[{kind}_1]")));
    }
    table
}

/// Writes the tables as Markdown.
fn markdown(table: &Table) -> String {
    let mut text = "| kind | form or country | values | found | found after a label | with this kind |\n|---|---|---|---|---|---|\n".to_owned();
    let (ordinary, personal): (Vec<_>, Vec<_>) = table.iter().partition(|((kind, _), _)| kind == "ordinary");
    for ((kind, of), Found { values, bare, labelled, named }) in personal {
        writeln!(text, "| {kind} | {of} | {values} | {bare} | {labelled} | {named} |").expect("a string");
    }
    text.push_str("\nSentences with ordinary values of the same ten countries:\n\n| values | sentences | changed | changed after `order` |\n|---|---|---|---|\n");
    for ((_, of), Found { values, bare, labelled, .. }) in ordinary {
        writeln!(text, "| {of} | {values} | {bare} | {labelled} |").expect("a string");
    }
    text
}

#[test]
fn generated_values_are_found_as_often_as_the_documentation_says() {
    let Some(values) = generated() else { return };
    let table = measure(&values);
    let measured = markdown(&table);
    println!("{measured}");
    // Bounds for each kind: labelled values are found, and ordinary text stays.
    let sums = |kind: &str| {
        let of_kind = table.iter().filter(|((of, form), _)| of == kind && !form.contains("Presidio"));
        let rows = of_kind.map(|(_, found)| found);
        rows.fold(Found::default(), |all, one| Found {
            values: all.values + one.values,
            bare: all.bare + one.bare,
            labelled: all.labelled + one.labelled,
            named: all.named + one.named,
        })
    };
    for (kind, bare, labelled) in LEAST {
        let sum = sums(kind);
        assert!(sum.bare * 100 >= sum.values * bare, "{kind}: {} of {} found", sum.bare, sum.values);
        assert!(sum.labelled * 100 >= sum.values * labelled, "{kind}: {} of {} found", sum.labelled, sum.values);
    }
    let presidio = table.iter().filter(|((_, form), _)| form.starts_with("Presidio"));
    let (found, values) =
        presidio.fold((0, 0), |(found, values), (_, one)| (found + one.labelled, values + one.values));
    assert!(found * 100 >= values * 90, "{found} of {values} values of Presidio found");
    let ordinary = sums("ordinary");
    assert!(ordinary.bare * 100 <= ordinary.values, "{} of {} ordinary texts changed", ordinary.bare, ordinary.values);
    let (path, page) = (repository("docs/privacy.md"), std::fs::read_to_string(repository("docs/privacy.md")));
    let page = page.expect("reads");
    let (before, rest) = page.split_once(MARKS[0]).expect("the mark of the tables");
    let (said, after) = rest.split_once(MARKS[1]).expect("the mark after the tables");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(path, format!("{before}{}{measured}{}{after}", MARKS[0], MARKS[1])).expect("writes");
        return;
    }
    assert_eq!(said, measured, "docs/privacy.md differs; `make privacy` writes it");
}

/// Least share of found values of a kind, percent: alone, and after a word that names them.
const LEAST: [(&str, usize, usize); 8] = [
    ("EMAIL", 100, 100),
    ("PHONE", 60, 95),
    ("CARD", 99, 99),
    ("IBAN", 100, 100),
    ("NATIONAL_ID", 70, 99),
    ("IP", 99, 99),
    ("SECRET", 60, 90),
    ("URL_CREDENTIALS", 100, 100),
];

/// Recorded conversations of the airline tasks of tau2: all of their people are invented, and a few have an e-mail address.
#[test]
fn recorded_conversations_lose_e_mail_addresses_and_little_else() {
    let folder = repository("../shared/data/tau2/trajectories");
    let Ok(files) = std::fs::read_dir(&folder) else {
        println!("skipped: no recorded conversations in {}", folder.display());
        return;
    };
    let redactor = Redactor::default();
    let (mut texts, mut changed, mut kinds) = (0, 0, BTreeMap::<String, u64>::new());
    for file in files {
        let text = std::fs::read_to_string(file.expect("an entry").path()).expect("reads");
        let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        walk(&document["simulations"], "", &mut |name, text| {
            let mut session = redactor.session();
            let redacted = session.text_of(name, text);
            texts += 1;
            changed += usize::from(redacted != text);
            for (kind, count) in session.counts() {
                *kinds.entry(kind.to_owned()).or_default() += count;
                if kind != "EMAIL" {
                    println!("{kind} in {}", redacted_part(&redacted));
                }
            }
        });
    }
    println!("{changed} of {texts} texts changed: {kinds:?}");
    let others: u64 = kinds.iter().filter(|(kind, _)| *kind != "EMAIL").map(|(_, count)| count).sum();
    assert!(texts > 1000 && others * 1000 <= texts, "{others} findings other than addresses in {texts} texts");
}

/// Calls `each` with every text of a document and its key.
fn walk(value: &serde_json::Value, name: &str, each: &mut dyn FnMut(&str, &str)) {
    match value {
        serde_json::Value::String(text) => each(name, text),
        serde_json::Value::Array(items) => items.iter().for_each(|item| walk(item, name, each)),
        serde_json::Value::Object(fields) => fields.iter().for_each(|(key, field)| walk(field, key, each)),
        _ => {}
    }
}

/// Returns the text around the first placeholder.
fn redacted_part(text: &str) -> String {
    let at = text.find('[').unwrap_or_default();
    let before: Vec<char> = text[..at].chars().rev().take(60).collect();
    before.into_iter().rev().chain(text[at..].chars().take(60)).collect()
}
