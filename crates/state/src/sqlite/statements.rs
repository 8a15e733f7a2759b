//! The rules of [`book`](crate::book) in SQL. Each function runs in a savepoint of its own.

use super::tables::Failure;
use crate::book::{check_document, check_owner, new_records};
use crate::document::{self, Key, Unreadable, normal};
use crate::faults;
use deltaforge_core::checkpoint::{Checkpoint, Lease, Version};
use deltaforge_core::clock::unix_millis;
use deltaforge_core::position::Epoch;
use deltaforge_core::schema::SchemaRecord;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;
use std::path::Path;

/// Versions kept per key.
const KEPT: i64 = 100;

const LATEST: &str = "SELECT document FROM checkpoints WHERE source_id = ?1 ORDER BY version DESC LIMIT 1";

type Result<T> = std::result::Result<T, Failure>;

pub(super) fn acquire(db: &Connection, source_id: &str, pipeline: &str, path: &Path) -> Result<Lease> {
    let (owner, epoch) = owner(db, source_id)?.unwrap_or_default();
    let rename = || {
        let quoted = |text: &str| text.replace('\'', "''");
        let (new, key) = (quoted(pipeline), quoted(source_id));
        format!("sqlite3 {} \"UPDATE keys SET pipeline='{new}' WHERE source_id='{key}'\"", path.display())
    };
    check_owner(source_id, &owner, pipeline, &rename())?;
    put_owner(db, source_id, pipeline, epoch + 1)?;
    let checkpoint = load(db, source_id)?;
    Ok(Lease { source_id: source_id.to_owned(), epoch: Epoch(epoch + 1), checkpoint })
}

pub(super) fn load(db: &Connection, source_id: &str) -> Result<Option<Checkpoint>> {
    let latest = db.prepare_cached(LATEST)?.query_row([source_id], text).optional()?;
    let Some(latest) = latest else { return Ok(None) };
    let mut checkpoint = read(source_id, &latest)?;
    // The owner's name as of now, not what a save said: the key may have been given to a renamed pipeline since.
    checkpoint.pipeline = owner(db, source_id)?.unwrap_or_default().0;
    Ok(Some(checkpoint))
}

pub(super) fn save(db: &Connection, checkpoint: Checkpoint, epoch: Epoch) -> Result<u64> {
    check_epoch(db, &checkpoint.source_id, epoch)?;
    add(db, normal(checkpoint)?, epoch).map(|saved| saved.version)
}

pub(super) fn versions(db: &Connection, source_id: &str) -> Result<Vec<Version>> {
    let mut rows =
        db.prepare_cached("SELECT document FROM checkpoints WHERE source_id = ?1 ORDER BY version DESC")?;
    let documents = rows.query_map([source_id], text)?.collect::<std::result::Result<Vec<_>, _>>()?;
    let version = |document: &String| {
        let saved = read(source_id, document)?;
        let (version, saved_ms, position) = (saved.version, saved.saved_ms, saved.position);
        Ok(Version { version, saved_ms, size_bytes: document.len() as u64, position })
    };
    documents.iter().map(version).collect()
}

pub(super) fn rollback(db: &Connection, source_id: &str, version: u64) -> Result<Option<Checkpoint>> {
    let mut row = db.prepare_cached(
        "SELECT document, schema_sequence FROM checkpoints WHERE source_id = ?1 AND version = ?2",
    )?;
    // A number that no row can have is no row's.
    let wanted = i64::try_from(version).unwrap_or(-1);
    let earlier = row.query_row(params![source_id, wanted], |row| Ok((text(row)?, row.get::<_, i64>(1)?)));
    let Some((earlier, schema_sequence)) = earlier.optional()? else { return Ok(None) };
    let mut checkpoint = read(source_id, &earlier)?;
    let (pipeline, epoch) = owner(db, source_id)?.unwrap_or_default();
    put_owner(db, source_id, &pipeline, epoch + 1)?;
    let mut forget = db.prepare_cached("DELETE FROM schemas WHERE source_id = ?1 AND sequence > ?2")?;
    forget.execute(params![source_id, schema_sequence])?;
    checkpoint.pipeline = pipeline;
    checkpoint.saved_ms = unix_millis();
    add(db, checkpoint, Epoch(epoch + 1)).map(Some)
}

pub(super) fn remove(db: &Connection, source_id: &str) -> Result<()> {
    let Some((_, epoch)) = owner(db, source_id)? else { return Ok(()) };
    put_owner(db, source_id, "", epoch + 1)?;
    db.prepare_cached("DELETE FROM checkpoints WHERE source_id = ?1")?.execute([source_id])?;
    db.prepare_cached("DELETE FROM schemas WHERE source_id = ?1")?.execute([source_id])?;
    db.prepare_cached("DELETE FROM dead_letters WHERE source_id = ?1")?.execute([source_id])?;
    Ok(())
}

pub(super) fn list(db: &Connection) -> Result<Vec<Checkpoint>> {
    let mut rows = db.prepare_cached("SELECT source_id FROM keys ORDER BY source_id")?;
    let ids = rows.query_map([], text)?.collect::<std::result::Result<Vec<_>, _>>()?;
    ids.iter().filter_map(|source_id| load(db, source_id).transpose()).collect()
}

