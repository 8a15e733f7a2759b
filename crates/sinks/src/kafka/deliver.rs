//! Delivery.
//!
//! A batch is encoded as a whole, then its records are handed to the client, which sends, waits and sends again by itself
//! within `send_timeout_secs`. Why no order is broken and nothing lost:
//!
//! - One producer, idempotent: within a partition records are stored in the order of `send`, each once, however often a
//!   request is repeated.
//! - A receipt waits for the reports of its batch and of every batch before it (`reports`).
//! - Any failed record ends the sink: what has no receipt is delivered again, from the first such batch, by a producer that
//!   begins after this one came to its end (`producer`). So disorder is only a contiguous replay.
//!
//! **Exactly once.** A transaction ends with the record of its position, written by the same producer:
//!
//! ```text
//! begin  part 1 …  part 2 …  batch with an end …  position   commit │ begin …
//!        └ staged: a receipt once it is stored    └──────────────── the receipt of the last
//! ```
//!
//! Nothing of the next transaction is produced before the commit is answered; its first batch is encoded meanwhile. A commit
//! whose answer is lost is a `Retry`: the next `take_over` fences, which makes the coordinator finish or abort it, and then
//! reads what holds. A staged part is thrown away with the producer: aborted at once, or by whoever takes over.

use super::config::{CreateTopics, Settings};
use super::error::{fault, of};
use super::native;
use super::positions::{Positions, create_topic};
use super::producer::{Producer, Stage};
use super::record::{Record, Records, too_large};
use super::reports::{NO_EVENT, opaque, timestamp};
use crate::shared::relay::blocking;
use async_trait::async_trait;
use deltaforge_core::fault::{Class, Kind};
use deltaforge_core::position::{End, Position};
use deltaforge_core::sink::{Delivery, Held, Receipt, Sink, SinkContext};
use deltaforge_core::task::{Task, spawn};
use deltaforge_core::{Batch, EventId, Fault};
use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseRecord, Producer as _};
use std::sync::Arc;
use std::time::Duration;

/// How many records are handed over before others on the same thread have their turn.
const TURN: usize = 1024;

/// An open sink.
pub(super) struct KafkaSink {
    producer: Arc<Producer>,
    settings: Arc<Settings>,
    records: Records,
    /// Topics that exist or were made, as far as the list of `records` was looked through.
    made: usize,
    once: Option<Once>,
    /// Set while a delivery is under way: still set at the next one, the delivery was cancelled halfway.
    midway: bool,
}

/// What only an exactly-once sink has.
struct Once {
    positions: Positions,
    recovered: Option<Held>,
    taken_over: bool,
    /// The last event ever handed over.
    last: EventId,
    /// Whether a transaction is open.
    begun: bool,
    commit: Option<Task<Result<(), Fault>>>,
}

impl KafkaSink {
    pub(super) fn new(
        producer: Producer,
        settings: Arc<Settings>,
        context: &SinkContext,
        once: Option<(Positions, Option<Held>)>,
    ) -> KafkaSink {
        let once = once.map(|(positions, recovered)| Once {
            positions,
            recovered,
            taken_over: false,
            last: EventId::default(),
            begun: false,
            commit: None,
        });
        let records = Records::new(&settings, context);
        KafkaSink { producer: Arc::new(producer), settings, records, made: 0, once, midway: false }
    }

    /// Makes the topics that were not met before.
    async fn make_topics(&mut self) -> Result<(), Fault> {
        let Some(create) = &self.settings.create_topics else { return Ok(()) };
        if self.records.topics().len() < self.made {
            self.made = 0;
        }
        while let Some(name) = self.records.topics().get(self.made) {
            let made = make_topic(&self.settings, create, name);
            tokio::select! {
                biased;
                fault = self.producer.reports().failed() => return Err(fault),
                made = made => made?,
            }
            self.made += 1;
        }
        Ok(())
    }

