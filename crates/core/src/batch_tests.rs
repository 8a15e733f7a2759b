use super::*;
use crate::schema::{Column, TableName};
use crate::value::Value;
use std::convert::Infallible;

const LIMITS: Limits = Limits { max_events: 4, max_bytes: 1 << 20, respect_source_tx: true };

fn builder(limits: Limits) -> (BatchBuilder, TableIx) {
    let start = Position::from_json("{\"n\":0}");
    let mut builder = BatchBuilder::new(limits, Some(&start), 0);
    let ix = builder.schema(Arc::new(table("t")));
    (builder, ix)
}

fn table(name: &str) -> TableSchema {
    let id = Column { name: "id".into(), type_name: "bigint".into(), nullable: Some(false) };
    TableSchema::new(TableName::in_schema("shop", "public", name), vec![id], vec![0], vec![])
}

fn begin(builder: &mut BatchBuilder, id: &str) {
    builder.begin(TransactionHead { id, ts_us: 5, ts_exact: true }, 1, |row| row.put(Value::Text(id)));
}

fn insert(builder: &mut BatchBuilder, table: TableIx, id: i64) {
    let mut event = builder.event(Op::Create, table);
    let written: Result<(), Infallible> = event.after(1, |row| {
        row.put(Value::Int(id));
        Ok(())
    });
    assert_eq!(written, Ok(()));
    event.source(1, |row| row.put(Value::Uint(id as u64)));
    event.finish(EventId::derive(&id.to_be_bytes()));
}

fn commit(builder: &mut BatchBuilder, n: u64) {
    builder.commit(|out| out.extend_from_slice(format!("{{\"n\":{n}}}").as_bytes()));
}

/// (key, transaction, total order, table order) of each event, every field read back through the views.
fn rows(batch: &Batch) -> Vec<(i64, String, u64, u64)> {
    batch
        .events()
        .map(|e| {
            let Some(Value::Int(id)) = e.after().map(|r| r.get(0)) else { panic!("an integer") };
            let tx = e.transaction().expect("a transaction");
            assert_eq!(tx.source().map(|r| r.get(0)), Some(Value::Text(tx.id)));
            assert_eq!(e.source().map(|r| r.get(0)), Some(Value::Uint(id as u64)));
            assert_eq!(e.id(), EventId::derive(&id.to_be_bytes()));
            (id, tx.id.to_string(), tx.total_order, tx.table_order)
        })
        .collect()
}

fn end(batch: &Batch) -> Option<(&str, u64)> {
    batch.end().map(|e| (e.position.as_json(), e.events_done))
}

#[test]
fn whole_transactions_fill_a_batch_exactly() {
    let (mut b, t) = builder(LIMITS);
    for tx in 0..2 {
        begin(&mut b, &format!("x{tx}"));
        insert(&mut b, t, tx * 2);
        insert(&mut b, t, tx * 2 + 1);
        commit(&mut b, tx as u64 + 1);
    }
    assert!(b.is_full());
    let batch = b.cut().expect("a batch");
    assert_eq!(end(&batch), Some(("{\"n\":2}", 0)));
    let x = |n: i64| format!("x{n}");
    assert_eq!(rows(&batch), [(0, x(0), 1, 1), (1, x(0), 2, 2), (2, x(1), 1, 1), (3, x(1), 2, 2)]);
    assert!(b.is_empty() && !b.can_cut() && b.take_advance().is_none());
}

#[test]
fn an_open_transaction_moves_to_the_next_batch() {
    let (mut b, t) = builder(LIMITS);
    begin(&mut b, "x0");
    insert(&mut b, t, 0);
    commit(&mut b, 1);
    begin(&mut b, "x1");
    for id in 1..4 {
        insert(&mut b, t, id);
        assert!(!b.is_full(), "the transaction may still fit");
    }
    insert(&mut b, t, 4);
    assert!(b.is_full(), "the fifth event is above the limit");
    let first = b.cut().expect("a batch");
    assert_eq!((rows(&first).len(), end(&first)), (1, Some(("{\"n\":1}", 0))));
    assert_eq!(b.len(), 4);
    assert!(!b.is_full(), "four events are within the limits, the transaction may end here");
    commit(&mut b, 2);
    let second = b.cut().expect("a batch");
    assert_eq!(end(&second), Some(("{\"n\":2}", 0)));
    assert_eq!(
        rows(&second).iter().map(|r| (r.0, r.2)).collect::<Vec<_>>(),
        [(1, 1), (2, 2), (3, 3), (4, 4)]
    );
}

