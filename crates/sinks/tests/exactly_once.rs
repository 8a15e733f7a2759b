//! The contract of exactly-once sinks (`deltaforge_core::sink`), run by every connector that promises it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::*;
use deltaforge_core::position::Position;
use deltaforge_core::sink::{Held, Sink, SinkPlan};
use deltaforge_core::{Class, Fault};
use deltaforge_testkit::servers::{Kafka, KafkaOptions, Redis, RedisCluster, RedisOptions, RedisSentinel};
use futures_util::FutureExt;
use serde_json::{Value, json};
use std::sync::Arc;

/// A connector: where it delivers to, and what is there.
trait Subject {
    /// A plan for the target `name` in a pipeline; the same arguments name the same sink.
    fn plan_of(&self, pipeline: &str, name: &str) -> Arc<dyn SinkPlan>;
    /// The events that a reader sees there.
    fn events(&self, name: &str) -> Vec<Value>;

    fn plan(&self, name: &str) -> Arc<dyn SinkPlan> {
        self.plan_of("test", name)
    }
}

async fn contract(subject: &dyn Subject) {
    position_and_events(subject).await;
    staged_parts(subject).await;
    empty_batches_move_the_position(subject).await;
    given_up_at_any_point(subject).await;
    fencing(subject).await;
    pipelines_are_apart(subject).await;
}

/// Opens the sink, takes over; gives what the target holds.
async fn begin(plan: &Arc<dyn SinkPlan>) -> (Box<dyn Sink>, Option<Held>) {
    assert!(plan.exactly_once());
    // A lane opens again after a fault that may pass.
    for _ in 0..100 {
        let mut sink = open(plan).await;
        match sink.take_over(&origin()).await {
            Ok(held) => return (sink, held),
            Err(fault) if fault.is_retry() => {}
            Err(fault) => panic!("{fault:?}"),
        }
    }
    panic!("never taken over");
}

/// What a target holds after the transaction of row `id`, its last event.
fn held(id: i64) -> Option<Held> {
    Some(Held { position: Position::from_json(&position(id)), event: event_id(id), inside: 0 })
}

