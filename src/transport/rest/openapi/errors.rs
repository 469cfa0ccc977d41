//! Examples of errors: one for every code that a status can have.

use serde_json::{Map, Value, json};

/// The schema of every error's body.
const ERROR_BODY: &str = "#/components/schemas/ErrorBody";

/// A field, and what is wrong with it.
type Fault = (&'static str, &'static str);

/// Every code with its HTTP status, the message that mostly comes with it, and
/// a field that may be at fault.
const CODES: [(&str, u16, &str, Option<Fault>); 17] = [
    ("MALFORMED_JSON", 400, "the body cannot be read", Some(("body", "must be one JSON object"))),
    ("INVALID_CURSOR", 400, "the cursor cannot be used", Some(("cursor", "must be a cursor of this list"))),
    ("UNAUTHENTICATED", 401, "a bearer token is required", None),
    ("PERMISSION_DENIED", 403, "the token does not have the scope 'read'", None),
    ("NOT_FOUND", 404, "there is no such event", None),
    ("METHOD_NOT_ALLOWED", 405, "this path does not have this method", None),
    ("REQUEST_TIMEOUT", 408, "the body did not arrive in time", None),
    ("CONFLICT", 409, "this event type is being registered by somebody else", None),
    ("TOO_LARGE", 413, "the body may have at most 2097152 bytes, also once it is decompressed", None),
    ("UNSUPPORTED_MEDIA_TYPE", 415, "the content type must be application/json", None),
    ("VALIDATION_ERROR", 422, "validation failed", Some(("occurred_at", "must be an RFC 3339 time"))),
    ("IDEMPOTENCY_KEY_REUSED", 422, "the idempotency key was used for another body before", None),
    (
        "INCOMPATIBLE_SCHEMA",
        422,
        "the schema may refuse what the last version accepts; 'force' registers it all the same",
        Some(("properties.amount", "has a smaller 'maximum' now: 10")),
    ),
    ("RATE_LIMITED", 429, "the organization is over its limit", None),
    ("INTERNAL", 500, "internal error; the service's log has the cause", None),
    ("OVERLOADED", 503, "too many queries at a time", None),
    ("UNAVAILABLE", 503, "ClickHouse cannot be reached", None),
];

/// Gives each error response an example for every code that its description
/// names, and lists all codes in the schema.
pub(super) fn complete(document: &mut Value) {
    for (_, _, operation) in super::operations(document) {
        for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
            let described = response["description"].as_str().unwrap_or_default().to_owned();
            let Some(content) = response.pointer_mut("/content/application~1json") else { continue };
            if content["schema"]["$ref"] == ERROR_BODY {
                content["examples"] = Value::Object(examples(status, &described));
            }
        }
    }
    let info = &mut document["components"]["schemas"]["ErrorInfo"]["properties"]["code"];
    if let Some(code) = info.as_object_mut() {
        code.remove("example");
        code.insert("enum".to_owned(), CODES.iter().map(|(code, ..)| *code).collect());
    }
}

/// Examples for the codes that a description names and that go with the status.
fn examples(status: &str, described: &str) -> Map<String, Value> {
    let named = described.split('`').filter_map(|word| CODES.iter().find(|(code, ..)| *code == word));
    let fitting = named.filter(|(_, of_code, ..)| of_code.to_string() == status);
    fitting
        .map(|(code, _, message, fault)| {
            let detail = |(field, message): &(&str, &str)| json!({ "field": field, "message": message });
            let details: Vec<Value> = fault.iter().map(detail).collect();
            let error = json!({ "code": code, "message": message, "details": details });
            ((*code).to_owned(), json!({ "value": { "error": error } }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::domain::ErrorCode;
    use crate::transport::error::names;

    #[test]
    fn every_error_response_has_examples_of_its_own_status() {
        let mut document = super::super::document(&Config::default()).expect("JSON");
        let mut errors = 0;
        for (path, method, operation) in super::super::operations(&mut document) {
            for (status, response) in operation["responses"].as_object().expect("responses") {
                let content = &response["content"]["application/json"];
                // Readiness has one body, whether the service is ready or not.
                let is_error = status.starts_with(['4', '5']) && path != "/readyz";
                assert_eq!(content["schema"]["$ref"] == ERROR_BODY, is_error, "{method} {path} {status}");
                if !is_error {
                    continue;
                }
                errors += 1;
                let examples = content["examples"].as_object();
                assert!(examples.is_some_and(|examples| !examples.is_empty()), "{method} {path} {status}");
                for (code, example) in examples.into_iter().flatten() {
                    assert_eq!(example["value"]["error"]["code"], json!(code), "{method} {path} {status}");
                }
            }
        }
        assert!(errors > 100, "{errors}");
    }

    #[test]
    fn codes_are_those_that_errors_have() {
        use ErrorCode::{
            Conflict, Exhausted, Forbidden, Incompatible, Internal, Invalid, KeyReused, Limited, NotFound, TooLarge,
            Unauthenticated, Unavailable,
        };
        for code in [
            Conflict,
            Exhausted,
            Forbidden,
            Incompatible,
            Internal,
            Invalid,
            KeyReused,
            Limited,
            NotFound,
            TooLarge,
            Unauthenticated,
            Unavailable,
        ] {
            let names = names(code);
            let known = CODES.iter().find(|(known, ..)| *known == names.code).expect(names.code);
            assert_eq!(known.1, names.http.as_u16(), "{}", names.code);
        }
    }
}
