//! The contract of sources.

use crate::Fault;
use crate::batch::BatchBuilder;
use crate::checkpoint::Checkpoint;
use crate::config::{Fields, Report, RetryPolicy};
use crate::position::{Position, Released};
use crate::schema::SchemaRegistry;
use async_trait::async_trait;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// What a `fill` came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// There may be more at once: the builder is full, or the source has data it has not decoded.
    More,
    /// Everything received is in the builder; a batch may be cut now so that a quiet pipeline is a quick one.
    Idle,
    /// There is nothing further, ever.
    End,
}

/// An open source. One owner, the engine's loop, calls it from one task.
#[async_trait]
pub trait Source: Send {
    /// Adds events until the builder is full or nothing more is there. Waits only while nothing is there.
    ///
    /// **Cancel-safe**: it awaits only channels of its own I/O task and decodes without awaiting, so dropping the future
    /// loses nothing. The I/O task keeps the connection and its keepalives alive whatever the sinks do.
    ///
    /// # Errors
    /// A fault ends this source; the engine closes it and, when the class is `Retry`, opens the plan again from the last
    /// whole transaction it was given. The builder may then hold the beginning of a transaction, which the engine rolls back.
    async fn fill(&mut self, out: &mut BatchBuilder) -> Result<Fill, Fault>;

    /// Waits until the source has broken, reading nothing: awaited while the engine takes no more, because a sink is away or
    /// somebody has paused. Without it a lost connection would go unseen for as long. Cancel-safe.
    async fn broken(&mut self) -> Fault {
        std::future::pending().await
    }

    /// Ends the connection. What was released before is told to the server.
    async fn close(self: Box<Self>);
}

/// What the engine gives a source that opens.
pub struct SourceContext {
    /// `metadata.name`.
    pub pipeline: String,
    /// Where to go on; `None` on the first start ever.
    pub resume: Option<Checkpoint>,
    /// How far the server may be told to forget.
    pub released: Released,
    /// Numbers schemas.
    pub schemas: Arc<dyn SchemaRegistry>,
    /// Where the source reports what it sees.
    pub stats: Arc<SourceStats>,
}

/// An opened source and the place from which it reads.
pub struct Opened {
    /// The source.
    pub source: Box<dyn Source>,
    /// Everything before this place is delivered or was never asked for. The engine saves it before the first batch, so that
    /// a restart does not choose a start anew.
    pub start: Position,
    /// What comes first is what came first after the resumed place before: the log is the same one, in the same order. Otherwise a
    /// transaction of which a part was delivered is delivered again from its start.
    pub same_log: bool,
}

/// A parsed source: settings, no connection.
#[async_trait]
pub trait SourcePlan: Send + Sync {
    /// The source's id: checkpoint key and metric label.
    fn id(&self) -> &str;

    /// What is known of the source without asking a server.
    fn info(&self) -> &SourceInfo;

    /// How lost connections are made again.
    fn retry(&self) -> RetryPolicy;

    /// Read-only probes, each finding with its remedy.
    async fn check(&self) -> Report;

    /// Connects and starts reading.
    ///
    /// # Errors
    /// `Retry` for what may pass, `Config` for what the operator must change, `Lost` when the place is gone.
    async fn open(&self, context: SourceContext) -> Result<Opened, Fault>;

    /// Removes what this program made on the server for this source (a slot, a publication); used by a delete that asks for it.
    async fn remove(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// Whether the source could go on from a place; read-only.
    ///
    /// # Errors
    /// `Lost` when the place is gone; others when the server cannot be asked.
    async fn reach(&self, _position: &Position) -> Result<(), Fault> {
        Ok(())
    }

    /// Orders two of the source's positions; `None` when they belong to different histories or are not its own.
    fn compare(&self, a: &Position, b: &Position) -> Option<Ordering>;

    /// A position as the number that metrics show: a byte offset, a change id. `None` when it is not the source's own.
    fn number(&self, position: &Position) -> Option<u64>;
}

/// Parses one type of source.
pub trait SourceKind: Send + Sync {
    /// The word in `type`.
    fn name(&self) -> &'static str;

    /// One sentence for listings.
    fn summary(&self) -> &'static str;

