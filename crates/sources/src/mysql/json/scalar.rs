//! Literals, numbers, strings.

use super::{Malformed, Result, number, opaque};

pub(super) const LITERAL: u8 = 0x04;
pub(super) const INT16: u8 = 0x05;
pub(super) const UINT16: u8 = 0x06;
pub(super) const INT32: u8 = 0x07;
pub(super) const UINT32: u8 = 0x08;
const INT64: u8 = 0x09;
const UINT64: u8 = 0x0a;
const DOUBLE: u8 = 0x0b;
const STRING: u8 = 0x0c;
const OPAQUE: u8 = 0x0f;

const SHORT: Malformed = Malformed("JSON: a value cut short");

/// Appends a scalar that starts `data`; says how many bytes it takes.
#[inline]
pub(super) fn write(kind: u8, data: &[u8], out: &mut Vec<u8>) -> Result<usize> {
    match kind {
        STRING => {
            let (text, used) = counted(data)?;
            quoted(text, out);
            Ok(used)
        }
        LITERAL => {
            out.extend_from_slice(match data.first() {
                Some(0) => b"null",
                Some(1) => b"true",
                Some(2) => b"false",
                _ => return Err(Malformed("JSON: an unknown literal")),
            });
            Ok(1)
        }
        INT16 => Ok(integer(i16::from_le_bytes(fixed(data)?), out)),
        UINT16 => Ok(integer(u16::from_le_bytes(fixed(data)?), out)),
        INT32 => Ok(integer(i32::from_le_bytes(fixed(data)?), out)),
        UINT32 => Ok(integer(u32::from_le_bytes(fixed(data)?), out)),
        INT64 => Ok(integer(i64::from_le_bytes(fixed(data)?), out)),
        UINT64 => Ok(integer(u64::from_le_bytes(fixed(data)?), out)),
        DOUBLE => number::double(f64::from_le_bytes(fixed(data)?), out).map(|()| 8),
        OPAQUE => {
            let (field_type, rest) = data.split_first().ok_or(SHORT)?;
            let (value, used) = counted(rest)?;
            opaque::write(*field_type, value, out)?;
            Ok(1 + used)
        }
        _ => Err(Malformed("JSON: an unknown type")),
    }
}

fn fixed<const N: usize>(data: &[u8]) -> Result<[u8; N]> {
    data.first_chunk().copied().ok_or(SHORT)
}

#[inline]
fn integer<N: itoa::Integer>(n: N, out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    size_of::<N>()
}

/// Bytes after their length, and how many both take.
#[inline]
fn counted(data: &[u8]) -> Result<(&[u8], usize)> {
    let mut length = 0u64;
    for (i, byte) in data.iter().take(5).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            let value = usize::try_from(length).ok().and_then(|length| data[i + 1..].get(..length));
            let value = value.ok_or(SHORT)?;
            return Ok((value, i + 1 + value.len()));
        }
    }
    Err(Malformed("JSON: a length without an end"))
}

/// Appends a text in quotes, escaped as the server does: control characters, the quote and the backslash only.
#[inline]
pub(super) fn quoted(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let clean = clean_prefix(text);
    out.extend_from_slice(&text[..clean]);
    if clean < text.len() {
        escape(&text[clean..], out);
    }
    out.push(b'"');
}

fn must_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// How many bytes at the start need no escape: eight at a time, then one by one.
#[inline]
fn clean_prefix(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let (words, tail) = text.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let zero_in = |w: u64| w.wrapping_sub(ONES) & !w;
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let dirty = (control | zero_in(word ^ (ONES * 0x22)) | zero_in(word ^ (ONES * 0x5c))) & TOPS;
        // A borrow runs upwards, so only the lowest of the marks is sure to be right.
        if dirty != 0 {
            return i * 8 + (dirty.trailing_zeros() / 8) as usize;
        }
    }
    text.len() - tail.len() + tail.iter().position(|b| must_escape(*b)).unwrap_or(tail.len())
}

fn escape(mut text: &[u8], out: &mut Vec<u8>) {
    while let Some((first, rest)) = text.split_first() {
        if must_escape(*first) {
            escape_byte(*first, out);
            text = rest;
        } else {
            let (clean, rest) = text.split_at(clean_prefix(text));
            out.extend_from_slice(clean);
            text = rest;
        }
    }
}

fn escape_byte(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        _ => {
            let digit = |n: u8| b"0123456789abcdef"[usize::from(n & 0xf)];
            return out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}
