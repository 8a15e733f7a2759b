//! Keeps the pipelines of a process: makes, changes, pauses, stops and deletes them, and says how they are.
//!
//! **Why nothing is left half done.** Each operation runs in a task of its own that the supervisor owns, so a client that goes
//! away in the middle of a request ends only its waiting, never a change. One operation at a time holds a pipeline's
//! `run`; readers never wait for it. A name and a source id are claimed before anything else happens and given back when it
//! fails. A document is stored before the request is answered, and a change that cannot start puts the old pipeline back:
//!
//! ```text
//!  create   validate ─ claim ─ store document ─ launch ─ answer
//!  patch    validate ─ claim ─ probe new servers ─ drain old ─ launch new ─ settled? ─ store document ─ answer
//!                                                      └ failed, or not stored: end new, launch old, refuse
//!  delete   store answers? ─ drain ─ drop slot if asked ─ forget document ─ forget state ─ answer
//! ```
//!
//! `entry` is one pipeline, `operations` changes one, `checkpoints` looks at and changes what is stored, `letters` those that could not be delivered, `launch` is the seam
//! to the engine, `addresses` tells which servers a changed document newly names.

mod addresses;
mod checkpoints;
mod entry;
mod info;
mod launch;
mod letters;
mod operations;

pub use info::{CheckpointInfo, Origin, PipeInfo, Refusal};
pub use launch::{EngineLauncher, Launcher};
pub use letters::Redelivered;

use crate::config::{Document, Loader, shown};
use crate::status::{Phase, State, Status, Trouble};
use deltaforge_core::Fault;
use deltaforge_core::checkpoint::StateStore;
use deltaforge_core::config::{Finding, FindingClass, Node, Raw, Span};
use deltaforge_core::metrics::{Action, Metrics, PipelineAbout};
use deltaforge_core::task::{self, Task};
use entry::{Entry, Seen, View};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// The words for all phases, for metrics.
const PHASES: [&str; Phase::ALL.len()] = {
    let mut words = [""; Phase::ALL.len()];
    let mut i = 0;
    while i < words.len() {
        words[i] = Phase::ALL[i].as_str();
        i += 1;
    }
    words
};

/// How long operations may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A drain.
    pub drain: Duration,
    /// The probe of servers that a patch newly names.
    pub probe: Duration,
    /// Waiting for a patched pipeline to get past its start.
    pub settle: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        let secs = Duration::from_secs;
        Timing { drain: secs(30), probe: secs(15), settle: secs(10) }
    }
}

/// Which pipelines to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Labels that must all be there, with these values.
    pub labels: Vec<(String, String)>,
    /// The state it must be in.
    pub state: Option<State>,
}

/// What a delete leaves in place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delete {
    /// Keep checkpoints and schema history.
    pub keep_state: bool,
    /// Remove what was made on the source's server.
    pub drop_slot: bool,
}

/// Keeps the pipelines of a process. Clones are the same supervisor.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    store: Arc<dyn StateStore>,
    launcher: Arc<dyn Launcher>,
    loader: Loader,
    metrics: Arc<Metrics>,
    timing: Timing,
    names: Mutex<Names>,
    /// Operations under way.
    operations: Mutex<Vec<Task<()>>>,
    closing: AtomicBool,
}

/// Names in use. A source id is a checkpoint key: no two pipelines may share one.
#[derive(Default)]
struct Names {
    pipelines: BTreeMap<String, Arc<Entry>>,
    /// Source id to pipeline.
    sources: BTreeMap<String, String>,
}

impl Supervisor {
    /// A supervisor without pipelines.
    pub fn new(
        store: Arc<dyn StateStore>,
        launcher: Arc<dyn Launcher>,
        loader: Loader,
        metrics: Arc<Metrics>,
        timing: Timing,
    ) -> Supervisor {
        Supervisor(Arc::new(Inner {
            store,
            launcher,
            loader,
            metrics,
            timing,
            names: Mutex::default(),
            operations: Mutex::default(),
            closing: AtomicBool::new(false),
        }))
    }

