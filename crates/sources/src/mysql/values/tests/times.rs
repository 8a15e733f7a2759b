//! Dates and times in their three layouts, and what no calendar has. The bytes are what MySQL 9.7 and MariaDB 10.11 logged.

use super::*;

fn declared(declared: &'static str) -> Facts<'static> {
    Facts { declared, ..facts() }
}

/// Without its quotes.
fn text(codec: &Codec, bytes: &str) -> String {
    shown(codec, &hex(bytes)).trim_matches('"').to_owned()
}

#[test]
fn times_of_all_layouts() {
    let cases = [
        (T::Time2, 0, "time", "4b9105", "-838:59:59"),
        (T::Time2, 0, "time", "b46efb", "838:59:59"),
        (T::Time2, 0, "time", "800000", "00:00:00"),
        (T::Time2, 0, "time", "7fffff", "-00:00:01"),
        (T::Time2, 1, "time(1)", "7ffffff6", "-00:00:00.1"),
        (T::Time2, 1, "time(1)", "80e80132", "14:32:01.5"),
        (T::Time2, 2, "time(2)", "80000163", "00:00:01.99"),
        (T::Time2, 3, "time(3)", "7fef7cee30", "-01:02:03.456"),
        (T::Time2, 4, "time(4)", "7ffffeffff", "-00:00:01.0001"),
        (T::Time2, 5, "time(5)", "79bffffffff6", "-100:00:00.00001"),
        (T::Time2, 6, "time(6)", "4b9104ffffff", "-838:59:59.000001"),
        (T::Time2, 6, "time(6)", "80e80107a120", "14:32:01.5"),
        (T::Time, 0, "time", "590a80", "-838:59:59"),
        (T::Time, 0, "time", "a7f57f", "838:59:59"),
        (T::Time, 0, "time /* mariadb-5.3 */", "ffffff", "-00:00:01"),
        (T::Time, 0, "time(1) /* mariadb-5.3 */", "01cce05f", "-00:00:00.1"),
        (T::Time, 0, "time(1) /* mariadb-5.3 */", "01cce060", "00:00:00"),
        (T::Time, 0, "time(3) /* mariadb-5.3 */", "0000000001", "-838:59:59.999"),
        (T::Time, 0, "time(3) /* mariadb-5.3 */", "00c97ccf80", "100:00:00"),
        (T::Time, 0, "time(6) /* mariadb-5.3 */", "0000000f423f", "-838:59:59.000001"),
        (T::Time, 0, "time(6) /* mariadb-5.3 */", "057e7bbcf7ff", "838:59:59.999999"),
    ];
    for (ty, digits, declaration, bytes, expected) in cases {
        assert_eq!(
            text(&codec(ty, digits, &declared(declaration)), bytes),
            expected,
            "{declaration} {bytes}"
        );
    }
}

#[test]
fn dates_of_all_layouts() {
    let cases = [
        (T::Date, 0, "date", "2fd20f", "2025-01-15"),
        (T::NewDate, 0, "date", "9f1f4e", "9999-12-31"),
        (T::DateTime2, 0, "datetime", "99b59ee801", "2025-01-15T14:32:01"),
        (T::DateTime2, 1, "datetime(1)", "99b59ee80132", "2025-01-15T14:32:01.5"),
        (T::DateTime2, 2, "datetime(2)", "fef3ff7efb63", "9999-12-31T23:59:59.99"),
        (T::DateTime2, 3, "datetime(3)", "99b59ee801000a", "2025-01-15T14:32:01.001"),
        (T::DateTime2, 4, "datetime(4)", "80038200000000", "0001-01-01T00:00:00"),
        (T::DateTime2, 5, "datetime(5)", "8000420000000000", "0000-01-01T00:00:00"),
        (T::DateTime2, 6, "datetime(6)", "99b59ee8010f423f", "2025-01-15T14:32:01.999999"),
        (T::DateTime, 0, "datetime", "2176ebd86a120000", "2025-01-15T14:32:01"),
        (T::DateTime, 0, "datetime(2) /* mariadb-5.3 */", "069eb725e047", "2025-01-15T14:32:01.99"),
        (T::DateTime, 0, "datetime(4) /* mariadb-5.3 */", "0295ff8acb7511", "2025-01-15T14:32:01.0001"),
        (T::DateTime, 0, "datetime(6) /* mariadb-5.3 */", "04fcee3943bfffff", "9999-12-31T23:59:59.999999"),
        (T::Timestamp2, 0, "timestamp", "6787c6e1", "2025-01-15T14:32:01Z"),
        (T::Timestamp2, 0, "timestamp", "ffffffff", "2106-02-07T06:28:15Z"),
        (T::Timestamp2, 1, "timestamp(1)", "0000000032", "1970-01-01T00:00:00.5Z"),
        (T::Timestamp2, 2, "timestamp(2)", "6787c6e163", "2025-01-15T14:32:01.99Z"),
        (T::Timestamp2, 3, "timestamp(3)", "7fffffff2706", "2038-01-19T03:14:07.999Z"),
        (T::Timestamp2, 6, "timestamp(6)", "6787c6e10f423f", "2025-01-15T14:32:01.999999Z"),
        (T::Timestamp, 0, "timestamp", "e1c68767", "2025-01-15T14:32:01Z"),
        (T::Timestamp, 0, "timestamp(1) /* mariadb-5.3 */", "6787c6e105", "2025-01-15T14:32:01.5Z"),
        (T::Timestamp, 0, "timestamp(3) /* mariadb-5.3 */", "6787c6e10001", "2025-01-15T14:32:01.001Z"),
        (T::Timestamp, 0, "timestamp(6) /* mariadb-5.3 */", "6787c6e10f423f", "2025-01-15T14:32:01.999999Z"),
    ];
    for (ty, digits, declaration, bytes, expected) in cases {
        assert_eq!(
            text(&codec(ty, digits, &declared(declaration)), bytes),
            expected,
            "{declaration} {bytes}"
        );
    }
}

/// Wholly zero in every type and layout, then dates of which a part is.
const ZEROS: &[(T, u16, &str, &str, &str)] = &[
    (T::Date, 0, "", "000000", "0000-00-00"),
    (T::DateTime2, 0, "", "8000000000", "0000-00-00"),
    (T::DateTime2, 6, "", "8000000000000000", "0000-00-00"),
    (T::DateTime, 0, "", "0000000000000000", "0000-00-00"),
    (T::DateTime, 0, "datetime(4)", "00000000000000", "0000-00-00"),
    (T::Timestamp2, 0, "", "00000000", "0000-00-00"),
    (T::Timestamp2, 6, "", "00000000000000", "0000-00-00"),
    (T::Timestamp, 0, "", "00000000", "0000-00-00"),
    (T::Timestamp, 0, "timestamp(3)", "000000000000", "0000-00-00"),
    (T::Date, 0, "", "0fd00f", "2024-00-15"),
    (T::DateTime2, 0, "", "99b21ea000", "2024-00-15T10:00:00"),
    (T::DateTime2, 1, "", "99b21ea00032", "2024-00-15T10:00:00.5"),
    (T::DateTime2, 2, "", "99b240a0000c", "2024-01-00T10:00:00.12"),
    (T::DateTime2, 4, "", "800000a00003e8", "0000-00-00T10:00:00.1"),
    (T::DateTime2, 6, "", "99b21ea000000001", "2024-00-15T10:00:00.000001"),
    (T::DateTime, 0, "", "6008e97e68120000", "2024-00-15T10:00:00"),
    (T::DateTime, 0, "datetime(2)", "069dd05678b2", "2024-00-15T10:00:00.5"),
];

#[test]
fn zero_dates_follow_the_setting() {
    for (ty, digits, declaration, bytes, expected) in ZEROS {
        let with = |zero_date, nullable| {
            let codec = codec(*ty, *digits, &Facts { zero_date, nullable, ..declared(declaration) });
            read(&codec, &hex(bytes))
        };
        let string = Ok((format!("\"{expected}\""), true));
        assert_eq!(with(ZeroDate::Null, true), Ok(("null".into(), true)), "{ty:?} {bytes}");
        assert_eq!(with(ZeroDate::Null, false), string, "{ty:?} {bytes}");
        for nullable in [false, true] {
            assert_eq!(with(ZeroDate::String, nullable), string, "{ty:?} {bytes}");
            assert_eq!(with(ZeroDate::Error, nullable), Err(Refused::ZeroDate), "{ty:?} {bytes}");
        }
    }
}

#[test]
fn days_that_a_month_does_not_have_stay_as_text() {
    let cases = [
        (T::Date, 0, "5fd00f", "2024-02-31"),
        (T::DateTime2, 0, "99b2bea000", "2024-02-31T10:00:00"),
        (T::DateTime2, 1, "99b33ea00032", "2024-04-31T10:00:00.5"),
        (T::DateTime2, 6, "99af7a0000000001", "2023-02-29T00:00:00.000001"),
    ];
    for (ty, digits, bytes, expected) in cases {
        let codec = codec(ty, digits, &Facts { zero_date: ZeroDate::Error, ..facts() });
        assert_eq!(read(&codec, &hex(bytes)), Ok((format!("\"{expected}\""), false)));
    }
}

#[test]
fn fields_out_of_range_are_malformed() {
    let cases = [
        (T::Date, 0, "", "afd10f"),
        (T::Date, 0, "", "2fffff"),
        (T::Time2, 0, "", "80003c"),
        (T::Time2, 0, "", "800f00"),
        (T::Time2, 0, "", "b47000"),
        (T::Time2, 0, "", "000000"),
        (T::Time2, 1, "", "80000064"),
        (T::Time2, 3, "", "8000002710"),
        (T::Time2, 6, "", "8000000f4240"),
        (T::Time, 0, "", "3c0000"),
        (T::Time, 0, "time(3)", "ffffffffff"),
        (T::DateTime2, 0, "", "7fffffffff"),
        (T::DateTime2, 0, "", "ffffffffff"),
        (T::DateTime2, 0, "", "99b59f8801"),
        (T::DateTime2, 0, "", "99b59eefc1"),
        (T::DateTime2, 2, "", "99b59ee80164"),
        (T::DateTime, 0, "", "ffffffffffffffff"),
        (T::DateTime, 0, "", "3c00000000000000"),
        (T::DateTime, 0, "datetime(6)", "ffffffffffffffff"),
        (T::Timestamp2, 2, "", "6787c6e164"),
        (T::Timestamp, 0, "timestamp(1)", "6787c6e10a"),
    ];
    for (ty, digits, declaration, bytes) in cases {
        let read = read(&codec(ty, digits, &declared(declaration)), &hex(bytes));
        assert!(matches!(read, Err(Refused::Malformed(_))), "{ty:?}({digits}) {bytes}: {read:?}");
    }
    for declaration in ["time(7)", "time(9)"] {
        let column = Column { ty: T::Time, meta: 0, nullable: true };
        assert!(Codec::new(&column, &declared(declaration)).is_err(), "{declaration}");
    }
}
