//! The shape that a table has after a statement, worked out from the statement's text.
//!
//! That is needed while the log lies behind the present: the server would tell how a table looks now. The rule is: say it only
//! without any doubt. A word that is not expected, a type whose printed form depends on what is not known here, a key whose name
//! would matter: [`Applied::Unknown`], and the caller asks the server and the log.
//!
//! Statement and type are read here, because both depend on the servers more than on the language; what follows a type (defaults,
//! generated columns, checks, references: expressions of any form) is read by `sqlparser`, and counts as understood only if
//! nothing is left over.
//!
//! Source: MySQL Reference Manual, "CREATE TABLE Statement", "ALTER TABLE Statement", "Data Types"; the same pages of MariaDB.

mod alter;
mod apply;
mod column;
mod create;
mod keys;
#[cfg(test)]
mod tests;
mod types;

use super::lexer::{self, Spanned, Token};
use super::reader::Reader;
use super::shape::{Shape, ShapeColumn};
use super::statement::Context;
use crate::mysql::charset::Charset;
use crate::mysql::flavour::{Flavour, Version};

/// What became of a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    Known(Shape),
    /// Not certain enough.
    Unknown,
}

/// What statements leave to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Defaults {
    pub(crate) version: Version,
    /// The character set that `utf8` stands for: `utf8mb3`, on MariaDB by `old_mode` also `utf8mb4`.
    pub(crate) utf8: &'static str,
    /// `explicit_defaults_for_timestamp`: a TIMESTAMP column is nullable unless it says otherwise.
    pub(crate) explicit_timestamps: bool,
}

/// `sql_mode`: REAL is FLOAT.
const REAL_AS_FLOAT: u64 = 1;

/// Everything that the meaning of a definition depends on besides its text.
#[derive(Clone, Copy, Debug)]
struct Scope {
    version: Version,
    mariadb: bool,
    utf8: &'static str,
    explicit_timestamps: bool,
    real_as_float: bool,
}

impl Scope {
    fn new(context: &Context<'_>, defaults: &Defaults) -> Scope {
        Scope {
            version: defaults.version,
            mariadb: defaults.version.flavour == Flavour::MariaDb,
            utf8: defaults.utf8,
            explicit_timestamps: defaults.explicit_timestamps,
            real_as_float: context.sql_mode & REAL_AS_FLOAT != 0,
        }
    }

    /// The character set of this name, under its present name.
    fn charset(&self, name: &str) -> Option<&'static str> {
        let name = name.to_ascii_lowercase();
        let name = if name == "utf8" { self.utf8 } else { &name };
        Charset::by_name(name).map(Charset::name)
    }

    /// The character set of this collation.
    fn charset_of_collation(&self, collation: &str) -> Option<&'static str> {
        let prefix = collation.split('_').next().unwrap_or(collation);
        self.charset(prefix)
    }
}

/// The shape of a table made by this `CREATE TABLE`. `charset` is the database's, for tables that name none.
pub(crate) fn create(
    sql: &[u8],
    context: &Context<'_>,
    defaults: &Defaults,
    charset: Option<&str>,
) -> Applied {
    if context.is_foreign() {
        return Applied::Unknown;
    }
    let mut reader = Reader::new(sql, context.dialect());
    let shape = create::create(&mut reader, &Scope::new(context, defaults), charset);
    applied(shape, &reader)
}

/// Whether this `ALTER TABLE`, `CREATE INDEX` or `DROP INDEX` certainly leaves a table's columns as they were; `shape` is one that
/// the table has then or later.
pub(crate) fn leaves_columns(shape: &Shape, sql: &[u8], context: &Context<'_>, defaults: &Defaults) -> bool {
    let mut reader = Reader::new(sql, context.dialect());
    !context.is_foreign()
        && alter::leaves_columns(shape, &mut reader, &Scope::new(context, defaults)) == Some(true)
}

