//! Subscriptions as they are asked for.

use serde::Deserialize;
use serde_json::value::RawValue;
use tallyhouse_delivery::domain::{EventFilter, LetterNumber, Order};
use utoipa::ToSchema;

use crate::deliveries::subscriptions::{HandlerSpec, Letters, Start, SubscriptionDraft};
use crate::domain::{Error, nothing_wrong};
use crate::transport::rest::fields::{self, FieldErrors, Text};
use crate::transport::rfc3339;

/// A subscription, as it is asked for. What is missing gets its default in a new one, and stays as it is in one that is
/// changed.
#[derive(Deserialize, ToSchema)]
pub(in crate::transport::rest) struct SubscriptionFields<'a> {
    /// Its name: 1 to 64 letters, digits, `_`, `-` and `.`, beginning with a letter or a digit. Required for a new
    /// subscription; it cannot be changed.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64, example = "orders")]
    name: Text<'a>,
    /// Where a new subscription begins: `now` (the default), `earliest`, or a time. It cannot be changed. `now` is after it
    /// was created; `earliest` and times begin with events that are stored, unless they have passed the retention period.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "now")]
    start: Text<'a>,
    /// Who handles the events. Required for a new subscription.
    #[serde(borrow, default)]
    #[schema(value_type = Option<NewHandler>)]
    handler: Option<&'a RawValue>,
    /// Which events. Replaces the whole filter. Default: all.
    #[serde(borrow, default)]
    #[schema(value_type = Option<NewFilter>)]
    filter: Option<&'a RawValue>,
    /// In which order the events of a user are delivered: `per_user`, by seq from 1 on (the default), or `arrival`.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "per_user")]
    order: Text<'a>,
    /// Attempts before an event becomes a dead letter, 1 to 100. Default: 3.
    #[serde(borrow, default)]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100, example = 3)]
    attempts_max: Option<&'a RawValue>,
    /// The wait after the first attempt, in milliseconds; each further one is twice as long. Default: 200.
    #[serde(borrow, default)]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 86_400_000, example = 200)]
    backoff_ms_min: Option<&'a RawValue>,
    /// The longest wait, in milliseconds. Default: 30,000.
    #[serde(borrow, default)]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 86_400_000, example = 30_000)]
    backoff_ms_max: Option<&'a RawValue>,
    /// The longest time of an attempt, in milliseconds. Default: 30,000.
    #[serde(borrow, default)]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 600_000, example = 30_000)]
    timeout_ms: Option<&'a RawValue>,
    /// How long the events of a user wait for a missing seq, in milliseconds; 0, the default: without limit.
    #[serde(borrow, default)]
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 86_400_000, example = 60_000)]
    skip_gaps_after_ms: Option<&'a RawValue>,
    /// The number of users whose events are handled at a time, 1 to 1,000. Default: 16.
    #[serde(borrow, default)]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000, example = 16)]
    concurrency: Option<&'a RawValue>,
}

/// Who handles events.
#[derive(Default, Deserialize, ToSchema)]
pub(in crate::transport::rest) struct NewHandler<'a> {
    /// `webhook`; `pull`, for consumers that call the gRPC method `Consume`; or `trial`, which fails events whose
    /// properties have `"fail": true`.
    #[serde(borrow, default, rename = "type")]
    #[schema(value_type = String, required, example = "webhook")]
    kind: Text<'a>,
    /// The receiver of webhooks.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "https://app.example/hooks/tallyhouse")]
    url: Text<'a>,
    /// Up to 5 secrets, each `whsec_` and the base64 of 24 to 64 bytes: every webhook is signed with all of them. Without
    /// any, the service makes one for a new webhook, and those of another stay.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Vec<String>>)]
    secrets: Option<&'a RawValue>,
}

/// Which events are delivered. An empty list lets all through.
#[derive(Default, Deserialize, ToSchema)]
pub(in crate::transport::rest) struct NewFilter<'a> {
    /// Only events of these types, at most 100.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Vec<String>>, example = json!(["purchase"]))]
    types: Option<&'a RawValue>,
    /// Only events of these campaigns, at most 100.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Vec<String>>, example = json!([]))]
    campaign_ids: Option<&'a RawValue>,
    /// Only events from these sources, at most 100.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Vec<String>>, example = json!([]))]
    sources: Option<&'a RawValue>,
}

/// Which dead letters: these, or all.
#[derive(Deserialize, ToSchema)]
pub(in crate::transport::rest) struct LetterSelection<'a> {
    /// 1 to 1,000 numbers. Those of no dead letter are ignored.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Vec<u64>>, example = json!([1, 2]))]
    numbers: Option<&'a RawValue>,
    /// All that there are.
    #[serde(borrow, default)]
    #[schema(value_type = Option<bool>, example = false)]
    all: Option<&'a RawValue>,
}

