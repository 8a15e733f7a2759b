//! A pipeline, parsed: what the loop runs.

use crate::dead_letters::RenderEvent;
use deltaforge_core::sink::SinkPlan;
use deltaforge_core::source::SourcePlan;
use std::sync::Arc;
use std::time::Duration;

/// A parsed pipeline document. No connection is open yet.
#[derive(Clone)]
pub struct PipelineSpec {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.tenant`.
    pub tenant: String,
    /// `metadata.labels`.
    pub labels: Vec<(String, String)>,
    /// The word in `spec.source.type`.
    pub source_type: String,
    /// The source.
    pub source: Arc<dyn SourcePlan>,
    /// The sinks, at least one.
    pub sinks: Vec<Arc<dyn SinkPlan>>,
    /// `spec.batch`.
    pub batch: BatchSettings,
    /// Which sinks a checkpoint waits for.
    pub commit_policy: CommitPolicy,
    /// Ceiling on buffered event data, bytes.
    pub memory_limit: u64,
    /// `spec.dlq`, when it is enabled.
    pub dlq: Option<DlqSettings>,
}

/// `spec.dlq`.
#[derive(Clone, Copy, Debug)]
pub struct DlqSettings {
    /// Most entries.
    pub max_entries: u64,
    /// Oldest age.
    pub max_age_secs: u64,
    /// Events larger than that are stored cut.
    pub max_event_bytes: u64,
    /// At `max_entries` the oldest entry makes room, instead of the pipeline stopping.
    pub drop_oldest: bool,
    /// Writes an event for people to look at; `None`: it is not shown.
    pub render: Option<RenderEvent>,
}

/// `spec.batch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSettings {
    /// Most events in a batch.
    pub max_events: usize,
    /// Most serialized bytes in a batch.
    pub max_bytes: usize,
    /// Longest wait of a batch's first event.
    pub max_wait: Duration,
    /// Keep transactions whole.
    pub respect_source_tx: bool,
    /// Batches handed to sinks and not yet acknowledged.
    pub max_inflight: usize,
}

impl Default for BatchSettings {
    fn default() -> BatchSettings {
        BatchSettings {
            max_events: 500,
            max_bytes: 1 << 20,
            max_wait: Duration::from_secs(1),
            respect_source_tx: true,
            max_inflight: 2,
        }
    }
}

/// Which sinks a checkpoint waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CommitPolicy {
    /// Every sink, whatever its flag.
    All,
    /// Every sink with `required: true`.
    #[default]
    Required,
    /// Any so many sinks.
    Quorum(usize),
}
