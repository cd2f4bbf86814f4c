//! Unsafe code stays in few places. `make exceptions` lists these and all lint exceptions.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::repository;

/// Files with unsafe code, and how many lines of each begin an unsafe block, function or implementation.
const UNSAFE: &[(&str, usize)] = &[
    ("alerts/tests/memory.rs", 5),
    ("ingest/src/login.rs", 1),
    ("ingest/src/source/kafka/topic_id.rs", 1),
    ("redact/src/classes/avx2.rs", 1),
    ("src/exit.rs", 1),
    ("src/memory.rs", 10),
];

/// Counts the lines with unsafe code in the Rust files below a folder.
fn count(folder: &Path, found: &mut BTreeMap<String, usize>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                count(&path, found);
            }
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).expect("the file can be read");
            let code = text.lines().map(str::trim_start).filter(|line| !line.starts_with("//") && !line.contains('"'));
            let lines =
                code.filter(|line| ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|form| line.contains(form)));
            let lines = lines.count();
            if lines > 0 {
                let place = path.strip_prefix(repository("")).expect("below the repository");
                found.insert(place.to_str().expect("UTF-8").to_owned(), lines);
            }
        }
    }
}

#[test]
fn unsafe_code_is_where_the_list_says() {
    let mut found = BTreeMap::new();
    count(&repository(""), &mut found);
    let listed: BTreeMap<String, usize> = UNSAFE.iter().map(|(file, lines)| ((*file).to_owned(), *lines)).collect();
    assert_eq!(found, listed, "review the unsafe code, then correct the list");
}