    /// The pipelines that pass a filter, by name.
    pub fn list(&self, filter: &Filter) -> Vec<PipeInfo> {
        let entries: Vec<_> = self.names().pipelines.values().cloned().collect();
        let passes = |info: &PipeInfo| {
            filter.state.is_none_or(|state| state == info.status.state)
                && filter.labels.iter().all(|label| info.labels.contains(label))
        };
        entries.iter().map(|entry| entry.info()).filter(passes).collect()
    }

    /// One pipeline.
    ///
    /// # Errors
    /// [`Refusal::PipelineNotFound`].
    pub fn get(&self, name: &str) -> Result<PipeInfo, Refusal> {
        Ok(self.entry(name)?.info())
    }

    /// Validates a document as a create would, changing nothing.
    ///
    /// # Errors
    /// [`Refusal::InvalidSpec`].
    pub fn validate(&self, written: &Node) -> Result<Document, Refusal> {
        self.read(written, Origin::Api)
    }

    /// Makes a pipeline from a document and starts it. The document is stored before it starts, so that what was answered
    /// outlives the process; an unreachable server shows as retrying later, not here.
    ///
    /// # Errors
    /// `InvalidSpec`, `AlreadyExists`, `Store`.
    pub async fn create(&self, written: Node) -> Result<PipeInfo, Refusal> {
        let this = self.clone();
        let name =
            written.get("metadata").and_then(|m| m.get("name")).and_then(Node::as_text).unwrap_or_default();
        let name = name.to_string();
        self.act(Action::Create, &name, async move { this.create_now(&written).await }).await
    }

    /// Changes a pipeline by an RFC 7396 merge into its document as written.
    ///
    /// # Errors
    /// `PipelineNotFound`, `NameMismatch`, `InvalidSpec`, `StartFailed`, `Store`; the old pipeline goes on.
    pub async fn patch(&self, name: &str, patch: Node) -> Result<PipeInfo, Refusal> {
        let (this, name) = (self.clone(), name.to_string());
        self.act(Action::Patch, &name.clone(), async move { this.patch_now(&name, &patch).await }).await
    }

    /// Halts reading; what was read is delivered, the connection is kept.
    ///
    /// # Errors
    /// `PipelineNotFound`, `Conflict` when it is stopped or failed.
    pub async fn pause(&self, name: &str) -> Result<PipeInfo, Refusal> {
        let (this, name) = (self.clone(), name.to_string());
        self.act(Action::Pause, &name.clone(), async move { this.pause_now(&name).await }).await
    }

    /// Goes on after a pause, or starts a stopped or failed pipeline again from its checkpoint.
    ///
    /// # Errors
    /// `PipelineNotFound`; `InvalidSpec` when the document no longer validates, a variable being gone for example.
    pub async fn resume(&self, name: &str) -> Result<PipeInfo, Refusal> {
        let (this, name) = (self.clone(), name.to_string());
        self.act(Action::Resume, &name.clone(), async move { this.resume_now(&name).await }).await
    }

    /// Drains, saves the final checkpoint, closes connections. The pipeline stays listed.
    ///
    /// # Errors
    /// `PipelineNotFound`.
    pub async fn stop(&self, name: &str) -> Result<PipeInfo, Refusal> {
        let (this, name) = (self.clone(), name.to_string());
        self.act(Action::Stop, &name.clone(), async move { this.stop_now(&name).await }).await
    }

    /// Stops a pipeline and removes it with its state.
    ///
    /// # Errors
    /// `PipelineNotFound`; `Conflict` when a slot is to be dropped and cannot be, `Store`: it is then stopped and listed still.
    pub async fn delete(&self, name: &str, how: Delete) -> Result<(), Refusal> {
        let (this, name) = (self.clone(), name.to_string());
        self.act(Action::Delete, &name.clone(), async move { this.delete_now(&name, how).await }).await
    }

