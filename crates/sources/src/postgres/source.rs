//! From frames to events.

use super::catalog::{Catalog, Described, Shape};
use super::config::{Settings, blocking};
use super::pgoutput::{self, Datum, Frame, Malformed, Message, Old, Tuple};
use super::position::{Lsn, write_position};
use super::setup::{self, CancelOnDrop};
use super::stream::{Chunk, Stream};
use super::values::{self, Codec};
use super::error;
use async_trait::async_trait;
use deltaforge_core::batch::{BatchBuilder, EventId, EventWriter, Op, TableIx, TransactionHead};
use deltaforge_core::row::RowWriter;
use deltaforge_core::schema::{SchemaRegistry, registered};
use deltaforge_core::source::{Fill, Format, Opened, Scope, Source, SourceContext, SourceField, SourceStats};
use deltaforge_core::task::{Task, spawn};
use deltaforge_core::value::Value;
use deltaforge_core::{Fault, Position};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// The source's own members of `source`.
pub(super) const FIELDS: &[SourceField] = &[
    SourceField { name: "sequence", scope: Scope::Event(0), format: Format::DecimalPair },
    SourceField { name: "lsn", scope: Scope::Event(1), format: Format::Lsn },
    SourceField { name: "txId", scope: Scope::Transaction(0), format: Format::Plain },
    SourceField { name: "origin", scope: Scope::Transaction(1), format: Format::Plain },
];

/// How often the server is asked how far it is, and new tables are looked for.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(5);

/// A running stream.
pub(super) struct PostgresSource {
    settings: Arc<Settings>,
    stream: Stream,
    chunk: Option<Chunk>,
    /// Bytes of the chunk that are decoded.
    at: usize,
    decoder: Decoder,
    catalog: Arc<Mutex<Catalog>>,
    waiting: Option<JoinHandle<Result<(Found, Described), Fault>>>,
    stats: Arc<SourceStats>,
    _observer: Task<()>,
}

impl PostgresSource {
    pub(super) async fn open(settings: Arc<Settings>, context: SourceContext) -> Result<Opened, Fault> {
        let SourceContext { resume, released, schemas, stats, .. } = context;
        let cancelled = Arc::new(AtomicBool::new(false));
        let _cancel = CancelOnDrop(cancelled.clone());
        let resume = resume.map(|checkpoint| checkpoint.position);
        let (for_setup, for_notes) = (settings.clone(), stats.clone());
        let prepared =
            blocking(move || setup::prepare(&for_setup, resume.as_ref(), &for_notes, &cancelled)).await?;
        let command = start_command(&settings, &prepared);
        let (start, interval) = (prepared.start, prepared.status_interval);
        let replication = prepared.replication;
        let stream = blocking(move || {
            let (transport, received) = replication.start_copy(&command, "starting the stream")?;
            Stream::start(transport, &received, released, start, interval)
        })
        .await?;
        tracing::info!(source_id = settings.id, slot = settings.slot, lsn = %start, "streaming");
        let server_tail = prepared.server.json_tail();
        let mut position = Vec::new();
        write_position(&mut position, start, None, &server_tail);
        let catalog = Arc::new(Mutex::new(prepared.catalog));
        let observer = spawn(
            "postgres observer",
            observe(settings.clone(), catalog.clone(), stats.clone(), prepared.version, prepared.publications),
        );
        let decoder = Decoder::new(&settings, start, server_tail, schemas, stats.clone());
        let source = PostgresSource {
            settings,
            stream,
            chunk: None,
            at: 0,
            decoder,
            catalog,
            waiting: None,
            stats,
            _observer: observer,
        };
        let start = Position::from_json(&String::from_utf8_lossy(&position));
        Ok(Opened { source: Box::new(source), start })
    }

    /// Looks a table up on a thread of its own; `fill` waits for it before it decodes further.
    fn look_up(&mut self, found: Found) {
        let (catalog, database) = (self.catalog.clone(), self.settings.target.dsn.database.clone());
        self.waiting = Some(tokio::task::spawn_blocking(move || {
            let described = catalog.lock().unwrap_or_else(PoisonError::into_inner).describe(&database, &found.shape)?;
            Ok((found, described))
        }));
    }

    async fn finish_look_up(&mut self, out: &mut BatchBuilder) -> Result<(), Fault> {
        let Some(waiting) = &mut self.waiting else { return Ok(()) };
        let answer = waiting.await;
        self.waiting = None;
        let (found, described) =
            answer.map_err(|_| Fault::bug("postgres.task_ended", "the catalog look-up panicked"))??;
        self.decoder.add_relation(found, described, out);
        Ok(())
    }

