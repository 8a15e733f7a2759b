//! `dev.sh bench pg`: DeltaForge against PostgreSQL's own reader, in the same run.
//!
//! One backlog is written once, and every reader drains it from a slot of its own that was made before it, so all of them
//! read the same log. Readers alternate, medians are printed, and next to each run stands the load of everything else on the
//! machine while it ran, since on a busy machine the comparison says nothing.
//!
//! ```text
//! bench pg [--rows N] [--reps N] [--pg 15|18] [--skip-latency] [--skip-million] [--only one|hundred]
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers: it prints, and a panic with its message is how it ends when something is wrong"
)]

mod latency;
mod load;
mod process;
mod readers;

use deltaforge_testkit::servers::{PgOptions, PgVersion, Postgres, Redis, RedisOptions};
use load::Shape;
use process::Usage;
use readers::{Bench, Reader};
use std::path::PathBuf;
use std::process::Command;

struct Options {
    rows: u64,
    reps: usize,
    version: PgVersion,
    latency: bool,
    million: bool,
    shapes: Vec<Shape>,
}

fn options() -> Options {
    let mut options = Options {
        rows: 1_000_000,
        reps: 5,
        version: PgVersion::V15,
        latency: true,
        million: true,
        shapes: vec![Shape::HundredRows, Shape::OneRow],
    };
    let mut args = std::env::args().skip(1).filter(|a| a != "pg");
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse::<u64>().ok()).expect("a number follows");
        match arg.as_str() {
            "--rows" => options.rows = number(),
            "--reps" => options.reps = number() as usize,
            "--pg" => options.version = if number() == 18 { PgVersion::V18 } else { PgVersion::V15 },
            "--skip-latency" => options.latency = false,
            "--skip-million" => options.million = false,
            "--only" => {
                let word = args.next().expect("`one` or `hundred` follows");
                options.shapes = vec![if word == "one" { Shape::OneRow } else { Shape::HundredRows }];
            }
            other => panic!("unknown argument {other}; see the head of this program's source"),
        }
    }
    options
}

fn main() {
    let options = options();
    let binary = build();
    println!("# dev.sh bench pg: {} rows, {} repetitions, {:?}", options.rows, options.reps, options.version);
    println!(
        "machine: {} cores; other load before the start: {:.2} cores",
        process::cores(),
        process::other_load()
    );
    let settings = [
        ("max_replication_slots", "64"),
        ("max_wal_senders", "64"),
        ("max_wal_size", "8GB"),
        ("shared_buffers", "256MB"),
        ("wal_sender_timeout", "60s"),
        ("synchronous_commit", "off"),
        ("autovacuum", "off"),
        ("checkpoint_timeout", "1h"),
    ];
    let settings = settings.map(|(n, v)| (n.to_string(), v.to_string())).to_vec();
    for shape in &options.shapes {
        let server = Postgres::start(
            options.version,
            &PgOptions { settings: settings.clone(), ..PgOptions::default() },
        );
        let server = server.expect("PostgreSQL starts");
        let redis = Redis::start(&redis_options()).expect("Redis starts");
        drain(&options, *shape, &Bench { server: &server, redis: &redis, binary: &binary });
    }
    if options.million {
        let server = Postgres::start(
            options.version,
            &PgOptions { settings: settings.clone(), ..PgOptions::default() },
        );
        let redis = Redis::start(&redis_options()).expect("Redis starts");
        million(&Bench { server: &server.expect("PostgreSQL starts"), redis: &redis, binary: &binary });
    }
    if options.latency {
        // The walsender sends what is flushed; asynchronous commits would be flushed five times a second.
        let mut settings = settings;
        settings.push(("synchronous_commit".into(), "on".into()));
        let server = Postgres::start(options.version, &PgOptions { settings, ..PgOptions::default() });
        let redis = Redis::start(&redis_options()).expect("Redis starts");
        latency::run(
            &Bench { server: &server.expect("PostgreSQL starts"), redis: &redis, binary: &binary },
            options.reps,
        );
    }
}

/// Redis as it comes: without an append-only file, which would measure the disk.
fn redis_options() -> RedisOptions {
    RedisOptions { args: ["--appendonly", "no"].map(Into::into).to_vec(), ..RedisOptions::default() }
}

/// Builds the released binary, so that what is measured is what is shipped.
fn build() -> PathBuf {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "-p", "runner"])
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the binary builds");
    let here = std::env::current_exe().expect("this program has a path");
    here.with_file_name("deltaforge")
}

fn drain(options: &Options, shape: Shape, bench: &Bench<'_>) {
    let readers = [Reader::PgRecvlogical, Reader::NullFile, Reader::Redis];
    load::prepare(bench.server);
    for reader in readers {
        (0..options.reps).for_each(|rep| load::make_slot(bench.server, &reader.slot(rep)));
    }
    println!("\n## {} ({} changes: 50 % inserts, 40 % updates, 10 % deletes)", shape.title(), options.rows);
    let changes = load::write(bench.server, shape, options.rows);
    let mut results: Vec<Vec<Usage>> = vec![Vec::new(); readers.len()];
    for rep in 0..options.reps {
        for (i, reader) in readers.iter().enumerate() {
            let usage = bench.drain(*reader, rep, changes);
            println!("  run {rep} {:<14} {}", reader.title(), usage.line(changes));
            results[i].push(usage);
        }
    }
    let medians: Vec<Usage> = results.iter().map(|runs| Usage::median(runs)).collect();
    println!(
        "\n| {} | rows/s | ratio | CPU s per million | ratio | peak RSS MiB | other load |",
        shape.title()
    );
    println!("|---|---|---|---|---|---|---|");
    for (reader, usage) in readers.iter().zip(&medians) {
        println!(
            "| {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.1} | {:.2} |",
            reader.title(),
            usage.rate(changes),
            usage.rate(changes) / medians[0].rate(changes),
            usage.cpu_per_million(changes),
            usage.cpu_per_million(changes) / medians[0].cpu_per_million(changes),
            usage.peak_rss_mib,
            usage.other_load,
        );
    }
}

/// One transaction of a million rows: what memory it takes, and what the process holds when idle.
fn million(bench: &Bench<'_>) {
    load::prepare(bench.server);
    load::make_slot(bench.server, &Reader::NullFile.slot(0));
    load::write_single_transaction(bench.server, 1_000_000);
    let usage = bench.drain(Reader::NullFile, 0, 1_000_000);
    println!("\n## One transaction of 1,000,000 rows, to a null file\n  {}", usage.line(1_000_000));
    println!("  idle RSS after 5 s of streaming nothing: {:.1} MiB", bench.idle_rss());
}
