//! What is the same for every row of one table shape, prepared once.

use crate::json;
use deltaforge_core::{RowRef, TableSchema, Value};

/// A constant text, kept so that a short one is copied in a few instructions.
#[derive(Debug)]
pub(crate) struct Text {
    short: [u8; SHORT],
    /// Bytes of `short` that count; 0 when the text is in `long`.
    length: u8,
    long: Box<[u8]>,
}

/// Fits a column name of 28 bytes with its quotes, comma and colon; a copy is two vector registers.
const SHORT: usize = 32;

impl Text {
    /// The text that `write` appends.
    pub(crate) fn new(write: impl FnOnce(&mut Vec<u8>)) -> Text {
        let mut bytes = Vec::new();
        write(&mut bytes);
        let mut short = [0; SHORT];
        match short.get_mut(..bytes.len()) {
            Some(front) => {
                front.copy_from_slice(&bytes);
                Text { short, length: bytes.len() as u8, long: Box::default() }
            }
            None => Text { short, length: 0, long: bytes.into() },
        }
    }

    #[inline]
    pub(crate) fn append(&self, out: &mut Vec<u8>) {
        if self.length > 0 {
            json::padded(&self.short, self.length.into(), out);
        } else {
            out.extend_from_slice(&self.long);
        }
    }
}

/// What a member whose value the log does not carry becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Nothing: the row before a change, and inserts, where it has its default.
    Omitted,
    /// `{"_unchanged":true}`: the row after an update still has the value it had.
    Marked,
}

/// Quoted column names with the comma before and the colon after.
#[derive(Debug)]
pub(crate) struct Columns(Vec<Text>);

impl Columns {
    pub(crate) fn new(schema: &TableSchema) -> Columns {
        Columns(schema.columns.iter().map(|column| Text::new(|out| member_name(&column.name, out))).collect())
    }

    /// Appends a row as an object with one member per column, or `null` when there is no row.
    #[inline]
    pub(crate) fn row(&self, row: Option<RowRef<'_>>, absent: Absent, out: &mut Vec<u8>) {
        let Some(row) = row else { return out.extend_from_slice(b"null") };
        let start = out.len();
        let mut values = row.iter();
        for name in &self.0 {
            // A row shorter than its table says nothing of the columns it lacks.
            let value = values.next().unwrap_or(Value::Absent);
            if matches!(value, Value::Absent) && absent == Absent::Omitted {
                continue;
            }
            name.append(out);
            json::value(value, out);
        }
        close_object(start, out);
    }
}

/// Ends an object whose members were written from `start` on, each with a comma before it: the first comma becomes the brace.
#[inline]
pub(crate) fn close_object(start: usize, out: &mut Vec<u8>) {
    match out.get_mut(start) {
        Some(comma) => {
            *comma = b'{';
            out.push(b'}');
        }
        None => out.extend_from_slice(b"{}"),
    }
}

/// `,"name":`
pub(crate) fn member_name(name: &str, out: &mut Vec<u8>) {
    out.push(b',');
    json::string(name, out);
    out.push(b':');
}
