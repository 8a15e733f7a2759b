//! Envelopes and encodings: from packed rows to the bytes that a sink sends.
//!
//! The way of one event:
//!
//! ```text
//!   sink's config ──► EnvelopePlan ──► Encoder ── prepare(batch) ──► per table shape: column names, source, tail
//!                                         │
//!   row in the batch's arena ─── event() ─┴──────────────────────► the caller's Vec<u8>, the only copy
//! ```
//!
//! This is the hot path of the whole program: every event passes it once per sink. So everything that does not change from
//! row to row is made text once per table shape, values are printed straight behind it, and in the steady state nothing is
//! allocated. A test with a counting allocator keeps that so, `benches/encode.rs` says what an event costs.
//!
//! - [`json`] prints values, `time` the calendar ones;
//! - `table` holds a shape's column names and prints rows, `key` prints message keys;
//! - `native`, `debezium` and `cloudevents` are the envelopes around them;
//! - [`template`] fills a sink's routing templates.

mod cloudevents;
mod debezium;
pub mod json;
mod key;
mod native;
mod plan;
mod table;
pub mod template;
mod time;

pub use plan::EnvelopePlan;

use deltaforge_core::batch::Texts;
use deltaforge_core::sink::SinkContext;
use deltaforge_core::{Batch, Event, EventId, TableSchema};
use std::sync::Arc;

/// Turns events into bytes: one per sink, with what it prepared for the tables it has met.
#[derive(Debug)]
pub struct Encoder {
    envelope: EnvelopeEncoder,
    /// The tables of the batch that was prepared last; batches share them until a table appears or changes.
    seen: Option<Arc<Vec<Arc<TableSchema>>>>,
    tables: Vec<Prepared>,
    /// Only where another sink of the pipeline makes the same.
    shared: Option<Shared>,
}

/// An encoding that several sinks use: the first that comes to a batch makes it.
#[derive(Debug)]
struct Shared {
    name: String,
    /// Those of the batch that was prepared last, and where that batch lies.
    texts: Option<(usize, Arc<Texts>)>,
}

/// An envelope and what it prepared, by table index.
#[derive(Debug)]
enum EnvelopeEncoder {
    Native(native::Native, Vec<native::NativeTable>),
    Debezium(native::Native, Vec<native::NativeTable>),
    CloudEvents(cloudevents::CloudEvents, Vec<cloudevents::CloudEventsTable>),
}

/// What is prepared for one table shape, whatever the envelope.
#[derive(Debug)]
struct Prepared {
    /// Kept alive, so that the address alone tells whether an event is of this shape.
    schema: Arc<TableSchema>,
    columns: table::Columns,
    key: key::KeyPlan,
}

impl Encoder {
    /// An encoder for a sink's envelope.
    pub fn new(plan: &EnvelopePlan, context: &SinkContext) -> Encoder {
        let envelope = match &plan.envelope {
            plan::Envelope::Native => EnvelopeEncoder::Native(native::Native::new(context), Vec::new()),
            plan::Envelope::Debezium => EnvelopeEncoder::Debezium(native::Native::new(context), Vec::new()),
            plan::Envelope::CloudEvents { type_prefix } => {
                EnvelopeEncoder::CloudEvents(cloudevents::CloudEvents::new(context, type_prefix), Vec::new())
            }
        };
        let shared = context.shares_encoding.then(|| Shared { name: plan.encoding(), texts: None });
        Encoder { envelope, seen: None, tables: Vec::new(), shared }
    }

    /// Prepares the tables of a batch that are new. Call it once per batch; without new tables it compares one pointer.
    pub fn prepare(&mut self, batch: &Batch) {
        self.prepare_tables(batch);
        if let Some(mut shared) = self.shared.take() {
            let texts = batch.texts(&shared.name, |texts| {
                batch.events().for_each(|event| texts.push(|out| self.make(&event, out)));
            });
            shared.texts = Some((std::ptr::from_ref(batch).addr(), texts));
            self.shared = Some(shared);
        }
    }

    fn prepare_tables(&mut self, batch: &Batch) {
        if self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, batch.tables())) {
            return;
        }
        for (index, schema) in batch.tables().iter().enumerate() {
            if self.tables.get(index).is_some_and(|known| Arc::ptr_eq(&known.schema, schema)) {
                continue;
            }
            self.envelope.prepare(index, schema);
            put(
                &mut self.tables,
                index,
                Prepared {
                    schema: schema.clone(),
                    columns: table::Columns::new(schema),
                    key: key::KeyPlan::new(schema),
                },
            );
        }
        self.seen = Some(batch.tables().clone());
    }

    /// Appends the payload.
    pub fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        let wraps = matches!(self.envelope, EnvelopeEncoder::Debezium(..));
        if wraps {
            out.extend_from_slice(debezium::OPEN);
        }
        match &self.shared {
            Some(Shared { texts: Some((batch, texts)), .. })
                if *batch == std::ptr::from_ref(event.batch()).addr() =>
            {
                out.extend_from_slice(texts.get(event.index()));
            }
            _ => self.make(event, out),
        }
        if wraps {
            out.extend_from_slice(debezium::CLOSE);
        }
    }

    /// Appends what sinks may share: all but the wrapper of `debezium`.
    fn make(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        let index = self.index(event);
        let columns = &self.tables[index].columns;
        match &mut self.envelope {
            EnvelopeEncoder::Native(native, tables) | EnvelopeEncoder::Debezium(native, tables) => {
                native.event(event, &mut tables[index], columns, out);
            }
            EnvelopeEncoder::CloudEvents(cloud, tables) => cloud.event(event, &tables[index], columns, out),
        }
    }

    /// Appends the default message key: compact JSON of the key columns, or the full table name as JSON text.
    pub fn key(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        let index = self.index(event);
        let table = &self.tables[index];
        table.key.key(event, &table.columns, out);
    }

    /// Appends the key that the row had before, when the event is an update that changed it; else appends nothing.
    pub fn old_key(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> bool {
        let index = self.index(event);
        self.tables[index].key.old_key(event, out)
    }

    /// Appends an event id as text, 36 characters.
    pub fn event_id(id: EventId, out: &mut Vec<u8>) {
        json::uuid(&id.0, out);
    }

    /// Where the event's table is prepared. An event of a batch that was not prepared prepares it.
    #[inline]
    fn index(&mut self, event: &Event<'_>) -> usize {
        let index = event.table_index();
        let known = self.tables.get(index).is_some_and(|t| std::ptr::eq(&*t.schema, event.table()));
        if !known {
            self.prepare_tables(event.batch());
        }
        index
    }
}

impl EnvelopeEncoder {
    fn prepare(&mut self, index: usize, schema: &TableSchema) {
        match self {
            EnvelopeEncoder::Native(native, tables) | EnvelopeEncoder::Debezium(native, tables) => {
                put(tables, index, native.table(schema));
            }
            EnvelopeEncoder::CloudEvents(cloud, tables) => put(tables, index, cloud.table(schema)),
        }
    }
}

/// Replaces the item at an index, or adds it at the end.
fn put<T>(items: &mut Vec<T>, index: usize, item: T) {
    match items.get_mut(index) {
        Some(old) => *old = item,
        None => items.push(item),
    }
}
