//! The sink is away, or there and silent: everything waits, nothing is lost, the source is kept.

use crate::support::load::Load;
use crate::support::session::Session;
use crate::support::streams::{
    confirmed_lsn, feed_lines, feed_stream, metric, redis_sink, stored_lsn, wait_drained, walsenders,
};
use crate::support::{Engine, Home, file_sink, pipeline, source};
use crate::{DRAIN, Plain, SOURCE, for_secs, hold};
use deltaforge_testkit::servers::{PgOptions, PgVersion, Postgres, Redis, RedisOptions};
use deltaforge_testkit::wait_for;
use serde_json::Value;
use std::time::{Duration, Instant};

/// How soon a trouble must show.
const SHOWS: Duration = Duration::from_secs(5);

struct ToRedis {
    postgres: Postgres,
    redis: Redis,
    load: Load,
    home: Home,
}

impl ToRedis {
    fn new() -> ToRedis {
        let postgres = Load::server(PgVersion::V15, &[]);
        let redis = Redis::start(&RedisOptions::default()).unwrap();
        let load = Load::prepare(&postgres);
        load.create_tables(&postgres);
        let from = source(&postgres.dsn(&load.database), "['public.%', '!public.ignored']");
        let home =
            Home::new(&[("pipeline.yaml", &pipeline("p", &from, &[&redis_sink(&redis.uri(), "changes")]))]);
        ToRedis { postgres, redis, load, home }
    }

    fn check(&self) -> deltaforge_testkit::ledger::Summary {
        self.load.check(&self.postgres, "redis", |ledger| feed_stream(ledger, &self.redis, "changes"))
    }
}

/// Waits until the status names the sink as the trouble; gives what it says and how long that took.
#[track_caller]
fn wait_troubled(engine: &Engine) -> (Value, Duration) {
    let begun = Instant::now();
    let troubled = |s: &Value| s["phase"] == "retrying" && s["error"]["component"] == "r";
    let status = engine.wait_status("p", "the status to name the sink", troubled);
    (status, begun.elapsed())
}

#[test]
fn a_sink_that_is_down_and_comes_back() {
    let mut test = ToRedis::new();
    let engine = test.home.start();
    test.load.start(&test.postgres, 1, 2);
    wait_for("the load to flow", DRAIN, || {
        test.redis.cli(&["XLEN", "changes"]).parse::<u64>().is_ok_and(|n| n > 1500)
    });

    test.redis.stop();
    let (status, after) = wait_troubled(&engine);
    println!("down: after {:.1} s {}", after.as_secs_f64(), status["error"]);
    assert!(after < SHOWS, "{after:?}");
    assert_eq!(status["status"], "running");
    let mut session = Session::open(&test.postgres, "postgres");
    // What was acknowledged before may still be on its way into the state and to the server.
    let mut places = Vec::new();
    hold(for_secs(15, 120), || {
        let status = engine.status("p");
        assert_eq!(
            (&status["phase"], &status["error"]["component"]),
            (&Value::from("retrying"), &Value::from("r"))
        );
        let (code, body) = engine.get("/readyz");
        assert!(code == 503 && body.contains(status["error"]["code"].as_str().unwrap()), "{code} {body}");
        places.push((stored_lsn(&test.home, SOURCE), confirmed_lsn(&mut session)));
    });
    let settled = &places[places.len() / 4..];
    assert!(
        settled.iter().all(|place| place == &settled[0]),
        "the slot or the checkpoint moved without a sink: {settled:?}"
    );
    let lag = engine.status("p")["lag"]["delivered_seconds"].as_f64().unwrap();
    assert!(lag > 8.0, "the lag {lag} does not show the outage");

    test.redis.restart();
    let begun = Instant::now();
    engine.wait_ready();
    let back = begun.elapsed();
    test.load.stop();
    wait_drained(&engine, &test.home, SOURCE, &test.postgres, DRAIN);
    assert_eq!(metric(&engine, "deltaforge_source_reconnects_total"), Some(0.0));
    engine.stop();
    println!("back: ready after {:.1} s, lag was {lag:.0} s", back.as_secs_f64());
    test.check();
}

