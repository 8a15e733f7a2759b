//! What the loop measures, and the conditions that only time reveals.

use super::saving::STALLED_AFTER as SAVE_STALLED_AFTER;
use super::{Failure, Loop, Reading, STALLED_AFTER, STATE, TICK};
use crate::spec::PipelineSpec;
use crate::status::Lag;
use deltaforge_core::batch::Batch;
use deltaforge_core::metrics::{PipelineMetrics, Rung, Sample, SinkSample, TableEvents};
use deltaforge_core::schema::TableSchema;
use deltaforge_core::{Fault, clock, fault};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

/// How often the gauges are set.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// How often a summary is logged, at most.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(10);

/// Counters of the loop.
pub(super) struct Measure {
    metrics: Arc<PipelineMetrics>,
    pub(super) delivered_events: u64,
    /// Number of the last batch cut.
    pub(super) last_seq: u64,
    tick_at: Instant,
    sample_at: Instant,
    summary_at: Instant,
    /// At the last summary: events delivered, batches cut.
    summarised: (u64, u64),
    /// When the source began to wait, and why, is looked at each tick.
    looked_at: Instant,
    tables: Arc<Vec<Arc<TableSchema>>>,
    counters: Vec<TableEvents>,
    /// Events per table of the batch being counted.
    counts: Vec<u64>,
    sinks: usize,
}

impl Measure {
    pub(super) fn new(spec: &PipelineSpec, metrics: Arc<PipelineMetrics>) -> Measure {
        let now = Instant::now();
        Measure {
            metrics,
            delivered_events: 0,
            last_seq: 0,
            tick_at: now + TICK,
            sample_at: now,
            summary_at: now + SUMMARY_INTERVAL,
            summarised: (0, 0),
            looked_at: now,
            tables: Arc::default(),
            counters: Vec::new(),
            counts: Vec::new(),
            sinks: spec.sinks.len(),
        }
    }

    pub(super) fn next_tick(&self) -> Instant {
        self.tick_at
    }

    /// Counts a batch: its size, its events per table, its transactions.
    pub(super) fn cut(&mut self, batch: &Batch) {
        self.metrics.batch_cut(batch.len(), batch.estimated_bytes());
        if !Arc::ptr_eq(&self.tables, batch.tables()) {
            self.tables = batch.tables().clone();
            for schema in &self.tables[self.counters.len()..] {
                self.counters.push(self.metrics.table(schema.name.full()));
            }
        }
        self.counts.clear();
        self.counts.resize(self.counters.len(), 0);
        let mut largest = 0;
        for event in batch.events() {
            self.counts[event.table_index()] += 1;
            largest = largest.max(event.transaction().map_or(0, |t| t.total_order));
        }
        for (counter, count) in self.counters.iter().zip(&self.counts).filter(|(_, count)| **count > 0) {
            counter.add(*count);
        }
        self.metrics.transaction_ended(largest);
    }
}

impl Loop {
    /// Each tick: who waits, and what is stalled; each second: the gauges and the status; each ten: a line in the log.
    pub(super) fn measure_what_is_due(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        if now < self.measure.tick_at {
            return Ok(());
        }
        self.measure.tick_at = now + TICK;
        let since = now - self.measure.looked_at;
        self.measure.looked_at = now;
        if let Some(reason) = self.waits_because() {
            self.metrics.source_waited(reason, since);
        }
        self.look_for_broken_lanes()?;
        self.look_for_stalls();
        self.let_go();
        if now >= self.measure.sample_at {
            self.measure.sample_at = now + SAMPLE_INTERVAL;
            self.sample();
        }
        if now >= self.measure.summary_at {
            self.measure.summary_at = now + SUMMARY_INTERVAL;
            self.summarise();
        }
        Ok(())
    }

    /// A lane ends with a last word, or when it is closed; one that ended without has broken down, and the pipeline with it.
    fn look_for_broken_lanes(&self) -> Result<(), Failure> {
        let broken = |sink: &usize| self.lanes[*sink].has_ended();
        // The last word may still be on its way.
        match (0..self.measure.sinks).find(broken).filter(|_| self.reports.is_empty()) {
            None => Ok(()),
            Some(sink) => {
                let message = "the sink's task ended without saying why: this is a bug";
                let fault = Fault::bug("engine.task_ended", message)
                    .hint("resume the pipeline, and report the bug with the log");
                Err(Failure::of(fault, self.spec.sinks[sink].id()))
            }
        }
    }

