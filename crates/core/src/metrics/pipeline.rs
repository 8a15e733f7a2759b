//! The measurements of one pipeline: resolved handles behind methods that say what happened.

use super::families::Families;
use super::labels::{
    Action, MAX_TABLES, OTHER_TABLES, Reason, SINK_KINDS, SOURCE_KINDS, STATUSES, Stage, Trigger, index_of,
    status_value,
};
use super::lock;
use super::sample::{Follower, Sample, gauge};
use super::series::Series;
use crate::fault::Kind;
use crate::source::SourceStats;
use prometheus::{Counter, Gauge, Histogram, IntCounter, IntGauge};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// What the labels of a pipeline are made of.
#[derive(Clone, Copy, Debug)]
pub struct PipelineAbout<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// `metadata.tenant`.
    pub tenant: &'a str,
    /// The word in `spec.source.type`.
    pub source_type: &'a str,
    /// The source's id.
    pub source: &'a str,
    /// The sinks' ids, in the order of the document.
    pub sinks: &'a [&'a str],
    /// Every phase that a pipeline can be in.
    pub phases: &'static [&'static str],
}

/// The measurements of one pipeline.
#[derive(Debug)]
pub struct PipelineMetrics {
    families: Families,
    name: String,
    source: String,
    series: Mutex<Known>,
    status_index: AtomicUsize,
    status: Gauge,
    phases: Vec<(&'static str, IntGauge)>,
    reconnects: IntCounter,
    source_errors: Vec<IntCounter>,
    largest_transaction: IntGauge,
    events_processed: IntCounter,
    batch_events: Histogram,
    batch_bytes: Histogram,
    /// By stage and trigger.
    stages: Vec<Histogram>,
    batch_commits: IntCounter,
    batch_commit_failures: IntCounter,
    checkpoints: IntCounter,
    checkpoint_failures: IntCounter,
    checkpoint_bytes: IntGauge,
    backpressure: Vec<Counter>,
    dlq_entries: IntGauge,
    sinks: Vec<SinkMetrics>,
}

/// What changes by name while the pipeline runs.
#[derive(Debug, Default)]
struct Known {
    series: Series,
    tables: HashMap<String, IntCounter>,
    follower: Option<Follower>,
    /// True once the pipeline is deleted or these handles are replaced: nothing may be made any more.
    retired: bool,
}

/// Where events of one table are counted.
#[derive(Clone, Debug)]
pub struct TableEvents {
    table: IntCounter,
    all: IntCounter,
}

impl TableEvents {
    /// Events of the table were handed on by the source.
    #[inline]
    pub fn add(&self, events: u64) {
        self.table.inc_by(events);
        self.all.inc_by(events);
    }
}

impl PipelineMetrics {
    pub(super) fn new(families: &Families, about: &PipelineAbout<'_>) -> PipelineMetrics {
        let f = families;
        let PipelineAbout { name, source, .. } = *about;
        let mut series = Series::default();
        let s = &mut series;
        s.of("info", &f.pipeline_info, &[name, about.tenant, about.source_type]).set(1);
        let mut stages = Vec::new();
        for stage in Stage::ALL {
            for trigger in Trigger::ALL {
                stages.push(s.of("stage", &f.stage_latency, &[name, stage.as_str(), trigger.as_str()]));
            }
        }
        let phases =
            about.phases.iter().map(|phase| (*phase, s.of("phase", &f.pipeline_phase, &[name, phase])));
        let phases = phases.collect();
        let kinds =
            SOURCE_KINDS.iter().map(|k| s.of("source_errors", &f.source_errors, &[name, source, k.as_str()]));
        let source_errors = kinds.collect();
        let reasons = Reason::ALL.iter().map(|r| s.of("backpressure", &f.backpressure, &[name, r.as_str()]));
        let backpressure = reasons.collect();
        let sinks = about.sinks.iter().map(|sink| SinkMetrics::new(f, s, name, sink)).collect();
        let follower = Follower::new(f, s, about);
        PipelineMetrics {
            families: f.clone(),
            name: name.into(),
            source: source.into(),
            status_index: AtomicUsize::new(0),
            status: s.of("status", &f.pipeline_status, &[name]),
            phases,
            reconnects: s.of("reconnects", &f.source_reconnects, &[name, source]),
            source_errors,
            largest_transaction: s.of("largest", &f.largest_transaction, &[name, source]),
            events_processed: s.of("processed", &f.events_processed, &[name]),
            batch_events: s.of("batch_events", &f.batch_events, &[name]),
            batch_bytes: s.of("batch_bytes", &f.batch_bytes, &[name]),
            stages,
            batch_commits: s.of("commits", &f.batch_commits, &[name]),
            batch_commit_failures: s.of("commit_failures", &f.batch_commit_failures, &[name]),
            checkpoints: s.of("checkpoints", &f.checkpoints, &[name]),
            checkpoint_failures: s.of("checkpoint_failures", &f.checkpoint_failures, &[name]),
            checkpoint_bytes: s.of("checkpoint_bytes", &f.checkpoint_bytes, &[name]),
            backpressure,
            dlq_entries: s.of("dlq_entries", &f.dlq_entries, &[name]),
            sinks,
            series: Mutex::new(Known { series, follower: Some(follower), ..Known::default() }),
        }
    }

