//! Values as the server prints them, turned into cells. Pure: no allocation but for nested types, no panics.
//!
//! The texts are what the type's output function gives under the settings that `connection.rs` pins. A text that does not
//! read as its type becomes a text cell and is counted, so that nothing is ever left out or guessed.
#![doc = include_str!("types.md")]

mod nested;

use deltaforge_core::row::CellWriter;
use deltaforge_core::value::{Date, Interval, Moment, TimeTz, Value};

/// How the texts of a type are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Codec {
    /// `t`, `f`.
    Bool,
    /// `smallint`, `integer`, `bigint`.
    Int,
    /// `oid`.
    Oid,
    /// `real`.
    Float4,
    /// `double precision`.
    Float8,
    /// `numeric`.
    Numeric,
    /// `bytea` in hex form.
    Bytea,
    /// `json`, `jsonb`.
    Json,
    /// `uuid`.
    Uuid,
    /// `date`.
    Date,
    /// `time`.
    Time,
    /// `timetz`.
    TimeTz,
    /// `timestamp`.
    Timestamp,
    /// `timestamptz`, printed in UTC.
    TimestampTz,
    /// `interval` in ISO 8601 form.
    Interval,
    /// An array: its elements and the character between them.
    Array(Box<Codec>, u8),
    /// A composite.
    Composite {
        /// Its members.
        members: Vec<(String, Codec)>,
        /// None was ever removed, so a value with fewer has the first of them.
        only_grew: bool,
    },
    /// `hstore`.
    Hstore,
    /// Everything else: the server's text.
    Text,
}

impl Codec {
    /// Whether its values hold composites at any depth.
    pub(super) fn has_composites(&self) -> bool {
        match self {
            Codec::Composite { .. } => true,
            Codec::Array(element, _) => element.has_composites(),
            _ => false,
        }
    }
}

/// A text that does not read as its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

type Read<T = ()> = Result<T, Unreadable>;

/// Nested arrays and composites deeper than this are given as text.
const MAX_DEPTH: u32 = 64;

/// Writes the cell for a text. False when the text did not read as its type and was given as text (or, when it is not UTF-8,
/// as bytes) instead, or when it has fewer members than its type.
#[inline]
pub fn write(codec: &Codec, text: &[u8], cell: &mut CellWriter<'_>) -> bool {
    match simple(codec, text) {
        Some(Ok(value)) => {
            cell.put(value);
            true
        }
        Some(Err(Unreadable)) => {
            cell.put(raw(text));
            false
        }
        None => nested(codec, text, cell),
    }
}

/// The text itself: the form of types that have no other, and of what cannot be read.
fn raw(text: &[u8]) -> Value<'_> {
    match simdutf8::basic::from_utf8(text) {
        Ok(text) => Value::Text(text),
        Err(_) => Value::Bytes(text),
    }
}

/// Values that lie in the text itself or in a register; `None` for types whose cell is built.
#[inline]
fn simple<'a>(codec: &Codec, text: &'a [u8]) -> Option<Read<Value<'a>>> {
    Some(match codec {
        Codec::Text => Ok(raw(text)),
        Codec::Int => int(text).map(Value::Int),
        Codec::Numeric => ascii(text).map(Value::Decimal),
        Codec::Bool => match text {
            b"t" => Ok(Value::Bool(true)),
            b"f" => Ok(Value::Bool(false)),
            _ => Err(Unreadable),
        },
        Codec::Timestamp => moment(text).map(Value::DateTime),
        Codec::TimestampTz => utc_moment(text).map(Value::Timestamp),
        Codec::Date => date(text).map(Value::Date),
        Codec::Time => time(text).map(Value::Time),
        Codec::TimeTz => timetz(text).map(Value::TimeTz),
        Codec::Interval => interval(text).map(Value::Interval),
        Codec::Oid => int(text).and_then(|n| u64::try_from(n).map_err(|_| Unreadable)).map(Value::Uint),
        Codec::Float4 => float(text).map(Value::Float32),
        Codec::Float8 => float(text).map(Value::Float64),
        Codec::Bytea
        | Codec::Json
        | Codec::Uuid
        | Codec::Array(..)
        | Codec::Composite { .. }
        | Codec::Hstore => return None,
    })
}

