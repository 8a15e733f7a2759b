//! Exactly once, end to end: killed at any moment, half of the times between the sink's commit and the local save, and each
//! consumer, reading as its ecosystem does, finds every change of the source once and in the source's order.
//!
//! What arrived is compared event by event with what the server's own `test_decoding` saw, and folds to the tables. A
//! transaction above the batch limits is among the load, so that its parts are under way when the process dies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "in a test, a panic with a clear message is how a failure is reported, and what was measured is printed"
)]

mod kafka;
mod nats;
mod redis;
#[path = "../support/mod.rs"]
mod support;
mod two;

use deltaforge_core::failpoint::ACKNOWLEDGED;
use deltaforge_testkit::ledger::Ledger;
use deltaforge_testkit::servers::PgVersion;
use std::time::{Duration, Instant};
use support::load::Load;
use support::random::Random;
use support::session::Session;
use support::streams::wait_drained;
use support::{Engine, Home, deltaforge, lifetime, pipeline, source};

const SOURCE: &str = "p-postgres";
const DRAIN: Duration = Duration::from_secs(180);
/// Rows of a transaction that goes to the sink in many parts.
const BIG_ROWS: u64 = 20_000;

/// Where events go to, and how a consumer reads them back.
trait Target: Sync {
    /// For messages.
    fn name(&self) -> &'static str;
    /// The sink, in a line of YAML.
    fn sink(&self) -> String;
    /// Gives a ledger everything that a consumer gets, in order.
    fn feed(&self, ledger: &mut Ledger);
    /// Does something that a server or a network may do to a client at any time.
    fn disturb(&self, random: &mut Random);
    /// Ends what `disturb` has begun.
    fn calm(&self) {}
}

/// Kills the process again and again. With `forgets` the state folder is emptied between the runs, now and then.
fn killed(target: &dyn Target, kills: u32, forgets: bool) {
    let begun = Instant::now();
    let seed = Random::seed();
    let random = &mut Random::new(seed);
    let postgres = Load::server(PgVersion::V15, &[]);
    let mut load = Load::prepare(&postgres);
    load.create_tables(&postgres);
    let tables = source(&postgres.dsn(&load.database), "['public.%', '!public.ignored']");
    let home = Home::new(&[("pipeline.yaml", &pipeline("p", &tables, &[&target.sink()]))]);
    load.start(&postgres, seed, 3);
    let mut big = Session::open(&postgres, &load.database);
    let (mut at_failpoint, mut forgotten) = (0, 0);
    for round in 0..kills {
        if round == kills / 3 {
            big.send(&Load::big_transaction(BIG_ROWS, 1));
        }
        if round == kills / 2 {
            // Its end is under way from here on: it goes in many parts, while the process dies again and again.
            big.answer();
        }
        let dies_at = (round % 2 == 1).then(|| 1 + random.below(12));
        let engine = spawn(&home, dies_at);
        if random.one_in(3) {
            std::thread::sleep(lifetime(random) / 2);
            target.disturb(random);
        }
        match dies_at {
            Some(_) => {
                target.calm();
                // The load goes on, so a batch comes by, and another.
                engine.wait_exit();
                at_failpoint += 1;
            }
            None => std::thread::sleep(lifetime(random)),
        }
        engine.kill();
        target.calm();
        if forgets && random.one_in(2) {
            forgotten += u32::from(std::fs::remove_dir_all(home.path("state")).is_ok());
        }
    }
    let transactions = load.stop();
    let engine = home.start();
    wait_drained(&engine, &home, SOURCE, &postgres, DRAIN);
    engine.stop();
    println!(
        "{}: seed {seed}, {kills} kills, {at_failpoint} of them between commit and save, state forgotten {forgotten} times, \
         {transactions} transactions tried, {:.0} s",
        target.name(),
        begun.elapsed().as_secs_f64()
    );
    let summary = load.check(&postgres, target.name(), |ledger| target.feed(ledger));
    assert_eq!((summary.replays, summary.entries), (0, summary.events), "{}: doubled", target.name());
    assert!(at_failpoint >= kills / 2, "{at_failpoint}");
    assert_eq!(forgets, forgotten > 0, "the state was forgotten {forgotten} times");
}

fn spawn(home: &Home, dies_at: Option<u64>) -> Engine {
    let mut command = deltaforge();
    if let Some(n) = dies_at {
        command.env("DELTAFORGE_FAILPOINT", format!("{ACKNOWLEDGED}:{n}"));
    }
    home.spawn_by(command, &[])
}
