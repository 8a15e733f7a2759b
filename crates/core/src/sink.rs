//! The contract of sinks.
//!
//! **Accepted and durable are two facts.** `deliver` returning means accepted: the sink has taken the batch into its window
//! and waiting for that return is the back-pressure. The receipt resolving means durable: this batch *and every one
//! delivered before it* is acknowledged by the target. Receipts resolve in order.
//!
//! **Exactly once** is a promise that a sink alone can keep: it stores each batch's end in the same atomic step as the batch's
//! events, and tells what it stored last, which beats what the state store says. Between the step at the target and the
//! save in the store a crash changes nothing then.
//!
//! ```text
//!                      end: none      end: none      end: E₃
//! batches           ┌─ part 1 ─────┬─ part 2 ─────┬─ part 3 ──┐   one transaction of the source above the limits
//! target  open ─────┴── staged ────┴── staged ────┴─ commit {part 1, part 2, part 3, E₃} ───► Held { position: E₃ }
//! ```
//!
//! A batch without an end is staged: its receipt resolves when the target holds it, it takes effect with the first batch that
//! has one. A fault before that throws away what was staged, and the engine reads the transaction again from its start.
//! A target without transactions stores each event for good and says with [`Held::inside`] how far it came.

use crate::Fault;
use crate::batch::{Batch, EventId};
use crate::config::{Fields, Report, RetryPolicy};
use crate::metrics::SinkMetrics;
use crate::position::{BatchSeq, Epoch, Position};
use crate::source::{Names, SourceInfo};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// Resolves when the batch and all before it are durable at the target.
///
/// # Errors
/// After a fault the sink is no longer used: the lane drops it, opens another and delivers again from the first batch that has
/// no resolved receipt. So a hole is never passed, and a target sees at worst a contiguous replay.
pub type Receipt = BoxFuture<'static, Result<Delivered, Fault>>;

/// What a target has acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Payload bytes.
    pub bytes: u64,
}

/// Which delivery this is.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// The batch's number in this run.
    pub seq: BatchSeq,
    /// The pipeline's owner number.
    pub epoch: Epoch,
}

/// What an exactly-once sink's target holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The end of the last batch that is there as a whole.
    pub position: Position,
    /// The last event that is there.
    pub event: EventId,
    /// Of the events behind `position` so many are there as well, `event` being the last of them; 0 where the batch is the
    /// target's transaction. Parts of a source transaction that goes on count on from the first of them.
    pub inside: u64,
}

/// An open sink, owned by its lane.
#[async_trait]
pub trait Sink: Send {
    /// Takes a batch. Batches come in order, one call at a time.
    ///
    /// # Errors
    /// As for [`Receipt`]. A `Data` fault names the event; the batch is not delivered, not even in part where the target can
    /// help it.
    async fn deliver(&mut self, batch: Arc<Batch>, delivery: Delivery) -> Result<Receipt, Fault>;

    /// Of an exactly-once sink: what the target was seen to hold at open; `None` when this sink of this pipeline never wrote
    /// there. A process that stands by opens its sinks, too, so open disturbs nobody, and what is under way may still arrive.
    fn recovered(&self) -> Option<&Held> {
        None
    }

    /// Of an exactly-once sink, called once, before its first delivery: puts to rest whatever an earlier process or connection
    /// of the same sink may still have under way, and tells what the target holds for certain. `from` is where the first batch
    /// begins: what a target without transactions notes as the position behind which its events lie, until a batch is whole.
    ///
    /// # Errors
    /// As for [`Receipt`]. An earlier owner that goes on is answered with a `Fenced` fault at its next delivery.
    async fn take_over(&mut self, _from: &Position) -> Result<Option<Held>, Fault> {
        Ok(None)
    }

    /// Ends the connection; everything accepted is durable or its receipt has failed.
    async fn close(self: Box<Self>);
}

/// What the engine gives a sink that opens.
#[derive(Clone, Debug)]
pub struct SinkContext {
    /// `metadata.name`.
    pub pipeline: String,
    /// `metadata.tenant`.
    pub tenant: String,
    /// The source behind the events.
    pub source: SourceInfo,
    /// Another sink of the pipeline makes the same payloads: [`SinkPlan::encoding`].
    pub shares_encoding: bool,
    /// Where the sink counts what only it sees; none in tests of a sink alone.
    pub metrics: Option<SinkMetrics>,
}

/// A parsed sink: settings, no connection.
#[async_trait]
pub trait SinkPlan: Send + Sync {
    /// The sink's id: metric label.
    fn id(&self) -> &str;

    /// Whether the checkpoint waits for it under the `required` policy.
    fn required(&self) -> bool;

    /// Whether positions are stored with the data. Such a sink is only ever given batches whose ends are ends of transactions
    /// (`events_done` is 0), or that have none.
    fn exactly_once(&self) -> bool {
        false
    }

    /// Of an exactly-once sink: whether a batch without events can store its end. Where positions travel with events it cannot, and
    /// is not given such a batch; nothing lies between.
    fn stores_ends_alone(&self) -> bool {
        true
    }

    /// What its payloads are, in a word; sinks of a pipeline that say the same share the work of making them. `None`: they are
    /// not those of an envelope.
    fn encoding(&self) -> Option<String> {
        None
    }

    /// How failed deliveries are tried again; the default depends on whether the commit policy may wait for the sink.
    fn retry(&self, waited_for: bool) -> RetryPolicy;

    /// Read-only probes, each finding with its remedy.
    async fn check(&self) -> Report;

    /// Connects. An exactly-once sink also reads back what the target holds, disturbing nobody.
    ///
    /// # Errors
    /// `Retry` for what may pass, `Config` for what the operator must change.
    async fn open(&self, context: &SinkContext) -> Result<Box<dyn Sink>, Fault>;
}

/// Parses one type of sink.
pub trait SinkKind: Send + Sync {
    /// The word in `type`.
    fn name(&self) -> &'static str;

    /// One sentence for listings.
    fn summary(&self) -> &'static str;

    /// Keys of `config` that are routing templates: there `${source.table}` is left alone by the expansion of variables and
    /// filled from each event. `$${` stays as written, so that the template's own parser gives `${`, and a variable's
    /// value that holds `${` arrives as `$${`.
    fn templates(&self) -> &'static [&'static str] {
        &["topic", "stream", "subject", "key", "url", "headers", "table", "path"]
    }

    /// Reads `config`; `required` is the flag from beside `type`, if any. Findings go to `fields`, and the plan is used only
    /// when there are none.
    fn parse(
        &self,
        fields: &mut Fields<'_>,
        names: &Names<'_>,
        required: Option<bool>,
    ) -> Option<Arc<dyn SinkPlan>>;
}
