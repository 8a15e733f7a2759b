//! The captured tables: whether they are there, whether they may be read, what the log will not tell of them.

use super::server::Variables;
use crate::mysql::config::Settings;
use crate::mysql::connection::{Connection, Row};
use crate::mysql::flavour::{Flavour, Version};
use crate::mysql::quote;
use crate::mysql::schema::{ForeignKey, foreign_keys};
use deltaforge_core::Fault;
use deltaforge_core::config::{Report, Severity};
use std::collections::HashSet;

/// Most names in a sentence.
const NAMES: usize = 10;
/// Databases that are the server's own.
const USER_DATABASES: &str =
    "TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')";

/// A table by its database and name.
type Table = (String, String);

pub(super) fn look(
    report: &mut Report,
    connection: &mut Connection,
    variables: &Variables,
    settings: &Settings,
) -> Result<(), Fault> {
    let tables = captured(settings, connection)?;
    presence(report, settings, &tables, connection);
    if let Some(database) = &settings.target.dsn.database {
        default_database(report, connection, database)?;
    }
    select_right(report, settings, connection)?;
    primary_keys(report, &tables, connection)?;
    cascades(report, settings, variables, connection)
}

/// Captured tables that are there and that the account may see.
fn captured(settings: &Settings, connection: &mut Connection) -> Result<Vec<Table>, Fault> {
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES \
         WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND {USER_DATABASES}"
    );
    let rows = connection.query(&sql, "listing the tables")?;
    let tables = rows.iter().map(|row| (row.text(0), row.text(1)));
    Ok(tables.filter(|(database, table)| settings.captures(database, table)).collect())
}

/// Refuses a pattern without a table.
pub(super) fn require(settings: &Settings, connection: &mut Connection) -> Result<(), Fault> {
    let tables = captured(settings, connection)?;
    match missing(settings, &tables) {
        None => Ok(()),
        Some(evidence) => Err(Fault::config("mysql.missing_tables", evidence).hint(
            "correct the pattern, create the table, give the account SELECT on it, or set `missing_tables: warn`",
        )),
    }
}

/// What to say of patterns that match nothing.
fn missing(settings: &Settings, tables: &[Table]) -> Option<String> {
    let unmatched: Vec<&str> = settings.tables.unmatched(tables).collect();
    (!unmatched.is_empty()).then(|| {
        let patterns: Vec<String> = unmatched.iter().map(|pattern| format!("`{pattern}`")).collect();
        format!("no table that the account may see matches {}", shown(&patterns))
    })
}

fn presence(report: &mut Report, settings: &Settings, tables: &[Table], connection: &Connection) {
    let severity = if settings.tables_must_exist { Severity::Error } else { Severity::Warning };
    let grant = format!("GRANT SELECT ON *.* TO {};", connection.account());
    if let Some(evidence) = missing(settings, tables) {
        let remedy = format!("correct the pattern, or create the table, or {grant}");
        report.add("tables", severity, evidence, Some(remedy));
    } else if tables.is_empty() {
        report.add("tables", severity, "there is no table that the account may see", Some(grant));
    } else {
        report.add("tables", Severity::Ok, format!("{} captured", tables.len()), None);
    }
}

fn default_database(report: &mut Report, connection: &mut Connection, database: &str) -> Result<(), Fault> {
    let name = quote::literal(database);
    let sql = format!("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {name}");
    if connection.query(&sql, "looking for the DSN's database")?.is_empty() {
        let evidence = format!("the DSN's database `{database}` is not there, or the account may not see it");
        let remedy = format!("CREATE DATABASE {};", quote::identifier(database));
        report.add("database", Severity::Warning, evidence, Some(remedy));
    }
    Ok(())
}

/// The account may see a table and not read it; then the columns' types and keys may be hidden from it.
fn select_right(report: &mut Report, settings: &Settings, connection: &mut Connection) -> Result<(), Fault> {
    let sql = format!(
        "SELECT DISTINCT TABLE_SCHEMA, TABLE_NAME FROM information_schema.COLUMNS \
         WHERE FIND_IN_SET('select', PRIVILEGES) = 0 AND {USER_DATABASES}"
    );
    let rows = connection.query(&sql, "reading the rights")?;
    let hidden: Vec<String> = rows
        .iter()
        .filter(|row| settings.captures(&row.text(0), &row.text(1)))
        .map(|row| full_name(&row.text(0), &row.text(1)))
        .collect();
    if let Some(first) = hidden.first() {
        let evidence = format!("not allowed to read {}", shown(&hidden));
        let remedy = format!("GRANT SELECT ON {first} TO {};", connection.account());
        report.add("select", Severity::Error, evidence, Some(remedy));
    }
    Ok(())
}

fn primary_keys(report: &mut Report, tables: &[Table], connection: &mut Connection) -> Result<(), Fault> {
    let sql = format!(
        "SELECT DISTINCT TABLE_SCHEMA, TABLE_NAME FROM information_schema.STATISTICS \
         WHERE INDEX_NAME = 'PRIMARY' AND {USER_DATABASES}"
    );
    let rows = connection.query(&sql, "reading the primary keys")?;
    let with_key: HashSet<Table> = rows.iter().map(|row| (row.text(0), row.text(1))).collect();
    let without: Vec<String> =
        tables.iter().filter(|table| !with_key.contains(table)).map(|(d, t)| full_name(d, t)).collect();
    if let Some(first) = without.first() {
        let evidence =
            format!("without a primary key, so that consumers cannot tell rows apart: {}", shown(&without));
        let remedy =
            format!("ALTER TABLE {first} ADD COLUMN id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY;");
        report.add("primary keys", Severity::Warning, evidence, Some(remedy));
    }
    Ok(())
}

