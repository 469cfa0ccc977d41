//! What producers send: new events, the same ones again, contradictions, late
//! events and bad ones.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use time::{Date, Month};

use crate::event::{Draft, Flaw, Payload, moment};

/// Days for which events are kept.
pub(crate) const RETENTION_DAYS: i64 = 1_000;
/// Most events of a batch.
pub(crate) const BATCH_EVENTS_MAX: usize = 250;

const MINUTE: i64 = 60_000;
pub(crate) const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// All events are at least so old that no step of the service's clock makes
/// one of them come from the future.
pub(crate) const YOUNGEST: i64 = 6 * HOUR;

/// The way events are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// gRPC, a bidirectional stream.
    Stream,
    /// gRPC, one batch a call.
    Unary,
    /// REST, one event a call.
    Rest,
}

/// What one producer sends, in order.
pub(crate) struct Script {
    pub(crate) door: Door,
    pub(crate) batches: Vec<Batch>,
    /// The pause between two batches.
    pub(crate) pause: Duration,
    /// After so many batches it drops its connection without a word.
    pub(crate) cuts_after: Option<usize>,
}

impl Script {
    pub(crate) fn sends(&self) -> usize {
        self.batches.iter().map(|batch| batch.drafts.len()).sum()
    }
}

/// Events that are sent together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    /// Positions in the plan's drafts.
    pub(crate) drafts: Vec<usize>,
    /// The answer is to wait for ClickHouse.
    pub(crate) stored: bool,
    /// If no answer comes, the producer does not ask again.
    pub(crate) is_forgotten: bool,
}

/// Makes the events and who sends them when.
/// Late events are scattered over so many days, besides the few that they always lie around.
pub(crate) fn make(
    random: &mut StdRng,
    begins_at: i64,
    small_index: bool,
    scattered_days: i64,
) -> (Vec<Draft>, Vec<Script>) {
    let mut doors = vec![Door::Stream, Door::Unary, Door::Rest];
    doors.extend((0..random.random_range(0..=2)).map(|_| Door::Stream));
    let mut maker = Maker::new(random, begins_at, small_index, scattered_days);
    let mut own: Vec<Vec<usize>> = Vec::new();
    for (producer, door) in doors.iter().enumerate() {
        let events = match door {
            Door::Rest => maker.random.random_range(40..120),
            Door::Unary | Door::Stream => maker.random.random_range(200..900),
        };
        let new = (0..events).map(|n| maker.new_event(producer, n, n as f64 / f64::from(events), *door)).collect();
        own.push(new);
    }
    let sent: Vec<Vec<usize>> = (0..doors.len()).map(|producer| maker.with_company(&own, producer, &doors)).collect();
    let scripts = doors.iter().zip(sent).map(|(door, sent)| maker.script(*door, &sent)).collect();
    (maker.drafts, scripts)
}

struct Maker<'r> {
    random: &'r mut StdRng,
    drafts: Vec<Draft>,
    /// The stretch of time that events move through.
    from: i64,
    length: i64,
    /// Moments long past that late events lie around, and how many do.
    long_past: Vec<i64>,
    late: f64,
    repeats: f64,
}

