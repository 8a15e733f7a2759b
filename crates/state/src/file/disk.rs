//! The files themselves: read once at open, replaced one by one.

use super::formats::{self, CHECKPOINTS, PIPELINES, SCHEMAS, SCHEMAS_FORMAT, Unreadable};
use crate::book::Book;
use crate::document::FORMAT;
use crate::faults;
use crate::lock::{ProcessLock, make_dir, private, sync_dir};
use crate::serial::Backing;
use deltaforge_core::Fault;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory, and what is in it.
pub(super) struct Disk {
    dir: PathBuf,
    /// What the files say.
    durable: Book,
    working: Book,
    _lock: ProcessLock,
}

impl Disk {
    pub(super) fn open(dir: &Path) -> Result<Disk, Fault> {
        make_dir(dir).map_err(|e| faults::unwritable(dir, &e))?;
        // Before reading: what another process has read and not yet replaced would be out of date.
        let lock = ProcessLock::take(&dir.join(".lock"))?;
        let durable = Book {
            keys: Arc::new(read(dir, CHECKPOINTS, FORMAT, formats::read_checkpoints)?),
            schemas: Arc::new(read(dir, SCHEMAS, SCHEMAS_FORMAT, formats::read_schemas)?),
            documents: Arc::new(read(dir, PIPELINES, FORMAT, formats::read_pipelines)?),
        };
        Ok(Disk { dir: dir.to_owned(), working: durable.clone(), durable, _lock: lock })
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Fault> {
        replace(&self.dir, name, text).map_err(|e| faults::unwritable(&self.dir.join(name), &e))
    }
}

impl Backing for Disk {
    type Work = Book;

    fn begin(&mut self) -> Result<(), Fault> {
        self.working = self.durable.clone();
        Ok(())
    }

    fn work(&mut self) -> &mut Book {
        &mut self.working
    }

    /// Each part is taken over as soon as its file is in place: when a later file fails, the caller hears of the failure
    /// and memory still says what the disk says. Keys come first, see the folder's text.
    fn commit(&mut self) -> Result<(), Fault> {
        if !Arc::ptr_eq(&self.working.keys, &self.durable.keys) {
            self.write(CHECKPOINTS, &formats::checkpoints(&self.working.keys)?)?;
            self.durable.keys = Arc::clone(&self.working.keys);
        }
        if !Arc::ptr_eq(&self.working.schemas, &self.durable.schemas) {
            let old = formats::schemas_format(&self.durable.schemas);
            if formats::schemas_format(&self.working.schemas) > old {
                let kept = keep(&self.dir, SCHEMAS, &format!("{SCHEMAS}.format{old}"));
                kept.map_err(|e| faults::unwritable(&self.dir.join(SCHEMAS), &e))?;
            }
            self.write(SCHEMAS, &formats::schemas(&self.working.schemas)?)?;
            self.durable.schemas = Arc::clone(&self.working.schemas);
        }
        if !Arc::ptr_eq(&self.working.documents, &self.durable.documents) {
            self.write(PIPELINES, &formats::pipelines(&self.working.documents)?)?;
            self.durable.documents = Arc::clone(&self.working.documents);
        }
        Ok(())
    }

    fn view(&self) -> &Book {
        &self.durable
    }
}

/// A file that is missing is empty state; one that is there must be right.
fn read<T: Default>(
    dir: &Path,
    name: &str,
    newest: u64,
    parse: fn(&str) -> Result<T, Unreadable>,
) -> Result<T, Fault> {
    let path = dir.join(name);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(T::default()),
        Err(e) => {
            return Err(Fault::retry(
                "state.unreadable",
                format!("state cannot be read from {}: {e}", path.display()),
            ));
        }
    };
    let parsed = match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text),
        Err(e) => Err(Unreadable::Wrong(e.to_string())),
    };
    parsed.map_err(|unreadable| match unreadable {
        Unreadable::Newer(format) => faults::newer_format(&path, format, newest),
        Unreadable::Wrong(why) => {
            let backup = backup(dir, name);
            let remedy = if backup.exists() {
                format!(
                    "mend it, or put the generation before in its place: mv {} {}",
                    backup.display(),
                    path.display()
                )
            } else {
                format!(
                    "mend it or restore it from a backup; to start without it: mv {0} {0}.damaged",
                    path.display()
                )
            };
            faults::corrupt(&path, why, &remedy)
        }
    })
}

/// Puts a whole new file in the place of the old one, durably.
pub(super) fn replace(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let path = dir.join(name);
    let temporary = dir.join(format!("{name}.tmp"));
    // Left over from a crash; made anew, because an old one keeps its mode and perhaps a tail.
    forget(&temporary)?;
    let mut file = private(OpenOptions::new().write(true).create_new(true)).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    // Before the rename: a name may become durable earlier than the bytes behind it.
    file.sync_all()?;
    drop(file);
    if name == CHECKPOINTS
        && let Err(e) = keep(dir, name, &format!("{name}.bak"))
    {
        // A convenience, which some file systems cannot offer.
        tracing::debug!(path = %path.display(), error = %e, "the previous generation is not kept");
    }
    fs::rename(&temporary, &path)?;
    sync_dir(dir)
}

/// The old file under a second name; at no moment is there no file under the first.
fn keep(dir: &Path, name: &str, second: &str) -> io::Result<()> {
    let path = dir.join(name);
    if !path.exists() {
        return Ok(());
    }
    let link = dir.join(format!("{second}.tmp"));
    forget(&link)?;
    // Not every file system has hard links.
    fs::hard_link(&path, &link)
        .or_else(|_| fs::copy(&path, &link).and_then(|_| File::open(&link)?.sync_all()))?;
    fs::rename(&link, dir.join(second))
}

fn backup(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.bak"))
}

fn forget(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
