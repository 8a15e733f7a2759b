//! Opening the database: whose it is, which format, and what its errors mean.

use crate::faults;
use crate::lock::{ProcessLock, make_dir, parent, private, sync_dir};
use deltaforge_core::Fault;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `PRAGMA user_version` that this release writes, and the newest it reads.
const FORMAT: i64 = 3;

/// `PRAGMA application_id`, "DFst": tells our file from any other database, such as the one that is captured.
const APPLICATION_ID: i64 = 0x4446_7374;

/// How long another program, such as the `sqlite3` shell, may hold the database before a call is a fault.
const BUSY: Duration = Duration::from_secs(2);

/// `document` is the JSON of `crate::document`; `schema_sequence` the last schema that was stored when it was saved.
const TABLES: &str = "
    CREATE TABLE keys (
        source_id TEXT PRIMARY KEY,
        pipeline TEXT NOT NULL,
        epoch INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE checkpoints (
        source_id TEXT NOT NULL,
        version INTEGER NOT NULL,
        schema_sequence INTEGER NOT NULL,
        document TEXT NOT NULL,
        PRIMARY KEY (source_id, version)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE schemas (
        source_id TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        table_name TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        at TEXT NOT NULL,
        shape TEXT NOT NULL,
        registered_ms INTEGER NOT NULL,
        detail TEXT,
        PRIMARY KEY (source_id, sequence)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE pipelines (
        name TEXT PRIMARY KEY,
        document TEXT NOT NULL
    ) STRICT;";

/// Numbers are never given twice, also after a purge: what somebody has read in a list must not become another entry's.
const DEAD_LETTERS: &str = "
    CREATE TABLE dead_letters (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        source_id TEXT NOT NULL,
        sink TEXT NOT NULL,
        kind TEXT NOT NULL,
        message TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        event_id TEXT NOT NULL,
        position TEXT NOT NULL,
        stored_ms INTEGER NOT NULL,
        truncated INTEGER NOT NULL,
        event TEXT NOT NULL,
        frozen BLOB NOT NULL,
        UNIQUE (source_id, sink, event_id)
    ) STRICT";

/// From format 1 to format 2, and from 2 to 3.
const MIGRATIONS: [&str; 2] = ["ALTER TABLE schemas ADD COLUMN detail TEXT", DEAD_LETTERS];

/// What a job may run into.
#[derive(Debug)]
pub(super) enum Failure {
    /// SQLite says no.
    Sql(rusqlite::Error),
    /// The rules say no.
    Fault(Fault),
    /// A stored row does not read.
    Corrupt(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Sql(error)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::Fault(fault)
    }
}

impl Failure {
    /// The fault, for the database at `path`.
    pub(super) fn at(self, path: &Path) -> Fault {
        let restore =
            || format!("restore {} from a backup, or move it away to start without it", path.display());
        let error = match self {
            Failure::Fault(fault) => return fault,
            Failure::Corrupt(why) => return faults::corrupt(path, why, &restore()),
            Failure::Sql(error) => error,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                faults::corrupt(path, error, &restore())
            }
            Some(ErrorCode::DiskFull) => faults::disk_full(&path.display()),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                faults::unwritable(path, &io::Error::new(io::ErrorKind::PermissionDenied, error.to_string()))
            }
            _ => faults::unwritable(path, &io::Error::other(error.to_string())),
        }
    }
}

/// Takes the lock, then opens the file; makes both if they are missing.
pub(super) fn open(path: &Path) -> Result<(Connection, ProcessLock), Fault> {
    let dir = parent(path);
    make_dir(dir).map_err(|e| faults::unwritable(dir, &e))?;
    let lock = ProcessLock::take(&beside(path, ".lock"))?;
    // Made here, not by SQLite, for its mode; SQLite gives the mode of the database to the files beside it.
    let made = private(OpenOptions::new().write(true).create(true).truncate(false)).open(path);
    made.and_then(|_| sync_dir(dir)).map_err(|e| faults::unwritable(path, &e))?;
    // Without SQLITE_OPEN_URI: a `?` in the path is a `?`.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|e| Failure::from(e).at(path))?;
    prepare(&connection, path).map_err(|e| e.at(path))?;
    Ok((connection, lock))
}

fn prepare(connection: &Connection, path: &Path) -> Result<(), Failure> {
    connection.busy_timeout(BUSY)?;
    // Nothing is written before it is clear that the file is ours to write.
    let number =
        |pragma: &str| connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
    let ours = number("application_id")? == APPLICATION_ID;
    let objects: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if !ours && objects > 0 {
        let message = format!("{} is a database of something else", path.display());
        return Err(Fault::config("state.foreign", message)
            .hint("give state a file of its own with --state")
            .into());
    }
    let format = number("user_version")?;
    if ours && format > FORMAT {
        return Err(faults::newer_format(path, format.unsigned_abs(), FORMAT.unsigned_abs()).into());
    }
    if ours {
        let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(Failure::Corrupt(found));
        }
    }
    // WAL: one sync per commit. Where the file system cannot, SQLite stays with the old journal, for which EXTRA is what
    // FULL is for WAL: it syncs the directory too.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.execute_batch("PRAGMA synchronous = EXTRA")?;
    if ours && format < FORMAT {
        keep_old(connection, &beside(path, &format!(".format{format}")))?;
        let steps = MIGRATIONS.get(usize::try_from(format - 1).unwrap_or_default()..).unwrap_or_default();
        let steps = steps.join("; ");
        connection
            .execute_batch(&format!("BEGIN IMMEDIATE; {steps}; PRAGMA user_version = {FORMAT}; COMMIT"))?;
    }
    if !ours {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {TABLES} {DEAD_LETTERS}; PRAGMA user_version = {FORMAT}; PRAGMA application_id = {APPLICATION_ID}; COMMIT"
        ))?;
    }
    Ok(())
}

/// A copy that the release before can go on with. A half one of an earlier attempt is made anew.
fn keep_old(connection: &Connection, copy: &Path) -> Result<(), Failure> {
    let made = private(OpenOptions::new().write(true).create(true).truncate(true)).open(copy);
    made.and_then(|_| sync_dir(parent(copy))).map_err(|e| faults::unwritable(copy, &e))?;
    connection.execute("VACUUM INTO ?1", [copy.to_string_lossy()])?;
    Ok(())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
