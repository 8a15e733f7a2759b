//! Statements that make, change, rename and drop tables and what else there is.

use super::{ChangeKind, DatabaseChange, DatabaseKind, Parser, Statement, TableChange};
use crate::mysql::charset::Charset;
use crate::mysql::schema::lexer::Token;

/// What `CREATE`, `ALTER` and `DROP` name that holds no rows.
const ROWLESS: &[&str] = &[
    "EVENT",
    "FUNCTION",
    "INSTANCE",
    "LIBRARY",
    "LOGFILE",
    "PACKAGE",
    "PREPARE",
    "PROCEDURE",
    "REFERENCE",
    "RESOURCE",
    "ROLE",
    "SERVER",
    "TABLESPACE",
    "TRIGGER",
    "UNDO",
    "USER",
    "VIEW",
];

impl Parser<'_> {
    pub(super) fn create(&mut self) -> Option<Statement> {
        let mut temporary = false;
        loop {
            let word = self.reader.keyword()?;
            match word.as_str() {
                "TEMPORARY" => temporary = true,
                "TABLE" => return self.create_table(temporary),
                "SEQUENCE" if temporary => return Some(Statement::Other),
                "SEQUENCE" => {
                    self.reader.if_exists()?;
                    return Some(Statement::Tables(vec![self.change(ChangeKind::CreateSequence)?]));
                }
                "DATABASE" | "SCHEMA" => return self.database(DatabaseKind::Create),
                "INDEX" => return self.index(),
                "DEFINER" => self.skip_definer()?,
                "ALGORITHM" => {
                    self.reader.expect_sign(b'=')?;
                    self.reader.take()?;
                }
                "SQL" => {
                    self.reader.expect("SECURITY")?;
                    self.reader.take()?;
                }
                "OR" | "REPLACE" | "UNIQUE" | "FULLTEXT" | "SPATIAL" | "VECTOR" | "ONLINE" | "OFFLINE"
                | "AGGREGATE" | "JSON" | "RELATIONAL" | "DUALITY" | "MATERIALIZED" => {}
                rowless if ROWLESS.contains(&rowless) => return Some(Statement::Other),
                _ => return None,
            }
        }
    }

    /// `DEFINER = user@host`, `CURRENT_USER()`.
    fn skip_definer(&mut self) -> Option<()> {
        self.reader.expect_sign(b'=')?;
        self.reader.take()?;
        if self.reader.accept_sign(b'@') {
            self.reader.take()?;
        }
        if self.reader.accept_sign(b'(') {
            self.reader.expect_sign(b')')?;
        }
        Some(())
    }

    fn create_table(&mut self, temporary: bool) -> Option<Statement> {
        if temporary {
            // Seen by its own session alone; its rows are never logged as rows.
            return Some(Statement::Other);
        }
        let keeps = self.reader.if_exists()?;
        let table = self.named()?;
        // A bracket is taken only when LIKE follows; what follows else does not matter here.
        self.reader.accept_sign(b'(');
        let kind = if self.reader.accept("LIKE") {
            ChangeKind::CreateLike { from: self.named()?, keeps }
        } else {
            ChangeKind::Create { keeps }
        };
        Some(Statement::Tables(vec![TableChange { kind, table }]))
    }

    /// After `INDEX` of `CREATE` and `DROP`.
    fn index(&mut self) -> Option<Statement> {
        self.reader.if_exists()?;
        loop {
            if self.reader.accept("ON") {
                return Some(Statement::Tables(vec![self.change(ChangeKind::Alter { rows: false })?]));
            }
            self.reader.take()?;
        }
    }

    fn database(&mut self, kind: DatabaseKind) -> Option<Statement> {
        let keeps = self.reader.if_exists()? && kind == DatabaseKind::Create;
        let options =
            ["DEFAULT", "CHARACTER", "CHARSET", "COLLATE", "COMMENT", "ENCRYPTION", "READ", "UPGRADE"];
        let db = match kind {
            DatabaseKind::Alter if self.reader.is_one_of(&options) => self.context.database.to_owned(),
            _ => self.reader.name()?,
        };
        let db = self.context.named((Some(db), String::new())).db;
        let mut charset = None;
        while let Some(token) = self.reader.take() {
            let is = |word: &str| matches!(token, Token::Word(w) if w.eq_ignore_ascii_case(word.as_bytes()));
            if is("CHARSET") || is("CHARACTER") && self.reader.accept("SET") {
                self.reader.accept_sign(b'=');
                charset = Some(self.charset_name()?);
            } else if is("COLLATE") {
                self.reader.accept_sign(b'=');
                let collation = self.charset_name()?;
                // One of MariaDB's that do not name their character set leaves it as it is.
                let named = collation.split('_').next().filter(|name| Charset::by_name(name).is_some());
                charset = charset.or(named.map(String::from));
            }
        }
        Some(Statement::Database(DatabaseChange { kind, db, charset, keeps }))
    }

    /// Of a character set or a collation, which may be written as text too.
    fn charset_name(&mut self) -> Option<String> {
        let name = match self.reader.peek()? {
            Token::Text(..) => String::from_utf8(self.reader.text()?).ok()?,
            _ => self.reader.name()?,
        };
        Some(name.to_ascii_lowercase())
    }

    pub(super) fn alter(&mut self) -> Option<Statement> {
        loop {
            let word = self.reader.keyword()?;
            match word.as_str() {
                "TABLE" => return self.alter_table(),
                "DATABASE" | "SCHEMA" => return self.database(DatabaseKind::Alter),
                "SEQUENCE" => return Some(Statement::Other),
                "DEFINER" => self.skip_definer()?,
                "ALGORITHM" => {
                    self.reader.expect_sign(b'=')?;
                    self.reader.take()?;
                }
                "SQL" => {
                    self.reader.expect("SECURITY")?;
                    self.reader.take()?;
                }
                "IGNORE" | "ONLINE" | "OFFLINE" | "JSON" | "RELATIONAL" | "DUALITY" | "MATERIALIZED" => {}
                rowless if ROWLESS.contains(&rowless) => return Some(Statement::Other),
                _ => return None,
            }
        }
    }

    fn alter_table(&mut self) -> Option<Statement> {
        self.reader.if_exists()?;
        let table = self.named()?;
        self.reader.wait()?;
        let (mut changes, mut others, mut rows, mut renamed) = (Vec::new(), false, false, None);
        // Each turn takes one action of the list.
        while !self.reader.at_end() && self.reader.peek().is_some() {
            if self.reader.accept("RENAME") && !self.reader.is_one_of(&["COLUMN", "INDEX", "KEY"]) {
                let _ = self.reader.accept("TO") || self.reader.accept("AS") || self.reader.accept_sign(b'=');
                renamed = Some(self.named()?);
                self.skip_action()?;
                continue;
            }
            others = true;
            let partition = match self.reader.peek() {
                Some(Token::Word(word)) => {
                    PARTITION_VERBS.iter().find(|(verb, _)| word.eq_ignore_ascii_case(verb.as_bytes()))
                }
                _ => None,
            };
            if let Some((verb, nouns)) = partition {
                self.reader.take();
                let noun = nouns.iter().any(|noun| self.reader.is_word(noun));
                rows |= noun;
                if *verb == "CONVERT" && noun {
                    changes.push(self.convert_partition()?);
                }
            }
            self.skip_action()?;
        }
        if others || renamed.is_none() {
            changes.insert(0, TableChange { kind: ChangeKind::Alter { rows }, table: table.clone() });
        }
        changes.extend(renamed.map(|to| TableChange { kind: ChangeKind::Rename { to }, table }));
        Some(Statement::Tables(changes))
    }

    /// `CONVERT PARTITION p TO TABLE t` makes a table, `CONVERT TABLE t TO PARTITION p …` takes one away (MariaDB).
    fn convert_partition(&mut self) -> Option<TableChange> {
        if self.reader.accept("TABLE") {
            return self.change(ChangeKind::Drop);
        }
        self.reader.expect("PARTITION")?;
        self.reader.name()?;
        self.reader.expect("TO")?;
        self.reader.expect("TABLE")?;
        self.change(ChangeKind::Create { keeps: false })
    }

    /// Goes behind the comma that ends an action of `ALTER TABLE`.
    fn skip_action(&mut self) -> Option<()> {
        while let Some(token) = self.reader.take() {
            match token {
                Token::Sign(b'(') => self.reader.skip_to_closing()?,
                Token::Sign(b',') => break,
                _ => {}
            }
        }
        Some(())
    }

    pub(super) fn drop(&mut self) -> Option<Statement> {
        let mut temporary = false;
        loop {
            let word = self.reader.keyword()?;
            match word.as_str() {
                "TEMPORARY" => temporary = true,
                "TABLE" | "TABLES" | "SEQUENCE" => {
                    if temporary {
                        return Some(Statement::Other);
                    }
                    self.reader.if_exists()?;
                    let mut changes = vec![self.change(ChangeKind::Drop)?];
                    while self.reader.accept_sign(b',') {
                        changes.push(self.change(ChangeKind::Drop)?);
                    }
                    return Some(Statement::Tables(changes));
                }
                "DATABASE" | "SCHEMA" => return self.database(DatabaseKind::Drop),
                "INDEX" => return self.index(),
                "ONLINE" | "OFFLINE" | "SPATIAL" | "JSON" | "RELATIONAL" | "DUALITY" | "MATERIALIZED" => {}
                rowless if ROWLESS.contains(&rowless) => return Some(Statement::Other),
                _ => return None,
            }
        }
    }

    pub(super) fn rename(&mut self) -> Option<Statement> {
        if self.reader.accept("USER") {
            return Some(Statement::Other);
        }
        if !self.reader.accept("TABLE") {
            self.reader.expect("TABLES")?;
        }
        self.reader.if_exists()?;
        let mut changes = Vec::new();
        loop {
            let table = self.named()?;
            self.reader.wait()?;
            self.reader.expect("TO")?;
            changes.push(TableChange { kind: ChangeKind::Rename { to: self.named()? }, table });
            if !self.reader.accept_sign(b',') {
                return self.reader.at_end().then_some(Statement::Tables(changes));
            }
        }
    }
}

/// First words of an action of `ALTER TABLE` that moves or removes rows, if one of the second words follows.
const PARTITION_VERBS: &[(&str, &[&str])] = &[
    ("TRUNCATE", &["PARTITION"]),
    ("DROP", &["PARTITION"]),
    ("EXCHANGE", &["PARTITION"]),
    ("CONVERT", &["PARTITION", "TABLE"]),
    ("DISCARD", &["PARTITION", "TABLESPACE"]),
    ("IMPORT", &["PARTITION", "TABLESPACE"]),
];
