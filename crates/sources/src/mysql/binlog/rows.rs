//! Rows: which columns their images have, and which of these are NULL.

use super::header::EventType;
use super::reader::{Bits, Bytes};
use super::{ColumnType, MAX_COLUMNS, Malformed, Result};

/// What happened to the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Inserted: an image after.
    Insert,
    /// Updated: an image before and one after.
    Update,
    /// Deleted: an image before.
    Delete,
}

/// An event with rows of one table.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// What happened.
    pub change: Change,
    /// The table, as the last TABLE_MAP with this id says.
    pub table_id: u64,
    /// [`STATEMENT_END`](Rows::STATEMENT_END) and others.
    pub flags: u16,
    /// Number of columns; must be that of the TABLE_MAP.
    pub width: usize,
    /// The columns in images before, of updates and deletes.
    before: Bits<'a>,
    /// The columns in images after, of inserts and updates.
    after: Bits<'a>,
    /// JSON in images after may be a list of changes.
    partial: bool,
    /// The images are compressed, in the way of MariaDB.
    pub compressed: bool,
    /// The images, one behind the other.
    pub data: &'a [u8],
}

impl<'a> Rows<'a> {
    /// Flag: the last event of a statement; table ids lose their meaning.
    pub const STATEMENT_END: u16 = 1;
    /// The table id of an event that has no rows and only ends a statement.
    pub const NO_TABLE: u64 = 0x00ff_ffff;

    /// Splits the body of an event of this type; `None` when it is no type with rows.
    pub(super) fn parse(kind: EventType, body: &'a [u8]) -> Result<Option<Rows<'a>>> {
        use Change::{Delete, Insert, Update};
        use EventType::*;
        let (change, with_extra, compressed) = match kind {
            WriteRowsV1 => (Insert, false, false),
            UpdateRowsV1 => (Update, false, false),
            DeleteRowsV1 => (Delete, false, false),
            WriteRows => (Insert, true, false),
            UpdateRows | PartialUpdateRows => (Update, true, false),
            DeleteRows => (Delete, true, false),
            WriteRowsCompressedV1 => (Insert, false, true),
            UpdateRowsCompressedV1 => (Update, false, true),
            DeleteRowsCompressedV1 => (Delete, false, true),
            WriteRowsCompressed => (Insert, true, true),
            UpdateRowsCompressed => (Update, true, true),
            DeleteRowsCompressed => (Delete, true, true),
            _ => return Ok(None),
        };
        const EXTRA: &str = "rows: extra data";
        let mut r = Bytes::new(body);
        let table_id = r.u48("rows: id of the table")?;
        let flags = r.u16("rows: flags")?;
        if with_extra {
            // Its length counts itself. What is in it is of use to NDB and partitions only.
            let length = r.u16(EXTRA)?;
            r.take(usize::from(length).checked_sub(2).ok_or(Malformed(EXTRA))?, EXTRA)?;
        }
        let width = r.lenenc("rows: number of columns")?;
        let width = usize::try_from(width).ok().filter(|width| (1..=MAX_COLUMNS).contains(width));
        let width = width.ok_or(Malformed("rows: number of columns"))?;
        let first = r.bits(width, "rows: columns in the images")?;
        let (before, after) = match change {
            Insert => (Bits::default(), first),
            Delete => (first, Bits::default()),
            Update => (first, r.bits(width, "rows: columns in the images after")?),
        };
        let rows = Rows {
            change,
            table_id,
            flags,
            width,
            before,
            after,
            partial: kind == PartialUpdateRows,
            compressed,
            data: r.rest(),
        };
        Ok(Some(rows))
    }

    /// The same rows with the images `data`, when those were compressed.
    pub fn inflated<'b>(&self, data: &'b [u8]) -> Rows<'b>
    where
        'a: 'b,
    {
        Rows { data, compressed: false, ..*self }
    }

