//! The Redis sink against real servers: what entries hold, and what happens when the server misbehaves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::*;
use deltaforge_core::config::Severity;
use deltaforge_core::fault::Kind;
use deltaforge_core::sink::SinkPlan;
use deltaforge_core::task::spawn;
use deltaforge_core::{Batch, Class, Fault, Op};
use deltaforge_testkit::servers::{Proxy, Redis, RedisOptions, RedisSentinel};
use deltaforge_testkit::{wait_for, wait_for_async};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// For tests that leave the server as it is; each has streams of its own.
static REDIS: LazyLock<Redis> = LazyLock::new(|| Redis::start(&RedisOptions::default()).unwrap());
const SOON: Duration = Duration::from_secs(30);

fn start(args: &[&str]) -> Redis {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Redis::start(&RedisOptions { args, ..RedisOptions::default() }).unwrap()
}

/// Names and values of each entry of a stream.
fn entries(redis: &Redis, stream: &str) -> Vec<Vec<(String, String)>> {
    let answer = redis.cli(&["EVAL", DUMP, "1", stream]);
    serde_json::from_str(&answer).unwrap()
}

/// `redis-cli --raw` does not tell where an entry ends.
const DUMP: &str = "local out = {} for i, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do local fields = {} \
    for j = 1, #entry[2], 2 do fields[#fields + 1] = {entry[2][j], entry[2][j + 1]} end out[i] = fields end \
    return #out == 0 and '[]' or cjson.encode(out)";

