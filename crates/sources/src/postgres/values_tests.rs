use super::*;
use deltaforge_core::batch::{Batch, BatchBuilder, EventId, Limits, Op};
use deltaforge_core::schema::{TableName, TableSchema};
use std::convert::Infallible;
use std::sync::Arc;

/// The cell of a text, read back and shown, and whether the text read as its type.
fn read(codec: &Codec, text: &[u8]) -> (String, bool) {
    let limits = Limits { max_events: 9, max_bytes: 1 << 30, respect_source_tx: true };
    let mut builder = BatchBuilder::new(limits, None, 0);
    let table = TableSchema::new(TableName::in_schema("d", "s", "t"), vec![], vec![], vec![]);
    let table = builder.schema(Arc::new(table));
    let mut event = builder.event(Op::Create, table);
    let mut clean = false;
    let Ok(()) = event.after(2, |row| {
        row.put_with(|cell| {
            clean = write(codec, text, cell);
            Ok::<(), Infallible>(())
        })?;
        row.put(Value::Int(-77));
        Ok::<(), Infallible>(())
    });
    event.finish(EventId::default());
    builder.advance(|out| out.extend_from_slice(b"{}"));
    let batch: Batch = builder.cut().expect("a batch");
    let row = batch.event(0).and_then(|e| e.after()).expect("a row");
    assert_eq!(row.get(1), Value::Int(-77), "the next column is where it should be");
    (show(row.get(0)), clean)
}

