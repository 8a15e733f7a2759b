//! Rows of the log as events in the builder.

use super::binlog::reader::Bytes;
use super::binlog::{self, Change, ColumnType, Image, Images, Malformed, Rows, Slot};
use super::decoder::{Decoder, Step, Transaction};
use super::json;
use super::schemas::{Captured, Mapped};
use super::values::Refused;
use deltaforge_core::batch::{BatchBuilder, Op};
use deltaforge_core::fault::Kind;
use deltaforge_core::row::RowWriter;
use deltaforge_core::value::Value;
use deltaforge_core::{Class, Fault};
use std::sync::Arc;

/// Where in an event the builder was full.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowCursor {
    /// Bytes of the images that are done.
    offset: usize,
    /// Rows that are done.
    row: u64,
}

/// What is known of the statement that the next rows are of.
#[derive(Debug, Default)]
pub(super) struct Statement {
    query: Option<String>,
}

impl Statement {
    /// The statement's text, when it is to be kept.
    pub(super) fn set_query(&mut self, text: Option<&[u8]>) {
        self.query = text.map(|text| String::from_utf8_lossy(text).into_owned());
    }
}

/// Why an image is not given.
enum Failed {
    Malformed(Malformed),
    /// The column, and what its value is not.
    Refused(usize, Refused),
}

impl From<Malformed> for Failed {
    fn from(malformed: Malformed) -> Failed {
        Failed::Malformed(malformed)
    }
}

impl Decoder {
    pub(super) fn rows(
        &mut self,
        head: &binlog::Header,
        rows: &Rows<'_>,
        out: &mut BatchBuilder,
    ) -> Result<Step, Fault> {
        if let Some(transaction) = &mut self.transaction {
            transaction.has_rows = true;
        }
        if rows.is_empty() {
            return Ok(Step::Done);
        }
        let captured = match self.schemas.of_id(rows.table_id) {
            Some(Mapped::Captured(captured)) => captured.clone(),
            Some(Mapped::Skipped | Mapped::Stopped) => return Ok(Step::Done),
            None => return Err(self.undecodable("rows of a table that was not described")),
        };
        if !rows.compressed {
            return self.rows_of(&captured, head, rows, out);
        }
        let mut inflater = std::mem::take(&mut self.inflater);
        let step = match inflater.inflate(rows.data) {
            Ok(data) => self.rows_of(&captured, head, &rows.inflated(data), out),
            Err(e) => Err(self.undecodable(e)),
        };
        self.inflater = inflater;
        step
    }

    fn rows_of(
        &mut self,
        captured: &Arc<Captured>,
        head: &binlog::Header,
        rows: &Rows<'_>,
        out: &mut BatchBuilder,
    ) -> Result<Step, Fault> {
        if rows.width != captured.columns.len() {
            return Err(self.undecodable("rows with another number of columns than their table"));
        }
        let Some(mut transaction) = self.transaction.take() else {
            return Err(self.undecodable("rows outside a transaction"));
        };
        let step = self.rows_in(&mut transaction, captured, head, rows, out);
        self.transaction = Some(transaction);
        step
    }

    fn rows_in(
        &mut self,
        transaction: &mut Transaction,
        captured: &Arc<Captured>,
        head: &binlog::Header,
        rows: &Rows<'_>,
        out: &mut BatchBuilder,
    ) -> Result<Step, Fault> {
        let mut images = rows.images(captured.json).map_err(|e| self.undecodable(e))?;
        let mut row = 0;
        if let Some(cursor) = self.cursor.take() {
            images.next_row();
            let rest = rows.data.get(cursor.offset..).unwrap_or_default();
            images.data = Bytes::new(rest);
            row = cursor.row;
        }
        // Rows made on other servers carry those servers' ids; the transaction is one server's.
        transaction.server_id = head.server_id;
        while images.next_row() {
            if out.is_full() {
                self.cursor = Some(RowCursor { offset: rows.data.len() - images.data.len(), row });
                return Ok(Step::Full);
            }
            Self::entered(transaction, &self.place.file, out);
            let op = match rows.change {
                Change::Insert => Op::Create,
                Change::Update => Op::Update,
                Change::Delete => Op::Delete,
            };
            let mut event = out.event(op, captured.index);
            let mut documents = Vec::new();
            let mut fallbacks = 0;
            let mut written = Ok(());
            if op != Op::Create {
                let keep = (rows.is_partial()).then_some(&mut documents);
                written = event.before(captured.visible, |row| {
                    let image = images.before()?;
                    fallbacks += write_image(captured, image, &mut images, row, keep, &[])?;
                    Ok(())
                });
            }
            if op != Op::Delete && written.is_ok() {
                written = event.after(captured.visible, |row| {
                    let image = images.after()?;
                    fallbacks += write_image(captured, image, &mut images, row, None, &documents)?;
                    Ok(())
                });
            }
            if let Err(failed) = written {
                drop(event);
                return match self.refused(transaction, captured, failed, row)? {
                    true => Ok(Step::Done),
                    false => continue,
                };
            }
            if fallbacks > 0 {
                self.stats.value_fallbacks.fetch_add(fallbacks, std::sync::atomic::Ordering::Relaxed);
            }
            let (start, number, query) =
                (self.place.start, self.first_row + row, self.statement.query.as_deref());
            event.source(3, |row| {
                row.put(Value::Uint(start));
                row.put(Value::Uint(number));
                row.put(query.map_or(Value::Absent, Value::Text));
            });
            let id = self.event_id(transaction, &captured.full, captured.counter, number);
            event.finish(id);
            row += 1;
        }
        if self.unpacking.is_some() || self.is_replaying {
            self.first_row += row;
        }
        self.progress += 1;
        Ok(Step::Done)
    }

