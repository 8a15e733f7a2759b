//! PostgreSQL, against `pg_recvlogical`. Every reader has a slot of its own for each run, made before the backlog.

mod latency;
pub(crate) mod load;
pub(crate) mod readers;

use crate::running::Running;
use crate::{Options, Shape, compare};
use deltaforge_testkit::servers::{PgOptions, PgVersion, Postgres, Redis, RedisOptions};
use readers::{Bench, Reader};
use std::path::Path;

pub(crate) fn run(options: &Options, binary: &Path) {
    let (mut version, mut measure_latency) = (PgVersion::V15, true);
    let mut rest = options.rest.iter().map(String::as_str);
    while let Some(arg) = rest.next() {
        match arg {
            "--skip-latency" => measure_latency = false,
            "--pg" if rest.next() == Some("18") => version = PgVersion::V18,
            "--pg" => {}
            other => panic!("unknown argument {other}; see the head of this program's source"),
        }
    }
    println!("{version:?}");
    let start = |synchronous_commit: &str| {
        let redis = Redis::start(&redis_options()).expect("Redis starts");
        (server(version, synchronous_commit, "64"), redis)
    };
    for shape in &options.shapes {
        let (server, redis) = start("off");
        drain(options, *shape, &Bench { server: &server, redis: &redis, binary });
    }
    if options.million {
        let (server, redis) = start("off");
        million(&Bench { server: &server, redis: &redis, binary });
    }
    if measure_latency {
        // The walsender sends what is flushed; asynchronous commits would be flushed five times a second.
        let (server, redis) = start("on");
        latency::run(&Bench { server: &server, redis: &redis, binary }, options.reps);
    }
}

/// A PostgreSQL that nothing disturbs during a run.
pub(crate) fn server(version: PgVersion, synchronous_commit: &str, slots: &str) -> Postgres {
    let settings = [
        ("max_replication_slots", slots),
        ("max_wal_senders", "64"),
        ("max_wal_size", "8GB"),
        ("shared_buffers", "256MB"),
        ("wal_sender_timeout", "60s"),
        ("synchronous_commit", synchronous_commit),
        ("autovacuum", "off"),
        ("checkpoint_timeout", "1h"),
    ];
    let settings = settings.map(|(n, v)| (n.to_string(), v.to_string())).to_vec();
    let options = PgOptions { settings, ..PgOptions::default() };
    Postgres::start(version, &options).expect("PostgreSQL starts")
}

/// Redis as it comes: without an append-only file, which would measure the disk.
pub(crate) fn redis_options() -> RedisOptions {
    RedisOptions { args: ["--appendonly", "no"].map(Into::into).to_vec(), ..RedisOptions::default() }
}

fn drain(options: &Options, shape: Shape, bench: &Bench<'_>) {
    let readers = [Reader::PgRecvlogical, Reader::NullFile, Reader::Redis];
    load::prepare(bench.server);
    for reader in readers {
        (0..options.reps).for_each(|rep| load::make_slot(bench.server, &reader.slot(rep)));
    }
    println!("\n## {} ({} changes: 50 % inserts, 40 % updates, 10 % deletes)", shape.title(), options.rows);
    let changes = load::write(bench.server, shape, options.rows);
    let readers = readers.map(|reader| (reader.title(), reader));
    compare(shape.title(), options, &readers, changes, |reader, rep| bench.drain(reader, rep, changes));
}

/// One transaction of a million rows: what memory it takes, and what the process holds when idle.
fn million(bench: &Bench<'_>) {
    load::prepare(bench.server);
    load::make_slot(bench.server, &Reader::NullFile.slot(0));
    load::write_single_transaction(bench.server, 1_000_000);
    let usage = bench.drain(Reader::NullFile, 0, 1_000_000);
    println!("\n## One transaction of 1,000,000 rows, to a null file\n  {}", usage.line(1_000_000));
    load::make_slot(bench.server, "idle_0");
    let idle: Running = bench.start("idle_0", crate::running::NULL_SINK);
    println!("  idle RSS after 5 s of streaming nothing: {:.1} MiB", idle.idle_rss());
}
