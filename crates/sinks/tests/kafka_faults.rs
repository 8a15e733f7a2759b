//! The Kafka sink against a cluster that fails under load: what was acknowledged is there, in order, and exactly once means it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::kafka::{config, consumer, events};
use common::*;
use deltaforge_core::sink::{Receipt, SinkPlan};
use deltaforge_core::task::{Task, spawn};
use deltaforge_core::{Batch, Class, Fault};
use deltaforge_testkit::servers::{Kafka, KafkaOptions, KafkaSasl};
use deltaforge_testkit::wait_for_async;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const TOPIC: &str = "s";
/// Rows of a batch.
const ROWS: i64 = 20;

/// A stream of batches that goes on until it is told to stop, delivered as a lane does it.
struct Load {
    exact: bool,
    /// Rows with a receipt.
    acknowledged: AtomicI64,
    faults: AtomicUsize,
    stop: AtomicBool,
}

impl Load {
    fn new(exact: bool) -> Arc<Load> {
        Arc::new(Load {
            exact,
            acknowledged: AtomicI64::new(0),
            faults: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        })
    }

    fn plan(&self, kafka: &Kafka, more: Value) -> Arc<dyn SinkPlan> {
        let mut config = config(kafka, TOPIC, more);
        config["exactly_once"] = json!(self.exact);
        plan("kafka", config)
    }

    fn batch(&self, from: i64) -> Arc<Batch> {
        if self.exact { ended(from..from + ROWS) } else { batch(from..from + ROWS, 300) }
    }

    /// Starts to deliver. Comes to the codes of the faults on the way, or to a fault that waiting does not mend.
    fn start(self: &Arc<Load>, plan: &Arc<dyn SinkPlan>) -> Task<Result<Vec<&'static str>, Fault>> {
        let (load, plan) = (self.clone(), plan.clone());
        spawn("test", async move {
            let mut codes = Vec::new();
            loop {
                match load.attempt(&plan).await {
                    Ok(()) => return Ok(codes),
                    Err(fault) if fault.is_retry() => {
                        codes.push(fault.code());
                        load.faults.fetch_add(1, SeqCst);
                        tokio::time::sleep(Duration::from_millis(20)).await; // The lane's backoff.
                    }
                    Err(fault) => return Err(fault),
                }
            }
        })
    }

    async fn attempt(&self, plan: &Arc<dyn SinkPlan>) -> Result<(), Fault> {
        let mut sink = plan.open(&context()).await?;
        if self.exact {
            let held = sink.take_over(&origin()).await?;
            let told = held.map_or(0, |held| rows_at(held.position.as_json()));
            let acknowledged = self.acknowledged.swap(told, SeqCst);
            assert!(told >= acknowledged, "{told} is less than was acknowledged, {acknowledged}");
        }
        let mut window: VecDeque<Receipt> = VecDeque::new();
        let mut from = self.acknowledged.load(SeqCst);
        loop {
            if window.len() < 2 && !self.stop.load(SeqCst) {
                window.push_back(sink.deliver(self.batch(from), DELIVERY).await?);
                from += ROWS;
            } else if let Some(receipt) = window.pop_front() {
                receipt.await?;
                self.acknowledged.fetch_add(ROWS, SeqCst);
            } else {
                sink.close().await;
                return Ok(());
            }
        }
    }

    fn acknowledged(&self) -> i64 {
        self.acknowledged.load(SeqCst)
    }

    async fn more(&self, rows: i64) {
        let goal = self.acknowledged() + rows;
        wait_for_async("rows to be acknowledged", LIMIT, async || self.acknowledged() >= goal).await;
    }

    fn faults(&self) -> usize {
        self.faults.load(SeqCst)
    }

    async fn beyond(&self, faults: usize) {
        wait_for_async("a fault", LIMIT, async || self.faults() > faults).await;
    }

    /// Ends the load and gives the codes of the faults on the way.
    async fn finish(&self, delivering: Task<Result<Vec<&'static str>, Fault>>) -> Vec<&'static str> {
        self.stop.store(true, SeqCst);
        let ended = tokio::time::timeout(LIMIT, delivering).await.expect("the delivery hangs");
        ended.unwrap().unwrap_or_else(|fault| panic!("{fault:?}"))
    }

    /// Everything from row `first` on is in the topic, in order: once, or with contiguous replays.
    #[track_caller]
    fn check(&self, kafka: &Kafka, first: i64, codes: &[&str]) {
        let found = ids(&events(kafka, TOPIC));
        let last = self.acknowledged();
        if self.exact {
            assert_eq!(found, (first..last).collect::<Vec<_>>(), "faults on the way: {codes:?}");
        } else {
            let found: Vec<i64> = found.iter().map(|id| id - first).collect();
            assert_contiguous_replays(&found, last - first);
        }
    }
}

