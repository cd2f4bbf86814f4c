//! The history of the prompt, in a file of the user.

use std::path::PathBuf;

use rustyline::Editor;
use rustyline::Helper;
use rustyline::history::DefaultHistory;

/// Most entries; older ones are dropped.
pub(super) const ENTRIES: usize = 2000;

/// The file of the history. Without one, the history lasts as long as the prompt.
pub(super) struct HistoryFile(Option<PathBuf>);

// === impl HistoryFile ===

impl HistoryFile {
    /// Returns the file in the user's state folder.
    pub(super) fn of_the_user() -> Self {
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local").join("state"));
        Self(state.or_else(home).map(|state| state.join("bellwether").join("history")))
    }

    /// Reads the file.
    pub(super) fn load<H: Helper>(&self, editor: &mut Editor<H, DefaultHistory>) {
        if let Some(file) = &self.0 {
            // The first session has none.
            drop(editor.load_history(file));
        }
    }

    /// Adds an entry, unless it repeats the last one, and writes it to the file at once: a statement that allocates far too much
    /// ends the process. Entries that another prompt has written meanwhile stay.
    pub(super) fn add<H: Helper>(&self, editor: &mut Editor<H, DefaultHistory>, entry: &str) {
        let entry = entry.trim();
        if !editor.add_history_entry(entry).unwrap_or(false) {
            return;
        }
        let Some(file) = self.0.as_deref() else { return };
        if let Some(folder) = file.parent() {
            drop(std::fs::create_dir_all(folder));
        }
        // A history that cannot be written still serves this session.
        drop(editor.append_history(file));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustyline::Config;

    fn editor() -> Editor<(), DefaultHistory> {
        let config = Config::builder().max_history_size(ENTRIES).expect("a size").build();
        Editor::with_config(config).expect("an editor")
    }

    fn entries(editor: &Editor<(), DefaultHistory>) -> Vec<String> {
        editor.history().iter().cloned().collect()
    }

    #[test]
    fn entries_of_two_prompts_are_kept_and_repetitions_are_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = HistoryFile(Some(dir.path().join("a").join("history")));
        let (mut one, mut other) = (editor(), editor());
        file.load(&mut one);
        file.load(&mut other);
        file.add(&mut one, "SELECT 1\nFROM runs;");
        file.add(&mut one, "SELECT 1\nFROM runs;\n");
        file.add(&mut other, "SELECT 2;");
        file.add(&mut one, "\\d runs");
        let mut next = editor();
        file.load(&mut next);
        assert_eq!(entries(&next), ["SELECT 1\nFROM runs;", "SELECT 2;", "\\d runs"]);
    }

    #[test]
    fn the_history_is_bounded() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = HistoryFile(Some(dir.path().join("history")));
        let mut one = editor();
        for number in 0..ENTRIES + 50 {
            file.add(&mut one, &format!("SELECT {number};"));
        }
        let mut next = editor();
        file.load(&mut next);
        let kept = entries(&next);
        assert_eq!((kept.len(), kept[0].as_str()), (ENTRIES, "SELECT 50;"));
        let lines = std::fs::read_to_string(dir.path().join("history")).expect("a file").lines().count();
        assert!(lines <= ENTRIES + 1, "{lines}");
    }
}
