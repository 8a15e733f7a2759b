//! The source restarts, crashes, or the network breaks: the engine comes back by itself, from where it was.

use crate::support::load::Load;
use crate::support::session::Session;
use crate::support::streams::{
    confirmed_lsn, feed_lines, feed_stream, lsn, metric, redis_sink, stored_lsn, wait_drained,
};
use crate::support::{Home, file_sink, pipeline, source};
use crate::{DRAIN, SOURCE};
use deltaforge_testkit::servers::{PgVersion, Postgres, Proxy, Redis, RedisOptions};
use deltaforge_testkit::wait_for;
use serde_json::Value;
use std::time::Instant;

const CAPTURED: &str = "['public.%', '!public.ignored']";

fn prepared() -> (Postgres, Load) {
    let postgres = Load::server(PgVersion::V15, &[]);
    let load = Load::prepare(&postgres);
    load.create_tables(&postgres);
    (postgres, load)
}

fn home_of(dsn: &str) -> Home {
    Home::new(&[("pipeline.yaml", &pipeline("p", &source(dsn, CAPTURED), &[&file_sink()]))])
}

#[test]
fn a_source_that_restarts_and_one_that_crashes() {
    let (postgres, mut load) = prepared();
    let home = home_of(&postgres.dsn(&load.database));
    let engine = home.start();
    for (round, how) in ["fast", "immediate", "killed"].into_iter().enumerate() {
        load.start(&postgres, round as u64, 2);
        home.wait_lines("events.jsonl", home.lines("events.jsonl").len() + 300);
        let begun = Instant::now();
        match how {
            "fast" => postgres.stop_fast(),
            "immediate" => postgres.stop_immediate(),
            _ => postgres.kill(),
        }
        let stopped = begun.elapsed();
        let away = |s: &Value| s["phase"] == "retrying" && s["error"]["component"] == "source";
        let status = engine.wait_status("p", "the status to name the source", away);
        assert_eq!(engine.get("/readyz").0, 503);
        postgres.restart();
        let back = Instant::now();
        engine.wait_ready();
        println!(
            "{how}: stopped in {:.1} s, {}, streaming {:.1} s after the server was back",
            stopped.as_secs_f64(),
            status["error"]["code"],
            back.elapsed().as_secs_f64()
        );
        load.stop();
    }
    wait_drained(&engine, &home, SOURCE, &postgres, DRAIN);
    assert_eq!(metric(&engine, "deltaforge_source_reconnects_total"), Some(3.0));
    engine.stop();
    load.check(&postgres, "file", |ledger| feed_lines(ledger, &home, "events.jsonl"));
}

#[test]
fn a_connection_cut_in_the_middle_of_transactions() {
    let (postgres, mut load) = prepared();
    let proxy = Proxy::start(postgres.port());
    let dsn =
        postgres.dsn(&load.database).replace(&format!(":{}", postgres.port()), &format!(":{}", proxy.port()));
    let home = home_of(&dsn);
    let engine = home.start();
    load.start(&postgres, 5, 2);
    let reconnects = || metric(&engine, "deltaforge_source_reconnects_total").unwrap_or(0.0);
    let before = stored_lsn(&home, SOURCE).unwrap();
    // 30,000 rows are some 3 MB on the wire.
    let mut cuts = 0.0;
    for (first_key, bytes) in [(1, 200_000), (20_000, 1_500_000)] {
        proxy.cut_after_bytes(bytes);
        postgres.psql(&load.database, &Load::big_transaction(30_000, first_key));
        cuts += 1.0;
        wait_for("the connection to be made again", DRAIN, || reconnects() >= cuts);
    }
    // And between and inside of small transactions.
    for round in 1..=6_u64 {
        proxy.cut_after_bytes(3001 * round);
        cuts += 1.0;
        wait_for("the connection to be made again", DRAIN, || reconnects() >= cuts);
    }
    proxy.cut_never();
    load.stop();
    wait_drained(&engine, &home, SOURCE, &postgres, DRAIN);
    let head = lsn(&postgres.psql("postgres", "select pg_current_wal_lsn()")).unwrap();
    println!(
        "{cuts} cuts, {} reconnects, {} connections, {} bytes of log",
        reconnects(),
        proxy.accepted(),
        head - before
    );
    engine.stop();
    load.check(&postgres, "file", |ledger| feed_lines(ledger, &home, "events.jsonl"));
}

