//! The invariants, each checked at the moment at which it could break.

use super::log::{MAX_EVENT_BYTES, event_id, event_index, lsn, payload};
use super::plan::Stores;
use super::world::{Facts, LaneFacts, Run, World};
use deltaforge_core::batch::{Batch, Event, Op};
use deltaforge_core::checkpoint::Checkpoint;
use deltaforge_core::sink::Delivery;
use deltaforge_core::{Position, Value};
use deltaforge_engine::spec::CommitPolicy;
use std::sync::Arc;

impl World {
    /// A sink is handed a batch: order, contiguity, identity, content, limits, whole transactions, ends.
    /// `lacks` is the event that an exactly-once sink's target lacks first, once this connection's other batches are there.
    pub(super) fn check_delivery(
        &self,
        run: usize,
        sink: usize,
        batch: &Arc<Batch>,
        delivery: Delivery,
        lacks: Option<u64>,
    ) {
        let mut wrong = self.check_order(run, sink, batch, delivery, lacks);
        wrong.extend(self.check_shape(run, sink, batch));
        wrong.extend(batch.events().enumerate().filter_map(|(n, event)| self.check_event(&event, n)).take(1));
        wrong.extend(self.check_schema_numbers(batch));
        self.note_batch(batch);
        if batch.end().is_none_or(|end| end.events_done > 0) {
            self.count("batches that end inside a transaction");
        }
        for what in wrong {
            self.violated(format!("run {run}, sink{sink}, batch {}: {what}", delivery.seq.0));
        }
        self.check_memory(run);
    }

    /// Nothing is left out; what comes again comes as a contiguous stretch, and only for a reason.
    fn check_order(
        &self,
        run: usize,
        sink: usize,
        batch: &Batch,
        delivery: Delivery,
        lacks: Option<u64>,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let (strict, is_exact) = (self.plan.must_reach(sink), lacks.is_some());
        let mut facts = self.facts();
        facts.handed_over = true;
        let Facts { runs, .. } = &mut *facts;
        let Some(of_run) = runs.get_mut(run) else { return wrong };
        of_run.deliveries += 1;
        if of_run.epoch != Some(delivery.epoch) {
            wrong.push(format!("epoch {:?} instead of {:?}", delivery.epoch, of_run.epoch));
        }
        if !of_run.resumed && of_run.saves == 0 {
            wrong.push("delivered before the place of its start was saved".into());
        }
        if of_run.over {
            wrong.push("delivered by an engine that has ended".into());
        }
        let lane = of_run.lanes[sink].clone();
        let seq_due = lane.last_seq.unwrap_or(lane.next_seq) + 1;
        let seq = delivery.seq.0;
        // A batch that the target holds is not handed over.
        if (strict && !is_exact && seq != seq_due) || seq < seq_due {
            wrong.push(format!("batch number {seq} where {seq_due} is due"));
        }
        let mut due = lacks.or(lane.last.map(|last| last + 1)).or(lane.next).or(of_run.from).unwrap_or(0);
        for event in batch.events() {
            let Some(index) = event_index(event.id()).filter(|i| *i < self.log.len()) else {
                wrong.push(format!("an event that never was: {}", event.id()));
                break;
            };
            let passed_over = index > due && !strict;
            let may_come_again = !is_exact && self.may_come_again(of_run, strict, due, index);
            if index != due && !passed_over && !may_come_again {
                wrong.push(format!("event {index} comes where {due} is due"));
                break;
            }
            due = index + 1;
        }
        of_run.handed = of_run.handed.max(due);
        let lane = &mut of_run.lanes[sink];
        lane.last = due.checked_sub(1);
        lane.last_seq = Some(seq);
        wrong
    }

    /// After a break the source reads the transaction that was open again, and what left of it in parts comes again.
    fn may_come_again(&self, run: &Run, strict: bool, due: u64, index: u64) -> bool {
        if run.breaks == 0 || !run.batch.respect_source_tx || due == 0 || index >= due {
            return false;
        }
        let open = self.log.transaction(due - 1);
        let is_inside = due < open.first + u64::from(open.count);
        // A sink that nobody waits for may have been passed over when the beginning came again.
        is_inside && (index == open.first || run.from == Some(index) || (!strict && index > open.first))
    }

