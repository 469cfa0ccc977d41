//! Verdicts: the result for one event of a batch.

use super::FieldError;

/// What became of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// New, durable as asked for, and counted.
    Accepted,
    /// Already there with the same payload; nothing was counted.
    Duplicate,
    /// Its id is already there with another payload; the first stays, nothing
    /// was counted.
    Conflict,
    /// Not an event; neither stored nor counted.
    Rejected(Rejection),
    /// Older than the ids held in memory while ClickHouse could not be asked;
    /// neither stored nor counted, to be sent again later.
    Undecided,
}

/// Why an event was rejected: a code for programs, and every field at fault
/// for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The gravest reason.
    pub code: RejectionCode,
    /// Every field at fault; never empty.
    pub errors: Vec<FieldError>,
}

/// The kinds of reasons to reject an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectionCode {
    /// A field is missing, too long, or not of its form.
    Invalid,
    /// `occurred_at` lies before the retention time.
    TooOld,
    /// `occurred_at` lies too far ahead of the service's clock.
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

/// How many events of a batch got which verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerdictCounts {
    /// New, and counted.
    pub accepted: u32,
    /// Already there with the same payload.
    pub duplicate: u32,
    /// Already there with another payload.
    pub conflict: u32,
    /// Not events.
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
