//! Message keys: what keeps all changes of one row together and in order.
//!
//! The key is compact JSON of the key columns in key order, as they are after the change (before it, for deletes). A table
//! without key columns, a truncate and a schema change have the full table name as a JSON text.

use crate::json;
use crate::table::{Absent, Columns, Text, close_object, member_name};
use deltaforge_core::{Event, Op, RowRef, TableSchema, Value};

/// The key of one table shape.
#[derive(Debug)]
pub(crate) struct KeyPlan {
    /// Index of each key column, and its name with comma and colon.
    columns: Vec<(usize, Text)>,
    table: Vec<u8>,
}

impl KeyPlan {
    pub(crate) fn new(schema: &TableSchema) -> KeyPlan {
        let mut plan = KeyPlan { columns: Vec::new(), table: Vec::new() };
        json::string(schema.name.full(), &mut plan.table);
        for index in &schema.key {
            let Some(column) = schema.columns.get(usize::from(*index)) else { continue };
            plan.columns.push((usize::from(*index), Text::new(|out| member_name(&column.name, out))));
        }
        plan
    }

    /// Appends the key of an event.
    pub(crate) fn key(&self, event: &Event<'_>, all: &Columns, out: &mut Vec<u8>) {
        let images = match event.op() {
            Op::Truncate | Op::Ddl => return out.extend_from_slice(&self.table),
            Op::Delete => [event.before(), event.after()],
            Op::Create | Op::Update | Op::Read => [event.after(), event.before()],
        };
        if self.columns.is_empty() {
            return out.extend_from_slice(&self.table);
        }
        let start = out.len();
        if self.columns(images, out) {
            return;
        }
        // The log does not carry the whole key. That is so for deletes under a replica identity index other than the
        // primary key: what it carries is that index, and so it is the key.
        out.truncate(start);
        let carried = |row: &RowRef<'_>| row.iter().any(|value| value != Value::Absent);
        match images.into_iter().flatten().find(carried) {
            Some(row) if event.op() == Op::Delete => all.row(Some(row), Absent::Omitted, out),
            _ => out.extend_from_slice(&self.table),
        }
    }

    /// Appends the key that the row had before an update, if that changed it.
    pub(crate) fn old_key(&self, event: &Event<'_>, out: &mut Vec<u8>) -> bool {
        let (Op::Update, Some(before), Some(after)) = (event.op(), event.before(), event.after()) else {
            return false;
        };
        let same = |(column, _): &(usize, Text)| {
            let (old, new) = (before.get(*column), after.get(*column));
            old == new || old == Value::Absent || new == Value::Absent
        };
        if self.columns.iter().all(same) {
            return false;
        }
        let start = out.len();
        // Values that differ may still print alike (a NaN differs from itself), and then the key is the same. So the new
        // key is printed behind the old one and compared.
        let whole = self.columns([Some(before), Some(after)], out);
        let end = out.len();
        let whole = self.columns([Some(after), Some(before)], out) && whole;
        let changed = whole && out[start..end] != out[end..];
        out.truncate(if changed { end } else { start });
        changed
    }

    /// Appends the key columns, each from the first image that carries it; false when none does for one of them.
    fn columns(&self, images: [Option<RowRef<'_>>; 2], out: &mut Vec<u8>) -> bool {
        let value_of = |column: usize| {
            let values = images.iter().flatten().map(|row| row.get(column));
            values.into_iter().find(|value| *value != Value::Absent)
        };
        let start = out.len();
        for (column, name) in &self.columns {
            let Some(value) = value_of(*column) else { return false };
            name.append(out);
            json::value(value, out);
        }
        close_object(start, out);
        true
    }
}
