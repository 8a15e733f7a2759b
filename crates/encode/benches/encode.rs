//! What an event costs: `cargo bench -p deltaforge-encode`.
//!
//! Prints nanoseconds per event for each envelope, for the key, and per value type. Each figure is the best of several
//! runs over a warm buffer, so that other work on the machine shows as little as possible.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

use deltaforge_core::batch::TransactionHead;
use deltaforge_core::config::{Fields, Findings, Node};
use deltaforge_core::sink::SinkContext;
use deltaforge_core::source::{Format, Scope, SourceField, SourceInfo};
use deltaforge_core::value::{Date, Moment};
use deltaforge_core::{Batch, BatchBuilder, Column, EventId, Limits, Op, TableName, TableSchema, Value};
use deltaforge_encode::template::Template;
use deltaforge_encode::{Encoder, EnvelopePlan, json};
use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const EVENTS: u64 = 2000;
const RUNS: usize = 200;

/// What PostgreSQL's source tells beside the common members.
const FIELDS: &[SourceField] = &[
    SourceField { name: "sequence", scope: Scope::Event(0), format: Format::DecimalPair },
    SourceField { name: "lsn", scope: Scope::Event(1), format: Format::Lsn },
    SourceField { name: "txId", scope: Scope::Transaction(0), format: Format::Plain },
];

/// Rows of about 400 bytes of JSON, inserted one hundred to a transaction.
fn batch(rows_per_transaction: u64, sequence: bool) -> Batch {
    let names = [
        "id",
        "customer",
        "status",
        "total",
        "note",
        "address",
        "placed_at",
        "updated_at",
        "express",
        "items",
    ];
    let column = |name: &str| Column { name: name.into(), type_name: "text".into(), nullable: None };
    let mut schema = TableSchema::new(
        TableName::in_schema("shop", "public", "orders"),
        names.map(column).to_vec(),
        vec![0],
        vec![],
    );
    schema.sequence = 3;
    let limits = Limits { max_events: usize::MAX, max_bytes: 1 << 30, respect_source_tx: true };
    let mut builder = BatchBuilder::new(limits, None, 0);
    builder.read_at(1_736_951_521_853);
    let table = builder.schema(Arc::new(schema));
    for n in 0..EVENTS {
        if n % rows_per_transaction == 0 {
            let ts_us = 1_736_951_521_847_123 + n as i64;
            builder.begin(TransactionHead { id: "755123", ts_us, ts_exact: true }, 1, |row| {
                row.put(Value::Uint(755_123))
            });
        }
        let mut event = builder.event(Op::Create, table);
        let moment = Moment { secs: 1_736_951_521 + n as i64, nanos: 847_123_000 };
        let values = [
            Value::Int(1_000_000 + n as i64),
            Value::Text("Grace Brewster Murray Hopper"),
            Value::Text("paid"),
            Value::Decimal("12345.67"),
            Value::Text(
                "please ring twice, the bell is broken, and leave it with the neighbours at number nine if nobody answers",
            ),
            Value::Text("1 Harbour Road, Arlington, Virginia, 22202"),
            Value::Timestamp(moment),
            Value::Timestamp(moment),
            Value::Bool(false),
            Value::Int(12),
        ];
        let written: Result<(), Infallible> = event.after(values.len(), |row| {
            values.iter().for_each(|v| row.put(*v));
            Ok(())
        });
        written.unwrap();
        event.source(2, |row| {
            if sequence {
                let pair: Result<(), Infallible> = row.put_with(|cell| {
                    cell.list(|list| {
                        for part in [24_023_128, 24_023_128 + n] {
                            list.element(|cell| {
                                cell.put(Value::Uint(part));
                                Ok::<(), Infallible>(())
                            })?;
                        }
                        Ok(())
                    })
                });
                pair.unwrap();
            } else {
                row.put(Value::Absent);
            }
            row.put(Value::Uint(24_023_128 + n));
        });
        event.finish(EventId::derive(&n.to_be_bytes()));
        if (n + 1) % rows_per_transaction == 0 {
            builder.commit(|out| out.extend_from_slice(b"{}"));
        }
    }
    builder.cut().expect("a batch")
}

/// Best nanoseconds per call, and bytes per call, of something done `count` times in a run.
fn measure(count: u64, mut run: impl FnMut(&mut Vec<u8>)) -> (f64, u64) {
    let mut out = Vec::with_capacity(4 << 20);
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        out.clear();
        let start = Instant::now();
        run(&mut out);
        best = best.min(start.elapsed().as_nanos() as f64 / count as f64);
        black_box(&out);
    }
    (best, out.len() as u64 / count)
}

fn report(name: &str, (nanos, bytes): (f64, u64)) {
    println!("{name:<34} {nanos:>8.1} ns {bytes:>6} bytes");
}

fn plan(envelope: &str) -> EnvelopePlan {
    let node = Node::from_json(&serde_json::json!({"envelope": {"type": envelope}}));
    EnvelopePlan::parse(&mut Fields::new(&node, "", &mut Findings::default()))
}

fn main() {
    let context = SinkContext {
        pipeline: "orders".into(),
        tenant: "acme".into(),
        source: SourceInfo { connector: "postgresql", fields: FIELDS },
        shares_encoding: false,
        metrics: None,
    };
    for (rows, sequence, name) in
        [(100, true, "100-row tx"), (1, true, "1-row tx"), (100, false, "100-row tx, no sequence")]
    {
        let batch = batch(rows, sequence);
        for envelope in ["native", "debezium", "cloudevents"] {
            let mut encoder = Encoder::new(&plan(envelope), &context);
            let result = measure(EVENTS, |out| {
                encoder.prepare(&batch);
                batch.events().for_each(|event| encoder.event(&event, out));
            });
            report(&format!("{envelope}, {name}"), result);
        }
    }
    let batch = batch(100, true);
    let mut encoder = Encoder::new(&plan("native"), &context);
    report("key", measure(EVENTS, |out| batch.events().for_each(|event| encoder.key(&event, out))));
    let template = Template::parse("cdc.${source.schema}.${source.table}").expect("a template");
    let rendered = measure(EVENTS, |out| {
        batch.events().for_each(|event| template.render(&event, &context, out).expect("filled"));
    });
    report("template of two names", rendered);
    let long = "x".repeat(1000);
    let moment = Moment { secs: 1_736_951_521, nanos: 847_123_000 };
    let values = [
        ("null", Value::Null),
        ("integer", Value::Int(1_234_567)),
        ("float", Value::Float64(1234.5678)),
        ("decimal", Value::Decimal("12345.67")),
        ("text of 4", Value::Text("paid")),
        ("text of 40", Value::Text("1 Harbour Road, Arlington, Virginia 2220")),
        ("text of 1000", Value::Text(&long)),
        ("text with quotes", Value::Text("say \"hi\" and \"bye\" to the crowd")),
        ("bytes, 100", Value::Bytes(&[7; 100])),
        ("date", Value::Date(Date { days: 20_000 })),
        ("time", Value::Time(52_321_500_000)),
        ("timestamp", Value::Timestamp(moment)),
        ("uuid", Value::Uuid(&[0xab; 16])),
    ];
    for (name, value) in values {
        report(name, measure(1000, |out| (0..1000).for_each(|_| json::value(black_box(value), out))));
    }
}
