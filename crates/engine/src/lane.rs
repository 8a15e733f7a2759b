//! One task per sink: batches in, acknowledgements out, in order.
//!
//! The lane opens the sink, keeps a window of batches accepted and not yet acknowledged, and when anything fails drops the
//! sink and delivers again *from the first batch without an acknowledgement*. So a target sees every batch in order, at worst a
//! contiguous stretch of them again, and never one after a hole.
//!
//! A sink that the commit policy may wait for is tried for ever. Another one gives a batch up after its attempts, says so,
//! and goes on; what was given up is counted.
//!
//! An exactly-once sink is asked what its target holds before the first delivery of each connection, and is given only what is
//! not there: [`standing`].

mod letters;
mod standing;

use crate::dead_letters::{DeadLetters, Redelivery};
use deltaforge_core::batch::Batch;
use deltaforge_core::config::RetryPolicy;
use deltaforge_core::position::{BatchSeq, Epoch, Position};
use deltaforge_core::sink::{Delivered, Delivery, Held, Receipt, Sink, SinkContext, SinkPlan};
use deltaforge_core::source::SourcePlan;
use deltaforge_core::task::{Task, spawn};
use deltaforge_core::{Class, Fault, failpoint};
use futures_util::FutureExt;
use letters::Buried;
pub(crate) use letters::BuriedEvents;
use standing::{Skipped, Standing, Verdict, Waiting};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// A batch on its way.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) seq: BatchSeq,
    pub(crate) batch: Arc<Batch>,
}

/// What a lane reports.
#[derive(Debug)]
pub(crate) struct LaneReport {
    pub(crate) sink: usize,
    pub(crate) what: LaneNews,
}

/// What happened at a sink.
#[derive(Debug)]
pub(crate) enum LaneNews {
    /// It is connected; what troubled it is over. `held` is what an exactly-once sink's target was seen to hold.
    Connected { held: Option<Held> },
    /// Acknowledged, this batch and every one before it. Of an exactly-once sink `stored` is false when its target held the
    /// batch already, and was told nothing of its end.
    Delivered { seq: BatchSeq, events: u64, bytes: u64, took: Duration, stored: bool },
    /// Will never be delivered to this sink.
    GivenUp { seq: BatchSeq, events: u64 },
    /// One event of a batch will never be delivered to this sink; the others follow.
    EventGivenUp,
    /// One event of a batch is a dead letter now; the others follow.
    EventStored(Fault),
    /// An attempt failed; another follows after the pause.
    Troubled { fault: Fault, attempt: u32, pause: Duration },
    /// It cannot go on.
    Failed(Fault),
    /// It can go on only when the pipeline begins again from where its target stands.
    BeginAgain(Fault),
}

/// Where an exactly-once lane begins; set before its first batch.
#[derive(Clone, Debug)]
pub(crate) struct Begin {
    /// The position after which the source reads.
    pub(crate) from: Position,
    /// What the target was seen to hold when that was chosen.
    pub(crate) held: Option<Held>,
}

/// The pipeline's end of a lane.
#[derive(Debug)]
pub(crate) struct Lane {
    begin: Arc<OnceLock<Begin>>,
    jobs: mpsc::Sender<Job>,
    redeliveries: mpsc::Sender<Redelivery>,
    closing: Arc<Notify>,
    task: Task<()>,
}

/// What a lane is started with.
pub(crate) struct LaneSettings {
    pub(crate) sink: usize,
    pub(crate) plan: Arc<dyn SinkPlan>,
    pub(crate) context: SinkContext,
    pub(crate) epoch: Epoch,
    /// Orders positions.
    pub(crate) source: Arc<dyn SourcePlan>,
    /// Whether the commit policy may wait for this sink.
    pub(crate) waited_for: bool,
    /// Batches accepted and not acknowledged, at most.
    pub(crate) window: usize,
    /// Batches that may wait in front of the lane.
    pub(crate) backlog: usize,
    /// Where events go that cannot be delivered; `None`: they stop the pipeline.
    pub(crate) letters: Option<DeadLetters>,
    /// Outlives the lane when the pipeline begins again.
    pub(crate) buried: BuriedEvents,
    /// Where the pipeline went on from.
    pub(crate) resume: Option<Position>,
}

