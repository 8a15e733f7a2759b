//! The one place that reads the wall clock. Durations are measured with tokio's `Instant`, which simulations steer.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970-01-01T00:00:00Z.
#[allow(clippy::disallowed_methods)]
pub fn unix_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Milliseconds since 1970-01-01T00:00:00Z.
pub fn unix_millis() -> i64 {
    unix_micros() / 1000
}

/// A Unix time in milliseconds as RFC 3339 in UTC with milliseconds: `2026-01-15T10:30:00.123Z`.
pub fn rfc3339_millis(unix_ms: i64) -> String {
    let days = unix_ms.div_euclid(86_400_000);
    let of_day = unix_ms.rem_euclid(86_400_000);
    let (y, m, d) = crate::value::Date { days: days.clamp(i32::MIN.into(), i32::MAX.into()) as i32 }.ymd();
    let (secs, ms) = (of_day / 1000, of_day % 1000);
    format!("{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}.{ms:03}Z", secs / 3600, secs / 60 % 60, secs % 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn rfc3339() {
        assert_eq!(super::rfc3339_millis(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(super::rfc3339_millis(1_736_951_521_847), "2025-01-15T14:32:01.847Z");
        assert_eq!(super::rfc3339_millis(-1), "1969-12-31T23:59:59.999Z");
    }
}