    /// Where events of a table are counted: asked for once per table and schema, then kept. `table` is the full name. From
    /// the 1001st table on, all are counted together.
    pub fn table(&self, table: &str) -> TableEvents {
        let mut known = lock(&self.series);
        let known = &mut *known;
        let all = self.events_processed.clone();
        if let Some(counter) = known.tables.get(table) {
            return TableEvents { table: counter.clone(), all };
        }
        if known.retired {
            // The series are gone; what still comes is counted into one that nobody renders.
            let detached = prometheus::core::GenericCounter::new("detached", "detached");
            return TableEvents { table: detached.unwrap_or_else(|_| all.clone()), all };
        }
        let label = if known.tables.len() < MAX_TABLES { table } else { OTHER_TABLES };
        let counter =
            known.series.of("events", &self.families.source_events, &[&self.name, &self.source, label]);
        if label == table {
            known.tables.insert(table.into(), counter.clone());
        }
        TableEvents { table: counter, all }
    }

    /// The source was connected again after a loss.
    pub fn source_reconnected(&self) {
        self.reconnects.inc();
    }

    /// The source failed.
    pub fn source_error(&self, kind: Kind) {
        if let Some(counter) = self.source_errors.get(index_of(&SOURCE_KINDS, kind)) {
            counter.inc();
        }
    }

    /// A transaction of so many captured events ended; the largest is shown.
    pub fn transaction_ended(&self, events: u64) {
        let events = gauge(events);
        if events > self.largest_transaction.get() {
            self.largest_transaction.set(events);
        }
    }

    /// A batch was cut.
    pub fn batch_cut(&self, events: usize, bytes: usize) {
        self.batch_events.observe(events as f64);
        self.batch_bytes.observe(bytes as f64);
    }

    /// A batch left a stage. `trigger` is why it was cut.
    pub fn stage(&self, stage: Stage, trigger: Trigger, took: Duration) {
        if let Some(histogram) = self.stages.get(stage as usize * Trigger::ALL.len() + trigger as usize) {
            histogram.observe(took.as_secs_f64());
        }
    }

    /// The commit policy held for a batch.
    pub fn batch_committed(&self) {
        self.batch_commits.inc();
    }

    /// An attempt ended without the commit policy holding.
    pub fn batch_commit_failed(&self) {
        self.batch_commit_failures.inc();
    }

    /// A checkpoint was saved.
    pub fn checkpoint_saved(&self, bytes: u64) {
        self.checkpoints.inc();
        self.checkpoint_bytes.set(gauge(bytes));
    }

    /// A checkpoint could not be saved; it is tried again.
    pub fn checkpoint_failed(&self) {
        self.checkpoint_failures.inc();
    }

    /// The source waited.
    pub fn source_waited(&self, reason: Reason, took: Duration) {
        if let Some(counter) = self.backpressure.get(reason as usize) {
            counter.inc_by(took.as_secs_f64());
        }
    }