    /// A store or a sink that neither answers nor fails is a trouble, too.
    fn look_for_stalls(&mut self) {
        if self.saving.running_for().is_some_and(|time| time >= SAVE_STALLED_AFTER)
            && !self.troubles.contains_key(STATE)
        {
            let message = format!("no answer to a save for {} s", SAVE_STALLED_AFTER.as_secs());
            let fault = Fault::retry("state.stalled", message).kind(fault::Kind::Timeout);
            self.set_trouble(STATE, &fault.hint("look at the disk or server that keeps the state"));
        }
        let oldest = self.held.iter().find(|h| self.is_in_flight(h.seq)).map(|h| h.cut_at.elapsed());
        let Some(waited) = oldest.filter(|waited| *waited >= STALLED_AFTER) else { return };
        for sink in 0..self.measure.sinks {
            let id = self.spec.sinks[sink].id().to_string();
            if self.progress.is_held_up_by(sink) && !self.troubles.contains_key(&id) {
                let seconds = waited.as_secs().max(STALLED_AFTER.as_secs());
                let message = format!("no acknowledgement for {seconds} s");
                let fault = Fault::retry("sink.stalled", message).kind(fault::Kind::Timeout);
                self.set_trouble(
                    &id,
                    &fault.hint("the target accepted the connection and does not answer; look at its load"),
                );
            }
        }
    }

    fn is_in_flight(&self, seq: deltaforge_core::BatchSeq) -> bool {
        seq.0 > self.measure.last_seq - self.progress.in_flight() as u64
    }

    fn sample(&mut self) {
        let now_us = clock::unix_micros();
        let age = |ts_us: Option<i64>| ts_us.map_or(0.0, |ts| (now_us - ts).max(0) as f64 / 1e6);
        let known = |n: u64| (n > 0).then_some(n);
        let head = known(self.stats.head.load(Relaxed)).filter(|_| matches!(self.reading, Reading::Open(_)));
        let received = known(self.stats.received.load(Relaxed));
        let behind = head.zip(received).is_some_and(|(head, received)| received < head);
        let read_ts = Some(self.stats.received_ts_us.load(Relaxed)).filter(|ts| *ts > 0);
        // What has not been read is at least as old as what was read last; without a break nobody can tell more.
        let unread = if behind || !matches!(self.reading, Reading::Open(_)) { age(read_ts) } else { 0.0 };
        let waiting = self.first_event_at.map_or(0.0, |at| at.elapsed().as_secs_f64());
        let delivered = age(self.progress.oldest_in_flight_us()).max(waiting).max(unread);
        let durable = age(self.progress.oldest_unsaved_us()).max(delivered);
        let number = |end: Option<&deltaforge_core::position::End>| {
            end.and_then(|e| self.spec.source.number(&e.position))
        };
        let saved = number(self.progress.last_saved());
        let in_flight = self.progress.in_flight_events() + self.builder.len() as u64;
        let sinks: Vec<SinkSample> =
            (0..self.measure.sinks).map(|sink| self.sample_sink(sink, now_us)).collect();
        let unsaved_events = self.progress.unsaved_events();
        let sample = Sample {
            now_ms: now_us / 1000,
            head,
            received: Rung { position: received, lag_seconds: Some(unread), lag_events: 0 },
            delivered: Rung {
                position: number(self.progress.safe()),
                lag_seconds: Some(delivered),
                lag_events: in_flight,
            },
            durable: Rung {
                position: saved,
                lag_seconds: Some(durable),
                lag_events: in_flight + unsaved_events,
            },
            checkpoint_lag_seconds: if self.progress.oldest_unsaved_us().is_some() {
                self.saving.age().as_secs_f64()
            } else {
                0.0
            },
            checkpoint_lag_events: unsaved_events,
            waiting_events: self.builder.len() as u64,
            buffered_bytes: self.memory.held(),
            sinks: &sinks,
        };
        self.metrics.sample(&sample, &self.stats);
        let lag = Lag {
            received_seconds: unread,
            delivered_seconds: delivered,
            durable_seconds: durable,
            durable_bytes: head.zip(saved).map(|(head, saved)| head.saturating_sub(saved)),
        };
        let (delivered_events, note) = (self.measure.delivered_events, self.stats.current_note());
        self.said.send_modify(|status| {
            status.lag = lag;
            status.delivered_events = delivered_events;
            status.note = note;
        });
        // A stopped table shows without a change of state.
        self.say();
    }

    fn sample_sink(&self, sink: usize, now_us: i64) -> SinkSample {
        let view = &self.sinks[sink];
        let (lag_events, lag_seconds) = view.lag(now_us);
        SinkSample {
            in_flight: self.progress.pending(sink) as u64,
            position: view.position().and_then(|position| self.spec.source.number(position)),
            lag_events,
            lag_seconds,
        }
    }

    fn summarise(&mut self) {
        let now = (self.measure.delivered_events, self.measure.last_seq);
        let (events, batches) = (now.0 - self.measure.summarised.0, now.1 - self.measure.summarised.1);
        self.measure.summarised = now;
        if let Some(mean_batch_events) = events.checked_div(batches) {
            let lag = self.said.borrow().lag;
            tracing::info!(
                pipeline = self.spec.name,
                batches,
                events,
                mean_batch_events,
                lag_delivered_seconds = lag.delivered_seconds,
                lag_durable_seconds = lag.durable_seconds,
                "delivered in the last 10 s"
            );
        }
    }
}
