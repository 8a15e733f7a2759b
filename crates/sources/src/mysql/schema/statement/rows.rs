//! Statements that change rows, as a server logs them when it does not log the rows.

use super::{Parser, Statement};
use crate::mysql::schema::lexer::Token;
use crate::mysql::schema::reader::TableRef;

impl Parser<'_> {
    pub(super) fn rows(&mut self, verb: String) -> Option<Statement> {
        let mut tables = Vec::new();
        match verb.as_str() {
            "INSERT" | "REPLACE" => {
                self.reader.skip_words(&["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "INTO"]);
                tables.push(self.named()?);
            }
            "LOAD" => {
                while !self.reader.accept("INTO") {
                    self.reader.take()?;
                }
                self.reader.expect("TABLE")?;
                tables.push(self.named()?);
            }
            "WITH" => {
                // The statement stands behind the queries in brackets.
                while !self
                    .reader
                    .is_one_of(&["UPDATE", "DELETE", "INSERT", "REPLACE", "SELECT", "TABLE", "VALUES"])
                {
                    if self.reader.take()? == Token::Sign(b'(') {
                        self.reader.skip_to_closing()?;
                    }
                }
                return match self.reader.keyword()?.as_str() {
                    "SELECT" | "TABLE" | "VALUES" => Some(Statement::Rows { verb, tables }),
                    inner => self.rows(inner.to_owned()),
                };
            }
            _ => {
                self.reader.skip_words(&["LOW_PRIORITY", "QUICK", "IGNORE"]);
                self.references(&mut tables)?;
            }
        }
        Some(Statement::Rows { verb, tables })
    }

    /// The tables of `UPDATE` and `DELETE`, up to what is done with them.
    fn references(&mut self, tables: &mut Vec<TableRef>) -> Option<()> {
        const BEFORE: &[&str] = &["FROM", "JOIN", "STRAIGHT_JOIN"];
        let mut name_next = true;
        loop {
            if self.reader.at_end() || self.reader.is_one_of(&["SET", "WHERE", "ORDER", "LIMIT", "RETURNING"])
            {
                return Some(());
            }
            if self.reader.accept("USING") {
                name_next = !self.reader.accept_sign(b'(');
                if !name_next {
                    // Columns that a join goes by.
                    self.reader.skip_to_closing()?;
                }
            } else if self.reader.is_one_of(BEFORE) {
                self.reader.take();
                name_next = true;
            } else if name_next
                && matches!(self.reader.peek(), Some(Token::Word(_) | Token::Name(..) | Token::Sign(b'.')))
            {
                tables.push(self.reference()?);
                name_next = false;
            } else if self.reader.accept_sign(b'(') {
                // A derived table is read; brackets around a join are seen through.
                if !name_next || self.reader.is_one_of(&["SELECT", "WITH", "VALUES", "TABLE"]) {
                    self.reader.skip_to_closing()?;
                    name_next = false;
                }
            } else {
                name_next = self.reader.take()? == Token::Sign(b',');
            }
        }
    }

    /// A table's name, perhaps with `.*` behind it.
    fn reference(&mut self) -> Option<TableRef> {
        let mut ahead = self.reader.clone();
        let first = ahead.name();
        if first.is_some() && ahead.accept_sign(b'.') && ahead.accept_sign(b'*') {
            self.reader = ahead;
            return Some(self.context.named((None, first?)));
        }
        let table = self.named()?;
        if self.reader.accept_sign(b'.') {
            self.reader.expect_sign(b'*')?;
        }
        Some(table)
    }
}
