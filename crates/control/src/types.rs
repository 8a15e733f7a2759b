//! The shapes of answers.

use deltaforge_core::Position;
use deltaforge_core::checkpoint::{SinkProgress, Version};
use deltaforge_core::clock::{rfc3339_millis, unix_millis};
use deltaforge_core::config::Finding;
use deltaforge_core::dead_letter::{DeadLetter, DeadLetterPage};
use deltaforge_engine::status::{Lag, SinkStatus, State, Status, Trouble};
use deltaforge_engine::supervisor::{CheckpointInfo, PipeInfo, Redelivered};
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// A pipeline.
#[derive(Serialize)]
pub(crate) struct Pipe {
    name: String,
    status: &'static str,
    spec: serde_json::Value,
    phase: &'static str,
    error: Option<TroubleJson>,
    started_at: Option<String>,
    origin: &'static str,
    persisted: bool,
    lag: Option<LagJson>,
    sinks: Vec<SinkStatusJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// How far a sink has come.
#[derive(Serialize)]
struct SinkStatusJson {
    id: String,
    required: bool,
    exactly_once: bool,
    state: &'static str,
    position: Option<Box<RawValue>>,
    delivered_at: Option<String>,
    lag: SinkLagJson,
    given_up_events: u64,
    gap: Option<GapJson>,
    error: Option<TroubleJson>,
}

#[derive(Serialize)]
struct SinkLagJson {
    events: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct GapJson {
    after: Option<Box<RawValue>>,
    until: Option<Box<RawValue>>,
    events: Option<u64>,
}

impl SinkStatusJson {
    /// `runs` is false once the pipeline has ended: its sinks then do nothing.
    fn of(sink: SinkStatus, runs: bool) -> SinkStatusJson {
        let place = |position: &Option<Position>| position.as_ref().map(raw);
        SinkStatusJson {
            required: sink.required,
            exactly_once: sink.exactly_once,
            state: if runs { sink.state.as_str() } else { "idle" },
            position: place(&sink.position),
            delivered_at: sink.delivered_ms.map(rfc3339_millis),
            lag: SinkLagJson { events: sink.lag_events, seconds: sink.lag_seconds },
            given_up_events: sink.given_up_events,
            gap: sink.gap.map(|gap| GapJson {
                after: place(&gap.after),
                until: place(&gap.until),
                events: gap.events,
            }),
            error: sink.trouble.map(TroubleJson::from),
            id: sink.id,
        }
    }
}

/// What `/readyz` shows to somebody without the token.
#[derive(Serialize)]
pub(crate) struct PipeOutline {
    name: String,
    status: &'static str,
    phase: &'static str,
}

#[derive(Serialize)]
struct TroubleJson {
    code: String,
    message: String,
    hint: Option<String>,
    component: String,
    event_id: Option<String>,
    at: String,
}

#[derive(Serialize)]
struct LagJson {
    received_seconds: f64,
    delivered_seconds: f64,
    durable_seconds: f64,
    durable_bytes: Option<u64>,
}

impl From<PipeInfo> for Pipe {
    fn from(info: PipeInfo) -> Pipe {
        Pipe {
            name: info.name,
            status: info.status.state.as_str(),
            spec: info.document,
            phase: info.status.phase.as_str(),
            lag: lag(&info.status),
            sinks: {
                let runs = matches!(info.status.state, State::Running | State::Paused);
                info.status.sinks.into_iter().map(|sink| SinkStatusJson::of(sink, runs)).collect()
            },
            error: info.status.trouble.map(TroubleJson::from),
            started_at: info.status.started_ms.map(rfc3339_millis),
            origin: info.origin.as_str(),
            persisted: info.persisted,
            note: info.status.note,
        }
    }
}

impl From<PipeInfo> for PipeOutline {
    fn from(info: PipeInfo) -> PipeOutline {
        let Status { state, phase, .. } = info.status;
        PipeOutline { name: info.name, status: state.as_str(), phase: phase.as_str() }
    }
}

impl From<Trouble> for TroubleJson {
    fn from(trouble: Trouble) -> TroubleJson {
        TroubleJson {
            code: trouble.code,
            message: trouble.message,
            hint: trouble.hint,
            component: trouble.component,
            event_id: trouble.event_id,
            at: rfc3339_millis(trouble.at_ms),
        }
    }
}

/// The lag of a pipeline that does not run is not known: nobody looks at the source.
fn lag(status: &Status) -> Option<LagJson> {
    let Lag { received_seconds, delivered_seconds, durable_seconds, durable_bytes } = status.lag;
    match status.state {
        State::Running | State::Paused => {
            Some(LagJson { received_seconds, delivered_seconds, durable_seconds, durable_bytes })
        }
        State::Stopped | State::Failed => None,
    }
}

/// `GET /readyz`.
#[derive(Serialize)]
pub(crate) struct Ready<T> {
    pub(crate) status: &'static str,
    pub(crate) pipelines: Vec<T>,
}

/// `POST /validate`, for a document that validates.
#[derive(Serialize)]
pub(crate) struct Valid {
    pub(crate) valid: bool,
    pub(crate) pipeline: String,
    pub(crate) source_type: String,
    pub(crate) sink_count: usize,
    pub(crate) warnings: Vec<FindingJson>,
}

/// One finding of a document.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FindingJson {
    path: String,
    line: Option<u32>,
    column: Option<u32>,
    class: &'static str,
    message: String,
    hint: Option<String>,
}

impl FindingJson {
    pub(crate) fn of(finding: &Finding) -> FindingJson {
        let place = |n: u32| (n > 0).then_some(n);
        FindingJson {
            path: finding.path.clone(),
            line: place(finding.span.line),
            column: place(finding.span.column),
            class: finding.class.as_str(),
            message: finding.message.clone(),
            hint: finding.hint.clone(),
        }
    }
}

/// A finding as the API and `validate --json` show it: `{"path","line","column","class","message","hint"}`.
pub fn finding_json(finding: &Finding) -> serde_json::Value {
    serde_json::to_value(FindingJson::of(finding)).unwrap_or_default()
}

/// A part of the dead letters.
#[derive(Serialize)]
pub(crate) struct DlqJson {
    entries: Vec<LetterJson>,
    /// `after` of the next part.
    next: Option<u64>,
    total: u64,
}

/// A dead letter.
#[derive(Serialize)]
struct LetterJson {
    id: u64,
    stored_at: String,
    sink: String,
    kind: String,
    message: String,
    attempts: u32,
    event_id: String,
    position: Box<RawValue>,
    event: Box<RawValue>,
    truncated: bool,
}

/// How many were purged.
#[derive(Serialize)]
pub(crate) struct PurgedJson {
    pub(crate) purged: u64,
}

/// What a retry came to.
#[derive(Serialize)]
pub(crate) struct RetriedJson {
    retried: u64,
    delivered: u64,
    failed: u64,
}

impl From<DeadLetterPage> for DlqJson {
    fn from(page: DeadLetterPage) -> DlqJson {
        let next = page.entries.last().map(|letter| letter.id).filter(|_| page.more);
        DlqJson { entries: page.entries.into_iter().map(LetterJson::from).collect(), next, total: page.total }
    }
}

impl From<DeadLetter> for LetterJson {
    fn from(letter: DeadLetter) -> LetterJson {
        let DeadLetter { id, attempts, entry } = letter;
        // A store keeps JSON only.
        let json = |text| RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned());
        LetterJson {
            id,
            stored_at: rfc3339_millis(entry.stored_ms),
            sink: entry.sink,
            kind: entry.kind,
            message: entry.message,
            attempts,
            event_id: entry.event_id,
            position: json(entry.position),
            event: json(entry.event),
            truncated: entry.truncated,
        }
    }
}

