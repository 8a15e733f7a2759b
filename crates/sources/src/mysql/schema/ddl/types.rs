//! A column's type, as it is written and as a server prints it.

use super::super::declared;
use super::super::lexer::Token;
use super::super::reader::Reader;
use super::Scope;
use crate::mysql::charset::Charset;

/// A type as it is written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    form: Form,
    /// The character set that it names.
    charset: Option<&'static str>,
    compressed: bool,
    /// `SERIAL`: BIGINT UNSIGNED NOT NULL AUTO_INCREMENT UNIQUE.
    pub(super) serial: bool,
    /// Whether it takes NULL without a word may depend on the server.
    pub(super) timestamp: bool,
}

#[derive(Clone, Debug)]
enum Form {
    /// Printed like this whatever else is said.
    Fixed(String),
    /// Characters.
    Char(u32),
    VarChar(u32),
    /// Bytes of a length.
    Text(u8),
    /// Characters that must fit.
    TextOf(u64),
    Labels(&'static str, Vec<String>),
    /// MariaDB's.
    Json,
}

/// A type as a server prints it.
pub(super) struct Printed {
    pub(super) column_type: String,
    pub(super) charset: Option<&'static str>,
    pub(super) json: bool,
}

/// Reads a type with its sign, character set and compression.
pub(super) fn read(reader: &mut Reader<'_>, scope: &Scope) -> Option<Written> {
    let word = reader.keyword()?;
    let lower = word.to_ascii_lowercase();
    let mut charset = None;
    let form = match word.as_str() {
        "TINYINT" | "INT1" => integer("tinyint", reader, scope)?,
        "SMALLINT" | "INT2" => integer("smallint", reader, scope)?,
        "MEDIUMINT" | "INT3" | "MIDDLEINT" => integer("mediumint", reader, scope)?,
        "INT" | "INTEGER" | "INT4" => integer("int", reader, scope)?,
        "BIGINT" | "INT8" => integer("bigint", reader, scope)?,
        "BOOL" | "BOOLEAN" => Form::Fixed("tinyint(1)".into()),
        "SERIAL" => Form::Fixed(declared::integer("bigint", None, true, false, &scope.version)),
        "DECIMAL" | "DEC" | "NUMERIC" | "FIXED" => decimal(reader)?,
        "REAL" if scope.real_as_float => return None,
        "FLOAT" | "FLOAT4" | "DOUBLE" | "FLOAT8" | "REAL" => float(&word, reader)?,
        "BIT" => match length(reader)? {
            None | Some(0) => Form::Fixed("bit(1)".into()),
            Some(n @ 1..=64) => Form::Fixed(format!("bit({n})")),
            Some(_) => return None,
        },
        "YEAR" => year(reader, scope)?,
        "DATE" => Form::Fixed(lower),
        "TIME" | "DATETIME" | "TIMESTAMP" => {
            let fraction = length(reader)?.unwrap_or(0);
            if fraction > 6 {
                return None;
            }
            Form::Fixed(declared::temporal(&lower, fraction))
        }
        "CHAR" | "CHARACTER" | "VARCHAR" | "VARCHARACTER" => characters(&word, reader)?,
        "NCHAR" | "NVARCHAR" | "NATIONAL" => {
            charset = Some("utf8mb3");
            national(&word, reader)?
        }
        "BINARY" => match length(reader)?.unwrap_or(1) {
            bytes @ 0..=255 => Form::Fixed(format!("binary({bytes})")),
            _ => return None,
        },
        "VARBINARY" => {
            let bytes = length(reader)??;
            if bytes > 65_535 {
                return None;
            }
            Form::Fixed(format!("varbinary({bytes})"))
        }
        "TINYTEXT" => Form::Text(1),
        "TEXT" => match length(reader)? {
            None => Form::Text(2),
            Some(n) => Form::TextOf(n),
        },
        "MEDIUMTEXT" => Form::Text(3),
        "LONGTEXT" => Form::Text(4),
        "LONG" if reader.accept("VARBINARY") => Form::Fixed("mediumblob".into()),
        "LONG" => {
            let _ = reader.accept("VARCHAR") || reader.accept("VARCHARACTER");
            Form::Text(3)
        }
        "TINYBLOB" | "MEDIUMBLOB" | "LONGBLOB" => Form::Fixed(lower),
        "BLOB" => match length(reader)? {
            None => Form::Fixed(lower),
            Some(n) => Form::Fixed(declared::BLOBS[family(n)?].into()),
        },
        "ENUM" => Form::Labels("enum", labels(reader)?),
        "SET" => Form::Labels("set", labels(reader)?),
        "JSON" if scope.mariadb => Form::Json,
        "JSON" => Form::Fixed(lower),
        "VECTOR" => match length(reader)? {
            None if !scope.mariadb => Form::Fixed("vector(2048)".into()),
            n => Form::Fixed(format!("vector({})", n?)),
        },
        "UUID" | "INET4" | "INET6" | "XMLTYPE" if scope.mariadb => Form::Fixed(lower),
        "GEOMCOLLECTION" => Form::Fixed(declared::geometry(7, &scope.version)?.into()),
        _ => {
            let number = declared::GEOMETRIES.iter().position(|name| *name == lower)?;
            Form::Fixed(declared::geometry(number as u8, &scope.version)?.into())
        }
    };
    let (serial, timestamp) = (word == "SERIAL", word == "TIMESTAMP");
    let mut written = Written { form, charset, compressed: false, serial, timestamp };
    written.modifiers(reader, scope)?;
    Some(written)
}

impl Written {
    /// Character set and compression, in any order.
    fn modifiers(&mut self, reader: &mut Reader<'_>, scope: &Scope) -> Option<()> {
        let is_text = !matches!(self.form, Form::Fixed(_) | Form::Json);
        loop {
            if scope.mariadb && reader.accept("COMPRESSED") {
                if reader.is_sign(b'=') {
                    return None;
                }
                self.compressed = true;
            } else if !is_text {
                return Some(());
            } else if reader.is_one_of(&["CHARACTER", "CHARSET", "CHAR"]) {
                super::accept_charset(reader)?;
                self.charset = Some(scope.charset(&super::charset_name(reader)??)?);
            } else if reader.accept("ASCII") {
                self.charset = Some("latin1");
            } else if reader.accept("UNICODE") {
                self.charset = Some("ucs2");
            } else if reader.accept("BYTE") {
                self.charset = Some("binary");
            } else if !reader.accept("BINARY") {
                // BINARY is a collation of the character set.
                return Some(());
            }
        }
    }

