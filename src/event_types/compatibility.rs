//! Decides whether a new schema accepts everything that the old one accepts.
//!
//! This cannot be decided for all schemas, so it is shown structurally, keyword by keyword: the old
//! schema must restrict at least as much as the new one. What cannot be shown this way is reported, even
//! if it is harmless. What is not reported is compatible.
//!
//! Both schemas are expanded (see [`super::schema`]): they have no references, and no keywords that do not
//! restrict.

mod arrays;
mod numbers;
mod objects;
mod strings;
mod types;

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{check, cost};
use crate::domain::FieldError;
use types::Types;

/// Most pairs of subschemas that are compared. Copying, compiling and trying values count as well.
const STEPS_MAX: u64 = 20_000_000;
/// The cost of compiling a subschema or a value of `enum`, in steps.
const COMPILE_STEPS: u64 = 50;

/// Groups of keywords that only work together. A group is accepted if the old schema has the same
/// group.
const GROUPS: [&[&str]; 2] = [&["if", "then", "else"], &["contains", "minContains", "maxContains"]];

/// The paths in `new` that may refuse objects that `old` accepts, with reasons; none if it refuses
/// none of them. What cannot be decided before the deadline is reported.
pub(super) fn faults(old: &Value, new: &Value, deadline: Instant) -> Vec<FieldError> {
    let mut comparison = Comparison { steps_left: STEPS_MAX, deadline, faults: Vec::new() };
    comparison.compare(&of_objects(old), new, "properties");
    if comparison.is_over() {
        let message = "cannot be compared with the last version within the bounds of time and work: make it simpler, or \
             register it with 'force' if you know that it accepts what the last one accepts";
        return vec![FieldError::new("schema", message)];
    }
    let mut faults = comparison.faults;
    faults.dedup();
    faults.truncate(super::FAULTS_MAX);
    faults
}

/// The same schema, of objects only: properties are one.
fn of_objects(schema: &Value) -> Value {
    match schema {
        Value::Object(keywords) if Types::of(keywords).includes(Types::OBJECT) => {
            let mut keywords = keywords.clone();
            keywords.insert("type".to_owned(), "object".into());
            Value::Object(keywords)
        }
        Value::Bool(true) => serde_json::json!({"type": "object"}),
        _ => schema.clone(),
    }
}

/// What a place is found to be wrong with.
struct Comparison {
    steps_left: u64,
    deadline: Instant,
    faults: Vec<FieldError>,
}

impl Comparison {
    /// Charges a cost. Returns false if the limit is exceeded; then the findings are not
    /// conclusive.
    fn take(&mut self, steps: u64) -> bool {
        self.steps_left = self.steps_left.saturating_sub(steps);
        if self.steps_left > 0 && Instant::now() >= self.deadline {
            self.steps_left = 0;
        }
        self.steps_left > 0
    }

    /// Nothing is left.
    const fn is_over(&self) -> bool {
        self.steps_left == 0
    }

    fn fault(&mut self, place: &str, message: impl Into<String>) {
        // More are not shown; the bound keeps what fails slowly from growing.
        if self.faults.len() < 4 * super::FAULTS_MAX {
            self.faults.push(FieldError::new(place, message));
        }
    }

    /// Whether `new` provably accepts everything that `old` accepts. Reports paths where it does
    /// not.
    fn compare(&mut self, old: &Value, new: &Value, place: &str) {
        // Both are copied further down.
        let copied = cost::values(old).saturating_add(cost::values(new));
        if !self.take(copied) || *new == Value::Bool(true) || *old == Value::Bool(false) || old == new {
            return;
        }
        let (Some(olds), Some(news)) = (conjuncts(old), conjuncts(new)) else {
            self.fault(place, "is no longer accepted at all");
            return;
        };
        if self.compare_branches(&olds, new) {
            return;
        }
        for new in news {
            if olds.len() == 1 || !olds.iter().any(|old| self.accepts(old, &new)) {
                self.compare_keywords(&olds[0], &new, place);
            }
        }
    }

    /// The same without reporting paths.
    fn is_shown(&mut self, old: &Value, new: &Value) -> bool {
        let faults = std::mem::take(&mut self.faults);
        self.compare(old, new, "");
        std::mem::replace(&mut self.faults, faults).is_empty() && !self.is_over()
    }

    fn accepts(&mut self, old: &Map<String, Value>, new: &Map<String, Value>) -> bool {
        let faults = std::mem::take(&mut self.faults);
        self.compare_keywords(old, new, "");
        std::mem::replace(&mut self.faults, faults).is_empty() && !self.is_over()
    }

    /// A value that the old schema accepts satisfies one of its branches: the
    /// new one accepts it, if it accepts each of them.
    fn compare_branches(&mut self, olds: &[Map<String, Value>], new: &Value) -> bool {
        olds.iter().any(|old| {
            ["anyOf", "oneOf"].iter().any(|keyword| {
                let branches = old.get(*keyword).and_then(Value::as_array);
                branches.is_some_and(|branches| branches.iter().all(|branch| self.is_shown(branch, new)))
            })
        })
    }

