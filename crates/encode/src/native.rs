//! The native envelope: the event itself.
//!
//! ```text
//! {"before":ROW ,"after":ROW ,"source":{"version":…,"name":…,"ts_ms":N,"ts_us":N,"db":…,"table":…   own fields }
//!                            └───────────────── head: constant but for the two times ─────────────┘
//! ,"op":"u","ts_ms":N ,"transaction":{…} ,"event_id":"…36…  ","tenant_id":…,"schema_version":…,"schema_sequence":N}
//!                                                           └──────────────── tail: constant ────────────────────┘
//! ```
//!
//! Constants are made once per table shape. The head is kept with its times filled in: rows of one transaction share
//! them, so most events copy it whole.

use crate::json;
use crate::table::{Absent, Columns, Text, member_name};
use deltaforge_core::sink::SinkContext;
use deltaforge_core::source::{Format, Scope};
use deltaforge_core::{Event, Op, RowRef, TableSchema, Value};

/// What `source.version` says.
pub(crate) const VERSION: &str = concat!("deltaforge-", env!("CARGO_PKG_VERSION"));

/// What is the same for every event of a sink.
#[derive(Debug)]
pub(crate) struct Native {
    /// `,"source":{"version":…,"connector":…,"name":…,"ts_ms":`
    stem: Vec<u8>,
    /// `","tenant_id":…`, the quote ending the event id.
    tenant: Vec<u8>,
    fields: Vec<OwnField>,
}

/// One of the source's own members of `source`.
#[derive(Debug)]
struct OwnField {
    /// `,"lsn":`
    name: Text,
    scope: Scope,
    format: Format,
}

/// What is the same for every event of one table shape.
#[derive(Debug)]
pub(crate) struct NativeTable {
    /// From `,"source"` to the last of the members that every source has, with the times of `head_ts_us`.
    head: Vec<u8>,
    head_ts_us: i64,
    head_ts_exact: bool,
    /// Where the times lie in `head`.
    times: std::ops::Range<usize>,
    /// From the quote that ends the event id to the brace that ends the event.
    tail: Vec<u8>,
}

