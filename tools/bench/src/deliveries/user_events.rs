//! Events of users with seqs from 1 on.

use std::time::{Duration, SystemTime};

use super::USERS;
use crate::events::{Generator, in_batches};
use crate::ingest::{BATCH, STREAMS};
use tallyhouse::transport::proto::Event;

/// The user with half of all events.
pub(super) const HOT_USER: &str = "user_hot";

/// So many events of [`USERS`] users, in batches that are to be dealt out to [`STREAMS`] streams: each user's events go
/// through one of them, so that they arrive in order.
pub(super) fn batches_of_users(seed: u64, events: usize) -> Vec<Vec<Event>> {
    let mut shares: [Vec<Event>; STREAMS] = Default::default();
    for (user, event) in (0..USERS as usize).cycle().zip(of_users(seed, USERS, events)) {
        shares[user % STREAMS].push(event);
    }
    let mut shares = shares.map(|share| in_batches(share, BATCH).into_iter());
    let deal = || {
        let batches: Vec<_> = shares.iter_mut().filter_map(Iterator::next).collect();
        (!batches.is_empty()).then_some(batches)
    };
    std::iter::from_fn(deal).flatten().collect()
}

/// So many events of so many users, in turns.
pub(super) fn of_users(seed: u64, users: u32, events: usize) -> Vec<Event> {
    let mut generator = Generator::new(seed);
    let now = SystemTime::now();
    let event = |(user, seq): (u32, u64)| event_of(&mut generator, now, format!("user_{user}"), seq);
    (1..).flat_map(|seq| (0..users).map(move |user| (user, seq))).take(events).map(event).collect()
}

/// These events, and after each of them one of the hot user.
pub(super) fn with_hot_user(seed: u64, others: Vec<Event>) -> Vec<Event> {
    let mut generator = Generator::new(seed);
    let now = SystemTime::now();
    let pair = |(seq, other): (u64, Event)| [other, event_of(&mut generator, now, HOT_USER.to_owned(), seq)];
    (1..).zip(others).flat_map(pair).collect()
}

fn event_of(generator: &mut Generator, now: SystemTime, user_id: String, seq: u64) -> Event {
    Event { user_id, seq, ..generator.event(now, Duration::from_secs(5)) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn places(events: &[Event]) -> Vec<(&str, u64)> {
        events.iter().map(|event| (event.user_id.as_str(), event.seq)).collect()
    }

    #[test]
    fn each_user_has_every_seq_in_order() {
        let events = of_users(1, 2, 5);
        assert_eq!(places(&events), [("user_0", 1), ("user_1", 1), ("user_0", 2), ("user_1", 2), ("user_0", 3)]);
        let batches = batches_of_users(1, 5_500);
        let users = |stream: usize| {
            let batches = batches.iter().skip(stream).step_by(STREAMS).flatten();
            batches.map(|event| event.user_id.as_str()).collect::<HashSet<_>>()
        };
        assert!(users(0).len() == 500 && users(0).is_disjoint(&users(1)));
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 1_000, 1_000, 750, 750]);
        let mixed = with_hot_user(2, of_users(1, 2, 2));
        assert_eq!(places(&mixed), [("user_0", 1), (HOT_USER, 1), ("user_1", 1), (HOT_USER, 2)]);
    }
}
