//! `CREATE TABLE`.

use super::super::lexer::Token;
use super::super::reader::Reader;
use super::super::shape::Shape;
use super::column::Definition;
use super::keys::Key;
use super::{Scope, accept_charset, charset_name, skip_part, to_verb};

pub(super) fn create(reader: &mut Reader<'_>, scope: &Scope, database: Option<&str>) -> Option<Shape> {
    to_verb(reader)?;
    reader.expect("CREATE")?;
    if reader.accept("OR") {
        reader.expect("REPLACE")?;
    }
    reader.expect("TABLE")?;
    reader.if_exists()?;
    reader.qualified()?;
    reader.expect_sign(b'(')?;
    let mut table = Table::default();
    loop {
        table.element(reader, scope)?;
        if !reader.accept_sign(b',') {
            break;
        }
    }
    reader.expect_sign(b')')?;
    let charset = match options(reader, scope)? {
        Some(charset) => Some(charset),
        None => database.and_then(|name| scope.charset(name)),
    };
    table.finish(charset, scope)
}

#[derive(Default)]
struct Table {
    columns: Vec<Definition>,
    primary: Option<Key>,
    /// In the order of the text, in which the server looks for one that can stand for a primary key.
    uniques: Vec<Key>,
}

impl Table {
    fn element(&mut self, reader: &mut Reader<'_>, scope: &Scope) -> Option<()> {
        if reader.accept("CONSTRAINT") && !reader.is_one_of(&["PRIMARY", "UNIQUE", "FOREIGN", "CHECK"]) {
            reader.name()?;
        }
        if reader.accept("PRIMARY") {
            reader.expect("KEY")?;
            let key = Key::read(reader)?;
            return self.primary.replace(key).is_none().then_some(());
        }
        if reader.accept("UNIQUE") {
            self.uniques.push(Key::read(reader)?);
            return Some(());
        }
        if reader.is_one_of(&["INDEX", "KEY", "FULLTEXT", "SPATIAL", "FOREIGN"]) || is_vector_index(reader) {
            return skip_part(reader, "").map(drop);
        }
        if reader.is_word("CHECK") {
            // Its bracket is skipped with all that is in it, so what it says of JSON would be missed.
            return if scope.mariadb { check(reader) } else { skip_part(reader, "").map(drop) };
        }
        if is_period(reader) {
            return None;
        }
        let column = Definition::read(reader, scope)?;
        if column.primary && self.primary.replace(Key::of_column(&column.name)).is_some() {
            return None;
        }
        if column.unique {
            self.uniques.push(Key::of_column(&column.name));
        }
        self.columns.push(column);
        Some(())
    }

    fn finish(self, charset: Option<&'static str>, scope: &Scope) -> Option<Shape> {
        let columns: Option<Vec<_>> =
            self.columns.iter().map(|column| column.column(charset, scope)).collect();
        let mut shape = Shape { columns: columns?, charset: charset.map(String::from), ..Shape::default() };
        if self.uniques.iter().any(|key| key.may_hash(&shape.columns, scope)) {
            return None;
        }
        if let Some(key) = self.primary {
            shape.primary_key = key.positions(&shape.columns)?;
            for at in &shape.primary_key {
                shape.columns[usize::from(*at)].nullable = false;
            }
            return Some(shape);
        }
        for key in self.uniques.iter().filter(|key| key.whole) {
            let positions = key.positions(&shape.columns)?;
            if positions.iter().all(|at| !shape.columns[usize::from(*at)].nullable) {
                shape.unique_key = positions;
                break;
            }
        }
        Some(shape)
    }
}

/// `VECTOR INDEX`, `VECTOR KEY` (MariaDB); a column may have that name too.
fn is_vector_index(reader: &Reader<'_>) -> bool {
    let mut ahead = reader.clone();
    ahead.accept("VECTOR") && ahead.is_one_of(&["INDEX", "KEY"])
}

/// `PERIOD FOR …` (MariaDB), whose columns become NOT NULL.
pub(super) fn is_period(reader: &Reader<'_>) -> bool {
    let mut ahead = reader.clone();
    ahead.accept("PERIOD") && ahead.is_word("FOR")
}

/// Reads over a table's `CHECK` on MariaDB, unless it says something of JSON.
pub(super) fn check(reader: &mut Reader<'_>) -> Option<()> {
    let mut depth = 0usize;
    loop {
        match reader.peek() {
            None | Some(Token::Sign(b',' | b';')) if depth == 0 => return Some(()),
            Some(Token::Sign(b')')) if depth == 0 => return Some(()),
            Some(Token::Sign(b'(')) => depth += 1,
            Some(Token::Sign(b')')) => depth -= 1,
            _ if reader.is_word("JSON_VALID") => return None,
            _ => {}
        }
        reader.take()?;
    }
}

/// Reads the table's options; gives its character set if they name one.
fn options(reader: &mut Reader<'_>, scope: &Scope) -> Option<Option<&'static str>> {
    let mut charset = None;
    while !reader.at_end() {
        // Partitions come last, and whatever they are, the columns are the same; but a query may follow them.
        if reader.is_one_of(&["SELECT", "WITH", "AS", "TABLE", "VALUES", "IGNORE", "REPLACE"]) {
            return None;
        }
        if reader.is_one_of(&["CHARACTER", "CHARSET"]) {
            accept_charset(reader)?;
            charset = match charset_name(reader)? {
                Some(name) => Some(scope.charset(&name)?),
                None => None,
            };
        } else if reader.accept("COLLATE") {
            if let Some(name) = charset_name(reader)? {
                // Later than a character set, it must belong to it; alone, it tells it.
                charset = Some(scope.charset_of_collation(&name)?);
            }
        } else if reader.accept_sign(b'(') {
            if reader.is_one_of(&["SELECT", "WITH"]) || reader.is_sign(b'(') {
                return None;
            }
            reader.skip_to_closing()?;
        } else {
            reader.take()?;
        }
    }
    Some(charset)
}
