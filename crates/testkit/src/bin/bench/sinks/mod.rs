//! A backlog of PostgreSQL into each sink, at least once and exactly once, beside `pg_recvlogical` and beside the sink's own ceiling:
//! a client that sends what DeltaForge sent, made beforehand.
//!
//! A run counts from the moment PostgreSQL streams until every event is acknowledged by the target; then the target is asked whether
//! it holds each event once, as its consumers see it. Beside the rate stands who took the cores: the reader, the sink's
//! server, the walsender and the rest of the bench, in CPU seconds per million events, others and idleness, in cores.
//!
//! A sink is one [`Target`].

mod account;
mod kafka;
mod nats;
mod redis;

use crate::pg::{load, readers, server};
use crate::running::Running;
use crate::{Options, Shape, process};
use account::{Account, Meter};
use deltaforge_testkit::servers::{PgVersion, Postgres};
use kafka::IntoKafka;
use nats::IntoNats;
use redis::IntoRedis;
use std::path::Path;
use std::rc::Rc;

/// What is for throughput.
const LARGE_BATCHES: &str = "{max_events: 10000, max_bytes: 8MiB, max_inflight: 4}";
const DEFAULT_BATCHES: &str = "{}";
/// How many records the ceiling's client sends again and again. Far more than a compressor looks back.
const SAMPLE: usize = 10_000;

/// A sink with its server.
pub(crate) trait Target {
    /// Letters and digits: a part of the names of slots and topics.
    fn name(&self) -> String;
    fn title(&self) -> String;
    /// How the server is set up.
    fn about(&self) -> String;
    /// The server's process.
    fn pid(&self) -> u32;
    /// Makes an empty place for a run.
    fn prepare(&self, run: &str);
    /// The sink of a run, as YAML in flow style. Its id is the run's name: nothing is left of the runs before.
    fn sink(&self, run: &str, exactly_once: bool) -> String;
    /// How many events a consumer finds.
    fn held(&self, run: &str) -> u64;
    /// Takes a run's place away.
    fn clear(&self, run: &str);
    /// Keeps what a run left, for [`filler`](Target::filler).
    fn sample(&mut self, run: &str);
    /// What sends so many prebuilt records, in batches where the sink has such, and returns when all are acknowledged.
    fn filler(&self, run: &str, rows: u64, per_batch: u64) -> Box<dyn FnOnce() + '_>;
}

/// What is measured at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Ceiling,
    AtLeastOnce,
    ExactlyOnce,
}

const MODES: [Mode; 3] = [Mode::Ceiling, Mode::AtLeastOnce, Mode::ExactlyOnce];

impl Mode {
    fn title(self) -> &'static str {
        match self {
            Mode::Ceiling => "its ceiling",
            Mode::AtLeastOnce => "at least once",
            Mode::ExactlyOnce => "exactly once",
        }
    }
}

struct Own {
    into: Vec<String>,
    partitions: Vec<i32>,
    batches: Vec<String>,
    version: PgVersion,
}

fn own(options: &Options) -> Own {
    let mut own = Own {
        into: ["redis", "kafka", "nats"].map(Into::into).to_vec(),
        partitions: vec![1],
        batches: Vec::new(),
        version: PgVersion::V15,
    };
    let mut with_default = true;
    let mut rest = options.rest.iter().map(String::as_str);
    while let Some(arg) = rest.next() {
        let mut value = || rest.next().expect("a value follows");
        match arg {
            "--into" => own.into = value().split(',').map(Into::into).collect(),
            "--partitions" => {
                own.partitions = value().split(',').map(|n| n.parse().expect("a number")).collect();
            }
            "--batch" => own.batches.push(value().into()),
            "--skip-default-batch" => with_default = false,
            "--pg" if value() == "18" => own.version = PgVersion::V18,
            "--pg" => {}
            other => panic!("unknown argument {other}; see the head of this program's source"),
        }
    }
    if own.batches.is_empty() {
        own.batches.push(LARGE_BATCHES.into());
    }
    if with_default {
        own.batches.push(DEFAULT_BATCHES.into());
    }
    own
}

fn targets(own: &Own) -> Vec<Box<dyn Target>> {
    let mut targets: Vec<Box<dyn Target>> = Vec::new();
    for into in &own.into {
        match into.as_str() {
            "redis" => targets.push(Box::new(IntoRedis::start())),
            "kafka" => {
                let broker = Rc::new(kafka::broker());
                let with = |n: &i32| Box::new(IntoKafka::new(broker.clone(), *n)) as Box<dyn Target>;
                targets.extend(own.partitions.iter().map(with));
            }
            "nats" => targets.push(Box::new(IntoNats::start())),
            other => panic!("unknown sink `{other}`: redis, kafka or nats"),
        }
    }
    targets
}

