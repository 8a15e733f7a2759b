//! Encoding allocates nothing once tables are prepared and the buffer has its size.

// A helper that meets a surprise ends its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use deltaforge_core::batch::TransactionHead;
use deltaforge_core::sink::SinkContext;
use deltaforge_core::source::{Format, Scope, SourceField, SourceInfo};
use deltaforge_core::value::{Date, Interval, Moment, TimeTz};
use deltaforge_core::{Batch, BatchBuilder, Column, EventId, Limits, Op, TableName, TableSchema, Value};
use deltaforge_encode::template::Template;
use deltaforge_encode::{Encoder, EnvelopePlan};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;

struct Counting;

thread_local! {
    // Per thread, because the test harness allocates on its own threads.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // During a thread's end the cell is gone; such allocations are nobody's.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: every call is handed on to the system's allocator unchanged.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FIELDS: &[SourceField] = &[
    SourceField { name: "lsn", scope: Scope::Event(0), format: Format::Lsn },
    SourceField { name: "txId", scope: Scope::Transaction(0), format: Format::Plain },
];

const VALUES: [Value<'static>; 18] = [
    Value::Null,
    Value::Bool(true),
    Value::Int(-7),
    Value::Uint(u64::MAX),
    Value::Float32(0.1),
    Value::Float64(1e300),
    Value::Float64(f64::NAN),
    Value::Decimal("99.90"),
    Value::Text("a text with \"quotes\", longer than the words that the scan steps by"),
    Value::Bytes(&[1; 100]),
    Value::Json(r#"{"a":1}"#),
    Value::Date(Date { days: 20_000 }),
    Value::Time(1),
    Value::TimeTz(TimeTz { micros: 1, offset_secs: 7200 }),
    Value::DateTime(Moment { secs: 1_736_951_521, nanos: 847_000_000 }),
    Value::Timestamp(Moment { secs: 300_000_000_000, nanos: 0 }),
    Value::Interval(Interval { months: 14, days: 3, micros: 5 }),
    Value::Uuid(&[7; 16]),
];

fn batch() -> Batch {
    let names =
        (0..VALUES.len()).map(|i| Column { name: format!("c{i}"), type_name: String::new(), nullable: None });
    let schema =
        TableSchema::new(TableName::in_schema("shop", "public", "t"), names.collect(), vec![2], vec![]);
    let limits = Limits { max_events: 10_000, max_bytes: 1 << 30, respect_source_tx: true };
    let mut builder = BatchBuilder::new(limits, None, 0);
    let table = builder.schema(Arc::new(schema));
    for n in 0..200u64 {
        builder.begin(
            TransactionHead { id: "755", ts_us: 1_736_951_521_847_123 + n as i64, ts_exact: true },
            1,
            |row| row.put(Value::Uint(n)),
        );
        let op = [Op::Create, Op::Update, Op::Delete, Op::Truncate][n as usize % 4];
        let mut event = builder.event(op, table);
        let fill = |row: &mut deltaforge_core::row::RowWriter<'_>| -> Result<(), Infallible> {
            VALUES.iter().for_each(|v| row.put(*v));
            Ok(())
        };
        event.before(VALUES.len(), fill).unwrap();
        event.after(VALUES.len(), fill).unwrap();
        event.source(1, |row| row.put(Value::Uint(n)));
        event.ddl("{}");
        event.finish(EventId::derive(&n.to_be_bytes()));
        builder.commit(|out| out.extend_from_slice(b"{}"));
    }
    builder.cut().expect("a batch")
}

#[test]
fn the_steady_state_allocates_nothing() {
    let context = SinkContext {
        pipeline: "orders".into(),
        tenant: "acme".into(),
        source: SourceInfo { connector: "postgresql", fields: FIELDS },
        shares_encoding: false,
        metrics: None,
    };
    let batch = batch();
    let template = Template::parse("cdc.${source.schema}.${source.table}.${after.c2:-none}").unwrap();
    for envelope in ["native", "debezium", "cloudevents"] {
        let settings = serde_json::json!({"envelope": {"type": envelope}});
        let node = deltaforge_core::config::Node::from_json(&settings);
        let mut findings = deltaforge_core::config::Findings::default();
        let plan = EnvelopePlan::parse(&mut deltaforge_core::config::Fields::new(&node, "", &mut findings));
        let mut encoder = Encoder::new(&plan, &context);
        let mut out = Vec::with_capacity(1 << 20);
        let mut run = |out: &mut Vec<u8>| {
            encoder.prepare(&batch);
            for event in batch.events() {
                encoder.event(&event, out);
                encoder.key(&event, out);
                encoder.old_key(&event, out);
                Encoder::event_id(event.id(), out);
                template.render(&event, &context, out).unwrap();
            }
        };
        run(&mut out);
        let bytes = out.len();
        out.clear();
        let before = ALLOCATIONS.get();
        run(&mut out);
        assert_eq!(ALLOCATIONS.get() - before, 0, "{envelope}");
        assert_eq!(out.len(), bytes);
    }
}
