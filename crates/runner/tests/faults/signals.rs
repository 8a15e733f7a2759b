//! SIGTERM under load: drained, saved, exit 0; and when the sink does not let it drain, exit 1 at the deadline.

use crate::support::load::Load;
use crate::support::random::Random;
use crate::support::session::Session;
use crate::support::streams::{confirmed_lsn, feed_stream, redis_sink, stored_lsn, wait_drained};
use crate::support::{Home, pipeline, source};
use crate::{DRAIN, SOURCE};
use deltaforge_testkit::servers::{PgVersion, Redis, RedisOptions};
use rustix::process::Signal;
use std::time::{Duration, Instant};

#[test]
fn ended_under_load_twenty_times() {
    let seed = Random::seed();
    let mut random = Random::new(seed);
    let postgres = Load::server(PgVersion::V15, &[]);
    let redis = Redis::start(&RedisOptions::default()).unwrap();
    let mut load = Load::prepare(&postgres);
    load.create_tables(&postgres);
    let from = source(&postgres.dsn(&load.database), "['public.%', '!public.ignored']");
    let home =
        Home::new(&[("pipeline.yaml", &pipeline("p", &from, &[&redis_sink(&redis.uri(), "changes")]))]);
    let mut session = Session::open(&postgres, "postgres");
    load.start(&postgres, seed, 3);
    let (mut longest, rounds) = (Duration::ZERO, 20);
    for round in 0..rounds {
        let engine = home.launch(&["--shutdown-timeout-secs", "10"]);
        if round == 7 {
            // The drain finds a transaction of some size half way.
            postgres.psql(&load.database, &Load::big_transaction(20_000, 1));
        }
        if round == 8 {
            // It passes now: on a slow machine each of the rounds that follow could end inside it.
            wait_drained(&engine, &home, SOURCE, &postgres, DRAIN);
        }
        std::thread::sleep(Duration::from_millis(random.below(700)));
        let begun = Instant::now();
        engine.signal(Signal::TERM);
        let status = engine.wait_exit();
        longest = longest.max(begun.elapsed());
        assert_eq!(status.code(), Some(0), "round {round}: {status}\n{}", engine.log());
        let (stored, confirmed) = (stored_lsn(&home, SOURCE), confirmed_lsn(&mut session));
        assert!(stored >= confirmed, "round {round}: stored {stored:?}, confirmed {confirmed:?}");
    }
    assert!(longest < Duration::from_secs(10), "{longest:?}");

    // A sink that stands still does not let it drain: exit 1 at the deadline, and nothing is lost by it.
    let engine = home.launch(&["--shutdown-timeout-secs", "2"]);
    engine.wait_ready();
    redis.pause();
    postgres.psql(&load.database, &Load::big_transaction(2_000, 100_000));
    engine.wait_status("p", "the stall to show", |status| status["error"]["component"] == "r");
    let begun = Instant::now();
    engine.signal(Signal::TERM);
    let status = engine.wait_exit();
    let took = begun.elapsed();
    redis.resume();
    assert_eq!(status.code(), Some(1), "{status}");
    assert!(took < Duration::from_secs(5), "{took:?}");

    load.stop();
    let engine = home.start();
    wait_drained(&engine, &home, SOURCE, &postgres, DRAIN);
    engine.stop();
    println!(
        "{rounds} ends by SIGTERM: exit 0, the longest drain {longest:.1?}; with a standing sink exit 1 after {took:.1?}"
    );
    let summary = load.check(&postgres, "redis", |ledger| feed_stream(ledger, &redis, "changes"));
    // A drain that saves all it delivered leaves nothing to repeat. Only the one that missed its deadline may, and the one that
    // ended inside a transaction, whose delivered part comes again.
    assert!(summary.replays <= 2, "{summary}");
}
