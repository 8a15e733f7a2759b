//! What the tests of this crate share: batches, plans, and how to read back what arrived.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod kafka;
pub mod nats;

use deltaforge_core::batch::{BatchBuilder, Limits, TransactionHead};
use deltaforge_core::config::{Fields, Findings, Node};
use deltaforge_core::position::Position;
use deltaforge_core::schema::{Column, TableName};
use deltaforge_core::sink::{Delivered, Delivery, Receipt, Sink, SinkContext, SinkPlan};
use deltaforge_core::source::{Names, SourceInfo};
use deltaforge_core::{Batch, BatchSeq, Epoch, EventId, Fault, Op, TableSchema, Value};
use futures_util::future::OptionFuture;
use serde_json::json;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;

pub const DELIVERY: Delivery = Delivery { seq: BatchSeq(1), epoch: Epoch(1) };

pub fn context() -> SinkContext {
    context_of("test")
}

pub fn context_of(pipeline: &str) -> SinkContext {
    let source = SourceInfo { connector: "postgresql", fields: &[] };
    SinkContext {
        pipeline: pipeline.into(),
        tenant: "default".into(),
        source,
        shares_encoding: false,
        metrics: None,
    }
}

/// What parsing says: the plan, or the findings as `path: class: message`.
pub fn parse(
    kind: &str,
    config: serde_json::Value,
    required: Option<bool>,
) -> Result<Arc<dyn SinkPlan>, Vec<String>> {
    parse_of("test", kind, config, required)
}

/// As [`parse`], in a pipeline of that name.
pub fn parse_of(
    pipeline: &str,
    kind: &str,
    config: serde_json::Value,
    required: Option<bool>,
) -> Result<Arc<dyn SinkPlan>, Vec<String>> {
    let node = Node::from_json(&config);
    let mut findings = Findings::default();
    let mut fields = Fields::new(&node, "config", &mut findings);
    let names = Names { pipeline, default_id: "test-sink" };
    let kind = deltaforge_sinks::kinds().into_iter().find(|k| k.name() == kind).expect("a known sink");
    let plan = kind.parse(&mut fields, &names, required);
    fields.finish();
    if findings.errors.is_empty() {
        return Ok(plan.expect("a plan when there are no findings"));
    }
    let shown = findings.errors.iter().map(|f| format!("{}: {}: {}", f.path, f.class.as_str(), f.message));
    Err(shown.collect())
}

pub fn plan(kind: &str, config: serde_json::Value) -> Arc<dyn SinkPlan> {
    parse(kind, config, None).unwrap_or_else(|findings| panic!("{findings:?}"))
}

pub async fn open(plan: &Arc<dyn SinkPlan>) -> Box<dyn Sink> {
    // A process that another test of this binary starts holds every open file, and its lock, until it has become another program.
    for _ in 0..1000 {
        match plan.open(&context()).await {
            Ok(sink) => return sink,
            Err(fault) if fault.code() == "file.in_use" => tokio::task::yield_now().await,
            Err(fault) => panic!("{fault:?}"),
        }
    }
    panic!("the file stays in use");
}

fn schema(table: &str) -> Arc<TableSchema> {
    let column = |name: &str, type_name: &str| Column {
        name: name.into(),
        type_name: type_name.into(),
        nullable: None,
    };
    let columns = vec![column("id", "bigint"), column("pad", "text")];
    Arc::new(TableSchema::new(TableName::in_schema("shop", "public", table), columns, vec![0], vec![]))
}

/// The id of the event that inserts row `id`.
pub fn event_id(id: i64) -> EventId {
    EventId::derive(&id.to_be_bytes())
}

/// One row of a batch.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    pub table: &'a str,
    pub op: Op,
    pub id: i64,
    pub old_id: Option<i64>,
    pub pad: &'a str,
}

