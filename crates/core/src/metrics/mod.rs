//! What the process counts and measures, rendered as Prometheus text.
//!
//! One [`Metrics`] object holds everything; there is no global. A pipeline asks it once for its [`PipelineMetrics`], whose
//! fields are resolved handles: on the way of a batch an update is an addition to an atomic, never a look-up by label.
//! Methods are named after what happened. Gauges that follow something are set once a second by
//! [`PipelineMetrics::sample`].
//!
//! Two rules of the specification shape the code. A series whose labels are known exists with value 0 from the start of its
//! pipeline, so handles are made eagerly; and it goes away with the pipeline, so each is remembered with how to remove it
//! ([`series`]). What is unknown is absent, never guessed: such gauges are made when they become known.

mod families;
mod labels;
mod pipeline;
mod sample;
mod series;

#[cfg(test)]
mod tests;

pub use labels::{Action, Reason, Stage, StateCall, Trigger};
pub use pipeline::{PipelineAbout, PipelineMetrics, SinkMetrics, TableEvents};
pub use sample::{ProcessSample, Rung, Sample, SinkSample};

use crate::Fault;
use families::Families;
use prometheus::{Encoder, TextEncoder};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What `deltaforge_build_info` says.
#[derive(Clone, Copy, Debug)]
pub struct BuildInfo<'a> {
    /// Version of the program.
    pub version: &'a str,
    /// Commit it was built from.
    pub commit: &'a str,
    /// Target triple.
    pub target: &'a str,
}

/// All measurements of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: prometheus::Registry,
    families: Families,
    pipelines: Mutex<BTreeMap<String, Arc<PipelineMetrics>>>,
}

/// Stands for a pipeline that does not exist (a refused create, a finished delete), so that names sent by clients
/// cannot make series without end.
const NO_PIPELINE: &str = "_other";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metrics {
    /// Everything at 0.
    ///
    /// # Errors
    /// A name is given twice or is not allowed: a fault of this program, met by every test.
    pub fn new(build: BuildInfo<'_>) -> Result<Metrics, Fault> {
        let registry = prometheus::Registry::new();
        let families = Families::register(&registry)
            .map_err(|e| Fault::bug("metrics.definition", format!("a metric cannot be registered: {e}")))?;
        families.build_info.with_label_values(&[build.version, build.commit, build.target]).set(1);
        for call in StateCall::ALL {
            families.state_latency.with_label_values(&[call.as_str()]);
        }
        for status in labels::STATUSES {
            families.pipelines.with_label_values(&[status]);
        }
        Ok(Metrics { registry, families, pipelines: Mutex::default() })
    }

    /// The measurements of a pipeline, every series of it made with value 0. Asked for again (the document was changed), counts
    /// go on, series of components that are gone are removed, and the handles given before count no further.
    pub fn pipeline(&self, about: &PipelineAbout<'_>) -> Arc<PipelineMetrics> {
        let mut pipelines = lock(&self.pipelines);
        let before = pipelines.get(about.name).cloned();
        let made = Arc::new(PipelineMetrics::new(&self.families, about));
        if let Some(before) = before {
            before.replaced_by(&made);
        }
        pipelines.insert(about.name.into(), made.clone());
        made
    }

    /// Removes every series of a pipeline that was deleted.
    pub fn remove(&self, pipeline: &str) {
        if let Some(gone) = lock(&self.pipelines).remove(pipeline) {
            gone.remove();
        }
    }

    /// A pipeline was started.
    pub fn pipeline_started(&self) {
        self.families.pipelines_started.inc();
    }

    /// A panic was caught.
    pub fn panic_caught(&self) {
        self.families.panics.inc();
    }

    /// The ceiling on buffered event data of the whole process, set once at start.
    pub fn memory_limit(&self, bytes: u64) {
        self.families.memory_limit.set(sample::gauge(bytes));
    }

    /// A REST request was answered. `route` is the pattern, never the path asked for.
    pub fn api_request(&self, route: &str, method: &str, status: u16, took: Duration) {
        self.families.api_requests.with_label_values(&[route, method, &status.to_string()]).inc();
        self.families.api_latency.with_label_values(&[route, method]).observe(took.as_secs_f64());
    }

    /// Somebody asked for a change of a pipeline. One that does not exist (any more) is counted as `_other`.
    pub fn action(&self, pipeline: &str, action: Action, ok: bool) {
        let pipelines = lock(&self.pipelines);
        let outcome = if ok { "ok" } else { "error" };
        match pipelines.get(pipeline) {
            Some(known) => known.action(action, outcome),
            None => self.families.actions.with_label_values(&[NO_PIPELINE, action.as_str(), outcome]).inc(),
        }
    }

    /// The state store answered, with or without success.
    pub fn state_call(&self, call: StateCall, took: Duration) {
        self.families.state_latency.with_label_values(&[call.as_str()]).observe(took.as_secs_f64());
    }

    /// What the operating system says of the process; read by the runner right before [`render`](Self::render).
    pub fn process(&self, sample: &ProcessSample) {
        sample.apply(&self.families);
    }

    /// All series in the Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        self.count_statuses();
        let mut text = Vec::new();
        // Encoding fails only when writing does or on a family without series, and neither happens in memory.
        let _cannot_fail = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }

    fn count_statuses(&self) {
        let mut counts = [0i64; labels::STATUSES.len()];
        for pipeline in lock(&self.pipelines).values() {
            if let Some(count) = counts.get_mut(pipeline.status_index()) {
                *count += 1;
            }
        }
        for (status, count) in labels::STATUSES.iter().zip(counts) {
            self.families.pipelines.with_label_values(&[status]).set(count);
        }
        self.families.running_pipelines.set(counts[0]);
    }
}
