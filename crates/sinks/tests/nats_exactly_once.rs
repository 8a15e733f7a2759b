//! `exactly_once` on NATS: what the stream holds is known exactly, whatever was cut, killed or delivered by two.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use async_nats::jetstream::{self, stream::Config};
use common::nats::{self, Stored, client, named, row_ids, stored, stream};
use common::*;
use deltaforge_core::batch::{BatchBuilder, Limits, TransactionHead};
use deltaforge_core::fault::Class;
use deltaforge_core::schema::{Column, TableName};
use deltaforge_core::sink::{Held, Sink, SinkPlan};
use deltaforge_core::{Batch, EventId, Fault, Op, Position, TableSchema, Value};
use deltaforge_testkit::servers::{Nats, NatsCluster, NatsOptions, NatsVersion, Proxy};
use deltaforge_testkit::wait_for_async;
use serde_json::json;
use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Transactions of rows, as a source would cut them: each as its batches, the last of which has an end.
fn transaction(ids: Range<i64>, most: usize) -> Vec<Arc<Batch>> {
    let limits = Limits { max_events: most, max_bytes: usize::MAX, respect_source_tx: true };
    let mut builder = BatchBuilder::new(limits, None, 0);
    let column = |name: &str| Column { name: name.into(), type_name: "bigint".into(), nullable: None };
    let name = TableName::in_schema("shop", "public", "t");
    let schema = Arc::new(TableSchema::new(name, vec![column("id")], vec![0], vec![]));
    let table = builder.schema(schema);
    let mut batches = Vec::new();
    builder.begin(TransactionHead { id: "7", ts_us: 1_700_000_000_000_000, ts_exact: true }, 0, |_| {});
    for id in ids.clone() {
        let mut event = builder.event(Op::Create, table);
        let _: Result<(), Infallible> = event.after(1, |out| {
            out.put(Value::Int(id));
            Ok(())
        });
        event.finish(event_id(id));
        if builder.is_full() {
            batches.extend(builder.cut().map(Arc::new));
        }
    }
    builder.commit(|out| out.extend_from_slice(format!("{{\"lsn\":{}}}", ids.end).as_bytes()));
    batches.extend(builder.cut().map(Arc::new));
    assert!(batches.last().unwrap().end().is_some());
    batches
}

/// Transactions of ten rows, of the rows below `n`.
fn transactions(n: i64) -> Vec<Arc<Batch>> {
    (0..n / 10).flat_map(|k| transaction(k * 10..k * 10 + 10, 1000)).collect()
}

fn held(position: i64, event: i64, inside: u64) -> Option<Held> {
    let position = Position::from_json(&format!("{{\"lsn\":{position}}}"));
    Some(Held { position, event: event_id(event), inside })
}

fn exactly(url: &str, name: &str) -> Arc<dyn SinkPlan> {
    plan(
        "nats",
        json!({ "url": url, "stream": name, "subject": format!("{name}.events"), "create_stream": {},
        "exactly_once": true, "send_timeout_secs": 2, "batch_timeout_secs": 5, "connect_timeout_secs": 3 }),
    )
}

/// Where the source begins.
fn start() -> Position {
    Position::from_json("{\"lsn\":0}")
}

/// The stream is made by the test, without a memory of ids: what is delivered twice is there twice.
async fn forgetful(client: &async_nats::Client, name: &str, atomic: bool) {
    let window = Duration::from_millis(100);
    stream(client, Config { duplicate_window: window, allow_atomic_publish: atomic, ..named(name) }).await;
}

