//! `ALTER TABLE`, `CREATE INDEX`, `DROP INDEX`.
//!
//! An `ALTER TABLE` is not one change after the other. The servers first go through the old columns (dropped, changed in place,
//! or kept) and then place what is new or moved, in the order of the statement, by the columns' new names.

use super::super::lexer::Token;
use super::super::reader::Reader;
use super::super::shape::Shape;
use super::column::Definition;
use super::create::{check, is_period};
use super::keys::Key;
use super::{Scope, accept_charset, charset_name, position, skip_part, to_verb};

pub(super) fn alter(
    shape: &Shape,
    reader: &mut Reader<'_>,
    scope: &Scope,
    database: Option<&str>,
) -> Option<Shape> {
    to_verb(reader)?;
    let verb = reader.keyword()?;
    if verb != "ALTER" {
        return index(shape, &verb, reader, scope);
    }
    plan(shape, reader, scope)?.apply(shape, scope, database)
}

/// Whether a statement leaves the columns of the table as they were, in name, type and order. `shape` may be of a later time.
pub(super) fn leaves_columns(shape: &Shape, reader: &mut Reader<'_>, scope: &Scope) -> Option<bool> {
    to_verb(reader)?;
    if reader.keyword()? != "ALTER" {
        return Some(true);
    }
    let plan = plan(shape, reader, scope)?;
    Some(
        plan.dropped.is_empty()
            && plan.changed.is_empty()
            && plan.renamed.is_empty()
            && plan.placed.is_empty()
            && plan.converted.is_none(),
    )
}

/// Reads an `ALTER TABLE` behind its verb.
fn plan(shape: &Shape, reader: &mut Reader<'_>, scope: &Scope) -> Option<Plan> {
    reader.skip_words(&["ONLINE", "OFFLINE", "IGNORE"]);
    reader.expect("TABLE")?;
    reader.if_exists()?;
    reader.qualified()?;
    reader.wait()?;
    let mut plan = Plan::default();
    while !reader.at_end() {
        plan.action(shape, reader, scope)?;
        if reader.accept_sign(b',') {
            reader.peek()?;
            continue;
        }
        if reader.is_one_of(&["PARTITION", "REMOVE"]) {
            // Comes last, without a comma, and leaves the columns as they are.
            while reader.take().is_some() {}
        }
        if !reader.at_end() {
            return None;
        }
    }
    Some(plan)
}

/// `CREATE [UNIQUE] INDEX … ON`, `DROP INDEX … ON`.
fn index(shape: &Shape, verb: &str, reader: &mut Reader<'_>, scope: &Scope) -> Option<Shape> {
    let mut unique = false;
    while !reader.accept("INDEX") {
        unique |= reader.keyword()? == "UNIQUE";
    }
    reader.if_exists()?;
    let name = reader.name()?;
    while !reader.accept("ON") {
        reader.take()?;
    }
    reader.qualified()?;
    let kept = match verb {
        "CREATE" if unique => {
            !shape.primary_key.is_empty() && !Key::read(reader)?.may_hash(&shape.columns, scope)
        }
        "CREATE" => true,
        _ => drops_plain_index(shape, &name),
    };
    kept.then(|| shape.clone())
}

/// Whether the index of this name can be dropped without a word: it is not the one that rows are told apart by, and no hidden
/// column goes with it.
fn drops_plain_index(shape: &Shape, name: &str) -> bool {
    !name.eq_ignore_ascii_case("PRIMARY")
        && shape.unique_key.is_empty()
        && !shape.columns.iter().any(|column| column.hidden)
}

/// Where a column goes.
#[derive(Clone, Debug)]
pub(super) enum Place {
    First,
    After(String),
}

/// A column that is placed after the old ones have been gone through.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) definition: Definition,
    pub(super) place: Option<Place>,
    /// Which column it was.
    pub(super) old: Option<usize>,
}

