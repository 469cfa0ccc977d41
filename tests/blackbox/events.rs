//! Events for tests.

use std::time::{SystemTime, UNIX_EPOCH};

use tallyhouse::transport::proto;

/// Now, in milliseconds since 1970.
pub(crate) fn now_millis() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A time as the protocol has it.
pub(crate) fn timestamp(millis: i64) -> prost_types::Timestamp {
    let nanos = i32::try_from(millis.rem_euclid(1_000)).unwrap() * 1_000_000;
    prost_types::Timestamp { seconds: millis.div_euclid(1_000), nanos }
}

/// A window as the protocol has it.
pub(crate) fn window(from_millis: i64, to_millis: i64) -> Option<proto::Window> {
    Some(proto::Window { from: Some(timestamp(from_millis)), to: Some(timestamp(to_millis)) })
}

/// A valid click that counts in every rollup.
pub(crate) fn click(event_id: &str, millis: i64) -> proto::Event {
    proto::Event {
        event_id: event_id.to_owned(),
        r#type: "click".to_owned(),
        campaign_id: "camp_1".to_owned(),
        creative_id: "creative_1".to_owned(),
        source: "test".to_owned(),
        user_id: "user_1".to_owned(),
        occurred_at: Some(timestamp(millis)),
        seq: 0,
        properties: String::new(),
    }
}

/// So many clicks of different users and ids, a millisecond apart, the last
/// one at `millis`.
pub(crate) fn clicks(prefix: &str, count: usize, millis: i64) -> Vec<proto::Event> {
    (0..count)
        .map(|n| {
            let back = i64::try_from(count - 1 - n).unwrap();
            let mut event = click(&format!("{prefix}-{n}"), millis - back);
            event.user_id = format!("user_{}", n % 97);
            event.campaign_id = format!("camp_{}", n % 7);
            event
        })
        .collect()
}
