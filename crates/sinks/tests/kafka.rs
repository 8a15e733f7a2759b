//! The Kafka sink against a real broker: what records hold, where they go, and what happens when the cluster misbehaves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::kafka::{config, consumer, events, records};
use common::*;
use deltaforge_core::config::Severity;
use deltaforge_core::fault::Kind;
use deltaforge_core::metrics::{BuildInfo, Metrics, PipelineAbout};
use deltaforge_core::sink::{SinkContext, SinkPlan};
use deltaforge_core::task::spawn;
use deltaforge_core::{Batch, Class, Fault, Op};
use deltaforge_testkit::servers::{Kafka, KafkaOptions, KafkaSasl};
use deltaforge_testkit::{wait_for, wait_for_async};
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// For tests that leave the broker as it is; each has topics of its own.
static KAFKA: LazyLock<Kafka> = LazyLock::new(|| Kafka::start(&KafkaOptions::default()).unwrap());
const SOON: Duration = Duration::from_secs(30);

fn sink(kafka: &Kafka, topic: &str, more: Value) -> Arc<dyn SinkPlan> {
    plan("kafka", config(kafka, topic, more))
}

fn row_ids(kafka: &Kafka, topic: &str) -> Vec<i64> {
    ids(&events(kafka, topic))
}

fn up_to(n: i64) -> Vec<i64> {
    (0..n).collect()
}

async fn refused(plan: &Arc<dyn SinkPlan>) -> Fault {
    plan.open(&context()).await.err().expect("a fault")
}

async fn failed(plan: &Arc<dyn SinkPlan>, batch: Arc<Batch>) -> Fault {
    deliver(open(plan).await.as_mut(), batch).await.expect_err("a fault")
}

/// `n` batches of ten rows.
fn batches(n: i64, pad: usize) -> Vec<Arc<Batch>> {
    (0..n).map(|i| batch(i * 10..i * 10 + 10, pad)).collect()
}

fn row(op: Op, id: i64, old_id: Option<i64>) -> Row<'static> {
    Row { table: "t", op, id, old_id, pad: "p" }
}

#[tokio::test]
async fn what_a_record_holds() {
    let more = json!({
        "tombstones": true,
        "headers": { "table": "${source.table}", "pad": "${after.pad}", "absent": "${after.nothing}" },
    });
    let rows = [row(Op::Create, 1, None), row(Op::Update, 2, Some(1)), row(Op::Delete, 2, Some(2))];
    deliver(open(&sink(&KAFKA, "record", more)).await.as_mut(), batch_of(&rows)).await.unwrap();
    let found = records(&KAFKA, "record");
    assert_eq!(found.len(), 4, "{found:?}");
    let names = |at: usize| found[at].headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    assert_eq!(names(0), ["df-event-id", "content-type", "table", "pad"]);
    assert_eq!(names(1), ["df-event-id", "content-type", "df-old-key", "table", "pad"]);
    let header = |at: usize, name: &str| found[at].headers.iter().find(|h| h.0 == name).unwrap().1.clone();
    assert_eq!(header(0, "df-event-id"), event_id(1).to_string());
    assert_eq!(header(0, "content-type"), "application/json");
    assert_eq!((header(0, "table").as_str(), header(0, "pad").as_str()), ("t", "p"));
    assert_eq!(header(1, "df-old-key"), r#"{"id":1}"#);
    let keys: Vec<&str> = found.iter().map(|record| record.key.as_deref().unwrap()).collect();
    assert_eq!(keys, [r#"{"id":1}"#, r#"{"id":2}"#, r#"{"id":2}"#, r#"{"id":2}"#]);
    let event: Value = serde_json::from_str(found[1].value.as_ref().unwrap()).unwrap();
    assert_eq!((&event["op"], &event["after"]["id"]), (&json!("u"), &json!(2)));
    assert_eq!((&found[3].value, found[3].headers.len()), (&None, 0), "a tombstone");
    assert_eq!(found[2].time, event["source"]["ts_ms"].as_i64().unwrap_or(found[2].time));
    assert_eq!(found[0].time, 1_700_000_000_000);
}

#[tokio::test]
async fn keys_topics_and_envelopes_by_template() {
    let more = json!({ "key": "k-${after.pad}", "envelope": { "type": "debezium" } });
    let plan = sink(&KAFKA, "ev.${source.table}.x", more);
    let rows = [
        Row { table: "a b", op: Op::Create, id: 1, old_id: None, pad: "p" },
        Row { table: "é", op: Op::Update, id: 3, old_id: Some(2), pad: "q" },
        Row { table: "a b", op: Op::Delete, id: 4, old_id: Some(4), pad: "r" },
    ];
    deliver(open(&plan).await.as_mut(), batch_of(&rows)).await.unwrap();
    let found = records(&KAFKA, "ev.a_b.x");
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].key.as_deref(), Some("k-p"));
    let other = records(&KAFKA, "ev.__.x");
    assert_eq!((other.len(), other[0].key.as_deref()), (1, Some("k-q")));
    assert!(other[0].headers.iter().all(|(name, _)| name != "df-old-key"), "the key is not the row's");
    let fault = failed(&sink(&KAFKA, "${after.nothing}", json!({})), batch(0..1, 1)).await;
    assert_eq!((fault.class(), fault.code()), (Class::Data, "sink.not_routable"), "{fault}");
    assert_eq!(fault.event_id(), Some(event_id(0).to_string().as_str()));
    let long = format!("{}${{source.table}}", "x".repeat(249));
    let fault = failed(&sink(&KAFKA, &long, json!({})), batch(0..1, 1)).await;
    assert_eq!((fault.code(), fault.kind_of()), ("sink.not_routable", Kind::Route), "{fault}");
}

/// The hash of the Java client, written down from its definition.
fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut h: u32 = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().unwrap()).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    for (at, byte) in rest.iter().enumerate() {
        h ^= u32::from(*byte) << (8 * at);
    }
    if !rest.is_empty() {
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    (h ^ (h >> 15)) as i32
}

