//! One writer at a time, and calls that wait for it share the next write.
//!
//! ```text
//!   save a ──┐                    ┌── begin · job a · job b · job c · commit ──┐
//!   save b ──┼──► queue ── drain ─┤                                            ├──► each caller its own answer
//!   save c ──┘    (whoever gets the lock takes all that waits)                 ┘
//! ```
//!
//! **Why an answer can be believed.** A job runs on working state under the lock; its caller hears of it only after
//! `commit`, which is durable or an error for every job of the group. A job checks first and changes after, so a job that
//! answers an error has changed nothing and the others of its group go on.
//!
//! The work runs on tokio's blocking threads. A caller that is dropped leaves its job in the queue; it takes effect as a
//! whole. When the calls have returned, nothing of the store runs any more: it can be dropped and opened again.

use crate::faults;
use deltaforge_core::Fault;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

/// State with a durable home.
pub(crate) trait Backing: Send + 'static {
    /// What jobs work on.
    type Work;

    /// Starts a group.
    fn begin(&mut self) -> Result<(), Fault>;

    /// What a group's jobs change.
    fn work(&mut self) -> &mut Self::Work;

    /// Makes what the jobs changed durable, or undoes it.
    fn commit(&mut self) -> Result<(), Fault>;

    /// What is durable. Not called inside a group.
    fn view(&self) -> &Self::Work;
}

/// Runs on the working state, or hears why there is none; then waits for how the commit went.
type Job<W> = Box<dyn FnOnce(Result<&mut W, Fault>) -> Reply + Send>;
type Reply = Box<dyn FnOnce(&Result<(), Fault>)>;

/// A backing that many callers share.
pub(crate) struct Serial<B: Backing>(Arc<Shared<B>>);

struct Shared<B: Backing> {
    backing: Mutex<B>,
    queue: Mutex<Vec<Job<B::Work>>>,
}

impl<B: Backing> Serial<B> {
    pub(crate) fn new(backing: B) -> Serial<B> {
        Serial(Arc::new(Shared { backing: Mutex::new(backing), queue: Mutex::default() }))
    }

    /// Changes something; durable when it answers `Ok`.
    pub(crate) async fn write<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut B::Work) -> Result<R, Fault> + Send + 'static,
    ) -> Result<R, Fault> {
        let (sender, mut answer) = oneshot::channel();
        lock(&self.0.queue).push(Box::new(move |work| {
            let outcome = work.and_then(job);
            Box::new(move |written| {
                // The caller may be gone.
                let _ = sender.send(written.clone().and(outcome));
            })
        }));
        let shared = Arc::clone(&self.0);
        // Its own drain, even where another one took the job: see the end of the module's text.
        let drained = spawn_blocking(move || shared.drain()).await;
        drained.ok().and_then(|()| answer.try_recv().ok()).unwrap_or_else(|| Err(faults::interrupted()))
    }

    /// Reads what is durable.
    pub(crate) async fn read<R: Send + 'static>(
        &self,
        look: impl FnOnce(&B::Work) -> Result<R, Fault> + Send + 'static,
    ) -> Result<R, Fault> {
        let shared = Arc::clone(&self.0);
        let looked = spawn_blocking(move || look(lock(&shared.backing).view())).await;
        looked.unwrap_or_else(|_| Err(faults::interrupted()))
    }
}

impl<B: Backing> Shared<B> {
    fn drain(&self) {
        let mut backing = lock(&self.backing);
        let jobs = mem::take(&mut *lock(&self.queue));
        if jobs.is_empty() {
            return;
        }
        let (replies, written): (Vec<Reply>, _) = match backing.begin() {
            Ok(()) => (jobs.into_iter().map(|job| job(Ok(backing.work()))).collect(), backing.commit()),
            Err(fault) => (jobs.into_iter().map(|job| job(Err(fault.clone()))).collect(), Ok(())),
        };
        for reply in replies {
            reply(&written);
        }
    }
}

/// A job that panicked leaves working state, which the next `begin` throws away.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltaforge_core::task::spawn;
    use std::time::Duration;

    /// Counts writes; a write takes a while, so that others have to wait; `fails` is how many fail first.
    #[derive(Default)]
    struct Slow {
        durable: Vec<u32>,
        working: Vec<u32>,
        writes: u32,
        fails: u32,
    }

    impl Backing for Slow {
        type Work = Vec<u32>;

        fn begin(&mut self) -> Result<(), Fault> {
            self.working = self.durable.clone();
            Ok(())
        }

        fn work(&mut self) -> &mut Vec<u32> {
            &mut self.working
        }

        fn commit(&mut self) -> Result<(), Fault> {
            self.writes += 1;
            std::thread::sleep(Duration::from_millis(30));
            if self.fails > 0 {
                self.fails -= 1;
                return Err(Fault::retry("state.unwritable", "no"));
            }
            self.durable = self.working.clone();
            Ok(())
        }

        fn view(&self) -> &Vec<u32> {
            &self.durable
        }
    }

    fn push(n: u32) -> impl FnOnce(&mut Vec<u32>) -> Result<(), Fault> {
        move |work| {
            work.push(n);
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_burst_shares_its_writes() {
        let serial = Arc::new(Serial::new(Slow::default()));
        let saves: Vec<_> = (0..20)
            .map(|n| {
                let serial = Arc::clone(&serial);
                spawn("save", async move { serial.write(push(n)).await })
            })
            .collect();
        for save in saves {
            save.await.unwrap().unwrap();
        }
        let mut all = serial.read(|work| Ok(work.clone())).await.unwrap();
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
        let writes = lock(&serial.0.backing).writes;
        assert!(writes <= 4, "{writes} writes for one burst");
    }

    #[tokio::test]
    async fn a_failed_write_is_nobodys_success_and_leaves_nothing() {
        let serial = Serial::new(Slow { fails: 1, ..Slow::default() });
        assert!(serial.write(push(1)).await.unwrap_err().is_retry());
        assert_eq!(serial.read(|work| Ok(work.len())).await.unwrap(), 0);
        serial.write(push(2)).await.unwrap();
        assert_eq!(serial.read(|work| Ok(work.clone())).await.unwrap(), [2]);
    }

    #[tokio::test]
    async fn a_panic_in_a_job_is_a_fault_and_the_store_goes_on() {
        let serial = Serial::new(Slow::default());
        let fault = serial.write(|_| -> Result<(), Fault> { panic!("on purpose") }).await.unwrap_err();
        assert_eq!(fault.code(), "state.interrupted");
        serial.write(push(1)).await.unwrap();
    }
}