    /// How it is printed, in a table with this default. `collated` is the character set of a COLLATE that it has.
    pub(super) fn print(
        &self,
        collated: Option<&'static str>,
        default: Option<&str>,
        scope: &Scope,
    ) -> Option<Printed> {
        let suffix = if self.compressed { " /*M!100301 COMPRESSED*/" } else { "" };
        if self.charset.is_some() && collated.is_some() && self.charset != collated {
            return None;
        }
        let bytes = |column_type: String| {
            Some(Printed { column_type: column_type + suffix, charset: None, json: false })
        };
        let charset = match &self.form {
            Form::Fixed(text) => return bytes(text.clone()),
            Form::Json if collated.is_some() => return None,
            Form::Json => {
                let column_type = format!("longtext{suffix}");
                return Some(Printed { column_type, charset: Some("utf8mb4"), json: true });
            }
            _ => self.charset.or(collated).or(default.and_then(|name| scope.charset(name)))?,
        };
        let binary = charset == "binary";
        let width = u64::from(Charset::by_name(charset)?.mbmaxlen());
        let column_type = match &self.form {
            Form::Char(n) if *n > 255 => return None,
            Form::Char(n) if binary => return bytes(format!("binary({n})")),
            Form::Char(n) => format!("char({n})"),
            Form::VarChar(n) if u64::from(*n) * width > 65_535 => return None,
            Form::VarChar(n) if binary => return bytes(format!("varbinary({n})")),
            Form::VarChar(n) => format!("varchar({n})"),
            Form::Text(size) if binary => return bytes(declared::BLOBS[usize::from(*size) - 1].into()),
            Form::Text(size) => declared::TEXTS[usize::from(*size) - 1].into(),
            Form::TextOf(n) if binary => return bytes(declared::BLOBS[family(*n)?].into()),
            Form::TextOf(n) => declared::TEXTS[family(n.checked_mul(width)?)?].into(),
            // Their labels are bytes.
            Form::Labels(..) if binary => return None,
            Form::Labels(name, labels) => declared::labelled(name, labels),
            Form::Fixed(_) | Form::Json => return None,
        };
        Some(Printed { column_type: column_type + suffix, charset: Some(charset), json: false })
    }
}

/// Which of the TEXT and BLOB types holds this many bytes.
fn family(bytes: u64) -> Option<usize> {
    match bytes {
        0 => None,
        1..=0xff => Some(0),
        0x100..=0xffff => Some(1),
        0x1_0000..=0xff_ffff => Some(2),
        0x100_0000..=0xffff_ffff => Some(3),
        _ => None,
    }
}

/// Numbers in brackets, if there are any.
fn numbers(reader: &mut Reader<'_>) -> Option<Vec<u64>> {
    let mut numbers = Vec::new();
    if reader.accept_sign(b'(') {
        loop {
            numbers.push(reader.number()?);
            if !reader.accept_sign(b',') {
                break;
            }
        }
        reader.expect_sign(b')')?;
    }
    Some(numbers)
}

/// One number in brackets, or none.
fn length(reader: &mut Reader<'_>) -> Option<Option<u64>> {
    match numbers(reader)?.as_slice() {
        [] => Some(None),
        [n] => Some(Some(*n)),
        _ => None,
    }
}

/// Whether a number is unsigned and filled with zeros, which makes it unsigned too.
fn signs(reader: &mut Reader<'_>) -> (bool, bool) {
    let (mut unsigned, mut zerofill) = (false, false);
    loop {
        if reader.accept("UNSIGNED") {
            unsigned = true;
        } else if reader.accept("ZEROFILL") {
            zerofill = true;
        } else if !reader.accept("SIGNED") {
            return (unsigned || zerofill, zerofill);
        }
    }
}

fn integer(name: &str, reader: &mut Reader<'_>, scope: &Scope) -> Option<Form> {
    let width = length(reader)?;
    if width > Some(255) {
        return None;
    }
    let (unsigned, zerofill) = signs(reader);
    Some(Form::Fixed(declared::integer(name, width, unsigned, zerofill, &scope.version)))
}

fn decimal(reader: &mut Reader<'_>) -> Option<Form> {
    let (precision, scale) = match numbers(reader)?.as_slice() {
        [] | [0] | [0, 0] => (10, 0),
        [precision @ 1..=65] => (*precision, 0),
        [precision @ 1..=65, scale @ 0..=38] if scale <= precision => (*precision, *scale),
        _ => return None,
    };
    let (unsigned, zerofill) = signs(reader);
    Some(Form::Fixed(format!("decimal({precision},{scale}){}", declared::signs(unsigned, zerofill))))
}

fn float(word: &str, reader: &mut Reader<'_>) -> Option<Form> {
    let mut name = if word.starts_with("FLOAT") && word != "FLOAT8" { "float" } else { "double" };
    if word == "DOUBLE" {
        reader.accept("PRECISION");
    }
    let digits = match numbers(reader)?.as_slice() {
        [] => String::new(),
        // A number of bits.
        [0..=24] if word == "FLOAT" => String::new(),
        [25..=53] if word == "FLOAT" => {
            name = "double";
            String::new()
        }
        [precision @ 1..=255, scale @ 0..=30] if scale <= precision => format!("({precision},{scale})"),
        _ => return None,
    };
    let (unsigned, zerofill) = signs(reader);
    Some(Form::Fixed(format!("{name}{digits}{}", declared::signs(unsigned, zerofill))))
}

fn year(reader: &mut Reader<'_>, scope: &Scope) -> Option<Form> {
    let text = match length(reader)? {
        Some(2) if scope.mariadb => "year(2)",
        None | Some(4) => declared::year(&scope.version),
        Some(_) => return None,
    };
    // Neither changes it.
    reader.skip_words(&["UNSIGNED", "ZEROFILL"]);
    Some(Form::Fixed(text.into()))
}

/// `CHAR`, `VARCHAR` and their other names.
fn characters(word: &str, reader: &mut Reader<'_>) -> Option<Form> {
    let varying = word.starts_with("VARCHAR") || reader.accept("VARYING");
    let length = length(reader)?;
    if varying {
        return Some(Form::VarChar(u32::try_from(length?).ok()?));
    }
    Some(Form::Char(u32::try_from(length.unwrap_or(1)).ok()?))
}

fn national(word: &str, reader: &mut Reader<'_>) -> Option<Form> {
    match word {
        "NVARCHAR" => characters("VARCHAR", reader),
        "NCHAR" if reader.accept("VARCHAR") || reader.accept("VARCHARACTER") => characters("VARCHAR", reader),
        "NCHAR" => characters("CHAR", reader),
        _ => {
            let word = reader.keyword()?;
            let known = matches!(word.as_str(), "CHAR" | "CHARACTER" | "VARCHAR" | "VARCHARACTER");
            known.then(|| characters(&word, reader))?
        }
    }
}

fn labels(reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let mut labels = Vec::new();
    reader.expect_sign(b'(')?;
    loop {
        let Some(Token::Text(..)) = reader.peek() else { return None };
        let label = String::from_utf8(reader.text()?).ok()?;
        labels.push(label.trim_end_matches(' ').to_owned());
        if !reader.accept_sign(b',') {
            break;
        }
    }
    reader.expect_sign(b')')?;
    Some(labels)
}
