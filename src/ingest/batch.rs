//! One batch on its way through deduplication.
//!
//! Every event is encoded at the end of the batch's rows. Then the index is
//! asked for all of them at once, and rows stay only of those whose ids are
//! new. What must be asked about or waited for is kept aside.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::fate::Fate;
use super::fingerprint::{Fingerprinter, IdFingerprint, PayloadFingerprint};
use super::index::{Asked, Claim, Index, Minute, SegmentTag, Taken};
use super::log::Frame;
use super::row::{self, RowSpan, Rows};
use super::store::EventKey;
use crate::domain::{Event, Rejection, Verdict};

/// An id that this batch has claimed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimed {
    position: usize,
    id: IdFingerprint,
    payload: PayloadFingerprint,
    minute: Minute,
}

impl Claimed {
    const fn taken(self) -> Taken {
        Taken { id: self.id, payload: self.payload, minute: self.minute }
    }
}

/// An event that the index has not been asked for yet. It has a row, unless it
/// is not to be stored even if it is new.
struct Added<'a> {
    claimed: Claimed,
    key: EventKey<'a>,
    row: Option<Range<usize>>,
}

impl Added<'_> {
    const fn asked(&self) -> Asked {
        Asked { id: self.claimed.id, minute: self.claimed.minute, is_wanted: self.row.is_some() }
    }
}

/// An id that ClickHouse may know; its row is kept aside. It is claimed, if
/// there is a row.
struct Late<'a> {
    claimed: Claimed,
    key: EventKey<'a>,
    row: Option<Range<usize>>,
}

/// An event whose id is pending in this batch or another.
pub(super) struct Shared {
    position: usize,
    id: IdFingerprint,
    payload: PayloadFingerprint,
    fate: Arc<Fate>,
}

impl Shared {
    /// Waits for the other's fate, which is this one's too. Returns the id and its segment when it is a
    /// duplicate.
    pub(super) async fn resolve(&self, index: &Index, verdicts: &mut [Verdict]) -> Option<(IdFingerprint, SegmentTag)> {
        self.fate.decided().await;
        let found = || self.fate.found_payload(self.id).map(|payload| (payload, SegmentTag::STORED));
        // Not taken (or taken, stored and forgotten in this very moment, which
        // sending it again will tell): the verdict stays what it is.
        let (payload, tag) = index.known_payload(self.id).or_else(found)?;
        let is_same = payload == self.payload;
        verdicts[self.position] = repeated(is_same);
        is_same.then_some((self.id, tag))
    }
}

const fn repeated(same_payload: bool) -> Verdict {
    if same_payload { Verdict::Duplicate } else { Verdict::Conflict }
}

/// The ids that a batch has claimed, until they are settled. Dropped before
/// (the caller has gone, the log refused), it releases them.
pub(super) struct Claims {
    index: Arc<Index>,
    ids: Vec<Claimed>,
    fate: Arc<Fate>,
}

impl Claims {
    /// The batch is durable: its ids are taken.
    pub(super) fn settle(mut self, tag: SegmentTag) {
        let taken: Vec<Taken> = self.ids.drain(..).map(Claimed::taken).collect();
        self.index.settle(&taken, tag);
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        for claimed in &self.ids {
            self.index.release(claimed.id);
        }
        self.fate.decide();
    }
}

/// The state of one batch during deduplication. Dropping it releases its claims.
pub(super) struct Batch<'a> {
    prints: Fingerprinter,
    claims: Claims,
    verdicts: Vec<Verdict>,
    rows: Vec<u8>,
    row_count: u32,
    added: Vec<Added<'a>>,
    late: Vec<Late<'a>>,
    late_rows: Vec<u8>,
    shared: Vec<Shared>,
    /// Duplicates of what may not be stored yet.
    duplicates: Vec<(IdFingerprint, SegmentTag)>,
    is_refused: bool,
}

