//! One event as bytes that can be kept, with everything that an encoder sees of it.
//!
//! ```text
//! version:u8  id:16  op:u8  flags:u8  total_order:u64  table_order:u64  ts_us:i64  read_ms:i64  estimated:u32
//! then parts, each length:u32 and bytes: schema (JSON), before, after, source, ddl, transaction id, transaction source
//! ```
//!
//! Rows are kept as they lie in the arena. So the packed format of rows is, here alone, a stored one: the version byte stands for
//! it, and what another version wrote is refused, not guessed at. What was damaged is refused, too: the last 16 bytes are a
//! digest of all before them, because [`RowRef`](crate::RowRef) trusts what it reads.

use super::{Batch, EventId, NO_TRANSACTION, Op, Slot, Span, TableIx, Transaction, append};
use crate::fault::{Class, Fault};
use crate::schema::{Column, TableName, TableSchema};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

const VERSION: u8 = 1;
const DIGEST: usize = 16;
const OPS: [Op; 6] = [Op::Create, Op::Update, Op::Delete, Op::Read, Op::Truncate, Op::Ddl];
const EXACT: u8 = 1;
const IN_TRANSACTION: u8 = 2;

/// Writes an event down; `None` when the batch has no such event.
pub fn freeze(batch: &Batch, id: EventId) -> Option<Vec<u8>> {
    let slot = batch.slots.iter().find(|slot| slot.id == id)?;
    let schema = batch.tables.get(slot.table.0 as usize)?;
    let transaction = batch.transactions.get(slot.transaction as usize);
    let mut out = vec![VERSION];
    out.extend_from_slice(&slot.id.0);
    out.push(OPS.iter().position(|op| *op == slot.op)? as u8);
    let flags = if slot.ts_exact { EXACT } else { 0 };
    out.push(flags | if transaction.is_some() { IN_TRANSACTION } else { 0 });
    for number in [slot.total_order, slot.table_order, slot.ts_us as u64, slot.read_ms as u64] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&slot.estimated_bytes.to_le_bytes());
    part(&mut out, schema_json(schema).as_bytes());
    for span in [slot.before, slot.after, slot.source, slot.ddl] {
        part(&mut out, &batch.arena[span.range()]);
    }
    let (id, source) = transaction.map_or_else(Default::default, |t| (t.id, t.source));
    part(&mut out, &batch.arena[id.range()]);
    part(&mut out, &batch.arena[source.range()]);
    let digest = Sha256::digest(&out);
    out.extend_from_slice(&digest[..DIGEST]);
    Some(out)
}

/// A batch of the one event, without an end.
///
/// # Errors
/// `Config` (`dlq.unreadable`) for bytes that another version wrote, or that were damaged.
pub fn thaw(frozen: &[u8]) -> Result<Batch, Fault> {
    let refused = |why: &str| {
        Fault::new(Class::Config, "dlq.unreadable", format!("a stored event cannot be read: {why}"))
            .hint("purge it; its content is shown in the list")
    };
    let Some((bytes, digest)) = frozen.split_last_chunk::<DIGEST>() else {
        return Err(refused("it is too short"));
    };
    if Sha256::digest(bytes)[..DIGEST] != digest[..] {
        return Err(refused("it is damaged"));
    }
    if bytes.first() != Some(&VERSION) {
        return Err(refused("another release wrote it"));
    }
    read(&bytes[1..]).ok_or_else(|| refused("it is not whole"))
}

fn read(bytes: &[u8]) -> Option<Batch> {
    let mut rest = bytes;
    let id = EventId(take(&mut rest)?);
    let [op, flags] = take(&mut rest)?;
    let op = *OPS.get(usize::from(op))?;
    let mut number = || Some(u64::from_le_bytes(take(&mut rest)?));
    let (total_order, table_order) = (number()?, number()?);
    let (ts_us, read_ms) = (number()? as i64, number()? as i64);
    let estimated_bytes = u32::from_le_bytes(take(&mut rest)?);
    let schema = read_schema(take_part(&mut rest)?)?;
    let mut arena = Vec::with_capacity(rest.len());
    let mut spans = [Span::default(); 6];
    for span in &mut spans {
        *span = append(&mut arena, take_part(&mut rest)?);
    }
    let [before, after, source, ddl, transaction_id, transaction_source] = spans;
    let (mut transactions, mut transaction) = (Vec::new(), NO_TRANSACTION);
    if flags & IN_TRANSACTION != 0 {
        transactions.push(Transaction { id: transaction_id, source: transaction_source });
        transaction = 0;
    }
    let slot = Slot {
        id,
        op,
        table: TableIx(0),
        transaction,
        total_order,
        table_order,
        ts_us,
        ts_exact: flags & EXACT != 0,
        read_ms,
        start: 0,
        estimated_bytes,
        before,
        after,
        source,
        ddl,
    };
    Some(Batch {
        arena,
        slots: vec![slot],
        transactions,
        tables: Arc::new(vec![Arc::new(schema)]),
        end: None,
        texts: Default::default(),
        beside: true,
        estimated_bytes: estimated_bytes as usize,
    })
}

