//! Dead letters of a pipeline: listing, purging, and giving them to their sinks again.

use super::Supervisor;
use super::entry::Entry;
use super::info::Refusal;
use super::operations::hold;
use crate::dead_letters::Redelivery;
use crate::handle::Command;
use crate::status::State;
use deltaforge_core::batch::thaw;
use deltaforge_core::clock;
use deltaforge_core::dead_letter::{DeadLetter, DeadLetterPage, DeadLetterQuery, Which};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Letters that are in memory at once.
const PART: usize = 100;
/// How long one part may take at its sinks. What is not answered by then stays in the queue.
const PATIENCE: Duration = Duration::from_secs(60);

/// What giving letters again came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redelivered {
    /// How many were asked for and there.
    pub retried: u64,
    /// How many the sinks have; they are out of the queue.
    pub delivered: u64,
    /// How many stay in the queue.
    pub failed: u64,
}

impl Supervisor {
    /// Dead letters, oldest first.
    ///
    /// # Errors
    /// `PipelineNotFound`, `Store`.
    pub async fn dead_letters(&self, name: &str, query: &DeadLetterQuery) -> Result<DeadLetterPage, Refusal> {
        let entry = self.entry(name)?;
        let Some(source_id) = source_of(&entry) else { return Ok(DeadLetterPage::default()) };
        // What is too old is not shown. While somebody changes the pipeline, whoever trims next does it.
        let settings = entry.run.try_lock().ok().and_then(|run| run.spec.as_ref()?.dlq);
        if let Some(settings) = settings {
            let max_age_ms = settings.max_age_secs.saturating_mul(1000);
            let before = clock::unix_millis().saturating_sub_unsigned(max_age_ms);
            self.0.store.trim_dead_letters(&source_id, before).await.map_err(Refusal::Store)?;
        }
        let page = self.0.store.dead_letters(&source_id, query).await.map_err(Refusal::Store)?;
        self.count(&entry, &source_id).await?;
        Ok(page)
    }

    /// Takes dead letters out of the queue, undelivered; gives how many there were.
    ///
    /// # Errors
    /// `PipelineNotFound`, `Store`.
    pub async fn purge_dead_letters(&self, name: &str, which: Which) -> Result<u64, Refusal> {
        let (this, name) = (self.clone(), name.to_owned());
        let purge = async move {
            let entry = this.entry(&name)?;
            let Some(source_id) = source_of(&entry) else { return Ok(0) };
            let purged =
                this.0.store.remove_dead_letters(&source_id, &which).await.map_err(Refusal::Store)?;
            this.count(&entry, &source_id).await?;
            tracing::warn!(pipeline = name, purged, "dead letters purged: these events are not delivered");
            Ok(purged)
        };
        self.operate("purge dead letters", purge).await
    }

    /// Gives dead letters to their sinks again, after the batches in flight.
    ///
    /// # Errors
    /// `PipelineNotFound`, `Store`; `Conflict` unless the pipeline runs.
    pub async fn retry_dead_letters(&self, name: &str, which: Which) -> Result<Redelivered, Refusal> {
        let (this, name) = (self.clone(), name.to_owned());
        self.operate("retry dead letters", async move { this.retry_now(&name, which).await }).await
    }

    async fn retry_now(&self, name: &str, which: Which) -> Result<Redelivered, Refusal> {
        let entry = self.entry(name)?;
        let not_running = |state: State| {
            let message = format!("the pipeline `{name}` is {}", state.as_str());
            Refusal::conflict(message, format!("POST /pipelines/{name}/resume first"))
        };
        // Held only until the way to the loop is known, so that the pipeline can be stopped meanwhile.
        let commands = match &hold(&entry).await?.handle {
            Some(handle) if !handle.has_ended() => handle.commands(),
            _ => return Err(not_running(entry.status().state)),
        };
        let state = entry.status().state;
        if !matches!(state, State::Running | State::Paused) {
            return Err(not_running(state));
        }
        let Some(source_id) = source_of(&entry) else { return Ok(Redelivered::default()) };
        let mut sum = Redelivered::default();
        let mut after = 0;
        loop {
            let letters = self.part(&source_id, &which, after).await?;
            let Some(last) = letters.last().map(|letter| letter.id) else { break };
            after = last;
            self.retry_part(&source_id, letters, &commands, &mut sum).await?;
        }
        self.count(&entry, &source_id).await?;
        tracing::info!(
            pipeline = name,
            retried = sum.retried,
            delivered = sum.delivered,
            failed = sum.failed,
            "dead letters tried again"
        );
        Ok(sum)
    }

