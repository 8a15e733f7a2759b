//! The containers of a document, and the count of what was read of it.

use super::scalar::{INT16, INT32, LITERAL, UINT16, UINT32};
use super::{Malformed, Result};

const SMALL_OBJECT: u8 = 0x00;
const LARGE_OBJECT: u8 = 0x01;
const SMALL_ARRAY: u8 = 0x02;
const LARGE_ARRAY: u8 = 0x03;

/// How many bytes of a document may still be read. Every byte of a true document is read at most once.
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn new(bytes: usize) -> Budget {
        Budget(bytes)
    }

    #[inline]
    pub(super) fn spend(&mut self, bytes: usize) -> Result<()> {
        self.0 = self.0.checked_sub(bytes).ok_or(Malformed("JSON: values that overlap"))?;
        Ok(())
    }
}

/// One value of a document.
#[derive(Clone, Copy)]
pub(super) enum Stored<'a> {
    /// In its entry, and so paid for with the container: the type and the bytes.
    Inline(u8, &'a [u8]),
    /// Elsewhere: the type, and everything from its first byte to the end of what holds it.
    Apart(u8, &'a [u8]),
}

impl<'a> Stored<'a> {
    /// The outermost value of a document.
    pub(super) fn root(document: &'a [u8]) -> Stored<'a> {
        match document.split_first() {
            Some((kind, data)) => Stored::Apart(*kind, data),
            // What `INSERT IGNORE` makes of NULL in a NOT NULL column; the server reads it as null.
            None => Stored::Inline(LITERAL, &[0]),
        }
    }
}

/// An object or an array: entries that are known to lie within it.
pub(super) struct Container<'a> {
    /// All of it. Offsets count from its first byte.
    data: &'a [u8],
    keys: &'a [u8],
    values: &'a [u8],
    header: usize,
    large: bool,
    pub(super) object: bool,
}

impl<'a> Container<'a> {
    /// The container that a value is, `None` for scalars. Pays for its entries.
    #[inline]
    pub(super) fn open(kind: u8, data: &'a [u8], budget: &mut Budget) -> Result<Option<Container<'a>>> {
        let (object, large) = match kind {
            SMALL_OBJECT => (true, false),
            LARGE_OBJECT => (true, true),
            SMALL_ARRAY => (false, false),
            LARGE_ARRAY => (false, true),
            _ => return Ok(None),
        };
        let short = Malformed("JSON: a container longer than what holds it");
        let width = if large { 4 } else { 2 };
        let sizes = data.get(..2 * width).ok_or(short)?;
        let (count, size) = (number(&sizes[..width]), number(&sizes[width..]));
        let data = data.get(..size).ok_or(short)?;
        let keys = if object { count.checked_mul(width + 2) } else { Some(0) };
        let ends = keys.and_then(|keys| Some((keys, keys.checked_add(count.checked_mul(width + 1)?)?)));
        let (keys, entries) = ends.ok_or(short)?;
        let entries = data.get(2 * width..).and_then(|rest| rest.get(..entries)).ok_or(short)?;
        let (keys, values) = entries.split_at(keys);
        let header = 2 * width + entries.len();
        budget.spend(header)?;
        Ok(Some(Container { data, keys, values, header, large, object }))
    }

    pub(super) fn len(&self) -> usize {
        self.values.len() / if self.large { 5 } else { 3 }
    }

    /// The names of its members in stored order; nothing for arrays. Each pays for itself.
    #[inline]
    pub(super) fn keys(&self) -> impl Iterator<Item = Result<&'a [u8]>> {
        let (data, header, width) = (self.data, self.header, if self.large { 4 } else { 2 });
        self.keys.chunks_exact(width + 2).map(move |entry| {
            let (offset, length) = entry.split_at(width);
            let (offset, length) = (number(offset), number(length));
            let key = data.get(offset..).and_then(|rest| rest.get(..length));
            key.filter(|_| offset >= header).ok_or(Malformed("JSON: a key outside its object"))
        })
    }

    /// Its values in stored order.
    #[inline]
    pub(super) fn values(&self) -> impl Iterator<Item = Result<Stored<'a>>> {
        let (data, header, large) = (self.data, self.header, self.large);
        self.values.chunks_exact(if large { 5 } else { 3 }).map(move |entry| {
            let (kind, slot) = (entry[0], &entry[1..]);
            match kind {
                LITERAL | INT16 | UINT16 => return Ok(Stored::Inline(kind, slot)),
                INT32 | UINT32 if large => return Ok(Stored::Inline(kind, slot)),
                _ => {}
            }
            let offset = number(slot);
            let value = data.get(offset..).filter(|_| offset >= header);
            Ok(Stored::Apart(kind, value.ok_or(Malformed("JSON: a value outside its container"))?))
        })
    }
}

/// A little-endian number of two or four bytes.
#[inline]
fn number(bytes: &[u8]) -> usize {
    match *bytes {
        [a, b] => usize::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]) as usize,
        _ => 0,
    }
}
