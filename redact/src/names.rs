//! Names of people by list, found by one automaton in time linear in the text.

use aho_corasick::{AhoCorasick, MatchKind};

use crate::Kind;
use crate::find::Search;
use crate::policy::{PolicyError, Setting};

/// Most characters of a name.
const LONGEST: usize = 100;

/// Most bytes of all names. Their automaton takes about 30 times as much memory.
const MOST_BYTES: usize = 4 << 20;

/// A compiled list of names.
pub(crate) struct Names {
    automaton: AhoCorasick,
}

// === impl Names ===

impl Names {
    /// Compiles a list.
    pub(crate) fn new(names: &[String]) -> Result<Self, PolicyError> {
        let invalid = |problem: String| PolicyError::new(Setting::Names, problem);
        let mut patterns = Vec::with_capacity(names.len());
        for (at, name) in names.iter().enumerate() {
            let name = name.trim();
            let length = name.chars().count();
            if !(2..=LONGEST).contains(&length) || !name.chars().any(char::is_alphabetic) {
                let expected = format!("a name must have letters, and 2 to {LONGEST} characters");
                return Err(invalid(format!("has an invalid entry at position {}; {expected}", at + 1)));
            }
            // The automaton ignores the case of ASCII letters only.
            patterns.push(name.to_owned());
            if !name.is_ascii() {
                patterns.extend([name.to_lowercase(), name.to_uppercase()]);
            }
        }
        if patterns.iter().map(String::len).sum::<usize>() > MOST_BYTES {
            return Err(invalid(format!("has more than {MOST_BYTES} bytes of names")));
        }
        let built = AhoCorasick::builder().ascii_case_insensitive(true).match_kind(MatchKind::Standard).build(patterns);
        let automaton = built.map_err(|_| invalid("has too many names for one automaton".to_owned()))?;
        Ok(Self { automaton })
    }

    /// Finds all names that are whole words.
    pub(crate) fn find(&self, search: &mut Search<'_>) {
        search.looked(search.bytes.len());
        // Overlapping, so that `Ann` is found in `Ann Leeds` although `Ann Lee` begins there.
        for one in self.automaton.find_overlapping_iter(search.bytes) {
            search.looked(1);
            if is_whole(search.text, one.start(), one.end()) {
                search.found(one.start(), one.end(), Kind::Name);
            }
        }
    }
}

fn is_whole(text: &str, start: usize, end: usize) -> bool {
    let before = text.get(..start).and_then(|text| text.chars().next_back());
    let after = text.get(end..).and_then(|text| text.chars().next());
    !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
}
