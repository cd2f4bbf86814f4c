//! The prompt of `bellwether sql`, in a real terminal over recorded tables.

mod terminal;

use crate::common::Setup;
use crate::common::program::text;
use crate::earlier;
use terminal::{CTRL_C, CTRL_D, CTRL_R, PROMPT, Terminal, UP};

/// A statement that would run for hours, and reads as it goes.
const LONG: &str = "SELECT sum(a.value * b.value) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b;";

/// A person at the prompt: tables, and a state folder for the history.
struct Person {
    setup: Setup,
}

// === impl Person ===

impl Person {
    fn new() -> Self {
        Self { setup: earlier::recorded(earlier::ROOTS[1], "127.0.0.1:9") }
    }

    fn file(&self, name: &str) -> String {
        text(&self.setup.file(name)).to_owned()
    }

    /// Opens the prompt.
    fn opens(&self, environment: &[(&str, &str)]) -> Terminal {
        let (root, state) = (self.file("tables"), self.file("state"));
        let environment = [&[("XDG_STATE_HOME", state.as_str())], environment].concat();
        let terminal = Terminal::start(&["sql", "--root", &root], &environment);
        terminal.ready();
        terminal
    }
}

#[test]
fn the_prompt_completes_names_by_their_place_and_shows_their_help() {
    let person = Person::new();
    let mut terminal = person.opens(&[]);
    // The table is named on another line than the column.
    terminal.types("SELECT 1 FROM rolling\rWHERE success_rate\t");
    let screen = terminal.shows("success_rate_low");
    let line = screen.lines().find(|line| line.starts_with("success_rate_low")).expect("a candidate");
    assert!(line.contains("double") && line.len() > 40, "{screen}");
    // Earlier columns of the list may have scrolled away; none is of another table.
    assert!(!screen.contains("run_id"), "{screen}");
    terminal.types(CTRL_C);
    terminal.ready();
    terminal.types("SELECT date_tru\t");
    terminal.shows("SELECT date_trunc(precision, expression)");
    terminal.types(CTRL_C);
    terminal.ready();
    terminal.types("\\form\tcs\t\r");
    terminal.shows("output format: csv");
    let answer = terminal.enters("\\ask failing_tools since=36500d");
    assert!(answer.contains("tool") && answer.contains(','), "{answer}");
    let unknown = terminal.enters("\\timming");
    assert!(unknown.contains("did you mean `\\timing`?"), "{unknown}");
    let help = terminal.enters("\\?");
    assert!(help.contains("End a statement with") && help.contains("\\chart"), "the help fits the screen: {help}");
    let function = terminal.enters("\\h burn_rate");
    assert!(function.contains("arguments:") && function.contains("example:"), "{function}");
}

#[test]
fn statements_of_several_lines_come_back_whole_from_the_history() {
    let person = Person::new();
    let mut terminal = person.opens(&[]);
    assert!(terminal.enters("SELECT 40\r+ 2 AS answer;").contains("42"));
    terminal.enters("SELECT 1;");
    terminal.enters("SELECT 1;");
    // One step back is the statement before: a repetition is no entry of its own.
    terminal.types(&format!("\x0c{UP}{UP}"));
    terminal.shows("+ 2 AS answer;");
    terminal.types(CTRL_C);
    terminal.ready();
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(), Some(0));
    let mut terminal = person.opens(&[]);
    terminal.types(&format!("{CTRL_R}ANSWER"));
    terminal.shows("(reverse-i-search)`ANSWER': SELECT 40");
    terminal.types("\r");
    terminal.until("the answer", |screen| screen.contains("42") && screen.trim_end().ends_with(PROMPT));
}

#[test]
fn a_long_statement_says_how_far_it_is_and_ctrl_c_ends_it_alone() {
    let person = Person::new();
    let mut terminal = person.opens(&[]);
    terminal.types(&format!("{LONG}\r"));
    terminal.until("the progress", |screen| {
        screen.contains("running, ") && screen.contains(" rows read") && screen.contains("Ctrl-C cancels")
    });
    terminal.types(CTRL_C);
    let screen = terminal
        .until("the prompt again", |screen| screen.contains("cancelled") && screen.trim_end().ends_with(PROMPT));
    assert!(!screen.contains("running, "), "the line of progress is gone: {screen}");
    assert!(terminal.enters("SELECT 41 + 1;").contains("42"));
    terminal.types("\\g");
    terminal.shows("\\g");
    terminal.types(CTRL_C);
    terminal.until("a typed line is discarded", |screen| screen.trim_end().ends_with(PROMPT));
    terminal.types(CTRL_C);
    terminal.shows("Press Ctrl-C again");
    terminal.types(CTRL_C);
    assert_eq!(terminal.ends(), Some(0));

    let root = person.file("tables");
    let mut terminal = Terminal::start(&["sql", "--root", &root, LONG], &[]);
    terminal.shows("running, ");
    terminal.types(CTRL_C);
    assert_eq!(terminal.ends(), Some(130));
}