fn show(value: Value<'_>) -> String {
    match value {
        Value::List(list) => format!("[{}]", list.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Record(record) => {
            format!(
                "({})",
                record.iter().map(|(n, v)| format!("{n}={}", show(v))).collect::<Vec<_>>().join(" ")
            )
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn texts_read_as_their_types() {
    let m = |secs, nanos| format!("Moment {{ secs: {secs}, nanos: {nanos} }}");
    let cases: Vec<(Codec, &str, String)> = vec![
        (Codec::Bool, "t", "Bool(true)".into()),
        (Codec::Int, "-9223372036854775808", "Int(-9223372036854775808)".into()),
        (Codec::Int, "9223372036854775807", "Int(9223372036854775807)".into()),
        (Codec::Oid, "4294967295", "Uint(4294967295)".into()),
        (Codec::Float4, "0.1", "Float32(0.1)".into()),
        (Codec::Float8, "1e-320", "Float64(1e-320)".into()),
        (Codec::Float8, "-Infinity", "Float64(-inf)".into()),
        (Codec::Float8, "NaN", "Float64(NaN)".into()),
        (Codec::Numeric, "1.50", "Decimal(\"1.50\")".into()),
        (Codec::Numeric, "NaN", "Decimal(\"NaN\")".into()),
        (Codec::Bytea, "\\x00ff", "Bytes([0, 255])".into()),
        (Codec::Bytea, "\\x", "Bytes([])".into()),
        (
            Codec::Json,
            "{\"a b\" : [1.0 , \"\\\" x\"]}",
            "Json(\"{\\\"a b\\\":[1.0,\\\"\\\\\\\" x\\\"]}\")".into(),
        ),
        (Codec::Date, "2025-01-15", "Date(Date { days: 20103 })".into()),
        (Codec::Date, "4713-01-01 BC", "Date(Date { days: -2440550 })".into()),
        (Codec::Date, "5874897-12-31", "Date(Date { days: 2145042905 })".into()),
        (Codec::Date, "infinity", "Date(Date { days: 2147483647 })".into()),
        (Codec::Time, "24:00:00", "Time(86400000000)".into()),
        (Codec::Time, "14:32:01.5", "Time(52321500000)".into()),
        (
            Codec::TimeTz,
            "14:32:01-03:30",
            "TimeTz(TimeTz { micros: 52321000000, offset_secs: -12600 })".into(),
        ),
        (Codec::TimeTz, "00:00:00+15:59:59", "TimeTz(TimeTz { micros: 0, offset_secs: 57599 })".into()),
        (Codec::Timestamp, "2025-01-15 14:32:01.847", format!("DateTime({})", m(1_736_951_521, 847_000_000))),
        (Codec::Timestamp, "1969-12-31 23:59:59.999999", format!("DateTime({})", m(-1, 999_999_000))),
        (
            Codec::Timestamp,
            "294276-12-31 23:59:59.999999",
            format!("DateTime({})", m(9_224_318_015_999, 999_999_000)),
        ),
        (
            Codec::TimestampTz,
            "0044-03-15 12:00:00+00 BC",
            format!("Timestamp({})", m(-63_517_780_800_i64, 0)),
        ),
        (Codec::TimestampTz, "-infinity", format!("Timestamp({})", m(i64::MIN, 0))),
        (
            Codec::Interval,
            "P1Y2M3DT4H5M6.78S",
            "Interval(Interval { months: 14, days: 3, micros: 14706780000 })".into(),
        ),
        (
            Codec::Interval,
            "P-1Y2M3DT-4H5M-6.5S",
            "Interval(Interval { months: -10, days: 3, micros: -14106500000 })".into(),
        ),
        (
            Codec::Interval,
            "infinity",
            "Interval(Interval { months: 2147483647, days: 2147483647, micros: 9223372036854775807 })".into(),
        ),
        (Codec::Interval, "PT0S", "Interval(Interval { months: 0, days: 0, micros: 0 })".into()),
        (Codec::Interval, "PT-0.000001S", "Interval(Interval { months: 0, days: 0, micros: -1 })".into()),
        (Codec::Text, "grüße", "Text(\"grüße\")".into()),
        (Codec::Hstore, "\"a\"=>\"1\", \"b \\\"\"=>NULL", "(a=Text(\"1\") b \"=Null)".into()),
        (Codec::Hstore, "", "()".into()),
    ];
    for (codec, text, expected) in cases {
        assert_eq!(read(&codec, text.as_bytes()), (expected, true), "{codec:?} {text}");
    }
    let (uuid, clean) = read(&Codec::Uuid, b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
    assert!(uuid.starts_with("Uuid([160, 238, 188, 153,") && clean, "{uuid}");
}

#[test]
fn arrays_and_composites_nest() {
    let texts = Codec::Array(Box::new(Codec::Text), b',');
    let ints = Codec::Array(Box::new(Codec::Int), b',');
    let members = vec![("a".into(), Codec::Int), ("b".into(), texts.clone())];
    let pair = Codec::Composite { members: members.clone(), only_grew: false };
    let grown = Codec::Composite { members, only_grew: true };
    let pairs = Codec::Array(Box::new(pair.clone()), b',');
    let boxes = Codec::Array(Box::new(Codec::Text), b';');
    let cases = [
        (&ints, "{}", "[]"),
        (&ints, "{1,NULL,-3}", "[Int(1) Null Int(-3)]"),
        (&ints, "[0:1][5:6]={{1,2},{3,4}}", "[[Int(1) Int(2)] [Int(3) Int(4)]]"),
        (&texts, r#"{t,1,NULL,"null","NULL"}"#, r#"[Text("t") Text("1") Null Text("null") Text("NULL")]"#),
        (&texts, r#"{"a \"b\" \\","{,}",""}"#, r#"[Text("a \"b\" \\") Text("{,}") Text("")]"#),
        (&pair, r#"(1,"{""x,y"",z}")"#, r#"(a=Int(1) b=[Text("x,y") Text("z")])"#),
        (&pair, "(,)", "(a=Null b=Null)"),
        (&grown, "(,)", "(a=Null b=Null)"),
        (&pairs, r#"{"(1,{})",NULL}"#, "[(a=Int(1) b=[]) Null]"),
        (&boxes, "{(1,1),(0,0);(2,2),(0,0)}", r#"[Text("(1,1),(0,0)") Text("(2,2),(0,0)")]"#),
    ];
    for (codec, text, expected) in cases {
        assert_eq!(read(codec, text.as_bytes()), (expected.to_string(), true), "{text}");
    }
    assert_eq!(read(&grown, b"(1)"), ("(a=Int(1))".to_string(), false), "its type may be out of date");
}

#[test]
fn what_does_not_read_stays_as_text_and_is_counted() {
    let ints = Codec::Array(Box::new(Codec::Int), b',');
    let composite = |members| Codec::Composite { members, only_grew: false };
    let pair = composite(vec![("a".into(), Codec::Int)]);
    let lost_some = composite(vec![("a".into(), Codec::Int), ("b".into(), Codec::Int)]);
    let grown = Codec::Composite { members: vec![("a".into(), Codec::Int)], only_grew: true };
    let cases = [
        (&Codec::Int, "12x"),
        (&Codec::Int, ""),
        (&Codec::Int, "9223372036854775808"),
        (&Codec::Bool, "true"),
        (&Codec::Date, "15.01.2025"),
        (&Codec::Date, "2025-02-30"),
        (&Codec::Date, "2025-01-15 AD"),
        (&Codec::Time, "1:2:3"),
        (&Codec::Timestamp, "2025-01-15T14:32:01"),
        (&Codec::Interval, "P"),
        (&Codec::Interval, "1 day"),
        (&Codec::Bytea, "\\x0"),
        (&Codec::Bytea, "plain"),
        (&Codec::Uuid, "a0eebc99"),
        (&Codec::Json, "\"open"),
        (&ints, "{1,2"),
        (&ints, "{1}x"),
        (&pair, "(1,2)"),
        (&grown, "(1,2)"),
        (&lost_some, "(1)"),
        (&pair, "1"),
        (&Codec::Hstore, "a=>1"),
    ];
    for (codec, text) in cases {
        assert_eq!(read(codec, text.as_bytes()), (format!("Text({text:?})"), false), "{codec:?}");
    }
    assert_eq!(read(&Codec::Text, b"caf\xe9"), ("Bytes([99, 97, 102, 233])".into(), true));
    assert_eq!(
        read(&ints, b"{1,x}"),
        ("[Int(1) Text(\"x\")]".into(), false),
        "one element does not spoil the others"
    );
    let deep = format!("{}{}", "{".repeat(500), "}".repeat(500));
    assert!(!read(&ints, deep.as_bytes()).1, "depth is bounded");
}
