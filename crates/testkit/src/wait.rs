//! Waiting for a condition instead of for a length of time.

use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(25);

/// Returns as soon as `ready` answers true; asks every 25 ms.
///
/// Blocks the thread: inside an async test use [`wait_for_async`].
///
/// # Panics
/// With `what` in the message when `timeout` has passed.
#[track_caller]
pub fn wait_for(what: &str, timeout: Duration, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < timeout, "gave up after {timeout:?} waiting for {what}");
        std::thread::sleep(POLL);
    }
}

/// [`wait_for`] for async tests: leaves the thread to the others between two questions.
///
/// It measures real time, so that a paused tokio clock (which jumps ahead whenever all tasks are idle) does not use up
/// the timeout while a real server is still working.
///
/// # Panics
/// With `what` in the message when `timeout` has passed.
pub async fn wait_for_async(what: &str, timeout: Duration, mut ready: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !ready().await {
        assert!(start.elapsed() < timeout, "gave up after {timeout:?} waiting for {what}");
        tokio::time::sleep(POLL).await;
    }
}
