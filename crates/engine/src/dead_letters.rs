//! Storing what a sink refuses, and giving it to the sink again.
//!
//! **Storing is part of delivery.** A lane that meets an event which can never be delivered waits here for the store's answer
//! and goes on without the event only then; a store that does not answer blocks it, as the target would. A crash in
//! between stores the same event again, which the store knows by its id.

use crate::spec::{DlqSettings, PipelineSpec};
use deltaforge_core::batch::{Batch, freeze};
use deltaforge_core::checkpoint::StateStore;
use deltaforge_core::dead_letter::{Appended, NewDeadLetter, Room, Which};
use deltaforge_core::fault::{Class, Fault, Kind};
use deltaforge_core::metrics::PipelineMetrics;
use deltaforge_core::position::Epoch;
use deltaforge_core::sink::SinkContext;
use deltaforge_core::{Event, EventId, Position, clock};
use std::collections::VecDeque;
use std::ops::Not;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a start waits for the count.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// Writes an event as native JSON, for people to look at.
pub type RenderEvent = fn(&Event<'_>, &SinkContext) -> Vec<u8>;

/// A run's way to the queue of its pipeline.
#[derive(Clone)]
pub(crate) struct DeadLetters {
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) source_id: String,
    pub(crate) epoch: Epoch,
    pub(crate) settings: DlqSettings,
    pub(crate) metrics: Arc<PipelineMetrics>,
}

impl DeadLetters {
    /// The way to the queue of a pipeline that has one.
    pub(crate) fn of(
        spec: &PipelineSpec,
        store: &Arc<dyn StateStore>,
        epoch: Epoch,
        metrics: &Arc<PipelineMetrics>,
    ) -> Option<DeadLetters> {
        Some(DeadLetters {
            store: store.clone(),
            source_id: spec.source.id().into(),
            epoch,
            settings: spec.dlq?,
            metrics: metrics.clone(),
        })
    }

    /// Stores an event of a batch, durably when it returns.
    ///
    /// # Errors
    /// `Retry` when the store does not answer, `Fenced` when the run no longer owns the pipeline, `Data` (`dlq.full`) when the
    /// queue is full and nothing is to be dropped for the event.
    pub(crate) async fn put(
        &self,
        batch: &Batch,
        id: EventId,
        sink: &str,
        context: &SinkContext,
        fault: &Fault,
        position: Option<&Position>,
    ) -> Result<(), Fault> {
        let Some((event, frozen)) = batch.events().find(|e| e.id() == id).zip(freeze(batch, id)) else {
            return Err(Fault::bug("dlq.no_such_event", "a refused event is not in its batch"));
        };
        let shown = match self.settings.render {
            Some(render) => String::from_utf8(render(&event, context)).unwrap_or_else(|_| "null".into()),
            None => "null".into(),
        };
        let truncated = shown.len() as u64 > self.settings.max_event_bytes;
        let kind = kind_word(fault.kind_of());
        let now = clock::unix_millis();
        let entry = NewDeadLetter {
            sink: sink.to_owned(),
            kind: kind.to_owned(),
            message: format!("{}: {}", fault.code(), fault.message()),
            event_id: id.to_string(),
            position: position.map_or_else(|| "{}".to_owned(), |p| p.as_json().to_owned()),
            stored_ms: now,
            event: if truncated { beginning(&shown, self.settings.max_event_bytes) } else { shown },
            frozen: if truncated { Vec::new() } else { frozen },
            truncated,
        };
        self.trim(now).await?;
        let settings = &self.settings;
        let room = Room { max_entries: settings.max_entries, drop_oldest: settings.drop_oldest };
        let appended = self.store.append_dead_letter(&self.source_id, entry, room, self.epoch).await?;
        let Appended::Stored { dropped, .. } = appended else { return Err(self.full(id, fault)) };
        self.metrics.dead_letter_stored(sink, kind, dropped);
        self.metrics.dead_letters(self.store.count_dead_letters(&self.source_id).await?);
        tracing::warn!(
            pipeline = context.pipeline,
            sink_id = sink,
            event_id = %id,
            code = fault.code(),
            reason = fault.message(),
            "an event that cannot be delivered is stored as a dead letter"
        );
        if dropped > 0 {
            tracing::error!(pipeline = context.pipeline, dropped, "the oldest dead letters made room");
        }
        Ok(())
    }

