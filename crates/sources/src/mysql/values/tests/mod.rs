#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

mod properties;
mod strings;
mod times;

use super::*;
use ColumnType as T;
use deltaforge_core::batch::{BatchBuilder, EventId, Limits, Op};
use deltaforge_core::schema::{TableName, TableSchema};
use std::sync::Arc;

/// A nullable signed column in utf8mb4 with nothing declared.
fn facts() -> Facts<'static> {
    Facts {
        declared: "",
        unsigned: false,
        charset: Charset::UTF8MB4,
        labels: &[],
        json: false,
        nullable: true,
        zero_date: ZeroDate::Null,
    }
}

fn binary() -> Facts<'static> {
    Facts { charset: Charset::BINARY, ..facts() }
}

fn codec(ty: T, meta: u16, facts: &Facts<'_>) -> Codec {
    Codec::new(&Column { ty, meta, nullable: facts.nullable }, facts).expect("a codec")
}

/// Reads one cell out of bytes that go on after it. Asserts that exactly `size` of them are taken, by reading and by
/// skipping, and that the column after it is where it should be. Gives the value as it is shown, and whether it is clean.
fn read_of(codec: &Codec, bytes: &[u8], size: usize) -> Result<(String, bool), Refused> {
    let mut written = Err(Refused::Label);
    let mut left = Bytes::new(bytes);
    let shown = in_a_row(|cell| {
        written = codec.write(&mut left, cell);
        written
    });
    let mut skipped = Bytes::new(bytes);
    if !matches!(written, Err(Refused::Malformed(_))) {
        codec.skip(&mut skipped).expect("what is read can be skipped");
        assert_eq!(left, skipped, "reading and skipping take the same");
        assert_eq!(bytes.len() - left.len(), size, "bytes taken");
    }
    written.map(|clean| (shown, clean))
}

/// The same with nothing after the cell but a byte that is not its own.
fn read(codec: &Codec, bytes: &[u8]) -> Result<(String, bool), Refused> {
    let more = [bytes, &[0xa5]].concat();
    read_of(codec, &more, bytes.len())
}

fn shown(codec: &Codec, bytes: &[u8]) -> String {
    let (text, clean) = read(codec, bytes).unwrap_or_else(|e| panic!("{codec:?} {bytes:x?}: {e:?}"));
    assert!(clean, "{text}");
    text
}

