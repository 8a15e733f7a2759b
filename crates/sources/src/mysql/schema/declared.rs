//! Column types as `information_schema.COLUMNS.COLUMN_TYPE` prints them, read and written.
//!
//! Source: MySQL Reference Manual, "Data Types"; MariaDB documentation, "Data Types". What the servers print differs from what
//! their manuals show in two places: labels of ENUM and SET have backslashes and line ends escaped besides doubled quotes, and
//! old temporal formats carry a comment.

use super::lexer::{Dialect, Token};
use super::reader::Reader;
use crate::mysql::flavour::{Flavour, Version};
use std::fmt::Write;

/// A column's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) kind: Kind,
    /// Of a number.
    pub(crate) unsigned: bool,
    /// MariaDB's column compression, which has wire types of its own.
    pub(crate) compressed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    TinyInt,
    SmallInt,
    MediumInt,
    Int,
    BigInt,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Float,
    Double,
    Bit(u8),
    Year,
    Date,
    /// Digits of the fraction, as for the next two.
    Time(u8),
    DateTime(u8),
    Timestamp(u8),
    /// Characters.
    Char(u32),
    VarChar(u32),
    /// Bytes.
    Binary(u32),
    VarBinary(u32),
    /// Bytes of the length before a value: 1 TINYTEXT, 2 TEXT, 3 MEDIUMTEXT, 4 LONGTEXT.
    Text(u8),
    Blob(u8),
    Enum(Vec<String>),
    Set(Vec<String>),
    /// MySQL's; MariaDB's is a LONGTEXT.
    Json,
    /// Which one, as TABLE_MAP numbers them.
    Geometry(u8),
    /// Dimensions.
    Vector(u32),
    Uuid,
    Inet4,
    Inet6,
    Xml,
}

/// Names of the geometry types by their numbers. MySQL prints the last one shorter.
pub(super) const GEOMETRIES: [&str; 8] = [
    "geometry",
    "point",
    "linestring",
    "polygon",
    "multipoint",
    "multilinestring",
    "multipolygon",
    "geometrycollection",
];

/// Names of the TEXT and BLOB families by the bytes of a length.
pub(super) const TEXTS: [&str; 4] = ["tinytext", "text", "mediumtext", "longtext"];
pub(super) const BLOBS: [&str; 4] = ["tinyblob", "blob", "mediumblob", "longblob"];

impl Declared {
    /// Reads a type; `None` for one that is not known.
    pub(crate) fn parse(column_type: &str) -> Option<Declared> {
        // As MariaDB, so that its comments are seen; MySQL prints none.
        let dialect = Dialect { mariadb: true, ..Dialect::default() };
        let mut reader = Reader::new(column_type.as_bytes(), dialect);
        let name = reader.keyword()?.to_ascii_lowercase();
        let mut labels = Vec::new();
        let mut numbers = Vec::new();
        if reader.accept_sign(b'(') {
            while !reader.accept_sign(b')') {
                match reader.peek()? {
                    Token::Text(..) => labels.push(String::from_utf8(reader.text()?).ok()?),
                    // `(7,4)` and, where it is one token, `(7.4)` do not occur together.
                    Token::Number(_) => numbers.push(reader.number()?),
                    _ => return None,
                }
                reader.accept_sign(b',');
            }
        }
        let kind = kind(&name, &numbers, labels)?;
        let mut declared = Declared { kind, unsigned: false, compressed: false };
        while let Some(word) = reader.keyword() {
            match word.as_str() {
                "UNSIGNED" => declared.unsigned = true,
                "COMPRESSED" => declared.compressed = true,
                "ZEROFILL" => {}
                _ => return None,
            }
        }
        reader.at_end().then_some(declared)
    }

    /// Labels of an ENUM or a SET, in declared order.
    pub(crate) fn labels(&self) -> &[String] {
        match &self.kind {
            Kind::Enum(labels) | Kind::Set(labels) => labels,
            _ => &[],
        }
    }

    /// Whether the log tells the sign.
    pub(super) fn has_sign(&self) -> bool {
        use Kind::{BigInt, Decimal, Double, Float, Int, MediumInt, SmallInt, TinyInt};
        matches!(self.kind, TinyInt | SmallInt | MediumInt | Int | BigInt | Decimal { .. } | Float | Double)
    }

    /// Whether values are bytes that are logged as text is.
    pub(super) fn is_bytes(&self) -> bool {
        matches!(self.kind, Kind::Binary(_) | Kind::VarBinary(_) | Kind::Blob(_))
    }