/// Types whose cell is built. What fails midway is taken back and given as text.
fn nested(codec: &Codec, text: &[u8], cell: &mut CellWriter<'_>) -> bool {
    cell.attempt(|cell| build(codec, text, cell, 0)).unwrap_or_else(|Unreadable| {
        cell.put(raw(text));
        false
    })
}

fn build(codec: &Codec, text: &[u8], cell: &mut CellWriter<'_>, depth: u32) -> Read<bool> {
    if depth > MAX_DEPTH {
        return Err(Unreadable);
    }
    match codec {
        Codec::Bytea => cell.bytes_with(|out| unhex(text, out)).map(|()| true),
        Codec::Json => cell.json_with(|out| compact_json(text, out)).map(|()| true),
        Codec::Uuid => {
            cell.put(Value::Uuid(&uuid(text)?));
            Ok(true)
        }
        Codec::Array(element, delimiter) => nested::whole_array(text, element, *delimiter, cell, depth),
        Codec::Composite { members, only_grew } => nested::composite(text, members, *only_grew, cell, depth),
        Codec::Hstore => nested::hstore(text, cell).map(|()| true),
        simple_codec => match simple(simple_codec, text) {
            Some(Ok(value)) => {
                cell.put(value);
                Ok(true)
            }
            _ => {
                cell.put(raw(text));
                Ok(false)
            }
        },
    }
}

#[inline]
fn ascii(text: &[u8]) -> Read<&str> {
    if text.is_ascii() { std::str::from_utf8(text).map_err(|_| Unreadable) } else { Err(Unreadable) }
}

#[inline]
fn int(text: &[u8]) -> Read<i64> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > 19 {
        return Err(Unreadable);
    }
    let mut n: u64 = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Unreadable);
        }
        n = n * 10 + u64::from(digit);
    }
    match negative {
        false => i64::try_from(n).map_err(|_| Unreadable),
        true if n <= 1 << 63 => Ok((n as i64).wrapping_neg()),
        true => Err(Unreadable),
    }
}

fn float<T: std::str::FromStr>(text: &[u8]) -> Read<T> {
    // Rust reads `NaN`, `Infinity` and `-Infinity` as the server prints them.
    ascii(text)?.parse().map_err(|_| Unreadable)
}

/// Reads a run of 1 to `most` digits off the front.
fn digits(text: &mut &[u8], least: usize, most: usize) -> Read<i64> {
    let length = text.iter().take(most).take_while(|b| b.is_ascii_digit()).count();
    if length < least {
        return Err(Unreadable);
    }
    let (run, rest) = text.split_at(length);
    *text = rest;
    int(run)
}

fn literal(text: &mut &[u8], expected: u8) -> Read {
    match text.split_first() {
        Some((first, rest)) if *first == expected => {
            *text = rest;
            Ok(())
        }
        _ => Err(Unreadable),
    }
}

fn two(text: &mut &[u8]) -> Read<i64> {
    digits(text, 2, 2)
}

/// `2025-01-15`, years of 4 to 7 digits; the era is read by the caller.
fn year_month_day(text: &mut &[u8]) -> Read<(i32, u8, u8)> {
    let year = digits(text, 4, 7)?;
    literal(text, b'-')?;
    let month = two(text)?;
    literal(text, b'-')?;
    Ok((year as i32, month as u8, two(text)? as u8))
}