    /// Starts the given pipelines, then those that the store keeps. A given one wins over a stored document of the same name,
    /// with a warning. A stored document that no longer validates is listed as failed. Documents that share a name or a source
    /// id are refused when they are read together, so here the first of them wins.
    ///
    /// # Errors
    /// The store does not answer; nothing was started.
    pub async fn load(&self, documents: Vec<(Document, Origin)>) -> Result<(), Fault> {
        let stored = self.0.store.documents().await?;
        for (document, origin) in documents {
            let entry = Arc::new(new_entry(document, origin));
            match self.claim(&entry) {
                Ok(()) => self.launch(&entry, &mut *entry.run.lock().await),
                Err(refusal) => {
                    tracing::error!(
                        pipeline = entry.name,
                        reason = refusal.summary(),
                        "a pipeline cannot be loaded"
                    );
                }
            }
        }
        for (name, json) in stored {
            self.load_stored(&name, &json).await;
        }
        Ok(())
    }

    /// Ends all pipelines, each delivering and saving what it has read, all at the same time; no operation is taken any more.
    /// True when all were done within `deadline`.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        self.0.closing.store(true, SeqCst);
        let until = tokio::time::Instant::now() + deadline;
        let entries: Vec<_> = self.names().pipelines.values().cloned().collect();
        let drains = entries.iter().map(|entry| async move {
            let Ok(mut run) = tokio::time::timeout_at(until, entry.run.lock()).await else { return false };
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            let drained = run.handle.is_none() || entry.halt(&mut run, left).await;
            if !drained {
                tracing::warn!(pipeline = entry.name, "the drain missed its deadline");
            }
            drained
        });
        futures_util::future::join_all(drains).await.into_iter().all(|drained| drained)
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, name: &str) -> Result<Arc<Entry>, Refusal> {
        let found = self.names().pipelines.get(name).cloned();
        found.ok_or_else(|| Refusal::PipelineNotFound(name.into()))
    }

    /// An operation that is counted.
    async fn act<T: Send + 'static>(
        &self,
        action: Action,
        pipeline: &str,
        operation: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let result = self.operate(action.as_str(), operation).await;
        self.0.metrics.action(pipeline, action, result.is_ok());
        result
    }

    /// Runs an operation to its end, whether or not anybody still waits for its answer.
    async fn operate<T: Send + 'static>(
        &self,
        name: &'static str,
        operation: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        if self.0.closing.load(SeqCst) {
            return Err(Refusal::conflict(
                "the process is shutting down",
                "send the request again once it is back",
            ));
        }
        let (answer, answered) = oneshot::channel();
        let task = task::spawn(name, async move {
            let _nobody_waits = answer.send(operation.await);
        });
        {
            let mut operations = self.0.operations.lock().unwrap_or_else(PoisonError::into_inner);
            operations.retain(|task| !task.is_finished());
            operations.push(task);
        }
        let ended = || Err(Refusal::Internal(format!("`{name}` ended before it answered")));
        answered.await.unwrap_or_else(|_| ended())
    }

    /// Takes the entry's name and source id.
    fn claim(&self, entry: &Arc<Entry>) -> Result<(), Refusal> {
        let source_id = entry.view().source_id.clone();
        let mut names = self.names();
        if names.pipelines.contains_key(&entry.name) {
            return Err(Refusal::AlreadyExists(entry.name.clone()));
        }
        if let Some(id) = source_id {
            names.claim_source(&id, &entry.name)?;
        }
        names.pipelines.insert(entry.name.clone(), entry.clone());
        Ok(())
    }

    /// Gives both back.
    fn release(&self, entry: &Entry) {
        let mut names = self.names();
        names.pipelines.remove(&entry.name);
        names.sources.retain(|_, pipeline| *pipeline != entry.name);
    }

    async fn load_stored(&self, name: &str, json: &str) {
        if self.names().pipelines.contains_key(name) {
            tracing::warn!(pipeline = name, "a file and the state store define it: the file is used");
            return;
        }
        let written = serde_json::from_str(json).map(|json| Node::from_json(&json));
        let written = written.unwrap_or_else(|_| Node::new(Raw::Null));
        let claimed = self.read(&written, Origin::Api).and_then(|document| {
            if document.spec.name != name {
                return Err(Refusal::NameMismatch { asked: name.into(), found: document.spec.name });
            }
            let entry = Arc::new(new_entry(document, Origin::Api));
            self.claim(&entry).map(|()| entry)
        });
        match claimed {
            Ok(entry) => self.launch(&entry, &mut *entry.run.lock().await),
            Err(refusal) => {
                let entry = Arc::new(broken_entry(name, written, &refusal.summary()));
                // The name was free a moment ago; should a request have taken it meanwhile, that pipeline is the newer one.
                if self.claim(&entry).is_ok() {
                    self.show_broken(&entry);
                }
            }
        }
    }

    /// Validates a document as written, with the rights of its origin.
    fn read(&self, written: &Node, origin: Origin) -> Result<Document, Refusal> {
        self.0.loader.document(written, origin == Origin::File).map_err(Refusal::InvalidSpec)
    }

    /// Lets alerts see a pipeline that cannot start.
    fn show_broken(&self, entry: &Entry) {
        let (name, status) = (&*entry.name, entry.status());
        let about =
            PipelineAbout { name, tenant: "", source_type: "", source: "", sinks: &[], phases: &PHASES };
        entry.view().metrics = Some(self.0.metrics.pipeline(&about));
        entry.set_status(status);
    }
}

