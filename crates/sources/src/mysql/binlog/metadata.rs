//! The optional metadata of a TABLE_MAP: signs, character sets, and with `binlog_row_metadata=FULL` also names, labels and the
//! primary key.
//!
//! The log counts each kind of fact over the columns that it can concern only. Which these are is a matter of the types, and not
//! quite the same on both servers ([`has_charset`]).

use super::control::text;
use super::reader::Bytes;
use super::{Column, ColumnType, Malformed, Result};

/// What a TABLE_MAP says beside types.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// For each column of the table, in order.
    pub columns: Vec<ColumnMetadata>,
    /// The primary key, in key order. Without one, empty if [`is_full`](Metadata::is_full), else not known.
    pub primary_key: Vec<KeyPart>,
}

/// What a TABLE_MAP says of one column. `None`: it does not say, or there is nothing to say of the type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnMetadata {
    /// Of numbers.
    pub unsigned: Option<bool>,
    /// Id of the collation; 63 is that of bytes.
    pub collation: Option<u16>,
    /// Name.
    pub name: Option<Box<str>>,
    /// Labels of an ENUM or SET, in their character set.
    pub labels: Option<Vec<Box<[u8]>>>,
    /// Kind of geometry: 0 any, 1 POINT, 2 LINESTRING, 3 POLYGON, 4 to 6 their MULTI forms, 7 GEOMETRYCOLLECTION.
    pub geometry: Option<u8>,
    /// Shown by `SELECT *`; of MySQL.
    pub visible: Option<bool>,
    /// Most dimensions of a VECTOR; of MySQL.
    pub dimensions: Option<u32>,
}

/// A column of the primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPart {
    /// Which column of the table.
    pub column: u16,
    /// Length in characters when the key has only the beginning of the value, else 0.
    pub prefix: u32,
}

/// Types whose sign the log tells.
fn has_sign(ty: ColumnType) -> bool {
    use ColumnType::*;
    matches!(ty, Tiny | Short | Int24 | Long | LongLong | Decimal | NewDecimal | Float | Double | Year)
}

/// Types whose character set the log tells. MariaDB counts the geometry types too; of MySQL's own types VECTOR counts, though not
/// JSON.
fn has_charset(ty: ColumnType, mariadb: bool) -> bool {
    use ColumnType::*;
    match ty {
        String | VarString | VarChar | VarCharCompressed | Vector => true,
        Blob | TinyBlob | MediumBlob | LongBlob | BlobCompressed => true,
        Geometry => mariadb,
        _ => false,
    }
}

impl Metadata {
    /// True when the log carries everything: names, labels, keys.
    pub fn is_full(&self) -> bool {
        self.columns.first().is_some_and(|column| column.name.is_some())
    }

    /// Reads the fields, each of which is a number, a length, and so many bytes.
    pub(super) fn parse(optional: &[u8], columns: &[Column], mariadb: bool) -> Result<Metadata> {
        let mut parser = Parser {
            columns,
            out: vec![ColumnMetadata::default(); columns.len()],
            primary_key: Vec::new(),
            seen: 0,
        };
        let mut r = Bytes::new(optional);
        while !r.is_empty() {
            let field = r.u8("TABLE_MAP: optional metadata")?;
            let value = r.lenenc_bytes("TABLE_MAP: optional metadata")?;
            parser.field(field, Bytes::new(value), mariadb)?;
        }
        Ok(Metadata { columns: parser.out, primary_key: parser.primary_key })
    }
}

struct Parser<'c> {
    columns: &'c [Column],
    out: Vec<ColumnMetadata>,
    primary_key: Vec<KeyPart>,
    /// A bit for each field that was there.
    seen: u32,
}

