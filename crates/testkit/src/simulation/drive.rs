//! Drives one simulated world: starts engines, carries orders out, watches, and in the end holds the engine to its promises.

use super::engine::Engine;
use super::exact::FENCED;
use super::plan::Order;
use super::rng::Rng;
use super::sink::POISON;
use super::source::{BUSY, LOOP_BROKE_DOWN, PRUNED, SOURCE_ID};
use super::world::{Facts, Stored, World};
use deltaforge_core::checkpoint::StateStore;
use deltaforge_engine::status::{State, Status};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How often the world is looked at.
const STEP: Duration = Duration::from_millis(100);
/// Everything must be delivered and saved so long after the last fault.
const DRAINED_WITHIN: Duration = Duration::from_secs(150);
/// All troubles must be gone so long after that.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long a stop may take: faults go on meanwhile, and cease by themselves.
const STOP_LIMIT: Duration = Duration::from_secs(1200);
/// Nothing moves for so long: the status must say why.
const HONEST_WITHIN: Duration = Duration::from_secs(5);
/// What makes an engine fail must have made it fail by then.
const FAILS_WITHIN: Duration = Duration::from_secs(12);
/// The engine's word for a state that is gone and cannot be done without.
const STATE_LOST: &str = "state.checkpoint_lost";
/// The engine's word for a target that somebody else writes to.
const POSITION_MOVED: &str = "sink.position_moved";
/// A pause is carried out within this.
const PAUSED_WITHIN: Duration = Duration::from_secs(3);

/// The one who drives.
pub(super) struct Driver {
    world: Arc<World>,
    store: Arc<dyn StateStore>,
    rng: Rng,
    /// The newest is last.
    engines: Vec<Engine>,
    orders: VecDeque<(Duration, Order)>,
    restart_at: Option<Duration>,
    pause: Option<Pause>,
    /// The store as it was before it was lost, and what was true of it.
    backup: Option<(Arc<dyn StateStore>, Stored)>,
    must_bring_back: bool,
    stopping_since: Option<Duration>,
    /// The source has told its end, and the engine has stopped of itself.
    finished: bool,
}

/// A pause that is under way.
struct Pause {
    begun: Duration,
    until: Duration,
    /// Calls of the source once the status said paused.
    fills: Option<u64>,
}

impl Driver {
    pub(super) fn new(world: Arc<World>, store: Arc<dyn StateStore>) -> Driver {
        Driver {
            rng: Rng::of(world.plan.seed, "drive", 0),
            orders: world.plan.orders.iter().copied().collect(),
            world,
            store,
            engines: Vec::new(),
            backup: None,
            must_bring_back: false,
            stopping_since: None,
            restart_at: None,
            pause: None,
            finished: false,
        }
    }

    /// From the first start to the last stop, or to the first violation.
    pub(super) async fn run(&mut self) {
        self.start().await;
        let deadline = self.world.plan.calm_at + DRAINED_WITHIN;
        while !self.world.is_broken() {
            tokio::time::sleep(STEP).await;
            self.observe();
            self.start_again().await;
            self.watch_pause().await;
            while let Some(order) = self.due_order() {
                self.carry_out(order).await;
            }
            if self.world.is_calm() && self.orders.is_empty() && self.undone().is_none() {
                return self.finish().await;
            }
            if self.world.now() > deadline {
                let undone = self.undone().unwrap_or_default();
                self.world.violated(format!("long after the last fault: {undone}; {:?}", self.condition()));
            }
        }
    }

    fn condition(&self) -> Option<Status> {
        self.engines.last().map(Engine::status)
    }

    async fn start(&mut self) {
        self.restart_at = None;
        if std::mem::take(&mut self.must_bring_back) {
            self.bring_state_back().await;
        }
        // One that is paused for ever would never learn that it was replaced.
        if let (Some(_), Some(engine)) = (self.pause.take(), self.engines.last()) {
            engine.resume().await;
        }
        self.engines.push(Engine::start(&self.world, &self.store));
    }

    async fn start_again(&mut self) {
        if self.restart_at.is_some_and(|at| at <= self.world.now()) {
            self.start().await;
        }
    }

    fn due_order(&mut self) -> Option<Order> {
        let is_due = self.orders.front().is_some_and(|(at, _)| *at <= self.world.now());
        if is_due { self.orders.pop_front().map(|(_, order)| order) } else { None }
    }