    /// True when images after may hold lists of changes.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// True for an event that only ends a statement.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty() && self.table_id == Rows::NO_TABLE
    }

    /// The reader of the rows' images. `json` is how many columns of the table are of type JSON.
    ///
    /// # Errors
    /// When the images are still compressed, or have no columns and yet bytes.
    pub fn images(&self, json: usize) -> Result<Images<'a>> {
        if self.compressed {
            return Err(Malformed("rows: still compressed"));
        }
        let (before, after) = (Columns::new(self.before), Columns::new(self.after));
        if before.ones + after.ones == 0 && !self.partial && !self.data.is_empty() {
            return Err(Malformed("rows: bytes of no column"));
        }
        Ok(Images {
            data: Bytes::new(self.data),
            before,
            after,
            partial: self.partial.then_some(json),
            begun: self.is_empty(),
        })
    }
}

/// Columns that images have.
#[derive(Clone, Copy, Debug)]
struct Columns<'a> {
    present: Bits<'a>,
    ones: usize,
}

impl<'a> Columns<'a> {
    fn new(present: Bits<'a>) -> Columns<'a> {
        Columns { present, ones: present.ones() }
    }
}

/// Reads the images of an event's rows. For each row: [`next_row`](Images::next_row); then, as the change has them,
/// [`before`](Images::before) and [`after`](Images::after), and after each of these every cell that its [`Image`] says is there,
/// off [`data`](Images::data).
#[derive(Clone, Debug)]
pub struct Images<'a> {
    /// Where the next cell, or the next image, begins.
    pub data: Bytes<'a>,
    before: Columns<'a>,
    after: Columns<'a>,
    /// Number of JSON columns in the table, when they may hold lists of changes.
    partial: Option<usize>,
    begun: bool,
}

impl<'a> Images<'a> {
    /// Whether there is another row. An image without columns has no bytes: an insert of nothing but defaults, logged with
    /// `binlog_row_image=MINIMAL`, is an event without data, and is one row.
    #[inline]
    pub fn next_row(&mut self) -> bool {
        let first = !std::mem::replace(&mut self.begun, true);
        first || !self.data.is_empty()
    }

    /// Begins the image before.
    ///
    /// # Errors
    /// When it is cut off.
    #[inline]
    pub fn before(&mut self) -> Result<Image<'a>> {
        Self::image(&mut self.data, self.before, Bits::default())
    }

    /// Begins the image after.
    ///
    /// # Errors
    /// When it is cut off, or has an option that is not known.
    #[inline]
    pub fn after(&mut self) -> Result<Image<'a>> {
        let mut partial = Bits::default();
        if let Some(json) = self.partial {
            const PARTIAL_JSON: u64 = 1;
            match self.data.lenenc("rows: options")? {
                0 => {}
                PARTIAL_JSON => partial = self.data.bits(json, "rows: changed JSON columns")?,
                _ => return Err(Malformed("rows: an unknown option")),
            }
        }
        Self::image(&mut self.data, self.after, partial)
    }

    #[inline]
    fn image(data: &mut Bytes<'a>, columns: Columns<'a>, partial: Bits<'a>) -> Result<Image<'a>> {
        let nulls = data.bits(columns.ones, "rows: NULLs of an image")?;
        Ok(Image { present: columns.present, nulls, partial, column: 0, cell: 0, json: 0 })
    }
}

/// What an image has of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Nothing: the log does not say.
    Absent,
    /// NULL.
    Null,
    /// A value follows.
    Value,
    /// A list of changes to the JSON of the image before follows.
    Diff,
}

/// Says of each column in order what an image has of it.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    present: Bits<'a>,
    nulls: Bits<'a>,
    partial: Bits<'a>,
    column: usize,
    cell: usize,
    json: usize,
}

impl Image<'_> {
    /// What there is of the next column, which is of type `ty`.
    #[inline]
    pub fn slot(&mut self, ty: ColumnType) -> Slot {
        // The bits of JSON columns count all of the table, also those that the image does not have.
        let diff = ty == ColumnType::Json && {
            self.json += 1;
            self.partial.get(self.json - 1)
        };
        let present = self.present.get(self.column);
        self.column += 1;
        if !present {
            return Slot::Absent;
        }
        let null = self.nulls.get(self.cell);
        self.cell += 1;
        match (null, diff) {
            (true, _) => Slot::Null,
            (false, true) => Slot::Diff,
            (false, false) => Slot::Value,
        }
    }
}