    /// Decodes frames of the present chunk until it or the builder is at its end, or a table must be looked up.
    fn decode_chunk(&mut self, out: &mut BatchBuilder) -> Result<bool, Fault> {
        let Some(chunk) = &self.chunk else { return Ok(true) };
        let frames = chunk.frames();
        while let Some(header) = frames[self.at..].first_chunk::<5>() {
            if out.is_full() {
                return Ok(false);
            }
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize + 1;
            let body = &frames[self.at + 5..self.at + length];
            self.at += length;
            match header[0] {
                b'd' => {
                    if let Some(found) = self.decoder.frame(body, out)? {
                        self.look_up(found);
                        return Ok(false);
                    }
                }
                b'E' => return Err(error::from_stream(body)),
                b'c' | b'C' | b'Z' => return Err(error::closed("streaming: the server ended the stream")),
                // Notices and changed settings.
                _ => {}
            }
        }
        Ok(true)
    }

    fn take_chunk(&mut self, chunk: Chunk, out: &mut BatchBuilder) {
        out.read_at(chunk.read_ms);
        self.stats.data_arrived(chunk.frames().len() as u64, chunk.read_ms);
        self.at = 0;
        self.chunk = Some(chunk);
    }
}

#[async_trait]
impl Source for PostgresSource {
    async fn fill(&mut self, out: &mut BatchBuilder) -> Result<Fill, Fault> {
        let before = self.decoder.progress;
        loop {
            self.finish_look_up(out).await?;
            if !self.decode_chunk(out)? {
                if self.waiting.is_some() {
                    continue;
                }
                return Ok(Fill::More);
            }
            if let Some(done) = self.chunk.take() {
                self.stream.recycle(done);
            }
            if let Some(chunk) = self.stream.try_next() {
                self.take_chunk(chunk?, out);
                if self.decoder.progress != before {
                    return Ok(Fill::More);
                }
            } else if self.decoder.progress != before {
                return Ok(Fill::Idle);
            } else {
                let chunk = self.stream.next().await?;
                self.take_chunk(chunk, out);
            }
        }
    }

    async fn close(self: Box<Self>) {
        self.stream.close().await;
    }
}

fn start_command(settings: &Settings, prepared: &setup::Prepared) -> String {
    let names = prepared.publications.iter().map(|p| escape_identifier(p)).collect::<Vec<_>>().join(",");
    // Logical messages are asked for although they are no rows: they move the position of a database that writes nothing else.
    let messages = if prepared.version >= 140_000 { ", messages 'true'" } else { "" };
    format!(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {}{messages})",
        escape_identifier(&settings.slot),
        prepared.start,
        escape_literal(&names)
    )
}

/// Asks the server how far it is, and adds tables that have appeared to the publication. Failures here are no reason to stop
/// reading: they are logged once, and the stream itself shows what is wrong.
async fn observe(
    settings: Arc<Settings>,
    catalog: Arc<Mutex<Catalog>>,
    stats: Arc<SourceStats>,
    version: u32,
    publications: Vec<String>,
) {
    let mut troubled = false;
    loop {
        let (for_query, catalog, publications) = (settings.clone(), catalog.clone(), publications.clone());
        let observed = blocking(move || {
            let mut catalog = catalog.lock().unwrap_or_else(PoisonError::into_inner);
            let observation = catalog.observe(&for_query.slot)?;
            let now = setup::publish(&for_query, &mut catalog, version, false)?;
            Ok((observation, now != publications))
        })
        .await;
        match observed {
            Ok((observation, more_publications)) => {
                troubled = false;
                stats.head.store(observation.head.0, Ordering::Relaxed);
                stats.retained_bytes.store(observation.retained_bytes.unwrap_or(-1), Ordering::Relaxed);
                let note = match observation.wal_status.as_deref() {
                    Some("unreserved") => Some("the server is about to remove log that the slot still needs"),
                    Some("lost") => Some("the server has removed log that the slot still needs"),
                    _ if more_publications => Some("a table without replica identity appeared; it is captured after a restart"),
                    _ => None,
                };
                stats.note(note.map(Into::into));
            }
            Err(fault) if !troubled => {
                troubled = true;
                stats.head.store(0, Ordering::Relaxed);
                tracing::warn!(source_id = settings.id, code = fault.code(), "cannot ask the server how far it is: {fault}");
            }
            Err(_) => {}
        }
        tokio::time::sleep(OBSERVE_INTERVAL).await;
    }
}

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

/// A shape met in the log, and where.
#[derive(Debug)]
struct Found {
    shape: Shape,
    at: Lsn,
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
}

