//! Message keys and old keys.

use super::fixture::{Row, context, one, orders, schema, text};
use deltaforge_core::{Batch, Op, TableName, Value};
use deltaforge_encode::{Encoder, EnvelopePlan};

fn key(batch: &Batch) -> (String, Option<String>) {
    let mut encoder = Encoder::new(&EnvelopePlan::default(), &context());
    encoder.prepare(batch);
    let event = batch.event(0).expect("an event");
    let key = text(|out| encoder.key(&event, out));
    let mut old = b"kept".to_vec();
    let changed = encoder.old_key(&event, &mut old);
    let old = String::from_utf8(old).unwrap().strip_prefix("kept").expect("what was there stays").to_string();
    assert_eq!(changed, !old.is_empty());
    (key, changed.then_some(old))
}

fn pair(op: Op, before: Option<Row<'_>>, after: Option<Row<'_>>) -> (String, Option<String>) {
    // The key's order is not the table's.
    key(&one(schema(TableName::in_db("shop", "t"), &["a", "b", "c"], &[2, 0]), op, before, after))
}

const NEW: Row<'static> = &[Value::Int(1), Value::Null, Value::Text("x")];

#[test]
fn from_the_image_that_is_there() {
    let old: Row<'_> = &[Value::Int(0), Value::Null, Value::Text("x")];
    assert_eq!(pair(Op::Create, None, Some(NEW)), (r#"{"c":"x","a":1}"#.into(), None));
    assert_eq!(pair(Op::Read, None, Some(NEW)), (r#"{"c":"x","a":1}"#.into(), None));
    assert_eq!(pair(Op::Delete, Some(old), None), (r#"{"c":"x","a":0}"#.into(), None));
    let changed = (r#"{"c":"x","a":1}"#.into(), Some(r#"{"c":"x","a":0}"#.into()));
    assert_eq!(pair(Op::Update, Some(old), Some(NEW)), changed);
    assert_eq!(pair(Op::Update, Some(NEW), Some(NEW)), (r#"{"c":"x","a":1}"#.into(), None));
    assert_eq!(pair(Op::Update, None, Some(NEW)), (r#"{"c":"x","a":1}"#.into(), None));
}

#[test]
fn absent_columns_come_from_the_other_image() {
    let after: Row<'_> = &[Value::Absent, Value::Int(5), Value::Text("y")];
    let before: Row<'_> = &[Value::Int(3), Value::Absent, Value::Text("y")];
    assert_eq!(pair(Op::Update, Some(before), Some(after)), (r#"{"c":"y","a":3}"#.into(), None));
    let before: Row<'_> = &[Value::Int(3), Value::Absent, Value::Text("z")];
    let changed = (r#"{"c":"y","a":3}"#.into(), Some(r#"{"c":"z","a":3}"#.into()));
    assert_eq!(pair(Op::Update, Some(before), Some(after)), changed);
}

#[test]
fn a_delete_by_another_index_has_that_index_as_key() {
    let before: Row<'_> = &[Value::Absent, Value::Text("b@example.org"), Value::Absent];
    assert_eq!(pair(Op::Delete, Some(before), None), (r#"{"b":"b@example.org"}"#.into(), None));
    assert_eq!(pair(Op::Delete, Some(&[]), None), (r#""shop.t""#.into(), None));
}

#[test]
fn values_that_print_alike_are_one_key() {
    let row: Row<'_> = &[Value::Float64(f64::NAN), Value::Null, Value::Int(1)];
    assert_eq!(pair(Op::Update, Some(row), Some(row)), (r#"{"c":1,"a":"NaN"}"#.into(), None));
}

#[test]
fn without_key_columns_and_for_the_whole_table_it_is_the_table() {
    let bare = || schema(TableName::in_schema("shop", "pub\"lic", "t"), &["a"], &[]);
    assert_eq!(key(&one(bare(), Op::Create, None, Some(&[Value::Int(1)]))).0, r#""pub\"lic.t""#);
    let row: Row<'_> = &[Value::Int(1)];
    assert_eq!(key(&one(bare(), Op::Update, Some(&[Value::Int(2)]), Some(row))).1, None);
    for op in [Op::Truncate, Op::Ddl] {
        assert_eq!(key(&one(orders(), op, None, None)), (r#""public.orders""#.into(), None));
    }
}