#[test]
fn a_transaction_above_the_limits_goes_in_parts_and_only_its_end_is_a_position() {
    let (mut b, t) = builder(LIMITS);
    begin(&mut b, "big");
    let mut parts = Vec::new();
    for id in 0..10 {
        insert(&mut b, t, id);
        if b.is_full() {
            parts.push(b.cut().expect("a part"));
        }
    }
    assert!(b.cut().is_none(), "an unfinished transaction within the limits waits");
    commit(&mut b, 7);
    parts.push(b.cut().expect("the last part"));
    assert_eq!(parts.iter().map(Batch::len).collect::<Vec<_>>(), [4, 4, 2]);
    assert_eq!(parts.iter().map(end).collect::<Vec<_>>(), [None, None, Some(("{\"n\":7}", 0))]);
    let orders: Vec<_> = parts.iter().flat_map(rows).map(|r| (r.0, r.1, r.2, r.3)).collect();
    let expected: Vec<_> = (0..10).map(|i| (i, "big".to_string(), i as u64 + 1, i as u64 + 1)).collect();
    assert_eq!(orders, expected);
}

#[test]
fn without_transactions_kept_whole_a_checkpoint_lies_inside_and_a_resume_skips() {
    let limits = Limits { respect_source_tx: false, max_events: 3, ..LIMITS };
    let (mut b, t) = builder(limits);
    begin(&mut b, "x");
    for id in 0..3 {
        insert(&mut b, t, id);
    }
    let batch = b.cut().expect("a batch");
    assert_eq!(end(&batch), Some(("{\"n\":0}", 3)));

    let mut again = BatchBuilder::new(limits, Some(&Position::from_json("{\"n\":0}")), 3);
    let t = again.schema(Arc::new(table("t")));
    begin(&mut again, "x");
    for id in 0..5 {
        insert(&mut again, t, id);
    }
    commit(&mut again, 1);
    let batch = again.cut().expect("a batch");
    assert_eq!(rows(&batch).iter().map(|r| (r.0, r.2)).collect::<Vec<_>>(), [(3, 4), (4, 5)]);
    assert_eq!(end(&batch), Some(("{\"n\":1}", 0)));
}

#[test]
fn bytes_are_a_limit_too_and_a_large_event_travels_alone() {
    let (mut b, t) = builder(Limits { max_bytes: 1000, ..LIMITS });
    begin(&mut b, "x");
    insert(&mut b, t, 0);
    assert!(!b.is_full());
    insert(&mut b, t, 1);
    insert(&mut b, t, 2);
    assert!(b.is_full(), "three envelopes are above 1000 bytes");
    assert_eq!(b.cut().map(|batch| batch.len()), Some(2));
    let (mut b, t) = builder(Limits { max_bytes: 10, ..LIMITS });
    begin(&mut b, "x");
    insert(&mut b, t, 0);
    insert(&mut b, t, 1);
    assert_eq!(b.cut().map(|batch| batch.len()), Some(1));
    commit(&mut b, 1);
    assert_eq!(b.cut().map(|batch| batch.len()), Some(1));
}

#[test]
fn an_unfinished_event_and_a_rolled_back_transaction_leave_nothing() {
    let (mut b, t) = builder(LIMITS);
    begin(&mut b, "x0");
    insert(&mut b, t, 0);
    commit(&mut b, 1);
    begin(&mut b, "x1");
    insert(&mut b, t, 1);
    drop(b.event(Op::Delete, t));
    b.rollback();
    begin(&mut b, "x1");
    insert(&mut b, t, 1);
    commit(&mut b, 2);
    let batch = b.cut().expect("a batch");
    assert_eq!(rows(&batch), [(0, "x0".into(), 1, 1), (1, "x1".into(), 1, 1)]);
}