impl Lane {
    /// Starts a lane.
    pub(crate) fn start(settings: LaneSettings, reports: mpsc::Sender<LaneReport>) -> Lane {
        let (jobs, queue) = mpsc::channel(settings.backlog);
        let (redeliveries, asked) = mpsc::channel(4);
        let closing = Arc::new(Notify::new());
        let begin = Arc::new(OnceLock::new());
        let lane = Running {
            sink: settings.sink,
            retry: settings.plan.retry(settings.waited_for),
            exactly_once: settings.plan.exactly_once(),
            plan: settings.plan,
            source: settings.source,
            begin: begin.clone(),
            standing: None,
            taken_over: false,
            context: settings.context,
            epoch: settings.epoch,
            waited_for: settings.waited_for,
            window: settings.window,
            queue,
            queue_ended: false,
            closing: closing.clone(),
            is_closing: false,
            again: VecDeque::new(),
            sent: VecDeque::new(),
            open: None,
            attempts: 0,
            reports,
            letters: settings.letters,
            buried: settings.buried,
            acknowledged_to: settings.resume,
            asked,
            asks_ended: false,
            redelivery: None,
            between: true,
        };
        Lane { begin, jobs, redeliveries, closing, task: spawn("sink lane", lane.run()) }
    }

    /// Says where the first batch begins, to a lane of an exactly-once sink.
    pub(crate) fn begin(&self, begin: Begin) {
        let _begun_already = self.begin.set(begin);
    }

    /// Hands a batch over; false when the lane has no room for it, or has ended.
    pub(crate) fn send(&self, job: Job) -> bool {
        self.jobs.try_send(job).is_ok()
    }

    /// Asks for dead letters to be delivered again; dropped when too much is asked at once.
    pub(crate) fn redeliver(&self, redelivery: Redelivery) {
        let _answer_dropped = self.redeliveries.try_send(redelivery);
    }

    /// Batches in front of the lane.
    pub(crate) fn waiting(&self) -> usize {
        self.jobs.max_capacity() - self.jobs.capacity()
    }

    /// Whether the lane's task has ended; it does so only after `close` or a failure.
    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// No more batches: the lane delivers what it has, closes the sink and ends. One that the policy does not wait for ends at
    /// its next failure.
    pub(crate) async fn close(self) -> Result<(), Fault> {
        drop(self.jobs);
        self.closing.notify_one();
        self.task.await
    }
}

/// Accepted by the sink, not yet acknowledged.
struct Sent {
    job: Job,
    receipt: Receipt,
    at: Instant,
    stored: Stored,
}

/// What the target knows of a batch's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    /// It stores it.
    Yes,
    /// It held the batch already, and was told nothing of its end.
    Held,
    /// Nothing, as the batch has no events and the target stores positions with events only.
    Nothing,
}

struct Running {
    sink: usize,
    plan: Arc<dyn SinkPlan>,
    exactly_once: bool,
    source: Arc<dyn SourcePlan>,
    begin: Arc<OnceLock<Begin>>,
    /// Of an exactly-once sink, from its first batch on.
    standing: Option<Standing>,
    /// The open sink has told what its target holds for certain.
    taken_over: bool,
    context: SinkContext,
    epoch: Epoch,
    retry: RetryPolicy,
    waited_for: bool,
    window: usize,
    queue: mpsc::Receiver<Job>,
    queue_ended: bool,
    closing: Arc<Notify>,
    is_closing: bool,
    /// To be delivered before anything from the queue: what a failure left unacknowledged.
    again: VecDeque<Job>,
    sent: VecDeque<Sent>,
    open: Option<Box<dyn Sink>>,
    /// Failed attempts since the last success.
    attempts: u32,
    reports: mpsc::Sender<LaneReport>,
    letters: Option<DeadLetters>,
    /// Events of the present transaction that are dead letters: it may have to be read again, and would meet them again.
    buried: BuriedEvents,
    /// The last end that the sink has acknowledged.
    acknowledged_to: Option<Position>,
    asked: mpsc::Receiver<Redelivery>,
    asks_ended: bool,
    redelivery: Option<Redelivery>,
    /// The batch handed over last ended with a transaction.
    between: bool,
}

/// The pipeline is gone; there is nobody to deliver for.
struct Gone;

enum Step {
    /// A batch to deliver, or none will ever come again.
    Job(Option<Job>),
    /// The oldest receipt has resolved.
    Receipt(Result<Delivered, Fault>),
    /// Dead letters are to be delivered again.
    Asked(Option<Redelivery>),
    /// Nothing is in flight: it is their turn.
    Redeliver(Redelivery),
}