    /// Whether a letter is still in the queue; yes when the store does not answer.
    pub(crate) async fn has(&self, id: u64) -> bool {
        let found = self.store.dead_letters_by_id(&self.source_id, &[id]).await;
        found.is_ok_and(|found| found.is_empty()).not()
    }

    /// Takes a letter out that was delivered. When the store does not answer it is still taken out by whoever asked.
    pub(crate) async fn take_out(&self, id: u64) {
        if let Err(fault) = self.store.remove_dead_letters(&self.source_id, &Which::Ids(vec![id])).await {
            tracing::warn!(
                letter = id,
                code = fault.code(),
                "a delivered dead letter is not taken out: {fault}"
            );
        }
    }

    /// Counts what is there. A store that does not answer now is asked again with the next letter.
    pub(crate) async fn begin(&self) {
        let trimmed = tokio::time::timeout(FIRST_LOOK, self.trim(clock::unix_millis())).await;
        if let Ok(Err(fault)) = trimmed {
            tracing::warn!(
                source_id = self.source_id,
                code = fault.code(),
                "dead letters are not counted: {fault}"
            );
        }
    }

    /// Forgets what is too old, and counts the rest.
    pub(crate) async fn trim(&self, now_ms: i64) -> Result<(), Fault> {
        let before = now_ms.saturating_sub_unsigned(self.settings.max_age_secs.saturating_mul(1000));
        let trimmed = self.store.trim_dead_letters(&self.source_id, before).await?;
        if trimmed > 0 {
            tracing::warn!(
                source_id = self.source_id,
                trimmed,
                "dead letters above dlq.max_age_secs are gone"
            );
        }
        self.metrics.dead_letters(self.store.count_dead_letters(&self.source_id).await?);
        Ok(())
    }

    fn full(&self, id: EventId, fault: &Fault) -> Fault {
        let message = format!(
            "the dead-letter queue is full with {} events, and another one cannot be delivered: {}",
            self.settings.max_entries,
            fault.message()
        );
        Fault::new(Class::Data, "dlq.full", message)
            .kind(fault.kind_of())
            .event(id)
            .hint("purge it, `deltaforge dlq purge`, or raise dlq.max_entries; then resume")
    }
}

/// The word of the API for a kind of fault.
fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::TooLarge => "too_large",
        Kind::Route => "route",
        Kind::Encode | Kind::Schema => "encode",
        Kind::Decode => "value",
        _ => "rejected",
    }
}

/// The beginning of a text as a JSON text.
fn beginning(text: &str, bytes: u64) -> String {
    let mut end = usize::try_from(bytes).unwrap_or(usize::MAX).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    serde_json::Value::from(&text[..end]).to_string()
}

/// Dead letters to be delivered again to one sink, after the batches in flight.
#[derive(Debug)]
pub struct Redelivery {
    /// The sink's id.
    pub sink: String,
    /// Numbers in the queue, and the events.
    pub letters: VecDeque<(u64, Batch)>,
    /// What was delivered so far.
    pub delivered: Vec<u64>,
    /// Told at the end. Dropped when the pipeline ends before.
    pub answer: oneshot::Sender<Vec<u64>>,
}

#[cfg(test)]
mod tests {
    use super::beginning;

    #[test]
    fn a_cut_event_is_a_json_text() {
        assert_eq!(beginning("{\"ü\":1}", 3), r#""{\"""#);
        assert_eq!(beginning("{}", 9), r#""{}""#);
    }
}
