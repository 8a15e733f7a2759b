//! PostgreSQL 13 to 18 by logical replication with the `pgoutput` plugin.
//!
//! ```text
//!  server ── TCP ──► shared/stream.rs ── whole frames ──► source.rs: fill() ──► BatchBuilder
//!                     │  ▲ one thread, reads in gulps,      │ decoder.rs   messages → events
//!                     │  │ never waits for the pipeline     │ pgoutput.rs  splits messages
//!                     ▼  │ wire.rs: received, saved         ▼ values.rs    text → cell
//!                    server ◄── Released (the saved position)  catalog.rs: names types and keys per relation
//! ```
//!
//! **Why nothing is lost.** The server forgets what it is told is flushed. The thread tells it only [`Released`], which the
//! engine moves after the state store has answered, and `Released` only ever holds the end of a commit, or a place that a
//! keepalive named while everything before it was already in the builder. On connect the stored position is compared with
//! the slot: the server would silently skip forward when the slot is ahead, so that is a fault, not a start.
//!
//! **Why the connection survives a stalled sink.** The thread owns the socket and never waits for the pipeline: with its
//! channel full it stops reading and goes on sending status, which is all that `wal_sender_timeout` looks at.
//!
//! Formats: PostgreSQL manual, "Streaming Replication Protocol", "Logical Streaming Replication Protocol", "Logical
//! Replication Message Formats".
//!
//! [`Released`]: deltaforge_core::Released

mod catalog;
mod check;
mod config;
mod connection;
mod decoder;
mod dsn;
mod error;
mod position;
mod setup;
mod source;
mod wire;

pub mod pgoutput;
pub mod values;

pub use config::PostgresKind;
pub use position::{Lsn, PgPosition};
