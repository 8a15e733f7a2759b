//! Events that begin a transaction and name it: of MySQL without and with a tag, of MariaDB; and MariaDB's list of what came
//! before.

use super::control::Xid;
use super::reader::Bytes;
use super::{Malformed, Result};

/// The highest transaction number of MySQL.
const MAX_NUMBER: u64 = i64::MAX as u64 - 1;

/// The identifier of a transaction of MySQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GtidParts<'a> {
    /// UUID of the server that made it, or of a group.
    pub uuid: [u8; 16],
    /// The tag, empty without one, not checked further.
    pub tag: &'a [u8],
    /// 1 to 2^63 - 2.
    pub number: u64,
}

/// A transaction of MySQL begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GtidEvent<'a> {
    /// `None` for a transaction without an identifier.
    pub id: Option<GtidParts<'a>>,
    /// It may hold changes in statement format.
    pub may_hold_statements: bool,
    /// When it was committed on the server that the log is of, Unix microseconds.
    pub committed_us: Option<u64>,
    /// When it was committed on the server that made it, Unix microseconds.
    pub original_committed_us: Option<u64>,
    /// Bytes of all its events, this one included; of a compressed transaction its size in the log.
    pub length: Option<u64>,
}

const MAY_HOLD_STATEMENTS: u8 = 1;

