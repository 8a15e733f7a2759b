//! Dead letters in SQL; the rules are those of [`letters`](crate::letters).

use super::statements::check_epoch;
use super::tables::Failure;
use deltaforge_core::dead_letter::{
    Appended, DeadLetter, DeadLetterPage, DeadLetterQuery, NewDeadLetter, Room, Which,
};
use deltaforge_core::position::Epoch;
use rusqlite::{Connection, OptionalExtension, Row, params};

type Result<T> = std::result::Result<T, Failure>;

const COLUMNS: &str =
    "id, attempts, sink, kind, message, event_id, position, stored_ms, truncated, event, frozen";
const SHOWN: &str = "id, attempts, sink, kind, message, event_id, position, stored_ms, truncated, event, x''";

pub(super) fn append(
    db: &Connection,
    source_id: &str,
    entry: &NewDeadLetter,
    room: Room,
    epoch: Epoch,
) -> Result<Appended> {
    check_epoch(db, source_id, epoch)?;
    let mut known = db
        .prepare_cached("SELECT id FROM dead_letters WHERE source_id = ?1 AND sink = ?2 AND event_id = ?3")?;
    let known = known.query_row(params![source_id, entry.sink, entry.event_id], |row| row.get::<_, i64>(0));
    if let Some(id) = known.optional()? {
        return Ok(Appended::Stored { id: id.unsigned_abs(), dropped: 0 });
    }
    let above = (count(db, source_id)? + 1).saturating_sub(room.max_entries);
    if above > 0 && !room.drop_oldest {
        return Ok(Appended::Full);
    }
    if above > 0 {
        let mut drop = db.prepare_cached(
            "DELETE FROM dead_letters WHERE id IN
             (SELECT id FROM dead_letters WHERE source_id = ?1 ORDER BY id LIMIT ?2)",
        )?;
        drop.execute(params![source_id, above.cast_signed()])?;
    }
    let mut insert = db.prepare_cached(
        "INSERT INTO dead_letters
         (source_id, sink, kind, message, attempts, event_id, position, stored_ms, truncated, event, frozen)
         VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    insert.execute(params![
        source_id,
        entry.sink,
        entry.kind,
        entry.message,
        entry.event_id,
        entry.position,
        entry.stored_ms,
        entry.truncated,
        entry.event,
        entry.frozen,
    ])?;
    Ok(Appended::Stored { id: db.last_insert_rowid().unsigned_abs(), dropped: above })
}

pub(super) fn page(db: &Connection, source_id: &str, query: &DeadLetterQuery) -> Result<DeadLetterPage> {
    let filter = "source_id = ?1 AND (?2 IS NULL OR sink = ?2) AND (?3 IS NULL OR kind = ?3)";
    let mut total = db.prepare_cached(&format!("SELECT count(*) FROM dead_letters WHERE {filter}"))?;
    let total: i64 = total.query_row(params![source_id, query.sink, query.kind], |row| row.get(0))?;
    // Frozen events are large, and not shown.
    let columns = if query.shown_bytes.is_some() { SHOWN } else { COLUMNS };
    let mut rows = db.prepare_cached(&format!(
        "SELECT {columns} FROM dead_letters WHERE {filter} AND id > ?4 ORDER BY id LIMIT ?5"
    ))?;
    // One more than asked for tells whether there are more.
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX).saturating_add(1);
    let after = i64::try_from(query.after).unwrap_or(i64::MAX);
    let mut rows = rows.query_map(params![source_id, query.sink, query.kind, after, limit], letter)?;
    let (mut entries, mut bytes) = (Vec::new(), 0);
    while entries.len() < query.limit
        && let Some(letter) = rows.next().transpose()?
    {
        let ends = query.ends_behind(&letter.entry, &mut bytes);
        entries.push(letter);
        if ends {
            break;
        }
    }
    let more = rows.next().transpose()?.is_some();
    Ok(DeadLetterPage { entries, more, total: total.unsigned_abs() })
}

pub(super) fn by_id(db: &Connection, source_id: &str, ids: &[u64]) -> Result<Vec<DeadLetter>> {
    let mut row =
        db.prepare_cached(&format!("SELECT {COLUMNS} FROM dead_letters WHERE source_id = ?1 AND id = ?2"))?;
    let mut found = Vec::new();
    for id in sorted(ids) {
        found.extend(row.query_row(params![source_id, id], letter).optional()?);
    }
    Ok(found)
}

pub(super) fn remove(db: &Connection, source_id: &str, which: &Which) -> Result<u64> {
    let Which::Ids(ids) = which else {
        let mut all = db.prepare_cached("DELETE FROM dead_letters WHERE source_id = ?1")?;
        return Ok(all.execute([source_id])? as u64);
    };
    let mut one = db.prepare_cached("DELETE FROM dead_letters WHERE source_id = ?1 AND id = ?2")?;
    let mut removed = 0;
    for id in sorted(ids) {
        removed += one.execute(params![source_id, id])? as u64;
    }
    Ok(removed)
}

pub(super) fn count_attempts(db: &Connection, source_id: &str, ids: &[u64]) -> Result<()> {
    let mut one = db
        .prepare_cached("UPDATE dead_letters SET attempts = attempts + 1 WHERE source_id = ?1 AND id = ?2")?;
    for id in sorted(ids) {
        one.execute(params![source_id, id])?;
    }
    Ok(())
}

pub(super) fn trim(db: &Connection, source_id: &str, before_ms: i64) -> Result<u64> {
    let mut old = db.prepare_cached("DELETE FROM dead_letters WHERE source_id = ?1 AND stored_ms < ?2")?;
    Ok(old.execute(params![source_id, before_ms])? as u64)
}

pub(super) fn count(db: &Connection, source_id: &str) -> Result<u64> {
    let mut all = db.prepare_cached("SELECT count(*) FROM dead_letters WHERE source_id = ?1")?;
    Ok(all.query_row([source_id], |row| row.get::<_, i64>(0))?.unsigned_abs())
}

/// In order, each once; a number that no row can have is no row's.
fn sorted(ids: &[u64]) -> Vec<i64> {
    let mut ids: Vec<_> = ids.iter().filter_map(|id| i64::try_from(*id).ok()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter {
        id: row.get::<_, i64>(0)?.unsigned_abs(),
        attempts: row.get(1)?,
        entry: NewDeadLetter {
            sink: row.get(2)?,
            kind: row.get(3)?,
            message: row.get(4)?,
            event_id: row.get(5)?,
            position: row.get(6)?,
            stored_ms: row.get(7)?,
            truncated: row.get(8)?,
            event: row.get(9)?,
            frozen: row.get(10)?,
        },
    })
}