    async fn carry_out(&mut self, order: Order) {
        if self.finished || self.world.is_broken() {
            return;
        }
        self.world.trace(|| format!("ORDER {order:?}"));
        self.world.count(match order {
            Order::Crash(_) => "crashes",
            Order::Pause(_) => "pauses",
            Order::Stop(_) => "stops",
            Order::Second => "second engines",
            Order::Lose(_) => "states lost",
        });
        match order {
            Order::Crash(down) => self.crash(down).await,
            Order::Lose(down) => {
                self.crash(down).await;
                self.lose_state();
            }
            Order::Stop(down) => self.stop(Some(down)).await,
            Order::Second => self.start().await,
            Order::Pause(length) => {
                if let (None, Some(engine)) = (&self.pause, self.engines.last()) {
                    let begun = self.world.now();
                    self.pause = Some(Pause { begun, until: begun + length, fills: None });
                    engine.pause().await;
                }
            }
        }
    }

    /// All engines end in the middle of whatever they were doing.
    async fn crash(&mut self, down: Duration) {
        self.kill(0..self.engines.len()).await;
        // The server may still learn what the dead ones had released.
        if self.rng.chance(500) {
            self.world.prune();
        }
        self.pause = None;
        self.restart_at = Some(self.world.now() + down);
    }

    /// The store is empty from now on. Where no target knows better, nothing is left to go on from, and nothing is shown.
    fn lose_state(&mut self) {
        if self.world.knows_no_position() || self.world.facts().state_is_lost {
            return;
        }
        self.world.trace(|| "the state is LOST".into());
        let empty = deltaforge_state::open("memory:").expect("a store in memory opens");
        let store = std::mem::replace(&mut self.store, empty);
        self.backup = Some((store, self.world.forget_state()));
    }

    /// Somebody brings the state back; nothing runs meanwhile.
    async fn bring_state_back(&mut self) {
        self.kill(0..self.engines.len()).await;
        if let Some((store, stored)) = self.backup.take() {
            self.world.trace(|| "the state is BROUGHT BACK".into());
            self.world.count("states brought back");
            self.store = store;
            self.world.remember_state(stored);
        }
    }

    async fn kill(&mut self, which: std::ops::Range<usize>) {
        let runs: Vec<usize> = self.engines.drain(which).map(|engine| engine.run).collect();
        // Tasks end when they are next looked at.
        tokio::time::sleep(Duration::from_millis(1)).await;
        runs.into_iter().for_each(|run| self.world.facts().runs[run].over = true);
    }

    /// Stops the newest engine and waits for it, looking on.
    async fn stop(&mut self, restart_after: Option<Duration>) {
        self.pause = None;
        let in_trouble = self.condition().is_some_and(|status| status.trouble.is_some());
        self.stopping_since =
            Some(if self.world.plan.exact && in_trouble { Duration::ZERO } else { self.world.now() });
        let last = self.engines.last().map(|engine| (engine.run, engine.metrics.clone()));
        let Some(mut stop) = self.engines.last_mut().and_then(|engine| engine.stop(STOP_LIMIT)) else {
            return;
        };
        let ended = loop {
            tokio::select! {
                biased;
                (status, drained) = &mut stop => break drained.then_some(status),
                () = tokio::time::sleep(STEP) => self.observe(),
            }
            if self.world.is_broken() {
                return;
            }
        };
        let Some(status) = ended else {
            let status = self.condition();
            return self.world.violated(format!("a stop does not end: {status:?}"));
        };
        if let (Some((run, metrics)), State::Stopped, false) =
            (last, status.state, self.world.plan.two_engines)
        {
            let text = metrics.render();
            let ids = self.world.plan.sinks.iter().map(|s| s.id.as_str()).enumerate();
            ids.for_each(|(sink, id)| self.world.check_given_up(run, sink, given_up(&text, id)));
        }
        self.observe();
        if let Some(down) = restart_after
            && !self.finished
        {
            self.restart_at = Some(self.world.now() + down);
        }
    }

