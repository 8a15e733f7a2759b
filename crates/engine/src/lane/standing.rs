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
//!   anything else           before anything was delivered, or when it lies before E₂ (the target has lost what it had
//!                           acknowledged): the pipeline begins again from what is there;
//!                           otherwise somebody else delivers as this sink
//! ```

use deltaforge_core::sink::Held;
use deltaforge_core::{Class, EventId, Fault, Position};
use std::cmp::Ordering;

/// What a lane knows of its target.
#[derive(Debug)]
pub(super) struct Standing {
    /// Where the first batch that has no acknowledgement, or the transaction that it is a part of, begins.
    from: Position,
    /// What the sink said when the start was chosen, until the first delivery.
    at_start: Option<Option<Held>>,
    /// The target has held a position.
    is_begun: bool,
    /// What the target held at the start, where that lies behind `from`: it holds that until something is delivered.
    ahead: Option<Position>,
    /// Events of acknowledged parts of a transaction that goes on.
    staged: u64,
    skip: Option<Skip>,
    /// Events may have become dead letters: fewer are held than come again.
    with_letters: bool,
}

/// Everything up to an event is held, and is not delivered.
#[derive(Debug)]
struct Skip {
    event: EventId,
    /// The last whole position there.
    position: Position,
    /// Events held behind it.
    inside: u64,
    /// Events until `event`, that one included; `None` while batches in front of `position` come by.
    left: Option<u64>,
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

/// How much of a batch is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skipped {
    Nothing,
    /// Up to this event.
    Through(EventId),
    Whole,
}

impl Standing {
    /// `from` is where the pipeline starts, `at_start` what the sink said then.
    pub(super) fn new(from: Position, at_start: Option<Held>) -> Standing {
        Standing {
            from,
            at_start: Some(at_start),
            is_begun: false,
            ahead: None,
            staged: 0,
            skip: None,
            with_letters: false,
        }
    }

    /// For a sink whose events may become dead letters.
    pub(super) fn with_letters(mut self, with_letters: bool) -> Standing {
        self.with_letters = with_letters;
        self
    }

    /// The last whole position, as the lane knows it.
    pub(super) fn from(&self) -> &Position {
        &self.from
    }

    /// Whether nothing of a transaction that goes on is at the target, and nothing is to be skipped: what is committed now
    /// with the last whole position takes nothing back.
    pub(super) fn is_between(&self) -> bool {
        self.staged == 0 && self.skip.is_none()
    }

    /// Compares with what the target holds for certain; `again` are the batches without an acknowledgement, in order. `order`
    /// orders positions.
    pub(super) fn compare(
        &mut self,
        target: Option<&Held>,
        again: impl Iterator<Item = Waiting>,
        order: impl FnOnce(&Position, &Position) -> Option<Ordering>,
    ) -> Verdict {
        if let Some(at_start) = self.at_start.take() {
            return self.compare_with_start(at_start.as_ref(), target, order);
        }
        self.skip = None;
        let Some(target) = target else {
            return match self.staged {
                _ if self.is_begun => Verdict::Stop(position_lost()),
                // Nothing was ever committed, neither by us.
                0 => Verdict::GoOn(0),
                _ => Verdict::BeginAgain(staged_lost()),
            };
        };
        if target.position == self.from {
            return match target.inside.checked_sub(self.staged) {
                None => Verdict::BeginAgain(staged_lost()),
                Some(0) => Verdict::GoOn(0),
                left => {
                    self.hold(target, left);
                    Verdict::GoOn(0)
                }
            };
        }
        let mut ends = again.enumerate();
        match ends.find(|(_, waiting)| waiting.end.as_ref() == Some(&target.position)) {
            Some((index, _)) => {
                if target.inside > 0 {
                    self.hold(target, Some(target.inside));
                }
                Verdict::GoOn(index + 1)
            }
            None if self.ahead.as_ref() == Some(&target.position) => {
                self.hold(target, None);
                Verdict::GoOn(0)
            }
            None if order(&target.position, &self.from) == Some(Ordering::Less) => {
                Verdict::BeginAgain(target_lost(&target.position, &self.from))
            }
            None => Verdict::Stop(moved(Class::Fenced)),
        }
    }

