//! Values of varying length: text, bytes, JSON, labels, geometries, vectors, and the MariaDB types that lie in the log as
//! `BINARY(n)`.
//!
//! Source of the compressed form: MariaDB's `sql/field_comp.cc`.

use super::{Bytes, CELL, ColumnType, Facts, Malformed, Refused, Written, inet, json_text};
use crate::mysql::charset::Charset;
use crate::mysql::json;
use deltaforge_core::row::CellWriter;
use deltaforge_core::value::Value;
use std::convert::Infallible;

/// Bytes of the length before a value, 1 to 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix(u8);

impl Prefix {
    /// Of a `CHAR` or `VARCHAR` of at most so many bytes.
    pub(super) fn of_text(most: u16) -> Prefix {
        Prefix(if most > 255 { 2 } else { 1 })
    }

    /// Of the types whose metadata is the prefix's size.
    pub(super) fn of_blob(meta: u16) -> Result<Prefix, &'static str> {
        match meta {
            1..=4 => Ok(Prefix(meta as u8)),
            _ => Err("a length of an impossible size"),
        }
    }

    #[inline]
    pub(super) fn take<'a>(self, bytes: &mut Bytes<'a>) -> Result<&'a [u8], Malformed> {
        let length = match self.0 {
            1 => bytes.u8(CELL)?.into(),
            2 => bytes.u16(CELL)?.into(),
            3 => bytes.u24(CELL)?,
            _ => bytes.u32(CELL)?,
        };
        bytes.take(length as usize, CELL)
    }
}

/// What the bytes of a value are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Bytes,
    /// `BINARY(n)`: the log leaves out the zeros at the end.
    Padded(u16),
    Text(Charset),
    /// MariaDB's.
    JsonText(Charset),
    /// MySQL's.
    BinaryJson,
    Geometry,
    Vector,
    Uuid,
    Inet4,
    Inet6,
}

impl Content {
    /// From the column's type in the log and its declaration.
    pub(super) fn of(facts: &Facts<'_>, logged: ColumnType, meta: u16) -> Result<Content, &'static str> {
        let declared = |name: &str| {
            let word = facts.declared.split(|c: char| !c.is_ascii_alphanumeric()).next();
            word.is_some_and(|word| word.eq_ignore_ascii_case(name))
        };
        Ok(match logged {
            ColumnType::Json => Content::BinaryJson,
            ColumnType::Geometry => Content::Geometry,
            ColumnType::Vector => Content::Vector,
            ColumnType::VarChar if declared("vector") => Content::Vector,
            ColumnType::String if declared("uuid") => Content::Uuid,
            ColumnType::String if declared("inet4") => Content::Inet4,
            ColumnType::String if declared("inet6") => Content::Inet6,
            ColumnType::String if facts.charset == Charset::BINARY => Content::Padded(meta),
            _ if facts.charset == Charset::BINARY => Content::Bytes,
            _ if facts.json => Content::JsonText(facts.charset),
            _ => Content::Text(facts.charset),
        })
    }

    #[inline]
    pub(super) fn write(self, raw: &[u8], cell: &mut CellWriter<'_>) -> Written {
        match self {
            Content::Text(charset) => return Ok(text(charset, raw, cell)),
            Content::Bytes => cell.put(Value::Bytes(raw)),
            Content::Padded(size) => padded(raw, usize::from(size), cell)?,
            Content::BinaryJson => cell.json_with(|out| json::write_text(raw, out))?,
            Content::JsonText(charset) => return Ok(text_json(charset, raw, cell)),
            Content::Geometry => return Ok(geometry(raw, cell)),
            Content::Vector => vector(raw, cell)?,
            Content::Uuid => cell.put(Value::Uuid(&fixed(raw)?)),
            Content::Inet4 => cell.put(ascii(inet::inet4(fixed(raw)?).as_bytes())?),
            Content::Inet6 => cell.put(ascii(inet::inet6(fixed(raw)?).as_bytes())?),
        }
        Ok(true)
    }

    /// The same for a value that MariaDB compressed, or that it stored as it is because that was no shorter.
    pub(super) fn write_compressed(self, raw: &[u8], cell: &mut CellWriter<'_>) -> Written {
        // An empty value has no header.
        let Some((header, rest)) = raw.split_first() else { return self.write(raw, cell) };
        if header >> 4 == 0 {
            return self.write(rest, cell);
        }
        if self == Content::Bytes {
            cell.bytes_with(|out| inflate(*header, rest, out))?;
            return Ok(true);
        }
        // Compressed columns are rare and their text is converted from one place to another: that place is made here.
        let mut inflated = Vec::new();
        inflate(*header, rest, &mut inflated)?;
        self.write(&inflated, cell)
    }
}

/// Appends what the bytes after a header are inflated to.
fn inflate(header: u8, rest: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    const MALFORMED: Malformed = Malformed("a compressed value that does not inflate");
    const ZLIB: u8 = 8;
    /// No byte of a deflated stream stands for more.
    const MOST_PER_BYTE: u64 = 1032;
    let (length, deflated) = rest.split_at_checked(usize::from(header & 7)).ok_or(MALFORMED)?;
    let length = super::big_endian(length);
    if header >> 4 != ZLIB || length > MOST_PER_BYTE * deflated.len() as u64 {
        return Err(MALFORMED);
    }
    let length = usize::try_from(length).map_err(|_| MALFORMED)?;
    let start = out.len();
    out.resize(start + length, 0);
    let has_zlib_header = header & 8 == 0;
    let inflated = miniz_oxide::inflate::decompress_slice_iter_to_slice(
        &mut out[start..],
        std::iter::once(deflated),
        has_zlib_header,
        false,
    );
    if inflated == Ok(length) { Ok(()) } else { Err(MALFORMED) }
}

/// A value of `N` bytes without the zeros at its end.
fn fixed<const N: usize>(raw: &[u8]) -> Result<[u8; N], Malformed> {
    let mut whole = [0; N];
    whole.get_mut(..raw.len()).ok_or(LONGER)?.copy_from_slice(raw);
    Ok(whole)
}

const LONGER: Malformed = Malformed("a value longer than its column");

fn padded(raw: &[u8], size: usize, cell: &mut CellWriter<'_>) -> Result<(), Malformed> {
    let zeros = size.checked_sub(raw.len()).ok_or(LONGER)?;
    if zeros == 0 {
        cell.put(Value::Bytes(raw));
        return Ok(());
    }
    cell.bytes_with(|out| {
        out.extend_from_slice(raw);
        out.resize(out.len() + zeros, 0);
        Ok(())
    })
}

fn ascii(text: &[u8]) -> Result<Value<'_>, Malformed> {
    std::str::from_utf8(text).map(Value::Text).map_err(|_| Malformed("an address that is no text"))
}

