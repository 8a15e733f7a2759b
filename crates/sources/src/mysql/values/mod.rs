//! The cells of a row image: bytes of the binary log turned into values. Pure: no I/O, no panic on any bytes.
//!
//! What the log holds of a column is its type, and for some types a number beside it (`TABLE_MAP`); what the bytes mean
//! depends on more: sign, character set, labels, and types that the log does not tell apart (MariaDB's `uuid` is a
//! `binary(16)` there). [`Codec::new`] puts both together once per table; [`Codec::write`] then takes exactly the bytes of
//! one cell and writes one value.
//!
//! Formats: MySQL's source documentation, `mysql::binlog::event::Table_map_event` ("Table_map_event column types: numerical
//! identifier and metadata"), and there `Field::pack` of each type; MariaDB Knowledge Base, "Rows_event_v1/v2".

mod decimal;
mod inet;
mod json_text;
mod temporal;
mod text;

use super::binlog::reader::Bytes;
use super::binlog::{Column, ColumnType, Malformed};
use super::charset::Charset;
use decimal::Decimal;
use deltaforge_core::row::CellWriter;
use deltaforge_core::value::Value;
use temporal::Form;
use text::{Content, Prefix};

pub use temporal::ZeroDate;

/// Why a cell is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The bytes are not what the type writes; where the next cell begins is not known.
    Malformed(Malformed),
    /// A zero or partly zero date, under [`ZeroDate::Error`].
    ZeroDate,
    /// The number of an `ENUM` label, or a bit of a `SET`, that the declaration does not have.
    Label,
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Refused {
        Refused::Malformed(malformed)
    }
}

type Written = Result<bool, Refused>;

/// What the table's shape says of a column beyond what the log does.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The declaration as `information_schema.COLUMNS.COLUMN_TYPE` prints it.
    pub declared: &'a str,
    /// For numbers.
    pub unsigned: bool,
    /// Of text; [`Charset::BINARY`] for columns of bytes.
    pub charset: Charset,
    /// Labels of an `ENUM` or `SET` in declared order.
    pub labels: &'a [String],
    /// MariaDB's `JSON`: text with the `json_valid` check.
    pub json: bool,
    /// Whether the column takes NULL.
    pub nullable: bool,
    /// The source's setting.
    pub zero_date: ZeroDate,
}

/// How the bytes of one column become a value. Built once per table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codec(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// The old `NULL` type, which has no bytes.
    Null,
    I8,
    U8,
    I16,
    U16,
    I24,
    U24,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
    Decimal(Decimal),
    /// Its bytes, 1 to 8.
    Bit(u8),
    /// Whether it is shown with two digits.
    Year(bool),
    Date(ZeroDate),
    Time(Form),
    DateTime(Form, ZeroDate),
    Timestamp(Form, ZeroDate),
    /// Its bytes, 1 or 2.
    Enum(u8, Labels),
    /// Its bytes, 1 to 8.
    Set(u8, Labels),
    /// A length and that many bytes.
    Prefixed(Prefix, Content),
    /// The same of MariaDB's `COMPRESSED` columns.
    Compressed(Prefix, Content),
}

type Labels = Box<[Box<str>]>;

