//! SIGTERM and SIGINT: the first asks for a drain, the second ends the process.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals, caught from the moment this is made.
pub(crate) struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Catches both; until they are awaited they are remembered.
    ///
    /// # Errors
    /// When the system does not let a handler be set.
    pub(crate) fn catch() -> std::io::Result<Signals> {
        Ok(Signals { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next of the two and gives its name. Cancel-safe.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}
