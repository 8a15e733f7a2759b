//! Dead letters, a file each: `df_dead_letters/<source>/<number>.json`.
//!
//! One file for all would be written anew with every event, 10 000 times over. A file is put in place as every other one
//! here, whole and synced, before anybody hears of it; one that is taken away is gone before anybody hears of that.
//!
//! **A number is never given twice**, also after a purge and a restart: before the entry with the greatest number goes, that
//! number is written to `last`.
//!
//! What is asked of every entry (sink, kind, event, time) is kept in memory, from a source's first use on; events are not.

use super::disk::replace;
use crate::document::Time;
use crate::faults;
use crate::lock::{make_dir, sync_dir};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use deltaforge_core::Fault;
use deltaforge_core::dead_letter::{
    Appended, DeadLetter, DeadLetterPage, DeadLetterQuery, NewDeadLetter, Room, Which,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

const FORMAT: u64 = 1;
const LAST: &str = "last";

/// The letters of every source that was asked about.
pub(super) struct Shelves {
    dir: PathBuf,
    known: HashMap<String, Shelf>,
}

/// The letters of one source.
struct Shelf {
    dir: PathBuf,
    last: u64,
    entries: BTreeMap<u64, Label>,
}

/// What is remembered of an entry.
struct Label {
    sink: String,
    kind: String,
    event_id: String,
    stored_ms: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Letter {
    format: u64,
    id: u64,
    sink: String,
    kind: String,
    message: String,
    attempts: u32,
    event_id: String,
    position: Box<RawValue>,
    stored_at: Time,
    truncated: bool,
    event: Box<RawValue>,
    frozen: String,
}

impl Shelves {
    pub(super) fn new(dir: PathBuf) -> Shelves {
        Shelves { dir, known: HashMap::new() }
    }

    fn shelf(&mut self, source_id: &str) -> Result<&mut Shelf, Fault> {
        if !self.known.contains_key(source_id) {
            let shelf = Shelf::open(self.dir.join(folder(source_id)))?;
            self.known.insert(source_id.to_owned(), shelf);
        }
        self.known.get_mut(source_id).ok_or_else(faults::interrupted)
    }

    pub(super) fn append(
        &mut self,
        source_id: &str,
        entry: NewDeadLetter,
        room: Room,
    ) -> Result<Appended, Fault> {
        let shelf = self.shelf(source_id)?;
        let same = |l: &Label| (&l.sink, &l.event_id) == (&entry.sink, &entry.event_id);
        if let Some((id, _)) = shelf.entries.iter().find(|(_, label)| same(label)) {
            return Ok(Appended::Stored { id: *id, dropped: 0 });
        }
        let above = (shelf.entries.len() as u64 + 1).saturating_sub(room.max_entries);
        if above > 0 && !room.drop_oldest {
            return Ok(Appended::Full);
        }
        let letter = DeadLetter { id: shelf.last + 1, attempts: 1, entry };
        let id = shelf.put(letter)?;
        // After the new one is in place: a full disk must not cost an old one as well.
        let oldest: Vec<_> = shelf.entries.keys().copied().take(above as usize).collect();
        shelf.take_away(&oldest)?;
        Ok(Appended::Stored { id, dropped: above })
    }

    pub(super) fn page(&mut self, source_id: &str, query: &DeadLetterQuery) -> Result<DeadLetterPage, Fault> {
        let shelf = self.shelf(source_id)?;
        let passes = |l: &Label| {
            query.sink.as_ref().is_none_or(|sink| *sink == l.sink)
                && query.kind.as_ref().is_none_or(|kind| *kind == l.kind)
        };
        let passing: Vec<u64> = shelf.entries.iter().filter(|(_, l)| passes(l)).map(|(id, _)| *id).collect();
        let behind: Vec<u64> = passing.iter().copied().filter(|id| *id > query.after).collect();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for id in behind.iter().take(query.limit) {
            let mut letter = shelf.get(*id)?;
            if query.shown_bytes.is_some() {
                letter.entry.frozen = Vec::new();
            }
            let ends = query.ends_behind(&letter.entry, &mut bytes);
            entries.push(letter);
            if ends {
                break;
            }
        }
        let more = behind.len() > entries.len();
        Ok(DeadLetterPage { entries, more, total: passing.len() as u64 })
    }

    pub(super) fn by_id(&mut self, source_id: &str, ids: &[u64]) -> Result<Vec<DeadLetter>, Fault> {
        let shelf = self.shelf(source_id)?;
        shelf.there(ids).into_iter().map(|id| shelf.get(id)).collect()
    }

    pub(super) fn remove(&mut self, source_id: &str, which: &Which) -> Result<u64, Fault> {
        let shelf = self.shelf(source_id)?;
        let ids = match which {
            Which::All => shelf.entries.keys().copied().collect(),
            Which::Ids(ids) => shelf.there(ids),
        };
        shelf.take_away(&ids)
    }

    pub(super) fn count_attempts(&mut self, source_id: &str, ids: &[u64]) -> Result<(), Fault> {
        let shelf = self.shelf(source_id)?;
        for id in shelf.there(ids) {
            let mut letter = shelf.get(id)?;
            letter.attempts = letter.attempts.saturating_add(1);
            shelf.put(letter)?;
        }
        Ok(())
    }

    pub(super) fn trim(&mut self, source_id: &str, before_ms: i64) -> Result<u64, Fault> {
        let shelf = self.shelf(source_id)?;
        let old = shelf.entries.iter().filter(|(_, label)| label.stored_ms < before_ms);
        let old: Vec<_> = old.map(|(id, _)| *id).collect();
        shelf.take_away(&old)
    }

    pub(super) fn count(&mut self, source_id: &str) -> Result<u64, Fault> {
        Ok(self.shelf(source_id)?.entries.len() as u64)
    }

    /// The source is removed.
    pub(super) fn forget(&mut self, source_id: &str) -> Result<(), Fault> {
        self.remove(source_id, &Which::All).map(|_| ())
    }
}

impl Shelf {
    fn open(dir: PathBuf) -> Result<Shelf, Fault> {
        let mut shelf = Shelf { dir, last: 0, entries: BTreeMap::new() };
        let files = match fs::read_dir(&shelf.dir) {
            Ok(files) => files,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(shelf),
            Err(e) => return Err(shelf.unreadable(&e)),
        };
        for file in files {
            let name = file.map_err(|e| shelf.unreadable(&e))?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok()) else {
                continue; // `last`, and what a crash left of a file that was being written.
            };
            let NewDeadLetter { sink, kind, event_id, stored_ms, .. } = shelf.get(id)?.entry;
            shelf.entries.insert(id, Label { sink, kind, event_id, stored_ms });
        }
        let noted = match fs::read_to_string(shelf.dir.join(LAST)) {
            Ok(text) => text.trim().parse().map_err(|e| shelf.damaged(&shelf.dir.join(LAST), e))?,
            Err(e) if e.kind() == ErrorKind::NotFound => 0,
            Err(e) => return Err(shelf.unreadable(&e)),
        };
        shelf.last = shelf.entries.keys().next_back().copied().unwrap_or(0).max(noted);
        Ok(shelf)
    }

    fn path(&self, id: u64) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    fn unreadable(&self, e: &io::Error) -> Fault {
        let dir = self.dir.display();
        Fault::retry("state.unreadable", format!("dead letters cannot be read from {dir}: {e}"))
    }

    fn damaged(&self, path: &Path, why: impl std::fmt::Display) -> Fault {
        let path_shown = path.display();
        faults::corrupt(path, why, &format!("to go on without it: mv {path_shown} {path_shown}.damaged"))
    }

    fn there(&self, ids: &[u64]) -> Vec<u64> {
        self.entries.keys().copied().filter(|id| ids.contains(id)).collect()
    }

    fn get(&self, id: u64) -> Result<DeadLetter, Fault> {
        let path = self.path(id);
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() != ErrorKind::InvalidData => return Err(self.unreadable(&e)),
            read => read.map_err(|e| self.damaged(&path, e))?,
        };
        let letter: Letter = serde_json::from_str(&text).map_err(|e| self.damaged(&path, e))?;
        if letter.format > FORMAT {
            return Err(faults::newer_format(&path, letter.format, FORMAT));
        }
        let frozen = STANDARD.decode(&letter.frozen).map_err(|e| self.damaged(&path, e))?;
        let entry = NewDeadLetter {
            sink: letter.sink,
            kind: letter.kind,
            message: letter.message,
            event_id: letter.event_id,
            position: letter.position.get().to_owned(),
            stored_ms: letter.stored_at.0,
            event: letter.event.get().to_owned(),
            frozen,
            truncated: letter.truncated,
        };
        Ok(DeadLetter { id, attempts: letter.attempts, entry })
    }

    /// Writes an entry, new or changed.
    fn put(&mut self, letter: DeadLetter) -> Result<u64, Fault> {
        let DeadLetter { id, attempts, entry } = letter;
        let raw = |json: &str| {
            RawValue::from_string(json.to_owned()).map_err(|e| Fault::bug("state.encode", e.to_string()))
        };
        let file = Letter {
            format: FORMAT,
            id,
            sink: entry.sink.clone(),
            kind: entry.kind.clone(),
            message: entry.message,
            attempts,
            event_id: entry.event_id.clone(),
            position: raw(&entry.position)?,
            stored_at: Time(entry.stored_ms),
            truncated: entry.truncated,
            event: raw(&entry.event)?,
            frozen: STANDARD.encode(&entry.frozen),
        };
        let text =
            serde_json::to_string_pretty(&file).map_err(|e| Fault::bug("state.encode", e.to_string()))?;
        let path = self.path(id);
        let written = make_dir(&self.dir)
            .and_then(|()| replace(&self.dir, &format!("{id}.json"), &format!("{text}\n")));
        written.map_err(|e| faults::unwritable(&path, &e))?;
        let NewDeadLetter { sink, kind, event_id, stored_ms, .. } = entry;
        self.entries.insert(id, Label { sink, kind, event_id, stored_ms });
        self.last = self.last.max(id);
        Ok(id)
    }

    fn take_away(&mut self, ids: &[u64]) -> Result<u64, Fault> {
        if ids.is_empty() {
            return Ok(0);
        }
        let failed = |dir: &Path, e: io::Error| faults::unwritable(dir, &e);
        if ids.contains(&self.last) {
            replace(&self.dir, LAST, &format!("{}\n", self.last)).map_err(|e| failed(&self.dir, e))?;
        }
        for id in ids {
            match fs::remove_file(self.path(*id)) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(&self.dir, e)),
                _ => self.entries.remove(id),
            };
        }
        sync_dir(&self.dir).map_err(|e| failed(&self.dir, e))?;
        Ok(ids.len() as u64)
    }
}

/// A folder's name: the source id, with what is not a letter, digit, `-`, `_` or a dot inside as `%41`.
fn folder(source_id: &str) -> String {
    let mut name = String::new();
    for byte in source_id.bytes() {
        let plain =
            byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || (byte == b'.' && !name.is_empty());
        if plain { name.push(char::from(byte)) } else { name += &format!("%{byte:02X}") }
    }
    if name.is_empty() { "%".into() } else { name }
}
