//! How many events a second the sinks take, and what that costs us:
//! `cargo bench -p deltaforge-sinks [-- redis|null|file]`.
//!
//! Batches are made beforehand and delivered again and again, two in flight, so the source costs nothing here. CPU is that of
//! this process (encoding included), from `/proc/self/stat`; redis-server runs beside it on the same machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a bench")]

#[path = "../tests/common/mod.rs"]
mod common;

use common::*;
use deltaforge_core::Batch;
use deltaforge_core::sink::{Receipt, SinkPlan};
use deltaforge_testkit::servers::{Redis, RedisOptions};
use serde_json::json;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Row text that makes a native event of about 400 bytes.
const PAD: usize = 20;
const PER_BATCH: i64 = 500;
const WINDOW: usize = 2;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let wanted = |name: &str| {
        let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--")).peekable();
        words.peek().is_none() || words.any(|word| word == name)
    };
    let batches: Vec<Arc<Batch>> = (0..64).map(|n| batch(n * PER_BATCH..(n + 1) * PER_BATCH, PAD)).collect();
    if wanted("null") {
        run("/dev/null", &plan("file", json!({ "path": "/dev/null" })), &batches, 4_000_000, || ()).await;
    }
    if wanted("file") {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let truncate = || std::fs::File::create(&path).unwrap().set_len(0).unwrap();
        run("file, synced", &plan("file", file_config(&path)), &batches, 500_000, truncate).await;
    }
    if wanted("redis") {
        // Bounded, so that the bench measures the transport and not the machine's memory.
        let redis = Redis::start(&RedisOptions {
            args: vec!["--appendonly".into(), "no".into()],
            ..Default::default()
        })
        .unwrap();
        let plan = plan("redis", json!({ "uri": redis.uri(), "stream": "bench" }));
        let clear = || drop(redis.cli(&["DEL", "bench"]));
        run("Redis", &plan, &batches, 1_000_000, clear).await;
    }
}

async fn run(name: &str, plan: &Arc<dyn SinkPlan>, batches: &[Arc<Batch>], events: i64, clear: impl Fn()) {
    for _ in 0..3 {
        clear();
        let mut sink = open(plan).await;
        let (start, cpu) = (Instant::now(), cpu());
        let mut window: VecDeque<Receipt> = VecDeque::new();
        let mut bytes = 0;
        for n in 0..(events / PER_BATCH) as usize {
            if window.len() == WINDOW {
                bytes += window.pop_front().unwrap().await.unwrap().bytes;
            }
            window.push_back(sink.deliver(batches[n % batches.len()].clone(), DELIVERY).await.unwrap());
        }
        for receipt in window {
            bytes += receipt.await.unwrap().bytes;
        }
        let (wall, cpu) = (start.elapsed(), self::cpu() - cpu);
        let million = events as f64 / 1e6;
        println!(
            "{name:>14}: {:>9.0} events/s of {} bytes, {:.2} s of our CPU per million, {:.0}% of a core",
            events as f64 / wall.as_secs_f64(),
            bytes / events as u64,
            cpu.as_secs_f64() / million,
            100.0 * cpu.as_secs_f64() / wall.as_secs_f64(),
        );
        sink.close().await;
    }
}

/// User and system time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = &stat[stat.rfind(')').unwrap() + 2..];
    let ticks: u64 = after_name.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
