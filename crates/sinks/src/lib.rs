//! Where events go. Each connector is a folder behind the contract in [`deltaforge_core::sink`]:
//!
//! - [`redis`]: Redis Streams, a batch being one transaction.
//! - [`http`]: requests to a web server, one after the other.
//! - [`kafka`]: Kafka topics, at least once or in transactions that hold the position as well.
//! - [`file`]: JSON lines, synced before they count as delivered.
//! - [`stdout`]: JSON lines on standard output.
//!
//! What they share is in `shared`: the common settings, templates of targets, and the relay that lets one batch be encoded
//! while the one before it is written.

use deltaforge_core::Event;
use deltaforge_core::sink::{SinkContext, SinkKind};
use deltaforge_encode::{Encoder, EnvelopePlan};

pub mod file;
pub mod http;
pub mod kafka;
pub mod redis;
mod shared;
pub mod stdout;

/// Every sink of this release, one row per connector.
pub fn kinds() -> Vec<&'static dyn SinkKind> {
    vec![&redis::RedisKind, &kafka::KafkaKind, &http::HttpKind, &file::FileKind, &stdout::StdoutKind]
}

/// Words of the specification for `type` that a later release builds.
pub const PLANNED: &[&str] = &["nats", "starrocks", "s3", "clickhouse", "postgres"];

/// An event as native JSON, for people to look at. It is asked for of single events only, so an encoder of its own is cheap
/// enough.
pub fn render_event(event: &Event<'_>, context: &SinkContext) -> Vec<u8> {
    let mut out = Vec::new();
    // What sinks share is made for whole batches.
    let context = SinkContext { shares_encoding: false, ..context.clone() };
    Encoder::new(&EnvelopePlan::default(), &context).event(event, &mut out);
    out
}
