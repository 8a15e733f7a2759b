//! `file:DIR`: state as JSON files that a person can read.
//!
//! ```text
//! DIR/df_checkpoints.json       one object keyed by source id (crate::document)
//!     df_checkpoints.json.bak   the generation before
//!     df_schemas.json           schema records by source id
//!     df_schemas.json.format1   what an older release wrote last, from the moment that it can no longer read this one
//!     df_pipelines.json         pipelines made over the API, as they were written
//!     df_dead_letters/SOURCE/7.json  events that could not be delivered, a file each (letters)
//!     .lock                     held while a process has the store open
//! ```
//!
//! **Why a reader never sees half a file.** A file is written under another name, synced, renamed over the old one, and the
//! directory is synced before anybody hears of it. A crash leaves the old file or the new one, and perhaps a `.tmp` that
//! nobody reads. So a file that does not parse was damaged by something else: it is left as it is and the store does not
//! open, because any guess about a position loses changes or repeats them.
//!
//! **Two files are not replaced at once.** What spans them is ordered so that each half alone is right: schemas are
//! appended before the checkpoint that needs them (by the caller), a removal writes the key before it forgets the schemas,
//! and taking a removed key over forgets them first.

mod disk;
mod formats;
mod letters;

use crate::serial::Serial;
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
use letters::Shelves;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// State in a directory of JSON files.
pub(crate) struct FileStore {
    files: Serial<disk::Disk>,
    letters: Arc<Mutex<Shelves>>,
    /// How a renamed pipeline keeps its key.
    rename: String,
}

impl FileStore {
    /// Opens the directory, making it if it is missing.
    pub(crate) fn open(dir: &Path) -> Result<FileStore, Fault> {
        let disk = disk::Disk::open(dir)?;
        let checkpoints = dir.join(formats::CHECKPOINTS);
        let rename = format!(
            "write the new name to `checkpoint.pipeline` in {} while deltaforge is stopped",
            checkpoints.display()
        );
        let letters = Arc::new(Mutex::new(Shelves::new(dir.join("df_dead_letters"))));
        Ok(FileStore { files: Serial::new(disk), letters, rename })
    }

    /// Looks at dead letters, or changes them without being their owner, as the API does. In a thread that may block, and
    /// after what was asked for before.
    async fn with_letters<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Shelves) -> Result<R, Fault> + Send + 'static,
    ) -> Result<R, Fault> {
        let letters = Arc::clone(&self.letters);
        self.files.read(move |_| work(&mut lock(&letters))).await
    }

    /// Finishes a removal: the letters go after the key, so that a crash between the two leaves what nobody owns, and never
    /// takes away what somebody does.
    async fn sweep_letters(&self, source_id: &str) -> Result<(), Fault> {
        let (key, letters) = (source_id.to_owned(), Arc::clone(&self.letters));
        self.files
            .read(move |book| if book.is_unowned(&key) { lock(&letters).forget(&key) } else { Ok(()) })
            .await
    }
}

fn lock(letters: &Mutex<Shelves>) -> MutexGuard<'_, Shelves> {
    letters.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl CheckpointStore for FileStore {
    async fn acquire(&self, source_id: &str, pipeline: &str) -> Result<Lease, Fault> {
        self.sweep_letters(source_id).await?;
        let key = source_id.to_owned();
        self.files
            .write(move |book| {
                book.sweep(&key);
                Ok(())
            })
            .await?;
        let (key, pipeline, rename) = (source_id.to_owned(), pipeline.to_owned(), self.rename.clone());
        self.files.write(move |book| book.acquire(&key, &pipeline, &rename)).await
    }

    async fn load(&self, source_id: &str) -> Result<Option<Checkpoint>, Fault> {
        let key = source_id.to_owned();
        self.files.read(move |book| Ok(book.load(&key))).await
    }

    async fn save(&self, checkpoint: &Checkpoint, epoch: Epoch) -> Result<u64, Fault> {
        let checkpoint = checkpoint.clone();
        self.files.write(move |book| book.save(checkpoint, epoch)).await
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
        let key = source_id.to_owned();
        self.files
            .write(move |book| {
                book.remove(&key);
                Ok(())
            })
            .await?;
        self.sweep_letters(source_id).await
    }

    async fn list(&self) -> Result<Vec<Checkpoint>, Fault> {
        self.files.read(|book| Ok(book.list())).await
    }

    async fn size_bytes(&self, source_id: &str) -> Result<u64, Fault> {
        let key = source_id.to_owned();
        self.files.read(move |book| book.size_bytes(&key)).await
    }
}

