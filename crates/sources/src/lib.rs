//! Sources: each reads a database's log and fills batches.
//!
//! A connector is a folder behind [`SourceKind`]; [`kinds`] has one row for each. Sources know neither each other nor the engine.

pub mod mysql;
pub mod postgres;
mod shared;

use deltaforge_core::source::SourceKind;

/// Every source that is built in.
pub fn kinds() -> Vec<&'static dyn SourceKind> {
    vec![&mysql::MySqlKind, &mysql::MariaDbKind, &postgres::PostgresKind]
}

/// Words of the specification for sources that a later release brings.
pub const PLANNED: &[&str] = &["turso", "sqlite", "memory", "managed", "cdc.source"];