    /// One look at everything: what the server forgets, who has ended, who is not honest.
    fn observe(&mut self) {
        if self.rng.chance(400) {
            self.world.prune();
        }
        if self.world.plan.exact && self.pause.is_none() {
            // One that begins again takes the checkpoint over from whoever took it over from it.
            let facts = self.world.facts();
            self.engines.sort_by_key(|engine| {
                let epoch = facts.runs[engine.run].epoch;
                (epoch.is_none(), epoch)
            });
        }
        (0..self.world.plan.sinks.len()).for_each(|sink| self.world.land(sink));
        self.world.check_released();
        let newest = self.engines.len().checked_sub(1);
        let mut ended = Vec::new();
        for (n, engine) in self.engines.iter_mut().enumerate() {
            self.world.check_memory(engine.run);
            if engine.has_ended() {
                ended.push((n, Some(n) == newest));
            } else {
                engine.check_honesty(&self.world, self.pause.is_some() && Some(n) == newest, HONEST_WITHIN);
                // A stop that has drained only closes: what breaks then has nothing left to break.
                if !engine.is_stopping() {
                    check_doom(&self.world, engine);
                }
            }
        }
        for (n, is_newest) in ended.into_iter().rev() {
            let engine = self.engines.remove(n);
            self.bury(&engine, is_newest);
        }
    }

    /// An engine has ended by itself: rightly so?
    fn bury(&mut self, engine: &Engine, is_newest: bool) {
        let status = engine.status();
        let code = status.trouble.as_ref().map_or("", |t| t.code.as_str()).to_string();
        self.world.trace(|| format!("run {} has ended: {:?} {code}", engine.run, status.state));
        let mut facts = self.world.facts();
        facts.runs[engine.run].over = true;
        let doom: Vec<&str> = facts.runs[engine.run].doomed.iter().map(|(_, code)| *code).collect();
        let epoch = facts.runs[engine.run].epoch;
        let was_replaced = facts.runs.iter().any(|other| other.epoch > epoch);
        let given = facts.runs[engine.run].given;
        let taken_over_at = facts.runs[engine.run].taken_over_at;
        facts.cured |= doom.contains(&POISON);
        drop(facts);
        let is_right = match status.state {
            State::Stopped => {
                // One that is about to begin again, or would have to while it drains, leaves that to the next start. And so does
                // one that still reads what its targets hold behind their positions.
                let begins =
                    self.stopping_since.is_some_and(|since| taken_over_at.is_some_and(|at| at >= since));
                if begins || self.world.holds_inside() {
                    self.world.count("stops that left the rest to the next start");
                } else {
                    self.check_stopped(given);
                }
                self.finished = self.world.plan.source.ends && !engine.is_stopping();
                engine.is_stopping() || self.finished
            }
            State::Failed => match code.as_str() {
                STATE_LOST => self.world.needs_the_state(engine.run),
                FENCED | POSITION_MOVED => self.world.lost_a_target(engine.run),
                "state.fenced" => was_replaced,
                code => doom.contains(&code),
            },
            // The loop itself broke down: the supervisor reads that from the closed channel.
            State::Running | State::Paused => doom.contains(&LOOP_BROKE_DOWN),
        };
        self.world.count(match (status.state, code.as_str()) {
            (State::Stopped, _) => "ended: stopped",
            (State::Failed, POISON) => "ended: an event refused",
            (State::Failed, "state.fenced") => "ended: fenced",
            (State::Failed, FENCED | POSITION_MOVED) => "ended: fenced at a target",
            (State::Failed, STATE_LOST) => "ended: the state is lost",
            (State::Failed, _) => "ended: failed otherwise",
            (State::Running | State::Paused, _) => "ended: broke down",
        });
        if !is_right {
            self.world.violated(format!("run {} ended with {status:?}", engine.run));
        }
        let was_lost = self.world.facts().state_was_lost;
        self.must_bring_back |= is_right && was_lost && [STATE_LOST, PRUNED].contains(&code.as_str());
        // Whoever is fenced gave way to one that goes on.
        let goes_on = code == "state.fenced" && !self.engines.is_empty();
        if is_newest && !self.finished && !engine.is_stopping() && !goes_on {
            self.pause = None;
            self.restart_at = Some(self.world.now() + self.rng.millis(1, 3000));
        }
    }

    /// A stopped engine has saved all transactions that it was given. An idle place in front of one that broke off may be missing.
    fn check_stopped(&self, given: Option<u64>) {
        let saved = self.world.facts().saved_index;
        let given = given.and_then(|lsn| self.world.log.bound(lsn)).unwrap_or(0);
        if saved < given && !self.world.plan.two_engines {
            self.world.violated(format!("stopped with event {saved} saved, it was given {given}"));
        }
    }

