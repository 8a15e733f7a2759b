//! Stored checkpoints, by pipeline: reading them, going back to an earlier one, forgetting one.

use super::Supervisor;
use super::entry::Entry;
use super::info::{CheckpointInfo, Refusal};
use super::operations::hold;
use crate::status::State;
use deltaforge_core::checkpoint::{Checkpoint, Version};
use std::sync::Arc;

impl Supervisor {
    /// All checkpoints, also those that a deleted pipeline left.
    ///
    /// # Errors
    /// [`Refusal::Store`].
    pub async fn checkpoints(&self) -> Result<Vec<CheckpointInfo>, Refusal> {
        let mut all = self.0.store.list().await.map_err(Refusal::Store)?;
        all.sort_by(|a, b| (&a.pipeline, &a.source_id).cmp(&(&b.pipeline, &b.source_id)));
        let mut infos = Vec::with_capacity(all.len());
        for checkpoint in all {
            infos.push(self.describe(checkpoint).await?);
        }
        Ok(infos)
    }

    /// A pipeline's checkpoint.
    ///
    /// # Errors
    /// `PipelineNotFound`, `CheckpointNotFound`, `Store`.
    pub async fn checkpoint(&self, pipeline: &str) -> Result<CheckpointInfo, Refusal> {
        let (checkpoint, _) = self.stored(pipeline).await?;
        self.describe(checkpoint).await
    }

    /// The stored versions, newest first.
    ///
    /// # Errors
    /// As for [`checkpoint`](Self::checkpoint); `NotSupported` in a store without versions.
    pub async fn checkpoint_versions(&self, pipeline: &str) -> Result<Vec<Version>, Refusal> {
        let (checkpoint, _) = self.stored(pipeline).await?;
        self.need_versions()?;
        self.0.store.versions(&checkpoint.source_id).await.map_err(Refusal::Store)
    }

    /// Goes back to an earlier version, which is saved as a new one: events since then are delivered again.
    ///
    /// # Errors
    /// As for [`checkpoint_versions`](Self::checkpoint_versions); `Conflict` unless the pipeline is paused or stopped.
    pub async fn rollback_checkpoint(&self, pipeline: &str, version: u64) -> Result<CheckpointInfo, Refusal> {
        let (this, pipeline) = (self.clone(), pipeline.to_string());
        self.operate("rollback", async move { this.rollback_now(&pipeline, version).await }).await
    }

    async fn rollback_now(&self, pipeline: &str, version: u64) -> Result<CheckpointInfo, Refusal> {
        let (checkpoint, entry) = self.stored(pipeline).await?;
        self.need_versions()?;
        let versions = self.0.store.versions(&checkpoint.source_id).await.map_err(Refusal::Store)?;
        let missing =
            || Refusal::CheckpointNotFound(format!("`{pipeline}` has no checkpoint version {version}"));
        let wanted = versions.iter().find(|stored| stored.version == version).ok_or_else(missing)?;
        let go_back = async || match self.0.store.rollback(&checkpoint.source_id, version).await {
            Ok(rolled) => rolled.ok_or_else(missing),
            Err(fault) => Err(Refusal::Store(fault)),
        };
        let Some(entry) = entry else { return self.describe(go_back().await?).await };
        let mut run = hold(&entry).await?;
        still_there(&run, &wanted.position).await?;
        let rolled = match entry.status().state {
            State::Stopped => go_back().await,
            State::Paused => {
                // The paused loop holds batches from after that version and its saves would be refused from here on: it
                // ends first, and another one starts, paused, from the earlier place.
                entry.halt(&mut run, self.0.timing.drain).await;
                let rolled = go_back().await;
                self.launch(&entry, &mut run);
                if let Some(handle) = &run.handle {
                    handle.pause().await;
                }
                rolled
            }
            state => return Err(in_the_way(pipeline, state, "pause")),
        }?;
        tracing::warn!(pipeline, version, "checkpoint rolled back: events since then are delivered again");
        self.describe(rolled).await
    }

