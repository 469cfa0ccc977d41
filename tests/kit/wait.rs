//! Waiting for something to become true, with a limit.

use std::time::{Duration, Instant};

/// Longest a test waits for anything. The machine may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at whether something has happened.
pub const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Asks every [`LOOK_PAUSE`] until the answer is yes.
///
/// # Panics
/// When that takes longer than [`PATIENCE`]; the message says `what` was awaited.
#[allow(clippy::panic, reason = "a test says so by failing")]
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
