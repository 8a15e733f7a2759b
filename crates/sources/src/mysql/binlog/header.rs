//! The header that every event has, its checksum, and what kinds of events there are.

use super::reader::Bytes;
use super::{Malformed, Result};

/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 19;
/// Length of a checksum in bytes.
pub(super) const CHECKSUM_BYTES: usize = 4;
/// Where the flags lie in the header.
const FLAGS_AT: usize = 17;
/// Largest event of either server, bytes: the largest `max_allowed_packet`.
pub(super) const MAX_EVENT_BYTES: u32 = 1 << 30;

/// Flag of a FORMAT_DESCRIPTION: the file is still written to. Its checksum is that of the event without the flag.
const IN_USE: u16 = 0x01;
/// Flag: made for this connection; it is not in the file.
pub const ARTIFICIAL: u16 = 0x20;
/// Flag: whoever does not know the type may ignore the event.
pub const IGNORABLE: u16 = 0x80;

/// The header of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// When the statement began, seconds since 1970; 0 in some artificial events.
    pub timestamp: u32,
    /// What kind of event it is.
    pub kind: EventType,
    /// Server the event was first made on.
    pub server_id: u32,
    /// Bytes of the event, with header and checksum.
    pub size: u32,
    /// Where the next event begins in the file, modulo 2^32: files may be larger. 0 in artificial events and in those inside a
    /// compressed transaction.
    pub end_pos: u32,
    /// [`ARTIFICIAL`], [`IGNORABLE`] and others.
    pub flags: u16,
}

impl Header {
    /// Reads a header; the event's size is only checked to be possible.
    ///
    /// # Errors
    /// When it is cut off or its size is impossible.
    #[inline]
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Header> {
        let mut r = Bytes::new(bytes);
        let header = Header {
            timestamp: r.u32(SHORT)?,
            kind: EventType::from_byte(r.u8(SHORT)?),
            server_id: r.u32(SHORT)?,
            size: r.u32(SHORT)?,
            end_pos: r.u32(SHORT)?,
            flags: r.u16(SHORT)?,
        };
        if header.size < HEADER_BYTES as u32 || header.size > MAX_EVENT_BYTES {
            return Err(Malformed("an event whose header says an impossible size"));
        }
        Ok(header)
    }

    /// True for an event that the server made for this connection.
    pub fn is_artificial(&self) -> bool {
        self.flags & ARTIFICIAL != 0
    }

    /// True for an event that may be ignored by who does not know its type.
    pub fn is_ignorable(&self) -> bool {
        self.flags & IGNORABLE != 0
    }
}

const SHORT: &str = "an event that is shorter than its header";

/// What ends the events of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Not known yet: the server begins a stream with a ROTATE, before the FORMAT_DESCRIPTION tells, and that ROTATE follows
    /// `@@global.binlog_checksum`, not the file. An event's last four bytes are taken for its checksum if they are that.
    Unknown,
    /// Nothing.
    None,
    /// CRC-32 of the event.
    Crc32,
}

/// Splits a whole event into header and body, and verifies its checksum. `checksum` is what the file's FORMAT_DESCRIPTION says
/// (that event itself says it of itself).
///
/// # Errors
/// When it is too short, its size is not what its header says, or its checksum is wrong.
#[inline]
pub fn split(event: &[u8], checksum: Checksum) -> Result<(Header, &[u8])> {
    let header = Header::parse(event.first_chunk().ok_or(Malformed(SHORT))?)?;
    if header.size as usize != event.len() {
        return Err(Malformed("an event of another size than its header says"));
    }
    let body = &event[HEADER_BYTES..];
    if header.kind == EventType::FormatDescription {
        return Ok((header, described(event, body, header.flags)?));
    }
    let Checksum::None = checksum else {
        return match body.split_last_chunk::<CHECKSUM_BYTES>() {
            Some((body, sum))
                if crc32fast::hash(&event[..HEADER_BYTES + body.len()]).to_le_bytes() == *sum =>
            {
                Ok((header, body))
            }
            _ if checksum == Checksum::Unknown => Ok((header, body)),
            _ => Err(WRONG_SUM),
        };
    };
    Ok((header, body))
}

