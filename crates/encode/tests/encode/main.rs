//! Values, envelopes, keys, templates and settings, from rows in a batch to the bytes a sink would send.

// A helper that meets a surprise ends its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod config;
mod envelopes;
mod fixture;
mod frozen;
mod keys;
mod templates;
mod values;