fn partition(key: &str, of: i32) -> i32 {
    (murmur2(key.as_bytes()) & 0x7fff_ffff) % of
}

#[tokio::test]
async fn keys_lie_where_the_java_client_puts_them() {
    // The vectors of Kafka's own tests.
    for (text, hash) in [("21", -973_932_308), ("foobar", -790_332_482), ("abc", 479_470_107)] {
        assert_eq!(murmur2(text.as_bytes()), hash);
    }
    let more = json!({ "create_topics": { "partitions": 7, "replication_factor": 1, "config": { "retention.bytes": "-1" } } });
    let plan = sink(&KAFKA, "keys", more);
    deliver(open(&plan).await.as_mut(), batch(0..10_000, 1)).await.unwrap();
    let found = records(&KAFKA, "keys");
    assert_eq!(found.len(), 10_000);
    for record in &found {
        let key = record.key.as_deref().unwrap();
        assert_eq!(record.partition, partition(key, 7), "{key}");
    }
    // And the Java client itself.
    KAFKA.tool(
        "org.apache.kafka.tools.TopicCommand",
        &["--create", "--topic", "java", "--partitions", "7", "--replication-factor", "1"],
        "",
    );
    let lines: String = (0..300).map(|id| format!("{{\"id\":{id}}}\tx\n")).collect();
    let args = ["--topic", "java", "--property", "parse.key=true"];
    KAFKA.tool("org.apache.kafka.tools.ConsoleProducer", &args, &lines);
    let java: HashMap<_, _> =
        records(&KAFKA, "java").into_iter().map(|r| (r.key.unwrap(), r.partition)).collect();
    assert_eq!(java.len(), 300);
    for record in found.iter().filter(|record| java.contains_key(record.key.as_ref().unwrap())) {
        assert_eq!(java[record.key.as_ref().unwrap()], record.partition);
    }
    // One row's events keep their order.
    let updates: Vec<_> = (0..500).map(|n| row(Op::Update, n % 5, Some(n % 5))).collect();
    deliver(open(&plan).await.as_mut(), batch_of(&updates)).await.unwrap();
    let partitions: std::collections::HashSet<_> = records(&KAFKA, "keys")
        .into_iter()
        .filter(|record| record.key.as_deref() == Some(r#"{"id":3}"#))
        .map(|record| record.partition)
        .collect();
    assert_eq!(partitions.len(), 1);
}

#[tokio::test]
async fn an_event_above_the_clients_limit() {
    let plan = sink(&KAFKA, "client-limit", json!({ "client_conf": { "message.max.bytes": 20_000 } }));
    let mut sink = open(&plan).await;
    drop(sink.deliver(batch(0..10, 100), DELIVERY).await.unwrap());
    let big = "x".repeat(20_000);
    let rows = [
        Row { pad: "a", ..row(Op::Create, 10, None) },
        Row { pad: &big, ..row(Op::Create, 11, None) },
        Row { pad: "b", ..row(Op::Create, 12, None) },
    ];
    let bad = batch_of(&rows);
    let fault = deliver(sink.as_mut(), bad.clone()).await.unwrap_err();
    assert_eq!((fault.class(), fault.kind_of()), (Class::Data, Kind::TooLarge), "{fault}");
    assert_eq!(
        (fault.code(), fault.event_id()),
        ("kafka.event_too_large", Some(event_id(11).to_string().as_str()))
    );
    assert_eq!(
        row_ids(&KAFKA, "client-limit"),
        up_to(10),
        "nothing of the batch has left, everything before it is there"
    );
    drop(sink);
    let rest = Arc::new(bad.without(event_id(11)));
    deliver_all(&plan, &[rest, batch(13..20, 1)]).await;
    let expected: Vec<i64> = (0..20).filter(|id| *id != 11).collect();
    assert_eq!(row_ids(&KAFKA, "client-limit"), expected);
}

/// Records travel in sets, and a broker refuses sets: only one event may be blamed, and only the right one.
async fn above_the_brokers_limit(topic: &str, template: &str) {
    let more = json!({
        "client_conf": { "compression.type": "none" },
        "create_topics": { "partitions": 1, "replication_factor": 1, "config": { "max.message.bytes": "50000" } },
    });
    let plan = sink(&KAFKA, template, more);
    // Each event is small, a set of them is not.
    let codes = deliver_all(&plan, &[batch(0..500, 1000)]).await;
    assert_eq!(codes, ["kafka.batch_too_large"], "sets of 1 MB were taken");
    assert_contiguous_replays(&row_ids(&KAFKA, topic), 500);
    let big = "x".repeat(60_000);
    let rows: Vec<_> = (500..520)
        .map(|id| Row { pad: if id == 510 { &big } else { "p" }, ..row(Op::Create, id, None) })
        .collect();
    let rows: Vec<_> = rows.into_iter().map(|r| Row { table: "t", ..r }).collect();
    let bad = batch_of(&rows);
    let fault = failed(&plan, bad.clone()).await;
    assert_eq!((fault.class(), fault.code()), (Class::Data, "kafka.event_too_large"), "{fault}");
    assert_eq!(fault.event_id(), Some(event_id(510).to_string().as_str()));
    deliver_all(&plan, &[Arc::new(bad.without(event_id(510))), batch(520..530, 10)]).await;
    let seen: Vec<i64> =
        row_ids(&KAFKA, topic).into_iter().map(|id| if id > 510 { id - 1 } else { id }).collect();
    assert_contiguous_replays(&seen, 529);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_above_the_brokers_limit() {
    above_the_brokers_limit("broker-limit", "broker-limit").await;
    above_the_brokers_limit("broker-limit-t", "broker-limit-${source.table}").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_is_waited_for() {
    let mut settings =
        config(&KAFKA, "later", json!({ "client_conf": { "topic.metadata.propagation.max.ms": 500 } }));
    settings.as_object_mut().unwrap().remove("create_topics");
    let plan = plan("kafka", settings);
    let fault = failed(&plan, batch(0..10, 1)).await;
    assert_eq!((fault.class(), fault.code()), (Class::Retry, "kafka.unknown_topic"), "{fault}");
    let report = plan.check().await;
    let missing = report.problems().find(|check| check.name == "topic").expect("a finding");
    assert!(missing.evidence.contains("does not exist"), "{report:?}");
    assert!(
        consumer(&KAFKA, "read_committed").fetch_metadata(Some("later"), SOON).unwrap().topics()[0]
            .partitions()
            .is_empty(),
        "asking made the topic"
    );
    let delivery = spawn("test", {
        let plan = plan.clone();
        async move { deliver_all(&plan, &batches(3, 1)).await }
    });
    KAFKA.tool("org.apache.kafka.tools.TopicCommand", &["--create", "--topic", "later"], "");
    delivery.await.unwrap();
    assert_eq!(row_ids(&KAFKA, "later"), up_to(30));
}

#[tokio::test]
async fn what_the_client_tells_of_itself() {
    let metrics = Metrics::new(BuildInfo { version: "1", commit: "c", target: "t" }).unwrap();
    let about = PipelineAbout {
        name: "test",
        tenant: "default",
        source_type: "postgres",
        source: "s",
        sinks: &["k"],
        phases: &["streaming"],
    };
    let pipeline = metrics.pipeline(&about);
    let context = SinkContext { metrics: pipeline.sink(0).cloned(), ..context() };
    let plan = sink(&KAFKA, "stats", json!({ "client_conf": { "statistics.interval.ms": 50 } }));
    let value = |name: &str| {
        let text = metrics.render();
        let line = text.lines().find(|line| line.starts_with(&format!("deltaforge_sink_client_{name}{{")));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .unwrap_or_else(|| panic!("{name}: {text}"))
    };
    assert_eq!((value("round_trip_seconds"), value("queue_records")), (0.0, 0.0));
    let mut sink = plan.open(&context).await.unwrap();
    let mut from = 0;
    wait_for_async("the client's queue to be seen filled", SOON, async || {
        drop(sink.deliver(batch(from..from + 5000, 500), DELIVERY).await.unwrap());
        from += 5000;
        value("queue_records") > 0.0 && value("queue_bytes") > 0.0 && value("round_trip_seconds") > 0.0
    })
    .await;
    sink.close().await;
}

fn secured(sasl: &[KafkaSasl], tls: bool, acl: bool) -> Kafka {
    let users =
        [("alice", "secret1"), ("bob", "secret2")].map(|(name, password)| (name.into(), password.into()));
    let options = KafkaOptions {
        sasl: sasl.to_vec(),
        users: users.into(),
        tls,
        acl,
        super_users: vec!["alice".into()],
        ..KafkaOptions::default()
    };
    Kafka::start(&options).unwrap()
}

fn login(kafka: &Kafka, topic: &str, mechanism: &str, user: &str, password: &str) -> Value {
    config(
        kafka,
        topic,
        json!({ "sasl": { "mechanism": mechanism, "username": user, "password": password } }),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_and_rights() {
    let kafka = secured(&[KafkaSasl::Plain, KafkaSasl::Scram256, KafkaSasl::Scram512], false, true);
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let good = plan("kafka", login(&kafka, mechanism, mechanism, "alice", "secret1"));
        deliver(open(&good).await.as_mut(), batch(0..10, 1)).await.unwrap();
        assert_eq!(row_ids(&kafka, mechanism), up_to(10));
        let bad = plan("kafka", login(&kafka, mechanism, mechanism, "alice", "hunter2"));
        let start = Instant::now();
        let fault = refused(&bad).await;
        assert_eq!((fault.class(), fault.kind_of()), (Class::Config, Kind::Auth), "{mechanism}: {fault}");
        assert_eq!(fault.code(), "kafka.auth_refused");
        assert!(start.elapsed() < Duration::from_secs(5), "{mechanism}: found after {:?}", start.elapsed());
        assert!(!fault.to_string().contains("hunter2"), "{fault}");
        let report = bad.check().await;
        assert!(report.problems().any(|check| check.severity == Severity::Error), "{report:?}");
    }
    // No login at all, at a listener that wants one.
    let mut none = config(&kafka, "x", json!({ "send_timeout_secs": 2 }));
    none.as_object_mut().unwrap().remove("create_topics");
    assert_eq!(refused(&plan("kafka", none)).await.class(), Class::Retry);

    // Rights, one after the other.
    let mut bob = login(&kafka, "bobs", "PLAIN", "bob", "secret2");
    bob.as_object_mut().unwrap().remove("create_topics");
    kafka.tool("org.apache.kafka.tools.TopicCommand", &["--create", "--topic", "bobs"], "");
    let fault = failed(&plan("kafka", bob.clone()), batch(0..10, 1)).await;
    assert_eq!((fault.class(), fault.code()), (Class::Config, "kafka.not_permitted"), "{fault}");
    kafka.allow("bob", &["--operation", "Write", "--operation", "Describe", "--topic", "bobs"]);
    deliver(open(&plan("kafka", bob.clone())).await.as_mut(), batch(0..10, 1)).await.unwrap();
    assert_eq!(row_ids(&kafka, "bobs"), up_to(10));

    bob["exactly_once"] = json!(true);
    let bob = plan("kafka", bob);
    let fault = refused(&bob).await;
    assert_eq!((fault.class(), fault.code()), (Class::Config, "kafka.not_permitted"), "{fault}");
    let rights = ["--operation", "Read", "--operation", "Write", "--operation", "Create"];
    kafka.allow(
        "bob",
        &[&rights[..], &["--operation", "Describe", "--topic", "__deltaforge_positions"]].concat(),
    );
    kafka.allow(
        "bob",
        &[
            "--operation",
            "Write",
            "--operation",
            "Describe",
            "--transactional-id",
            "deltaforge-test-test-sink",
        ],
    );
    let mut sink = open(&bob).await;
    sink.take_over(&origin()).await.unwrap();
    deliver(sink.as_mut(), ended(10..20)).await.unwrap();
    assert_eq!(row_ids(&kafka, "bobs"), up_to(20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls() {
    let kafka = secured(&[KafkaSasl::Scram512], true, false);
    let with = |tls: Value| {
        let mut config = login(&kafka, "tls", "SCRAM-SHA-512", "bob", "secret2");
        config["tls"] = tls;
        config["send_timeout_secs"] = json!(3);
        plan("kafka", config)
    };
    let path = |path: std::path::PathBuf| path.display().to_string();
    let ca = path(kafka.tls().ca_file());
    let good = [
        json!({ "ca_file": ca }),
        json!({ "mode": "verify-ca", "ca_file": ca }),
        json!({ "mode": "require" }),
        json!({ "ca_file": ca, "cert_file": path(kafka.tls().client_cert_file()), "key_file": path(kafka.tls().client_key_file()) }),
    ];
    for (n, tls) in good.into_iter().enumerate() {
        let n = n as i64 * 10;
        deliver_all(&with(tls), &[batch(n..n + 10, 1)]).await;
    }
    assert_eq!(row_ids(&kafka, "tls"), up_to(40));
    let start = Instant::now();
    let fault = refused(&with(json!({ "ca_file": path(kafka.tls().other_ca_file()) }))).await;
    assert_eq!(
        (fault.class(), fault.kind_of(), fault.code()),
        (Class::Config, Kind::Tls, "kafka.tls"),
        "{fault}"
    );
    assert!(start.elapsed() < Duration::from_secs(3), "found after {:?}", start.elapsed());
    let fault = refused(&with(json!({ "ca_file": "/nowhere/ca.pem" }))).await;
    assert_eq!((fault.class(), fault.code()), (Class::Config, "kafka.tls"), "{fault}");
    let fault = refused(&with(json!({}))).await;
    assert_eq!(
        fault.class(),
        Class::Retry,
        "a listener that speaks TLS only looks like one that is away: {fault}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_and_an_unreachable_broker() {
    let kafka = Kafka::start(&KafkaOptions::default()).unwrap();
    let plan = sink(&kafka, "s", json!({}));
    let hurried = sink(&kafka, "s", json!({ "send_timeout_secs": 1 }));
    let mut sink = open(&plan).await;
    deliver(sink.as_mut(), batch(0..10, 1)).await.unwrap();
    kafka.kill();
    let start = Instant::now();
    let fault = refused(&hurried).await;
    assert_eq!((fault.class(), fault.code()), (Class::Retry, "kafka.unreachable"), "{fault}");
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(hurried.check().await.problems().any(|check| check.name == "connection"));
    // What is on its way over a restart arrives once: one producer sends it again by itself.
    let receipt = sink.deliver(batch(10..20, 1), DELIVERY).await.unwrap();
    kafka.restart();
    receipt.await.unwrap();
    assert_eq!(row_ids(&kafka, "s"), up_to(20));
    sink.close().await;
}

/// A broker that stands still keeps what it was sent, and stores it when it goes on: not behind what was sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stands_still() {
    let kafka = Kafka::start(&KafkaOptions::default()).unwrap();
    let plan = sink(&kafka, "s", json!({ "send_timeout_secs": 1 }));
    let mut done = 0;
    for round in 0..4 {
        let mut sink = open(&plan).await;
        deliver(sink.as_mut(), batch(done..done + 10, 1)).await.unwrap();
        kafka.pause();
        let from = done + 10;
        let first = sink.deliver(batch(from..from + 300, 500), DELIVERY).await.unwrap();
        let second = sink.deliver(batch(from + 300..from + 600, 500), DELIVERY).await.unwrap();
        let fault = first.await.unwrap_err();
        assert_eq!(
            (fault.class(), fault.code(), fault.kind_of()),
            (Class::Retry, "kafka.timeout", Kind::Timeout),
            "{fault}"
        );
        second.await.expect_err("a later batch counts as delivered");
        drop(sink);
        if round % 2 == 0 {
            assert!(refused(&plan).await.is_retry());
        }
        kafka.resume();
        deliver_all(
            &plan,
            &[
                batch(from..from + 300, 500),
                batch(from + 300..from + 600, 500),
                batch(from + 600..from + 610, 1),
            ],
        )
        .await;
        done = from + 610;
        assert_contiguous_replays(&row_ids(&kafka, "s"), done);
    }
}

/// A transaction of somebody else that stays open hides what comes after it from committed readers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_hangs_beside_ours() {
    let kafka = Kafka::start(&KafkaOptions::default()).unwrap();
    let plan = sink(&kafka, "s", json!({ "exactly_once": true, "send_timeout_secs": 3 }));
    let mut sink = open(&plan).await;
    assert_eq!(sink.take_over(&origin()).await.unwrap(), None);
    deliver(sink.as_mut(), ended(0..10)).await.unwrap();
    drop(sink);
    let mut other = ClientConfig::new();
    other.set("bootstrap.servers", kafka.brokers()).set("transactional.id", "somebody");
    let other: BaseProducer = other.create().unwrap();
    other.init_transactions(SOON).unwrap();
    other.begin_transaction().unwrap();
    other.send(BaseRecord::to("__deltaforge_positions").key("else").payload("{}").partition(0)).unwrap();
    other.flush(SOON).unwrap();
    let told =
        |held: Option<deltaforge_core::sink::Held>| held.map(|held| held.position.as_json().to_owned());
    // Nothing of ours is behind it: nothing to wait for.
    let mut sink = open(&plan).await;
    assert_eq!(told(sink.take_over(&origin()).await.unwrap()), Some(position(9)));
    deliver(sink.as_mut(), ended(10..20)).await.unwrap();
    drop(sink);
    // Now there is, and nobody can say whether it holds: better to wait than to say what was before.
    let mut sink = open(&plan).await;
    assert_eq!(sink.recovered().map(|held| held.position.as_json().to_owned()), Some(position(9)));
    let fault = sink.take_over(&origin()).await.unwrap_err();
    assert_eq!((fault.class(), fault.code()), (Class::Retry, "kafka.position_hidden"), "{fault}");
    drop(sink);
    other.abort_transaction(SOON).unwrap();
    let mut sink = open(&plan).await;
    assert_eq!(told(sink.take_over(&origin()).await.unwrap()), Some(position(19)));
}

/// What is staged when a sink ends holds nobody up: its transaction ends with it, not after ten minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn staged_parts_hold_nobody_up() {
    for closed in [true, false] {
        let topic = if closed { "held-closed" } else { "held-dropped" };
        let mut staging = open(&sink(&KAFKA, topic, json!({ "id": topic, "exactly_once": true }))).await;
        staging.take_over(&origin()).await.unwrap();
        deliver(staging.as_mut(), transaction(100..200, 50, &position(199))[0].clone()).await.unwrap();
        let plain = sink(&KAFKA, topic, json!({}));
        deliver(open(&plain).await.as_mut(), batch(0..10, 1)).await.unwrap();
        assert_eq!(row_ids(&KAFKA, topic), up_to(0), "an open transaction hides what comes after it");
        match closed {
            true => staging.close().await,
            false => drop(staging),
        }
        wait_for_async("the transaction to be ended", SOON, async || row_ids(&KAFKA, topic) == up_to(10))
            .await;
    }
}

/// Batches that are there together take effect together, in fewer transactions. What must not wait for the commit of what
/// is joined does not join: a part of a transaction, or a batch that cannot be sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_are_ready_share_a_transaction() {
    let more = json!({ "id": "shared", "exactly_once": true, "client_conf": { "message.max.bytes": 2000 } });
    let plan = sink(&KAFKA, "shared", more);
    let mut sink = open(&plan).await;
    sink.take_over(&origin()).await.unwrap();
    // The first makes the topic.
    deliver(sink.as_mut(), ended(0..10)).await.unwrap();
    let mut receipts = Vec::new();
    for n in 1..9 {
        receipts.push(sink.deliver(ended(n * 10..n * 10 + 10), DELIVERY).await.unwrap());
    }
    for receipt in receipts.drain(..) {
        tokio::time::timeout(SOON, receipt).await.unwrap().unwrap();
    }
    // Each transaction ends with a marker, which has an offset of its own.
    let end = |topic: &str| consumer(&KAFKA, "read_uncommitted").fetch_watermarks(topic, 0, SOON).unwrap().1;
    let markers = end("shared") - 90;
    assert!(markers < 9, "{markers} transactions for nine batches");
    let parts = transaction(100..120, 10, &position(119));
    for batch in [ended(90..100), parts[0].clone()] {
        receipts.push(sink.deliver(batch, DELIVERY).await.unwrap());
    }
    for receipt in receipts.drain(..) {
        tokio::time::timeout(SOON, receipt)
            .await
            .expect("a part waits for its own transaction's end")
            .unwrap();
    }
    assert_eq!(row_ids(&KAFKA, "shared"), up_to(100));
    for part in &parts[1..] {
        deliver(sink.as_mut(), part.clone()).await.unwrap();
    }
    let before = sink.deliver(ended(120..130), DELIVERY).await.unwrap();
    let fault = deliver(sink.as_mut(), batch(500..501, 3000)).await.unwrap_err();
    assert_eq!((fault.class(), fault.code()), (Class::Data, "kafka.event_too_large"), "{fault:?}");
    tokio::time::timeout(SOON, before).await.unwrap().expect("the batch before an event that cannot be sent");
    drop(sink);
    let told = open(&plan).await.take_over(&origin()).await.unwrap().unwrap();
    assert_eq!(told.position.as_json(), position(129));
    assert_eq!(row_ids(&KAFKA, "shared"), up_to(130));
}

/// Whatever an owner is doing when another takes over, it is told so: it must not come back and fence the rightful one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_fenced_amid_large_batches() {
    let mine = || sink(&KAFKA, "two-owners", json!({ "id": "two-owners", "exactly_once": true }));
    let mut owner = open(&mine()).await;
    for round in 0..8 {
        owner.take_over(&origin()).await.unwrap();
        let mut next = round * 1_000_000;
        let (told, mut delivered) = tokio::sync::watch::channel(0);
        let first = spawn("owner", async move {
            let mut window = VecDeque::new();
            loop {
                if window.len() == 2 {
                    let receipt: deltaforge_core::sink::Receipt = window.pop_front().unwrap();
                    if let Err(fault) = receipt.await {
                        return fault;
                    }
                    told.send_modify(|count| *count += 1);
                }
                match owner.deliver(ended(next..next + 2000), DELIVERY).await {
                    Ok(receipt) => window.push_back(receipt),
                    Err(fault) => return fault,
                }
                next += 2000;
            }
        });
        let mut second = open(&mine()).await;
        delivered.wait_for(|count| *count > round % 3).await.unwrap();
        second.take_over(&origin()).await.unwrap();
        let fault = tokio::time::timeout(SOON, first).await.unwrap().unwrap();
        assert_eq!(fault.class(), Class::Fenced, "round {round}: {fault:?}");
        owner = open(&mine()).await;
    }
}

/// A transaction that the coordinator ended for its age is repeated; it does not look like a second owner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_takes_too_long() {
    let properties =
        [("transaction.abort.timed.out.transaction.cleanup.interval.ms".to_owned(), "200".to_owned())];
    let kafka =
        Kafka::start(&KafkaOptions { properties: properties.into(), ..KafkaOptions::default() }).unwrap();
    let conf =
        json!({ "transaction.timeout.ms": 2000, "message.timeout.ms": 2000, "socket.timeout.ms": 2000 });
    let plan = sink(&kafka, "s", json!({ "exactly_once": true, "client_conf": conf }));
    let mut sink = open(&plan).await;
    sink.take_over(&origin()).await.unwrap();
    let parts = transaction(0..100, 30, &position(99));
    deliver(sink.as_mut(), parts[0].clone()).await.unwrap();
    let start = Instant::now();
    let fault = loop {
        assert!(start.elapsed() < SOON, "the transaction is never ended");
        if let Err(fault) = deliver(sink.as_mut(), parts[1].clone()).await {
            break fault;
        }
    };
    assert!(fault.is_retry(), "{fault:?}");
    drop(sink);
    let mut sink = open(&plan).await;
    assert_eq!(sink.take_over(&origin()).await.unwrap(), None);
    for part in parts {
        deliver(sink.as_mut(), part).await.unwrap();
    }
    assert_eq!(row_ids(&kafka, "s"), up_to(100));
}

/// A broker that dies amid commits: nobody knows their outcome, and each event is there once all the same. After every other
/// death the sink is given up at once, with its commit on the way; else the client has to find its way by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_without_an_answer() {
    const LAST: i64 = 4000;
    const DEATHS: usize = 4;
    let kafka = Arc::new(Kafka::start(&KafkaOptions::default()).unwrap());
    let plan = sink(&kafka, "s", json!({ "exactly_once": true, "send_timeout_secs": 5 }));
    let (progress, deaths) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicUsize::new(0)));
    let killer = {
        let (kafka, progress, deaths) = (kafka.clone(), progress.clone(), deaths.clone());
        std::thread::spawn(move || {
            for death in 1..=DEATHS {
                wait_for("some progress", Duration::from_secs(120), || {
                    progress.load(SeqCst) >= death as i64 * 800
                });
                kafka.kill();
                deaths.store(death, SeqCst);
                kafka.restart();
            }
        })
    };
    let (mut next, mut faults, mut noticed) = (0, Vec::new(), 0);
    while next < LAST {
        let round = async {
            let mut sink = plan.open(&context()).await?;
            next = match sink.take_over(&origin()).await? {
                None => 0,
                Some(held) => {
                    let told = (0..LAST).find(|id| position(*id) == held.position.as_json()).unwrap() + 1;
                    assert!(told >= next, "{told} is less than was acknowledged, {next}");
                    told
                }
            };
            let mut window = VecDeque::new();
            let mut from = next;
            while from < LAST || !window.is_empty() {
                if from < LAST && window.len() < 2 {
                    window.push_back(sink.deliver(ended(from..from + 20), DELIVERY).await?);
                    from += 20;
                } else if let Some(receipt) = window.pop_front() {
                    receipt.await?;
                    next += 20;
                    progress.store(next, SeqCst);
                }
                let death = deaths.load(SeqCst);
                if death > noticed {
                    noticed = death;
                    if death % 2 == 1 {
                        return Ok(());
                    }
                }
            }
            Ok::<(), Fault>(())
        };
        if let Err(fault) = round.await {
            assert!(fault.is_retry(), "{fault:?}");
            faults.push(fault.code());
        }
    }
    killer.join().unwrap();
    assert_eq!((deaths.load(SeqCst), noticed), (DEATHS, DEATHS));
    assert_eq!(row_ids(&kafka, "s"), up_to(LAST), "faults on the way: {faults:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_name_what_loses_data() {
    let made = |topic: &str, settings: Value| {
        let create = json!({ "partitions": 2, "replication_factor": 1, "config": settings });
        sink(
            &KAFKA,
            topic,
            json!({ "create_topics": create, "client_conf": { "message.max.bytes": 900_000 } }),
        )
    };
    let found = |report: &deltaforge_core::config::Report, part: &str| {
        let check = report.checks.iter().find(|check| check.evidence.contains(part));
        let check = check.unwrap_or_else(|| panic!("no `{part}` in {report:?}"));
        (check.severity, check.remedy.is_some())
    };
    let plan = made("weak", json!({ "cleanup.policy": "compact", "max.message.bytes": "1000" }));
    assert_eq!(found(&plan.check().await, "the sink makes it"), (Severity::Ok, false));
    open(&plan).await.close().await;
    let report = plan.check().await;
    assert_eq!(found(&report, "1 brokers answer").0, Severity::Ok);
    assert_eq!(found(&report, "2 partitions, 1 replicas").0, Severity::Ok);
    assert_eq!(found(&report, "without tombstones"), (Severity::Warning, true));
    assert_eq!(found(&report, "up to 1000 bytes"), (Severity::Warning, true));
    let good = made("strong", json!({}));
    open(&good).await.close().await;
    assert_eq!(good.check().await.problems().count(), 0);
    // A positions topic that forgets.
    open(&made("forgetful", json!({ "cleanup.policy": "delete" }))).await.close().await;
    let exact = sink(&KAFKA, "strong", json!({ "exactly_once": true, "positions_topic": "forgetful" }));
    assert_eq!(found(&exact.check().await, "positions vanish"), (Severity::Error, true));
}