impl SubscriptionFields<'_> {
    /// A new subscription: the name, where it begins, and the rest.
    ///
    /// # Errors
    /// Every field that has the wrong form.
    pub(super) fn read_new(&self) -> Result<(String, Start, SubscriptionDraft), Error> {
        let mut faults = FieldErrors::default();
        let name = faults.optional("name", &self.name).to_owned();
        let start = start(&mut faults, &self.start);
        let draft = self.draft(&mut faults);
        nothing_wrong(faults.0)?;
        Ok((name, start, draft))
    }

    /// What is to be changed.
    ///
    /// # Errors
    /// Every field that has the wrong form or cannot be changed.
    pub(super) fn read_change(&self) -> Result<SubscriptionDraft, Error> {
        let mut faults = FieldErrors::default();
        for (field, text) in [("name", &self.name), ("start", &self.start)] {
            if *text != Text::Absent {
                faults.add(field, "cannot be changed");
            }
        }
        let draft = self.draft(&mut faults);
        nothing_wrong(faults.0)?;
        Ok(draft)
    }

    fn draft(&self, faults: &mut FieldErrors) -> SubscriptionDraft {
        let number =
            |faults: &mut FieldErrors, field: &str, value: Option<&RawValue>| Some(faults.number(field, Some(value?)));
        // What does not fit is too large for any of them.
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        SubscriptionDraft {
            handler: self.handler.and_then(|raw| handler(faults, raw)),
            filter: self.filter.and_then(|raw| filter(faults, raw)),
            order: order(faults, &self.order),
            attempts_max: number(faults, "attempts_max", self.attempts_max).map(small),
            backoff_ms_min: number(faults, "backoff_ms_min", self.backoff_ms_min),
            backoff_ms_max: number(faults, "backoff_ms_max", self.backoff_ms_max),
            timeout_ms: number(faults, "timeout_ms", self.timeout_ms),
            skip_gaps_after_ms: number(faults, "skip_gaps_after_ms", self.skip_gaps_after_ms),
            concurrency: number(faults, "concurrency", self.concurrency).map(small),
            is_paused: None,
        }
    }
}

fn start(faults: &mut FieldErrors, text: &Text<'_>) -> Start {
    match faults.optional("start", text) {
        "earliest" => Start::Earliest,
        "now" => Start::Now,
        "" if matches!(text, Text::Absent | Text::Wrong) => Start::Now,
        time => rfc3339::parse(time).map_or_else(
            || {
                faults.add("start", "must be 'now', 'earliest' or an RFC 3339 time");
                Start::Now
            },
            |time| Start::Time(time.millis()),
        ),
    }
}

fn order(faults: &mut FieldErrors, text: &Text<'_>) -> Option<Order> {
    match (text, faults.optional("order", text)) {
        (Text::Absent | Text::Wrong, _) => None,
        (_, "per_user") => Some(Order::PerUser),
        (_, "arrival") => Some(Order::Arrival),
        _ => {
            faults.add("order", "must be 'per_user' or 'arrival'");
            None
        }
    }
}

fn handler(faults: &mut FieldErrors, raw: &RawValue) -> Option<HandlerSpec> {
    let Ok(NewHandler { kind, url, secrets }) = fields::read_object(raw.get().as_bytes()) else {
        faults.add("handler", "must be an object with 'type'");
        return None;
    };
    let url = faults.optional("handler.url", &url).to_owned();
    let secrets = strings(faults, "handler.secrets", secrets);
    match faults.optional("handler.type", &kind) {
        "pull" => Some(HandlerSpec::Pull),
        "trial" => Some(HandlerSpec::Trial),
        "webhook" => Some(HandlerSpec::Webhook { url, secrets }),
        _ if matches!(kind, Text::Wrong) => None,
        _ => {
            faults.add("handler.type", "must be 'webhook', 'pull' or 'trial'");
            None
        }
    }
}

fn filter(faults: &mut FieldErrors, raw: &RawValue) -> Option<EventFilter> {
    let Ok(NewFilter { types, campaign_ids, sources }) = fields::read_object(raw.get().as_bytes()) else {
        faults.add("filter", "must be an object");
        return None;
    };
    Some(EventFilter {
        types: strings(faults, "filter.types", types),
        campaign_ids: strings(faults, "filter.campaign_ids", campaign_ids),
        sources: strings(faults, "filter.sources", sources),
    })
}

fn strings(faults: &mut FieldErrors, field: &str, raw: Option<&RawValue>) -> Vec<String> {
    let read = raw.map_or(Ok(Vec::new()), |raw| serde_json::from_str(raw.get()));
    read.unwrap_or_else(|_| {
        faults.add(field, "must be a list of strings");
        Vec::new()
    })
}

impl LetterSelection<'_> {
    /// Which dead letters are meant.
    ///
    /// # Errors
    /// Every field that has the wrong form.
    pub(super) fn read(&self) -> Result<Letters, Error> {
        let mut faults = FieldErrors::default();
        let all: Option<bool> = self.all.map_or(Ok(false), |raw| serde_json::from_str(raw.get())).ok();
        let numbers: Option<Vec<LetterNumber>> =
            self.numbers.map_or(Ok(Vec::new()), |raw| serde_json::from_str(raw.get())).ok();
        if all.is_none() {
            faults.add("all", "must be true or false");
        }
        if numbers.is_none() {
            faults.add("numbers", "must be a list of whole numbers");
        }
        nothing_wrong(faults.0)?;
        Letters::of(numbers.unwrap_or_default(), all.unwrap_or_default())
    }
}
