//! Where a pipeline begins, and how it begins again.
//!
//! A sink that stores positions with its data knows better than the state store what it holds: it may have committed what the
//! store never heard of. So before the source is opened every such sink tells where its target stands, and the pipeline starts
//! at the earliest place that some sink needs. The lanes leave out what their targets hold.
//!
//! ```text
//!   checkpoint     C                   at-least-once sinks begin at C: what they got since comes again
//!   exactly-once   C ──────── P₁       a crash between the commit and the save: begins at P₁
//!   another        C ──── P₂           begins at P₂, and the pipeline at the earliest of C (if needed), P₁ and P₂
//! ```
//!
//! A place read past without an event for the sinks is saved and released, and no target ever hears of it: so the checkpoint
//! says what each target held then. One that holds that still lacks nothing before the checkpoint; one that holds
//! something earlier has lost it, and is delivered to again from there.
//!
//! A target that holds events behind its position tells where it stands by counting them from that position. So nothing
//! behind it is saved before the batch with the last of these events is there: the next start might need them all again.

use super::saving::obeying;
use super::{Beginnings, Failure, Loop, Mode, Reading, STATE};
use crate::lane::Begin;
use deltaforge_core::batch::{BatchBuilder, Limits};
use deltaforge_core::checkpoint::Checkpoint;
use deltaforge_core::config::RetryPolicy;
use deltaforge_core::position::End;
use deltaforge_core::sink::{Held, SinkPlan};
use deltaforge_core::source::SourcePlan;
use deltaforge_core::{Class, Fault, Position};
use std::cmp::Ordering;
use std::sync::Arc;

/// How often a pipeline begins again when that does not help. Without jitter: a simulated run can be repeated.
const AGAIN: RetryPolicy = RetryPolicy { initial_ms: 100, max_ms: 10_000, jitter: 0.0, max_attempts: 0 };

/// What the sinks hold, as far as they have told.
pub(super) struct Standings {
    checkpoint: Option<Checkpoint>,
    sinks: Vec<Told>,
}

enum Told {
    /// Its target stores no positions.
    NotAsked,
    NotYet,
    Holds(Option<Held>),
}

impl Standings {
    pub(super) fn new(sinks: &[Arc<dyn SinkPlan>], checkpoint: Option<Checkpoint>) -> Standings {
        let told = |sink: &Arc<dyn SinkPlan>| if sink.exactly_once() { Told::NotYet } else { Told::NotAsked };
        Standings { checkpoint, sinks: sinks.iter().map(told).collect() }
    }

    pub(super) fn told(&mut self, sink: usize, held: Option<Held>) {
        if let Some(told) = self.sinks.get_mut(sink).filter(|told| !matches!(told, Told::NotAsked)) {
            *told = Told::Holds(held);
        }
    }

    fn are_complete(&self) -> bool {
        !self.sinks.iter().any(|told| matches!(told, Told::NotYet))
    }

    /// Per sink, what it holds.
    fn held(&self) -> Vec<Option<Held>> {
        let held = |told: &Told| match told {
            Told::Holds(held) => held.clone(),
            Told::NotAsked | Told::NotYet => None,
        };
        self.sinks.iter().map(held).collect()
    }

    /// Whether a target holds what it held when the checkpoint was saved.
    fn is_as_saved(&self, sink: &str, held: &Held) -> bool {
        let mut sinks = self.checkpoint.iter().flat_map(|checkpoint| &checkpoint.sinks);
        sinks.any(|saved| saved.sink == sink && saved.position == held.position)
    }

    /// The earliest place that a sink needs; `None` on the first start ever. `waits_for` leaves out the sinks that nothing waits for.
    ///
    /// # Errors
    /// `Lost` when there is no such place.
    fn start(
        &self,
        source: &dyn SourcePlan,
        sinks: &[Arc<dyn SinkPlan>],
        waits_for: impl Fn(usize) -> bool,
    ) -> Result<Option<End>, Fault> {
        let saved = self.checkpoint.as_ref();
        let saved = saved.map(|c| End { position: c.position.clone(), events_done: c.events_done });
        let (mut start, mut without): (Option<End>, bool) = (None, false);
        for (sink, told) in self.sinks.iter().enumerate().filter(|(sink, _)| waits_for(*sink)) {
            let needs = match told {
                Told::Holds(Some(held)) => {
                    let needs = End { position: held.position.clone(), events_done: 0 };
                    match saved.clone().filter(|_| self.is_as_saved(sinks[sink].id(), held)) {
                        Some(saved) => Some(later(source, needs, saved)?),
                        None => Some(needs),
                    }
                }
                Told::Holds(None) | Told::NotAsked | Told::NotYet => saved.clone(),
            };
            tracing::debug!(sink, position = ?needs.as_ref().map(|end| &end.position), "begins behind");
            start = match (start, needs) {
                (start, None) => {
                    without = true;
                    start
                }
                (None, needs) => needs,
                (Some(a), Some(b)) => Some(earlier(source, a, b)?),
            };
        }
        match start {
            // Nobody is waited for.
            None => Ok(saved),
            Some(start) if without => Err(state_lost(&start.position)),
            start => Ok(start),
        }
    }
}

