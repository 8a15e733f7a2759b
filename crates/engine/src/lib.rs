//! Runs pipelines: a batch goes one way, a watermark comes back.
//!
//! Start with [`pipeline`], the one loop; it asks [`progress`], which is pure, and hands batches to a lane per sink (`lane.rs`).
//! [`config`] turns documents into a [`spec::PipelineSpec`], [`supervisor`] keeps the running pipelines, [`handle`] steers
//! one, [`status`] is what it says of itself.
//!
//! **Invariants, by absence.** This crate names no connector, opens no socket or file, and never looks into a position.

pub mod config;
pub mod dead_letters;
pub mod handle;
mod lane;
pub mod memory;
pub mod pipeline;
pub mod progress;
pub mod spec;
pub mod status;
pub mod supervisor;
