//! The source of a subscription that begins in the past: the events that ClickHouse has, then the log, without a gap or
//! a repetition.
//!
//! The border between both is a [`CutOver`]: an arrival, which every row has and keeps, and a position in the log. Events
//! with an earlier arrival are read from ClickHouse, all others from the log behind the position:
//!
//! 1. The log's end is noted as the position; from now on the log holds what comes behind it.
//! 2. A cut is taken from the clock. Every event that gets a later arrival is appended behind the position.
//! 3. Batches that got an earlier arrival are waited for, and then the segments that they are in, until ClickHouse has
//!    them. From now on no event before the cut can be added there.
//! 4. Events before the cut are read from ClickHouse page by page. Each has the position of its arrival, which is lower than
//!    any in the log, so the engine goes on at the same event after a crash.
//! 5. The border is recorded, and the log is read from its position on. Rows there with an arrival before the cut (those of
//!    step 3) are left out.
//!
//! Before step 5 the border is in memory only: after a restart, or when the log could not hold all that long, another one is
//! taken, and ClickHouse is read up to that. From step 5 on it stays, whatever is read again after a crash.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;
use tallyhouse_delivery::domain::{Event, Position, SubscriptionId};
use tallyhouse_delivery::source::{EventSource, SourceBatch, SourceError, SourcedEvent};
use tallyhouse_delivery::store::{CutOver, DeliveryStore};

use super::log_source::{LogSource, MICROS};
use super::stored_events::{PastEvent, StoredEvents};
use crate::clickhouse::arrivals::ArrivalRange;
use crate::clock::ArrivalClock;
use crate::domain::OrgId;
use crate::log::{EventLog, LogPosition, LogReader, Ordinal, Segments};

/// The first segment that is one of the log: smaller numbers are arrivals of stored events. (The id of a segment begins
/// with its time, and is far above.)
const FIRST_SEGMENT: u128 = 1 << 64;
/// Events of the first page, and most of any.
const FIRST_PAGE_EVENTS: u32 = 64;
const PAGE_EVENTS_MAX: u32 = 1_000;
/// Bytes of events of a page, about: by the size of those of the page before.
const PAGE_BYTES: usize = 4 << 20;
/// How long ClickHouse is waited for, before that is reported and the border is taken anew.
const STORED_WAIT: Duration = Duration::from_secs(30);
/// Microseconds of the order of arrival that the first page covers, and that any page covers at least.
const FIRST_SPAN: u64 = 60_000_000;
const SPAN_MIN: u64 = 1_000;

/// Whether this is the position of a stored event.
pub fn is_stored(position: Position) -> bool {
    position.segment < FIRST_SEGMENT
}

/// The position of the first event that arrived at this time or later.
pub fn position_of(arrival: u64) -> Position {
    Position { segment: arrival.into(), row: 0 }
}

/// What a source in the past works with.
pub struct PastParts {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Its organization.
    pub org_id: OrgId,
    /// Events that arrived before are left out.
    pub arrived_from: u64,
    /// Where borders are recorded.
    pub store: Arc<DeliveryStore>,
    /// The events that are stored.
    pub events: Arc<dyn StoredEvents>,
    /// Gives events their arrivals.
    pub clock: Arc<ArrivalClock>,
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// The subscription's reader of it.
    pub reader: Arc<dyn LogReader>,
}

/// See the module.
pub struct PastSource {
    parts: PastParts,
    state: tokio::sync::Mutex<State>,
    /// Reads the log behind the border.
    behind: RwLock<Option<Arc<LogSource>>>,
    /// Up to which arrival stored events were read; 0 when the log is read.
    reached: AtomicU64,
}

/// How far reading stored events has come.
struct State {
    border: Option<Border>,
    /// Most events of the next page.
    events_max: u32,
    /// Microseconds that the next page covers.
    span: u64,
    /// Whether reading begins anywhere: the first event may be far behind that.
    is_placed: bool,
}

#[derive(Clone, Copy)]
struct Border {
    cut: CutOver,
    /// What the reader had missed before.
    missed: u64,
    is_recorded: bool,
}

