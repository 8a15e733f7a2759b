//! Packed rows: what lies in a batch's arena, and how it is written and read.
//!
//! ```text
//! row    = count:u16  end[0]:u32 … end[count-1]:u32  cell[0] … cell[count-1]
//! cell   = tag:u8 payload                      ends are relative to the first cell, so cell i is end[i-1]..end[i]
//! list   = count:u32 (length:u32 cell)*        tag LIST
//! record = count:u32 (length:u16 name length:u32 cell)*   tag RECORD
//! ```
//!
//! All numbers are little-endian and unaligned. The format lives only in memory; it is never stored or sent, so it
//! may change freely. Readers trust it: only [`RowWriter`] and [`CellWriter`] make it.

use crate::value::{Date, Interval, Moment, TimeTz, Value};

const NULL: u8 = 0;
const ABSENT: u8 = 1;
const FALSE: u8 = 2;
const TRUE: u8 = 3;
const INT: u8 = 4;
const UINT: u8 = 5;
const FLOAT32: u8 = 6;
const FLOAT64: u8 = 7;
const DECIMAL: u8 = 8;
const TEXT: u8 = 9;
const BYTES: u8 = 10;
const JSON: u8 = 11;
const DATE: u8 = 12;
const TIME: u8 = 13;
const TIMETZ: u8 = 14;
const DATETIME: u8 = 15;
const TIMESTAMP: u8 = 16;
const INTERVAL: u8 = 17;
const UUID: u8 = 18;
const LIST: u8 = 19;
const RECORD: u8 = 20;

/// Writes one row into an arena, cell by cell, in column order.
pub struct RowWriter<'a> {
    arena: &'a mut Vec<u8>,
    ends_at: usize,
    cells_at: usize,
    written: usize,
    count: usize,
}

impl<'a> RowWriter<'a> {
    /// Starts a row of `count` columns at the arena's end.
    pub fn new(arena: &'a mut Vec<u8>, count: u16) -> RowWriter<'a> {
        arena.extend_from_slice(&count.to_le_bytes());
        let ends_at = arena.len();
        let cells_at = ends_at + 4 * usize::from(count);
        arena.resize(cells_at, 0);
        RowWriter { arena, ends_at, cells_at, written: 0, count: count.into() }
    }

    /// Appends the next cell. Cells beyond the announced count are a programming error and are ignored in release.
    #[inline]
    pub fn put(&mut self, value: Value<'_>) {
        CellWriter { buf: self.arena }.put(value);
        self.end_cell();
    }

    /// Appends the next cell by hand; `write` must write exactly one cell. On an error the cell is `Null`.
    #[inline]
    pub fn put_with<E>(&mut self, write: impl FnOnce(&mut CellWriter<'_>) -> Result<(), E>) -> Result<(), E> {
        let start = self.arena.len();
        let result = write(&mut CellWriter { buf: self.arena });
        if result.is_err() {
            self.arena.truncate(start);
            self.arena.push(NULL);
        }
        self.end_cell();
        result
    }

    /// Appends a copy of a cell of a row that lies earlier in the same arena, `row` being that row's range.
    pub fn put_copy_of(&mut self, row: std::ops::Range<usize>, column: usize) {
        let cell = RowRef::new(&self.arena[row.clone()]).cell_range(column);
        self.arena.extend_from_within(row.start + cell.start..row.start + cell.end);
        self.end_cell();
    }

    #[inline]
    fn end_cell(&mut self) {
        debug_assert!(self.written < self.count, "more cells than columns");
        let end = (self.arena.len() - self.cells_at) as u32;
        let at = self.ends_at + 4 * self.written;
        self.arena[at..at + 4].copy_from_slice(&end.to_le_bytes());
        self.written += 1;
    }

    /// Cells written so far.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Ends the row; columns not written become `Absent`.
    pub fn finish(mut self) {
        while self.written < self.count {
            self.put(Value::Absent);
        }
    }
}

/// Writes one cell, also inside lists and records.
pub struct CellWriter<'a> {
    buf: &'a mut Vec<u8>,
}

impl CellWriter<'_> {
    /// Writes a value; lists and records are copied cell by cell.
    #[inline]
    pub fn put(&mut self, value: Value<'_>) {
        match value {
            Value::Null => self.buf.push(NULL),
            Value::Absent => self.buf.push(ABSENT),
            Value::Bool(b) => self.buf.push(if b { TRUE } else { FALSE }),
            Value::Int(v) => self.fixed(INT, &v.to_le_bytes()),
            Value::Uint(v) => self.fixed(UINT, &v.to_le_bytes()),
            Value::Float32(v) => self.fixed(FLOAT32, &v.to_le_bytes()),
            Value::Float64(v) => self.fixed(FLOAT64, &v.to_le_bytes()),
            Value::Decimal(s) => self.fixed(DECIMAL, s.as_bytes()),
            Value::Text(s) => self.fixed(TEXT, s.as_bytes()),
            Value::Bytes(b) => self.fixed(BYTES, b),
            Value::Json(s) => self.fixed(JSON, s.as_bytes()),
            Value::Date(d) => self.fixed(DATE, &d.days.to_le_bytes()),
            Value::Time(v) => self.fixed(TIME, &v.to_le_bytes()),
            Value::TimeTz(t) => {
                self.fixed(TIMETZ, &t.micros.to_le_bytes());
                self.buf.extend_from_slice(&t.offset_secs.to_le_bytes());
            }
            Value::DateTime(m) => self.moment(DATETIME, m),
            Value::Timestamp(m) => self.moment(TIMESTAMP, m),
            Value::Interval(i) => {
                self.fixed(INTERVAL, &i.months.to_le_bytes());
                self.buf.extend_from_slice(&i.days.to_le_bytes());
                self.buf.extend_from_slice(&i.micros.to_le_bytes());
            }
            Value::Uuid(u) => self.fixed(UUID, u),
            Value::List(list) => {
                self.buf.push(LIST);
                self.buf.extend_from_slice(list.0);
            }
            Value::Record(record) => {
                self.buf.push(RECORD);
                self.buf.extend_from_slice(record.0);
            }
        }
    }

