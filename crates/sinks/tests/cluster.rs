//! The Redis sink against a real cluster: slots, redirections, and order while slots move.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::*;
use deltaforge_core::{Batch, Class, Op};
use deltaforge_testkit::servers::{Redis, RedisCluster};
use serde_json::{Value, json};
use std::sync::Arc;

fn row_ids(cluster: &RedisCluster, stream: &str) -> Vec<i64> {
    let answer = cluster.cli(&["XRANGE", stream, "-", "+"]);
    let lines: Vec<&str> = answer.lines().collect();
    let payloads = lines.windows(2).filter(|pair| pair[0] == "df-event");
    ids(&payloads.map(|pair| serde_json::from_str(pair[1]).unwrap()).collect::<Vec<Value>>())
}

fn by_table(tables: &[&str], ids: std::ops::Range<i64>) -> Arc<Batch> {
    let row = |id: i64| Row {
        table: tables[id as usize % tables.len()],
        op: Op::Create,
        id,
        old_id: None,
        pad: "pad",
    };
    batch_of(&ids.map(row).collect::<Vec<_>>())
}

/// The node that serves a slot, and the name that the cluster knows it by.
fn owner(cluster: &RedisCluster, slot: u32) -> usize {
    let serves = |node: &Redis| {
        let nodes = node.cli(&["CLUSTER", "NODES"]);
        let own = nodes.lines().find(|line| line.contains("myself")).unwrap();
        own.split(' ').skip(8).any(|range| {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            matches!((from.parse::<u32>(), to.parse::<u32>()), (Ok(from), Ok(to)) if (from..=to).contains(&slot))
        })
    };
    cluster.nodes().iter().position(serves).expect("somebody serves it")
}

fn name(node: &Redis) -> String {
    node.cli(&["CLUSTER", "MYID"])
}

/// Moves a slot with its one key, the way `redis-cli --cluster reshard` does; `halfway` runs while the key is at the new
/// node and the slot still at the old one.
fn move_slot(cluster: &RedisCluster, key: &str, mut halfway: impl FnMut()) {
    let slot = cluster.cli(&["CLUSTER", "KEYSLOT", key]);
    let from = owner(cluster, slot.parse().unwrap());
    let to = (from + 1) % cluster.nodes().len();
    let (from, to) = (&cluster.nodes()[from], &cluster.nodes()[to]);
    to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &name(from)]);
    from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &name(to)]);
    from.cli(&["MIGRATE", to.host(), &to.port().to_string(), key, "0", "5000"]);
    halfway();
    for node in [to, from] {
        node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &name(to)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_in_many_slots() {
    let cluster = RedisCluster::start(3).unwrap();
    let plan = plan("redis", json!({ "uri": cluster.uri(), "stream": "s.${source.table}" }));
    let tables = ["a", "b", "c", "d", "e", "f", "g"];
    let batches: Vec<Arc<Batch>> = (0..20).map(|n| by_table(&tables, n * 70..(n + 1) * 70)).collect();
    deliver_all(&plan, &batches).await;
    let mut nodes = std::collections::HashSet::new();
    for (n, table) in tables.iter().enumerate() {
        let stream = format!("s.{table}");
        let expected: Vec<i64> = (0..1400).filter(|id| id % 7 == n as i64).collect();
        assert_eq!(row_ids(&cluster, &stream), expected, "{table}");
        nodes.insert(owner(&cluster, cluster.cli(&["CLUSTER", "KEYSLOT", &stream]).parse().unwrap()));
    }
    assert!(nodes.len() > 1, "the streams lie on several nodes");

    cluster.cli(&["SET", "s.z", "1"]);
    let fault = deliver(open(&plan).await.as_mut(), by_table(&["a", "z"], 0..10)).await.unwrap_err();
    assert_eq!((fault.class(), fault.code()), (Class::Config, "redis.wrong_type"), "{fault}");
    assert_eq!(row_ids(&cluster, "s.a").len(), 200, "nothing of the refused batch arrived");
}

/// One sink stays open while its slot moves twice: ASK while it is under way, MOVED afterwards, no batch lost or repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves() {
    let cluster = RedisCluster::start(3).unwrap();
    let plan = plan("redis", json!({ "uri": cluster.uri(), "stream": "moving" }));
    let mut sink = open(&plan).await;
    let mut next = 0;
    let mut more = async |sink: &mut dyn deltaforge_core::sink::Sink| {
        for _ in 0..3 {
            deliver(sink, batch(next..next + 10, 50)).await.unwrap();
            next += 10;
        }
    };
    more(sink.as_mut()).await;
    for _ in 0..2 {
        let handle = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            move_slot(&cluster, "moving", || handle.block_on(more(sink.as_mut())));
            handle.block_on(more(sink.as_mut()));
        });
    }
    sink.close().await;
    assert_eq!(row_ids(&cluster, "moving"), (0..150).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_scheme_and_a_node_that_is_down() {
    let cluster = RedisCluster::start(3).unwrap();
    let slot: u32 = cluster.cli(&["CLUSTER", "KEYSLOT", "s"]).parse().unwrap();
    let node = &cluster.nodes()[owner(&cluster, slot)];
    let other = &cluster.nodes()[(owner(&cluster, slot) + 1) % 3];
    // A plain address of a node works only by luck of the slot, so it is refused as soon as it does not.
    let plain = plan("redis", json!({ "uri": other.uri(), "stream": "s" }));
    let fault = deliver(open(&plain).await.as_mut(), batch(0..1, 1)).await.unwrap_err();
    assert_eq!((fault.class(), fault.code()), (Class::Config, "redis.is_cluster"), "{fault}");

    let sink = plan("redis", json!({ "uri": cluster.uri(), "stream": "s", "send_timeout_secs": 1 }));
    let mut open_sink = open(&sink).await;
    deliver(open_sink.as_mut(), batch(0..10, 1)).await.unwrap();
    node.kill();
    let fault = deliver(open_sink.as_mut(), batch(10..20, 1)).await.unwrap_err();
    assert_eq!(fault.class(), Class::Retry, "{fault}");
    node.restart();
    deliver_all(&sink, &[batch(10..20, 1)]).await;
    assert_eq!(row_ids(&cluster, "s"), (0..20).collect::<Vec<_>>());
    let report = sink.check().await;
    assert_eq!(report.checks.iter().filter(|c| c.name == "version").count(), 3, "{report:?}");
}