impl<'a> GtidEvent<'a> {
    /// Reads GTID and, with `anonymous`, ANONYMOUS_GTID. Newer servers appended fields from time to time; what is behind the last
    /// known one is left unread.
    pub(super) fn parse(body: &'a [u8], anonymous: bool) -> Result<GtidEvent<'a>> {
        const LOGICAL_CLOCKS: u8 = 2;
        const TIME: &str = "GTID: time of the commit";
        let mut r = Bytes::new(body);
        let flags = r.u8("GTID: flags")?;
        let uuid = r.array("GTID: UUID")?;
        let number = r.u64("GTID: number")?;
        let id = match (anonymous, number) {
            (true, 0) => None,
            (false, 1..=MAX_NUMBER) => Some(GtidParts { uuid, tag: &[], number }),
            _ => return Err(Malformed("GTID: a number out of range")),
        };
        let mut gtid = GtidEvent {
            id,
            may_hold_statements: flags & MAY_HOLD_STATEMENTS != 0,
            committed_us: None,
            original_committed_us: None,
            length: None,
        };
        if r.is_empty() || r.u8("GTID: kind of clocks")? != LOGICAL_CLOCKS {
            return Ok(gtid);
        }
        r.take(16, "GTID: logical clocks")?;
        if !r.is_empty() {
            const TWO_TIMES: u64 = 1 << 55;
            let time = r.u56(TIME)?;
            let committed = time & !TWO_TIMES;
            gtid.committed_us = Some(committed);
            gtid.original_committed_us =
                Some(if time == committed { committed } else { r.u56("GTID: time of the original commit")? });
        }
        if !r.is_empty() {
            gtid.length = Some(r.lenenc("GTID: length of the transaction")?);
        }
        Ok(gtid)
    }

    /// Reads GTID_TAGGED, a message in the format of MySQL's serialization library: numbered fields in growing order, numbers of
    /// variable length, and the number of the last field that a reader must know.
    pub(super) fn tagged(body: &'a [u8]) -> Result<GtidEvent<'a>> {
        const FIELD: &str = "GTID_TAGGED: field";
        let mut r = Bytes::new(body);
        if varlen(&mut r, "GTID_TAGGED: version")? != 1 {
            return Err(Malformed("GTID_TAGGED: an unknown version"));
        }
        let size = varlen(&mut r, "GTID_TAGGED: size")?;
        if size != body.len() as u64 {
            return Err(Malformed("GTID_TAGGED: size"));
        }
        const LAST_KNOWN: u64 = 11;
        // Counted from 1, so that 0 means none.
        if varlen(&mut r, FIELD)? > LAST_KNOWN + 1 {
            return Err(Malformed("GTID_TAGGED: a field that must be known is not"));
        }
        let mut flags = 0;
        let mut id = GtidParts { uuid: [0; 16], tag: &[], number: 0 };
        let (mut committed, mut original, mut length) = (None, None, None);
        let mut next = 0;
        while !r.is_empty() {
            let field = varlen(&mut r, FIELD)?;
            if field < next {
                return Err(Malformed("GTID_TAGGED: fields out of order"));
            }
            next = field.saturating_add(1);
            match field {
                0 => flags = varlen(&mut r, "GTID_TAGGED: flags")?,
                1 => {
                    for byte in &mut id.uuid {
                        *byte = u8::try_from(varlen(&mut r, UUID)?).map_err(|_| Malformed(UUID))?;
                    }
                }
                2 => id.number = signed(&mut r, "GTID_TAGGED: number")?,
                3 => {
                    let length = varlen(&mut r, TAG)?;
                    id.tag = r.take(usize::try_from(length).map_err(|_| Malformed(TAG))?, TAG)?;
                }
                4 | 5 => drop(varlen(&mut r, "GTID_TAGGED: logical clocks")?),
                6 => committed = Some(varlen(&mut r, "GTID_TAGGED: time of the commit")?),
                7 => original = Some(varlen(&mut r, "GTID_TAGGED: time of the original commit")?),
                8 => length = Some(varlen(&mut r, "GTID_TAGGED: length of the transaction")?),
                9..=LAST_KNOWN => drop(varlen(&mut r, FIELD)?),
                // Nothing that must be known; its length is not known either.
                _ => break,
            }
        }
        if next <= 3 || !(1..=MAX_NUMBER).contains(&id.number) {
            return Err(Malformed("GTID_TAGGED: no identifier"));
        }
        Ok(GtidEvent {
            id: Some(id),
            may_hold_statements: flags & u64::from(MAY_HOLD_STATEMENTS) != 0,
            committed_us: committed,
            original_committed_us: original.or(committed),
            length,
        })
    }
}

const UUID: &str = "GTID_TAGGED: UUID";
const TAG: &str = "GTID_TAGGED: tag";

/// An unsigned number of variable length: the trailing ones of its first byte say how many bytes follow; the other bits, from
/// the lowest, are the number. With eight ones all bits are in the eight bytes that follow.
fn varlen(r: &mut Bytes<'_>, what: &'static str) -> Result<u64> {
    let first = r.u8(what)?;
    let more = first.trailing_ones() as usize;
    let upper = r.uint(more, what)?;
    Ok(match more {
        7 | 8 => upper,
        more => upper << (7 - more) | u64::from(first >> (more + 1)),
    })
}

/// A signed number of variable length, which must not be negative: the lowest bit is the sign.
fn signed(r: &mut Bytes<'_>, what: &'static str) -> Result<u64> {
    let number = varlen(r, what)?;
    if number & 1 == 0 { Ok(number >> 1) } else { Err(Malformed(what)) }
}

/// A transaction, or a statement that is one by itself, of MariaDB begins. The server's number is in the event's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MariaGtidEvent<'a> {
    /// Number in the domain.
    pub sequence: u64,
    /// Replication domain.
    pub domain: u32,
    /// The `…` constants of this type.
    pub flags: u8,
    /// Transactions committed together share it.
    pub commit_id: Option<u64>,
    /// With [`PREPARED_XA`](MariaGtidEvent::PREPARED_XA) or [`COMPLETED_XA`](MariaGtidEvent::COMPLETED_XA): which one.
    pub xid: Option<Xid<'a>>,
    /// Which part of an ALTER TABLE that is logged in two (`binlog_alter_two_phase`).
    pub alter: Option<AlterPhase>,
    /// Connection that made the change, from MariaDB 11.5.
    pub thread_id: Option<u32>,
}

/// The parts of an ALTER TABLE logged in two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlterPhase {
    /// It began; nothing has changed yet.
    Start,
    /// It is done; the number is the sequence number of its start.
    Commit(u64),
    /// It failed; nothing has changed.
    Rollback(u64),
}

impl<'a> MariaGtidEvent<'a> {
    /// One statement without an event that commits it.
    pub const STANDALONE: u8 = 1;
    /// Committed together with others.
    pub const GROUP_COMMIT_ID: u8 = 2;
    /// Every table in it can be rolled back.
    pub const TRANSACTIONAL: u8 = 4;
    /// A replica may apply it beside others.
    pub const ALLOW_PARALLEL: u8 = 8;
    /// It waited for a lock.
    pub const WAITED: u8 = 16;
    /// A schema change.
    pub const DDL: u8 = 32;
    /// `XA PREPARE`: its changes are decided later.
    pub const PREPARED_XA: u8 = 64;
    /// `XA COMMIT` or `XA ROLLBACK`.
    pub const COMPLETED_XA: u8 = 128;

