//! The topic that holds how far each exactly-once sink came.
//!
//! One partition, compacted, one key per pipeline and sink, shared by all pipelines of a cluster. The last position of a
//! transaction counts. Reading back:
//!
//! ```text
//! offset  low ──────────────────────────── stable ─────────── high
//!                read_committed sees this │  some transaction is open here: ours is not, once we have taken over
//! ```
//!
//! After `init_transactions` every transaction of ours is committed or aborted, markers included. What of ours is committed
//! lies below `high` as it was then. Below the last stable offset a committed reader sees it. Between the two, where
//! another pipeline's open transaction hides everything, an uncommitted reader tells whether there is a record of ours at
//! all: usually not, and then nothing has to be waited for; else the stable offset must pass it.

use super::error::{fault, of};
use crate::shared::held::Identity;
use deltaforge_core::Fault;
use deltaforge_core::fault::Kind;
use deltaforge_core::sink::Held;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// The records looked at first, from the end; then four times as many, and so on.
const FIRST_LOOK: i64 = 64;
const PAUSE: Duration = Duration::from_millis(20);

/// Where one sink's position is kept.
#[derive(Clone)]
pub(super) struct Positions {
    pub(super) config: ClientConfig,
    pub(super) topic: String,
    pub(super) identity: Identity,
    pub(super) limit: Duration,
}

/// A reader's errors come with its records and are judged there; the end of the topic is among them.
struct Reader;

impl ClientContext for Reader {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
    }
}

impl ConsumerContext for Reader {}

/// What a look came to.
pub(super) enum Look {
    NoTopic,
    Held(Option<Held>),
}

/// Makes a topic; that it exists already is as good.
///
/// # Errors
/// What the cluster answers.
pub(super) async fn create_topic(
    config: &ClientConfig,
    topic: NewTopic<'_>,
    limit: Duration,
) -> Result<(), Fault> {
    let what = format!("making the topic `{}`", topic.name);
    let admin: AdminClient<DefaultClientContext> = config.create().map_err(|e| of(&e, &what))?;
    let options = AdminOptions::new().request_timeout(Some(limit)).operation_timeout(Some(limit));
    let answers = admin.create_topics([&topic], &options).await.map_err(|e| of(&e, &what))?;
    match answers.into_iter().next() {
        Some(Err((_, code))) if code != Code::TopicAlreadyExists => Err(fault(code, &what, "")),
        _ => Ok(()),
    }
}