impl Running {
    async fn run(mut self) {
        while let Ok(true) = self.step().await {}
        if let Some(sink) = self.open.take() {
            sink.close().await;
        }
    }

    /// One step; false at the end of the lane.
    async fn step(&mut self) -> Result<bool, Gone> {
        if self.open.is_none() {
            if self.is_closing && self.has_nothing() {
                return Ok(false);
            }
            let opened = tokio::select! {
                biased;
                opened = self.plan.open(&self.context) => opened,
                () = self.closing.notified(), if !self.is_closing => {
                    self.is_closing = true;
                    return Ok(true);
                }
            };
            match opened {
                Ok(sink) => {
                    let held = sink.recovered().cloned();
                    self.open = Some(sink);
                    self.taken_over = !self.exactly_once;
                    self.report(LaneNews::Connected { held }).await?;
                }
                Err(fault) => return self.failed(fault).await,
            }
        }
        match self.next().await {
            Step::Receipt(Ok(delivered)) => {
                self.acknowledged(delivered).await?;
                Ok(true)
            }
            Step::Receipt(Err(fault)) => self.failed(fault).await,
            Step::Job(Some(job)) => self.deliver(job).await,
            Step::Asked(redelivery) => {
                self.asks_ended = redelivery.is_none();
                self.redelivery = redelivery;
                Ok(true)
            }
            Step::Redeliver(redelivery) => self.redeliver(redelivery).await,
            Step::Job(None) => Ok(!self.sent.is_empty()),
        }
    }

    /// The oldest batch in the window is durable.
    async fn acknowledged(&mut self, delivered: Delivered) -> Result<(), Gone> {
        let Some(Sent { job, at, stored, .. }) = self.sent.pop_front() else { return Ok(()) };
        // A part of a transaction is no success yet: the rest of it may fail again and again.
        if job.batch.end().is_some() || !self.exactly_once {
            self.attempts = 0;
        }
        self.note_acknowledged(&job, stored);
        if let Some(end) = job.batch.end().filter(|_| self.letters.is_some()) {
            self.acknowledged_to = Some(end.position.clone());
            letters::forget(&self.buried);
        }
        if self.exactly_once {
            failpoint::pass(failpoint::ACKNOWLEDGED);
        }
        let (events, took) = (job.batch.len() as u64, at.elapsed());
        let stored = stored == Stored::Yes;
        self.report(LaneNews::Delivered { seq: job.seq, events, bytes: delivered.bytes, took, stored }).await
    }

    fn note_acknowledged(&mut self, job: &Job, stored: Stored) {
        if let Some(standing) = self.standing.as_mut().filter(|_| stored != Stored::Nothing) {
            let end = job.batch.end().map(|end| &end.position);
            standing.acknowledged(end, job.batch.len() as u64, stored == Stored::Yes);
        }
    }

    /// Asks the sink what its target holds for certain, and takes what is there off what is to be delivered.
    async fn take_over(&mut self) -> Result<bool, Gone> {
        let (Some(sink), Some(begin)) = (&mut self.open, self.begin.get()) else {
            let fault = Fault::bug("engine.lane", "a batch came before its lane began");
            self.report(LaneNews::Failed(fault)).await?;
            return Ok(false);
        };
        let standing = self.standing.get_or_insert_with(|| {
            Standing::new(begin.from.clone(), begin.held.clone()).with_letters(self.letters.is_some())
        });
        let held = match sink.take_over(standing.from()).await {
            Ok(held) => held,
            Err(fault) => return self.failed(fault).await,
        };
        self.taken_over = true;
        let waiting = |job: &Job| Waiting { end: job.batch.end().map(|end| end.position.clone()) };
        let order = |a: &Position, b: &Position| self.source.compare(a, b);
        match standing.compare(held.as_ref(), self.again.iter().map(waiting), order) {
            Verdict::GoOn(there) => {
                for _ in 0..there {
                    let Some(job) = self.again.pop_front() else { break };
                    // Acknowledged, though the answer was lost: how long it took is not known.
                    let receipt: Receipt = Box::pin(async { Ok(Delivered::default()) });
                    self.sent.push_back(Sent { job, receipt, at: Instant::now(), stored: Stored::Yes });
                }
                Ok(true)
            }
            Verdict::BeginAgain(fault) => {
                self.report(LaneNews::BeginAgain(fault)).await?;
                Ok(false)
            }
            Verdict::Stop(fault) => {
                self.report(LaneNews::Failed(fault)).await?;
                Ok(false)
            }
        }
    }

