//! What the engine tells about itself and its events.

use super::driver::Driver;
use super::sequencer::Pending;
use crate::domain::{EventState, EventStatus, OldestEvent, SubscriptionStatus};

impl Driver {
    pub(super) fn status(&self) -> SubscriptionStatus {
        let in_flight: usize = self.out.values().flatten().map(|(_, run)| run.len()).sum();
        let out = self.out.values().flatten().flat_map(|(_, run)| run);
        let oldest = out.chain(self.sequencer.oldest()).min_by_key(|pending| pending.age_key());
        SubscriptionStatus {
            is_paused: self.subscription.settings.is_paused,
            handler_error: self.handler_error.clone(),
            waiting: (self.sequencer.waiting() + in_flight + self.refusals.len()) as u64,
            buffered: self.sequencer.buffered() as u64,
            in_flight: in_flight as u64,
            retrying: self.sequencer.retrying() as u64,
            users: self.sequencer.busy_lanes() as u64,
            oldest_ms: oldest.map_or(0, |pending| self.age_ms(pending)),
            oldest: oldest.map(|Pending { event, .. }| OldestEvent {
                event_id: event.id.clone(),
                user_id: event.user_id.clone(),
                seq: event.seq,
            }),
            read_to: self.window.next(),
            missed: self.missed(),
            missed_since_start: self.source.missed(),
            catching_up_ms: self.source.catching_up_ms(),
            skipped: self.sequencer.skipped(),
            dead_letters: self.recorded_letters,
            ..self.counts.clone()
        }
    }

    /// For how long an event has been waiting, in milliseconds.
    fn age_ms(&self, pending: &Pending) -> u64 {
        match pending.event.accepted_at_ms {
            0 => self.now().saturating_sub(pending.read_at),
            accepted_at_ms => self.clock.now_ms().saturating_sub(accepted_at_ms),
        }
    }

    pub(super) fn event(&self, id: &str) -> Option<EventStatus> {
        let ended = self.dirty.settlements.find(id).or_else(|| self.committed.settlements.find(id));
        if let Some(settlement) = ended {
            let mut status = EventStatus::from(settlement.clone());
            if !self.shape.records_effects {
                // It may still be handed out again.
                status.state = EventState::InFlight;
            }
            return Some(status);
        }
        let key = self.by_id.get(id)?;
        let status = |state: EventState, pending: &Pending| EventStatus {
            event_id: id.to_owned(),
            user_id: pending.event.user_id.clone(),
            event_type: pending.event.event_type.clone(),
            seq: pending.event.seq,
            state,
            attempts: pending.attempts,
            error: pending.error.clone(),
        };
        if let Some((state, pending)) = self.sequencer.find(key, id) {
            return Some(status(state, pending));
        }
        let refused = self.refusals.iter().map(|refusal| &refusal.pending).find(|pending| pending.event.id == id);
        if let Some(pending) = refused {
            return Some(status(EventState::Pending, pending));
        }
        let pending = self.out.values().flatten().flat_map(|(_, run)| run).find(|pending| pending.event.id == id)?;
        Some(status(EventState::InFlight, pending))
    }
}
