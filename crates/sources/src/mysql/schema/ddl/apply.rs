//! What an `ALTER TABLE` that has been read makes of a shape.

use super::super::declared::{Declared, Kind, TEXTS};
use super::super::shape::{Shape, ShapeColumn};
use super::Scope;
use super::alter::{Place, Plan};
use super::column::Definition;
use crate::mysql::charset::Charset;

impl Plan {
    pub(super) fn apply(self, shape: &Shape, scope: &Scope, database: Option<&str>) -> Option<Shape> {
        let database = || database.and_then(|name| scope.charset(name));
        let mut out = Shape { charset: shape.charset.clone(), ..Shape::default() };
        if let Some(charset) = self.default {
            out.charset = Some(charset.or_else(database)?.to_owned());
        }
        if let Some(charset) = self.converted {
            out.charset = Some(charset.or_else(database)?.to_owned());
        }
        // Columns with the place that they had.
        let mut columns: Vec<(Option<usize>, ShapeColumn)> = Vec::new();
        let define = |definition: &Definition| {
            let column = definition.column(out.charset.as_deref(), scope)?;
            // Whether it is converted too is not told anywhere.
            (self.converted.is_none() || column.charset.is_none()).then_some(column)
        };
        let moved: Vec<usize> = self.placed.iter().filter_map(|placed| placed.old).collect();
        for (at, column) in shape.columns.iter().enumerate() {
            if self.dropped.contains(&at) || moved.contains(&at) {
                if self.dropped.contains(&at) && shape.key().contains(&(at as u16)) {
                    // It goes from the keys, too, and another one may take their place.
                    return None;
                }
                continue;
            }
            let mut column = column.clone();
            if let Some((_, definition)) = self.changed.iter().find(|(old, _)| *old == at) {
                column = define(definition)?;
            } else if self.converted.is_some() {
                column = converted(column, out.charset.as_deref()?)?;
            }
            if let Some((_, name)) = self.renamed.iter().find(|(old, _)| *old == at) {
                column.name.clone_from(name);
            }
            columns.push((Some(at), column));
        }
        for placed in &self.placed {
            let column = define(&placed.definition)?;
            let at = match &placed.place {
                Some(Place::First) => 0,
                Some(Place::After(name)) => {
                    let folded = name.to_lowercase();
                    columns.iter().position(|(_, c)| c.name.to_lowercase() == folded)? + 1
                }
                // Before what MariaDB keeps for itself.
                None => columns.iter().position(|(_, c)| c.hidden).unwrap_or(columns.len()),
            };
            columns.insert(at, (placed.old, column));
        }
        self.keys(shape, &columns, &mut out, scope)?;
        Some(out)
    }

    /// The keys, over the new columns, which are moved into the shape.
    fn keys(
        &self,
        old: &Shape,
        columns: &[(Option<usize>, ShapeColumn)],
        out: &mut Shape,
        scope: &Scope,
    ) -> Option<()> {
        out.columns = columns.iter().map(|(_, column)| column.clone()).collect();
        let mut names: Vec<String> = out.columns.iter().map(|column| column.name.to_lowercase()).collect();
        names.sort_unstable();
        if names.windows(2).any(|two| two[0] == two[1]) {
            return None;
        }
        // A hidden column belongs to a unique index over columns that are not known here.
        let hidden = old.columns.iter().any(|column| column.hidden);
        if hidden
            && !(self.dropped.is_empty()
                && self.changed.is_empty()
                && self.placed.iter().all(|p| p.old.is_none()))
        {
            return None;
        }
        if self.uniques.iter().any(|key| key.may_hash(&out.columns, scope)) {
            return None;
        }
        let moved = |key: &[u16]| -> Option<Vec<u16>> {
            let find = |was: &u16| columns.iter().position(|(at, _)| *at == Some(usize::from(*was)));
            key.iter().map(|was| u16::try_from(find(was)?).ok()).collect()
        };
        out.primary_key = match &self.primary {
            Some(key) if old.primary_key.is_empty() || self.drops_primary => key.positions(&out.columns)?,
            Some(_) => return None,
            None if self.drops_primary => Vec::new(),
            None => moved(&old.primary_key)?,
        };
        for at in &out.primary_key {
            out.columns[usize::from(*at)].nullable = false;
        }
        if !out.primary_key.is_empty() {
            // A long key in a new character set may have to be a hash; primary keys may not.
            return Some(());
        }
        // Which unique index stands for the key now depends on others that are not known here.
        let nullable_as_before = columns
            .iter()
            .all(|(was, column)| was.is_none_or(|at| old.columns[at].nullable == column.nullable));
        if self.drops_primary || !self.uniques.is_empty() || !self.dropped.is_empty() || !nullable_as_before {
            return None;
        }
        out.unique_key = moved(&old.unique_key)?;
        Some(())
    }
}

/// A column in another character set. A TEXT grows to the next size when a character may take more bytes than before.
fn converted(mut column: ShapeColumn, charset: &str) -> Option<ShapeColumn> {
    let Some(old) = column.charset.as_deref() else { return Some(column) };
    if column.json || old == "binary" || charset == "binary" {
        return None;
    }
    let (old, new) = (Charset::by_name(old)?, Charset::by_name(charset)?);
    let declared = Declared::parse(&column.column_type)?;
    if declared.compressed {
        return None;
    }
    match declared.kind {
        Kind::Text(size @ 1..=3) if new.mbmaxlen() > old.mbmaxlen() => {
            column.column_type = TEXTS[usize::from(size)].to_owned();
        }
        Kind::VarChar(n) if n * u32::from(new.mbmaxlen()) > 65_535 => return None,
        _ => {}
    }
    column.charset = Some(charset.to_owned());
    Some(column)
}
