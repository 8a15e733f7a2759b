//! Golden events of the three envelopes.

use super::fixture::{Maker, Row, TS_US, context, one, one_with_ddl, orders, schema, text};
use deltaforge_core::config::{Fields, Findings, Node};
use deltaforge_core::sink::SinkContext;
use deltaforge_core::{Batch, Op, TableName, Value};
use deltaforge_encode::{Encoder, EnvelopePlan};

pub(crate) fn plan(settings: serde_json::Value) -> EnvelopePlan {
    let node = Node::from_json(&settings);
    let mut findings = Findings::default();
    let plan = EnvelopePlan::parse(&mut Fields::new(&node, "", &mut findings));
    assert!(findings.errors.is_empty(), "{:?}", findings.errors);
    plan
}

fn encode(envelope: &str, batch: &Batch) -> Vec<String> {
    let mut encoder = Encoder::new(&plan(serde_json::json!({"envelope": {"type": envelope}})), &context());
    encoder.prepare(batch);
    batch.events().map(|event| text(|out| encoder.event(&event, out))).collect()
}

/// The text is JSON and, written again by serde_json with members in order, the same text.
fn only(envelope: &str, batch: &Batch) -> String {
    let events = encode(envelope, batch);
    let [event] = events.as_slice() else { panic!("one event") };
    let parsed: serde_json::Value = serde_json::from_str(event).unwrap_or_else(|e| panic!("{event}: {e}"));
    assert_eq!(serde_json::to_string(&parsed).unwrap(), *event);
    event.clone()
}

