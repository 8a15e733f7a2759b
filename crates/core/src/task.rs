//! Tasks that cannot get lost: each has a name, an owner that learns how it ended, and ends with its owner.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;

/// A running task. Dropping it aborts the task; awaiting it gives its result, or a fault when it panicked.
#[derive(Debug)]
pub struct Task<T> {
    name: &'static str,
    handle: JoinHandle<T>,
}

/// Starts a task. `name` is a role (`redis lane`), used when it panics.
#[allow(clippy::disallowed_methods)]
pub fn spawn<T: Send + 'static>(
    name: &'static str,
    work: impl Future<Output = T> + Send + 'static,
) -> Task<T> {
    Task { name, handle: tokio::spawn(work) }
}

impl<T> Task<T> {
    /// Ends the task at its next await.
    pub fn abort(&self) {
        self.handle.abort();
    }

    /// True once the task has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, crate::Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let name = self.name;
        Pin::new(&mut self.handle).poll(cx).map_err(|e| {
            let how = if e.is_panic() { "panicked" } else { "was ended" };
            crate::Fault::bug("engine.task_ended", format!("the task `{name}` {how}"))
        })
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.handle.abort();
    }
}
