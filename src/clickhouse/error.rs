//! Classifies ClickHouse's errors: retry, refuse, or time out.

use std::time::Duration;

use clickhouse::error::Error as ClientError;

use crate::domain::Error;
use crate::event_store::StoreError;

/// How long a caller is told to wait when ClickHouse does not answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Codes that say that these rows cannot go into this table: repeating the
/// insert changes nothing. All other codes are retried, those included that a
/// person must mend (access, missing tables), since mending them is enough
/// then. Numbers are those of ClickHouse's `ErrorCodes.cpp`.
const REFUSED_CODES: [u32; 9] = [
    6,   // CANNOT_PARSE_TEXT
    16,  // NO_SUCH_COLUMN_IN_TABLE
    26,  // CANNOT_PARSE_QUOTED_STRING
    27,  // CANNOT_PARSE_INPUT_ASSERTION_FAILED
    47,  // UNKNOWN_IDENTIFIER
    53,  // TYPE_MISMATCH
    117, // INCORRECT_DATA
    131, // TOO_LARGE_STRING_SIZE
    321, // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
];

/// Codes that say that the server has too much to do just now.
const OVERLOADED_CODES: [u32; 5] = [
    159, // TIMEOUT_EXCEEDED
    202, // TOO_MANY_SIMULTANEOUS_QUERIES
    241, // MEMORY_LIMIT_EXCEEDED
    252, // TOO_MANY_PARTS
    745, // SERVER_OVERLOADED
];

/// The code of an exception, from its text ("Code: 241. DB::Exception: …").
fn code_of(text: &str) -> Option<u32> {
    let after = text.split("Code: ").nth(1)?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Classifies an insert's error.
pub fn insert_error(error: &ClientError) -> StoreError {
    let text = error.to_string();
    match error {
        ClientError::BadResponse(reason) if code_of(reason).is_some_and(|code| REFUSED_CODES.contains(&code)) => {
            StoreError::Refused(text)
        }
        _ => StoreError::Retry(text),
    }
}

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// ClickHouse did not answer.
    #[error("{0}")]
    Unreachable(String),
    /// ClickHouse is overloaded.
    #[error("{0}")]
    Overloaded(String),
    /// ClickHouse did not answer within the time limit of queries.
    #[error("the query took too long")]
    TimedOut,
    /// Too many queries of the same organization wait.
    #[error("too many queries of this organization wait already")]
    QueueFull,
    /// ClickHouse could not process the query, or the answer is invalid.
    #[error("{0}")]
    Failed(String),
}

impl QueryError {
    /// The kind of error, in metrics and spans.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Overloaded(_) => "overloaded",
            Self::TimedOut => "took_too_long",
            Self::QueueFull => "crowded",
            Self::Failed(_) => "failed",
        }
    }
}

impl From<ClientError> for QueryError {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        match &error {
            ClientError::Network(_) | ClientError::TimedOut => Self::Unreachable(text),
            ClientError::BadResponse(reason)
                if code_of(reason).is_some_and(|code| OVERLOADED_CODES.contains(&code)) =>
            {
                Self::Overloaded(text)
            }
            _ => Self::Failed(text),
        }
    }
}

/// What a caller is told; ClickHouse's own words are for the log.
impl From<QueryError> for Error {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Unreachable(_) => Self::unavailable("ClickHouse cannot be reached", RETRY_AFTER),
            QueryError::Overloaded(_) => Self::exhausted("ClickHouse is overloaded", RETRY_AFTER),
            QueryError::TimedOut => Self::unavailable("the query took too long", RETRY_AFTER),
            QueryError::QueueFull => Self::exhausted("too many queries of this organization wait already", RETRY_AFTER),
            QueryError::Failed(_) => Self::internal(),
        }
    }
}

impl From<QueryError> for StoreError {
    fn from(error: QueryError) -> Self {
        Self::Retry(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> bool {
        matches!(insert_error(&ClientError::BadResponse(text.to_owned())), StoreError::Refused(_))
    }

    #[test]
    fn only_wrong_rows_are_refused() {
        assert!(refused("Code: 117. DB::Exception: Unexpected data (INCORRECT_DATA) (version 26.7)"));
        assert!(!refused("Code: 252. DB::Exception: Too many parts (TOO_MANY_PARTS)"));
        assert!(!refused("Code: 60. DB::Exception: Table does not exist (UNKNOWN_TABLE)"));
        assert!(!refused("502 Bad Gateway"));
        assert!(matches!(insert_error(&ClientError::TimedOut), StoreError::Retry(_)));
    }
}
