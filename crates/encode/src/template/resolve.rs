//! Filling one reference from an event.

use super::{Field, Image, Path, Reason};
use crate::native::{VERSION, field_value, own_value};
use crate::{json, table};
use deltaforge_core::sink::SinkContext;
use deltaforge_core::{Event, Op, RowRef, Value};
use serde_json::value::RawValue;
use std::collections::HashMap;

/// Appends what a reference points at. `objects` says whether objects and lists may be written as compact JSON. After an
/// error the buffer may hold a part of it.
pub(super) fn append(
    path: &Path,
    event: &Event<'_>,
    context: &SinkContext,
    objects: bool,
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    match path {
        Path::Row { image, column, inside } => {
            let row = match image {
                Image::Before => event.before(),
                Image::After => event.after(),
            };
            let row = row.ok_or(Reason::Null)?;
            let Some(column) = column else { return whole_row(event, row, objects, out) };
            let index =
                event.table().columns.iter().position(|c| c.name == *column).ok_or(Reason::Missing)?;
            inner(row.get(index), inside, objects, out)
        }
        Path::Source(name) => source(name, event, context, objects, out),
        Path::Field(field) => top_level(*field, event, context, out),
        Path::Ddl(inside) => inner(Value::Json(event.ddl().ok_or(Reason::Missing)?), inside, objects, out),
    }
}

fn whole_row(event: &Event<'_>, row: RowRef<'_>, objects: bool, out: &mut Vec<u8>) -> Result<(), Reason> {
    if !objects {
        return Err(Reason::Object);
    }
    let start = out.len();
    for (column, value) in event.table().columns.iter().zip(row.iter()) {
        if value != Value::Absent {
            table::member_name(&column.name, out);
            json::value(value, out);
        }
    }
    table::close_object(start, out);
    Ok(())
}

fn source(
    name: &str,
    event: &Event<'_>,
    context: &SinkContext,
    objects: bool,
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    let table = &event.table().name;
    let text = match name {
        "version" => VERSION,
        "connector" => context.source.connector,
        "name" => &context.pipeline,
        "db" => &table.db,
        "schema" => table.schema.as_deref().ok_or(Reason::Missing)?,
        "table" if table.table.is_empty() => return Err(Reason::Missing),
        "table" => &table.table,
        "snapshot" if event.op() == Op::Read => "true",
        "snapshot" => return Err(Reason::Missing),
        "ts_ms" => return scalar(event.ts_us().div_euclid(1000), out),
        "ts_us" => return scalar(event.ts_us(), out),
        _ => {
            let field =
                context.source.fields.iter().find(|field| field.name == name).ok_or(Reason::Missing)?;
            let of_transaction = event.transaction().and_then(|t| t.source());
            let value = field_value(field.scope, event.source(), of_transaction);
            if value == Value::Absent {
                return Err(Reason::Missing);
            }
            if value == Value::Null {
                return Err(Reason::Null);
            }
            let start = out.len();
            own_value(field.format, value, out);
            return bare(start, objects, out);
        }
    };
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn top_level(
    field: Field,
    event: &Event<'_>,
    context: &SinkContext,
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    let schema = event.table();
    match field {
        Field::Op => out.extend_from_slice(event.op().as_str().as_bytes()),
        Field::ReadMs => json::int(event.read_ms(), out),
        Field::EventId => json::uuid(&event.id().0, out),
        Field::TenantId => out.extend_from_slice(context.tenant.as_bytes()),
        Field::SchemaVersion | Field::SchemaSequence if schema.sequence == 0 => return Err(Reason::Missing),
        Field::SchemaVersion => out.extend_from_slice(schema.fingerprint.to_string().as_bytes()),
        Field::SchemaSequence => json::uint(schema.sequence, out),
        Field::TransactionId | Field::TotalOrder | Field::DataCollectionOrder => {
            let transaction = event.transaction().ok_or(Reason::Missing)?;
            match field {
                Field::TotalOrder => json::uint(transaction.total_order, out),
                Field::DataCollectionOrder => json::uint(transaction.table_order, out),
                _ => out.extend_from_slice(transaction.id.as_bytes()),
            }
        }
    }
    Ok(())
}

fn scalar(n: i64, out: &mut Vec<u8>) -> Result<(), Reason> {
    json::int(n, out);
    Ok(())
}

/// Appends the member of a value that `names` lead to, or the value itself.
fn inner(value: Value<'_>, names: &[String], objects: bool, out: &mut Vec<u8>) -> Result<(), Reason> {
    match (value, names) {
        (Value::Absent, _) => Err(Reason::Missing),
        (Value::Null, _) => Err(Reason::Null),
        (Value::Text(text) | Value::Decimal(text), []) => {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        }
        (value, []) => {
            let start = out.len();
            json::value(value, out);
            bare(start, objects, out)
        }
        (Value::Record(members), [name, rest @ ..]) => {
            let member = members.iter().find(|(known, _)| known == name).map(|(_, member)| member);
            inner(member.unwrap_or(Value::Absent), rest, objects, out)
        }
        (Value::Json(text), [name, rest @ ..]) => {
            // Rare enough to build a map: only templates that reach into a JSON column come here.
            let members: HashMap<String, &RawValue> =
                serde_json::from_str(text).map_err(|_| Reason::Missing)?;
            let member = members.get(name).map_or(Value::Absent, |raw| Value::Json(raw.get()));
            inner(member, rest, objects, out)
        }
        (_, [_, ..]) => Err(Reason::Missing),
    }
}

/// Turns the JSON text from `start` on into what a template writes for it: texts lose their quotes and escapes.
fn bare(start: usize, objects: bool, out: &mut Vec<u8>) -> Result<(), Reason> {
    match out.get(start) {
        Some(b'"') => {
            if out[start..].contains(&b'\\') {
                let text: String = serde_json::from_slice(&out[start..]).map_err(|_| Reason::Missing)?;
                out.truncate(start);
                out.extend_from_slice(text.as_bytes());
            } else {
                out.remove(start);
                out.pop();
            }
            Ok(())
        }
        Some(b'{' | b'[') if !objects => Err(Reason::Object),
        Some(b'n') => Err(Reason::Null),
        Some(_) => Ok(()),
        None => Err(Reason::Missing),
    }
}