/// What a statement says.
#[derive(Default, Debug)]
pub(super) struct Plan {
    pub(super) dropped: Vec<usize>,
    /// New definitions of old columns that stay where they are.
    pub(super) changed: Vec<(usize, Definition)>,
    pub(super) renamed: Vec<(usize, String)>,
    pub(super) placed: Vec<Placed>,
    pub(super) primary: Option<Key>,
    pub(super) drops_primary: bool,
    pub(super) uniques: Vec<Key>,
    /// The character set of columns to come. `Some(None)`: the database's.
    pub(super) default: Option<Option<&'static str>>,
    /// The character set that all text is converted to. `Some(None)`: the database's.
    pub(super) converted: Option<Option<&'static str>>,
}

/// First words of actions that leave columns and keys as they are.
const HARMLESS: &[&str] = &[
    "ALGORITHM",
    "ALTER",
    "ANALYZE",
    "AUTOEXTEND_SIZE",
    "AUTO_INCREMENT",
    "AVG_ROW_LENGTH",
    "CHECK",
    "CHECKSUM",
    "COALESCE",
    "COMMENT",
    "COMPRESSION",
    "CONNECTION",
    "DELAY_KEY_WRITE",
    "DISABLE",
    "DISCARD",
    "ENABLE",
    "ENCRYPTED",
    "ENCRYPTION",
    "ENCRYPTION_KEY_ID",
    "ENGINE",
    "EXCHANGE",
    "FORCE",
    "IMPORT",
    "INSERT_METHOD",
    "KEY_BLOCK_SIZE",
    "LOCK",
    "MAX_ROWS",
    "MIN_ROWS",
    "NOWAIT",
    "OPTIMIZE",
    "ORDER",
    "PACK_KEYS",
    "PAGE_CHECKSUM",
    "PAGE_COMPRESSED",
    "PAGE_COMPRESSION_LEVEL",
    "PARTITION",
    "REBUILD",
    "REMOVE",
    "REORGANIZE",
    "REPAIR",
    "ROW_FORMAT",
    "SECONDARY_ENGINE",
    "SECONDARY_LOAD",
    "SECONDARY_UNLOAD",
    "STATS_AUTO_RECALC",
    "STATS_PERSISTENT",
    "STATS_SAMPLE_PAGES",
    "TABLESPACE",
    "TRANSACTIONAL",
    "TRUNCATE",
    "UNION",
    "WAIT",
    "WITHOUT",
];

impl Plan {
    fn action(&mut self, shape: &Shape, reader: &mut Reader<'_>, scope: &Scope) -> Option<()> {
        if reader.is_one_of(&["CHARACTER", "CHARSET", "COLLATE", "DEFAULT"]) {
            return self.table_default(reader, scope);
        }
        let verb = reader.keyword()?;
        match verb.as_str() {
            "ADD" => self.add(shape, reader, scope),
            "DROP" => self.drop(shape, reader),
            "MODIFY" | "CHANGE" => {
                reader.accept("COLUMN");
                let if_exists = reader.if_exists()?;
                let old = if verb == "CHANGE" { Some(reader.name()?) } else { None };
                let definition = Definition::read(reader, scope)?;
                let place = place(reader)?;
                let old = position(&shape.columns, old.as_deref().unwrap_or(&definition.name));
                match old {
                    None if if_exists => Some(()),
                    None => None,
                    Some(old) => self.change(old, definition, place),
                }
            }
            "RENAME" => self.rename(shape, reader),
            "CONVERT" => {
                reader.expect("TO")?;
                accept_charset(reader)?.then_some(())?;
                let charset = match charset_name(reader)? {
                    Some(name) => Some(scope.charset(&name)?),
                    None => None,
                };
                if reader.accept("COLLATE") {
                    let collation = charset_name(reader)??;
                    // One that does not name its character set goes with any.
                    let named = scope.charset_of_collation(&collation);
                    if charset.is_none() || named.is_some() && named != charset {
                        return None;
                    }
                }
                self.converted.replace(charset).is_none().then_some(())
            }
            "ALTER" if reader.is_word("SYSTEM") => None,
            // `WITHOUT VALIDATION`, not `WITHOUT SYSTEM VERSIONING`; another engine may do without hidden columns.
            "WITHOUT" if !reader.is_word("VALIDATION") => None,
            "ENGINE" if shape.columns.iter().any(|column| column.hidden) => None,
            harmless if HARMLESS.contains(&harmless) => self.skip(reader, verb == "ORDER"),
            _ => None,
        }
    }

