//! What goes wrong around the engine, done to real servers: sinks that are down or frozen, sources that restart, cut
//! off, refuse or have lost what is asked for, processes in each other's way. Each fault must show in the status with its
//! own code, and nothing may be lost by it.
//!
//! Durations are scaled down; `DELTAFORGE_SOAK=1` runs them whole.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "in a test, a panic with a clear message is how a failure is reported, and what was measured is printed"
)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod connection;
mod idle;
mod letters;
mod memory;
mod process;
mod signals;
mod sinks;
mod slots;

use deltaforge_testkit::servers::{PgOptions, PgVersion, Postgres};
use serde_json::Value;
use std::time::{Duration, Instant};
use support::{Home, file_sink, pipeline, source};

/// The id of the source that [`support::source`] makes in a pipeline called `p`.
const SOURCE: &str = "p-postgres";
/// The longest that a backlog of these tests takes.
const DRAIN: Duration = Duration::from_secs(90);

/// How long a condition is held: seconds in CI, and in a soak.
fn for_secs(ci: u64, soak: u64) -> Duration {
    let soaking = std::env::var("DELTAFORGE_SOAK").is_ok_and(|soak| soak == "1");
    Duration::from_secs(if soaking { soak } else { ci })
}

/// Looks again and again, for as long as that.
fn hold(duration: Duration, mut look: impl FnMut()) {
    let begun = Instant::now();
    while begun.elapsed() < duration {
        look();
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A server, a database with one table `t`, and a folder whose pipeline writes it to a file.
struct Plain {
    postgres: Postgres,
    database: String,
    home: Home,
}

impl Plain {
    fn new(options: &PgOptions) -> Plain {
        let postgres = Postgres::start(PgVersion::V15, options).unwrap();
        let database = postgres.fresh_db("plain");
        postgres.psql(&database, "create table t (id int primary key, note text)");
        let home = Home::to_file(&postgres.dsn(&database), "['public.%']");
        Plain { postgres, database, home }
    }

    fn psql(&self, sql: &str) -> String {
        self.postgres.psql(&self.database, sql)
    }

    /// Delivers two rows and stops.
    fn run_once(&self) {
        let engine = self.home.start();
        self.psql("insert into t values (1, 'a'), (2, 'b')");
        self.home.wait_events(2);
        engine.stop();
    }
}

/// A pipeline `p` from a DSN to `events.jsonl`.
fn to_file(dsn: &str) -> String {
    pipeline("p", &source(dsn, "['public.%']"), &[&file_sink()])
}

/// Starts the folder's pipeline, which must fail with this code; gives its `error`.
#[track_caller]
fn fails_with(home: &Home, code: &str) -> Value {
    let begun = Instant::now();
    let engine = home.launch(&[]);
    let status = engine.wait_status("p", &format!("the pipeline to fail with {code}"), |status| {
        status["status"] == "failed"
    });
    let error = status["error"].clone();
    assert_eq!(error["code"], code, "{status}");
    assert_eq!(error["component"], "source", "{status}");
    let (readiness, body) = engine.get("/readyz");
    assert!(readiness == 503 && body.contains(code), "/readyz: {readiness} {body}");
    assert_eq!(engine.get("/healthz"), (200, "ok".into()));
    println!(
        "{code} after {:.1} s: {}; hint: {}",
        begun.elapsed().as_secs_f64(),
        error["message"],
        error["hint"]
    );
    // A failed pipeline does not keep the process from ending as it should.
    engine.stop();
    error
}