/// Writes a row of a cell and a number, and shows the cell.
fn in_a_row(write: impl FnOnce(&mut CellWriter<'_>) -> Written) -> String {
    let limits = Limits { max_events: 9, max_bytes: 1 << 30, respect_source_tx: true };
    let mut builder = BatchBuilder::new(limits, None, 0);
    let table = TableSchema::new(TableName::in_schema("d", "s", "t"), vec![], vec![], vec![]);
    let table = builder.schema(Arc::new(table));
    let mut event = builder.event(Op::Create, table);
    let Ok::<(), std::convert::Infallible>(()) = event.after(2, |row| {
        let _ = row.put_with(|cell| write(cell).map(drop));
        row.put(Value::Int(-77));
        Ok(())
    });
    event.finish(EventId::default());
    builder.advance(|out| out.extend_from_slice(b"{}"));
    let batch = builder.cut().expect("a batch");
    let row = batch.event(0).and_then(|event| event.after()).expect("a row");
    assert_eq!(row.get(1), Value::Int(-77), "the next column is where it was written");
    let mut text = Vec::new();
    deltaforge_encode::json::value(row.get(0), &mut text);
    String::from_utf8(text).expect("UTF-8")
}

fn hex(digits: &str) -> Vec<u8> {
    let digit = |d: u8| (d as char).to_digit(16).expect("a digit") as u8;
    let digits: Vec<u8> = digits.bytes().filter(|d| *d != b' ').collect();
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

#[test]
fn integers_have_their_width_and_sign() {
    let unsigned = Facts { unsigned: true, ..facts() };
    for (ty, size, least, most, all) in [
        (T::Tiny, 1, "-128", "127", "255"),
        (T::Short, 2, "-32768", "32767", "65535"),
        (T::Int24, 3, "-8388608", "8388607", "16777215"),
        (T::Long, 4, "-2147483648", "2147483647", "4294967295"),
        (T::LongLong, 8, "-9223372036854775808", "9223372036854775807", "18446744073709551615"),
    ] {
        let (signed, unsigned) = (codec(ty, 0, &facts()), codec(ty, 0, &unsigned));
        let mut bytes = vec![0; size];
        assert_eq!(shown(&signed, &bytes), "0");
        bytes[0] = 2;
        assert_eq!(shown(&unsigned, &bytes), "2", "the lowest byte comes first");
        bytes.fill(0xff);
        assert_eq!([shown(&signed, &bytes), shown(&unsigned, &bytes)], ["-1", all]);
        bytes[size - 1] = 0x7f;
        assert_eq!(shown(&signed, &bytes), most);
        bytes.fill(0);
        bytes[size - 1] = 0x80;
        assert_eq!(shown(&signed, &bytes), least);
        assert!(matches!(read_of(&signed, &bytes[1..], 0), Err(Refused::Malformed(_))), "{ty:?} cut off");
    }
}

#[test]
fn other_numbers() {
    assert_eq!(shown(&codec(T::Float, 4, &facts()), &0.1_f32.to_le_bytes()), "0.1");
    assert_eq!(shown(&codec(T::Float, 4, &facts()), &16_777_216_f32.to_le_bytes()), "16777216.0");
    assert_eq!(shown(&codec(T::Double, 8, &facts()), &(-1e300_f64).to_le_bytes()), "-1e300");
    assert_eq!(shown(&codec(T::Bit, 1, &facts()), &[1]), "1");
    assert_eq!(shown(&codec(T::Bit, 9, &facts()), &[1, 2]), "258");
    assert_eq!(shown(&codec(T::Bit, 64, &facts()), &[0xff; 8]), "18446744073709551615");
    assert_eq!(shown(&codec(T::Year, 0, &facts()), &[0]), "0");
    assert_eq!(shown(&codec(T::Year, 0, &facts()), &[255]), "2155");
    assert_eq!(shown(&codec(T::Year, 0, &Facts { declared: "year(4)", ..facts() }), &[1]), "1901");
    let two = codec(T::Year, 0, &Facts { declared: "year(2)", ..facts() });
    assert_eq!([shown(&two, &[70]), shown(&two, &[169])], ["70", "69"]);
    assert_eq!(shown(&codec(T::Null, 0, &facts()), &[]), "null");
}

#[test]
fn decimals_keep_their_digits_and_scale() {
    let cases = [
        (10, 2, "80 00 00 01 32", "1.50"),
        (10, 2, "7f ff ff fe cd", "-1.50"),
        (10, 2, "80 00 00 00 00", "0.00"),
        (10, 2, "85 f5 e0 ff 63", "99999999.99"),
        (1, 0, "85", "5"),
        (1, 1, "85", "0.5"),
        (14, 4, "81 0d fb 38 d2 04 d2", "1234567890.1234"),
        (14, 4, "7e f2 04 c7 2d fb 2d", "-1234567890.1234"),
        (20, 0, "1c c4 65 36 00 c4 65 36 00", "-99999999999999999999"),
        (
            65,
            30,
            "80bc614e35b7bf87350e34c02f075f79075bcd1500bc614e35b7bf87037b",
            "12345678901234567890123456789012345.123456789012345678901234567891",
        ),
        (9, 9, "80 00 00 01", "0.000000001"),
        (18, 9, "80 00 00 07 3b 9a c9 ff", "7.999999999"),
    ];
    for (precision, scale, bytes, expected) in cases {
        let decimal = codec(T::NewDecimal, precision << 8 | scale, &facts());
        assert_eq!(shown(&decimal, &hex(bytes)), format!("\"{expected}\""), "DECIMAL({precision},{scale})");
    }
    let malformed = |meta, bytes: &str| {
        let read = read_of(&codec(T::NewDecimal, meta, &facts()), &hex(bytes), 0);
        assert!(matches!(read, Err(Refused::Malformed(_))), "{bytes}: {read:?}");
    };
    malformed(0x0a02, "80 00 00 01 64");
    malformed(0x0a02, "86 f5 e1 00 00");
    malformed(0x0a02, "80 00 00 01");
    malformed(0x0100, "8a");
}

#[test]
fn a_column_that_cannot_be_read_is_refused() {
    let refused = |ty, meta| Codec::new(&Column { ty, meta, nullable: true }, &facts()).is_err();
    for (ty, meta) in [
        (T::Decimal, 0),
        (T::TypedArray, 8),
        (T::NewDecimal, 66 << 8),
        (T::NewDecimal, 5 << 8 | 6),
        (T::Bit, 0),
        (T::Bit, 65),
        (T::Time2, 7),
        (T::Enum, 3),
        (T::Set, 0),
        (T::Blob, 5),
        (T::BlobCompressed, 0),
    ] {
        assert!(refused(ty, meta), "{ty:?} {meta}");
    }
}
