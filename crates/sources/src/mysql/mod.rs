//! MySQL 8.0 to 9.x and MariaDB 10.5 to 12 by their binary log.
//!
//! ```text
//!  server ── TCP ──► shared/stream.rs ── whole events ──► source.rs: fill() ──► BatchBuilder
//!                     one thread, much at a time,          │ decoder.rs  transactions, places; statements.rs
//!                     never waits for the pipeline         │ binlog/     splits events; unpacks compressed ones
//!                     wire.rs: packets, silence            │ schemas.rs  TABLE_MAP → codecs, by schema/ (shapes, DDL)
//!                                                          ▼ rows.rs     cells, by values/, charset/, json/
//!  server ◄── setup.rs: lock, checks, reachable?        position.rs, gtid/: what was read
//! ```
//!
//! **Why nothing is lost.** A position is the end of a transaction, and a GTID enters the set when its transaction's end was
//! read. Before the log is asked for, what is stored is compared with what the server has executed and purged: what is missing
//! is named, and nothing is skipped. An XA transaction that is prepared and not decided holds positions back (or, with MySQL's
//! GTIDs, is left out of the set), so that it is read again after a restart.
//!
//! **Why values do not land under wrong names.** The log names columns by number. What is known of a table is known as of a
//! place in the log: from the log itself with `binlog_row_metadata=FULL`, else from a history that is kept in the state store
//! and follows the statements in the log. A table whose rows do not agree with that is stopped, and says so.
//!
//! **Why the connection survives a stalled sink.** The thread that owns the socket waits for nobody; the server's own limit for a
//! reader that does not read is raised when the connection is made.
//!
//! Formats: MySQL source documentation, "Replication Protocol" and `mysql::binlog::event`; MariaDB documentation, "Replication
//! Protocol".

pub mod binlog;
pub mod charset;
pub mod gtid;
pub mod json;
pub mod values;

mod check;
mod config;
mod connection;
mod decoder;
mod dsn;
mod dump;
mod error;
mod flavour;
mod login;
mod packet;
mod place;
mod position;
mod quote;
mod rows;
mod rsa_key;
mod schema;
mod schemas;
mod setup;
mod source;
mod statements;
mod wire;
mod xa;

#[cfg(test)]
mod live_tests;

pub use config::{MariaDbKind, MySqlKind};
pub use position::{MySqlPosition, Server};