/// Writes text; bytes and false when its character set does not have it.
#[inline]
fn text(charset: Charset, raw: &[u8], cell: &mut CellWriter<'_>) -> bool {
    if let Some(text) = charset.as_utf8(raw) {
        cell.put(Value::Text(text));
        return true;
    }
    let converted = |cell: &mut CellWriter<'_>| {
        cell.text_with(|out| if charset.decode(raw, out) { Ok(()) } else { Err(NoText) })
    };
    if cell.attempt(converted).is_ok() {
        return true;
    }
    cell.put(Value::Bytes(raw));
    false
}

struct NoText;

/// Writes the JSON of a text column; as text and false when it is not JSON.
fn text_json(charset: Charset, raw: &[u8], cell: &mut CellWriter<'_>) -> bool {
    let compact = |text: &str, cell: &mut CellWriter<'_>| {
        cell.attempt(|cell| cell.json_with(|out| json_text::compact(text, out))).is_ok()
    };
    if let Some(json) = charset.as_utf8(raw) {
        if compact(json, cell) {
            return true;
        }
        cell.put(Value::Text(json));
        return false;
    }
    // JSON in another character set than UTF-8 and ASCII is rare enough to be put somewhere else first.
    let mut converted = Vec::new();
    let is_json = charset.decode(raw, &mut converted)
        && std::str::from_utf8(&converted).is_ok_and(|json| compact(json, cell));
    is_json || {
        text(charset, raw, cell);
        false
    }
}

/// Writes `{srid, wkb}`: the log has the number of the spatial reference system in four bytes before the value.
fn geometry(raw: &[u8], cell: &mut CellWriter<'_>) -> bool {
    let Some((srid, wkb)) = raw.split_first_chunk() else {
        // Servers that are not strict let in an empty value.
        cell.put(Value::Bytes(raw));
        return false;
    };
    let Ok(()) = cell.record(|record| {
        record.member("srid", |cell| {
            cell.put(Value::Uint(u32::from_le_bytes(*srid).into()));
            Ok::<(), Infallible>(())
        })?;
        record.member("wkb", |cell| {
            cell.text_with(|out| {
                base64_simd::STANDARD.encode_append(wkb, out);
                Ok::<(), Infallible>(())
            })
        })
    });
    true
}

/// Writes a list of 32-bit floats.
fn vector(raw: &[u8], cell: &mut CellWriter<'_>) -> Result<(), Malformed> {
    let (numbers, []) = raw.as_chunks() else {
        return Err(Malformed("a VECTOR that ends inside a number"));
    };
    cell.list(|list| {
        for number in numbers {
            list.element(|cell| {
                cell.put(Value::Float32(f32::from_le_bytes(*number)));
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// The label with a number; 0 stands for the invalid value, which is the empty text.
#[inline]
pub(super) fn label(labels: &[Box<str>], index: u64) -> Result<&str, Refused> {
    let Some(index) = index.checked_sub(1) else { return Ok("") };
    let label = usize::try_from(index).ok().and_then(|index| labels.get(index));
    label.map(|label| &**label).ok_or(Refused::Label)
}

/// Writes the labels whose bits are set, in declared order, with commas between them.
pub(super) fn write_set(labels: &[Box<str>], bits: u64, cell: &mut CellWriter<'_>) -> Written {
    if labels.len() < 64 && bits >> labels.len() != 0 {
        return Err(Refused::Label);
    }
    cell.text_with(|out| {
        let mut between: &[u8] = b"";
        for (i, label) in labels.iter().take(64).enumerate() {
            if bits >> i & 1 == 1 {
                out.extend_from_slice(between);
                out.extend_from_slice(label.as_bytes());
                between = b",";
            }
        }
        Ok::<(), Refused>(())
    })?;
    Ok(true)
}
