//! The truth: every transaction that the simulated source ever commits, when, and the tables that they add up to.
//!
//! Events are numbered over the whole log from 0. That number is the event's id, the version that its row carries, and
//! what all checks count in: "nothing lost, in order" is then "the numbers follow one another".

use super::plan::{LogTraits, SILENCE};
use super::rng::{Rng, mix};
use deltaforge_core::batch::{EventId, Op};
use deltaforge_core::{Column, Position, TableName, TableSchema};
use std::time::Duration;

/// What each version of a table's shape adds.
const FIRST_COLUMNS: [(&str, &str); 3] = [("id", "bigint"), ("version", "bigint"), ("payload", "text")];
/// Most shapes that a table goes through.
const MAX_SHAPES: u8 = 6;
/// More than any event of the log is ever estimated at.
pub(super) const MAX_EVENT_BYTES: usize = 1600;
/// Longest payload.
const MAX_PAYLOAD: u64 = 220;

/// One event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) op: Op,
    pub(super) table: u8,
    pub(super) shape: u8,
    pub(super) key: u16,
    /// Place in its transaction, from 0.
    pub(super) ordinal: u32,
    /// Place among the transaction's events of the same table, from 1.
    pub(super) table_order: u32,
    /// Its transaction's place in the log.
    pub(super) entry: u32,
}

/// A transaction, or, without events, a place that an idle server tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The place right after it.
    pub(super) lsn: u64,
    /// When it is committed.
    pub(super) at: Duration,
    /// Number of its first event.
    pub(super) first: u64,
    pub(super) count: u32,
}

/// The whole log.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) entries: Vec<Entry>,
    pub(super) changes: Vec<Change>,
    pub(super) tables: u8,
    pub(super) keys: u16,
}

/// The row versions that tables consist of; 0 for a row that is not there.
pub(super) type Tables = Vec<u64>;

impl Log {
    pub(super) fn generate(traits: &LogTraits, rng: &mut Rng) -> Log {
        let mut log = Log {
            entries: Vec::new(),
            changes: Vec::new(),
            tables: rng.range(1, 4) as u8,
            keys: rng.scale(1, 60) as u16,
        };
        let mut making =
            Making { lsn: 0, at: Duration::ZERO, shapes: vec![0; log.tables.into()], rows: log.empty() };
        while (log.changes.len() as u64) < traits.events {
            let burst = rng.scale(1, 40);
            making.at += Duration::from_millis(rng.range(0, traits.gap_ms));
            for _ in 0..burst {
                making.at += if rng.chance(500) { Duration::ZERO } else { rng.millis(0, 20) };
                let left = traits.events.saturating_sub(log.changes.len() as u64).max(1);
                log.grow(&mut making, traits, rng, left);
            }
        }
        // All of it while things fail.
        let (took, most) = (making.at.as_secs_f64(), traits.calm_at.as_secs_f64() * 0.95);
        if took > most {
            log.entries.iter_mut().for_each(|e| e.at = e.at.mul_f64(most / took));
            making.at = making.at.mul_f64(most / took);
        }
        if let Some(from) = traits.silent_from {
            let silence = from..from + SILENCE;
            log.entries.iter_mut().filter(|e| silence.contains(&e.at)).for_each(|e| e.at = from);
        }
        // What comes once all faults have ceased: every engine has something to save then, and an idle place ends the log.
        making.at = making.at.max(traits.calm_at);
        for _ in 0..rng.range(2, 6) {
            making.at += rng.millis(300, 1500);
            log.commit(&mut making, rng, 3);
        }
        making.at += rng.millis(100, 3000);
        log.idle(&mut making, rng);
        log
    }

    fn grow(&mut self, making: &mut Making, traits: &LogTraits, rng: &mut Rng, left: u64) {
        if rng.chance(80) {
            self.idle(making, rng);
        }
        let size = match rng.below(1000) {
            0..750 => rng.range(1, 4),
            750..930 => rng.scale(2, 60),
            930..990 => rng.scale(20, 600),
            _ => rng.range(500, 5000),
        };
        let size = size.min(traits.largest).min(left);
        self.commit(making, rng, size);
    }

    fn idle(&mut self, making: &mut Making, rng: &mut Rng) {
        making.lsn += rng.range(1, 500);
        let first = self.changes.len() as u64;
        self.entries.push(Entry { lsn: making.lsn, at: making.at, first, count: 0 });
    }

    fn commit(&mut self, making: &mut Making, rng: &mut Rng, size: u64) {
        let (first, entry) = (self.changes.len() as u64, self.entries.len() as u32);
        let mut table_orders = [0; 8];
        for ordinal in 0..size as u32 {
            let table = rng.below(self.tables.into()) as u8;
            let key = rng.below(self.keys.into()) as u16;
            let shape = &mut making.shapes[usize::from(table)];
            let alive = making.rows[self.row(table, key)] > 0;
            let op = match rng.below(1000) {
                0..4 => Op::Truncate,
                4..8 if *shape + 1 < MAX_SHAPES => Op::Ddl,
                _ if !alive => Op::Create,
                700.. => Op::Delete,
                _ => Op::Update,
            };
            if op == Op::Ddl {
                *shape += 1;
            }
            let shape = *shape;
            let table_order = &mut table_orders[usize::from(table)];
            *table_order += 1;
            let change = Change { op, table, shape, key, ordinal, table_order: *table_order, entry };
            let index = self.changes.len() as u64;
            self.changes.push(change);
            self.fold(&mut making.rows, index);
        }
        making.lsn += size * rng.range(1, 90);
        self.entries.push(Entry { lsn: making.lsn, at: making.at, first, count: size as u32 });
    }

