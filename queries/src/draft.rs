//! Reads a statement that is still being written: what may come next, and which tables it names.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer, Whitespace, Word};

/// The kind of text that fits at a position of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing that could be known: the position is in a text or a comment.
    Text,
    /// The first word of a statement or a subquery.
    Start,
    /// The name of a table, a view or a table function.
    Relation,
    /// The next clause: the position is behind the name of a relation.
    Clause,
    /// An expression. After `a.` the qualifier is `a`.
    Expression {
        /// Name or alias of the relation that the column is of, if it is written.
        qualifier: Option<String>,
    },
}

/// A relation that a statement names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Another name for it in the statement.
    pub alias: Option<String>,
}

/// A statement that is being written, as seen from a position in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The kind of text that fits there.
    pub place: Place,
    /// The part of a word before the position.
    pub word: String,
    /// The relations of the whole statement, in order, also those named behind the position.
    pub relations: Vec<Named>,
    /// Names that the statement itself gives to queries, by `WITH`.
    pub queries: Vec<String>,
    /// The function whose arguments are being written.
    pub call: Option<String>,
}

/// Returns true if a text ends in a semicolon that ends a statement, and not in a text or a comment.
pub fn is_complete(text: &str) -> bool {
    let tokens = Tokenizer::new(&GenericDialect {}, text).with_unescape(false).tokenize();
    let last = tokens.ok().and_then(|tokens| tokens.into_iter().rfind(|token| !matches!(token, Token::Whitespace(_))));
    last == Some(Token::SemiColon)
}

/// Returns true if a text ends between words: not in a quoted text and not in a comment.
pub fn ends_between_words(text: &str) -> bool {
    tokens(text).is_some()
}

/// Returns the words of a text, or `None` if it ends in a text or a comment.
fn tokens(text: &str) -> Option<Vec<Token>> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).with_unescape(false).tokenize().ok()?;
    match tokens.last() {
        Some(Token::Whitespace(Whitespace::SingleLineComment { comment, .. })) if !comment.ends_with('\n') => None,
        _ => Some(tokens),
    }
}

// === impl Draft ===

impl Draft {
    /// Reads the statement around a position, in bytes, of a text. The position is between two characters.
    pub fn read(text: &str, position: usize) -> Self {
        let (before, after) = text.split_at(position);
        let Some(mut before) = tokens(before) else { return Self::in_text() };
        if let Some(end) = before.iter().rposition(|token| *token == Token::SemiColon) {
            before.drain(..=end);
        }
        let word = match before.last() {
            Some(Token::Word(Word { value, quote_style: None, .. })) => value.clone(),
            _ => String::new(),
        };
        if !word.is_empty() {
            before.pop();
        }
        let mut reader = Reader::default();
        before.iter().for_each(|token| reader.read(token));
        let (place, call) = (reader.place(), reader.call());
        // The position may be in the middle of a word. A text behind it that is never closed ends the statement there.
        let mut rest = Vec::new();
        drop(Tokenizer::new(&GenericDialect {}, after).with_unescape(false).tokenize_with_location_into_buf(&mut rest));
        let rest = rest.into_iter().map(|token| token.token).take_while(|token| *token != Token::SemiColon);
        let skipped = usize::from(after.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_'));
        reader.read(&Token::make_word(&word, None));
        rest.skip(skipped).for_each(|token| reader.read(&token));
        Self { place, word, relations: reader.relations, queries: reader.queries, call }
    }

    fn in_text() -> Self {
        Self { place: Place::Text, word: String::new(), relations: Vec::new(), queries: Vec::new(), call: None }
    }
}

/// One level of parentheses.
#[derive(Debug, Default)]
struct Level {
    /// The function before the parenthesis.
    call: Option<String>,
    /// In the list of relations of FROM.
    in_from: bool,
    /// The next word names a relation.
    expects: bool,
    /// The last word named a relation or gave it another name.
    named: bool,
    /// Nothing but words that begin a statement was read.
    begins: bool,
    /// In the list of queries of WITH.
    in_with: bool,
}

/// Follows the clauses of a statement word by word. It knows no grammar: a draft follows none yet.
struct Reader {
    levels: Vec<Level>,
    relations: Vec<Named>,
    queries: Vec<String>,
    last: Option<Token>,
    /// The word before a `.`.
    qualifier: Option<String>,
}

impl Default for Reader {
    fn default() -> Self {
        let level = Level { begins: true, ..Level::default() };
        Self { levels: vec![level], relations: Vec::new(), queries: Vec::new(), last: None, qualifier: None }
    }
}

// === impl Reader ===

impl Reader {
    fn place(&self) -> Place {
        let Some(level) = self.levels.last() else { return Place::Text };
        if level.begins {
            return Place::Start;
        }
        if level.expects {
            return Place::Relation;
        }
        if self.last == Some(Token::Period) {
            return Place::Expression { qualifier: self.qualifier.clone() };
        }
        if level.in_from && level.named { Place::Clause } else { Place::Expression { qualifier: None } }
    }

    fn call(&self) -> Option<String> {
        self.levels.iter().rev().find_map(|level| level.call.clone())
    }

