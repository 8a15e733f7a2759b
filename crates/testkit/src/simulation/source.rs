//! The simulated source: reads the log, breaks, stalls, and is served by a server that forgets what it was told to forget.

use super::log::{Change, Entry, event_id, lsn, payload, position, table_schema};
use super::rng::Rng;
use super::world::{Reader, World};
use async_trait::async_trait;
use deltaforge_core::batch::{BatchBuilder, Op, TableIx, TransactionHead};
use deltaforge_core::config::{Report, RetryPolicy};
use deltaforge_core::fault::{Fault, Kind};
use deltaforge_core::schema::{SchemaRegistry, registered};
use deltaforge_core::source::{Fill, Opened, Source, SourceContext, SourceInfo, SourcePlan};
use deltaforge_core::{Position, Value};
use std::cmp::Ordering;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The key in the store.
pub(super) const SOURCE_ID: &str = "simulated";

/// Somebody else reads, where only one may.
pub(super) const BUSY: &str = "sim.busy";
/// The place is gone.
pub(super) const PRUNED: &str = "sim.pruned";
/// The doom of a loop that broke down in the source: it says nothing any more.
pub(super) const LOOP_BROKE_DOWN: &str = "the loop broke down";

static INFO: SourceInfo = SourceInfo { connector: "simulated", fields: &[] };

/// The source as one engine start sees it.
pub(super) struct SimSourcePlan {
    pub(super) world: Arc<World>,
    pub(super) run: usize,
}

#[async_trait]
impl SourcePlan for SimSourcePlan {
    fn id(&self) -> &str {
        SOURCE_ID
    }

    fn info(&self) -> &SourceInfo {
        &INFO
    }

    fn retry(&self) -> RetryPolicy {
        self.world.plan.source.retry
    }

    async fn check(&self) -> Report {
        Report::default()
    }

    async fn open(&self, context: SourceContext) -> Result<Opened, Fault> {
        let world = &self.world;
        let traits = &world.plan.source;
        let mut rng = Rng::of(world.plan.seed, "open", world.now().as_micros() as u64);
        world.facts().runs[self.run].released = Some(context.released.clone());
        tokio::time::sleep(rng.millis(0, 20)).await;
        if let Some(outage) = traits.weather.outage(world.now()) {
            if outage.hangs {
                tokio::time::sleep_until(world.instant(outage.to)).await;
            }
            return Err(unreachable("the server is away"));
        }
        if !world.is_calm() && rng.chance(traits.weather.faults_per_mille) {
            return Err(unreachable("the connection was refused"));
        }
        let session = rng.next();
        self.take_reader(session)?;
        let start =
            self.place(context.resume.as_ref().map(|c| &c.position)).inspect_err(|_| self.leave(session))?;
        world.trace(|| format!("run {} source open at {start}", self.run));
        let next_outage = traits.weather.next_outage(world.now()).filter(|_| rng.chance(800));
        let source = SimSource {
            world: world.clone(),
            run: self.run,
            session,
            entry: world.log.after(start),
            row: 0,
            inside: false,
            shapes: Vec::new(),
            schemas: context.schemas,
            next_at: world.now(),
            breaks_at: next_outage,
            broken: false,
            stats: context.stats,
            rng,
        };
        Ok(Opened { source: Box::new(source), start: position(start), same_log: true })
    }

    fn compare(&self, a: &Position, b: &Position) -> Option<Ordering> {
        Some(lsn(a)?.cmp(&lsn(b)?))
    }

    fn number(&self, position: &Position) -> Option<u64> {
        lsn(position)
    }
}

impl SimSourcePlan {
    /// One reader at a time, on servers that are like that.
    fn take_reader(&self, session: u64) -> Result<(), Fault> {
        let now = self.world.now();
        let mut facts = self.world.facts();
        let busy = match facts.reader {
            Reader::Nobody => false,
            Reader::Session(_) => true,
            Reader::GoneBy(at) => now < at,
        };
        if busy && self.world.plan.source.exclusive {
            return Err(Fault::retry(BUSY, "somebody else reads").kind(Kind::Connect));
        }
        facts.reader = Reader::Session(session);
        Ok(())
    }

