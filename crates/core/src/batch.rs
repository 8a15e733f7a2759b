//! Batches: events in one arena, cut at transaction ends.
//!
//! A source fills a [`BatchBuilder`]; the engine cuts a [`Batch`] off it and shares it as `Arc<Batch>` with every sink.
//! Nothing is allocated per event or per cell: rows lie packed in the arena, events are fixed-size slots over it.
//!
//! ```text
//!           committed                overflow          a cut takes everything left of
//! slots  ───────┬───────────────────────┬────────      · committed, when a transaction ended in this batch
//! ev ev ev ev ev│ev ev ev ev ev ev ev ev│ev            · overflow, when one transaction is above the limits
//!               └ end of a transaction  └ first event  What is right of the cut moves to the next batch: at most
//!                 (`end` is its position) above limits  the events of the one transaction that is still open.
//! ```

mod frozen;

pub use frozen::{freeze, thaw};

use crate::position::{End, Position};
use crate::row::{RowRef, RowWriter};
use crate::schema::TableSchema;
use sha2::{Digest, Sha256};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// What happened to a row or a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Insert.
    Create,
    /// Update.
    Update,
    /// Delete.
    Delete,
    /// Row read by a snapshot.
    Read,
    /// Table truncated.
    Truncate,
    /// Schema changed.
    Ddl,
}

impl Op {
    /// The letter or word in the event.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Create => "c",
            Op::Update => "u",
            Op::Delete => "d",
            Op::Read => "r",
            Op::Truncate => "t",
            Op::Ddl => "ddl",
        }
    }
}

/// Identity of an event: the same change has the same id in every replay.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EventId(pub [u8; 16]);

impl EventId {
    /// The leading bits of the SHA-256 of `identity` as a UUID of version 8 (RFC 9562, section 5.8).
    #[inline]
    pub fn derive(identity: &[u8]) -> EventId {
        let digest = Sha256::digest(identity);
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        id[6] = 0x80 | (id[6] & 0x0f);
        id[8] = 0x80 | (id[8] & 0x3f);
        EventId(id)
    }
}

impl std::str::FromStr for EventId {
    type Err = ();

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<EventId, ()> {
        let bytes = text.as_bytes();
        let is_right = |(at, byte): (usize, &u8)| matches!(at, 8 | 13 | 18 | 23) == (*byte == b'-');
        if bytes.len() != 36 || !bytes.iter().enumerate().all(is_right) {
            return Err(());
        }
        let mut digits =
            bytes.iter().filter_map(|byte| char::from(*byte).to_digit(16).map(|digit| digit as u8));
        let mut id = [0; 16];
        for byte in &mut id {
            *byte = digits.next().zip(digits.next()).map(|(high, low)| high << 4 | low).ok_or(())?;
        }
        Ok(EventId(id))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A half-open range of the arena. Empty means: not there.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    len: u32,
}

impl Span {
    fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }

    fn moved(self, back: u32, forth: u32) -> Span {
        if self.len == 0 { self } else { Span { start: self.start - back + forth, ..self } }
    }
}

/// Which of a builder's tables an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableIx(u32);

const NO_TRANSACTION: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Slot {
    id: EventId,
    op: Op,
    table: TableIx,
    transaction: u32,
    total_order: u64,
    table_order: u64,
    ts_us: i64,
    ts_exact: bool,
    read_ms: i64,
    /// Where the event's bytes begin.
    start: u32,
    estimated_bytes: u32,
    before: Span,
    after: Span,
    source: Span,
    ddl: Span,
}

#[derive(Clone, Debug)]
struct Transaction {
    id: Span,
    source: Span,
}

/// Events in one arena, immutable.
#[derive(Debug)]
pub struct Batch {
    arena: Vec<u8>,
    slots: Vec<Slot>,
    transactions: Vec<Transaction>,
    tables: Arc<Vec<Arc<TableSchema>>>,
    end: Option<End>,
    estimated_bytes: usize,
    texts: SharedTexts,
    /// Its events come again beside the stream.
    beside: bool,
}

/// A text for each event of a batch, one behind the other.
#[derive(Debug, Default)]
pub struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Texts {
    /// Adds the next event's text.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// The text of an event by its place in the batch; empty when there is none.
    pub fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before).copied()).unwrap_or(0);
        self.ends.get(index).map_or(&[], |end| &self.bytes[start..*end])
    }
}