    /// Limits hold, transactions within them are whole, and the batch says truly where it ends.
    fn check_shape(&self, run: usize, sink: usize, batch: &Batch) -> Vec<String> {
        let mut wrong = Vec::new();
        let facts = self.facts();
        let of_run = &facts.runs[run];
        let settings = of_run.batch;
        if batch.len() > settings.max_events {
            wrong.push(format!("{} events where {} are allowed", batch.len(), settings.max_events));
        }
        if batch.estimated_bytes() > settings.max_bytes && batch.len() > 1 {
            wrong.push(format!("{} bytes where {} are allowed", batch.estimated_bytes(), settings.max_bytes));
        }
        let ids = |n: usize| batch.event(n).and_then(|e| event_index(e.id())).filter(|i| *i < self.log.len());
        let (Some(first), Some(last)) = (ids(0), ids(batch.len().saturating_sub(1))) else { return wrong };
        if self.plan.sinks[sink].refuses_every.is_some() {
            return wrong; // Its batches may have lost events at either end.
        }
        let is_split = |index: u64, at_start: bool| {
            let transaction = self.log.transaction(index);
            let fits = transaction.count as usize <= settings.max_events
                && transaction.count as usize * MAX_EVENT_BYTES <= settings.max_bytes;
            let end = transaction.first + u64::from(transaction.count) - 1;
            let edge = if at_start { transaction.first } else { end };
            // What a chain holds of a transaction is left out.
            let may_begin = of_run.from == Some(index) || self.plan.sinks[sink].stores == Stores::Chain;
            fits && index != edge && !(at_start && may_begin)
        };
        if settings.respect_source_tx && (is_split(first, true) || is_split(last, false)) {
            wrong.push(format!("events {first} to {last} split a transaction that is within the limits"));
        }
        let transaction = self.log.transaction(last);
        let is_end = last + 1 == transaction.first + u64::from(transaction.count);
        match batch.end() {
            Some(end) => {
                let place = lsn(&end.position).and_then(|lsn| self.log.bound(lsn));
                if place.map(|bound| bound + end.events_done) != Some(last + 1) {
                    wrong.push(format!("ends at event {last} and says {end:?}"));
                }
                if settings.respect_source_tx && end.events_done > 0 {
                    wrong.push(format!("says that it ends inside a transaction: {end:?}"));
                }
            }
            None if is_end || !settings.respect_source_tx => wrong.push("does not say where it ends".into()),
            None => {}
        }
        wrong
    }

    /// The event is what the source committed, down to its orders; its rows are read through, every so often to the last byte.
    fn check_event(&self, event: &Event<'_>, nth: usize) -> Option<String> {
        let index = event_index(event.id()).filter(|i| *i < self.log.len())?;
        let change = &self.log.changes[index as usize];
        let transaction = event.transaction();
        let orders = transaction.map(|t| (t.total_order, t.table_order));
        if orders != Some((u64::from(change.ordinal) + 1, u64::from(change.table_order))) {
            return Some(format!("event {index} has the orders {orders:?} instead of {change:?}"));
        }
        let columns = event.table().columns.len();
        let table = event.table().name.table.as_bytes();
        if event.op() != change.op
            || columns != 3 + usize::from(change.shape)
            || table != [b't', b'0' + change.table]
        {
            return Some(format!("event {index} is {event:?} instead of {change:?}"));
        }
        let row = match change.op {
            Op::Truncate | Op::Ddl => return None,
            Op::Delete => event.before(),
            _ => event.after(),
        };
        let Some(row) = row else { return Some(format!("event {index} has no row")) };
        let version = if change.op == Op::Delete { Value::Null } else { Value::Uint(index) };
        let whole =
            !nth.is_multiple_of(16) || change.op == Op::Delete || row.get(2) == Value::Text(payload(index));
        if row.get(0) != Value::Int(change.key.into()) || row.get(1) != version || !whole {
            return Some(format!("event {index} has a row that is not its own: {row:?}"));
        }
        None
    }