fn row_ids(redis: &Redis, stream: &str) -> Vec<i64> {
    let payload = |entry: &Vec<(String, String)>| -> Value { serde_json::from_str(&entry[1].1).unwrap() };
    ids(&entries(redis, stream).iter().map(payload).collect::<Vec<_>>())
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

#[tokio::test]
async fn what_an_entry_holds() {
    let row = |op, id, old_id| Row { table: "t", op, id, old_id, pad: "p" };
    let rows = [row(Op::Create, 1, None), row(Op::Update, 1, Some(1)), row(Op::Update, 2, Some(1))];
    let plan = plan("redis", json!({ "uri": REDIS.uri(), "stream": "entry" }));
    deliver(open(&plan).await.as_mut(), batch_of(&rows)).await.unwrap();
    let entries = entries(&REDIS, "entry");
    let names: Vec<Vec<&str>> =
        entries.iter().map(|e| e.iter().map(|(name, _)| name.as_str()).collect()).collect();
    assert_eq!(names[0], ["event_id", "df-event", "df-key"]);
    assert_eq!(names[1], names[0], "an update that keeps the key has no old one");
    assert_eq!(names[2], ["event_id", "df-event", "df-key", "df-old-key"]);
    assert_eq!(entries[0][0].1, event_id(1).to_string());
    assert_eq!((entries[0][2].1.as_str(), entries[2][2].1.as_str()), (r#"{"id":1}"#, r#"{"id":2}"#));
    assert_eq!(entries[2][3].1, r#"{"id":1}"#);
    let event: Value = serde_json::from_str(&entries[2][1].1).unwrap();
    assert_eq!(
        (&event["op"], &event["after"]["id"], &event["before"]["id"]),
        (&json!("u"), &json!(2), &json!(1))
    );
}

#[tokio::test]
async fn field_key_database_and_envelope() {
    let config = json!({
        "uri": format!("{}/3", REDIS.uri()), "stream": "fields", "field": "event", "key": "k-${after.pad}",
        "envelope": { "type": "debezium" },
    });
    let rows = [
        Row { table: "t", op: Op::Create, id: 1, old_id: None, pad: "a" },
        Row { table: "t", op: Op::Update, id: 3, old_id: Some(2), pad: "b" },
    ];
    deliver(open(&plan("redis", config)).await.as_mut(), batch_of(&rows)).await.unwrap();
    let answer = REDIS.cli(&["-n", "3", "EVAL", DUMP, "1", "fields"]);
    let entries: Vec<Vec<(String, String)>> = serde_json::from_str(&answer).unwrap();
    assert_eq!(entries[0][1].0, "event");
    assert!(entries[0][1].1.starts_with(r#"{"schema":null,"payload":{"#), "{}", entries[0][1].1);
    assert_eq!(entries[0][2], ("df-key".into(), "k-a".into()));
    assert_eq!(entries[1].len(), 3, "a key made by a template has no old key");
}

#[tokio::test]
async fn a_key_that_the_event_does_not_fill_is_the_default_key() {
    let plan = plan("redis", json!({ "uri": REDIS.uri(), "stream": "nokey", "key": "${after.region}" }));
    deliver(open(&plan).await.as_mut(), batch(7..8, 1)).await.unwrap();
    assert_eq!(entries(&REDIS, "nokey")[0][2].1, r#"{"id":7}"#);
}

#[tokio::test]
async fn maxlen_trims_about_there() {
    let plan = plan("redis", json!({ "uri": REDIS.uri(), "stream": "trimmed", "maxlen": 1000 }));
    let mut sink = open(&plan).await;
    for n in 0..10 {
        deliver(sink.as_mut(), batch(n * 1000..(n + 1) * 1000, 1)).await.unwrap();
    }
    let len: i64 = REDIS.cli(&["XLEN", "trimmed"]).parse().unwrap();
    assert!((1000..2000).contains(&len), "{len}");
}

#[tokio::test]
async fn streams_named_by_the_events() {
    let plan = plan("redis", json!({ "uri": REDIS.uri(), "stream": "by.${source.table}" }));
    let tables = ["a", "b", "c"];
    let rows: Vec<Row<'_>> = (0..300)
        .map(|id| Row { table: tables[id as usize % 3], op: Op::Create, id, old_id: None, pad: "" })
        .collect();
    let mut sink = open(&plan).await;
    for _ in 0..2 {
        deliver(sink.as_mut(), batch_of(&rows)).await.unwrap();
    }
    for (n, table) in tables.iter().enumerate() {
        let once: Vec<i64> = (0..300).filter(|id| id % 3 == n as i64).collect();
        assert_eq!(row_ids(&REDIS, &format!("by.{table}")), [once.clone(), once].concat());
    }
}

/// The event is named, so that it can be dead-lettered; no other event of the batch arrives, and those before it do.
#[tokio::test]
async fn an_event_that_cannot_be_routed() {
    let plan = plan("redis", json!({ "uri": REDIS.uri(), "stream": "${after.nothing}" }));
    let fault = failed(&plan, batch(5..9, 1)).await;
    assert_eq!((fault.class(), fault.kind_of()), (Class::Data, Kind::Route), "{fault}");
    assert_eq!(fault.event_id(), Some(event_id(5).to_string().as_str()));
}

#[tokio::test]
async fn an_event_above_the_servers_limit() {
    let redis = start(&["--proto-max-bulk-len", "1mb"]);
    let plan = plan("redis", json!({ "uri": redis.uri(), "stream": "large" }));
    let (small, large) = ("small".to_owned(), "x".repeat(1 << 20));
    let row = |id, pad| Row { table: "t", op: Op::Create, id, old_id: None, pad };
    let mut sink = open(&plan).await;
    let first = sink.deliver(batch(0..10, 1), DELIVERY).await.unwrap();
    let rows = [row(10, small.as_str()), row(11, large.as_str()), row(12, small.as_str())];
    let fault = sink.deliver(batch_of(&rows), DELIVERY).await.err().unwrap();
    assert_eq!((fault.class(), fault.code()), (Class::Data, "redis.event_too_large"), "{fault}");
    assert_eq!(fault.event_id(), Some(event_id(11).to_string().as_str()));
    first.await.expect("the batch before is delivered");
    drop(sink);
    deliver(open(&plan).await.as_mut(), Arc::new(batch_of(&rows).without(event_id(11)))).await.unwrap();
    assert_eq!(row_ids(&redis, "large"), (0..10).chain([10, 12]).collect::<Vec<_>>());
}

/// A managed server may not let us ask for the limit; its answer then names no event, but the largest is the one.
#[tokio::test]
async fn an_event_above_a_limit_that_nobody_may_ask_for() {
    let redis = start(&["--proto-max-bulk-len", "1mb", "--rename-command", "CONFIG", ""]);
    let plan = plan("redis", json!({ "uri": redis.uri(), "stream": "large" }));
    let large = "x".repeat(1 << 20);
    let row = |id, pad| Row { table: "t", op: Op::Create, id, old_id: None, pad };
    let fault = failed(&plan, batch_of(&[row(0, ""), row(1, large.as_str()), row(2, "")])).await;
    assert_eq!((fault.class(), fault.code()), (Class::Data, "redis.event_too_large"), "{fault}");
    assert_eq!(fault.event_id(), Some(event_id(1).to_string().as_str()));
    assert_eq!(redis.cli(&["XLEN", "large"]), "0");
}

#[tokio::test]
async fn a_key_of_another_type_is_found_before_anything_is_written() {
    REDIS.cli(&["SET", "taken", "1"]);
    let constant = plan("redis", json!({ "uri": REDIS.uri(), "stream": "taken" }));
    let fault = refused(&constant).await;
    assert_eq!((fault.class(), fault.code()), (Class::Config, "redis.wrong_type"), "{fault}");

    REDIS.cli(&["SET", "typed.b", "1"]);
    let routed = plan("redis", json!({ "uri": REDIS.uri(), "stream": "typed.${source.table}" }));
    let row = |id, table| Row { table, op: Op::Create, id, old_id: None, pad: "" };
    let fault = failed(&routed, batch_of(&[row(1, "a"), row(2, "b")])).await;
    assert_eq!((fault.class(), fault.code()), (Class::Config, "redis.wrong_type"), "{fault}");
    assert_eq!(REDIS.cli(&["EXISTS", "typed.a"]), "0");
    let report = constant.check().await;
    assert!(report.checks.iter().any(|c| c.name == "stream" && c.severity == Severity::Error), "{report:?}");
}

/// The key changes its type while a sink is open: the transaction's own answer tells.
#[tokio::test]
async fn a_key_that_becomes_another_type_fails_the_batch() {
    let plan = plan("redis", json!({ "uri": REDIS.uri(), "stream": "changing" }));
    let mut sink = open(&plan).await;
    deliver(sink.as_mut(), batch(0..10, 1)).await.unwrap();
    REDIS.cli(&["DEL", "changing"]);
    REDIS.cli(&["SET", "changing", "1"]);
    let fault = deliver(sink.as_mut(), batch(10..20, 1)).await.unwrap_err();
    assert_eq!((fault.class(), fault.code()), (Class::Config, "redis.wrong_type"), "{fault}");
    let after = sink.deliver(batch(20..30, 1), DELIVERY).await.err().expect("the sink is dead");
    assert!(after.code().starts_with("redis."), "{after}");
}

#[tokio::test]
async fn credentials() {
    let redis =
        Redis::start(&RedisOptions { password: Some("hunter2".into()), ..RedisOptions::default() }).unwrap();
    redis.cli(&["ACL", "SETUSER", "writer", "on", ">pass%word", "~s", "+multi", "+exec", "+xadd"]);
    redis.cli(&["ACL", "SETUSER", "reader", "on", ">x", "~*", "+@read", "+ping"]);
    let at = format!("127.0.0.1:{}", redis.port());
    let with = |user: &str| plan("redis", json!({ "uri": format!("redis://{user}{at}"), "stream": "s" }));
    for wrong in ["", ":wrong@", "nobody:hunter2@", "default:wrong@"] {
        let fault = refused(&with(wrong)).await;
        assert_eq!((fault.class(), fault.code()), (Class::Config, "redis.auth_refused"), "{wrong}: {fault}");
        assert!(!fault.to_string().contains("wrong@") && !fault.to_string().contains("hunter2"), "{fault}");
    }
    let fault = refused(&with("reader:x@")).await;
    assert_eq!((fault.class(), fault.code()), (Class::Config, "redis.not_permitted"), "{fault}");
    // The least rights that the documentation names: not even PING, INFO, TYPE or CLIENT.
    for right in [":hunter2@", "default:hunter2@", "writer:pass%25word@"] {
        deliver(open(&with(right)).await.as_mut(), batch(0..10, 1)).await.unwrap();
    }
    assert_eq!(redis.cli(&["XLEN", "s"]), "30");
}

#[tokio::test]
async fn tls_modes() {
    let redis = Redis::start(&RedisOptions { tls: true, ..RedisOptions::default() }).unwrap();
    let ca = redis.ca_file().display().to_string();
    let other = redis.tls().other_ca_file().display().to_string();
    let (cert, key) = (redis.tls().client_cert_file(), redis.tls().client_key_file());
    let with = |uri: String, tls: Value| plan("redis", json!({ "uri": uri, "stream": "s", "tls": tls }));
    let (rediss, plain) = (redis.uri(), redis.uri().replace("rediss", "redis"));
    let accepted = [
        with(rediss.clone(), json!({ "ca_file": ca })),
        with(plain.clone(), json!({ "ca_file": ca })),
        with(plain.clone(), json!({ "mode": "require" })),
        with(rediss.clone(), json!({ "mode": "verify-ca", "ca_file": ca })),
        with(rediss.clone(), json!({ "ca_file": ca, "cert_file": cert, "key_file": key })),
    ];
    for plan in &accepted {
        deliver(open(plan).await.as_mut(), batch(0..10, 1)).await.unwrap();
    }
    let fault = refused(&with(rediss.clone(), json!({ "ca_file": other }))).await;
    assert_eq!((fault.class(), fault.code()), (Class::Config, "tls.certificate_refused"), "{fault}");
    let fault = refused(&with(rediss, json!({ "ca_file": "/no/such" }))).await;
    assert_eq!((fault.class(), fault.code()), (Class::Config, "tls.file_unreadable"), "{fault}");
    // Plain text to a port that speaks TLS must not pass for a broken line that mends itself unseen.
    let fault = refused(&with(plain, json!({}))).await;
    assert!(fault.code().starts_with("redis."), "{fault}");
    // A plain server takes the greeting for the beginning of a command and waits for the rest: it may as well be frozen.
    let config =
        json!({ "uri": REDIS.uri(), "stream": "s", "tls": { "mode": "require" }, "connect_timeout_secs": 1 });
    let fault = refused(&plan("redis", config)).await;
    assert_eq!((fault.class(), fault.code()), (Class::Retry, "redis.timeout"), "{fault}");
    assert!(fault.hint_text().is_some_and(|hint| hint.contains("TLS")), "{fault}");
}

/// Memory runs out while batches are in flight; a refused batch leaves nothing behind, and none overtakes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_memory_then_freed() {
    let redis = start(&["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"]);
    let plan = plan("redis", json!({ "uri": redis.uri(), "stream": "s" }));
    let all: Vec<Arc<Batch>> = (0..60).map(|n| batch(n * 100..n * 100 + 100, 600)).collect();
    let delivering = spawn("delivery", {
        let (plan, all) = (plan.clone(), all.clone());
        async move { deliver_all(&plan, &all).await }
    });
    // Full: what came so far stays the same for a while, in whole batches.
    let length = || redis.try_cli(&["XLEN", "s"]).map_or(0, |text| text.parse::<i64>().unwrap());
    wait_for_async("memory to run out", SOON, async || {
        redis.cli(&["INFO", "errorstats"]).contains("errorstat_OOM")
    })
    .await;
    let before = length();
    assert!(before > 0 && before < 6000 && before % 100 == 0, "{before}");
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    let codes = tokio::time::timeout(SOON, delivering).await.unwrap().unwrap();
    assert!(!codes.is_empty() && codes.iter().all(|code| *code == "redis.out_of_memory"), "{codes:?}");
    // No connection broke, so nothing is even repeated.
    let ids = row_ids(&redis, "s");
    assert_contiguous_replays(&ids, 6000);
    assert_eq!(ids.len(), 6000);
}

/// Connections that break at every place of a delivery: in the batch, in `EXEC`, in the replies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_is_a_contiguous_replay() {
    let proxy = Proxy::start(REDIS.port());
    let uri = format!("redis://127.0.0.1:{}", proxy.port());
    let plan = plan("redis", json!({ "uri": uri, "stream": "cut" }));
    let mut faults = 0;
    for n in 0..60 {
        // Logging in takes 1.5 KB of replies, a batch 1.6 KB; the batch after it is being sent meanwhile.
        proxy.cut_after_bytes(1 + (n * 977) % 9_000);
        let batches: Vec<Arc<Batch>> =
            (0..5).map(|i| (n as i64 * 5 + i) * 50).map(|at| batch(at..at + 50, 300)).collect();
        faults += deliver_all(&plan, &batches).await.len();
    }
    assert!(faults >= 50, "{faults}");
    assert_contiguous_replays(&row_ids(&REDIS, "cut"), 60 * 250);
}

/// A server that freezes with a batch half-read. We give up, come back, and it wakes: what the first connection had sent must
/// not be executed behind what the second one sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_a_timeout_and_no_ghost() {
    let redis = start(&[]);
    let config =
        json!({ "uri": redis.uri(), "stream": "s", "send_timeout_secs": 1, "connect_timeout_secs": 1 });
    let plan = plan("redis", config);
    let mut sink = open(&plan).await;
    deliver(sink.as_mut(), batch(0..10, 1)).await.unwrap();
    redis.pause();
    let fault = deliver(sink.as_mut(), batch(10..20, 100)).await.unwrap_err();
    assert_eq!(
        (fault.class(), fault.code(), fault.kind_of()),
        (Class::Retry, "redis.timeout", Kind::Timeout),
        "{fault}"
    );
    drop(sink);
    let fault = refused(&plan).await;
    assert_eq!((fault.class(), fault.code()), (Class::Retry, "redis.timeout"), "{fault}");
    redis.resume();
    let all = [batch(10..20, 100), batch(20..30, 1), batch(30..40, 1)];
    deliver_all(&plan, &all).await;
    assert_contiguous_replays(&row_ids(&redis, "s"), 40);
}

/// The same with the network instead of the server: what was sent before the break arrives after the new connection is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_connection_sent_is_not_executed_later() {
    let redis = start(&[]);
    let proxy = Proxy::start(redis.port());
    let uri = format!("redis://127.0.0.1:{}", proxy.port());
    let config = json!({ "uri": uri, "stream": "s", "send_timeout_secs": 1, "connect_timeout_secs": 1 });
    let plan = plan("redis", config);
    let mut sink = open(&plan).await;
    deliver(sink.as_mut(), batch(0..10, 1)).await.unwrap();
    let clients = redis.cli(&["CLIENT", "LIST", "TYPE", "NORMAL"]);
    let ours =
        clients.lines().find(|line| line.contains("cmd=exec")).unwrap().split(' ').next().unwrap().to_owned();
    proxy.freeze(true);
    assert_eq!(deliver(sink.as_mut(), batch(10..20, 1)).await.unwrap_err().code(), "redis.timeout");
    std::mem::forget(sink); // As if the machine had lost it without a word: the socket stays open.
    proxy.freeze(false);
    let _second = open(&plan).await;
    let gone = |ours: &str| {
        !redis.cli(&["CLIENT", "LIST", "TYPE", "NORMAL"]).lines().any(|l| l.starts_with(&format!("{ours} ")))
    };
    assert!(gone(&ours), "the earlier connection is killed before the new one is used");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_and_an_unreachable_server() {
    let redis = start(&[]);
    let plan = plan("redis", json!({ "uri": redis.uri(), "stream": "s" }));
    let mut sink = open(&plan).await;
    deliver(sink.as_mut(), batch(0..10, 1)).await.unwrap();
    redis.stop();
    let fault = deliver(sink.as_mut(), batch(10..20, 1)).await.unwrap_err();
    assert_eq!((fault.class(), fault.kind_of()), (Class::Retry, Kind::Connect), "{fault}");
    let fault = refused(&plan).await;
    assert_eq!((fault.class(), fault.code()), (Class::Retry, "redis.unreachable"), "{fault}");
    redis.restart();
    deliver_all(&plan, &[batch(10..20, 1)]).await;
    assert_eq!(row_ids(&redis, "s"), (0..20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed() {
    let sentinel = RedisSentinel::start().unwrap();
    let plan = plan("redis", json!({ "uri": sentinel.uri(), "stream": "s" }));
    let mut sink = open(&plan).await;
    deliver(sink.as_mut(), batch(0..10, 1)).await.unwrap();
    // Replication is asynchronous; losing what the replica has not heard of yet is not what this test is about.
    wait_for("the replica to have it", SOON, || {
        sentinel.replica().try_cli(&["XLEN", "s"]).is_ok_and(|len| len == "10")
    });
    sentinel.failover();
    // Whatever tells us first, that the old master ended the connection or that it is read-only: it is `Retry`.
    let mut from = 10;
    while let Ok(_delivered) = deliver(sink.as_mut(), batch(from..from + 10, 1)).await {
        from += 10;
    }
    deliver_all(&plan, &batches(20, 1)).await;
    let report = plan.check().await;
    assert!(
        report.checks.iter().any(|c| c.evidence.contains(&sentinel.master_port().to_string())),
        "{report:?}"
    );
    let seen = row_ids(sentinel.replica(), "s");
    assert!(seen.ends_with(&(0..200).collect::<Vec<_>>()), "{seen:?}");
}

#[tokio::test]
async fn a_sentinel_that_knows_no_such_master_and_one_that_is_none() {
    let uri = |port: u16, name: &str| format!("redis-sentinel://127.0.0.1:1,127.0.0.1:{port}/?master={name}");
    let fault = refused(&plan("redis", json!({ "uri": uri(REDIS.port(), "m"), "stream": "s" }))).await;
    assert_eq!((fault.class(), fault.code()), (Class::Retry, "redis.no_master"), "{fault}");
    assert!(fault.message().contains("127.0.0.1:1 cannot be reached"), "{fault}");
}

#[tokio::test]
async fn what_the_check_tells() {
    let redis = start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru", "--appendonly", "no"]);
    let sink = plan("redis", json!({ "uri": redis.uri(), "stream": "s", "maxlen": 5 }));
    let report = sink.check().await;
    let problem = |name: &str| {
        report.problems().find(|c| c.name == name).unwrap_or_else(|| panic!("{name}: {report:?}"))
    };
    for name in ["eviction", "persistence", "trimming"] {
        assert!(problem(name).remedy.is_some());
    }
    assert!(report.checks.iter().any(|c| c.name == "version" && c.severity == Severity::Ok));
    assert_eq!(redis.cli(&["DBSIZE"]), "0", "a check writes nothing");
    redis.stop();
    let report = sink.check().await;
    assert_eq!(report.checks[0].severity, Severity::Error);
    assert!(report.checks[0].evidence.contains("redis.unreachable"), "{report:?}");
}

/// The replication of a replica is what makes it one.
#[tokio::test]
async fn a_replica_is_no_target() {
    let replica = start(&["--replicaof", "127.0.0.1", &REDIS.port().to_string()]);
    let plan = plan("redis", json!({ "uri": replica.uri(), "stream": "s" }));
    let report = plan.check().await;
    assert!(report.checks.iter().any(|c| c.name == "role" && c.severity == Severity::Error), "{report:?}");
    wait_for("the replica to be in step", SOON, || {
        replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
    });
    let fault = failed(&plan, batch(0..10, 1)).await;
    assert_eq!((fault.class(), fault.code()), (Class::Retry, "redis.read_only"), "{fault}");
}
