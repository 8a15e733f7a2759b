//! The engine in a simulated world, where everything that may go wrong does, at a time that a seed decides.
//!
//! ```text
//!  plan ── what the seed decides: settings, manners, weather, orders
//!    │
//!  world ─ the log (the truth), the clock (virtual), the facts
//!    ├── source   breaks, stalls, prunes behind what is released ─┐
//!    ├── sinks    fail before or after applying, stall, refuse    ├─► check: the invariants, at the moment of each fact
//!    │   exact    targets that store positions, late and fenced   │
//!    ├── store    late, away, done without saying so, fenced      ─┘
//!    └── drive    crashes, pauses, stops, starts a second engine, watches the status, and judges in the end
//! ```
//!
//! **What a run shows.** The engine is the real one, from `pipeline::start` down. Nothing is asked of it: what it did is
//! noted where it did it. A batch handed to a sink is compared with the log event by event, so a hole, a wrong order, a
//! split transaction, a changed id or a wrong row is seen in the call that brings it. A checkpoint is compared with what
//! the sinks have acknowledged before the store gets it, and the server forgets what is released, so that a release
//! before its time makes a later resume impossible. A target that stores positions takes each event once, in the write that
//! brings it, or the run fails; and the state store is emptied under the engine.
//!
//! **The same seed is the same run.** One thread, a paused clock, no random number that is not the seed's. A part that
//! draws one draws it from a generator of its own, so that a change in one part leaves the others' dice alone.

mod check;
mod drive;
mod engine;
mod exact;
mod log;
mod plan;
mod rng;
mod sink;
mod source;
mod store;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What the sinks of a world promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sinks {
    /// Each event, perhaps again.
    AtLeastOnce,
    /// At least one of them each event once.
    ExactlyOnce,
}

/// What a seed came to.
#[derive(Debug)]
pub struct Outcome {
    /// Which.
    pub seed: u64,
    /// What did not hold; empty when all is well.
    pub violations: Vec<String>,
    /// What happened, a line each; empty unless asked for.
    pub trace: Vec<String>,
    /// The plan, in a line.
    pub plan: String,
    /// Events that the log had.
    pub events: u64,
    /// Events that targets applied, repetitions included.
    pub applied: u64,
    /// Engines started.
    pub starts: usize,
    /// How often what happened.
    pub tally: BTreeMap<&'static str, u64>,
    /// Virtual time that passed.
    pub took: Duration,
}

/// Runs one seed. Call it on a current-thread runtime whose clock is paused.
///
/// # Panics
/// When the memory store cannot be opened.
pub async fn simulate(seed: u64, sinks: Sinks, traces: bool) -> Outcome {
    let plan = match sinks {
        Sinks::AtLeastOnce => plan::Plan::roll(seed),
        Sinks::ExactlyOnce => plan::Plan::roll_exact(seed),
    };
    let world = Arc::new(world::World::new(plan, traces));
    let store = deltaforge_state::open("memory:").expect("a store in memory opens");
    drive::Driver::new(world.clone(), store).run().await;
    let mut facts = world.facts();
    Outcome {
        seed,
        violations: std::mem::take(&mut facts.violations),
        trace: std::mem::take(&mut facts.trace),
        plan: format!("{:?}", world.plan),
        events: world.log.len(),
        applied: facts.targets.iter().map(|t| t.applied).sum(),
        starts: facts.runs.len(),
        tally: std::mem::take(&mut facts.tally),
        took: world.now(),
    }
}
