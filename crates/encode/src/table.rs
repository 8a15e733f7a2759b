//! What is the same for every row of one table shape, prepared once.

use crate::json;
use deltaforge_core::{RowRef, TableSchema, Value};

/// Texts of different lengths, one after the other in one buffer, so that a row walks them as it walks its cells.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Texts {
    /// Adds a text that `write` appends.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let text = &self.bytes[start..*end];
            start = *end;
            text
        })
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

/// Quoted column names with colon and comma.
#[derive(Debug)]
pub(crate) struct Columns(Texts);

impl Columns {
    pub(crate) fn new(schema: &TableSchema) -> Columns {
        let mut names = Texts::default();
        for column in &schema.columns {
            names.push(|out| member_name(&column.name, out));
        }
        Columns(names)
    }

    /// Appends a row as an object with one member per column, or `null` when there is no row.
    #[inline]
    pub(crate) fn row(&self, row: Option<RowRef<'_>>, absent: Absent, out: &mut Vec<u8>) {
        let Some(row) = row else { return out.extend_from_slice(b"null") };
        out.push(b'{');
        // Every name brings the comma before it, which the first member written does not need.
        let mut skip = 1;
        for (name, value) in self.0.iter().zip(row.iter()) {
            if value == Value::Absent && absent == Absent::Omitted {
                continue;
            }
            out.extend_from_slice(&name[skip..]);
            skip = 0;
            json::value(value, out);
        }
        out.push(b'}');
    }
}

/// `,"name":`
pub(crate) fn member_name(name: &str, out: &mut Vec<u8>) {
    out.push(b',');
    json::string(name, out);
    out.push(b':');
}