/// What was made of a batch by name; usually nothing, or one thing.
#[derive(Debug, Default)]
struct SharedTexts(std::sync::Mutex<Vec<(String, Arc<Texts>)>>);

impl Batch {
    /// Number of events.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True without events.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The events in order.
    pub fn events(&self) -> impl ExactSizeIterator<Item = Event<'_>> {
        self.slots.iter().map(|slot| Event { batch: self, slot })
    }

    /// One event.
    pub fn event(&self, index: usize) -> Option<Event<'_>> {
        self.slots.get(index).map(|slot| Event { batch: self, slot })
    }

    /// The tables that [`Event::table_index`] points into. Shared by batches until a table appears or changes, so an
    /// encoder may keep what it prepared as long as the `Arc` is the same.
    pub fn tables(&self) -> &Arc<Vec<Arc<TableSchema>>> {
        &self.tables
    }

    /// Where the batch ends; `None` when it ends inside a transaction that goes on in the next batch.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// What `make` makes of the batch, made once for all who ask under the same name: sinks of one envelope share the encoding.
    /// Whoever asks while another makes it waits.
    pub fn texts(&self, name: &str, make: impl FnOnce(&mut Texts)) -> Arc<Texts> {
        let mut known = self.texts.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, texts)) = known.iter().find(|(known, _)| known == name) {
            return texts.clone();
        }
        let mut texts =
            Texts { bytes: Vec::with_capacity(self.estimated_bytes), ends: Vec::with_capacity(self.len()) };
        make(&mut texts);
        let texts = Arc::new(texts);
        known.push((name.to_owned(), texts.clone()));
        texts
    }

    /// The batch without one event, for a sink that gives that event up. Copies the arena.
    pub fn without(&self, id: EventId) -> Batch {
        Batch {
            arena: self.arena.clone(),
            slots: self.slots.iter().filter(|s| s.id != id).cloned().collect(),
            transactions: self.transactions.clone(),
            tables: self.tables.clone(),
            end: self.end.clone(),
            estimated_bytes: self.estimated_bytes,
            texts: SharedTexts::default(),
            beside: self.beside,
        }
    }

    /// What comes after an event, for a sink that holds everything up to it; `None` when the batch has no such event. Copies
    /// the arena.
    pub fn after(&self, id: EventId) -> Option<Batch> {
        let at = self.slots.iter().position(|s| s.id == id)?;
        Some(Batch { slots: self.slots[at + 1..].to_vec(), ..self.without(id) })
    }

    /// The same events, delivered again beside the stream: its place and its last event stay what they were.
    pub fn beside(self, end: Option<End>) -> Batch {
        Batch { end, beside: true, ..self }
    }

    /// The last event's identity, by which a target tells how far the stream has come; `None` also when the events come beside
    /// it.
    pub fn last_id(&self) -> Option<EventId> {
        self.slots.last().map(|s| s.id).filter(|_| !self.beside)
    }

    /// Bytes held by the arena.
    pub fn memory_bytes(&self) -> usize {
        self.arena.capacity() + self.slots.capacity() * size_of::<Slot>()
    }

    /// Estimate of the batch's size as native JSON.
    pub fn estimated_bytes(&self) -> usize {
        self.estimated_bytes
    }

    /// Commit time of the oldest event at the source, Unix microseconds.
    pub fn first_ts_us(&self) -> Option<i64> {
        self.slots.first().map(|s| s.ts_us)
    }
}

/// A view of one event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    batch: &'a Batch,
    slot: &'a Slot,
}

/// The transaction of an event.
#[derive(Clone, Copy, Debug)]
pub struct TransactionRef<'a> {
    /// The source's name for it.
    pub id: &'a str,
    /// Position among the transaction's captured events, from 1.
    pub total_order: u64,
    /// Position among those of the same table, from 1.
    pub table_order: u64,
    source: Option<RowRef<'a>>,
}

impl<'a> TransactionRef<'a> {
    /// What the source tells of the transaction; the columns are those of
    /// [`SourceInfo::fields`](crate::source::SourceInfo::fields) with transaction scope.
    pub fn source(&self) -> Option<RowRef<'a>> {
        self.source
    }
}