impl Native {
    pub(crate) fn new(context: &SinkContext) -> Native {
        let mut stem = br#","source":{"version":"#.to_vec();
        json::string(VERSION, &mut stem);
        stem.extend_from_slice(br#","connector":"#);
        json::string(context.source.connector, &mut stem);
        stem.extend_from_slice(br#","name":"#);
        json::string(&context.pipeline, &mut stem);
        stem.extend_from_slice(br#","ts_ms":"#);
        let mut tenant = br#"","tenant_id":"#.to_vec();
        json::string(&context.tenant, &mut tenant);
        let own_field = |field: &deltaforge_core::source::SourceField| {
            let name = Text::new(|out| member_name(field.name, out));
            OwnField { name, scope: field.scope, format: field.format }
        };
        Native { stem, tenant, fields: context.source.fields.iter().map(own_field).collect() }
    }

    pub(crate) fn table(&self, schema: &TableSchema) -> NativeTable {
        let mut head = self.stem.clone();
        let times_at = head.len();
        write_times(0, true, &mut head);
        let times = times_at..head.len();
        let name = &schema.name;
        let members =
            [("db", Some(&name.db)), ("schema", name.schema.as_ref()), ("table", Some(&name.table))];
        for (member, text) in members {
            // Schema changes that concern no table name none.
            if let Some(text) = text.filter(|text| member != "table" || !text.is_empty()) {
                member_name(member, &mut head);
                json::string(text, &mut head);
            }
        }
        let mut tail = self.tenant.clone();
        // An unregistered schema is not known to anybody else; its fingerprint alone would lead nowhere.
        if schema.sequence > 0 {
            tail.extend_from_slice(br#","schema_version":"#);
            json::string(&schema.fingerprint.to_string(), &mut tail);
            tail.extend_from_slice(br#","schema_sequence":"#);
            json::uint(schema.sequence, &mut tail);
        }
        tail.push(b'}');
        NativeTable { head, head_ts_us: 0, head_ts_exact: true, times, tail }
    }

    /// Appends the event.
    pub(crate) fn event(
        &self,
        event: &Event<'_>,
        table: &mut NativeTable,
        columns: &Columns,
        out: &mut Vec<u8>,
    ) {
        let op = event.op();
        images(event, columns, out);
        table.set_times(event.ts_us(), event.ts_is_exact());
        out.extend_from_slice(&table.head);
        if op == Op::Read {
            out.extend_from_slice(br#","snapshot":"true""#);
        }
        let transaction = event.transaction();
        self.own_fields(event.source(), transaction.and_then(|t| t.source()), out);
        out.extend_from_slice(after_source(op));
        json::int(event.read_ms(), out);
        if let Some(transaction) = transaction {
            out.extend_from_slice(br#","transaction":{"id":"#);
            json::string(transaction.id, out);
            out.extend_from_slice(br#","total_order":"#);
            json::uint(transaction.total_order, out);
            out.extend_from_slice(br#","data_collection_order":"#);
            json::uint(transaction.table_order, out);
            out.push(b'}');
        }
        out.extend_from_slice(br#","event_id":""#);
        json::uuid(&event.id().0, out);
        out.extend_from_slice(&table.tail);
        if matches!(op, Op::Truncate | Op::Ddl)
            && let Some(ddl) = event.ddl()
        {
            out.pop(); // The tail's closing brace.
            out.extend_from_slice(br#","ddl":"#);
            out.extend_from_slice(ddl.as_bytes());
            out.push(b'}');
        }
    }

    #[inline]
    fn own_fields(
        &self,
        of_event: Option<RowRef<'_>>,
        of_transaction: Option<RowRef<'_>>,
        out: &mut Vec<u8>,
    ) {
        for field in &self.fields {
            let value = field_value(field.scope, of_event, of_transaction);
            if matches!(value, Value::Absent) {
                continue;
            }
            field.name.append(out);
            own_value(field.format, value, out);
        }
    }
}

impl NativeTable {
    #[inline]
    fn set_times(&mut self, ts_us: i64, exact: bool) {
        if self.head_ts_us == ts_us && self.head_ts_exact == exact {
            return;
        }
        (self.head_ts_us, self.head_ts_exact) = (ts_us, exact);
        // Written behind the head, then swapped into place: the digits rarely change in number.
        let end = self.head.len();
        write_times(ts_us, exact, &mut self.head);
        let length = self.head.len() - end;
        if length == self.times.len() {
            self.head.copy_within(end.., self.times.start);
            self.head.truncate(end);
        } else {
            let (old_end, start) = (self.times.end, self.times.start);
            self.head[start..].rotate_right(length);
            self.head.drain(start + length..old_end + length);
            self.times = start..start + length;
        }
    }
}

/// `N,"ts_us":N`, milliseconds and microseconds; only the first where no more than the second is known.
fn write_times(ts_us: i64, exact: bool, out: &mut Vec<u8>) {
    json::int(ts_us.div_euclid(1000), out);
    if !exact {
        return;
    }
    out.extend_from_slice(br#","ts_us":"#);
    json::int(ts_us, out);
}

/// Appends `{"before":…,"after":…`.
#[inline]
pub(crate) fn images(event: &Event<'_>, columns: &Columns, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"before":"#);
    columns.row(event.before(), Absent::Omitted, out);
    out.extend_from_slice(br#","after":"#);
    let absent = if event.op() == Op::Update { Absent::Marked } else { Absent::Omitted };
    columns.row(event.after(), absent, out);
}

fn after_source(op: Op) -> &'static [u8] {
    match op {
        Op::Create => br#"},"op":"c","ts_ms":"#,
        Op::Update => br#"},"op":"u","ts_ms":"#,
        Op::Delete => br#"},"op":"d","ts_ms":"#,
        Op::Read => br#"},"op":"r","ts_ms":"#,
        Op::Truncate => br#"},"op":"t","ts_ms":"#,
        Op::Ddl => br#"},"op":"ddl","ts_ms":"#,
    }
}

/// The value of one of the source's own fields; `Absent` when it is not there.
#[inline]
pub(crate) fn field_value<'a>(
    scope: Scope,
    of_event: Option<RowRef<'a>>,
    of_transaction: Option<RowRef<'a>>,
) -> Value<'a> {
    let (row, column) = match scope {
        Scope::Event(column) => (of_event, column),
        Scope::Transaction(column) => (of_transaction, column),
    };
    row.map_or(Value::Absent, |row| row.get(column))
}

/// Appends one of the source's own fields as JSON.
#[inline]
pub(crate) fn own_value(format: Format, value: Value<'_>, out: &mut Vec<u8>) {
    match (format, value) {
        (Format::Lsn, Value::Uint(lsn)) => {
            out.push(b'"');
            json::lsn(lsn, out);
            out.push(b'"');
        }
        (Format::DecimalPair, Value::List(items)) => json::decimal_texts(items, out),
        (_, value) => json::value(value, out),
    }
}
