//! Saving checkpoints: one at a time, in its own task, grouped; and only then releasing.

use super::sinks::SinkView;
use super::{Command, Failure, Loop, Mode, STATE, is_final};
use crate::spec::PipelineSpec;
use crate::status::{Phase, State, Status, Trouble};
use deltaforge_core::checkpoint::{Checkpoint, Lease, StateStore};
use deltaforge_core::config::RetryPolicy;
use deltaforge_core::metrics::{Stage, Trigger};
use deltaforge_core::position::{End, Epoch};
use deltaforge_core::schema::SchemaLog;
use deltaforge_core::task::{Task, spawn};
use deltaforge_core::{Fault, Position, clock};
use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Saves are grouped: between two of them lies at least this, so that no batch pays for an fsync, and so that the disk's pauses
/// for it, which a database on the same disk feels too, come to less than a hundredth of the time.
const INTERVAL: Duration = Duration::from_secs(1);
/// A save that is not answered for so long is trouble: with the pause before it, a standing checkpoint is explained within five seconds.
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(3);
/// How a store that cannot be reached is tried again. Without jitter: the pipelines of a process that save at once share a
/// write, and a simulated run can be repeated.
const RETRY: RetryPolicy = RetryPolicy { initial_ms: 200, max_ms: 10_000, jitter: 0.0, max_attempts: 0 };

/// How a save went.
pub(super) struct Saved {
    end: End,
    covered_events: u64,
    schemas: usize,
    checkpoint: Checkpoint,
    result: Result<(u64, u64), Fault>,
    took: Duration,
}

/// The save in progress and the time of the next.
pub(super) struct Saving {
    store: Arc<dyn StateStore>,
    epoch: Epoch,
    task: Option<Task<Saved>>,
    begun: Instant,
    not_before: Instant,
    failed: u32,
    last_ok: Instant,
}

impl Saving {
    pub(super) fn new(store: Arc<dyn StateStore>, epoch: Epoch) -> Saving {
        let now = Instant::now();
        Saving { store, epoch, task: None, begun: now, not_before: now, failed: 0, last_ok: now }
    }

    pub(super) fn is_running(&self) -> bool {
        self.task.is_some()
    }

    /// When the next save is due; `None` when there is nothing to save or one is running. Schemas that batches wait for are
    /// saved at once.
    fn due(&self, unsaved: bool, schemas: bool) -> Option<Instant> {
        let at = if schemas && self.failed == 0 { self.begun } else { self.not_before };
        (self.task.is_none() && (schemas || unsaved)).then_some(at)
    }

    /// Waits for the running save; pends when there is none. Cancel-safe.
    ///
    /// # Errors
    /// The save's task broke down.
    pub(super) async fn ended(&mut self) -> Result<Saved, Fault> {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let ended = task.await;
        self.task = None;
        ended
    }

    /// How long the running save has been running.
    pub(super) fn running_for(&self) -> Option<Duration> {
        self.task.is_some().then(|| self.begun.elapsed())
    }

    /// Time since the last save that succeeded.
    pub(super) fn age(&self) -> Duration {
        self.last_ok.elapsed()
    }
}

/// What a start begins with.
pub(super) struct Taken {
    pub(super) lease: Lease,
    pub(super) schemas: Arc<SchemaLog>,
    /// What was asked for meanwhile.
    pub(super) mode: Mode,
}

/// Takes the checkpoint over and loads the schemas; tries for ever what may pass. `None` when a stop was asked for meanwhile.
pub(super) async fn take_over(
    spec: &PipelineSpec,
    store: &dyn StateStore,
    commands: &mut mpsc::Receiver<Command>,
    said: &watch::Sender<Status>,
    mut mode: Mode,
) -> Result<Option<Taken>, Failure> {
    let mut attempt = 0;
    loop {
        let taken = async {
            let lease = store.acquire(spec.source.id(), &spec.name).await?;
            let records = store.schemas(spec.source.id()).await?;
            Ok::<_, Fault>((lease, Arc::new(SchemaLog::new(records))))
        };
        let Some(taken) = obeying(taken, commands, &mut mode, said).await else { return Ok(None) };
        let fault = match taken {
            Ok((lease, schemas)) => return Ok(Some(Taken { lease, schemas, mode })),
            Err(fault) if is_final(&fault) => return Err(Failure::of(fault, STATE)),
            Err(fault) => fault,
        };
        attempt += 1;
        let pause = RETRY.pause(attempt, 0.0);
        tracing::warn!(
            pipeline = spec.name,
            attempt,
            code = fault.code(),
            reason = fault.message(),
            "the state store is away"
        );
        said.send_modify(|status| {
            status.phase = Phase::Retrying;
            status.trouble = Some(Trouble::of(&fault, STATE));
        });
        let Some(()) = obeying(tokio::time::sleep(pause), commands, &mut mode, said).await else {
            return Ok(None);
        };
        said.send_modify(|status| status.trouble = None);
    }
}

