//! One open file. Blocking: used off the async threads.

use super::config::Rotation;
use deltaforge_core::clock;
use deltaforge_core::fault::{Fault, Kind};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file that lines are appended to.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    file: File,
    rotation: Rotation,
    /// Length and identity of a regular file; `None` for devices, pipes and sockets, which have no end to cut or rotate.
    regular: Option<Regular>,
    /// Syncing makes no sense for it.
    unsyncable: bool,
}

#[derive(Clone, Copy, Debug)]
struct Regular {
    len: u64,
    device: u64,
    inode: u64,
    born_ms: i64,
}

/// Lines of one batch for one file.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Each ends with a newline.
    pub(super) bytes: Vec<u8>,
    /// Where each line ends; only filled when files are rotated by size.
    pub(super) ends: Vec<usize>,
}

/// Linux' number of `/dev/null`: character device 1, 3.
const NULL_DEVICE: u64 = 0x103;

impl Writer {
    /// Opens a file for appending and makes it, and the directories above it, when they are missing.
    ///
    /// # Errors
    /// `Config` for what rights and settings forbid, `Retry` for a disk that is full or a file that another process writes to.
    pub(super) fn open(path: &Path, rotation: Rotation) -> Result<Writer, Fault> {
        let fail = |e: io::Error| fault(path, "opened", &e);
        let file = open_file(path).map_err(fail)?;
        let found = file.metadata().map_err(fail)?;
        if !found.is_file() {
            let file_type = found.file_type();
            // Pipes and sockets refuse to be synced, character devices have nothing to sync.
            let unsyncable = file_type.is_char_device() || file_type.is_fifo() || file_type.is_socket();
            return Ok(Writer { path: path.into(), file, rotation, regular: None, unsyncable });
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message =
                    format!("{} is being written to by another process or pipeline", path.display());
                return Err(Fault::retry("file.in_use", message).kind(Kind::Target).hint(format!(
                    "give each sink a file of its own; see who has it: fuser {}",
                    path.display()
                )));
            }
            // Some network file systems have no locks.
            Err(TryLockError::Error(e)) => {
                tracing::debug!(path = %path.display(), error = %e, "the file cannot be locked")
            }
        }
        let born_ms =
            found.created().or_else(|_| found.modified()).ok().map_or_else(clock::unix_millis, unix_millis);
        let regular = Regular { len: found.len(), device: found.dev(), inode: found.ino(), born_ms };
        let mut writer =
            Writer { path: path.into(), file, rotation, regular: Some(regular), unsyncable: false };
        writer.cut_torn_line()?;
        Ok(writer)
    }

    /// Whether what is written is thrown away at once: then writing costs less than handing it to another thread.
    pub(super) fn is_null_device(&self) -> bool {
        self.regular.is_none()
            && self.file.metadata().is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == NULL_DEVICE)
    }

    /// Appends lines; rotates before, or between two of them, when it is time.
    ///
    /// # Errors
    /// As for [`open`](Self::open). No part of a line that could not be written stays behind.
    pub(super) fn append(&mut self, lines: &Lines, sync: bool) -> Result<(), Fault> {
        self.follow_the_name()?;
        let mut from = 0;
        while from < lines.bytes.len() {
            if self.is_over_age() {
                self.rotate(sync)?;
            }
            let to = self.fits(lines, from);
            if to > from {
                self.write(&lines.bytes[from..to])?;
                from = to;
            }
            if from < lines.bytes.len() {
                self.rotate(sync)?;
            }
        }
        Ok(())
    }

    /// Makes what was written durable.
    pub(super) fn sync(&mut self) -> Result<(), Fault> {
        if self.unsyncable {
            return Ok(());
        }
        match self.file.sync_data() {
            // What cannot be synced (some special files and file systems) says so in one of these two ways.
            Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
            Err(e) => Err(fault(&self.path, "synced", &e)),
            Ok(()) => Ok(()),
        }
    }

    /// When somebody renamed or removed the file, lines would go where nobody looks: goes on in a new one.
    fn follow_the_name(&mut self) -> Result<(), Fault> {
        let Some(regular) = self.regular else { return Ok(()) };
        let same = std::fs::metadata(&self.path)
            .is_ok_and(|m| m.dev() == regular.device && m.ino() == regular.inode);
        if !same {
            tracing::info!(path = %self.path.display(), "the file was moved or removed by somebody else; going on in a new one");
            *self = Writer::open(&self.path, self.rotation)?;
        }
        Ok(())
    }

    fn is_over_age(&self) -> bool {
        let Some(regular) = self.regular.filter(|r| self.rotation.max_age_secs > 0 && r.len > 0) else {
            return false;
        };
        let limit_ms = i64::try_from(self.rotation.max_age_secs).unwrap_or(i64::MAX).saturating_mul(1000);
        clock::unix_millis().saturating_sub(regular.born_ms) >= limit_ms
    }

    /// Up to where the lines from `from` on go into the present file: whole lines, and at least one into an empty file.
    fn fits(&self, lines: &Lines, from: usize) -> usize {
        let Some(regular) = self.regular.filter(|_| self.rotation.max_bytes > 0) else {
            return lines.bytes.len();
        };
        let room = self.rotation.max_bytes.saturating_sub(regular.len);
        let first = lines.ends.partition_point(|end| *end <= from);
        let after = lines.ends.partition_point(|end| (end.saturating_sub(from)) as u64 <= room);
        let after = if regular.len == 0 { after.max(first + 1) } else { after.max(first) };
        after.checked_sub(1).and_then(|last| lines.ends.get(last)).map_or(from, |end| (*end).max(from))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let result = self.file.write_all(bytes);
        let Some(regular) = &mut self.regular else {
            return result.map_err(|e| fault(&self.path, "written", &e));
        };
        let Err(error) = result else {
            regular.len += bytes.len() as u64;
            return Ok(());
        };
        if let Err(e) = self.file.set_len(regular.len) {
            tracing::error!(path = %self.path.display(), error = %e, "part of a line could not be cut off; it is when the file is opened");
        }
        Err(fault(&self.path, "written", &error))
    }

    /// Puts the file aside as `PATH.<UTC timestamp>-<n>` and begins a new one.
    fn rotate(&mut self, sync: bool) -> Result<(), Fault> {
        if self.regular.is_none() {
            return Ok(());
        }
        if sync {
            self.sync()?;
        }
        let stamp: String = clock::rfc3339_millis(clock::unix_millis())
            .chars()
            .take("2026-01-15T10:30:00".len())
            .filter(|c| !matches!(c, '-' | ':'))
            .collect();
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{stamp}Z-"));
        let aside = |n: u32| {
            let mut name = name.clone();
            name.push(n.to_string());
            PathBuf::from(name)
        };
        let free = (1..=u32::MAX).map(aside).find(|path| !path.exists()).unwrap_or_else(|| aside(0));
        std::fs::rename(&self.path, &free).map_err(|e| fault(&self.path, "rotated", &e))?;
        tracing::info!(path = %free.display(), "put a full or old file aside");
        // Opening makes the new name durable, and with it the old one's.
        *self = Writer::open(&self.path, self.rotation)?;
        if let Some(regular) = &mut self.regular {
            regular.born_ms = clock::unix_millis();
        }
        Ok(())
    }

    /// Cuts off what a crash left of a last line. Only bytes behind the last newline, and only if they may be ours: an
    /// event begins with `{`, and a file system that lost the content of a block shows zeros.
    fn cut_torn_line(&mut self) -> Result<(), Fault> {
        let Some(regular) = self.regular.filter(|r| r.len > 0) else { return Ok(()) };
        let fail = |e: io::Error| fault(&self.path, "read", &e);
        let end = last_line_end(&mut self.file, regular.len).map_err(fail)?;
        let torn = regular.len - end;
        if torn == 0 {
            return Ok(());
        }
        let mut first = [0];
        self.file.seek(SeekFrom::Start(end)).map_err(fail)?;
        self.file.read_exact(&mut first).map_err(fail)?;
        if !matches!(first[0], b'{' | 0) {
            let message =
                format!("{} does not end with a newline, and not with part of an event", self.path.display());
            return Err(Fault::config("file.not_ours", message)
                .kind(Kind::Target)
                .hint("name another file, or end this one with a newline"));
        }
        self.file.set_len(end).map_err(|e| fault(&self.path, "cut", &e))?;
        if let Some(regular) = &mut self.regular {
            regular.len = end;
        }
        tracing::warn!(
            path = %self.path.display(),
            bytes = torn,
            "cut off the beginning of a line that was left by a crash; its event is delivered again"
        );
        Ok(())
    }
}