/// Whether a change that a foreign key makes in another table is in the log. Before MySQL 9.6, and on MariaDB, InnoDB makes it
/// by itself.
fn cascades_are_logged(version: Version, variables: &Variables) -> bool {
    version.flavour == Flavour::MySql
        && version.is_at_least(9, 6, 0)
        && !variables.is("innodb_native_foreign_keys", "ON")
}

fn cascades(
    report: &mut Report,
    settings: &Settings,
    variables: &Variables,
    connection: &mut Connection,
) -> Result<(), Fault> {
    let version = connection.version();
    if cascades_are_logged(version, variables) {
        return Ok(());
    }
    let keys = match version.flavour {
        Flavour::MySql => listed_keys(settings, connection)?,
        Flavour::MariaDb => printed_keys(settings, connection)?,
    };
    let acts = |rule: &str| !matches!(rule, "RESTRICT" | "NO ACTION");
    let acting: Vec<_> =
        keys.iter().filter(|(_, key)| acts(&key.on_delete) || acts(&key.on_update)).collect();
    let Some((first_table, first)) = acting.first() else { return Ok(()) };
    let shown_keys: Vec<String> = acting
        .iter()
        .map(|((database, table), key)| {
            let (table, name) = (full_name(database, table), quote::identifier(&key.name));
            format!("{table} by {name} (ON DELETE {}, ON UPDATE {})", key.on_delete, key.on_update)
        })
        .collect();
    let evidence = format!("changes that these foreign keys make are not in the log: {}", shown(&shown_keys));
    let table = full_name(&first_table.0, &first_table.1);
    let drop = format!("ALTER TABLE {table} DROP FOREIGN KEY {};", quote::identifier(&first.name));
    let remedy = match version.flavour {
        Flavour::MySql if version.is_at_least(9, 6, 0) => {
            "SET PERSIST_ONLY innodb_native_foreign_keys = OFF; then restart the server".into()
        }
        Flavour::MySql => format!(
            "upgrade to MySQL 9.6, which logs them; or {drop} and let the application change those rows"
        ),
        Flavour::MariaDb => format!("{drop} and let the application change those rows"),
    };
    report.add("foreign keys", Severity::Warning, evidence, Some(remedy));
    Ok(())
}

/// The foreign keys of captured tables that do something, as MySQL lists them.
fn listed_keys(settings: &Settings, connection: &mut Connection) -> Result<Vec<(Table, ForeignKey)>, Fault> {
    let sql = "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, DELETE_RULE, UPDATE_RULE \
               FROM information_schema.REFERENTIAL_CONSTRAINTS \
               WHERE DELETE_RULE NOT IN ('RESTRICT', 'NO ACTION') OR UPDATE_RULE NOT IN ('RESTRICT', 'NO ACTION')";
    let rows = connection.query(sql, "reading the foreign keys")?;
    let key = |row: &Row| ForeignKey { name: row.text(2), on_delete: row.text(3), on_update: row.text(4) };
    let keys = rows.iter().map(|row| ((row.text(0), row.text(1)), key(row)));
    Ok(keys.filter(|((database, table), _)| settings.captures(database, table)).collect())
}

/// All foreign keys of captured tables. MariaDB shows that there are some to whoever may SELECT, and what they do only in the
/// statement that makes the table.
fn printed_keys(settings: &Settings, connection: &mut Connection) -> Result<Vec<(Table, ForeignKey)>, Fault> {
    const WHAT: &str = "reading the foreign keys";
    let sql = format!(
        "SELECT DISTINCT TABLE_SCHEMA, TABLE_NAME FROM information_schema.KEY_COLUMN_USAGE \
         WHERE REFERENCED_TABLE_NAME IS NOT NULL AND {USER_DATABASES}"
    );
    let mut keys = Vec::new();
    for row in connection.query(&sql, WHAT)? {
        let (database, table) = (row.text(0), row.text(1));
        if !settings.captures(&database, &table) {
            continue;
        }
        let sql = format!("SHOW CREATE TABLE {}", full_name(&database, &table));
        let statement = match connection.query(&sql, WHAT) {
            Ok(rows) => rows.first().map(|row| row.text(1)).unwrap_or_default(),
            // Dropped since, or only some columns may be read, which is a finding of its own.
            Err(fault) if matches!(fault.code(), "mysql.server_error" | "mysql.no_rights") => continue,
            Err(fault) => return Err(fault),
        };
        let table = (database, table);
        keys.extend(foreign_keys(&statement).into_iter().map(|key| (table.clone(), key)));
    }
    Ok(keys)
}

fn full_name(database: &str, table: &str) -> String {
    format!("{}.{}", quote::identifier(database), quote::identifier(table))
}

/// The first of many names, and how many more there are.
fn shown(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMES);
    let first = names[..names.len() - more].join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_cut() {
        let names: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert_eq!(shown(&names[..10]), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9");
        assert_eq!(shown(&names), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more");
        assert_eq!(full_name("a`b", "c"), "`a``b`.`c`");
    }

    #[test]
    fn cascades_are_logged_from_mysql_9_6_on() {
        let none = Variables::default();
        let logged = |text| cascades_are_logged(Version::parse(text, ""), &none);
        assert!(logged("9.6.0") && logged("10.0.0"));
        assert!(!logged("9.5.9") && !logged("8.4.6") && !logged("12.1.2-MariaDB"));
    }
}
