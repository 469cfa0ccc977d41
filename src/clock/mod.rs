//! The time, and the order of arrival. They are two things: the time can be put right, an order cannot.

mod in_flight;
mod trusted_time;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::domain::Timestamp;
pub use in_flight::BatchArrivals;
use in_flight::InFlight;
pub use trusted_time::{ClockBounds, ClockDoubt};
use trusted_time::{Judged, Reading, TrustedTime};

/// How often the clock is looked at when nobody asks for the time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The two clocks of one reading are read within this time, in microseconds, or read again.
const READING_MICROS_MAX: i64 = 1_000;
/// How often a reading is tried before one that took longer is taken.
const READING_ATTEMPTS: u32 = 3;

/// Where the time is read. The tests have another than the system.
pub trait TimeSource: Send + Sync + fmt::Debug + 'static {
    /// Microseconds since 1970-01-01T00:00:00Z, by the clock that people set.
    fn wall_micros(&self) -> i64;
    /// Microseconds since some moment of the past, by a clock that nobody sets. It counts the time that the
    /// machine sleeps.
    fn monotonic_micros(&self) -> i64;
}

/// The machine's clocks.
#[derive(Debug)]
struct SystemSource;

impl TimeSource for SystemSource {
    fn wall_micros(&self) -> i64 {
        let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or_else(|before| -micros(before.duration()), micros)
    }

    fn monotonic_micros(&self) -> i64 {
        #[cfg(target_os = "linux")]
        let clock = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let clock = rustix::time::ClockId::Monotonic;
        let now = rustix::time::clock_gettime(clock);
        now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
    }
}

/// Tells the time as far as it can be believed, and gives every event its own place in the order of arrival:
/// a number that is the time in microseconds since 1970-01-01T00:00:00Z, moved on where it must be to stay
/// unique and rising. (A hybrid logical clock, as in Kulkarni et al., "Logical Physical Clocks", 2014, with its
/// counter folded into the microseconds.)
///
/// A wall clock that jumps is not believed at once; see [`ClockDoubt`]. Meanwhile [`ArrivalClock::now`] goes on
/// from before the jump, and [`ArrivalClock::judge`] fails.
#[derive(Debug)]
pub struct ArrivalClock {
    source: Box<dyn TimeSource>,
    trusted: Mutex<TrustedTime>,
    /// The last arrival that was given out.
    last: AtomicU64,
    /// Batches that have taken arrivals and are not in the log yet.
    in_flight: Arc<InFlight>,
}

impl Default for ArrivalClock {
    fn default() -> Self {
        Self::new(ClockBounds::default())
    }
}

impl ArrivalClock {
    /// The machine's clock.
    pub fn new(bounds: ClockBounds) -> Self {
        Self::of(Box::new(SystemSource), bounds)
    }

    /// Another clock.
    pub fn of(source: Box<dyn TimeSource>, bounds: ClockBounds) -> Self {
        let trusted = Mutex::new(TrustedTime::new(bounds, reading(&*source)));
        Self { source, trusted, last: AtomicU64::new(0), in_flight: Arc::default() }
    }

    /// Reads the clocks.
    fn read(&self) -> Judged {
        // Read under the lock: readings come in order.
        self.trusted.lock().read(reading(&*self.source))
    }

    fn now_micros(&self) -> u64 {
        u64::try_from(self.read().now).unwrap_or_default()
    }