    /// The next letters behind a number.
    async fn part(&self, source_id: &str, which: &Which, after: u64) -> Result<Vec<DeadLetter>, Refusal> {
        let found = match which {
            Which::All => {
                let query = DeadLetterQuery { limit: PART, after, ..DeadLetterQuery::default() };
                self.0.store.dead_letters(source_id, &query).await.map(|page| page.entries)
            }
            Which::Ids(ids) => {
                let mut ids: Vec<_> = ids.iter().copied().filter(|id| *id > after).collect();
                ids.sort_unstable();
                ids.dedup();
                let mut found = Vec::new();
                // Numbers that are not there must not end it before those that are.
                for ids in ids.chunks(PART) {
                    found = match self.0.store.dead_letters_by_id(source_id, ids).await {
                        Ok(found) => found,
                        Err(fault) => return Err(Refusal::Store(fault)),
                    };
                    if !found.is_empty() {
                        break;
                    }
                }
                Ok(found)
            }
        };
        found.map_err(Refusal::Store)
    }

    async fn retry_part(
        &self,
        source_id: &str,
        letters: Vec<DeadLetter>,
        commands: &mpsc::Sender<Command>,
        sum: &mut Redelivered,
    ) -> Result<(), Refusal> {
        let mut by_sink: BTreeMap<String, VecDeque<_>> = BTreeMap::new();
        let (mut tried, mut delivered) = (Vec::new(), Vec::new());
        for DeadLetter { id, entry, .. } in letters {
            sum.retried += 1;
            if entry.truncated {
                continue; // The rest of it is not there.
            }
            match thaw(&entry.frozen) {
                Ok(batch) => {
                    tried.push(id);
                    by_sink.entry(entry.sink).or_default().push_back((id, batch));
                }
                Err(fault) => tracing::warn!(letter = id, "{fault}"),
            }
        }
        let mut answers = Vec::new();
        for (sink, letters) in by_sink {
            let (answer, answered) = oneshot::channel();
            let redelivery = Redelivery { sink, letters, delivered: Vec::new(), answer };
            // A loop that has ended drops the answer with the command.
            let _ended = commands.send(Command::Redeliver(redelivery)).await;
            answers.push(answered);
        }
        for answered in answers {
            if let Ok(Ok(ids)) = tokio::time::timeout(PATIENCE, answered).await {
                delivered.extend(ids);
            }
        }
        sum.delivered += delivered.len() as u64;
        tried.retain(|id| !delivered.contains(id));
        self.0.store.remove_dead_letters(source_id, &Which::Ids(delivered)).await.map_err(Refusal::Store)?;
        self.0.store.count_attempts(source_id, &tried).await.map_err(Refusal::Store)?;
        sum.failed = sum.retried - sum.delivered;
        Ok(())
    }

    /// Shows how many there are now.
    async fn count(&self, entry: &Entry, source_id: &str) -> Result<(), Refusal> {
        let entries = self.0.store.count_dead_letters(source_id).await.map_err(Refusal::Store)?;
        if let Some(metrics) = &entry.view().metrics {
            metrics.dead_letters(entries);
        }
        Ok(())
    }
}

fn source_of(entry: &Arc<Entry>) -> Option<String> {
    entry.view().source_id.clone()
}