    fn leave(&self, session: u64) {
        leave(&self.world, session, Duration::ZERO);
    }

    /// Where to read from: the resume place, if it can be reached and is the one that it must be.
    fn place(&self, resume: Option<&Position>) -> Result<u64, Fault> {
        let world = &self.world;
        let mut facts = world.facts();
        let (pruned, handed_over) = (facts.pruned, facts.handed_over);
        let Some(resume) = resume else {
            let start = if world.plan.source.from_oldest { 0 } else { world.log.head(world.now()) };
            let bound = world.log.bound(start).unwrap_or(0);
            let saved = facts.saved;
            let epoch = facts.runs[self.run].epoch;
            let is_owner = facts.runs.iter().all(|other| other.epoch <= epoch);
            if is_owner {
                (facts.origin, facts.read, facts.settled) = (Some(bound), start, bound);
            }
            let run = &mut facts.runs[self.run];
            (run.from, run.given) = (Some(bound), Some(start));
            drop(facts);
            // One that was replaced meanwhile may begin anywhere: it must not get anywhere, which is checked at its deliveries.
            if is_owner && (handed_over || saved.is_some()) {
                world.violated(format!("run {} chooses its start anew", self.run));
            }
            return Ok(start);
        };
        let run = &mut facts.runs[self.run];
        let (due, epoch) = (run.given, run.epoch);
        let place = lsn(resume).filter(|lsn| world.log.bound(*lsn).is_some());
        run.given = place;
        if facts.runs.iter().any(|other| other.epoch > epoch) && place.is_some_and(|place| place < pruned) {
            // It was replaced while it waited for its turn to read, and does not know.
            facts.runs[self.run].doomed.push((world.now(), PRUNED));
            return Err(Fault::lost(PRUNED, "the log no longer holds the place"));
        }
        drop(facts);
        let Some(place) = place else {
            world.violated(format!("run {} resumes at {resume}, which is inside a transaction", self.run));
            return Err(Fault::lost("sim.nowhere", "no transaction ends there"));
        };
        if world.plan.exact && due.is_none() {
            world.check_start(self.run, place);
        }
        if due.is_some_and(|due| due != place) {
            world.violated(format!("run {} resumes at {place} and was given all up to {due:?}", self.run));
        }
        // Read past without an event, saved, and forgotten: only the lost state knew.
        let was_known = world.facts().state_was_lost && world.log.bound(place) == world.log.bound(pruned);
        if place < pruned && was_known {
            world.count("starts that needed the lost state");
            world.facts().runs[self.run].doomed.push((world.now(), PRUNED));
            return Err(Fault::lost(PRUNED, "the log no longer holds the place"));
        }
        if place < pruned {
            world.violated(format!("run {} resumes at {place}, the log begins at {pruned}", self.run));
            return Err(Fault::lost(PRUNED, "the log no longer holds the place"));
        }
        Ok(place)
    }
}

fn unreachable(message: &str) -> Fault {
    Fault::retry("sim.unreachable", message).kind(Kind::Connect)
}

fn leave(world: &World, session: u64, lingers: Duration) {
    let mut facts = world.facts();
    if matches!(facts.reader, Reader::Session(present) if present == session) {
        facts.reader = Reader::GoneBy(world.now() + lingers);
    }
}

/// A connection that reads.
struct SimSource {
    world: Arc<World>,
    run: usize,
    session: u64,
    /// The next to give: an entry, a row of it, and whether its transaction has begun.
    entry: usize,
    row: u32,
    inside: bool,
    /// Shapes that this connection has told: table, shape.
    shapes: Vec<((u8, u8), TableIx)>,
    schemas: Arc<dyn SchemaRegistry>,
    /// When the next rows arrive.
    next_at: Duration,
    breaks_at: Option<Duration>,
    broken: bool,
    stats: Arc<deltaforge_core::source::SourceStats>,
    rng: Rng,
}