    /// The commit before, if any, is answered; a transaction is open.
    async fn begin(&mut self) -> Result<(), Fault> {
        let Some(once) = &mut self.once else { return Ok(()) };
        if !once.taken_over {
            return Err(Fault::bug("kafka.not_taken_over", "a delivery before take_over"));
        }
        if let Some(commit) = &mut once.commit {
            let outcome = tokio::select! {
                biased;
                outcome = commit => outcome,
                // The client tries on, even where a broker refuses for good.
                fault = self.producer.reports().failed() => return Err(fault),
            };
            once.commit = None;
            outcome??;
        }
        if !once.begun {
            let begun = self.producer.client().begin_transaction();
            begun.map_err(|error| of(&error, "beginning a transaction"))?;
            self.producer.stage(Stage::Open);
            self.producer.reports().begun();
            once.begun = true;
        }
        Ok(())
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Receipt, Fault> {
        let bytes = self.records.encode(batch)?;
        self.make_topics().await?;
        self.begin().await?;
        let end = if self.once.is_some() { batch.end() } else { None };
        let position = match (&self.once, end) {
            (Some(once), Some(end)) => Some(position(once, batch, end)),
            _ => None,
        };
        let count = self.records.records().len() + usize::from(position.is_some());
        let reports = self.producer.reports();
        let (number, receipt) = reports.open(batch.clone(), count, position.is_some(), bytes);
        if let Some(fault) = reports.fault() {
            return Err(fault);
        }
        self.produce(batch, number).await?;
        if let Some(once) = &mut self.once
            && let Some(last) = batch.last_id()
        {
            once.last = last;
        }
        if let Some(position) = position {
            self.commit(&position, number).await?;
        }
        let producer = self.producer.clone();
        Ok(Box::pin(async move {
            match receipt.await {
                Ok(result) => result,
                Err(_) => Err(given_up(&producer)),
            }
        }))
    }

    async fn produce(&self, batch: &Batch, number: u32) -> Result<(), Fault> {
        for (count, record) in self.records.records().iter().enumerate() {
            if count % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            self.room(|| self.send(batch, record, number)).await?;
        }
        Ok(())
    }

    /// Repeats `send` until there was room for it in the client's queue.
    async fn room(&self, send: impl Fn() -> Result<bool, Fault>) -> Result<(), Fault> {
        if send()? {
            return Ok(());
        }
        let reports = self.producer.reports();
        loop {
            let changed = reports.changed();
            tokio::pin!(changed);
            // From here on no report is missed.
            changed.as_mut().enable();
            if let Some(fault) = reports.fault() {
                return Err(fault);
            }
            if send()? {
                return Ok(());
            }
            changed.await;
        }
    }

    /// Hands one record over; false when the client's queue is full.
    fn send(&self, batch: &Batch, record: &Record, number: u32) -> Result<bool, Fault> {
        let mut sent = BaseRecord::with_opaque_to(self.records.topic(record), opaque(number, record.event))
            .key(self.records.key(record))
            .timestamp(timestamp(record.time));
        sent.payload = self.records.value(record);
        sent.headers = self.records.headers(record);
        match self.producer.client().send(sent) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(Code::QueueFull), _)) => Ok(false),
            Err((error, _)) => Err(self.refused(&error, batch, record)),
        }
    }

    #[cold]
    fn refused(&self, error: &KafkaError, batch: &Batch, record: &Record) -> Fault {
        let event = batch.event(record.event as usize).map(|event| event.id()).unwrap_or_default();
        match error.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge) => {
                let size = self.records.key(record).len() + self.records.value(record).map_or(0, <[u8]>::len);
                too_large(size, self.settings.message_max_bytes, event)
            }
            _ => self
                .explained(of(error, &format!("handing a record for `{}` over", self.records.topic(record)))),
        }
    }

    /// What made the client refuse is told by what it reported first.
    fn explained(&self, fault: Fault) -> Fault {
        let reports = self.producer.reports();
        reports.fault().unwrap_or_else(|| reports.judged(fault))
    }

    /// Produces the position, and begins the commit.
    async fn commit(&mut self, position: &(String, Vec<u8>), number: u32) -> Result<(), Fault> {
        let topic = self.settings.positions_topic.as_str();
        self.room(|| {
            let record = BaseRecord::with_opaque_to(topic, opaque(number, NO_EVENT))
                .partition(0)
                .key(position.0.as_str())
                .payload(position.1.as_slice());
            match self.producer.client().send(record) {
                Ok(()) => Ok(true),
                Err((KafkaError::MessageProduction(Code::QueueFull), _)) => Ok(false),
                Err((error, _)) => Err(self.explained(of(&error, "handing the position over"))),
            }
        })
        .await?;
        let Some(once) = &mut self.once else { return Ok(()) };
        once.begun = false;
        let producer = self.producer.clone();
        // All records are reported within `send_timeout_secs`; then as much again for the coordinator.
        let limit = self.settings.send_timeout * 2;
        producer.stage(Stage::Committing);
        once.commit = Some(spawn("kafka commit", async move {
            let client = producer.client().clone();
            let outcome = blocking(move || Ok(native::commit(&client, limit))).await?;
            match outcome {
                Ok(()) => {
                    producer.stage(Stage::Outside);
                    producer.reports().ended();
                    producer.reports().committed(number);
                    Ok(())
                }
                Err((code, text)) => {
                    let fault = producer.reports().fault().unwrap_or_else(|| commit_fault(code, &text));
                    let fault = producer.reports().judged(fault);
                    producer.reports().fail(fault.clone());
                    Err(fault)
                }
            }
        }));
        Ok(())
    }

    /// Waits for all receipts, and for the commit.
    async fn settled(&mut self) -> Result<(), Fault> {
        self.producer.reports().settled().await?;
        match self.once.as_mut().and_then(|once| once.commit.take()) {
            Some(commit) => commit.await?,
            None => Ok(()),
        }
    }
}

