//! Targets that store positions with the data, and what a connection writes to them.
//!
//! ```text
//!  transactions   open ── part ── part ── {part, end} ──► commit: all of it, and the position, or nothing
//!                 a commit that a dead connection left behind lands later, unless `take_over` cancels it or waits for it
//!  chain          event ► event ► event + end             each for good, naming the link before it
//!                 what a dead connection left behind lands while that is the last link: `take_over` adds one
//! ```
//!
//! A link names the one before, not how many there are: with numbers, of two messages under way the second would fit when
//! `take_over` has put its link in the first one's place.
//!
//! **What is checked, at the moment it happens.** A write continues with the very event that the target lacks; the position
//! in it, plus what it says to lie behind, is the number of events there. So an event left out, one that comes twice, a
//! transaction in part and a position that is not the data's are each seen in the write that brings them.

use super::log::{Log, event_id, event_index, lsn, position};
use super::plan::Stores;
use super::rng::Rng;
use super::world::{Facts, World};
use deltaforge_core::Position;
use deltaforge_core::batch::Batch;
use deltaforge_core::fault::{Class, Fault, Kind};
use deltaforge_core::sink::Held;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

/// Somebody else has taken the target over.
pub(super) const FENCED: &str = "sim.fenced";

/// A target that stores positions.
#[derive(Clone, Debug, Default)]
pub(super) struct ExactTarget {
    /// The connection that took it over last, and by engine starts all that did.
    owner: u64,
    takers: Vec<usize>,
    /// Events up to this one are there, from the origin on; `None` before the first write.
    next: Option<u64>,
    place: u64,
    inside: u64,
    /// The last link of a chain.
    link: Link,
    /// Left behind by dead connections, in the order in which it lands.
    under_way: VecDeque<(Duration, Write)>,
}

/// A link of a chain: who wrote it, and its number among that connection's.
type Link = (u64, u64);

/// What takes effect in one step.
#[derive(Clone, Debug)]
struct Write {
    events: Range<u64>,
    place: u64,
    inside: u64,
    /// The link before it, and itself.
    links: [Link; 2],
}

/// What a connection knows while it writes.
#[derive(Debug)]
pub(super) struct Writer {
    stores: Stores,
    session: u64,
    taken_over: bool,
    /// The event after the last that was handed over.
    lacks: u64,
    /// The event after the last that is written or staged, and where what is staged begins.
    written: u64,
    staged_from: u64,
    place: u64,
    inside: u64,
    link: Link,
    /// What it wrote was refused.
    fenced: bool,
}

impl ExactTarget {
    pub(super) fn held(&self) -> Option<Held> {
        let event = event_id(self.next?.checked_sub(1)?);
        Some(Held { position: position(self.place), event, inside: self.inside })
    }

    /// What it lacks in the end, of all from the origin on.
    pub(super) fn is_incomplete(&self, origin: u64, log: &Log) -> Option<String> {
        if self.next.is_none() && origin == log.len() {
            return None;
        }
        let whole = log.bound(self.place) == Some(log.len()) && self.inside == 0;
        (!whole || self.next != Some(log.len()))
            .then(|| format!("the target holds {self:?}, the log has {} events", log.len()))
    }
}

impl Writer {
    pub(super) fn new(world: &World, stores: Stores) -> Option<Writer> {
        if stores == Stores::Nothing {
            return None;
        }
        let mut facts = world.facts();
        facts.sessions += 1;
        let session = facts.sessions;
        let none = Writer {
            stores,
            session,
            taken_over: false,
            lacks: 0,
            written: 0,
            staged_from: 0,
            place: 0,
            inside: 0,
            link: (session, 0),
            fenced: false,
        };
        Some(none)
    }

    /// The event that is to be handed over next.
    pub(super) fn lacks(&self) -> u64 {
        self.lacks
    }

