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
//! **Exactly once.** A transaction holds the record of its position, written by the same producer:
//!
//! ```text
//! begin  part 1 …  part 2 …  position E₁, batch with an end …  position E₂, batch with an end …  commit │ begin …
//!        └ staged: a receipt once it is stored    └─ its receipt is the commit's    └─ joined
//! ```
//!
//! Nothing of the next transaction is produced before the commit is answered; its first batch is encoded meanwhile. A commit
//! whose answer is lost is a `Retry`: the next `take_over` fences, which makes the coordinator finish or abort it, and then
//! reads what holds. A staged part is thrown away with the producer: aborted at once, or by whoever takes over.
//!
//! A transaction costs the same round trips whatever it holds, so a batch that comes while the commit before it has not begun
//! joins the open transaction. All of it takes effect or nothing: the last position of the partition is that of the last
//! batch, and what lies before it is there. Only whole transactions of the source join: a part must get its receipt before
//! the commit, which the batch before it would hold up. A batch that fails before its first record was handed over leaves
//! those before it to be committed; one that fails later takes them with it, and they are delivered again.
//!
//! The position goes before the records of its batch, so that its partition is added to the transaction with theirs. Where it
//! stands in the transaction makes no difference to when it counts.

use super::blocking;
use super::config::{CreateTopics, Settings};
use super::error::{fault, of};
use super::native;
use super::positions::{Positions, create_topic};
use super::producer::{ABORT, Producer, Stage};
use super::record::{Record, Records, too_large};
use super::reports::{NO_EVENT, opaque, timestamp};
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
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How many records are handed over before others on the same thread have their turn.
const TURN: usize = 1024;
/// How long a commit waits for another batch. The partitions are added to the transaction meanwhile.
const JOIN: Duration = Duration::from_millis(2);
/// How old a transaction is at most that batches still join: committed readers wait so long.
const TOGETHER: Duration = Duration::from_millis(100);
/// The answer to a commit comes before its markers are written, and until they are the coordinator takes no partition of the
/// next transaction; asked too early, the client waits 20 ms before it asks again.
const MARKERS: Duration = Duration::from_millis(3);

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
    /// The batch that is handed over at present, from its first record on.
    handed: Option<u32>,
}

/// What only an exactly-once sink has.
struct Once {
    positions: Positions,
    recovered: Option<Held>,
    taken_over: bool,
    /// The last event ever handed over.
    last: EventId,
    /// When the open transaction was begun.
    begun: Option<Instant>,
    /// The last batch with an end in the open transaction.
    ended: Option<u32>,
    commit: Option<Commit>,
    /// When the last commit was answered.
    committed: Option<Instant>,
}

impl Once {
    /// Whether the open transaction holds what no commit is to come for.
    fn is_staged(&self) -> bool {
        self.begun.is_some() && self.commit.is_none()
    }
}

/// A commit that waits for other batches, or is under way.
struct Commit {
    task: Task<Result<(), Fault>>,
    word: Option<oneshot::Sender<Word>>,
}

/// What a commit that waits is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// Another batch joins the transaction; its own commit follows.
    Joined,
    /// No other batch joins.
    Now,
}

