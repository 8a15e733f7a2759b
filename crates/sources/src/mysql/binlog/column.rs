//! The types that columns have in the log, and what a TABLE_MAP says of each beside its type.

use super::reader::Bytes;
use super::{Malformed, Result, numbered};

/// Declares [`ColumnType`] with the way from its byte.
macro_rules! column_types {
    ($($(#[$doc:meta])* $name:ident = $byte:literal,)*) => {
        /// A column's type byte, `enum_field_types` of the servers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ColumnType {
            $($(#[$doc])* $name = $byte,)*
        }

        impl ColumnType {
            /// The type of this byte.
            ///
            /// # Errors
            /// When no server logs such a type; the error names the byte.
            pub fn from_byte(byte: u8) -> Result<ColumnType> {
                match byte {
                    $($byte => Ok(ColumnType::$name),)*
                    _ => Err(Malformed(numbered!("a column of the unknown type ", byte))),
                }
            }
        }
    };
}

column_types! {
    /// DECIMAL before MySQL 5.0.3.
    Decimal = 0,
    /// TINYINT.
    Tiny = 1,
    /// SMALLINT.
    Short = 2,
    /// INT.
    Long = 3,
    /// FLOAT.
    Float = 4,
    /// DOUBLE.
    Double = 5,
    /// A column that is always NULL.
    Null = 6,
    /// TIMESTAMP without fraction, in the old format.
    Timestamp = 7,
    /// BIGINT.
    LongLong = 8,
    /// MEDIUMINT.
    Int24 = 9,
    /// DATE.
    Date = 10,
    /// TIME in the old format.
    Time = 11,
    /// DATETIME in the old format.
    DateTime = 12,
    /// YEAR.
    Year = 13,
    /// DATE.
    NewDate = 14,
    /// VARCHAR, VARBINARY; of MariaDB also VECTOR.
    VarChar = 15,
    /// BIT.
    Bit = 16,
    /// TIMESTAMP.
    Timestamp2 = 17,
    /// DATETIME.
    DateTime2 = 18,
    /// TIME.
    Time2 = 19,
    /// The hidden column behind a multi-valued index of MySQL.
    TypedArray = 20,
    /// A BLOB or TEXT with MariaDB's column compression.
    BlobCompressed = 140,
    /// A VARCHAR or VARBINARY with MariaDB's column compression.
    VarCharCompressed = 141,
    /// VECTOR of MySQL.
    Vector = 242,
    /// JSON of MySQL.
    Json = 245,
    /// DECIMAL.
    NewDecimal = 246,
    /// ENUM.
    Enum = 247,
    /// SET.
    Set = 248,
    /// TINYBLOB, TINYTEXT; logged as [`Blob`](ColumnType::Blob).
    TinyBlob = 249,
    /// MEDIUMBLOB, MEDIUMTEXT; logged as [`Blob`](ColumnType::Blob).
    MediumBlob = 250,
    /// LONGBLOB, LONGTEXT; logged as [`Blob`](ColumnType::Blob).
    LongBlob = 251,
    /// All BLOB and TEXT types, and JSON of MariaDB.
    Blob = 252,
    /// VARCHAR before MySQL 5.0.3.
    VarString = 253,
    /// CHAR, BINARY; of MariaDB also UUID, INET4, INET6.
    String = 254,
    /// The geometry types.
    Geometry = 255,
}

/// A column as the log describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// Its real type: ENUM and SET, which the log disguises as CHAR, are told apart.
    pub ty: ColumnType,
    /// What the type needs to be read, checked against the type's limits:
    ///
    /// | type | `meta` |
    /// |---|---|
    /// | Float, Double | bytes of a value: 4, 8 |
    /// | VarChar, VarString, String | most bytes a value may have; the length before a value is two bytes when this is above 255, else one |
    /// | VarCharCompressed | the same, one byte more than declared: a value begins with a byte about its compression |
    /// | Enum, Set | bytes of a value: 1 to 2, 1 to 8 |
    /// | Bit | number of bits, 1 to 64; a value has as many bytes as they fill |
    /// | NewDecimal | precision × 256 + scale |
    /// | Blob family, BlobCompressed, Geometry, Json, Vector | bytes of the length before a value, 1 to 4 |
    /// | Time2, DateTime2, Timestamp2 | digits of the fraction, 0 to 6 |
    /// | TypedArray | type byte of the elements |
    /// | others | 0 |
    pub meta: u16,
    /// May be NULL.
    pub nullable: bool,
}

impl Column {
    /// Reads the column of type byte `byte`, its metadata off `meta`.
    pub(super) fn parse(byte: u8, meta: &mut Bytes<'_>, nullable: bool) -> Result<Column> {
        let ty = ColumnType::from_byte(byte)?;
        let (ty, meta) = match ty {
            ColumnType::TypedArray => {
                let element = meta.u8(META)?;
                skip_element(ColumnType::from_byte(element)?, meta)?;
                (ty, u16::from(element))
            }
            _ => metadata(ty, meta)?,
        };
        Ok(Column { ty, meta, nullable })
    }
}

const META: &str = "TABLE_MAP: metadata of a column";

/// What to store of a type's metadata; a CHAR may turn out to be an ENUM or a SET.
fn metadata(ty: ColumnType, meta: &mut Bytes<'_>) -> Result<(ColumnType, u16)> {
    use ColumnType::*;
    let value = match ty {
        Float => within(meta.u8(META)?, 4..=4, "TABLE_MAP: size of a FLOAT")?,
        Double => within(meta.u8(META)?, 8..=8, "TABLE_MAP: size of a DOUBLE")?,
        Time2 | DateTime2 | Timestamp2 => within(meta.u8(META)?, 0..=6, "TABLE_MAP: fraction of a time")?,
        TinyBlob | MediumBlob | LongBlob | Blob | BlobCompressed | Geometry | Json | Vector => {
            within(meta.u8(META)?, 1..=4, "TABLE_MAP: size of a length")?
        }
        VarChar | VarString | VarCharCompressed => meta.u16(META)?,
        Bit => {
            let [bits, bytes] = meta.array(META)?;
            let bits = u16::from(bytes) * 8 + within(bits, 0..=7, "TABLE_MAP: BIT")?;
            if !(1..=64).contains(&bits) {
                return Err(Malformed("TABLE_MAP: BIT"));
            }
            bits
        }
        NewDecimal => {
            let [precision, scale] = meta.array(META)?;
            if !(1..=65).contains(&precision) || scale > precision {
                return Err(Malformed("TABLE_MAP: precision of a DECIMAL"));
            }
            u16::from_be_bytes([precision, scale])
        }
        Enum | Set | String => return disguised(meta.array(META)?),
        Decimal | Tiny | Short | Long | Null | Timestamp | LongLong | Int24 | Date | Time | DateTime
        | Year | NewDate | TypedArray => 0,
    };
    Ok((ty, value))
}

/// The real type and size of what is logged as a CHAR. The first byte is the real type; a CHAR of more than 255 bytes keeps
/// the upper two bits of its length inverted in two bits that are set in all three type bytes.
fn disguised([real, size]: [u8; 2]) -> Result<(ColumnType, u16)> {
    const LENGTH_BITS: u8 = 0x30;
    let upper = u16::from(!real & LENGTH_BITS) << 4;
    match ColumnType::from_byte(real | LENGTH_BITS)? {
        ColumnType::String => Ok((ColumnType::String, upper | u16::from(size))),
        ty @ ColumnType::Enum if upper == 0 => Ok((ty, within(size, 1..=2, "TABLE_MAP: size of an ENUM")?)),
        ty @ ColumnType::Set if upper == 0 => Ok((ty, within(size, 1..=8, "TABLE_MAP: size of a SET")?)),
        _ => Err(Malformed("TABLE_MAP: a CHAR that is none")),
    }
}

/// Reads over the metadata of a typed array's elements: that of the type, but three bytes for a VARCHAR.
fn skip_element(ty: ColumnType, meta: &mut Bytes<'_>) -> Result<()> {
    metadata(ty, meta)?;
    if ty == ColumnType::VarChar {
        meta.u8(META)?;
    }
    Ok(())
}

fn within<T: Copy + PartialOrd + Into<u16>>(
    value: T,
    range: std::ops::RangeInclusive<T>,
    what: &'static str,
) -> Result<u16> {
    if range.contains(&value) { Ok(value.into()) } else { Err(Malformed(what)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(byte: u8, meta: &[u8]) -> Result<(ColumnType, u16)> {
        let mut meta = Bytes::new(meta);
        let column = Column::parse(byte, &mut meta, true)?;
        meta.end("metadata left")?;
        Ok((column.ty, column.meta))
    }

    #[test]
    fn each_type_reads_its_own_metadata() {
        use ColumnType::*;
        for (byte, meta, expected) in [
            (1, &[][..], (Tiny, 0)),
            (4, &[4], (Float, 4)),
            (5, &[8], (Double, 8)),
            (15, &[0x2c, 0x01], (VarChar, 300)),
            (16, &[7, 1], (Bit, 15)),
            (16, &[0, 8], (Bit, 64)),
            (18, &[3], (DateTime2, 3)),
            (20, &[8], (TypedArray, 8)),
            (20, &[15, 1, 2, 3], (TypedArray, 15)),
            (20, &[246, 10, 2], (TypedArray, 246)),
            (140, &[3], (BlobCompressed, 3)),
            (141, &[0, 1], (VarCharCompressed, 256)),
            (242, &[4], (Vector, 4)),
            (245, &[4], (Json, 4)),
            (246, &[10, 2], (NewDecimal, 0x0a02)),
            (252, &[2], (Blob, 2)),
            (255, &[4], (Geometry, 4)),
        ] {
            assert_eq!(column(byte, meta), Ok(expected));
            assert!(meta.is_empty() || column(byte, &meta[..meta.len() - 1]).is_err(), "{byte} cut off");
        }
    }

    #[test]
    fn a_char_may_be_an_enum_a_set_or_long() {
        use ColumnType::*;
        assert_eq!(column(254, &[254, 10]), Ok((String, 10)));
        assert_eq!(column(254, &[0xde, 0x2c]), Ok((String, 0x22c)), "CHAR(139) in utf8mb4 has 556 bytes");
        assert_eq!(column(254, &[0xce, 0xfc]), Ok((String, 1020)), "CHAR(255) in utf8mb4");
        assert_eq!(column(254, &[247, 2]), Ok((Enum, 2)));
        assert_eq!(column(254, &[248, 8]), Ok((Set, 8)));
        assert!(column(254, &[247, 3]).is_err());
        assert!(column(254, &[0xc7, 1]).is_err(), "an ENUM with the bits of a long CHAR");
        assert!(column(254, &[252, 1]).is_err());
    }

    #[test]
    fn metadata_beyond_a_types_limits_is_refused() {
        for (byte, meta) in [
            (4, &[8][..]),
            (16, &[8, 0]),
            (16, &[1, 8]),
            (16, &[0, 0]),
            (17, &[7]),
            (246, &[66, 0]),
            (246, &[5, 6]),
            (252, &[0]),
            (252, &[5]),
        ] {
            assert!(column(byte, meta).is_err(), "{byte} {meta:?}");
        }
    }

    #[test]
    fn an_unknown_type_is_named() {
        assert_eq!(ColumnType::from_byte(243), Err(Malformed("a column of the unknown type 243")));
        assert_eq!(ColumnType::from_byte(21), Err(Malformed("a column of the unknown type 21")));
    }
}
