//! Dates and times. Three layouts of each are in use: the packed one of MySQL 5.6 and later, the decimal digits of earlier
//! servers, and MariaDB's own with fractions from before it took over MySQL's; tables keep the layout they were made with.
//!
//! Sources: MySQL's `mysys/my_time.cc`, `my_time_packed_from_binary`, `my_datetime_packed_from_binary`,
//! `my_timestamp_from_binary`; MariaDB's `sql/field.cc`, `Field_time_hires`, `Field_datetime_hires`, `Field_timestamp_hires`.

use super::{Malformed, Refused, Written, big_endian, little_endian};
use deltaforge_core::row::CellWriter;
use deltaforge_core::value::{Date, Moment, Value};

/// What becomes of a date whose month or day is zero: no calendar has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroDate {
    /// Null in a nullable column, else as [`ZeroDate::String`].
    Null,
    /// `0000-00-00` when all of it is zero, else the digits as they are stored.
    String,
    /// [`Refused::ZeroDate`].
    Error,
}

impl ZeroDate {
    pub(super) fn of_column(self, nullable: bool) -> ZeroDate {
        if self == ZeroDate::Null && !nullable { ZeroDate::String } else { self }
    }
}

/// A layout, with the number of fraction digits, 0 to 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Packed(u8),
    Digits,
    HighResolution(u8),
}

impl Form {
    pub(super) fn packed(meta: u16) -> Result<Form, &'static str> {
        u8::try_from(meta).ok().filter(|digits| *digits <= 6).map(Form::Packed).ok_or(TOO_FINE)
    }

    /// The layouts under the old type codes, which the log does not tell apart: only MariaDB's has fractions.
    pub(super) fn old(declared: &str) -> Result<Form, &'static str> {
        match digits_in(declared) {
            None | Some(0) => Ok(Form::Digits),
            Some(digits @ 1..=6) => Ok(Form::HighResolution(digits as u8)),
            Some(_) => Err(TOO_FINE),
        }
    }

    #[inline]
    pub(super) fn time_size(self) -> usize {
        match self {
            Form::Packed(digits) => 3 + fraction_bytes(digits),
            Form::Digits => 3,
            Form::HighResolution(digits) => 3 + usize::from(digits).div_ceil(2),
        }
    }

    #[inline]
    pub(super) fn datetime_size(self) -> usize {
        match self {
            Form::Packed(digits) => 5 + fraction_bytes(digits),
            Form::Digits => 8,
            Form::HighResolution(digits) => 5 + usize::from(digits).div_ceil(2),
        }
    }

    #[inline]
    pub(super) fn timestamp_size(self) -> usize {
        match self {
            Form::Packed(digits) | Form::HighResolution(digits) => 4 + fraction_bytes(digits),
            Form::Digits => 4,
        }
    }
}

const TOO_FINE: &str = "a time with more than six fraction digits";

#[inline]
fn fraction_bytes(digits: u8) -> usize {
    usize::from(digits).div_ceil(2)
}

/// The number in parentheses of a declaration: `datetime(3)`, `year(2)`.
pub(super) fn digits_in(declared: &str) -> Option<u32> {
    let (_, inside) = declared.split_once('(')?;
    inside.split_once(')')?.0.parse().ok()
}

const MALFORMED: Malformed = Malformed("a date or time with fields out of range");

/// Splits a packed number into its whole part and the microseconds of its fraction.
#[inline]
fn split(number: u64, digits: u8) -> Result<(u64, u32), Malformed> {
    let bits = 8 * fraction_bytes(digits);
    let unit = [1, 10_000, 100, 1][fraction_bytes(digits).min(3)];
    let micros = (number & ((1 << bits) - 1)) * unit;
    if micros < 1_000_000 { Ok((number >> bits, micros as u32)) } else { Err(MALFORMED) }
}

/// The number of units of a fraction with so many digits in a second.
#[inline]
fn per_second(digits: u8) -> u64 {
    [1, 10, 100, 1000, 10_000, 100_000, 1_000_000][usize::from(digits).min(6)]
}