/// What follows what is held, as the engine finds it: the batches, the first one without what is there already.
fn missing(all: &[Arc<Batch>], held: Option<&Held>) -> Vec<Arc<Batch>> {
    let Some(held) = held else { return all.to_vec() };
    let whole = |batch: &Arc<Batch>| batch.end().is_some_and(|end| end.position == held.position);
    let from = all.iter().position(whole).map_or(0, |at| at + 1);
    let mut rest: Vec<Arc<Batch>> = all[from..].to_vec();
    if held.inside == 0 {
        return rest;
    }
    let there = rest.iter().flat_map(|batch| batch.events().map(|event| event.id()).collect::<Vec<_>>());
    let there: Vec<_> = there.collect();
    let upto = there.iter().position(|id| *id == held.event).expect("the event is behind the position");
    assert_eq!(upto as u64 + 1, held.inside, "counted from the position");
    for id in &there[..=upto] {
        rest = rest.iter().map(|batch| Arc::new(batch.without(*id))).collect();
    }
    rest
}

/// Delivers all as the engine does: opened, taken over, what is held skipped. Gives the faults on the way.
async fn deliver_exactly(plan: &Arc<dyn SinkPlan>, all: &[Arc<Batch>]) -> Result<Vec<&'static str>, Fault> {
    let mut codes = Vec::new();
    loop {
        match attempt(plan, all).await {
            Ok(()) => return Ok(codes),
            Err(fault) if fault.is_retry() => codes.push(fault.code()),
            Err(fault) => return Err(fault),
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // The lane's backoff.
    }
}

async fn attempt(plan: &Arc<dyn SinkPlan>, all: &[Arc<Batch>]) -> Result<(), Fault> {
    let mut sink = plan.open(&context()).await?;
    let held = sink.take_over(&start()).await?;
    let mut receipts = std::collections::VecDeque::new();
    for batch in missing(all, held.as_ref()) {
        receipts.push_back(sink.deliver(batch, DELIVERY).await?);
        if receipts.len() > 3
            && let Some(receipt) = receipts.pop_front()
        {
            receipt.await?;
        }
    }
    for receipt in receipts {
        receipt.await?;
    }
    sink.close().await;
    Ok(())
}

async fn reopened(plan: &Arc<dyn SinkPlan>) -> (Box<dyn Sink>, Option<Held>) {
    let mut sink = open(plan).await;
    let recovered = sink.recovered().cloned();
    let taken = sink.take_over(&start()).await.unwrap();
    assert_eq!(recovered, taken, "nobody else writes");
    (sink, taken)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_is_known_after_each_step() {
    for (version, atomic) in [(NatsVersion::Newest, true), (NatsVersion::V2_9, false)] {
        let server = Nats::start(&NatsOptions { version, ..Default::default() }).unwrap();
        let reader = client(&server).await;
        let plan = exactly(&server.url(), "s");
        let (mut sink, at_first) = reopened(&plan).await;
        assert_eq!(at_first, None);
        let config =
            jetstream::new(reader.clone()).get_stream("s").await.unwrap().cached_info().config.clone();
        assert_eq!(
            config.allow_atomic_publish, atomic,
            "`create_stream` asks for atomic batches where there are any"
        );
        for batch in transactions(30) {
            deliver(sink.as_mut(), batch).await.unwrap();
        }
        sink.close().await;
        let (mut sink, there) = reopened(&plan).await;
        assert_eq!(there, held(30, 29, 0));
        // An empty batch moves the position that later messages carry; nothing is written for it.
        let empty = transaction(30..31, 1000).pop().unwrap().without(event_id(30));
        deliver(sink.as_mut(), Arc::new(empty)).await.unwrap();
        let [first, second, last]: [Arc<Batch>; 3] = transaction(31..60, 10).try_into().unwrap();
        assert!(first.end().is_none() && second.end().is_none());
        deliver(sink.as_mut(), first).await.unwrap();
        deliver(sink.as_mut(), second).await.unwrap();
        drop(sink);
        let (mut sink, there) = reopened(&plan).await;
        assert_eq!(there, held(31, 50, 20), "a part of a transaction");
        deliver(sink.as_mut(), last).await.unwrap();
        sink.close().await;
        assert_eq!(reopened(&plan).await.1, held(60, 59, 0));
        assert_eq!(row_ids(&reader, "s").await, (0..30).chain(31..60).collect::<Vec<_>>());
        let marks: Vec<bool> =
            stored(&reader, "s").await.iter().map(|m| m.header("df-end").is_some()).collect();
        assert_eq!(marks.iter().filter(|mark| **mark).count(), 4, "one mark per batch with an end");
    }
}

/// An event that comes again beside the stream, as a dead letter does, leaves the stream's last event what it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_beside_the_stream() {
    for (version, at) in [(NatsVersion::Newest, 30), (NatsVersion::V2_9, 30), (NatsVersion::Newest, 0)] {
        let server = Nats::start(&NatsOptions { version, ..Default::default() }).unwrap();
        let plan = exactly(&server.url(), "s");
        let (mut sink, _) = reopened(&plan).await;
        for batch in transactions(at) {
            deliver(sink.as_mut(), batch).await.unwrap();
        }
        let end = transaction(at - 1..at, 1000).pop().and_then(|batch| batch.end().cloned());
        let letter = transaction(100..102, 1000).pop().unwrap().without(event_id(101)).beside(end.clone());
        deliver(sink.as_mut(), Arc::new(letter)).await.unwrap();
        drop(sink);
        let (mut sink, there) = reopened(&plan).await;
        let last = if at == 0 { EventId::default() } else { event_id(at - 1) };
        assert_eq!(there.map(|held| (held.event, held.inside)), Some((last, 0)));
        // Also after it was opened anew.
        let letter = transaction(102..103, 1000).pop().unwrap().without(event_id(0)).beside(end);
        deliver(sink.as_mut(), Arc::new(letter)).await.unwrap();
        deliver(sink.as_mut(), transaction(30..40, 4).remove(0)).await.unwrap();
        drop(sink);
        let (sink, there) = reopened(&plan).await;
        assert_eq!(there, held(at, 33, 4), "what came beside the stream is not counted");
        sink.close().await;
    }
}

