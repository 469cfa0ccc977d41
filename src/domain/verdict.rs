//! Verdicts: the result for one event of a batch.

use super::FieldError;

/// The verdict on one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// New, stored with the requested durability, and counted.
    Accepted,
    /// Already stored with the same payload; not counted again.
    Duplicate,
    /// Its id is already stored with another payload, which stays; not counted again.
    Conflict,
    /// Invalid; neither stored nor counted.
    Rejected(Rejection),
    /// Older than the ids in memory, and ClickHouse did not answer; neither stored nor counted. To
    /// be sent again later.
    Undecided,
}

/// Why an event was rejected: a code, and every invalid field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The most serious reason.
    pub code: RejectionCode,
    /// Every field at fault; never empty.
    pub errors: Vec<FieldError>,
}

/// Kinds of rejections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectionCode {
    /// A field is missing, too long, or not of its form.
    Invalid,
    /// `occurred_at` is before the retention period.
    TooOld,
    /// `occurred_at` is too far ahead of the service's clock.
    InFuture,
    /// The properties do not satisfy the schema of the event's type.
    Schema,
    /// The type is not registered, and the organization rejects such events.
    UnknownType,
}

impl RejectionCode {
    /// The code as it is written in JSON and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::TooOld => "TOO_OLD",
            Self::InFuture => "IN_FUTURE",
            Self::Schema => "SCHEMA",
            Self::UnknownType => "UNKNOWN_TYPE",
        }
    }
}

/// The number of events of a batch with each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerdictCounts {
    /// New and counted.
    pub accepted: u32,
    /// Already stored with the same payload.
    pub duplicate: u32,
    /// Already stored with another payload.
    pub conflict: u32,
    /// Invalid.
    pub rejected: u32,
    /// To be sent again later.
    pub undecided: u32,
}

impl VerdictCounts {
    /// Counts one more verdict.
    pub const fn add(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Accepted => self.accepted += 1,
            Verdict::Duplicate => self.duplicate += 1,
            Verdict::Conflict => self.conflict += 1,
            Verdict::Rejected(_) => self.rejected += 1,
            Verdict::Undecided => self.undecided += 1,
        }
    }
}