    /// A batch is handed over.
    pub(super) fn note_handed(&mut self, world: &World, batch: &Batch) {
        if !self.taken_over {
            world.violated("a batch comes before the target was taken over");
        }
        if batch.end().is_some_and(|end| end.events_done > 0) {
            world.violated("a batch for a target that stores positions ends inside a transaction");
        }
        if let Some(last) = batch.last_id().and_then(event_index) {
            self.lacks = last + 1;
        }
    }

    pub(super) fn is_fenced(&self, world: &World, sink: usize) -> bool {
        self.fenced || self.taken_over && world.facts().exact[sink].owner != self.session
    }

    /// What a batch, after those before it, makes the connection write.
    fn writes(&mut self, batch: &Batch) -> Vec<Write> {
        let from = self.written;
        if let Some(last) = batch.last_id().and_then(event_index) {
            self.written = last + 1;
        }
        let end = batch.end().and_then(|end| lsn(&end.position));
        if self.stores == Stores::Transactions {
            let Some(place) = end else { return Vec::new() };
            let events = self.staged_from..self.written;
            self.staged_from = self.written;
            return vec![Write { events, place, inside: 0, links: [self.link; 2] }];
        }
        let events = (from..self.written).map(|event| event..event + 1);
        let without_events = batch.is_empty().then_some(from..from);
        let mut writes: Vec<Write> = (events.chain(without_events))
            .map(|events| {
                self.inside += events.end - events.start;
                let before = self.link;
                self.link.1 += 1;
                Write { events, place: self.place, inside: self.inside, links: [before, self.link] }
            })
            .collect();
        if let (Some(end), Some(last)) = (end, writes.last_mut()) {
            (self.place, self.inside) = (end, 0);
            (last.place, last.inside) = (end, 0);
        }
        writes
    }

    /// Writes a batch; false when somebody else has the target.
    pub(super) fn write(&mut self, world: &World, sink: usize, batch: &Batch) -> bool {
        world.land(sink);
        for write in self.writes(batch) {
            let is_mine = self.stores == Stores::Chain || world.facts().exact[sink].owner == self.session;
            if !is_mine || !world.write(sink, self.stores, &write) {
                self.fenced = true;
                return false;
            }
        }
        true
    }

    /// The connection is lost with batches on their way: from the front, some are written, some are still to land.
    pub(super) fn leave(
        &mut self,
        world: &World,
        sink: usize,
        batches: Vec<std::sync::Arc<Batch>>,
        rng: &mut Rng,
    ) {
        world.land(sink);
        let is_mine = self.stores == Stores::Chain || world.facts().exact[sink].owner == self.session;
        let ambiguous = world.plan.sinks[sink].ambiguous_per_mille;
        if !is_mine || !self.taken_over || ambiguous == 0 {
            return;
        }
        let writes: Vec<Write> = batches.iter().flat_map(|batch| self.writes(batch)).collect();
        let goes_on = if self.stores == Stores::Chain { 900 + ambiguous / 10 } else { ambiguous };
        let (mut at, calm) = (world.now(), world.is_calm());
        for write in writes {
            if !rng.chance(goes_on) {
                break;
            }
            if !calm && rng.chance(if self.stores == Stores::Chain { 150 } else { 500 }) {
                at += Duration::from_millis(rng.scale(1, 8000));
            }
            if at > world.now() {
                world.trace(|| format!("sink{sink}: {write:?} is still to land"));
                world.count("writes left under way");
                world.facts().exact[sink].under_way.push_back((at, write));
            } else if world.write(sink, self.stores, &write) {
                world.count("writes without an answer");
            }
        }
        // What dead connections left behind lands in the order in which it was left.
        let under_way = &mut world.facts().exact[sink].under_way;
        let mut latest = Duration::ZERO;
        for (at, _) in under_way {
            *at = latest.max(*at);
            latest = *at;
        }
    }
}