#[test]
fn results_go_to_files_in_the_format_of_their_names() {
    let person = Person::new();
    let mut terminal = person.opens(&[]);
    let (csv, parquet) = (person.file("runs.csv"), person.file("runs.parquet"));
    assert!(terminal.enters(&format!("\\o {csv}")).contains("as csv, until \\o"));
    assert!(terminal.enters("SELECT 7 AS seven, 'a' AS letter;").contains("(1 row written to"));
    assert_eq!(std::fs::read_to_string(&csv).expect("the file"), "seven,letter\n7,a\n");
    let refused = terminal.enters("SELECT 8 AS eight;");
    assert!(refused.contains("holds one"), "{refused}");
    terminal.enters(&format!("\\o {parquet}"));
    terminal.enters("SELECT * FROM runs;");
    assert!(std::fs::read(&parquet).expect("the file").ends_with(b"PAR1"));
    // A result that is cancelled leaves no half of it, and the file can hold another one.
    let large = person.file("large.csv");
    terminal.enters(&format!("\\o {large}"));
    terminal.types("\x0cSELECT value FROM generate_series(1, 100000000000);\r");
    terminal.shows(" rows written");
    terminal.types(CTRL_C);
    terminal.until("the prompt again", |screen| screen.contains("cancelled") && screen.trim_end().ends_with(PROMPT));
    assert!(terminal.enters("SELECT 3 AS three;").contains("(1 row written to"));
    assert_eq!(std::fs::read_to_string(&large).expect("the file"), "three\n3\n");
    assert!(terminal.enters("\\o /no/such/folder/a.csv").contains("cannot write"));
    assert!(terminal.enters("\\o").contains("results go to the screen"));
    assert!(terminal.enters("SELECT 9 AS nine;").contains("nine"));
}

#[test]
fn the_editor_writes_a_statement_and_the_pager_shows_long_results() {
    let person = Person::new();
    let paged = person.file("paged");
    let pager = format!("cat > '{paged}'");
    let editor = "sed -i s/40/41/";
    let mut terminal = person.opens(&[("EDITOR", editor), ("PAGER", &pager)]);
    terminal.enters("SELECT 40 + 1;");
    let edited = terminal.enters("\\e");
    assert!(edited.contains("SELECT 41 + 1;") && edited.contains("42"), "{edited}");
    // Nothing changes, so nothing is saved but the time of the file.
    assert!(terminal.enters("SELECT 140\r\\e").contains("141"));
    let long = "SELECT value FROM generate_series(1, 60) ORDER BY value;";
    terminal.enters(long);
    let shown = std::fs::read_to_string(&paged).expect("the pager ran");
    assert!(shown.contains("│    60 │") || shown.contains("60"), "{shown}");
    assert!(shown.lines().count() > 60, "{shown}");
    std::fs::remove_file(&paged).expect("the file");
    assert!(terminal.enters("\\pager").contains("the pager is off"));
    assert!(terminal.enters(long).contains("(60 rows)"));
    terminal.enters("SELECT 1;");
    assert!(!std::path::Path::new(&paged).exists());
}

#[test]
fn the_last_result_is_drawn_over_time() {
    let person = Person::new();
    let mut terminal = person.opens(&[]);
    let series = "SELECT to_timestamp_seconds(1796032800 + value * 60) AS at, abs(value - 30) AS distance \
                  FROM generate_series(0, 60) ORDER BY value LIMIT 61;";
    terminal.enters("\\pager");
    terminal.enters(series);
    let chart = terminal.enters("\\chart");
    for part in [
        "distance (30)",
        "10:15",
        "10:45",
        "└",
        "(1 line over at, 2026-11-30 10:00:00 to 2026-11-30 11:00:00 UTC, 61 rows)",
    ] {
        let joined: String = chart.lines().map(str::trim_end).collect();
        assert!(joined.contains(part), "`{part}` is missing in\n{chart}");
    }
    assert!(terminal.enters("\\chart distances").contains("did you mean `distance`?"));
    // The chart of a statement that stays the same is drawn again.
    terminal.types("\x0c\\watch 0.2\r");
    terminal.until("the chart again", |screen| screen.contains("every 0.2 s") && screen.contains("distance (30)"));
    terminal.types(CTRL_C);
    terminal.ready();
    // A statement before the command is drawn without its table.
    let drawn = terminal.enters("SELECT window_start, runs FROM metrics_1m\r\\chart");
    assert!(drawn.contains("over window_start") && !drawn.contains('┌'), "{drawn}");
}

#[test]
fn a_statement_is_repeated_until_ctrl_c_and_settings_say_what_they_are() {
    let person = Person::new();
    let mut terminal = person.opens(&[]);
    assert!(terminal.enters("\\watch").contains("there is no statement yet"));
    assert!(terminal.enters("\\timing").contains("timing is on"));
    assert!(terminal.enters("\\x").contains("output format: record"));
    let record = terminal.enters("SELECT 5 AS five;");
    assert!(record.contains("five  5") && record.contains("Time: 0."), "{record}");
    terminal.types("\x0c\\watch 0.2\r");
    let repeated = |screen: &str| screen.matches(", every 0.2 s; Ctrl-C ends").count() >= 2;
    terminal.until("two repetitions", |screen| repeated(screen) && screen.contains("five  5"));
    terminal.types(CTRL_C);
    terminal.until("the prompt again", |screen| screen.trim_end().ends_with(PROMPT));
    // A statement that fails is not repeated.
    terminal.enters("SELECT nothing FROM runs;");
    let failed = terminal.enters("\\watch 0.2");
    assert_eq!(failed.matches("there is no column `nothing`").count(), 1, "{failed}");
    assert!(terminal.enters("\\format yson").contains("did you mean `json`?"));
    assert!(terminal.enters("\\format parquet").contains("\\o FILE.parquet"));
    assert!(terminal.enters("\\ask failing_tool").contains("did you mean `failing_tools`?"));
    assert!(terminal.enters("\\ask failing_tools since").contains("write NAME=VALUE"));
    // A command leaves the statement that is being typed.
    terminal.types("\x0cSELECT 6 +\r\\timing\r");
    terminal.until("the statement again", |screen| {
        screen.contains("timing is off") && screen.trim_end().ends_with("bellwether> SELECT 6 +")
    });
    terminal.types(" 1 AS seven;\r");
    terminal.shows("seven  7");
}
