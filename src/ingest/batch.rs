//! Takes one batch through deduplication.
//!
//! Each event is encoded at the end of the batch's rows. The index is then asked for all ids at once: first memory, then
//! the ledger for those that memory does not have. Rows of events that are not new are removed. Events that ClickHouse
//! must be asked about, or that wait for another batch, are kept aside.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use tallyhouse_ledger::{Day, time_in_id};

use super::completion::BatchCompletion;
use super::fingerprint::{Fingerprinter, IdFingerprint, PayloadFingerprint};
use super::index::{Claim, FirstEvent, IdQuery, Index, LedgerAnswer, Minute, TakenId};
use crate::domain::{Event, Rejection, Verdict};
use crate::event_row::{self, RowSpan, Rows};
use crate::event_store::EventKey;
use crate::log::{DayNumber, Frame, Ordinal, SegmentTag};

/// An id that this batch has claimed.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClaimedId {
    position: usize,
    id: IdFingerprint,
    time_in_id: Option<u64>,
    payload: PayloadFingerprint,
    minute: Minute,
}

impl ClaimedId {
    const fn taken(self) -> TakenId {
        let Self { id, time_in_id, payload, minute, .. } = self;
        TakenId { id, time_in_id, payload, minute }
    }

    const fn asked(self, is_wanted: bool) -> IdQuery {
        IdQuery { id: self.id, time_in_id: self.time_in_id, is_wanted }
    }
}

/// An event that the index has not been asked for yet. It has a row, unless it
/// is not to be stored even if it is new.
struct AddedEvent<'a> {
    claimed: ClaimedId,
    key: EventKey<'a>,
    row: Option<Range<usize>>,
}

impl AddedEvent<'_> {
    const fn asked(&self) -> IdQuery {
        self.claimed.asked(self.row.is_some())
    }
}

/// An id that ClickHouse may know; its row is kept aside. It is claimed, if there is a row and nothing else knows the id.
struct LateEvent<'a> {
    claimed: ClaimedId,
    key: EventKey<'a>,
    row: Option<Range<usize>>,
    /// What ClickHouse does not know at the event's time counts as new. Else it stays undecided: the id
    /// may have been taken with another time.
    is_new_when_unknown: bool,
}

/// An event whose id is pending in this batch or another.
pub(super) struct SharedId {
    claimed: ClaimedId,
    completion: Arc<BatchCompletion>,
}

impl SharedId {
    /// Waits for the other's fate, which is this one's too. Returns the id and the segment of its first
    /// event when it is a duplicate.
    pub(super) async fn resolve(&self, index: &Index, verdicts: &mut [Verdict]) -> Option<(IdFingerprint, SegmentTag)> {
        let ClaimedId { position, id, payload, .. } = self.claimed;
        self.completion.completed().await;
        // Not taken: the verdict stays what it is.
        let first = match index.first_of(self.claimed.asked(false)).await {
            Some(first) => first,
            None => FirstEvent { payload: self.completion.stored_payload(id)?, segment: SegmentTag::NONE },
        };
        let is_same = first.payload == payload;
        verdicts[position] = repeated(is_same);
        is_same.then_some((id, first.segment))
    }
}

const fn repeated(same_payload: bool) -> Verdict {
    if same_payload { Verdict::Duplicate } else { Verdict::Conflict }
}

/// The ids that a batch has claimed, until they are settled. Dropped before
/// (the caller has gone, the log refused), it releases them.
pub(super) struct Claims {
    index: Arc<Index>,
    ids: Vec<ClaimedId>,
    completion: Arc<BatchCompletion>,
}

impl Claims {
    /// The days of the events, each once.
    fn days(&self) -> Vec<DayNumber> {
        let mut days: Vec<DayNumber> = Vec::new();
        for day in self.ids.iter().map(|claimed| claimed.minute.day_number()) {
            // Neighbors are mostly of the same day.
            if days.last() != Some(&day) {
                days.push(day);
            }
        }
        days.sort_unstable();
        days.dedup();
        days
    }

    /// The batch is durable: its ids are taken.
    pub(super) fn settle(mut self, segment: Ordinal) {
        let taken: Vec<TakenId> = self.ids.drain(..).map(ClaimedId::taken).collect();
        self.index.settle(&taken, segment);
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        for claimed in &self.ids {
            self.index.release(claimed.id);
        }
        self.completion.complete();
    }
}

/// The state of one batch during deduplication. Dropping it releases its claims.
pub(super) struct Batch<'a> {
    fingerprinter: Fingerprinter,
    claims: Claims,
    verdicts: Vec<Verdict>,
    rows: Vec<u8>,
    row_count: u32,
    added: Vec<AddedEvent<'a>>,
    late: Vec<LateEvent<'a>>,
    late_rows: Vec<u8>,
    shared: Vec<SharedId>,
    /// Duplicates, with the segments of their first events.
    duplicates: Vec<(IdFingerprint, SegmentTag)>,
    is_refused: bool,
}