/// How many rows lie before a position.
fn rows_at(position: &str) -> i64 {
    let position: Value = serde_json::from_str(position).unwrap();
    position["tx_id"].as_i64().unwrap() + 1
}

fn admin(kafka: &Kafka) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", kafka.internal()).create().unwrap()
}

async fn delete(kafka: &Kafka) {
    let answers = admin(kafka).delete_topics(&[TOPIC], &AdminOptions::new()).await.unwrap();
    answers.into_iter().for_each(|answer| drop(answer.unwrap()));
}

async fn create(kafka: &Kafka) {
    let topic = NewTopic::new(TOPIC, 1, TopicReplication::Fixed(1));
    let answers = admin(kafka).create_topics([&topic], &AdminOptions::new()).await.unwrap();
    answers.into_iter().for_each(|answer| drop(answer.unwrap()));
}

fn exists(kafka: &Kafka) -> bool {
    let metadata = consumer(kafka, "read_committed").fetch_metadata(Some(TOPIC), LIMIT).unwrap();
    !metadata.topics()[0].partitions().is_empty()
}

/// What was in the topic is gone with it; nothing else is, whoever makes it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_deleted_under_load() {
    let kafka = Kafka::start(&KafkaOptions::default()).unwrap();
    for exact in [false, true] {
        for by_sink in [false, true] {
            let load = Load::new(exact);
            let more = json!({
                "id": format!("{exact}-{by_sink}"),
                "send_timeout_secs": 5,
                "client_conf": { "topic.metadata.propagation.max.ms": 500 },
            });
            let mut config = config(&kafka, TOPIC, more);
            config["exactly_once"] = json!(exact);
            if !by_sink {
                config.as_object_mut().unwrap().remove("create_topics");
                create(&kafka).await;
            }
            let delivering = load.start(&plan("kafka", config));
            let mut gone = 0;
            for _ in 0..3 {
                load.more(400).await;
                let faults = load.faults();
                delete(&kafka).await;
                if !by_sink {
                    wait_for_async("the topic to be gone", LIMIT, async || !exists(&kafka)).await;
                    gone = load.acknowledged();
                }
                load.beyond(faults).await;
                if by_sink {
                    gone = load.acknowledged(); // At most a little more than there were.
                } else {
                    assert_eq!(load.acknowledged(), gone, "acknowledged without a topic");
                    create(&kafka).await;
                }
            }
            load.more(400).await;
            let codes = load.finish(delivering).await;
            // A transaction waits for the topic until its time is over.
            let known = |code: &&str| ["kafka.unknown_topic", "kafka.timeout"].contains(code);
            assert!(codes.iter().any(known), "{codes:?}");
            let first = ids(&events(&kafka, TOPIC))[0];
            assert!(first <= gone, "{first} comes first, {gone} were acknowledged");
            load.check(&kafka, first, &codes);
            delete(&kafka).await;
            wait_for_async("the topic to be gone", LIMIT, async || !exists(&kafka)).await;
        }
    }
}