/// What has been read so far, and how to read on. No network in here.
struct Decoder {
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
    progress: u64,
}

impl Decoder {
    fn new(
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
            previous_commit: start,
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
    fn frame(&mut self, payload: &[u8], out: &mut BatchBuilder) -> Result<Option<Found>, Fault> {
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

    fn message(&mut self, lsn: Lsn, message: Message<'_>, out: &mut BatchBuilder) -> Result<Option<Found>, Malformed> {
        match message {
            Message::Insert { relation, new } => {
                self.change(lsn, relation, Op::Create, out, |event, table| table.after(event, &new, None))?;
            }
            Message::Update { relation, old, new } => {
                self.change(lsn, relation, Op::Update, out, |event, table| table.update(event, old.as_ref(), &new))?;
            }
            Message::Delete { relation, old } => {
                self.change(lsn, relation, Op::Delete, out, |event, table| table.before(event, &old).map(|n| n as u64))?;
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
        Ok(Some(Found { shape, at }))
    }

    fn add_relation(&mut self, found: Found, described: Described, out: &mut BatchBuilder) {
        let (Described { schema, codecs }, Found { shape, at }) = (described, found);
        let identity = shape.columns.iter().map(|c| c.key).collect();
        let unchanged = match self.tables.get(&shape.oid) {
            Some(Table::Captured(old)) => {
                let was = out.table(old.index);
                (was.fingerprint == schema.fingerprint && was.key == schema.key && old.shape == shape).then_some(old.index)
            }
            _ => None,
        };
        let index = unchanged.unwrap_or_else(|| out.schema(registered(schema, self.schemas.as_ref(), at.0.into())));
        self.tables.insert(shape.oid, Table::Captured(Box::new(Captured { index, codecs, identity, shape })));
    }

    /// One change of a row: `write` fills the event and counts values that did not read as their type.
    fn change(
        &mut self,
        lsn: Lsn,
        relation: u32,
        op: Op,
        out: &mut BatchBuilder,
        write: impl FnOnce(&mut EventWriter<'_>, &Captured) -> Result<u64, Malformed>,
    ) -> Result<(), Malformed> {
        let index_at_lsn = self.next_index(lsn);
        let Some(transaction) = &mut self.transaction else {
            return Err(Malformed("a change outside a transaction"));
        };
        let table = match self.tables.get(&relation) {
            Some(Table::Captured(table)) => table,
            Some(Table::Skipped) => {
                self.stats.skipped_rows.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            None => return Err(Malformed("a change of a table that was not described")),
        };
        transaction.begin(out);
        let mut event = out.event(op, table.index);
        let fallbacks = write(&mut event, table)?;
        if fallbacks > 0 {
            self.stats.value_fallbacks.fetch_add(fallbacks, Ordering::Relaxed);
        }
        let pair = (self.previous_commit, lsn);
        event.source(2, |row| write_source(row, pair));
        let id = event_id(&mut self.identity, self.settings.id.len() + 1, transaction.commit, lsn, index_at_lsn);
        event.finish(id);
        self.progress += 1;
        Ok(())
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
        let head = TransactionHead { id: digits.format(self.xid), ts_us: self.ts_us };
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
    /// The new row; values that the log does not carry are copied from `old` where it is whole, and are absent otherwise.
    fn after(&self, event: &mut EventWriter<'_>, new: &Tuple<'_>, old: Option<std::ops::Range<usize>>) -> Result<u64, Malformed> {
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

    fn update(&self, event: &mut EventWriter<'_>, old: Option<&Old<'_>>, new: &Tuple<'_>) -> Result<u64, Malformed> {
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
        let fallbacks = self.before(event, old)? as u64;
        let whole = old.full.then(|| event.before_range());
        Ok(fallbacks + self.after(event, new, whole)?)
    }

    /// The old row; outside the identity nothing is known.
    fn before(&self, event: &mut EventWriter<'_>, old: &Old<'_>) -> Result<usize, Malformed> {
        self.same_width(&old.tuple)?;
        let mut fallbacks = 0;
        event.before(self.codecs.len(), |row| {
            for (i, (datum, codec)) in old.tuple.iter().zip(&self.codecs).enumerate() {
                let datum = datum?;
                if old.full || self.identity[i] {
                    fallbacks += usize::from(!put(row, datum, codec));
                } else {
                    row.put(Value::Absent);
                }
            }
            Ok(())
        })?;
        Ok(fallbacks)
    }

    fn same_width(&self, tuple: &Tuple<'_>) -> Result<(), Malformed> {
        if tuple.len() == self.codecs.len() { Ok(()) } else { Err(Malformed("a row with another number of columns than its table")) }
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
