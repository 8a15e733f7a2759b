//! What is fuzzed: functions that take bytes from outside, and what must hold of them whatever the bytes are.
//!
//! The fuzz targets call these; so does the test `fuzz_smoke` of the sources, with mutated seeds and a stable compiler.

mod binlog;
mod mysql_gtid;
mod mysql_json;
mod mysql_values;

pub use binlog::{binlog_compressed, binlog_events};
pub use mysql_gtid::mysql_gtid;
pub use mysql_json::mysql_json;
pub use mysql_values::mysql_values;

use deltaforge_core::batch::{Batch, BatchBuilder, EventId, Limits, Op};
use deltaforge_core::config::{Fields, Findings, Key, Node, Raw, Span};
use deltaforge_core::schema::{TableName, TableSchema};
use deltaforge_core::source::{Names, SourceKind};
use deltaforge_core::{Position, Value};
use deltaforge_encode::json;
use deltaforge_sources::postgres::pgoutput::{self, Datum, Frame, Message, Tuple};
use deltaforge_sources::postgres::values::{self, Codec};
use deltaforge_sources::postgres::{Lsn, PgPosition, PostgresKind};
use serde_json::value::RawValue;
use std::cmp::Ordering;
use std::convert::Infallible;
use std::sync::Arc;

/// Every form that a value is read by. The first byte of an input of [`values`] chooses one.
fn codecs() -> Vec<Codec> {
    let array = |element: &Codec, delimiter| Codec::Array(Box::new(element.clone()), delimiter);
    let members = |codecs: &[Codec]| {
        let member = |(i, codec): (usize, &Codec)| (format!("m{i}"), codec.clone());
        codecs.iter().enumerate().map(member).collect::<Vec<_>>()
    };
    let pair = Codec::Composite { members: members(&[Codec::Int, Codec::Text]), only_grew: false };
    let grown = Codec::Composite { members: members(&[Codec::Int, Codec::Text]), only_grew: true };
    let parts = [pair.clone(), array(&pair, b','), Codec::Json];
    let deep = Codec::Composite { members: members(&parts), only_grew: false };
    vec![
        Codec::Bool,
        Codec::Int,
        Codec::Oid,
        Codec::Float4,
        Codec::Float8,
        Codec::Numeric,
        Codec::Bytea,
        Codec::Json,
        Codec::Uuid,
        Codec::Date,
        Codec::Time,
        Codec::TimeTz,
        Codec::Timestamp,
        Codec::TimestampTz,
        Codec::Interval,
        Codec::Text,
        Codec::Hstore,
        array(&Codec::Int, b','),
        array(&Codec::Text, b','),
        array(&Codec::Text, b';'),
        pair,
        grown,
        deep,
        array(&Codec::Json, b','),
    ]
}

/// Whether a codec passes JSON on as the server wrote it, which is JSON only if the server wrote JSON.
fn passes_json(codec: &Codec) -> bool {
    match codec {
        Codec::Json => true,
        Codec::Array(element, _) => passes_json(element),
        Codec::Composite { members, .. } => members.iter().any(|(_, member)| passes_json(member)),
        _ => false,
    }
}

/// The payload of a frame of the stream, and the same bytes as a message.
pub fn pgoutput(bytes: &[u8]) {
    if let Ok(Frame::Data { message, .. }) = pgoutput::frame(bytes) {
        a_message(message);
    }
    a_message(bytes);
}

fn a_message(bytes: &[u8]) {
    match pgoutput::message(bytes) {
        Ok(Message::Insert { new, .. }) => a_tuple(&new, bytes),
        Ok(Message::Update { old, new, .. }) => {
            if let Some(old) = old {
                a_tuple(&old.tuple, bytes);
            }
            a_tuple(&new, bytes);
        }
        Ok(Message::Delete { old, .. }) => a_tuple(&old.tuple, bytes),
        Ok(Message::Relation(relation)) => {
            let columns = relation.columns().unwrap_or_default();
            let names: usize = columns.iter().map(|c| c.name.len()).sum();
            assert!(
                names + relation.name.len() + relation.schema.len() < bytes.len(),
                "names out of nowhere"
            );
        }
        Ok(Message::Truncate { relations, .. }) => assert!(relations.len() % 4 == 0),
        _ => {}
    }
}

