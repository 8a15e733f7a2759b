//! `sqlite:PATH`: state in one database file, with versions of checkpoints.
//!
//! The rules are those of [`book`](crate::book), said in SQL (`statements`); the tables are in `tables`. Every save adds
//! a row, so an earlier one can be saved again: [`rollback`](CheckpointStore::rollback).
//!
//! **Why a commit is durable.** `synchronous=EXTRA`, which for a write-ahead log is `FULL`, syncs the log before a commit
//! returns. `NORMAL`, which many recommend with WAL, may lose the last commits in a power cut; a source that was already
//! told to forget what lies behind them could not give it again.
//!
//! One connection behind a mutex: jobs that wait for it share one transaction and so one sync. Each runs in a savepoint,
//! so that one that fails half-way takes nothing of the others with it.

mod letters;
mod statements;
mod tables;

use crate::serial::{Backing, Serial};
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
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tables::Failure;

/// State in an SQLite file.
pub(crate) struct SqliteStore {
    database: Serial<Database>,
    path: Arc<Path>,
}

struct Database {
    connection: Connection,
    path: PathBuf,
    _lock: crate::lock::ProcessLock,
}

impl SqliteStore {
    /// Opens the file, making it if it is missing.
    pub(crate) fn open(path: &Path) -> Result<SqliteStore, Fault> {
        let (connection, lock) = tables::open(path)?;
        let database = Database { connection, path: path.to_owned(), _lock: lock };
        Ok(SqliteStore { database: Serial::new(database), path: path.into() })
    }

    async fn write<R: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R, Fault> {
        let path = Arc::clone(&self.path);
        self.database.write(move |connection| in_savepoint(connection, job).map_err(|e| e.at(&path))).await
    }

    async fn read<R: Send + 'static>(
        &self,
        look: impl FnOnce(&Connection) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R, Fault> {
        let path = Arc::clone(&self.path);
        self.database.read(move |connection| look(connection).map_err(|e| e.at(&path))).await
    }
}

fn in_savepoint<R>(
    connection: &Connection,
    job: impl FnOnce(&Connection) -> Result<R, Failure>,
) -> Result<R, Failure> {
    connection.execute_batch("SAVEPOINT job")?;
    match job(connection) {
        Ok(done) => {
            connection.execute_batch("RELEASE job")?;
            Ok(done)
        }
        Err(failure) => {
            // Fails only when SQLite has already undone the whole transaction; then the commit fails too.
            let _ = connection.execute_batch("ROLLBACK TO job; RELEASE job");
            Err(failure)
        }
    }
}

impl Database {
    fn run(&self, sql: &str) -> Result<(), Fault> {
        self.connection.execute_batch(sql).map_err(|e| Failure::from(e).at(&self.path))
    }
}

impl Backing for Database {
    type Work = Connection;

    fn begin(&mut self) -> Result<(), Fault> {
        if !self.connection.is_autocommit() {
            self.run("ROLLBACK")?;
        }
        self.run("BEGIN IMMEDIATE")
    }

    fn work(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn commit(&mut self) -> Result<(), Fault> {
        let committed = self.run("COMMIT");
        if committed.is_err() && !self.connection.is_autocommit() {
            self.run("ROLLBACK")?;
        }
        committed
    }

    fn view(&self) -> &Connection {
        &self.connection
    }
}

#[async_trait]
impl CheckpointStore for SqliteStore {
    async fn acquire(&self, source_id: &str, pipeline: &str) -> Result<Lease, Fault> {
        let (key, pipeline, path) = (source_id.to_owned(), pipeline.to_owned(), Arc::clone(&self.path));
        self.write(move |db| statements::acquire(db, &key, &pipeline, &path)).await
    }

    async fn load(&self, source_id: &str) -> Result<Option<Checkpoint>, Fault> {
        let key = source_id.to_owned();
        self.read(move |db| statements::load(db, &key)).await
    }

    async fn save(&self, checkpoint: &Checkpoint, epoch: Epoch) -> Result<u64, Fault> {
        let checkpoint = checkpoint.clone();
        self.write(move |db| statements::save(db, checkpoint, epoch)).await
    }

