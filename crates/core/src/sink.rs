//! The contract of sinks.
//!
//! **Accepted and durable are two facts.** `deliver` returning means accepted: the sink has taken the batch into its window
//! and waiting for that return is the back-pressure. The receipt resolving means durable: this batch *and every one
//! delivered before it* is acknowledged by the target. Receipts resolve in order.

use crate::Fault;
use crate::batch::Batch;
use crate::config::{Fields, Report, RetryPolicy};
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

/// An open sink, owned by its lane.
#[async_trait]
pub trait Sink: Send {
    /// Takes a batch. Batches come in order, one call at a time.
    ///
    /// # Errors
    /// As for [`Receipt`]. A `Data` fault names the event; the batch is not delivered, not even in part where the target can
    /// help it.
    async fn deliver(&mut self, batch: Arc<Batch>, delivery: Delivery) -> Result<Receipt, Fault>;

    /// A sink that stores the position with the data hands back what it holds, at open; the engine resumes from there.
    fn recovered(&self) -> Option<Position> {
        None
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
}

/// A parsed sink: settings, no connection.
#[async_trait]
pub trait SinkPlan: Send + Sync {
    /// The sink's id: metric label.
    fn id(&self) -> &str;

    /// Whether the checkpoint waits for it under the `required` policy.
    fn required(&self) -> bool;

    /// How failed deliveries are tried again.
    fn retry(&self) -> RetryPolicy;

    /// Read-only probes, each finding with its remedy.
    async fn check(&self) -> Report;

    /// Connects.
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
