//! One batch is written while the next is encoded.
//!
//! A writer (an open file, a set of connections) works on one batch at a time, in a task of its own, and comes back with the
//! outcome. A further batch is handed over only after the one before it succeeded, so a failed batch is never followed by a
//! later one: what the target holds is a prefix of what was delivered, and a redelivery is a contiguous replay.

use deltaforge_core::Fault;
use deltaforge_core::sink::{Delivered, Receipt};
use deltaforge_core::task::{Task, spawn};
use std::future::Future;
use tokio::sync::oneshot;

/// Lends its writer to one delivery after the other.
pub(crate) struct Relay<W> {
    name: &'static str,
    state: State<W>,
}

enum State<W> {
    Idle(W),
    Busy(Task<Result<W, Fault>>),
    Dead(Fault),
}

impl<W: Send + 'static> Relay<W> {
    /// `name` is the writer's role, for messages.
    pub(crate) fn new(name: &'static str, writer: W) -> Relay<W> {
        Relay { name, state: State::Idle(writer) }
    }

    /// Waits until everything handed over is written. Cancel-safe.
    ///
    /// # Errors
    /// What the last delivery, or any before it, failed with.
    pub(crate) async fn settled(&mut self) -> Result<&mut W, Fault> {
        if let State::Busy(task) = &mut self.state {
            self.state = match task.await {
                Ok(Ok(writer)) => State::Idle(writer),
                Ok(Err(fault)) | Err(fault) => State::Dead(fault),
            };
        }
        match &mut self.state {
            State::Idle(writer) => Ok(writer),
            State::Dead(fault) => Err(fault.clone()),
            State::Busy(_) => Err(Fault::bug("sink.relay", "a relay is busy after it has settled")),
        }
    }

    /// Hands a delivery over, once all before it are written. `work` gives the writer back when it succeeded.
    ///
    /// # Errors
    /// What a delivery before it failed with; `work` is then never begun.
    pub(crate) async fn hand_over<F>(&mut self, work: impl FnOnce(W) -> F + Send) -> Result<Receipt, Fault>
    where
        F: Future<Output = Result<(W, Delivered), Fault>> + Send + 'static,
    {
        self.settled().await?;
        let dead = State::Dead(Fault::bug("sink.relay", "a delivery was not begun"));
        let State::Idle(writer) = std::mem::replace(&mut self.state, dead) else {
            return Err(Fault::bug("sink.relay", "a relay is busy after it has settled"));
        };
        let (done, receipt) = oneshot::channel();
        let work = work(writer);
        self.state = State::Busy(spawn(self.name, async move {
            let (kept, outcome) = match work.await {
                Ok((writer, delivered)) => (Ok(writer), Ok(delivered)),
                Err(fault) => (Err(fault.clone()), Err(fault)),
            };
            let _ = done.send(outcome); // Nobody may be interested any more.
            kept
        }));
        let name = self.name;
        Ok(Box::pin(async move {
            receipt.await.unwrap_or_else(|_| {
                Err(Fault::retry("sink.dropped", format!("the {name} was dropped while it wrote")))
            })
        }))
    }
}

/// Runs what may block in a thread for that. It runs to its end, also when nobody waits for it any more.
pub(crate) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, Fault> + Send + 'static,
) -> Result<R, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Fault::bug("sink.writer_ended", format!("a writing thread ended: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot::channel;

    #[tokio::test]
    async fn a_batch_is_begun_only_after_the_one_before_it() {
        let mut relay = Relay::new("test", Vec::new());
        let (go, gone) = channel();
        let first = relay.hand_over(|mut log: Vec<u8>| async move {
            let _ = gone.await;
            log.push(1);
            Ok((log, Delivered { bytes: 1 }))
        });
        let first = first.await.unwrap();
        let mut second = Box::pin(relay.hand_over(|mut log| async move {
            log.push(2);
            Ok((log, Delivered { bytes: 2 }))
        }));
        assert!(futures_util::FutureExt::now_or_never(&mut second).is_none());
        go.send(()).unwrap();
        let second = second.await.unwrap();
        assert_eq!((first.await.unwrap().bytes, second.await.unwrap().bytes), (1, 2));
        assert_eq!(relay.settled().await.unwrap(), &[1, 2]);
    }

    #[tokio::test]
    async fn nothing_is_begun_after_a_fault() {
        let mut relay = Relay::new("test", ());
        let fault = || Fault::retry("test.no", "no");
        let first = relay.hand_over(move |()| async move { Err(fault()) }).await.unwrap();
        assert_eq!(first.await.unwrap_err().code(), "test.no");
        for _ in 0..2 {
            let second = relay.hand_over(|()| async { unreachable!() }).await;
            assert_eq!(second.err().unwrap().code(), "test.no");
        }
    }

    #[tokio::test]
    async fn a_receipt_of_a_dropped_relay_fails() {
        let mut relay = Relay::new("test", ());
        let receipt = relay.hand_over(|()| std::future::pending()).await.unwrap();
        drop(relay);
        assert!(receipt.await.unwrap_err().is_retry());
    }

    #[tokio::test]
    async fn a_panic_is_a_fault() {
        let fault = blocking::<()>(|| panic!("on purpose")).await.unwrap_err();
        assert_eq!(fault.code(), "sink.writer_ended");
    }
}