/// [`split`] for an event whose checksum was found right before: a long one that is read in parts is not summed up for each.
///
/// # Errors
/// As [`split`], but for the checksum.
#[inline]
pub fn split_again(event: &[u8], checksum: Checksum) -> Result<(Header, &[u8])> {
    let (header, body) = split(event, Checksum::None)?;
    match checksum {
        Checksum::Crc32 if header.kind != EventType::FormatDescription => {
            let body = body.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Malformed(SHORT))?.0;
            Ok((header, body))
        }
        Checksum::Unknown => split(event, checksum),
        _ => Ok((header, body)),
    }
}

const WRONG_SUM: Malformed = Malformed("an event whose checksum is wrong");

/// The body of a FORMAT_DESCRIPTION without its checksum, for which there is always room; the byte before it says whether it is
/// one.
fn described<'a>(event: &'a [u8], body: &'a [u8], flags: u16) -> Result<&'a [u8]> {
    const CRC32: u8 = 1;
    let (body, sum) =
        body.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Malformed("FORMAT_DESCRIPTION: too short"))?;
    if body.last() == Some(&CRC32) {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&event[..FLAGS_AT]);
        crc.update(&(flags & !IN_USE).to_le_bytes());
        crc.update(body);
        if crc.finalize().to_le_bytes() != *sum {
            return Err(WRONG_SUM);
        }
    }
    Ok(body)
}

/// Declares [`EventType`] with the way from and to its byte.
macro_rules! event_types {
    ($($name:ident = $byte:literal $text:literal,)*) => {
        /// What kind of event it is: `Log_event_type` of the servers.
        ///
        /// MySQL and MariaDB agree up to 38; MariaDB's own begin at 160.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EventType {
            $(#[doc = concat!($text, ", ", stringify!($byte), ".")] $name,)*
            /// Any other.
            Unknown(u8),
        }

        impl EventType {
            /// The type of this byte.
            #[inline]
            pub fn from_byte(byte: u8) -> EventType {
                match byte {
                    $($byte => EventType::$name,)*
                    byte => EventType::Unknown(byte),
                }
            }

            /// The byte.
            #[inline]
            pub fn byte(self) -> u8 {
                match self {
                    $(EventType::$name => $byte,)*
                    EventType::Unknown(byte) => byte,
                }
            }

            /// The servers' name of it.
            pub fn name(self) -> &'static str {
                match self {
                    $(EventType::$name => $text,)*
                    EventType::Unknown(byte) => super::numbered!("unknown event type ", byte),
                }
            }
        }
    };
}

