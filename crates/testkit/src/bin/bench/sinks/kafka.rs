//! Kafka, and its ceiling: a producer with the sink's settings that sends prebuilt records.

use super::{SAMPLE, Target};
use deltaforge_testkit::servers::{Kafka, KafkaOptions};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const LONGEST: Duration = Duration::from_secs(60);

/// Topics with so many partitions, on a broker that other such targets may share.
pub(crate) struct IntoKafka {
    kafka: Rc<Kafka>,
    partitions: i32,
    sample: Vec<OwnedMessage>,
}

/// The broker: what is deleted goes at once, so that no run pays for the one before.
pub(crate) fn broker() -> Kafka {
    let properties = vec![("log.segment.delete.delay.ms".to_owned(), "0".to_owned())];
    Kafka::start(&KafkaOptions { properties, ..KafkaOptions::default() }).expect("Kafka starts")
}

impl IntoKafka {
    pub(crate) fn new(kafka: Rc<Kafka>, partitions: i32) -> IntoKafka {
        IntoKafka { kafka, partitions, sample: Vec::new() }
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.kafka.brokers());
        config
    }

    /// The defaults of the sink; see `docs/src/guide/kafka.md`.
    fn producer(&self) -> ThreadedProducer<Counter> {
        let mut config = self.client();
        let settings = [
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("compression.type", "lz4"),
            ("linger.ms", "5"),
            ("partitioner", "murmur2_random"),
            ("queue.buffering.max.messages", "1000000"),
            ("queue.buffering.max.kbytes", "65536"),
            ("statistics.interval.ms", "5000"),
            ("message.timeout.ms", "30000"),
        ];
        for (key, value) in settings {
            config.set(key, value);
        }
        config.create_with_context(Counter::default()).expect("a producer")
    }

    /// Reads a topic as a committed consumer does, up to its end or until `take` has enough.
    fn read(&self, topic: &str, mut take: impl FnMut(&rdkafka::message::BorrowedMessage<'_>) -> bool) {
        let mut config = self.client();
        config
            .set("group.id", "bench")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut assigned = TopicPartitionList::new();
        for partition in 0..self.partitions {
            assigned.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
        }
        consumer.assign(&assigned).expect("assigned");
        let (mut open, mut heard) = (self.partitions, Instant::now());
        while open > 0 {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(record)) => {
                    heard = Instant::now();
                    if !take(&record) {
                        return;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) => panic!("reading {topic}: {error}"),
                None => assert!(heard.elapsed() < LONGEST, "{topic} is read"),
            }
        }
    }

    fn admin<R, F: Future<Output = R>>(
        &self,
        ask: impl FnOnce(AdminClient<DefaultClientContext>, AdminOptions) -> F,
    ) -> R {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let client = self.client().create().expect("a client");
        runtime.block_on(ask(client, AdminOptions::new().operation_timeout(Some(LONGEST))))
    }
}

/// Counts the records that are stored.
#[derive(Clone, Default)]
struct Counter {
    stored: Arc<AtomicU64>,
}

impl ClientContext for Counter {}

impl ProducerContext for Counter {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_ok() {
            self.stored.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Target for IntoKafka {
    fn name(&self) -> String {
        format!("kafka{}", self.partitions)
    }

    fn title(&self) -> String {
        match self.partitions {
            1 => "Kafka, 1 partition".into(),
            n => format!("Kafka, {n} partitions"),
        }
    }

    fn about(&self) -> String {
        "Kafka: one broker that is its own controller, heap 64 to 512 MiB, serial collector, first compiler only \
         (`-XX:TieredStopAtLevel=1`), no fsync of its own"
            .into()
    }

    fn pid(&self) -> u32 {
        self.kafka.pid()
    }

    fn prepare(&self, run: &str) {
        let topic = [NewTopic::new(run, self.partitions, TopicReplication::Fixed(1))];
        let made = self.admin(async |client, options| client.create_topics(&topic, &options).await);
        made.expect("an answer")[0].as_ref().expect("the topic is made");
    }

    fn sink(&self, run: &str, exactly_once: bool) -> String {
        let brokers = self.kafka.brokers();
        format!(
            "{{type: kafka, config: {{id: {run}, brokers: \"{brokers}\", topic: {run}, exactly_once: {exactly_once}}}}}"
        )
    }

    fn held(&self, run: &str) -> u64 {
        let mut count = 0;
        self.read(run, |_| {
            count += 1;
            true
        });
        count
    }

    fn clear(&self, run: &str) {
        let deleted = self.admin(async |client, options| client.delete_topics(&[run], &options).await);
        deleted.expect("an answer")[0].as_ref().expect("the topic is deleted");
    }

    fn sample(&mut self, run: &str) {
        let mut sample = Vec::new();
        self.read(run, |record| {
            sample.push(record.detach());
            sample.len() < SAMPLE
        });
        self.sample = sample;
    }

    fn filler(&self, run: &str, rows: u64, _: u64) -> Box<dyn FnOnce() + '_> {
        let producer = self.producer();
        producer.client().fetch_metadata(Some(run), LONGEST).expect("the broker answers");
        let topic = run.to_owned();
        Box::new(move || {
            for record in self.sample.iter().cycle().take(rows as usize) {
                send(&producer, &topic, record);
            }
            producer.flush(LONGEST).expect("all records are acknowledged");
            assert_eq!(producer.context().stored.load(Ordering::Relaxed), rows, "every record is stored");
        })
    }
}

/// Hands a record over as soon as there is room.
fn send(producer: &ThreadedProducer<Counter>, topic: &str, record: &OwnedMessage) {
    let mut next = BaseRecord::to(topic).key(record.key().unwrap_or_default());
    next = next.payload(record.payload().unwrap_or_default());
    next.timestamp = record.timestamp().to_millis();
    next.headers = record.headers().cloned();
    while let Err((error, again)) = producer.send(next) {
        assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
        std::thread::sleep(Duration::from_millis(1));
        next = again;
    }
}