/// What is left of a batch once its rows are on their way.
pub(super) struct Decided {
    pub(super) claims: Claims,
    pub(super) verdicts: Vec<Verdict>,
    pub(super) shared: Vec<Shared>,
    /// Duplicates, with the segments that hold their first events unless these are stored.
    pub(super) duplicates: Vec<(IdFingerprint, SegmentTag)>,
    /// The rows to log; none when no event is new.
    pub(super) frame: Option<Frame>,
}

impl Decided {
    /// How many events are new.
    pub(super) fn new_events(&self) -> u32 {
        self.frame.as_ref().map_or(0, Frame::rows)
    }

    /// The users of the new events, from those of all.
    pub(super) fn users_of_new<'u>(&self, users: &[&'u str]) -> Vec<&'u str> {
        self.claims.ids.iter().filter_map(|claimed| users.get(claimed.position).copied()).collect()
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(index: Arc<Index>, prints: Fingerprinter, events: usize, bytes: usize) -> Self {
        Self {
            prints,
            claims: Claims { index, ids: Vec::with_capacity(events), fate: Arc::default() },
            verdicts: Vec::with_capacity(events),
            rows: Frame::buffer(bytes),
            row_count: 0,
            added: Vec::with_capacity(events),
            late: Vec::new(),
            late_rows: Vec::new(),
            shared: Vec::new(),
            duplicates: Vec::new(),
            is_refused: false,
        }
    }

    /// Adds an event that is none, or of which nothing can be said.
    pub(super) fn reject(&mut self, verdict: Verdict) {
        self.verdicts.push(verdict);
    }

    /// Adds an event.
    pub(super) fn add(&mut self, event: &Event<'a>, arrival: u64) {
        let start = self.rows.len();
        let claimed = self.encode(event, arrival);
        self.added.push(Added { claimed, key: key(event), row: Some(start..self.rows.len()) });
        self.verdicts.push(Verdict::Accepted);
    }

    /// Adds an event that is not to be stored. It is rejected only if it is new:
    /// of one that was taken before, whoever sends it again is told so, whatever
    /// is asked of events by now.
    pub(super) fn add_unwanted(&mut self, event: &Event<'a>, rejection: Rejection) {
        let start = self.rows.len();
        let claimed = self.encode(event, 0);
        self.rows.truncate(start);
        self.added.push(Added { claimed, key: key(event), row: None });
        self.verdicts.push(Verdict::Rejected(rejection));
    }

    /// Asks the index for all events that were added, and claims those that are
    /// to be stored.
    pub(super) fn claim(&mut self) {
        let added = std::mem::take(&mut self.added);
        let asked: Vec<Asked> = added.iter().map(Added::asked).collect();
        let said = self.claims.index.claim(&asked, &self.claims.fate);
        let mut end = None;
        for (Added { claimed, key, row }, said) in added.into_iter().zip(said) {
            let is_kept = self.take_in(claimed, key, row.clone(), said);
            let Some(row) = row else { continue };
            // Those behind one that goes move up.
            let to = end.unwrap_or(row.start);
            if is_kept && to != row.start {
                self.rows.copy_within(row.clone(), to);
            }
            end = Some(if is_kept { to + row.len() } else { to });
        }
        if let Some(end) = end {
            self.rows.truncate(end);
        }
    }

    /// Takes in what the index says of an event, and says whether its row is
    /// one of the batch's.
    fn take_in(&mut self, claimed: Claimed, key: EventKey<'a>, row: Option<Range<usize>>, said: Claim) -> bool {
        match said {
            Claim::New if row.is_some() => {
                self.claims.ids.push(claimed);
                self.row_count += 1;
                return true;
            }
            Claim::New => {}
            Claim::BelowFloor => {
                let row = row.map(|row| {
                    self.claims.ids.push(claimed);
                    let start = self.late_rows.len();
                    self.late_rows.extend_from_slice(&self.rows[row]);
                    start..self.late_rows.len()
                });
                self.late.push(Late { claimed, key, row });
            }
            Claim::Known(payload, tag) => self.repeated(claimed, payload, tag),
            Claim::Pending(fate) => {
                if row.is_some() {
                    self.verdicts[claimed.position] = Verdict::Undecided;
                }
                let Claimed { position, id, payload, .. } = claimed;
                self.shared.push(Shared { position, id, payload, fate });
            }
            Claim::Full => self.is_refused = true,
        }
        false
    }

    /// An event of this id was taken before, with this payload, in this segment.
    fn repeated(&mut self, claimed: Claimed, payload: PayloadFingerprint, tag: SegmentTag) {
        let is_same = payload == claimed.payload;
        self.verdicts[claimed.position] = repeated(is_same);
        if is_same && tag != SegmentTag::STORED {
            self.duplicates.push((claimed.id, tag));
        }
    }

    /// Puts an event's row at the end of the rows.
    fn encode(&mut self, event: &Event<'a>, arrival: u64) -> Claimed {
        let span = row::encode(event, arrival, &mut self.rows);
        Claimed {
            position: self.verdicts.len(),
            id: self.prints.id(&self.rows[span.id]),
            payload: self.prints.payload(&self.rows[span.payload]),
            minute: Minute::of(span.occurred_at),
        }
    }

    /// The index had no room for some of the events.
    pub(super) const fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// How many events of each minute are below the index's floor.
    pub(super) fn late_minutes(&self) -> HashMap<Minute, u64> {
        let mut minutes = HashMap::new();
        for late in &self.late {
            *minutes.entry(late.claimed.minute).or_default() += 1;
        }
        minutes
    }

    /// Takes in what memory knows of late events since their minutes may have
    /// been recalled.
    pub(super) fn resolve_recalled(&mut self) {
        let mut given_back = HashSet::new();
        let mut left = Vec::new();
        for late in std::mem::take(&mut self.late) {
            let claimed = late.claimed;
            match self.claims.index.reclaim(claimed.id, claimed.minute) {
                Claim::Known(payload, tag) => {
                    self.repeated(claimed, payload, tag);
                    given_back.insert(claimed.position);
                }
                Claim::New => self.keep(late.row),
                _ => left.push(late),
            }
        }
        self.late = left;
        self.give_back(&given_back);
    }

    /// The late event with this row turned out to be new.
    fn keep(&mut self, row: Option<Range<usize>>) {
        if let Some(row) = row {
            self.rows.extend_from_slice(&self.late_rows[row]);
            self.row_count += 1;
        }
    }

    /// These claimed ones turned out to be known.
    fn give_back(&mut self, positions: &HashSet<usize>) {
        if positions.is_empty() {
            return;
        }
        let Claims { index, ids, .. } = &mut self.claims;
        ids.retain(|claimed| {
            let goes = positions.contains(&claimed.position);
            if goes {
                index.release(claimed.id);
            }
            !goes
        });
    }

    /// The events that ClickHouse must be asked about.
    pub(super) fn late_keys(&self) -> Vec<EventKey<'a>> {
        self.late.iter().map(|late| late.key).collect()
    }

    /// Takes in what ClickHouse answered; nothing when it could not be asked.
    pub(super) fn resolve_late(&mut self, stored: Option<&[u8]>) {
        let rows = stored.unwrap_or_default();
        let spans: Result<Vec<RowSpan>, _> = Rows::payloads(rows).collect();
        // An answer that breaks off says nothing about the ids it leaves out.
        let stored = stored.filter(|_| spans.is_ok());
        let mut found = HashMap::new();
        for span in spans.unwrap_or_default() {
            // Should the table hold an id twice, any of them makes it known.
            found.insert(self.prints.id(&rows[span.id]), self.prints.payload(&rows[span.payload]));
        }
        let mut given_back = HashSet::new();
        for Late { claimed, row, .. } in std::mem::take(&mut self.late) {
            let verdict = match (stored, found.get(&claimed.id)) {
                (None, _) => Verdict::Undecided,
                (Some(_), Some(payload)) => repeated(*payload == claimed.payload),
                (Some(_), None) => {
                    self.keep(row);
                    continue;
                }
            };
            self.verdicts[claimed.position] = verdict;
            given_back.insert(claimed.position);
        }
        self.give_back(&given_back);
        self.claims.fate.found(found);
    }

    /// All that can be known has been asked for.
    pub(super) fn decided(self) -> Decided {
        let frame = (self.row_count > 0).then(|| Frame::seal(self.rows, self.row_count));
        let Self { claims, verdicts, shared, duplicates, .. } = self;
        Decided { claims, verdicts, shared, duplicates, frame }
    }
}

