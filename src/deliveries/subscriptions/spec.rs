//! What a subscription is asked to be: checked, completed with defaults, and kept.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use tallyhouse_delivery::domain::{Backoff, EventFilter, GapPolicy, InvalidSubscription, Order, SubscriptionSettings};
use tallyhouse_delivery::store::SubscriptionRecord;

use crate::deliveries::log_source::MICROS;
use crate::domain::{Error, FieldError, Timestamp};
use crate::trace::SpanKind;

/// Most bytes of a name.
const NAME_BYTES_MAX: usize = 64;
/// What a name must be.
const NAME_EXPECTED: &str =
    "must be 1 to 64 letters, digits, '_', '-' or '.', beginning with a letter or a digit (a-z, A-Z, 0-9)";
/// Longest wait for a missing seq that can be set, in milliseconds.
const SKIP_GAPS_AFTER_MS_MAX: u64 = 86_400_000;
/// Random bytes of a secret that the service makes.
const SECRET_BYTES: usize = 32;

/// Who handles the events of a subscription.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HandlerSpec {
    /// Consumers that connect and pull.
    Pull,
    /// Webhooks.
    Webhook {
        /// The receiver.
        url: String,
        /// The secrets that requests are signed with. Empty in a request: the service makes one, or those of before stay.
        #[serde(default)]
        secrets: Vec<String>,
    },
    /// A handler for trials.
    Trial,
}

impl HandlerSpec {
    /// The names of all kinds.
    pub const KINDS: [&str; 3] = ["pull", "webhook", "trial"];

    /// The name of the kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Webhook { .. } => "webhook",
            Self::Trial => "trial",
        }
    }

    /// How spans of its deliveries are related to what handles them.
    pub(super) const fn span_kind(&self) -> SpanKind {
        match self {
            Self::Pull => SpanKind::Producer,
            Self::Webhook { .. } => SpanKind::Client,
            Self::Trial => SpanKind::Internal,
        }
    }

    /// With the secrets that it lacks: those of `old`, or a new one, which is returned too.
    pub(super) fn with_secrets(self, old: Option<&Self>) -> (Self, Option<String>) {
        match (self, old) {
            (Self::Webhook { url, secrets }, Some(Self::Webhook { secrets: former, .. })) if secrets.is_empty() => {
                (Self::Webhook { url, secrets: former.clone() }, None)
            }
            (Self::Webhook { url, secrets }, _) if secrets.is_empty() => {
                let secret = format!("whsec_{}", BASE64_STANDARD.encode(rand::random::<[u8; SECRET_BYTES]>()));
                (Self::Webhook { url, secrets: vec![secret.clone()] }, Some(secret))
            }
            (spec, _) => (spec, None),
        }
    }
}

/// Without secrets.
impl fmt::Debug for HandlerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With the events that are accepted after it was created.
    #[default]
    Now,
    /// With the first event that is stored.
    Earliest,
    /// With the first event that was accepted at this time or later, in milliseconds since 1970.
    Time(i64),
}

impl Start {
    /// Events that arrived before are not delivered, in microseconds since 1970.
    pub(super) fn arrived_from(self) -> u64 {
        match self {
            Self::Now | Self::Earliest => 0,
            Self::Time(millis) => u64::try_from(millis).unwrap_or_default().saturating_mul(MICROS),
        }
    }
}

/// A subscription as it is asked for. What is none gets its default, or stays as it is.
#[derive(Clone, Debug, Default)]
pub struct SubscriptionDraft {
    /// Who handles events. Required for a new subscription.
    pub handler: Option<HandlerSpec>,
    /// Which events.
    pub filter: Option<EventFilter>,
    /// In which order.
    pub order: Option<Order>,
    /// See [`SubscriptionSettings::attempts_max`].
    pub attempts_max: Option<u32>,
    /// See [`Backoff::ms_min`].
    pub backoff_ms_min: Option<u64>,
    /// See [`Backoff::ms_max`].
    pub backoff_ms_max: Option<u64>,
    /// See [`SubscriptionSettings::timeout_ms`].
    pub timeout_ms: Option<u64>,
    /// How long missing seqs are waited for, in milliseconds; 0: without limit.
    pub skip_gaps_after_ms: Option<u64>,
    /// See [`SubscriptionSettings::concurrency`].
    pub concurrency: Option<u32>,
    /// Whether it is paused.
    pub is_paused: Option<bool>,
}