    #[inline]
    fn fixed(&mut self, tag: u8, payload: &[u8]) {
        self.buf.reserve(payload.len() + 1);
        self.buf.push(tag);
        self.buf.extend_from_slice(payload);
    }

    fn moment(&mut self, tag: u8, m: Moment) {
        self.fixed(tag, &m.secs.to_le_bytes());
        self.buf.extend_from_slice(&m.nanos.to_le_bytes());
    }

    /// Writes a cell that may fail midway: on an error everything written is taken back, and another cell can be put.
    pub fn attempt<R, E>(&mut self, write: impl FnOnce(&mut CellWriter<'_>) -> Result<R, E>) -> Result<R, E> {
        let start = self.buf.len();
        let result = write(&mut CellWriter { buf: self.buf });
        if result.is_err() {
            self.buf.truncate(start);
        }
        result
    }

    /// Writes bytes that `fill` appends, for payloads that are made in place (a decoded hex text).
    pub fn bytes_with<E>(&mut self, fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        self.buf.push(BYTES);
        fill(self.buf)
    }

    /// Writes a JSON text that `fill` appends; it must be valid JSON. What is not UTF-8 becomes `Bytes`.
    pub fn json_with<E>(&mut self, fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        self.utf8_with(JSON, fill)
    }

    /// Writes a text that `fill` appends. What is not UTF-8 becomes `Bytes`.
    pub fn text_with<E>(&mut self, fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        self.utf8_with(TEXT, fill)
    }

    fn utf8_with<E>(&mut self, tag: u8, fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let tag_at = self.buf.len();
        self.buf.push(tag);
        fill(self.buf)?;
        if std::str::from_utf8(&self.buf[tag_at + 1..]).is_err() {
            self.buf[tag_at] = BYTES;
        }
        Ok(())
    }

    /// Writes a list whose elements `fill` adds.
    pub fn list<E>(&mut self, fill: impl FnOnce(&mut ListWriter<'_>) -> Result<(), E>) -> Result<(), E> {
        self.buf.push(LIST);
        self.sequence(fill)
    }

    /// Writes a record whose members `fill` adds with [`ListWriter::member`].
    pub fn record<E>(&mut self, fill: impl FnOnce(&mut ListWriter<'_>) -> Result<(), E>) -> Result<(), E> {
        self.buf.push(RECORD);
        self.sequence(fill)
    }

    fn sequence<E>(&mut self, fill: impl FnOnce(&mut ListWriter<'_>) -> Result<(), E>) -> Result<(), E> {
        let count_at = self.buf.len();
        self.buf.extend_from_slice(&[0; 4]);
        let mut list = ListWriter { buf: self.buf, count: 0 };
        fill(&mut list)?;
        let count = list.count;
        self.buf[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
        Ok(())
    }
}

/// Adds elements to a list, or members to a record.
pub struct ListWriter<'a> {
    buf: &'a mut Vec<u8>,
    count: u32,
}

impl ListWriter<'_> {
    /// Adds an element of a list.
    pub fn element<E>(&mut self, write: impl FnOnce(&mut CellWriter<'_>) -> Result<(), E>) -> Result<(), E> {
        let length_at = self.buf.len();
        self.buf.extend_from_slice(&[0; 4]);
        write(&mut CellWriter { buf: self.buf })?;
        let length = (self.buf.len() - length_at - 4) as u32;
        self.buf[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        self.count += 1;
        Ok(())
    }

    /// Adds a member of a record. Names beyond 65 535 bytes are cut.
    pub fn member<E>(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut CellWriter<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut end = name.len().min(usize::from(u16::MAX));
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        self.buf.extend_from_slice(&(end as u16).to_le_bytes());
        self.buf.extend_from_slice(&name.as_bytes()[..end]);
        self.element(write)
    }
}

/// A packed row, borrowed from an arena.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowRef<'a>(&'a [u8]);

impl<'a> RowRef<'a> {
    /// Views bytes that a [`RowWriter`] wrote.
    pub(crate) fn new(bytes: &'a [u8]) -> RowRef<'a> {
        RowRef(bytes)
    }

    /// Number of columns.
    #[inline]
    pub fn len(self) -> usize {
        usize::from(u16::from_le_bytes([self.0[0], self.0[1]]))
    }

    /// True for a row without columns.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The value of a column; `Absent` beyond the last.
    #[inline]
    pub fn get(self, column: usize) -> Value<'a> {
        if column >= self.len() { Value::Absent } else { read_cell(&self.0[self.cell_range(column)]) }
    }

    /// The values in column order.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = Value<'a>> {
        let cells_at = 2 + 4 * self.len();
        let mut start = cells_at;
        self.0[2..cells_at].chunks_exact(4).map(move |end| {
            let end = cells_at + read_u32(end) as usize;
            let cell = &self.0[start..end];
            start = end;
            read_cell(cell)
        })
    }

    fn cell_range(self, column: usize) -> std::ops::Range<usize> {
        let cells_at = 2 + 4 * self.len();
        let end_of = |i: usize| read_u32(&self.0[2 + 4 * i..]) as usize;
        let start = if column == 0 { 0 } else { end_of(column - 1) };
        cells_at + start..cells_at + end_of(column)
    }
}

/// The elements of a list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ListRef<'a>(&'a [u8]);

impl<'a> ListRef<'a> {
    /// Number of elements.
    pub fn len(self) -> usize {
        read_u32(self.0) as usize
    }

    /// True for the empty list.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The elements in order.
    pub fn iter(self) -> impl Iterator<Item = Value<'a>> {
        let mut rest = &self.0[4..];
        (0..self.len()).map(move |_| take_cell(&mut rest))
    }
}

/// The members of a composite or of a map, in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecordRef<'a>(&'a [u8]);

impl<'a> RecordRef<'a> {
    /// Number of members.
    pub fn len(self) -> usize {
        read_u32(self.0) as usize
    }

    /// True for a record without members.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Names and values in order.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        let mut rest = &self.0[4..];
        (0..self.len()).map(move |_| {
            let length = usize::from(u16::from_le_bytes([rest[0], rest[1]]));
            let (name, tail) = rest[2..].split_at(length);
            rest = tail;
            (text(name), take_cell(&mut rest))
        })
    }
}

fn take_cell<'a>(rest: &mut &'a [u8]) -> Value<'a> {
    let length = read_u32(rest) as usize;
    let (cell, tail) = rest[4..].split_at(length);
    *rest = tail;
    read_cell(cell)
}

