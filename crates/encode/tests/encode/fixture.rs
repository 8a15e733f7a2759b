//! Batches for tests: a table `public.orders` of a source that looks like PostgreSQL's.

use deltaforge_core::batch::{TableIx, TransactionHead};
use deltaforge_core::row::RowWriter;
use deltaforge_core::sink::SinkContext;
use deltaforge_core::source::{Format, Scope, SourceField, SourceInfo};
use deltaforge_core::{Batch, BatchBuilder, Column, EventId, Limits, Op, TableName, TableSchema, Value};
use std::convert::Infallible;
use std::sync::Arc;

pub(crate) const FIELDS: &[SourceField] = &[
    SourceField { name: "sequence", scope: Scope::Event(0), format: Format::DecimalPair },
    SourceField { name: "lsn", scope: Scope::Event(1), format: Format::Lsn },
    SourceField { name: "txId", scope: Scope::Transaction(0), format: Format::Plain },
];

/// 2025-01-15T14:32:01.847123Z
pub(crate) const TS_US: i64 = 1_736_951_521_847_123;
pub(crate) const READ_MS: i64 = 1_736_951_521_853;

pub(crate) fn context() -> SinkContext {
    SinkContext {
        pipeline: "orders".into(),
        tenant: "acme".into(),
        source: SourceInfo { connector: "postgresql", fields: FIELDS },
        shares_encoding: false,
        metrics: None,
    }
}

pub(crate) fn schema(name: TableName, columns: &[&str], key: &[u16]) -> TableSchema {
    let column = |name: &&str| Column { name: (*name).into(), type_name: "text".into(), nullable: None };
    let mut schema = TableSchema::new(name, columns.iter().map(column).collect(), key.to_vec(), vec![]);
    schema.sequence = 3;
    schema
}

pub(crate) fn orders() -> TableSchema {
    schema(TableName::in_schema("shop", "public", "orders"), &["id", "status", "total", "doc"], &[0])
}

pub(crate) type Row<'a> = &'a [Value<'a>];

/// Builds one batch.
pub(crate) struct Maker {
    pub(crate) builder: BatchBuilder,
    pub(crate) table: TableIx,
    columns: usize,
    count: u64,
}

impl Maker {
    pub(crate) fn new(schema: TableSchema) -> Maker {
        let limits = Limits { max_events: 10_000, max_bytes: 1 << 30, respect_source_tx: true };
        let mut builder = BatchBuilder::new(limits, None, 0);
        builder.read_at(READ_MS);
        let columns = schema.columns.len();
        let table = builder.schema(Arc::new(schema));
        Maker { builder, table, columns, count: 0 }
    }

    pub(crate) fn begin(&mut self, id: &str, ts_us: i64) {
        let xid = id.parse::<u64>().unwrap_or_default();
        self.builder.begin(TransactionHead { id, ts_us, ts_exact: true }, 1, |row| row.put(Value::Uint(xid)));
    }

    /// An event with both images as given and the source's fields of a stream event.
    pub(crate) fn event(
        &mut self,
        op: Op,
        before: Option<Row<'_>>,
        after: Option<Row<'_>>,
        ddl: Option<&str>,
    ) {
        self.count += 1;
        let columns = self.columns;
        let mut event = self.builder.event(op, self.table);
        let fill = |values: &[Value<'_>], row: &mut RowWriter<'_>| -> Result<(), Infallible> {
            values.iter().for_each(|value| row.put(*value));
            Ok(())
        };
        if let Some(values) = before {
            event.before(columns, |row| fill(values, row)).unwrap();
        }
        if let Some(values) = after {
            event.after(columns, |row| fill(values, row)).unwrap();
        }
        event.source(2, |row| {
            if op == Op::Read {
                row.put(Value::Absent);
            } else {
                let pair: Result<(), Infallible> = row.put_with(|cell| {
                    cell.list(|list| {
                        for number in [24_023_128, 24_023_192] {
                            list.element(|cell| {
                                cell.put(Value::Uint(number));
                                Ok::<(), Infallible>(())
                            })?;
                        }
                        Ok(())
                    })
                });
                pair.unwrap();
            }
            row.put(Value::Uint(0x16B_6C50));
        });
        if let Some(json) = ddl {
            event.ddl(json);
        }
        event.finish(EventId::derive(&self.count.to_be_bytes()));
    }

    pub(crate) fn finish(mut self) -> Batch {
        self.builder.commit(|out| out.extend_from_slice(b"{}"));
        self.builder.cut().expect("a batch")
    }
}

/// One event in a transaction (none for snapshot rows).
pub(crate) fn one(schema: TableSchema, op: Op, before: Option<Row<'_>>, after: Option<Row<'_>>) -> Batch {
    one_with_ddl(schema, op, before, after, None)
}

pub(crate) fn one_with_ddl(
    schema: TableSchema,
    op: Op,
    before: Option<Row<'_>>,
    after: Option<Row<'_>>,
    ddl: Option<&str>,
) -> Batch {
    let mut maker = Maker::new(schema);
    if op != Op::Read {
        maker.begin("755", TS_US);
    }
    maker.event(op, before, after, ddl);
    maker.finish()
}

pub(crate) fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).expect("UTF-8")
}