    /// Forgets a pipeline's checkpoint, its versions and its schema history: the next start behaves like the first.
    ///
    /// # Errors
    /// As for [`checkpoint`](Self::checkpoint); `Conflict` unless the pipeline is stopped.
    pub async fn delete_checkpoint(&self, pipeline: &str) -> Result<(), Refusal> {
        let (this, pipeline) = (self.clone(), pipeline.to_string());
        self.operate("delete checkpoint", async move { this.delete_checkpoint_now(&pipeline).await }).await
    }

    async fn delete_checkpoint_now(&self, pipeline: &str) -> Result<(), Refusal> {
        let (checkpoint, entry) = self.stored(pipeline).await?;
        // Held to the end, so that nobody starts the pipeline meanwhile.
        let _run = match &entry {
            Some(entry) => {
                let run = hold(entry).await?;
                match entry.status().state {
                    State::Stopped => Some(run),
                    state => return Err(in_the_way(pipeline, state, "stop")),
                }
            }
            None => None,
        };
        self.0.store.remove(&checkpoint.source_id).await.map_err(Refusal::Store)?;
        tracing::warn!(pipeline, "checkpoint deleted: the next start behaves like the first");
        Ok(())
    }

    /// The checkpoint of a pipeline, and the pipeline when it is here; a pipeline that is not may have left one.
    async fn stored(&self, pipeline: &str) -> Result<(Checkpoint, Option<Arc<Entry>>), Refusal> {
        let entry = self.entry(pipeline).ok();
        let source_id = entry.as_ref().and_then(|entry| entry.view().source_id.clone());
        let found = match &source_id {
            Some(id) => self.0.store.load(id).await.map_err(Refusal::Store)?,
            None => {
                let all = self.0.store.list().await.map_err(Refusal::Store)?;
                all.into_iter().find(|checkpoint| checkpoint.pipeline == pipeline)
            }
        };
        match found {
            Some(checkpoint) => Ok((checkpoint, entry)),
            None if entry.is_some() => Err(Refusal::CheckpointNotFound(format!(
                "`{pipeline}` has no checkpoint: none was saved yet"
            ))),
            None => Err(Refusal::PipelineNotFound(pipeline.into())),
        }
    }

    fn need_versions(&self) -> Result<(), Refusal> {
        if self.0.store.has_versions() {
            return Ok(());
        }
        Err(Refusal::NotSupported {
            message: "this state store keeps no versions of checkpoints".into(),
            hint: "start with --state sqlite:PATH to keep them".into(),
        })
    }

    async fn describe(&self, checkpoint: Checkpoint) -> Result<CheckpointInfo, Refusal> {
        let size_bytes = self.0.store.size_bytes(&checkpoint.source_id).await.map_err(Refusal::Store)?;
        let version = self.0.store.has_versions().then_some(checkpoint.version);
        Ok(CheckpointInfo { checkpoint, size_bytes, version })
    }
}

fn in_the_way(pipeline: &str, state: State, first: &str) -> Refusal {
    let message = format!("the pipeline `{pipeline}` is {}", state.as_str());
    let verb = if state == State::Failed { "stop" } else { first };
    Refusal::conflict(message, format!("POST /pipelines/{pipeline}/{verb} first"))
}

/// A place that the source no longer has is no place to go back to. A server that cannot be asked now may have it.
async fn still_there(run: &super::entry::Run, position: &deltaforge_core::Position) -> Result<(), Refusal> {
    let Some(spec) = &run.spec else { return Ok(()) };
    match spec.source.reach(position).await {
        Err(fault) if fault.class() == deltaforge_core::Class::Lost => Err(Refusal::Conflict {
            message: format!("the source no longer has that position: {}", fault.message()),
            hint: fault.hint_text().unwrap_or("choose a later version").into(),
        }),
        _ => Ok(()),
    }
}
