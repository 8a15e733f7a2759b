//! Events about the log itself and about transactions: FORMAT_DESCRIPTION, ROTATE, HEARTBEAT, XID, XA_PREPARE, INCIDENT.

use super::header::Checksum;
use super::reader::Bytes;
use super::{Malformed, Result};

/// Longest name of a log file in bytes, `FN_REFLEN`.
const MAX_FILE_NAME: usize = 512;

/// How the events of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// What ends each event.
    pub checksum: Checksum,
    /// Written by MariaDB. Its optional metadata counts columns in another way than that of MySQL.
    pub mariadb: bool,
}

/// The first event of a file: how the following are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatDescription<'a> {
    /// The server's version, `9.7.0` or `10.11.6-MariaDB-log`.
    pub server_version: &'a str,
    /// What the decoder needs of it.
    pub format: Format,
}

impl<'a> FormatDescription<'a> {
    /// Reads the body, which ends in the number of the checksum's algorithm.
    ///
    /// # Errors
    /// When it is cut off or describes events of another layout than all servers from MySQL 5.6 and MariaDB 10.0 write.
    pub fn parse(body: &'a [u8]) -> Result<FormatDescription<'a>> {
        let mut r = Bytes::new(body);
        if r.u16("FORMAT_DESCRIPTION: version of the log")? != 4 {
            return Err(Malformed("FORMAT_DESCRIPTION: a log of another version than 4"));
        }
        let version = r.take(50, "FORMAT_DESCRIPTION: version of the server")?;
        let server_version = text(Bytes::new(version).until_zero(VERSION).unwrap_or(version), VERSION)?;
        r.take(4, "FORMAT_DESCRIPTION: time")?;
        if r.u8("FORMAT_DESCRIPTION: length of the header")? != 19 {
            return Err(Malformed("FORMAT_DESCRIPTION: headers of another length than 19"));
        }
        let (algorithm, lengths) = r.rest().split_last().ok_or(Malformed("FORMAT_DESCRIPTION: checksum"))?;
        let checksum = match algorithm {
            0 => Checksum::None,
            1 => Checksum::Crc32,
            _ => return Err(Malformed("FORMAT_DESCRIPTION: an unknown kind of checksum")),
        };
        if !POST_HEADERS.iter().all(|(kind, length)| {
            matches!(lengths.get(kind - 1), None | Some(0)) || lengths.get(kind - 1) == Some(length)
        }) {
            return Err(Malformed("FORMAT_DESCRIPTION: events of another layout"));
        }
        // Only MariaDB has types so high.
        let mariadb = lengths.len() >= 162;
        Ok(FormatDescription { server_version, format: Format { checksum, mariadb } })
    }
}

const VERSION: &str = "FORMAT_DESCRIPTION: version of the server";

/// The fixed parts that the decoder relies on: event type and length. MySQL 8.4 writes 0 for types that it no longer makes, and a
/// wrong number for TRANSACTION_PAYLOAD, which has none.
const POST_HEADERS: &[(usize, u8)] = &[
    (2, 13),
    (4, 8),
    (18, 26),
    (19, 8),
    (23, 8),
    (24, 8),
    (25, 8),
    (26, 2),
    (30, 10),
    (31, 10),
    (32, 10),
    (39, 10),
    (162, 19),
    (163, 4),
    (165, 13),
    (166, 8),
    (167, 8),
    (168, 8),
    (169, 10),
    (170, 10),
    (171, 10),
];

/// The log goes on in another file; also sent at the start of a stream, to say which file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotate<'a> {
    /// Where in the file.
    pub position: u64,
    /// The file's name.
    pub file: &'a str,
}

impl<'a> Rotate<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Rotate<'a>> {
        let mut r = Bytes::new(body);
        Ok(Rotate { position: r.u64("ROTATE: position")?, file: file(r.rest(), "ROTATE: name of the file")? })
    }
}

