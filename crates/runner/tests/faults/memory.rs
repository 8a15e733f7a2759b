//! A transaction larger than any buffer flows in parts; the checkpoint moves at its end.

use crate::support::load::Load;
use crate::support::streams::{feed_lines, head_lsn, lsn, stored_lsn, wait_drained};
use crate::support::{Home, file_sink, pipeline, source};
use crate::{DRAIN, SOURCE};
use deltaforge_testkit::servers::PgVersion;
use deltaforge_testkit::wait_for;

/// What the process may have held at most, resident.
const CEILING_KB: u64 = 96 << 10;
const ROWS: u64 = 200_000;

#[test]
fn a_transaction_of_many_rows_in_bounded_memory() {
    let postgres = Load::server(PgVersion::V15, &[]);
    let load = Load::prepare(&postgres);
    load.create_tables(&postgres);
    let from = source(&postgres.dsn(&load.database), "['public.%', '!public.ignored']");
    let home = Home::new(&[("pipeline.yaml", &pipeline("p", &from, &[&file_sink()]))]);
    let engine = home.start();
    wait_drained(&engine, &home, SOURCE, &postgres, DRAIN);
    let idle = engine.peak_kb();

    let written = || std::fs::metadata(home.path("events.jsonl")).unwrap().len();
    let first_rows = written();
    // The place right before the commit: until the server has decoded that, places up to here are before the transaction.
    let asking =
        Load::big_transaction(ROWS, 1).replace("commit", "select pg_current_wal_insert_lsn(); commit");
    let before_commit = lsn(postgres.psql(&load.database, &asking).trim()).unwrap();
    let end = head_lsn(&postgres);
    let (mut places, mut parts) = (Vec::new(), 0);
    wait_for("the transaction to pass", DRAIN, || {
        engine.assert_runs();
        let flows = written() > first_rows + (10 << 20);
        let stored = stored_lsn(&home, SOURCE).unwrap();
        if flows && places.last() != Some(&stored) {
            places.push(stored);
        }
        parts += u32::from(flows && stored < end);
        stored >= end
    });
    let peak = engine.peak_kb();
    println!(
        "{ROWS} rows in one transaction: peak RSS {} MiB (idle {} MiB); seen {parts} times half way, the checkpoint standing \
         at {places:X?}, its end {end:X}",
        peak >> 10,
        idle >> 10
    );
    assert!(parts > 0, "never seen half way");
    assert!(
        places.iter().all(|place| *place <= before_commit || *place >= end),
        "the checkpoint moved inside, beyond {before_commit:X}: {places:X?}"
    );
    assert!(peak <= CEILING_KB, "peak RSS {peak} KiB");
    engine.stop();
    load.check(&postgres, "file", |ledger| feed_lines(ledger, &home, "events.jsonl"));
}