    /// A row that cannot be given. True when the rest of the event is left out with it.
    fn refused(
        &mut self,
        transaction: &Transaction,
        captured: &Captured,
        failed: Failed,
        row: u64,
    ) -> Result<bool, Fault> {
        let (column, refused) = match failed {
            Failed::Malformed(malformed) => return Err(self.undecodable(malformed)),
            Failed::Refused(column, refused) => (column, refused),
        };
        let name = captured.columns.get(column).map_or("", |column| &column.name);
        let full = &captured.full;
        match refused {
            Refused::Malformed(malformed) => {
                Err(self.undecodable(format!("column {name} of table {full}: {malformed}")))
            }
            Refused::ZeroDate => {
                let id = self.event_id(transaction, full, captured.counter, row);
                let message = format!(
                    "column {name} of table {full} holds a zero or partly zero date at {}",
                    self.place.here()
                );
                Err(Fault::new(Class::Data, "mysql.zero_date", message)
                    .kind(Kind::Encode)
                    .event(id)
                    .hint("set `zero_date` to `null` or `string`, or mend the row and skip it"))
            }
            Refused::Label => {
                let reason = format!(
                    "column {name} holds a label that its declaration does not have; was it altered without being logged?"
                );
                let (place, at) = (self.place.sortable(), self.place.here());
                self.schemas.stop(&captured.table, reason, place, at);
                Ok(true)
            }
        }
    }
}

/// Writes the cells of one image; gives how many were not in the form of their type. `keep` takes the bytes of JSON columns,
/// which a partial update in the image after refers to as `documents`.
#[inline]
fn write_image<'a>(
    captured: &Captured,
    mut image: Image<'a>,
    images: &mut Images<'a>,
    row: &mut RowWriter<'_>,
    mut keep: Option<&mut Vec<Option<&'a [u8]>>>,
    documents: &[Option<&'a [u8]>],
) -> Result<u64, Failed> {
    let (mut fallbacks, mut json) = (0, 0);
    for (at, column) in captured.columns.iter().enumerate() {
        let slot = image.slot(column.ty);
        let is_json = column.ty == ColumnType::Json;
        if at >= captured.visible {
            if slot == Slot::Value {
                column.codec.skip(&mut images.data)?;
            }
            continue;
        }
        if let (Some(keep), true) = (&mut keep, is_json) {
            let mut ahead = images.data;
            keep.push(match slot {
                Slot::Value => Some(column.codec.skip(&mut ahead)?),
                _ => None,
            });
        }
        match slot {
            Slot::Absent => row.put(Value::Absent),
            Slot::Null => row.put(Value::Null),
            Slot::Value => {
                let mut clean = true;
                let data = &mut images.data;
                row.put_with(|cell| {
                    clean = column.codec.write(data, cell)?;
                    Ok(())
                })
                .map_err(|refused| Failed::Refused(at, refused))?;
                fallbacks += u64::from(!clean);
            }
            Slot::Diff => {
                let diffs = column.codec.skip(&mut images.data)?;
                let before = documents.get(json).copied().flatten();
                if before.is_none() {
                    row.put(Value::Absent);
                } else {
                    row.put_with(|cell| {
                        cell.json_with(|text| json::apply_diffs(before, diffs, text).map(drop))
                    })?;
                }
            }
        }
        json += usize::from(is_json);
    }
    Ok(fallbacks)
}
