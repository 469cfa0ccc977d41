//! The lifetime of streams: until the service stops, or their connection reaches its maximum age.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Ends streams gracefully. A stream that is told to end reads no more requests, answers those it
/// has read, and ends with OK.
pub(super) struct Drain {
    stopping: CancellationToken,
    streams: TaskTracker,
    age_max: Option<Duration>,
}

impl Drain {
    /// Streams live for about `age_ms_max` milliseconds; 0: as long as the
    /// service.
    pub(super) fn new(age_ms_max: u64) -> Self {
        Self {
            stopping: CancellationToken::new(),
            streams: TaskTracker::new(),
            age_max: (age_ms_max > 0).then(|| Duration::from_millis(age_ms_max)),
        }
    }

    /// Tells every stream to end.
    pub(super) fn begin(&self) {
        self.stopping.cancel();
        self.streams.close();
    }

    /// Tells from elsewhere whether the service is stopping.
    pub(super) fn watch(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let stopping = self.stopping.clone();
        move || stopping.is_cancelled()
    }

    /// Whether the service is stopping.
    pub(super) fn has_begun(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Held by a stream until its last answer is on its way.
    pub(super) fn stream(&self) -> TaskTrackerToken {
        self.streams.token()
    }

    /// Returns when a stream that begins now is to end.
    pub(super) fn end_of_stream(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopping = self.stopping.clone();
        // Streams that began together must not all come back together.
        let age = self.age_max.map(|age| age.mul_f64(rand::random_range(0.9..1.0)));
        async move {
            match age {
                None => stopping.cancelled().await,
                Some(age) => tokio::select! {
                    () = stopping.cancelled() => {}
                    () = tokio::time::sleep(age) => {}
                },
            }
        }
    }

    /// Returns when the service is stopping and no stream is left.
    pub(super) async fn streams_ended(&self) {
        self.streams.wait().await;
    }
}
