//! Dates, times and spans as ISO 8601 text, without quotes.
//!
//! Up to six fraction digits, trailing zeros dropped, nothing left of an empty fraction. Years above 9999 carry `+`; years
//! before 1 are astronomical (`0000` is 1 BC) and carry `-` below 0.

use crate::json::{PAIRS, padded};
use deltaforge_core::value::{Date, Interval, Moment, TimeTz};

const SECONDS_PER_DAY: i64 = 86_400;

#[inline]
fn pair(n: u32) -> [u8; 2] {
    PAIRS[(n % 100) as usize]
}

/// Appends `2025-01-15`.
pub(crate) fn date(date: Date, out: &mut Vec<u8>) {
    match date {
        Date::INFINITY => out.extend_from_slice(b"infinity"),
        Date::NEG_INFINITY => out.extend_from_slice(b"-infinity"),
        date => calendar(date, out),
    }
}

#[inline]
fn calendar(date: Date, out: &mut Vec<u8>) {
    let (year, month, day) = date.ymd();
    let mut text = *b"0000-00-00";
    if let Ok(year @ 0..=9999) = u32::try_from(year) {
        [text[0], text[1]] = pair(year / 100);
        [text[2], text[3]] = pair(year);
    } else {
        far_year(year, out);
    }
    [text[5], text[6]] = pair(month.into());
    [text[8], text[9]] = pair(day.into());
    if (0..=9999).contains(&year) {
        out.extend_from_slice(&text);
    } else {
        out.extend_from_slice(&text[4..]);
    }
}

#[cold]
fn far_year(year: i32, out: &mut Vec<u8>) {
    out.push(if year < 0 { b'-' } else { b'+' });
    let year = year.unsigned_abs();
    if year < 10_000 {
        out.extend_from_slice(&pair(year / 100));
        out.extend_from_slice(&pair(year));
    } else {
        crate::json::uint(year.into(), out);
    }
}

/// Appends `2025-01-15T14:32:01.847`, and `Z` when it is in UTC.
pub(crate) fn moment(moment: Moment, utc: bool, out: &mut Vec<u8>) {
    match moment {
        Moment::INFINITY => return out.extend_from_slice(b"infinity"),
        Moment::NEG_INFINITY => return out.extend_from_slice(b"-infinity"),
        _ => {}
    }
    day_of(moment.secs, out);
    out.push(b'T');
    clock(moment.secs.rem_euclid(SECONDS_PER_DAY) as u64, moment.nanos / 1000, out);
    if utc {
        out.push(b'Z');
    }
}

fn day_of(unix_secs: i64, out: &mut Vec<u8>) {
    // Days beyond `i32` are no calendar's; the nearest end is as good as any and never panics.
    let days = unix_secs.div_euclid(SECONDS_PER_DAY).clamp(i32::MIN.into(), i32::MAX.into()) as i32;
    calendar(Date { days }, out);
}

/// Appends Unix milliseconds as RFC 3339 with exactly three fraction digits and `Z`.
pub(crate) fn rfc3339_millis(unix_ms: i64, out: &mut Vec<u8>) {
    let secs = unix_ms.div_euclid(1000);
    day_of(secs, out);
    out.push(b'T');
    clock(secs.rem_euclid(SECONDS_PER_DAY) as u64, 0, out);
    let ms = unix_ms.rem_euclid(1000) as u32;
    let [tens, ones] = pair(ms);
    out.extend_from_slice(&[b'.', b'0' + (ms / 100) as u8, tens, ones, b'Z']);
}

/// Appends a time of day or a signed span of hours: `14:32:01.5`, `-838:59:59.000001`.
pub(crate) fn time(micros: i64, out: &mut Vec<u8>) {
    if micros < 0 {
        out.push(b'-');
    }
    let micros = micros.unsigned_abs();
    clock(micros / 1_000_000, (micros % 1_000_000) as u32, out);
}

/// Appends `14:32:01+02:00`; seconds of the offset only when there are some.
pub(crate) fn time_tz(t: TimeTz, out: &mut Vec<u8>) {
    time(t.micros, out);
    out.push(if t.offset_secs < 0 { b'-' } else { b'+' });
    let offset = t.offset_secs.unsigned_abs();
    out.extend_from_slice(&pair(offset / 3600));
    out.push(b':');
    out.extend_from_slice(&pair(offset / 60 % 60));
    if !offset.is_multiple_of(60) {
        out.push(b':');
        out.extend_from_slice(&pair(offset % 60));
    }
}

/// `hh:mm:ss` and a fraction; hours have at least two digits and no upper end.
#[inline]
fn clock(secs: u64, micros: u32, out: &mut Vec<u8>) {
    let (hours, in_hour) = (secs / 3600, (secs % 3600) as u32);
    if hours < 100 {
        out.extend_from_slice(&pair(hours as u32));
    } else {
        crate::json::uint(hours, out);
    }
    let mut text = *b":00:00.000000";
    [text[1], text[2]] = pair(in_hour / 60);
    [text[4], text[5]] = pair(in_hour % 60);
    let mut end = 6;
    if micros > 0 {
        [text[7], text[8]] = pair(micros / 10_000);
        [text[9], text[10]] = pair(micros / 100);
        [text[11], text[12]] = pair(micros);
        end = text.len();
        while text[end - 1] == b'0' {
            end -= 1;
        }
    }
    padded(&text, end, out);
}

/// Appends an ISO 8601 duration as PostgreSQL's `iso_8601` style prints it, each component with its own sign:
/// `P-1Y2M3DT-4H5M-6.5S`, zero `PT0S`.
pub(crate) fn interval(interval: Interval, out: &mut Vec<u8>) {
    let Interval { months, days, micros } = interval;
    match (months, days, micros) {
        (0, 0, 0) => return out.extend_from_slice(b"PT0S"),
        // PostgreSQL 17's infinities: the ends of all three ranges.
        (i32::MAX, i32::MAX, i64::MAX) => return out.extend_from_slice(b"infinity"),
        (i32::MIN, i32::MIN, i64::MIN) => return out.extend_from_slice(b"-infinity"),
        _ => {}
    }
    let part = |n: i64, unit: u8, out: &mut Vec<u8>| {
        if n != 0 {
            crate::json::int(n, out);
            out.push(unit);
        }
    };
    out.push(b'P');
    part((months / 12).into(), b'Y', out);
    part((months % 12).into(), b'M', out);
    part(days.into(), b'D', out);
    if micros == 0 {
        return;
    }
    out.push(b'T');
    let seconds = micros / 1_000_000;
    part(seconds / 3600, b'H', out);
    part(seconds / 60 % 60, b'M', out);
    let rest = micros % 60_000_000;
    if rest != 0 {
        if rest < 0 {
            out.push(b'-');
        }
        let rest = rest.unsigned_abs();
        crate::json::uint(rest / 1_000_000, out);
        fraction((rest % 1_000_000) as u32, out);
        out.push(b'S');
    }
}

fn fraction(micros: u32, out: &mut Vec<u8>) {
    if micros == 0 {
        return;
    }
    out.push(b'.');
    out.extend_from_slice(&pair(micros / 10_000));
    out.extend_from_slice(&pair(micros / 100));
    out.extend_from_slice(&pair(micros));
    while out.last() == Some(&b'0') {
        out.pop();
    }
}
