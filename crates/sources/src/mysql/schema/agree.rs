//! Whether what the log says of a table agrees with what is known of it, and what the log alone tells.
//!
//! TABLE_MAP has for each column the type, some of its size, and whether it takes NULL; with `binlog_row_metadata=MINIMAL`
//! also signs and character sets; with `FULL` names, labels and keys too. Everything that is there is compared, because each
//! fact is another chance to notice that a table was changed behind the log's back.
//!
//! Source: MySQL source documentation, `mysql::binlog::event::Table_map_event`.

use super::declared::{self, Declared, Kind};
use super::shape::{Shape, ShapeColumn};
use crate::mysql::binlog::{Column, ColumnMetadata, ColumnType, Metadata};
use crate::mysql::charset::{Charset, Collations};
use crate::mysql::flavour::{Flavour, Version};
use std::fmt::Write;

/// How many differences a text names.
const NAMED: usize = 12;

/// Compares a shape with a TABLE_MAP.
///
/// # Errors
/// What was expected and what is in the log, column by column; no values.
pub(crate) fn agree(
    shape: &Shape,
    columns: &[Column],
    metadata: &Metadata,
    collations: &Collations,
) -> Result<(), String> {
    let mut differences = Vec::new();
    if shape.columns.len() != columns.len() {
        let names = shape.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
        differences.push(format!(
            "{} columns expected ({names}), {} in the log",
            shape.columns.len(),
            columns.len()
        ));
    }
    let none = ColumnMetadata::default();
    for (at, (expected, logged)) in shape.columns.iter().zip(columns).enumerate() {
        let beside = metadata.columns.get(at).unwrap_or(&none);
        if !matches(expected, logged, beside, collations) {
            let nullable = if expected.nullable { ", nullable" } else { "" };
            let charset = expected.charset.as_deref().map(|c| format!(" in {c}")).unwrap_or_default();
            differences.push(format!(
                "column {} is expected as {} {}{charset}{nullable} and in the log {}",
                at + 1,
                expected.name,
                expected.column_type,
                describe(logged, beside, collations)
            ));
        }
    }
    let logged_key: Vec<u16> = metadata.primary_key.iter().map(|part| part.column).collect();
    if metadata.is_full() && differences.is_empty() && logged_key != shape.key() {
        let numbers = |key: &[u16]| key.iter().map(|at| (at + 1).to_string()).collect::<Vec<_>>().join(", ");
        differences.push(format!(
            "the key is expected over columns ({}) and in the log over ({})",
            numbers(shape.key()),
            numbers(&logged_key)
        ));
    }
    if differences.is_empty() {
        return Ok(());
    }
    let more = differences.len().saturating_sub(NAMED);
    differences.truncate(NAMED);
    let mut text = differences.join("; ");
    if more > 0 {
        let _ = write!(text, "; and {more} more");
    }
    Err(text)
}

/// Whether a column may be logged like this.
fn matches(
    expected: &ShapeColumn,
    logged: &Column,
    beside: &ColumnMetadata,
    collations: &Collations,
) -> bool {
    if expected.hidden {
        return logged.ty == ColumnType::LongLong;
    }
    let Some(declared) = Declared::parse(&expected.column_type) else { return false };
    let charset = expected.charset.as_deref().map(Charset::by_name);
    let (Some(charset), true) =
        (charset.unwrap_or(Some(Charset::BINARY)), logged.nullable == expected.nullable)
    else {
        return false;
    };
    let name_fits = beside.name.as_deref().is_none_or(|name| name == expected.name);
    let signs = declared.has_sign();
    let sign_fits = !signs || beside.unsigned.is_none_or(|unsigned| unsigned == declared.unsigned);
    let compared = declared.is_text() || declared.is_bytes();
    let logged_charset = beside.collation.filter(|_| compared).and_then(|id| collations.charset(id));
    let charset_fits = logged_charset.is_none_or(|logged| logged == charset);
    let dimensions_fit = match (&declared.kind, beside.dimensions, beside.geometry) {
        (Kind::Vector(n), Some(logged), _) => *n == logged,
        (Kind::Geometry(n), _, Some(logged)) => *n == logged,
        _ => true,
    };
    let labels_fit = match (&beside.labels, declared.labels()) {
        (Some(logged), labels @ [_, ..]) => {
            logged.len() == labels.len()
                && logged
                    .iter()
                    .zip(labels)
                    .all(|(l, label)| label_text(l, charset).as_deref() == Some(label))
        }
        _ => true,
    };
    fits(&declared, charset, logged) && name_fits && sign_fits && charset_fits && dimensions_fit && labels_fit
}

