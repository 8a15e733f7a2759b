//! Who took the cores: the CPU time of each party of a run, and what was left.

use crate::process::{self, Snapshot};
use deltaforge_testkit::servers::Postgres;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often `/proc` is looked at. A walsender's figures are gone with it, so its last moments below this are missed.
const POLL: Duration = Duration::from_millis(5);

/// One run. CPU seconds are those of the whole run, from the start of the reader's process on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Account {
    /// From the start of streaming to the last arrival.
    pub(crate) seconds: f64,
    /// From the start of the process to that of streaming.
    pub(crate) before: f64,
    /// Of DeltaForge, of `pg_recvlogical`, or of the client of the ceiling.
    pub(crate) reader: f64,
    /// Of the sink's server.
    pub(crate) server: f64,
    pub(crate) walsender: f64,
    /// Of the other processes of the bench: PostgreSQL's, and this program.
    pub(crate) rest: f64,
    /// Cores with nothing to do.
    pub(crate) idle: f64,
    pub(crate) peak_rss_mib: f64,
    /// Events of an average batch.
    pub(crate) per_batch: f64,
    /// Cores that others used, the kernel's own threads among them.
    pub(crate) other_load: f64,
}

impl Account {
    pub(crate) fn rate(&self, rows: u64) -> f64 {
        rows as f64 / self.seconds
    }

    /// The median of each figure by itself.
    pub(crate) fn median(runs: &[Account]) -> Account {
        let of = |f: fn(&Account) -> f64| median(runs.iter().map(f).collect());
        Account {
            seconds: of(|a| a.seconds),
            before: of(|a| a.before),
            reader: of(|a| a.reader),
            server: of(|a| a.server),
            walsender: of(|a| a.walsender),
            rest: of(|a| a.rest),
            idle: of(|a| a.idle),
            peak_rss_mib: of(|a| a.peak_rss_mib),
            per_batch: of(|a| a.per_batch),
            other_load: of(|a| a.other_load),
        }
    }

    pub(crate) fn line(&self, rows: u64) -> String {
        let million = |seconds: f64| seconds * 1e6 / rows as f64;
        format!(
            "{:>7.0} rows/s  CPU s per million: reader {:.2}, sink's server {:.2}, walsender {:.2}, rest {:.2}  \
             idle cores {:.2}  {:.2} s after {:.2} s  batches of {:.0}  other load {:.2}",
            self.rate(rows),
            million(self.reader),
            million(self.server),
            million(self.walsender),
            million(self.rest),
            self.idle,
            self.seconds,
            self.before,
            self.per_batch,
            self.other_load
        )
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The machine before a run.
pub(crate) struct Meter<'a> {
    postgres: &'a Postgres,
    server: Option<u32>,
    load: Snapshot,
    of_server: f64,
    begun: Instant,
}

impl<'a> Meter<'a> {
    /// To be made right before the reader starts; `server` is the sink's.
    pub(crate) fn start(postgres: &'a Postgres, server: Option<u32>) -> Meter<'a> {
        until("the walsender before ends", || postgres.walsenders().is_empty());
        let (load, of_server) = (Snapshot::take(), server.map_or(0.0, process::cpu_seconds));
        Meter { postgres, server, load, of_server, begun: Instant::now() }
    }

    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// Waits until PostgreSQL streams to the reader; gives the walsender and the time.
    pub(crate) fn streaming(&self, reader: u32) -> (u32, Instant) {
        let mut walsender = None;
        until("the reader streams", || {
            assert!(!process::has_ended(reader), "the reader runs: write a longer backlog");
            walsender = self.postgres.walsenders().first().copied();
            walsender.is_some()
        });
        (walsender.expect("found above"), Instant::now())
    }

    /// What has been used, at this moment.
    pub(crate) fn end(&self, since: Instant, reader: f64, walsender: f64) -> Account {
        let (now, spent) = (Instant::now(), self.load.since());
        let server = self.server.map_or(0.0, process::cpu_seconds) - self.of_server;
        Account {
            seconds: (now - since).as_secs_f64(),
            before: (since - self.begun).as_secs_f64(),
            reader,
            server,
            walsender,
            rest: (spent.ours - reader - server - walsender).max(0.0),
            idle: spent.idle_cores(),
            other_load: spent.other_load(),
            ..Account::default()
        }
    }

    /// Runs a database's own reader up to its end.
    pub(crate) fn run_to_end(&self, command: &mut Command) -> Account {
        let mut child = command.stdin(Stdio::null()).spawn().expect("the reader starts");
        let pid = child.id();
        let (walsender, since) = self.streaming(pid);
        let (mut of_walsender, mut peak_rss_mib): (f64, f64) = (0.0, 0.0);
        while !process::has_ended(pid) {
            of_walsender = of_walsender.max(process::cpu_seconds(walsender));
            peak_rss_mib = peak_rss_mib.max(process::peak_rss_mib(pid));
            std::thread::sleep(POLL);
        }
        let account = self.end(since, process::cpu_seconds(pid), of_walsender);
        assert!(child.wait().expect("the reader ends").success(), "the reader succeeds: {command:?}");
        Account { peak_rss_mib, ..account }
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "gave up waiting: {what}");
        std::thread::sleep(POLL);
    }
}