    /// Whether one of these flags is set.
    pub fn is(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Reads the body. It is padded with zeros up to 19 bytes, which reads as no further flags.
    pub(super) fn parse(body: &'a [u8]) -> Result<MariaGtidEvent<'a>> {
        const XID: &str = "GTID (MariaDB): identifier of an XA transaction";
        const EXTRA: &str = "GTID (MariaDB): further flags";
        let mut r = Bytes::new(body);
        let mut gtid = MariaGtidEvent {
            sequence: r.u64("GTID (MariaDB): number")?,
            domain: r.u32("GTID (MariaDB): domain")?,
            flags: r.u8("GTID (MariaDB): flags")?,
            commit_id: None,
            xid: None,
            alter: None,
            thread_id: None,
        };
        if gtid.is(Self::GROUP_COMMIT_ID) {
            gtid.commit_id = Some(r.u64("GTID (MariaDB): commit id")?);
        }
        if gtid.is(Self::PREPARED_XA | Self::COMPLETED_XA) {
            let format = r.u32(XID)?;
            let [gtrid, bqual] = r.array(XID)?;
            gtid.xid = Some(Xid::parse(&mut r, format, gtrid.into(), bqual.into(), XID)?);
        }
        if r.is_empty() {
            return Ok(gtid);
        }
        let extra = r.u8(EXTRA)?;
        const ENGINES: u8 = 1;
        const START_ALTER: u8 = 2;
        const COMMIT_ALTER: u8 = 4;
        const ROLLBACK_ALTER: u8 = 8;
        const THREAD_ID: u8 = 16;
        if extra & ENGINES != 0 {
            r.u8(EXTRA)?;
        }
        if extra & START_ALTER != 0 {
            gtid.alter = Some(AlterPhase::Start);
        }
        if extra & (COMMIT_ALTER | ROLLBACK_ALTER) != 0 {
            let start = r.u64("GTID (MariaDB): number of an ALTER's start")?;
            let phase = if extra & COMMIT_ALTER != 0 { AlterPhase::Commit } else { AlterPhase::Rollback };
            gtid.alter = Some(phase(start));
        }
        // Only told about, so no reason to stop.
        if extra & THREAD_ID != 0 && r.len() >= 4 {
            gtid.thread_id = Some(r.u32("GTID (MariaDB): connection")?);
        }
        Ok(gtid)
    }
}

/// MariaDB: the last transactions before a place, for each domain and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GtidList<'a> {
    entries: &'a [u8],
}

/// One of a [`GtidList`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GtidListEntry {
    /// Replication domain.
    pub domain: u32,
    /// Server that made the transaction.
    pub server_id: u32,
    /// Its number in the domain.
    pub sequence: u64,
}

const ENTRY_BYTES: usize = 16;

impl<'a> GtidList<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<GtidList<'a>> {
        /// The upper four bits of the count are flags.
        const COUNT: u32 = (1 << 28) - 1;
        let mut r = Bytes::new(body);
        let count = (r.u32("GTID_LIST: count")? & COUNT) as usize;
        let entries = r.take(count.saturating_mul(ENTRY_BYTES), "GTID_LIST: entries")?;
        // An empty list is padded with two zeros.
        if r.rest().iter().any(|byte| *byte != 0) {
            return Err(Malformed("GTID_LIST: bytes after the entries"));
        }
        Ok(GtidList { entries })
    }

    /// The entries. Those of a domain follow each other, and the last of them is the domain's most recent transaction.
    pub fn entries(&self) -> impl Iterator<Item = GtidListEntry> + use<'a> {
        self.entries.as_chunks::<ENTRY_BYTES>().0.iter().map(|entry| {
            let number = |from: usize| {
                u32::from_le_bytes([entry[from], entry[from + 1], entry[from + 2], entry[from + 3]])
            };
            GtidListEntry {
                domain: number(0),
                server_id: number(4),
                sequence: u64::from(number(8)) | u64::from(number(12)) << 32,
            }
        })
    }
}