    /// What is to be delivered of a batch; `None` when all of it is held. The batch itself stays whole, for what is held is
    /// counted from its beginning.
    ///
    /// # Errors
    /// As for [`Standing::skip`].
    fn not_held(&mut self, batch: &Arc<Batch>) -> Result<Option<Arc<Batch>>, Fault> {
        let Some(standing) = &mut self.standing else { return Ok(Some(batch.clone())) };
        let at = |event| batch.events().position(|e| e.id() == event);
        let is_beyond = |held: &Position| {
            let order = batch.end().map(|end| self.source.compare(&end.position, held));
            // Positions of different histories: what is held will not come by.
            order.is_some_and(|order| !matches!(order, Some(Ordering::Less | Ordering::Equal)))
        };
        Ok(match standing.skip(batch.len() as u64, at, is_beyond)? {
            Skipped::Nothing => Some(batch.clone()),
            Skipped::Through(event) => batch.after(event).map(Arc::new),
            Skipped::Whole => None,
        })
    }

    fn has_nothing(&self) -> bool {
        self.again.is_empty() && self.sent.is_empty() && self.queue.is_empty()
    }

    /// Waits for a batch, when the window has room, or for the oldest receipt.
    async fn next(&mut self) -> Step {
        let redelivers = self.may_redeliver();
        if redelivers
            && self.sent.is_empty()
            && let Some(redelivery) = self.redelivery.take()
        {
            return Step::Redeliver(redelivery);
        }
        let room = self.sent.len() < self.window && !redelivers;
        if room && let Some(job) = self.again.pop_front() {
            return Step::Job(Some(job));
        }
        if self.queue_ended && self.sent.is_empty() {
            return Step::Job(None);
        }
        let (asked, asks) = (&mut self.asked, self.redelivery.is_none() && !self.asks_ended);
        let (queue, sent, more) = (&mut self.queue, self.sent.front_mut(), room && !self.queue_ended);
        let oldest = async {
            match sent {
                Some(sent) => (&mut sent.receipt).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            receipt = oldest => Step::Receipt(receipt),
            redelivery = asked.recv(), if asks => Step::Asked(redelivery),
            job = queue.recv(), if more => {
                self.queue_ended = job.is_none();
                Step::Job(job)
            }
        }
    }

    async fn deliver(&mut self, mut job: Job) -> Result<bool, Gone> {
        self.without_buried(&mut job);
        if !self.taken_over {
            self.again.push_front(job);
            return self.take_over().await;
        }
        let batch = match self.not_held(&job.batch) {
            Ok(batch) => batch,
            Err(fault) => {
                self.report(LaneNews::Failed(fault)).await?;
                return Ok(false);
            }
        };
        let at = Instant::now();
        self.between = job.batch.end().is_some();
        // Of an exactly-once sink also a batch without events has an end to be stored.
        let stored = if batch.is_none() { Stored::Held } else { Stored::Nothing };
        let stores_empty = self.exactly_once && self.plan.stores_ends_alone();
        let Some(batch) = batch.filter(|batch| stores_empty || !batch.is_empty()) else {
            // It is there, or its only event was given up; the receipt keeps its place in the order.
            let receipt: Receipt = Box::pin(async { Ok(Delivered::default()) });
            self.sent.push_back(Sent { job, receipt, at, stored });
            return Ok(true);
        };
        let Some(sink) = &mut self.open else { return Ok(true) };
        let delivery = Delivery { seq: job.seq, epoch: self.epoch };
        match sink.deliver(batch, delivery).await {
            Ok(receipt) => {
                self.sent.push_back(Sent { job, receipt, at, stored: Stored::Yes });
                Ok(true)
            }
            Err(fault) => {
                // What was acknowledged before the failure is not to be sent again. The batch's own turn comes after those sent
                // before it, which `failed` puts in front.
                // One event's fault breaks no connection: the answers to the batches on the way are worth waiting for.
                let waits = fault.class() == Class::Data;
                while let Some(sent) = self.sent.front_mut() {
                    let answer = match waits {
                        true => Some((&mut sent.receipt).await),
                        false => (&mut sent.receipt).now_or_never(),
                    };
                    let Some(Ok(delivered)) = answer else { break };
                    self.acknowledged(delivered).await?;
                }
                self.again.push_front(job);
                self.failed(fault).await
            }
        }
    }

    /// The sink is not used again; everything unacknowledged is to be delivered again, in order.
    async fn failed(&mut self, fault: Fault) -> Result<bool, Gone> {
        self.open = None;
        self.taken_over = false;
        self.between = self.standing.as_ref().is_none_or(Standing::is_between);
        while let Some(sent) = self.sent.pop_back() {
            self.again.push_front(sent.job);
        }
        if fault.class() == Class::Data && self.letters.is_some() {
            match self.bury(&fault).await? {
                Buried::Yes => return Ok(true),
                Buried::Not(Some(fault)) => return self.gave_up_trying(fault).await,
                Buried::Not(None) => {}
            }
        }
        self.gave_up_trying(fault).await
    }

    /// A fault that no dead letter mends.
    async fn gave_up_trying(&mut self, fault: Fault) -> Result<bool, Gone> {
        self.attempts += 1;
        let spent = !self.retry.allows_another(self.attempts);
        if self.waited_for && (!fault.is_retry() || spent) {
            // With the pipeline drained nobody waits for this sink any more: a quorum did without it.
            if self.queue.is_closed() {
                return self.give_rest_up().await;
            }
            self.report(LaneNews::Failed(fault)).await?;
            return Ok(false);
        }
        if !self.waited_for && fault.class() == Class::Data && self.give_event_up(&fault).await? {
            return Ok(true);
        }
        // Closed once everything is settled: nobody waits for this sink any more, a quorum did without it.
        if self.is_closing {
            return self.give_rest_up().await;
        }
        if spent && let Some(job) = self.next_in_line() {
            self.give_up(job, fault).await?;
            return Ok(true);
        }
        if self.queue_ended && self.again.is_empty() {
            return Ok(false);
        }
        // Also when the attempts are spent and there is nothing to give up, so that the next batch finds the sink well.
        let pause = self.retry.pause(self.attempts, random());
        self.report(LaneNews::Troubled { fault, attempt: self.attempts, pause }).await?;
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            () = self.closing.notified(), if !self.is_closing => self.is_closing = true,
        }
        Ok(true)
    }

