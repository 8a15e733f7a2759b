//! From frames to events. No network in here.

use super::catalog::{Described, Shape};
use super::config::Settings;
use super::error;
use super::pgoutput::{self, Datum, Frame, Malformed, Message, Old, Tuple};
use super::position::{Lsn, write_position};
use super::values::{self, Codec};
use deltaforge_core::Fault;
use deltaforge_core::batch::{BatchBuilder, EventId, EventWriter, Op, TableIx, TransactionHead};
use deltaforge_core::row::RowWriter;
use deltaforge_core::schema::{SchemaRegistry, registered};
use deltaforge_core::source::SourceStats;
use deltaforge_core::value::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The transaction being read.
#[derive(Debug)]
struct Transaction {
    commit: Lsn,
    ts_us: i64,
    xid: u32,
    origin: Option<String>,
    /// Whether the builder knows of it: it does once a captured change came.
    begun: bool,
}

/// A shape to be looked up, and where it was met.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) shape: Shape,
    at: Lsn,
    /// The frame that it was met in is to be decoded after the look-up: a value did not read as the type that was known.
    pub(super) again: bool,
}

/// A table that changes may come for.
#[derive(Debug)]
enum Table {
    Captured(Box<Captured>),
    /// Published, but no pattern matches it.
    Skipped,
}

#[derive(Debug)]
struct Captured {
    index: TableIx,
    codecs: Vec<Codec>,
    /// Part of the replica identity.
    identity: Vec<bool>,
    shape: Shape,
    /// Some values are composites, whose types change without a word in the log; those that are known are right up to here.
    composites_at: Option<Lsn>,
}

/// What has been read so far, and how to read on.
pub(super) struct Decoder {
    settings: Arc<Settings>,
    tables: HashMap<u32, Table>,
    transaction: Option<Transaction>,
    /// Commit of the transaction before, for `source.sequence`.
    previous_commit: Lsn,
    last_xid: Option<u32>,
    /// LSN of the last change, and how many changes of the transaction came at it before.
    change: (Lsn, u32),
    /// Everything before it was read.
    position: Lsn,
    server_tail: Vec<u8>,
    /// What event ids are made of: source id, a zero byte, then commit LSN, change LSN, index.
    identity: Vec<u8>,
    schemas: Arc<dyn SchemaRegistry>,
    stats: Arc<SourceStats>,
    /// Grows with everything that the builder was given.
    pub(super) progress: u64,
}

impl Decoder {
    pub(super) fn new(
        settings: &Arc<Settings>,
        start: Lsn,
        server_tail: Vec<u8>,
        schemas: Arc<dyn SchemaRegistry>,
        stats: Arc<SourceStats>,
    ) -> Decoder {
        let mut identity = settings.id.clone().into_bytes();
        identity.push(0);
        stats.received.store(start.0, Ordering::Relaxed);
        Decoder {
            settings: settings.clone(),
            tables: HashMap::new(),
            transaction: None,
            // Which commit came before is not known here. This number lies between it and the next commit, which may stand at
            // `start` itself: a keepalive names the place just before a commit, too. Equal numbers would leave the order of
            // two transactions to the places of their changes, and these interleave.
            previous_commit: Lsn(start.0.saturating_sub(1)),
            last_xid: None,
            change: (Lsn(0), 0),
            position: start,
            server_tail,
            identity,
            schemas,
            stats,
            progress: 0,
        }
    }

    /// Takes one frame; gives a shape when a table must be looked up before the next frame.
    pub(super) fn frame(&mut self, payload: &[u8], out: &mut BatchBuilder) -> Result<Option<Found>, Fault> {
        let broken = |m: Malformed| error::protocol(m.0);
        match pgoutput::frame(payload).map_err(broken)? {
            Frame::Keepalive { end, .. } => {
                self.idle(end, out);
                Ok(None)
            }
            Frame::Data { start, message } => {
                let message = pgoutput::message(message).map_err(|m| error::undecodable(m, start))?;
                self.message(start, message, out).map_err(|m| error::undecodable(m, start))
            }
        }
    }

