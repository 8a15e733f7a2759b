//! TABLE_MAP: the table that the following rows belong to, its columns' types, and what the server says of it beside.

use super::control::text;
use super::metadata::Metadata;
use super::reader::{Bits, Bytes};
use super::{Column, Format, MAX_COLUMNS, Malformed, Result};

/// A table that rows will belong to.
#[derive(Clone, Copy, Debug)]
pub struct TableMap<'a> {
    /// What rows name the table by. It may mean another table, or another shape of it, after the next TABLE_MAP.
    pub table_id: u64,
    /// Flags; none is of use here.
    pub flags: u16,
    /// Everything behind id and flags: two of equal bytes describe the same table in the same shape.
    pub definition: &'a [u8],
    /// Database.
    pub database: &'a str,
    /// Table.
    pub table: &'a str,
    types: &'a [u8],
    meta: &'a [u8],
    nullable: Bits<'a>,
    optional: &'a [u8],
    format: Format,
}

impl<'a> TableMap<'a> {
    /// Bytes of id and flags, before the [`definition`](TableMap::definition).
    pub const HEAD_BYTES: usize = 6 + 2;

    /// Splits the body. Columns and optional metadata are split by [`columns`](TableMap::columns) and
    /// [`metadata`](TableMap::metadata).
    ///
    /// # Errors
    /// When it is cut off or a name is not UTF-8.
    pub fn parse(body: &'a [u8], format: Format) -> Result<TableMap<'a>> {
        let mut r = Bytes::new(body);
        let table_id = r.u48("TABLE_MAP: id of the table")?;
        let flags = r.u16("TABLE_MAP: flags")?;
        let definition = r.peek();
        let database = name(&mut r, "TABLE_MAP: database")?;
        let table = name(&mut r, "TABLE_MAP: table")?;
        let width = r.length("TABLE_MAP: number of columns")?;
        if width > MAX_COLUMNS {
            return Err(Malformed("TABLE_MAP: number of columns"));
        }
        let types = r.take(width, "TABLE_MAP: types")?;
        let meta = r.lenenc_bytes("TABLE_MAP: metadata")?;
        let nullable = r.bits(width, "TABLE_MAP: nullable columns")?;
        Ok(TableMap {
            table_id,
            flags,
            definition,
            database,
            table,
            types,
            meta,
            nullable,
            optional: r.rest(),
            format,
        })
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.types.len()
    }

    /// The columns in order.
    ///
    /// # Errors
    /// When a type is unknown, or the metadata is not exactly that of the types.
    pub fn columns(&self) -> Result<Vec<Column>> {
        let mut meta = Bytes::new(self.meta);
        let mut columns = Vec::with_capacity(self.types.len());
        for (i, ty) in self.types.iter().enumerate() {
            columns.push(Column::parse(*ty, &mut meta, self.nullable.get(i))?);
        }
        meta.end("TABLE_MAP: more metadata than columns need")?;
        Ok(columns)
    }

    /// What the server says beside types; `columns` are the table's. Without any (MariaDB's `binlog_row_metadata=NO_LOG`) nothing
    /// is known of any column.
    ///
    /// # Errors
    /// When it does not fit the columns.
    pub fn metadata(&self, columns: &[Column]) -> Result<Metadata> {
        Metadata::parse(self.optional, columns, self.format.mariadb)
    }
}

/// A name behind its length, with a zero behind it.
fn name<'a>(r: &mut Bytes<'a>, what: &'static str) -> Result<&'a str> {
    let name = text(r.lenenc_bytes(what)?, what)?;
    if r.u8(what)? == 0 { Ok(name) } else { Err(Malformed(what)) }
}
