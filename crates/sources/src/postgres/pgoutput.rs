//! The messages of the logical replication stream, split but not interpreted. Pure: bytes in, borrowed parts out.
//!
//! Format: PostgreSQL manual, "Streaming Replication Protocol" (XLogData, keepalive) and "Logical Replication Message
//! Formats", protocol version 1. Every length is checked against what is there before it is used.

use super::Lsn;
use std::fmt;

/// Microseconds between 1970-01-01 and PostgreSQL's epoch, 2000-01-01.
const EPOCH_OFFSET_US: i64 = 946_684_800_000_000;

/// Why a message cannot be split. Holds no row's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Takes numbers and texts off the front of a message.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    #[inline]
    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed(what))?;
        self.0 = rest;
        Ok(*head)
    }

    #[inline]
    fn byte(&mut self, what: &'static str) -> Result<u8, Malformed> {
        Ok(self.take::<1>(what)?[0])
    }

    #[inline]
    fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.take(what)?))
    }

    #[inline]
    fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.take(what)?))
    }

    #[inline]
    fn i64(&mut self, what: &'static str) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.take(what)?))
    }

    #[inline]
    fn lsn(&mut self, what: &'static str) -> Result<Lsn, Malformed> {
        Ok(Lsn(u64::from_be_bytes(self.take(what)?)))
    }

    fn micros(&mut self, what: &'static str) -> Result<i64, Malformed> {
        Ok(self.i64(what)?.saturating_add(EPOCH_OFFSET_US))
    }

    #[inline]
    fn bytes(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(Malformed(what))?;
        self.0 = rest;
        Ok(head)
    }

    fn text(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        let end = self.0.iter().position(|b| *b == 0).ok_or(Malformed(what))?;
        let text = std::str::from_utf8(&self.0[..end]).map_err(|_| Malformed(what))?;
        self.0 = &self.0[end + 1..];
        Ok(text)
    }

    /// Everything must have been read.
    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes after the end of a message")) }
    }
}

/// What one CopyData frame of the stream carries.
#[derive(Clone, Copy, Debug)]
pub enum Frame<'a> {
    /// A piece of the log: where it begins, and the logical message.
    Data {
        /// LSN of the change.
        start: Lsn,
        /// The message.
        message: &'a [u8],
    },
    /// The server is alive and has sent everything before `end`.
    Keepalive {
        /// Up to where the server has sent.
        end: Lsn,
        /// The server wants an answer at once.
        reply: bool,
    },
}

/// Splits the payload of a CopyData frame.
///
/// # Errors
/// When it is neither XLogData nor a keepalive, or too short.
#[inline]
pub fn frame(payload: &[u8]) -> Result<Frame<'_>, Malformed> {
    let mut r = Reader::new(payload);
    match r.byte("an empty frame")? {
        b'w' => {
            let start = r.lsn("XLogData: start")?;
            r.take::<16>("XLogData: end and time")?;
            Ok(Frame::Data { start, message: r.0 })
        }
        b'k' => {
            let end = r.lsn("keepalive: end")?;
            r.take::<8>("keepalive: time")?;
            Ok(Frame::Keepalive { end, reply: r.byte("keepalive: reply")? != 0 })
        }
        _ => Err(Malformed("a frame that is neither XLogData nor a keepalive")),
    }
}

/// A logical replication message.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// A transaction begins; `commit` is where its commit record lies.
    Begin {
        /// LSN of the commit.
        commit: Lsn,
        /// Commit time, Unix microseconds.
        ts_us: i64,
        /// Transaction id.
        xid: u32,
    },
    /// It ends; `end` is the place right after its commit record.
    Commit {
        /// LSN of the commit.
        commit: Lsn,
        /// LSN right after it.
        end: Lsn,
    },
    /// The transaction was replicated from elsewhere.
    Origin(&'a str),
    /// A table's shape, before its first change and after each change of it.
    Relation(Relation<'a>),
    /// A user-defined type's name.
    Type,
    /// Insert.
    Insert {
        /// Table's OID.
        relation: u32,
        /// New row.
        new: Tuple<'a>,
    },
    /// Update.
    Update {
        /// Table's OID.
        relation: u32,
        /// Old row or key, when the server sends one.
        old: Option<Old<'a>>,
        /// New row.
        new: Tuple<'a>,
    },
    /// Delete.
    Delete {
        /// Table's OID.
        relation: u32,
        /// Old row or key.
        old: Old<'a>,
    },
    /// Tables truncated by one statement.
    Truncate {
        /// `CASCADE` was given.
        cascade: bool,
        /// `RESTART IDENTITY` was given.
        restart_identity: bool,
        /// OIDs, big-endian, four bytes each.
        relations: &'a [u8],
    },
    /// A message written by `pg_logical_emit_message`.
    Logical {
        /// Whether it is part of a transaction.
        transactional: bool,
    },
}

/// The old image of a row.
#[derive(Clone, Copy, Debug)]
pub struct Old<'a> {
    /// `REPLICA IDENTITY FULL`: every column; otherwise columns outside the identity are sent as null and are not known.
    pub full: bool,
    /// The values.
    pub tuple: Tuple<'a>,
}