/// The first batch of all is cut while it is stored: its messages count from where the source begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_transaction_that_is_cut() {
    let server = Nats::start(&NatsOptions::default()).unwrap();
    let reader = client(&server).await;
    let plan = exactly(&server.url(), "s");
    let parts = transaction(0..30, 10);
    let (mut sink, there) = reopened(&plan).await;
    assert_eq!(there, None);
    deliver(sink.as_mut(), parts[0].clone()).await.unwrap();
    drop(sink);
    let (mut sink, there) = reopened(&plan).await;
    assert_eq!(there, held(0, 9, 10));
    deliver(sink.as_mut(), parts[1].clone()).await.unwrap();
    drop(sink);
    let (mut sink, there) = reopened(&plan).await;
    assert_eq!(there, held(0, 19, 20), "counted on");
    deliver(sink.as_mut(), parts[2].clone()).await.unwrap();
    sink.close().await;
    assert_eq!(row_ids(&reader, "s").await, (0..30).collect::<Vec<_>>());
    assert_eq!(reopened(&plan).await.1, held(30, 29, 0));
}

/// An atomic batch is seen whole or not at all: the connection is cut while it is staged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_cut_is_not_there() {
    let server = Nats::start(&NatsOptions::default()).unwrap();
    let reader = client(&server).await;
    forgetful(&reader, "s", true).await;
    let proxy = Proxy::start(server.port());
    let plan = exactly(&format!("nats://127.0.0.1:{}", proxy.port()), "s");
    let all: Vec<Arc<Batch>> = (0..20).flat_map(|k| transaction(k * 300..k * 300 + 300, 1000)).collect();
    let mut cuts = 0;
    let mut rest = all.clone();
    for bytes in (3_000..6_000).step_by(177) {
        proxy.cut_after_bytes(bytes);
        if attempt(&plan, &rest).await.is_err() {
            cuts += 1;
        }
        let found = row_ids(&reader, "s").await;
        assert_eq!(found, (0..found.len() as i64).collect::<Vec<_>>());
        assert_eq!(found.len() % 300, 0, "only whole batches");
        rest = all.clone();
    }
    assert!(cuts > 3, "{cuts}");
    proxy.cut_never();
    deliver_exactly(&plan, &all).await.unwrap();
    assert_eq!(row_ids(&reader, "s").await, (0..6000).collect::<Vec<_>>());
}

