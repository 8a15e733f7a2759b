//! What the target of an exactly-once sink holds, as far as its lane knows. Pure: every case is a test below.
//!
//! A target that stores positions is asked, not believed: before the first delivery of each connection the sink tells what is
//! there ([`Held`]), and this is compared with what the lane has had acknowledged.
//!
//! ```text
//!   acknowledged      known = E₂         to be delivered again
//!   ────────────────────────┤  part 1  part 2(E₃)  batch(E₄)  …
//!   the target holds        E₂: nothing of it arrived
//!                                               E₃: the answer was lost: as good as acknowledged
//!                                     inside: the rest of the batch after that event
//!   anything else           before anything was delivered: the pipeline begins again from what is there;
//!                           later: somebody else delivers as this sink
//! ```

use deltaforge_core::sink::Held;
use deltaforge_core::{Class, EventId, Fault, Position};

/// What a lane knows of its target.
#[derive(Debug)]
pub(super) struct Standing {
    /// Where the first batch that has no acknowledgement begins.
    from: Position,
    /// What the sink said when the start was chosen, until the first delivery.
    at_start: Option<Option<Held>>,
    /// The last event of the last acknowledged batch.
    last_event: Option<EventId>,
    /// Acknowledged parts of a transaction that goes on.
    staged: usize,
    /// Everything up to this event is held, and is not delivered.
    skip: Option<EventId>,
    /// Where that event's batch ends, or a place before it.
    skip_until: Position,
}

/// One batch to be delivered again, as far as it matters here.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) end: Option<Position>,
}

/// What follows from what the target holds.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The first so many batches are there; deliver the others.
    GoOn(usize),
    /// Nothing that is at hand fits: read again from where the target stands.
    BeginAgain(Fault),
    /// It cannot be.
    Stop(Fault),
}

impl Standing {
    /// `from` is where the pipeline starts, `at_start` what the sink said then.
    pub(super) fn new(from: Position, at_start: Option<Held>) -> Standing {
        Standing {
            skip_until: from.clone(),
            from,
            at_start: Some(at_start),
            last_event: None,
            staged: 0,
            skip: None,
        }
    }

    /// Where the first batch to deliver begins.
    pub(super) fn from(&self) -> &Position {
        &self.from
    }

    /// Compares with what the target holds for certain; `again` are the batches without an acknowledgement, in order.
    pub(super) fn compare(
        &mut self,
        target: Option<&Held>,
        again: impl Iterator<Item = Waiting>,
    ) -> Verdict {
        if let Some(at_start) = self.at_start.take() {
            return self.compare_with_start(at_start.as_ref(), target);
        }
        self.skip = None;
        let Some(target) = target else {
            // Nothing was ever committed, neither by us.
            let nothing_yet = self.last_event.is_none();
            return if nothing_yet { Verdict::GoOn(0) } else { Verdict::Stop(position_lost()) };
        };
        if target.position == self.from {
            let there = target.inside && Some(target.event) != self.last_event;
            if self.staged > 0 && !target.inside {
                return Verdict::BeginAgain(staged_lost());
            }
            self.hold(there.then_some(target.event), target);
            return Verdict::GoOn(0);
        }
        let mut ends = again.enumerate();
        match ends.find(|(_, waiting)| waiting.end.as_ref() == Some(&target.position)) {
            Some((index, _)) => {
                self.hold(target.inside.then_some(target.event), target);
                Verdict::GoOn(index + 1)
            }
            None => Verdict::Stop(moved(Class::Fenced)),
        }
    }

    fn compare_with_start(&mut self, at_start: Option<&Held>, target: Option<&Held>) -> Verdict {
        if at_start != target {
            return Verdict::BeginAgain(moved(Class::Retry));
        }
        if let Some(target) = target {
            // The start lies before what is held here, because another sink needs it.
            let behind = target.inside || target.position != self.from;
            self.last_event = Some(target.event);
            self.hold(behind.then_some(target.event), target);
        }
        Verdict::GoOn(0)
    }

    fn hold(&mut self, event: Option<EventId>, target: &Held) {
        self.skip = event;
        self.skip_until.clone_from(&target.position);
    }

    /// The event up to which everything is held, and the last whole position there, while it has not come by.
    pub(super) fn skips(&self) -> Option<(EventId, &Position)> {
        self.skip.map(|event| (event, &self.skip_until))
    }

    /// The event has come by.
    pub(super) fn skipped(&mut self) {
        self.skip = None;
    }

    /// A batch was acknowledged.
    pub(super) fn acknowledged(&mut self, end: Option<&Position>, last_event: Option<EventId>) {
        self.last_event = last_event.or(self.last_event);
        match end {
            Some(end) => {
                self.from.clone_from(end);
                self.staged = 0;
            }
            None => self.staged += 1,
        }
    }
}

fn moved(class: Class) -> Fault {
    let message = "the target holds another position than the one this sink stored last: another process delivers as this sink";
    Fault::new(class, "sink.position_moved", message)
        .hint("run one process per pipeline; two pipelines of one name need sinks with different ids")
}

fn staged_lost() -> Fault {
    let message = "the target's transaction was given up with a part of a source transaction in it";
    Fault::retry("sink.transaction_lost", message)
        .hint("the source transaction is read again from its start; nothing of it has taken effect")
}

fn position_lost() -> Fault {
    Fault::lost("sink.position_lost", "the target no longer holds the position that this sink stored there").hint(
        "resume the pipeline: it goes on from the state store's checkpoint, and what was delivered since its last save comes twice",
    )
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