/// Takes the part below `radix` off a number.
#[inline]
fn part(number: &mut u64, radix: u64) -> u64 {
    let part = *number % radix;
    *number /= radix;
    part
}

/// A signed span in microseconds.
#[inline]
pub(super) fn time(raw: &[u8], form: Form) -> Result<i64, Malformed> {
    let (negative, hours, minutes, seconds, micros) = match form {
        Form::Packed(digits) => {
            // The middle of the range stands for zero, and a negative time is as far below it as its positive one above.
            let middle = 1_i64 << (8 * raw.len() - 1);
            let number = big_endian(raw) as i64 - middle;
            let (whole, micros) = split(number.unsigned_abs(), digits)?;
            (number < 0, whole >> 12, whole >> 6 & 63, whole & 63, u64::from(micros))
        }
        Form::Digits => {
            let number = (little_endian(raw) << 40) as i64 >> 40;
            let mut rest = number.unsigned_abs();
            let (seconds, minutes) = (part(&mut rest, 100), part(&mut rest, 100));
            (number < 0, rest, minutes, seconds, 0)
        }
        Form::HighResolution(digits) => {
            // The same with the first time beyond the range, 839:00:00, in place of the middle.
            const ZERO_AT: u64 = 839 * 3600;
            let per_second = per_second(digits);
            let number = big_endian(raw) as i64 - (ZERO_AT * per_second) as i64;
            let mut rest = number.unsigned_abs();
            let micros = part(&mut rest, per_second) * (1_000_000 / per_second);
            let (seconds, minutes) = (part(&mut rest, 60), part(&mut rest, 60));
            (number < 0, rest, minutes, seconds, micros)
        }
    };
    if hours > 838 || minutes > 59 || seconds > 59 {
        return Err(MALFORMED);
    }
    let micros = (((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros) as i64;
    Ok(if negative { -micros } else { micros })
}

/// A date and time as its digits say.
struct Digits {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    micros: u32,
}

impl Digits {
    fn in_range(&self) -> bool {
        let date = self.year <= 9999 && self.month <= 12 && self.day <= 31;
        date && self.hour < 24 && self.minute < 60 && self.second < 60
    }

    fn has_zero(&self) -> bool {
        self.month == 0 || self.day == 0
    }

    fn date(&self) -> Option<Date> {
        Date::from_ymd(self.year as i32, self.month as u8, self.day as u8)
    }

    /// The text of what is no date: `0000-00-00`, `2024-00-15T10:00:00.5`.
    #[cold]
    fn write(&self, with_time: bool, cell: &mut CellWriter<'_>) -> Result<(), Malformed> {
        let mut text = *b"0000-00-00T00:00:00.000000";
        let mut put = |at: usize, digits: usize, number: u64| {
            let mut rest = number;
            for place in text[at..at + digits].iter_mut().rev() {
                *place = b'0' + part(&mut rest, 10) as u8;
            }
        };
        put(0, 4, self.year);
        put(5, 2, self.month);
        put(8, 2, self.day);
        put(11, 2, self.hour);
        put(14, 2, self.minute);
        put(17, 2, self.second);
        put(20, 6, self.micros.into());
        let all_zero = text.iter().all(|byte| !matches!(byte, b'1'..=b'9'));
        let end = match self.micros {
            _ if all_zero || !with_time => 10,
            0 => 19,
            _ => text.iter().rposition(|byte| *byte != b'0').map_or(0, |last| last + 1),
        };
        cell.put(Value::Text(std::str::from_utf8(&text[..end]).map_err(|_| MALFORMED)?));
        Ok(())
    }
}

/// Writes a date or a date and time, or what stands for one.
#[inline]
fn write(digits: &Digits, with_time: bool, zero_date: ZeroDate, cell: &mut CellWriter<'_>) -> Written {
    if !digits.in_range() {
        return Err(MALFORMED.into());
    }
    if digits.has_zero() {
        match zero_date {
            ZeroDate::Null => cell.put(Value::Null),
            ZeroDate::String => digits.write(with_time, cell)?,
            ZeroDate::Error => return Err(Refused::ZeroDate),
        }
        return Ok(true);
    }
    // `ALLOW_INVALID_DATES` lets in the 31st of every month.
    let Some(date) = digits.date() else {
        digits.write(with_time, cell)?;
        return Ok(false);
    };
    cell.put(if with_time {
        let seconds = (digits.hour * 60 + digits.minute) * 60 + digits.second;
        let secs = i64::from(date.days) * 86_400 + seconds as i64;
        Value::DateTime(Moment { secs, nanos: digits.micros * 1000 })
    } else {
        Value::Date(date)
    });
    Ok(true)
}

#[inline]
pub(super) fn date(raw: [u8; 3], zero_date: ZeroDate, cell: &mut CellWriter<'_>) -> Written {
    let number = little_endian(&raw);
    let (year, month, day) = (number >> 9, number >> 5 & 15, number & 31);
    let digits = Digits { year, month, day, hour: 0, minute: 0, second: 0, micros: 0 };
    write(&digits, false, zero_date, cell)
}

#[inline]
pub(super) fn datetime(raw: &[u8], form: Form, zero_date: ZeroDate, cell: &mut CellWriter<'_>) -> Written {
    let digits = match form {
        Form::Packed(digits) => {
            let (whole, micros) = split(big_endian(raw), digits)?;
            // A bit for the sign, always set, 17 for the months since year 0 counted as 13 a year, then the rest.
            let mut rest = whole.checked_sub(1 << 39).ok_or(MALFORMED)?;
            let (second, minute, hour) = (part(&mut rest, 64), part(&mut rest, 64), part(&mut rest, 32));
            let (day, month) = (part(&mut rest, 32), part(&mut rest, 13));
            Digits { year: rest, month, day, hour, minute, second, micros }
        }
        Form::Digits => {
            let mut rest = little_endian(raw);
            let (second, minute, hour) = (part(&mut rest, 100), part(&mut rest, 100), part(&mut rest, 100));
            let (day, month) = (part(&mut rest, 100), part(&mut rest, 100));
            Digits { year: rest, month, day, hour, minute, second, micros: 0 }
        }
        Form::HighResolution(digits) => {
            let mut rest = big_endian(raw);
            let per_second = per_second(digits);
            let micros = (part(&mut rest, per_second) * (1_000_000 / per_second)) as u32;
            let (second, minute, hour) = (part(&mut rest, 60), part(&mut rest, 60), part(&mut rest, 24));
            let (day, month) = (part(&mut rest, 32), part(&mut rest, 13));
            Digits { year: rest, month, day, hour, minute, second, micros }
        }
    };
    write(&digits, true, zero_date, cell)
}

#[inline]
pub(super) fn timestamp(raw: &[u8], form: Form, zero_date: ZeroDate, cell: &mut CellWriter<'_>) -> Written {
    let (secs, micros) = match form {
        Form::Packed(digits) => split(big_endian(raw), digits)?,
        Form::Digits => (little_endian(raw), 0),
        Form::HighResolution(digits) => {
            let (whole, fraction) = raw.split_at_checked(4).ok_or(MALFORMED)?;
            let per_second = per_second(digits);
            let fraction = big_endian(fraction);
            if fraction >= per_second {
                return Err(MALFORMED.into());
            }
            (big_endian(whole), (fraction * (1_000_000 / per_second)) as u32)
        }
    };
    if secs == 0 && micros == 0 {
        let zero = Digits { year: 0, month: 0, day: 0, hour: 0, minute: 0, second: 0, micros: 0 };
        return write(&zero, true, zero_date, cell);
    }
    cell.put(Value::Timestamp(Moment { secs: secs as i64, nanos: micros * 1000 }));
    Ok(true)
}
