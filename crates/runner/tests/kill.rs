//! `kill -9` at random moments under a mixed load: nothing lost, nothing out of order, nothing that never was.
//!
//! Writers change a few thousand keys in every way, one transaction has 200,000 rows, Redis stands still part of the
//! time or cuts its connections, and the process dies again and again: while it starts, while it reads, while it delivers, while it saves. What
//! Redis holds in the end must fold to the tables, in the source's order, with contiguous replays only, and hold exactly
//! the changes that the server's own `test_decoding` saw. All along the stored position must not be behind what the slot
//! was told: a kill at that moment would lose what lies between.
//!
//! `SEED=n` repeats the moments of a run; `DELTAFORGE_SOAK=1` kills a thousand times.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "in a test, a panic with a clear message is how a failure is reported, and what was measured is printed"
)]

mod support;

use deltaforge_testkit::servers::{PgVersion, Postgres, Redis, RedisOptions};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use support::load::Load;
use support::random::Random;
use support::session::Session;
use support::streams::{
    confirmed_lsn, feed_lines, feed_stream, head_lsn, redis_sink, stored_lsn, wait_drained,
};
use support::{Engine, Home, file_sink, lifetime, pipeline, source};

const SOURCE: &str = "p-postgres";
const DRAIN: Duration = Duration::from_secs(120);

struct Plan {
    version: PgVersion,
    kills: u32,
    writers: u64,
    /// Rows of the big transaction; it is committed after a third of the kills, and passes after a half of them.
    big_rows: u64,
    /// Also into a file.
    file: bool,
}

#[test]
fn killed_at_random_moments() {
    let soak = std::env::var("DELTAFORGE_SOAK").is_ok_and(|soak| soak == "1");
    let seed = Random::seed();
    for round in 0..if soak { 20 } else { 1 } {
        let plan = Plan { version: PgVersion::V15, kills: 50, writers: 3, big_rows: 200_000, file: false };
        run(&plan, seed + round);
    }
}

#[test]
fn killed_with_two_sinks_on_the_newest_server() {
    let plan = Plan { version: PgVersion::V18, kills: 15, writers: 2, big_rows: 20_000, file: true };
    run(&plan, Random::seed());
}

fn run(plan: &Plan, seed: u64) {
    let begun = Instant::now();
    let postgres = Load::server(plan.version, &[]);
    let redis = Redis::start(&RedisOptions::default()).unwrap();
    let mut load = Load::prepare(&postgres);
    load.create_tables(&postgres);
    let mut sinks = vec![redis_sink(&redis.uri(), "changes")];
    sinks.extend(plan.file.then(file_sink));
    let sinks: Vec<&str> = sinks.iter().map(String::as_str).collect();
    let document =
        pipeline("p", &source(&postgres.dsn(&load.database), "['public.%', '!public.ignored']"), &sinks);
    let home = Home::new(&[("pipeline.yaml", &document)]);
    load.start(&postgres, seed, plan.writers);

    let over = AtomicBool::new(false);
    let (stalls, samples) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| sample(&postgres, &home, &over));
        let stalls = kill_again_and_again(plan, &mut Random::new(seed), &postgres, &redis, &load, &home);
        over.store(true, Relaxed);
        (stalls, sampler.join().unwrap())
    });
    let transactions = load.stop();
    let killed_for = begun.elapsed();
    let engine = home.start();
    wait_drained(&engine, &home, SOURCE, &postgres, DRAIN);
    engine.stop();
    println!(
        "{:?}: {} kills in {:.0} s, Redis stood still for {stalls} of them, {transactions} transactions tried, \
         {samples} samples of stored >= confirmed_flush_lsn; drained after {:.0} s",
        plan.version,
        plan.kills,
        killed_for.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    println!("{:?}: troubles in the log: {:?}", plan.version, troubles(&home));
    load.check(&postgres, "redis", |ledger| feed_stream(ledger, &redis, "changes"));
    if plan.file {
        load.check(&postgres, "file", |ledger| feed_lines(ledger, &home, "events.jsonl"));
    }
    println!("{:?}: all done in {:.0} s", plan.version, begun.elapsed().as_secs_f64());
}

/// How often the log of all processes names each code.
fn troubles(home: &Home) -> BTreeMap<String, u32> {
    let mut codes = BTreeMap::new();
    for line in home.lines("log") {
        let line: Value = serde_json::from_str(&line).unwrap_or_default();
        if let (Some(code), Some("WARN" | "ERROR")) = (line["code"].as_str(), line["level"].as_str()) {
            *codes.entry(code.to_owned()).or_default() += 1;
        }
    }
    codes
}

/// Gives the number of rounds in which Redis stood still.
fn kill_again_and_again(
    plan: &Plan,
    random: &mut Random,
    postgres: &Postgres,
    redis: &Redis,
    load: &Load,
    home: &Home,
) -> u32 {
    let (commit_big, let_big_pass) = (plan.kills / 3, plan.kills / 2);
    let mut big = Session::open(postgres, &load.database);
    let mut stalls = 0;
    for round in 0..plan.kills {
        if round == commit_big {
            big.send(&Load::big_transaction(plan.big_rows, 1));
        }
        let stalled = random.one_in(4);
        let stalled_at_start = stalled && random.one_in(2);
        if stalled_at_start {
            redis.pause();
        }
        let engine = home.spawn(&[]);
        if round == let_big_pass {
            // Its replays end here: with a process that always dies before the end of it, it would never pass.
            redis.resume();
            big.answer();
            wait_passed(&engine, home, head_lsn(postgres));
        }
        std::thread::sleep(lifetime(random));
        if stalled && !stalled_at_start {
            redis.pause();
            std::thread::sleep(lifetime(random));
            if random.one_in(2) {
                // It may live to see Redis again, having given up on a batch or not.
                redis.resume();
                std::thread::sleep(lifetime(random));
            }
        } else if !stalled && random.one_in(3) {
            // Whatever was under way on its connections is cut in two.
            redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
            std::thread::sleep(lifetime(random));
        }
        engine.kill();
        // What the dead process had sent is still in Redis's sockets: it is read when the next process connects.
        redis.resume();
        stalls += u32::from(stalled);
    }
    stalls
}

fn wait_passed(engine: &Engine, home: &Home, place: u64) {
    deltaforge_testkit::wait_for("the big transaction to pass", DRAIN, || {
        engine.assert_runs();
        stored_lsn(home, SOURCE).is_some_and(|stored| stored >= place)
    });
}

/// Compares what is stored with what the slot was told, until it is over; gives the number of samples.
fn sample(postgres: &Postgres, home: &Home, over: &AtomicBool) -> u64 {
    let mut session = Session::open(postgres, "postgres");
    // Nothing stored yet is as good as the place where the slot was made.
    let made_at = confirmed_lsn(&mut session).unwrap();
    let mut samples = 0;
    while !over.load(Relaxed) {
        // In this order: both only grow, so the file read later may be ahead, never behind.
        let confirmed = confirmed_lsn(&mut session).unwrap();
        let stored = stored_lsn(home, SOURCE).unwrap_or(made_at);
        assert!(stored >= confirmed, "stored {stored:X} is behind confirmed_flush_lsn {confirmed:X}");
        samples += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    samples
}
