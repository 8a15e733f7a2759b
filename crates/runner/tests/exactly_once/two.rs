//! Two engines that deliver the same tables as the same sink: exactly one goes on, the other says so, and each change is there
//! once.

use super::support::load::Load;
use super::support::random::Random;
use super::support::streams::wait_drained;
use super::support::{Engine, Home, PATIENCE, pipeline, source};
use super::{DRAIN, SOURCE, Target};
use deltaforge_testkit::servers::{Kafka, KafkaOptions, PgVersion, Redis, RedisOptions};
use deltaforge_testkit::wait_for;

/// Which of two has failed; neither yet: nothing.
fn loser(engines: &[Engine; 2]) -> Option<usize> {
    (0..2).find(|at| engines[*at].status("p")["status"] == "failed")
}

fn two(target: &dyn Target, code: &str) {
    let seed = Random::seed();
    let postgres = Load::server(PgVersion::V15, &[]);
    let mut load = Load::prepare(&postgres);
    load.create_tables(&postgres);
    // A slot for each; both begin at the same place.
    postgres.psql(&load.database, "select pg_copy_logical_replication_slot('df', 'df2')");
    let tables = source(&postgres.dsn(&load.database), "['public.%', '!public.ignored']");
    let homes = [tables.clone(), tables.replace("slot: df,", "slot: df2,")]
        .map(|tables| Home::new(&[("pipeline.yaml", &pipeline("p", &tables, &[&target.sink()]))]));
    load.start(&postgres, seed, 3);
    let engines = [homes[0].launch(&[]), homes[1].launch(&[])];
    let mut winner = 0;
    for round in 0..4 {
        // First both start at once; then whoever lost is resumed, takes over, and the other has lost.
        let mut lost = 0;
        wait_for("one of the two to be stopped", PATIENCE, || {
            loser(&engines).is_some_and(|at| {
                lost = at;
                true
            })
        });
        winner = 1 - lost;
        let status = engines[lost].status("p");
        assert!(status.to_string().contains(code), "{status}");
        // The other goes on: what is there now comes to the target, and is saved.
        wait_drained(&engines[winner], &homes[winner], SOURCE, &postgres, DRAIN);
        assert_eq!(loser(&engines), Some(lost), "both have stopped");
        assert_ne!(engines[winner].status("p")["status"], "failed");
        if round < 3 {
            let (code, answer) = engines[lost].post("/pipelines/p/resume", "");
            assert_eq!(code, 200, "{answer}");
        }
    }
    load.stop();
    wait_drained(&engines[winner], &homes[winner], SOURCE, &postgres, DRAIN);
    assert_ne!(engines[winner].status("p")["status"], "failed");
    let summary = load.check(&postgres, target.name(), |ledger| target.feed(ledger));
    assert_eq!((summary.replays, summary.entries), (0, summary.events), "{}: doubled", target.name());
}

#[test]
fn two_engines_into_kafka() {
    two(&Kafka::start(&KafkaOptions::default()).unwrap(), "kafka.fenced");
}

#[test]
fn two_engines_into_redis() {
    two(&Redis::start(&RedisOptions::default()).unwrap(), "redis.fenced");
}
