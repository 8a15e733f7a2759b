//! What several sources need: bytes to and from a server, and the thread that reads a log without waiting for the pipeline.

pub(crate) mod stream;
pub(crate) mod transport;
