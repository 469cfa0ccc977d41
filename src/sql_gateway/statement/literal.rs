//! Writes constants and names so that ClickHouse reads each as one token.

use sqlparser::ast::{Ident, Value};

use super::{Refusal, Writer};

impl Writer<'_> {
    pub(super) fn value(&mut self, value: &Value) -> Result<(), Refusal> {
        match value {
            Value::Number(number, _) => {
                check_number(number)?;
                self.push(number);
            }
            Value::SingleQuotedString(raw) => {
                check_raw(raw)?;
                self.push(&format!("'{raw}'"));
            }
            Value::Boolean(value) => self.push(if *value { "true" } else { "false" }),
            Value::Null => self.push("NULL"),
            // Only [`super::parameter`] makes them like this.
            Value::Placeholder(parameter) if parameter.starts_with('{') => self.push(parameter),
            other => return Err(Refusal::Syntax(format!("{other} is no constant of ClickHouse"))),
        }
        Ok(())
    }

    pub(super) fn identifier(&mut self, ident: &Ident) -> Result<(), Refusal> {
        check_name(&ident.value)?;
        self.push(&format!("`{}`", ident.value));
        Ok(())
    }

    /// A name with others in front. A number behind a dot is the place in a tuple.
    pub(super) fn compound(&mut self, parts: &[Ident]) -> Result<(), Refusal> {
        for (place, part) in parts.iter().enumerate() {
            if place > 0 {
                self.push(".");
            }
            if place > 0 && part.quote_style.is_none() && part.value.bytes().all(|byte| byte.is_ascii_digit()) {
                self.push(&part.value);
            } else {
                self.identifier(part)?;
            }
        }
        Ok(())
    }
}

/// A name without anything that could end its quotes.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    let is_good = !name.is_empty() && !name.chars().any(|c| c.is_control() || matches!(c, '`' | '\\' | '"'));
    if is_good {
        Ok(())
    } else {
        Err(Refusal::Syntax(format!("{name:?} is no name: quotes and \\ are not taken in one")))
    }
}

/// The inside of a text, as it was written between its quotes: a quote is
/// doubled, or has a backslash before it, and none ends it earlier.
fn check_raw(raw: &str) -> Result<(), Refusal> {
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        let is_good = match c {
            '\\' => chars.next().is_some(),
            '\'' => chars.next() == Some('\''),
            _ => true,
        };
        if !is_good {
            return Err(Refusal::Syntax("a text ends within an escape".to_owned()));
        }
    }
    Ok(())
}

pub(super) fn check_number(number: &str) -> Result<(), Refusal> {
    let is_hex =
        number.strip_prefix("0x").is_some_and(|hex| !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    let starts = number.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let decimal = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-' | b'_');
    if is_hex || starts && number.bytes().all(decimal) && number.bytes().any(|b| b.is_ascii_digit()) {
        return Ok(());
    }
    Err(Refusal::Syntax(format!("{number} is no number")))
}

/// A text as a constant.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
