//! One column of one row, borrowed from the batch it lives in.

use crate::row::{ListRef, RecordRef};

/// A column's value. `Copy`, 24 bytes, borrows its text and bytes from the batch's arena.
///
/// `Null` is SQL NULL. `Absent` means that the log does not carry the value (an unchanged TOAST value, a column
/// outside a minimal row image); the row still has whatever value it had. The two are never interchangeable, so
/// every encoder has to decide what it writes for each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// Not in the log; not NULL.
    Absent,
    /// A boolean.
    Bool(bool),
    /// A signed integer of any width.
    Int(i64),
    /// An unsigned integer of any width.
    Uint(u64),
    /// A 32-bit float; may be NaN or infinite.
    Float32(f32),
    /// A 64-bit float; may be NaN or infinite.
    Float64(f64),
    /// An exact decimal as the server prints it, scale kept; also `NaN`, `Infinity`, `-Infinity`.
    Decimal(&'a str),
    /// Text in UTF-8.
    Text(&'a str),
    /// Raw bytes, and text that is invalid in its own character set.
    Bytes(&'a [u8]),
    /// One JSON text without insignificant white space.
    Json(&'a str),
    /// A calendar date.
    Date(Date),
    /// A time of day or a signed span of hours, in microseconds.
    Time(i64),
    /// A time of day with its offset from UTC.
    TimeTz(TimeTz),
    /// A date and time without a zone.
    DateTime(Moment),
    /// A date and time in UTC.
    Timestamp(Moment),
    /// A span of calendar and clock time.
    Interval(Interval),
    /// A UUID.
    Uuid(&'a [u8; 16]),
    /// An array.
    List(ListRef<'a>),
    /// Named members: a composite or a map.
    Record(RecordRef<'a>),
}

const _: () = assert!(size_of::<Value<'_>>() == 24);

/// Days since 1970-01-01 in the proleptic Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    /// Days since 1970-01-01; the two ends of the range stand for the infinities.
    pub days: i32,
}

impl Date {
    /// Later than every date.
    pub const INFINITY: Date = Date { days: i32::MAX };
    /// Earlier than every date.
    pub const NEG_INFINITY: Date = Date { days: i32::MIN };

    /// The date of an astronomical year (0 is 1 BC), month 1–12 and day 1–31; `None` outside the calendar.
    pub fn from_ymd(year: i32, month: u8, day: u8) -> Option<Date> {
        if month == 0 || month > 12 || day == 0 || day > days_in_month(year, month) {
            return None;
        }
        // Howard Hinnant's `days_from_civil`: years start in March so that the leap day is a year's last.
        let y = i64::from(year) - i64::from(month <= 2);
        let era = y.div_euclid(400);
        let year_of_era = y.rem_euclid(400);
        let month_from_march = (i64::from(month) + 9) % 12;
        let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        i32::try_from(era * 146_097 + day_of_era - 719_468).ok().map(|days| Date { days })
    }

    /// Astronomical year, month, day. Meaningless for the infinities.
    pub fn ymd(self) -> (i32, u8, u8) {
        let z = i64::from(self.days) + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u8;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 } as u8;
        ((year_of_era + era * 400 + i64::from(month <= 2)) as i32, month, day)
    }
}

fn days_in_month(year: i32, month: u8) -> u8 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A time of day with an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeTz {
    /// Microseconds since local midnight, 0 to 86 400 000 000 inclusive.
    pub micros: i64,
    /// Offset east of UTC in seconds.
    pub offset_secs: i32,
}

/// A point on a calendar: seconds since 1970-01-01T00:00:00 and the nanoseconds after them.
///
/// Two fields, because microseconds in one `i64` do not reach PostgreSQL's last year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Seconds since 1970-01-01T00:00:00; the two ends of the range stand for the infinities.
    pub secs: i64,
    /// 0 to 999 999 999.
    pub nanos: u32,
}

impl Moment {
    /// Later than every moment.
    pub const INFINITY: Moment = Moment { secs: i64::MAX, nanos: 0 };
    /// Earlier than every moment.
    pub const NEG_INFINITY: Moment = Moment { secs: i64::MIN, nanos: 0 };
}

/// A span in the three units that do not convert into each other, each with its own sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Calendar months; years are twelve of them.
    pub months: i32,
    /// Calendar days.
    pub days: i32,
    /// Microseconds of clock time.
    pub micros: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_round_trip_over_the_whole_range() {
        for days in [-2_440_588, -719_528, -1, 0, 1, 59, 60, 11_016, 20_000, 2_932_896, 2_145_042_905] {
            let (y, m, d) = Date { days }.ymd();
            assert_eq!(Date::from_ymd(y, m, d), Some(Date { days }), "{days}: {y}-{m}-{d}");
        }
        assert_eq!(Date::from_ymd(1970, 1, 1), Some(Date { days: 0 }));
        assert_eq!(Date::from_ymd(2000, 2, 29), Some(Date { days: 11_016 }));
        assert_eq!(Date::from_ymd(1900, 2, 29), None);
        assert_eq!(Date::from_ymd(-4712, 1, 1).map(Date::ymd), Some((-4712, 1, 1)));
    }
}
