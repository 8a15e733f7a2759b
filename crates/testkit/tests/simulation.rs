//! The engine under seeds: `SEED=n` repeats one and prints its trace, `SEEDS=n` runs so many, `FIRST=n` begins there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use deltaforge_testkit::simulation::{Outcome, Sinks, simulate};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Seeds of a usual run.
const SEEDS: u64 = 500;
/// A seed that takes longer turns in a circle without letting virtual time pass.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// The last lines of a failed seed's trace.
const TRACE_SHOWN: usize = 60;

/// Seeds of a usual run with sinks that store positions.
const SEEDS_EXACT: u64 = 500;

/// What the seeds are for.
const MUST_HAPPEN: [&str; 22] = [
    "batches applied without an acknowledgement",
    "batches that end inside a transaction",
    "crashes",
    "deliveries refused",
    "ended: an event refused",
    "ended: broke down",
    "ended: failed otherwise",
    "ended: fenced",
    "ended: stopped",
    "events refused",
    "pauses",
    "receipts failed",
    "resumes",
    "resumes inside a transaction",
    "second engines",
    "sink stalls",
    "sinks passed over",
    "source breaks",
    "source breaks inside a transaction",
    "stops",
    "store calls done without an answer",
    "store faults",
];

/// What the seeds of exactly-once sinks are for.
const MUST_HAPPEN_EXACT: [&str; 21] = [
    "batches that end inside a transaction",
    "crashes",
    "deliveries fenced",
    "ended: fenced",
    "ended: fenced at a target",
    "ended: stopped",
    "ended: the state is lost",
    "late writes refused",
    "pauses",
    "receipts failed",
    "second engines",
    "source breaks inside a transaction",
    "starts behind the checkpoint",
    "starts without the state",
    "states brought back",
    "states lost",
    "stops",
    "take-overs that cancelled",
    "take-overs that waited",
    "writes that landed late",
    "writes without an answer",
];

/// The seed that is running, and how many have begun.
static RUNNING: AtomicU64 = AtomicU64::new(0);
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Past the test harness, which shows a passing test's output to nobody.
fn say(line: &str) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number")))
}

fn run(seed: u64, sinks: Sinks, traces: bool) -> Outcome {
    RUNNING.store(seed, Relaxed);
    BEGUN.fetch_add(1, Relaxed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(simulate(seed, sinks, traces))
}

/// Ends the process when a seed does not end: its thread cannot be asked to.
fn watch() {
    std::thread::spawn(|| {
        let mut seen = (0, Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let begun = BEGUN.load(Relaxed);
            if begun != seen.0 {
                seen = (begun, Instant::now());
            } else if seen.1.elapsed() > STUCK_AFTER {
                say(&format!("seed {} does not end: virtual time stands still", RUNNING.load(Relaxed)));
                say(&command(RUNNING.load(Relaxed)));
                std::process::exit(1);
            }
        }
    });
}

fn command(seed: u64) -> String {
    format!("repeat it with: SEED={seed} cargo test -p deltaforge-testkit --test simulation NAME_OF_THE_TEST")
}

/// Simulated break-downs are no news.
fn silence_simulated_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<&str>();
        if !text.is_some_and(|text| text.starts_with("simulated:")) {
            usual(panic);
        }
    }));
}

fn report(outcome: &Outcome, lines: usize) {
    say(&format!("seed {}: {}", outcome.seed, outcome.plan));
    let from = outcome.trace.len().saturating_sub(lines);
    outcome.trace[from..].iter().for_each(|line| say(line));
    for violation in &outcome.violations {
        say(&format!("seed {} FAILED {violation}", outcome.seed));
    }
    let Outcome { events, applied, starts, took, .. } = outcome;
    say(&format!(
        "{events} events, {applied} applied, {starts} starts, {:.1} virtual seconds",
        took.as_secs_f64()
    ));
}

#[test]
fn seeds() {
    run_seeds(Sinks::AtLeastOnce, SEEDS, &MUST_HAPPEN);
}

#[test]
fn seeds_of_exactly_once() {
    run_seeds(Sinks::ExactlyOnce, SEEDS_EXACT, &MUST_HAPPEN_EXACT);
}

fn run_seeds(sinks: Sinks, usually: u64, must_happen: &[&str]) {
    silence_simulated_panics();
    watch();
    if let Some(seed) = number("SEED") {
        let outcome = run(seed, sinks, true);
        report(&outcome, usize::MAX);
        assert!(outcome.violations.is_empty(), "seed {seed} fails");
        return;
    }
    let (begun, mut events, mut applied, mut took) = (Instant::now(), 0, 0, Duration::ZERO);
    let mut tally = BTreeMap::<&str, u64>::new();
    let seeds = number("SEEDS").unwrap_or(usually);
    let first = number("FIRST").unwrap_or(1);
    for seed in first..first + seeds {
        let outcome = run(seed, sinks, false);
        if !outcome.violations.is_empty() {
            let again = run(seed, sinks, true);
            report(&again, TRACE_SHOWN);
            if again.violations.is_empty() {
                say("the seed passes when it is repeated: something in the engine is not the seed's");
                report(&outcome, 0);
            }
            panic!("{}", command(seed));
        }
        outcome.tally.iter().for_each(|(what, times)| *tally.entry(*what).or_default() += times);
        (events, applied, took) = (events + outcome.events, applied + outcome.applied, took + outcome.took);
    }
    let (virtually, really) = (took.as_secs(), begun.elapsed().as_secs_f64());
    tally.iter().for_each(|(what, times)| say(&format!("{times:>9} {what}")));
    if seeds >= usually {
        let never: Vec<_> = must_happen.iter().filter(|what| !tally.contains_key(*what)).collect();
        assert!(never.is_empty(), "a simulation in which this never happens shows nothing of it: {never:?}");
    }
    say(&format!(
        "{seeds} seeds: {events} events, {applied} applied, {virtually} virtual seconds in {really:.1} s"
    ));
}

/// A seed that cannot be repeated is worth nothing.
#[test]
fn the_same_seed_is_the_same_run() {
    silence_simulated_panics();
    for (seed, sinks) in
        [3, 17, 42].into_iter().flat_map(|n| [(n, Sinks::AtLeastOnce), (n, Sinks::ExactlyOnce)])
    {
        let (one, other) = (run(seed, sinks, true), run(seed, sinks, true));
        let parts = one.trace.iter().zip(&other.trace).find(|(a, b)| a != b);
        assert_eq!(parts, None, "seed {seed}");
        assert_eq!(one.trace.len(), other.trace.len(), "seed {seed}");
    }
}
