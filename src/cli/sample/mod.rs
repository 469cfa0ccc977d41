//! Generates realistic sample ad events, the same for the same seed and time.
//!
//! Twenty campaigns with daily curves, users with a long tail, clicks that follow impressions, and
//! typical faults of producers: duplicates, conflicts, events that are days late, and invalid events.
//! Each item has the verdict that is expected when the sample is sent once to a service that has none of
//! it. Used by `demo`, tests and benchmarks.

mod curve;
mod producer;

use std::collections::VecDeque;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};

use self::curve::Curve;
use self::producer::Producer;
use super::send::ndjson;
use super::time_args;
use crate::domain::{MILLIS_PER_DAY, MILLIS_PER_HOUR, Timestamp};
use crate::transport::proto;

/// How many of the newest events may be repeated or contradicted.
const REPEATABLE_EVENTS: usize = 4_096;
/// How late the latest events come.
const LATE_DAYS_MAX: i64 = 6;

/// Of so many items, the kinds make up these shares.
const SHARES_OF: u32 = 10_000;
const DUPLICATE_SHARE: u32 = 300;
const CONFLICT_SHARE: u32 = 20;
const LATE_SHARE: u32 = 50;
const BAD_SHARE: u32 = 30;

/// One thing a producer sends.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// What is sent.
    pub content: Content,
    /// The verdict on it.
    pub expected: Expected,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Something of an event's shape.
    Event(Box<proto::Event>),
    /// A line that cannot be put into the protocol.
    Line(String),
}

/// The verdict an item meets when everything before it was sent once, and
/// nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Accepted.
    Accepted,
    /// Duplicate.
    Duplicate,
    /// Conflict.
    Conflict,
    /// Rejected, by the service or by `send`.
    Rejected,
}

impl Item {
    /// The item as a line of NDJSON, without a line end.
    pub fn line(&self) -> String {
        match &self.content {
            Content::Event(event) => ndjson::write(event, None),
            Content::Line(line) => line.clone(),
        }
    }
}

/// An iterator over the items of a sample, roughly in order of time.
pub struct Sample {
    random: Xoshiro256PlusPlus,
    now: Timestamp,
    items: u64,
    made: u64,
    curve: Curve,
    producer: Producer,
    /// The newest accepted events, newest last.
    recent: VecDeque<proto::Event>,
}

impl Sample {
    /// `items` items over the 24 hours up to `now`.
    pub fn new(seed: u64, now: Timestamp, items: u64) -> Self {
        Self {
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            now,
            items,
            made: 0,
            curve: Curve::new(now),
            producer: Producer::new(),
            recent: VecDeque::new(),
        }
    }

    /// The campaigns' ids.
    pub fn campaign_ids() -> impl Iterator<Item = &'static str> {
        curve::CAMPAIGNS.iter().map(|campaign| campaign.id)
    }

    /// The window that holds every valid event of a sample.
    pub fn window(now: Timestamp) -> (Timestamp, Timestamp) {
        (now.plus_millis(-(LATE_DAYS_MAX + 2) * MILLIS_PER_DAY), now.plus_millis(1))
    }

    /// A new event at the place of the next item in the day.
    fn fresh(&mut self) -> Item {
        let place = (self.made as f64 + self.random.random::<f64>()) / self.items.max(1) as f64;
        let (moment, campaign) = self.curve.at(place, self.random.random());
        let event = self.producer.event(&mut self.random, campaign, moment, self.now);
        self.accepted(event)
    }

    /// A new event that happened days ago.
    fn late(&mut self) -> Item {
        let (_, campaign) = self.curve.at(self.random.random(), self.random.random());
        let age = self.random.random_range(MILLIS_PER_DAY + MILLIS_PER_HOUR..LATE_DAYS_MAX * MILLIS_PER_DAY);
        let moment = self.now.plus_millis(-age);
        let event = self.producer.event(&mut self.random, campaign, moment, moment);
        // It is too late to give it a place in its user's order.
        self.accepted(proto::Event { seq: 0, ..event })
    }

    fn accepted(&mut self, event: proto::Event) -> Item {
        if self.recent.len() == REPEATABLE_EVENTS {
            self.recent.pop_front();
        }
        self.recent.push_back(event.clone());
        Item { content: Content::Event(Box::new(event)), expected: Expected::Accepted }
    }

    /// An event that was sent before; most often just before, as retries are.
    fn repeated(&mut self) -> Option<proto::Event> {
        let reach = self.recent.len().checked_ilog2()?;
        let reach = 1_usize << self.random.random_range(0..=reach);
        let back = self.random.random_range(1..=reach);
        self.recent.get(self.recent.len() - back).cloned()
    }

    fn duplicate(&mut self) -> Option<Item> {
        let event = self.repeated()?;
        Some(Item { content: Content::Event(Box::new(event)), expected: Expected::Duplicate })
    }

    /// The id of an event that was sent before, with another payload.
    fn conflict(&mut self) -> Option<Item> {
        let mut event = self.repeated()?;
        event.creative_id.push_str("-edited");
        Some(Item { content: Content::Event(Box::new(event)), expected: Expected::Conflict })
    }

    /// Something that is no event.
    fn bad(&mut self) -> Item {
        let (moment, campaign) = self.curve.at(self.random.random(), self.random.random());
        let mut event = self.producer.event(&mut self.random, campaign, moment, self.now);
        event.seq = 0;
        let content = match self.random.random_range(0..7_u8) {
            0 => {
                let line = ndjson::write(&event, None);
                Content::Line(line.chars().take(line.len() / 2).collect())
            }
            1 => Content::Line(with_field(&event, "occurred_at", "yesterday at noon".into())),
            2 => Content::Line(with_field(&event, "user_id", 4_711.into())),
            kind => {
                match kind {
                    3 => event.event_id.clear(),
                    4 => event.r#type.clear(),
                    5 => event.occurred_at = None,
                    _ => event.occurred_at = Some(time_args::to_proto(self.now.plus_millis(2 * MILLIS_PER_DAY))),
                }
                Content::Event(Box::new(event))
            }
        };
        Item { content, expected: Expected::Rejected }
    }
}