impl PastSource {
    /// With the border that is recorded, if there is one.
    pub fn new(parts: PastParts, recorded: Option<CutOver>) -> Self {
        let border = recorded.map(|cut| Border { cut, missed: 0, is_recorded: true });
        let source = Self {
            state: tokio::sync::Mutex::new(State {
                border,
                events_max: FIRST_PAGE_EVENTS,
                span: FIRST_SPAN,
                is_placed: false,
            }),
            behind: RwLock::default(),
            reached: AtomicU64::new(0),
            parts,
        };
        if let Some(cut) = recorded {
            source.read_behind(cut.arrival, source.parts.reader.missed());
        }
        source
    }

    /// The log, from the events with this arrival on. So many segments were missed before.
    fn read_behind(&self, arrival: u64, missed: u64) -> Arc<LogSource> {
        let PastParts { reader, org_id, arrived_from, .. } = &self.parts;
        let source = LogSource::new(Arc::clone(reader), org_id.clone(), arrival.max(*arrived_from));
        let source = Arc::new(source.without_missed(missed));
        *self.behind.write() = Some(Arc::clone(&source));
        source
    }

    /// Steps 1 to 3.
    async fn take_border(&self) -> Result<Border, SourceError> {
        let PastParts { reader, log, clock, .. } = &self.parts;
        let missed = reader.missed();
        let LogPosition { segment, row } = log.end().await;
        reader.release(segment);
        let position = Position { segment, row }.max(Position { segment: FIRST_SEGMENT, row: 0 });
        let arrival = clock.cut();
        let is_stored = async {
            clock.batches_before(arrival).await;
            all_stored(log.segments()).await;
        };
        let waited = tokio::time::timeout(STORED_WAIT, is_stored).await;
        let late = || SourceError("ClickHouse has not taken yet what was accepted before".to_owned());
        waited.map_err(|_| late())?;
        Ok(Border { cut: CutOver { arrival, position }, missed, is_recorded: false })
    }

    /// Step 5, unless the log has lost something meanwhile. Returns where to read on.
    async fn cross(&self, border: Border) -> Result<Option<Position>, SourceError> {
        let Border { cut, missed, is_recorded } = border;
        if !is_recorded {
            if self.parts.reader.missed() != missed {
                return Ok(None);
            }
            let recorded = self.parts.store.put_cut_over(self.parts.subscription, cut).await;
            recorded.map_err(|error| SourceError(error.to_string()))?;
            self.read_behind(cut.arrival, missed);
            tracing::info!(subscription = self.parts.subscription, "stored events have been read; the log is read on");
        }
        self.reached.store(0, Ordering::Relaxed);
        Ok(Some(cut.position))
    }

    /// Step 4: the next page.
    async fn read_stored(
        &self,
        state: &mut State,
        from: Position,
        cut: CutOver,
        events_max: usize,
    ) -> Result<SourceBatch, SourceError> {
        let PastParts { events, org_id, .. } = &self.parts;
        let failed = |error: super::stored_events::StoredEventsError| SourceError(error.to_string());
        let mut from = from;
        if !std::mem::replace(&mut state.is_placed, true) {
            let first = events.first_arrival(org_id, arrival_of(from), cut.arrival).await;
            let first = first.inspect_err(|_| state.is_placed = false).map_err(failed)?;
            from = from.max(position_of(first.unwrap_or(cut.arrival)));
        }
        let limit = u32::try_from(events_max).unwrap_or(u32::MAX).min(state.events_max).max(1);
        let before = arrival_of(from).saturating_add(state.span).min(cut.arrival);
        let range = ArrivalRange { from: arrival_of(from), from_hash: from.row, before };
        let page = events.read(org_id, range, limit).await.map_err(failed)?;
        let is_whole = page.len() < limit as usize;
        (state.span, state.is_placed) = next_span(state.span, &page, is_whole);
        state.events_max = next_events_max(state.events_max, &page);
        let next = match page.last() {
            Some(last) if !is_whole => behind(last),
            _ => position_of(before),
        };
        let mut sourced: Vec<SourcedEvent> = Vec::with_capacity(page.len());
        for past in page {
            // A row that ClickHouse has twice, until it merges both.
            if sourced.last().is_none_or(|last| last.position < position(&past)) {
                sourced.push(SourcedEvent { position: position(&past), event: past.event });
            }
        }
        self.reached.store(arrival_of(next), Ordering::Relaxed);
        Ok(SourceBatch { events: sourced, next })
    }
}