/// The shape of a table after this `ALTER TABLE`, `CREATE INDEX` or `DROP INDEX`; a new name is not part of it. `charset` is
/// the database's.
pub(crate) fn alter(
    shape: &Shape,
    sql: &[u8],
    context: &Context<'_>,
    defaults: &Defaults,
    charset: Option<&str>,
) -> Applied {
    if context.is_foreign() || shape.versioned {
        return Applied::Unknown;
    }
    let mut reader = Reader::new(sql, context.dialect());
    let shape = alter::alter(shape, &mut reader, &Scope::new(context, defaults), charset);
    applied(shape, &reader)
}

fn applied(shape: Option<Shape>, reader: &Reader<'_>) -> Applied {
    match shape {
        // The log cannot count more columns, and no server has as many.
        Some(shape) if !reader.is_broken() && (1..=4096).contains(&shape.columns.len()) => {
            Applied::Known(shape)
        }
        _ => Applied::Unknown,
    }
}

/// Goes to the verb, behind `SET STATEMENT … FOR`.
fn to_verb(reader: &mut Reader<'_>) -> Option<()> {
    if reader.accept("SET") {
        reader.expect("STATEMENT")?;
        reader.skip_to_for()?;
    }
    Some(())
}

/// Takes tokens up to a comma or a bracket that closes more than was opened; gives whether one of them is `word`.
fn skip_part(reader: &mut Reader<'_>, word: &str) -> Option<bool> {
    let mut found = false;
    while let Some(token) = reader.peek() {
        match token {
            Token::Sign(b',' | b')' | b';') => break,
            Token::Sign(b'(') => {
                reader.take();
                reader.skip_to_closing()?;
            }
            _ => {
                found |= reader.is_word(word);
                reader.take();
            }
        }
    }
    Some(found)
}

/// Reads the name of a character set or a collation behind an equals sign or none; `None` for `DEFAULT`.
fn charset_name(reader: &mut Reader<'_>) -> Option<Option<String>> {
    reader.accept_sign(b'=');
    if reader.accept("DEFAULT") {
        return Some(None);
    }
    let name = match reader.peek()? {
        Token::Text(..) => String::from_utf8(reader.text()?).ok()?,
        _ => reader.name()?,
    };
    Some(Some(name))
}

/// `CHARACTER SET`, `CHARSET`, `CHAR SET`.
fn accept_charset(reader: &mut Reader<'_>) -> Option<bool> {
    if reader.accept("CHARSET") {
        return Some(true);
    }
    if !reader.accept("CHARACTER") && !reader.accept("CHAR") {
        return Some(false);
    }
    reader.expect("SET")?;
    Some(true)
}

/// Tokens as text that means the same under any `sql_mode`.
fn render(tokens: &[Spanned<'_>], reader: &Reader<'_>) -> Option<String> {
    let mut text = String::new();
    let mut before: Option<&Spanned<'_>> = None;
    for spanned in tokens {
        let both_texts = before.is_some_and(|b| matches!(b.token, Token::Text(..)));
        if before.is_some_and(|b| b.end != spanned.start) || both_texts {
            text.push(' ');
        }
        match spanned.token {
            Token::Word(bytes) | Token::Number(bytes) => text.push_str(std::str::from_utf8(bytes).ok()?),
            token @ Token::Name(..) => {
                text.push('`');
                text.push_str(&lexer::name(token)?.replace('`', "``"));
                text.push('`');
            }
            Token::Text(raw, quote) => {
                let value = String::from_utf8(lexer::text(raw, quote, reader.dialect())).ok()?;
                text.push('\'');
                text.push_str(&value.replace('\\', "\\\\").replace('\'', "''"));
                text.push('\'');
            }
            Token::Sign(sign) => text.push(char::from(sign).is_ascii_graphic().then_some(char::from(sign))?),
        }
        before = Some(spanned);
    }
    Some(text)
}

/// Where a column of this name stands.
fn position(columns: &[ShapeColumn], name: &str) -> Option<usize> {
    let folded = name.to_lowercase();
    columns.iter().position(|column| column.name.to_lowercase() == folded)
}
