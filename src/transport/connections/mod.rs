//! Connections, with limits on their number, on the bytes that wait to be written to them, and on the time
//! that their peers may take to read.
//!
//! When the maximum is reached, a new connection replaces the least useful one: connections without a
//! verified token first, then those without a call, then those that have been idle the longest.
//!
//! A peer that does not read its answers is disconnected after [`Config::write_wait_ms_max`], or after
//! [`PRESSED_WAIT`] while resources that answers hold are short.

mod connection;
mod descriptors;
mod io;
mod listener;
mod tls;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

pub(super) use connection::Connection;
pub use descriptors::raise_descriptor_limit;
pub(super) use io::ConnectionIo;
pub(super) use listener::Listener;
pub use tls::{Tls, TlsError};

use super::concurrency::Concurrency;
use crate::config::Config;

/// Whole seconds since the service began to accept connections.
pub(super) type Seconds = u32;

/// How often connections are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a client may take to begin a request on a new connection.
const PREFACE_WAIT: Seconds = 30;
/// For how many seconds a peer may not read while something is short that
/// unwritten answers hold. (Seconds are counted as the clock ticks, so that it
/// is up to a second more.)
const PRESSED_WAIT: Seconds = 2;
/// For how many seconds a shortage is remembered.
const PRESSURE_MEMORY: Seconds = 3;
/// The part of all bytes that may wait to be written which one connection may
/// hold (as a divisor).
const CONNECTION_SHARE: u64 = 4;

/// Calls on one connection that are served although there are too many calls.
/// A connection that has more is closed.
const CALLS_OF_MODEST_CONNECTION: usize = 32;

/// All connections of the service.
pub(super) struct Connections {
    concurrency: Arc<Concurrency>,
    max: usize,
    calls_max: usize,
    write_wait: Seconds,
    unwritten_bytes_max: u64,
    now: AtomicU32,
    next_id: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    /// A connection has been closed.
    closed: Notify,
    /// Bytes of answers that wait to be written, of all connections.
    unwritten_bytes: AtomicU64,
    /// Calls, from their first byte until their answer is written.
    calls: AtomicUsize,
    /// Until when something counts as short.
    pressed_until: AtomicU32,
    /// Something has become short.
    pressed: Notify,
    /// Those whose answers wait for others to be written.
    waiting: Mutex<Vec<Waker>>,
    /// Whether there are any.
    has_waiting: AtomicBool,
}

/// A connection's place among all, until it is dropped.
pub(super) struct ConnectionPermit(Arc<Connection>);

impl ConnectionPermit {
    pub(super) const fn connection(&self) -> &Arc<Connection> {
        &self.0
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let all = &self.0.all;
        all.open.lock().remove(&self.0.id);
        all.closed.notify_waiters();
        all.wake_waiting();
    }
}

impl Connections {
    /// Bounded as configured, and by the descriptors of the process.
    pub(super) fn new(config: &Config, concurrency: &Arc<Concurrency>) -> Arc<Self> {
        let write_wait = Duration::from_millis(config.write_wait_ms_max).as_secs();
        Arc::new(Self {
            concurrency: Arc::clone(concurrency),
            // Refusals included, which hold no permit.
            calls_max: 2 * (config.requests_in_flight_max + config.streams_max),
            max: config.connections_max.min(descriptors::for_connections()).max(1),
            write_wait: Seconds::try_from(write_wait).unwrap_or(PRESSED_WAIT).max(PRESSED_WAIT),
            unwritten_bytes_max: config.response_bytes_in_flight_max,
            now: AtomicU32::new(0),
            next_id: AtomicU64::new(0),
            open: Mutex::default(),
            closed: Notify::new(),
            unwritten_bytes: AtomicU64::new(0),
            calls: AtomicUsize::new(0),
            pressed_until: AtomicU32::new(0),
            pressed: Notify::new(),
            waiting: Mutex::default(),
            has_waiting: AtomicBool::new(false),
        })
    }

