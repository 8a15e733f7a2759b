//! Values as JSON text, after the value rules of the event specification.
//!
//! Everything appends to the caller's buffer; nothing allocates beside it, and nothing goes through `fmt`, whose
//! dispatch costs more than the digits it prints.

use crate::time;
use deltaforge_core::Value;
use deltaforge_core::row::{ListRef, RecordRef};

/// What stands for a value that the log does not carry.
pub(crate) const UNCHANGED: &[u8] = br#"{"_unchanged":true}"#;

/// Appends a value. [`Value::Absent`] is `{"_unchanged":true}`; a caller that leaves absent members out must look first.
pub fn value(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Absent => out.extend_from_slice(UNCHANGED),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(v) => int(v, out),
        Value::Uint(v) => uint(v, out),
        Value::Float32(v) if v.is_finite() => {
            out.extend_from_slice(ryu::Buffer::new().format_finite(v).as_bytes())
        }
        Value::Float32(v) => not_finite(v.into(), out),
        Value::Float64(v) if v.is_finite() => {
            out.extend_from_slice(ryu::Buffer::new().format_finite(v).as_bytes())
        }
        Value::Float64(v) => not_finite(v, out),
        Value::Text(text) | Value::Decimal(text) => string(text, out),
        Value::Bytes(raw) => bytes(raw, out),
        Value::Json(text) => out.extend_from_slice(text.as_bytes()),
        Value::Date(date) => quoted(out, |out| time::date(date, out)),
        Value::Time(micros) => quoted(out, |out| time::time(micros, out)),
        Value::TimeTz(t) => quoted(out, |out| time::time_tz(t, out)),
        Value::DateTime(moment) => quoted(out, |out| time::moment(moment, false, out)),
        Value::Timestamp(moment) => quoted(out, |out| time::moment(moment, true, out)),
        Value::Interval(interval) => quoted(out, |out| time::interval(interval, out)),
        Value::Uuid(id) => quoted(out, |out| uuid(id, out)),
        Value::List(items) => list(items, out),
        Value::Record(members) => record(members, out),
    }
}

/// Appends a text in quotes. Only control characters, the quote and the backslash are escaped; the rest of UTF-8 goes as it is.
#[inline]
pub fn string(text: &str, out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let bytes = text.as_bytes();
    let clean = clean_prefix(bytes);
    out.extend_from_slice(&bytes[..clean]);
    if clean < bytes.len() {
        escape_rest(&bytes[clean..], out);
    }
    out.push(b'"');
}

/// Appends a signed integer.
#[inline]
pub fn int(v: i64, out: &mut Vec<u8>) {
    if v < 0 {
        out.push(b'-');
    }
    uint(v.unsigned_abs(), out);
}

/// Appends an unsigned integer.
#[inline]
pub fn uint(v: u64, out: &mut Vec<u8>) {
    // Our own digits and not itoa's, because they are wanted at the front of an array of known size: see `padded`.
    let mut text = [0; 20];
    let length = decimal_length(v);
    let (mut rest, mut at) = (v, length);
    while rest >= 100 {
        at -= 2;
        [text[at], text[at + 1]] = PAIRS[(rest % 100) as usize];
        rest /= 100;
    }
    if rest >= 10 {
        [text[0], text[1]] = PAIRS[rest as usize];
    } else {
        text[0] = b'0' + rest as u8;
    }
    padded(&text, length, out);
}

/// How many decimal digits a number has.
#[inline]
fn decimal_length(v: u64) -> usize {
    const POWERS: [u64; 20] = {
        let mut powers = [0; 20];
        let (mut i, mut power) = (1, 1u64);
        while i < 20 {
            power = power.wrapping_mul(10);
            powers[i] = power;
            i += 1;
        }
        powers
    };
    // 1233/4096 is log10(2), near enough below 2^64; the guess is the length or one less.
    let bits = u64::BITS - (v | 1).leading_zeros();
    let guess = ((bits * 1233) >> 12) as usize;
    guess + usize::from(v >= POWERS[guess] || guess == 0)
}

/// Appends the first `length` bytes of an array by appending all of it and taking the rest back: a copy of a size known at
/// compile time is a few instructions, one of another size is a call. Short pieces are most of an event.
#[inline]
pub(crate) fn padded<const N: usize>(text: &[u8; N], length: usize, out: &mut Vec<u8>) {
    let end = out.len() + length.min(N);
    out.extend_from_slice(text);
    out.truncate(end);
}

/// Two decimal digits for 0 to 99.
pub(crate) const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut i = 0;
    while i < 100 {
        pairs[i] = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
        i += 1;
    }
    pairs
};