impl Parser<'_> {
    fn field(&mut self, field: u8, mut r: Bytes<'_>, mariadb: bool) -> Result<()> {
        use ColumnType::*;
        const CHARSETS: &str = "TABLE_MAP: character sets";
        let text_columns = move |ty| has_charset(ty, mariadb);
        let labelled = |ty| matches!(ty, Enum | Set);
        // Fields that later servers may add describe columns in other words; how rows are written they cannot change.
        if !(1..=13).contains(&field) {
            return Ok(());
        }
        if self.seen & 1 << field != 0 {
            return Err(Malformed("TABLE_MAP: optional metadata given twice"));
        }
        self.seen |= 1 << field;
        match field {
            1 => self
                .bits(r, has_sign, "TABLE_MAP: signs", |column, unsigned| column.unsigned = Some(unsigned)),
            2 => self.default_charset(r, text_columns, CHARSETS),
            3 => self.each(r, text_columns, CHARSETS, charset),
            4 => self.each(
                r,
                |_| true,
                "TABLE_MAP: names of columns",
                |column, r| {
                    let name =
                        text(r.lenenc_bytes("TABLE_MAP: name of a column")?, "TABLE_MAP: name of a column")?;
                    column.name = Some(name.into());
                    Ok(())
                },
            ),
            5 => self.each(r, |ty| ty == Set, "TABLE_MAP: labels of a SET", labels),
            6 => self.each(r, |ty| ty == Enum, "TABLE_MAP: labels of an ENUM", labels),
            7 => self.each(
                r,
                |ty| ty == Geometry,
                GEOMETRY,
                |column, r| {
                    column.geometry =
                        Some(u8::try_from(r.lenenc(GEOMETRY)?).map_err(|_| Malformed(GEOMETRY))?);
                    Ok(())
                },
            ),
            8 | 9 => {
                while !r.is_empty() {
                    let column = r.lenenc(KEY)?;
                    let prefix = if field == 9 { r.lenenc(KEY)? } else { 0 };
                    self.key_part(column, prefix)?;
                }
                Ok(())
            }
            10 => self.default_charset(r, labelled, CHARSETS),
            11 => self.each(r, labelled, CHARSETS, charset),
            12 => self.bits(
                r,
                |_| true,
                "TABLE_MAP: visibility",
                |column, visible| column.visible = Some(visible),
            ),
            _ => self.each(
                r,
                |ty| ty == Vector,
                DIMENSIONS,
                |column, r| {
                    let dimensions =
                        u32::try_from(r.lenenc(DIMENSIONS)?).map_err(|_| Malformed(DIMENSIONS))?;
                    column.dimensions = Some(dimensions);
                    Ok(())
                },
            ),
        }
    }

    /// The columns that a field concerns.
    fn concerned(&mut self, of: impl Fn(ColumnType) -> bool) -> impl Iterator<Item = &mut ColumnMetadata> {
        self.columns.iter().zip(&mut self.out).filter(move |(column, _)| of(column.ty)).map(|(_, out)| out)
    }

    /// One value for each column concerned, nothing behind them.
    fn each(
        &mut self,
        mut r: Bytes<'_>,
        of: impl Fn(ColumnType) -> bool,
        what: &'static str,
        read: impl Fn(&mut ColumnMetadata, &mut Bytes<'_>) -> Result<()>,
    ) -> Result<()> {
        for column in self.concerned(of) {
            read(column, &mut r)?;
        }
        r.end(what)
    }

    /// One bit for each column concerned, from the highest bit of the first byte.
    fn bits(
        &mut self,
        mut r: Bytes<'_>,
        of: impl Fn(ColumnType) -> bool,
        what: &'static str,
        set: impl Fn(&mut ColumnMetadata, bool),
    ) -> Result<()> {
        let mut byte = 0;
        for (i, column) in self.concerned(of).enumerate() {
            if i % 8 == 0 {
                byte = r.u8(what)?;
            }
            set(column, byte << (i % 8) & 0x80 != 0);
        }
        r.end(what)
    }

    /// One collation for all columns concerned, and those that have another: which of them, and its collation.
    fn default_charset(
        &mut self,
        mut r: Bytes<'_>,
        of: impl Fn(ColumnType) -> bool,
        what: &'static str,
    ) -> Result<()> {
        let default = collation(&mut r)?;
        self.concerned(&of).for_each(|column| column.collation = Some(default));
        let mut others = self.concerned(of);
        let mut next = 0;
        while !r.is_empty() {
            // They come in growing order, so each is found by going on.
            let index = r.lenenc(what)?;
            let skip =
                index.checked_sub(next).and_then(|skip| usize::try_from(skip).ok()).ok_or(Malformed(what))?;
            others.nth(skip).ok_or(Malformed(what))?.collation = Some(collation(&mut r)?);
            next = index + 1;
        }
        Ok(())
    }

    fn key_part(&mut self, column: u64, prefix: u64) -> Result<()> {
        let column = u16::try_from(column).ok().filter(|column| usize::from(*column) < self.out.len());
        let (Some(column), Ok(prefix)) = (column, u32::try_from(prefix)) else { return Err(Malformed(KEY)) };
        self.primary_key.push(KeyPart { column, prefix });
        Ok(())
    }
}

const GEOMETRY: &str = "TABLE_MAP: kind of a geometry";
const DIMENSIONS: &str = "TABLE_MAP: dimensions of a VECTOR";
const KEY: &str = "TABLE_MAP: primary key";

fn collation(r: &mut Bytes<'_>) -> Result<u16> {
    const COLLATION: &str = "TABLE_MAP: number of a collation";
    u16::try_from(r.lenenc(COLLATION)?).map_err(|_| Malformed(COLLATION))
}

fn charset(column: &mut ColumnMetadata, r: &mut Bytes<'_>) -> Result<()> {
    column.collation = Some(collation(r)?);
    Ok(())
}

fn labels(column: &mut ColumnMetadata, r: &mut Bytes<'_>) -> Result<()> {
    const LABELS: &str = "TABLE_MAP: labels";
    let count = r.length(LABELS)?;
    let mut labels = Vec::new();
    for _ in 0..count {
        labels.push(r.lenenc_bytes(LABELS)?.into());
    }
    column.labels = Some(labels);
    Ok(())
}
