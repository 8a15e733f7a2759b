//! What a consumer finds in a topic.

use deltaforge_testkit::servers::Kafka;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub partition: i32,
    pub key: Option<String>,
    pub value: Option<String>,
    pub headers: Vec<(String, String)>,
    pub time: i64,
}

/// The config of a sink that writes to `topic`, with more settings; the topic is made by the sink, with one partition.
pub fn config(kafka: &Kafka, topic: &str, more: Value) -> Value {
    let mut config = json!({
        "brokers": kafka.brokers(), "topic": topic, "send_timeout_secs": 20,
        "create_topics": { "partitions": 1, "replication_factor": 1 },
    });
    for (key, value) in more.as_object().expect("a map") {
        config[key] = value.clone();
    }
    config
}

/// A consumer at the door that lets everybody in.
pub fn consumer(kafka: &Kafka, isolation: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka.internal())
        .set("group.id", "test")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "10")
        .set("isolation.level", isolation);
    config.create().expect("a consumer")
}

/// All that a committed reader finds in a topic, partition by partition. Nothing, when there is no such topic.
pub fn records(kafka: &Kafka, topic: &str) -> Vec<Found> {
    records_as(kafka, topic, "read_committed")
}

/// As [`records`], with the reader's isolation.
pub fn records_as(kafka: &Kafka, topic: &str, isolation: &str) -> Vec<Found> {
    let consumer = consumer(kafka, isolation);
    let metadata = consumer.fetch_metadata(Some(topic), SOON).expect("metadata");
    let partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|p| p.id()).collect();
    let mut assigned = TopicPartitionList::new();
    for partition in &partitions {
        assigned.add_partition_offset(topic, *partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&assigned).expect("assigned");
    let (mut found, mut ended, start) = (Vec::new(), 0, Instant::now());
    while ended < partitions.len() {
        assert!(start.elapsed() < Duration::from_secs(60), "no end of `{topic}`: {} records", found.len());
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
                let headers = record.headers().map(|headers| {
                    headers.iter().map(|h| (h.key.to_owned(), text(h.value.unwrap_or_default()))).collect()
                });
                found.push(Found {
                    partition: record.partition(),
                    key: record.key().map(text),
                    value: record.payload().map(text),
                    headers: headers.unwrap_or_default(),
                    time: record.timestamp().to_millis().unwrap_or(-1),
                });
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    found
}

/// Waits until no transaction is open in a topic's first partition: a broker answers a commit before its markers are written.
pub fn settle(kafka: &Kafka, topic: &str) {
    let end =
        |isolation| consumer(kafka, isolation).fetch_watermarks(topic, 0, SOON).ok().map(|(_, end)| end);
    deltaforge_testkit::wait_for("every transaction to be over", SOON, || {
        end("read_committed") == end("read_uncommitted")
    });
}

/// The events of a topic.
pub fn events(kafka: &Kafka, topic: &str) -> Vec<Value> {
    let values = records(kafka, topic).into_iter().filter_map(|record| record.value);
    values.map(|value| serde_json::from_str(&value).expect("an event")).collect()
}