    /// Between transactions, everything before the keepalive's place was read.
    fn idle(&mut self, end: Lsn, out: &mut BatchBuilder) {
        if self.transaction.is_none() && end > self.position {
            self.position = end;
            self.stats.received.store(end.0, Ordering::Relaxed);
            let (xid, tail) = (self.last_xid, &self.server_tail);
            out.advance(|json| write_position(json, end, xid, tail));
            self.progress += 1;
        }
    }

    fn message(
        &mut self,
        lsn: Lsn,
        message: Message<'_>,
        out: &mut BatchBuilder,
    ) -> Result<Option<Found>, Malformed> {
        match message {
            Message::Insert { relation, new } => {
                return self
                    .change(lsn, relation, Op::Create, out, |event, table| table.after(event, &new, None));
            }
            Message::Update { relation, old, new } => {
                return self.change(lsn, relation, Op::Update, out, |event, table| {
                    table.update(event, old.as_ref(), &new)
                });
            }
            Message::Delete { relation, old } => {
                return self.change(lsn, relation, Op::Delete, out, |event, table| table.before(event, &old));
            }
            Message::Begin { commit, ts_us, xid } => {
                if self.transaction.is_some() {
                    return Err(Malformed("a transaction begins inside another"));
                }
                self.transaction = Some(Transaction { commit, ts_us, xid, origin: None, begun: false });
                self.change = (Lsn(0), 0);
            }
            Message::Commit { commit, end } => self.commit(commit, end, out)?,
            Message::Origin(name) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.origin = Some(name.into());
                }
            }
            Message::Relation(relation) => return self.relation(lsn, &relation),
            Message::Truncate { cascade, restart_identity, relations } => {
                self.truncate(lsn, relations, cascade, restart_identity, out)?;
            }
            // Names of user-defined types: the catalog tells more. Logical messages: no rows, they only move the position.
            Message::Type | Message::Logical { .. } => {}
        }
        Ok(None)
    }

    fn commit(&mut self, commit: Lsn, end: Lsn, out: &mut BatchBuilder) -> Result<(), Malformed> {
        let transaction = self.transaction.take().ok_or(Malformed("a commit without a transaction"))?;
        self.last_xid = Some(transaction.xid);
        self.previous_commit = commit;
        self.position = end;
        self.stats.received.store(end.0, Ordering::Relaxed);
        self.stats.received_ts_us.store(transaction.ts_us, Ordering::Relaxed);
        let (xid, tail) = (Some(transaction.xid), &self.server_tail);
        if transaction.begun {
            self.stats.transactions.fetch_add(1, Ordering::Relaxed);
            out.commit(|json| write_position(json, end, xid, tail));
        } else {
            out.advance(|json| write_position(json, end, xid, tail));
        }
        self.progress += 1;
        Ok(())
    }

    fn relation(&mut self, at: Lsn, relation: &pgoutput::Relation<'_>) -> Result<Option<Found>, Malformed> {
        let shape = Shape::of(relation)?;
        if !self.settings.tables.matches(&shape.schema, &shape.name) {
            self.tables.insert(shape.oid, Table::Skipped);
            return Ok(None);
        }
        Ok(Some(Found { shape, at, again: false }))
    }

    pub(super) fn add_relation(&mut self, found: Found, described: Described, out: &mut BatchBuilder) {
        let (Described { schema, codecs, types_at }, Found { shape, at, again }) = (described, found);
        let identity = shape.columns.iter().map(|c| c.key).collect();
        let unchanged = match self.tables.get(&shape.oid) {
            Some(Table::Captured(old)) => {
                let was = out.table(old.index);
                (was.fingerprint == schema.fingerprint && was.key == schema.key && old.shape == shape)
                    .then_some(old.index)
            }
            _ => None,
        };
        let index =
            unchanged.unwrap_or_else(|| out.schema(registered(schema, self.schemas.as_ref(), at.0.into())));
        // What was looked up for a change is not looked up for it a second time, whatever the server says.
        let types_at = if again { types_at.max(at) } else { types_at };
        let composites_at = codecs.iter().any(Codec::has_composites).then_some(types_at);
        let captured = Captured { index, codecs, identity, shape, composites_at };
        self.tables.insert(captured.shape.oid, Table::Captured(Box::new(captured)));
    }

    /// One change of a row: `write` fills the event and counts values that did not read as their type. Where a composite
    /// type may have changed since it was looked up, it gives the table to be looked up again, and nothing was done.
    fn change(
        &mut self,
        lsn: Lsn,
        relation: u32,
        op: Op,
        out: &mut BatchBuilder,
        write: impl FnOnce(&mut EventWriter<'_>, &Captured) -> Result<u64, Malformed>,
    ) -> Result<Option<Found>, Malformed> {
        let change_before = self.change;
        let index_at_lsn = self.next_index(lsn);
        let Some(transaction) = &mut self.transaction else {
            return Err(Malformed("a change outside a transaction"));
        };
        let table = match self.tables.get(&relation) {
            Some(Table::Captured(table)) => table,
            Some(Table::Skipped) => {
                self.stats.skipped_rows.fetch_add(1, Ordering::Relaxed);
                return Ok(None);
            }
            None => return Err(Malformed("a change of a table that was not described")),
        };
        transaction.begin(out);
        let mut event = out.event(op, table.index);
        let fallbacks = write(&mut event, table)?;
        if fallbacks > 0 {
            if table.composites_at.is_some_and(|at| at < lsn) {
                drop(event);
                self.change = change_before;
                return Ok(Some(Found { shape: table.shape.clone(), at: lsn, again: true }));
            }
            self.stats.value_fallbacks.fetch_add(fallbacks, Ordering::Relaxed);
        }
        let pair = (self.previous_commit, lsn);
        event.source(2, |row| write_source(row, pair));
        let id =
            event_id(&mut self.identity, self.settings.id.len() + 1, transaction.commit, lsn, index_at_lsn);
        event.finish(id);
        self.progress += 1;
        Ok(None)
    }

    /// Several changes may share one LSN (COPY, multi-row inserts): they are told apart by their order.
    fn next_index(&mut self, lsn: Lsn) -> u32 {
        let index = if self.change.0 == lsn { self.change.1 + 1 } else { 0 };
        self.change = (lsn, index);
        index
    }

    fn truncate(
        &mut self,
        lsn: Lsn,
        relations: &[u8],
        cascade: bool,
        restart_identity: bool,
        out: &mut BatchBuilder,
    ) -> Result<(), Malformed> {
        let database = self.settings.target.dsn.database.clone();
        for oid in relations.chunks_exact(4) {
            let oid = u32::from_be_bytes([oid[0], oid[1], oid[2], oid[3]]);
            self.change(lsn, oid, Op::Truncate, out, |event, table| {
                let full = format!("{}.{}", table.shape.schema, table.shape.name);
                let ddl = serde_json::json!({"kind": "truncate", "sql": "TRUNCATE", "database": database,
                    "tables": [full], "cascade": cascade, "restart_identity": restart_identity});
                event.ddl(&ddl.to_string());
                Ok(0)
            })?;
        }
        Ok(())
    }
}

