//! The simulated sinks: they accept, wait, fail before or after having applied a batch, stall, refuse, and break down.

use super::exact::{Writer, fenced};
use super::log::event_index;
use super::plan::{SinkTraits, Stores};
use super::rng::{Rng, mix};
use super::world::World;
use async_trait::async_trait;
use deltaforge_core::Position;
use deltaforge_core::batch::{Batch, EventId};
use deltaforge_core::config::{Report, RetryPolicy};
use deltaforge_core::fault::{Class, Fault, Kind};
use deltaforge_core::sink::{Delivered, Delivery, Held, Receipt, Sink, SinkContext, SinkPlan};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The poisoned event's code.
pub(super) const POISON: &str = "sim.poison";

/// A sink as one engine start sees it.
pub(super) struct SimSinkPlan {
    pub(super) world: Arc<World>,
    pub(super) run: usize,
    pub(super) sink: usize,
}

impl SimSinkPlan {
    fn traits(&self) -> &SinkTraits {
        &self.world.plan.sinks[self.sink]
    }
}

#[async_trait]
impl SinkPlan for SimSinkPlan {
    fn id(&self) -> &str {
        &self.traits().id
    }

    fn required(&self) -> bool {
        self.traits().required
    }

    fn exactly_once(&self) -> bool {
        self.traits().stores != Stores::Nothing
    }

    fn retry(&self) -> RetryPolicy {
        self.traits().retry
    }

    async fn check(&self) -> Report {
        Report::default()
    }

    async fn open(&self, _context: &SinkContext) -> Result<Box<dyn Sink>, Fault> {
        let (world, traits) = (&self.world, self.traits());
        let mut rng = Rng::of(world.plan.seed ^ self.sink as u64, "sink", world.now().as_micros() as u64);
        tokio::time::sleep(rng.millis(0, 5)).await;
        if let Some(outage) = traits.weather.outage(world.now()) {
            if outage.hangs {
                tokio::time::sleep_until(world.instant(outage.to)).await;
            }
            return Err(Fault::retry("sim.refused", "the target is away").kind(Kind::Connect));
        }
        if !world.is_calm() && rng.chance(traits.weather.faults_per_mille) {
            return Err(Fault::retry("sim.refused", "the target refuses").kind(Kind::Connect));
        }
        let mut facts = world.facts();
        let lane = &mut facts.runs[self.run].lanes[self.sink];
        (lane.last, lane.last_seq, lane.is_open) = (None, None, true);
        drop(facts);
        world.trace(|| format!("run {} sink{} open", self.run, self.sink));
        let writer = Writer::new(world, traits.stores);
        let recovered = writer.as_ref().and_then(|_| world.recover(self.run, self.sink));
        let session = Session {
            writer,
            world: world.clone(),
            run: self.run,
            sink: self.sink,
            waiting: VecDeque::new(),
            dead: false,
            last_at: Duration::ZERO,
            rng,
        };
        Ok(Box::new(SimSink { session: Arc::new(Mutex::new(session)), recovered }))
    }
}

/// A connection to a target.
struct SimSink {
    session: Arc<Mutex<Session>>,
    recovered: Option<Held>,
}

struct Session {
    /// Where the target stores positions.
    writer: Option<Writer>,
    world: Arc<World>,
    run: usize,
    sink: usize,
    /// Accepted and not applied.
    waiting: VecDeque<(u64, Arc<Batch>)>,
    /// It failed: nothing is applied any more.
    dead: bool,
    /// When the last receipt resolves; the next one not before.
    last_at: Duration,
    rng: Rng,
}

/// What is to become of a delivery.
enum Fate {
    Accepted { at: Duration, applies_at_once: bool, fails: bool },
    Refused(Fault),
    Panics,
}

#[async_trait]
impl Sink for SimSink {
    async fn deliver(&mut self, batch: Arc<Batch>, delivery: Delivery) -> Result<Receipt, Fault> {
        let pause = self.session().begin(&batch, delivery);
        tokio::time::sleep(pause).await;
        let fate = self.session().decide(&batch, delivery);
        match fate {
            Fate::Refused(fault) => Err(fault),
            Fate::Panics => panic!("simulated: the sink breaks down"),
            Fate::Accepted { at, applies_at_once, fails } => {
                let seq = delivery.seq.0;
                self.session().waiting.push_back((seq, batch.clone()));
                if applies_at_once {
                    self.session().apply_through(seq);
                }
                Ok(receipt(self.session.clone(), batch, seq, at, fails))
            }
        }
    }

