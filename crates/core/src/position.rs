//! Where in a source's log something is, and how far the source may forget.

use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;

/// A place in a source's log: a JSON object made by its connector, human-readable, opaque to everybody else.
///
/// A position is always the end of a transaction. Two positions are compared only by the connector's
/// [`SourceKind::compare`](crate::source::SourceKind::compare), never as text.
#[derive(Clone, PartialEq, Eq)]
pub struct Position(Arc<str>);

impl Position {
    /// Takes the compact JSON text of an object.
    pub fn from_json(text: &str) -> Position {
        debug_assert!(text.starts_with('{'), "a position is a JSON object");
        Position(text.into())
    }

    /// The JSON text.
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a batch ends, as far as a checkpoint is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The end of the last whole transaction.
    pub position: Position,
    /// Events of the transaction after `position` that are part of this batch or of an earlier one; 0 when the batch ends
    /// with a transaction. Other than 0 only with `respect_source_tx: false`.
    pub events_done: u64,
}

/// Number of a batch within one run of a pipeline, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BatchSeq(pub u64);

/// Which owner of a checkpoint this is; the store counts it up each time a pipeline takes the checkpoint over, and refuses
/// saves of an earlier owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// How far the source may tell its server to forget: the last *saved* checkpoint, and nothing later.
///
/// The engine alone moves it, after the store has answered; the source's I/O task reads it whenever it reports to the
/// server. That is invariant I1: released ≤ saved ≤ settled.
#[derive(Clone, Debug)]
pub struct Released(watch::Receiver<Option<Position>>);

impl Released {
    /// The cell and the only handle that moves it.
    pub fn new(saved: Option<Position>) -> (Releaser, Released) {
        let (sender, receiver) = watch::channel(saved);
        (Releaser(sender), Released(receiver))
    }

    /// The last saved position; `None` while nothing was ever saved.
    pub fn get(&self) -> Option<Position> {
        self.0.borrow().clone()
    }

    /// The last saved position, if it has moved since this handle last asked.
    pub fn take_moved(&mut self) -> Option<Position> {
        match self.0.has_changed() {
            Ok(true) => self.0.borrow_and_update().clone(),
            _ => None,
        }
    }
}

/// Moves [`Released`].
#[derive(Debug)]
pub struct Releaser(watch::Sender<Option<Position>>);

impl Releaser {
    /// Publishes a saved position.
    pub fn release(&self, saved: Position) {
        self.0.send_replace(Some(saved));
    }
}