#[inline]
fn read_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[inline]
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[..N]);
    out
}

/// The writers take `&str`, so the bytes are UTF-8; checked in debug builds.
#[inline]
#[allow(unsafe_code)]
fn text(bytes: &[u8]) -> &str {
    debug_assert!(std::str::from_utf8(bytes).is_ok());
    // SAFETY: rows are made by `RowWriter` and seen through `RowRef`s that only this crate makes; `CellWriter` fills
    // text cells from `&str` or after a check.
    unsafe { std::str::from_utf8_unchecked(bytes) }
}

#[inline]
fn read_cell(cell: &[u8]) -> Value<'_> {
    let payload = &cell[1..];
    match cell[0] {
        NULL => Value::Null,
        ABSENT => Value::Absent,
        FALSE => Value::Bool(false),
        TRUE => Value::Bool(true),
        INT => Value::Int(i64::from_le_bytes(array(payload))),
        UINT => Value::Uint(u64::from_le_bytes(array(payload))),
        FLOAT32 => Value::Float32(f32::from_le_bytes(array(payload))),
        FLOAT64 => Value::Float64(f64::from_le_bytes(array(payload))),
        DECIMAL => Value::Decimal(text(payload)),
        TEXT => Value::Text(text(payload)),
        BYTES => Value::Bytes(payload),
        JSON => Value::Json(text(payload)),
        DATE => Value::Date(Date { days: i32::from_le_bytes(array(payload)) }),
        TIME => Value::Time(i64::from_le_bytes(array(payload))),
        TIMETZ => Value::TimeTz(TimeTz {
            micros: i64::from_le_bytes(array(payload)),
            offset_secs: i32::from_le_bytes(array(&payload[8..])),
        }),
        DATETIME => Value::DateTime(read_moment(payload)),
        TIMESTAMP => Value::Timestamp(read_moment(payload)),
        INTERVAL => Value::Interval(Interval {
            months: i32::from_le_bytes(array(payload)),
            days: i32::from_le_bytes(array(&payload[4..])),
            micros: i64::from_le_bytes(array(&payload[8..])),
        }),
        UUID => match payload.first_chunk::<16>() {
            Some(uuid) => Value::Uuid(uuid),
            None => Value::Bytes(payload),
        },
        LIST => Value::List(ListRef(payload)),
        RECORD => Value::Record(RecordRef(payload)),
        tag => unreachable!("cell tag {tag} is not one that CellWriter writes"),
    }
}