/// Cut anywhere, with no deduplication to help: nothing is missing, doubled or out of order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_without_deduplication() {
    for (version, atomic) in
        [(NatsVersion::Newest, true), (NatsVersion::Newest, false), (NatsVersion::V2_9, false)]
    {
        let server = Nats::start(&NatsOptions { version, ..Default::default() }).unwrap();
        let reader = client(&server).await;
        forgetful(&reader, "s", atomic).await;
        let proxy = Proxy::start(server.port());
        let plan = exactly(&format!("nats://127.0.0.1:{}", proxy.port()), "s");
        let all = transactions(10_000);
        let mut faults = 0;
        for n in 0..25 {
            proxy.cut_after_bytes(4_001 + 1_499 * n);
            faults += usize::from(attempt(&plan, &all).await.is_err());
        }
        proxy.cut_never();
        deliver_exactly(&plan, &all).await.unwrap();
        assert!(faults > 5, "{faults}");
        assert_eq!(row_ids(&reader, "s").await, (0..10_000).collect::<Vec<_>>());
        assert_eq!(reopened(&plan).await.1, held(10_000, 9_999, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_the_middle() {
    for (version, atomic) in
        [(NatsVersion::Newest, true), (NatsVersion::Newest, false), (NatsVersion::V2_9, false)]
    {
        let server = Nats::start(&NatsOptions { version, ..Default::default() }).unwrap();
        let reader = client(&server).await;
        forgetful(&reader, "s", atomic).await;
        let plan = exactly(&server.url(), "s");
        let all = transactions(40_000);
        let (delivering, batches) = (plan.clone(), all.clone());
        let delivering =
            deltaforge_core::task::spawn("test", async move { deliver_exactly(&delivering, &batches).await });
        for n in 1..5 {
            wait_for_async("messages", Duration::from_secs(60), async || {
                let Ok(mut stream) = jetstream::new(reader.clone()).get_stream("s").await else {
                    return false;
                };
                stream.info().await.is_ok_and(|info| info.state.messages > n * 6_000)
            })
            .await;
            server.kill();
            server.restart();
        }
        let faults = delivering.await.unwrap().unwrap();
        assert!(faults.len() >= 3, "{faults:?}");
        assert_eq!(row_ids(&reader, "s").await, (0..40_000).collect::<Vec<_>>(), "{version:?} {atomic}");
    }
}

/// Two processes with one identity: exactly one goes on, the other says so, and the stream is that of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_writer_is_fenced_or_fences() {
    for (version, atomic) in
        [(NatsVersion::Newest, true), (NatsVersion::Newest, false), (NatsVersion::V2_9, false)]
    {
        let server = Nats::start(&NatsOptions { version, ..Default::default() }).unwrap();
        let reader = client(&server).await;
        forgetful(&reader, "s", atomic).await;
        let (one, two) = (exactly(&server.url(), "s"), exactly(&server.url(), "s"));
        let all = transactions(200);
        // The first writes, the second takes over and writes, the first is told.
        let (mut first, _) = reopened(&one).await;
        for batch in &all[..5] {
            deliver(first.as_mut(), batch.clone()).await.unwrap();
        }
        let (mut second, there) = reopened(&two).await;
        assert_eq!(there, held(50, 49, 0));
        deliver(second.as_mut(), all[5].clone()).await.unwrap();
        let fault = deliver(first.as_mut(), all[5].clone()).await.unwrap_err();
        assert_eq!((fault.class(), fault.code()), (Class::Fenced, "nats.fenced"), "{fault:?}");
        deliver(second.as_mut(), all[6].clone()).await.unwrap();
        assert_eq!(row_ids(&reader, "s").await, (0..70).collect::<Vec<_>>());
        drop((first, second));
        // Both at full speed.
        let all = transactions(20_000);
        let run = |plan: Arc<dyn SinkPlan>, all: Vec<Arc<Batch>>| {
            deltaforge_core::task::spawn("test", async move { deliver_exactly(&plan, &all).await })
        };
        let (one, two) = (run(one, all.clone()), run(two, all.clone()));
        let outcomes = [one.await.unwrap(), two.await.unwrap()];
        let fenced =
            outcomes.iter().filter(|o| matches!(o, Err(fault) if fault.class() == Class::Fenced)).count();
        let done = outcomes.iter().filter(|o| o.is_ok()).count();
        assert!(done >= 1 && done + fenced == 2, "{outcomes:?}");
        assert_eq!(row_ids(&reader, "s").await, (0..20_000).collect::<Vec<_>>(), "{version:?} {atomic}");
    }
}

/// A message of somebody else: told at once while writing, and at every start until it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_message() {
    for (version, atomic) in
        [(NatsVersion::Newest, true), (NatsVersion::Newest, false), (NatsVersion::V2_9, false)]
    {
        let server = Nats::start(&NatsOptions { version, ..Default::default() }).unwrap();
        let reader = client(&server).await;
        forgetful(&reader, "s", atomic).await;
        let context = jetstream::new(reader.clone());
        let foreign = async || context.publish("s.other", "{}".into()).await.unwrap().await.unwrap().sequence;
        // Before anything of ours it does not matter.
        foreign().await;
        let plan = exactly(&server.url(), "s");
        let all = transactions(100);
        let (mut sink, there) = reopened(&plan).await;
        assert_eq!(there, None);
        deliver(sink.as_mut(), all[0].clone()).await.unwrap();
        // As many as a batch of ours has messages: what then comes behind them finds the sequence that it expects.
        let mut places = Vec::new();
        for _ in 0..if atomic { 10 } else { 1 } {
            places.push(foreign().await);
        }
        let receipts: Vec<_> =
            [sink.deliver(all[1].clone(), DELIVERY).await, sink.deliver(all[2].clone(), DELIVERY).await]
                .into_iter()
                .collect();
        for receipt in receipts {
            let fault = match receipt {
                Ok(receipt) => receipt.await.unwrap_err(),
                Err(fault) => fault,
            };
            assert_eq!((fault.class(), fault.code()), (Class::Config, "nats.stream_not_owned"), "{fault:?}");
        }
        let mut sink = open(&plan).await;
        assert_eq!(sink.recovered().cloned(), held(10, 9, 0), "open disturbs nobody");
        assert_eq!(sink.take_over(&start()).await.unwrap_err().code(), "nats.stream_not_owned");
        let found: Vec<_> =
            stored(&reader, "s").await.into_iter().filter(|m| m.subject == "s.events").collect();
        assert_eq!(ids(&found.iter().map(Stored::event).collect::<Vec<_>>()), (0..10).collect::<Vec<_>>());
        // Deleted, it is as if it had never been: the sequence goes on behind the hole.
        let own = context.get_stream("s").await.unwrap();
        for place in places {
            own.delete_message(place).await.unwrap();
        }
        let (mut sink, there) = reopened(&plan).await;
        assert_eq!(there, held(10, 9, 0));
        for batch in missing(&all, there.as_ref()) {
            deliver(sink.as_mut(), batch).await.unwrap();
        }
        let found: Vec<_> =
            stored(&reader, "s").await.into_iter().filter(|m| m.subject == "s.events").collect();
        assert_eq!(ids(&found.iter().map(Stored::event).collect::<Vec<_>>()), (0..100).collect::<Vec<_>>());
    }
}

/// A batch above the server's limit for atomic batches goes in several; a lone event needs none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_every_size() {
    let server = Nats::start(&NatsOptions::default()).unwrap();
    let reader = client(&server).await;
    let plan = exactly(&server.url(), "s");
    let (mut sink, _) = reopened(&plan).await;
    let mut at = 0;
    let mut receipts = Vec::new();
    for size in [1, 2, 999, 1000, 1001, 1, 2500, 3, 5000, 1, 1] {
        let batch = transaction(at..at + size, 100_000).pop().unwrap();
        receipts.push(sink.deliver(batch, DELIVERY).await.unwrap());
        at += size;
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
    assert_eq!(row_ids(&reader, "s").await, (0..at).collect::<Vec<_>>());
    sink.close().await;
    assert_eq!(reopened(&plan).await.1, held(at, at - 1, 0));
}

/// An atomic batch above what may be under way: its staged messages have no answers that would make room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_atomic_batch_above_the_window() {
    let server = Nats::start(&NatsOptions::default()).unwrap();
    let reader = client(&server).await;
    let plan = exactly(&server.url(), "s");
    let (mut sink, _) = reopened(&plan).await;
    for at in [0, 1000] {
        let delivered = deliver(sink.as_mut(), batch(at..at + 1000, 40_000)).await.unwrap();
        assert!(delivered.bytes > 2 * 16 * 1024 * 1024);
    }
    let stored = stored(&reader, "s").await;
    assert_eq!(ids(&stored.iter().map(Stored::event).collect::<Vec<_>>()), (0..2000).collect::<Vec<_>>());
    assert_eq!(stored[999].header("Nats-Batch-Commit"), Some("1"));
    sink.close().await;
}

