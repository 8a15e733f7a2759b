//! The contract of sinks (`deltaforge_core::sink`), run by every connector against the real thing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;
#[path = "common/web.rs"]
#[allow(dead_code, reason = "this binary uses a part of it")]
mod web;

use common::*;
use deltaforge_core::sink::{Receipt, Sink, SinkPlan};
use deltaforge_testkit::servers::{
    Kafka, KafkaOptions, Nats, NatsAuth, NatsOptions, NatsVersion, Redis, RedisCluster, RedisOptions,
    RedisSentinel,
};
use futures_util::FutureExt;
use serde_json::{Value, json};
use std::sync::Arc;

/// A connector: where it delivers to, and what is there.
trait Subject {
    /// A plan for a fresh target; `name` is unique.
    fn plan(&self, name: &str) -> Arc<dyn SinkPlan>;
    /// The events that have arrived there.
    fn events(&self, name: &str) -> Vec<Value>;
    /// Whether the target itself drops what is delivered again under the same id.
    fn deduplicates(&self) -> bool {
        false
    }
}

/// Opens the sink, as a lane does before the first delivery.
async fn begin(plan: &Arc<dyn SinkPlan>) -> Box<dyn Sink> {
    let mut sink = open(plan).await;
    if plan.exactly_once() {
        sink.take_over(&origin()).await.unwrap();
    }
    sink
}

async fn contract(subject: &dyn Subject) {
    order_and_receipts(subject).await;
    close_is_durable(subject).await;
    empty_batches(subject).await;
    redelivery(subject).await;
    cancelled_delivery(subject).await;
    large_batch(subject).await;
}

