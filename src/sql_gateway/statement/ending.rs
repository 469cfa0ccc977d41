//! SETTINGS and FORMAT at the end of a statement. They are parsed here, since the parser mistakes their
//! words for aliases if there is no FROM.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, Word};

use super::Refusal;
use super::literal::check_number;

/// The trailing clauses of a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TrailingClauses {
    pub settings: Vec<(String, String)>,
    pub format: Option<String>,
}

/// Splits a statement from its trailing clauses.
///
/// # Errors
/// When a setting is not written as `name = value`.
pub(super) fn split(tokens: &[Token]) -> Result<(&[Token], TrailingClauses), Refusal> {
    let mut ending = TrailingClauses::default();
    let mut rest = tokens;
    // Either comes first.
    for _ in 0..2 {
        if let (before, Some(format)) = without_format(rest) {
            ending.format = Some(format);
            rest = before;
        } else if let Some((before, behind)) = at_settings(rest) {
            ending.settings = behind.split(|token| *token == Token::Comma).map(setting).collect::<Result<_, _>>()?;
            rest = before;
        }
    }
    Ok((rest, ending))
}

fn without_format(tokens: &[Token]) -> (&[Token], Option<String>) {
    match tokens {
        [rest @ .., Token::Word(Word { quote_style: None, keyword: Keyword::FORMAT, .. }), Token::Word(format)]
            if !rest.is_empty() =>
        {
            (rest, Some(format.value.clone()))
        }
        _ => (tokens, None),
    }
}

/// What is before and behind the last SETTINGS outside of parentheses.
fn at_settings(tokens: &[Token]) -> Option<(&[Token], &[Token])> {
    let mut depth = 0_usize;
    for place in (1..tokens.len()).rev() {
        match &tokens[place..] {
            [Token::RParen | Token::RBracket | Token::RBrace, ..] => depth += 1,
            [Token::LParen | Token::LBracket | Token::LBrace, ..] => depth = depth.checked_sub(1)?,
            [
                Token::Word(Word { quote_style: None, keyword: Keyword::SETTINGS, .. }),
                Token::Word(_),
                Token::Eq,
                ..,
            ] if depth == 0 => {
                return Some((&tokens[..place], &tokens[place + 1..]));
            }
            _ => {}
        }
    }
    None
}

fn setting(tokens: &[Token]) -> Result<(String, String), Refusal> {
    let value = match tokens {
        [Token::Word(_), Token::Eq, value @ ..] => value,
        _ => return Err(refused()),
    };
    let name = match tokens {
        [Token::Word(name), ..] => name.value.clone(),
        _ => return Err(refused()),
    };
    Ok((name, plain_value(value)?))
}

/// A number, a text without escapes, or a word.
fn plain_value(tokens: &[Token]) -> Result<String, Refusal> {
    match tokens {
        [Token::Number(number, _)] => check_number(number).map(|()| number.clone()),
        [Token::Minus, Token::Number(number, _)] => check_number(number).map(|()| format!("-{number}")),
        [Token::SingleQuotedString(raw)] if !raw.contains(['\\', '\'']) => Ok(raw.clone()),
        [Token::Word(word)] => Ok(match word.keyword {
            Keyword::TRUE => "1".to_owned(),
            Keyword::FALSE => "0".to_owned(),
            _ => word.value.clone(),
        }),
        _ => Err(refused()),
    }
}

fn refused() -> Refusal {
    Refusal::Syntax("SETTINGS are written as name = value, where a value is a number or a text".to_owned())
}
