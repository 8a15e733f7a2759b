//! How far a pipeline has come. Pure: no clock, no task, no I/O, so that the simulation can walk through every order of events.
//!
//! ```text
//!   seq      1     2     3     4     5          end of a transaction: E, inside one: ·
//!            E     ·     E     E     E
//!   sink a   ✓     ✓     ✓           ✓          settled   = 1, 2, 3: what the policy counts, without a hole
//!   sink b   ✓     ✓     ✓     ✓                safe      = the end of 3, the last end within `settled`
//!                                               saved     = what the store holds, ≤ safe
//! ```
//!
//! Only `safe` is ever saved, and only what is saved is released to the source: invariant I1. A batch that failed is not
//! delivered, so nothing after it is settled, whatever later batches do: there is no way past a hole.

use crate::spec::CommitPolicy;
use deltaforge_core::position::{BatchSeq, End};
use std::collections::VecDeque;

/// What became of a batch at one sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Pending,
    Delivered,
    GivenUp,
}

#[derive(Debug)]
struct Entry {
    seq: BatchSeq,
    events: u64,
    first_ts_us: i64,
    end: Option<End>,
    outcomes: Vec<Outcome>,
}

/// The batches in flight and the places they lead to.
#[derive(Debug)]
pub struct Progress {
    policy: CommitPolicy,
    required: Vec<bool>,
    entries: VecDeque<Entry>,
    next: BatchSeq,
    safe: Option<End>,
    /// Commit time of the oldest event that is settled and not covered by `saved`, and how many there are.
    unsaved_ts_us: Option<i64>,
    unsaved_events: u64,
    saved: Option<End>,
}

/// A batch that the policy counts as delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Which.
    pub seq: BatchSeq,
    /// Its events.
    pub events: u64,
}

impl Progress {
    /// Nothing in flight; `required` has a flag for each sink, `saved` is what the store holds.
    pub fn new(policy: CommitPolicy, required: Vec<bool>, saved: Option<End>) -> Progress {
        Progress {
            policy,
            required,
            entries: VecDeque::new(),
            next: BatchSeq(1),
            safe: saved.clone(),
            unsaved_ts_us: None,
            unsaved_events: 0,
            saved,
        }
    }

    /// A batch goes to the sinks; `end` is `None` inside a transaction that goes on.
    pub fn cut(&mut self, events: u64, first_ts_us: i64, end: Option<End>) -> BatchSeq {
        let seq = self.next;
        self.next = BatchSeq(seq.0 + 1);
        let outcomes = vec![Outcome::Pending; self.required.len()];
        self.entries.push_back(Entry { seq, events, first_ts_us, end, outcomes });
        seq
    }

    /// The source has read up to a place with nothing for the sinks since the last batch.
    pub fn advance(&mut self, end: End) {
        match self.entries.back_mut() {
            // Also behind a part of a transaction that broke off: the place then lies in front of that transaction.
            Some(last) => last.end = Some(end),
            None => self.safe = Some(end),
        }
    }

    /// A sink has acknowledged a batch; gives the batches that this settles, in order.
    pub fn delivered(&mut self, sink: usize, seq: BatchSeq) -> Vec<Settled> {
        self.note(sink, seq, Outcome::Delivered)
    }

    /// A sink will never take a batch, and the policy does not count that sink.
    pub fn given_up(&mut self, sink: usize, seq: BatchSeq) -> Vec<Settled> {
        self.note(sink, seq, Outcome::GivenUp)
    }

    fn note(&mut self, sink: usize, seq: BatchSeq, outcome: Outcome) -> Vec<Settled> {
        // A batch that left with its policy fulfilled is no longer here; a slower sink's word for it changes nothing.
        if let Some(entry) = self.entries.iter_mut().find(|e| e.seq == seq) {
            entry.outcomes[sink] = outcome;
        }
        let mut settled = Vec::new();
        while self.entries.front().is_some_and(|e| self.holds(e)) {
            let Some(entry) = self.entries.pop_front() else { break };
            settled.push(Settled { seq: entry.seq, events: entry.events });
            self.unsaved_events += entry.events;
            self.unsaved_ts_us = self.unsaved_ts_us.or(Some(entry.first_ts_us));
            if entry.end.is_some() {
                self.safe = entry.end;
            }
        }
        settled
    }

    /// Whether the policy counts the batch as delivered.
    fn holds(&self, entry: &Entry) -> bool {
        let delivered = |o: &Outcome| *o == Outcome::Delivered;
        match self.policy {
            CommitPolicy::All => entry.outcomes.iter().all(delivered),
            CommitPolicy::Quorum(n) => entry.outcomes.iter().filter(|o| delivered(o)).count() >= n,
            CommitPolicy::Required if self.required.contains(&true) => {
                entry.outcomes.iter().zip(&self.required).all(|(o, required)| !required || delivered(o))
            }
            // Without a required sink the checkpoint follows the attempts.
            CommitPolicy::Required => entry.outcomes.iter().all(|o| *o != Outcome::Pending),
        }
    }

    /// Whether the policy may have to wait for this sink, so that it must never give a batch up.
    pub fn waits_for(&self, sink: usize) -> bool {
        match self.policy {
            CommitPolicy::All | CommitPolicy::Quorum(_) => true,
            CommitPolicy::Required => self.required[sink],
        }
    }

    /// Batches that are not settled.
    pub fn in_flight(&self) -> usize {
        self.entries.len()
    }

    /// Batches in flight that a sink has not answered for.
    pub fn pending(&self, sink: usize) -> usize {
        self.entries.iter().filter(|e| e.outcomes[sink] == Outcome::Pending).count()
    }

    /// Whether the oldest batch in flight waits for this sink's answer.
    pub fn is_held_up_by(&self, sink: usize) -> bool {
        let is_pending = self.entries.front().is_some_and(|e| e.outcomes[sink] == Outcome::Pending);
        // Without a required sink every attempt is waited for.
        is_pending && (self.waits_for(sink) || !self.required.contains(&true))
    }

    /// Events that are not settled.
    pub fn in_flight_events(&self) -> u64 {
        self.entries.iter().map(|e| e.events).sum()
    }

    /// What may be saved and is not.
    pub fn unsaved(&self) -> Option<&End> {
        self.safe.as_ref().filter(|safe| self.saved.as_ref() != Some(safe))
    }

    /// The last end of a transaction that is settled.
    pub fn safe(&self) -> Option<&End> {
        self.safe.as_ref()
    }

    /// The store holds `end`; `events` of the settled ones were not yet settled when it was taken.
    pub fn saved(&mut self, end: End, covered_events: u64) {
        self.unsaved_events = self.unsaved_events.saturating_sub(covered_events);
        if self.unsaved_events == 0 {
            self.unsaved_ts_us = None;
        }
        self.saved = Some(end);
    }

    /// What the store holds.
    pub fn last_saved(&self) -> Option<&End> {
        self.saved.as_ref()
    }

    /// Settled events that no save covers.
    pub fn unsaved_events(&self) -> u64 {
        self.unsaved_events
    }

    /// Commit time of the oldest event that is not settled.
    pub fn oldest_in_flight_us(&self) -> Option<i64> {
        self.entries.front().map(|e| e.first_ts_us)
    }

    /// Commit time of the oldest event that is not saved.
    pub fn oldest_unsaved_us(&self) -> Option<i64> {
        self.unsaved_ts_us.or(self.oldest_in_flight_us())
    }
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