impl<'a> Event<'a> {
    /// The batch it is of.
    pub fn batch(&self) -> &'a Batch {
        self.batch
    }

    /// Its place in the batch, from 0.
    pub fn index(&self) -> usize {
        (std::ptr::from_ref(self.slot).addr() - self.batch.slots.as_ptr().addr()) / size_of::<Slot>()
    }

    /// Stable identity.
    pub fn id(&self) -> EventId {
        self.slot.id
    }

    /// Kind of change.
    pub fn op(&self) -> Op {
        self.slot.op
    }

    /// The table's schema as of this event.
    pub fn table(&self) -> &'a TableSchema {
        &self.batch.tables[self.slot.table.0 as usize]
    }

    /// Index into [`Batch::tables`].
    pub fn table_index(&self) -> usize {
        self.slot.table.0 as usize
    }

    /// The row before the change, in the table's column order.
    pub fn before(&self) -> Option<RowRef<'a>> {
        self.row(self.slot.before)
    }

    /// The row after the change, in the table's column order.
    pub fn after(&self) -> Option<RowRef<'a>> {
        self.row(self.slot.after)
    }

    /// What the source tells of this event; columns as for [`TransactionRef::source`], with event scope.
    pub fn source(&self) -> Option<RowRef<'a>> {
        self.row(self.slot.source)
    }

    /// The `ddl` object of a truncate or schema change, as JSON.
    pub fn ddl(&self) -> Option<&'a str> {
        let bytes = &self.batch.arena[self.slot.ddl.range()];
        if bytes.is_empty() { None } else { std::str::from_utf8(bytes).ok() }
    }

    /// The transaction; `None` for snapshot rows and sources without transactions.
    pub fn transaction(&self) -> Option<TransactionRef<'a>> {
        let transaction = self.batch.transactions.get(self.slot.transaction as usize)?;
        Some(TransactionRef {
            id: std::str::from_utf8(&self.batch.arena[transaction.id.range()]).unwrap_or_default(),
            total_order: self.slot.total_order,
            table_order: self.slot.table_order,
            source: self.row(transaction.source),
        })
    }

    /// Commit time at the source, Unix microseconds.
    pub fn ts_us(&self) -> i64 {
        self.slot.ts_us
    }

    /// Whether the time is known in microseconds: false where the log records whole seconds.
    pub fn ts_is_exact(&self) -> bool {
        self.slot.ts_exact
    }

    /// When this program read the change, Unix milliseconds.
    pub fn read_ms(&self) -> i64 {
        self.slot.read_ms
    }

    fn row(&self, span: Span) -> Option<RowRef<'a>> {
        (span.len > 0).then(|| RowRef::new(&self.batch.arena[span.range()]))
    }
}

/// Upper bounds of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most events.
    pub max_events: usize,
    /// Most serialized bytes, estimated; a larger single event travels alone.
    pub max_bytes: usize,
    /// Keep transactions within the limits whole.
    pub respect_source_tx: bool,
}

/// What a source says of the transaction that begins.
#[derive(Clone, Copy, Debug)]
pub struct TransactionHead<'a> {
    /// The source's name for it.
    pub id: &'a str,
    /// Commit time, Unix microseconds.
    pub ts_us: i64,
    /// False where the log records no more than whole seconds.
    pub ts_exact: bool,
}

/// The transaction that is open: kept outside the arena, because it may span batches.
#[derive(Debug, Default)]
struct OpenTransaction {
    id: Vec<u8>,
    source: Vec<u8>,
    ts_us: i64,
    ts_exact: bool,
    /// Index in the batch's transactions, once an event of it is there.
    index: Option<u32>,
    total_order: u64,
    /// Counts per table name, and which of them are not 0.
    table_orders: Vec<u64>,
    touched: Vec<u32>,
}