    fn has_versions(&self) -> bool {
        true
    }

    async fn versions(&self, source_id: &str) -> Result<Vec<Version>, Fault> {
        let key = source_id.to_owned();
        self.read(move |db| statements::versions(db, &key)).await
    }

    async fn rollback(&self, source_id: &str, version: u64) -> Result<Option<Checkpoint>, Fault> {
        let key = source_id.to_owned();
        self.write(move |db| statements::rollback(db, &key, version)).await
    }

    async fn remove(&self, source_id: &str) -> Result<(), Fault> {
        let key = source_id.to_owned();
        self.write(move |db| statements::remove(db, &key)).await
    }

    async fn list(&self) -> Result<Vec<Checkpoint>, Fault> {
        self.read(statements::list).await
    }

    async fn size_bytes(&self, source_id: &str) -> Result<u64, Fault> {
        let key = source_id.to_owned();
        self.read(move |db| statements::size_bytes(db, &key)).await
    }
}

#[async_trait]
impl SchemaHistory for SqliteStore {
    async fn schemas(&self, source_id: &str) -> Result<Vec<SchemaRecord>, Fault> {
        let key = source_id.to_owned();
        self.read(move |db| statements::schemas(db, &key)).await
    }

    async fn append_schemas(
        &self,
        source_id: &str,
        records: &[SchemaRecord],
        epoch: Epoch,
    ) -> Result<(), Fault> {
        let (key, records) = (source_id.to_owned(), records.to_vec());
        self.write(move |db| statements::append_schemas(db, &key, &records, epoch)).await
    }
}

#[async_trait]
impl DocumentStore for SqliteStore {
    async fn put_document(&self, name: &str, json: &str) -> Result<(), Fault> {
        let (name, json) = (name.to_owned(), json.to_owned());
        self.write(move |db| statements::put_document(db, &name, &json)).await
    }

    async fn remove_document(&self, name: &str) -> Result<(), Fault> {
        let name = name.to_owned();
        self.write(move |db| statements::remove_document(db, &name)).await
    }

    async fn documents(&self) -> Result<Vec<(String, String)>, Fault> {
        self.read(statements::documents).await
    }
}

#[async_trait]
impl DeadLetterStore for SqliteStore {
    async fn append_dead_letter(
        &self,
        source_id: &str,
        entry: NewDeadLetter,
        room: Room,
        epoch: Epoch,
    ) -> Result<Appended, Fault> {
        let key = source_id.to_owned();
        self.write(move |db| letters::append(db, &key, &entry, room, epoch)).await
    }

    async fn dead_letters(&self, source_id: &str, query: &DeadLetterQuery) -> Result<DeadLetterPage, Fault> {
        let (key, query) = (source_id.to_owned(), query.clone());
        self.read(move |db| letters::page(db, &key, &query)).await
    }

    async fn dead_letters_by_id(&self, source_id: &str, ids: &[u64]) -> Result<Vec<DeadLetter>, Fault> {
        let (key, ids) = (source_id.to_owned(), ids.to_vec());
        self.read(move |db| letters::by_id(db, &key, &ids)).await
    }

    async fn remove_dead_letters(&self, source_id: &str, which: &Which) -> Result<u64, Fault> {
        let (key, which) = (source_id.to_owned(), which.clone());
        self.write(move |db| letters::remove(db, &key, &which)).await
    }

    async fn count_attempts(&self, source_id: &str, ids: &[u64]) -> Result<(), Fault> {
        let (key, ids) = (source_id.to_owned(), ids.to_vec());
        self.write(move |db| letters::count_attempts(db, &key, &ids)).await
    }

    async fn trim_dead_letters(&self, source_id: &str, before_ms: i64) -> Result<u64, Fault> {
        let key = source_id.to_owned();
        self.write(move |db| letters::trim(db, &key, before_ms)).await
    }

    async fn count_dead_letters(&self, source_id: &str) -> Result<u64, Fault> {
        let key = source_id.to_owned();
        self.read(move |db| letters::count(db, &key)).await
    }
}