/// Each connection is cut in the middle of answers, again and again; then the network stays away for longer than the limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections() {
    const CUTS: u64 = 20;
    for exact in [false, true] {
        let kafka = Kafka::start(&KafkaOptions { proxied: true, ..KafkaOptions::default() }).unwrap();
        let proxy = kafka.proxy();
        let load = Load::new(exact);
        let delivering = load.start(&load.plan(&kafka, json!({ "send_timeout_secs": 5 })));
        for n in 0..CUTS {
            load.more(ROWS).await;
            let accepted = proxy.accepted();
            match n % 3 {
                0 => proxy.cut(),
                _ => proxy.cut_after_bytes(100 + 77 * n),
            }
            wait_for_async("the next connection", LIMIT, async || proxy.accepted() > accepted).await;
        }
        proxy.cut_never();
        load.more(400).await;
        for _ in 0..2 {
            let faults = load.faults();
            proxy.refuse(true);
            proxy.cut();
            load.beyond(faults).await;
            proxy.refuse(false);
            load.more(400).await;
        }
        let codes = load.finish(delivering).await;
        assert!(codes.len() >= 2, "{codes:?}");
        load.check(&kafka, 0, &codes);
    }
}

/// A password is changed under a running sink: it goes on until its connections end, then says what is wrong, soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_password() {
    for exact in [false, true] {
        let users = vec![("alice".to_owned(), "before1".to_owned())];
        let options =
            KafkaOptions { sasl: vec![KafkaSasl::Scram512], users, proxied: true, ..KafkaOptions::default() };
        let kafka = Kafka::start(&options).unwrap();
        let login = |password: &str| {
            json!({ "send_timeout_secs": 20,
                "sasl": { "mechanism": "SCRAM-SHA-512", "username": "alice", "password": password } })
        };
        let load = Load::new(exact);
        let delivering = load.start(&load.plan(&kafka, login("before1")));
        load.more(400).await;
        let alter = ["--alter", "--entity-type", "users", "--entity-name", "alice", "--add-config"];
        kafka.tool(
            "kafka.admin.ConfigCommand",
            &[&alter[..], &["SCRAM-SHA-512=[password=after22]"]].concat(),
            "",
        );
        let other = plan("kafka", config(&kafka, "other", login("before1")));
        wait_for_async("the change to hold", LIMIT, async || other.open(&context()).await.is_err()).await;
        load.more(400).await;
        kafka.proxy().cut();
        let start = Instant::now();
        let fault = tokio::time::timeout(LIMIT, delivering).await.expect("no fault").unwrap().unwrap_err();
        assert_eq!((fault.class(), fault.code()), (Class::Config, "kafka.auth_refused"), "{fault:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "found after {:?}", start.elapsed());
        assert!(!fault.to_string().contains("before1"), "{fault}");
        let delivering = load.start(&load.plan(&kafka, login("after22")));
        load.more(400).await;
        let codes = load.finish(delivering).await;
        load.check(&kafka, 0, &codes);
    }
}

/// The broker cannot write what it is sent, and dies of it. When there is room again, everything is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk() {
    for exact in [false, true] {
        let kafka = Kafka::start(&KafkaOptions::default()).unwrap();
        let load = Load::new(exact);
        let plan = load
            .plan(&kafka, json!({ "send_timeout_secs": 2, "client_conf": { "compression.type": "none" } }));
        let delivering = load.start(&plan);
        load.more(400).await;
        let faults = load.faults();
        kafka.limit_files(1_000_000);
        wait_for_async("the broker to give up", LIMIT, async || !kafka.is_running()).await;
        let why = "Error while appending records to s-0";
        assert!(kafka.log().contains(why), "{}", kafka.log());
        load.beyond(faults + 1).await;
        kafka.restart();
        load.more(400).await;
        let codes = load.finish(delivering).await;
        load.check(&kafka, 0, &codes);
    }
}
