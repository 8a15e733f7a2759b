//! What the connectors share.

pub(crate) mod common;
pub(crate) mod relay;
