//! The stored record of a call: the time of the first call, the hash of its body, and the answer. As
//! bytes: a version, the time, the hash, and the answer as compressed JSON (zlib), or nothing while there
//! is none. Compressed, ten thousand events that were rejected for the same reasons take about ten
//! kilobytes.

use std::io::{self, Read as _, Write as _};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde::{Deserialize, Serialize};

use crate::domain::{FieldError, Rejection, RejectionCode, Verdict};

/// The layout of a record.
const VERSION: u8 = 1;
const TIME: std::ops::Range<usize> = 1..9;
const PRINT: std::ops::Range<usize> = 9..41;
/// Most bytes of a decompressed answer: several times those of ten thousand rejected events with
/// every field invalid.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// The SHA-256 of a body; by default, of its events.
pub type BodyHash = [u8; 32];

/// A stored record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// When the first call was made, in microseconds since 1970.
    pub(super) at: u64,
    pub(super) print: BodyHash,
    /// Empty: there is none yet.
    pub(super) answer: &'a [u8],
}

impl<'a> Record<'a> {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.at.to_le_bytes());
        bytes.extend_from_slice(&self.print);
        bytes.extend_from_slice(self.answer);
        bytes
    }

    /// Parses a record; none if the bytes are invalid.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let at = u64::from_le_bytes(bytes.get(TIME)?.try_into().ok()?);
        let print = bytes.get(PRINT)?.try_into().ok()?;
        (bytes[0] == VERSION).then(|| Self { at, print, answer: &bytes[PRINT.end..] })
    }
}

/// The verdicts on a call's events: how many there are, and those that are not
/// `Accepted`.
#[derive(Serialize, Deserialize)]
struct Answer {
    events: usize,
    others: Vec<Other>,
}

#[derive(Serialize, Deserialize)]
struct Other {
    position: usize,
    kind: Kind,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    errors: Vec<(String, String)>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Kind {
    Duplicate,
    Conflict,
    Undecided,
    Invalid,
    TooOld,
    InFuture,
    Schema,
    UnknownType,
}

impl Kind {
    const fn of(code: RejectionCode) -> Self {
        match code {
            RejectionCode::Invalid => Self::Invalid,
            RejectionCode::TooOld => Self::TooOld,
            RejectionCode::InFuture => Self::InFuture,
            RejectionCode::Schema => Self::Schema,
            RejectionCode::UnknownType => Self::UnknownType,
        }
    }

    fn verdict(self, errors: Vec<(String, String)>) -> Verdict {
        let errors = errors.into_iter().map(|(field, message)| FieldError { field, message }).collect();
        let rejected = |code: RejectionCode| Verdict::Rejected(Rejection { code, errors });
        match self {
            Self::Duplicate => Verdict::Duplicate,
            Self::Conflict => Verdict::Conflict,
            Self::Undecided => Verdict::Undecided,
            Self::Invalid => rejected(RejectionCode::Invalid),
            Self::TooOld => rejected(RejectionCode::TooOld),
            Self::InFuture => rejected(RejectionCode::InFuture),
            Self::Schema => rejected(RejectionCode::Schema),
            Self::UnknownType => rejected(RejectionCode::UnknownType),
        }
    }
}

/// Encodes verdicts for the store.
pub(super) fn write_answer(verdicts: &[Verdict]) -> Vec<u8> {
    let other = |(position, verdict): (usize, &Verdict)| {
        let (kind, errors) = match verdict {
            Verdict::Accepted => return None,
            Verdict::Duplicate => (Kind::Duplicate, Vec::new()),
            Verdict::Conflict => (Kind::Conflict, Vec::new()),
            Verdict::Undecided => (Kind::Undecided, Vec::new()),
            Verdict::Rejected(Rejection { code, errors }) => {
                let errors = errors.iter().map(|error| (error.field.clone(), error.message.clone()));
                (Kind::of(*code), errors.collect())
            }
        };
        Some(Other { position, kind, errors })
    };
    let answer = Answer { events: verdicts.len(), others: verdicts.iter().enumerate().filter_map(other).collect() };
    let json = serde_json::to_vec(&answer).unwrap_or_default(); // It has texts and numbers only.
    compressed(&json).unwrap_or(json)
}

fn compressed(json: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(json)?;
    encoder.finish()
}

/// Decodes the verdicts on this number of events; none if the bytes are invalid.
pub(super) fn read_answer(bytes: &[u8], events: usize) -> Option<Vec<Verdict>> {
    let answer: Answer = match bytes {
        // As former releases have written it.
        [b'{', ..] => serde_json::from_slice(bytes).ok()?,
        _ => serde_json::from_reader(io::BufReader::new(ZlibDecoder::new(bytes).take(ANSWER_BYTES_MAX))).ok()?,
    };
    let mut verdicts = vec![Verdict::Accepted; events];
    for Other { position, kind, errors } in answer.others {
        *verdicts.get_mut(position)? = kind.verdict(errors);
    }
    (answer.events == events).then_some(verdicts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verdicts() -> impl Strategy<Value = Verdict> {
        let code = prop::sample::select(vec![
            RejectionCode::Invalid,
            RejectionCode::TooOld,
            RejectionCode::InFuture,
            RejectionCode::Schema,
            RejectionCode::UnknownType,
        ]);
        let errors = prop::collection::vec(("\\PC{0,9}", "\\PC{0,9}"), 0..3);
        let rejected = (code, errors).prop_map(|(code, errors)| {
            let errors = errors.into_iter().map(|(field, message)| FieldError { field, message }).collect();
            Verdict::Rejected(Rejection { code, errors })
        });
        prop_oneof![
            Just(Verdict::Accepted),
            Just(Verdict::Duplicate),
            Just(Verdict::Conflict),
            Just(Verdict::Undecided),
            rejected
        ]
    }

    proptest! {
        #[test]
        fn what_was_kept_is_read_again(verdicts in prop::collection::vec(verdicts(), 0..20), at in any::<u64>(), print in any::<[u8; 32]>()) {
            let answer = write_answer(&verdicts);
            let written = Record { at, print, answer: &answer }.write();
            let read = Record::read(&written).expect("a record");
            prop_assert_eq!((read.at, read.print), (at, print));
            prop_assert_eq!(read_answer(read.answer, verdicts.len()), Some(verdicts));
        }

        #[test]
        fn an_answer_of_a_former_release_is_read(verdicts in prop::collection::vec(verdicts(), 0..20)) {
            let mut json = String::new();
            ZlibDecoder::new(&*write_answer(&verdicts)).read_to_string(&mut json).expect("zlib");
            prop_assert_eq!(read_answer(json.as_bytes(), verdicts.len()), Some(verdicts));
        }

        #[test]
        fn bytes_of_a_stranger_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Record::read(&bytes);
            let _ = read_answer(&bytes, 3);
        }
    }

    #[test]
    fn ten_thousand_rejected_events_take_little_room() {
        let errors = ["event_id", "type", "occurred_at"].map(|field| FieldError::new(field, "is required"));
        let rejected = Verdict::Rejected(Rejection { code: RejectionCode::Invalid, errors: errors.to_vec() });
        let answer = write_answer(&vec![rejected; 10_000]);
        assert!(answer.len() < 50_000, "{} bytes", answer.len());
    }
}