/// The network stands still in the middle of a transaction for longer than a batch may wait, and goes on.
#[test]
fn a_network_that_stands_still() {
    let (postgres, load) = prepared();
    let proxy = Proxy::start(postgres.port());
    let dsn =
        postgres.dsn(&load.database).replace(&format!(":{}", postgres.port()), &format!(":{}", proxy.port()));
    let home = home_of(&dsn);
    let engine = home.start();
    let from = proxy.bytes_to_client();
    std::thread::scope(|scope| {
        scope.spawn(|| postgres.psql(&load.database, &Load::big_transaction(60_000, 1)));
        wait_for("the transaction to be under way", DRAIN, || proxy.bytes_to_client() > from + 500_000);
        proxy.freeze(true);
    });
    let busy = |engine: &crate::support::Engine| metric(engine, "process_cpu_seconds_total").unwrap_or(0.0);
    let before = busy(&engine);
    // Shorter than wal_sender_timeout: the connection must live through it.
    crate::hold(std::time::Duration::from_secs(3), || engine.assert_runs());
    let burnt = busy(&engine) - before;
    proxy.freeze(false);
    wait_drained(&engine, &home, SOURCE, &postgres, DRAIN);
    println!("a standing network: {burnt:.2} s of CPU in 3 s");
    assert!(burnt < 0.5, "{burnt} s of CPU while nothing happened");
    assert_eq!(metric(&engine, "deltaforge_source_reconnects_total"), Some(0.0));
    engine.stop();
    let summary = load.check(&postgres, "file", |ledger| feed_lines(ledger, &home, "events.jsonl"));
    assert_eq!(summary.replays, 0);
}

/// What was read and is not delivered must not count as flushed when the connection is made again: after a crash it would be
/// gone.
#[test]
fn a_connection_cut_while_the_sink_stands_still() {
    let (postgres, load) = prepared();
    let redis = Redis::start(&RedisOptions::default()).unwrap();
    let proxy = Proxy::start(postgres.port());
    let dsn =
        postgres.dsn(&load.database).replace(&format!(":{}", postgres.port()), &format!(":{}", proxy.port()));
    let document = pipeline("p", &source(&dsn, CAPTURED), &[&redis_sink(&redis.uri(), "changes")]);
    let home = Home::new(&[("pipeline.yaml", &document)]);
    let engine = home.start();
    wait_drained(&engine, &home, SOURCE, &postgres, DRAIN);
    redis.pause();
    for round in 0..200 {
        postgres.psql(&load.database, &format!("update accounts set rev = {round} where id <= 100"));
    }
    engine.wait_status("p", "the stall to show", |s| s["error"]["component"] == "r");
    let mut session = Session::open(&postgres, "postgres");
    let stored = stored_lsn(&home, SOURCE).unwrap();
    for cuts in 1..=3 {
        proxy.cut();
        wait_for("the connection to be made again", DRAIN, || {
            metric(&engine, "deltaforge_source_reconnects_total") >= Some(f64::from(cuts))
        });
        // Two reports at the least.
        crate::hold(std::time::Duration::from_secs(2), || {
            let confirmed = confirmed_lsn(&mut session).unwrap();
            assert!(confirmed <= stored, "confirmed {confirmed:X}, though only {stored:X} is stored");
        });
    }
    assert_eq!(stored_lsn(&home, SOURCE), Some(stored));
    engine.kill();
    redis.resume();
    let engine = home.start();
    wait_drained(&engine, &home, SOURCE, &postgres, DRAIN);
    engine.stop();
    load.check(&postgres, "redis", |ledger| feed_stream(ledger, &redis, "changes"));
}
