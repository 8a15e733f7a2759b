//! Gauges that follow something, set once a second.

use super::families::Families;
use super::labels::RUNGS;
use super::pipeline::PipelineAbout;
use super::series::Series;
use crate::source::SourceStats;
use prometheus::{Gauge, IntCounter, IntGauge};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

/// A pipeline at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample<'a> {
    /// Now, Unix milliseconds.
    pub now_ms: i64,
    /// The source's newest committed change as a number; `None` while the source cannot be asked.
    pub head: Option<u64>,
    /// Read and decoded.
    pub received: Rung,
    /// Acknowledged as the commit policy asks.
    pub delivered: Rung,
    /// Saved in the state store.
    pub durable: Rung,
    /// Seconds since the last checkpoint while changes wait for one, else 0.
    pub checkpoint_lag_seconds: f64,
    /// Events delivered since the last checkpoint.
    pub checkpoint_lag_events: u64,
    /// Events read and not yet cut into a batch.
    pub waiting_events: u64,
    /// Event data held, bytes.
    pub buffered_bytes: u64,
    /// The sinks, in the order of the document.
    pub sinks: &'a [SinkSample],
}

/// A sink at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct SinkSample {
    /// Batches handed over and not acknowledged.
    pub in_flight: u64,
    /// End of the last transaction that it has acknowledged, as a number; `None` while unknown.
    pub position: Option<u64>,
    /// Events handed over and not acknowledged.
    pub lag_events: u64,
    /// Age of the oldest of them.
    pub lag_seconds: f64,
}

/// One rung of the lag ladder.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rung {
    /// The position as a number; `None` while unknown.
    pub position: Option<u64>,
    /// Age of the oldest commit that has not reached it; `None` while unknown.
    pub lag_seconds: Option<f64>,
    /// Events received that have not reached it; of no use for `received`.
    pub lag_events: u64,
}

/// What the operating system says of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessSample {
    /// User and system time.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Start, Unix seconds.
    pub start_seconds: f64,
}

impl ProcessSample {
    pub(super) fn apply(&self, families: &Families) {
        let more = self.cpu_seconds - families.process_cpu.get();
        if more > 0.0 {
            families.process_cpu.inc_by(more);
        }
        families.process_memory.set(gauge(self.resident_bytes));
        families.process_fds.set(gauge(self.open_fds));
        families.process_start.set(self.start_seconds);
    }
}