impl Names {
    fn claim_source(&mut self, id: &str, pipeline: &str) -> Result<(), Refusal> {
        match self.sources.get(id) {
            Some(other) if other != pipeline => Err(Refusal::InvalidSpec(vec![Finding {
                path: "spec.source.config.id".into(),
                span: Span::default(),
                class: FindingClass::Conflict,
                message: format!("the source id `{id}` is used by the pipeline `{other}`"),
                hint: Some(
                    "checkpoints are kept by source id: give each pipeline's source an `id` of its own"
                        .into(),
                ),
            }])),
            _ => {
                self.sources.insert(id.into(), pipeline.into());
                Ok(())
            }
        }
    }
}

fn new_entry(document: Document, origin: Origin) -> Entry {
    let Document { written, spec, shown, warnings } = document;
    log_warnings(&spec.name, &warnings);
    let view = View {
        document: shown,
        labels: spec.labels.clone(),
        origin,
        persisted: true,
        source_id: Some(spec.source.id().into()),
        seen: Seen::Set(Box::default()),
        metrics: None,
    };
    Entry::new(&spec.name.clone(), written, Some(spec), view)
}

fn log_warnings(pipeline: &str, warnings: &[Finding]) {
    for warning in warnings {
        let (path, hint) = (&*warning.path, warning.hint.as_deref());
        tracing::warn!(pipeline, path, hint, "{}", warning.message);
    }
}

/// A stored pipeline that cannot run: visible, failed, and its document kept.
fn broken_entry(name: &str, written: Node, reason: &str) -> Entry {
    tracing::error!(pipeline = name, reason, "a stored pipeline cannot start");
    let fault = Fault::config("config.invalid", format!("the stored document does not validate: {reason}"))
        .hint("set what is missing and resume, patch the document, or delete the pipeline");
    let status = Status {
        state: State::Failed,
        phase: Phase::Idle,
        trouble: Some(Trouble::of(&fault, "config")),
        ..Status::new()
    };
    let view = View {
        document: shown(&written, &[]),
        labels: Vec::new(),
        origin: Origin::Api,
        persisted: true,
        source_id: None,
        seen: Seen::Set(Box::new(status)),
        metrics: None,
    };
    Entry::new(name, written, None, view)
}