impl Drop for SimSource {
    fn drop(&mut self) {
        let lingers = if self.rng.chance(300) { self.rng.millis(0, 3000) } else { Duration::ZERO };
        leave(&self.world, self.session, lingers);
    }
}

#[async_trait]
impl Source for SimSource {
    async fn fill(&mut self, out: &mut BatchBuilder) -> Result<Fill, Fault> {
        self.begin_fill();
        self.world.check_memory(self.run);
        loop {
            let now = self.world.now();
            if self.breaks_at.is_some_and(|at| at <= now) {
                return Err(self.break_down("the connection was cut"));
            }
            // Nothing has changed while waiting: the wait may be dropped at any time.
            match (self.ready_at(), self.breaks_at) {
                (Some(at), _) if at <= now => break,
                (None, _) if self.world.plan.source.ends && self.entry == self.world.log.entries.len() => {
                    return Ok(Fill::End);
                }
                (Some(at), other) => self.sleep_until(other.map_or(at, |other| at.min(other))).await,
                (None, Some(at)) => self.sleep_until(at).await,
                (None, None) => pending().await,
            }
        }
        self.decode(out)
    }

    async fn broken(&mut self) -> Fault {
        match self.breaks_at {
            Some(at) => self.sleep_until(at).await,
            None => pending().await,
        }
        self.break_down("the connection was cut while nobody read")
    }

    async fn close(self: Box<Self>) {
        self.world.trace(|| format!("run {} source closed", self.run));
    }
}

impl SimSource {
    async fn sleep_until(&self, at: Duration) {
        tokio::time::sleep_until(self.world.instant(at)).await;
    }

    fn begin_fill(&mut self) {
        if self.broken {
            self.world.violated(format!("run {} asks a source that broke", self.run));
        }
        let panics_at = self.world.plan.source.panics_at;
        let mut facts = self.world.facts();
        let now = self.world.now();
        let run = &mut facts.runs[self.run];
        run.fills += 1;
        if Some(run.fills) == panics_at && facts.panics == 0 && !self.world.is_calm() {
            facts.panics += 1;
            facts.runs[self.run].doomed.push((now, LOOP_BROKE_DOWN));
            drop(facts);
            panic!("simulated: the source breaks down");
        }
    }

    /// When the next entry, or the rest of this one, can be read; `None` at the end of the log.
    fn ready_at(&self) -> Option<Duration> {
        self.world.log.entries.get(self.entry).map(|entry| entry.at.max(self.next_at))
    }

    fn break_down(&mut self, why: &str) -> Fault {
        self.broken = true;
        self.world.count(if self.inside { "source breaks inside a transaction" } else { "source breaks" });
        self.world.facts().runs[self.run].breaks += 1;
        self.world.trace(|| {
            format!("run {} source breaks in entry {} row {}: {why}", self.run, self.entry, self.row)
        });
        unreachable(why)
    }

    /// Gives what has arrived; all at once, without awaiting.
    fn decode(&mut self, out: &mut BatchBuilder) -> Result<Fill, Fault> {
        let world = self.world.clone();
        let (traits, now) = (&world.plan.source, world.now());
        out.read_at(now.as_millis() as i64);
        let mut budget = self.rng.scale(1, traits.chunk);
        let is_rough = !world.is_calm();
        let breaks = is_rough && self.rng.chance(traits.weather.faults_per_mille / 4);
        while budget > 0 && !out.is_full() {
            let Some(entry) = world.log.entries.get(self.entry).filter(|e| e.at <= now) else { break };
            budget -= 1;
            self.step(out, entry);
        }
        self.stats.head.store(world.log.head(now), Relaxed);
        self.stats.received.store(world.facts().read, Relaxed);
        if breaks {
            return Err(self.break_down("the server closed the connection"));
        }
        let arrived = world.log.entries.get(self.entry).is_some_and(|e| e.at <= now);
        if arrived && budget == 0 {
            self.next_at = now + self.gap(is_rough);
            world.facts().runs[self.run].silent_until = self.next_at;
        }
        Ok(if arrived && self.next_at <= now { Fill::More } else { Fill::Idle })
    }

