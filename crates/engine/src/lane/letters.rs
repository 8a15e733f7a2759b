//! Events that a sink can never take: they become dead letters, and dead letters are given to the sink again.
//!
//! ```text
//!   deliver ── refused, naming event e ──► store e ── answered ──► deliver the batch without e
//!                                             └ no answer: a failed attempt like any other, e comes again
//! ```
//!
//! A redelivery is a batch of its own, beside the numbered ones: it waits until nothing is in flight and the last batch
//! ended with a transaction. An exactly-once sink gets it with the position that its target holds already, so that event and
//! position are stored in one step and the stream goes on from where it was; what the target tells as its last event stays
//! that of the stream ([`Batch::last_id`]), as the stream would never meet the other one again.

use super::{Gone, Job, LaneNews, Running};
use crate::dead_letters::{DeadLetters, Redelivery};
use deltaforge_core::batch::Batch;
use deltaforge_core::position::{BatchSeq, End};
use deltaforge_core::sink::{Delivered, Delivery};
use deltaforge_core::{EventId, Fault, Position};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What became of an event that cannot be delivered.
pub(super) enum Buried {
    /// It is stored, and out of its batch.
    Yes,
    /// It is not, because of the fault, or because the sink did not say which event it is.
    Not(Option<Fault>),
}

/// Events that are dead letters and whose transaction the target does not hold yet. When its parts are lost it is read again
/// and meets them again: they are taken out before they are refused, which would lose the parts once more, without end.
pub(crate) type BuriedEvents = Arc<Mutex<HashSet<EventId>>>;

fn lock(buried: &BuriedEvents) -> MutexGuard<'_, HashSet<EventId>> {
    buried.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An end was stored: what came before it does not come again.
pub(super) fn forget(buried: &BuriedEvents) {
    lock(buried).clear();
}

impl Running {
    /// Takes out of a batch what was buried before the pipeline began again.
    pub(super) fn without_buried(&self, job: &mut Job) {
        let buried = lock(&self.buried);
        if buried.is_empty() {
            return;
        }
        let found: Vec<EventId> =
            job.batch.events().map(|e| e.id()).filter(|id| buried.contains(id)).collect();
        for id in found {
            job.batch = Arc::new(job.batch.without(id));
        }
    }

    /// Stores the event that the fault names and takes it out of its batch. Everything unacknowledged is in `again`.
    pub(super) async fn bury(&mut self, fault: &Fault) -> Result<Buried, Gone> {
        let Some(letters) = &self.letters else { return Ok(Buried::Not(None)) };
        let Some((index, id)) = self.named(fault) else { return Ok(Buried::Not(None)) };
        let position = self.position_before(index);
        let Some(job) = self.again.get_mut(index) else { return Ok(Buried::Not(None)) };
        let put = letters.put(&job.batch, id, self.plan.id(), &self.context, fault, position.as_ref());
        if let Err(why) = put.await {
            return Ok(Buried::Not(Some(why)));
        }
        job.batch = Arc::new(job.batch.without(id));
        lock(&self.buried).insert(id);
        self.attempts = 0;
        self.report(LaneNews::EventStored(fault.clone())).await?;
        Ok(Buried::Yes)
    }

    /// The unacknowledged batch that holds the event, and its id.
    fn named(&self, fault: &Fault) -> Option<(usize, EventId)> {
        let wanted = fault.event_id()?;
        let in_batch = |batch: &Batch| batch.events().map(|e| e.id()).find(|id| id.to_string() == wanted);
        self.again.iter().enumerate().find_map(|(index, job)| Some((index, in_batch(&job.batch)?)))
    }

    /// The last whole position before a batch.
    fn position_before(&self, index: usize) -> Option<Position> {
        let mut ends = self.again.iter().take(index).filter_map(|job| job.batch.end());
        ends.next_back().map(|end| end.position.clone()).or_else(|| self.acknowledged_to.clone())
    }

    /// Whether dead letters wait and their turn can come: then no further batch is taken.
    pub(super) fn may_redeliver(&self) -> bool {
        let between = self.between && self.again.is_empty();
        let knows = !self.exactly_once
            || match &self.standing {
                Some(standing) => standing.is_between(),
                None => self.begin.get().is_some(),
            };
        self.redelivery.is_some() && between && knows
    }

    /// Delivers one dead letter; the others follow in the next steps.
    pub(super) async fn redeliver(&mut self, mut redelivery: Redelivery) -> Result<bool, Gone> {
        if redelivery.answer.is_closed() {
            return Ok(true); // Nobody would take them out of the queue.
        }
        if !self.taken_over {
            self.redelivery = Some(redelivery);
            return self.take_over().await;
        }
        let Some((id, batch)) = redelivery.letters.pop_front() else {
            // Who asked may be gone.
            let _ = redelivery.answer.send(redelivery.delivered);
            return Ok(true);
        };
        let letters = self.letters.clone();
        if is_gone(letters.as_ref(), id).await {
            // Another request has delivered or purged it.
            self.redelivery = Some(redelivery);
            return Ok(true);
        }
        match self.deliver_letter(batch).await {
            Ok(_) => {
                // At once: whoever asked may have stopped waiting.
                if let Some(letters) = letters {
                    letters.take_out(id).await;
                }
                redelivery.delivered.push(id);
            }
            Err(fault) => {
                tracing::warn!(
                    pipeline = self.context.pipeline,
                    sink_id = self.plan.id(),
                    letter = id,
                    code = fault.code(),
                    reason = fault.message(),
                    "a dead letter cannot be delivered"
                );
                // The contract: after a fault a sink is not used again.
                self.open = None;
                self.taken_over = false;
            }
        }
        self.redelivery = Some(redelivery);
        Ok(true)
    }

    async fn deliver_letter(&mut self, batch: Batch) -> Result<Delivered, Fault> {
        let end = |position: &Position| End { position: position.clone(), events_done: 0 };
        let batch = batch.beside(self.standing.as_ref().map(|standing| end(standing.from())));
        let Some(sink) = &mut self.open else {
            return Err(Fault::retry("sink.dropped", "the sink is not open"));
        };
        // Beside the numbered ones, which begin with 1.
        let delivery = Delivery { seq: BatchSeq(0), epoch: self.epoch };
        sink.deliver(Arc::new(batch), delivery).await?.await
    }
}

/// Whether a letter is no longer in the queue.
async fn is_gone(letters: Option<&DeadLetters>, id: u64) -> bool {
    match letters {
        Some(letters) => !letters.has(id).await,
        None => false,
    }
}
