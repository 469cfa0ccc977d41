//! A parser of JSON values.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

use super::{DEPTH_MAX, JsonError};

/// Reads a text that is one value and nothing else.
pub(super) fn read(text: &str) -> Result<Value, JsonError> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(DEPTH_MAX)?;
    reader.skip_space();
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(reader.error("something follows the end of the value")),
    }
}

struct Reader<'a> {
    text: &'a str,
    /// The next byte; always at the boundary of a character.
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    const fn error(&self, message: &'static str) -> JsonError {
        JsonError { message, at: self.at + 1 }
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Takes this byte, if it comes next after white space.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn value(&mut self, depth_left: usize) -> Result<Value, JsonError> {
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.object(depth_left),
            Some(b'[') => self.list(depth_left),
            Some(b'"') => Ok(Value::String(self.string()?.into_owned())),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(_) => Err(self.error("a value is expected")),
            None => Err(self.error("the text ends where a value is expected")),
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, JsonError> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(value);
        }
        Err(self.error("a value is expected"))
    }

    /// One level down.
    fn below(&self, depth_left: usize) -> Result<usize, JsonError> {
        depth_left.checked_sub(1).ok_or_else(|| self.error("objects and lists may be nested at most 127 levels deep"))
    }

    fn object(&mut self, depth_left: usize) -> Result<Value, JsonError> {
        let depth_left = self.below(depth_left)?;
        self.at += 1;
        let mut members = Map::new();
        if self.take(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.error("a key in quotation marks is expected"));
            }
            let key = self.string()?.into_owned();
            if !self.take(b':') {
                return Err(self.error("':' is expected"));
            }
            let value = self.value(depth_left)?;
            members.insert(key, value);
            if self.take(b'}') {
                return Ok(Value::Object(members));
            }
            if !self.take(b',') {
                return Err(self.error("',' or '}' is expected"));
            }
        }
    }

    fn list(&mut self, depth_left: usize) -> Result<Value, JsonError> {
        let depth_left = self.below(depth_left)?;
        self.at += 1;
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth_left)?);
            if self.take(b']') {
                return Ok(Value::Array(items));
            }
            if !self.take(b',') {
                return Err(self.error("',' or ']' is expected"));
            }
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let start = self.at;
        self.at += 1;
        let mut has_escape = false;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    has_escape = true;
                    // Whatever is escaped is no end. (A character of several bytes is no escape, and refused below.)
                    self.at += 1 + usize::from(self.text.is_char_boundary(self.at + 2));
                }
                Some(0..0x20) => return Err(self.error("a control character must be escaped")),
                Some(_) => self.at += 1,
                None => return Err(self.error("the text ends within a string")),
            }
        }
        self.at += 1;
        let quoted = &self.text[start..self.at];
        if !has_escape {
            return Ok(Cow::Borrowed(&quoted[1..quoted.len() - 1]));
        }
        let unescaped = serde_json::from_str::<String>(quoted);
        unescaped.map(Cow::Owned).map_err(|_| JsonError { message: "a string has a wrong escape", at: start + 1 })
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) {
            self.at += 1;
        }
        let number = self.text[start..self.at].parse::<Number>();
        number.map(Value::Number).map_err(|_| JsonError { message: "the number is malformed", at: start + 1 })
    }
}