impl From<Redelivered> for RetriedJson {
    fn from(sum: Redelivered) -> RetriedJson {
        let Redelivered { retried, delivered, failed } = sum;
        RetriedJson { retried, delivered, failed }
    }
}

/// A checkpoint.
#[derive(Serialize)]
pub(crate) struct CheckpointJson {
    pipeline: String,
    source_id: String,
    position: Box<RawValue>,
    version: Option<u64>,
    saved_at: String,
    age_seconds: f64,
    size_bytes: u64,
    sinks: BTreeMap<String, SinkJson>,
    #[serde(skip_serializing_if = "is_zero")]
    events_done: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[derive(Serialize)]
struct SinkJson {
    position: Box<RawValue>,
    delivered_at: String,
}

/// One stored version of a checkpoint.
#[derive(Serialize)]
pub(crate) struct VersionJson {
    version: u64,
    created_at: String,
    size_bytes: u64,
    position: Box<RawValue>,
}

impl From<CheckpointInfo> for CheckpointJson {
    fn from(info: CheckpointInfo) -> CheckpointJson {
        let checkpoint = info.checkpoint;
        let age_ms = unix_millis().saturating_sub(checkpoint.saved_ms).max(0);
        CheckpointJson {
            pipeline: checkpoint.pipeline,
            source_id: checkpoint.source_id,
            position: raw(&checkpoint.position),
            version: info.version,
            saved_at: rfc3339_millis(checkpoint.saved_ms),
            age_seconds: age_ms as f64 / 1000.0,
            size_bytes: info.size_bytes,
            sinks: checkpoint.sinks.into_iter().map(sink).collect(),
            events_done: checkpoint.events_done,
        }
    }
}

fn sink(progress: SinkProgress) -> (String, SinkJson) {
    let json =
        SinkJson { position: raw(&progress.position), delivered_at: rfc3339_millis(progress.delivered_ms) };
    (progress.sink, json)
}

impl From<Version> for VersionJson {
    fn from(version: Version) -> VersionJson {
        VersionJson {
            version: version.version,
            created_at: rfc3339_millis(version.saved_ms),
            size_bytes: version.size_bytes,
            position: raw(&version.position),
        }
    }
}

/// A position as it is: its connector's JSON.
fn raw(position: &Position) -> Box<RawValue> {
    RawValue::from_string(position.as_json().into()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
