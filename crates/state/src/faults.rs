//! The faults of state stores, so that each reads the same whichever store it comes from.

use deltaforge_core::fault::{Class, Fault, Kind};
use std::io;
use std::path::Path;

/// Another owner has the key, or nobody.
pub(crate) fn fenced(source_id: &str) -> Fault {
    Fault::new(
        Class::Fenced,
        "state.fenced",
        format!("this run no longer owns the checkpoint `{source_id}`: another run took it over, or it was rolled back or removed"),
    )
    .hint("run one pipeline per source id and store; after a rollback or a removal start the pipeline again")
}

/// A pipeline asks for another pipeline's key. `rename` is what to do if it is the same pipeline under a new name.
pub(crate) fn key_conflict(source_id: &str, owner: &str, asks: &str, rename: &str) -> Fault {
    Fault::config(
        "state.key_conflict",
        format!("the checkpoint `{source_id}` belongs to pipeline `{owner}`; pipeline `{asks}` has a source of the same id"),
    )
    .hint(format!("give the source of `{asks}` another id; or, if `{owner}` was renamed to `{asks}`: {rename}"))
}

/// The disk does not do what it was asked.
pub(crate) fn unwritable(path: &Path, error: &io::Error) -> Fault {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let path = path.display();
    let fault =
        |why: &str| Fault::retry("state.unwritable", format!("state cannot be kept in {path}: {why}"));
    match error.kind() {
        StorageFull => disk_full(&path),
        QuotaExceeded => fault("the disk quota is used up")
            .hint("raise the quota or free space; delivery goes on by itself"),
        PermissionDenied | ReadOnlyFilesystem => {
            fault(&error.to_string()).hint(format!("make {path} writable for the user that runs deltaforge"))
        }
        _ => fault(&error.to_string()),
    }
    .kind(Kind::Target)
}

/// No space left.
pub(crate) fn disk_full(path: &dyn std::fmt::Display) -> Fault {
    Fault::retry("state.unwritable", format!("state cannot be kept in {path}: the disk is full"))
        .hint("free space on that disk; delivery goes on by itself")
}

/// Stored state that does not parse. `instead` says how to go on.
pub(crate) fn corrupt(path: &Path, why: impl std::fmt::Display, instead: &str) -> Fault {
    let path = path.display();
    Fault::config(
        "state.corrupt",
        format!("{path} is left as it is, because it does not read as state: {why}"),
    )
    .hint(instead)
}

/// State that a newer release wrote.
pub(crate) fn newer_format(path: &Path, format: u64, known: u64) -> Fault {
    Fault::config(
        "state.newer_format",
        format!(
            "{} has format {format}, written by a newer release; this one knows up to {known}",
            path.display()
        ),
    )
    .hint("run the newer release, or give this one another place with --state")
}

/// The position is not what its connector promised.
pub(crate) fn bad_position(why: &str) -> Fault {
    Fault::bug("state.bad_position", format!("a position cannot be stored: {why}"))
}

/// The blocking task that did the work is gone.
pub(crate) fn interrupted() -> Fault {
    Fault::bug("state.interrupted", "a call of the state store ended without an answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_called_that() {
        const ENOSPC: i32 = 28;
        let fault = unwritable(Path::new("/data/x"), &io::Error::from_raw_os_error(ENOSPC));
        assert!(fault.is_retry());
        assert_eq!(fault.code(), "state.unwritable");
        assert!(
            fault.message().contains("/data/x") && fault.message().contains("the disk is full"),
            "{fault}"
        );
    }
}