event_types! {
    Query = 2 "QUERY",
    Stop = 3 "STOP",
    Rotate = 4 "ROTATE",
    IntVar = 5 "INTVAR",
    AppendBlock = 9 "APPEND_BLOCK",
    DeleteFile = 11 "DELETE_FILE",
    Rand = 13 "RAND",
    UserVar = 14 "USER_VAR",
    FormatDescription = 15 "FORMAT_DESCRIPTION",
    Xid = 16 "XID",
    BeginLoadQuery = 17 "BEGIN_LOAD_QUERY",
    ExecuteLoadQuery = 18 "EXECUTE_LOAD_QUERY",
    TableMap = 19 "TABLE_MAP",
    WriteRowsV1 = 23 "WRITE_ROWS_V1",
    UpdateRowsV1 = 24 "UPDATE_ROWS_V1",
    DeleteRowsV1 = 25 "DELETE_ROWS_V1",
    Incident = 26 "INCIDENT",
    Heartbeat = 27 "HEARTBEAT",
    Ignorable = 28 "IGNORABLE",
    RowsQuery = 29 "ROWS_QUERY",
    WriteRows = 30 "WRITE_ROWS",
    UpdateRows = 31 "UPDATE_ROWS",
    DeleteRows = 32 "DELETE_ROWS",
    Gtid = 33 "GTID",
    AnonymousGtid = 34 "ANONYMOUS_GTID",
    PreviousGtids = 35 "PREVIOUS_GTIDS",
    TransactionContext = 36 "TRANSACTION_CONTEXT",
    ViewChange = 37 "VIEW_CHANGE",
    XaPrepare = 38 "XA_PREPARE",
    PartialUpdateRows = 39 "PARTIAL_UPDATE_ROWS",
    TransactionPayload = 40 "TRANSACTION_PAYLOAD",
    HeartbeatV2 = 41 "HEARTBEAT_V2",
    GtidTagged = 42 "GTID_TAGGED",
    AnnotateRows = 160 "ANNOTATE_ROWS",
    BinlogCheckpoint = 161 "BINLOG_CHECKPOINT",
    MariaGtid = 162 "GTID (MariaDB)",
    GtidList = 163 "GTID_LIST",
    StartEncryption = 164 "START_ENCRYPTION",
    QueryCompressed = 165 "QUERY_COMPRESSED",
    WriteRowsCompressedV1 = 166 "WRITE_ROWS_COMPRESSED_V1",
    UpdateRowsCompressedV1 = 167 "UPDATE_ROWS_COMPRESSED_V1",
    DeleteRowsCompressedV1 = 168 "DELETE_ROWS_COMPRESSED_V1",
    WriteRowsCompressed = 169 "WRITE_ROWS_COMPRESSED",
    UpdateRowsCompressed = 170 "UPDATE_ROWS_COMPRESSED",
    DeleteRowsCompressed = 171 "DELETE_ROWS_COMPRESSED",
    PartialRowData = 172 "PARTIAL_ROW_DATA",
}

/// What an event may hold, as far as rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing that changes rows or tables.
    RowFree,
    /// Rows, or the description of a table for them, or a transaction with both.
    Rows,
    /// A statement's text, or a part of what one needs, which may change rows or tables.
    Statement,
    /// The server says that its log is not complete.
    Incident,
    /// Not known here.
    Unknown,
}

impl EventType {
    /// What it may hold. The list is closed: a type that is not in it may hold rows, so only its [`IGNORABLE`] flag lets a
    /// reader go on.
    pub fn role(self) -> Role {
        use EventType::*;
        match self {
            Stop | Rotate | FormatDescription | Xid | Heartbeat | HeartbeatV2 | Ignorable | RowsQuery
            | Gtid | AnonymousGtid | GtidTagged | PreviousGtids | TransactionContext | ViewChange
            | XaPrepare | AnnotateRows | BinlogCheckpoint | MariaGtid | GtidList | StartEncryption => {
                Role::RowFree
            }
            TableMap
            | WriteRowsV1
            | UpdateRowsV1
            | DeleteRowsV1
            | WriteRows
            | UpdateRows
            | DeleteRows
            | PartialUpdateRows
            | TransactionPayload
            | WriteRowsCompressedV1
            | UpdateRowsCompressedV1
            | DeleteRowsCompressedV1
            | WriteRowsCompressed
            | UpdateRowsCompressed
            | DeleteRowsCompressed
            | PartialRowData => Role::Rows,
            Query | QueryCompressed | IntVar | Rand | UserVar | BeginLoadQuery | AppendBlock | DeleteFile
            | ExecuteLoadQuery => Role::Statement,
            Incident => Role::Incident,
            Unknown(_) => Role::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "in a test, a panic with a clear message is how a failure is reported"
    )]

    use super::*;

    fn event(kind: u8, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut out = 1_700_000_000_u32.to_le_bytes().to_vec();
        out.push(kind);
        out.extend(7_u32.to_le_bytes());
        out.extend(((HEADER_BYTES + body.len()) as u32).to_le_bytes());
        out.extend(4711_u32.to_le_bytes());
        out.extend(flags.to_le_bytes());
        out.extend(body);
        out
    }

