//! CloudEvents 1.0, structured JSON.
//!
//! ```text
//! {"specversion":"1.0","id":"…36…  ","source":…,"type":"deltaforge.  updated  ","time":"…  Z","datacontenttype":…,"subject":…,"data":  {…}}
//!                                  └────── after_id: constant ─────┘                     └────────── after_time: constant ─────────┘
//! ```

use crate::table::Columns;
use crate::{json, native, time};
use deltaforge_core::sink::SinkContext;
use deltaforge_core::{Event, Op, TableSchema};

/// What is the same for every event of a sink.
#[derive(Debug)]
pub(crate) struct CloudEvents {
    pipeline: String,
    type_prefix: String,
}

/// What is the same for every event of one table shape.
#[derive(Debug)]
pub(crate) struct CloudEventsTable {
    after_id: Vec<u8>,
    after_time: Vec<u8>,
}

impl CloudEvents {
    pub(crate) fn new(context: &SinkContext, type_prefix: &str) -> CloudEvents {
        CloudEvents { pipeline: context.pipeline.clone(), type_prefix: type_prefix.into() }
    }

    pub(crate) fn table(&self, schema: &TableSchema) -> CloudEventsTable {
        let mut after_id = br#"","source":"deltaforge/"#.to_vec();
        path_segment(&self.pipeline, &mut after_id);
        after_id.push(b'/');
        path_segment(schema.name.full(), &mut after_id);
        after_id.extend_from_slice(br#"","type":"#);
        json::string(&self.type_prefix, &mut after_id);
        after_id.pop(); // The event's word comes before the closing quote.
        after_id.push(b'.');
        let mut after_time = br#"","datacontenttype":"application/json","subject":"#.to_vec();
        json::string(schema.name.full(), &mut after_time);
        after_time.extend_from_slice(br#","data":"#);
        CloudEventsTable { after_id, after_time }
    }

    /// Appends the event.
    pub(crate) fn event(
        &self,
        event: &Event<'_>,
        table: &CloudEventsTable,
        columns: &Columns,
        out: &mut Vec<u8>,
    ) {
        let op = event.op();
        out.extend_from_slice(br#"{"specversion":"1.0","id":""#);
        json::uuid(&event.id().0, out);
        out.extend_from_slice(&table.after_id);
        out.extend_from_slice(type_word(op).as_bytes());
        out.extend_from_slice(br#"","time":""#);
        time::rfc3339_millis(event.ts_us().div_euclid(1000), out);
        out.extend_from_slice(&table.after_time);
        native::images(event, columns, out);
        out.extend_from_slice(br#","op":""#);
        out.extend_from_slice(op.as_str().as_bytes());
        out.push(b'"');
        if matches!(op, Op::Truncate | Op::Ddl)
            && let Some(ddl) = event.ddl()
        {
            out.extend_from_slice(br#","ddl":"#);
            out.extend_from_slice(ddl.as_bytes());
        }
        out.extend_from_slice(b"}}");
    }
}

fn type_word(op: Op) -> &'static str {
    match op {
        Op::Create => "created",
        Op::Update => "updated",
        Op::Delete => "deleted",
        Op::Read => "snapshot",
        Op::Truncate => "truncated",
        Op::Ddl => "schema_changed",
    }
}

/// Appends a text as one segment of a URI path (RFC 3986, `pchar`); everything else is percent-encoded.
fn path_segment(text: &str, out: &mut Vec<u8>) {
    crate::template::percent_encoded(text.as_bytes(), b"-._~!$&'()*+,;=:@", out);
}