/// Takes a source's events and gives batches.
///
/// The source calls [`schema`](Self::schema) for each table shape it meets, then per transaction [`begin`](Self::begin),
/// [`event`](Self::event) for each change and [`commit`](Self::commit), and stops as soon as [`is_full`](Self::is_full).
/// Outside transactions it may [`advance`](Self::advance) to a place it has read up to.
#[derive(Debug)]
pub struct BatchBuilder {
    limits: Limits,
    arena: Vec<u8>,
    slots: Vec<Slot>,
    transactions: Vec<Transaction>,
    tables: Arc<Vec<Arc<TableSchema>>>,
    /// Per table: which name it has, as an index into `OpenTransaction::table_orders`.
    table_names: Vec<u32>,
    /// Per name: the shapes that a table of that name has had.
    shapes: Vec<Vec<TableIx>>,
    names: std::collections::HashMap<String, u32>,
    estimated_bytes: usize,
    open: Option<OpenTransaction>,
    spare_open: OpenTransaction,
    /// Slots that belong to transactions that have ended.
    committed: usize,
    /// First slot above the limits.
    overflow: Option<usize>,
    /// End of the last transaction, or a place reached after it, as JSON, and whether it moved since the last cut.
    end: Vec<u8>,
    /// End of the last transaction with an event here, when a place was reached after it; else empty. A batch ends there: so
    /// where it ends does not depend on when it was cut, nor on what a server tells in between.
    before_end: Vec<u8>,
    moved: bool,
    read_ms: i64,
    /// Events of the next transaction, or of the rest of the open one, that are dropped.
    skip: u64,
    /// Events of the open transaction that were dropped.
    skipped: u64,
    /// Events of the open transaction that left with earlier batches.
    cut_of_open: u64,
}

impl BatchBuilder {
    /// An empty builder. `start` is where the source begins; `events_done` of the first transaction after it were delivered
    /// before and are dropped when they come again.
    pub fn new(limits: Limits, start: Option<&Position>, events_done: u64) -> BatchBuilder {
        BatchBuilder {
            limits,
            arena: Vec::new(),
            slots: Vec::new(),
            transactions: Vec::new(),
            tables: Arc::default(),
            table_names: Vec::new(),
            shapes: Vec::new(),
            names: std::collections::HashMap::new(),
            estimated_bytes: 0,
            open: None,
            spare_open: OpenTransaction::default(),
            committed: 0,
            overflow: None,
            end: start.map_or_else(Vec::new, |p| p.as_json().as_bytes().to_vec()),
            before_end: Vec::new(),
            moved: false,
            read_ms: 0,
            skip: events_done,
            skipped: 0,
            cut_of_open: 0,
        }
    }

    /// Adds a table shape. Shapes are kept for the builder's life: a source adds one when it meets it, not per event. One that is
    /// there already, because the source was opened again, keeps its index.
    pub fn schema(&mut self, schema: Arc<TableSchema>) -> TableIx {
        let next_name = self.names.len() as u32;
        let name = *self.names.entry(schema.name.full().into()).or_insert(next_name);
        if name == next_name {
            self.shapes.push(Vec::new());
        }
        let shapes = &mut self.shapes[name as usize];
        if let Some(known) = shapes.iter().find(|known| self.tables[known.0 as usize] == schema) {
            return *known;
        }
        let table = TableIx(self.tables.len() as u32);
        shapes.push(table);
        self.table_names.push(name);
        Arc::make_mut(&mut self.tables).push(schema);
        table
    }

    /// The shape behind an index.
    pub fn table(&self, table: TableIx) -> &Arc<TableSchema> {
        &self.tables[table.0 as usize]
    }

    /// Sets the time at which what follows was read, Unix milliseconds.
    pub fn read_at(&mut self, unix_ms: i64) {
        self.read_ms = unix_ms;
    }