    /// A shape keeps its number in every replay, and a batch does not carry shapes without end.
    fn check_schema_numbers(&self, batch: &Batch) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut facts = self.facts();
        let mut last = None;
        for event in batch.events() {
            let (table, number) = (event.table_index(), event.table().sequence);
            let Some(index) = event_index(event.id()).filter(|i| *i < self.log.len() && last != Some(table))
            else {
                continue;
            };
            last = Some(table);
            let change = &self.log.changes[index as usize];
            let known = *facts.schema_numbers.entry((change.table, change.shape)).or_insert(number);
            if known != number {
                wrong.push(format!("event {index} has schema {number}, before it had {known}"));
                break;
            }
        }
        let shapes = usize::from(self.log.tables) * 6;
        if batch.tables().len() > shapes {
            wrong.push(format!("carries {} shapes, there are at most {shapes}", batch.tables().len()));
        }
        wrong
    }

    fn note_batch(&self, batch: &Arc<Batch>) {
        let mut facts = self.facts();
        facts.batches.retain(|b| b.strong_count() > 0);
        let weak = Arc::downgrade(batch);
        if !facts.batches.iter().any(|b| b.ptr_eq(&weak)) {
            facts.batches.push(weak);
        }
    }

    /// What is held stays below the ceiling but for the batch that was begun below it, and is what is really there.
    pub(super) fn check_memory(&self, run: usize) {
        let facts = self.facts();
        let Some(of_run) = facts.runs.get(run).filter(|r| !r.over) else { return };
        let held = of_run.budget.held();
        let settings = of_run.batch;
        // A builder and its spare: capacities are powers of two, a slot is below 200 bytes.
        let events = settings.max_events.min(settings.max_bytes / 400 + 1);
        let batch =
            4 * (settings.max_bytes.min(events * MAX_EVENT_BYTES) + MAX_EVENT_BYTES) + 400 * (events + 4);
        let ceiling = self.plan.memory_limit.min(self.plan.process_limit) + 2 * batch as u64;
        // The rest of a batch is a copy.
        let refuses = self.plan.exact || self.plan.sinks.iter().any(|s| s.refuses_every.is_some());
        let alive: usize =
            facts.batches.iter().filter_map(std::sync::Weak::upgrade).map(|b| b.memory_bytes()).sum();
        let several = facts.runs.iter().filter(|r| !r.over).count() > 1;
        drop(facts);
        if held > ceiling {
            self.violated(format!("run {run} holds {held} bytes, the ceiling and a batch are {ceiling}"));
        }
        if !refuses && !several && alive as u64 > held {
            self.violated(format!("run {run} holds {alive} bytes in batches and counts {held}"));
        }
    }

    /// A sink has acknowledged a batch to an engine.
    pub(super) fn note_acknowledged(&self, run: usize, sink: usize, batch: &Batch, seq: u64) {
        let mut facts = self.facts();
        let Facts { runs, acknowledged, .. } = &mut *facts;
        let Some(of_run) = runs.get_mut(run) else { return };
        of_run.acknowledgements += 1;
        let LaneFacts { next, next_seq, acknowledged: mine, .. } = &mut of_run.lanes[sink];
        mine.resize(self.log.changes.len(), false);
        for index in batch.events().filter_map(|e| event_index(e.id())).filter(|i| *i < self.log.len()) {
            // What is staged is nowhere yet: a target that stores positions says itself what it holds.
            if self.plan.sinks[sink].stores == Stores::Nothing {
                acknowledged[index as usize] |= 1 << sink;
            }
            mine[index as usize] = true;
            *next = Some(index + 1);
        }
        *next_seq = seq;
        self.settle(&mut facts);
    }

    /// Moves the frontier of what the policy counts as delivered.
    pub(super) fn settle(&self, facts: &mut Facts) {
        let Some(origin) = facts.origin else { return };
        facts.settled = facts.settled.max(origin);
        let counts = |bits: u8| match self.plan.policy {
            CommitPolicy::Quorum(n) => bits.count_ones() as usize >= n,
            _ => (0..self.plan.sinks.len()).all(|sink| !self.plan.must_reach(sink) || bits & (1 << sink) > 0),
        };
        while facts.acknowledged.get(facts.settled as usize).is_some_and(|bits| counts(*bits)) {
            facts.settled += 1;
        }
    }

    /// Whether an engine holds whole transactions back although every sink has answered for all that it was handed.
    pub(super) fn holds_back(&self, run: &Run) -> bool {
        let (Some(from), Some(given)) = (run.from, run.given.and_then(|lsn| self.log.bound(lsn))) else {
            return false;
        };
        let handed = run.handed.max(from);
        let mut strict = (0..run.lanes.len()).filter(|sink| self.plan.must_reach(*sink)).peekable();
        let is_answered = |sink: usize| {
            let lane = &run.lanes[sink];
            lane.is_open && lane.next.unwrap_or(from) == handed
        };
        strict.peek().is_some() && strict.all(is_answered) && given > handed
    }

    /// How far an engine has come by itself, as the policy counts.
    pub(super) fn reached_by(&self, run: &Run) -> u64 {
        let is_quorum = matches!(self.plan.policy, CommitPolicy::Quorum(_));
        let counts = |sink: &usize| is_quorum || self.plan.must_reach(*sink);
        let next = |sink: usize| run.lanes[sink].next.unwrap_or(0);
        let mut reached: Vec<u64> = (0..run.lanes.len()).filter(counts).map(next).collect();
        reached.sort_unstable_by(|a, b| b.cmp(a));
        let counted = if let CommitPolicy::Quorum(n) = self.plan.policy { n } else { reached.len() };
        counted.checked_sub(1).and_then(|n| reached.get(n).copied()).unwrap_or(0)
    }

    /// I1 before a save: the place is an end that was read, everything before it is acknowledged, and it never goes back.
    pub(super) fn check_save(&self, run: usize, checkpoint: &Checkpoint) {
        let facts = self.facts();
        let mut wrong = Vec::new();
        let place = lsn(&checkpoint.position);
        let Some((lsn, bound)) = place.and_then(|lsn| Some((lsn, self.log.bound(lsn)?))) else {
            drop(facts);
            return self
                .violated(format!("run {run} saves {}, which is inside a transaction", checkpoint.position));
        };
        let (index, settled) = (bound + checkpoint.events_done, facts.settled.max(facts.origin.unwrap_or(0)));
        let of_run = &facts.runs[run];
        let is_owner = facts.runs.iter().all(|other| other.epoch <= of_run.epoch);
        if !is_owner && !of_run.resumed && of_run.saves == 0 {
            return; // The start that a replaced engine chose; the store refuses it, and no event was handed over before.
        }
        if self.plan.counts_acknowledgements() && index > settled {
            wrong.push(format!(
                "saves {lsn} (event {index}) while everything is acknowledged only up to {settled}"
            ));
        }
        if lsn > facts.read {
            wrong.push(format!("saves {lsn}, and nobody was given more than {}", facts.read));
        }
        if checkpoint.events_done > 0 && of_run.batch.respect_source_tx && !of_run.from_inside {
            wrong.push(format!("saves inside a transaction: {lsn} and {} events", checkpoint.events_done));
        }
        if is_owner && index < facts.saved_index {
            wrong.push(format!("saves event {index} after {} was saved", facts.saved_index));
        }
        for event in facts.saved_index..index {
            let change = &self.log.changes[event as usize];
            let number = facts.schema_numbers.get(&(change.table, change.shape)).copied().unwrap_or(0);
            if number > facts.stored_schemas {
                wrong.push(format!("saves event {event} whose schema {number} is not stored"));
                break;
            }
        }
        for progress in &checkpoint.sinks {
            let sink = self.plan.sinks.iter().position(|s| s.id == progress.sink);
            if sink.is_some_and(|s| self.plan.sinks[s].refuses_every.is_some()) {
                continue; // A batch whose only event is refused counts as taken.
            }
            let says = super::log::lsn(&progress.position).and_then(|lsn| self.log.bound(lsn));
            let newest = sink.and_then(|s| facts.acknowledged.iter().rposition(|bits| bits & (1 << s) > 0));
            if says.is_none_or(|says| says > newest.map_or(facts.origin.unwrap_or(0), |n| n as u64 + 1)) {
                wrong.push(format!("says that {} has acknowledged {}", progress.sink, progress.position));
            }
        }
        drop(facts);
        for what in wrong {
            self.violated(format!("run {run} {what}"));
        }
        self.check_released();
        self.check_memory(run);
    }

    /// The store holds a checkpoint from now on.
    pub(super) fn note_saved(&self, run: usize, checkpoint: &Checkpoint) {
        let mut facts = self.facts();
        let lsn = lsn(&checkpoint.position).unwrap_or(0);
        facts.saved = Some((lsn, checkpoint.events_done));
        facts.saved_index = self.log.bound(lsn).unwrap_or(0) + checkpoint.events_done;
        facts.runs[run].saves += 1;
        facts.state_is_lost = false;
    }

    /// I1: nobody is told a place that is not saved, or that is not an end.
    pub(super) fn check_released(&self) {
        let facts = self.facts();
        let saved = facts.saved.map(|(lsn, _)| lsn);
        let told = facts.runs.iter().filter(|r| !r.over).filter_map(|r| r.released.as_ref()?.get());
        let wrong: Vec<Position> = told
            .filter(|position| {
                let lsn = lsn(position).filter(|lsn| self.log.bound(*lsn).is_some());
                lsn.is_none() || lsn > saved
            })
            .collect();
        drop(facts);
        for position in wrong {
            self.violated(format!("{position} is released while {saved:?} is saved"));
        }
    }

    /// The server learns what is released, and forgets everything before it.
    pub(super) fn prune(&self) {
        self.check_released();
        let mut facts = self.facts();
        let released = facts.runs.iter().filter_map(|r| lsn(&r.released.as_ref()?.get()?)).max();
        facts.pruned = facts.pruned.max(released.unwrap_or(0));
    }

    /// What a stopped engine did not deliver to a sink, it has counted.
    pub(super) fn check_given_up(&self, run: usize, sink: usize, given_up: u64) {
        if self.plan.sinks[sink].stores != Stores::Nothing {
            if given_up > 0 {
                self.violated(format!(
                    "run {run} gave up {given_up} events for sink{sink}, which stores positions"
                ));
            }
            return;
        }
        let facts = self.facts();
        let of_run = &facts.runs[run];
        let mine = &of_run.lanes[sink].acknowledged;
        let (from, to) = (of_run.from.unwrap_or(facts.saved_index), facts.saved_index);
        let passed_over = (from..to).filter(|i| !mine.get(*i as usize).is_some_and(|is| *is)).count() as u64;
        // A task that broke down while it was closed takes its batches along uncounted.
        let broke_down = !of_run.doomed.is_empty();
        drop(facts);
        if passed_over > 0 {
            self.count("sinks passed over");
        }
        if passed_over > given_up && !broke_down {
            let what = format!("{passed_over} events were passed over and {given_up} counted as given up");
            self.violated(format!("run {run}, sink{sink}: {what}"));
        }
    }

    /// All that is to be true of a target in the end.
    pub(super) fn check_target(&self, sink: usize) {
        let facts = self.facts();
        let mut wrong = Vec::new();
        let origin = facts.origin.unwrap_or(0);
        if self.plan.sinks[sink].stores != Stores::Nothing {
            wrong.extend(facts.exact[sink].is_incomplete(origin, &self.log));
        }
        let target = &facts.targets[sink];
        let missing: Vec<u64> = (origin..self.log.len()).filter(|i| !target.seen[*i as usize]).collect();
        if self.plan.must_reach(sink) && !missing.is_empty() {
            wrong.push(format!("{} events are lost, the first is {}", missing.len(), missing[0]));
        }
        // Two engines at once write in any order; each of them keeps its own, which was checked as it wrote. And where a replay
        // may have holes, an old event may stay the last.
        if missing.is_empty() && self.plan.must_reach(sink) && !self.plan.two_engines {
            let mut tables = self.log.empty();
            (origin..self.log.len()).for_each(|index| self.log.fold(&mut tables, index));
            if let Some(row) = (0..tables.len()).find(|row| tables[*row] != target.tables[*row]) {
                let (is, due) = (target.tables[row], tables[row]);
                wrong.push(format!("row {row} is as of event {is}, at the source as of {due}"));
            }
        }
        drop(facts);
        for what in wrong {
            self.violated(format!("sink{sink}: {what}"));
        }
    }

    /// A target applies a batch.
    pub(super) fn apply(&self, sink: usize, batch: &Batch) {
        let mut facts = self.facts();
        let target = &mut facts.targets[sink];
        for index in batch.events().filter_map(|e| event_index(e.id())).filter(|i| *i < self.log.len()) {
            debug_assert_eq!(event_id(index), event_id(index));
            self.log.fold(&mut target.tables, index);
            target.seen[index as usize] = true;
            target.applied += 1;
        }
    }
}
