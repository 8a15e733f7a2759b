//! A store that counts how long its calls take.

use async_trait::async_trait;
use deltaforge_core::Fault;
use deltaforge_core::checkpoint::{
    Checkpoint, CheckpointStore, DocumentStore, Lease, SchemaHistory, StateStore, Version,
};
use deltaforge_core::dead_letter::{
    Appended, DeadLetter, DeadLetterPage, DeadLetterQuery, DeadLetterStore, NewDeadLetter, Room, Which,
};
use deltaforge_core::metrics::{Metrics, StateCall};
use deltaforge_core::position::Epoch;
use deltaforge_core::schema::SchemaRecord;
use std::future::Future;
use std::sync::Arc;
use tokio::time::Instant;

/// The same store, its calls measured as `deltaforge_state_latency_seconds`.
pub fn measured(store: Arc<dyn StateStore>, metrics: Arc<Metrics>) -> Arc<dyn StateStore> {
    Arc::new(Measured { store, metrics })
}

struct Measured {
    store: Arc<dyn StateStore>,
    metrics: Arc<Metrics>,
}

impl Measured {
    /// Failed calls count too: a store that answers slowly that it cannot is a slow store.
    async fn timed<T>(&self, call: StateCall, work: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let answer = work.await;
        self.metrics.state_call(call, start.elapsed());
        answer
    }
}

#[async_trait]
impl CheckpointStore for Measured {
    async fn acquire(&self, source_id: &str, pipeline: &str) -> Result<Lease, Fault> {
        self.timed(StateCall::Acquire, self.store.acquire(source_id, pipeline)).await
    }

    async fn load(&self, source_id: &str) -> Result<Option<Checkpoint>, Fault> {
        self.timed(StateCall::Load, self.store.load(source_id)).await
    }

    async fn save(&self, checkpoint: &Checkpoint, epoch: Epoch) -> Result<u64, Fault> {
        self.timed(StateCall::Save, self.store.save(checkpoint, epoch)).await
    }

    fn has_versions(&self) -> bool {
        self.store.has_versions()
    }

    async fn versions(&self, source_id: &str) -> Result<Vec<Version>, Fault> {
        self.timed(StateCall::Load, self.store.versions(source_id)).await
    }

    async fn rollback(&self, source_id: &str, version: u64) -> Result<Option<Checkpoint>, Fault> {
        self.timed(StateCall::Save, self.store.rollback(source_id, version)).await
    }

    async fn remove(&self, source_id: &str) -> Result<(), Fault> {
        self.timed(StateCall::Remove, self.store.remove(source_id)).await
    }

    async fn list(&self) -> Result<Vec<Checkpoint>, Fault> {
        self.timed(StateCall::Load, self.store.list()).await
    }

    async fn size_bytes(&self, source_id: &str) -> Result<u64, Fault> {
        self.timed(StateCall::Load, self.store.size_bytes(source_id)).await
    }
}

#[async_trait]
impl SchemaHistory for Measured {
    async fn schemas(&self, source_id: &str) -> Result<Vec<SchemaRecord>, Fault> {
        self.timed(StateCall::Load, self.store.schemas(source_id)).await
    }

    async fn append_schemas(
        &self,
        source_id: &str,
        records: &[SchemaRecord],
        epoch: Epoch,
    ) -> Result<(), Fault> {
        self.timed(StateCall::AppendSchemas, self.store.append_schemas(source_id, records, epoch)).await
    }
}

#[async_trait]
impl DocumentStore for Measured {
    async fn put_document(&self, name: &str, json: &str) -> Result<(), Fault> {
        self.timed(StateCall::PutDocument, self.store.put_document(name, json)).await
    }

    async fn remove_document(&self, name: &str) -> Result<(), Fault> {
        self.timed(StateCall::Remove, self.store.remove_document(name)).await
    }

    async fn documents(&self) -> Result<Vec<(String, String)>, Fault> {
        self.timed(StateCall::Load, self.store.documents()).await
    }
}

#[async_trait]
impl DeadLetterStore for Measured {
    async fn append_dead_letter(
        &self,
        source_id: &str,
        entry: NewDeadLetter,
        room: Room,
        epoch: Epoch,
    ) -> Result<Appended, Fault> {
        self.timed(StateCall::Save, self.store.append_dead_letter(source_id, entry, room, epoch)).await
    }

    async fn dead_letters(&self, source_id: &str, query: &DeadLetterQuery) -> Result<DeadLetterPage, Fault> {
        self.timed(StateCall::Load, self.store.dead_letters(source_id, query)).await
    }

    async fn dead_letters_by_id(&self, source_id: &str, ids: &[u64]) -> Result<Vec<DeadLetter>, Fault> {
        self.timed(StateCall::Load, self.store.dead_letters_by_id(source_id, ids)).await
    }

    async fn remove_dead_letters(&self, source_id: &str, which: &Which) -> Result<u64, Fault> {
        self.timed(StateCall::Remove, self.store.remove_dead_letters(source_id, which)).await
    }

    async fn count_attempts(&self, source_id: &str, ids: &[u64]) -> Result<(), Fault> {
        self.timed(StateCall::Save, self.store.count_attempts(source_id, ids)).await
    }

    async fn trim_dead_letters(&self, source_id: &str, before_ms: i64) -> Result<u64, Fault> {
        self.timed(StateCall::Remove, self.store.trim_dead_letters(source_id, before_ms)).await
    }

    async fn count_dead_letters(&self, source_id: &str) -> Result<u64, Fault> {
        self.timed(StateCall::Load, self.store.count_dead_letters(source_id)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltaforge_core::metrics::BuildInfo;

    #[tokio::test]
    async fn calls_are_counted_by_kind() {
        let metrics = Arc::new(Metrics::new(BuildInfo { version: "", commit: "", target: "" }).unwrap());
        let store = measured(crate::open("memory:").unwrap(), metrics.clone());
        store.acquire("s", "p").await.unwrap();
        store.load("s").await.unwrap();
        store.list().await.unwrap();
        let text = metrics.render();
        let count = |call: &str| {
            let series = format!("deltaforge_state_latency_seconds_count{{operation=\"{call}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&series)).map(str::to_string)
        };
        assert_eq!([count("acquire"), count("load"), count("save")].map(Option::unwrap), ["1", "2", "0"]);
    }
}