fn commit_fault(code: Code, text: &str) -> Fault {
    let fault = fault(code, "the commit failed", text);
    match fault.class() {
        Class::Config | Class::Fenced => fault,
        // Whether it holds is found when the sink takes over again.
        _ => Fault::retry("kafka.commit_unknown", fault.message().to_owned()).kind(fault.kind_of()),
    }
}

#[cold]
fn given_up(producer: &Producer) -> Fault {
    let fault = producer.reports().fault();
    fault.unwrap_or_else(|| Fault::retry("kafka.given_up", "the producer was given up").kind(Kind::Connect))
}

/// Key and value of the record that says where `batch` ends.
fn position(once: &Once, batch: &Batch, end: &End) -> (String, Vec<u8>) {
    let last = batch.last_id().unwrap_or(once.last);
    (once.positions.key(), once.positions.identity.write(None, Some((&end.position, last))))
}

/// Makes a topic as `create_topics` says.
pub(super) async fn make_topic(settings: &Settings, create: &CreateTopics, name: &str) -> Result<(), Fault> {
    let mut topic = NewTopic::new(name, create.partitions, TopicReplication::Fixed(create.replication));
    for (key, value) in &create.config {
        topic = topic.set(key, value);
    }
    create_topic(&settings.client_config(), topic, settings.send_timeout).await
}

#[async_trait]
impl Sink for KafkaSink {
    async fn deliver(&mut self, batch: Arc<Batch>, _: Delivery) -> Result<Receipt, Fault> {
        if std::mem::replace(&mut self.midway, true) {
            return Err(Fault::retry("kafka.given_up", "a delivery was given up halfway"));
        }
        if let Some(fault) = self.producer.reports().fault() {
            return Err(fault);
        }
        match self.write(&batch).await {
            Ok(receipt) => {
                self.midway = false;
                Ok(receipt)
            }
            Err(fault) => {
                // An event that cannot be delivered is not the fault of the batches before it: their receipts come first.
                if fault.event_id().is_some() {
                    let _ = self.settled().await;
                }
                Err(self.explained_event(fault))
            }
        }
    }

    fn recovered(&self) -> Option<&Held> {
        self.once.as_ref()?.recovered.as_ref()
    }

    async fn take_over(&mut self, _: &Position) -> Result<Option<Held>, Fault> {
        let limit = self.settings.send_timeout;
        let Some(once) = &mut self.once else { return Ok(None) };
        self.producer
            .call(move |client| {
                client
                    .init_transactions(limit)
                    .map_err(|error| of(&error, "taking over the transactional id"))
            })
            .await?;
        let positions = once.positions.clone();
        let held = self.producer.call(move |_| positions.exact()).await?;
        once.last = held.as_ref().map(|held| held.event).unwrap_or_default();
        once.taken_over = true;
        Ok(held)
    }

    async fn close(mut self: Box<Self>) {
        if !self.midway {
            let open = self.once.as_ref().is_some_and(|once| once.begun);
            // What is staged will be thrown away: nobody waits for it.
            if !open {
                let _ = self.settled().await;
            }
        }
    }
}

impl KafkaSink {
    /// A fault that names an event stands; any other gives way to what was reported first.
    fn explained_event(&self, fault: Fault) -> Fault {
        if fault.event_id().is_some() { fault } else { self.explained(fault) }
    }
}

/// How long an open sink waits for the one before it to come to its end.
pub(super) fn patience(settings: &Settings) -> Duration {
    settings.send_timeout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_without_an_answer_is_tried_again() {
        assert_eq!(commit_fault(Code::OperationTimedOut, "x").code(), "kafka.commit_unknown");
        assert!(commit_fault(Code::State, "x").is_retry());
        assert_eq!(commit_fault(Code::Fenced, "x").class(), Class::Fenced);
    }
}