/// What is left of a batch once its rows are on their way.
pub(super) struct DecidedBatch {
    pub(super) claims: Claims,
    pub(super) verdicts: Vec<Verdict>,
    pub(super) shared: Vec<SharedId>,
    /// Duplicates, with the segments of their first events.
    pub(super) duplicates: Vec<(IdFingerprint, SegmentTag)>,
    /// The rows to log; none when no event is new.
    pub(super) frame: Option<Frame>,
}

impl DecidedBatch {
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
    pub(super) fn new(index: Arc<Index>, fingerprinter: Fingerprinter, events: usize, bytes: usize) -> Self {
        Self {
            fingerprinter,
            claims: Claims { index, ids: Vec::with_capacity(events), completion: Arc::default() },
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
        self.added.push(AddedEvent { claimed, key: key(event), row: Some(start..self.rows.len()) });
        self.verdicts.push(Verdict::Accepted);
    }

    /// Adds an event that is not to be stored. It is rejected only if it is new:
    /// of one that was taken before, whoever sends it again is told so, whatever
    /// is asked of events by now.
    pub(super) fn add_unwanted(&mut self, event: &Event<'a>, rejection: Rejection) {
        let start = self.rows.len();
        let claimed = self.encode(event, 0);
        self.rows.truncate(start);
        self.added.push(AddedEvent { claimed, key: key(event), row: None });
        self.verdicts.push(Verdict::Rejected(rejection));
    }

    /// Asks the index for all events that were added, and claims those that are
    /// to be stored.
    pub(super) async fn claim(&mut self) {
        let added = std::mem::take(&mut self.added);
        let asked: Vec<IdQuery> = added.iter().map(AddedEvent::asked).collect();
        let claims = self.claims.index.claim(&asked, &self.claims.completion);
        // From here on they are given back when the caller goes.
        let is_claimed =
            |(added, claim): &(&AddedEvent<'_>, &Claim)| added.row.is_some() && matches!(claim, Claim::Unseen);
        self.claims.ids.extend(added.iter().zip(&claims).filter(is_claimed).map(|(added, _)| added.claimed));
        let unseen: Vec<(IdQuery, Day)> = added
            .iter()
            .zip(&claims)
            .filter(|(_, claim)| matches!(claim, Claim::Unseen))
            .map(|(added, _)| (added.asked(), added.claimed.minute.day()))
            .collect();
        let answers = self.claims.index.ask_ledger(&unseen).await;
        self.take_in_all(added, claims, answers);
    }

    /// Takes in what memory and the ledger say. Rows stay of events that are new, and close up.
    fn take_in_all(&mut self, added: Vec<AddedEvent<'a>>, claims: Vec<Claim>, answers: Vec<LedgerAnswer>) {
        let (mut answers, mut end, mut given_back) = (answers.into_iter(), None, HashSet::new());
        for (AddedEvent { claimed, key, row }, claim) in added.into_iter().zip(claims) {
            let is_kept = match claim {
                Claim::Unseen => match answers.next().unwrap_or(LedgerAnswer::Undecided) {
                    LedgerAnswer::New => row.is_some(),
                    LedgerAnswer::Known(first) => {
                        self.repeated(claimed, first);
                        given_back.insert(claimed.position);
                        false
                    }
                    uncertain => {
                        self.keep_aside(claimed, key, row.clone(), uncertain == LedgerAnswer::BelowFloor);
                        false
                    }
                },
                Claim::Known(first) => {
                    self.repeated(claimed, first);
                    false
                }
                Claim::Doubted => {
                    self.keep_aside(claimed, key, row.clone(), false);
                    false
                }
                Claim::Pending(completion) => {
                    if row.is_some() {
                        self.verdicts[claimed.position] = Verdict::Undecided;
                    }
                    self.shared.push(SharedId { claimed, completion });
                    false
                }
                Claim::Full => {
                    self.is_refused = true;
                    false
                }
            };
            let Some(row) = row else { continue };
            // Those behind one that goes move up.
            let to = end.unwrap_or(row.start);
            if is_kept {
                self.row_count += 1;
                if to != row.start {
                    self.rows.copy_within(row.clone(), to);
                }
            }
            end = Some(if is_kept { to + row.len() } else { to });
        }
        if let Some(end) = end {
            self.rows.truncate(end);
        }
        self.give_back(&given_back);
    }

    /// ClickHouse must be asked about this event.
    fn keep_aside(
        &mut self,
        claimed: ClaimedId,
        key: EventKey<'a>,
        row: Option<Range<usize>>,
        is_new_when_unknown: bool,
    ) {
        let row = row.map(|row| {
            let start = self.late_rows.len();
            self.late_rows.extend_from_slice(&self.rows[row]);
            start..self.late_rows.len()
        });
        self.late.push(LateEvent { claimed, key, row, is_new_when_unknown });
    }

    /// An event of this id was taken before.
    fn repeated(&mut self, claimed: ClaimedId, first: FirstEvent) {
        let is_same = first.payload == claimed.payload;
        self.verdicts[claimed.position] = repeated(is_same);
        if is_same {
            self.duplicates.push((claimed.id, first.segment));
        }
    }

    /// Puts an event's row at the end of the rows.
    fn encode(&mut self, event: &Event<'a>, arrival: u64) -> ClaimedId {
        let span = event_row::encode(event, arrival, &mut self.rows);
        ClaimedId {
            position: self.verdicts.len(),
            id: self.fingerprinter.id(&self.rows[span.id]),
            time_in_id: time_in_id(event.event_id()),
            payload: self.fingerprinter.payload(&self.rows[span.payload]),
            minute: Minute::of(span.occurred_at),
        }
    }

    /// The index had no room for some of the events.
    pub(super) const fn is_refused(&self) -> bool {
        self.is_refused
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
            found.insert(self.fingerprinter.id(&rows[span.id]), self.fingerprinter.payload(&rows[span.payload]));
        }
        let mut given_back = HashSet::new();
        for LateEvent { claimed, row, is_new_when_unknown, .. } in std::mem::take(&mut self.late) {
            let verdict = match (stored, found.get(&claimed.id)) {
                (Some(_), Some(payload)) => repeated(*payload == claimed.payload),
                (Some(_), None) if is_new_when_unknown => {
                    self.keep(row);
                    continue;
                }
                (Some(_) | None, _) => Verdict::Undecided,
            };
            self.verdicts[claimed.position] = verdict;
            given_back.insert(claimed.position);
        }
        self.give_back(&given_back);
        self.claims.completion.note_stored(found);
    }

    /// All that can be known has been asked for.
    pub(super) fn decided(self) -> DecidedBatch {
        let frame = (self.row_count > 0).then(|| Frame::seal(self.rows, self.row_count).on_days(self.claims.days()));
        let Self { claims, verdicts, shared, duplicates, .. } = self;
        DecidedBatch { claims, verdicts, shared, duplicates, frame }
    }
}

const fn key<'a>(event: &Event<'a>) -> EventKey<'a> {
    EventKey { event_id: event.event_id(), occurred_at_millis: event.occurred_at().millis() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EventDraft, OrgId, Timestamp};
    use crate::ingest::index::doubles;

    const NOW: Timestamp = Timestamp::from_millis(1_770_757_800_000);

    fn event<'a>(org: &'a OrgId, event_id: &'a str) -> Event<'a> {
        let limits = crate::config::Config::default().event_limits();
        let draft = EventDraft { event_id, event_type: "click", occurred_at: Some(NOW), ..EventDraft::default() };
        Event::parse(org, draft, &limits, NOW).unwrap()
    }

    #[tokio::test]
    async fn the_rows_of_new_events_stay_and_close_up() {
        let (org, fingerprinter) = (OrgId::default_org(), Fingerprinter::random());
        let index = doubles::index(1_000);
        let of = async |ids: &[&'static str]| {
            let mut batch = Batch::new(Arc::clone(&index), fingerprinter, ids.len(), 100);
            for (id, arrival) in ids.iter().zip(1..) {
                batch.add(&event(&org, id), arrival);
            }
            batch.claim().await;
            batch
        };
        of(&["taken"]).await.decided().claims.settle(0);
        let _other = of(&["pending in another"]).await;
        let batch = of(&["taken", "a", "a", "of another length", "pending in another", "taken", "z"]).await;
        let mut expected = Frame::buffer(0);
        for (id, arrival) in [("a", 2), ("of another length", 4), ("z", 7)] {
            event_row::encode(&event(&org, id), arrival, &mut expected);
        }
        assert_eq!(batch.rows, expected);
        let decided = batch.decided();
        assert_eq!(decided.new_events(), 3);
        let [known, new, open] = [Verdict::Duplicate, Verdict::Accepted, Verdict::Undecided];
        let verdicts = [&known, &new, &open, &new, &open, &known, &new];
        assert_eq!(decided.verdicts.iter().collect::<Vec<_>>(), verdicts);
        assert_eq!(decided.shared.len(), 2);
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_leaves_late_events_undecided() {
        let (org, fingerprinter) = (OrgId::default_org(), Fingerprinter::random());
        let index = doubles::index_after(Day::of_millis(NOW.millis()));
        let mut rows = Vec::new();
        let span = event_row::encode(&event(&org, "known"), 1, &mut rows);
        let answer = &rows[..span.payload.end];
        for bytes in 0..=answer.len() {
            let mut batch = Batch::new(Arc::clone(&index), fingerprinter, 2, 100);
            batch.add(&event(&org, "new"), 2);
            batch.add(&event(&org, "known"), 3);
            batch.claim().await;
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