    /// How long the next rows take to arrive.
    fn gap(&mut self, is_rough: bool) -> Duration {
        let traits = &self.world.plan.source;
        if is_rough && self.rng.chance(traits.stalls_per_mille) {
            return self.rng.millis(100, 3000);
        }
        let most = if is_rough { traits.gap_ms } else { traits.gap_ms.min(2) };
        if self.rng.chance(500) { Duration::ZERO } else { self.rng.millis(0, most) }
    }

    /// Gives one row, or what begins and ends a transaction, or an idle place.
    fn step(&mut self, out: &mut BatchBuilder, entry: &Entry) {
        if entry.count == 0 {
            // Not every keepalive carries a place.
            if self.rng.chance(800) || self.entry + 1 == self.world.log.entries.len() {
                out.advance(|json| json.extend_from_slice(position(entry.lsn).as_json().as_bytes()));
                self.note_given(entry.lsn);
            }
            self.entry += 1;
            return;
        }
        if !self.inside {
            self.inside = true;
            let ts_us = entry.at.as_micros() as i64;
            out.begin(TransactionHead { id: &format!("{}", entry.lsn), ts_us, ts_exact: true }, 0, |_| {});
        }
        if self.row < entry.count {
            self.give_row(out, entry);
            self.row += 1;
        }
        // The commit arrives with the last row, or in the next packet.
        if self.row == entry.count && !out.is_full() && self.rng.chance(900) {
            out.commit(|json| json.extend_from_slice(position(entry.lsn).as_json().as_bytes()));
            self.note_given(entry.lsn);
            (self.entry, self.row, self.inside) = (self.entry + 1, 0, false);
        }
    }

    fn note_given(&self, lsn: u64) {
        let mut facts = self.world.facts();
        facts.read = facts.read.max(lsn);
        facts.runs[self.run].given = Some(lsn);
    }

    fn give_row(&mut self, out: &mut BatchBuilder, entry: &Entry) {
        let index = entry.first + u64::from(self.row);
        let change = self.world.log.changes[index as usize];
        let table = self.shape(out, entry, &change);
        let columns = 3 + usize::from(change.shape);
        let mut event = out.event(change.op, table);
        let whole = |row: &mut deltaforge_core::row::RowWriter<'_>| {
            row.put(Value::Int(change.key.into()));
            row.put(Value::Uint(index));
            row.put(Value::Text(payload(index)));
            (0..change.shape).for_each(|n| row.put(Value::Int(n.into())));
            Ok::<(), Infallible>(())
        };
        let key_only = |row: &mut deltaforge_core::row::RowWriter<'_>| {
            row.put(Value::Int(change.key.into()));
            row.put(Value::Null);
            Ok::<(), Infallible>(())
        };
        let Ok(()) = match change.op {
            Op::Truncate | Op::Ddl => {
                event.ddl("{\"simulated\":true}");
                Ok(())
            }
            Op::Delete => event.before(columns, key_only),
            Op::Update if index.is_multiple_of(3) => {
                event.before(columns, whole).and_then(|()| event.after(columns, whole))
            }
            _ => event.after(columns, whole),
        };
        event.finish(event_id(index));
        self.world.facts().runs[self.run].rows += 1;
    }

    /// The builder's index of a shape, telling it and the registry when it is new to this connection.
    fn shape(&mut self, out: &mut BatchBuilder, entry: &Entry, change: &Change) -> TableIx {
        let known = (change.table, change.shape);
        if let Some((_, table)) = self.shapes.iter().find(|(shape, _)| *shape == known) {
            return *table;
        }
        // A place in a form that sorts: the transaction's end, and the row in it.
        let at = u128::from(entry.lsn) << 32 | u128::from(change.ordinal);
        let schema = registered(table_schema(change.table, change.shape), self.schemas.as_ref(), at);
        let table = out.schema(schema);
        self.shapes.push((known, table));
        table
    }
}