    /// Compares two schemas without `allOf`.
    fn compare_keywords(&mut self, old: &Map<String, Value>, new: &Map<String, Value>, place: &str) {
        if !self.take(1) || old == new {
            return;
        }
        if let Some(values) = types::values(old) {
            return self.compare_values(&values, new, place);
        }
        let types = Types::of(old);
        if !Types::of(new).includes(types) {
            self.fault(place, format!("was {types}, and is now {}", Types::of(new)));
        }
        if types.includes(Types::INTEGER) {
            numbers::compare(self, old, new, place);
        }
        if types.includes(Types::STRING) {
            strings::compare(self, old, new, place);
        }
        if types.includes(Types::ARRAY) {
            arrays::compare(self, old, new, place);
        }
        if types.includes(Types::OBJECT) {
            objects::compare(self, old, new, place);
        }
        self.compare_rest(old, new, place);
    }

    /// The old schema accepts these values at most: each is tried.
    fn compare_values(&mut self, values: &[Value], new: &Map<String, Value>, place: &str) {
        let new_values = new.values().map(cost::values).sum::<u64>() + 1;
        let tried = new_values.saturating_mul(values.len() as u64);
        if !self.take(new_values.saturating_mul(COMPILE_STEPS).saturating_add(tried)) {
            return;
        }
        let Ok(validator) = check::compile(&Value::Object(new.clone())) else {
            return self.fault(place, "cannot be compared");
        };
        if let Some(refused) = values.iter().find(|value| !validator.is_valid(value)) {
            let refused: String = refused.to_string().chars().take(60).collect();
            self.fault(place, format!("no longer accepts {refused}"));
        }
    }

    /// Compares keywords for values of every type, and unknown keywords.
    fn compare_rest(&mut self, old: &Map<String, Value>, new: &Map<String, Value>, place: &str) {
        for (keyword, asked) in new {
            if is_compared(keyword) || old.get(keyword) == Some(asked) && group(keyword).is_empty() {
                continue;
            }
            let is_same = group(keyword).iter().all(|keyword| old.get(*keyword) == new.get(*keyword));
            if is_same && !group(keyword).is_empty() {
                continue;
            }
            if keyword == "anyOf" && self.fits_a_branch(old, asked) {
                continue;
            }
            let message = match &**keyword {
                "enum" | "const" => "accepts only certain values now".to_owned(),
                keyword if old.contains_key(keyword) => format!("has another '{keyword}' now"),
                keyword => format!("has '{keyword}' now"),
            };
            self.fault(place, message);
        }
    }

    /// Whether one branch accepts everything.
    fn fits_a_branch(&mut self, old: &Map<String, Value>, branches: &Value) -> bool {
        let old = Value::Object(old.clone());
        branches.as_array().is_some_and(|branches| branches.iter().any(|branch| self.is_shown(&old, branch)))
    }
}

fn group(keyword: &str) -> &'static [&'static str] {
    GROUPS.into_iter().find(|group| group.contains(&keyword)).unwrap_or_default()
}

/// Keywords that the files of this folder compare.
fn is_compared(keyword: &str) -> bool {
    let files = [types::KEYWORDS, numbers::KEYWORDS, strings::KEYWORDS, arrays::KEYWORDS, objects::KEYWORDS];
    files.iter().any(|keywords| keywords.contains(&keyword))
}

/// The schemas without `allOf` that must all be satisfied; none for `false`.
/// Never empty.
fn conjuncts(schema: &Value) -> Option<Vec<Map<String, Value>>> {
    let keywords = match schema {
        Value::Object(keywords) => keywords,
        Value::Bool(true) => return Some(vec![Map::new()]),
        _ => return None,
    };
    let mut base = keywords.clone();
    let mut all = Vec::new();
    if let Some(Value::Array(parts)) = base.remove("allOf") {
        for part in &parts {
            all.extend(conjuncts(part)?);
        }
    }
    all.insert(0, base);
    Some(all)
}

/// A subschema that is not there accepts everything.
fn subschema<'a>(keywords: &'a Map<String, Value>, keyword: &str) -> &'a Value {
    keywords.get(keyword).unwrap_or(&Value::Bool(true))
}

/// A bound of a count, such as `minLength`; none when it is not given.
fn count(keywords: &Map<String, Value>, keyword: &str) -> Option<f64> {
    keywords.get(keyword).and_then(Value::as_f64)
}

impl Comparison {
    /// Compares two bounds of a count.
    fn compare_counts(
        &mut self,
        (old, new): (&Map<String, Value>, &Map<String, Value>),
        (least, most): (&str, &str),
        place: &str,
    ) {
        if let Some(asked) = count(new, least)
            && count(old, least).unwrap_or_default() < asked
        {
            self.fault(place, format!("has a greater '{least}' now: {asked}"));
        }
        if let Some(asked) = count(new, most)
            && count(old, most).is_none_or(|given| given > asked)
        {
            self.fault(place, format!("has a smaller '{most}' now: {asked}"));
        }
    }
}

#[cfg(test)]
#[path = "compatibility/tests.rs"]
mod tests;