const OLD: Row<'static> =
    &[Value::Int(7), Value::Text("open"), Value::Decimal("99.90"), Value::Json(r#"{"k":[1]}"#)];
const NEW: Row<'static> =
    &[Value::Int(7), Value::Text("paid"), Value::Decimal("99.90"), Value::Json(r#"{"k":[1]}"#)];

const HEAD: &str = concat!(
    r#""source":{"version":"deltaforge-"#,
    env!("CARGO_PKG_VERSION"),
    r#"","connector":"postgresql","name":"orders","ts_ms":1736951521847,"ts_us":1736951521847123,"db":"shop","#,
    r#""schema":"public","table":"orders""#,
);
const STREAM: &str = r#","sequence":"[\"24023128\",\"24023192\"]","lsn":"0/16B6C50","txId":755},"#;
const TRANSACTION: &str = r#""transaction":{"id":"755","total_order":1,"data_collection_order":1},"#;

/// From the event id to the end, `more` standing before the closing brace.
fn tail(batch: &Batch, more: &str) -> String {
    let id = batch.event(0).expect("an event").id();
    let fingerprint = batch.tables()[0].fingerprint;
    format!(
        r#""event_id":"{id}","tenant_id":"acme","schema_version":"{fingerprint}","schema_sequence":3{more}}}"#
    )
}

#[test]
fn native_update() {
    let batch = one(orders(), Op::Update, Some(OLD), Some(NEW));
    let expected = [
        r#"{"before":{"id":7,"status":"open","total":"99.90","doc":{"k":[1]}},"#,
        r#""after":{"id":7,"status":"paid","total":"99.90","doc":{"k":[1]}},"#,
        HEAD,
        STREAM,
        r#""op":"u","ts_ms":1736951521853,"#,
        TRANSACTION,
        &tail(&batch, ""),
    ];
    assert_eq!(only("native", &batch), expected.concat());
}

#[test]
fn native_insert_and_delete_leave_absent_columns_out() {
    let partial: Row<'_> = &[Value::Absent, Value::Null, Value::Absent, Value::Json("[]")];
    let insert = one(orders(), Op::Create, None, Some(partial));
    let start = r#"{"before":null,"after":{"status":null,"doc":[]},"source":{"#;
    assert!(only("native", &insert).starts_with(start));
    let delete = one(orders(), Op::Delete, Some(&[Value::Int(7)]), None);
    assert!(only("native", &delete).starts_with(r#"{"before":{"id":7},"after":null,"source":{"#));
    let nothing = one(orders(), Op::Delete, Some(&[]), None);
    assert!(only("native", &nothing).starts_with(r#"{"before":{},"after":null,"#));
}

#[test]
fn native_update_marks_what_the_log_lacks() {
    let after: Row<'_> = &[Value::Int(7), Value::Text("paid"), Value::Null, Value::Absent];
    let batch = one(orders(), Op::Update, Some(&[Value::Int(7)]), Some(after));
    let start = r#"{"before":{"id":7},"after":{"id":7,"status":"paid","total":null,"doc":{"_unchanged":true}},"source":{"#;
    assert!(only("native", &batch).starts_with(start));
}

#[test]
fn native_snapshot_row() {
    let batch = one(orders(), Op::Read, None, Some(NEW));
    let event = only("native", &batch);
    let source = r#""ts_ms":1736951521853,"ts_us":1736951521853000,"db":"shop","schema":"public","table":"orders","snapshot":"true","lsn":"0/16B6C50"},"op":"r","ts_ms":1736951521853,"event_id":"#;
    assert!(event.contains(source), "{event}");
    assert!(!event.contains("transaction"), "{event}");
}

#[test]
fn native_truncate_and_schema_change() {
    let ddl = r#"{"kind":"truncate","sql":"TRUNCATE"}"#;
    let batch = one_with_ddl(orders(), Op::Truncate, None, None, Some(ddl));
    let end = [r#""op":"t","ts_ms":1736951521853,"#, TRANSACTION, &tail(&batch, &format!(r#","ddl":{ddl}"#))];
    let expected = [r#"{"before":null,"after":null,"#, HEAD, STREAM, &end.concat()].concat();
    assert_eq!(only("native", &batch), expected);
    let mut schema = schema(TableName::in_db("shop", ""), &[], &[]);
    schema.sequence = 0;
    let batch = one_with_ddl(schema, Op::Ddl, None, None, Some("{}"));
    let event = only("native", &batch);
    assert!(event.contains(r#""db":"shop","sequence""#), "no table: {event}");
    assert!(event.ends_with(r#","tenant_id":"acme","ddl":{}}"#), "no schema: {event}");
}

#[test]
fn native_times_of_many_lengths() {
    let times = [0, 1, -1, 999, -1_000_001, TS_US, 5, i64::MIN, i64::MAX, TS_US, TS_US + 1];
    let mut maker = Maker::new(orders());
    for ts_us in times {
        maker.begin("1", ts_us);
        maker.event(Op::Create, None, Some(NEW), None);
        maker.builder.commit(|out| out.extend_from_slice(b"{}"));
    }
    maker.begin("2", 0);
    let events = encode("native", &maker.finish());
    assert_eq!(events.len(), times.len());
    for (event, ts_us) in events.iter().zip(times) {
        let parsed: serde_json::Value = serde_json::from_str(event).unwrap();
        assert_eq!(parsed["source"]["ts_us"], ts_us);
        assert_eq!(parsed["source"]["ts_ms"], ts_us.div_euclid(1000));
        assert_eq!(parsed["source"]["db"], "shop");
    }
}

#[test]
fn names_are_escaped() {
    let name = TableName::in_schema("d\"b", "s\\c", "t\nx");
    let batch =
        one(schema(name, &["a\"b", "größe"], &[0]), Op::Create, None, Some(&[Value::Int(1), Value::Int(2)]));
    let parsed: serde_json::Value = serde_json::from_str(&only("native", &batch)).unwrap();
    assert_eq!(parsed["source"]["db"], "d\"b");
    assert_eq!(parsed["source"]["table"], "t\nx");
    assert_eq!(parsed["after"], serde_json::json!({"a\"b": 1, "größe": 2}));
    let cloud: serde_json::Value = serde_json::from_str(&only("cloudevents", &batch)).unwrap();
    assert_eq!(cloud["source"], "deltaforge/orders/s%5Cc.t%0Ax");
    assert_eq!(cloud["subject"], "s\\c.t\nx");
}

#[test]
fn names_of_every_length() {
    let names: Vec<String> = (1..70).map(|n| "n".repeat(n)).collect();
    let columns: Vec<&str> = names.iter().map(String::as_str).collect();
    let values: Vec<Value<'_>> = (1..70).map(Value::Int).collect();
    let key: Vec<u16> = (0..69).collect();
    let batch = one(schema(TableName::bare("f", "t"), &columns, &key), Op::Create, None, Some(&values));
    let expected: serde_json::Map<_, _> = names.iter().map(|n| (n.clone(), n.len().into())).collect();
    let expected = serde_json::Value::from(expected);
    let parsed: serde_json::Value = serde_json::from_str(&only("native", &batch)).unwrap();
    assert_eq!(parsed["after"], expected);
    let mut encoder = Encoder::new(&EnvelopePlan::default(), &context());
    assert_eq!(text(|out| encoder.key(&batch.event(0).expect("an event"), out)), expected.to_string());
}

#[test]
fn debezium_wraps_the_native_event() {
    let batch = one(orders(), Op::Update, Some(OLD), Some(NEW));
    let expected = format!(r#"{{"schema":null,"payload":{}}}"#, only("native", &batch));
    assert_eq!(only("debezium", &batch), expected);
}

#[test]
fn cloudevents() {
    let words = [
        (Op::Create, "created"),
        (Op::Update, "updated"),
        (Op::Delete, "deleted"),
        (Op::Truncate, "truncated"),
        (Op::Ddl, "schema_changed"),
    ];
    for (op, word) in words {
        let (before, after) = match op {
            Op::Create => (None, Some(NEW)),
            Op::Update => (Some(OLD), Some(NEW)),
            Op::Delete => (Some(OLD), None),
            _ => (None, None),
        };
        let (ddl, written_ddl) = if matches!(op, Op::Truncate | Op::Ddl) {
            (Some(r#"{"kind":"x"}"#), r#","ddl":{"kind":"x"}"#)
        } else {
            (None, "")
        };
        let row = |row: Option<Row<'_>>, status| match row {
            Some(_) => format!(r#"{{"id":7,"status":"{status}","total":"99.90","doc":{{"k":[1]}}}}"#),
            None => "null".into(),
        };
        let batch = one_with_ddl(orders(), op, before, after, ddl);
        let expected = format!(
            r#"{{"specversion":"1.0","id":"{}","source":"deltaforge/orders/public.orders","type":"deltaforge.{word}","time":"2025-01-15T14:32:01.847Z","datacontenttype":"application/json","subject":"public.orders","data":{{"before":{},"after":{},"op":"{}"{written_ddl}}}}}"#,
            batch.event(0).expect("an event").id(),
            row(before, "open"),
            row(after, "paid"),
            op.as_str(),
        );
        assert_eq!(only("cloudevents", &batch), expected);
    }
}

#[test]
fn cloudevents_prefix_and_snapshot() {
    let batch = one(orders(), Op::Read, None, Some(NEW));
    let plan = plan(serde_json::json!({"envelope": {"type": "cloudevents", "type_prefix": "com.acme"}}));
    assert_eq!(plan.content_type(), "application/cloudevents+json");
    let mut encoder = Encoder::new(&plan, &context());
    let event = text(|out| encoder.event(&batch.event(0).expect("an event"), out));
    assert!(event.contains(r#""type":"com.acme.snapshot","time":"2025-01-15T14:32:01.853Z""#), "{event}");
}

#[test]
fn a_new_shape_of_a_table_is_prepared_when_it_appears() {
    let mut maker = Maker::new(schema(TableName::bare("f", "t"), &["a"], &[0]));
    maker.begin("1", 0);
    maker.event(Op::Create, None, Some(&[Value::Int(1)]), None);
    let old = maker.table;
    maker.table = maker.builder.schema(std::sync::Arc::new(schema(TableName::bare("f", "t"), &["b"], &[0])));
    maker.event(Op::Create, None, Some(&[Value::Int(2)]), None);
    maker.table = old;
    maker.event(Op::Create, None, Some(&[Value::Int(3)]), None);
    let first = maker.finish();
    // Another source, so another list: the same index is another table.
    let second = one(orders(), Op::Create, None, Some(NEW));
    let mut encoder = Encoder::new(&EnvelopePlan::default(), &context());
    let mut afters = |batch: &Batch| -> Vec<String> {
        let after =
            |event: String| serde_json::from_str::<serde_json::Value>(&event).unwrap()["after"].to_string();
        batch.events().map(|event| after(text(|out| encoder.event(&event, out)))).collect()
    };
    assert_eq!(afters(&first), [r#"{"a":1}"#, r#"{"b":2}"#, r#"{"a":3}"#]);
    assert_eq!(afters(&second).len(), 1);
    assert_eq!(afters(&first), [r#"{"a":1}"#, r#"{"b":2}"#, r#"{"a":3}"#]);
}

/// Sinks of a pipeline that make the same payloads make them once, and each of them gets what it would make alone.
#[test]
fn encodings_are_shared() {
    let mut maker = Maker::new(orders());
    maker.begin("755", TS_US);
    maker.event(Op::Create, None, Some(NEW), None);
    maker.event(Op::Update, Some(OLD), Some(NEW), None);
    maker.event(Op::Delete, Some(OLD), None, None);
    let batch = maker.finish();
    let shared = SinkContext { shares_encoding: true, ..context() };
    let gone = batch.without(batch.event(1).unwrap().id());
    for batch in [&batch, &gone] {
        for envelope in ["native", "debezium", "native", "cloudevents"] {
            let plan = plan(serde_json::json!({"envelope": {"type": envelope}}));
            let mut encoder = Encoder::new(&plan, &shared);
            encoder.prepare(batch);
            let events: Vec<_> = batch.events().map(|event| text(|out| encoder.event(&event, out))).collect();
            assert_eq!(events, encode(envelope, batch));
            // What is there under the name is not made again.
            let texts = batch.texts(&plan.encoding(), |_| panic!("made twice"));
            assert_eq!(texts.get(batch.len()), b"");
        }
    }
}
