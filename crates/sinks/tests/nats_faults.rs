//! The NATS sink against servers that fail: nothing is lost, and each event's first copy stands in order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use async_nats::jetstream::{self, stream::Config, stream::DiscardPolicy};
use common::nats::{self, client, cluster_client, named, row_ids, stream};
use common::*;
use deltaforge_core::Batch;
use deltaforge_core::sink::SinkPlan;
use deltaforge_core::task::spawn;
use deltaforge_testkit::servers::{Nats, NatsCluster, NatsOptions, NatsVersion, Proxy};
use deltaforge_testkit::wait_for_async;
use futures_util::StreamExt;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn batches(n: i64, pad: usize) -> Vec<Arc<Batch>> {
    (0..n).map(|k| batch(k * 100..k * 100 + 100, pad)).collect()
}

fn impatient(url: &str, name: &str) -> Arc<dyn SinkPlan> {
    let subject = format!("{name}.events");
    plan(
        "nats",
        json!({ "url": url, "stream": name, "subject": subject, "send_timeout_secs": 1, "batch_timeout_secs": 2,
        "connect_timeout_secs": 2 }),
    )
}

async fn count(client: &async_nats::Client, name: &str) -> u64 {
    let Ok(mut stream) = jetstream::new(client.clone()).get_stream(name).await else { return 0 };
    stream.info().await.map_or(0, |info| info.state.messages)
}

/// Delivers while `trouble` goes on, and gives the faults on the way.
async fn delivered_through(
    plan: &Arc<dyn SinkPlan>,
    batches: Vec<Arc<Batch>>,
    trouble: impl Future<Output = ()>,
) -> Vec<&'static str> {
    let plan = plan.clone();
    let delivering = deltaforge_core::task::spawn("test", async move { deliver_all(&plan, &batches).await });
    trouble.await;
    delivering.await.unwrap()
}

/// Each connection is cut after so many bytes: in the middle of messages, headers and acknowledgements.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_leave_order_and_nothing_twice() {
    for version in [NatsVersion::Newest, NatsVersion::V2_9] {
        let server = Nats::start(&NatsOptions { version, ..Default::default() }).unwrap();
        let reader = client(&server).await;
        stream(&reader, named("s")).await;
        let proxy = Proxy::start(server.port());
        let plan = impatient(&format!("nats://127.0.0.1:{}", proxy.port()), "s");
        let faults = delivered_through(&plan, batches(200, 300), async {
            for n in 0..20 {
                proxy.cut_after_bytes(60_000 + 7_777 * n);
                let accepted = proxy.accepted();
                let moved = async || proxy.accepted() > accepted || count(&reader, "s").await == 20_000;
                wait_for_async("the next connection", Duration::from_secs(30), moved).await;
            }
            proxy.cut_never();
        })
        .await;
        assert!(faults.len() > 5, "{faults:?}");
        assert_eq!(row_ids(&reader, "s").await, (0..20_000).collect::<Vec<_>>());
    }
}

/// The server refuses one message of a batch, whichever, and would take those behind it: none is stored before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_message_is_overtaken_by_none() {
    for (version, step) in [(NatsVersion::Newest, 1), (NatsVersion::V2_9, 15)] {
        let server = Nats::start(&NatsOptions { version, ..Default::default() }).unwrap();
        let reader = client(&server).await;
        let context = jetstream::new(reader.clone());
        for k in (0..256).step_by(step) {
            let name = format!("s{k}");
            let config = Config {
                max_messages_per_subject: 1,
                discard: DiscardPolicy::New,
                discard_new_per_subject: true,
                ..named(&name)
            };
            let made = stream(&reader, config).await;
            let taken = format!("{name}.{k}");
            context.publish(taken.clone(), "{}".into()).await.unwrap().await.unwrap();
            let config =
                json!({ "url": server.url(), "stream": name, "subject": format!("{name}.${{after.id}}") });
            let plan = plan("nats", config);
            let fault = deliver(open(&plan).await.as_mut(), batch(0..256, 10)).await.unwrap_err();
            assert!(fault.is_retry() && fault.code() == "nats.storage_full", "{fault:?}");
            made.purge().filter(taken).await.unwrap();
            assert_eq!(row_ids(&reader, &name).await, (0..k as i64).collect::<Vec<_>>(), "a prefix");
            deliver(open(&plan).await.as_mut(), batch(0..256, 10)).await.unwrap();
            assert_eq!(row_ids(&reader, &name).await, (0..256).collect::<Vec<_>>(), "refused at {k}");
            context.delete_stream(&name).await.unwrap();
        }
    }
}

