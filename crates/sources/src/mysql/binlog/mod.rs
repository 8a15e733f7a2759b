//! The events of the binary log, split but not interpreted. Pure: bytes in, borrowed parts out.
//!
//! ```text
//!  packet ── header::split ──► Header + body ── decode ──► Event
//!                                                 TableMap   columns; metadata.rs: names, charsets, labels, keys
//!                                                 Rows       rows.rs: which columns an image has, which are NULL
//!                                                 Payload    payload.rs: a compressed transaction, event by event
//!                                                 Query …    query.rs, gtid.rs, control.rs
//! ```
//!
//! Cells are read elsewhere, from the cursor that an image leaves at its first one. Every length is checked against what is
//! there before it is used, and what an event leaves unread is an error.
//!
//! Formats: MySQL source documentation, "mysql::binlog::event" (`libs/mysql/binlog/event`, 8.0 to 9.x) and "MySQL Serialization
//! Library"; MariaDB manual, "Replication Protocol", and `sql/log_event.h`.

mod column;
mod control;
mod gtid;
pub mod header;
mod inflate;
mod metadata;
mod payload;
mod query;
pub mod reader;
mod rows;
mod table_map;

#[cfg(test)]
mod tests;

pub use column::{Column, ColumnType};
pub use control::{Format, FormatDescription, Heartbeat, Incident, Rotate, XaPrepare, Xid};
pub use gtid::{AlterPhase, GtidEvent, GtidList, GtidListEntry, GtidParts, MariaGtidEvent};
pub use header::{Checksum, EventType, Header, Role};
pub use inflate::Inflater;
pub use metadata::{ColumnMetadata, KeyPart, Metadata};
pub use payload::{Payload, Unpacker};
pub use query::{Query, Settings};
pub use rows::{Change, Image, Images, Rows, Slot};
pub use table_map::TableMap;

use reader::Bytes;
use std::fmt;

/// Why an event cannot be decoded. Holds no row's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// Columns that a table of either server may have at most.
const MAX_COLUMNS: usize = 4096;

/// What a decoder gives.
pub type Result<T> = std::result::Result<T, Malformed>;

/// A static text that ends in the number of a byte: [`Malformed`] holds no other kind.
macro_rules! numbered {
    ($text:literal, $byte:expr) => {{
        const LENGTH: usize = $text.len() + 3;
        static TEXTS: [[u8; LENGTH]; 256] = $crate::mysql::binlog::texts($text);
        let byte: u8 = $byte;
        let digits = 1 + usize::from(byte > 9) + usize::from(byte > 99);
        std::str::from_utf8(&TEXTS[usize::from(byte)][..$text.len() + digits]).unwrap_or($text)
    }};
}
use numbered;

/// `text` and each byte's number.
const fn texts<const N: usize>(text: &str) -> [[u8; N]; 256] {
    let mut out = [[b' '; N]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut i = 0;
        while i < text.len() {
            out[byte][i] = text.as_bytes()[i];
            i += 1;
        }
        let mut divisor = if byte > 99 {
            100
        } else if byte > 9 {
            10
        } else {
            1
        };
        while divisor > 0 {
            out[byte][i] = b'0' + (byte / divisor % 10) as u8;
            divisor /= 10;
            i += 1;
        }
        byte += 1;
    }
    out
}