impl Codec {
    /// The codec of a column.
    ///
    /// # Errors
    /// A sentence that says why columns like this one cannot be read.
    pub fn new(column: &Column, facts: &Facts<'_>) -> Result<Codec, &'static str> {
        let signed = |signed, unsigned| if facts.unsigned { unsigned } else { signed };
        let zero_date = facts.zero_date.of_column(facts.nullable);
        let meta = column.meta;
        let content = || Content::of(facts, column.ty, meta);
        let kind = match column.ty {
            ColumnType::Null => Kind::Null,
            ColumnType::Tiny => signed(Kind::I8, Kind::U8),
            ColumnType::Short => signed(Kind::I16, Kind::U16),
            ColumnType::Int24 => signed(Kind::I24, Kind::U24),
            ColumnType::Long => signed(Kind::I32, Kind::U32),
            ColumnType::LongLong => signed(Kind::I64, Kind::U64),
            ColumnType::Float => Kind::F32,
            ColumnType::Double => Kind::F64,
            ColumnType::NewDecimal => Kind::Decimal(Decimal::new(meta)?),
            ColumnType::Bit => Kind::Bit(bit_bytes(meta)?),
            ColumnType::Year => Kind::Year(temporal::digits_in(facts.declared) == Some(2)),
            ColumnType::Date | ColumnType::NewDate => Kind::Date(zero_date),
            ColumnType::Time => Kind::Time(Form::old(facts.declared)?),
            ColumnType::Time2 => Kind::Time(Form::packed(meta)?),
            ColumnType::DateTime => Kind::DateTime(Form::old(facts.declared)?, zero_date),
            ColumnType::DateTime2 => Kind::DateTime(Form::packed(meta)?, zero_date),
            ColumnType::Timestamp => Kind::Timestamp(Form::old(facts.declared)?, zero_date),
            ColumnType::Timestamp2 => Kind::Timestamp(Form::packed(meta)?, zero_date),
            ColumnType::Enum => Kind::Enum(label_bytes(meta, 2)?, labels(facts)),
            ColumnType::Set => Kind::Set(label_bytes(meta, 8)?, labels(facts)),
            ColumnType::String | ColumnType::VarChar | ColumnType::VarString => {
                Kind::Prefixed(Prefix::of_text(meta), content()?)
            }
            ColumnType::TinyBlob
            | ColumnType::MediumBlob
            | ColumnType::LongBlob
            | ColumnType::Blob
            | ColumnType::Json
            | ColumnType::Geometry
            | ColumnType::Vector => Kind::Prefixed(Prefix::of_blob(meta)?, content()?),
            ColumnType::VarCharCompressed => Kind::Compressed(Prefix::of_text(meta), content()?),
            ColumnType::BlobCompressed => Kind::Compressed(Prefix::of_blob(meta)?, content()?),
            ColumnType::Decimal => return Err("decimals of servers before MySQL 5.0 are not read"),
            ColumnType::TypedArray => return Err("typed arrays are never stored in a table"),
        };
        Ok(Codec(kind))
    }

    /// Writes the cell whose bytes come next. True when the value is in the form of its type; false when it is given in
    /// another one so as not to be lost: bytes for text that its character set does not have, text for what is no JSON,
    /// text for a day that its month does not have.
    ///
    /// # Errors
    /// See [`Refused`]. Only after [`Refused::Malformed`] the bytes may not have been taken.
    #[inline]
    pub fn write(&self, bytes: &mut Bytes<'_>, cell: &mut CellWriter<'_>) -> Result<bool, Refused> {
        let value = match &self.0 {
            Kind::Null => Value::Null,
            Kind::I8 => Value::Int(i8::from_le_bytes(bytes.array(CELL)?).into()),
            Kind::U8 => Value::Uint(u8::from_le_bytes(bytes.array(CELL)?).into()),
            Kind::I16 => Value::Int(i16::from_le_bytes(bytes.array(CELL)?).into()),
            Kind::U16 => Value::Uint(u16::from_le_bytes(bytes.array(CELL)?).into()),
            Kind::I24 => Value::Int(i24(bytes.array(CELL)?).into()),
            Kind::U24 => Value::Uint(bytes.u24(CELL)?.into()),
            Kind::I32 => Value::Int(i32::from_le_bytes(bytes.array(CELL)?).into()),
            Kind::U32 => Value::Uint(u32::from_le_bytes(bytes.array(CELL)?).into()),
            Kind::I64 => Value::Int(i64::from_le_bytes(bytes.array(CELL)?)),
            Kind::U64 => Value::Uint(u64::from_le_bytes(bytes.array(CELL)?)),
            Kind::F32 => Value::Float32(f32::from_le_bytes(bytes.array(CELL)?)),
            Kind::F64 => Value::Float64(f64::from_le_bytes(bytes.array(CELL)?)),
            Kind::Decimal(decimal) => {
                let raw = bytes.take(decimal.size(), CELL)?;
                decimal.write(raw, cell)?;
                return Ok(true);
            }
            Kind::Bit(size) => Value::Uint(bytes.uint_be(usize::from(*size), CELL)?),
            Kind::Year(two_digits) => year(bytes.array(CELL)?, *two_digits),
            Kind::Date(zero_date) => return temporal::date(bytes.array(CELL)?, *zero_date, cell),
            Kind::Time(form) => Value::Time(temporal::time(bytes.take(form.time_size(), CELL)?, *form)?),
            Kind::DateTime(form, zero_date) => {
                return temporal::datetime(bytes.take(form.datetime_size(), CELL)?, *form, *zero_date, cell);
            }
            Kind::Timestamp(form, zero_date) => {
                return temporal::timestamp(
                    bytes.take(form.timestamp_size(), CELL)?,
                    *form,
                    *zero_date,
                    cell,
                );
            }
            Kind::Enum(size, labels) => {
                let index = bytes.uint(usize::from(*size), CELL)?;
                Value::Text(text::label(labels, index)?)
            }
            Kind::Set(size, labels) => {
                let bits = bytes.uint(usize::from(*size), CELL)?;
                return text::write_set(labels, bits, cell);
            }
            Kind::Prefixed(prefix, content) => return content.write(prefix.take(bytes)?, cell),
            Kind::Compressed(prefix, content) => return content.write_compressed(prefix.take(bytes)?, cell),
        };
        cell.put(value);
        Ok(true)
    }

    /// Takes the bytes of the cell that comes next and gives what they hold of the value, without the length before it.
    ///
    /// # Errors
    /// When there are not enough of them.
    #[inline]
    pub fn skip<'a>(&self, bytes: &mut Bytes<'a>) -> Result<&'a [u8], Malformed> {
        let size = match &self.0 {
            Kind::Prefixed(prefix, _) | Kind::Compressed(prefix, _) => return prefix.take(bytes),
            Kind::Null => 0,
            Kind::I8 | Kind::U8 | Kind::Year(_) => 1,
            Kind::I16 | Kind::U16 => 2,
            Kind::I24 | Kind::U24 | Kind::Date(_) => 3,
            Kind::I32 | Kind::U32 | Kind::F32 => 4,
            Kind::I64 | Kind::U64 | Kind::F64 => 8,
            Kind::Decimal(decimal) => decimal.size(),
            Kind::Bit(size) | Kind::Enum(size, _) | Kind::Set(size, _) => usize::from(*size),
            Kind::Time(form) => form.time_size(),
            Kind::DateTime(form, _) => form.datetime_size(),
            Kind::Timestamp(form, _) => form.timestamp_size(),
        };
        bytes.take(size, CELL)
    }
}

/// What is cut off when a value ends early.
const CELL: &str = "a value of a row";

#[inline]
fn i24([a, b, c]: [u8; 3]) -> i32 {
    i32::from_le_bytes([0, a, b, c]) >> 8
}

/// A number of up to 8 bytes.
#[inline]
fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

/// A number of up to 8 bytes.
#[inline]
fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn year([byte]: [u8; 1], two_digits: bool) -> Value<'static> {
    match i64::from(byte) {
        since if two_digits => Value::Int(since % 100),
        0 => Value::Int(0),
        since => Value::Int(1900 + since),
    }
}

/// Bytes of a `BIT` with so many bits.
fn bit_bytes(bits: u16) -> Result<u8, &'static str> {
    match bits.div_ceil(8) {
        size @ 1..=8 => Ok(size as u8),
        _ => Err("a BIT of more than 64 bits or of none"),
    }
}

fn label_bytes(meta: u16, most: u8) -> Result<u8, &'static str> {
    u8::try_from(meta).ok().filter(|size| (1..=most).contains(size)).ok_or("labels of an impossible size")
}

fn labels(facts: &Facts<'_>) -> Labels {
    facts.labels.iter().map(|label| label.as_str().into()).collect()
}

#[cfg(test)]
mod tests;