/// A table's shape.
#[derive(Clone, Copy, Debug)]
pub struct Relation<'a> {
    /// OID.
    pub oid: u32,
    /// Schema; empty for `pg_catalog`.
    pub schema: &'a str,
    /// Name.
    pub name: &'a str,
    /// `relreplident`: `d` default, `n` nothing, `f` full, `i` index.
    pub identity: u8,
    columns: u16,
    rest: Reader<'a>,
}

/// A column of a [`Relation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Part of the replica identity.
    pub key: bool,
    /// Name.
    pub name: &'a str,
    /// Type's OID.
    pub type_oid: u32,
    /// Type modifier, -1 for none.
    pub modifier: i32,
}

impl<'a> Relation<'a> {
    /// The columns in order.
    ///
    /// # Errors
    /// When they are not all there.
    pub fn columns(&self) -> Result<Vec<RelationColumn<'a>>, Malformed> {
        let mut r = self.rest;
        let mut columns = Vec::with_capacity(usize::from(self.columns).min(1600));
        for _ in 0..self.columns {
            columns.push(RelationColumn {
                key: r.byte("Relation: flags")? & 1 != 0,
                name: r.text("Relation: column name")?,
                type_oid: r.u32("Relation: type")?,
                modifier: r.u32("Relation: modifier")? as i32,
            });
        }
        r.end()?;
        Ok(columns)
    }
}

/// The values of a row, not yet split. Checked as a whole when the message was split.
#[derive(Clone, Copy, Debug)]
pub struct Tuple<'a> {
    columns: u16,
    rest: Reader<'a>,
}

/// One value of a [`Tuple`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datum<'a> {
    /// SQL NULL (or, in a key-only old row, not sent).
    Null,
    /// An out-of-line value that the change did not touch and the log does not carry.
    Unchanged,
    /// The text form.
    Text(&'a [u8]),
}

impl<'a> Tuple<'a> {
    /// Number of values.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.columns)
    }

    /// True without values.
    pub fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// The values in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Result<Datum<'a>, Malformed>> {
        let mut r = self.rest;
        (0..self.columns).map(move |_| datum(&mut r))
    }

    /// Reads over the tuple, so that what follows it can be read.
    #[inline]
    fn split(r: &mut Reader<'a>) -> Result<Tuple<'a>, Malformed> {
        let columns = r.u16("tuple: number of columns")?;
        let tuple = Tuple { columns, rest: *r };
        for _ in 0..columns {
            datum(r)?;
        }
        Ok(tuple)
    }

    /// The tuple that a message ends with: its values are checked as they are read.
    #[inline]
    fn last(r: &mut Reader<'a>) -> Result<Tuple<'a>, Malformed> {
        let columns = r.u16("tuple: number of columns")?;
        Ok(Tuple { columns, rest: *r })
    }
}

#[inline]
fn datum<'a>(r: &mut Reader<'a>) -> Result<Datum<'a>, Malformed> {
    match r.byte("tuple: kind")? {
        b't' => {
            let length = r.u32("tuple: length")? as usize;
            Ok(Datum::Text(r.bytes(length, "tuple: value")?))
        }
        b'n' => Ok(Datum::Null),
        b'u' => Ok(Datum::Unchanged),
        _ => Err(Malformed("tuple: unknown kind of value")),
    }
}

/// Splits a logical replication message.
///
/// # Errors
/// When it is of a kind that was not asked for, too short, or too long.
#[inline]
pub fn message(bytes: &[u8]) -> Result<Message<'_>, Malformed> {
    let mut r = Reader::new(bytes);
    match r.byte("an empty message")? {
        b'I' => {
            let relation = r.u32("Insert: relation")?;
            expect(&mut r, b'N', "Insert: no new row")?;
            Ok(Message::Insert { relation, new: Tuple::last(&mut r)? })
        }
        b'U' => {
            let relation = r.u32("Update: relation")?;
            let old = match r.byte("Update: kind")? {
                kind @ (b'K' | b'O') => {
                    let old = Old { full: kind == b'O', tuple: Tuple::split(&mut r)? };
                    expect(&mut r, b'N', "Update: no new row")?;
                    Some(old)
                }
                b'N' => None,
                _ => return Err(Malformed("Update: neither an old nor a new row")),
            };
            Ok(Message::Update { relation, old, new: Tuple::last(&mut r)? })
        }
        b'D' => {
            let relation = r.u32("Delete: relation")?;
            let full = match r.byte("Delete: kind")? {
                b'K' => false,
                b'O' => true,
                _ => return Err(Malformed("Delete: no old row")),
            };
            Ok(Message::Delete { relation, old: Old { full, tuple: Tuple::last(&mut r)? } })
        }
        b'B' => {
            let (commit, ts_us) = (r.lsn("Begin: commit")?, r.micros("Begin: time")?);
            Ok(Message::Begin { commit, ts_us, xid: r.u32("Begin: xid")? })
        }
        b'C' => {
            r.byte("Commit: flags")?;
            Ok(Message::Commit { commit: r.lsn("Commit: commit")?, end: r.lsn("Commit: end")? })
        }
        b'R' => relation(r),
        b'T' => {
            let count = r.u32("Truncate: count")? as usize;
            let flags = r.byte("Truncate: flags")?;
            let relations = r.bytes(count.saturating_mul(4), "Truncate: relations")?;
            Ok(Message::Truncate { cascade: flags & 1 != 0, restart_identity: flags & 2 != 0, relations })
        }
        b'O' => {
            r.lsn("Origin: commit")?;
            Ok(Message::Origin(r.text("Origin: name")?))
        }
        b'Y' => Ok(Message::Type),
        b'M' => Ok(Message::Logical { transactional: r.byte("Message: flags")? & 1 != 0 }),
        _ => Err(Malformed("a message of a kind that was not asked for")),
    }
}