    fn recovered(&self) -> Option<&Held> {
        self.recovered.as_ref()
    }

    async fn take_over(&mut self, from: &Position) -> Result<Option<Held>, Fault> {
        let (world, of, writer, mut rng) = {
            let mut session = self.session();
            let of = (session.run, session.sink);
            (session.world.clone(), of, session.writer.take(), session.rng.clone())
        };
        let Some(mut writer) = writer else {
            world.violated("a sink that stores no positions is asked for one");
            return Ok(None);
        };
        // Nobody has answered for anything before that.
        world.facts().runs[of.0].lanes[of.1].is_open = false;
        let held = writer.take_over(&world, of, from, &mut rng).await;
        world.facts().runs[of.0].lanes[of.1].is_open = held.is_ok();
        let mut session = self.session();
        (session.writer, session.rng) = (Some(writer), rng);
        held
    }

    async fn close(self: Box<Self>) {
        let session = self.session();
        if !session.waiting.is_empty() && !session.dead {
            session
                .world
                .violated(format!("sink{} is closed before it has acknowledged everything", session.sink));
        }
    }
}

/// Resolves when the batch and all before it are applied, or fails.
fn receipt(session: Arc<Mutex<Session>>, batch: Arc<Batch>, seq: u64, at: Duration, fails: bool) -> Receipt {
    Box::pin(async move {
        let until = lock(&session).world.instant(at);
        tokio::time::sleep_until(until).await;
        let mut session = lock(&session);
        if fails || session.dead {
            session.fail();
            session.world.count("receipts failed");
            return Err(Fault::retry("sim.lost", "the connection to the target was lost").kind(Kind::Connect));
        }
        session.apply_through(seq);
        let (world, run, sink) = (session.world.clone(), session.run, session.sink);
        if session.is_fenced() {
            return Err(fenced());
        }
        world.note_acknowledged(run, sink, &batch, seq);
        world.trace(|| format!("run {run} sink{sink} acknowledges {seq}"));
        Ok(Delivered { bytes: batch.estimated_bytes() as u64 })
    })
}

fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimSink {
    fn session(&self) -> MutexGuard<'_, Session> {
        lock(&self.session)
    }
}

impl Drop for SimSink {
    fn drop(&mut self) {
        // The connection is gone with what was on its way; how much of it the target still got, nobody can tell.
        let mut session = self.session();
        session.world.facts().runs[session.run].lanes[session.sink].is_open = false;
        session.fail();
    }
}

