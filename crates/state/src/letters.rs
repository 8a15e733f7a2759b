//! Dead letters of one source in memory: the rules, pure. The memory store keeps them like this.

use deltaforge_core::dead_letter::{
    Appended, DeadLetter, DeadLetterPage, DeadLetterQuery, NewDeadLetter, Room, Which,
};
use std::collections::BTreeMap;

/// The entries of one source by number.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    /// The last number given.
    last: u64,
    entries: BTreeMap<u64, DeadLetter>,
}

impl Letters {
    pub(crate) fn append(&mut self, entry: NewDeadLetter, room: Room) -> Appended {
        let same = |e: &&DeadLetter| (&e.entry.sink, &e.entry.event_id) == (&entry.sink, &entry.event_id);
        if let Some(known) = self.entries.values().find(same) {
            return Appended::Stored { id: known.id, dropped: 0 };
        }
        let above = (self.entries.len() as u64 + 1).saturating_sub(room.max_entries);
        if above > 0 && !room.drop_oldest {
            return Appended::Full;
        }
        for _ in 0..above {
            self.entries.pop_first();
        }
        self.last += 1;
        self.entries.insert(self.last, DeadLetter { id: self.last, attempts: 1, entry });
        Appended::Stored { id: self.last, dropped: above }
    }

    pub(crate) fn page(&self, query: &DeadLetterQuery) -> DeadLetterPage {
        let passing = || self.entries.values().filter(|e| query.passes(&e.entry));
        let mut behind = passing().filter(|e| e.id > query.after);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while entries.len() < query.limit
            && let Some(letter) = behind.next()
        {
            let frozen = if query.shown_bytes.is_some() { Vec::new() } else { letter.entry.frozen.clone() };
            entries.push(DeadLetter { entry: NewDeadLetter { frozen, ..letter.entry.clone() }, ..*letter });
            if query.ends_behind(&letter.entry, &mut bytes) {
                break;
            }
        }
        DeadLetterPage { entries, more: behind.next().is_some(), total: passing().count() as u64 }
    }

    pub(crate) fn by_id(&self, ids: &[u64]) -> Vec<DeadLetter> {
        self.entries.values().filter(|e| ids.contains(&e.id)).cloned().collect()
    }

    pub(crate) fn remove(&mut self, which: &Which) -> u64 {
        let before = self.entries.len();
        match which {
            Which::All => self.entries.clear(),
            Which::Ids(ids) => self.entries.retain(|id, _| !ids.contains(id)),
        }
        (before - self.entries.len()) as u64
    }

    pub(crate) fn count_attempts(&mut self, ids: &[u64]) {
        for id in ids {
            if let Some(letter) = self.entries.get_mut(id) {
                letter.attempts = letter.attempts.saturating_add(1);
            }
        }
    }

    pub(crate) fn trim(&mut self, before_ms: i64) -> u64 {
        let before = self.entries.len();
        self.entries.retain(|_, e| e.entry.stored_ms >= before_ms);
        (before - self.entries.len()) as u64
    }

    pub(crate) fn count(&self) -> u64 {
        self.entries.len() as u64
    }
}
