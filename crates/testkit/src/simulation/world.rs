//! What all parts of a simulated world share: the plan, the log, the clock, and the facts that the checks are made on.
//!
//! The facts are noted by the simulated source, sinks and store as they happen, never asked of the engine: the engine is
//! judged by what it did to them.

use super::exact::ExactTarget;
use super::log::{Log, Tables};
use super::plan::Plan;
use super::rng::Rng;
use deltaforge_core::batch::Batch;
use deltaforge_core::position::{Epoch, Released};
use deltaforge_engine::memory::MemoryBudget;
use deltaforge_engine::spec::BatchSettings;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// Violations that are kept: what follows the first is mostly its consequence.
const VIOLATIONS_KEPT: usize = 5;

/// A simulated world.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) log: Log,
    start: Instant,
    traces: bool,
    facts: Mutex<Facts>,
}

/// What has happened.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) trace: Vec<String>,
    pub(super) violations: Vec<String>,
    /// The server has forgotten everything before this place.
    pub(super) pruned: u64,
    /// Where the first engine began, as number of the first event, once an engine was given anything.
    pub(super) origin: Option<u64>,
    /// Some sink was handed an event: from then on no start may be chosen anew.
    pub(super) handed_over: bool,
    /// Who reads, where only one may, or until when the server takes the last one for alive.
    pub(super) reader: Reader,
    pub(super) runs: Vec<Run>,
    pub(super) targets: Vec<Target>,
    /// By sink: the positions that its target stores, where it does.
    pub(super) exact: Vec<ExactTarget>,
    /// Connections to targets that store positions, so far.
    pub(super) sessions: u64,
    /// The store is empty although it was not before, and nothing has been saved since.
    pub(super) state_is_lost: bool,
    /// It was lost and nobody has brought it back.
    pub(super) state_was_lost: bool,
    /// By event: a bit for each sink that has acknowledged it.
    pub(super) acknowledged: Vec<u8>,
    /// All events before this one are acknowledged as the policy asks.
    pub(super) settled: u64,
    /// What the store holds: a place, and events done after it.
    pub(super) saved: Option<(u64, u64)>,
    /// The same as a number of events.
    pub(super) saved_index: u64,
    /// The number that each shape of each table got.
    pub(super) schema_numbers: BTreeMap<(u8, u8), u64>,
    /// Schemas that the store holds.
    pub(super) stored_schemas: u64,
    pub(super) batches: Vec<Weak<Batch>>,
    /// The farthest place that any engine was given.
    pub(super) read: u64,
    /// The poisoned event was removed at the target.
    pub(super) cured: bool,
    /// How often the things happened that a simulation is for.
    pub(super) tally: BTreeMap<&'static str, u64>,
    pub(super) panics: u64,
}

/// Who reads the log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Reader {
    #[default]
    Nobody,
    Session(u64),
    /// Gone, but the server has not noticed.
    GoneBy(Duration),
}

/// One start of an engine.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) epoch: Option<Epoch>,
    pub(super) batch: BatchSettings,
    pub(super) budget: MemoryBudget,
    pub(super) released: Option<Released>,
    /// The first event it has to deliver; known once it owns the checkpoint, or, the first time, once the source is open.
    pub(super) from: Option<u64>,
    /// It took a checkpoint inside a transaction over.
    pub(super) from_inside: bool,
    /// It took a checkpoint over.
    pub(super) resumed: bool,
    /// End of the last whole transaction or idle place that it was given.
    pub(super) given: Option<u64>,
    /// The event after the last that was handed to any sink.
    pub(super) handed: u64,
    pub(super) rows: u64,
    pub(super) fills: u64,
    pub(super) deliveries: u64,
    pub(super) acknowledgements: u64,
    pub(super) saves: u64,
    /// When it took a target over last.
    pub(super) taken_over_at: Option<Duration>,
    /// The store has not answered it.
    pub(super) awaits_store: bool,
    /// Its source has nothing for it until then.
    pub(super) silent_until: Duration,
    /// Source sessions that broke.
    pub(super) breaks: u64,
    /// Something happened that must end it, and when.
    pub(super) doomed: Vec<(Duration, &'static str)>,
    /// It was ended, or has ended.
    pub(super) over: bool,
    pub(super) lanes: Vec<LaneFacts>,
}