    /// The pipeline's status and phase changed, in the words of the API.
    pub fn condition(&self, status: &str, phase: &str) {
        let index = STATUSES.iter().position(|s| *s == status).unwrap_or(STATUSES.len() - 1);
        self.status_index.store(index, Relaxed);
        self.status.set(status_value(index));
        for (word, gauge) in &self.phases {
            gauge.set(i64::from(*word == phase));
        }
    }

    /// Sets the gauges that follow something, and adds what the source has counted since. Called once a second, and once
    /// more when the pipeline ends.
    pub fn sample(&self, sample: &Sample<'_>, stats: &SourceStats) {
        let mut known = lock(&self.series);
        let known = &mut *known;
        if known.retired {
            return;
        }
        if let Some(follower) = &mut known.follower {
            let counts = (self.batch_events.get_sample_sum(), self.batch_events.get_sample_count());
            follower.follow(&self.families, &mut known.series, sample, stats, counts);
        }
        for (sink, sample) in self.sinks.iter().zip(sample.sinks) {
            sink.depth.set(gauge(sample.in_flight));
            sink.lag_events.set(gauge(sample.lag_events));
            sink.lag_seconds.set(sample.lag_seconds);
            if let Some(position) = sample.position {
                let families = &self.families;
                known
                    .series
                    .of("sink_position", &families.sink_position, &[&self.name, &sink.id])
                    .set(position as f64);
            }
        }
    }

    /// So many dead letters are stored.
    pub fn dead_letters(&self, entries: u64) {
        self.dlq_entries.set(gauge(entries));
    }

    /// A dead letter was stored, and so many of the oldest were dropped for it. `kind` is one of the API's words.
    pub fn dead_letter_stored(&self, sink: &str, kind: &str, dropped: u64) {
        let mut known = lock(&self.series);
        if known.retired {
            return;
        }
        known.series.of("dlq_events", &self.families.dlq_events, &[&self.name, sink, kind]).inc();
        if dropped > 0 {
            let labels = [self.name.as_str(), sink, "dlq_overflow"];
            known.series.of("dropped", &self.families.dropped, &labels).inc_by(dropped);
        }
    }

    /// The measurements of a sink, by its place in the document.
    pub fn sink(&self, index: usize) -> Option<&SinkMetrics> {
        self.sinks.get(index)
    }

    /// The measurements of all sinks, in the order of the document.
    pub fn sinks(&self) -> &[SinkMetrics] {
        &self.sinks
    }

    pub(super) fn action(&self, action: Action, outcome: &str) {
        let mut known = lock(&self.series);
        if !known.retired {
            let labels = [self.name.as_str(), action.as_str(), outcome];
            known.series.of("actions", &self.families.actions, &labels).inc();
        }
    }

    pub(super) fn status_index(&self) -> usize {
        self.status_index.load(Relaxed)
    }

    /// Removes what the later measurements of the same pipeline do not have; tables of the same source live on.
    pub(super) fn replaced_by(&self, later: &PipelineMetrics) {
        let mut old = lock(&self.series);
        let mut new = lock(&later.series);
        let (old, new) = (&mut *old, &mut *new);
        old.retired = true;
        for action in Action::ALL {
            for outcome in ["ok", "error"] {
                let labels = [self.name.as_str(), action.as_str(), outcome];
                // Counts of actions live as long as the pipeline; the look-up makes none that was not there.
                if old.series.has("actions", &labels) {
                    new.series.of("actions", &self.families.actions, &labels);
                }
            }
        }
        if self.source == later.source {
            for (table, counter) in old.tables.drain() {
                new.series.of("events", &self.families.source_events, &[&self.name, &self.source, &table]);
                new.tables.insert(table, counter);
            }
        }
        old.series.clear_except(Some(&new.series));
        later.condition(STATUSES[self.status_index().min(STATUSES.len() - 1)], self.phase());
    }

    pub(super) fn remove(&self) {
        let mut known = lock(&self.series);
        known.retired = true;
        known.series.clear_except(None);
    }