#[test]
fn places_without_events_are_advances() {
    let (mut b, t) = builder(LIMITS);
    b.advance(|out| out.extend_from_slice(b"{\"n\":9}"));
    assert_eq!(b.take_advance(), Some(place(9, 0)));
    assert_eq!(b.take_advance(), None);
    begin(&mut b, "x");
    insert(&mut b, t, 1);
    commit(&mut b, 10);
    b.advance(|out| out.extend_from_slice(b"{\"n\":11}"));
    assert_eq!(b.take_advance(), None, "events wait");
    // A batch ends where its last transaction does, wherever the server is by then.
    assert_eq!(b.cut().as_ref().and_then(end), Some(("{\"n\":10}", 0)));
    assert_eq!(b.take_advance(), Some(place(11, 0)));
    assert_eq!(b.take_advance(), None);
}

#[test]
fn event_ids_are_uuids_of_version_8() {
    let id = EventId::derive(b"orders\0\x01").to_string();
    assert_eq!((id.len(), &id[14..15]), (36, "8"));
    assert!("89ab".contains(&id[19..20]));
}

fn place(n: u64, events_done: u64) -> End {
    End { position: Position::from_json(&format!("{{\"n\":{n}}}")), events_done }
}

#[test]
fn what_was_delivered_of_a_transaction_stays_delivered_however_often_it_is_read_again() {
    let start = Position::from_json("{\"n\":0}");
    let limits = Limits { respect_source_tx: false, ..LIMITS };
    let mut b = BatchBuilder::new(limits, Some(&start), 3);
    let t = b.schema(Arc::new(table("t")));
    begin(&mut b, "x");
    (0..2).for_each(|n| insert(&mut b, t, n));
    b.rollback();
    // A place in front of the transaction does not take it back either.
    b.advance(|out| out.extend_from_slice(b"{\"n\":5}"));
    assert_eq!(b.take_advance(), Some(place(5, 3)));
    begin(&mut b, "x");
    (0..5).for_each(|n| insert(&mut b, t, n));
    let batch = b.cut().expect("the rest");
    assert_eq!(rows(&batch).iter().map(|r| (r.0, r.2)).collect::<Vec<_>>(), [(3, 4), (4, 5)]);
    assert_eq!(end(&batch), Some(("{\"n\":5}", 5)));
    b.rollback();
    begin(&mut b, "x");
    (0..2).for_each(|n| insert(&mut b, t, n));
    b.rollback();
    begin(&mut b, "x");
    (0..6).for_each(|n| insert(&mut b, t, n));
    assert_eq!(b.cut().map(|batch| rows(&batch)[0].0), Some(5));
}

#[test]
fn a_shape_that_is_there_keeps_its_index() {
    let (mut b, t) = builder(LIMITS);
    let other = b.schema(Arc::new(table("other")));
    assert_eq!((b.schema(Arc::new(table("t"))), b.schema(Arc::new(table("other")))), (t, other));
    let mut newer = table("t");
    newer.sequence = 2;
    let newer = b.schema(Arc::new(newer));
    assert_ne!(newer, t);
    assert_eq!(b.schema(Arc::new(table("t"))), t, "read again from before the change");
}

#[test]
fn identities_are_read_as_they_are_written() {
    let id = EventId::derive(b"row");
    assert_eq!(id.to_string().parse(), Ok(id));
    for wrong in [
        "",
        "5c0f4e0e-6f43-8a51-9d0a-3f6f0e2b7c1",
        "5c0f4e0e-6f43-8a51-9d0a-3f6f0e2b7c1g",
        "5c0f4e0e16f43-8a51-9d0a-3f6f0e2b7c19",
    ] {
        assert_eq!(wrong.parse::<EventId>(), Err(()), "{wrong}");
    }
}