    /// Whether values are text in a character set.
    pub(crate) fn is_text(&self) -> bool {
        matches!(self.kind, Kind::Char(_) | Kind::VarChar(_) | Kind::Text(_) | Kind::Enum(_) | Kind::Set(_))
    }
}

fn kind(name: &str, numbers: &[u64], labels: Vec<String>) -> Option<Kind> {
    let number = |default: u8| match numbers {
        [] => Some(default),
        [n] => u8::try_from(*n).ok(),
        _ => None,
    };
    let length = || match numbers {
        [n] => u32::try_from(*n).ok(),
        _ => None,
    };
    let family = |names: [&str; 4]| names.iter().position(|n| *n == name).map(|at| at as u8 + 1);
    Some(match name {
        // The number is a display width.
        "tinyint" => Kind::TinyInt,
        "smallint" => Kind::SmallInt,
        "mediumint" => Kind::MediumInt,
        "int" => Kind::Int,
        "bigint" => Kind::BigInt,
        "decimal" => match numbers {
            [p @ 1..=65, s @ 0..=38] if s <= p => Kind::Decimal { precision: *p as u8, scale: *s as u8 },
            _ => return None,
        },
        "float" => Kind::Float,
        "double" => Kind::Double,
        "bit" => Kind::Bit(number(1).filter(|n| (1..=64).contains(n))?),
        "year" => Kind::Year,
        "date" => Kind::Date,
        "time" => Kind::Time(number(0).filter(|n| *n <= 6)?),
        "datetime" => Kind::DateTime(number(0).filter(|n| *n <= 6)?),
        "timestamp" => Kind::Timestamp(number(0).filter(|n| *n <= 6)?),
        "char" => Kind::Char(length()?),
        "varchar" => Kind::VarChar(length()?),
        "binary" => Kind::Binary(length()?),
        "varbinary" => Kind::VarBinary(length()?),
        "enum" if !labels.is_empty() => Kind::Enum(labels),
        "set" if !labels.is_empty() => Kind::Set(labels),
        "json" => Kind::Json,
        "geomcollection" => Kind::Geometry(7),
        "vector" => Kind::Vector(length()?),
        "uuid" => Kind::Uuid,
        "inet4" => Kind::Inet4,
        "inet6" => Kind::Inet6,
        "xmltype" => Kind::Xml,
        _ => match (family(TEXTS), family(BLOBS), GEOMETRIES.iter().position(|n| *n == name)) {
            (Some(bytes), _, _) => Kind::Text(bytes),
            (_, Some(bytes), _) => Kind::Blob(bytes),
            (_, _, Some(geometry)) => Kind::Geometry(geometry as u8),
            _ => return None,
        },
    })
}

/// Prints an integer type. `width` as declared; `None` for none, or where it is not known.
pub(super) fn integer(
    name: &str,
    width: Option<u64>,
    unsigned: bool,
    zerofill: bool,
    version: &Version,
) -> String {
    let width = width.filter(|w| *w > 0);
    let widths = version.flavour == Flavour::MariaDb || !version.is_at_least(8, 0, 19);
    let shown = widths || zerofill || (name == "tinyint" && width == Some(1) && !unsigned);
    let mut text = name.to_owned();
    if shown {
        let width = width.unwrap_or_else(|| {
            let (signed, unsigned_width) = match name {
                "tinyint" => (4, 3),
                "smallint" => (6, 5),
                "mediumint" => (9, 8),
                "int" => (11, 10),
                _ => (20, 20),
            };
            if unsigned { unsigned_width } else { signed }
        });
        let _ = write!(text, "({width})");
    }
    text.push_str(signs(unsigned, zerofill));
    text
}

/// What follows a number's type.
pub(super) fn signs(unsigned: bool, zerofill: bool) -> &'static str {
    match (unsigned, zerofill) {
        (_, true) => " unsigned zerofill",
        (true, false) => " unsigned",
        (false, false) => "",
    }
}

/// Prints `time`, `datetime` or `timestamp`.
pub(super) fn temporal(name: &str, fraction: u64) -> String {
    if fraction == 0 { name.into() } else { format!("{name}({fraction})") }
}

/// Prints `year`.
pub(super) fn year(version: &Version) -> &'static str {
    if version.flavour == Flavour::MariaDb || !version.is_at_least(8, 0, 19) { "year(4)" } else { "year" }
}

/// Prints a geometry type.
pub(super) fn geometry(number: u8, version: &Version) -> Option<&'static str> {
    if number == 7 && version.flavour == Flavour::MySql {
        return Some("geomcollection");
    }
    GEOMETRIES.get(usize::from(number)).copied()
}