fn expect(r: &mut Reader<'_>, byte: u8, what: &'static str) -> Result<(), Malformed> {
    if r.byte(what)? == byte { Ok(()) } else { Err(Malformed(what)) }
}

fn relation(mut r: Reader<'_>) -> Result<Message<'_>, Malformed> {
    let oid = r.u32("Relation: oid")?;
    let schema = r.text("Relation: schema")?;
    let name = r.text("Relation: name")?;
    let identity = r.byte("Relation: identity")?;
    let columns = r.u16("Relation: number of columns")?;
    Ok(Message::Relation(Relation { oid, schema, name, identity, columns, rest: r }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(values: &[Option<&str>]) -> Vec<u8> {
        let mut out = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            match value {
                Some(text) => {
                    out.push(b't');
                    out.extend((text.len() as u32).to_be_bytes());
                    out.extend(text.bytes());
                }
                None => out.push(b'n'),
            }
        }
        out
    }

    #[test]
    fn an_update_with_an_old_row_splits_into_both() {
        let mut bytes = vec![b'U', 0, 0, 0, 9, b'O'];
        bytes.extend(tuple(&[Some("1"), None]));
        bytes.push(b'N');
        bytes.extend(tuple(&[Some("2"), Some("x")]));
        let Ok(Message::Update { relation: 9, old: Some(old), new }) = message(&bytes) else {
            panic!("an update")
        };
        assert!(old.full);
        assert_eq!(old.tuple.iter().collect::<Vec<_>>(), [Ok(Datum::Text(b"1")), Ok(Datum::Null)]);
        assert_eq!(new.iter().collect::<Vec<_>>(), [Ok(Datum::Text(b"2")), Ok(Datum::Text(b"x"))]);
    }

    #[test]
    fn a_relation_lists_its_columns() {
        let mut bytes = b"R\0\0\0\x07public\0orders\0d\0\x01\x01id\0\0\0\0\x17".to_vec();
        bytes.extend((-1i32).to_be_bytes());
        let Ok(Message::Relation(relation)) = message(&bytes) else { panic!("a relation") };
        assert_eq!(
            (relation.oid, relation.schema, relation.name, relation.identity),
            (7, "public", "orders", b'd')
        );
        let column = RelationColumn { key: true, name: "id", type_oid: 23, modifier: -1 };
        assert_eq!(relation.columns(), Ok(vec![column]));
    }

    #[test]
    fn every_prefix_of_a_message_is_refused_or_reads_within_bounds() {
        let mut update = vec![b'U', 0, 0, 0, 9, b'K'];
        update.extend(tuple(&[Some("1"), None]));
        update.push(b'N');
        update.extend(tuple(&[Some("2"), Some("x")]));
        let truncate = b"T\0\0\0\x02\x03\0\0\0\x01\0\0\0\x02".to_vec();
        let relation = b"R\0\0\0\x07public\0orders\0d\0\x01\x01id\0\0\0\0\x17\0\0\0\0".to_vec();
        for whole in [update, truncate, relation] {
            for length in 0..whole.len() {
                match message(&whole[..length]) {
                    Ok(Message::Update { new, .. }) => assert!(new.iter().any(|d| d.is_err()), "{length}"),
                    Ok(Message::Relation(relation)) => assert!(relation.columns().is_err(), "{length}"),
                    other => assert!(other.is_err(), "{length}: {other:?}"),
                }
            }
        }
        assert!(message(b"S").is_err(), "streamed transactions are not asked for");
        assert!(message(&[b'T', 0xff, 0xff, 0xff, 0xff, 0]).is_err(), "a count beyond the message");
    }
}