pub(crate) fn run(options: &Options, binary: &Path) {
    let own = own(options);
    let mut targets = targets(&own);
    let shape = options.shapes[0];
    let slots = own.batches.len() * (options.reps * (1 + 2 * targets.len()) + 2 * targets.len());
    let postgres = server(own.version, "off", &(slots + 1).to_string());
    println!("PostgreSQL: {:?}", own.version);
    targets.iter().for_each(|target| println!("{}: {}", target.title(), target.about()));
    load::prepare(&postgres);
    for number in 0..own.batches.len() {
        make_slots(&postgres, number, options.reps, &targets);
    }
    println!("\n{} ({} changes: 50 % inserts, 40 % updates, 10 % deletes)", shape.title(), options.rows);
    load::write(&postgres, shape, options.rows);
    let end = load::end(&postgres);
    for (number, batch) in own.batches.iter().enumerate() {
        let bench = Bench { postgres: &postgres, binary, batch, number, rows: options.rows, end: &end };
        bench.section(shape, options.reps, &mut targets);
    }
}

/// One for each run of DeltaForge and of `pg_recvlogical`, before the backlog is written.
fn make_slots(postgres: &Postgres, section: usize, reps: usize, targets: &[Box<dyn Target>]) {
    let make = |name: &str| load::make_slot(postgres, name);
    for target in targets {
        warm_ups(section, target.as_ref()).iter().for_each(|(_, name)| make(name));
    }
    for rep in 0..reps {
        make(&of_recvlogical(section, rep));
        for target in targets {
            make(&name(section, target.as_ref(), Mode::AtLeastOnce, rep));
            make(&name(section, target.as_ref(), Mode::ExactlyOnce, rep));
        }
    }
}

/// A run's name, which is also its slot's, its sink's and its topic's.
fn name(section: usize, target: &dyn Target, mode: Mode, rep: usize) -> String {
    let mode = match mode {
        Mode::Ceiling => "ceiling",
        Mode::AtLeastOnce => "least",
        Mode::ExactlyOnce => "exact",
    };
    format!("s{section}_{}_{mode}_{rep}", target.name())
}

/// Both ways, as a broker's transactions are code of their own.
fn warm_ups(section: usize, target: &dyn Target) -> [(bool, String); 2] {
    let name = |mode| format!("s{section}_{}_warm_{mode}", target.name());
    [(true, name("exact")), (false, name("least"))]
}

fn of_recvlogical(section: usize, rep: usize) -> String {
    format!("s{section}_recv_{rep}")
}

/// The runs with one setting of batches.
struct Bench<'a> {
    postgres: &'a Postgres,
    binary: &'a Path,
    batch: &'a str,
    number: usize,
    rows: u64,
    /// The end of the backlog.
    end: &'a str,
}

/// A line of the table.
struct Row {
    title: String,
    target: Option<usize>,
    mode: Mode,
    runs: Vec<Account>,
}

