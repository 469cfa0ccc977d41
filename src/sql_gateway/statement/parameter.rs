//! ClickHouse's query parameters, `{name:Type}`. The parser does not support them, and receives
//! placeholders with the same text.

use sqlparser::tokenizer::Token;

use super::Refusal;
use super::data_type::is_type;

/// Longest type, in tokens.
const TYPE_TOKENS_MAX: usize = 32;

/// Replaces each parameter by one token.
pub(super) fn as_placeholders(tokens: &[Token]) -> Result<Vec<Token>, Refusal> {
    let mut replaced = Vec::with_capacity(tokens.len());
    let mut rest = tokens;
    while let Some((token, behind)) = rest.split_first() {
        let (token, behind) = match (token, behind) {
            (Token::LBrace, [Token::Word(name), Token::Colon, ..]) if name.quote_style.is_none() => {
                let (data_type, behind) = data_type(&behind[2..])?;
                (Token::Placeholder(format!("{{{}:{data_type}}}", name.value)), behind)
            }
            _ => (token.clone(), behind),
        };
        replaced.push(token);
        rest = behind;
    }
    Ok(replaced)
}

/// The type up to the closing brace, and what is behind that.
fn data_type(tokens: &[Token]) -> Result<(String, &[Token]), Refusal> {
    let end = tokens.iter().take(TYPE_TOKENS_MAX).position(|token| *token == Token::RBrace);
    let end = end.ok_or_else(|| Refusal::Syntax("a parameter lacks its }".to_owned()))?;
    let text: String = tokens[..end].iter().map(ToString::to_string).collect();
    if !is_type(&text) {
        return Err(Refusal::Syntax(format!("{text} is no type of a parameter here")));
    }
    Ok((text, &tokens[end + 1..]))
}
