//! One start of the real engine in a simulated world, and whether its status is honest.

use super::sink::SimSinkPlan;
use super::source::{SOURCE_ID, SimSourcePlan};
use super::store::SimStore;
use super::world::{LaneFacts, Run, World};
use deltaforge_core::checkpoint::StateStore;
use deltaforge_core::metrics::{BuildInfo, Metrics, PipelineAbout};
use deltaforge_core::sink::SinkPlan;
use deltaforge_engine::handle::Handle;
use deltaforge_engine::memory::MemoryBudget;
use deltaforge_engine::pipeline;
use deltaforge_engine::spec::PipelineSpec;
use deltaforge_engine::status::{Phase, State, Status};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

static PHASES: [&str; Phase::ALL.len()] = {
    let mut words = [""; Phase::ALL.len()];
    let mut n = 0;
    while n < words.len() {
        words[n] = Phase::ALL[n].as_str();
        n += 1;
    }
    words
};

/// A running engine.
pub(super) struct Engine {
    pub(super) run: usize,
    pub(super) metrics: Arc<Metrics>,
    handle: Option<Handle>,
    status: watch::Receiver<Status>,
    /// What it had done when it was last seen to do something, and when that was; the same for saves.
    done: (u64, u64),
    done_at: Duration,
    saves: u64,
    saved_at: Duration,
    /// Whom the status blames, and since when.
    blamed: (Option<String>, Duration),
    /// When the status last said that something is wrong.
    said_at: Duration,
    /// When it last held nothing back.
    gave_at: Duration,
}

/// Longest wait for a batch's first event that any plan has, and a little more.
const GIVES_WITHIN: Duration = Duration::from_millis(1500);

/// A connection that was just made again may be called good for so long.
const HOPE: Duration = Duration::from_secs(1);

/// A component that is well again is not blamed any more after this.
const FORGIVEN_WITHIN: Duration = Duration::from_secs(15);

/// A stop that is under way.
pub(super) type Stop = Pin<Box<dyn Future<Output = (Status, bool)>>>;

impl Engine {
    /// Starts the engine on the world's key.
    pub(super) fn start(world: &Arc<World>, store: &Arc<dyn StateStore>) -> Engine {
        let plan = &world.plan;
        let budget = MemoryBudget::new(plan.process_limit);
        let run = world.facts().runs.len();
        let facts = Run {
            epoch: None,
            batch: plan.batch_of(run),
            budget: budget.clone(),
            released: None,
            from: None,
            resumed: false,
            from_inside: false,
            given: None,
            handed: 0,
            rows: 0,
            fills: 0,
            deliveries: 0,
            acknowledgements: 0,
            saves: 0,
            taken_over_at: None,
            awaits_store: false,
            silent_until: Duration::ZERO,
            breaks: 0,
            doomed: Vec::new(),
            over: false,
            lanes: vec![LaneFacts::default(); plan.sinks.len()],
        };
        world.trace(|| format!("START run {run} {:?}", facts.batch));
        world.facts().runs.push(facts);
        let sink = |sink| Arc::new(SimSinkPlan { world: world.clone(), run, sink }) as Arc<dyn SinkPlan>;
        let spec = PipelineSpec {
            dlq: None,
            name: "simulation".into(),
            tenant: String::new(),
            labels: Vec::new(),
            source_type: "simulated".into(),
            source: Arc::new(SimSourcePlan { world: world.clone(), run }),
            sinks: (0..plan.sinks.len()).map(sink).collect(),
            batch: plan.batch_of(run),
            commit_policy: plan.policy,
            memory_limit: plan.memory_limit,
        };
        let metrics = Metrics::new(BuildInfo { version: "", commit: "", target: "" })
            .expect("the metrics are defined once");
        let ids: Vec<&str> = plan.sinks.iter().map(|s| s.id.as_str()).collect();
        let about = PipelineAbout {
            name: &spec.name,
            tenant: "",
            source_type: "simulated",
            source: SOURCE_ID,
            sinks: &ids,
            phases: &PHASES,
        };
        let measured = metrics.pipeline(&about);
        let store = SimStore { world: world.clone(), run, inner: store.clone() };
        let handle = pipeline::start(spec, Arc::new(store), &budget, measured);
        let status = handle.subscribe();
        let now = world.now();
        Engine {
            run,
            metrics: Arc::new(metrics),
            handle: Some(handle),
            status,
            done: (0, 0),
            done_at: now,
            saves: 0,
            saved_at: now,
            blamed: (None, now),
            said_at: now,
            gave_at: now,
        }
    }