/// Prints `enum` or `set`.
pub(super) fn labelled(name: &str, labels: &[String]) -> String {
    let mut text = format!("{name}(");
    for (i, label) in labels.iter().enumerate() {
        text.push_str(if i == 0 { "'" } else { ",'" });
        for c in label.chars() {
            match c {
                '\'' => text.push_str("''"),
                '\\' => text.push_str("\\\\"),
                '\0' => text.push_str("\\0"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                other => text.push(other),
            }
        }
        text.push('\'');
    }
    text.push(')');
    text
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "in a test, a panic with a clear message is how a failure is reported"
    )]
    use super::*;

    fn parsed(text: &str) -> Declared {
        Declared::parse(text).unwrap_or_else(|| panic!("{text} does not read"))
    }

    #[test]
    fn types_as_servers_print_them() {
        let labels = |labels: &[&str]| labels.iter().map(|l| l.to_string()).collect::<Vec<_>>();
        for (text, kind) in [
            ("int", Kind::Int),
            ("tinyint(1)", Kind::TinyInt),
            ("bigint(20)", Kind::BigInt),
            ("decimal(65,30)", Kind::Decimal { precision: 65, scale: 30 }),
            ("decimal(10,0)", Kind::Decimal { precision: 10, scale: 0 }),
            ("float(7,4)", Kind::Float),
            ("double", Kind::Double),
            ("bit(64)", Kind::Bit(64)),
            ("year", Kind::Year),
            ("year(4)", Kind::Year),
            ("date", Kind::Date),
            ("time(3)", Kind::Time(3)),
            ("datetime", Kind::DateTime(0)),
            ("datetime /* mariadb-5.3 */", Kind::DateTime(0)),
            ("timestamp(6)", Kind::Timestamp(6)),
            ("char(0)", Kind::Char(0)),
            ("varchar(16383)", Kind::VarChar(16_383)),
            ("binary(16)", Kind::Binary(16)),
            ("varbinary(65532)", Kind::VarBinary(65_532)),
            ("longtext", Kind::Text(4)),
            ("tinyblob", Kind::Blob(1)),
            ("enum('a','it''s','x,y','(z)','')", Kind::Enum(labels(&["a", "it's", "x,y", "(z)", ""]))),
            (r"set('a\\b','c\nd\0\r')", Kind::Set(labels(&["a\\b", "c\nd\0\r"]))),
            ("json", Kind::Json),
            ("geometry", Kind::Geometry(0)),
            ("geomcollection", Kind::Geometry(7)),
            ("geometrycollection", Kind::Geometry(7)),
            ("multipolygon", Kind::Geometry(6)),
            ("vector(2048)", Kind::Vector(2048)),
            ("uuid", Kind::Uuid),
            ("inet6", Kind::Inet6),
        ] {
            assert_eq!(parsed(text), Declared { kind, unsigned: false, compressed: false }, "{text}");
        }
        assert!(parsed("int unsigned").unsigned);
        assert!(parsed("bigint(20) unsigned zerofill").unsigned);
        assert!(parsed("varchar(100) /*M!100301 COMPRESSED*/").compressed);
        assert!(parsed("longtext /*!100301 COMPRESSED*/").compressed);
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        for text in [
            "",
            "hstore",
            "int what",
            "decimal",
            "decimal(66,0)",
            "enum()",
            "enum('a'",
            "varchar",
            "bit(65)",
            "time(7)",
            "int(",
            "decimal(5,6)",
            "enum(1)",
        ] {
            assert_eq!(Declared::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        let labels: Vec<String> = ["a'b", "c\\d", "e\nf", "\u{fc}", ""].map(String::from).into();
        assert_eq!(parsed(&labelled("enum", &labels)).labels(), labels);
        let version = |text| Version::parse(text, "");
        let (old, new, maria) = (version("8.0.18"), version("8.0.19"), version("11.4.2-MariaDB"));
        let shown =
            |v: &Version, name, width, unsigned, zerofill| integer(name, width, unsigned, zerofill, v);
        assert_eq!(shown(&new, "int", Some(11), false, false), "int");
        assert_eq!(shown(&new, "int", Some(5), true, true), "int(5) unsigned zerofill");
        assert_eq!(shown(&new, "tinyint", Some(1), false, false), "tinyint(1)");
        assert_eq!(shown(&new, "tinyint", Some(1), true, false), "tinyint unsigned");
        assert_eq!(shown(&old, "bigint", None, true, false), "bigint(20) unsigned");
        assert_eq!(shown(&maria, "mediumint", None, true, false), "mediumint(8) unsigned");
        assert_eq!(shown(&maria, "int", Some(0), false, false), "int(11)");
        assert_eq!((year(&new), year(&maria)), ("year", "year(4)"));
    }
}