/// `wal_sender_timeout` is 5 s: a client that did not answer for longer than that would be cut off.
#[test]
fn a_frozen_sink_does_not_cost_the_connection() {
    let mut test = ToRedis::new();
    let engine = test.home.start();
    test.load.start(&test.postgres, 2, 2);
    wait_for("the load to flow", DRAIN, || {
        test.redis.cli(&["XLEN", "changes"]).parse::<u64>().is_ok_and(|n| n > 1500)
    });
    let walsender = walsenders(&test.postgres);
    assert!(!walsender.is_empty());

    test.redis.pause();
    // More than all buffers between the server and the sink hold, so that nobody reads the socket any more.
    test.postgres.psql(&test.load.database, &Load::big_transaction(60_000, 1));
    let (status, after) = wait_troubled(&engine);
    println!("frozen: after {:.1} s {}", after.as_secs_f64(), status["error"]);
    assert!(after < SHOWS, "{after:?}");
    let mut session = Session::open(&test.postgres, "postgres");
    let confirmed = confirmed_lsn(&mut session);
    let mut oldest_reply = 0.0_f64;
    let held = for_secs(15, 60);
    hold(held, || {
        assert_eq!(engine.status("p")["error"]["component"], "r");
        let age = session.ask("select extract(epoch from clock_timestamp() - reply_time) from pg_stat_replication where pid = (select active_pid from pg_replication_slots where slot_name = 'df')");
        oldest_reply = oldest_reply.max(age.parse().unwrap_or(f64::INFINITY));
    });
    assert_eq!(walsenders(&test.postgres), walsender, "the connection was made again");
    assert_eq!(metric(&engine, "deltaforge_source_reconnects_total"), Some(0.0));
    assert_eq!(confirmed_lsn(&mut session), confirmed, "the slot moved while nothing was delivered");
    assert!(oldest_reply < 3.0, "the server heard nothing for {oldest_reply} s");
    println!(
        "frozen for {held:?}: walsender {walsender} all along, last reply at most {oldest_reply:.1} s old, slot unmoved"
    );

    test.redis.resume();
    engine.wait_ready();
    test.load.stop();
    wait_drained(&engine, &test.home, SOURCE, &test.postgres, DRAIN);
    assert_eq!(walsenders(&test.postgres), walsender);
    engine.stop();
    test.check();
}

/// No file of the process may grow beyond this: what a full disk does, and it can be lifted.
const FULL: u64 = 3 << 20;

#[test]
fn a_full_disk_under_a_file() {
    let plain = Plain::new(&PgOptions::default());
    let mut load = Load::prepare(&plain.postgres);
    load.create_tables(&plain.postgres);
    let dsn = plain.postgres.dsn(&load.database);
    plain.home.write(
        "pipeline.yaml",
        &pipeline("p", &source(&dsn, "['public.%', '!public.ignored']"), &[&file_sink()]),
    );
    // Without this a write beyond the limit is not refused: the signal for it ends the process.
    let mut ignoring = std::process::Command::new("sh");
    ignoring.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_deltaforge")]);
    let mut engine = plain.home.spawn_by(ignoring, &[]);
    engine.wait_api();
    engine.wait_ready();
    let limit = |bytes: Option<u64>| {
        let pid = rustix::process::Pid::from_raw(engine.pid() as i32);
        let limit = rustix::process::Rlimit { current: bytes, maximum: None };
        rustix::process::prlimit(pid, rustix::process::Resource::Fsize, limit).unwrap();
    };
    limit(Some(FULL));
    load.start(&plain.postgres, 3, 2);
    plain.postgres.psql(&load.database, &Load::big_transaction(20_000, 1));
    let full = |s: &Value| s["phase"] == "retrying" && s["error"]["component"] == "p-file";
    let status = engine.wait_status("p", "the full disk to show", full);
    println!("disk full: {}", status["error"]);
    hold(Duration::from_secs(2), || assert_eq!(engine.status("p")["error"]["component"], "p-file"));
    limit(None);
    engine.wait_ready();
    load.stop();
    wait_drained(&engine, &plain.home, SOURCE, &plain.postgres, DRAIN);
    engine.stop();
    load.check(&plain.postgres, "file", |ledger| feed_lines(ledger, &plain.home, "events.jsonl"));
}