#[async_trait]
impl SchemaHistory for FileStore {
    async fn schemas(&self, source_id: &str) -> Result<Vec<SchemaRecord>, Fault> {
        let key = source_id.to_owned();
        self.files.read(move |book| Ok(book.schemas(&key))).await
    }

    async fn append_schemas(
        &self,
        source_id: &str,
        records: &[SchemaRecord],
        epoch: Epoch,
    ) -> Result<(), Fault> {
        let (key, records) = (source_id.to_owned(), records.to_vec());
        self.files.write(move |book| book.append_schemas(&key, &records, epoch)).await
    }
}

#[async_trait]
impl DocumentStore for FileStore {
    async fn put_document(&self, name: &str, json: &str) -> Result<(), Fault> {
        let (name, json) = (name.to_owned(), json.to_owned());
        self.files.write(move |book| book.put_document(&name, &json)).await
    }

    async fn remove_document(&self, name: &str) -> Result<(), Fault> {
        let name = name.to_owned();
        self.files
            .write(move |book| {
                book.remove_document(&name);
                Ok(())
            })
            .await
    }

    async fn documents(&self) -> Result<Vec<(String, String)>, Fault> {
        self.files.read(|book| Ok(book.documents())).await
    }
}

#[async_trait]
impl DeadLetterStore for FileStore {
    async fn append_dead_letter(
        &self,
        source_id: &str,
        entry: NewDeadLetter,
        room: Room,
        epoch: Epoch,
    ) -> Result<Appended, Fault> {
        let (key, letters) = (source_id.to_owned(), Arc::clone(&self.letters));
        // Inside a job, so that nobody takes the key over between the look at its epoch and the write.
        self.files
            .write(move |book| {
                book.check_owner(&key, epoch)?;
                lock(&letters).append(&key, entry, room)
            })
            .await
    }

    async fn dead_letters(&self, source_id: &str, query: &DeadLetterQuery) -> Result<DeadLetterPage, Fault> {
        let (key, query) = (source_id.to_owned(), query.clone());
        self.with_letters(move |letters| letters.page(&key, &query)).await
    }

    async fn dead_letters_by_id(&self, source_id: &str, ids: &[u64]) -> Result<Vec<DeadLetter>, Fault> {
        let (key, ids) = (source_id.to_owned(), ids.to_vec());
        self.with_letters(move |letters| letters.by_id(&key, &ids)).await
    }

    async fn remove_dead_letters(&self, source_id: &str, which: &Which) -> Result<u64, Fault> {
        let (key, which) = (source_id.to_owned(), which.clone());
        self.with_letters(move |letters| letters.remove(&key, &which)).await
    }

    async fn count_attempts(&self, source_id: &str, ids: &[u64]) -> Result<(), Fault> {
        let (key, ids) = (source_id.to_owned(), ids.to_vec());
        self.with_letters(move |letters| letters.count_attempts(&key, &ids)).await
    }

    async fn trim_dead_letters(&self, source_id: &str, before_ms: i64) -> Result<u64, Fault> {
        let key = source_id.to_owned();
        self.with_letters(move |letters| letters.trim(&key, before_ms)).await
    }

    async fn count_dead_letters(&self, source_id: &str) -> Result<u64, Fault> {
        let key = source_id.to_owned();
        self.with_letters(move |letters| letters.count(&key)).await
    }
}