/// The date that `year_month_day` and a trailing ` BC` say; 1 BC is year 0.
fn calendar((year, month, day): (i32, u8, u8), era: &[u8]) -> Read<Date> {
    let year = match era {
        b"" => year,
        b" BC" => 1 - year,
        _ => return Err(Unreadable),
    };
    Date::from_ymd(year, month, day).ok_or(Unreadable)
}

fn date(mut text: &[u8]) -> Read<Date> {
    match text {
        b"infinity" => return Ok(Date::INFINITY),
        b"-infinity" => return Ok(Date::NEG_INFINITY),
        _ => {}
    }
    let ymd = year_month_day(&mut text)?;
    calendar(ymd, text)
}

/// `14:32:01.5` as microseconds; hours of any length are for the caller to refuse.
fn clock(text: &mut &[u8]) -> Read<i64> {
    let hours = two(text)?;
    literal(text, b':')?;
    let minutes = two(text)?;
    literal(text, b':')?;
    let seconds = two(text)?;
    let micros = fraction(text)?;
    Ok(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

/// `.5` as microseconds; 0 without one.
fn fraction(text: &mut &[u8]) -> Read<i64> {
    if text.first() != Some(&b'.') {
        return Ok(0);
    }
    *text = &text[1..];
    let length = text.len();
    let n = digits(text, 1, 6)?;
    Ok(n * 10_i64.pow(6 - (length - text.len()) as u32))
}

fn time(mut text: &[u8]) -> Read<i64> {
    let micros = clock(&mut text)?;
    if text.is_empty() { Ok(micros) } else { Err(Unreadable) }
}

/// `+02`, `-03:30`, `+00:00:30` in seconds.
fn offset(text: &mut &[u8]) -> Read<i32> {
    let sign = match text.split_first() {
        Some((b'+', _)) => 1,
        Some((b'-', _)) => -1,
        _ => return Err(Unreadable),
    };
    *text = &text[1..];
    let mut seconds = two(text)? * 3600;
    for unit in [60, 1] {
        if text.first() == Some(&b':') {
            *text = &text[1..];
            seconds += two(text)? * unit;
        }
    }
    Ok(sign * seconds as i32)
}

fn timetz(mut text: &[u8]) -> Read<TimeTz> {
    let micros = clock(&mut text)?;
    let offset_secs = offset(&mut text)?;
    if text.is_empty() { Ok(TimeTz { micros, offset_secs }) } else { Err(Unreadable) }
}

fn infinite(text: &[u8]) -> Option<Moment> {
    match text {
        b"infinity" => Some(Moment::INFINITY),
        b"-infinity" => Some(Moment::NEG_INFINITY),
        _ => None,
    }
}

fn moment_of(date: Date, micros: i64) -> Moment {
    let secs = i64::from(date.days) * 86_400 + micros / 1_000_000;
    Moment { secs, nanos: (micros % 1_000_000) as u32 * 1000 }
}

/// `2025-01-15 14:32:01.847`, `0044-03-15 12:00:00 BC`.
fn moment(mut text: &[u8]) -> Read<Moment> {
    if let Some(moment) = infinite(text) {
        return Ok(moment);
    }
    let ymd = year_month_day(&mut text)?;
    literal(&mut text, b' ')?;
    let micros = clock(&mut text)?;
    Ok(moment_of(calendar(ymd, text)?, micros))
}

/// `2025-01-15 14:32:01.847+00`, with an era after the offset.
fn utc_moment(mut text: &[u8]) -> Read<Moment> {
    if let Some(moment) = infinite(text) {
        return Ok(moment);
    }
    let ymd = year_month_day(&mut text)?;
    literal(&mut text, b' ')?;
    let micros = clock(&mut text)?;
    let offset_secs = offset(&mut text)?;
    let local = moment_of(calendar(ymd, text)?, micros);
    Ok(Moment { secs: local.secs - i64::from(offset_secs), ..local })
}

/// `P1Y2M3DT4H5M6.78S`, each component with its own sign, as IntervalStyle `iso_8601` prints it; from PostgreSQL 17 also the
/// infinities, which are the ends of the three ranges.
fn interval(mut text: &[u8]) -> Read<Interval> {
    match text {
        b"infinity" => return Ok(Interval { months: i32::MAX, days: i32::MAX, micros: i64::MAX }),
        b"-infinity" => return Ok(Interval { months: i32::MIN, days: i32::MIN, micros: i64::MIN }),
        _ => {}
    }
    literal(&mut text, b'P')?;
    let (mut months, mut days, mut micros) = (0_i64, 0_i64, 0_i64);
    let mut in_time = false;
    if text.is_empty() {
        return Err(Unreadable);
    }
    while !text.is_empty() {
        if !in_time && text.first() == Some(&b'T') {
            in_time = true;
            text = &text[1..];
        }
        let negative = text.first() == Some(&b'-');
        if negative {
            text = &text[1..];
        }
        let sign = if negative { -1 } else { 1 };
        let n = digits(&mut text, 1, 19)?;
        let part = fraction(&mut text)?;
        let (unit, rest) = text.split_first().ok_or(Unreadable)?;
        text = rest;
        let scaled = |factor: i64| n.checked_mul(factor).ok_or(Unreadable);
        let add = |to: i64, n: i64| to.checked_add(sign * n).ok_or(Unreadable);
        match (in_time, unit) {
            (false, b'Y') => months = add(months, scaled(12)?)?,
            (false, b'M') => months = add(months, n)?,
            (false, b'D') => days = add(days, n)?,
            (true, b'H') => micros = add(micros, scaled(3_600_000_000)?)?,
            (true, b'M') => micros = add(micros, scaled(60_000_000)?)?,
            (true, b'S') => micros = add(micros, scaled(1_000_000)?.checked_add(part).ok_or(Unreadable)?)?,
            _ => return Err(Unreadable),
        }
    }
    let narrow = |n: i64| i32::try_from(n).map_err(|_| Unreadable);
    Ok(Interval { months: narrow(months)?, days: narrow(days)?, micros })
}

fn hex_digit(digit: u8) -> Read<u8> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(Unreadable),
    }
}