impl Transaction {
    fn begin(&mut self, out: &mut BatchBuilder) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let mut digits = itoa::Buffer::new();
        let head = TransactionHead { id: digits.format(self.xid), ts_us: self.ts_us, ts_exact: true };
        let (xid, origin) = (self.xid, self.origin.as_deref());
        out.begin(head, 2, |row| {
            row.put(Value::Uint(xid.into()));
            row.put(origin.map_or(Value::Absent, Value::Text));
        });
    }
}

fn write_source(row: &mut RowWriter<'_>, (previous, lsn): (Lsn, Lsn)) {
    let Ok(()) = row.put_with(|cell| {
        cell.list(|list| {
            for part in [previous, lsn] {
                list.element(|cell| {
                    cell.put(Value::Uint(part.0));
                    Ok::<(), std::convert::Infallible>(())
                })?;
            }
            Ok::<(), std::convert::Infallible>(())
        })
    });
    row.put(Value::Uint(lsn.0));
}

fn event_id(identity: &mut Vec<u8>, prefix: usize, commit: Lsn, lsn: Lsn, index: u32) -> EventId {
    identity.truncate(prefix);
    identity.extend_from_slice(&commit.0.to_be_bytes());
    identity.extend_from_slice(&lsn.0.to_be_bytes());
    identity.extend_from_slice(&index.to_be_bytes());
    EventId::derive(identity)
}