impl Bench<'_> {
    fn section(&self, shape: Shape, reps: usize, targets: &mut [Box<dyn Target>]) {
        println!("\n## batch: {}, {}", self.batch, shape.title());
        let mut per_batch = Vec::new();
        for target in targets.iter_mut() {
            let mut account = Account::default();
            // At least once last: what it leaves is the sample.
            for (exactly_once, name) in warm_ups(self.number, target.as_ref()) {
                target.prepare(&name);
                account = self.deltaforge(target.as_ref(), &name, exactly_once);
                println!("  to warm up: {:<34} {}", target.title(), account.line(self.rows));
                if !exactly_once {
                    target.sample(&name);
                }
                target.clear(&name);
            }
            per_batch.push((account.per_batch.round() as u64).clamp(1, self.rows));
        }
        let mut rows = self.rows(targets);
        for rep in 0..reps {
            // Turned round every other time: whoever comes first has no advantage of it.
            let order: Vec<usize> =
                if rep % 2 == 0 { (0..rows.len()).collect() } else { (0..rows.len()).rev().collect() };
            for at in order {
                let row = &mut rows[at];
                let account = match row.target {
                    None => self.recvlogical(rep),
                    Some(target) => self.into(targets[target].as_ref(), row.mode, rep, per_batch[target]),
                };
                println!("  run {rep} {:<36} {}", row.title, account.line(self.rows));
                row.runs.push(account);
            }
        }
        self.print(&rows, targets);
    }

    fn rows(&self, targets: &[Box<dyn Target>]) -> Vec<Row> {
        let row = |title: String, target, mode| Row { title, target, mode, runs: Vec::new() };
        let mut rows = vec![row("pg_recvlogical to a null file".into(), None, Mode::Ceiling)];
        for (at, target) in targets.iter().enumerate() {
            rows.extend(
                MODES.map(|mode| row(format!("{}, {}", target.title(), mode.title()), Some(at), mode)),
            );
        }
        rows
    }

    fn recvlogical(&self, rep: usize) -> Account {
        let meter = Meter::start(self.postgres, None);
        let slot = of_recvlogical(self.number, rep);
        meter.run_to_end(&mut readers::recvlogical(self.postgres, &slot, self.end))
    }

    fn into(&self, target: &dyn Target, mode: Mode, rep: usize, per_batch: u64) -> Account {
        let name = name(self.number, target, mode, rep);
        target.prepare(&name);
        let account = match mode {
            Mode::Ceiling => self.ceiling(target, &name, per_batch),
            Mode::AtLeastOnce => self.deltaforge(target, &name, false),
            Mode::ExactlyOnce => self.deltaforge(target, &name, true),
        };
        assert_eq!(target.held(&name), self.rows, "{name}: a consumer finds every event once");
        target.clear(&name);
        account
    }

    fn ceiling(&self, target: &dyn Target, run: &str, per_batch: u64) -> Account {
        let fill = target.filler(run, self.rows, per_batch);
        let this = std::process::id();
        let meter = Meter::start(self.postgres, Some(target.pid()));
        let before = process::cpu_seconds(this);
        fill();
        let account = meter.end(meter.begun(), process::cpu_seconds(this) - before, 0.0);
        Account { per_batch: per_batch as f64, ..account }
    }

    fn deltaforge(&self, target: &dyn Target, run: &str, exactly_once: bool) -> Account {
        let (source, sink) = (readers::source(self.postgres, run), target.sink(run, exactly_once));
        let meter = Meter::start(self.postgres, Some(target.pid()));
        let running = Running::start_with(self.binary, run, &source, &sink, self.batch);
        let (walsender, since) = meter.streaming(running.child.id());
        let usage = running.deliver(self.rows, since);
        let account = meter.end(since, usage.cpu_seconds, process::cpu_seconds(walsender));
        let metric = |part: &str| running.metric(&format!("deltaforge_batch_events_{part}"));
        Account { peak_rss_mib: usage.peak_rss_mib, per_batch: metric("sum") / metric("count"), ..account }
    }

    fn print(&self, rows: &[Row], targets: &[Box<dyn Target>]) {
        let medians: Vec<Account> = rows.iter().map(|row| Account::median(&row.runs)).collect();
        let ceiling = |target: usize| {
            let at = rows.iter().position(|row| row.target == Some(target) && row.mode == Mode::Ceiling);
            medians[at.unwrap_or(0)].rate(self.rows)
        };
        let columns = [
            "rows/s",
            "of pg_recvlogical",
            "of its ceiling",
            "CPU s per million: reader",
            "sink's server",
            "walsender",
            "rest",
            "other load",
            "idle cores",
            "events a batch",
            "peak RSS MiB",
        ];
        println!("\n| batch: {} | {} |", self.batch, columns.join(" | "));
        println!("|---{}|", "|---".repeat(columns.len()));
        for (row, account) in rows.iter().zip(&medians) {
            let rate = account.rate(self.rows);
            let million = |seconds: f64| seconds * 1e6 / self.rows as f64;
            println!(
                "| {} | {rate:.0} | {:.2} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {} | {} |",
                row.title,
                rate / medians[0].rate(self.rows),
                shown(row.target.map_or(0.0, |target| rate / ceiling(target)), 2),
                million(account.reader),
                million(account.server),
                million(account.walsender),
                million(account.rest),
                account.other_load,
                account.idle,
                shown(account.per_batch, 0),
                shown(account.peak_rss_mib, 1),
            );
        }
        println!();
        for (at, target) in targets.iter().enumerate() {
            let runs = |mode| rows.iter().find(|row| row.target == Some(at) && row.mode == mode);
            let Some((least, exact)) = runs(Mode::AtLeastOnce).zip(runs(Mode::ExactlyOnce)) else { continue };
            let costs =
                least.runs.iter().zip(&exact.runs).map(|(l, e)| 100.0 * (1.0 - l.seconds / e.seconds));
            let cost = account::median(costs.collect());
            println!("{}: exactly once costs {cost:.1} % of the rate (median of the pairs)", target.title());
        }
    }
}

/// A figure that not every line has.
fn shown(figure: f64, digits: usize) -> String {
    if figure > 0.0 { format!("{figure:.digits$}") } else { "–".into() }
}
