//! What changes one pipeline. Each function runs in its own task and holds the pipeline's `run` from beginning to end.

use super::addresses::newly_named;
use super::entry::{Entry, Run, settled, shows, watch};
use super::info::{Origin, PipeInfo, Refusal};
use super::{Delete, PHASES, Supervisor, log_warnings, new_entry};
use crate::config::{Document, patched};
use crate::spec::PipelineSpec;
use crate::status::{State, Status, Trouble};
use deltaforge_core::config::{Finding, FindingClass, Node, Raw, Report, Severity};
use deltaforge_core::metrics::PipelineAbout;
use deltaforge_core::{Fault, task};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::MutexGuard;

/// How long a pause may take to show.
const PAUSE_SHOWS: Duration = Duration::from_secs(5);
/// How long, and how often, dropping a slot is tried again while the server still sees the old connection.
const DROP_ATTEMPTS: u32 = 20;
const DROP_INTERVAL: Duration = Duration::from_millis(500);
/// Longest drain of a pipeline whose state is deleted with it: nothing read needs to be saved.
const DELETE_DRAIN: Duration = Duration::from_secs(5);

impl Supervisor {
    pub(super) async fn create_now(&self, written: &Node) -> Result<PipeInfo, Refusal> {
        let document = self.read(written, Origin::Api)?;
        let json = written.to_json().to_string();
        let entry = Arc::new(new_entry(document, Origin::Api));
        let mut run = entry.run.lock().await;
        self.claim(&entry)?;
        if let Err(fault) = self.0.store.put_document(&entry.name, &json).await {
            run.gone = true;
            self.release(&entry);
            return Err(Refusal::Store(fault));
        }
        self.launch(&entry, &mut run);
        tracing::info!(pipeline = entry.name, "pipeline created");
        Ok(entry.info())
    }

    pub(super) async fn patch_now(&self, name: &str, patch: &Node) -> Result<PipeInfo, Refusal> {
        let entry = self.entry(name)?;
        let mut run = hold(&entry).await?;
        if let Some(found) = patch.get("metadata").and_then(|m| m.get("name")).and_then(Node::as_text)
            && found != name
        {
            return Err(Refusal::NameMismatch { asked: name.into(), found: found.into() });
        }
        if let Some(finding) = reads_file(patch, "") {
            return Err(Refusal::InvalidSpec(vec![finding]));
        }
        let origin = entry.view().origin;
        let changed = patched(&run.written, patch).map_err(Refusal::InvalidSpec)?;
        let document = self.read(&changed, origin)?;
        log_warnings(name, &document.warnings);
        self.names().claim_source(document.spec.source.id(), name)?;
        let changed = self.swap(&entry, &mut run, document).await;
        self.free_other_sources(&entry);
        changed?;
        tracing::info!(pipeline = name, persisted = entry.view().persisted, "pipeline changed");
        Ok(entry.info())
    }

    /// Puts a validated document in the place of the old one, or leaves everything as it was.
    async fn swap(&self, entry: &Arc<Entry>, run: &mut Run, document: Document) -> Result<(), Refusal> {
        let before = entry.status();
        if before.state == State::Stopped {
            self.persist(entry, &document.written).await?;
            adopt(entry, run, document);
            return Ok(());
        }
        self.probe(&run.written, &document).await?;
        if !entry.halt(run, self.0.timing.drain).await {
            tracing::warn!(
                pipeline = entry.name,
                "the drain missed its deadline: what was not saved is delivered again"
            );
        }
        self.launch_spec(entry, run, document.spec.clone());
        if before.state == State::Paused
            && let Some(handle) = &run.handle
        {
            handle.pause().await;
        }
        let started = match &run.handle {
            Some(handle) => settled(handle.subscribe(), self.0.timing.settle).await,
            None => entry.status(),
        };
        let outcome = match started.state {
            State::Failed => Err(Refusal::StartFailed(Box::new(started.trouble.unwrap_or_else(unexplained)))),
            _ => self.persist(entry, &document.written).await,
        };
        if let Err(refusal) = outcome {
            self.put_back(entry, run, before).await;
            return Err(refusal);
        }
        adopt(entry, run, document);
        Ok(())
    }

    /// Ends the new pipeline and starts the old one again as it was.
    async fn put_back(&self, entry: &Arc<Entry>, run: &mut Run, before: Status) {
        tracing::warn!(pipeline = entry.name, "the change did not start: the pipeline goes on unchanged");
        entry.halt(run, self.0.timing.drain).await;
        match run.spec.clone() {
            Some(spec) if before.state != State::Failed => {
                self.launch_spec(entry, run, spec);
                if before.state == State::Paused
                    && let Some(handle) = &run.handle
                {
                    handle.pause().await;
                }
            }
            _ => entry.set_status(before),
        }
    }

