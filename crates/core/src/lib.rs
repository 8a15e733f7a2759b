//! The data model and the contracts of DeltaForge.
//!
//! Read in this order: a [`value`] is one column, a [`row`] is packed values, a [`batch`] is rows in one
//! arena, a [`schema`] names their columns, a [`position`] says where in the source's log a batch ends.
//! A [`source`] fills batches, a [`sink`] takes them and answers with receipts, a [`checkpoint`] store
//! remembers how far every sink has come. A [`fault`] says what must happen next when something fails.
//!
//! **Invariants, by absence.** This crate opens no socket and no file, reads no environment variable, and
//! no data type of it implements serde: what travels on a wire is made in `encode`, what is stored in
//! `state`, what an API answers in `control`.

pub mod value;

pub mod row;

pub mod batch;

pub mod schema;

pub mod position;

pub mod failpoint;
pub mod fault;

pub mod source;

pub mod sink;

pub mod checkpoint;
/// Events that could not be delivered.
pub mod dead_letter;

pub mod config;

pub mod metrics;

pub mod clock;
pub mod task;

pub use batch::{Batch, BatchBuilder, Event, EventId, Limits, Op};
pub use checkpoint::Checkpoint;
pub use fault::{Class, Fault};
pub use position::{BatchSeq, Epoch, Position, Released};
pub use row::RowRef;
pub use schema::{Column, TableName, TableSchema};
pub use value::Value;
