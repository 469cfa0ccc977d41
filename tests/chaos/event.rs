//! Events as the simulator knows them: what is sent, through any door.

use serde_json::json;
use tallyhouse::transport::proto;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What an event says happened: everything of it but its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) event_type: String,
    pub(crate) campaign_id: String,
    pub(crate) creative_id: String,
    pub(crate) source: String,
    pub(crate) user_id: String,
    /// Milliseconds since 1970; none in an event that lacks its time.
    pub(crate) occurred_at: Option<i64>,
    pub(crate) seq: u64,
    /// Canonical JSON, as the service keeps it.
    pub(crate) properties: String,
}

/// Why an event must be rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    Invalid,
    TooOld,
    InFuture,
}

/// One event as some producer sends it. Two drafts of one id with different
/// payloads contradict each other; the one that is taken first stays.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) id: String,
    pub(crate) payload: Payload,
    /// None: it is a valid event.
    pub(crate) flaw: Option<Flaw>,
}

impl Draft {
    /// REST has no `seq`, and wants some fields that gRPC does not.
    pub(crate) fn fits_rest(&self) -> bool {
        let Payload { event_type, campaign_id, source, seq, .. } = &self.payload;
        matches!(event_type.as_str(), "click" | "impression")
            && !campaign_id.is_empty()
            && !source.is_empty()
            && *seq == 0
    }

    /// As gRPC takes it.
    pub(crate) fn proto(&self) -> proto::Event {
        let Payload { event_type, campaign_id, creative_id, source, user_id, occurred_at, seq, properties } =
            self.payload.clone();
        let occurred_at = occurred_at.map(timestamp);
        proto::Event {
            event_id: self.id.clone(),
            r#type: event_type,
            campaign_id,
            creative_id,
            source,
            user_id,
            occurred_at,
            seq,
            properties,
        }
    }

    /// As REST takes it.
    pub(crate) fn json(&self) -> serde_json::Value {
        let Payload { event_type, campaign_id, creative_id, source, user_id, occurred_at, properties, .. } =
            &self.payload;
        let mut body = json!({
            "event_id": self.id, "type": event_type, "campaign_id": campaign_id, "creative_id": creative_id,
            "source": source, "user_id": user_id,
        });
        if let Some(millis) = occurred_at {
            body["occurred_at"] = rfc3339(*millis).into();
        }
        if !properties.is_empty() {
            body["metadata"] = serde_json::from_str(properties).unwrap_or(serde_json::Value::Null);
        }
        body
    }
}

/// A time as the protocol has it.
pub(crate) fn timestamp(millis: i64) -> prost_types::Timestamp {
    let nanos = (millis.rem_euclid(1_000) * 1_000_000) as i32;
    prost_types::Timestamp { seconds: millis.div_euclid(1_000), nanos }
}

/// A time as JSON has it.
pub(crate) fn rfc3339(millis: i64) -> String {
    moment(millis).format(&Rfc3339).unwrap()
}

/// A time as a calendar has it.
pub(crate) fn moment(millis: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).unwrap()
}