/// The later one of two places of one log.
fn later(source: &dyn SourcePlan, a: End, b: End) -> Result<End, Fault> {
    Ok(if earlier(source, a.clone(), b.clone())? == a { b } else { a })
}

fn earlier(source: &dyn SourcePlan, a: End, b: End) -> Result<End, Fault> {
    match source.compare(&a.position, &b.position) {
        Some(Ordering::Less) => Ok(a),
        Some(Ordering::Equal) => Ok(if a.events_done < b.events_done { a } else { b }),
        Some(Ordering::Greater) => Ok(b),
        None => {
            let message = format!(
                "a sink holds {} and another, or the checkpoint, {}: they are not of one log",
                a.position, b.position
            );
            Err(Fault::lost("sink.positions_apart", message)
                .hint("give the sinks new ids, or let each go on in a pipeline of its own"))
        }
    }
}

/// A target holds a position, and for another sink nobody knows one.
fn state_lost(position: &Position) -> Fault {
    let message = format!(
        "the state store has no checkpoint, a sink holds {position}, and for another sink no position is known"
    );
    Fault::new(Class::Lost, "state.checkpoint_lost", message)
        .hint("bring the state back; or start once with the exactly-once sinks alone, which saves their position, then add the others: they begin there")
}

impl Loop {
    /// Opens the source once every sink that is asked has told where its target stands.
    pub(super) fn begin_if_known(&mut self) -> Result<(), Failure> {
        let Reading::AwaitingSinks(standings) = &self.reading else { return Ok(()) };
        if !standings.are_complete() {
            return Ok(());
        }
        let waits_for = |sink| self.progress.waits_for(sink);
        let start = standings.start(self.spec.source.as_ref(), &self.spec.sinks, waits_for);
        let start = start.map_err(|fault| Failure::of(fault, STATE))?;
        self.held_at_start = standings.held();
        for (view, held) in self.sinks.iter_mut().zip(&self.held_at_start) {
            view.holds(held.as_ref());
        }
        if let Some(start) = start.filter(|start| Some(start) != self.progress.safe()) {
            tracing::info!(
                pipeline = self.spec.name,
                position = start.position.as_json(),
                "the sinks know better than the checkpoint where to go on"
            );
            for (sink, view) in self.sinks.iter_mut().enumerate() {
                if !self.progress.waits_for(sink) {
                    view.starts_at(&start.position);
                }
            }
            self.builder = BatchBuilder::new(limits(&self.spec), Some(&start.position), start.events_done);
            self.progress.advance(start);
        }
        self.open_source();
        Ok(())
    }

    /// Some target stores positions.
    pub(super) fn is_exact(&self) -> bool {
        self.spec.sinks.iter().any(|plan| plan.exactly_once())
    }

    /// Tells the lanes of exactly-once sinks where the first batch begins.
    pub(super) fn begin_lanes(&mut self) {
        let Some(from) = self.builder.position() else { return };
        for ((lane, plan), held) in self.lanes.iter().zip(&self.spec.sinks).zip(&mut self.held_at_start) {
            if plan.exactly_once() {
                lane.begin(Begin { from: from.clone(), held: held.take() });
            }
        }
    }

    /// Ends the loop so that another can begin from where the sinks stand; `None` when a stop was asked for.
    pub(super) async fn begin_again(mut self, failure: Failure) -> Option<Beginnings> {
        let Failure { fault, component, .. } = failure;
        self.beginnings += 1;
        let pause = AGAIN.pause(self.beginnings, 0.0);
        tracing::warn!(
            pipeline = self.spec.name,
            sink_id = component,
            attempt = self.beginnings,
            sleep_ms = pause.as_millis() as u64,
            code = fault.code(),
            reason = fault.message(),
            "the pipeline begins again from where its sinks stand"
        );
        self.set_trouble(&component, &fault);
        // Nothing is saved here: a target that went back is delivered to again from there, and the source must not forget that.
        if let Reading::Open(source) = std::mem::replace(&mut self.reading, Reading::Ended) {
            source.close().await;
        }
        // The lanes are ended as by a crash; what they still have under way is put to rest by their successors.
        for (sink, view) in self.sinks.iter_mut().enumerate() {
            let lost = view.taken_back(self.progress.waits_for(sink));
            if let Some(counted) = self.metrics.sink(sink).filter(|_| lost > 0) {
                counted.given_up(lost);
            }
        }
        let Loop { mut commands, memory, mode, beginnings, said, lanes, buried, sinks, .. } = self;
        drop(lanes);
        let mut mode = mode;
        if mode == Mode::Draining {
            return None;
        }
        obeying(tokio::time::sleep(pause), &mut commands, &mut mode, &said).await?;
        Some(Beginnings { memory, commands, mode, attempts: beginnings, buried, sinks: Some(sinks) })
    }
}

/// The limits of batches.
pub(super) fn limits(spec: &crate::spec::PipelineSpec) -> Limits {
    Limits {
        max_events: spec.batch.max_events,
        max_bytes: spec.batch.max_bytes,
        respect_source_tx: spec.batch.respect_source_tx,
    }
}