/// An event's line with one field replaced.
fn with_field(event: &proto::Event, field: &str, value: serde_json::Value) -> String {
    let line = ndjson::write(event, None);
    let mut line = crate::json::parse(&line).unwrap_or_default();
    line[field] = value;
    line.to_string()
}

impl Iterator for Sample {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        if self.made == self.items {
            return None;
        }
        let item = match self.random.random_range(0..SHARES_OF) {
            lot if lot < BAD_SHARE => Some(self.bad()),
            lot if lot < BAD_SHARE + LATE_SHARE => Some(self.late()),
            lot if lot < BAD_SHARE + LATE_SHARE + CONFLICT_SHARE => self.conflict(),
            lot if lot < BAD_SHARE + LATE_SHARE + CONFLICT_SHARE + DUPLICATE_SHARE => self.duplicate(),
            _ => None,
        };
        // Nothing can be repeated before there is something.
        let item = item.unwrap_or_else(|| self.fresh());
        self.made += 1;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.items - self.made);
        (left.unwrap_or(usize::MAX), left.ok())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::domain::{Event, EventDraft, OrgId};

    const NOW: Timestamp = Timestamp::from_millis(1_770_757_653_120);

    fn sample(items: u64) -> Vec<Item> {
        Sample::new(7, NOW, items).collect()
    }

    #[test]
    fn the_same_seed_and_time_make_the_same_sample() {
        assert_eq!(sample(3_000), sample(3_000));
        assert_ne!(sample(10), Sample::new(8, NOW, 10).collect::<Vec<_>>());
        assert_eq!(sample(0), []);
    }

    /// What a service makes of a line, with a map for its memory.
    fn verdict(line: &str, seen: &mut HashMap<String, proto::Event>) -> Expected {
        let Ok(event) = ndjson::parse(line.as_bytes()) else { return Expected::Rejected };
        let draft = EventDraft {
            event_id: &event.event_id,
            event_type: &event.r#type,
            occurred_at: event.occurred_at.as_ref().map(time_args::from_proto),
            ..EventDraft::default()
        };
        let limits = crate::config::Config::default().event_limits();
        if Event::parse(&OrgId::default_org(), draft, &limits, NOW).is_err() {
            return Expected::Rejected;
        }
        match seen.get(&event.event_id) {
            Some(first) if *first == event => Expected::Duplicate,
            Some(_) => Expected::Conflict,
            None => {
                seen.insert(event.event_id.clone(), event);
                Expected::Accepted
            }
        }
    }

    #[test]
    fn every_item_meets_the_verdict_it_expects() {
        let mut seen = HashMap::new();
        let mut kinds: HashMap<String, u64> = HashMap::new();
        for item in sample(20_000) {
            let line = item.line();
            assert_eq!(verdict(&line, &mut seen), item.expected, "{line}");
            *kinds.entry(format!("{:?}", item.expected)).or_default() += 1;
        }
        let near = |kind: &str, share: u32| {
            let expected = f64::from(share) * 2.0;
            let got = kinds[kind] as f64;
            assert!((got - expected).abs() < expected / 3.0, "{kind}: {got}, expected about {expected}");
        };
        near("Duplicate", DUPLICATE_SHARE);
        near("Conflict", CONFLICT_SHARE);
        near("Rejected", BAD_SHARE);
    }

    #[test]
    fn it_looks_like_the_real_thing() {
        let (mut users, mut campaigns) = (HashMap::<String, u64>::new(), HashMap::<String, (u64, u64)>::new());
        let (from, to) = Sample::window(NOW);
        let mut days = HashSet::new();
        for item in sample(100_000) {
            let (Content::Event(event), Expected::Accepted) = (item.content, item.expected) else { continue };
            let at = time_args::from_proto(&event.occurred_at.unwrap());
            assert!(from <= at && at < to, "{at:?}");
            let id = uuid::Uuid::parse_str(&event.event_id).unwrap();
            let (seconds, nanos) = id.get_timestamp().unwrap().to_unix();
            assert_eq!(i64::try_from(seconds).unwrap() * 1_000 + i64::from(nanos) / 1_000_000, at.millis());
            days.insert(at.millis() / MILLIS_PER_DAY);
            *users.entry(event.user_id).or_default() += 1;
            let campaign = campaigns.entry(event.campaign_id).or_default();
            *(if event.r#type == "click" { &mut campaign.1 } else { &mut campaign.0 }) += 1;
        }
        assert_eq!(campaigns.len(), Sample::campaign_ids().count());
        for (id, (impressions, clicks)) in &campaigns {
            let rate = *clicks as f64 / *impressions as f64;
            assert!((0.002..0.055).contains(&rate), "{id}: {clicks} of {impressions}");
        }
        assert!(days.len() >= 6, "some events come days late");
        let busiest = users.values().max().unwrap();
        assert!(users.len() > 10_000 && *busiest > 500, "{} users, the busiest with {busiest}", users.len());
    }
}
