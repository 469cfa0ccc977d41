//! The events of the benchmark: what an ad server sends. UUIDv7 ids, a
//! thousand campaigns, half a million users, one click on thirty impressions.

use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use uuid::{ContextV7, Timestamp as UuidTime, Uuid};

use tallyhouse::domain::{Event, EventDraft, EventLimits, MILLIS_PER_DAY, OrgId, Timestamp};
use tallyhouse::event_row;
use tallyhouse::transport::proto;

const CAMPAIGNS: u32 = 1_000;
const USERS: u32 = 500_000;
const CREATIVES: u32 = 200;
const SOURCES: [&str; 4] = ["web", "ios", "android", "exchange"];
/// One event in so many is a click.
const CLICK_ONE_IN: u32 = 30;

/// Makes events, the same ones for the same seed but for their times and ids.
pub(crate) struct Generator {
    random: StdRng,
    context: ContextV7,
}

impl Generator {
    /// Begins a sequence.
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), context: ContextV7::new() }
    }

    /// One event that occurred up to `spread` before `now`.
    pub(crate) fn event(&mut self, now: SystemTime, spread: Duration) -> proto::Event {
        let at = now - spread.mul_f64(self.random.random_range(0.0..1.0));
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let uuid_time = UuidTime::from_unix(&self.context, since.as_secs(), since.subsec_nanos());
        let is_click = self.random.random_range(0..CLICK_ONE_IN) == 0;
        // The square crowds the campaigns towards the first ones.
        let crowd: f64 = self.random.random_range(0.0..1.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below CAMPAIGNS")]
        let campaign = (crowd * crowd * f64::from(CAMPAIGNS)) as u32;
        proto::Event {
            event_id: Uuid::new_v7(uuid_time).to_string(),
            r#type: if is_click { "click" } else { "impression" }.to_owned(),
            campaign_id: format!("campaign_{campaign}"),
            creative_id: format!("creative_{}", self.random.random_range(0..CREATIVES)),
            source: SOURCES[self.random.random_range(0..SOURCES.len())].to_owned(),
            user_id: format!("user_{}", self.random.random_range(0..USERS)),
            occurred_at: Some(prost_types::Timestamp {
                seconds: i64::try_from(since.as_secs()).unwrap_or_default(),
                nanos: i32::try_from(since.subsec_millis()).unwrap_or_default() * 1_000_000,
            }),
            seq: 0,
            properties: String::new(),
        }
    }

    /// Puts events in any order.
    pub(crate) fn shuffle(&mut self, events: &mut [proto::Event]) {
        for at in (1..events.len()).rev() {
            events.swap(at, self.random.random_range(0..=at));
        }
    }

    /// Batches of `batch` events, `duplicates` of each hundred of which repeat
    /// an earlier one of the same batch or the one before.
    pub(crate) fn batches(
        &mut self,
        events: usize,
        batch: usize,
        duplicates: u32,
        now: SystemTime,
    ) -> Vec<Vec<proto::Event>> {
        let mut sent: Vec<proto::Event> = Vec::with_capacity(events);
        for _ in 0..events {
            let repeats = !sent.is_empty() && self.random.random_range(0..100) < duplicates;
            let event = if repeats {
                let back = self.random.random_range(1..=sent.len().min(2 * batch));
                sent[sent.len() - back].clone()
            } else {
                self.event(now, Duration::from_secs(5))
            };
            sent.push(event);
        }
        in_batches(sent, batch)
    }
}

/// Cuts events into batches.
pub(crate) fn in_batches(events: Vec<proto::Event>, batch: usize) -> Vec<Vec<proto::Event>> {
    let mut events = events.into_iter();
    std::iter::from_fn(|| {
        let next: Vec<_> = events.by_ref().take(batch).collect();
        (!next.is_empty()).then_some(next)
    })
    .collect()
}

/// The rows of these events as the service would insert them, each id once,
/// cut into blocks.
pub(crate) fn blocks<'a>(events: impl IntoIterator<Item = &'a proto::Event>, rows: usize) -> Vec<Vec<u8>> {
    let org = OrgId::default_org();
    let mut seen = std::collections::HashSet::new();
    let mut blocks = Vec::new();
    let mut block = Vec::new();
    let mut in_block = 0;
    for (arrival, event) in (1..).zip(events.into_iter().filter(|event| seen.insert(event.event_id.as_str()))) {
        encode(&org, event, arrival, &mut block);
        in_block += 1;
        if in_block == rows {
            blocks.push(std::mem::take(&mut block));
            in_block = 0;
        }
    }
    if !block.is_empty() {
        blocks.push(block);
    }
    blocks
}

fn encode(org: &OrgId, event: &proto::Event, arrival: u64, block: &mut Vec<u8>) {
    const LIMITS: EventLimits = EventLimits {
        event_id_bytes_max: 128,
        type_bytes_max: 64,
        text_bytes_max: 256,
        properties_bytes_max: 1 << 10,
        retention_millis: 36_500 * MILLIS_PER_DAY,
        future_millis_max: MILLIS_PER_DAY,
    };
    let millis = event.occurred_at.map_or(0, |at| at.seconds * 1_000 + i64::from(at.nanos / 1_000_000));
    let draft = EventDraft {
        event_id: &event.event_id,
        event_type: &event.r#type,
        campaign_id: &event.campaign_id,
        creative_id: &event.creative_id,
        source: &event.source,
        user_id: &event.user_id,
        occurred_at: Some(Timestamp::from_millis(millis)),
        ..EventDraft::default()
    };
    if let Ok(event) = Event::parse(org, draft, &LIMITS, Timestamp::from_millis(millis)) {
        event_row::encode(&event, arrival, block);
    }
}
