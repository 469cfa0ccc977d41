//! SHOW, DESCRIBE, EXISTS and USE, which clients send to list metadata.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, Word};

use super::literal::quoted;
use super::{Refusal, metadata, select};
use crate::sql_gateway::scope::Scope;

/// The statement that answers it; nothing if it is none of these.
pub(super) fn rewritten(tokens: &[Token], scope: &Scope) -> Result<Option<String>, Refusal> {
    let words: Vec<String> = tokens.iter().map(word).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let sql = match words.as_slice() {
        ["SHOW", "DATABASES" | "SCHEMAS", rest @ ..] => {
            let pattern = pattern(rest, &tokens[2..])?;
            format!("SELECT name FROM ({}) WHERE {pattern} ORDER BY name", metadata::databases(scope)?)
        }
        ["SHOW", "FULL", "TABLES", rest @ ..] => {
            let pattern = tables_pattern(rest, &tokens[3..], scope)?;
            format!(
                "SELECT name, 'VIEW' AS table_type FROM ({}) WHERE {pattern} ORDER BY name",
                metadata::tables(scope)?
            )
        }
        ["SHOW", "TABLES", rest @ ..] => {
            let pattern = tables_pattern(rest, &tokens[2..], scope)?;
            format!("SELECT name FROM ({}) WHERE {pattern} ORDER BY name", metadata::tables(scope)?)
        }
        ["DESCRIBE" | "DESC", ..] => describe(&tokens[1..], scope)?,
        ["EXISTS", "TABLE" | "VIEW" | "DATABASE", ..] => exists(words[1], &tokens[2..], scope),
        ["EXISTS", ..] => exists("TABLE", &tokens[1..], scope),
        ["USE", ..] => {
            return Err(hint("USE", "name the database as the parameter `database`, or before the table's name"));
        }
        ["SET", ..] => return Err(hint("SET", "there are no sessions; put SETTINGS at the end of the statement")),
        ["EXPLAIN", ..] => return Err(hint("EXPLAIN", "it would count the rows of others")),
        ["SHOW", ..] => return Err(hint("this SHOW", "SHOW DATABASES, SHOW TABLES and DESCRIBE TABLE are")),
        ["SELECT" | "WITH" | "(", ..] => return Ok(None),
        _ => return Err(hint("anything but SELECT, SHOW, DESCRIBE and EXISTS", "analysts can only read")),
    };
    Ok(Some(sql))
}

fn hint(what: &str, hint: &str) -> Refusal {
    Refusal::NotAllowed(format!("{what} is not available to analysts: {hint}"))
}

/// A word in capitals, or another token as it is.
fn word(token: &Token) -> String {
    match token {
        Token::Word(Word { value, quote_style: None, .. }) => value.to_ascii_uppercase(),
        other => other.to_string(),
    }
}

/// The condition of `LIKE '…'`, behind whose words nothing else may stand.
fn pattern(words: &[&str], tokens: &[Token]) -> Result<String, Refusal> {
    match (words, tokens) {
        ([], _) => Ok("true".to_owned()),
        (["LIKE", _], [_, Token::SingleQuotedString(raw)]) if !raw.contains('\'') && !raw.ends_with('\\') => {
            Ok(format!("name LIKE {}", quoted(&raw.replace("\\\\", "\\"))))
        }
        (["ILIKE", _], [_, Token::SingleQuotedString(raw)]) if !raw.contains(['\'', '\\']) => {
            Ok(format!("name ILIKE {}", quoted(raw)))
        }
        _ => Err(Refusal::Syntax(format!("{} is not understood behind SHOW", words.join(" ")))),
    }
}

/// The same behind `FROM database`. Of another database than the analyst's,
/// there are no tables.
fn tables_pattern(words: &[&str], tokens: &[Token], scope: &Scope) -> Result<String, Refusal> {
    match (words, tokens) {
        (["FROM" | "IN", _, rest @ ..], [_, Token::Word(database), behind @ ..]) => {
            let pattern = pattern(rest, behind)?;
            Ok(if scope.is_own(&database.value) { pattern } else { "false".to_owned() })
        }
        _ => pattern(words, tokens),
    }
}

fn describe(tokens: &[Token], scope: &Scope) -> Result<String, Refusal> {
    let tokens = match tokens {
        [Token::Word(Word { quote_style: None, keyword: Keyword::TABLE, .. }), rest @ ..] if !rest.is_empty() => rest,
        _ => tokens,
    };
    let head = ["SELECT", "*", "FROM"].map(|word| if word == "*" { Token::Mul } else { Token::make_keyword(word) });
    let sql = select(&[&head, tokens].concat(), scope)?;
    Ok(format!("DESCRIBE TABLE ({sql})"))
}

fn exists(kind: &str, tokens: &[Token], scope: &Scope) -> String {
    let is_there = match tokens {
        [Token::Word(database)] if kind == "DATABASE" => scope.is_own(&database.value),
        [Token::Word(table)] => scope.view(None, &table.value).is_some(),
        [Token::Word(database), Token::Period, Token::Word(table)] => {
            scope.view(Some(&database.value), &table.value).is_some()
        }
        _ => false,
    };
    format!("SELECT toUInt8({}) AS result", u8::from(is_there))
}