fn part(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn take_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_le_bytes(take(rest)?) as usize;
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn schema_json(schema: &TableSchema) -> String {
    let columns: Vec<Value> =
        schema.columns.iter().map(|c| json!([c.name, c.type_name, c.nullable])).collect();
    json!({
        "db": schema.name.db,
        "schema": schema.name.schema,
        "table": schema.name.table,
        "full": schema.name.full(),
        "columns": columns,
        "primary_key": schema.primary_key,
        "key": schema.key,
        "detail": schema.detail,
        "sequence": schema.sequence,
    })
    .to_string()
}

fn read_schema(json: &[u8]) -> Option<TableSchema> {
    let json: Value = serde_json::from_slice(json).ok()?;
    let text = |name: &str| json.get(name)?.as_str();
    let (db, table) = (text("db")?, text("table")?);
    // Which of the three forms the name has, its full text tells.
    let name = match text("schema") {
        Some(schema) => TableName::in_schema(db, schema, table),
        None if text("full")? == table => TableName::bare(db, table),
        None => TableName::in_db(db, table),
    };
    let columns = json.get("columns")?.as_array()?.iter().map(|column| {
        Some(Column {
            name: column.get(0)?.as_str()?.to_owned(),
            type_name: column.get(1)?.as_str()?.to_owned(),
            nullable: column.get(2)?.as_bool(),
        })
    });
    let columns = columns.collect::<Option<Vec<_>>>()?;
    let indexes = |name: &str| {
        let indexes = json.get(name)?.as_array()?.iter();
        let indexes = indexes.map(|n| n.as_u64().and_then(|n| u16::try_from(n).ok()));
        indexes.collect::<Option<Vec<u16>>>()
    };
    let mut schema = TableSchema::new(name, columns, indexes("primary_key")?, indexes("key")?);
    schema.detail = text("detail").map(str::to_owned);
    schema.sequence = json.get("sequence")?.as_u64()?;
    Some(schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, Limits, TransactionHead};
    use crate::value::Value as Cell;
    use std::convert::Infallible;

    fn batch() -> Batch {
        let limits = Limits { max_events: 99, max_bytes: 1 << 20, respect_source_tx: true };
        let mut builder = BatchBuilder::new(limits, None, 0);
        let column =
            |name: &str| Column { name: name.into(), type_name: "text".into(), nullable: Some(true) };
        let name = TableName::in_db("shop", "t");
        let mut schema = TableSchema::new(name, vec![column("a"), column("b")], vec![], vec![1]);
        schema.sequence = 7;
        let table = builder.schema(Arc::new(schema.with_detail("{\"x\":1}".into())));
        builder.read_at(5);
        builder
            .begin(TransactionHead { id: "9", ts_us: -3, ts_exact: false }, 1, |row| row.put(Cell::Int(4)));
        for n in 0..3_u8 {
            let mut event = builder.event(Op::Update, table);
            let _: Result<(), Infallible> = event.before(2, |row| {
                row.put(Cell::Null);
                Ok(())
            });
            let _: Result<(), Infallible> = event.after(2, |row| {
                row.put(Cell::Text("ü"));
                row.put(Cell::Int(n.into()));
                Ok(())
            });
            event.source(1, |row| row.put(Cell::Bool(true)));
            event.ddl("{}");
            event.finish(EventId([n; 16]));
        }
        builder.commit(|out| out.extend_from_slice(b"{\"lsn\":1}"));
        builder.cut().unwrap()
    }

    #[test]
    fn everything_comes_back() {
        let batch = batch();
        for event in batch.events() {
            let frozen = freeze(&batch, event.id()).unwrap();
            let thawed = thaw(&frozen).unwrap();
            assert_eq!((thawed.len(), thawed.end(), thawed.last_id()), (1, None, None));
            let again = thawed.event(0).unwrap();
            assert_eq!(again.table(), event.table());
            assert_eq!((again.id(), again.op(), again.ddl()), (event.id(), event.op(), event.ddl()));
            assert_eq!((again.before(), again.after()), (event.before(), event.after()));
            assert_eq!(again.source(), event.source());
            let (a, b) = (again.transaction().unwrap(), event.transaction().unwrap());
            assert_eq!((a.id, a.total_order, a.table_order), (b.id, b.total_order, b.table_order));
            assert_eq!(a.source(), b.source());
            assert_eq!((again.ts_us(), again.ts_is_exact()), (event.ts_us(), event.ts_is_exact()));
            assert_eq!(again.read_ms(), event.read_ms());
            assert_eq!(freeze(&thawed, event.id()).unwrap(), frozen);
        }
        assert_eq!(freeze(&batch, EventId([9; 16])), None);
    }

    #[test]
    fn damage_is_refused() {
        let batch = batch();
        let frozen = freeze(&batch, EventId([1; 16])).unwrap();
        for at in 0..frozen.len() {
            let mut damaged = frozen.clone();
            damaged[at] ^= 1;
            assert_eq!(thaw(&damaged).unwrap_err().code(), "dlq.unreadable", "byte {at}");
            assert!(thaw(&frozen[..at]).is_err(), "cut at {at}");
        }
    }
}