fn a_tuple(tuple: &Tuple<'_>, message: &[u8]) {
    let mut taken = 0;
    let codecs = codecs();
    for (i, datum) in tuple.iter().enumerate() {
        let Ok(datum) = datum else { break };
        taken += 1;
        if let Datum::Text(text) = datum {
            taken += 4 + text.len();
            a_value(&codecs[i % codecs.len()], text);
        }
    }
    assert!(taken <= message.len(), "values out of nowhere");
}

/// A value's text, the first byte choosing its type.
pub fn values(bytes: &[u8]) {
    let Some((which, text)) = bytes.split_first() else { return };
    let codecs = codecs();
    a_value(&codecs[usize::from(*which) % codecs.len()], text);
}

fn a_value(codec: &Codec, text: &[u8]) {
    let (batch, clean, used) = decoded(codec, text);
    assert!(used <= 64 * text.len() + 65_536, "{used} bytes for {} of text", text.len());
    let row = batch.event(0).and_then(|event| event.after()).expect("the row that was written");
    assert_eq!(row.get(1), Value::Int(-77), "the next column is where it was written");
    let mut out = Vec::new();
    json::value(row.get(0), &mut out);
    let out = std::str::from_utf8(&out).expect("UTF-8");
    let given: Option<Box<RawValue>> = serde_json::from_slice(text).ok();
    if !passes_json(codec) || (*codec == Codec::Json && given.is_some()) {
        serde_json::from_str::<Box<RawValue>>(out).expect("JSON");
    }
    if *codec == Codec::Json && given.is_some() {
        assert!(clean, "JSON that did not read as JSON");
        if let Ok(value) = serde_json::from_slice::<serde_json::Value>(text) {
            assert_eq!(serde_json::from_str::<serde_json::Value>(out).ok(), Some(value), "another value");
        }
    }
}

/// A row with the value and a number after it; whether the value read as its type; what the batch takes of memory.
fn decoded(codec: &Codec, text: &[u8]) -> (Batch, bool, usize) {
    let limits = Limits { max_events: 9, max_bytes: 1 << 30, respect_source_tx: true };
    let mut builder = BatchBuilder::new(limits, None, 0);
    let table = TableSchema::new(TableName::in_schema("d", "s", "t"), vec![], vec![], vec![]);
    let table = builder.schema(Arc::new(table));
    let mut event = builder.event(Op::Create, table);
    let mut clean = false;
    let Ok(()) = event.after(2, |row| {
        row.put_with(|cell| {
            clean = values::write(codec, text, cell);
            Ok::<(), Infallible>(())
        })?;
        row.put(Value::Int(-77));
        Ok::<(), Infallible>(())
    });
    event.finish(EventId::default());
    let used = builder.memory_bytes();
    builder.advance(|out| out.extend_from_slice(b"{}"));
    (builder.cut().expect("a batch with one event"), clean, used)
}

/// An LSN, and a position as it lies in a state store.
pub fn positions(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(lsn) = Lsn::parse(text) {
        let printed = lsn.to_string();
        assert_eq!(Lsn::parse(&printed), Some(lsn));
        let mut written = Vec::new();
        lsn.write(&mut written);
        assert_eq!(written, printed.as_bytes());
    }
    // Stores refuse what is no object before a source sees it.
    if !text.starts_with('{') {
        return;
    }
    let position = Position::from_json(text);
    if PgPosition::parse(&position).is_ok() {
        assert_eq!(PgPosition::compare(&position, &position), Some(Ordering::Equal));
    }
}

/// A connection string, as a source's setting. What it says in errors must not hold the password.
pub fn dsn(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let entry = |name: &str, value| (Key { name: name.into(), span: Span::default() }, Node::new(value));
    let config = Node::new(Raw::Map(vec![
        entry("dsn", Raw::Text(text.into())),
        entry("slot", Raw::Text("s".into())),
        entry("publication", Raw::Text("p".into())),
        entry("tables", Raw::List(vec![])),
    ]));
    let mut findings = Findings::default();
    let mut fields = Fields::new(&config, "spec.source.config", &mut findings);
    let plan = PostgresKind.parse(&mut fields, &Names { pipeline: "p", default_id: "p-postgres" });
    assert!(plan.is_some() || !findings.errors.is_empty(), "refused without a reason");
}
