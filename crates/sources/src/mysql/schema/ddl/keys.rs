//! Keys in definitions.

use super::super::declared::{Declared, Kind};
use super::super::reader::Reader;
use super::super::shape::ShapeColumn;
use super::{Scope, position, skip_part};
use crate::mysql::charset::Charset;

/// A primary key or a unique index.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// Names of its columns, in order.
    pub(super) columns: Vec<String>,
    /// Whole columns only: no prefix, no expression, no period.
    pub(super) whole: bool,
    /// It asks for a hash.
    hash: bool,
}

impl Key {
    /// A key over one column, given with it.
    pub(super) fn of_column(name: &str) -> Key {
        Key { columns: vec![name.to_owned()], whole: true, hash: false }
    }

    /// Reads on behind `PRIMARY KEY`, `UNIQUE` or the name of an index: `[name] [USING …] (columns) options`.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Key> {
        let mut key = Key { columns: Vec::new(), whole: true, hash: false };
        while !reader.accept_sign(b'(') {
            key.hash |= reader.is_word("HASH");
            reader.take()?;
        }
        loop {
            if reader.accept_sign(b'(') {
                reader.skip_to_closing()?;
                key.whole = false;
            } else {
                key.columns.push(reader.name()?);
            }
            if reader.accept_sign(b'(') {
                reader.skip_to_closing()?;
                key.whole = false;
            }
            reader.skip_words(&["ASC", "DESC"]);
            if reader.accept("WITHOUT") {
                reader.expect("OVERLAPS")?;
                key.whole = false;
            }
            if !reader.accept_sign(b',') {
                break;
            }
        }
        reader.expect_sign(b')')?;
        key.hash |= skip_part(reader, "HASH")?;
        Some(key)
    }

    /// Where its columns stand.
    pub(super) fn positions(&self, columns: &[ShapeColumn]) -> Option<Vec<u16>> {
        let found = self.columns.iter().map(|name| u16::try_from(position(columns, name)?).ok());
        found.collect()
    }

    /// Whether MariaDB may keep a hidden column for this unique index: it does for values too long for an index. How long that
    /// is depends on engine and row format; this is the least.
    pub(super) fn may_hash(&self, columns: &[ShapeColumn], scope: &Scope) -> bool {
        const SHORTEST_LIMIT: u32 = 767;
        if !scope.mariadb {
            return false;
        }
        let bytes = |name: &String| {
            let column = columns.get(position(columns, name)?)?;
            let width =
                column.charset.as_deref().and_then(Charset::by_name).map_or(1, |c| u32::from(c.mbmaxlen()));
            match Declared::parse(&column.column_type)?.kind {
                Kind::Char(n) | Kind::VarChar(n) => n.checked_mul(width),
                Kind::Binary(n) | Kind::VarBinary(n) => Some(n),
                Kind::Text(_) | Kind::Blob(_) | Kind::Xml | Kind::Geometry(_) | Kind::Vector(_) => None,
                Kind::Decimal { .. } => Some(30),
                _ => Some(16),
            }
        };
        let sum = self.columns.iter().try_fold(0u32, |sum, name| sum.checked_add(bytes(name)?));
        self.hash || !self.whole || sum.is_none_or(|sum| sum > SHORTEST_LIMIT)
    }
}
