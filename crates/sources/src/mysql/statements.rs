//! QUERY events: where a transaction begins and ends, statements that change tables, and those whose rows the log does not have.

use super::binlog::Query;
use super::decoder::{Decoder, Step, Transaction};
use super::flavour::Flavour;
use super::position;
use super::schema::{ChangeKind, Context, Statement, TableRef, classify};
use deltaforge_core::Fault;
use deltaforge_core::batch::{BatchBuilder, Op};
use deltaforge_core::value::Value;

impl Decoder {
    pub(super) fn compressed_query(
        &mut self,
        query: &Query<'_>,
        out: &mut BatchBuilder,
    ) -> Result<Step, Fault> {
        let mut inflater = std::mem::take(&mut self.inflater);
        let step = match inflater.inflate(query.sql) {
            Ok(sql) => self.query(&Query { sql, ..*query }, out),
            Err(e) => Err(self.undecodable(e)),
        };
        self.inflater = inflater;
        step
    }

    pub(super) fn classify(&self, query: &Query<'_>, sql: &[u8]) -> Statement {
        classify(sql, &self.context(query))
    }

    fn context<'q>(&self, query: &Query<'q>) -> Context<'q> {
        Context {
            flavour: if self.format.mariadb { Flavour::MariaDb } else { Flavour::MySql },
            database: query.database,
            sql_mode: query.settings.sql_mode.unwrap_or(0),
            fold_names: self.schemas.server.fold_names,
        }
    }

    /// The statement's text in UTF-8, when its character set could hide quotes in characters.
    fn utf8(&self, query: &Query<'_>) -> Option<Vec<u8>> {
        if query.sql.is_ascii() {
            return None;
        }
        let charset = self.schemas.server.collations.charset(query.settings.client?)?;
        if charset.as_utf8(query.sql).is_some() {
            return None;
        }
        let mut text = Vec::new();
        charset.decode(query.sql, &mut text).then_some(text)
    }

    pub(super) fn query(&mut self, query: &Query<'_>, out: &mut BatchBuilder) -> Result<Step, Fault> {
        if query.sql == b"BEGIN" {
            return self.begin_statement(query.thread_id).map(|()| Step::Done);
        }
        let converted = self.utf8(query);
        let sql = converted.as_deref().unwrap_or(query.sql);
        let statement = self.classify(query, sql);
        match statement {
            Statement::Begin => self.begin_statement(query.thread_id)?,
            Statement::Commit => self.end(out)?,
            Statement::Rollback => {
                self.no_rows_before("a ROLLBACK")?;
                self.end(out)?;
            }
            Statement::Savepoint(_) | Statement::ReleaseSavepoint(_) => {}
            Statement::RollbackTo(_) => self.no_rows_before("a ROLLBACK TO SAVEPOINT")?,
            Statement::XaStart(_) => {
                self.begin_statement(query.thread_id)?;
                if let Some(transaction) = &mut self.transaction {
                    transaction.xa = true;
                }
                self.begin_spool();
            }
            Statement::XaEnd(_) => {}
            Statement::XaPrepare(xid) => return self.xa_prepared(false, xid, out),
            Statement::XaCommit(xid, _) => return self.xa_decided(&xid, true, query.thread_id, out),
            Statement::XaRollback(xid) => return self.xa_decided(&xid, false, query.thread_id, out),
            Statement::Tables(_) | Statement::Database(_) | Statement::Unknown => {
                return self.definition(&statement, query, sql, out);
            }
            Statement::Rows { verb, tables } => {
                self.changed_by_statement(&verb, &tables)?;
                self.end_if_alone(out)?;
            }
            Statement::Other => self.end_if_alone(out)?,
        }
        Ok(Step::Done)
    }

    fn begin_statement(&mut self, thread: u32) -> Result<(), Fault> {
        match &mut self.transaction {
            Some(transaction) => {
                transaction.has_begin = true;
                transaction.thread = transaction.thread.or(Some(thread));
                Ok(())
            }
            None => Err(self.undecodable("a BEGIN without an event that names its transaction")),
        }
    }

    /// A statement that stands alone is a transaction of its own. Inside of one that has begun it is a part of it.
    fn end_if_alone(&mut self, out: &mut BatchBuilder) -> Result<(), Fault> {
        let mariadb = self.format.mariadb;
        let alone = |t: &Transaction| if mariadb { t.standalone } else { !t.has_begin };
        if self.transaction.as_ref().is_some_and(alone) { self.end(out) } else { Ok(()) }
    }

    /// What is undone here was given already; a server that logs rows takes them out of its log instead.
    fn no_rows_before(&self, what: &str) -> Result<(), Fault> {
        match &self.transaction {
            Some(transaction) if transaction.begun => {
                Err(self.undecodable(format!("{what} after rows of the same transaction")))
            }
            _ => Ok(()),
        }
    }

    /// Changes of rows that the log does not have as rows.
    fn changed_by_statement(&mut self, verb: &str, tables: &[TableRef]) -> Result<(), Fault> {
        let at = self.place.here();
        let reason = format!("a statement ({verb}) changed rows that the log does not hold");
        let affected: Vec<TableRef> = if tables.is_empty() {
            self.schemas.captured_tables()
        } else {
            tables.iter().filter(|table| self.schemas.captures(table)).cloned().collect()
        };
        let place = self.place.sortable();
        for table in affected {
            self.schemas.stop(
                &table,
                format!("{reason}: SET GLOBAL binlog_format = 'ROW'"),
                place,
                at.clone(),
            );
        }
        Ok(())
    }

    /// A statement that may change tables.
    fn definition(
        &mut self,
        statement: &Statement,
        query: &Query<'_>,
        sql: &[u8],
        out: &mut BatchBuilder,
    ) -> Result<Step, Fault> {
        if self.transaction.as_ref().is_some_and(|transaction| transaction.only_begins) {
            self.end(out)?;
            return Ok(Step::Done);
        }
        if let Statement::Tables(changes) = statement {
            while let Some(change) = changes.get(self.handled) {
                if matches!(change.kind, ChangeKind::Truncate)
                    && let Step::LookUp(table) = self.truncated(&change.table, query, sql, out)?
                {
                    return Ok(Step::LookUp(table));
                }
                if matches!(change.kind, ChangeKind::Alter { rows: true })
                    && self.schemas.captures(&change.table)
                {
                    tracing::warn!(
                        source_id = self.settings.id,
                        table = format!("{}.{}", change.table.db, change.table.table),
                        at = self.place.here(),
                        "a statement removed or brought rows without logging them: partitions or tablespaces changed"
                    );
                }
                self.handled += 1;
            }
        }
        self.handled = 0;
        let context = self.context(query);
        let place = position::place(self.place.term, self.place.number, self.place.end);
        let at = &self.place;
        self.schemas.apply(statement, sql, &context, place, &|| at.here());
        // CREATE TABLE … SELECT has its rows behind it, and ends as a transaction does.
        if !sql.ends_with(b"START TRANSACTION") || self.format.mariadb {
            self.end_if_alone(out)?;
        }
        Ok(Step::Done)
    }

    fn truncated(
        &mut self,
        table: &TableRef,
        query: &Query<'_>,
        sql: &[u8],
        out: &mut BatchBuilder,
    ) -> Result<Step, Fault> {
        if !self.schemas.captures(table) || self.schemas.is_stopped(table) {
            return Ok(Step::Done);
        }
        let Some((index, full, counter)) = self.schemas.of_table(table, self.place.sortable(), out) else {
            return Ok(Step::LookUp(table.clone()));
        };
        let Some(mut transaction) = self.transaction.take() else {
            return Err(self.undecodable("a statement without an event that names its transaction"));
        };
        transaction.thread = transaction.thread.or(Some(query.thread_id));
        Self::entered(&mut transaction, &self.place.file, out);
        let mut event = out.event(Op::Truncate, index);
        let ddl = serde_json::json!({
            "kind": "truncate",
            "sql": String::from_utf8_lossy(sql),
            "database": if query.database.is_empty() { None } else { Some(query.database) },
            "tables": [full],
        });
        event.ddl(&ddl.to_string());
        let start = self.place.start;
        event.source(3, |row| {
            row.put(Value::Uint(start));
            row.put(Value::Uint(0));
            row.put(Value::Absent);
        });
        let id = self.event_id(&transaction, &full, counter, 0);
        event.finish(id);
        self.transaction = Some(transaction);
        self.progress += 1;
        Ok(Step::Done)
    }
}
