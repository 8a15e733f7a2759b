//! Cells of MySQL and MariaDB.

use deltaforge_core::Value;
use deltaforge_core::batch::{BatchBuilder, EventId, Limits, Op};
use deltaforge_core::schema::{TableName, TableSchema};
use deltaforge_encode::json;
use deltaforge_sources::mysql::binlog::reader::Bytes;
use deltaforge_sources::mysql::binlog::{Column, ColumnType};
use deltaforge_sources::mysql::charset::Charset;
use deltaforge_sources::mysql::values::{Codec, Facts, Refused, ZeroDate};
use serde_json::value::RawValue;
use std::convert::Infallible;
use std::sync::Arc;

/// Declarations that say more than the type in the log.
const DECLARED: [&str; 8] = ["", "year(2)", "time(3)", "datetime(6)", "uuid", "inet4", "inet6", "vector(3)"];

/// A column's type, metadata (two bytes), declaration, character set and flags, then the bytes of a cell and what follows it.
pub fn mysql_values(bytes: &[u8]) {
    let [ty, low, high, declared, charset, flags, cells @ ..] = bytes else { return };
    let Ok(ty) = ColumnType::from_byte(*ty) else { return };
    let labels: Vec<String> = (0..flags % 70).map(|i| format!("label {i}")).collect();
    let charsets: Vec<Charset> = Charset::all().collect();
    let facts = Facts {
        declared: DECLARED[usize::from(*declared) % DECLARED.len()],
        unsigned: flags & 1 == 1,
        charset: charsets[usize::from(*charset) % charsets.len()],
        labels: &labels,
        json: flags & 2 == 2,
        nullable: flags & 4 == 4,
        zero_date: [ZeroDate::Null, ZeroDate::String, ZeroDate::Error][usize::from(flags >> 3) % 3],
    };
    let column = Column { ty, meta: u16::from_le_bytes([*low, *high]), nullable: facts.nullable };
    if let Ok(codec) = Codec::new(&column, &facts) {
        a_cell(&codec, cells);
    }
}

fn a_cell(codec: &Codec, cells: &[u8]) {
    let (mut read, mut skipped) = (Bytes::new(cells), Bytes::new(cells));
    let skip = codec.skip(&mut skipped).map(<[u8]>::len);
    let limits = Limits { max_events: 9, max_bytes: 1 << 30, respect_source_tx: true };
    let mut builder = BatchBuilder::new(limits, None, 0);
    let table = TableSchema::new(TableName::in_schema("d", "s", "t"), vec![], vec![], vec![]);
    let table = builder.schema(Arc::new(table));
    let mut event = builder.event(Op::Create, table);
    let mut written = Err(Refused::Label);
    let Ok(()) = event.after(2, |row| {
        let _ = row.put_with(|cell| {
            written = codec.write(&mut read, cell);
            written.map(drop)
        });
        row.put(Value::Int(-77));
        Ok::<(), Infallible>(())
    });
    event.finish(EventId::default());
    // A deflated byte stands for up to 1032, a character for up to 3 bytes where it had one; a BINARY(n) has n bytes.
    let used = builder.memory_bytes();
    assert!(used <= 8 * 1032 * cells.len() + (1 << 18), "{used} bytes for {} of a cell", cells.len());
    match written {
        Err(Refused::Malformed(_)) => {}
        Ok(_) | Err(Refused::Label | Refused::ZeroDate) => {
            assert!(skip.is_ok(), "read, but not to be skipped");
            assert_eq!(read, skipped, "reading and skipping take the same");
        }
    }
    assert!(skip.is_ok() || matches!(written, Err(Refused::Malformed(_))), "read beyond the end");
    builder.advance(|out| out.extend_from_slice(b"{}"));
    let batch = builder.cut().expect("a batch with one event");
    let row = batch.event(0).and_then(|event| event.after()).expect("the row that was written");
    assert_eq!(row.get(1), Value::Int(-77), "the next column is where it was written");
    let mut out = Vec::new();
    json::value(row.get(0), &mut out);
    let out = std::str::from_utf8(&out).expect("UTF-8");
    serde_json::from_str::<Box<RawValue>>(out).expect("JSON");
}
