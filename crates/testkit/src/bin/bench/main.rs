//! `dev.sh bench`: DeltaForge against the readers that the databases themselves bring, in the same run.
//!
//! One backlog is written once, and every reader drains it from its beginning, so all of them read the same log. Readers
//! alternate, medians are printed, and next to each run stands the load of everything else on the machine while it ran, since on a
//! busy machine the comparison says nothing. The databases' readers, which end by themselves, are timed to their end; DeltaForge, which
//! does not, until a look at its metrics, every 40 ms, finds the last event delivered.
//!
//! ```text
//! bench pg    [--rows N] [--reps N] [--only one|hundred] [--skip-million] [--skip-latency] [--pg 15|18]
//! bench mysql [--rows N] [--reps N] [--only one|hundred] [--skip-million] [--server mysql|mariadb]
//! bench sinks [--rows N] [--reps N] [--only one|hundred] [--into redis,kafka,nats] [--partitions 1,6] [--batch YAML]...
//!             [--skip-default-batch] [--pg 15|18]
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers: it prints, and a panic with its message is how it ends when something is wrong"
)]

mod mysql;
mod pg;
mod process;
mod running;
mod sinks;

use process::Usage;
use std::path::PathBuf;
use std::process::Command;

/// How many rows a transaction has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    OneRow,
    HundredRows,
}

impl Shape {
    fn title(self) -> &'static str {
        match self {
            Shape::OneRow => "one-row transactions",
            Shape::HundredRows => "100-row transactions",
        }
    }

    fn rows(self) -> u64 {
        match self {
            Shape::OneRow => 1,
            Shape::HundredRows => 100,
        }
    }
}

/// What both benches take.
struct Options {
    rows: u64,
    reps: usize,
    million: bool,
    shapes: Vec<Shape>,
    /// What only one of them takes, as it was written.
    rest: Vec<String>,
}

fn options(args: impl Iterator<Item = String>) -> Options {
    let shapes = vec![Shape::HundredRows, Shape::OneRow];
    let mut options = Options { rows: 1_000_000, reps: 5, million: true, shapes, rest: Vec::new() };
    let mut args = args;
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse::<u64>().ok()).expect("a number follows");
        match arg.as_str() {
            "--rows" => options.rows = number(),
            "--reps" => options.reps = number() as usize,
            "--skip-million" => options.million = false,
            "--only" => {
                let word = args.next().expect("`one` or `hundred` follows");
                options.shapes = vec![if word == "one" { Shape::OneRow } else { Shape::HundredRows }];
            }
            _ => options.rest.push(arg),
        }
    }
    options
}

fn main() {
    let mut args = std::env::args().skip(1).peekable();
    let which = args.next_if(|arg| !arg.starts_with("--")).unwrap_or("pg".into());
    let options = options(args);
    let bench = match which.as_str() {
        "pg" => pg::run,
        "mysql" => mysql::run,
        "sinks" => sinks::run,
        other => panic!("unknown bench `{other}`; see the head of this program's source"),
    };
    let binary = build();
    println!("# dev.sh bench {which}: {} rows, {} repetitions", options.rows, options.reps);
    println!(
        "machine: {} cores; other load before the start: {:.2} cores",
        process::cores(),
        process::other_load()
    );
    bench(&options, &binary);
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

/// Runs the readers in turn and prints each run and the medians, with the ratios to the first reader.
fn compare<R: Copy>(
    title: &str,
    options: &Options,
    readers: &[(&str, R)],
    changes: u64,
    drain: impl Fn(R, usize) -> Usage,
) {
    let mut results: Vec<Vec<Usage>> = vec![Vec::new(); readers.len()];
    for rep in 0..options.reps {
        for (i, (name, reader)) in readers.iter().enumerate() {
            let usage = drain(*reader, rep);
            println!("  run {rep} {name:<22} {}", usage.line(changes));
            results[i].push(usage);
        }
    }
    let medians: Vec<Usage> = results.iter().map(|runs| Usage::median(runs)).collect();
    println!("\n| {title} | rows/s | ratio | CPU s per million | ratio | peak RSS MiB | other load |");
    println!("|---|---|---|---|---|---|---|");
    for ((name, _), usage) in readers.iter().zip(&medians) {
        println!(
            "| {name} | {:.0} | {:.2} | {:.2} | {:.2} | {:.1} | {:.2} |",
            usage.rate(changes),
            usage.rate(changes) / medians[0].rate(changes),
            usage.cpu_per_million(changes),
            usage.cpu_per_million(changes) / medians[0].cpu_per_million(changes),
            usage.peak_rss_mib,
            usage.other_load,
        );
    }
}