    /// Takes so many arrivals in a row, and returns the first.
    pub fn arrivals(&self, count: u64) -> u64 {
        let now = self.now_micros();
        let before = self
            .last
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(last.max(now) + count))
            .unwrap_or_else(|last| last); // The closure always gives a value.
        before.max(now) + 1
    }

    /// Takes arrivals for a batch of so many events, which is under way as long as they are held.
    pub fn batch_arrivals(&self, count: u64) -> BatchArrivals {
        self.in_flight.begin(|| self.arrivals(count.max(1)))
    }

    /// Takes an arrival that cuts the order of arrival in two: batches that took theirs before, and later ones.
    pub fn cut(&self) -> u64 {
        self.in_flight.cut(|| self.arrivals(1))
    }

    /// Returns once every batch with an arrival before a cut is in the log, or has been refused.
    pub async fn batches_before(&self, cut: u64) {
        self.in_flight.passed(cut).await;
    }

    /// Now in the order of arrival, in microseconds since 1970-01-01T00:00:00Z: not before any arrival given
    /// out so far, and so not always the time.
    pub fn order_micros(&self) -> u64 {
        self.last.load(Ordering::Acquire).max(self.now_micros())
    }

    /// Now, to the millisecond, as far as it is known. It goes back only after a jump.
    pub fn now(&self) -> Timestamp {
        to_timestamp(self.read().now)
    }

    /// The same, as the standard library has it.
    pub fn system_time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.now_micros())
    }

    /// Now, for who refuses or forgets something because of the time.
    ///
    /// # Errors
    /// When the time is in doubt: nothing may be refused or forgotten by it.
    pub fn judge(&self) -> Result<Timestamp, ClockDoubt> {
        let Judged { now, doubt } = self.read();
        doubt.map_or_else(|| Ok(to_timestamp(now)), Err)
    }

    /// The same, in microseconds since 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    /// As [`ArrivalClock::judge`].
    pub fn judge_micros(&self) -> Result<u64, ClockDoubt> {
        let Judged { now, doubt } = self.read();
        doubt.map_or_else(|| Ok(u64::try_from(now).unwrap_or_default()), Err)
    }

    /// Looks at the clock every second, for ever, so that a jump is seen when it happens and a clock that
    /// keeps its pace is confirmed though nobody asks for the time.
    pub async fn keep_watched(&self) {
        let mut before = None;
        loop {
            let doubt = self.read().doubt;
            match (before, doubt) {
                (None, Some(doubt)) => tracing::error!(%doubt, "the clock is not believed; events are refused"),
                (Some(_), None) => tracing::warn!("the clock is believed again"),
                _ => {}
            }
            before = doubt;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Both clocks at one moment.
fn reading(source: &dyn TimeSource) -> Reading {
    let read = || {
        let before = source.monotonic_micros();
        let wall = source.wall_micros();
        (Reading { wall, monotonic: before }, source.monotonic_micros() - before)
    };
    let (mut reading, mut took) = read();
    for _ in 1..READING_ATTEMPTS {
        if took <= READING_MICROS_MAX {
            break;
        }
        (reading, took) = read();
    }
    reading
}

const fn to_timestamp(micros: i64) -> Timestamp {
    Timestamp::from_millis(micros.div_euclid(1_000))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::AtomicI64;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const DAY: i64 = 86_400 * SECOND;
    /// 2027-01-15T08:00:00Z.
    const START: i64 = 1_800_000_000 * SECOND;

    /// Clocks that stand still until they are set.
    #[derive(Clone, Debug)]
    pub(crate) struct SetClock {
        wall: Arc<AtomicI64>,
        monotonic: Arc<AtomicI64>,
    }

    impl TimeSource for SetClock {
        fn wall_micros(&self) -> i64 {
            self.wall.load(Ordering::SeqCst)
        }

        fn monotonic_micros(&self) -> i64 {
            self.monotonic.load(Ordering::SeqCst)
        }
    }

    impl SetClock {
        pub(crate) fn new() -> Self {
            Self { wall: Arc::new(AtomicI64::new(START)), monotonic: Arc::default() }
        }

        /// Time goes by.
        pub(crate) fn pass(&self, micros: i64) {
            self.monotonic.fetch_add(micros, Ordering::SeqCst);
            self.set(micros);
        }

        /// Somebody sets the clock.
        pub(crate) fn set(&self, by_micros: i64) {
            self.wall.fetch_add(by_micros, Ordering::SeqCst);
        }

        pub(crate) fn clock(&self) -> ArrivalClock {
            ArrivalClock::of(Box::new(self.clone()), ClockBounds::default())
        }
    }

    #[test]
    fn arrivals_rise_also_when_the_clock_was_set_back() {
        let source = SetClock::new();
        let clock = source.clock();
        let first = clock.arrivals(10);
        assert_eq!(first, u64::try_from(START).unwrap() + 1);
        source.set(-60 * SECOND);
        assert_eq!(clock.arrivals(1), first + 10);
        assert!(clock.order_micros() >= first + 10);
    }

    #[test]
    fn a_jump_moves_no_arrival_and_no_time() {
        let source = SetClock::new();
        let clock = source.clock();
        let first = clock.arrivals(1);
        source.set(800 * DAY);
        assert!(clock.judge().is_err() && clock.judge_micros().is_err());
        assert_eq!(clock.arrivals(1), first + 1);
        assert_eq!(clock.now(), to_timestamp(START));
        source.pass(SECOND);
        source.set(-800 * DAY);
        assert_eq!(clock.judge(), Ok(to_timestamp(START + SECOND)));
        assert_eq!(clock.arrivals(1), first + u64::try_from(SECOND).unwrap());
    }

    #[tokio::test]
    async fn a_cut_waits_for_the_batches_before_it_and_for_no_others() {
        use futures_util::FutureExt as _;

        let clock = SetClock::new().clock();
        let (one, other) = (clock.batch_arrivals(10), clock.batch_arrivals(0));
        let cut = clock.cut();
        let later = clock.batch_arrivals(1);
        assert!(one.first() + 10 <= other.first() && other.first() < cut && cut < later.first());
        let mut passed = Box::pin(clock.batches_before(cut));
        assert!((&mut passed).now_or_never().is_none());
        drop(other);
        assert!((&mut passed).now_or_never().is_none());
        drop(one);
        passed.await;
        assert!(clock.batches_before(clock.cut()).now_or_never().is_none(), "the later one is under way");
        drop(later);
        clock.batches_before(clock.cut()).await;
    }

    #[test]
    fn the_machine_s_clocks_agree() {
        let clock = ArrivalClock::default();
        let before = u64::try_from(SystemSource.wall_micros()).unwrap();
        let arrival = clock.arrivals(1);
        assert!((before..before + 60_000_000).contains(&arrival));
        assert!(clock.judge().is_ok());
    }
}