    /// Seconds since the beginning.
    pub(super) fn now(&self) -> Seconds {
        self.now.load(Ordering::Relaxed)
    }

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.open.lock().len()
    }

    /// How many there may be.
    pub(super) const fn max(&self) -> usize {
        self.max
    }

    /// A call has begun. When there are too many, refusals that nobody reads
    /// included, connections with many of them are closed.
    pub(super) fn begin_call(&self, connection: &Connection) {
        let of_all = self.calls.fetch_add(1, Ordering::Relaxed);
        let of_connection = connection.calls.fetch_add(1, Ordering::Relaxed);
        if of_all >= self.calls_max {
            self.press();
            if of_connection >= CALLS_OF_MODEST_CONNECTION {
                connection.cut_off();
            }
        }
    }

    /// A call has ended, and its answer has been written or given up.
    pub(super) fn end_call(&self, connection: &Connection) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
        connection.calls.fetch_sub(1, Ordering::Relaxed);
    }

    /// A permit for a new connection. At the limit, the least useful connection is closed.
    async fn place(self: &Arc<Self>) -> ConnectionPermit {
        loop {
            let mut closed = std::pin::pin!(self.closed.notified());
            closed.as_mut().enable();
            {
                let mut open = self.open.lock();
                if open.len() < self.max {
                    let id = self.next_id.fetch_add(1, Ordering::Relaxed);
                    let connection = Arc::new(Connection::new(id, Arc::clone(self)));
                    open.insert(id, Arc::clone(&connection));
                    return ConnectionPermit(connection);
                }
            }
            self.close_least_needed();
            closed.await;
        }
    }

    /// Closes the least useful connection.
    fn close_least_needed(&self) {
        let open = self.open.lock();
        let least = open.values().min_by_key(|connection| {
            let is_known = connection.is_known.load(Ordering::Relaxed);
            let has_calls = connection.calls.load(Ordering::Relaxed) > 0;
            (is_known, has_calls, connection.last_read.load(Ordering::Relaxed), connection.id)
        });
        if let Some(connection) = least {
            connection.cut_off();
        }
    }

    /// Resources that unwritten answers hold are short: peers that do not read are disconnected
    /// sooner.
    pub(super) fn press(&self) {
        let until = self.now().saturating_add(PRESSURE_MEMORY);
        if self.pressed_until.swap(until, Ordering::Relaxed) < self.now() {
            self.pressed.notify_one();
        }
    }

    /// Whether a connection's calls may have further large answers: neither
    /// all connections nor this one hold what they may.
    pub(super) fn has_room_for_answers(&self, connection: &Connection) -> bool {
        let has_room = self.unwritten_bytes.load(Ordering::SeqCst) < self.unwritten_bytes_max
            && connection.unwritten_bytes() < self.unwritten_bytes_max / CONNECTION_SHARE;
        if !has_room {
            self.press();
        }
        has_room
    }

    /// Wakes a task when there may be room for its answer.
    pub(super) fn wake_when_room(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock();
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        self.has_waiting.store(true, Ordering::SeqCst);
    }

    /// Counts bytes of an answer that wait to be written.
    pub(super) fn hold_bytes(&self, connection: &Connection, bytes: u64) {
        self.unwritten_bytes.fetch_add(bytes, Ordering::Relaxed);
        connection.add_unwritten_bytes(bytes);
    }

    /// The same bytes have been written, or are not needed any more.
    pub(super) fn release_bytes(&self, connection: &Connection, bytes: u64) {
        connection.subtract_unwritten_bytes(bytes);
        self.unwritten_bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.wake_waiting();
    }

    fn wake_waiting(&self) {
        if !self.has_waiting.swap(false, Ordering::SeqCst) {
            return;
        }
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Disconnects peers that do not read. Never returns.
    pub(super) async fn look_after(&self) {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => { self.now.fetch_add(1, Ordering::Relaxed); }
                () = self.pressed.notified() => {}
            }
            self.cut_off_stalled();
        }
    }

    fn cut_off_stalled(&self) {
        let now = self.now();
        let is_pressed = self.pressed_until.load(Ordering::Relaxed) >= now && now > 0;
        let wait = if is_pressed { PRESSED_WAIT } else { self.write_wait };
        let mut cut_off = 0;
        for connection in self.open.lock().values() {
            let is_silent = !connection.has_spoken.load(Ordering::Relaxed)
                && now.saturating_sub(connection.waits_since.load(Ordering::Relaxed)) >= PREFACE_WAIT;
            let is_stalled = connection.stalled_for(now) >= wait;
            if is_silent || is_stalled {
                connection.cut_off();
                cut_off += u32::from(is_stalled);
            }
        }
        if cut_off > 0 {
            tracing::warn!(connections = cut_off, "closed connections of peers that do not read");
        }
    }

    /// Closes every connection without waiting for anything.
    pub(super) fn cut_off_all(&self) {
        self.open.lock().values().for_each(|connection| connection.cut_off());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(max: usize) -> Arc<Connections> {
        let config = Config {
            connections_max: max,
            response_bytes_in_flight_max: 400,
            write_wait_ms_max: 10_000,
            ..Config::default()
        };
        Connections::new(&config, &Concurrency::new(&config))
    }

    fn is_cut(place: &ConnectionPermit) -> bool {
        futures_util::FutureExt::now_or_never(place.connection().is_cut_off()).is_some()
    }

    #[tokio::test]
    async fn the_connection_that_is_needed_least_goes_for_a_new_one() {
        let all = connections(3);
        let (quiet, busy, known) = (all.place().await, all.place().await, all.place().await);
        known.connection().note_known();
        all.begin_call(busy.connection());
        let order = [&quiet, &busy, &known];
        for (least, place) in order.into_iter().enumerate() {
            all.close_least_needed();
            let are_cut = order.map(is_cut);
            assert!(are_cut[least] && !are_cut[least + 1..].contains(&true));
            // As if it had gone.
            all.open.lock().remove(&place.connection().id);
        }
    }

    #[tokio::test]
    async fn a_place_is_free_again_when_its_connection_ends() {
        let all = connections(1);
        let first = all.place().await;
        let waiting = tokio::spawn({
            let all = Arc::clone(&all);
            async move { all.place().await }
        });
        first.connection().is_cut_off().await;
        drop(first);
        let second = waiting.await.unwrap();
        assert_eq!(all.open(), 1);
        drop(second);
        assert_eq!(all.open(), 0);
    }

    #[tokio::test]
    async fn who_does_not_read_is_cut_off_and_sooner_when_something_is_short() {
        let all = connections(9);
        let (slow, idle) = (all.place().await, all.place().await);
        for place in [&slow, &idle] {
            place.connection().has_spoken.store(true, Ordering::Relaxed);
        }
        all.now.store(5, Ordering::Relaxed);
        let slot = slow.connection().note_unwritten();
        all.now.store(14, Ordering::Relaxed);
        all.cut_off_stalled();
        assert!(!is_cut(&slow));
        all.press();
        all.cut_off_stalled();
        assert!(is_cut(&slow) && !is_cut(&idle));
        slow.connection().note_written(slot);
        assert_eq!(slow.connection().stalled_for(14), 0);
        idle.connection().note_write(true);
        assert_eq!(idle.connection().stalled_for(20), 6);
        idle.connection().note_write(false);
        assert_eq!(idle.connection().stalled_for(20), 0);
    }

    #[tokio::test]
    async fn one_connection_holds_a_part_of_the_bytes_and_all_hold_the_whole() {
        let all = connections(9);
        let places = [all.place().await, all.place().await, all.place().await, all.place().await, all.place().await];
        for place in &places[..4] {
            assert!(all.has_room_for_answers(place.connection()));
            all.hold_bytes(place.connection(), 100);
            assert!(!all.has_room_for_answers(place.connection()));
        }
        assert!(!all.has_room_for_answers(places[4].connection()));
        all.release_bytes(places[0].connection(), 100);
        assert!(all.has_room_for_answers(places[4].connection()) && all.has_room_for_answers(places[0].connection()));
    }
}
