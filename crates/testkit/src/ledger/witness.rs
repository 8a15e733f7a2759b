//! A second reader of the same log, to compare with: PostgreSQL's own `test_decoding`.
//!
//! The final rows do not show a change that a later one undid. The witness does: its slot is made before the first
//! change, and its list of changes is the one that the stream must have, no more, no less, in the same order.

use super::Change;
use crate::servers::Postgres;

/// A slot that keeps everything from its making on.
pub struct Witness {
    database: String,
    slot: String,
}

impl Witness {
    /// Makes the slot.
    pub fn start(postgres: &Postgres, database: &str) -> Witness {
        let slot = format!("witness_{database}");
        let sql = format!("select pg_create_logical_replication_slot('{slot}', 'test_decoding')");
        postgres.psql(database, &sql);
        Witness { database: database.to_owned(), slot }
    }

    /// All changes of the named tables up to now: full name and key columns of each.
    pub fn changes(&self, postgres: &Postgres, tables: &[(&str, &[&str])]) -> Vec<Change> {
        let sql = format!(
            "select data from pg_logical_slot_peek_changes('{}', null, null, 'include-xids', '0', 'skip-empty-xacts', '1')",
            self.slot
        );
        witnessed(&postgres.psql(&self.database, &sql), tables)
    }
}

/// Reads what `test_decoding` prints; lines of other tables are passed over.
///
/// # Panics
/// When a change of a named table has not the form expected.
pub fn witnessed(text: &str, tables: &[(&str, &[&str])]) -> Vec<Change> {
    let change = |line: &str| {
        let (table, rest) = line.strip_prefix("table ")?.split_once(": ")?;
        if rest.starts_with("TRUNCATE:") {
            // One line for all tables of the statement.
            let of = |name: &&str| tables.iter().any(|(table, _)| table == name);
            let names: Vec<&str> = table.split(", ").filter(of).collect();
            return Some(names.into_iter().map(truncate).collect());
        }
        let (_, key) = tables.iter().find(|(name, _)| *name == table)?;
        let (op, row) = rest.split_once(": ").unwrap_or_else(|| panic!("test_decoding: {line}"));
        let op = match op {
            "INSERT" => 'c',
            "UPDATE" => 'u',
            "DELETE" => 'd',
            _ => panic!("test_decoding: {line}"),
        };
        // With an old key or an old row the new row follows after it.
        let row = row.split_once("new-tuple: ").map_or(row, |(_, new)| new);
        let key: Vec<&str> = key
            .iter()
            .map(|column| value(row, column).unwrap_or_else(|| panic!("{column}: {line}")))
            .collect();
        Some(vec![Change { table: table.to_owned(), op, key: key.join(",") }])
    };
    text.lines().filter_map(change).flatten().collect::<Vec<Change>>()
}

fn truncate(table: &str) -> Change {
    Change { table: table.to_owned(), op: 't', key: String::new() }
}

/// The value of a column in `name[type]:value name[type]:value …`. Key columns here hold numbers: nothing to unquote.
fn value<'a>(row: &'a str, column: &str) -> Option<&'a str> {
    let start = format!("{column}[");
    let at = match row.starts_with(&start) {
        true => 0,
        false => row.find(&format!(" {start}"))? + 1,
    };
    let (_, value) = row[at..].split_once("]:")?;
    Some(value.split(' ').next().unwrap_or(value))
}