    /// Goes to the end of an action that does not matter. Columns of ORDER BY are parted by commas too.
    fn skip(&mut self, reader: &mut Reader<'_>, ordered: bool) -> Option<()> {
        if ordered {
            reader.expect("BY")?;
            loop {
                reader.name()?;
                reader.skip_words(&["ASC", "DESC"]);
                // The next action cannot begin with a name that is followed by one of these.
                let mut ahead = reader.clone();
                let goes_on = ahead.accept_sign(b',')
                    && ahead.name().is_some()
                    && (ahead.at_end() || ahead.is_sign(b',') || ahead.is_one_of(&["ASC", "DESC"]));
                if !goes_on {
                    return Some(());
                }
                reader.accept_sign(b',');
            }
        }
        while let Some(token) = reader.peek() {
            match token {
                Token::Sign(b',' | b';') => break,
                // A list of partitions' names goes on behind its commas, and nothing else follows it.
                Token::Word(_) if reader.is_one_of(&["PARTITION", "REORGANIZE"]) => {
                    while reader.take().is_some() {}
                }
                Token::Sign(b'(') => {
                    reader.take();
                    reader.skip_to_closing()?;
                }
                _ => drop(reader.take()),
            }
        }
        Some(())
    }

    fn table_default(&mut self, reader: &mut Reader<'_>, scope: &Scope) -> Option<()> {
        loop {
            reader.accept("DEFAULT");
            if reader.accept("COLLATE") {
                if let Some(name) = charset_name(reader)? {
                    self.default = Some(Some(scope.charset_of_collation(&name)?));
                }
            } else {
                accept_charset(reader)?.then_some(())?;
                self.default = Some(match charset_name(reader)? {
                    Some(name) => Some(scope.charset(&name)?),
                    None => None,
                });
            }
            if !reader.is_one_of(&["DEFAULT", "COLLATE", "CHARACTER", "CHARSET"]) {
                return Some(());
            }
        }
    }

