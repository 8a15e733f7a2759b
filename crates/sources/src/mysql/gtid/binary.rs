//! Sets of MySQL as the protocol and the log carry them.

use super::super::binlog::Malformed;
use super::super::binlog::reader::Bytes;
use super::mysql::{Interval, MAX_NUMBER, MySqlSet, Source, WRONG_TAG};
use super::tsid::{Tag, Tsid};

impl MySqlSet {
    /// Reads the binary form: the body of a `PREVIOUS_GTIDS` event, the set in `COM_BINLOG_DUMP_GTID`. All of `bytes` must
    /// belong to it.
    ///
    /// ```text
    /// without tags  number of UUIDs u56, 0            with tags  1, number of UUIDs and tags u48, 1
    ///               for each: UUID                               for each: UUID, 2 * length of the tag, tag
    ///               number of intervals u64, for each: first number u64, number after the last u64
    /// ```
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<MySqlSet, Malformed> {
        let mut rest = Bytes::new(bytes);
        let head = rest.u64(SHORT)?;
        let (tagged, count) = match head >> 56 {
            0 => (false, head),
            1 => (true, head << 8 >> 16),
            _ => return Err(Malformed("a GTID set in an unknown format")),
        };
        let mut sources = Vec::new();
        for _ in 0..count {
            let uuid = rest.array::<16>(SHORT)?;
            let tag = if tagged { binary_tag(&mut rest)? } else { None };
            let count = rest.u64(SHORT)?;
            if count > rest.len() as u64 / 16 {
                return Err(Malformed(SHORT));
            }
            let mut intervals = Vec::with_capacity(count as usize);
            let mut last = 0;
            for _ in 0..count {
                let (start, end) = (rest.u64(SHORT)?, rest.u64(SHORT)?);
                if start <= last || end <= start || end - 1 > MAX_NUMBER {
                    return Err(Malformed("intervals of a GTID set that do not grow"));
                }
                intervals.push(Interval { start, end: end - 1 });
                last = end;
            }
            sources.push(Source { tsid: Tsid { uuid, tag }, intervals });
        }
        rest.end("bytes after a GTID set")?;
        Ok(MySqlSet::collected(sources))
    }

    /// The binary form that [`decode`](Self::decode) describes: with tags when the set has any, as the server does.
    pub fn encode(&self) -> Vec<u8> {
        let tagged = self.sources.iter().any(|source| source.tsid.tag.is_some());
        let count = self.sources.len() as u64;
        let head = if tagged { 1 << 56 | count << 8 | 1 } else { count };
        let mut out = head.to_le_bytes().to_vec();
        for source in &self.sources {
            out.extend_from_slice(&source.tsid.uuid);
            if tagged {
                let tag = source.tsid.tag.as_ref().map_or(&[][..], Tag::as_bytes);
                out.push((tag.len() as u8) << 1);
                out.extend_from_slice(tag);
            }
            out.extend_from_slice(&(source.intervals.len() as u64).to_le_bytes());
            for interval in &source.intervals {
                out.extend_from_slice(&interval.start.to_le_bytes());
                out.extend_from_slice(&(interval.end + 1).to_le_bytes());
            }
        }
        out
    }
}

const SHORT: &str = "a GTID set that ends too early";

/// A tag behind its length, which the server writes as a number of variable length: one byte, its lowest bit 0.
fn binary_tag(rest: &mut Bytes<'_>) -> Result<Option<Tag>, Malformed> {
    let length = rest.u8(SHORT)?;
    if length & 1 != 0 {
        return Err(Malformed("a GTID tag that is too long"));
    }
    let tag = rest.take(usize::from(length >> 1), SHORT)?;
    if tag.is_empty() {
        return Ok(None);
    }
    Tag::new(tag).map(Some).ok_or(Malformed(WRONG_TAG))
}