    fn read(&mut self, token: &Token) {
        match token {
            Token::Whitespace(_) => return,
            Token::LParen => self.open(),
            Token::RParen => {
                if self.levels.len() > 1 {
                    self.levels.pop();
                }
                if let Some(level) = self.levels.last_mut() {
                    // A subquery or a call in FROM is a relation too.
                    level.named = level.in_from;
                    level.expects = false;
                }
            }
            Token::Period => {
                self.qualifier = match &self.last {
                    Some(Token::Word(word)) => Some(word.value.clone()),
                    _ => None,
                };
                // The word before was a schema.
                if let Some(level) = self.levels.last_mut()
                    && level.in_from
                    && level.named
                {
                    self.relations.pop();
                    (level.expects, level.named) = (true, false);
                }
            }
            Token::Comma => {
                if let Some(level) = self.levels.last_mut() {
                    level.expects = level.in_from;
                    level.named = false;
                }
            }
            Token::Word(word) => self.word(word),
            _ => {
                if let Some(level) = self.levels.last_mut() {
                    (level.named, level.begins) = (false, false);
                }
            }
        }
        self.last = Some(token.clone());
    }

    fn open(&mut self) {
        let call = match &self.last {
            Some(Token::Word(word)) if word.quote_style.is_none() && !joins_expressions(word.keyword) => {
                Some(word.value.to_lowercase())
            }
            _ => None,
        };
        let mut begins = call.is_none();
        if let Some(level) = self.levels.last_mut() {
            // A call in FROM: its name is no relation.
            if call.is_some() && level.in_from && level.named {
                self.relations.pop();
                begins = false;
            }
            level.begins = false;
        }
        self.levels.push(Level { call, begins, ..Level::default() });
    }

    fn word(&mut self, word: &Word) {
        let extracts = matches!(
            self.levels.last().and_then(|level| level.call.as_deref()),
            Some("extract" | "trim" | "substring" | "overlay")
        );
        let Some(level) = self.levels.last_mut() else { return };
        if word.value.is_empty() {
            return;
        }
        let keyword = if word.quote_style.is_some() { Keyword::NoKeyword } else { word.keyword };
        match keyword {
            Keyword::EXPLAIN | Keyword::ANALYZE | Keyword::VERBOSE if level.begins => {}
            Keyword::DESCRIBE | Keyword::DESC if level.begins => (level.begins, level.expects) = (false, true),
            Keyword::WITH if level.begins => (level.begins, level.in_with) = (false, true),
            Keyword::FROM if extracts => {}
            Keyword::FROM | Keyword::JOIN => {
                (level.in_from, level.expects, level.named, level.begins) = (true, true, false, false);
            }
            Keyword::LEFT
            | Keyword::RIGHT
            | Keyword::INNER
            | Keyword::FULL
            | Keyword::CROSS
            | Keyword::OUTER
            | Keyword::NATURAL
            | Keyword::SEMI
            | Keyword::ANTI
            | Keyword::LATERAL
            | Keyword::AS => level.named = false,
            keyword if is_clause(keyword) => {
                *level = Level { call: level.call.take(), ..Level::default() };
            }
            _ if level.expects => {
                self.relations.push(Named { name: name(word), alias: None });
                (level.expects, level.named) = (false, true);
            }
            _ if level.in_from => {
                if let Some(relation) = self.relations.last_mut().filter(|relation| relation.alias.is_none()) {
                    relation.alias = Some(name(word));
                }
                level.named = true;
            }
            _ => {
                if level.in_with && matches!(&self.last, Some(Token::Comma)) || self.last_is(Keyword::WITH) {
                    self.queries.push(name(word));
                }
                if let Some(level) = self.levels.last_mut() {
                    level.begins = false;
                }
            }
        }
    }

    fn last_is(&self, keyword: Keyword) -> bool {
        matches!(&self.last, Some(Token::Word(word)) if word.keyword == keyword)
    }
}

/// Returns a name as the engine resolves it.
fn name(word: &Word) -> String {
    if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() }
}

/// Returns true for words that begin a clause other than FROM.
fn is_clause(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::SELECT
            | Keyword::WHERE
            | Keyword::GROUP
            | Keyword::ORDER
            | Keyword::HAVING
            | Keyword::LIMIT
            | Keyword::OFFSET
            | Keyword::ON
            | Keyword::USING
            | Keyword::UNION
            | Keyword::EXCEPT
            | Keyword::INTERSECT
            | Keyword::VALUES
            | Keyword::QUALIFY
            | Keyword::WINDOW
            | Keyword::FETCH
    )
}