    /// A transaction begins. `source` writes the source's own fields about it, `fields` of them.
    pub fn begin(&mut self, head: TransactionHead<'_>, fields: u16, source: impl FnOnce(&mut RowWriter<'_>)) {
        debug_assert!(self.open.is_none(), "a transaction begins inside another");
        let mut open = std::mem::take(&mut self.spare_open);
        open.id.clear();
        open.id.extend_from_slice(head.id.as_bytes());
        open.source.clear();
        let mut row = RowWriter::new(&mut open.source, fields);
        source(&mut row);
        row.finish();
        (open.ts_us, open.ts_exact) = (head.ts_us, head.ts_exact);
        open.index = None;
        open.total_order = 0;
        for name in open.touched.drain(..) {
            open.table_orders[name as usize] = 0;
        }
        self.open = Some(open);
    }

    /// An event begins; nothing of it stays unless the writer's `finish` is called.
    #[inline]
    pub fn event(&mut self, op: Op, table: TableIx) -> EventWriter<'_> {
        let start = self.arena.len() as u32;
        let (ts_us, ts_exact) =
            self.open.as_ref().map_or((self.read_ms * 1000, true), |open| (open.ts_us, open.ts_exact));
        let slot = Slot {
            id: EventId::default(),
            op,
            table,
            transaction: NO_TRANSACTION,
            total_order: 0,
            table_order: 0,
            ts_us,
            ts_exact,
            read_ms: self.read_ms,
            start,
            estimated_bytes: 0,
            before: Span::default(),
            after: Span::default(),
            source: Span::default(),
            ddl: Span::default(),
        };
        EventWriter { builder: self, slot, finished: false }
    }

    /// The open transaction ends; `position` writes the JSON of the place right after it.
    pub fn commit(&mut self, position: impl FnOnce(&mut Vec<u8>)) {
        if let Some(open) = self.open.take() {
            self.spare_open = open;
        }
        // What a checkpoint inside a transaction had counted belongs to the first transaction after it, and to no other.
        (self.skip, self.skipped) = (0, 0);
        self.cut_of_open = 0;
        if self.committed == self.slots.len() {
            return self.advance(position);
        }
        self.before_end.clear();
        self.move_to(position);
    }

    /// Everything before the place that `position` writes was read, and no transaction is open.
    pub fn advance(&mut self, position: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(self.open.is_none(), "a place inside a transaction is not a position");
        if !self.slots.is_empty() && self.before_end.is_empty() {
            std::mem::swap(&mut self.before_end, &mut self.end);
        }
        self.move_to(position);
    }

    fn move_to(&mut self, position: impl FnOnce(&mut Vec<u8>)) {
        self.end.clear();
        position(&mut self.end);
        self.committed = self.slots.len();
        self.moved = true;
    }

    /// Whether a part of the open transaction is in an earlier batch.
    pub fn is_inside_cut(&self) -> bool {
        self.open.is_some() && self.cut_of_open > 0
    }

    /// Drops what the source gave of a transaction that has not ended: it is about to be read again, from its start. Its events
    /// in earlier batches come again, too, unless transactions need not be kept whole.
    pub fn rollback(&mut self) {
        self.skip += std::mem::take(&mut self.skipped);
        if !self.limits.respect_source_tx {
            self.skip = self.skip.max(self.cut_of_open);
        }
        self.cut_of_open = 0;
        if let Some(open) = self.open.take() {
            self.spare_open = open;
        }
        if let Some(first) = self.slots.get(self.committed) {
            self.arena.truncate(first.start as usize);
        }
        self.slots.truncate(self.committed);
        let used = self.slots.last().map_or(0, |s| s.transaction.wrapping_add(1) as usize);
        self.transactions.truncate(used);
        self.estimated_bytes = self.slots.iter().map(|s| s.estimated_bytes as usize).sum();
        self.overflow = None;
    }

    /// The next transaction is not the one of which a part was delivered before: nothing of it is dropped.
    pub fn forget_delivered(&mut self) {
        (self.skip, self.skipped, self.cut_of_open) = (0, 0, 0);
    }

    /// True when the source must stop and let the engine cut.
    #[inline]
    pub fn is_full(&self) -> bool {
        let at_limit = self.slots.len() >= self.limits.max_events
            && (self.committed == self.slots.len() || !self.limits.respect_source_tx);
        self.overflow.is_some() || at_limit
    }

    /// True without events.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Number of events waiting for a cut.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.arena.capacity() + self.slots.capacity() * size_of::<Slot>()
    }

    /// Whether a cut would give events: when full always, before that only whole transactions (or anything, when
    /// transactions need not be kept whole).
    pub fn can_cut(&self) -> bool {
        self.is_full() || self.committed > 0 || (!self.limits.respect_source_tx && !self.slots.is_empty())
    }

    /// Where the last whole transaction ended, or the place reached after it.
    pub fn position(&self) -> Option<Position> {
        if self.end.is_empty() { None } else { std::str::from_utf8(&self.end).ok().map(Position::from_json) }
    }

    /// Without waiting events: the place reached since the last cut, once. Events after it that were delivered before stay so.
    pub fn take_advance(&mut self) -> Option<End> {
        if !self.slots.is_empty() || !std::mem::take(&mut self.moved) {
            return None;
        }
        Some(End { position: self.position()?, events_done: self.skip + self.skipped })
    }

    /// Cuts a batch; `None` when there is nothing that may be cut.
    pub fn cut(&mut self) -> Option<Batch> {
        if !self.can_cut() {
            return None;
        }
        let limit = self.overflow.unwrap_or(self.slots.len());
        let at = if self.committed > 0 && (self.limits.respect_source_tx || self.committed >= limit) {
            self.committed
        } else {
            limit
        };
        let end = self.end_of_cut(at);
        let tail = self.split(at);
        if at > self.committed {
            self.cut_of_open = self.slots.last().map_or(0, |s| s.total_order);
        }
        let batch = Batch {
            arena: std::mem::take(&mut self.arena),
            slots: std::mem::take(&mut self.slots),
            transactions: std::mem::take(&mut self.transactions),
            tables: self.tables.clone(),
            end,
            estimated_bytes: self.estimated_bytes,
            texts: SharedTexts::default(),
            beside: false,
        };
        self.moved = !self.before_end.is_empty();
        self.before_end.clear();
        self.committed = 0;
        self.overflow = None;
        self.estimated_bytes = 0;
        if let Some(open) = &mut self.open {
            open.index = None;
        }
        self.carry(tail);
        Some(batch)
    }

    fn end_of_cut(&self, at: usize) -> Option<End> {
        let inside = at > self.committed;
        if (inside && self.limits.respect_source_tx) || self.end.is_empty() {
            return None;
        }
        let events_done = if inside { self.slots[at - 1].total_order } else { 0 };
        let end = if inside || self.before_end.is_empty() { &self.end } else { &self.before_end };
        let position = Position::from_json(std::str::from_utf8(end).ok()?);
        Some(End { position, events_done })
    }

    /// Takes the slots from `at` on and their bytes off the builder.
    fn split(&mut self, at: usize) -> Option<(Vec<Slot>, Vec<u8>, u32)> {
        let start = self.slots.get(at)?.start;
        let slots = self.slots.split_off(at);
        let bytes = self.arena[start as usize..].to_vec();
        self.arena.truncate(start as usize);
        let used = self.slots.last().map_or(0, |s| s.transaction.wrapping_add(1) as usize);
        self.transactions.truncate(used);
        self.estimated_bytes -= slots.iter().map(|s| s.estimated_bytes as usize).sum::<usize>();
        Some((slots, bytes, start))
    }

    /// Puts what `split` took at the front of the empty builder. All of it belongs to the open transaction.
    fn carry(&mut self, tail: Option<(Vec<Slot>, Vec<u8>, u32)>) {
        let Some((slots, bytes, back)) = tail else { return };
        let transaction = self.enter_transaction();
        let forth = self.arena.len() as u32;
        self.arena.extend_from_slice(&bytes);
        for mut slot in slots {
            slot.transaction = transaction;
            slot.start = slot.start - back + forth;
            for span in [&mut slot.before, &mut slot.after, &mut slot.source, &mut slot.ddl] {
                *span = span.moved(back, forth);
            }
            self.note_limits(slot.estimated_bytes as usize);
            self.slots.push(slot);
        }
    }

    /// Index of the open transaction among the batch's, entering it at its first event.
    fn enter_transaction(&mut self) -> u32 {
        let Some(open) = &mut self.open else { return NO_TRANSACTION };
        if let Some(index) = open.index {
            return index;
        }
        let index = self.transactions.len() as u32;
        let id = append(&mut self.arena, &open.id);
        let source = append(&mut self.arena, &open.source);
        self.transactions.push(Transaction { id, source });
        open.index = Some(index);
        index
    }

    /// Counts an event about to be added, and marks it when it is the first above the limits.
    fn note_limits(&mut self, bytes: usize) {
        self.estimated_bytes += bytes;
        let above_bytes = self.estimated_bytes > self.limits.max_bytes && !self.slots.is_empty();
        let above_events = self.slots.len() >= self.limits.max_events;
        if self.overflow.is_none() && (above_bytes || above_events) {
            self.overflow = Some(self.slots.len());
        }
    }

    /// Takes the allocations of a batch that every sink is done with.
    pub fn recycle(&mut self, batch: Batch) {
        let Batch { mut arena, mut slots, mut transactions, .. } = batch;
        if self.slots.is_empty()
            && self.arena.capacity() == 0
            && arena.capacity() <= 4 * self.limits.max_bytes
        {
            arena.clear();
            slots.clear();
            transactions.clear();
            (self.arena, self.slots, self.transactions) = (arena, slots, transactions);
        }
    }
}