    pub(super) async fn pause_now(&self, name: &str) -> Result<PipeInfo, Refusal> {
        let entry = self.entry(name)?;
        let run = hold(&entry).await?;
        match (entry.status().state, &run.handle) {
            (State::Paused, _) => {}
            (State::Running, Some(handle)) => {
                handle.pause().await;
                shows(&mut handle.subscribe(), PAUSE_SHOWS, |status| status.state != State::Running).await;
            }
            (state, _) => {
                let message =
                    format!("the pipeline `{name}` is {}, so there is nothing to pause", state.as_str());
                return Err(Refusal::conflict(message, format!("POST /pipelines/{name}/resume starts it")));
            }
        }
        Ok(entry.info())
    }

    pub(super) async fn resume_now(&self, name: &str) -> Result<PipeInfo, Refusal> {
        let entry = self.entry(name)?;
        let mut run = hold(&entry).await?;
        match (entry.status().state, &run.handle) {
            (State::Running, _) => {}
            (State::Paused, Some(handle)) => {
                handle.resume().await;
                shows(&mut handle.subscribe(), PAUSE_SHOWS, |status| status.state != State::Paused).await;
            }
            _ => {
                // Read anew: a password in a file may be another by now, a variable may be there.
                let origin = entry.view().origin;
                let document = self.read(&run.written, origin)?;
                self.names().claim_source(document.spec.source.id(), name)?;
                entry.halt(&mut run, self.0.timing.drain).await;
                adopt_again(&entry, &mut run, document);
                self.free_other_sources(&entry);
                self.launch(&entry, &mut run);
                tracing::info!(pipeline = name, "pipeline started again");
            }
        }
        Ok(entry.info())
    }

    pub(super) async fn stop_now(&self, name: &str) -> Result<PipeInfo, Refusal> {
        let entry = self.entry(name)?;
        let mut run = hold(&entry).await?;
        if entry.status().state != State::Stopped || run.handle.is_some() {
            let drained = entry.halt(&mut run, self.0.timing.drain).await;
            tracing::info!(pipeline = name, drained, "pipeline stopped");
        }
        Ok(entry.info())
    }

    pub(super) async fn delete_now(&self, name: &str, how: Delete) -> Result<(), Refusal> {
        let entry = self.entry(name)?;
        let mut run = hold(&entry).await?;
        let source_id = entry.view().source_id.clone();
        // A store that does not answer refuses the request while nothing is changed yet.
        let has_state = match &source_id {
            Some(id) => self.0.store.load(id).await.map_err(Refusal::Store)?.is_some(),
            None => false,
        };
        let drain = if how.keep_state { self.0.timing.drain } else { self.0.timing.drain.min(DELETE_DRAIN) };
        entry.halt(&mut run, drain).await;
        if how.drop_slot {
            drop_slot(name, &run).await?;
        }
        self.0.store.remove_document(name).await.map_err(Refusal::Store)?;
        if let Some(id) = source_id.filter(|_| !how.keep_state) {
            self.0.store.remove(&id).await.map_err(Refusal::Store)?;
        }
        run.gone = true;
        self.release(&entry);
        self.0.metrics.remove(name);
        tracing::info!(
            pipeline = name,
            keep_state = how.keep_state,
            had_checkpoint = has_state,
            "pipeline deleted"
        );
        if !how.drop_slot && has_state {
            let hint = "a replication slot that nobody reads holds back the server's log: drop it by hand";
            tracing::warn!(pipeline = name, hint, "what was made on the source's server stays there");
        }
        if entry.view().origin == Origin::File {
            tracing::warn!(
                pipeline = name,
                "its file still defines the pipeline: it is back after a restart"
            );
        }
        Ok(())
    }

    /// Gives back the source ids that the pipeline claimed and does not use: the old one after a change, the new one when the
    /// change was refused.
    fn free_other_sources(&self, entry: &Entry) {
        let used = entry.view().source_id.clone();
        self.names().sources.retain(|id, pipeline| *pipeline != entry.name || Some(id) == used.as_ref());
    }

    /// Starts the entry's pipeline.
    pub(super) fn launch(&self, entry: &Arc<Entry>, run: &mut Run) {
        if let Some(spec) = run.spec.clone() {
            self.launch_spec(entry, run, spec);
        }
    }

    fn launch_spec(&self, entry: &Arc<Entry>, run: &mut Run, spec: PipelineSpec) {
        let sinks: Vec<&str> = spec.sinks.iter().map(|sink| sink.id()).collect();
        let metrics = self.0.metrics.pipeline(&PipelineAbout {
            name: &spec.name,
            tenant: &spec.tenant,
            source_type: &spec.source_type,
            source: spec.source.id(),
            sinks: &sinks,
            phases: &PHASES,
        });
        self.0.metrics.pipeline_started();
        let handle = self.0.launcher.launch(spec, metrics.clone());
        entry.follow(handle.subscribe(), metrics);
        let watcher = watch(Arc::downgrade(entry), self.0.metrics.clone(), handle.subscribe());
        run.watcher = Some(task::spawn("pipeline watch", watcher));
        run.handle = Some(handle);
    }