/// An event, split.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// How the following events of the file are written.
    FormatDescription(FormatDescription<'a>),
    /// The log goes on in another file.
    Rotate(Rotate<'a>),
    /// The server is alive.
    Heartbeat(Heartbeat<'a>),
    /// The server stopped, or began a new file after a crash.
    Stop,
    /// A transaction of MySQL begins.
    Gtid(GtidEvent<'a>),
    /// A transaction of MariaDB begins.
    MariaGtid(MariaGtidEvent<'a>),
    /// MySQL: the transactions before this file, in the binary form of GTID sets.
    PreviousGtids(&'a [u8]),
    /// MariaDB: the last transactions before this place.
    GtidList(GtidList<'a>),
    /// A statement.
    Query(Query<'a>),
    /// A statement of MariaDB whose text is still to be [inflated](Inflater).
    QueryCompressed(Query<'a>),
    /// The text of the statement whose rows follow.
    RowsQuery(&'a [u8]),
    /// The table that the following rows belong to.
    TableMap(TableMap<'a>),
    /// Rows.
    Rows(Rows<'a>),
    /// A whole transaction.
    Payload(Payload<'a>),
    /// The transaction is committed; the storage engine's number of it.
    Xid(u64),
    /// The XA transaction is prepared, or committed in one phase.
    XaPrepare(XaPrepare<'a>),
    /// `LOAD DATA` logged as a statement: it changed rows that the log does not have.
    LoadData(Query<'a>),
    /// Something that a statement in the log needs to be run again: it is part of a change logged as a statement.
    StatementPart(EventType),
    /// Changes may be missing from the log.
    Incident(Incident<'a>),
    /// Nothing that concerns rows or tables.
    RowFree(EventType),
    /// Of an unknown type, but marked as of no harm to who does not know it.
    Ignored(EventType),
    /// Of a type that may hold rows and cannot be decoded.
    Undecodable(EventType),
}

/// Splits an event's body. `format` is that of the file; of a FORMAT_DESCRIPTION it does not matter.
///
/// # Errors
/// When it is cut off, or not as its type is written.
#[inline]
pub fn decode<'a>(header: &Header, body: &'a [u8], format: Format) -> Result<Event<'a>> {
    use EventType as T;
    if let Some(rows) = Rows::parse(header.kind, body)? {
        return Ok(Event::Rows(rows));
    }
    Ok(match header.kind {
        T::TableMap => Event::TableMap(TableMap::parse(body, format)?),
        T::Gtid => Event::Gtid(GtidEvent::parse(body, false)?),
        T::AnonymousGtid => Event::Gtid(GtidEvent::parse(body, true)?),
        T::GtidTagged => Event::Gtid(GtidEvent::tagged(body)?),
        T::MariaGtid => Event::MariaGtid(MariaGtidEvent::parse(body)?),
        T::Query => Event::Query(Query::parse(body, false)?),
        T::QueryCompressed => Event::QueryCompressed(Query::parse(body, false)?),
        T::Xid => Event::Xid(Bytes::new(body).u64("XID: number")?),
        T::XaPrepare => Event::XaPrepare(XaPrepare::parse(body)?),
        T::TransactionPayload => Event::Payload(Payload::parse(body)?),
        T::FormatDescription => Event::FormatDescription(FormatDescription::parse(body)?),
        T::Rotate => Event::Rotate(Rotate::parse(body)?),
        T::Heartbeat => Event::Heartbeat(Heartbeat::old(body, header.end_pos)?),
        T::HeartbeatV2 => Event::Heartbeat(Heartbeat::parse(body)?),
        T::Stop => Event::Stop,
        T::PreviousGtids => Event::PreviousGtids(body),
        T::GtidList => Event::GtidList(GtidList::parse(body)?),
        T::AnnotateRows => Event::RowsQuery(body),
        T::RowsQuery => {
            // A length of one byte that is of no use for a longer text.
            let (_, text) = body.split_first().ok_or(Malformed("ROWS_QUERY: length"))?;
            Event::RowsQuery(text)
        }
        T::ExecuteLoadQuery => Event::LoadData(Query::parse(body, true)?),
        T::Incident => Event::Incident(Incident::parse(body)?),
        // MariaDB 12.3 writes very large rows in parts, PARTIAL_ROW_DATA: told by name, not decoded.
        kind => match kind.role() {
            Role::RowFree => Event::RowFree(kind),
            Role::Statement => Event::StatementPart(kind),
            Role::Unknown if header.is_ignorable() => Event::Ignored(kind),
            Role::Rows | Role::Incident | Role::Unknown => Event::Undecodable(kind),
        },
    })
}