    /// Takes the event that cannot be delivered out of its batch; false when the fault does not say which one it is.
    async fn give_event_up(&mut self, fault: &Fault) -> Result<bool, Gone> {
        let named = |job: &mut Job| {
            let id = job
                .batch
                .events()
                .map(|e| e.id())
                .find(|id| fault.event_id() == Some(id.to_string().as_str()))?;
            job.batch = Arc::new(job.batch.without(id));
            Some(())
        };
        if self.again.iter_mut().find_map(named).is_none() {
            return Ok(false);
        }
        self.attempts = 0;
        self.report(LaneNews::EventGivenUp).await?;
        Ok(true)
    }

    /// The batch whose turn it is, if there is one.
    fn next_in_line(&mut self) -> Option<Job> {
        self.again.pop_front().or_else(|| self.queue.try_recv().ok())
    }

    /// The attempts are spent: this batch will never reach the sink.
    async fn give_up(&mut self, job: Job, fault: Fault) -> Result<(), Gone> {
        let pause = self.retry.pause(self.attempts, random());
        self.report(LaneNews::Troubled { fault, attempt: self.attempts, pause }).await?;
        self.attempts = 0;
        self.report(LaneNews::GivenUp { seq: job.seq, events: job.batch.len() as u64 }).await
    }

    /// The lane ends with batches left: nothing is dropped without being counted.
    async fn give_rest_up(&mut self) -> Result<bool, Gone> {
        while let Some(Job { seq, batch }) = self.next_in_line() {
            self.report(LaneNews::GivenUp { seq, events: batch.len() as u64 }).await?;
        }
        Ok(false)
    }

    async fn report(&mut self, what: LaneNews) -> Result<(), Gone> {
        self.reports.send(LaneReport { sink: self.sink, what }).await.map_err(|_| Gone)
    }
}

/// A number in 0..1 for jitter: the place of a fresh hash key needs no generator and no seed.
pub(crate) fn random() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let bits = std::hash::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}