/// Batches arrive in order, each event once; a receipt is resolved when its events are there and all earlier receipts are.
async fn order_and_receipts(subject: &dyn Subject) {
    let plan = subject.plan("order");
    let mut sink = begin(&plan).await;
    assert!(sink.recovered().is_none());
    let mut receipts: Vec<Receipt> = Vec::new();
    let mut resolved = 0;
    for n in 0..40 {
        receipts.push(sink.deliver(batch(n * 10..n * 10 + 10, n as usize * 30), DELIVERY).await.unwrap());
        if n % 7 != 6 {
            continue;
        }
        let last = receipts.pop().unwrap().await.unwrap();
        resolved = n + 1;
        let events = subject.events("order");
        assert!(events.len() as i64 >= resolved * 10, "{} events for {resolved} receipts", events.len());
        let sizes =
            events[(n * 10) as usize..(n * 10 + 10) as usize].iter().map(|e| e.to_string().len() as u64);
        assert_eq!(last.bytes, sizes.sum::<u64>(), "the receipt tells the payload's bytes");
        for receipt in receipts.drain(..) {
            receipt.now_or_never().expect("earlier receipts are resolved first").unwrap();
        }
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
    assert_eq!(resolved, 35);
    let events = subject.events("order");
    assert_eq!(ids(&events), (0..400).collect::<Vec<_>>());
    for (event, id) in events.iter().zip(0..) {
        assert_eq!(event["event_id"], event_id(id).to_string());
    }
    sink.close().await;
}

/// `close` waits for what was accepted, whether or not anybody waits for its receipt.
async fn close_is_durable(subject: &dyn Subject) {
    let plan = subject.plan("close");
    let mut sink = begin(&plan).await;
    for n in 0..5 {
        drop(sink.deliver(batch(n * 100..n * 100 + 100, 300), DELIVERY).await.unwrap());
    }
    sink.close().await;
    assert_eq!(ids(&subject.events("close")), (0..500).collect::<Vec<_>>());
}

/// A batch whose events were all filtered away is delivered once everything before it is.
async fn empty_batches(subject: &dyn Subject) {
    let plan = subject.plan("empty");
    let mut sink = begin(&plan).await;
    assert_eq!(deliver(sink.as_mut(), empty_batch()).await.unwrap().bytes, 0);
    drop(sink.deliver(batch(0..10, 10), DELIVERY).await.unwrap());
    deliver(sink.as_mut(), empty_batch()).await.unwrap();
    assert_eq!(ids(&subject.events("empty")), (0..10).collect::<Vec<_>>());
    deliver(sink.as_mut(), batch(10..20, 10)).await.unwrap();
    assert_eq!(ids(&subject.events("empty")), (0..20).collect::<Vec<_>>());
    sink.close().await;
}

/// Opened anew, a sink goes on behind what is there; what is delivered again carries the same ids.
async fn redelivery(subject: &dyn Subject) {
    let plan = subject.plan("again");
    for _ in 0..2 {
        let mut sink = begin(&plan).await;
        deliver(sink.as_mut(), batch(0..10, 10)).await.unwrap();
        sink.close().await;
    }
    let events = subject.events("again");
    if subject.deduplicates() {
        assert_eq!(ids(&events), (0..10).collect::<Vec<_>>());
        return;
    }
    assert_eq!(ids(&events), (0..10).chain(0..10).collect::<Vec<_>>());
    for (first, again) in events[..10].iter().zip(&events[10..]) {
        assert_eq!(first["event_id"], again["event_id"]);
    }
}

/// A delivery that is given up at any point, and the sink with it, leaves whole events and a contiguous prefix.
async fn cancelled_delivery(subject: &dyn Subject) {
    let plan = subject.plan("cancel");
    let mut sink = begin(&plan).await;
    deliver(sink.as_mut(), batch(0..100, 500)).await.unwrap();
    for _ in 0..5 {
        let mut pending = sink.deliver(batch(100..2000, 500), DELIVERY);
        let accepted = (&mut pending).now_or_never();
        drop(pending);
        drop(sink);
        drop(accepted);
        sink = begin(&plan).await;
    }
    deliver(sink.as_mut(), batch(100..2000, 500)).await.unwrap();
    deliver(sink.as_mut(), batch(2000..2010, 5)).await.unwrap();
    assert_contiguous_replays(&ids(&subject.events("cancel")), 2010);
    sink.close().await;
}

/// Some 20 MB at once.
async fn large_batch(subject: &dyn Subject) {
    let plan = subject.plan("large");
    let mut sink = begin(&plan).await;
    deliver(sink.as_mut(), batch(0..20_000, 800)).await.unwrap();
    assert_eq!(ids(&subject.events("large")), (0..20_000).collect::<Vec<_>>());
    sink.close().await;
}

// --- Redis --------------------------------------------------------------------------------------------------------------

impl Subject for Redis {
    fn plan(&self, name: &str) -> Arc<dyn SinkPlan> {
        plan("redis", json!({ "uri": self.uri(), "stream": name }))
    }

    fn events(&self, name: &str) -> Vec<Value> {
        stream_events(&self.cli(&["XRANGE", name, "-", "+"]))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis() {
    contract(&Redis::start(&RedisOptions::default()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_with_a_password_over_tls() {
    struct Secured(Redis);
    impl Subject for Secured {
        fn plan(&self, name: &str) -> Arc<dyn SinkPlan> {
            let tls = json!({ "ca_file": self.0.ca_file().display().to_string() });
            plan("redis", json!({ "uri": self.0.uri(), "stream": name, "tls": tls }))
        }

        fn events(&self, name: &str) -> Vec<Value> {
            self.0.events(name)
        }
    }
    let options = RedisOptions { tls: true, password: Some("hunter2".into()), ..RedisOptions::default() };
    contract(&Secured(Redis::start(&options).unwrap())).await;
}

impl Subject for RedisSentinel {
    fn plan(&self, name: &str) -> Arc<dyn SinkPlan> {
        plan("redis", json!({ "uri": self.uri(), "stream": name }))
    }

    fn events(&self, name: &str) -> Vec<Value> {
        self.master().events(name)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_behind_a_sentinel() {
    contract(&RedisSentinel::start().unwrap()).await;
}

impl Subject for RedisCluster {
    fn plan(&self, name: &str) -> Arc<dyn SinkPlan> {
        plan("redis", json!({ "uri": self.uri(), "stream": name }))
    }

    fn events(&self, name: &str) -> Vec<Value> {
        stream_events(&self.cli(&["XRANGE", name, "-", "+"]))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_cluster() {
    contract(&RedisCluster::start(3).unwrap()).await;
}

// --- HTTP ---------------------------------------------------------------------------------------------------------------

struct WebSubject {
    web: web::Web,
    batch_mode: bool,
}

impl Subject for WebSubject {
    fn plan(&self, name: &str) -> Arc<dyn SinkPlan> {
        plan("http", json!({ "url": self.web.url(name), "batch_mode": self.batch_mode }))
    }

    fn events(&self, name: &str) -> Vec<Value> {
        self.web.taken(name)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http() {
    contract(&WebSubject { web: web::Web::start().await, batch_mode: false }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_in_batches() {
    contract(&WebSubject { web: web::Web::start().await, batch_mode: true }).await;
}

// --- Kafka --------------------------------------------------------------------------------------------------------------

struct Topics<'a> {
    kafka: &'a Kafka,
    exactly_once: bool,
}

impl Subject for Topics<'_> {
    fn plan(&self, name: &str) -> Arc<dyn SinkPlan> {
        plan(
            "kafka",
            kafka::config(self.kafka, name, json!({ "id": name, "exactly_once": self.exactly_once })),
        )
    }

    fn events(&self, name: &str) -> Vec<Value> {
        if self.exactly_once {
            kafka::settle(self.kafka, name);
        }
        kafka::events(self.kafka, name)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_at_least_once() {
    let kafka = Kafka::start(&KafkaOptions::default()).unwrap();
    contract(&Topics { kafka: &kafka, exactly_once: false }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_exactly_once() {
    let kafka = Kafka::start(&KafkaOptions::default()).unwrap();
    contract(&Topics { kafka: &kafka, exactly_once: true }).await;
}

// --- NATS ---------------------------------------------------------------------------------------------------------------

impl Subject for Nats {
    fn plan(&self, name: &str) -> Arc<dyn SinkPlan> {
        plan("nats", nats::config(self, name))
    }

    fn events(&self, name: &str) -> Vec<Value> {
        nats::blocking(async {
            let client = nats::client(self).await;
            let stored = nats::stored(&client, name).await;
            stored.iter().map(nats::Stored::event).collect()
        })
    }

    fn deduplicates(&self) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_jetstream() {
    contract(&Nats::start(&NatsOptions::default()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_jetstream_2_9_with_a_password_over_tls() {
    let auth = NatsAuth::User("df".into(), "hunter2".into());
    let options = NatsOptions { version: NatsVersion::V2_9, auth, tls: true, ..NatsOptions::default() };
    contract(&Nats::start(&options).unwrap()).await;
}

// --- Files --------------------------------------------------------------------------------------------------------------

struct Files {
    dir: tempfile::TempDir,
    settings: Value,
}

impl Files {
    fn new(settings: Value) -> Files {
        Files { dir: tempfile::tempdir().unwrap(), settings }
    }
}

impl Subject for Files {
    fn plan(&self, name: &str) -> Arc<dyn SinkPlan> {
        let mut config = self.settings.clone();
        config["path"] = self.dir.path().join(name).display().to_string().into();
        plan("file", config)
    }

    /// In the order of rotation; `PATH.<stamp>-<n>` sorts by stamp, then number.
    fn events(&self, name: &str) -> Vec<Value> {
        let names = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut aside: Vec<(String, u32)> = names
            .filter_map(|file| {
                let (stamp, n) = file.strip_prefix(name)?.strip_prefix('.')?.rsplit_once('-')?;
                Some((stamp.to_owned(), n.parse().ok()?))
            })
            .collect();
        aside.sort();
        let aside = aside.into_iter().map(|(stamp, n)| format!("{name}.{stamp}-{n}"));
        let texts = aside
            .chain([name.to_owned()])
            .map(|file| std::fs::read_to_string(self.dir.path().join(file)).unwrap());
        texts.flat_map(|text| events_of_lines(&text)).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file() {
    contract(&Files::new(json!({}))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_that_rotates_and_is_not_synced() {
    contract(&Files::new(json!({ "sync": "none", "rotate": { "max_bytes": "100 KB" } }))).await;
}

// --- Standard output ----------------------------------------------------------------------------------------------------

/// Where the child's standard output goes to.
const STDOUT_FILE: &str = "DELTAFORGE_TEST_STDOUT_FILE";

/// Standard output belongs to the process, so the suite runs in one of its own whose output is a file.
#[test]
fn stdout() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stdout");
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stdout_child", "--ignored", "--nocapture"])
        .env(STDOUT_FILE, &path)
        .stdout(std::fs::File::create(&path).unwrap())
        .status()
        .unwrap();
    assert!(status.success(), "{}", std::fs::read_to_string(&path).unwrap().lines().last().unwrap_or(""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test `stdout`"]
async fn stdout_child() {
    /// All targets are the one output, so each begins where the last one ended.
    struct Child(String, std::sync::Mutex<std::collections::HashMap<String, usize>>);
    impl Child {
        fn all(&self) -> Vec<Value> {
            events_of_lines(&std::fs::read_to_string(&self.0).unwrap())
        }
    }
    impl Subject for Child {
        fn plan(&self, name: &str) -> Arc<dyn SinkPlan> {
            self.1.lock().unwrap().insert(name.into(), self.all().len());
            plan("stdout", json!({}))
        }

        fn events(&self, name: &str) -> Vec<Value> {
            self.all().split_off(self.1.lock().unwrap()[name])
        }
    }
    contract(&Child(std::env::var(STDOUT_FILE).unwrap(), Default::default())).await;
}
