//! Parses an analyst's statement into a tree, and writes a new statement for ClickHouse from the tree.
//!
//! No part of the original text is passed on. The writer handles each part of a statement explicitly and
//! refuses unknown parts, so the statement that runs is the one that was checked: ClickHouse cannot parse
//! the text in another way. Every name is quoted, every operation is in parentheses, and every table is
//! qualified with its database.
//!
//! Allowed are SELECT with its clauses, UNION, EXCEPT and INTERSECT over the views of one database and some
//! metadata tables, functions that compute from their arguments, and SHOW, DESCRIBE and EXISTS for those
//! views.

mod array_join;
mod data_type;
mod ending;
mod expression;
mod final_modifier;
mod function;
mod join;
mod literal;
mod metadata;
mod operator;
mod parameter;
mod query;
mod select;
mod show;
mod table;

use sqlparser::dialect::ClickHouseDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

use super::scope::Scope;

/// Most tokens of a statement, of which a list of 4,000 values has 8,000.
const TOKENS_MAX: usize = 20_000;
/// Deepest nesting that is read, in the parser's own steps.
const NESTING_MAX: usize = 100;
/// Deepest tree that is written. ClickHouse itself takes 1,000.
const DEPTH_MAX: usize = 500;
/// Stack of the thread that reads a statement: a tree of [`TOKENS_MAX`] levels,
/// such as a long sum, is taken apart recursively.
const STACK_BYTES: usize = 64 << 20;

/// Why a statement is refused. The text is for the analyst.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Refusal {
    /// It cannot be parsed.
    #[error("the statement cannot be read: {0}")]
    Syntax(String),
    /// It has a part that is not available.
    #[error("{0}")]
    NotAllowed(String),
    /// It names a table that the analyst does not have.
    #[error("there is no table {0} here; SHOW TABLES lists them")]
    UnknownTable(String),
    /// It calls a function that is not on the list.
    #[error("the function {0} is not available to analysts")]
    Function(String),
}

impl Refusal {
    fn not_allowed(what: impl Into<String>) -> Self {
        Self::NotAllowed(format!("{} is not available to analysts", what.into()))
    }
}

impl From<ParserError> for Refusal {
    fn from(error: ParserError) -> Self {
        let text = match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
            ParserError::RecursionLimitExceeded => format!("it is nested deeper than {NESTING_MAX} levels"),
        };
        Self::Syntax(text)
    }
}

/// A checked statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CheckedStatement {
    /// The statement for ClickHouse.
    pub sql: String,
    /// Its SETTINGS clause, as names and values.
    pub settings: Vec<(String, String)>,
    /// Its FORMAT clause.
    pub format: Option<String>,
}

/// Checks and rewrites a statement.
///
/// # Errors
/// Names the part that is not available.
pub(super) fn check(sql: &str, scope: &Scope) -> Result<CheckedStatement, Refusal> {
    // A thread of its own, for its stack.
    std::thread::scope(|threads| {
        let reader = std::thread::Builder::new().name("sql-reader".to_owned()).stack_size(STACK_BYTES);
        let handle = reader.spawn_scoped(threads, || check_here(sql, scope));
        let checked = handle.map(std::thread::ScopedJoinHandle::join);
        match checked {
            Ok(Ok(checked)) => checked,
            _ => Err(Refusal::Syntax("the reader of statements failed".to_owned())),
        }
    })
}

fn check_here(sql: &str, scope: &Scope) -> Result<CheckedStatement, Refusal> {
    let tokens = tokens(sql)?;
    let (tokens, ending) = ending::split(&tokens)?;
    let sql = match show::rewritten(tokens, scope)? {
        Some(sql) => sql,
        None => select(tokens, scope)?,
    };
    Ok(CheckedStatement { sql, settings: ending.settings, format: ending.format })
}

/// Rewrites a SELECT without its trailing clauses.
fn select(tokens: &[Token], scope: &Scope) -> Result<String, Refusal> {
    let tokens = final_modifier::left_out(parameter::as_placeholders(tokens)?);
    let tokens = array_join::as_subqueries(tokens)?;
    let dialect = ClickHouseDialect {};
    let mut parser = Parser::new(&dialect).with_recursion_limit(NESTING_MAX).with_tokens(tokens);
    let query = parser.parse_query()?;
    if parser.peek_token_ref().token != Token::EOF {
        let found = &parser.peek_token_ref().token;
        return Err(Refusal::Syntax(format!("one SELECT is expected, and nothing behind it; found {found}")));
    }
    let mut writer = Writer::new(scope);
    writer.query(&query)?;
    Ok(writer.sql)
}

/// The statement's tokens, without white space, comments, and the `;` that may
/// end it.
fn tokens(sql: &str) -> Result<Vec<Token>, Refusal> {
    if sql.contains('\0') {
        return Err(Refusal::Syntax("it has a NUL in it".to_owned()));
    }
    let dialect = ClickHouseDialect {};
    let tokens = Tokenizer::new(&dialect, sql).with_unescape(false).tokenize();
    let tokens = tokens.map_err(|error| Refusal::Syntax(error.to_string()))?;
    let is_space = |token: &Token| {
        matches!(
            token,
            Token::Whitespace(
                Whitespace::Space
                    | Whitespace::Tab
                    | Whitespace::Newline
                    | Whitespace::SingleLineComment { .. }
                    | Whitespace::MultiLineComment(_)
            )
        )
    };
    let mut tokens: Vec<Token> = tokens.into_iter().filter(|token| !is_space(token)).collect();
    while tokens.last() == Some(&Token::SemiColon) {
        tokens.pop();
    }
    match tokens.len() {
        0 => Err(Refusal::Syntax("it is empty".to_owned())),
        1..=TOKENS_MAX => Ok(tokens),
        count => Err(Refusal::Syntax(format!("it has {count} words and signs; at most {TOKENS_MAX} are read"))),
    }
}

/// Writes a statement from its tree.
struct Writer<'a> {
    scope: &'a Scope,
    sql: String,
    depth: usize,
    /// The names that WITH clauses around here have given.
    names: Vec<String>,
    /// The name of the metadata whose subquery was just written.
    metadata_alias: Option<String>,
}

impl<'a> Writer<'a> {
    const fn new(scope: &'a Scope) -> Self {
        Self { scope, sql: String::new(), depth: 0, names: Vec::new(), metadata_alias: None }
    }

    fn push(&mut self, text: &str) {
        self.sql.push_str(text);
    }

    /// Writes one level deeper.
    fn deeper(&mut self, write: impl FnOnce(&mut Self) -> Result<(), Refusal>) -> Result<(), Refusal> {
        if self.depth == DEPTH_MAX {
            return Err(Refusal::Syntax(format!("it is nested deeper than {DEPTH_MAX} levels")));
        }
        self.depth += 1;
        let written = write(self);
        self.depth -= 1;
        written
    }

    /// Writes several parts with commas between them.
    fn list<T>(
        &mut self,
        parts: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        for (place, part) in parts.into_iter().enumerate() {
            if place > 0 {
                self.push(", ");
            }
            write(self, part)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