impl World {
    /// What was under way to a target and has arrived by now takes effect, if it still may.
    pub(super) fn land(&self, sink: usize) {
        loop {
            let now = self.now();
            let mut facts = self.facts();
            let under_way = &mut facts.exact[sink].under_way;
            if under_way.front().is_none_or(|(at, _)| *at > now) {
                return;
            }
            let Some((_, write)) = under_way.pop_front() else { return };
            drop(facts);
            let landed = self.write(sink, self.plan.sinks[sink].stores, &write);
            self.trace(|| format!("sink{sink}: {write:?} lands late: {landed}"));
            self.count(if landed { "writes that landed late" } else { "late writes refused" });
        }
    }

    /// Applies a write; false when the chain does not fit.
    fn write(&self, sink: usize, stores: Stores, write: &Write) -> bool {
        let mut facts = self.facts();
        let origin = facts.origin.unwrap_or(0);
        let Facts { exact, targets, acknowledged, .. } = &mut *facts;
        let (exact, target) = (&mut exact[sink], &mut targets[sink]);
        if stores == Stores::Chain && write.links[0] != exact.link {
            return false;
        }
        exact.link = write.links[1];
        let due = exact.next.unwrap_or(origin);
        let mut wrong = Vec::new();
        if write.events.start != due {
            wrong.push(format!("the target lacks event {due} first and gets {write:?}"));
        }
        if self.log.bound(write.place).map(|bound| bound + write.inside) != Some(write.events.end) {
            wrong.push(format!("the target gets a position that is not the data's: {write:?}"));
        }
        if exact.next.is_some() && write.place < exact.place {
            wrong.push(format!("the target's position goes back from {}: {write:?}", exact.place));
        }
        (exact.next, exact.place, exact.inside) = (Some(write.events.end), write.place, write.inside);
        for event in write.events.clone().filter(|event| *event < self.log.len()) {
            self.log.fold(&mut target.tables, event);
            target.seen[event as usize] = true;
            target.applied += 1;
            acknowledged[event as usize] |= 1 << sink;
        }
        self.settle(&mut facts);
        drop(facts);
        for what in wrong {
            self.violated(format!("sink{sink}: {what}"));
        }
        true
    }

    /// What the target is seen to hold; nobody is disturbed.
    pub(super) fn recover(&self, run: usize, sink: usize) -> Option<Held> {
        self.land(sink);
        let mut facts = self.facts();
        let held = facts.exact[sink].held();
        facts.runs[run].lanes[sink].recovered = held.as_ref().and_then(|held| lsn(&held.position));
        held
    }

    /// An engine begins: no sink may be left without what it lacks, and none needs more than that.
    pub(super) fn check_start(&self, run: usize, place: u64) {
        let mut facts = self.facts();
        let saved = facts.saved.map(|(lsn, _)| lsn);
        let sinks = (0..self.plan.sinks.len()).filter(|sink| self.plan.must_reach(*sink));
        // What lies between what a target holds and the checkpoint may be places without events.
        let is_nothing =
            |held: u64, saved: u64| held < saved && self.log.bound(held) == self.log.bound(saved);
        let needs = |sink: usize| match (facts.runs[run].lanes[sink].recovered, saved) {
            (Some(held), Some(saved)) if is_nothing(held, saved) => Some(saved),
            (held, saved) => held.or(saved),
        };
        let needs: Vec<Option<u64>> = sinks.map(needs).collect();
        let due = needs.iter().flatten().min().copied();
        let is_right = due == Some(place) && !needs.contains(&None);
        facts.runs[run].from = self.log.bound(place);
        let is_lost = facts.state_is_lost;
        drop(facts);
        if is_lost {
            self.count("starts without the state");
        }
        if saved.is_some_and(|saved| place > saved) {
            self.count("starts behind the checkpoint");
        }
        if !is_right {
            self.violated(format!("run {run} begins at {place}, its sinks need {needs:?}"));
        }
    }

    /// Whether an engine rightly says that the lost state cannot be done without.
    pub(super) fn needs_the_state(&self, run: usize) -> bool {
        let facts = self.facts();
        let mut sinks = (0..self.plan.sinks.len()).filter(|sink| self.plan.must_reach(*sink));
        facts.state_is_lost && sinks.any(|sink| facts.runs[run].lanes[sink].recovered.is_none())
    }