/// Returns true for words before a parenthesis that call nothing.
fn joins_expressions(keyword: Keyword) -> bool {
    is_clause(keyword)
        || matches!(
            keyword,
            Keyword::ALL
                | Keyword::AND
                | Keyword::ANY
                | Keyword::AS
                | Keyword::BETWEEN
                | Keyword::BY
                | Keyword::CASE
                | Keyword::DISTINCT
                | Keyword::ELSE
                | Keyword::EXISTS
                | Keyword::FILTER
                | Keyword::FROM
                | Keyword::IN
                | Keyword::JOIN
                | Keyword::LATERAL
                | Keyword::LIKE
                | Keyword::NOT
                | Keyword::OR
                | Keyword::OVER
                | Keyword::THEN
                | Keyword::WHEN
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a statement at the mark `|`.
    fn at(text: &str) -> Draft {
        let position = text.find('|').expect("a mark");
        Draft::read(&text.replacen('|', "", 1), position)
    }

    fn column(qualifier: &str) -> Place {
        Place::Expression { qualifier: Some(qualifier.to_owned()).filter(|name| !name.is_empty()) }
    }

    #[test]
    fn the_place_follows_from_the_words_before() {
        for (text, place, word) in [
            ("|", Place::Start, ""),
            ("SEL|", Place::Start, "SEL"),
            ("SELECT 1; sel|", Place::Start, "sel"),
            ("EXPLAIN |", Place::Start, ""),
            ("DESCRIBE ru|", Place::Relation, "ru"),
            ("SELECT |", column(""), ""),
            ("SELECT success_|", column(""), "success_"),
            ("SELECT * FROM |", Place::Relation, ""),
            ("SELECT * FROM ru|", Place::Relation, "ru"),
            ("SELECT * FROM ru|ns WHERE task = 'a'", Place::Relation, "ru"),
            ("SELECT * FROM public.ru|", Place::Relation, "ru"),
            ("SELECT * FROM runs, |", Place::Relation, ""),
            ("SELECT * FROM runs AS r LEFT JOIN a|", Place::Relation, "a"),
            ("SELECT * FROM runs |", Place::Clause, ""),
            ("SELECT * FROM runs r wh|", Place::Clause, "wh"),
            ("SELECT * FROM runs WHERE |", column(""), ""),
            ("SELECT * FROM runs r JOIN alerts a ON r.|", column("r"), ""),
            ("SELECT r.ta| FROM runs r", column("r"), "ta"),
            ("SELECT * FROM (|", Place::Start, ""),
            ("SELECT * FROM (SELECT * FROM runs) |", Place::Clause, ""),
            ("SELECT count(|", column(""), ""),
            ("SELECT extract(year FROM |", column(""), ""),
            ("SELECT * FROM runs WHERE task = 're|", Place::Text, ""),
            ("SELECT 1 -- FROM |", Place::Text, ""),
            ("SELECT 1 /* FROM |", Place::Text, ""),
            ("SELECT 1 -- a comment\nFROM |", Place::Relation, ""),
            ("WITH a AS (SELECT 1) SELECT * FROM |", Place::Relation, ""),
            ("SELECT task, ta|", column(""), "ta"),
        ] {
            let draft = at(text);
            assert_eq!((draft.place, draft.word.as_str()), (place, word), "{text}");
        }
    }

    #[test]
    fn the_relations_of_the_whole_statement_are_found() {
        let names = |text: &str| -> Vec<(String, String)> {
            let named = at(text).relations.into_iter();
            named.map(|named| (named.name, named.alias.unwrap_or_default())).collect()
        };
        let pair = |name: &str, alias: &str| (name.to_owned(), alias.to_owned());
        assert_eq!(
            names("SELECT | FROM runs AS r\nJOIN alerts a ON r.task = a.task"),
            [pair("runs", "r"), pair("alerts", "a")]
        );
        assert_eq!(names("SELECT 1 FROM events; SELECT | FROM Runs; SELECT 1 FROM x"), [pair("runs", "")]);
        assert_eq!(names("SELECT | FROM bellwether.public.runs, rolling"), [pair("runs", ""), pair("rolling", "")]);
        assert_eq!(names("SELECT | FROM (SELECT * FROM runs) AS inner_runs"), [pair("runs", "inner_runs")]);
        assert_eq!(names("SELECT | FROM tasks_between('a', 'b')"), []);
        assert_eq!(names("SELECT task| FROM runs WHERE x = 'open"), [pair("runs", "")]);
    }

    #[test]
    fn queries_of_with_and_the_call_around_the_position_are_known() {
        assert_eq!(at("WITH a AS (SELECT 1), b AS (SELECT 2) SELECT |").queries, ["a", "b"]);
        assert_eq!(at("SELECT Wilson_Low(|").call.as_deref(), Some("wilson_low"));
        assert_eq!(at("SELECT f(a, (1 + |").call.as_deref(), Some("f"));
        assert_eq!(at("SELECT f(a) + |").call, None);
        assert_eq!(at("SELECT a IN (|").call, None);
    }

    #[test]
    fn a_statement_ends_with_a_semicolon_outside_of_texts_and_comments() {
        for text in ["SELECT 1;", "SELECT ';';  ", "SELECT 1; -- done", "SELECT 1;\n/* done */\n"] {
            assert!(is_complete(text), "{text}");
        }
        for text in ["", "SELECT 1", "SELECT ';", "SELECT 1 -- ;", "SELECT 1 /* ;", "SELECT \"a;"] {
            assert!(!is_complete(text), "{text}");
        }
    }
}
