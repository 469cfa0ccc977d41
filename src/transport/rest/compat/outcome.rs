//! What became of a request's events, as the answers of all formats have it.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};

use crate::domain::{Error, FieldError, Verdict};
use crate::event_intake::BatchResults;
use crate::transport::error::failure::Failure;

/// Whether nothing of the request is stored, so that it must not be sent again as it is.
pub(super) fn is_refused(results: &BatchResults) -> bool {
    let counts = &results.counts;
    counts.accepted + counts.duplicate + counts.conflict == 0 && counts.rejected > 0
}

/// The answer: 200 with these members beside the counts, or 422 when the request is refused.
pub(super) fn answer(results: &BatchResults, members: &Value) -> Response {
    if is_refused(results) {
        return Failure::from(every_fault(results)).into_response();
    }
    let mut body = members.as_object().cloned().unwrap_or_default();
    body.extend(counts(results));
    (StatusCode::OK, Json(Value::Object(body))).into_response()
}

/// The events that were rejected, by position, and what is wrong with them.
fn rejected(results: &BatchResults) -> impl Iterator<Item = (usize, &[FieldError])> {
    results.verdicts.iter().enumerate().filter_map(|(index, verdict)| match verdict {
        Verdict::Rejected(rejection) => Some((index, &*rejection.errors)),
        _ => None,
    })
}

/// Every field at fault, with its event.
fn every_fault(results: &BatchResults) -> Error {
    let named = rejected(results).flat_map(|(index, faults)| {
        faults.iter().map(move |fault| FieldError::new(format!("{index}.{}", fault.field), &*fault.message))
    });
    Error::invalid(named.collect())
}

fn counts(results: &BatchResults) -> Map<String, Value> {
    let rejected: Vec<Value> = rejected(results)
        .map(|(index, faults)| {
            let fault = faults.first();
            let (field, message) = fault.map_or(("event", "is not an event"), |fault| (&*fault.field, &*fault.message));
            json!({ "index": index, "field": field, "message": message })
        })
        .collect();
    let counts = [
        ("accepted", json!(results.counts.accepted)),
        ("duplicates", json!(results.counts.duplicate)),
        ("conflicts", json!(results.counts.conflict)),
        ("rejected", json!(rejected)),
    ];
    counts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Rejection, RejectionCode, VerdictCounts};

    #[test]
    fn the_status_says_whether_something_was_taken() {
        let wrong = || {
            let errors = vec![FieldError::new("type", "is required")];
            Verdict::Rejected(Rejection { code: RejectionCode::Invalid, errors })
        };
        let check = |verdicts: Vec<Verdict>, expected: u16| {
            let mut counts = VerdictCounts::default();
            verdicts.iter().for_each(|verdict| counts.add(verdict));
            let results = BatchResults { verdicts, counts, ..BatchResults::default() };
            let response = answer(&results, &json!({ "success": true }));
            assert_eq!(response.status().as_u16(), expected, "{results:?}");
        };
        check(Vec::new(), 200);
        check(vec![Verdict::Accepted, wrong()], 200);
        check(vec![Verdict::Duplicate], 200);
        check(vec![Verdict::Conflict, wrong()], 200);
        check(vec![wrong(), wrong()], 422);
    }
}