impl Session {
    /// The batch arrives; how long until it is accepted.
    fn begin(&mut self, batch: &Arc<Batch>, delivery: Delivery) -> Duration {
        let Session { world, run, sink, rng, writer, .. } = self;
        world.trace(|| {
            let ids = (batch.event(0), batch.event(batch.len().saturating_sub(1)));
            let index = |e: Option<deltaforge_core::Event<'_>>| {
                e.and_then(|e| event_index(e.id())).unwrap_or_default()
            };
            let (first, last) = (index(ids.0), index(ids.1));
            format!("run {run} sink{sink} is given {}: {first}..={last} {:?}", delivery.seq.0, batch.end())
        });
        world.check_delivery(*run, *sink, batch, delivery, writer.as_ref().map(Writer::lacks));
        if let Some(writer) = writer {
            writer.note_handed(world, batch);
        }
        let most = if world.is_calm() { 0 } else { world.plan.sinks[*sink].accept_ms };
        rng.millis(0, most)
    }

    fn is_fenced(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| writer.is_fenced(&self.world, self.sink))
    }

    fn decide(&mut self, batch: &Arc<Batch>, delivery: Delivery) -> Fate {
        let world = self.world.clone();
        let (traits, now) = (&world.plan.sinks[self.sink], world.now());
        if self.is_fenced() {
            world.count("deliveries fenced");
            return Fate::Refused(fenced());
        }
        if let Some(fault) = self.refusal(batch) {
            return Fate::Refused(fault);
        }
        if world.is_calm() {
            let at = self.in_turn(now + self.rng.clone().millis(0, traits.acknowledge_ms.min(2)));
            return Fate::Accepted { at, applies_at_once: self.rng.chance(500), fails: false };
        }
        if self.panics() {
            return Fate::Panics;
        }
        let fails = self.rng.chance(traits.weather.faults_per_mille);
        if let Some(outage) = traits.weather.outage(now) {
            if !outage.hangs {
                return Fate::Refused(Fault::retry("sim.refused", "the target is away").kind(Kind::Target));
            }
            let at = self.in_turn(outage.to);
            return Fate::Accepted { at, applies_at_once: self.rng.chance(300), fails: self.rng.chance(300) };
        }
        if fails && self.rng.chance(500) {
            if self.rng.chance(traits.ambiguous_per_mille) {
                self.apply_through(u64::MAX);
                world.trace(|| {
                    format!("sink{} applies {} and says that it failed", self.sink, delivery.seq.0)
                });
                self.apply(batch);
            }
            world.count("deliveries refused");
            return Fate::Refused(Fault::retry("sim.timeout", "no answer in time").kind(Kind::Timeout));
        }
        let stalls = self.rng.chance(traits.stalls_per_mille);
        if stalls {
            world.count("sink stalls");
        }
        let takes =
            if stalls { self.rng.millis(3000, 25_000) } else { self.rng.millis(0, traits.acknowledge_ms) };
        let at = self.in_turn(traits.weather.until(now, takes));
        let applies_at_once = self.rng.chance(if fails { traits.ambiguous_per_mille } else { 300 });
        Fate::Accepted { at, applies_at_once, fails }
    }

    /// Receipts resolve in order.
    fn in_turn(&mut self, at: Duration) -> Duration {
        self.last_at = self.last_at.max(at);
        self.last_at
    }

    /// The fault of a batch with an event that the target does not take.
    fn refusal(&mut self, batch: &Batch) -> Option<Fault> {
        let traits = &self.world.plan.sinks[self.sink];
        if traits.refuses_every.is_none() && (traits.poison.is_none() || self.world.facts().cured) {
            return None;
        }
        let is_refused = |id: EventId| {
            let index = event_index(id).unwrap_or_default();
            Some(index) == traits.poison
                || traits.refuses_every.is_some_and(|every| mix(index).is_multiple_of(every))
        };
        let id = batch.events().map(|e| e.id()).find(|id| is_refused(*id))?;
        if traits.poison.is_some() {
            self.world.facts().runs[self.run].doomed.push((self.world.now(), POISON));
        }
        self.world.trace(|| format!("sink{} refuses event {:?}", self.sink, event_index(id)));
        self.world.count("events refused");
        Some(
            Fault::new(Class::Data, POISON, "the target does not take this event")
                .kind(Kind::Rejected)
                .event(id),
        )
    }

    fn panics(&mut self) -> bool {
        let panics_at = self.world.plan.sinks[self.sink].panics_at;
        let now = self.world.now();
        let mut facts = self.world.facts();
        facts.targets[self.sink].deliveries += 1;
        if Some(facts.targets[self.sink].deliveries) != panics_at {
            return false;
        }
        facts.panics += 1;
        facts.runs[self.run].doomed.push((now, "engine.task_ended"));
        true
    }

    /// The target applies what it was given, in order, up to a batch.
    fn apply_through(&mut self, seq: u64) {
        while self.waiting.front().is_some_and(|(waiting, _)| *waiting <= seq) {
            if let Some((_, batch)) = self.waiting.pop_front() {
                self.apply(&batch);
            }
        }
    }

    fn apply(&mut self, batch: &Batch) {
        match &mut self.writer {
            None => self.world.apply(self.sink, batch),
            Some(writer) => {
                let _fenced_if_not = writer.write(&self.world, self.sink, batch);
            }
        }
    }

    /// The connection ends: the target has applied some of what was on its way, from the front.
    fn fail(&mut self) {
        if std::mem::replace(&mut self.dead, true) {
            return;
        }
        if let Some(writer) = &mut self.writer {
            let batches = self.waiting.drain(..).map(|(_, batch)| batch).collect();
            return writer.leave(&self.world, self.sink, batches, &mut self.rng);
        }
        let ambiguous = self.world.plan.sinks[self.sink].ambiguous_per_mille;
        while let Some((seq, _)) = self.waiting.front() {
            if !self.rng.chance(ambiguous) {
                break;
            }
            let seq = *seq;
            self.world.count("batches applied without an acknowledgement");
            self.world.trace(|| format!("sink{} applies {seq} although the connection is lost", self.sink));
            self.apply_through(seq);
        }
        self.waiting.clear();
    }
}