/// Whether a type is logged as this one.
fn fits(declared: &Declared, charset: Charset, logged: &Column) -> bool {
    use ColumnType as T;
    let characters = |n: u32| n.saturating_mul(u32::from(charset.mbmaxlen()));
    let meta = u32::from(logged.meta);
    let is_blob = matches!(logged.ty, T::Blob | T::TinyBlob | T::MediumBlob | T::LongBlob);
    match &declared.kind {
        Kind::TinyInt => logged.ty == T::Tiny,
        Kind::SmallInt => logged.ty == T::Short,
        Kind::MediumInt => logged.ty == T::Int24,
        Kind::Int => logged.ty == T::Long,
        Kind::BigInt => logged.ty == T::LongLong,
        Kind::Decimal { precision, scale } => {
            logged.ty == T::NewDecimal && logged.meta == u16::from_be_bytes([*precision, *scale])
        }
        Kind::Float => logged.ty == T::Float,
        Kind::Double => logged.ty == T::Double,
        Kind::Bit(bits) => logged.ty == T::Bit && meta == u32::from(*bits),
        Kind::Year => logged.ty == T::Year,
        Kind::Date => matches!(logged.ty, T::Date | T::NewDate),
        // The old formats, which MariaDB can still be told to write, do not say how many digits the fraction has.
        Kind::Time(digits) => logged.ty == T::Time || logged.ty == T::Time2 && meta == u32::from(*digits),
        Kind::DateTime(digits) => {
            logged.ty == T::DateTime || logged.ty == T::DateTime2 && meta == u32::from(*digits)
        }
        Kind::Timestamp(digits) => {
            logged.ty == T::Timestamp || logged.ty == T::Timestamp2 && meta == u32::from(*digits)
        }
        Kind::Char(n) => logged.ty == T::String && meta == characters(*n),
        Kind::Binary(n) => logged.ty == T::String && meta == *n,
        // A byte before the value says how it is compressed.
        Kind::VarChar(n) if declared.compressed => {
            logged.ty == T::VarCharCompressed && meta == characters(*n) + 1
        }
        Kind::VarBinary(n) if declared.compressed => logged.ty == T::VarCharCompressed && meta == *n + 1,
        Kind::VarChar(n) => logged.ty == T::VarChar && meta == characters(*n),
        Kind::VarBinary(n) => logged.ty == T::VarChar && meta == *n,
        Kind::Text(bytes) | Kind::Blob(bytes) => {
            let wire = if declared.compressed { logged.ty == T::BlobCompressed } else { is_blob };
            wire && meta == u32::from(*bytes)
        }
        Kind::Enum(labels) => logged.ty == T::Enum && meta == if labels.len() < 256 { 1 } else { 2 },
        Kind::Set(labels) => {
            let bytes = labels.len().div_ceil(8);
            logged.ty == T::Set && meta == if bytes > 4 { 8 } else { bytes as u32 }
        }
        Kind::Json => logged.ty == T::Json,
        Kind::Geometry(_) => logged.ty == T::Geometry,
        // MariaDB logs a vector as the bytes that it is made of.
        Kind::Vector(n) => logged.ty == T::Vector || logged.ty == T::VarChar && meta == n.saturating_mul(4),
        Kind::Uuid | Kind::Inet6 => logged.ty == T::String && meta == 16,
        Kind::Inet4 => logged.ty == T::String && meta == 4,
        Kind::Xml => is_blob,
    }
}