    fn compare_with_start(
        &mut self,
        at_start: Option<&Held>,
        target: Option<&Held>,
        order: impl FnOnce(&Position, &Position) -> Option<Ordering>,
    ) -> Verdict {
        if at_start != target {
            return Verdict::BeginAgain(moved(Class::Retry));
        }
        let Some(target) = target else { return Verdict::GoOn(0) };
        self.is_begun = true;
        if order(&target.position, &self.from) == Some(Ordering::Less) {
            // Nothing for it lies between: the checkpoint knew.
            self.from.clone_from(&target.position);
        }
        if target.position != self.from {
            // The start lies before what is held here, because another sink needs it.
            self.ahead = Some(target.position.clone());
            self.hold(target, None);
        } else if target.inside > 0 {
            self.hold(target, Some(target.inside));
        }
        Verdict::GoOn(0)
    }

    fn hold(&mut self, target: &Held, left: Option<u64>) {
        let Held { position, event, inside } = target.clone();
        self.skip = Some(Skip { event, position, inside, left });
    }

    /// How much of the next batch is held; `at` is where in it an event stands, `is_beyond` whether its end lies behind a position.
    ///
    /// # Errors
    /// `Lost` when the event up to which everything is held should have come, and did not: what was captured then is not what
    /// is captured now.
    pub(super) fn skip(
        &mut self,
        events: u64,
        at: impl FnOnce(EventId) -> Option<usize>,
        is_beyond: impl Fn(&Position) -> bool,
    ) -> Result<Skipped, Fault> {
        let Some(skip) = &mut self.skip else { return Ok(Skipped::Nothing) };
        if at(skip.event).is_some() {
            let (event, is_last) = (skip.event, skip.inside == 0 && !is_beyond(&skip.position));
            self.skip = None;
            return Ok(if is_last { Skipped::Whole } else { Skipped::Through(event) });
        }
        match &mut skip.left {
            Some(left) if *left > events => *left -= events,
            // The event is in a later part of the transaction, unless this one was the last.
            Some(left) if self.with_letters && !is_beyond(&skip.position) => *left = 1,
            Some(_) => return Err(not_met(&skip.position)),
            None if !is_beyond(&skip.position) => {}
            // All between the event and the position were dead letters: the event lies before the start.
            None if skip.inside == 0 && self.with_letters => {
                self.skip = None;
                return Ok(Skipped::Nothing);
            }
            None if skip.inside == 0 => return Err(not_met(&skip.position)),
            None => skip.left = Some(skip.inside),
        }
        Ok(Skipped::Whole)
    }

    /// A batch was acknowledged, or found to be held, and its end not `stored`.
    pub(super) fn acknowledged(&mut self, end: Option<&Position>, events: u64, stored: bool) {
        match end {
            Some(end) => {
                self.is_begun = true;
                if stored {
                    self.ahead = None;
                }
                self.from.clone_from(end);
                self.staged = 0;
            }
            None => self.staged += events,
        }
    }
}

fn not_met(position: &Position) -> Fault {
    let message = format!(
        "the target holds events up to one behind {position} that did not come again: other tables are captured now"
    );
    Fault::lost("sink.event_not_met", message)
        .hint("run with the same `tables` as before until every sink has caught up, then change them")
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

fn target_lost(target: &Position, acknowledged: &Position) -> Fault {
    let message = format!(
        "the target holds {target}, it had acknowledged {acknowledged}: it has lost what came between"
    );
    Fault::retry("sink.target_lost", message)
        .hint("what was lost is delivered again; look at the target's replication and fsync settings")
}

fn position_lost() -> Fault {
    Fault::lost("sink.position_lost", "the target no longer holds the position that this sink stored there").hint(
        "resume the pipeline: it goes on from the state store's checkpoint, and what was delivered since its last save comes twice",
    )
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
