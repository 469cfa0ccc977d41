//! Types of values, and schemas that allow only certain values.

use std::fmt;

use serde_json::{Map, Value};

pub(super) const KEYWORDS: &[&str] = &["type"];

/// A set of types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Types(u8);

const NAMES: [(&str, Types); 7] = [
    ("null", Types::NULL),
    ("boolean", Types::BOOLEAN),
    ("integer", Types::INTEGER),
    ("number", Types::NUMBER),
    ("string", Types::STRING),
    ("array", Types::ARRAY),
    ("object", Types::OBJECT),
];

impl Types {
    pub(super) const NULL: Self = Self(1);
    pub(super) const BOOLEAN: Self = Self(2);
    pub(super) const INTEGER: Self = Self(4);
    /// Whole numbers are numbers.
    pub(super) const NUMBER: Self = Self(8 | 4);
    pub(super) const STRING: Self = Self(16);
    pub(super) const ARRAY: Self = Self(32);
    pub(super) const OBJECT: Self = Self(64);
    const ALL: Self = Self(127);

    /// The types that a schema's `type` lets through.
    pub(super) fn of(keywords: &Map<String, Value>) -> Self {
        let named = |name: &Value| {
            let found = NAMES.iter().find(|(known, _)| name.as_str() == Some(known));
            found.map_or(0, |(_, types)| types.0)
        };
        match keywords.get("type") {
            None => Self::ALL,
            Some(Value::Array(names)) => Self(names.iter().fold(0, |types, name| types | named(name))),
            Some(name) => Self(named(name)),
        }
    }

    pub(super) const fn includes(self, types: Self) -> bool {
        self.0 & types.0 == types.0
    }
}

impl fmt::Display for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str("anything");
        }
        let is_named = |types: Self| self.includes(types) && !(types == Self::INTEGER && self.includes(Self::NUMBER));
        let names: Vec<&str> = NAMES.iter().filter(|(_, types)| is_named(*types)).map(|(name, _)| *name).collect();
        if names.is_empty() { f.write_str("nothing") } else { f.write_str(&names.join(" or ")) }
    }
}

/// The only values that a schema can accept; none when there may be others.
pub(super) fn values(keywords: &Map<String, Value>) -> Option<Vec<Value>> {
    if let Some(value) = keywords.get("const") {
        return Some(vec![value.clone()]);
    }
    if let Some(Value::Array(values)) = keywords.get("enum") {
        return Some(values.clone());
    }
    let types = Types::of(keywords);
    let few = [(Types::NULL, vec![Value::Null]), (Types::BOOLEAN, vec![Value::Bool(false), Value::Bool(true)])];
    let is_few = Types(Types::NULL.0 | Types::BOOLEAN.0).includes(types);
    is_few.then(|| few.into_iter().filter(|(few, _)| types.includes(*few)).flat_map(|(_, values)| values).collect())
}
