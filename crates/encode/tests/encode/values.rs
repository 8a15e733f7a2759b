//! Each value and its JSON text.

use super::fixture::{one, schema, text};
use deltaforge_core::row::CellWriter;
use deltaforge_core::value::{Date, Interval, Moment, TimeTz};
use deltaforge_core::{Op, TableName, Value};
use deltaforge_encode::json;
use proptest::prelude::*;
use std::convert::Infallible;

fn check(cases: &[(Value<'_>, &str)]) {
    for (value, expected) in cases {
        let written = text(|out| json::value(*value, out));
        assert_eq!(written, *expected, "{value:?}");
        serde_json::from_str::<&serde_json::value::RawValue>(&written)
            .unwrap_or_else(|e| panic!("{written}: {e}"));
    }
}

#[test]
fn plain_values() {
    check(&[
        (Value::Null, "null"),
        (Value::Absent, r#"{"_unchanged":true}"#),
        (Value::Bool(true), "true"),
        (Value::Bool(false), "false"),
        (Value::Int(0), "0"),
        (Value::Int(i64::MIN), "-9223372036854775808"),
        (Value::Int(9_007_199_254_740_993), "9007199254740993"),
        (Value::Uint(u64::MAX), "18446744073709551615"),
        (Value::Decimal("1.50"), r#""1.50""#),
        (Value::Decimal("NaN"), r#""NaN""#),
        (Value::Decimal("-Infinity"), r#""-Infinity""#),
        (Value::Json(r#"{"a":1.0,"a":1e400,"b":"\u0041"}"#), r#"{"a":1.0,"a":1e400,"b":"\u0041"}"#),
        (Value::Bytes(&[]), r#"{"_base64":""}"#),
        (Value::Bytes(&[0, 255]), r#"{"_base64":"AP8="}"#),
        (Value::Bytes(b"any carnal pleasure"), r#"{"_base64":"YW55IGNhcm5hbCBwbGVhc3VyZQ=="}"#),
        (
            Value::Uuid(&[0x0a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff]),
            r#""0a010203-0405-0607-0809-0a0b0c0d0eff""#,
        ),
    ]);
}

#[test]
fn floats() {
    check(&[
        (Value::Float64(3.0), "3.0"),
        (Value::Float64(-0.0), "-0.0"),
        (Value::Float64(0.1), "0.1"),
        (Value::Float64(1e300), "1e300"),
        (Value::Float64(5e-324), "5e-324"),
        (Value::Float64(1.7976931348623157e308), "1.7976931348623157e308"),
        (Value::Float64(f64::NAN), r#""NaN""#),
        (Value::Float64(f64::INFINITY), r#""Infinity""#),
        (Value::Float64(f64::NEG_INFINITY), r#""-Infinity""#),
        (Value::Float32(0.1), "0.1"),
        (Value::Float32(16_777_216.0), "16777216.0"),
        (Value::Float32(-0.0), "-0.0"),
        (Value::Float32(f32::MAX), "3.4028235e38"),
        (Value::Float32(f32::NAN), r#""NaN""#),
        (Value::Float32(f32::NEG_INFINITY), r#""-Infinity""#),
    ]);
}

#[test]
fn texts() {
    check(&[
        (Value::Text(""), r#""""#),
        (Value::Text("grüße 日本 🦀"), r#""grüße 日本 🦀""#),
        (Value::Text("say \"hi\" \\ bye"), r#""say \"hi\" \\ bye""#),
        (Value::Text("\n\r\t\u{8}\u{c}\0\u{1f}"), r#""\n\r\t\b\f\u0000\u001f""#),
        (Value::Text("a\u{2028}b\u{2029}/\u{7f}"), "\"a\u{2028}b\u{2029}/\u{7f}\""),
    ]);
    // A character to escape at every place of texts around the sizes that the scan steps by, among bytes that could confuse
    // it: 0xa2 and 0xdc are `"` and `\` with the top bit, 0x21 and 0x23 their neighbours.
    for length in 0..80 {
        for at in 0..length {
            for filler in ['!', '#', '[', ']', ' '] {
                for special in ['"', '\\', '\u{1f}', '\n'] {
                    let mut chars = vec![filler; length];
                    chars[at] = special;
                    let case: String = chars.into_iter().collect();
                    let written = text(|out| json::string(&case, out));
                    assert_eq!(written, serde_json::to_string(&case).unwrap());
                }
            }
        }
    }
}

fn date(year: i32, month: u8, day: u8) -> Date {
    Date::from_ymd(year, month, day).expect("a date")
}

fn moment(year: i32, month: u8, day: u8, of_day: i64, nanos: u32) -> Moment {
    Moment { secs: i64::from(date(year, month, day).days) * 86_400 + of_day, nanos }
}

#[test]
fn dates_and_moments() {
    check(&[
        (Value::Date(date(2025, 1, 15)), r#""2025-01-15""#),
        (Value::Date(date(1, 1, 1)), r#""0001-01-01""#),
        (Value::Date(date(0, 12, 31)), r#""0000-12-31""#),
        (Value::Date(date(-4712, 11, 24)), r#""-4712-11-24""#),
        (Value::Date(date(-1, 3, 1)), r#""-0001-03-01""#),
        (Value::Date(date(9999, 12, 31)), r#""9999-12-31""#),
        (Value::Date(date(10_000, 1, 1)), r#""+10000-01-01""#),
        (Value::Date(date(5_874_897, 12, 31)), r#""+5874897-12-31""#),
        (Value::Date(Date::INFINITY), r#""infinity""#),
        (Value::Date(Date::NEG_INFINITY), r#""-infinity""#),
        (Value::DateTime(moment(2025, 1, 15, 52_321, 847_000_000)), r#""2025-01-15T14:32:01.847""#),
        (Value::DateTime(moment(2025, 1, 15, 0, 0)), r#""2025-01-15T00:00:00""#),
        (Value::DateTime(moment(1969, 12, 31, 86_399, 999_999_000)), r#""1969-12-31T23:59:59.999999""#),
        (Value::DateTime(moment(1970, 1, 1, 0, 1_000)), r#""1970-01-01T00:00:00.000001""#),
        (Value::DateTime(moment(1970, 1, 1, 0, 999)), r#""1970-01-01T00:00:00""#),
        (Value::DateTime(moment(-4712, 11, 24, 0, 0)), r#""-4712-11-24T00:00:00""#),
        (Value::DateTime(Moment::INFINITY), r#""infinity""#),
        (Value::Timestamp(moment(2025, 1, 15, 48_721, 500_000_000)), r#""2025-01-15T13:32:01.5Z""#),
        (
            Value::Timestamp(moment(294_276, 12, 31, 86_399, 999_999_000)),
            r#""+294276-12-31T23:59:59.999999Z""#,
        ),
        (Value::Timestamp(Moment::NEG_INFINITY), r#""-infinity""#),
        (Value::Timestamp(Moment { secs: 0, nanos: 0 }), r#""1970-01-01T00:00:00Z""#),
    ]);
    // Nothing panics outside every calendar.
    for secs in [i64::MAX - 1, i64::MIN + 1] {
        text(|out| json::value(Value::Timestamp(Moment { secs, nanos: u32::MAX }), out));
    }
}

#[test]
fn times() {
    const SECOND: i64 = 1_000_000;
    let tz = |micros, offset_secs| Value::TimeTz(TimeTz { micros, offset_secs });
    check(&[
        (Value::Time(0), r#""00:00:00""#),
        (Value::Time(52_321 * SECOND + 500_000), r#""14:32:01.5""#),
        (Value::Time(86_400 * SECOND), r#""24:00:00""#),
        (Value::Time(1), r#""00:00:00.000001""#),
        (Value::Time(-1), r#""-00:00:00.000001""#),
        (Value::Time(-(838 * 3600 + 59 * 60 + 59) * SECOND - 1), r#""-838:59:59.000001""#),
        (Value::Time(100 * 3600 * SECOND), r#""100:00:00""#),
        (Value::Time(i64::MIN), r#""-2562047788:00:54.775808""#),
        (tz(52_321 * SECOND, 7200), r#""14:32:01+02:00""#),
        (tz(0, 0), r#""00:00:00+00:00""#),
        (tz(86_400 * SECOND, -57_599), r#""24:00:00-15:59:59""#),
        (tz(1_500_000, -12_600), r#""00:00:01.5-03:30""#),
    ]);
}

#[test]
fn intervals() {
    const HOUR: i64 = 3_600_000_000;
    let interval = |months, days, micros| Value::Interval(Interval { months, days, micros });
    check(&[
        (interval(0, 0, 0), r#""PT0S""#),
        (interval(14, 3, 4 * HOUR + 306_780_000), r#""P1Y2M3DT4H5M6.78S""#),
        (interval(-10, 3, -4 * HOUR - 306_500_000), r#""P-10M3DT-4H-5M-6.5S""#),
        (interval(-12, 0, 0), r#""P-1Y""#),
        (interval(0, -1, 0), r#""P-1D""#),
        (interval(0, 0, 1), r#""PT0.000001S""#),
        (interval(0, 0, -500_000), r#""PT-0.5S""#),
        (interval(0, 0, 60_000_000), r#""PT1M""#),
        (interval(0, 0, 100 * HOUR), r#""PT100H""#),
        (interval(0, 0, i64::MIN), r#""PT-2562047788H-54.775808S""#),
        (interval(i32::MIN, i32::MIN, 0), r#""P-178956970Y-8M-2147483648D""#),
        (interval(i32::MAX, i32::MAX, i64::MAX), r#""infinity""#),
        (interval(i32::MIN, i32::MIN, i64::MIN), r#""-infinity""#),
    ]);
}

/// A batch whose one column is what `write` writes, as JSON.
fn cell(write: impl FnOnce(&mut CellWriter<'_>) -> Result<(), Infallible>) -> String {
    let mut maker = super::fixture::Maker::new(schema(TableName::bare("f", "t"), &["c"], &[]));
    maker.begin("1", 0);
    let mut event = maker.builder.event(Op::Create, maker.table);
    event.after(1, |row| row.put_with(write)).unwrap();
    event.finish(deltaforge_core::EventId::default());
    let batch = maker.finish();
    let value = batch.event(0).and_then(|e| e.after()).expect("a row").get(0);
    text(|out| json::value(value, out))
}

fn put<'a>(value: Value<'a>) -> impl FnOnce(&mut CellWriter<'_>) -> Result<(), Infallible> + use<'a> {
    move |cell| {
        cell.put(value);
        Ok(())
    }
}

#[test]
fn integers_of_every_length() {
    let powers = (0..20).map(|n| 10u64.pow(n));
    let bits = (0..64).map(|n| 1u64 << n);
    for edge in powers.chain(bits).chain([0, u64::MAX]) {
        for v in [edge.wrapping_sub(1), edge, edge.wrapping_add(1)] {
            assert_eq!(text(|out| json::uint(v, out)), v.to_string());
            assert_eq!(text(|out| json::int(v as i64, out)), (v as i64).to_string());
        }
    }
}

#[test]
fn lists_and_records() {
    assert_eq!(cell(|c| c.list(|_| Ok(()))), "[]");
    assert_eq!(cell(|c| c.record(|_| Ok(()))), "{}");
    let nested = cell(|c| {
        c.list(|list| {
            list.element(|c| c.list(|inner| inner.element(put(Value::Int(1)))))?;
            list.element(put(Value::Null))?;
            list.element(|c| {
                c.record(|r| {
                    r.member("a\"b", put(Value::Text("x")))?;
                    r.member("größe", put(Value::Bytes(b"\x01")))
                })
            })
        })
    });
    assert_eq!(nested, r#"[[1],null,{"a\"b":"x","größe":{"_base64":"AQ=="}}]"#);
}

#[test]
fn lsns_and_ids() {
    for (lsn, expected) in
        [(0, "0/0"), (0x16B_6C50, "0/16B6C50"), (0x1_0000_0000, "1/0"), (u64::MAX, "FFFFFFFF/FFFFFFFF")]
    {
        assert_eq!(text(|out| json::lsn(lsn, out)), expected);
    }
    let id = deltaforge_core::EventId::derive(b"x");
    assert_eq!(text(|out| deltaforge_encode::Encoder::event_id(id, out)), id.to_string());
}

#[test]
fn a_row_of_another_schema_lacks_columns() {
    // The source wrote a row shorter than the schema it names: what is missing is absent, not shifted.
    let batch =
        one(schema(TableName::bare("f", "t"), &["a", "b"], &[]), Op::Update, None, Some(&[Value::Int(1)]));
    let mut encoder = deltaforge_encode::Encoder::new(&Default::default(), &super::fixture::context());
    let event = text(|out| encoder.event(&batch.event(0).expect("an event"), out));
    assert!(
        event.starts_with(r#"{"before":null,"after":{"a":1,"b":{"_unchanged":true}},"source""#),
        "{event}"
    );
}

proptest! {
    #[test]
    fn every_text_reads_back(case in "\\PC*|[\\x00-\\x7f]{0,100}|.{0,60}[\"\\\\]{0,40}.{0,9}") {
        let written = text(|out| json::string(&case, out));
        prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), case);
    }

    #[test]
    fn every_number_reads_back(float in any::<f64>(), single in any::<f32>(), int in any::<i64>()) {
        let read = |v| -> String { text(|out| json::value(v, out)) };
        if float.is_finite() {
            prop_assert_eq!(read(Value::Float64(float)).parse::<f64>().unwrap().to_bits(), float.to_bits());
        }
        if single.is_finite() {
            prop_assert_eq!(read(Value::Float32(single)).parse::<f32>().unwrap().to_bits(), single.to_bits());
        }
        prop_assert_eq!(read(Value::Int(int)), int.to_string());
    }

    #[test]
    fn every_date_reads_back(days in -3_000_000..200_000_000i32) {
        let date = Date { days };
        let written = text(|out| json::value(Value::Date(date), out));
        let (year, rest) = written.trim_matches('"').split_at(written.len() - 2 - 6);
        let part = |at: usize| rest[at..at + 2].parse::<u8>().unwrap();
        prop_assert_eq!(Date::from_ymd(year.parse().unwrap(), part(1), part(4)), Some(date));
    }
}