/// The server has sent everything before this place and is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat<'a> {
    /// File the server reads.
    pub file: &'a str,
    /// Where it will go on; modulo 2^32 in the old kind of heartbeat, 27.
    pub position: u64,
}

impl<'a> Heartbeat<'a> {
    /// The old kind: the header's `end_pos` is the place.
    pub(super) fn old(body: &'a [u8], end_pos: u32) -> Result<Heartbeat<'a>> {
        Ok(Heartbeat { file: file(body, "HEARTBEAT: name of the file")?, position: u64::from(end_pos) })
    }

    /// The new kind: numbered fields, each with its length.
    pub(super) fn parse(body: &'a [u8]) -> Result<Heartbeat<'a>> {
        const FILE: &str = "HEARTBEAT_V2: name of the file";
        const POSITION: &str = "HEARTBEAT_V2: position";
        const FIELD: &str = "HEARTBEAT_V2: field";
        let mut r = Bytes::new(body);
        let (mut name, mut position) = (None, None);
        loop {
            match r.lenenc(FIELD)? {
                0 => break,
                1 => name = Some(file(r.lenenc_bytes(FILE)?, FILE)?),
                2 => {
                    let mut value = Bytes::new(r.lenenc_bytes(POSITION)?);
                    position = Some(value.lenenc(POSITION)?);
                    value.end(POSITION)?;
                }
                _ => drop(r.lenenc_bytes(FIELD)?),
            }
        }
        match (name, position) {
            (Some(file), Some(position)) => Ok(Heartbeat { file, position }),
            _ => Err(Malformed("HEARTBEAT_V2: no place")),
        }
    }
}

/// Identifier of an XA transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xid<'a> {
    /// Format.
    pub format: u32,
    /// Global part, at most 64 bytes.
    pub gtrid: &'a [u8],
    /// Branch, at most 64 bytes.
    pub bqual: &'a [u8],
}

impl<'a> Xid<'a> {
    pub(super) fn parse(
        r: &mut Bytes<'a>,
        format: u32,
        gtrid: u32,
        bqual: u32,
        what: &'static str,
    ) -> Result<Xid<'a>> {
        if gtrid > 64 || bqual > 64 {
            return Err(Malformed(what));
        }
        Ok(Xid { format, gtrid: r.take(gtrid as usize, what)?, bqual: r.take(bqual as usize, what)? })
    }
}

/// An XA transaction is prepared, or committed in one phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XaPrepare<'a> {
    /// `XA COMMIT … ONE PHASE`: it is committed.
    pub one_phase: bool,
    /// Which one.
    pub xid: Xid<'a>,
}

impl<'a> XaPrepare<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<XaPrepare<'a>> {
        const XID: &str = "XA_PREPARE: identifier";
        let mut r = Bytes::new(body);
        let one_phase = r.u8("XA_PREPARE: one phase")? != 0;
        let (format, gtrid, bqual) = (r.u32(XID)?, r.u32(XID)?, r.u32(XID)?);
        let xid = Xid::parse(&mut r, format, gtrid, bqual, XID)?;
        r.end("XA_PREPARE: bytes after the identifier")?;
        Ok(XaPrepare { one_phase, xid })
    }
}

/// The server says that changes may be missing from its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident<'a> {
    /// 1: events were lost.
    pub number: u16,
    /// What the server says of it.
    pub message: &'a [u8],
}

impl<'a> Incident<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Incident<'a>> {
        const MESSAGE: &str = "INCIDENT: message";
        let mut r = Bytes::new(body);
        let number = r.u16("INCIDENT: number")?;
        let length = r.u8(MESSAGE)?;
        Ok(Incident { number, message: r.take(usize::from(length), MESSAGE)? })
    }
}

/// Name of a log file.
fn file<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str> {
    if bytes.is_empty() || bytes.len() >= MAX_FILE_NAME || bytes.contains(&0) {
        return Err(Malformed(what));
    }
    text(bytes, what)
}

/// A text of the servers' own, which is UTF-8.
pub(super) fn text<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| Malformed(what))
}
