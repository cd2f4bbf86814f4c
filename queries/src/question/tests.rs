//! Tests the files of questions, and values of their parameters.

use super::*;

/// 2026-11-30T12:00:00Z.
const NOW: i64 = 1_796_040_000_000_000;

fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_time_is_absolute_or_before_now() {
    assert_eq!(since("2026-11-30T11:00:00Z", NOW).expect("a time"), NOW - 3_600_000_000);
    assert_eq!(since("2026-11-30 11:00:00", NOW).expect("a time"), NOW - 3_600_000_000);
    assert_eq!(since("2026-11-30", NOW).expect("a day"), NOW - 12 * 3_600_000_000);
    assert_eq!(since("1h", NOW).expect("a duration"), NOW - 3_600_000_000);
    assert!(since("yesterday", NOW).expect_err("neither").message().contains("`yesterday`"));
}

fn explained(error: &Error) -> String {
    format!("{}; {}", error.message(), error.hint().unwrap_or_default())
}

#[test]
fn values_are_literals_of_their_kind_wherever_the_query_names_them() {
    let text = "-- Which?\n-- param a text = any: one\n-- param b integer = 3: two\n-- param c number: three\n\
                -- param d time = 1d: four\n-- param e x|y = x: five\n\
                SELECT '$a', \"$a\", $a, $b, $c, $d, $e /* $a */ FROM t WHERE f($a)";
    let question = Question::parse("q", text).expect("parses");
    assert_eq!(question.doc, "Which?");
    let sql = question.sql(&given(&[("c", "4")]), NOW).expect("values");
    assert_eq!(
        sql,
        "SELECT '$a', \"$a\", NULL, 3, CAST(4.0 AS DOUBLE), '2026-11-29T12:00:00.000000Z', 'x' /* $a */ FROM t WHERE f(NULL)"
    );
    let values = given(&[("a", "x' OR '1'='1"), ("b", "-7"), ("c", "1e3"), ("d", "2026-11-05"), ("e", "y")]);
    let sql = question.sql(&values, NOW).expect("values");
    let literal = "'x'' OR ''1''=''1'";
    assert_eq!(
        sql,
        format!(
            "SELECT '$a', \"$a\", {literal}, -7, CAST(1000.0 AS DOUBLE), '2026-11-05T00:00:00.000000Z', 'y' /* $a */ \
             FROM t WHERE f({literal})"
        )
    );
    // A value that looks like a parameter, or like the default of one, is a text.
    let sql = question.sql(&given(&[("a", "$b"), ("c", "1")]), NOW).expect("values");
    assert!(sql.contains("f('$b')"), "{sql}");
    let sql = question.sql(&given(&[("a", "any"), ("c", "1")]), NOW).expect("values");
    assert!(sql.contains("f('any')"), "{sql}");
}

#[test]
fn wrong_values_are_explained() {
    let text = "-- Which?\n-- param n integer: how many\n-- param at time = 1d: when\n-- param x number = 1: factor\n\
                -- param w a|b = a: which\nSELECT $n, $at, $x, $w";
    let question = Question::parse("q", text).expect("parses");
    for (values, expected) in [
        (given(&[]), "parameter `n` is missing: how many; add --param n=VALUE"),
        (given(&[("n", "3"), ("task", "a")]), "question `q` has no parameter `task`; its parameters are n, at, x, w"),
        (given(&[("n", "3.5")]), "parameter `n` is `3.5`, which is not an integer; give digits only, such as 20"),
        (
            given(&[("n", "1; DROP")]),
            "parameter `n` is `1; DROP`, which is not an integer; give digits only, such as 20",
        ),
        (given(&[("n", "3"), ("x", "inf")]), "parameter `x` is `inf`, which is not a number; write it as 4.50"),
        (
            given(&[("n", "3"), ("at", "soon")]),
            "parameter `at` is `soon`, which is not a time; give a time such as 2026-11-12T08:00:00Z, or a duration before now \
             such as 6h",
        ),
        (given(&[("n", "3"), ("w", "c")]), "parameter `w` is `c`, which is not one of its values; give one of a, b"),
    ] {
        assert_eq!(explained(&question.sql(&values, NOW).expect_err("refused")), expected);
    }
}

#[test]
fn malformed_files_are_explained() {
    for (text, expected) in [
        ("SELECT 1", "the question has no documentation; begin the file with a comment: -- Which tool fails?"),
        ("-- Which?\n", "a question is one statement, and the file has 0; "),
        ("-- Which?\nSELECT 1; SELECT 2", "a question is one statement, and the file has 2; "),
        (
            "-- Which?\nSELECT $a",
            "parameter `$a` is not declared; declare it in the first comment: -- param a text = any: MEANING",
        ),
        ("-- Which?\n-- param a text: one\nSELECT 1", "the query does not name parameter `$a`; remove its declaration"),
        ("-- Which?\n-- param a text: one\n-- param a text: two\nSELECT $a", "parameter `a` is declared twice; "),
        (
            "-- Which?\n-- param a txt: one\nSELECT $a",
            "cannot read the parameter `a txt: one`; write -- param NAME text|integer|number|time|WORD|WORD = DEFAULT: MEANING",
        ),
        (
            "-- Which?\n-- param A text: one\nSELECT $A",
            "`A` is no name of a parameter; use small letters, digits and _, and begin with a letter",
        ),
        (
            "-- Which?\n-- param a integer = x: one\nSELECT $a",
            "parameter `a` is `x`, which is not an integer; give digits only, such as 20",
        ),
    ] {
        assert_eq!(explained(&Question::parse("q", text).expect_err("refused")), expected, "{text}");
    }
}