    pub(super) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The loop is no more.
    pub(super) fn has_ended(&self) -> bool {
        self.status.has_changed().is_err()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.handle.is_none()
    }

    pub(super) async fn pause(&self) {
        if let Some(handle) = &self.handle {
            handle.pause().await;
        }
    }

    pub(super) async fn resume(&self) {
        if let Some(handle) = &self.handle {
            handle.resume().await;
        }
    }

    /// Begins to stop it.
    pub(super) fn stop(&mut self, limit: Duration) -> Option<Stop> {
        let handle = self.handle.take()?;
        Some(Box::pin(handle.stop(limit)))
    }

    /// I12, the other way round: nobody is blamed who has long been well.
    fn check_troubles(&mut self, world: &World) {
        let trouble = self.status.borrow().trouble.clone();
        let component = trouble.as_ref().map(|t| t.component.clone());
        if component != self.blamed.0 {
            self.blamed = (component, world.now());
        }
        let Some(trouble) = trouble else { return };
        // A target may be found taken over, or to have lost parts, in the best of weather.
        if world.plan.exact && world.now() < self.blamed.1 + FORGIVEN_WITHIN {
            return;
        }
        let sink = world.plan.sinks.iter().find(|s| s.id == trouble.component);
        if sink.is_some_and(|sink| sink.is_well_since(world.now(), FORGIVEN_WITHIN)) {
            world.violated(format!("run {} blames a sink that is well: {trouble:?}", self.run));
        }
    }

    /// I12: when nothing moves although something is to be done, the status says so.
    pub(super) fn check_honesty(&mut self, world: &World, is_paused: bool, within: Duration) {
        let now = world.now();
        let facts = world.facts();
        let run = &facts.runs[self.run];
        let (done, saves) = ((run.rows, run.acknowledgements), run.saves);
        let counts = world.plan.counts_acknowledgements();
        let reached = if counts { facts.settled } else { facts.saved_index };
        let has_work = reached < world.log.visible(now) && run.silent_until < now;
        // An idle place in front of a transaction that is under way may wait for its end.
        let settled = facts.settled.min(world.reached_by(run));
        let end = world.log.bound(world.log.last_end_before(settled)).unwrap_or(0);
        let unsaved = counts && !world.plan.two_engines && end > facts.saved_index;
        // Schemas are stored before a target that stores positions gets their rows.
        let holds_back = world.holds_back(run) && !(world.plan.exact && run.awaits_store);
        drop(facts);
        // Nothing may be delivered before the first place is saved, or while the store is in trouble.
        let may_give = {
            let status = self.status.borrow();
            status.checkpoint.is_some() && status.trouble.as_ref().is_none_or(|t| t.component != "state")
        };
        if is_paused || !holds_back || !may_give {
            self.gave_at = now;
        }
        if now > self.gave_at + GIVES_WITHIN {
            world.violated(format!("run {} holds back what it was given since {:?}", self.run, self.gave_at));
        }
        if is_paused || !has_work || done != self.done {
            (self.done, self.done_at) = (done, now);
        }
        if is_paused || !unsaved || saves != self.saves {
            (self.saves, self.saved_at) = (saves, now);
        }
        self.check_troubles(world);
        let status = self.status.borrow();
        let pretends =
            status.state == State::Running && status.phase == Phase::Streaming && status.trouble.is_none();
        if !pretends {
            self.said_at = now;
        }
        let pretends = now > self.said_at + HOPE;
        if pretends && now > self.done_at + within {
            world.violated(format!(
                "run {} delivers nothing since {:?} and says {status:?}",
                self.run, self.done_at
            ));
        }
        if pretends && now > self.saved_at + within {
            world.violated(format!(
                "run {} saves nothing since {:?} and says {status:?}",
                self.run, self.saved_at
            ));
        }
    }
}
