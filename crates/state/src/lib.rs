//! Where a pipeline's state is kept: checkpoints, the schemas its source has met, the pipelines made
//! over the API, and the events that could not be delivered.
//!
//! [`open`] takes the URL of `--state` and gives one [`StateStore`]:
//!
//! | URL | Module | Versions |
//! |---|---|---|
//! | `file:DIR` | `file`: JSON files that a person can read, each replaced as a whole | no |
//! | `sqlite:PATH` | `sqlite`: one database file | the last 100 per key |
//! | `memory:` | `memory`: nothing survives the process | no |
//!
//! **One rule set, two shapes.** What acquiring, saving and removing mean stands in `book`, pure and without I/O; memory
//! and file stores run it as it is, SQLite says the same in SQL, and `tests/contract.rs` runs one suite over all three.
//! How a checkpoint is written down stands in `document`, for all of them.
//!
//! **Never an fsync more than needed.** Calls that arrive while a write is under way wait in `serial` and go into the
//! next write together: twenty pipelines saving at once cost two writes, not twenty.
//!
//! **One process.** A file or SQLite store is locked by the process that opened it (`lock`), so within the process a
//! mutex is all the ordering there is.

mod book;
mod document;
mod faults;
mod file;
mod letters;
mod location;
mod lock;
mod measured;
mod memory;
mod serial;
mod sqlite;

use deltaforge_core::Fault;
use deltaforge_core::checkpoint::StateStore;
pub use location::Location;
pub use measured::measured;
use std::sync::Arc;

/// Opens the store that a URL names: [`Location::parse`], then [`Location::open`].
///
/// # Errors
/// Those of the two. A caller that tells a wrong URL from a store that does not open calls them one by one.
pub fn open(url: &str) -> Result<Arc<dyn StateStore>, Fault> {
    Location::parse(url)?.open()
}