/// Waits for `work`, doing meanwhile what is asked; `None` when that is to stop.
pub(super) async fn obeying<T>(
    work: impl Future<Output = T>,
    commands: &mut mpsc::Receiver<Command>,
    mode: &mut Mode,
    said: &watch::Sender<Status>,
) -> Option<T> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => *mode = match command? {
                Command::Pause => Mode::Paused,
                Command::Resume => Mode::Running,
                Command::Stop => return None,
                // Nothing is delivered yet: its answer is dropped.
                Command::Redeliver(_) => *mode,
            },
            done = &mut work => return Some(done),
        }
        said.send_modify(|status| {
            status.state = if *mode == Mode::Paused { State::Paused } else { State::Running };
        });
    }
}

impl Loop {
    /// Starts a save when one is due.
    pub(super) fn save_what_is_due(&mut self) {
        if self.save_due().is_some_and(|at| at <= Instant::now()) {
            self.start_save();
        }
    }

    pub(super) fn save_due(&self) -> Option<Instant> {
        self.saving.due(self.unsaved().is_some(), self.awaits_schemas())
    }

    /// What may be saved and is not. The place of the start always may, and nothing behind the position of a target that is
    /// still inside a batch.
    fn unsaved(&self) -> Option<&End> {
        let end = self.progress.unsaved()?;
        let source = &self.spec.source;
        let is_behind = |stored: &Position| {
            !matches!(source.compare(&end.position, stored), Some(Ordering::Less | Ordering::Equal))
        };
        let is_start = self.progress.last_saved().is_none();
        (is_start || !self.sinks.iter().filter_map(SinkView::inside).any(is_behind)).then_some(end)
    }

    /// Batches wait for schemas to be saved: where a target is ahead of the checkpoint, the next start reads on from there, and
    /// would not meet again what is not stored.
    pub(super) fn awaits_schemas(&self) -> bool {
        self.is_exact() && self.progress.last_saved().is_some() && self.schemas.has_unsaved()
    }

    fn start_save(&mut self) {
        let Some(end) = self.unsaved().or(self.progress.last_saved()).cloned() else { return };
        let now_ms = clock::unix_millis();
        let checkpoint = Checkpoint {
            source_id: self.spec.source.id().into(),
            pipeline: self.spec.name.clone(),
            position: end.position.clone(),
            events_done: end.events_done,
            version: 0,
            saved_ms: now_ms,
            sinks: self.sink_progress(),
        };
        let (store, epoch) = (self.saving.store.clone(), self.saving.epoch);
        let schemas = self.schemas.unsaved();
        let covered_events = self.progress.unsaved_events();
        let begun = Instant::now();
        self.saving.begun = begun;
        self.saving.task = Some(spawn("checkpoint save", async move {
            // Schemas first: a checkpoint never covers rows whose schema number is not stored.
            let result = async {
                if !schemas.is_empty() {
                    store.append_schemas(&checkpoint.source_id, &schemas, epoch).await?;
                }
                let version = store.save(&checkpoint, epoch).await?;
                Ok((version, store.size_bytes(&checkpoint.source_id).await.unwrap_or(0)))
            };
            let result = result.await;
            Saved { end, covered_events, schemas: schemas.len(), checkpoint, result, took: begun.elapsed() }
        }));
    }

    pub(super) fn take_saved(&mut self, saved: Result<Saved, Fault>) -> Result<(), Failure> {
        let saved = saved.map_err(|broken_down| Failure::of(broken_down, STATE))?;
        let Saved { end, covered_events, schemas, mut checkpoint, result, took } = saved;
        match result {
            Ok((version, size_bytes)) => {
                self.saving.failed = 0;
                self.saving.last_ok = Instant::now();
                self.saving.not_before = self.saving.last_ok + INTERVAL;
                self.schemas.mark_saved(schemas);
                self.progress.saved(end.clone(), covered_events);
                // The one place that releases, and it lies behind the store's answer.
                self.releaser.release(end.position);
                self.metrics.checkpoint_saved(size_bytes);
                self.metrics.stage(Stage::Commit, Trigger::Timer, took);
                checkpoint.version = version;
                self.said.send_modify(|status| status.checkpoint = Some(checkpoint));
                self.clear_trouble(STATE);
                Ok(())
            }
            Err(fault) if is_final(&fault) => Err(Failure::of(fault, STATE)),
            Err(fault) => {
                self.metrics.checkpoint_failed();
                self.saving.failed += 1;
                let pause = RETRY.pause(self.saving.failed, 0.0);
                self.saving.not_before = Instant::now() + pause;
                tracing::warn!(
                    pipeline = self.spec.name,
                    attempt = self.saving.failed,
                    sleep_ms = pause.as_millis() as u64,
                    code = fault.code(),
                    reason = fault.message(),
                    "the checkpoint cannot be saved"
                );
                self.set_trouble(STATE, &fault);
                Ok(())
            }
        }
    }

    /// One last attempt, for what is safe when the pipeline fails. A fenced owner's save is refused by the store.
    pub(super) async fn save_once(&mut self) {
        if self.saving.is_running() {
            let saved = self.saving.ended().await;
            let _failed_already = self.take_saved(saved);
        }
        if self.unsaved().is_some() && !self.troubles.contains_key(STATE) {
            self.start_save();
            let saved = self.saving.ended().await;
            let _failed_already = self.take_saved(saved);
        }
    }
}
