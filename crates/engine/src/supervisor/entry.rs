//! One pipeline of the supervisor: what readers see of it at any time, and what one operation at a time may change.

use super::info::{Origin, PipeInfo};
use crate::handle::Handle;
use crate::spec::PipelineSpec;
use crate::status::{Phase, State, Status, Trouble};
use deltaforge_core::Fault;
use deltaforge_core::config::Node;
use deltaforge_core::metrics::{Metrics, PipelineMetrics};
use deltaforge_core::task::Task;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// How much longer than its own deadline a stop is waited for, in case the loop no longer takes commands.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// The code of a loop that ended without a word.
const TASK_ENDED: &str = "engine.task_ended";

/// A pipeline.
pub(super) struct Entry {
    pub(super) name: String,
    /// Held by whatever changes the pipeline, from its first step to its last.
    pub(super) run: tokio::sync::Mutex<Run>,
    view: Mutex<View>,
}

/// What only the holder of `run` touches.
pub(super) struct Run {
    /// As written: variables unexpanded, secrets unmasked.
    pub(super) written: Node,
    /// `None` while the document does not validate, which only a stored one can do.
    pub(super) spec: Option<PipelineSpec>,
    pub(super) handle: Option<Handle>,
    /// Follows the running loop; ends with it.
    pub(super) watcher: Option<Task<()>>,
    /// Deleted: an operation that waited for its turn finds nothing any more.
    pub(super) gone: bool,
}

/// What readers see.
pub(super) struct View {
    pub(super) document: serde_json::Value,
    pub(super) labels: Vec<(String, String)>,
    pub(super) origin: Origin,
    pub(super) persisted: bool,
    pub(super) source_id: Option<String>,
    pub(super) seen: Seen,
    /// `None` until the first start.
    pub(super) metrics: Option<Arc<PipelineMetrics>>,
}

/// Where the condition comes from.
pub(super) enum Seen {
    /// A loop that runs, or ran and said how it ended.
    Live(watch::Receiver<Status>),
    /// The supervisor itself.
    Set(Box<Status>),
}

impl Entry {
    pub(super) fn new(name: &str, written: Node, spec: Option<PipelineSpec>, view: View) -> Entry {
        let run = Run { written, spec, handle: None, watcher: None, gone: false };
        Entry { name: name.into(), run: tokio::sync::Mutex::new(run), view: Mutex::new(view) }
    }

    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The condition, never better than it is: a loop that ended without a word has failed.
    pub(super) fn status(&self) -> Status {
        match &self.view().seen {
            Seen::Set(status) => (**status).clone(),
            Seen::Live(live) => honest(live),
        }
    }

    pub(super) fn set_status(&self, status: Status) {
        let mut view = self.view();
        if let Some(metrics) = &view.metrics {
            metrics.condition(status.state.as_str(), status.phase.as_str());
        }
        view.seen = Seen::Set(Box::new(status));
    }

    /// From here on the condition is what a loop says.
    pub(super) fn follow(&self, live: watch::Receiver<Status>, metrics: Arc<PipelineMetrics>) {
        let mut view = self.view();
        view.seen = Seen::Live(live);
        view.metrics = Some(metrics);
    }

    /// Takes note of what a loop says, unless another one runs by now; false then. What it says last is kept with the time at
    /// which it was seen.
    fn note(&self, of: &watch::Receiver<Status>, status: &Status, last: bool) -> bool {
        let mut view = self.view();
        if !matches!(&view.seen, Seen::Live(live) if live.same_channel(of)) {
            return false;
        }
        if let Some(metrics) = &view.metrics {
            metrics.condition(status.state.as_str(), status.phase.as_str());
        }
        if last {
            view.seen = Seen::Set(Box::new(status.clone()));
        }
        true
    }

    pub(super) fn info(&self) -> PipeInfo {
        let status = self.status();
        let view = self.view();
        PipeInfo {
            name: self.name.clone(),
            status,
            document: view.document.clone(),
            origin: view.origin,
            persisted: view.persisted,
            labels: view.labels.clone(),
        }
    }

