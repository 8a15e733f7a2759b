//! `memory:`: the rules of [`book`](crate::book) behind a mutex, and nothing else.
//!
//! It answers at once and starts no task, so that a simulation with virtual time stays repeatable.

use crate::book::Book;
use crate::letters::Letters;
use async_trait::async_trait;
use deltaforge_core::Fault;
use deltaforge_core::checkpoint::{
    Checkpoint, CheckpointStore, DocumentStore, Lease, SchemaHistory, Version,
};
use deltaforge_core::dead_letter::{
    Appended, DeadLetter, DeadLetterPage, DeadLetterQuery, DeadLetterStore, NewDeadLetter, Room, Which,
};
use deltaforge_core::position::Epoch;
use deltaforge_core::schema::SchemaRecord;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// State that does not survive the process.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    book: Mutex<Book>,
    letters: Mutex<BTreeMap<String, Letters>>,
}

impl MemoryStore {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn letters<R>(&self, source_id: &str, work: impl FnOnce(&mut Letters) -> R) -> R {
        let mut all = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        work(all.entry(source_id.to_owned()).or_default())
    }
}

#[async_trait]
impl CheckpointStore for MemoryStore {
    async fn acquire(&self, source_id: &str, pipeline: &str) -> Result<Lease, Fault> {
        self.book().acquire(source_id, pipeline, "restart the process")
    }

    async fn load(&self, source_id: &str) -> Result<Option<Checkpoint>, Fault> {
        Ok(self.book().load(source_id))
    }

    async fn save(&self, checkpoint: &Checkpoint, epoch: Epoch) -> Result<u64, Fault> {
        self.book().save(checkpoint.clone(), epoch)
    }

    fn has_versions(&self) -> bool {
        false
    }

    async fn versions(&self, _source_id: &str) -> Result<Vec<Version>, Fault> {
        Ok(Vec::new())
    }

    async fn rollback(&self, _source_id: &str, _version: u64) -> Result<Option<Checkpoint>, Fault> {
        Ok(None)
    }

    async fn remove(&self, source_id: &str) -> Result<(), Fault> {
        self.book().remove(source_id);
        self.letters(source_id, |letters| letters.remove(&Which::All));
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Checkpoint>, Fault> {
        Ok(self.book().list())
    }

    async fn size_bytes(&self, source_id: &str) -> Result<u64, Fault> {
        self.book().size_bytes(source_id)
    }
}

#[async_trait]
impl SchemaHistory for MemoryStore {
    async fn schemas(&self, source_id: &str) -> Result<Vec<SchemaRecord>, Fault> {
        Ok(self.book().schemas(source_id))
    }

    async fn append_schemas(
        &self,
        source_id: &str,
        records: &[SchemaRecord],
        epoch: Epoch,
    ) -> Result<(), Fault> {
        self.book().append_schemas(source_id, records, epoch)
    }
}

#[async_trait]
impl DocumentStore for MemoryStore {
    async fn put_document(&self, name: &str, json: &str) -> Result<(), Fault> {
        self.book().put_document(name, json)
    }

    async fn remove_document(&self, name: &str) -> Result<(), Fault> {
        self.book().remove_document(name);
        Ok(())
    }

    async fn documents(&self) -> Result<Vec<(String, String)>, Fault> {
        Ok(self.book().documents())
    }
}

#[async_trait]
impl DeadLetterStore for MemoryStore {
    async fn append_dead_letter(
        &self,
        source_id: &str,
        entry: NewDeadLetter,
        room: Room,
        epoch: Epoch,
    ) -> Result<Appended, Fault> {
        // Held to the end, so that nobody takes the key over meanwhile.
        let book = self.book();
        book.check_owner(source_id, epoch)?;
        Ok(self.letters(source_id, |letters| letters.append(entry, room)))
    }

    async fn dead_letters(&self, source_id: &str, query: &DeadLetterQuery) -> Result<DeadLetterPage, Fault> {
        Ok(self.letters(source_id, |letters| letters.page(query)))
    }

    async fn dead_letters_by_id(&self, source_id: &str, ids: &[u64]) -> Result<Vec<DeadLetter>, Fault> {
        Ok(self.letters(source_id, |letters| letters.by_id(ids)))
    }

    async fn remove_dead_letters(&self, source_id: &str, which: &Which) -> Result<u64, Fault> {
        Ok(self.letters(source_id, |letters| letters.remove(which)))
    }

    async fn count_attempts(&self, source_id: &str, ids: &[u64]) -> Result<(), Fault> {
        self.letters(source_id, |letters| letters.count_attempts(ids));
        Ok(())
    }

    async fn trim_dead_letters(&self, source_id: &str, before_ms: i64) -> Result<u64, Fault> {
        Ok(self.letters(source_id, |letters| letters.trim(before_ms)))
    }

    async fn count_dead_letters(&self, source_id: &str) -> Result<u64, Fault> {
        Ok(self.letters(source_id, |letters| letters.count()))
    }
}