    /// No target holds anything.
    pub(super) fn knows_no_position(&self) -> bool {
        self.facts().exact.iter().all(|target| target.held().is_none())
    }

    /// Some target holds events behind its position.
    pub(super) fn holds_inside(&self) -> bool {
        self.facts().exact.iter().any(|target| target.inside > 0)
    }

    /// Whether another engine has taken over a target that this one had.
    pub(super) fn lost_a_target(&self, run: usize) -> bool {
        let facts = self.facts();
        let lost = |target: &ExactTarget| {
            let mut since = target.takers.iter().skip_while(|taker| **taker != run);
            since.any(|taker| *taker != run)
        };
        self.plan.two_engines && facts.exact.iter().any(lost)
    }
}

impl Writer {
    /// Puts to rest what earlier connections have under way: from then on nothing lands that is not this one's.
    ///
    /// # Errors
    /// Somebody else took it over meanwhile, or the target does not answer, having done it or not.
    pub(super) async fn take_over(
        &mut self,
        world: &World,
        (run, sink): (usize, usize),
        from: &Position,
        rng: &mut Rng,
    ) -> Result<Option<Held>, Fault> {
        if std::mem::replace(&mut self.taken_over, true) {
            world.violated("a connection takes its target over twice");
        }
        tokio::time::sleep(rng.millis(0, 20)).await;
        let faults = if world.is_calm() { 0 } else { world.plan.sinks[sink].weather.faults_per_mille };
        let (fails_before, fails_after) = (rng.chance(faults / 2), rng.chance(faults / 2));
        if fails_before {
            return Err(no_answer());
        }
        world.land(sink);
        let last = self.fence(world, run, sink);
        if let (Stores::Transactions, Some(last)) = (self.stores, last) {
            if rng.chance(500) {
                world.count("take-overs that cancelled");
                world.facts().exact[sink].under_way.clear();
            } else {
                world.count("take-overs that waited");
                tokio::time::sleep_until(world.instant(last)).await;
                world.land(sink);
            }
        }
        if fails_after {
            return Err(no_answer());
        }
        if world.facts().exact[sink].owner != self.session {
            return Err(fenced());
        }
        let held = self.begin(world, sink, from);
        world.facts().runs[run].lanes[sink].next = held.is_some().then_some(self.lacks);
        world.trace(|| format!("run {run} sink{sink} takes over, which holds {held:?}"));
        world.count("take-overs");
        Ok(held)
    }

    /// The target is this connection's; tells when the last lands of what others left behind.
    fn fence(&self, world: &World, run: usize, sink: usize) -> Option<Duration> {
        let now = world.now();
        let mut facts = world.facts();
        facts.runs[run].taken_over_at = Some(now);
        let target = &mut facts.exact[sink];
        target.owner = self.session;
        target.takers.push(run);
        if self.stores == Stores::Chain {
            target.link = self.link;
        }
        target.under_way.back().map(|(at, _)| *at)
    }

    /// Goes on where the target stands.
    fn begin(&mut self, world: &World, sink: usize, from: &Position) -> Option<Held> {
        let facts = world.facts();
        let (target, origin) = (&facts.exact[sink], facts.origin.unwrap_or(0));
        let held = target.held();
        self.lacks = target.next.unwrap_or(origin);
        (self.written, self.staged_from) = (self.lacks, self.lacks);
        (self.place, self.inside) = (target.place, target.inside);
        if held.is_none() {
            self.place = lsn(from).unwrap_or(0);
        }
        held
    }
}

fn no_answer() -> Fault {
    Fault::retry("sim.timeout", "no answer in time").kind(Kind::Timeout)
}

/// The fault of a connection whose target somebody else has.
pub(super) fn fenced() -> Fault {
    Fault::new(Class::Fenced, FENCED, "somebody else has taken the target over").kind(Kind::Rejected)
}