/// The stream's setting, or the server's limit, forbids atomic batches after all: the chain alone serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn atomic_batches_that_are_taken_away() {
    let limit = "limits { batch { max_msgs: 5 } }";
    let server = Nats::start(&NatsOptions { jetstream: limit.into(), ..Default::default() }).unwrap();
    let reader = client(&server).await;
    forgetful(&reader, "s", true).await;
    let plan = exactly(&server.url(), "s");
    let faults = deliver_exactly(&plan, &transactions(1000)).await.unwrap();
    assert_eq!(faults, ["nats.no_atomic_batches"]);
    assert_eq!(row_ids(&reader, "s").await, (0..1000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_loses_its_leader() {
    for (version, atomic) in
        [(NatsVersion::Newest, true), (NatsVersion::Newest, false), (NatsVersion::V2_9, false)]
    {
        let cluster = NatsCluster::start(&NatsOptions { version, ..Default::default() }).unwrap();
        let watcher = nats::cluster_client(&cluster).await;
        let context = jetstream::new(watcher.clone());
        let window = Duration::from_millis(100);
        let config =
            Config { num_replicas: 3, duplicate_window: window, allow_atomic_publish: atomic, ..named("s") };
        let made = async || context.create_stream(config.clone()).await.is_ok();
        wait_for_async("the stream", Duration::from_secs(60), made).await;
        let plan = exactly(&cluster.url(), "s");
        let all = transactions(15_000);
        let (delivering, batches) = (plan.clone(), all.clone());
        let delivering =
            deltaforge_core::task::spawn("test", async move { deliver_exactly(&delivering, &batches).await });
        let mut leader = None;
        wait_for_async("messages", Duration::from_secs(60), async || {
            let Ok(mut stream) = context.get_stream("s").await else { return false };
            let Ok(info) = stream.info().await else { return false };
            leader = info.cluster.as_ref().and_then(|cluster| cluster.leader.clone());
            leader.is_some() && info.state.messages > 3_000
        })
        .await;
        let node = cluster.node(&leader.unwrap());
        node.kill();
        node.restart();
        let faults = delivering.await.unwrap().unwrap();
        assert!(!faults.is_empty());
        assert_eq!(
            row_ids(&watcher, "s").await,
            (0..15_000).collect::<Vec<_>>(),
            "{version:?} {atomic}: {faults:?}"
        );
    }
}