fn read_moment(payload: &[u8]) -> Moment {
    Moment { secs: i64::from_le_bytes(array(payload)), nanos: u32::from_le_bytes(array(&payload[8..])) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn every_value_reads_back() {
        let uuid = [7; 16];
        let values = [
            Value::Null,
            Value::Absent,
            Value::Bool(true),
            Value::Int(i64::MIN),
            Value::Uint(u64::MAX),
            Value::Float32(0.1),
            Value::Float64(f64::INFINITY),
            Value::Decimal("1.50"),
            Value::Text("grüße"),
            Value::Bytes(&[0, 255]),
            Value::Json("{\"a\":1}"),
            Value::Date(Date::NEG_INFINITY),
            Value::Time(-1),
            Value::TimeTz(TimeTz { micros: 86_400_000_000, offset_secs: -57_599 }),
            Value::DateTime(Moment { secs: -1, nanos: 999_999_000 }),
            Value::Timestamp(Moment::INFINITY),
            Value::Interval(Interval { months: -10, days: 3, micros: -14_706_500_000 }),
            Value::Uuid(&uuid),
        ];
        let mut arena = vec![9; 3];
        let start = arena.len();
        let mut row = RowWriter::new(&mut arena, values.len() as u16 + 1);
        values.iter().for_each(|v| row.put(*v));
        row.finish();
        let row = RowRef::new(&arena[start..]);
        assert_eq!(row.len(), values.len() + 1);
        assert_eq!(row.iter().take(values.len()).collect::<Vec<_>>(), values);
        for (i, value) in values.iter().enumerate() {
            assert_eq!(row.get(i), *value, "column {i}");
        }
        assert_eq!(row.get(values.len()), Value::Absent, "columns not written are absent");
        assert_eq!(row.get(99), Value::Absent);
    }

    #[test]
    fn lists_and_records_nest_and_copy() {
        let mut arena = Vec::new();
        let mut row = RowWriter::new(&mut arena, 1);
        let written: Result<(), Infallible> = row.put_with(|cell| {
            cell.list(|list| {
                list.element(|e| {
                    e.put(Value::Null);
                    Ok::<(), Infallible>(())
                })?;
                list.element(|e| {
                    e.record(|r| {
                        r.member("größe", |m| {
                            m.put(Value::Int(3));
                            Ok(())
                        })
                    })
                })
            })
        });
        assert_eq!(written, Ok(()));
        row.finish();
        let end = arena.len();
        let mut copy = RowWriter::new(&mut arena, 1);
        copy.put_copy_of(0..end, 0);
        copy.finish();
        let Value::List(list) = RowRef::new(&arena[end..]).get(0) else { panic!("a list") };
        let elements: Vec<_> = list.iter().collect();
        assert_eq!(elements.len(), 2);
        assert_eq!(elements[0], Value::Null);
        let Value::Record(record) = elements[1] else { panic!("a record") };
        assert_eq!(record.iter().collect::<Vec<_>>(), [("größe", Value::Int(3))]);
    }
}