impl Captured {
    /// The new row; values that the log does not carry are copied from `old`, where those it does not know are absent too.
    fn after(
        &self,
        event: &mut EventWriter<'_>,
        new: &Tuple<'_>,
        old: Option<std::ops::Range<usize>>,
    ) -> Result<u64, Malformed> {
        self.same_width(new)?;
        let mut fallbacks = 0;
        event.after(self.codecs.len(), |row| {
            for (i, (datum, codec)) in new.iter().zip(&self.codecs).enumerate() {
                match (datum?, &old) {
                    (Datum::Unchanged, Some(old)) => row.put_copy_of(old.clone(), i),
                    (datum, _) => fallbacks += u64::from(!put(row, datum, codec)),
                }
            }
            Ok(())
        })?;
        Ok(fallbacks)
    }

    fn update(
        &self,
        event: &mut EventWriter<'_>,
        old: Option<&Old<'_>>,
        new: &Tuple<'_>,
    ) -> Result<u64, Malformed> {
        let Some(old) = old else {
            // The key did not change, so the new row's key is the old row's.
            let fallbacks = self.after(event, new, None)?;
            let after = event.after_range();
            event.before(self.codecs.len(), |row| {
                for (i, key) in self.identity.iter().enumerate() {
                    if *key { row.put_copy_of(after.clone(), i) } else { row.put(Value::Absent) }
                }
                Ok::<(), Malformed>(())
            })?;
            return Ok(fallbacks);
        };
        let fallbacks = self.before(event, old)?;
        let before = event.before_range();
        Ok(fallbacks + self.after(event, new, Some(before))?)
    }

    /// The old row; outside the identity nothing is known.
    fn before(&self, event: &mut EventWriter<'_>, old: &Old<'_>) -> Result<u64, Malformed> {
        self.same_width(&old.tuple)?;
        let mut fallbacks = 0;
        event.before(self.codecs.len(), |row| {
            for (i, (datum, codec)) in old.tuple.iter().zip(&self.codecs).enumerate() {
                let datum = datum?;
                if old.full || self.identity[i] {
                    fallbacks += u64::from(!put(row, datum, codec));
                } else {
                    row.put(Value::Absent);
                }
            }
            Ok(())
        })?;
        Ok(fallbacks)
    }

    fn same_width(&self, tuple: &Tuple<'_>) -> Result<(), Malformed> {
        if tuple.len() == self.codecs.len() {
            Ok(())
        } else {
            Err(Malformed("a row with another number of columns than its table"))
        }
    }
}

/// Writes one value; false when it did not read as its type.
#[inline]
fn put(row: &mut RowWriter<'_>, datum: Datum<'_>, codec: &Codec) -> bool {
    match datum {
        Datum::Text(text) => {
            let mut clean = true;
            let Ok(()) = row.put_with(|cell| {
                clean = values::write(codec, text, cell);
                Ok::<(), std::convert::Infallible>(())
            });
            clean
        }
        Datum::Null => {
            row.put(Value::Null);
            true
        }
        Datum::Unchanged => {
            row.put(Value::Absent);
            true
        }
    }
}