    async fn watch_pause(&mut self) {
        let (Some(pause), Some(engine)) = (&mut self.pause, self.engines.last()) else { return };
        let (now, status) = (self.world.now(), engine.status());
        let (fills, owns, doomed) = {
            let run = &self.world.facts().runs[engine.run];
            (run.fills, run.epoch.is_some(), !run.doomed.is_empty())
        };
        if status.state == State::Paused && pause.fills.is_none() {
            pause.fills = Some(fills);
        }
        if pause.fills.is_some_and(|before| before != fills) {
            self.world.violated(format!("run {} reads although it is paused", engine.run));
        }
        if pause.fills.is_none() && owns && !doomed && now > pause.begun + PAUSED_WITHIN {
            self.world.violated(format!("run {} was to pause and says {status:?}", engine.run));
        }
        if now >= pause.until {
            self.pause = None;
            self.world.trace(|| "RESUME".into());
            engine.resume().await;
        }
    }

    /// What is not yet as it must be in the end.
    fn undone(&self) -> Option<String> {
        let world = &self.world;
        // One that was replaced learns of it when it wants to save. It may have nothing more to save, or wait for its turn to
        // read, and say so.
        let given = |e: &Engine| world.facts().runs[e.run].given;
        let has_all = |e: &Engine| given(e) == Some(world.log.last_lsn());
        let waits = |e: &&Engine| has_all(e) || e.status().trouble.is_some_and(|t| t.code == BUSY);
        let waiting = self.engines.iter().rev().skip(1).filter(waits).count();
        let is_quiet = self.restart_at.is_none() && self.pause.is_none();
        if !self.finished && (self.engines.len() != 1 + waiting || !is_quiet) {
            return Some(format!("{} engines are running", self.engines.len()));
        }
        let facts = world.facts();
        let Facts { settled, saved, .. } = *facts;
        if world.plan.counts_acknowledgements() && settled < world.log.len() {
            return Some(format!("events are acknowledged up to {settled} of {}", world.log.len()));
        }
        let last = world.log.last_lsn();
        if saved != Some((last, 0)) {
            return Some(format!("{saved:?} is saved, the log ends at {last}"));
        }
        let released = facts
            .runs
            .iter()
            .filter_map(|r| r.released.as_ref()?.get())
            .filter_map(|p| super::log::lsn(&p))
            .max();
        (released != Some(last)).then(|| format!("{released:?} is released, {last} is saved"))
    }

    /// All is delivered: the status must become good, a stop must stop, and the targets must hold what the source holds.
    async fn finish(&mut self) {
        self.kill(0..self.engines.len().saturating_sub(1)).await;
        let limit = self.world.now() + READY_WITHIN;
        while !self.finished && !self.engines.last().is_some_and(|engine| engine.status().is_ready()) {
            tokio::time::sleep(STEP).await;
            self.observe();
            if self.world.now() > limit {
                return self.world.violated(format!(
                    "nothing is wrong any more, and the status is {:?}",
                    self.condition()
                ));
            }
        }
        self.stop(None).await;
        for sink in 0..self.world.plan.sinks.len() {
            self.world.check_target(sink);
        }
        let stored = self.store.load(SOURCE_ID).await;
        if !stored
            .is_ok_and(|c| c.is_some_and(|c| super::log::lsn(&c.position) == Some(self.world.log.last_lsn())))
        {
            self.world.violated("the store does not hold the last place");
        }
    }
}

/// What broke an engine must end it soon.
fn check_doom(world: &World, engine: &Engine) {
    let doomed = world.facts().runs[engine.run].doomed.first().copied();
    if let Some((at, code)) = doomed
        && world.now() > at + FAILS_WITHIN
    {
        let status = engine.status();
        world.violated(format!(
            "run {} met {code} at {:.3} s and says {status:?}",
            engine.run,
            at.as_secs_f64()
        ));
    }
}

/// The events that the engine counts as given up for a sink.
fn given_up(metrics: &str, sink: &str) -> u64 {
    let label = format!("component=\"{sink}\"");
    let of_sink = |line: &&str| line.starts_with("deltaforge_dropped_events_total{") && line.contains(&label);
    metrics
        .lines()
        .filter(of_sink)
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as u64
}
