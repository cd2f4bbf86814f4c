//! The commands of the prompt, which begin with a backslash: their names, arguments and help.

use bellwether_queries::nearest;

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Ask,
    Edit,
    Again,
    Watch,
    Chart,
    Describe,
    Function,
    Records,
    Format,
    Output,
    Pager,
    Timing,
    Help,
    Quit,
}

/// What a command takes, for completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    /// A saved question, then values of its parameters.
    Question,
    Relation,
    Function,
    Format,
    File,
    /// Columns of the last result.
    Columns,
    /// Another command.
    Command,
}

/// A command.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) action: Action,
    /// Its names; the first one is in the help.
    pub(super) names: &'static [&'static str],
    /// Its arguments, as the help shows them.
    pub(super) arguments: &'static str,
    pub(super) takes: Takes,
    pub(super) help: &'static str,
    group: &'static str,
}

const ASK: &str = "Ask";
const LOOK: &str = "Look up";
const SHOW: &str = "Show results";
const OTHER: &str = "Other";

/// All commands, in the order of the help.
#[rustfmt::skip]
pub(super) const ALL: [Command; 14] = [
    command(Action::Ask, &["\\ask"], "[NAME [PARAM=VALUE]...]", Takes::Question, "ask a saved question, or list them", ASK),
    command(Action::Edit, &["\\e", "\\edit"], "", Takes::Nothing, "edit the statement, or the last one, and run it", ASK),
    command(Action::Again, &["\\g"], "", Takes::Nothing, "run the last statement again", ASK),
    command(Action::Watch, &["\\watch"], "[SECONDS]", Takes::Nothing, "repeat the last statement or chart until Ctrl-C", ASK),
    command(Action::Describe, &["\\d"], "[NAME]", Takes::Relation, "list tables and views, or the columns of one", LOOK),
    command(Action::Function, &["\\h", "\\functions"], "[NAME]", Takes::Function, "list functions, or document one", LOOK),
    command(Action::Chart, &["\\chart"], "[COLUMN]...", Takes::Columns, "draw the last result over time", SHOW),
    command(Action::Records, &["\\x"], "", Takes::Nothing, "switch between tables and uncut records", SHOW),
    command(Action::Format, &["\\format"], "[NAME]", Takes::Format, "table, record, csv, json or ndjson", SHOW),
    command(Action::Output, &["\\o"], "[FILE]", Takes::File, "write results to a file, or to the screen again", SHOW),
    command(Action::Pager, &["\\pager"], "", Takes::Nothing, "switch the pager for long results on or off", SHOW),
    command(Action::Timing, &["\\timing"], "", Takes::Nothing, "switch the display of execution times on or off", SHOW),
    command(Action::Help, &["\\?", "\\help"], "[COMMAND]", Takes::Command, "show this help", OTHER),
    command(Action::Quit, &["\\q", "\\quit", "\\exit"], "", Takes::Nothing, "quit, as Ctrl-D does", OTHER),
];

const fn command(
    action: Action,
    names: &'static [&'static str],
    arguments: &'static str,
    takes: Takes,
    help: &'static str,
    group: &'static str,
) -> Command {
    Command { action, names, arguments, takes, help, group }
}

/// Keys, in the order of the help.
const KEYS: [(&str, &str); 3] = [
    ("Tab", "complete a name, or list the candidates"),
    ("Ctrl-R", "search the history; again for an older statement"),
    ("Ctrl-C", "cancel the running statement, or discard the typed one"),
];

/// Returns the command with a name; `Err` holds the message of an unknown one.
pub(super) fn find(name: &str) -> Result<&'static Command, String> {
    if let Some(command) = ALL.iter().find(|command| command.names.contains(&name)) {
        return Ok(command);
    }
    let names = ALL.iter().flat_map(|command| command.names.iter().copied());
    let bare = |name: &str| name.trim_start_matches('\\').to_owned();
    let known: Vec<String> = names.map(bare).collect();
    let near = nearest(&bare(name), known.iter().map(String::as_str));
    Err(match near {
        Some(near) => format!("there is no command `{name}`; did you mean `\\{near}`?"),
        None => format!("there is no command `{name}`; \\? lists all"),
    })
}

/// Returns the usage of a command: its name and its arguments.
pub(super) fn usage(command: &Command) -> String {
    format!("{} {}", command.names.first().unwrap_or(&""), command.arguments).trim_end().to_owned()
}

/// Returns the help.
pub(super) fn help() -> String {
    let mut text = "End a statement with `;`. It may have several lines; Enter begins the next.\n".to_owned();
    for group in [ASK, LOOK, SHOW, OTHER] {
        text.push_str(&format!("{group}\n"));
        for command in ALL.iter().filter(|command| command.group == group) {
            text.push_str(&format!("  {:<29} {}\n", usage(command), command.help));
        }
    }
    text.push_str("Keys\n");
    let keys: Vec<String> = KEYS.iter().map(|(key, help)| format!("  {key:<9} {help}")).collect();
    text.push_str(&keys.join("\n"));
    text
}

/// Returns the help of one command.
pub(super) fn help_of(command: &Command) -> String {
    let others = command.names.get(1..).unwrap_or_default();
    let others = if others.is_empty() { String::new() } else { format!(" (also {})", others.join(", ")) };
    format!("{}{others}: {}", usage(command), command.help)
}

/// Splits the arguments of a command at spaces, except within quotation marks. Returns `None` if one is open.
pub(super) fn arguments(text: &str) -> Option<Vec<String>> {
    let (mut all, mut current, mut quote) = (Vec::new(), None::<String>, None);
    for letter in text.chars() {
        match quote {
            Some(mark) if letter == mark => quote = None,
            None if letter == '\'' || letter == '"' => {
                quote = Some(letter);
                current.get_or_insert_default();
            }
            None if letter.is_whitespace() => all.extend(current.take()),
            _ => current.get_or_insert_default().push(letter),
        }
    }
    all.extend(current);
    quote.is_none().then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_fits_a_small_terminal_and_names_every_command() {
        let help = help();
        assert!(help.lines().count() < 24, "{} lines:\n{help}", help.lines().count());
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        for command in &ALL {
            assert!(help.contains(&format!("  {}", usage(command))), "{command:?}");
        }
        assert!(help.contains("Ctrl-R"));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = ALL.iter().flat_map(|command| command.names.iter().copied()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn an_unknown_command_suggests_the_nearest() {
        assert_eq!(find("\\functions").expect("known").action, Action::Function);
        for (wrong, right) in [("\\timming", "\\timing"), ("\\cart", "\\chart"), ("\\formt", "\\format")] {
            let message = find(wrong).expect_err("unknown");
            assert!(message.contains(&format!("did you mean `{right}`?")), "{message}");
        }
        assert!(find("\\zzzzz").expect_err("unknown").contains("\\? lists all"));
    }

    #[test]
    fn arguments_are_split_at_spaces_outside_of_quotation_marks() {
        let split = |text: &str| arguments(text);
        let some = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(split(""), some(&[]));
        assert_eq!(split(" a  b=c "), some(&["a", "b=c"]));
        assert_eq!(split("task='refund triage' x=\"it's\" y=''"), some(&["task=refund triage", "x=it's", "y="]));
        assert_eq!(split("task='open"), None);
    }
}
