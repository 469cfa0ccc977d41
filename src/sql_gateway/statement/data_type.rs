//! Types, as in `CAST(x AS Type)` and in parameters.

use sqlparser::ast::DataType;

use super::{Refusal, Writer, literal};

/// Types of values, and what they are made of. Names of tables and columns are
/// types of parameters too (`Identifier`), and are not among them.
const NAMES: [&str; 58] = [
    "array",
    "bfloat16",
    "bigint",
    "bool",
    "boolean",
    "char",
    "character",
    "date",
    "date32",
    "datetime",
    "datetime32",
    "datetime64",
    "decimal",
    "decimal128",
    "decimal256",
    "decimal32",
    "decimal64",
    "double",
    "enum",
    "enum16",
    "enum8",
    "fixedstring",
    "float",
    "float32",
    "float64",
    "int",
    "int128",
    "int16",
    "int256",
    "int32",
    "int64",
    "int8",
    "integer",
    "ipv4",
    "ipv6",
    "json",
    "lowcardinality",
    "map",
    "nullable",
    "numeric",
    "real",
    "smallint",
    "string",
    "text",
    "time",
    "time64",
    "timestamp",
    "tinyint",
    "tuple",
    "uint128",
    "uint16",
    "uint256",
    "uint32",
    "uint64",
    "uint8",
    "unsigned",
    "uuid",
    "varchar",
];

/// Whether a text is made of names of types, numbers, texts without escapes, and
/// what is between these.
pub(super) fn is_type(text: &str) -> bool {
    let mut quotes = text.split('\'');
    // What is outside of quotes, and inside, by turns.
    let mut is_outside = true;
    let is_good = quotes.all(|part| {
        let is_good = if is_outside { is_unquoted(part) } else { is_quoted(part) };
        is_outside = !is_outside;
        is_good
    });
    // The last part was outside.
    is_good && !is_outside && text.starts_with(|c: char| c.is_ascii_alphabetic())
}

fn is_unquoted(text: &str) -> bool {
    let is_between = |c: char| matches!(c, '(' | ')' | ',' | ' ' | '=' | '-');
    text.split(is_between).all(|word| {
        word.is_empty()
            || word.bytes().all(|byte| byte.is_ascii_digit())
            || NAMES.binary_search(&&*word.to_ascii_lowercase()).is_ok()
    })
}

fn is_quoted(text: &str) -> bool {
    !text.contains('\\') && !text.chars().any(char::is_control)
}

impl Writer<'_> {
    /// A type as a constant, which is how functions take it.
    pub(super) fn data_type(&mut self, data_type: &DataType) -> Result<(), Refusal> {
        let text = data_type.to_string();
        if !is_type(&text) {
            return Err(Refusal::not_allowed(format!("the type {text}")));
        }
        // The parser writes this one in capitals, which ClickHouse does not know.
        self.push(&literal::quoted(&text.replace("STRING", "String")));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_from_everything_else() {
        assert!(NAMES.is_sorted());
        for good in
            ["UInt64", "DateTime('UTC')", "Nullable(DateTime64(3, 'UTC'))", "Map(String, UInt8)", "Enum8('a' = 1)"]
        {
            assert!(is_type(good), "{good}");
        }
        for bad in ["", "Identifier", "String}", "DateTime('UTC", "Enum8('\\')", "'a'", "Object('json')", "Date; DROP"]
        {
            assert!(!is_type(bad), "{bad}");
        }
    }
}