impl Positions {
    /// The key of this sink's records.
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.identity.pipeline, self.identity.sink)
    }

    /// Makes the topic when there is none.
    ///
    /// # Errors
    /// What the cluster answers.
    pub(super) async fn create(&self) -> Result<(), Fault> {
        let topic = NewTopic::new(&self.topic, 1, TopicReplication::Fixed(-1))
            .set("cleanup.policy", "compact")
            // Only closed segments are compacted.
            .set("segment.bytes", "16777216")
            .set("min.cleanable.dirty.ratio", "0.1");
        create_topic(&self.config, topic, self.limit).await
    }

    fn consumer(&self, isolation: &str) -> Result<BaseConsumer<Reader>, Fault> {
        let mut config = self.config.clone();
        config
            // A name is asked for; nothing is stored under it.
            .set("group.id", "deltaforge-positions")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true")
            // The end is told with the answer to a fetch: it is not to wait for records that may come.
            .set("fetch.wait.max.ms", "10")
            .set("isolation.level", isolation);
        config.create_with_context(Reader).map_err(|e| of(&e, "making a reader of positions"))
    }

    /// The last position that a committed reader sees at present, or that there is no such topic. Disturbs nobody.
    ///
    /// # Errors
    /// What the cluster answers.
    pub(super) fn look(&self) -> Result<Look, Fault> {
        let what = format!("asking for the topic `{}`", self.topic);
        let consumer = self.consumer("read_committed")?;
        let metadata = consumer.fetch_metadata(Some(&self.topic), self.limit).map_err(|e| of(&e, &what))?;
        let topic = metadata.topics().first();
        match topic.and_then(|topic| topic.error()).map(Code::from) {
            None if topic.is_some_and(|topic| !topic.partitions().is_empty()) => {}
            None | Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => return Ok(Look::NoTopic),
            Some(code) => return Err(fault(code, &what, "")),
        }
        let (low, stable) = self.bounds(&consumer)?;
        self.last_before(&consumer, low, stable).map(Look::Held)
    }

    /// The last committed position for certain. To be called after `init_transactions`, see above.
    ///
    /// # Errors
    /// What the cluster answers; `Retry` while another pipeline's transaction hides the answer.
    pub(super) fn exact(&self) -> Result<Option<Held>, Fault> {
        let committed = self.consumer("read_committed")?;
        let all = self.consumer("read_uncommitted")?;
        let (_, high) = self.bounds(&all)?;
        let (_, stable) = self.bounds(&committed)?;
        if let Some((hidden, _)) = self.scan(&all, stable, high)? {
            let start = Instant::now();
            while self.bounds(&committed)?.1 <= hidden {
                if start.elapsed() > self.limit {
                    return Err(self.hidden());
                }
                std::thread::sleep(PAUSE);
            }
        }
        let (low, stable) = self.bounds(&committed)?;
        self.last_before(&committed, low, stable)
    }

    fn hidden(&self) -> Fault {
        let message =
            format!("an open transaction of another pipeline hides the position in `{}`", self.topic);
        Fault::retry("kafka.position_hidden", message).kind(Kind::Timeout).hint(
            "it ends with its pipeline's next start, or after its transaction.timeout.ms; nothing to do",
        )
    }

    /// The first offset, and the one behind the last that the consumer may see.
    fn bounds(&self, consumer: &BaseConsumer<Reader>) -> Result<(i64, i64), Fault> {
        let start = Instant::now();
        loop {
            match consumer.fetch_watermarks(&self.topic, 0, self.limit) {
                Ok(bounds) => return Ok(bounds),
                Err(error) => {
                    let fault = of(&error, &format!("asking for the end of `{}`", self.topic));
                    // A topic that was just made is known everywhere after a moment.
                    if !fault.is_retry() || start.elapsed() > self.limit.min(Duration::from_secs(10)) {
                        return Err(fault);
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// The last record of ours below `end`, looking at a few from the end first.
    fn last_before(
        &self,
        consumer: &BaseConsumer<Reader>,
        low: i64,
        end: i64,
    ) -> Result<Option<Held>, Fault> {
        let (mut to, mut count) = (end, FIRST_LOOK);
        while to > low {
            let from = low.max(to - count);
            if let Some((_, value)) = self.scan(consumer, from, to)? {
                // A null value is how an operator takes a position away.
                let Some(value) = value else { return Ok(None) };
                return self.identity.read(&value).map_err(|why| self.unreadable(&why));
            }
            (to, count) = (from, count.saturating_mul(4));
        }
        Ok(None)
    }

    fn unreadable(&self, why: &str) -> Fault {
        let (key, topic) = (self.key(), &self.topic);
        let message = format!("the position stored in `{topic}` under `{key}` {why}");
        Fault::config("kafka.position_unreadable", message)
            .kind(Kind::Decode)
            .hint("somebody else writes to that topic: choose another positions_topic")
    }

    /// The last record of ours from `from` on and below `to`, as the consumer may see it: its offset and its value.
    #[allow(clippy::type_complexity, reason = "offset and value")]
    fn scan(
        &self,
        consumer: &BaseConsumer<Reader>,
        from: i64,
        to: i64,
    ) -> Result<Option<(i64, Option<Vec<u8>>)>, Fault> {
        if from >= to {
            return Ok(None);
        }
        let what = format!("reading `{}`", self.topic);
        let mut partition = TopicPartitionList::new();
        let assigned = partition
            .add_partition_offset(&self.topic, 0, Offset::Offset(from))
            .and_then(|()| consumer.assign(&partition));
        assigned.map_err(|e| of(&e, &what))?;
        let key = self.key();
        let (mut last, mut silent_since) = (None, Instant::now());
        loop {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(record)) => {
                    silent_since = Instant::now();
                    if record.offset() >= to {
                        return Ok(last);
                    }
                    if record.key() == Some(key.as_bytes()) {
                        last = Some((record.offset(), record.payload().map(<[u8]>::to_vec)));
                    }
                    if record.offset() == to - 1 {
                        return Ok(last);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(last),
                // Rights on the group are not needed: nothing is stored there.
                Some(Err(error)) if error.rdkafka_error_code() != Some(Code::GroupAuthorizationFailed) => {
                    let fault = of(&error, &what);
                    if !fault.is_retry() || silent_since.elapsed() > self.limit {
                        return Err(fault);
                    }
                }
                _ if silent_since.elapsed() > self.limit => {
                    return Err(fault(Code::OperationTimedOut, &what, ""));
                }
                _ => {}
            }
        }
    }
}