#[async_trait]
impl EventSource for PastSource {
    async fn read(&self, from: Position, events_max: usize) -> Result<SourceBatch, SourceError> {
        if !is_stored(from) {
            let behind = self.behind.read().clone();
            // One that an earlier version began has no border, and has passed it.
            let behind = behind.unwrap_or_else(|| self.read_behind(0, self.parts.reader.missed()));
            return behind.read(from, events_max).await;
        }
        let mut state = self.state.lock().await;
        self.reached.store(arrival_of(from).max(1), Ordering::Relaxed);
        loop {
            let border = match state.border {
                Some(border) => border,
                None => *state.border.insert(self.take_border().await?),
            };
            if arrival_of(from) < border.cut.arrival {
                return self.read_stored(&mut state, from, border.cut, events_max).await;
            }
            match self.cross(border).await? {
                Some(next) => return Ok(SourceBatch { events: Vec::new(), next }),
                None => state.border = None,
            }
        }
    }

    fn release(&self, position: Position) {
        if !is_stored(position) {
            self.parts.reader.release(position.segment);
        }
    }

    fn missed(&self) -> u64 {
        self.behind.read().as_ref().map_or(0, |behind| behind.missed())
    }

    fn is_at_end(&self) -> bool {
        self.behind.read().as_ref().is_none_or(|behind| behind.is_at_end())
    }

    fn catching_up_ms(&self) -> Option<u64> {
        Some(self.reached.load(Ordering::Relaxed)).filter(|reached| *reached > 0).map(|reached| reached / MICROS)
    }
}

fn arrival_of(position: Position) -> u64 {
    u64::try_from(position.segment).unwrap_or(u64::MAX)
}

fn position(past: &PastEvent) -> Position {
    Position { segment: past.arrival.into(), row: past.hash }
}

/// The position behind a stored event.
fn behind(past: &PastEvent) -> Position {
    match past.hash {
        u64::MAX => position_of(past.arrival.saturating_add(1)),
        _ => position(past).next(),
    }
}

/// What the page after this one covers, and whether events may follow at once: behind an empty page, the next event is
/// looked for.
fn next_span(span: u64, page: &[PastEvent], is_whole: bool) -> (u64, bool) {
    match (page.first(), page.last()) {
        (Some(first), Some(last)) if !is_whole => {
            ((last.arrival - first.arrival).saturating_mul(2).max(SPAN_MIN), true)
        }
        (Some(_), _) => (span.saturating_mul(2), true),
        (None, _) => (span, false),
    }
}

/// How many events the page after this one may have.
fn next_events_max(events_max: u32, page: &[PastEvent]) -> u32 {
    let bytes: usize = page.iter().filter_map(|past| past.event.as_ref()).map(Event::bytes).sum();
    let fitting = PAGE_BYTES.saturating_mul(page.len()).checked_div(bytes);
    let fitting = fitting.map_or(events_max, |events| u32::try_from(events).unwrap_or(u32::MAX));
    fitting.min(events_max.saturating_mul(2)).clamp(1, PAGE_EVENTS_MAX)
}

/// Waits until ClickHouse has all rows that are in the log now.
async fn all_stored(segments: &Segments) {
    let mut changes = segments.changes();
    let now = segments.list().into_iter().filter(|segment| segment.rows > 0);
    let now: Vec<Ordinal> = now.map(|segment| segment.ordinal).collect();
    loop {
        changes.mark_unchanged();
        let is_stored = now.iter().all(|ordinal| segments.find(*ordinal).is_none());
        if is_stored || changes.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