/// A count as a gauge's value.
pub(super) fn gauge(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A source's counter, which starts again with each run, as one that never goes back.
#[derive(Debug)]
struct Growing {
    counter: IntCounter,
    seen: u64,
}

impl Growing {
    fn new(counter: IntCounter) -> Growing {
        Growing { counter, seen: 0 }
    }

    fn follow(&mut self, now: u64) {
        self.counter.inc_by(if now >= self.seen { now - self.seen } else { now });
        self.seen = now;
    }
}

/// Seconds of history behind `batch_size_avg`.
const WINDOW: usize = 60;

/// The gauges that a sample sets.
#[derive(Debug)]
pub(super) struct Follower {
    name: String,
    source: String,
    source_idle: Gauge,
    bytes: Growing,
    transactions: Growing,
    value_fallbacks: Growing,
    channel_depth: IntGauge,
    checkpoint_lag: Gauge,
    checkpoint_lag_events: [IntGauge; 2],
    buffered_bytes: IntGauge,
    lag_events: [IntGauge; 2],
    batch_size_avg: Gauge,
    /// Sum of events and number of batches, of the last [`WINDOW`] samples.
    batches: VecDeque<(f64, u64)>,
    began_ms: Option<i64>,
}

impl Follower {
    pub(super) fn new(f: &Families, s: &mut Series, about: &PipelineAbout<'_>) -> Follower {
        let PipelineAbout { name, source, .. } = *about;
        for rung in RUNGS {
            s.of("lag_seconds", &f.lag_seconds, &[name, rung]);
        }
        s.of("source_lag", &f.source_lag, &[name, source]);
        s.of("cdc_lag", &f.cdc_lag, &[name]);
        Follower {
            name: name.into(),
            source: source.into(),
            source_idle: s.of("source_idle", &f.source_idle, &[name, source]),
            bytes: Growing::new(s.of("source_bytes", &f.source_bytes, &[name, source])),
            transactions: Growing::new(s.of("transactions", &f.source_transactions, &[name, source])),
            // The sources of this release count one kind: types they do not know, given as text.
            value_fallbacks: Growing::new(s.of(
                "fallbacks",
                &f.value_fallbacks,
                &[name, source, "unknown_type"],
            )),
            channel_depth: s.of("channel", &f.channel_depth, &[name]),
            checkpoint_lag: s.of("checkpoint_lag", &f.checkpoint_lag, &[name]),
            checkpoint_lag_events: [
                s.of("checkpoint_lag_events", &f.checkpoint_lag_events, &[name]),
                s.of("checkpoint_lag_events_general", &f.checkpoint_lag_events_general, &[name]),
            ],
            buffered_bytes: s.of("buffered", &f.buffered_bytes, &[name]),
            lag_events: [1, 2].map(|rung| s.of("lag_events", &f.lag_events, &[name, RUNGS[rung]])),
            batch_size_avg: s.of("batch_size_avg", &f.batch_size_avg, &[name]),
            batches: VecDeque::with_capacity(WINDOW + 1),
            began_ms: None,
        }
    }

    /// `batches` are the sum of events and the number of all batches so far.
    pub(super) fn follow(
        &mut self,
        f: &Families,
        s: &mut Series,
        sample: &Sample<'_>,
        stats: &SourceStats,
        batches: (f64, u64),
    ) {
        self.ladder(f, s, sample);
        self.bytes.follow(stats.bytes.load(Relaxed));
        self.transactions.follow(stats.transactions.load(Relaxed));
        self.value_fallbacks.follow(stats.value_fallbacks.load(Relaxed));
        // Before anything arrived, a source has been idle since it was first looked at.
        let began = *self.began_ms.get_or_insert(sample.now_ms);
        let last = stats.last_data_ms.load(Relaxed).max(began);
        self.source_idle.set((sample.now_ms - last).max(0) as f64 / 1000.0);
        let labels = [self.name.as_str(), self.source.as_str()];
        match u64::try_from(stats.retained_bytes.load(Relaxed)) {
            Ok(bytes) => s.of("retained", &f.retained_bytes, &labels).set(gauge(bytes)),
            Err(_) => s.forget("retained", &labels),
        }
        self.channel_depth.set(gauge(sample.waiting_events));
        self.buffered_bytes.set(gauge(sample.buffered_bytes));
        self.checkpoint_lag.set(sample.checkpoint_lag_seconds);
        for gauge_of in &self.checkpoint_lag_events {
            gauge_of.set(gauge(sample.checkpoint_lag_events));
        }
        self.mean_batch(batches);
    }

    fn ladder(&mut self, f: &Families, s: &mut Series, sample: &Sample<'_>) {
        let (name, source) = (self.name.as_str(), self.source.as_str());
        let mut set = |family, vec: &prometheus::GaugeVec, labels: &[&str], value: Option<f64>| match value {
            Some(value) => s.of(family, vec, labels).set(value),
            None => s.forget(family, labels),
        };
        set("position", &f.position, &[name, "head"], sample.head.map(|head| head as f64));
        for (word, rung) in RUNGS.into_iter().zip([sample.received, sample.delivered, sample.durable]) {
            let labels = [name, word];
            set("position", &f.position, &labels, rung.position.map(|position| position as f64));
            set("lag_seconds", &f.lag_seconds, &labels, rung.lag_seconds);
            let bytes =
                sample.head.zip(rung.position).map(|(head, position)| head.saturating_sub(position) as f64);
            set("lag_bytes", &f.lag_bytes, &labels, bytes);
        }
        set("source_lag", &f.source_lag, &[name, source], sample.received.lag_seconds);
        set("cdc_lag", &f.cdc_lag, &[name], sample.delivered.lag_seconds);
        let [delivered, durable] = &self.lag_events;
        delivered.set(gauge(sample.delivered.lag_events));
        durable.set(gauge(sample.durable.lag_events));
    }

    fn mean_batch(&mut self, (events, batches): (f64, u64)) {
        self.batches.push_back((events, batches));
        if self.batches.len() > WINDOW + 1 {
            self.batches.pop_front();
        }
        let (first_events, first_batches) = self.batches.front().copied().unwrap_or_default();
        let count = batches.saturating_sub(first_batches);
        self.batch_size_avg.set(if count == 0 { 0.0 } else { (events - first_events) / count as f64 });
    }
}