/// What a reader sees, at the latest soon: a broker of Kafka answers a commit before its markers are written.
async fn sees(subject: &dyn Subject, name: &str, expected: Vec<i64>, why: impl std::fmt::Display) {
    let mut seen = Vec::new();
    for _ in 0..200 {
        seen = ids(&subject.events(name));
        if seen == expected {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(seen, expected, "{why}");
}

fn up_to(n: i64) -> Vec<i64> {
    (0..n).collect()
}

/// Nothing is told of a target never written to; each receipt means that events and position are there; both survive.
async fn position_and_events(subject: &dyn Subject) {
    let plan = subject.plan("position");
    assert_eq!(open(&plan).await.recovered(), None);
    let (mut sink, before) = begin(&plan).await;
    assert_eq!(before, None);
    for n in 0..5 {
        deliver(sink.as_mut(), ended(n * 10..n * 10 + 10)).await.unwrap();
        sees(subject, "position", up_to(n * 10 + 10), "").await;
        assert_eq!(open(&plan_again(subject, "position")).await.recovered(), held(n * 10 + 9).as_ref());
    }
    // Several on their way at once.
    let mut receipts = Vec::new();
    for n in 5..30 {
        receipts.push(sink.deliver(ended(n * 10..n * 10 + 10), DELIVERY).await.unwrap());
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
    sink.close().await;
    sees(subject, "position", up_to(300), "").await;
    for _ in 0..2 {
        let (sink, told) = begin(&plan).await;
        assert_eq!(told, held(299));
        assert_eq!(sink.recovered(), held(299).as_ref());
        sink.close().await;
    }
}

/// The same sink as another process would have it.
fn plan_again(subject: &dyn Subject, name: &str) -> Arc<dyn SinkPlan> {
    subject.plan(name)
}

/// Parts of a transaction are seen with its end and not before, and are gone with the sink.
async fn staged_parts(subject: &dyn Subject) {
    let plan = subject.plan("staged");
    let (mut sink, _) = begin(&plan).await;
    deliver(sink.as_mut(), ended(0..10)).await.unwrap();
    let parts = transaction(10..100, 25, &position(99));
    assert_eq!(parts.len(), 4);
    for part in &parts[..3] {
        deliver(sink.as_mut(), part.clone()).await.unwrap();
        sees(subject, "staged", up_to(10), "a part is seen before its transaction's end").await;
    }
    drop(sink);
    let (mut sink, told) = begin(&plan).await;
    assert_eq!(told, held(9), "a part moved the position");
    sees(subject, "staged", up_to(10), "").await;
    for part in &parts[..2] {
        drop(sink.deliver(part.clone(), DELIVERY).await.unwrap());
    }
    sink.close().await;
    let (mut sink, told) = begin(&plan).await;
    assert_eq!(told, held(9), "closing made parts count");
    let mut receipts = Vec::new();
    for part in &parts {
        receipts.push(sink.deliver(part.clone(), DELIVERY).await.unwrap());
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
    sees(subject, "staged", up_to(100), "").await;
    sink.close().await;
    assert_eq!(begin(&plan).await.1, held(99));
}

/// A batch whose events were all filtered away has an end all the same; the last event stays what it was.
async fn empty_batches_move_the_position(subject: &dyn Subject) {
    let empty = |id| Arc::new(ended(id..id + 1).without(event_id(id)));
    let plan = subject.plan("empty");
    let (mut sink, _) = begin(&plan).await;
    deliver(sink.as_mut(), ended(0..3)).await.unwrap();
    assert_eq!(deliver(sink.as_mut(), empty(7)).await.unwrap().bytes, 0);
    let expected = Held { event: event_id(2), ..held(7).unwrap() };
    drop(sink);
    let (mut sink, told) = begin(&plan).await;
    assert_eq!(told, Some(expected.clone()));
    sees(subject, "empty", up_to(3), "").await;
    // Also by a sink that stored no event itself.
    deliver(sink.as_mut(), empty(8)).await.unwrap();
    drop(sink);
    let (_, told) = begin(&plan).await;
    assert_eq!(told, Some(Held { position: Position::from_json(&position(8)), ..expected }));
}

/// However far a delivery came when the sink was dropped: what `take_over` tells is what readers see.
async fn given_up_at_any_point(subject: &dyn Subject) {
    let plan = subject.plan("given-up");
    let mut next = 0;
    for round in 0..24 {
        let (mut sink, told) = begin(&plan).await;
        let expected = if next == 0 { None } else { held(next - 1) };
        if told != expected {
            // The batch that was given up had arrived.
            assert_eq!(told, held(next + 99), "round {round}");
            next += 100;
        }
        sees(subject, "given-up", up_to(next), format!("round {round}")).await;
        let pending = sink.deliver(ended(next..next + 100), DELIVERY);
        match round % 4 {
            0 => drop(pending.now_or_never()),
            1 => drop(pending.await.unwrap()),
            2 => {
                let receipt = pending.await.unwrap();
                // Some of the way, another length each time.
                let _ = tokio::time::timeout(std::time::Duration::from_millis(round), receipt).await;
            }
            _ => {
                pending.await.unwrap().await.unwrap();
                next += 100;
            }
        }
        drop(sink);
    }
    assert!(next >= 600);
}

async fn failed(sink: &mut dyn Sink, batch: Arc<deltaforge_core::Batch>) -> Fault {
    deliver(sink, batch).await.expect_err("a fault")
}

/// Who opens disturbs nobody; who takes over ends the other.
async fn fencing(subject: &dyn Subject) {
    let (mut first, _) = begin(&subject.plan("fenced")).await;
    deliver(first.as_mut(), ended(0..10)).await.unwrap();
    let second_plan = plan_again(subject, "fenced");
    let mut second = open(&second_plan).await;
    assert_eq!(second.recovered(), held(9).as_ref());
    deliver(first.as_mut(), ended(10..20)).await.expect("a sink that only opened disturbed the first");
    // Staged by the first: never to be seen.
    deliver(first.as_mut(), transaction(20..40, 10, &position(39))[0].clone()).await.unwrap();
    assert_eq!(second.take_over(&origin()).await.unwrap(), held(19));
    deliver(second.as_mut(), ended(20..30)).await.unwrap();
    let fault = failed(first.as_mut(), transaction(30..40, 10, &position(39))[0].clone()).await;
    assert_eq!(fault.class(), Class::Fenced, "{fault:?}");
    drop(first);
    deliver(second.as_mut(), ended(30..40)).await.expect("the one that was fenced disturbed the other");
    sees(subject, "fenced", up_to(40), "").await;
    second.close().await;
}

/// Sinks of one name in two pipelines know nothing of each other.
async fn pipelines_are_apart(subject: &dyn Subject) {
    let (one, two) = (subject.plan_of("one", "shared"), subject.plan_of("two", "shared"));
    let mut sink = one.open(&context_of("one")).await.unwrap();
    assert_eq!(sink.take_over(&origin()).await.unwrap(), None);
    deliver(sink.as_mut(), ended(0..10)).await.unwrap();
    // Open meanwhile: the other must not wait for it.
    deliver(sink.as_mut(), transaction(10..30, 10, &position(29))[0].clone()).await.unwrap();
    let mut other = two.open(&context_of("two")).await.unwrap();
    assert_eq!(other.take_over(&origin()).await.unwrap(), None);
    deliver(other.as_mut(), ended(100..110)).await.unwrap();
    drop((sink, other));
    let mut sink = one.open(&context_of("one")).await.unwrap();
    let mut other = two.open(&context_of("two")).await.unwrap();
    assert_eq!(sink.take_over(&origin()).await.unwrap(), held(9));
    assert_eq!(other.take_over(&origin()).await.unwrap(), held(109));
}

// --- Kafka --------------------------------------------------------------------------------------------------------------

impl Subject for Kafka {
    fn plan_of(&self, pipeline: &str, name: &str) -> Arc<dyn SinkPlan> {
        let more = json!({ "id": name, "exactly_once": true });
        parse_of(pipeline, "kafka", kafka::config(self, name, more), None).unwrap()
    }

    fn events(&self, name: &str) -> Vec<Value> {
        kafka::events(self, name)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_transactions() {
    contract(&Kafka::start(&KafkaOptions::default()).unwrap()).await;
}

// --- Redis --------------------------------------------------------------------------------------------------------------

fn redis_plan(uri: &str, pipeline: &str, name: &str) -> Arc<dyn SinkPlan> {
    let config = json!({ "id": name, "uri": uri, "stream": name, "exactly_once": true });
    parse_of(pipeline, "redis", config, None).unwrap()
}

impl Subject for Redis {
    fn plan_of(&self, pipeline: &str, name: &str) -> Arc<dyn SinkPlan> {
        redis_plan(&self.uri(), pipeline, name)
    }

    fn events(&self, name: &str) -> Vec<Value> {
        stream_events(&self.cli(&["XRANGE", name, "-", "+"]))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_transactions() {
    contract(&Redis::start(&RedisOptions::default()).unwrap()).await;
}

impl Subject for RedisSentinel {
    fn plan_of(&self, pipeline: &str, name: &str) -> Arc<dyn SinkPlan> {
        redis_plan(&self.uri(), pipeline, name)
    }

    fn events(&self, name: &str) -> Vec<Value> {
        self.master().events(name)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_transactions_behind_a_sentinel() {
    contract(&RedisSentinel::start().unwrap()).await;
}

impl Subject for RedisCluster {
    fn plan_of(&self, pipeline: &str, name: &str) -> Arc<dyn SinkPlan> {
        redis_plan(&self.uri(), pipeline, name)
    }

    fn events(&self, name: &str) -> Vec<Value> {
        stream_events(&self.cli(&["XRANGE", name, "-", "+"]))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_transactions_in_a_cluster() {
    contract(&RedisCluster::start(3).unwrap()).await;
}