    /// Stores a changed document, if the pipeline is one that the store keeps.
    async fn persist(&self, entry: &Entry, written: &Node) -> Result<(), Refusal> {
        if entry.view().origin != Origin::Api {
            return Ok(());
        }
        let json = written.to_json().to_string();
        self.0.store.put_document(&entry.name, &json).await.map_err(Refusal::Store)
    }

    /// Asks the servers that the new document names and the old one did not.
    async fn probe(&self, old: &Node, new: &Document) -> Result<(), Refusal> {
        let servers = newly_named(old, &new.written);
        let spec = &new.spec;
        if servers.source {
            let report = tokio::time::timeout(self.0.timing.probe, spec.source.check()).await;
            judge(report.ok(), "source")?;
        }
        for (sink, _) in spec.sinks.iter().zip(&servers.sinks).filter(|(_, new)| **new) {
            let report = tokio::time::timeout(self.0.timing.probe, sink.check()).await;
            judge(report.ok(), sink.id())?;
        }
        Ok(())
    }
}

/// Waits for a pipeline's turn.
pub(super) async fn hold(entry: &Entry) -> Result<MutexGuard<'_, Run>, Refusal> {
    let run = entry.run.lock().await;
    if run.gone { Err(Refusal::PipelineNotFound(entry.name.clone())) } else { Ok(run) }
}

/// The first text of a patch that refers to a file. A document of a file may do so and is read again with that right; whoever
/// can only reach the API must not get at files through it. What such a document has already comes back as `***`.
fn reads_file(patch: &Node, path: &str) -> Option<Finding> {
    match &patch.value {
        Raw::Text(text) if text.replace("$${", "").contains("${file:") => Some(Finding {
            path: path.into(),
            span: patch.span,
            class: FindingClass::Expand,
            message: "a document sent over the API may not use `${file:…}`".into(),
            hint: Some("use a variable, `${VAR}`".into()),
        }),
        Raw::List(items) => {
            items.iter().enumerate().find_map(|(index, item)| reads_file(item, &format!("{path}[{index}]")))
        }
        Raw::Map(entries) => entries.iter().find_map(|(key, node)| {
            let below = if path.is_empty() { key.name.clone() } else { format!("{path}.{}", key.name) };
            reads_file(node, &below)
        }),
        _ => None,
    }
}

/// Makes a changed document the pipeline's own.
fn adopt(entry: &Entry, run: &mut Run, document: Document) {
    adopt_again(entry, run, document);
    let mut view = entry.view();
    // The document of a file or of the environment is what it was again after a restart.
    view.persisted = view.origin == Origin::Api;
}

/// Takes over what the same document came to when it was read anew.
fn adopt_again(entry: &Entry, run: &mut Run, document: Document) {
    let Document { written, spec, shown, .. } = document;
    let mut view = entry.view();
    view.document = shown;
    view.labels.clone_from(&spec.labels);
    view.source_id = Some(spec.source.id().into());
    run.written = written;
    run.spec = Some(spec);
}

fn judge(report: Option<Report>, component: &str) -> Result<(), Refusal> {
    let fault = match report {
        None => Fault::retry("config.probe", "the server did not answer the probe in time"),
        Some(report) => match report.checks.into_iter().find(|check| check.severity == Severity::Error) {
            None => return Ok(()),
            Some(check) => {
                let fault = Fault::config("config.probe", format!("{}: {}", check.name, check.evidence));
                match check.remedy {
                    Some(remedy) => fault.hint(remedy),
                    None => fault,
                }
            }
        },
    };
    Err(Refusal::StartFailed(Box::new(Trouble::of(&fault, component))))
}

async fn drop_slot(name: &str, run: &Run) -> Result<(), Refusal> {
    let Some(spec) = &run.spec else {
        let message = format!("the document of `{name}` does not validate, so its source is unknown");
        return Err(Refusal::conflict(message, "leave out drop_slot, or patch the document first"));
    };
    let mut attempt = 1;
    loop {
        match spec.source.remove().await {
            Ok(()) => return Ok(()),
            Err(fault) if fault.is_retry() && attempt < DROP_ATTEMPTS => {
                attempt += 1;
                tokio::time::sleep(DROP_INTERVAL).await;
            }
            Err(fault) => {
                let message =
                    format!("the pipeline is stopped; its slot cannot be dropped: {}", fault.message());
                let hint = fault.hint_text().unwrap_or("send the request again, or leave out drop_slot");
                return Err(Refusal::conflict(message, hint));
            }
        }
    }
}

fn unexplained() -> Trouble {
    Trouble::of(&Fault::bug("engine.unexplained", "the pipeline failed without saying why"), "engine")
}