    fn add(&mut self, shape: &Shape, reader: &mut Reader<'_>, scope: &Scope) -> Option<()> {
        let mut constraint = false;
        if reader.accept("CONSTRAINT") {
            constraint = true;
            reader.if_exists()?;
            if !reader.is_one_of(&["PRIMARY", "UNIQUE", "FOREIGN", "CHECK"]) {
                reader.name()?;
            }
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
        if reader.is_word("CHECK") {
            return if scope.mariadb { check(reader) } else { skip_part(reader, "").map(drop) };
        }
        if reader.is_one_of(&["FOREIGN", "INDEX", "KEY", "FULLTEXT", "SPATIAL"])
            || is_index_or_partition(reader)
        {
            return skip_part(reader, "").map(drop);
        }
        if constraint || is_period(reader) || is_versioning(reader) {
            return None;
        }
        reader.accept("COLUMN");
        let keeps = reader.if_exists()?;
        let brackets = reader.accept_sign(b'(');
        loop {
            let definition = Definition::read(reader, scope)?;
            let place = if brackets { None } else { place(reader)? };
            let exists = position(&shape.columns, &definition.name).is_some();
            if !exists {
                self.keys_of(&definition)?;
                self.placed.push(Placed { definition, place, old: None });
            } else if !keeps {
                // Free only if it is dropped by the same statement; then it is no longer sure which one a place means.
                return None;
            }
            if !brackets || !reader.accept_sign(b',') {
                break;
            }
        }
        if brackets { reader.expect_sign(b')') } else { Some(()) }
    }

    fn keys_of(&mut self, definition: &Definition) -> Option<()> {
        if definition.primary && self.primary.replace(Key::of_column(&definition.name)).is_some() {
            return None;
        }
        if definition.unique {
            self.uniques.push(Key::of_column(&definition.name));
        }
        Some(())
    }

    fn change(&mut self, old: usize, definition: Definition, place: Option<Place>) -> Option<()> {
        self.is_untouched(old).then_some(())?;
        self.keys_of(&definition)?;
        match place {
            None => self.changed.push((old, definition)),
            place => self.placed.push(Placed { definition, place, old: Some(old) }),
        }
        Some(())
    }

    /// Whether nothing was said of an old column yet: what two actions on one column make of it is not certain.
    fn is_untouched(&self, column: usize) -> bool {
        let changed = self.changed.iter().map(|(at, _)| *at);
        let placed = self.placed.iter().filter_map(|placed| placed.old);
        let renamed = self.renamed.iter().map(|(at, _)| *at);
        !changed.chain(placed).chain(renamed).any(|at| at == column)
    }

    fn drop(&mut self, shape: &Shape, reader: &mut Reader<'_>) -> Option<()> {
        if reader.accept("PRIMARY") {
            self.drops_primary = true;
            return reader.expect("KEY");
        }
        if reader.is_one_of(&["INDEX", "KEY"]) {
            reader.take();
            reader.if_exists()?;
            let name = reader.name()?;
            return drops_plain_index(shape, &name).then_some(());
        }
        if reader.accept("FOREIGN") {
            reader.expect("KEY")?;
            reader.if_exists()?;
            return reader.name().map(drop);
        }
        if reader.accept("CONSTRAINT") || reader.accept("CHECK") {
            reader.if_exists()?;
            let name = reader.name()?;
            // It may be a unique index, or the check that makes a column JSON.
            let json = shape.columns.iter().any(|column| column.json);
            return (drops_plain_index(shape, &name) && !json).then_some(());
        }
        if reader.is_word("PARTITION") {
            while reader.take().is_some() {}
            return Some(());
        }
        if is_period(reader) || is_versioning(reader) {
            return None;
        }
        reader.accept("COLUMN");
        let if_exists = reader.if_exists()?;
        let name = reader.name()?;
        reader.skip_words(&["RESTRICT", "CASCADE"]);
        match position(&shape.columns, &name) {
            Some(at) => self.dropped.push(at),
            None if if_exists => {}
            None => return None,
        }
        Some(())
    }

    fn rename(&mut self, shape: &Shape, reader: &mut Reader<'_>) -> Option<()> {
        if reader.accept("COLUMN") {
            let if_exists = reader.if_exists()?;
            let old = reader.name()?;
            reader.expect("TO")?;
            let new = reader.name()?;
            match position(&shape.columns, &old) {
                Some(at) if self.is_untouched(at) => self.renamed.push((at, new)),
                Some(_) => return None,
                None if if_exists => {}
                None => return None,
            }
            return Some(());
        }
        // An index or the table itself.
        skip_part(reader, "").map(drop)
    }
}

fn place(reader: &mut Reader<'_>) -> Option<Option<Place>> {
    if reader.accept("FIRST") {
        return Some(Some(Place::First));
    }
    if !reader.accept("AFTER") {
        return Some(None);
    }
    Some(Some(Place::After(reader.name()?)))
}

/// `VECTOR INDEX`, `PARTITION (…)`, `PARTITION PARTITIONS 2`; a column may be called so too, but not before these words.
fn is_index_or_partition(reader: &Reader<'_>) -> bool {
    let mut ahead = reader.clone();
    if ahead.accept("VECTOR") {
        return ahead.is_one_of(&["INDEX", "KEY"]);
    }
    ahead.is_word("PARTITION")
}

/// `SYSTEM VERSIONING` (MariaDB).
fn is_versioning(reader: &Reader<'_>) -> bool {
    let mut ahead = reader.clone();
    ahead.accept("SYSTEM") && ahead.is_word("VERSIONING")
}