const fn key<'a>(event: &Event<'a>) -> EventKey<'a> {
    EventKey { event_id: event.event_id(), occurred_at_millis: event.occurred_at().millis() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EventDraft, MILLIS_PER_MINUTE, OrgId, Timestamp};

    const NOW: Timestamp = Timestamp::from_millis(1_770_757_800_000);

    fn event<'a>(org: &'a OrgId, event_id: &'a str) -> Event<'a> {
        let limits = crate::config::Config::default().event_limits();
        let draft = EventDraft { event_id, event_type: "click", occurred_at: Some(NOW), ..EventDraft::default() };
        Event::parse(org, draft, &limits, NOW).unwrap()
    }

    #[test]
    fn the_rows_of_new_events_stay_and_close_up() {
        let (org, prints) = (OrgId::default_org(), Fingerprinter::random());
        let index = Arc::new(Index::new(1_000));
        let of = |ids: &[&'static str]| {
            let mut batch = Batch::new(Arc::clone(&index), prints, ids.len(), 100);
            for (id, arrival) in ids.iter().zip(1..) {
                batch.add(&event(&org, id), arrival);
            }
            batch.claim();
            batch
        };
        of(&["taken"]).decided().claims.settle(SegmentTag::of(0));
        let _other = of(&["pending in another"]);
        let batch = of(&["taken", "a", "a", "of another length", "pending in another", "taken", "z"]);
        let mut expected = Frame::buffer(0);
        for (id, arrival) in [("a", 2), ("of another length", 4), ("z", 7)] {
            row::encode(&event(&org, id), arrival, &mut expected);
        }
        assert_eq!(batch.rows, expected);
        let decided = batch.decided();
        assert_eq!(decided.new_events(), 3);
        let [known, new, open] = [Verdict::Duplicate, Verdict::Accepted, Verdict::Undecided];
        let verdicts = [&known, &new, &open, &new, &open, &known, &new];
        assert_eq!(decided.verdicts.iter().collect::<Vec<_>>(), verdicts);
        assert_eq!(decided.shared.len(), 2);
    }

    #[test]
    fn an_answer_that_breaks_off_leaves_late_events_undecided() {
        let (org, prints) = (OrgId::default_org(), Fingerprinter::random());
        let index = Arc::new(Index::new(1_000));
        index.raise_floor(Minute::of(NOW.plus_millis(MILLIS_PER_MINUTE)));
        let mut rows = Vec::new();
        let span = row::encode(&event(&org, "known"), 1, &mut rows);
        let answer = &rows[..span.payload.end];
        for bytes in 0..=answer.len() {
            let mut batch = Batch::new(Arc::clone(&index), prints, 2, 100);
            batch.add(&event(&org, "new"), 2);
            batch.add(&event(&org, "known"), 3);
            batch.claim();
            assert_eq!(batch.late_keys().len(), 2);
            batch.resolve_late(Some(&answer[..bytes]));
            let expected = match bytes {
                0 => [Verdict::Accepted, Verdict::Accepted],
                _ if bytes == answer.len() => [Verdict::Accepted, Verdict::Duplicate],
                _ => [Verdict::Undecided, Verdict::Undecided],
            };
            assert_eq!(batch.decided().verdicts, expected, "{bytes} of {} bytes", answer.len());
            assert_eq!(index.ids(), 0, "nothing stays claimed");
        }
    }
}