    fn phase(&self) -> &'static str {
        self.phases.iter().find(|(_, gauge)| gauge.get() == 1).map_or("", |(word, _)| word)
    }
}

/// The measurements of one sink.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    id: String,
    events: IntCounter,
    batches: IntCounter,
    bytes: IntCounter,
    latency: Histogram,
    e2e: Histogram,
    failures: Vec<IntCounter>,
    errors: IntCounter,
    retries: IntCounter,
    reconnects: IntCounter,
    depth: IntGauge,
    client_queue: IntGauge,
    client_bytes: IntGauge,
    client_trip: Gauge,
    client_retransmits: IntCounter,
    lag_events: IntGauge,
    lag_seconds: Gauge,
    last_delivery: Gauge,
    given_up: IntCounter,
}

impl SinkMetrics {
    fn new(f: &Families, s: &mut Series, name: &str, sink: &str) -> SinkMetrics {
        let labels = [name, sink];
        let kinds =
            SINK_KINDS.iter().map(|k| s.of("sink_failures", &f.sink_failures, &[name, sink, k.as_str()]));
        SinkMetrics {
            id: sink.into(),
            failures: kinds.collect(),
            events: s.of("sink_events", &f.sink_events, &labels),
            batches: s.of("sink_batches", &f.sink_batches, &labels),
            bytes: s.of("sink_bytes", &f.sink_bytes, &labels),
            latency: s.of("sink_latency", &f.sink_latency, &labels),
            e2e: s.of("e2e", &f.e2e_latency, &labels),
            errors: s.of("sink_errors", &f.sink_errors, &labels),
            retries: s.of("retries", &f.sink_retries, &labels),
            reconnects: s.of("sink_reconnects", &f.sink_reconnects, &labels),
            depth: s.of("depth", &f.sink_depth, &labels),
            client_queue: s.of("client_queue", &f.client_queue, &labels),
            client_bytes: s.of("client_bytes", &f.client_bytes, &labels),
            client_trip: s.of("client_trip", &f.client_trip, &labels),
            client_retransmits: s.of("client_retransmits", &f.client_retransmits, &labels),
            lag_events: s.of("sink_lag_events", &f.sink_lag_events, &labels),
            lag_seconds: s.of("sink_lag_seconds", &f.sink_lag_seconds, &labels),
            last_delivery: s.of("last_delivery", &f.last_delivery, &labels),
            given_up: s.of("dropped", &f.dropped, &[name, sink, "best_effort"]),
        }
    }

    /// The target acknowledged a batch. `took` is the time from its hand-over in the attempt that succeeded.
    pub fn batch_delivered(&self, events: u64, bytes: u64, took: Duration) {
        self.events.inc_by(events);
        self.batches.inc();
        self.bytes.inc_by(bytes);
        self.latency.observe(took.as_secs_f64());
        self.last_delivery.set(crate::clock::unix_millis() as f64 / 1000.0);
    }

    /// Time from the commit at the source to the acknowledgement, of one batch (its oldest commit).
    pub fn end_to_end(&self, took: Duration) {
        self.e2e.observe(took.as_secs_f64());
    }

    /// An attempt failed.
    pub fn failed(&self, kind: Kind) {
        self.errors.inc();
        if let Some(counter) = self.failures.get(index_of(&SINK_KINDS, kind)) {
            counter.inc();
        }
    }

    /// A delivery is tried again.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// The sink was opened again after a fault.
    pub fn reconnected(&self) {
        self.reconnects.inc();
    }

    /// What a client library tells of itself: records and bytes on the way, the servers' mean round trip where one was measured,
    /// and how many requests were sent again since it told last.
    pub fn client(&self, records: u64, bytes: u64, round_trip_secs: Option<f64>, sent_again: u64) {
        self.client_queue.set(gauge(records));
        self.client_bytes.set(gauge(bytes));
        if let Some(secs) = round_trip_secs {
            self.client_trip.set(secs);
        }
        self.client_retransmits.inc_by(sent_again);
    }

    /// Events were given up for this sink, which the checkpoint does not wait for.
    pub fn given_up(&self, events: u64) {
        self.given_up.inc_by(events);
    }
}