/// `\x00ff`.
fn unhex(text: &[u8], out: &mut Vec<u8>) -> Read {
    let digits = text.strip_prefix(b"\\x").ok_or(Unreadable)?;
    if digits.len() % 2 != 0 {
        return Err(Unreadable);
    }
    out.reserve(digits.len() / 2);
    for pair in digits.chunks_exact(2) {
        out.push(hex_digit(pair[0])? << 4 | hex_digit(pair[1])?);
    }
    Ok(())
}

fn uuid(text: &[u8]) -> Read<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut digits = text.iter().filter(|b| **b != b'-');
    for byte in &mut bytes {
        let (high, low) = (digits.next().ok_or(Unreadable)?, digits.next().ok_or(Unreadable)?);
        *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
    }
    if digits.next().is_none() { Ok(bytes) } else { Err(Unreadable) }
}

/// Copies JSON without the white space between its tokens; numbers, escapes and the order of members stay as they are.
fn compact_json(text: &[u8], out: &mut Vec<u8>) -> Read {
    simdutf8::basic::from_utf8(text).map_err(|_| Unreadable)?;
    out.reserve(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|b| matches!(b, b'"' | b' ' | b'\n' | b'\r' | b'\t')) {
        out.extend_from_slice(&rest[..at]);
        if rest[at] == b'"' {
            let length = string_length(&rest[at..])?;
            out.extend_from_slice(&rest[at..at + length]);
            rest = &rest[at + length..];
        } else {
            rest = &rest[at + 1..];
        }
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// Bytes of the JSON string that `text` begins with, both quotes counted.
fn string_length(text: &[u8]) -> Read<usize> {
    let mut at = 1;
    loop {
        match text.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return Err(Unreadable),
        }
    }
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