    /// Tables without rows.
    pub(super) fn empty(&self) -> Tables {
        vec![0; usize::from(self.tables) * usize::from(self.keys)]
    }

    fn row(&self, table: u8, key: u16) -> usize {
        usize::from(table) * usize::from(self.keys) + usize::from(key)
    }

    /// What an event makes of the tables.
    pub(super) fn fold(&self, tables: &mut Tables, index: u64) {
        let change = &self.changes[index as usize];
        let row = self.row(change.table, change.key);
        match change.op {
            Op::Create | Op::Update | Op::Read => tables[row] = index + 1,
            Op::Delete => tables[row] = 0,
            Op::Truncate => {
                let first = self.row(change.table, 0);
                tables[first..first + usize::from(self.keys)].fill(0);
            }
            Op::Ddl => {}
        }
    }

    /// Number of events.
    pub(super) fn len(&self) -> u64 {
        self.changes.len() as u64
    }

    /// The newest place at a time.
    pub(super) fn head(&self, now: Duration) -> u64 {
        let visible = self.entries.partition_point(|e| e.at <= now);
        visible.checked_sub(1).map_or(0, |last| self.entries[last].lsn)
    }

    /// Events committed at a time.
    pub(super) fn visible(&self, now: Duration) -> u64 {
        self.bound(self.head(now)).unwrap_or(0)
    }

    /// How many events lie before a place; `None` when no transaction or idle place ends there.
    pub(super) fn bound(&self, lsn: u64) -> Option<u64> {
        if lsn == 0 {
            return Some(0);
        }
        let at = self.entries.binary_search_by_key(&lsn, |e| e.lsn).ok()?;
        Some(self.entries[at].first + u64::from(self.entries[at].count))
    }

    /// Where reading goes on after a place.
    pub(super) fn after(&self, lsn: u64) -> usize {
        self.entries.partition_point(|e| e.lsn <= lsn)
    }

    /// The last place.
    pub(super) fn last_lsn(&self) -> u64 {
        self.entries.last().map_or(0, |e| e.lsn)
    }

    /// The last place that lies at or before an event's number.
    pub(super) fn last_end_before(&self, bound: u64) -> u64 {
        let ended = self.entries.partition_point(|e| e.first + u64::from(e.count) <= bound);
        ended.checked_sub(1).map_or(0, |last| self.entries[last].lsn)
    }

    /// The transaction of an event.
    pub(super) fn transaction(&self, index: u64) -> &Entry {
        &self.entries[self.changes[index as usize].entry as usize]
    }
}

struct Making {
    lsn: u64,
    at: Duration,
    shapes: Vec<u8>,
    rows: Tables,
}

/// An event's id: its number, and a mark against ids that come from nowhere.
pub(super) fn event_id(index: u64) -> EventId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&index.to_le_bytes());
    id[8..].copy_from_slice(&mix(index).to_le_bytes());
    EventId(id)
}

/// The number in an event's id.
pub(super) fn event_index(id: EventId) -> Option<u64> {
    let index = u64::from_le_bytes(id.0[..8].try_into().ok()?);
    (event_id(index) == id).then_some(index)
}

/// The payload that an event's row carries.
pub(super) fn payload(index: u64) -> &'static str {
    const LETTERS: &str = concat!(
        "the quick brown fox jumps over the lazy dog; the quick brown fox jumps over the lazy dog; ",
        "the quick brown fox jumps over the lazy dog; the quick brown fox jumps over the lazy dog; ",
        "the quick brown fox jumps over the lazy dog; "
    );
    &LETTERS[..(mix(index ^ 0xABCD) % MAX_PAYLOAD) as usize]
}

/// A table's shape after so many schema changes.
pub(super) fn table_schema(table: u8, shape: u8) -> TableSchema {
    let column =
        |name: String, type_name: &str| Column { name, type_name: type_name.into(), nullable: Some(true) };
    let first = FIRST_COLUMNS.iter().map(|(name, type_name)| column((*name).into(), type_name));
    let added = (1..=shape).map(|n| column(format!("added_{n}"), "integer"));
    TableSchema::new(
        TableName::in_schema("sim", "public", &format!("t{table}")),
        first.chain(added).collect(),
        vec![0],
        vec![],
    )
}

/// A place as a position.
pub(super) fn position(lsn: u64) -> Position {
    Position::from_json(&format!("{{\"lsn\":{lsn}}}"))
}

/// The place in a position.
pub(super) fn lsn(position: &Position) -> Option<u64> {
    position.as_json().strip_prefix("{\"lsn\":")?.strip_suffix('}')?.parse().ok()
}