    /// Ends the running loop, if there is one, delivering and saving what was read; false when that took longer than
    /// `deadline`. The condition becomes stopped, with an error when not everything was saved.
    pub(super) async fn halt(&self, run: &mut Run, deadline: Duration) -> bool {
        let before = self.status();
        // A loop that is cut off at the deadline must not look like one that broke down.
        run.watcher = None;
        if let (true, Some(metrics)) = (run.handle.is_some(), &self.view().metrics) {
            metrics.condition(before.state.as_str(), Phase::Draining.as_str());
        }
        let drained = match run.handle.take() {
            None => true,
            Some(handle) => {
                let stop = handle.stop(deadline);
                tokio::time::timeout(deadline + STOP_GRACE, stop).await.is_ok_and(|(_, drained)| drained)
            }
        };
        let mut status = self.status();
        if !drained {
            status.trouble = Some(missed_deadline(deadline));
        } else if before.state == State::Failed || status.state == State::Stopped {
            status.trouble = None;
        }
        status.state = State::Stopped;
        status.phase = Phase::Idle;
        status.note = None;
        self.set_status(status);
        drained
    }
}

fn missed_deadline(deadline: Duration) -> Trouble {
    let message = format!(
        "the drain was not done after {} s: what was not saved is delivered again",
        deadline.as_secs()
    );
    let fault = Fault::retry("engine.drain_deadline", message)
        .hint("see which sink does not answer, or allow more with --shutdown-timeout-secs");
    Trouble::of(&fault, "engine")
}

/// What a loop says, unless it has ended while it said that it runs.
pub(super) fn honest(live: &watch::Receiver<Status>) -> Status {
    // Asked before reading: a status that is sent between the two is then still seen.
    let ended = live.has_changed().is_err();
    let mut status = live.borrow().clone();
    if ended && matches!(status.state, State::Running | State::Paused) {
        let fault = Fault::bug(TASK_ENDED, "the pipeline's task ended without saying why: this is a bug")
            .hint("resume the pipeline, and report the bug with the log");
        status.trouble = Some(Trouble::of(&fault, "engine"));
        status.state = State::Failed;
    }
    if ended {
        status.phase = Phase::Idle;
    }
    status
}

/// Waits until a loop has got past its start: it streams, retries, is paused, or has ended. Gives what it says after `limit` at
/// the latest.
pub(super) async fn settled(mut live: watch::Receiver<Status>, limit: Duration) -> Status {
    // One that drains without having been asked to is about to say that it failed.
    let starts_or_fails = |status: &Status| matches!(status.phase, Phase::Starting | Phase::Draining);
    let past_start = |status: &Status| status.state != State::Running || !starts_or_fails(status);
    shows(&mut live, limit, past_start).await;
    honest(&live)
}

/// Waits until a loop says something, has ended, or the time is up.
pub(super) async fn shows(
    live: &mut watch::Receiver<Status>,
    limit: Duration,
    what: impl FnMut(&Status) -> bool,
) {
    // What is found is a lock on the status: it is let go at once.
    tokio::time::timeout(limit, live.wait_for(what)).await.map(drop).unwrap_or_default();
}

/// Follows a loop to its end: measures its condition, logs when its readiness changes and why.
///
/// It does not keep the entry alive, or the loop that the entry owns would never end.
pub(super) async fn watch(entry: Weak<Entry>, metrics: Arc<Metrics>, mut live: watch::Receiver<Status>) {
    let mut was_ready = None;
    live.mark_changed();
    loop {
        let open = live.changed().await.is_ok();
        let status = honest(&live);
        let Some(entry) = entry.upgrade() else { return };
        if !entry.note(&live, &status, !open) {
            return;
        }
        if !open && status.trouble.as_ref().is_some_and(|trouble| trouble.code == TASK_ENDED) {
            metrics.panic_caught();
        }
        let ready = status.is_ready();
        let starting = status.state == State::Running && status.phase == Phase::Starting;
        if was_ready != Some(ready) && !starting {
            log_readiness(&entry.name, ready, &status);
            was_ready = Some(ready);
        }
        if !open {
            return;
        }
    }
}

fn log_readiness(pipeline: &str, ready: bool, status: &Status) {
    let (state, phase) = (status.state.as_str(), status.phase.as_str());
    if ready {
        tracing::info!(pipeline, state, phase, "pipeline is ready");
        return;
    }
    let trouble = status.trouble.as_ref();
    let (code, component) = (trouble.map(|t| &*t.code), trouble.map(|t| &*t.component));
    let reason = trouble.map(|t| &*t.message);
    // A loop logs its own failure; about one that broke down nobody else does.
    if code == Some(TASK_ENDED) {
        tracing::error!(pipeline, state, phase, code, component, reason, "pipeline has broken down");
    } else {
        tracing::warn!(pipeline, state, phase, code, component, reason, "pipeline is not ready");
    }
}
