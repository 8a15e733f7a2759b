//! What the connectors share.

pub(crate) mod common;
pub(crate) mod held;
pub(crate) mod relay;
