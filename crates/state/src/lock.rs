//! One process per store.
//!
//! The lock is the kernel's, on an open file: it ends with the process however that ends, so there is no stale lock to
//! clear. The lock file itself stays, empty; it is never the file that holds state, because that one is replaced.

use crate::faults;
use deltaforge_core::Fault;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

/// Held for as long as it lives.
#[derive(Debug)]
pub(crate) struct ProcessLock(File);

impl ProcessLock {
    /// Takes the lock, or says at once who cannot have it.
    pub(crate) fn take(path: &Path) -> Result<ProcessLock, Fault> {
        let file = private(OpenOptions::new().write(true).create(true).truncate(false)).open(path);
        let file = file.map_err(|e| faults::unwritable(path, &e))?;
        match file.try_lock() {
            Ok(()) => Ok(ProcessLock(file)),
            Err(TryLockError::WouldBlock) => Err(Fault::retry(
                "state.locked",
                format!("another process has the state store open: {} is locked", path.display()),
            )
            .hint("stop the other process, or give this one a place of its own with --state")),
            Err(TryLockError::Error(e)) => Err(faults::unwritable(path, &e)),
        }
    }
}

impl Drop for ProcessLock {
    /// Unlocks rather than only closes: a child process that is just being started has the same open file for a moment, and
    /// would keep the lock that long.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Files made with these options are their owner's alone: state holds table shapes and pipeline documents.
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Makes a directory and what is missing above it, durably: a store that vanished in a power cut would be taken for a
/// first start.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    let missing = dir.ancestors().take_while(|a| !a.as_os_str().is_empty() && !a.exists()).count();
    fs::create_dir_all(dir)?;
    dir.ancestors().take(missing).try_for_each(|made| sync_dir(parent(made)))
}

/// The directory that a path stands in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes durable which names a directory holds. On Windows a directory cannot be synced, and need not be.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(dir)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = dir;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_being_started_does_not_keep_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let lock = ProcessLock::take(&path).unwrap();
        let _of_child = lock.0.try_clone().unwrap();
        assert_eq!(ProcessLock::take(&path).unwrap_err().code(), "state.locked");
        drop(lock);
        ProcessLock::take(&path).unwrap();
    }
}