/// The deduplication window is over before anything is sent again: duplicates, but no disorder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_the_deduplication_window_a_replay_is_contiguous() {
    let server = Nats::start(&NatsOptions::default()).unwrap();
    let reader = client(&server).await;
    stream(&reader, Config { duplicate_window: Duration::from_millis(100), ..named("s") }).await;
    let proxy = Proxy::start(server.port());
    let plan = impatient(&format!("nats://127.0.0.1:{}", proxy.port()), "s");
    let all = batches(30, 300);
    let faults = delivered_through(&plan, all, async {
        for n in 0..8 {
            proxy.cut_after_bytes(40_000 + 9_999 * n);
            let accepted = proxy.accepted();
            let moved = async || proxy.accepted() > accepted || count(&reader, "s").await >= 3000;
            wait_for_async("the next connection", Duration::from_secs(30), moved).await;
        }
        proxy.cut_never();
    })
    .await;
    assert!(!faults.is_empty());
    assert_contiguous_replays(&row_ids(&reader, "s").await, 3000);
}

/// Others write to the stream between any two messages: the chain breaks and goes on, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_stream_stays_in_order() {
    for version in [NatsVersion::Newest, NatsVersion::V2_9] {
        let server = Nats::start(&NatsOptions { version, ..Default::default() }).unwrap();
        let reader = client(&server).await;
        stream(&reader, named("s")).await;
        let plan = plan("nats", json!({ "url": server.url(), "stream": "s", "subject": "s.events" }));
        let stop = Arc::new(AtomicBool::new(false));
        let (other, stopped) = (client(&server).await, stop.clone());
        let writing = deltaforge_core::task::spawn("test", async move {
            let context = jetstream::new(other);
            let mut written = 0;
            while !stopped.load(Ordering::Relaxed) {
                context.publish("s.other", "{}".into()).await.unwrap().await.unwrap();
                written += 1;
            }
            written
        });
        let faults = deliver_all(&plan, &batches(20, 100)).await;
        stop.store(true, Ordering::Relaxed);
        let written: i64 = writing.await.unwrap();
        assert!(faults.is_empty() && written > 20, "{faults:?}, {written} foreign messages");
        let stored = nats::stored(&reader, "s").await;
        let ours: Vec<_> =
            stored.iter().filter(|m| m.subject == "s.events").map(nats::Stored::event).collect();
        assert_eq!(ids(&ours), (0..2000).collect::<Vec<_>>());
        assert_eq!(stored.len() as i64, 2000 + written);
        let switches = stored.windows(2).filter(|pair| pair[0].subject != pair[1].subject).count();
        assert!(switches > 20, "the streams were interleaved {switches} times");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_deleted_under_load_is_waited_for() {
    let server = Nats::start(&NatsOptions::default()).unwrap();
    let reader = client(&server).await;
    stream(&reader, named("s")).await;
    let plan = impatient(&server.url(), "s");
    let mut sink = open(&plan).await;
    deliver(sink.as_mut(), batch(0..100, 10)).await.unwrap();
    jetstream::new(reader.clone()).delete_stream("s").await.unwrap();
    let fault = deliver(sink.as_mut(), batch(100..200, 10)).await.unwrap_err();
    assert!(fault.is_retry() && fault.code() == "nats.no_stream", "{fault:?}");
    let fault = plan.open(&context()).await.err().unwrap();
    assert!(fault.is_retry() && fault.code() == "nats.no_stream", "{fault:?}");
    stream(&reader, named("s")).await;
    let mut sink = open(&plan).await;
    deliver(sink.as_mut(), batch(100..200, 10)).await.unwrap();
    assert_eq!(row_ids(&reader, "s").await, (100..200).collect::<Vec<_>>());
    // Deleted and made anew under another subject: it is there, and takes nothing of ours.
    jetstream::new(reader.clone()).delete_stream("s").await.unwrap();
    stream(&reader, Config { subjects: vec!["elsewhere".into()], ..named("s") }).await;
    assert_eq!(deliver(sink.as_mut(), batch(200..300, 10)).await.unwrap_err().code(), "nats.no_stream");
    assert_eq!(plan.open(&context()).await.err().unwrap().code(), "nats.subject_not_taken");
}

/// Who is subscribed to the subject may reply as well: what it says is no acknowledgement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_replies_acknowledge_nothing() {
    for reply in ["", "ok", "{\"seq\":1}", "{\"stream\":\"other\",\"seq\":1}"] {
        let server = Nats::start(&NatsOptions::default()).unwrap();
        let reader = client(&server).await;
        stream(&reader, named("s")).await;
        let mut asked = reader.subscribe("s.events").await.unwrap();
        reader.flush().await.unwrap();
        let stranger = reader.clone();
        let replies = spawn("replies", async move {
            while let Some(message) = asked.next().await {
                stranger.publish(message.reply.unwrap(), reply.into()).await.unwrap();
            }
        });
        let mut sink = open(&impatient(&server.url(), "s")).await;
        deliver(sink.as_mut(), batch(0..100, 10)).await.unwrap();
        assert_eq!(count(&reader, "s").await, 100, "{reply:?}");
        // Now nobody answers but the stranger.
        jetstream::new(reader.clone()).delete_stream("s").await.unwrap();
        let fault = deliver(sink.as_mut(), batch(100..200, 10)).await.unwrap_err();
        assert_eq!(fault.code(), "nats.timeout", "{reply:?}");
        replies.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_restarted_and_frozen_servers() {
    for version in [NatsVersion::Newest, NatsVersion::V2_9] {
        // What is acknowledged is on disk: then, and only then, a kill of one server loses nothing by design.
        let server = Nats::start(&NatsOptions { version, ..Default::default() }).unwrap();
        let watcher = client(&server).await;
        stream(&watcher, named("s")).await;
        let plan = impatient(&server.url(), "s");
        let beyond = async |n: u64| {
            wait_for_async("messages", Duration::from_secs(60), async || count(&watcher, "s").await > n)
                .await;
        };
        let faults = delivered_through(&plan, batches(600, 300), async {
            beyond(2_000).await;
            server.kill();
            server.restart();
            beyond(10_000).await;
            server.restart();
            beyond(20_000).await;
            server.pause();
            tokio::time::sleep(Duration::from_millis(2500)).await; // Longer than every limit of the sink.
            server.resume();
        })
        .await;
        assert!(faults.len() >= 3, "{faults:?}");
        assert_eq!(row_ids(&watcher, "s").await, (0..60_000).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_holds_the_batch_until_there_is_room() {
    let server = Nats::start(&NatsOptions::default()).unwrap();
    let reader = client(&server).await;
    let small = Config { max_messages: 150, discard: DiscardPolicy::New, ..named("s") };
    stream(&reader, small.clone()).await;
    let plan = impatient(&server.url(), "s");
    let mut sink = open(&plan).await;
    deliver(sink.as_mut(), batch(0..100, 10)).await.unwrap();
    let fault = deliver(sink.as_mut(), batch(100..200, 10)).await.unwrap_err();
    assert!(fault.is_retry() && fault.code() == "nats.storage_full", "{fault:?}");
    let mut sink = open(&plan).await;
    assert_eq!(deliver(sink.as_mut(), batch(100..200, 10)).await.unwrap_err().code(), "nats.storage_full");
    jetstream::new(reader.clone()).update_stream(Config { max_messages: 1000, ..small }).await.unwrap();
    let mut sink = open(&plan).await;
    deliver(sink.as_mut(), batch(100..200, 10)).await.unwrap();
    assert_eq!(row_ids(&reader, "s").await, (0..200).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_quota_is_waited_for() {
    let server =
        Nats::start(&NatsOptions { jetstream: "max_file_store: 1MB".into(), ..Default::default() }).unwrap();
    let reader = client(&server).await;
    stream(&reader, named("s")).await;
    let plan = impatient(&server.url(), "s");
    let mut sink = open(&plan).await;
    let fault = deliver(sink.as_mut(), batch(0..3000, 1000)).await.unwrap_err();
    assert!(fault.is_retry() && fault.code() == "nats.storage_full", "{fault:?}");
    let found = row_ids(&reader, "s").await;
    assert_eq!(found, (0..found.len() as i64).collect::<Vec<_>>(), "a prefix");
}

/// Three replicas; the stream's leader is killed again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_loses_its_leaders() {
    for version in [NatsVersion::Newest, NatsVersion::V2_9] {
        let cluster = NatsCluster::start(&NatsOptions { version, ..Default::default() }).unwrap();
        let watcher = cluster_client(&cluster).await;
        let config = Config { num_replicas: 3, ..named("s") };
        let context = jetstream::new(watcher.clone());
        let made = async || context.create_stream(config.clone()).await.is_ok();
        wait_for_async("the stream", Duration::from_secs(60), made).await;
        let plan = impatient(&cluster.url(), "s");
        let faults = delivered_through(&plan, batches(400, 300), async {
            for n in 1..4 {
                let beyond = async || count(&watcher, "s").await > n * 4000;
                wait_for_async("messages", Duration::from_secs(120), beyond).await;
                let mut leader = None;
                wait_for_async("a leader", Duration::from_secs(60), async || {
                    let Ok(mut stream) = context.get_stream("s").await else { return false };
                    let info = stream.info().await.ok();
                    leader = info.and_then(|info| info.cluster.as_ref()?.leader.clone());
                    leader.is_some()
                })
                .await;
                let node = cluster.node(&leader.unwrap());
                node.kill();
                node.restart();
            }
        })
        .await;
        assert!(!faults.is_empty());
        assert_eq!(row_ids(&watcher, "s").await, (0..40_000).collect::<Vec<_>>(), "{version:?}: {faults:?}");
    }
}
