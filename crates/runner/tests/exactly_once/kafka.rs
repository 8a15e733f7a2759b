//! Into a Kafka topic, read by librdkafka with `read_committed`.

use super::support::random::Random;
use super::{Target, killed};
use deltaforge_testkit::ledger::Ledger;
use deltaforge_testkit::servers::{Kafka, KafkaOptions};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use std::time::{Duration, Instant};

const TOPIC: &str = "changes";
/// The longest that a consumer waits for the topic's end.
const PATIENCE: Duration = Duration::from_secs(120);

impl Target for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn sink(&self) -> String {
        format!(
            "{{ type: kafka, config: {{ id: k, brokers: '{}', topic: {TOPIC}, exactly_once: true, send_timeout_secs: 10, \
             create_topics: {{ partitions: 1, replication_factor: 1 }}, retry: {{ initial_ms: 50, max_ms: 500 }} }} }}",
            self.brokers()
        )
    }

    fn feed(&self, ledger: &mut Ledger) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.internal()).set("group.id", "ledger");
        config.set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        config.set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut from_the_start = TopicPartitionList::new();
        from_the_start.add_partition_offset(TOPIC, 0, Offset::Beginning).unwrap();
        consumer.assign(&from_the_start).unwrap();
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "the topic has no end: is a transaction left open?");
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(record)) => ledger.take(std::str::from_utf8(record.payload().unwrap()).unwrap()),
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(e)) => panic!("{e}"),
                None => {}
            }
        }
        // A committed reader stops in front of an open transaction: nothing may be left behind it.
        let (_, last_stable) = consumer.fetch_watermarks(TOPIC, 0, PATIENCE).unwrap();
        let position = consumer.position().unwrap().find_partition(TOPIC, 0).unwrap().offset();
        assert_eq!(position, Offset::Offset(last_stable));
    }

    fn disturb(&self, random: &mut Random) {
        if random.one_in(2) {
            self.pause();
        } else if random.one_in(4) {
            self.restart();
        }
    }

    fn calm(&self) {
        self.resume();
    }
}

#[test]
fn killed_again_and_again() {
    killed(&Kafka::start(&KafkaOptions::default()).unwrap(), 60, false);
}

#[test]
fn the_state_is_forgotten() {
    killed(&Kafka::start(&KafkaOptions::default()).unwrap(), 16, true);
}
