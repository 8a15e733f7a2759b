//! Events that could not be delivered, kept until somebody decides about them.
//!
//! **Nothing is dropped silently.** A sink that finds an event it can never deliver names it; the event is stored here, durably,
//! before the sink's lane goes on without it. So at every moment each event is delivered, or here, or still to come.
//! Whoever no longer owns the pipeline can store none: an append is conditional on the epoch, like every write of a run.

use crate::Fault;
use crate::position::Epoch;
use async_trait::async_trait;

/// An event to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDeadLetter {
    /// The sink that refused it.
    pub sink: String,
    /// Why, as a word: `encode`, `route`, `too_large`, `rejected`, `processor`, `value`.
    pub kind: String,
    /// Why, as a sentence; never a row's values.
    pub message: String,
    /// The event's id as text.
    pub event_id: String,
    /// The last position before the event, JSON.
    pub position: String,
    /// Unix milliseconds.
    pub stored_ms: i64,
    /// The event in native form, JSON; a JSON text with its beginning when it was cut.
    pub event: String,
    /// [`crate::batch::freeze`]; empty when the event was cut, which makes it one that cannot be delivered again.
    pub frozen: Vec<u8>,
    /// Whether the event was above the limit and is cut.
    pub truncated: bool,
}

/// A stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Number within the source, growing; never given twice.
    pub id: u64,
    /// Attempts to deliver it, the first one included.
    pub attempts: u32,
    /// What was stored.
    pub entry: NewDeadLetter,
}

/// Which entries to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterQuery {
    /// Most entries.
    pub limit: usize,
    /// Only those with a greater id.
    pub after: u64,
    /// Only those of this sink.
    pub sink: Option<String>,
    /// Only those of this kind.
    pub kind: Option<String>,
    /// For showing, not for delivering: [`NewDeadLetter::frozen`] stays empty, and the page ends with the entry that makes its
    /// events longer than so many bytes together.
    pub shown_bytes: Option<usize>,
}

impl DeadLetterQuery {
    /// Whether the page ends behind an entry; `so_far` is what the page's events take, and begins with 0.
    pub fn ends_behind(&self, entry: &NewDeadLetter, so_far: &mut usize) -> bool {
        *so_far = so_far.saturating_add(entry.event.len());
        self.shown_bytes.is_some_and(|most| *so_far > most)
    }

    /// Whether an entry passes sink and kind.
    pub fn passes(&self, entry: &NewDeadLetter) -> bool {
        self.sink.as_ref().is_none_or(|sink| *sink == entry.sink)
            && self.kind.as_ref().is_none_or(|kind| *kind == entry.kind)
    }
}

/// A part of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterPage {
    /// Oldest first.
    pub entries: Vec<DeadLetter>,
    /// Whether there are more behind them.
    pub more: bool,
    /// How many pass the filters, whatever `limit` and `after` are.
    pub total: u64,
}

/// Which entries to take away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// These.
    Ids(Vec<u64>),
    /// Every one.
    All,
}

/// What an append came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Stored; so many of the oldest were dropped for it.
    Stored {
        /// Its number.
        id: u64,
        /// How many of the oldest made room.
        dropped: u64,
    },
    /// Not stored: the queue is full.
    Full,
}

/// What may be in the queue when an entry is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Most entries afterwards.
    pub max_entries: u64,
    /// Make room by dropping the oldest, instead of refusing.
    pub drop_oldest: bool,
}

/// Keeps dead letters, per source id.
#[async_trait]
pub trait DeadLetterStore: Send + Sync {
    /// Stores an entry, durably when it returns, if `epoch` is still the key's owner. An event of the same sink that is
    /// there already, because a crash came between its storing and the checkpoint, is left alone: its number is given.
    ///
    /// # Errors
    /// As [`crate::checkpoint::CheckpointStore::save`].
    async fn append_dead_letter(
        &self,
        source_id: &str,
        entry: NewDeadLetter,
        room: Room,
        epoch: Epoch,
    ) -> Result<Appended, Fault>;

    /// Entries, oldest first.
    async fn dead_letters(&self, source_id: &str, query: &DeadLetterQuery) -> Result<DeadLetterPage, Fault>;

    /// The entries of these numbers that are there, oldest first.
    async fn dead_letters_by_id(&self, source_id: &str, ids: &[u64]) -> Result<Vec<DeadLetter>, Fault>;

    /// Takes entries away; gives how many there were.
    async fn remove_dead_letters(&self, source_id: &str, which: &Which) -> Result<u64, Fault>;

    /// Counts one more attempt for these entries.
    async fn count_attempts(&self, source_id: &str, ids: &[u64]) -> Result<(), Fault>;

    /// Takes away what was stored before a time, Unix milliseconds; gives how many there were.
    async fn trim_dead_letters(&self, source_id: &str, before_ms: i64) -> Result<u64, Fault>;

    /// How many there are.
    async fn count_dead_letters(&self, source_id: &str) -> Result<u64, Fault>;
}