impl<'r> Maker<'r> {
    fn new(random: &'r mut StdRng, begins_at: i64, small_index: bool, scattered_days: i64) -> Self {
        let length = if small_index { 90 } else { [1, 10, 90][random.random_range(0..3)] } * MINUTE;
        // Two ends of a month, one of them an end of a year, and any day: few,
        // since each day is a partition.
        let this = moment(begins_at);
        let months_back = |months: i32| {
            let months = this.year() * 12 + i32::from(u8::from(this.month())) - 1 - months;
            let month = Month::try_from((months.rem_euclid(12) + 1) as u8).unwrap();
            Date::from_calendar_date(months.div_euclid(12), month, 1).unwrap().midnight().assume_utc()
        };
        let year = Date::from_calendar_date(this.year(), Month::January, 1).unwrap().midnight().assume_utc();
        let boundary = months_back(random.random_range(0..12));
        let any_day = begins_at - random.random_range(2..400) * DAY;
        let long_past =
            vec![year.unix_timestamp() * 1_000, boundary.unix_timestamp() * 1_000, any_day - any_day % DAY + 9 * HOUR];
        // None may be younger than the youngest.
        let scattered = (1..=scattered_days).map(|n| begins_at - n * 7 * DAY);
        let long_past = long_past.into_iter().chain(scattered).filter(|at| *at < begins_at - YOUNGEST - HOUR).collect();
        let late = [0.0, 0.02, 0.15][random.random_range(0..3)];
        let late = if scattered_days > 0 { 0.3 } else { late };
        let repeats = [0.05, 0.2, 0.5][random.random_range(0..3)];
        let from = begins_at - YOUNGEST - 2 * MINUTE - length;
        Self { random, drafts: Vec::new(), from, length, long_past, late, repeats }
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability)
    }

    fn add(&mut self, draft: Draft) -> usize {
        self.drafts.push(draft);
        self.drafts.len() - 1
    }

    /// A valid event with an id of its own. `share` is how far its producer is.
    fn new_event(&mut self, producer: usize, n: u32, share: f64, door: Door) -> usize {
        let id = match self.random.random_range(0..4) {
            0 => format!("{:032x}", self.random.random::<u128>()),
            1 => format!("it's {producer}\\{n}?"),
            2 => format!("é-{producer}-{n}-{{x:String}}"),
            _ => format!("p{producer}-{n}"),
        };
        let occurred_at = if !self.long_past.is_empty() && self.random.random_bool(self.late) {
            let around = self.long_past[self.random.random_range(0..self.long_past.len())];
            around + self.random.random_range(-3..3) * if self.random.random_bool(0.5) { 1 } else { 20_000 }
        } else {
            self.from + (self.length as f64 * share) as i64 + self.random.random_range(0..MINUTE)
        };
        let campaign_id = format!("camp_{}", self.random.random_range(0..9));
        let mut payload = Payload {
            event_type: ["click", "impression"][self.random.random_range(0..2)].to_owned(),
            campaign_id,
            creative_id: ["", "creative_1"][self.random.random_range(0..2)].to_owned(),
            source: "chaos".to_owned(),
            user_id: format!("user_{}", self.random.random_range(0..40)),
            occurred_at: Some(occurred_at),
            seq: 0,
            properties: ["", r#"{"a":{"b":[1,2.50]},"c":"d'e"}"#][self.random.random_range(0..2)].to_owned(),
        };
        if door != Door::Rest && self.chance(0.3) {
            // What only gRPC takes: it counts in some rollups only.
            payload.event_type = "purchase".to_owned();
            payload.seq = u64::from(n);
            if self.chance(0.3) {
                payload.campaign_id.clear();
            }
            if self.chance(0.3) {
                payload.user_id.clear();
            }
        }
        self.add(Draft { id, payload, flaw: None })
    }

    /// A producer's own events, with repetitions of its own and of others'
    /// events, contradictions and bad events in between.
    fn with_company(&mut self, own: &[Vec<usize>], producer: usize, doors: &[Door]) -> Vec<usize> {
        let mut sent = Vec::new();
        for (n, draft) in own[producer].iter().enumerate() {
            sent.push(*draft);
            if self.chance(self.repeats) {
                let back = if self.chance(0.5) { 10 } else { sent.len() };
                let again = sent[sent.len() - 1 - self.random.random_range(0..back.min(sent.len()))];
                sent.push(again);
            }
            let mut others = None;
            if self.chance(self.repeats) {
                // Whose producer is about as far, so that both may be in flight.
                let other = &own[self.random.random_range(0..own.len())];
                let near = n * other.len() / own[producer].len() + self.random.random_range(0..10);
                others = other.get(near.saturating_sub(5)).copied();
            }
            let is_taken = |draft: &Draft| doors[producer] != Door::Rest || draft.fits_rest();
            if let Some(other) = others.filter(|other| is_taken(&self.drafts[*other])) {
                sent.push(other);
            }
            if self.chance(0.04) {
                let of = others.filter(|other| is_taken(&self.drafts[*other])).unwrap_or(*draft);
                let contradiction = self.contradiction(of);
                sent.push(contradiction);
            }
            if self.chance(0.02) {
                let bad = self.bad_event(*draft);
                sent.push(bad);
            }
        }
        sent
    }

    /// The same id with another payload, or at another time: a little later, or days before.
    fn contradiction(&mut self, of: usize) -> usize {
        let mut draft = self.drafts[of].clone();
        draft.flaw = None;
        let payload = &mut draft.payload;
        match self.random.random_range(0..4) {
            0 => payload.campaign_id = "camp_contradicted".to_owned(),
            1 => payload.user_id = "user_contradicted".to_owned(),
            2 => payload.properties = r#"{"contradicted":true}"#.to_owned(),
            _ => {
                let back = [7, 3 * MINUTE, 5 * HOUR, 3 * DAY][self.drafts.len() % 4];
                payload.occurred_at = payload.occurred_at.map(|at| at - back);
            }
        }
        self.add(draft)
    }

    /// An event that must be rejected; mostly with an id of its own, sometimes
    /// with that of a valid one.
    fn bad_event(&mut self, of: usize) -> usize {
        let mut draft = self.drafts[of].clone();
        if self.chance(0.7) {
            draft.id = format!("bad-{}", self.drafts.len());
        }
        let at = draft.payload.occurred_at.unwrap_or_default();
        let mut flaw = Flaw::Invalid;
        match self.random.random_range(0..7) {
            0 => draft.id.clear(),
            1 => draft.payload.occurred_at = None,
            2 => draft.payload.event_type = "two words".to_owned(),
            3 => draft.payload.campaign_id = "x".repeat(300),
            4 => draft.payload.properties = "[1]".to_owned(),
            5 => (flaw, draft.payload.occurred_at) = (Flaw::TooOld, Some(at - (RETENTION_DAYS + 10) * DAY)),
            _ => (flaw, draft.payload.occurred_at) = (Flaw::InFuture, Some(at + 500 * DAY)),
        }
        draft.flaw = Some(flaw);
        self.add(draft)
    }

    /// Cuts what a producer sends into batches.
    fn script(&mut self, door: Door, sent: &[usize]) -> Script {
        let largest = if door == Door::Rest { 1 } else { [1, 8, 40, BATCH_EVENTS_MAX][self.random.random_range(0..4)] };
        let sent = if largest == 1 { &sent[..sent.len().min(300)] } else { sent };
        let mut batches = Vec::new();
        let mut rest = sent;
        while !rest.is_empty() {
            let (drafts, after) = rest.split_at(self.random.random_range(1..=largest).min(rest.len()));
            rest = after;
            let (stored, is_forgotten) = (self.random.random_bool(0.03), self.random.random_bool(0.1));
            batches.push(Batch { drafts: drafts.to_vec(), stored, is_forgotten });
        }
        // So long that the whole lasts about a second or more: faults need
        // something to hit.
        let whole_millis = self.random.random_range(600..1_500);
        let pause = Duration::from_micros(whole_millis * 1_000 / batches.len() as u64);
        let cuts_after = (door != Door::Rest && self.chance(0.3)).then(|| self.random.random_range(1..=batches.len()));
        Script { door, batches, pause, cuts_after }
    }
}
