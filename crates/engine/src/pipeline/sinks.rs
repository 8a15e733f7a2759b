//! How far each sink has come, whether or not a checkpoint waits for it, and what it will never get.
//!
//! [`Progress`](crate::progress::Progress) forgets a batch as soon as the policy holds for it; a slower sink goes on with it, and
//! its own place, lag and gaps are kept here.

use super::Loop;
use crate::status::{Gap, SinkState, SinkStatus};
use deltaforge_core::batch::Batch;
use deltaforge_core::checkpoint::{Checkpoint, SinkProgress};
use deltaforge_core::position::BatchSeq;
use deltaforge_core::sink::Held;
use deltaforge_core::{Position, clock};
use std::collections::VecDeque;

/// One sink, as the loop sees it.
#[derive(Default)]
pub(super) struct SinkView {
    /// It was connected once.
    pub(super) connected: bool,
    /// Handed over and not answered, oldest first.
    given: VecDeque<Given>,
    position: Option<Position>,
    /// The position that its target stores, as far as it has acknowledged; none for a target that stores none.
    stored: Option<Position>,
    /// Its target holds events behind `stored`, and the batch with the last of them has not come.
    is_inside: bool,
    delivered_ms: i64,
    given_up: u64,
    gap: Option<Gap>,
    /// The gap may grow: nothing was delivered behind it yet.
    gap_is_open: bool,
}

struct Given {
    seq: BatchSeq,
    first_ts_us: i64,
    events: u64,
    end: Option<Position>,
}

impl SinkView {
    /// One for each sink of a pipeline. Where one begins behind the checkpoint because nothing waited for it, what lies
    /// between never reaches it.
    pub(super) fn all(ids: &[(&str, bool)], checkpoint: Option<&Checkpoint>) -> Vec<SinkView> {
        let view = |(id, waited_for): &(&str, bool)| {
            let mut view = SinkView::default();
            let Some(checkpoint) = checkpoint else { return view };
            let Some(known) = checkpoint.sinks.iter().find(|sink| sink.sink == *id) else { return view };
            view.position = Some(known.position.clone());
            view.delivered_ms = known.delivered_ms;
            if !waited_for && known.position != checkpoint.position {
                let (after, until) = (Some(known.position.clone()), Some(checkpoint.position.clone()));
                view.gap = Some(Gap { after, until, events: None });
            }
            view
        };
        ids.iter().map(view).collect()
    }

    /// What the target holds at the start.
    pub(super) fn holds(&mut self, held: Option<&Held>) {
        self.stored = held.map(|held| held.position.clone());
        self.is_inside = held.is_some_and(|held| held.inside > 0);
    }

    /// The target has stored an end.
    pub(super) fn stored(&mut self, end: &Position) {
        self.stored = Some(end.clone());
        self.is_inside = false;
    }

    /// The position behind which nothing may be saved, while the target is inside a batch.
    pub(super) fn inside(&self) -> Option<&Position> {
        self.stored.as_ref().filter(|_| self.is_inside)
    }

    /// The lane has taken a batch.
    pub(super) fn given(&mut self, seq: BatchSeq, batch: &Batch) {
        let end = batch.end().map(|end| end.position.clone());
        let first_ts_us = batch.first_ts_us().unwrap_or(0);
        self.given.push_back(Given { seq, first_ts_us, events: batch.len() as u64, end });
    }

    /// The target has acknowledged this batch, and every one before it.
    pub(super) fn delivered(&mut self, seq: BatchSeq) {
        while let Some(given) = self.given.pop_front_if(|given| given.seq <= seq) {
            if given.end.is_some() {
                self.position = given.end;
            }
        }
        self.delivered_ms = clock::unix_millis();
        self.gap_is_open = false;
    }

    /// A batch of its own will never reach it.
    pub(super) fn given_up(&mut self, seq: BatchSeq, events: u64) {
        let end = self.given.pop_front_if(|given| given.seq <= seq).and_then(|given| given.end);
        self.passed_over(events, end.as_ref());
    }

    /// Events up to a place were not even handed to it.
    pub(super) fn passed_over(&mut self, events: u64, end: Option<&Position>) {
        self.given_up += events;
        if !std::mem::replace(&mut self.gap_is_open, true) {
            self.gap = Some(Gap { after: self.position.clone(), until: None, events: Some(0) });
        }
        if let Some(gap) = &mut self.gap {
            gap.events = gap.events.map(|before| before + events);
            if let Some(end) = end {
                gap.until = Some(end.clone());
            }
        }
    }

    /// A single event will never reach it; those around it do.
    pub(super) fn event_given_up(&mut self) {
        self.given_up += 1;
    }

    /// Whether something was handed over and not answered.
    pub(super) fn has_given(&self) -> bool {
        !self.given.is_empty()
    }

    /// The pipeline begins again: what is under way is taken back. A sink that nothing waits for will not get it, and the
    /// events of that are given.
    pub(super) fn taken_back(&mut self, waited_for: bool) -> u64 {
        let events = self.given.iter().map(|given| given.events).sum();
        let end = self.given.drain(..).filter_map(|given| given.end).next_back();
        if waited_for || events == 0 {
            return 0;
        }
        self.passed_over(events, end.as_ref());
        events
    }

    /// The pipeline starts at a place that this sink, which nothing waits for, may not have reached.
    pub(super) fn starts_at(&mut self, start: &Position) {
        if self.position.as_ref().is_some_and(|position| position != start) {
            self.gap = Some(Gap { after: self.position.clone(), until: Some(start.clone()), events: None });
        }
    }

    /// End of the last transaction that it has acknowledged.
    pub(super) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Events handed over and not answered, and the age of the oldest in seconds.
    pub(super) fn lag(&self, now_us: i64) -> (u64, f64) {
        let events = self.given.iter().map(|given| given.events).sum();
        let age_us = self.given.front().map_or(0, |given| now_us - given.first_ts_us);
        (events, age_us.max(0) as f64 / 1e6)
    }
}

impl Loop {
    /// What a checkpoint says of the sinks.
    pub(super) fn sink_progress(&self) -> Vec<SinkProgress> {
        let progress = |(sink, view): (usize, &SinkView)| {
            // What a target stores is told from what the pipeline read since, which held nothing for it.
            let position = view.stored.clone().or_else(|| view.position.clone())?;
            let sink = self.spec.sinks[sink].id().into();
            Some(SinkProgress { sink, position, delivered_ms: view.delivered_ms })
        };
        self.sinks.iter().enumerate().filter_map(progress).collect()
    }

    /// What the status says of the sinks.
    pub(super) fn sink_statuses(&self) -> Vec<SinkStatus> {
        let now_us = clock::unix_micros();
        let status = |(sink, view): (usize, &SinkView)| {
            let plan = &self.spec.sinks[sink];
            let (lag_events, lag_seconds) = view.lag(now_us);
            let trouble = self.troubles.get(plan.id()).cloned();
            SinkStatus {
                id: plan.id().into(),
                required: self.progress.waits_for(sink),
                exactly_once: plan.exactly_once(),
                state: match (&trouble, view.connected) {
                    (Some(_), _) => SinkState::Retrying,
                    (None, false) => SinkState::Starting,
                    (None, true) => SinkState::Delivering,
                },
                position: view.position.clone(),
                delivered_ms: (view.delivered_ms > 0).then_some(view.delivered_ms),
                lag_events,
                lag_seconds,
                given_up_events: view.given_up,
                gap: view.gap.clone(),
                trouble,
            }
        };
        self.sinks.iter().enumerate().map(status).collect()
    }
}
