//! What tables look like at a place of the log.
//!
//! The log names a table's columns by their order. Which names, signs, character sets and labels they have is in the log only
//! with `binlog_row_metadata=FULL`; else it must be known from before, and the catalog describes the present, not the place
//! in the log that is being read. Hence:
//!
//! 1. At the first start every captured table's [`Shape`] is read while metadata locks keep it as it is at the position that
//!    the log is read from (`catalog`), and stored in the schema history with that position.
//! 2. Each statement in the log is classified (`statement`); one that changes a table gives it its next shape, from the
//!    statement's own text where that is understood without doubt (`ddl`).
//! 3. Where it is not, the server is asked again.
//! 4. Before a table's rows are read, what the log says of it must agree with the shape (`agree`); all of it where the log says
//!    all. Where it does not agree, no row is given: a guess would put values under wrong names.

mod agree;
mod catalog;
mod ddl;
mod declared;
mod foreign_keys;
mod lexer;
mod reader;
mod shape;
mod statement;
mod tables;

#[cfg(test)]
mod live_tests;

pub(crate) use agree::{agree, from_metadata};
pub(crate) use catalog::{Listed, collations, database_charsets, defaults, lock_shapes, read_tables};
pub(crate) use ddl::{Defaults, leaves_columns};
pub(crate) use declared::Declared;
pub(crate) use foreign_keys::{ForeignKey, foreign_keys};
pub(crate) use reader::TableRef;
pub(crate) use shape::{Known, Shape, Stopped};
pub(crate) use statement::{ChangeKind, Context, Statement, TableChange, Xid, classify};
pub(crate) use tables::{Held, Tables};

/// The character set that a collation belongs to as servers print it: its name up to the first underscore. The name of a
/// character set gives that character set. Old spellings give the present one.
fn charset_of_collation(collation: &str) -> &str {
    let charset = collation.split('_').next().unwrap_or(collation);
    if charset == "utf8" { "utf8mb3" } else { charset }
}