/// What one engine gave one sink.
#[derive(Clone, Debug, Default)]
pub(super) struct LaneFacts {
    pub(super) is_open: bool,
    /// The last event handed over in the present session.
    pub(super) last: Option<u64>,
    /// Number of the last batch handed over in the present session.
    pub(super) last_seq: Option<u64>,
    /// The event after the last acknowledged batch, and that batch's number.
    pub(super) next: Option<u64>,
    pub(super) next_seq: u64,
    /// What the target was seen to hold when the sink was opened last: a place.
    pub(super) recovered: Option<u64>,
    /// By event, from the run's first: acknowledged to this engine.
    pub(super) acknowledged: Vec<bool>,
}

/// What is true of the store.
#[derive(Debug, Default)]
pub(super) struct Stored {
    saved: Option<(u64, u64)>,
    saved_index: u64,
    schema_numbers: BTreeMap<(u8, u8), u64>,
    stored_schemas: u64,
}

/// What a sink's target holds, whoever wrote it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) tables: Tables,
    pub(super) seen: Vec<bool>,
    pub(super) applied: u64,
    /// Deliveries so far, over all sessions.
    pub(super) deliveries: u64,
}

impl World {
    pub(super) fn new(plan: Plan, traces: bool) -> World {
        let log = Log::generate(&plan.log, &mut Rng::of(plan.seed, "log", 0));
        let target =
            Target { tables: log.empty(), seen: vec![false; log.changes.len()], applied: 0, deliveries: 0 };
        let facts = Facts {
            acknowledged: vec![0; log.changes.len()],
            targets: vec![target; plan.sinks.len()],
            exact: vec![ExactTarget::default(); plan.sinks.len()],
            ..Facts::default()
        };
        World { plan, log, start: Instant::now(), traces, facts: Mutex::new(facts) }
    }

    /// The store is lost, with whom it knew as its owner; what was true of it.
    pub(super) fn forget_state(&self) -> Stored {
        let mut facts = self.facts();
        (facts.state_is_lost, facts.state_was_lost) = (true, true);
        facts.runs.iter_mut().for_each(|run| run.epoch = None);
        Stored {
            saved: facts.saved.take(),
            saved_index: std::mem::take(&mut facts.saved_index),
            schema_numbers: std::mem::take(&mut facts.schema_numbers),
            stored_schemas: std::mem::take(&mut facts.stored_schemas),
        }
    }

    /// The store is there again.
    pub(super) fn remember_state(&self, stored: Stored) {
        let mut facts = self.facts();
        (facts.state_is_lost, facts.state_was_lost) = (false, false);
        facts.runs.iter_mut().for_each(|run| run.epoch = None);
        (facts.saved, facts.saved_index) = (stored.saved, stored.saved_index);
        (facts.schema_numbers, facts.stored_schemas) = (stored.schema_numbers, stored.stored_schemas);
    }

    /// Virtual time since the world began.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// A virtual time as tokio counts it.
    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.start + at
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        // A simulated panic may have happened elsewhere; the facts are changed by whole statements only.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line to the trace, if anybody will read it.
    pub(super) fn trace(&self, line: impl FnOnce() -> String) {
        if self.traces {
            let line = format!("[{:>9.3}] {}", self.now().as_secs_f64(), line());
            self.facts().trace.push(line);
        }
    }

    /// Notes that an invariant does not hold.
    pub(super) fn violated(&self, what: impl Into<String>) {
        let what = what.into();
        self.trace(|| format!("VIOLATED {what}"));
        let at = self.now().as_secs_f64();
        let mut facts = self.facts();
        if facts.violations.len() < VIOLATIONS_KEPT {
            facts.violations.push(format!("at {at:.3} s: {what}"));
        }
    }

    /// Counts something that happened.
    pub(super) fn count(&self, what: &'static str) {
        *self.facts().tally.entry(what).or_default() += 1;
    }

    pub(super) fn is_broken(&self) -> bool {
        !self.facts().violations.is_empty()
    }

    pub(super) fn is_calm(&self) -> bool {
        self.now() >= self.plan.calm_at
    }
}