/// What the log says of a column, in the words of a manual.
fn describe(logged: &Column, beside: &ColumnMetadata, collations: &Collations) -> String {
    let mut text = String::new();
    if let Some(name) = &beside.name {
        let _ = write!(text, "{name} ");
    }
    let _ = match logged.ty {
        ColumnType::NewDecimal => write!(text, "decimal({},{})", logged.meta >> 8, logged.meta & 0xff),
        ty if logged.meta == 0 => write!(text, "{ty:?}"),
        ty => write!(text, "{ty:?} with {}", logged.meta),
    };
    if let Some(unsigned) = beside.unsigned {
        text.push_str(if unsigned { ", unsigned" } else { ", signed" });
    }
    if let Some(charset) = beside.collation.and_then(|id| collations.charset(id)) {
        let _ = write!(text, ", {}", charset.name());
    }
    if let Some(labels) = &beside.labels {
        let _ = write!(text, ", {} labels", labels.len());
    }
    text.push_str(if logged.nullable { ", nullable" } else { "" });
    text
}

fn label_text(label: &[u8], charset: Charset) -> Option<String> {
    let mut text = Vec::with_capacity(label.len());
    // ASCII is all that a label in the character set `binary` can be told by.
    let decoded = charset.decode(label, &mut text) || charset == Charset::BINARY && label.is_ascii();
    if charset == Charset::BINARY {
        text = label.to_vec();
    }
    if decoded { String::from_utf8(text).ok() } else { None }
}

/// The shape that a TABLE_MAP with `FULL` metadata tells. What it does not tell (MariaDB's JSON, UUID, INET and VECTOR, and
/// display widths) is taken from the first of `hints` that has a column of the same name whose type is logged like this.
///
/// # Errors
/// Which column the log does not tell enough of.
pub(crate) fn from_metadata(
    columns: &[Column],
    metadata: &Metadata,
    collations: &Collations,
    version: &Version,
    hints: &[&Shape],
) -> Result<Shape, String> {
    let mut shape = Shape::default();
    for (at, logged) in columns.iter().enumerate() {
        let beside = metadata.columns.get(at);
        let Some((name, beside)) = beside.and_then(|beside| Some((beside.name.as_deref()?, beside))) else {
            return Err(format!("the log does not name column {}", at + 1));
        };
        let mut hints = hints.iter().flat_map(|hint| &hint.columns).filter(|column| column.name == name);
        let mut hinted = hints.find_map(|column| {
            // That it was changed to take NULL, or not, leaves the rest as it is.
            let column = ShapeColumn { nullable: logged.nullable, ..column.clone() };
            matches(&column, logged, beside, collations).then_some(column)
        });
        if hinted.is_none() {
            hinted = Some(told(name, logged, beside, collations, version)?);
        }
        shape.columns.extend(hinted);
    }
    shape.primary_key = metadata.primary_key.iter().map(|part| part.column).collect();
    shape.charset = hints.iter().find_map(|hint| hint.charset.clone());
    // Whether a table is versioned shows by these names alone. Taken for one wrongly, its next change is looked up.
    let visible = shape.columns.iter().filter(|column| !column.hidden).map(|column| column.name.as_str());
    let last = visible.rev().take(2).collect::<Vec<_>>();
    shape.versioned = version.flavour == Flavour::MariaDb && last == ["row_end", "row_start"]
        || hints.iter().any(|hint| hint.versioned);
    Ok(shape)
}