/// A batch of any rows, in one transaction.
pub fn batch_of(rows: &[Row<'_>]) -> Arc<Batch> {
    let limits = Limits { max_events: usize::MAX, max_bytes: usize::MAX, respect_source_tx: true };
    let mut builder = BatchBuilder::new(limits, None, 0);
    let mut tables = Vec::new();
    builder.read_at(1_700_000_000_000);
    builder.begin(TransactionHead { id: "755", ts_us: 1_700_000_000_000_000, ts_exact: true }, 0, |_| {});
    for row in rows {
        let known = tables.iter().find(|(name, _)| *name == row.table).map(|(_, index)| *index);
        let table = known.unwrap_or_else(|| {
            let index = builder.schema(schema(row.table));
            tables.push((row.table, index));
            index
        });
        let mut event = builder.event(row.op, table);
        if let Some(old) = row.old_id {
            let _: Result<(), Infallible> = event.before(2, |out| {
                out.put(Value::Int(old));
                out.put(Value::Text(row.pad));
                Ok(())
            });
        }
        let _: Result<(), Infallible> = event.after(2, |out| {
            out.put(Value::Int(row.id));
            out.put(Value::Text(row.pad));
            Ok(())
        });
        event.finish(event_id(row.id));
    }
    builder.commit(|out| out.extend_from_slice(b"{\"lsn\":\"0/1\"}"));
    Arc::new(builder.cut().expect("a batch"))
}

/// Inserts of rows `ids` into one table, each with a text of `pad` bytes.
pub fn batch(ids: Range<i64>, pad: usize) -> Arc<Batch> {
    let pad = "x".repeat(pad);
    let row = |id| Row { table: "t", op: Op::Create, id, old_id: None, pad: &pad };
    batch_of(&ids.map(row).collect::<Vec<_>>())
}

/// Inserts of rows `ids` in one transaction that ends at `position`, in batches of `most` events: all but the last have no end.
pub fn transaction(ids: Range<i64>, most: usize, position: &str) -> Vec<Arc<Batch>> {
    let limits = Limits { max_events: most, max_bytes: usize::MAX, respect_source_tx: true };
    let mut builder = BatchBuilder::new(limits, None, 0);
    let table = builder.schema(schema("t"));
    let mut batches = Vec::new();
    builder.begin(TransactionHead { id: "755", ts_us: 1_700_000_000_000_000, ts_exact: true }, 0, |_| {});
    for id in ids {
        let mut event = builder.event(Op::Create, table);
        let _: Result<(), Infallible> = event.after(2, |out| {
            out.put(Value::Int(id));
            out.put(Value::Text("x"));
            Ok(())
        });
        event.finish(event_id(id));
        if builder.is_full() {
            batches.push(Arc::new(builder.cut().expect("a part")));
        }
    }
    builder.commit(|out| out.extend_from_slice(position.as_bytes()));
    batches.push(Arc::new(builder.cut().expect("the end")));
    for (at, batch) in batches.iter().enumerate() {
        assert_eq!(batch.end().is_some(), at + 1 == batches.len(), "only the last part has an end");
    }
    batches
}

/// Where the first batch of a test begins.
pub fn origin() -> Position {
    Position::from_json("{\"lsn\":\"0/0\",\"tx_id\":0}")
}

/// The position that a test gives to the end of row `id`'s transaction.
pub fn position(id: i64) -> String {
    format!("{{\"lsn\":\"0/{id:X}\",\"tx_id\":{id}}}")
}

/// A batch of one transaction that ends at the position of its last row.
pub fn ended(ids: Range<i64>) -> Arc<Batch> {
    let position = position(ids.end - 1);
    transaction(ids, usize::MAX, &position).pop().expect("one batch")
}

/// A batch without events.
pub fn empty_batch() -> Arc<Batch> {
    Arc::new(batch(0..1, 0).without(event_id(0)))
}

/// Delivers and waits for the receipt.
pub async fn deliver(sink: &mut dyn Sink, batch: Arc<Batch>) -> Result<Delivered, Fault> {
    let receipt: Receipt = sink.deliver(batch, DELIVERY).await?;
    receipt.await
}

/// Delivers as a lane does: on a `Retry` fault the sink is opened anew and goes on with the first batch without a receipt.
/// Gives the codes of the faults on the way.
pub async fn deliver_all(plan: &Arc<dyn SinkPlan>, batches: &[Arc<Batch>]) -> Vec<&'static str> {
    let mut codes = Vec::new();
    let mut done = 0;
    while done < batches.len() {
        match attempt(plan, batches, &mut done).await {
            Ok(()) => {}
            Err(fault) if fault.is_retry() => {
                codes.push(fault.code());
                tokio::time::sleep(std::time::Duration::from_millis(20)).await; // The lane's backoff.
            }
            Err(fault) => panic!("{fault:?}"),
        }
    }
    codes
}

async fn attempt(plan: &Arc<dyn SinkPlan>, batches: &[Arc<Batch>], done: &mut usize) -> Result<(), Fault> {
    let mut sink = plan.open(&context()).await?;
    let mut window: VecDeque<Receipt> = VecDeque::new();
    let mut next = *done;
    while *done < batches.len() {
        if next < batches.len() && window.len() < 2 {
            match sink.deliver(batches[next].clone(), DELIVERY).await {
                Ok(receipt) => window.push_back(receipt),
                Err(fault) => {
                    // The batches before it may well have arrived.
                    while let Some(Ok(_)) = OptionFuture::from(window.pop_front()).await {
                        *done += 1;
                    }
                    return Err(fault);
                }
            }
            next += 1;
        } else if let Some(receipt) = window.pop_front() {
            receipt.await?;
            *done += 1;
        }
    }
    sink.close().await;
    Ok(())
}

/// The row ids of native events.
pub fn ids(events: &[serde_json::Value]) -> Vec<i64> {
    events
        .iter()
        .map(|e| e["after"]["id"].as_i64().unwrap_or_else(|| panic!("an event with an id: {e}")))
        .collect()
}

/// The events of JSON lines. What a test runner writes around them is left out.
pub fn events_of_lines(text: &str) -> Vec<serde_json::Value> {
    let lines = text.lines().filter_map(|line| Some(&line[line.find('{')?..]));
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Splits what arrived into runs that count up by one, and asserts that it is a delivery of `0..n` with contiguous replays:
/// no run begins beyond what was seen before.
#[track_caller]
pub fn assert_contiguous_replays(ids: &[i64], n: i64) {
    let mut seen = 0;
    let mut last = -1;
    for id in ids {
        assert!(*id <= seen, "{id} arrived before {seen}");
        assert!(*id == last + 1 || *id <= last, "{id} after {last}");
        last = *id;
        seen = seen.max(id + 1);
    }
    assert_eq!(seen, n, "missing from {seen}");
}

/// The config of a file sink.
pub fn file_config(path: &std::path::Path) -> serde_json::Value {
    json!({ "path": path.display().to_string() })
}

/// The events of a stream, from redis-cli's raw answer to XRANGE: id, then names and values, a line each.
pub fn stream_events(answer: &str) -> Vec<serde_json::Value> {
    let mut lines = answer.lines();
    let mut events = Vec::new();
    while let Some(line) = lines.next() {
        if line == "df-event" {
            events.push(serde_json::from_str(lines.next().unwrap()).unwrap());
        }
    }
    events
}