/// Appends `{"_base64":"…"}`, standard alphabet with padding.
pub fn bytes(raw: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"_base64":""#);
    base64_simd::STANDARD.encode_append(raw, out);
    out.extend_from_slice(b"\"}");
}

/// Appends the 36 characters of a UUID, lower case, without quotes.
#[inline]
pub fn uuid(id: &[u8; 16], out: &mut Vec<u8>) {
    // Where each byte's two digits go; the gaps are the dashes.
    const AT: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let mut text = [b'-'; 36];
    for (byte, at) in id.iter().zip(AT) {
        let [high, low] = HEX[usize::from(*byte)];
        text[at] = high;
        text[at + 1] = low;
    }
    out.extend_from_slice(&text);
}

/// Appends an LSN as PostgreSQL prints it, `0/16B6C50`, without quotes.
#[inline]
pub fn lsn(lsn: u64, out: &mut Vec<u8>) {
    const UPPER: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = [0; 17];
    let mut at = text.len();
    for (half, rest) in [(lsn as u32, b'/'), ((lsn >> 32) as u32, 0)] {
        let mut half = half;
        loop {
            at -= 1;
            text[at] = UPPER[(half & 15) as usize];
            half >>= 4;
            if half == 0 {
                break;
            }
        }
        if rest != 0 {
            at -= 1;
            text[at] = rest;
        }
    }
    out.extend_from_slice(&text[at..]);
}

/// Appends a list of integers as a text that holds a JSON array of decimal texts: `"[\"1\",\"2\"]"`.
pub(crate) fn decimal_texts(items: ListRef<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"[");
    for (i, item) in items.iter().enumerate() {
        out.extend_from_slice(if i == 0 { br#"\""# } else { br#",\""# });
        match item {
            Value::Uint(v) => uint(v, out),
            Value::Int(v) => int(v, out),
            _ => out.push(b'0'),
        }
        out.extend_from_slice(br#"\""#);
    }
    out.extend_from_slice(b"]\"");
}

#[inline]
fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

#[cold]
fn not_finite(v: f64, out: &mut Vec<u8>) {
    let text: &[u8] = match v {
        v if v.is_nan() => b"\"NaN\"",
        v if v > 0.0 => b"\"Infinity\"",
        _ => b"\"-Infinity\"",
    };
    out.extend_from_slice(text);
}

fn list(items: ListRef<'_>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        value(item, out);
    }
    out.push(b']');
}

fn record(members: RecordRef<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (i, (name, member)) in members.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(name, out);
        out.push(b':');
        value(member, out);
    }
    out.push(b'}');
}

/// Two lower-case hex digits per byte.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = [DIGITS[i >> 4], DIGITS[i & 15]];
        i += 1;
    }
    table
};

const fn must_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// How many bytes at the start need no escape.
///
/// Thirty-two at a time in a form that compiles to vector instructions, then eight at a time in a word, the last word
/// overlapping the one before so that no tail is left for texts of eight bytes and more.
#[inline]
fn clean_prefix(bytes: &[u8]) -> usize {
    let (chunks, _) = bytes.as_chunks::<32>();
    let mut at = 0;
    for chunk in chunks {
        if chunk.iter().fold(false, |dirty, b| dirty | must_escape(*b)) {
            break;
        }
        at += 32;
    }
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let dirty = dirty_bytes(u64::from_le_bytes(*word));
        if dirty != 0 {
            return at + (dirty.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    if let Some(word) = bytes.last_chunk::<8>() {
        let dirty = dirty_bytes(u64::from_le_bytes(*word));
        return if dirty == 0 {
            bytes.len()
        } else {
            bytes.len() - 8 + (dirty.trailing_zeros() / 8) as usize
        };
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let word = u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32;
        if dirty_bytes(word) == 0 {
            return bytes.len();
        }
    }
    bytes.iter().position(|b| must_escape(*b)).unwrap_or(bytes.len())
}

/// A word whose lowest set bit is the top bit of the first byte that needs an escape. Bits above it may be wrong (a borrow
/// runs upwards), so only the lowest is looked at.
#[inline]
fn dirty_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let zero_in = |w: u64| w.wrapping_sub(ONES) & !w;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (control | zero_in(word ^ (ONES * 0x22)) | zero_in(word ^ (ONES * 0x5c))) & TOPS
}

/// Appends what is left after a first byte that needs an escape.
fn escape_rest(mut bytes: &[u8], out: &mut Vec<u8>) {
    while let Some((first, rest)) = bytes.split_first() {
        if must_escape(*first) {
            escape(*first, out);
            bytes = rest;
            continue;
        }
        let clean = clean_prefix(bytes);
        out.extend_from_slice(&bytes[..clean]);
        bytes = &bytes[clean..];
    }
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let [high, low] = HEX[usize::from(byte)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}