/// A column as the log alone tells it.
fn told(
    name: &str,
    logged: &Column,
    beside: &ColumnMetadata,
    collations: &Collations,
    version: &Version,
) -> Result<ShapeColumn, String> {
    use ColumnType as T;
    let unclear = |why: &str| format!("column {name}: {why}");
    let mariadb = version.flavour == Flavour::MariaDb;
    let unsigned = || beside.unsigned.ok_or_else(|| unclear("the log does not tell its sign"));
    let charset = || {
        let id = beside.collation.ok_or_else(|| unclear("the log does not tell its character set"))?;
        collations.charset(id).ok_or_else(|| unclear(&format!("its collation {id} is not known")))
    };
    let integer = |name: &str| Ok::<_, String>(declared::integer(name, None, unsigned()?, false, version));
    let mut of_text = None;
    let mut sized = |bytes: u16, text: &str, binary: &str| {
        let charset = charset()?;
        if charset == Charset::BINARY {
            return Ok(format!("{binary}({bytes})"));
        }
        of_text = Some(charset);
        let width = u16::from(charset.mbmaxlen());
        if !bytes.is_multiple_of(width) {
            return Err(unclear(&format!(
                "its {bytes} bytes are no number of characters in {}",
                charset.name()
            )));
        }
        Ok(format!("{text}({})", bytes / width))
    };
    let compressed = " /*M!100301 COMPRESSED*/";
    let column_type = match logged.ty {
        T::Tiny => integer("tinyint")?,
        T::Short => integer("smallint")?,
        T::Int24 => integer("mediumint")?,
        T::Long => integer("int")?,
        T::LongLong => integer("bigint")?,
        T::NewDecimal => {
            let [precision, scale] = logged.meta.to_be_bytes();
            format!("decimal({precision},{scale}){}", declared::signs(unsigned()?, false))
        }
        T::Float => format!("float{}", declared::signs(unsigned()?, false)),
        T::Double => format!("double{}", declared::signs(unsigned()?, false)),
        T::Bit => format!("bit({})", logged.meta),
        T::Year => declared::year(version).to_owned(),
        T::Date | T::NewDate => "date".to_owned(),
        T::Time2 => declared::temporal("time", logged.meta.into()),
        T::DateTime2 => declared::temporal("datetime", logged.meta.into()),
        T::Timestamp2 => declared::temporal("timestamp", logged.meta.into()),
        // Here MariaDB hides types of its own.
        T::String if mariadb && matches!(logged.meta, 4 | 16) => {
            return Err(unclear("the log does not tell whether it is of type BINARY, UUID, INET4 or INET6"));
        }
        T::VarChar if mariadb && version.is_at_least(11, 7, 0) && charset()? == Charset::BINARY => {
            return Err(unclear("the log does not tell whether it is of type VARBINARY or VECTOR"));
        }
        T::String => sized(logged.meta, "char", "binary")?,
        T::VarChar | T::VarString => sized(logged.meta, "varchar", "varbinary")?,
        T::VarCharCompressed => sized(logged.meta.saturating_sub(1), "varchar", "varbinary")? + compressed,
        T::Blob | T::TinyBlob | T::MediumBlob | T::LongBlob | T::BlobCompressed => {
            let charset = charset()?;
            let family = if charset == Charset::BINARY { declared::BLOBS } else { declared::TEXTS };
            of_text = Some(charset).filter(|charset| *charset != Charset::BINARY);
            let family = usize::from(logged.meta).checked_sub(1).and_then(|at| family.get(at));
            let family = family.ok_or_else(|| unclear("the log does not tell its size"))?;
            format!("{family}{}", if logged.ty == T::BlobCompressed { compressed } else { "" })
        }
        T::Enum | T::Set => {
            let charset = charset()?;
            of_text = Some(charset);
            let logged_labels = beside.labels.as_deref().unwrap_or_default();
            let labels: Option<Vec<String>> = logged_labels.iter().map(|l| label_text(l, charset)).collect();
            let labels = labels.filter(|labels| !labels.is_empty());
            let labels = labels.ok_or_else(|| unclear("the log does not tell its labels"))?;
            declared::labelled(if logged.ty == T::Enum { "enum" } else { "set" }, &labels)
        }
        T::Json => "json".to_owned(),
        T::Geometry => {
            let kind = beside.geometry.and_then(|number| declared::geometry(number, version));
            kind.ok_or_else(|| unclear("the log does not tell which geometry it is"))?.to_owned()
        }
        T::Vector => {
            let dimensions =
                beside.dimensions.ok_or_else(|| unclear("the log does not tell its dimensions"))?;
            format!("vector({dimensions})")
        }
        // Their fraction is not told.
        T::Time | T::DateTime | T::Timestamp | T::Decimal | T::Null | T::TypedArray => {
            return Err(unclear("it has a type or a format that the log tells too little of"));
        }
    };
    Ok(ShapeColumn {
        name: name.to_owned(),
        column_type,
        charset: of_text.map(|charset| charset.name().to_owned()),
        nullable: logged.nullable,
        json: false,
        hidden: mariadb && logged.ty == T::LongLong && name.starts_with("DB_ROW_HASH_"),
    })
}