fn append(arena: &mut Vec<u8>, bytes: &[u8]) -> Span {
    let start = arena.len() as u32;
    arena.extend_from_slice(bytes);
    Span { start, len: bytes.len() as u32 }
}

/// Bytes of the native envelope beside rows and names: an upper bound for usual names and numbers.
const ENVELOPE_BYTES: u32 = 420;

/// Writes one event into the builder. Dropped unfinished, it leaves nothing behind.
pub struct EventWriter<'a> {
    builder: &'a mut BatchBuilder,
    slot: Slot,
    finished: bool,
}

impl EventWriter<'_> {
    /// Writes the row before the change; columns that `fill` leaves out become `Absent`.
    #[inline]
    pub fn before<E>(
        &mut self,
        columns: usize,
        fill: impl FnOnce(&mut RowWriter<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.slot.before = self.row(columns, fill)?;
        Ok(())
    }

    /// Writes the row after the change; columns that `fill` leaves out become `Absent`.
    #[inline]
    pub fn after<E>(
        &mut self,
        columns: usize,
        fill: impl FnOnce(&mut RowWriter<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.slot.after = self.row(columns, fill)?;
        Ok(())
    }

    /// Writes the source's own fields of the event.
    #[inline]
    pub fn source(&mut self, fields: usize, fill: impl FnOnce(&mut RowWriter<'_>)) {
        let Ok(span) = self.row(fields, |row| {
            fill(row);
            Ok::<(), std::convert::Infallible>(())
        });
        self.slot.source = span;
    }

    /// Sets the `ddl` object, a JSON text.
    pub fn ddl(&mut self, json: &str) {
        self.slot.ddl = append(&mut self.builder.arena, json.as_bytes());
    }

    /// Where the row before lies, for [`RowWriter::put_copy_of`].
    pub fn before_range(&self) -> Range<usize> {
        self.slot.before.range()
    }

    /// Where the row after lies, for [`RowWriter::put_copy_of`].
    pub fn after_range(&self) -> Range<usize> {
        self.slot.after.range()
    }

    #[inline]
    fn row<E>(
        &mut self,
        columns: usize,
        fill: impl FnOnce(&mut RowWriter<'_>) -> Result<(), E>,
    ) -> Result<Span, E> {
        let start = self.builder.arena.len();
        let mut row = RowWriter::new(&mut self.builder.arena, columns as u16);
        fill(&mut row)?;
        row.finish();
        Ok(Span { start: start as u32, len: (self.builder.arena.len() - start) as u32 })
    }

    /// The event is whole.
    #[inline]
    pub fn finish(mut self, id: EventId) {
        let builder = &mut *self.builder;
        let slot = &mut self.slot;
        slot.id = id;
        if let Some(open) = &mut builder.open {
            let name = builder.table_names[slot.table.0 as usize];
            if open.table_orders.len() <= name as usize {
                open.table_orders.resize(name as usize + 1, 0);
            }
            let table_order = &mut open.table_orders[name as usize];
            if *table_order == 0 {
                open.touched.push(name);
            }
            *table_order += 1;
            open.total_order += 1;
            (slot.total_order, slot.table_order) = (open.total_order, *table_order);
        }
        if builder.skip > 0 {
            builder.skip -= 1;
            builder.skipped += 1;
            return; // Delivered before the checkpoint: counted for the orders, erased by Drop.
        }
        let images = u32::from(slot.before.len > 0) + u32::from(slot.after.len > 0);
        let overhead = builder.tables[slot.table.0 as usize].image_overhead;
        slot.estimated_bytes = builder.arena.len() as u32 - slot.start + ENVELOPE_BYTES + images * overhead;
        slot.transaction = builder.enter_transaction();
        builder.note_limits(slot.estimated_bytes as usize);
        builder.slots.push(slot.clone());
        self.finished = true;
    }
}

impl Drop for EventWriter<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.finished {
            self.builder.arena.truncate(self.slot.start as usize);
        }
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