/// Opens for appending. What is made is made durable: a file whose name is lost in a crash is lost with all its content.
fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Readable, to find a torn line. Others may not read what a table holds.
    options.append(true).mode(0o600);
    if !path.exists() {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let missing = parent.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).count();
        std::fs::create_dir_all(parent)?;
        let file = options.read(true).create(true).open(path)?;
        for made in parent.ancestors().take(missing + 1) {
            let made = if made.as_os_str().is_empty() { Path::new(".") } else { made };
            sync_directory(made)?;
        }
        return Ok(file);
    }
    // A pipe that we could read from would never tell that its reader has gone.
    options.read(std::fs::metadata(path)?.is_file()).open(path)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

/// The place behind the last newline before `len`; 0 when there is none.
fn last_line_end(file: &mut File, len: u64) -> io::Result<u64> {
    let mut block = vec![0; 64 * 1024];
    let mut end = len;
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = memchr::memrchr(b'\n', part) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn unix_millis(time: std::time::SystemTime) -> i64 {
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What an error of the file system means.
pub(super) fn fault(path: &Path, what: &str, error: &io::Error) -> Fault {
    let message = format!("{} cannot be {what}: {error}", path.display());
    let path = path.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Fault::retry("file.disk_full", message)
                .kind(Kind::Target)
                .hint(format!("free space: df -h {path}"))
        }
        ErrorKind::PermissionDenied => {
            Fault::config("file.permission_denied", message).kind(Kind::Auth).hint(format!("ls -ld {path}"))
        }
        ErrorKind::ReadOnlyFilesystem => Fault::config("file.permission_denied", message).kind(Kind::Auth),
        ErrorKind::IsADirectory
        | ErrorKind::NotADirectory
        | ErrorKind::InvalidFilename
        | ErrorKind::AlreadyExists => {
            Fault::config("file.not_a_file", message).kind(Kind::Target).hint("name a file")
        }
        _ => Fault::retry("file.io", message).kind(Kind::Target),
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
