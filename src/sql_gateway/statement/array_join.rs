//! `ARRAY JOIN expression AS name, …`. The parser expects a table where ClickHouse has expressions, so the
//! expressions are passed as a subquery that selects them.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, Word};

use super::Refusal;

/// What ends the expressions of an ARRAY JOIN, outside of parentheses.
const ENDS: [Keyword; 20] = [
    Keyword::ANTI,
    Keyword::ARRAY,
    Keyword::CROSS,
    Keyword::EXCEPT,
    Keyword::FORMAT,
    Keyword::FULL,
    Keyword::GROUP,
    Keyword::HAVING,
    Keyword::INNER,
    Keyword::INTERSECT,
    Keyword::JOIN,
    Keyword::LEFT,
    Keyword::LIMIT,
    Keyword::ORDER,
    Keyword::PREWHERE,
    Keyword::RIGHT,
    Keyword::SETTINGS,
    Keyword::UNION,
    Keyword::WHERE,
    Keyword::WINDOW,
];

/// Of these, the ones that are functions before a parenthesis.
const FUNCTIONS: [Keyword; 4] = [Keyword::ARRAY, Keyword::FORMAT, Keyword::LEFT, Keyword::RIGHT];

/// Replaces `ARRAY JOIN e` by `ARRAY JOIN (SELECT e)`.
pub(super) fn as_subqueries(tokens: Vec<Token>) -> Result<Vec<Token>, Refusal> {
    let mut replaced = Vec::with_capacity(tokens.len() + 8);
    // For each subquery that is open, the parentheses open outside of it.
    let (mut open, mut depth) = (Vec::<usize>::new(), 0_usize);
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is_call = tokens.peek() == Some(&Token::LParen);
        match &token {
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => {
                while open.pop_if(|outside| *outside == depth).is_some() {
                    replaced.push(Token::RParen);
                }
                depth = depth.checked_sub(1).ok_or_else(|| Refusal::Syntax(format!("{token} closes nothing")))?;
            }
            _ => {}
        }
        let is_end = matches!(
            &token,
            Token::Word(Word { quote_style: None, keyword, .. })
                if ENDS.contains(keyword) && !(is_call && FUNCTIONS.contains(keyword))
        );
        if is_end && open.pop_if(|outside| *outside == depth).is_some() {
            replaced.push(Token::RParen);
        }
        let is_join = is(&token, Keyword::JOIN) && replaced.last().is_some_and(|last| is(last, Keyword::ARRAY));
        replaced.push(token);
        if is_join {
            replaced.extend([Token::LParen, Token::make_keyword("SELECT")]);
            open.push(depth);
        }
    }
    replaced.extend(open.into_iter().map(|_| Token::RParen));
    Ok(replaced)
}

fn is(token: &Token, keyword: Keyword) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.keyword == keyword)
}
