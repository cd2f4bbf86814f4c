//! Lets a person write a text in their own editor.

use std::path::Path;

use bellwether_base::{Error, Result, unique_id};

/// The editor, if neither `$VISUAL` nor `$EDITOR` names one.
const DEFAULT: &str = "vi";

/// The result of an edit.
#[derive(Debug)]
pub(crate) struct Edited<T> {
    /// The text, as it was read from the file.
    pub(crate) value: T,
    /// True if the person saved the file.
    pub(crate) saved: bool,
}

/// Opens a text in `$VISUAL` or `$EDITOR` and reads the file once the editor has ended. `ending` ends the name of the file, by which
/// editors tell its language.
///
/// # Errors
/// `Config` if no temporary file can be written, if the editor fails, or as `read`.
pub(crate) fn edit<T>(start: &str, ending: &str, read: impl FnOnce(&Path) -> Result<T>) -> Result<Edited<T>> {
    let named = |name: &str| std::env::var(name).ok().filter(|command| !command.trim().is_empty());
    let editor = named("VISUAL").or_else(|| named("EDITOR")).unwrap_or_else(|| DEFAULT.to_owned());
    edit_with(&editor, start, ending, read)
}

fn edit_with<T>(editor: &str, start: &str, ending: &str, read: impl FnOnce(&Path) -> Result<T>) -> Result<Edited<T>> {
    let file = std::env::temp_dir().join(format!("bellwether-edit-{}{ending}", unique_id()));
    write(&file, start).map_err(|source| Error::config("cannot write a temporary file").with_source(source))?;
    let before = state(&file, start);
    // An editor may have arguments, as in `code --wait`.
    let status = std::process::Command::new("sh").args(["-c", &format!("{editor} \"$1\""), "sh"]).arg(&file).status();
    let saved = state(&file, start) != before;
    let value = read(&file);
    std::fs::remove_file(&file).ok();
    match status {
        Ok(status) if status.success() => Ok(Edited { value: value?, saved }),
        _ => Err(Error::config(format!("the editor `{editor}` failed"))
            .with_hint("set VISUAL or EDITOR to the command of an editor")),
    }
}

/// Returns what changes if the file is saved: an editor may save the same text, or another one within a tick of the clock.
fn state(file: &Path, start: &str) -> (Option<std::time::SystemTime>, bool) {
    let changed = std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok();
    (changed, std::fs::read(file).is_ok_and(|bytes| bytes == start.as_bytes()))
}

/// Writes a file that only its owner may read: it may hold the answer of a run.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(file: &Path) -> Result<String> {
        Ok(std::fs::read_to_string(file).expect("the file exists"))
    }

    #[test]
    fn a_saved_text_is_told_from_one_that_was_left_alone() {
        let saved = edit_with("sed -i s/1/2/", "SELECT 1", ".sql", text).expect("edited");
        assert_eq!((saved.value.as_str(), saved.saved), ("SELECT 2", true));
        let left = edit_with("true", "SELECT 1", ".sql", text).expect("edited");
        assert_eq!((left.value.as_str(), left.saved), ("SELECT 1", false));
    }

    #[test]
    fn an_editor_that_fails_or_is_missing_is_an_error_and_leaves_no_file() {
        for editor in ["false", "no-such-editor-here 2> /dev/null"] {
            let mut place = None;
            let read = |file: &Path| {
                place = Some(file.to_owned());
                text(file)
            };
            let error = edit_with(editor, "SELECT 1", ".sql", read).expect_err("fails");
            assert!(error.message().contains("failed") && error.hint().is_some(), "{error}");
            assert!(!place.expect("was read").exists());
        }
    }
}