pub(super) fn size_bytes(db: &Connection, source_id: &str) -> Result<u64> {
    let latest = db.prepare_cached(LATEST)?.query_row([source_id], text).optional()?;
    Ok(latest.map_or(0, |document| document.len() as u64))
}

pub(super) fn schemas(db: &Connection, source_id: &str) -> Result<Vec<SchemaRecord>> {
    let mut rows = db.prepare_cached(
        "SELECT sequence, table_name, fingerprint, at, shape, registered_ms, detail
         FROM schemas WHERE source_id = ?1 ORDER BY sequence",
    )?;
    let mut rows = rows.query([source_id])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let at: String = row.get(3)?;
        records.push(SchemaRecord {
            sequence: row.get::<_, i64>(0)?.unsigned_abs(),
            table: row.get(1)?,
            fingerprint: row.get(2)?,
            at: at
                .parse()
                .map_err(|_| Failure::Corrupt(format!("table schemas, `{source_id}`: `at` is `{at}`")))?,
            shape: row.get(4)?,
            registered_ms: row.get(5)?,
            detail: row.get(6)?,
        });
    }
    Ok(records)
}

pub(super) fn append_schemas(
    db: &Connection,
    source_id: &str,
    records: &[SchemaRecord],
    epoch: Epoch,
) -> Result<()> {
    check_epoch(db, source_id, epoch)?;
    let stored = schemas(db, source_id)?;
    let mut insert = db.prepare_cached("INSERT INTO schemas VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    for record in new_records(source_id, &stored, records)? {
        insert.execute(params![
            source_id,
            record.sequence.cast_signed(),
            record.table,
            record.fingerprint,
            record.at.to_string(),
            record.shape,
            record.registered_ms,
            record.detail,
        ])?;
    }
    Ok(())
}

pub(super) fn put_document(db: &Connection, name: &str, json: &str) -> Result<()> {
    check_document(name, json)?;
    db.execute("INSERT OR REPLACE INTO pipelines VALUES (?1, ?2)", [name, json])?;
    Ok(())
}

pub(super) fn remove_document(db: &Connection, name: &str) -> Result<()> {
    db.execute("DELETE FROM pipelines WHERE name = ?1", [name])?;
    Ok(())
}

pub(super) fn documents(db: &Connection) -> Result<Vec<(String, String)>> {
    let mut rows = db.prepare_cached("SELECT name, document FROM pipelines ORDER BY name")?;
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

/// Whose a key is, and the number of its last owner.
fn owner(db: &Connection, source_id: &str) -> Result<Option<(String, u64)>> {
    let mut row = db.prepare_cached("SELECT pipeline, epoch FROM keys WHERE source_id = ?1")?;
    let owner = row.query_row([source_id], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())));
    Ok(owner.optional()?)
}

fn put_owner(db: &Connection, source_id: &str, pipeline: &str, epoch: u64) -> Result<()> {
    let mut put = db.prepare_cached("INSERT OR REPLACE INTO keys VALUES (?1, ?2, ?3)")?;
    put.execute(params![source_id, pipeline, epoch.cast_signed()])?;
    Ok(())
}

pub(super) fn check_epoch(db: &Connection, source_id: &str, epoch: Epoch) -> Result<()> {
    match owner(db, source_id)? {
        Some((pipeline, owner)) if owner == epoch.0 && !pipeline.is_empty() => Ok(()),
        _ => Err(faults::fenced(source_id).into()),
    }
}

/// Adds a version, and forgets the oldest beyond [`KEPT`].
fn add(db: &Connection, mut checkpoint: Checkpoint, epoch: Epoch) -> Result<Checkpoint> {
    let source_id = checkpoint.source_id.clone();
    let mut last =
        db.prepare_cached("SELECT coalesce(max(version), 0) FROM checkpoints WHERE source_id = ?1")?;
    let version: i64 = last.query_row([&source_id], |row| row.get::<_, i64>(0))? + 1;
    checkpoint.version = version.unsigned_abs();
    let key = Key { pipeline: checkpoint.pipeline.clone(), epoch: epoch.0, saved: Some(checkpoint.clone()) };
    let document = Value::Object(document::encode(&key)?).to_string();
    let mut insert = db.prepare_cached(
        "INSERT INTO checkpoints VALUES
         (?1, ?2, (SELECT coalesce(max(sequence), 0) FROM schemas WHERE source_id = ?1), ?3)",
    )?;
    insert.execute(params![source_id, version, document])?;
    let mut trim = db.prepare_cached("DELETE FROM checkpoints WHERE source_id = ?1 AND version <= ?2")?;
    trim.execute(params![source_id, version - KEPT])?;
    Ok(checkpoint)
}

/// The checkpoint in a stored document.
fn read(source_id: &str, document: &str) -> Result<Checkpoint> {
    let wrong = |why: String| Failure::Corrupt(format!("table checkpoints, `{source_id}`: {why}"));
    let Value::Object(object) = serde_json::from_str(document).map_err(|e| wrong(e.to_string()))? else {
        return Err(wrong("it is not an object".into()));
    };
    match document::decode(source_id, object) {
        Ok(key) => key.saved.ok_or_else(|| wrong("it has no version".into())),
        Err(Unreadable::Wrong(why)) => Err(wrong(why)),
        Err(Unreadable::Newer(format)) => Err(wrong(format!("it has format {format}"))),
    }
}

fn text(row: &rusqlite::Row<'_>) -> rusqlite::Result<String> {
    row.get(0)
}