    fn with_sum(mut event: Vec<u8>) -> Vec<u8> {
        let size = (event.len() + CHECKSUM_BYTES) as u32;
        event[9..13].copy_from_slice(&size.to_le_bytes());
        let sum = crc32fast::hash(&event);
        event.extend(sum.to_le_bytes());
        event
    }

    #[test]
    fn an_event_splits_into_header_and_body() {
        let bytes = event(16, 0x80, b"12345678");
        let (header, body) = split(&bytes, Checksum::None).unwrap();
        let expected = Header {
            timestamp: 1_700_000_000,
            kind: EventType::Xid,
            server_id: 7,
            size: 27,
            end_pos: 4711,
            flags: 0x80,
        };
        assert_eq!((header, body), (expected, &b"12345678"[..]));
        assert!(header.is_ignorable() && !header.is_artificial());
    }

    #[test]
    fn a_checksum_is_verified_and_cut_off() {
        let mut bytes = with_sum(event(16, 0, b"12345678"));
        assert_eq!(split(&bytes, Checksum::Crc32).unwrap().1, b"12345678");
        assert_eq!(split(&bytes, Checksum::Unknown).unwrap().1, b"12345678");
        assert_eq!(split(&bytes, Checksum::None).unwrap().1.len(), 12);
        bytes[22] ^= 1;
        assert_eq!(split(&bytes, Checksum::Crc32), Err(WRONG_SUM));
        assert_eq!(split(&event(16, 0, b"123"), Checksum::Crc32), Err(WRONG_SUM), "no room for one");
        assert_eq!(split(&event(4, ARTIFICIAL, b"12345678"), Checksum::Unknown).unwrap().1, b"12345678");
    }

    #[test]
    fn a_format_description_says_its_own_checksum() {
        let mut summed = with_sum(event(15, 0, b"format\x01"));
        assert_eq!(split(&summed, Checksum::None).unwrap().1, b"format\x01");
        summed[FLAGS_AT] |= IN_USE as u8;
        assert_eq!(split(&summed, Checksum::None).unwrap().1, b"format\x01", "the flag is set later");
        summed[FLAGS_AT] |= 2;
        assert_eq!(split(&summed, Checksum::None), Err(WRONG_SUM));
        let plain = event(15, 0, b"format\0\xaa\xaa\xaa\xaa");
        assert_eq!(split(&plain, Checksum::Crc32).unwrap().1, b"format\0", "room that is not used");
        assert!(split(&event(15, 0, b"abc"), Checksum::None).is_err());
    }

    #[test]
    fn a_size_that_is_not_that_of_the_event_is_refused() {
        let whole = event(16, 0, b"12345678");
        for length in 0..whole.len() {
            assert!(split(&whole[..length], Checksum::None).is_err(), "{length}");
        }
        assert!(split(&[&whole[..], &[0]].concat(), Checksum::None).is_err(), "a byte behind");
        let mut tiny = event(16, 0, b"");
        tiny[9] = 18;
        assert!(split(&tiny[..18], Checksum::None).is_err());
        let mut huge = [0; HEADER_BYTES];
        huge[9..13].copy_from_slice(&(MAX_EVENT_BYTES + 1).to_le_bytes());
        assert!(Header::parse(&huge).is_err());
    }

    #[test]
    fn every_type_has_a_byte_and_a_role_and_unknown_ones_are_named() {
        for byte in 0..=255 {
            let kind = EventType::from_byte(byte);
            assert_eq!(kind.byte(), byte);
            assert_eq!(kind.role() == Role::Unknown, matches!(kind, EventType::Unknown(_)), "{byte}");
        }
        assert_eq!(EventType::from_byte(200).name(), "unknown event type 200");
        assert_eq!(EventType::from_byte(20).role(), Role::Unknown, "rows of MySQL before 5.1.16");
        assert_eq!(
            EventType::from_byte(43).role(),
            Role::Unknown,
            "known to be row-free, but flagged as ignorable"
        );
    }
}