    /// Reads `config`; findings go to `fields`, and the plan is used only when there are none.
    fn parse(&self, fields: &mut Fields<'_>, names: &Names<'_>) -> Option<Arc<dyn SourcePlan>>;
}

/// Names that defaults are made of.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// `metadata.name`.
    pub pipeline: &'a str,
    /// The id when `config` names none.
    pub default_id: &'a str,
}

/// What envelopes need to know of a source.
#[derive(Clone, Debug)]
pub struct SourceInfo {
    /// `source.connector`.
    pub connector: &'static str,
    /// The source's own members of `source`, in the order in which they are written.
    pub fields: &'static [SourceField],
}

/// One member of `source`.
#[derive(Clone, Copy, Debug)]
pub struct SourceField {
    /// Its name.
    pub name: &'static str,
    /// Where its value is.
    pub scope: Scope,
    /// How it is written.
    pub format: Format,
}

/// Where a source field's value is. `Absent` there leaves the member out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Column of the event's source row.
    Event(usize),
    /// Column of the transaction's source row.
    Transaction(usize),
}

/// How a source field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As any value.
    Plain,
    /// A `Uint` as an LSN text, `0/16B6C50`.
    Lsn,
    /// A list of two `Uint`s as a text that holds a JSON array of two decimal texts.
    DecimalPair,
}

/// A table whose rows are no longer given, because they cannot be told for certain.
#[derive(Clone, Debug)]
pub struct StoppedTable {
    /// Full name.
    pub table: String,
    /// Why, in a sentence.
    pub why: String,
    /// When that was noticed, Unix milliseconds.
    pub at_ms: i64,
}

/// What a source sees, for metrics and status: written by the source, read by anybody, never waited for.
#[derive(Debug, Default)]
pub struct SourceStats {
    /// The source's newest committed change as a number; 0 while unknown.
    pub head: AtomicU64,
    /// What was read and decoded, as a number; 0 while unknown.
    pub received: AtomicU64,
    /// Commit time of what was read last, Unix microseconds; 0 while unknown.
    pub received_ts_us: AtomicI64,
    /// When anything but a heartbeat arrived last, Unix milliseconds; 0 while nothing did.
    pub last_data_ms: AtomicI64,
    /// When anything at all arrived last, heartbeats included, Unix milliseconds.
    pub last_contact_ms: AtomicI64,
    /// Log bytes read.
    pub bytes: AtomicU64,
    /// Transactions with captured changes.
    pub transactions: AtomicU64,
    /// Log bytes that the server keeps for this source; -1 while unknown.
    pub retained_bytes: AtomicI64,
    /// Rows of tables that are not captured, passed over.
    pub skipped_rows: AtomicU64,
    /// Values given in another form than their type's.
    pub value_fallbacks: AtomicU64,
    note: std::sync::Mutex<Option<String>>,
    stopped: std::sync::Mutex<BTreeMap<String, StoppedTable>>,
}

impl SourceStats {
    /// Says in a sentence what the source waits for; shown in the status.
    pub fn note(&self, note: Option<String>) {
        *self.note.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = note;
    }

    /// What the source waits for.
    pub fn current_note(&self) -> Option<String> {
        self.note.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Says that a table's rows are no longer given, and why: shown in the status for as long as it is so.
    pub fn table_stopped(&self, table: &str, why: &str) {
        let mut stopped = self.stopped.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (why, at_ms) = (why.into(), crate::clock::unix_millis());
        stopped.entry(table.into()).or_insert_with(|| StoppedTable { table: table.into(), why, at_ms });
    }

    /// A table's rows are given again.
    pub fn table_resumed(&self, table: &str) {
        self.stopped.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(table);
    }

    /// The stopped tables, by name.
    pub fn stopped_tables(&self) -> Vec<StoppedTable> {
        let stopped = self.stopped.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        stopped.values().cloned().collect()
    }

    /// Notes that data arrived.
    pub fn data_arrived(&self, bytes: u64, now_ms: i64) {
        self.bytes.fetch_add(bytes, Relaxed);
        self.last_data_ms.store(now_ms, Relaxed);
        self.last_contact_ms.store(now_ms, Relaxed);
    }
}
