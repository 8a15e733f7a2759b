//! A captured table in which nothing happens, beside a busy one that is not captured: the server must be able to forget.

use crate::support::session::Session;
use crate::support::streams::{confirmed_lsn, head_lsn, metric};
use crate::{Plain, for_secs};
use deltaforge_testkit::servers::PgOptions;
use deltaforge_testkit::wait_for;
use std::time::{Duration, Instant};

#[test]
fn an_idle_table_beside_a_busy_one() {
    let plain = Plain::new(&PgOptions::default());
    let database = plain.postgres.fresh_db("busy");
    plain.postgres.psql(&database, "create table busy (filler text)");
    plain.psql("create table other (filler text)");
    plain.home.write(
        "pipeline.yaml",
        &crate::to_file(&plain.postgres.dsn(&plain.database)).replace("public.%", "public.t"),
    );
    let engine = plain.home.start();
    let mut session = Session::open(&plain.postgres, "postgres");
    // Without a status interval of its own a sixth of wal_sender_timeout (5 s) counts.
    let interval = Duration::from_millis(834);
    let rounds = for_secs(10, 250).as_secs();
    let (mut worst, mut retained) = (Duration::ZERO, Vec::new());
    let begun = head_lsn(&plain.postgres);
    for round in 0..rounds {
        // 20 MB of log, in the captured database and in another one by turns.
        let insert = |table: &str| {
            format!("insert into {table} select repeat(md5(g::text), 32) from generate_series(1, 18500) g")
        };
        match round % 2 {
            0 => plain.psql(&insert("other")),
            _ => plain.postgres.psql(&database, &insert("busy")),
        };
        let head = head_lsn(&plain.postgres);
        let written = Instant::now();
        wait_for("the slot to follow", Duration::from_secs(30), || {
            confirmed_lsn(&mut session).is_some_and(|confirmed| confirmed + (1 << 20) >= head)
        });
        worst = worst.max(written.elapsed());
        session.ask("checkpoint");
        let kept = session.ask("select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) from pg_replication_slots where slot_name = 'df'");
        retained.push(kept.parse::<u64>().unwrap() >> 20);
    }
    let megabytes = (head_lsn(&plain.postgres) - begun) >> 20;
    println!(
        "{megabytes} MB of log beside an idle table: the slot follows within {worst:.1?}, retained MB per round {retained:?}"
    );
    assert!(megabytes > 15 * rounds, "{megabytes} MB");
    assert!(worst < 2 * interval + Duration::from_secs(1), "the slot follows only after {worst:?}");
    // Where the server may restart decoding moves with its own notes of running transactions, each 15 s or checkpoint.
    assert!(retained.iter().skip(2).all(|mb| *mb <= 64), "retained log grows: {retained:?} MB");
    assert_eq!(metric(&engine, "deltaforge_source_lag_seconds"), Some(0.0));
    assert_eq!(plain.home.events().len(), 0);
    engine.stop();
}
