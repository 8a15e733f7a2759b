//! What the tests of DeltaForge share. Development only: no released crate depends on it.
//!
//! DeltaForge claims that nothing is lost while servers stall, restart and vanish. Such a claim is worth what it was
//! tested against, so the tests talk to the real thing:
//!
//! - [`servers`] starts PostgreSQL, MySQL, MariaDB and Redis (alone, as a cluster, behind a sentinel) on private ports,
//!   and a TCP proxy to put in between; each can be frozen, cut off, stopped, killed and brought back, and none outlives its test.
//! - [`ledger`] folds a stream into the tables it adds up to and finds whatever a consumer could complain of.
//! - [`simulation`] runs the engine, alone and in virtual time, where everything that may go wrong does.
//! - [`wait_for`] is how a test waits: for the condition, never for a length of time.
//!
//! A server that cannot be had fails the test with a hint to `./dev.sh setup`. It is never a reason to skip: a skipped
//! proof looks like a proof. MySQL alone is excepted, as no release of Debian holds it: where set-up could not get it,
//! each test that goes without it says `SKIPPED: MySQL …` on the terminal.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "this crate runs inside tests, where a panic with a clear message is how a failure is reported"
)]

pub mod ledger;
pub mod servers;
pub mod simulation;
mod wait;

pub use wait::{wait_for, wait_for_async};
