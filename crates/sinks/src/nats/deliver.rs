//! An open sink: prepares batches and hands them to the pump.

use super::exactly::{Last, Writer};
use super::message::{Limit, Messages};
use super::pump::{Job, Outcome};
use super::stream::Ask;
use async_trait::async_trait;
use deltaforge_core::sink::{Delivered, Delivery, Held, Receipt, Sink};
use deltaforge_core::task::Task;
use deltaforge_core::{Batch, EventId, Fault, Position};
use deltaforge_net::address::Address;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::{mpsc, oneshot, watch};

/// The pump, seen from the sink.
pub(super) struct Handle {
    pub(super) address: Address,
    pub(super) jobs: mpsc::Sender<Job>,
    pub(super) outcome: watch::Receiver<Outcome>,
    pub(super) task: Task<()>,
    /// The server's, as it has told last.
    pub(super) max_payload: Arc<AtomicUsize>,
}

impl Handle {
    /// The fault that ended the pump; waits for it.
    async fn failed(outcome: &mut watch::Receiver<Outcome>, address: &Address) -> Fault {
        match outcome.wait_for(|outcome| outcome.fault.is_some()).await.map(|outcome| outcome.fault.clone()) {
            Ok(Some(fault)) => fault,
            _ => Fault::retry("nats.connection_lost", format!("the connection to {address} was given up")),
        }
    }

    async fn give(&mut self, job: Job) -> Result<(), Fault> {
        // The channel is closed only after the fault was published.
        match self.jobs.send(job).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Self::failed(&mut self.outcome, &self.address).await),
        }
    }

    /// Waits until so many batches are acknowledged.
    async fn settled(&mut self, batches: u64) -> Result<(), Fault> {
        let settled = |o: &Outcome| o.fault.is_some() || o.acknowledged >= batches;
        match self.outcome.wait_for(settled).await {
            Ok(outcome) => outcome.fault.clone().map_or(Ok(()), Err),
            Err(_) => Err(Fault::bug("nats.pump_ended", "the pump ended without a fault")),
        }
    }
}

#[async_trait]
impl Ask for Handle {
    fn address(&self) -> &Address {
        &self.address
    }

    async fn ask(&mut self, subject: String, payload: Vec<u8>) -> Result<Option<Vec<u8>>, Fault> {
        let (answer, answered) = oneshot::channel();
        self.give(Job::Request { subject, payload, answer }).await?;
        match answered.await {
            Ok(answer) => Ok(answer),
            Err(_) => Err(Self::failed(&mut self.outcome, &self.address).await),
        }
    }
}

/// What only an exactly-once sink has.
pub(super) struct Exactly {
    pub(super) writer: Writer,
    pub(super) recovered: Option<Held>,
    pub(super) taken: bool,
    /// The end of the last whole batch.
    pub(super) before: Option<Position>,
    /// Events that were sent behind it.
    pub(super) inside: u64,
    /// The stream's last event that was sent.
    pub(super) last: EventId,
}

/// An open sink.
pub(super) struct NatsSink {
    pub(super) handle: Handle,
    pub(super) messages: Messages,
    /// The stream's, if it has one.
    pub(super) limit: Option<Limit>,
    pub(super) exactly: Option<Exactly>,
    /// Batches handed over.
    pub(super) begun: u64,
    /// Set while a delivery is under way: still set at the next one, the delivery was cancelled halfway.
    pub(super) midway: bool,
}

impl NatsSink {
    async fn hand_over(&mut self, batch: &Batch) -> Result<Receipt, Fault> {
        let before = self.exactly.as_ref().and_then(|exactly| exactly.before.as_ref());
        let last = self.exactly.as_ref().map_or_else(EventId::default, |exactly| exactly.last);
        let payload = self.handle.max_payload.load(Relaxed);
        let limit = match self.limit {
            Some(limit) if limit.bytes < payload => limit,
            _ => Limit { bytes: payload, setting: "the server's max_payload" },
        };
        let mut prepared = match self.messages.prepare(batch, before, last, limit) {
            Ok(prepared) => prepared,
            Err(fault) => {
                // An event that cannot be delivered is not the fault of the batches before it: their receipts come first.
                let _ = self.handle.settled(self.begun).await;
                return Err(fault);
            }
        };
        if let Some(exactly) = &mut self.exactly {
            prepared.before = exactly.inside;
            exactly.inside += if prepared.beside { 0 } else { prepared.len() as u64 };
            exactly.last = batch.last_id().unwrap_or(exactly.last);
        }
        let receipt: Receipt = if prepared.len() == 0 {
            self.handle.settled(self.begun).await?;
            Box::pin(std::future::ready(Ok(Delivered::default())))
        } else {
            let (done, receipt) = oneshot::channel();
            self.begun += 1;
            self.handle.give(Job::Batch { prepared, done }).await?;
            let (mut outcome, address) = (self.handle.outcome.clone(), self.handle.address.clone());
            Box::pin(async move {
                match receipt.await {
                    Ok(delivered) => Ok(delivered),
                    Err(_) => Err(Handle::failed(&mut outcome, &address).await),
                }
            })
        };
        if let (Some(exactly), Some(end)) = (&mut self.exactly, batch.end()) {
            (exactly.before, exactly.inside) = (Some(end.position.clone()), 0);
        }
        Ok(receipt)
    }

    async fn take_over(&mut self, from: &Position) -> Result<Option<Held>, Fault> {
        let Some(exactly) = &mut self.exactly else { return Ok(None) };
        let (last, seq) = exactly.writer.take_over(&mut self.handle).await?;
        self.handle.give(Job::Follow { last: seq }).await?;
        exactly.taken = true;
        let held = match last {
            Last::Ours { held, .. } | Last::Buried { held } => Some(held),
            Last::Nothing => None,
        };
        exactly.before = Some(held.as_ref().map_or(from, |held| &held.position).clone());
        exactly.inside = held.as_ref().map_or(0, |held| held.inside);
        exactly.last = held.as_ref().map_or_else(EventId::default, |held| held.event);
        Ok(held)
    }
}

#[async_trait]
impl Sink for NatsSink {
    async fn deliver(&mut self, batch: Arc<Batch>, _: Delivery) -> Result<Receipt, Fault> {
        if std::mem::replace(&mut self.midway, true) {
            let message = format!("a delivery to {} was given up halfway", self.handle.address);
            return Err(Fault::retry("nats.connection_lost", message));
        }
        if self.exactly.as_ref().is_some_and(|exactly| !exactly.taken) {
            return Err(Fault::bug(
                "nats.not_taken_over",
                "a delivery came before the stream was taken over",
            ));
        }
        let receipt = self.hand_over(&batch).await?;
        self.midway = false;
        Ok(receipt)
    }

    fn recovered(&self) -> Option<&Held> {
        self.exactly.as_ref()?.recovered.as_ref()
    }

    async fn take_over(&mut self, from: &Position) -> Result<Option<Held>, Fault> {
        NatsSink::take_over(self, from).await
    }

    async fn close(mut self: Box<Self>) {
        if !self.midway {
            let _ = self.handle.settled(self.begun).await;
        }
        self.handle.task.abort();
    }
}