/// Waits for another batch; whether it came. Said before the commit begins, it counts.
async fn joined(mut word: oneshot::Receiver<Word>) -> bool {
    if let Ok(said) = tokio::time::timeout(JOIN, &mut word).await {
        return said == Ok(Word::Joined);
    }
    // From here on nobody is told that it was heard.
    word.close();
    word.try_recv() == Ok(Word::Joined)
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
            begun: None,
            ended: None,
            commit: None,
            committed: None,
        });
        let records = Records::new(&settings, context);
        KafkaSink {
            producer: Arc::new(producer),
            settings,
            records,
            made: 0,
            once,
            midway: false,
            handed: None,
        }
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
                outcome = &mut commit.task => outcome,
                // The client tries on, even where a broker refuses for good.
                fault = self.producer.reports().failed() => return Err(fault),
            };
            (once.commit, once.begun, once.ended) = (None, None, None);
            outcome??;
            once.committed = Some(Instant::now());
        }
        if once.begun.is_none() {
            if let Some(committed) = once.committed {
                tokio::time::sleep_until(committed + MARKERS).await;
            }
            let begun = self.producer.client().begin_transaction();
            begun.map_err(|error| of(&error, "beginning a transaction"))?;
            self.producer.stage(Stage::Open);
            self.producer.reports().begun();
            once.begun = Some(Instant::now());
        }
        Ok(())
    }

    /// Has `batch` join the transaction whose commit waits, if it may.
    fn join(&mut self, batch: &Batch) {
        let Some(once) = &mut self.once else { return };
        let Some(word) = once.commit.as_mut().and_then(|commit| commit.word.take()) else { return };
        let fresh = once.begun.is_some_and(|begun| begun.elapsed() < TOGETHER);
        let say = if fresh && batch.end().is_some() { Word::Joined } else { Word::Now };
        if word.send(say).is_ok() && say == Word::Joined {
            once.commit = None;
        }
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Receipt, Fault> {
        self.join(batch);
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
        self.handed = Some(number);
        if let Some(position) = &position {
            self.send_position(position, number).await?;
        }
        self.produce(batch, number).await?;
        if let Some(once) = &mut self.once
            && let Some(last) = batch.last_id()
        {
            once.last = last;
        }
        if position.is_some() {
            self.commit(number);
        }
        self.handed = None;
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
        let told = reports.fault().or_else(|| self.producer.reason());
        reports.judged(told.unwrap_or(fault))
    }

    /// Produces the position.
    async fn send_position(&self, position: &(String, Vec<u8>), number: u32) -> Result<(), Fault> {
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
        .await
    }

    /// Commits the open transaction, unless another batch joins it: the last of it is `number`.
    fn commit(&mut self, number: u32) {
        let Some(once) = &mut self.once else { return };
        once.ended = Some(number);
        let producer = self.producer.clone();
        // All records are reported within `send_timeout_secs`; then as much again for the coordinator.
        let limit = self.settings.send_timeout * 2;
        let (word, said) = oneshot::channel();
        let task = spawn("kafka commit", async move {
            if joined(said).await {
                return Ok(());
            }
            producer.stage(Stage::Committing);
            let client = producer.client().clone();
            let outcome = blocking(move || {
                Ok(native::commit(&client, limit).map_err(|error| {
                    // It did not take effect, and committed readers wait for its end. The answer also tells when another
                    // owner was the reason, which that to a commit need not.
                    let aborted = error.requires_abort.then(|| client.abort_transaction(ABORT));
                    (error, aborted)
                }))
            })
            .await?;
            match outcome {
                Ok(()) => {
                    producer.stage(Stage::Outside);
                    producer.reports().ended();
                    producer.reports().committed(number);
                    Ok(())
                }
                Err((error, aborted)) => {
                    let fenced = match aborted {
                        Some(Ok(())) => {
                            producer.stage(Stage::Outside);
                            None
                        }
                        Some(Err(why)) => {
                            let told = producer.reason().unwrap_or_else(|| of(&why, "the abort failed"));
                            Some(told).filter(|fault| fault.class() == Class::Fenced)
                        }
                        None => None,
                    };
                    let told = fenced.or_else(|| producer.reports().fault());
                    let fault = told.unwrap_or_else(|| commit_fault(error.code, &error.text));
                    let fault = producer.reports().judged(fault);
                    producer.reports().fail(fault.clone());
                    Err(fault)
                }
            }
        });
        once.commit = Some(Commit { task, word: Some(word) });
    }

    /// Waits for all receipts, and for the commit.
    async fn settled(&mut self) -> Result<(), Fault> {
        // Nothing joins any more.
        let waits = self.once.as_mut().and_then(|once| once.commit.as_mut()?.word.take());
        waits.map(|word| word.send(Word::Now));
        self.producer.reports().settled().await?;
        let Some(once) = &mut self.once else { return Ok(()) };
        match once.commit.take() {
            Some(commit) => {
                (once.begun, once.ended) = (None, None);
                commit.task.await?
            }
            None => Ok(()),
        }
    }

    /// An event of a batch cannot be delivered: that is not the fault of the batches before it, whose receipts come first,
    /// unless it shares their transaction already.
    async fn without(&mut self, fault: &Fault) {
        match (self.handed, &self.once) {
            (Some(_), Some(_)) => return self.producer.reports().fail(fault.clone()),
            (Some(number), None) => self.producer.reports().fail_from(number, fault.clone()),
            (None, _) => {}
        }
        // The commit that the batch joined.
        if let Some(once) = &self.once
            && once.is_staged()
            && let Some(number) = once.ended
        {
            self.commit(number);
        }
        let _ = self.settled().await;
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
                if fault.event_id().is_some() {
                    self.without(&fault).await;
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
        // What is staged will be thrown away: nobody waits for it.
        if !self.midway && !self.once.as_ref().is_some_and(Once::is_staged) {
            let _ = self.settled().await;
        }
        self.producer.closed().await;
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

    #[tokio::test(start_paused = true)]
    async fn a_commit_waits_a_moment_for_others() {
        for (say, expected) in [(Some(Word::Joined), true), (Some(Word::Now), false), (None, false)] {
            let (word, said) = oneshot::channel();
            let commit = spawn("kafka commit", joined(said));
            if let Some(say) = say {
                word.send(say).unwrap();
                assert_eq!(commit.await.unwrap(), expected);
            } else {
                assert!(!commit.await.unwrap());
                assert!(word.send(Word::Joined).is_err(), "too late");
            }
        }
    }
}
