//! What became of a request's events, as the answers of all formats have it.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};

use crate::domain::{Error, FieldError, Verdict};
use crate::transport::error::failure::Failure;

/// How long the sender of undecided events is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How many events got which verdict, and what is wrong with those that were rejected.
pub(super) struct Outcome {
    accepted: usize,
    duplicates: usize,
    conflicts: usize,
    pub(super) undecided: usize,
    pub(super) rejected: Vec<(usize, Vec<FieldError>)>,
}

impl Outcome {
    pub(super) fn of(verdicts: &[Verdict]) -> Self {
        let count = |wanted: &Verdict| verdicts.iter().filter(|verdict| *verdict == wanted).count();
        let rejected = verdicts.iter().enumerate().filter_map(|(index, verdict)| match verdict {
            Verdict::Rejected(rejection) => Some((index, rejection.errors.clone())),
            _ => None,
        });
        Self {
            accepted: count(&Verdict::Accepted),
            duplicates: count(&Verdict::Duplicate),
            conflicts: count(&Verdict::Conflict),
            undecided: count(&Verdict::Undecided),
            rejected: rejected.collect(),
        }
    }

    /// Why the same request should be sent again.
    pub(super) fn retry(&self) -> Option<Error> {
        let message = "whether some of the events are new cannot be told just now; send the request again";
        (self.undecided > 0).then(|| Error::unavailable(message, RETRY_AFTER))
    }

    /// Whether nothing of the request is there: it must not be sent again as it is.
    pub(super) const fn is_refused(&self) -> bool {
        self.accepted + self.duplicates + self.conflicts == 0 && !self.rejected.is_empty()
    }

    /// Every field at fault, with its event.
    fn error(&self) -> Error {
        let named = self.rejected.iter().flat_map(|(index, faults)| {
            faults.iter().map(move |fault| FieldError::new(format!("{index}.{}", fault.field), &*fault.message))
        });
        Error::invalid(named.collect())
    }

    /// The answer: these members beside the counts with 200; 503 when the request should be sent again, 422 when
    /// nothing of it was taken.
    pub(super) fn answer(&self, members: &Value) -> Response {
        if let Some(error) = self.retry() {
            return Failure::from(error).into_response();
        }
        if self.is_refused() {
            return Failure::from(self.error()).into_response();
        }
        let mut body = members.as_object().cloned().unwrap_or_default();
        body.extend(self.counts());
        (StatusCode::OK, Json(Value::Object(body))).into_response()
    }

    fn counts(&self) -> Map<String, Value> {
        let rejected: Vec<Value> = self
            .rejected
            .iter()
            .map(|(index, faults)| {
                let fault = faults.first();
                let (field, message) =
                    fault.map_or(("event", "is not an event"), |fault| (&*fault.field, &*fault.message));
                json!({ "index": index, "field": field, "message": message })
            })
            .collect();
        let counts = [
            ("accepted", json!(self.accepted)),
            ("duplicates", json!(self.duplicates)),
            ("conflicts", json!(self.conflicts)),
            ("rejected", json!(rejected)),
        ];
        counts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Rejection, RejectionCode};

    #[test]
    fn the_status_says_whether_to_send_again() {
        let wrong = || {
            let errors = vec![FieldError::new("type", "is required")];
            Verdict::Rejected(Rejection { code: RejectionCode::Invalid, errors })
        };
        let check = |verdicts: &[Verdict], expected: u16| {
            let response = Outcome::of(verdicts).answer(&json!({ "success": true }));
            assert_eq!(response.status().as_u16(), expected, "{verdicts:?}");
        };
        check(&[], 200);
        check(&[Verdict::Accepted, wrong()], 200);
        check(&[Verdict::Duplicate], 200);
        check(&[Verdict::Conflict, wrong()], 200);
        check(&[wrong(), wrong()], 422);
        check(&[Verdict::Accepted, Verdict::Undecided], 503);
    }
}
