//! `FROM table FINAL`. The parser would take the word for the table's alias. Every view shows each row
//! once, so the word has no effect and is removed.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

/// What begins a list of tables, and what ends one.
const BEGINS: [Keyword; 2] = [Keyword::FROM, Keyword::JOIN];
const ENDS: [Keyword; 12] = [
    Keyword::GROUP,
    Keyword::HAVING,
    Keyword::LIMIT,
    Keyword::ON,
    Keyword::ORDER,
    Keyword::PREWHERE,
    Keyword::QUALIFY,
    Keyword::SELECT,
    Keyword::UNION,
    Keyword::USING,
    Keyword::WHERE,
    Keyword::WINDOW,
];

/// Leaves it out where it stands behind the name of a table.
pub(super) fn left_out(tokens: Vec<Token>) -> Vec<Token> {
    let mut kept = Vec::with_capacity(tokens.len());
    // Whether there is a list of tables, at each depth of parentheses.
    let mut among_tables = vec![false];
    for token in tokens {
        match &token {
            Token::LParen => among_tables.push(false),
            Token::RParen if among_tables.len() > 1 => drop(among_tables.pop()),
            _ => {}
        }
        let keyword = keyword(&token);
        if let (Some(keyword), Some(among)) = (keyword, among_tables.last_mut()) {
            *among = BEGINS.contains(&keyword) || *among && !ENDS.contains(&keyword);
        }
        let follows_a_table = match kept.last() {
            Some(Token::RParen) => true,
            Some(before @ Token::Word(_)) => {
                self::keyword(before).is_none_or(|word| !BEGINS.contains(&word) && word != Keyword::AS)
            }
            _ => false,
        };
        if keyword == Some(Keyword::FINAL) && among_tables.last() == Some(&true) && follows_a_table {
            continue;
        }
        kept.push(token);
    }
    kept
}

fn keyword(token: &Token) -> Option<Keyword> {
    match token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.keyword),
        _ => None,
    }
}
