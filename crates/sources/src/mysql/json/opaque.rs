//! Values of SQL types inside a document: decimals, dates and times, bytes.

use super::scalar::quoted;
use super::{Malformed, Result};

const TIMESTAMP: u8 = 7;
const DATE: u8 = 10;
const TIME: u8 = 11;
const DATETIME: u8 = 12;
const NEWDECIMAL: u8 = 246;
const VAR_STRING: u8 = 253;

/// Appends a value of an SQL type as the server prints it; `field_type` is the number of MySQL's `enum_field_types`.
pub(super) fn write(field_type: u8, value: &[u8], out: &mut Vec<u8>) -> Result<()> {
    match field_type {
        NEWDECIMAL => decimal(value, out),
        DATE | TIME | DATETIME | TIMESTAMP => temporal(field_type, value, out),
        VAR_STRING => {
            quoted(value, out);
            Ok(())
        }
        _ => {
            base64(field_type, value, out);
            Ok(())
        }
    }
}

/// `"base64:type252:…"`, a line break after every 76 characters, as its base64 routine always does.
fn base64(field_type: u8, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"base64:type");
    out.extend_from_slice(itoa::Buffer::new().format(field_type).as_bytes());
    out.push(b':');
    for (i, line) in value.chunks(57).enumerate() {
        if i > 0 {
            out.extend_from_slice(b"\\n");
        }
        base64_simd::STANDARD.encode_append(line, out);
    }
    out.push(b'"');
}

/// Eight bytes: `(date << 17 | hour << 12 | minute << 6 | second) << 24 | microseconds`, date being
/// `(year * 13 + month) << 5 | day`, negated for negative times. `TIME_from_longlong_packed` in `mysys/my_time.cc`.
fn temporal(field_type: u8, value: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let bad = Malformed("JSON: a date or time out of range");
    let packed = i64::from_le_bytes(value.try_into().map_err(|_| bad)?);
    let (negative, packed) = (packed < 0, packed.unsigned_abs());
    let (clock, micros) = (packed >> 24, packed & 0xff_ffff);
    let (minute, second) = (clock >> 6 & 0x3f, clock & 0x3f);
    let (hour, date) = if field_type == TIME { (clock >> 12, 0) } else { (clock >> 12 & 0x1f, clock >> 17) };
    let (year, month, day) = ((date >> 5) / 13, (date >> 5) % 13, date & 0x1f);
    let hours = if field_type == TIME { 838 } else { 23 };
    if hour > hours || minute > 59 || second > 59 || micros > 999_999 || year > 9999 {
        return Err(bad);
    }
    if negative && field_type != TIME {
        return Err(bad);
    }
    out.push(b'"');
    if field_type != TIME {
        digits::<4>(year, out);
        out.push(b'-');
        digits::<2>(month, out);
        out.push(b'-');
        digits::<2>(day, out);
    }
    if field_type != DATE {
        match field_type {
            TIME if negative => out.push(b'-'),
            TIME => {}
            _ => out.push(b' '),
        }
        if hour > 99 {
            digits::<3>(hour, out);
        } else {
            digits::<2>(hour, out);
        }
        out.push(b':');
        digits::<2>(minute, out);
        out.push(b':');
        digits::<2>(second, out);
        out.push(b'.');
        digits::<6>(micros, out);
    }
    out.push(b'"');
    Ok(())
}

/// A precision, a scale and the digits as in a `DECIMAL` column (`decimal2bin` in `strings/decimal.cc`): groups of nine digits in
/// four bytes from the point outwards, the outer groups in as few bytes as their digits need, big-endian; the top bit
/// says that the number is not negative, and in negative numbers every bit is turned over. A product of two columns can have
/// 81 digits here, where a column has 65 at most.
fn decimal(value: &[u8], out: &mut Vec<u8>) -> Result<()> {
    const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
    let bad = Malformed("JSON: a malformed decimal");
    let [precision, scale, packed @ ..] = value else { return Err(bad) };
    let (precision, scale) = (usize::from(*precision), usize::from(*scale));
    let whole = precision.checked_sub(scale).ok_or(bad)?;
    let negative = packed.first().ok_or(bad)? & 0x80 == 0;
    let flip = if negative { 0xff } else { 0 };
    if negative {
        out.push(b'-');
    }
    // The digits of each group, from the left.
    let groups = [whole % 9].into_iter().chain(std::iter::repeat_n(9, whole / 9));
    let fraction = std::iter::repeat_n(9, scale / 9).chain([scale % 9]);
    let mut rest = packed;
    let mut top = 0x80;
    let mut group = |digits: usize| -> Result<u32> {
        let (bytes, after) = rest.split_at_checked(BYTES[digits]).ok_or(bad)?;
        rest = after;
        let number =
            bytes.iter().fold(0, |n, byte| n << 8 | u32::from(byte ^ flip ^ std::mem::take(&mut top)));
        if number < 10u32.pow(digits as u32) { Ok(number) } else { Err(bad) }
    };
    let mut leading = true;
    for digits in groups {
        let number = group(digits)?;
        if !leading {
            padded(number, digits, out);
        } else if number != 0 {
            out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
            leading = false;
        }
    }
    if leading {
        out.push(b'0');
    }
    if scale > 0 {
        out.push(b'.');
    }
    for digits in fraction {
        padded(group(digits)?, digits, out);
    }
    if rest.is_empty() { Ok(()) } else { Err(bad) }
}

/// A number in exactly this many digits, at most nine.
fn padded(mut number: u32, digits: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + digits, b'0');
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn digits<const N: usize>(number: u64, out: &mut Vec<u8>) {
    padded(number as u32, N, out);
}