impl SubscriptionDraft {
    /// The settings that replace these. Adds every field that is wrong to `faults`.
    pub(super) fn settings(&self, old: SubscriptionSettings, faults: &mut Vec<FieldError>) -> SubscriptionSettings {
        let Backoff { ms_min, ms_max } = old.backoff;
        let gap_policy = match self.skip_gaps_after_ms {
            None => old.gap_policy,
            Some(0) => GapPolicy::Wait,
            Some(wait) => GapPolicy::SkipAfterMs(wait),
        };
        let concurrency = self.concurrency.map(|users| usize::try_from(users).unwrap_or(usize::MAX));
        let settings = SubscriptionSettings {
            filter: self.filter.clone().unwrap_or(old.filter),
            order: self.order.unwrap_or(old.order),
            attempts_max: self.attempts_max.unwrap_or(old.attempts_max),
            backoff: Backoff {
                ms_min: self.backoff_ms_min.unwrap_or(ms_min),
                ms_max: self.backoff_ms_max.unwrap_or(ms_max),
            },
            timeout_ms: self.timeout_ms.unwrap_or(old.timeout_ms),
            gap_policy,
            concurrency: concurrency.unwrap_or(old.concurrency),
            is_paused: self.is_paused.unwrap_or(old.is_paused),
        };
        let wrong = settings.check().err().unwrap_or_default().into_iter();
        faults.extend(wrong.map(|InvalidSubscription { field, expected }| FieldError::new(field, expected)));
        if matches!(settings.gap_policy, GapPolicy::SkipAfterMs(wait) if wait > SKIP_GAPS_AFTER_MS_MAX) {
            faults.push(FieldError::new("skip_gaps_after_ms", "must be at most 86,400,000"));
        }
        settings
    }
}

/// Adds the name to `faults` if it is none.
pub(super) fn check_name(name: &str, faults: &mut Vec<FieldError>) {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let begins = name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if !begins || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_good) {
        faults.push(FieldError::new("name", NAME_EXPECTED));
    }
}

/// What is kept of a subscription beside its settings, as the record's `handler`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredSpec {
    pub(super) handler: HandlerSpec,
    pub(super) start: Start,
}

impl StoredSpec {
    pub(super) fn read(record: &SubscriptionRecord) -> Result<Self, Error> {
        serde_json::from_str(&record.handler).map_err(|error| {
            tracing::error!(%error, subscription = record.name, "the record of a subscription cannot be read");
            Error::internal()
        })
    }

    pub(super) fn write(&self) -> Result<String, Error> {
        serde_json::to_string(self).map_err(|_| Error::internal())
    }
}

/// A subscription as its organization sees it.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Its name.
    pub name: String,
    /// Where it began.
    pub start: Start,
    /// Who handles its events.
    pub handler: HandlerSpec,
    /// How they are handed out.
    pub settings: SubscriptionSettings,
    /// When it was created.
    pub created_at: Timestamp,
}

impl Subscription {
    /// How long missing seqs are waited for, in milliseconds; 0: without limit.
    pub const fn skip_gaps_after_ms(&self) -> u64 {
        match self.settings.gap_policy {
            GapPolicy::Wait => 0,
            GapPolicy::SkipAfterMs(wait) => wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_of_a_path() {
        let check = |name: &str, is_good: bool| {
            let mut faults = Vec::new();
            check_name(name, &mut faults);
            assert_eq!(faults.is_empty(), is_good, "{name:?}");
        };
        for good in ["a", "Orders-1.2_x", "0", &"x".repeat(64)] {
            check(good, true);
        }
        for wrong in ["", ".", "..", "-a", "a b", "a/b", "é", &"x".repeat(65)] {
            check(wrong, false);
        }
    }

    #[test]
    fn what_is_left_out_stays_and_what_is_wrong_is_named() {
        let old = SubscriptionSettings { attempts_max: 7, is_paused: true, ..SubscriptionSettings::default() };
        let mut faults = Vec::new();
        let draft = SubscriptionDraft { timeout_ms: Some(5), skip_gaps_after_ms: Some(9), ..Default::default() };
        let settings = draft.settings(old.clone(), &mut faults);
        let expected = SubscriptionSettings { timeout_ms: 5, gap_policy: GapPolicy::SkipAfterMs(9), ..old.clone() };
        assert_eq!((settings, &faults), (expected, &Vec::new()));
        let wrong = SubscriptionDraft {
            attempts_max: Some(0),
            skip_gaps_after_ms: Some(86_400_001),
            concurrency: Some(u32::MAX),
            ..Default::default()
        };
        wrong.settings(old, &mut faults);
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["attempts_max", "concurrency", "skip_gaps_after_ms"]);
    }

    #[test]
    fn secrets_are_made_kept_and_never_printed() {
        let asked = || HandlerSpec::Webhook { url: "https://a.example/".to_owned(), secrets: Vec::new() };
        let (made, secret) = asked().with_secrets(None);
        let secret = secret.expect("a secret");
        assert!(
            secret.starts_with("whsec_")
                && matches!(&made, HandlerSpec::Webhook { secrets, .. } if *secrets == [secret.clone()])
        );
        assert_eq!(asked().with_secrets(Some(&made)), (made.clone(), None));
        assert_eq!(HandlerSpec::Pull.with_secrets(Some(&made)), (HandlerSpec::Pull, None));
        assert!(!format!("{made:?}").contains("whsec_"));
    }
}
