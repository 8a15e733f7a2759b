//! Checkpoints and the stores that keep them, with the other state of a pipeline.
//!
//! **Why two engines cannot both go on.** A pipeline takes its checkpoint over with [`CheckpointStore::acquire`], which counts
//! the stored epoch up. Every save is a compare-and-set on that epoch: the earlier owner's next save is refused as
//! `Fenced`, it stops, and since nothing is released before it is saved, its source is never told a position again.

use crate::Fault;
use crate::dead_letter::DeadLetterStore;
use crate::position::{Epoch, Position};
use crate::schema::SchemaRecord;
use async_trait::async_trait;

/// How far a pipeline has come, durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Key in the store.
    pub source_id: String,
    /// `metadata.name`. A store keeps the name that acquired the key, whatever a save says.
    pub pipeline: String,
    /// End of the last transaction that the commit policy counts as delivered.
    pub position: Position,
    /// Delivered events of the transaction after `position`; 0 unless transactions need not be kept whole.
    pub events_done: u64,
    /// Number of this save; 0 before the store has given one. [`CheckpointStore::save`] does not look at it.
    pub version: u64,
    /// When it was saved, Unix milliseconds, by the clock of the one who saves.
    pub saved_ms: i64,
    /// How far each sink has come.
    pub sinks: Vec<SinkProgress>,
}

/// How far one sink has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkProgress {
    /// The sink's id.
    pub sink: String,
    /// End of the last transaction it has acknowledged.
    pub position: Position,
    /// When, Unix milliseconds.
    pub delivered_ms: i64,
}

/// Ownership of one key.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Key in the store: the source id.
    pub source_id: String,
    /// The owner's number.
    pub epoch: Epoch,
    /// What was stored when it was taken over.
    pub checkpoint: Option<Checkpoint>,
}

/// One stored version of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Number of the save.
    pub version: u64,
    /// When it was saved, Unix milliseconds.
    pub saved_ms: i64,
    /// Bytes as stored.
    pub size_bytes: u64,
    /// Its position.
    pub position: Position,
}

/// Keeps checkpoints. Every fault of class `Retry` means: nothing was changed, or the same call may be made again.
///
/// A call whose future is dropped may still take effect, as a whole.
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// Takes a key over: earlier owners are fenced from here on.
    ///
    /// # Errors
    /// `Config` (`state.key_conflict`) when the key belongs to a pipeline of another name.
    async fn acquire(&self, source_id: &str, pipeline: &str) -> Result<Lease, Fault>;

    /// The stored checkpoint.
    async fn load(&self, source_id: &str) -> Result<Option<Checkpoint>, Fault>;

    /// Saves, durably when it returns, if `epoch` is still the key's owner; gives the version.
    ///
    /// # Errors
    /// `Fenced` (`state.fenced`) when another owner took over, when the checkpoint was rolled back or removed, or when the
    /// key was never acquired; `Retry` (`state.unwritable`) when the store does not answer.
    async fn save(&self, checkpoint: &Checkpoint, epoch: Epoch) -> Result<u64, Fault>;

    /// Whether earlier versions are kept.
    fn has_versions(&self) -> bool;

    /// Stored versions, newest first; empty without versions.
    async fn versions(&self, source_id: &str) -> Result<Vec<Version>, Fault>;

    /// Saves an earlier version as a new one, fencing every owner; gives it. The schema history goes back to what it was
    /// when that version was saved. `None`: no such version, or a store without versions.
    async fn rollback(&self, source_id: &str, version: u64) -> Result<Option<Checkpoint>, Fault>;

    /// Forgets a key, its versions and its schema history, and fences every owner. The next start behaves like the first,
    /// under any pipeline's name; only the epoch counts on, so that an owner from before stays fenced. A key that is not
    /// stored is forgotten already.
    async fn remove(&self, source_id: &str) -> Result<(), Fault>;

    /// All checkpoints, by source id; a key that was acquired and never saved has none.
    async fn list(&self) -> Result<Vec<Checkpoint>, Fault>;

    /// Size of a checkpoint as stored, without white space between its members; 0 when nothing is stored.
    async fn size_bytes(&self, source_id: &str) -> Result<u64, Fault>;
}

/// Keeps the schemas that a source has met.
#[async_trait]
pub trait SchemaHistory: Send + Sync {
    /// All records of a source, oldest first.
    async fn schemas(&self, source_id: &str) -> Result<Vec<SchemaRecord>, Fault>;

    /// Appends, durably when it returns, if `epoch` is still the key's owner: a fenced owner would give a number that the
    /// next one gives to another schema. A record whose number is stored already is the same record: it is left alone.
    ///
    /// # Errors
    /// As [`CheckpointStore::save`]; `Bug` (`state.schema_number`) when the number is stored with another schema, or
    /// leaves a gap.
    async fn append_schemas(
        &self,
        source_id: &str,
        records: &[SchemaRecord],
        epoch: Epoch,
    ) -> Result<(), Fault>;
}

/// Keeps pipelines that were made over the API: the document as written, variables unexpanded.
#[async_trait]
pub trait DocumentStore: Send + Sync {
    /// Stores a document, JSON text kept as it is, under the pipeline's name; one stored before is replaced.
    async fn put_document(&self, name: &str, json: &str) -> Result<(), Fault>;

    /// Forgets a document; one that is not stored is forgotten already.
    async fn remove_document(&self, name: &str) -> Result<(), Fault>;

    /// All documents, names and JSON, by name.
    async fn documents(&self) -> Result<Vec<(String, String)>, Fault>;
}

/// Everything a state store keeps.
pub trait StateStore: CheckpointStore + SchemaHistory + DocumentStore + DeadLetterStore {}

impl<T: CheckpointStore + SchemaHistory + DocumentStore + DeadLetterStore> StateStore for T {}
