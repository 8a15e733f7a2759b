//! Global transaction identifiers (GTIDs): the sets of MySQL, the positions of MariaDB, and what a source has read of either.
//!
//! | | one transaction | what a server has | text |
//! |---|---|---|---|
//! | MySQL | [`MySqlGtid`] | [`MySqlSet`]: intervals for each (UUID, tag) | `uuid:1-5:7:tag:1-3` |
//! | MariaDB | [`MariaGtid`] | [`MariaSet`]: the last transaction of each domain | `0-1-100,7-2-5` |
//!
//! [`Executed`] is a set together with its text, kept up to date while the log is read. [`reach`] tells whether a server
//! still holds everything after a stored set.
//!
//! Formats: MySQL manual, "GTID Format and Storage"; the server's `sql/rpl_gtid_set.cc` and `libs/mysql/gtid` for the binary
//! form. MariaDB manual, "Global Transaction ID".

mod binary;
mod executed;
mod mariadb;
mod mysql;
pub mod reach;
mod text;
mod tsid;

pub use executed::Executed;
pub use mariadb::{MariaGtid, MariaSet, MariaState};
pub use mysql::{MAX_NUMBER, MySqlGtid, MySqlSet};
pub use tsid::Tag;

use std::cmp::Ordering;
use std::fmt;

/// The identifier of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gtid {
    /// Of MySQL.
    MySql(MySqlGtid),
    /// Of MariaDB.
    Maria(MariaGtid),
}

impl Gtid {
    /// Appends `uuid:n`, `uuid:tag:n` or `domain-server-n`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Gtid::MySql(gtid) => gtid.write(out),
            Gtid::Maria(gtid) => gtid.write(out),
        }
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, |out| self.write(out))
    }
}

/// What a server has executed, or what a source has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GtidSet {
    /// Of MySQL.
    MySql(MySqlSet),
    /// Of MariaDB.
    Maria(MariaSet),
}

impl GtidSet {
    /// Reads either text; the form tells which. An empty text tells nothing: it gives an empty set of MySQL, and an empty set
    /// counts as one of either server everywhere.
    ///
    /// # Errors
    /// A sentence that says what is wrong and where.
    pub fn parse(text: &str) -> Result<GtidSet, String> {
        if text.contains(':') || text.trim().is_empty() {
            MySqlSet::parse(text).map(GtidSet::MySql)
        } else {
            MariaSet::parse(text).map(GtidSet::Maria)
        }
    }

    /// True without transactions.
    pub fn is_empty(&self) -> bool {
        match self {
            GtidSet::MySql(set) => set.is_empty(),
            GtidSet::Maria(set) => set.is_empty(),
        }
    }

    /// As a set of MySQL; `None` when it holds identifiers of MariaDB.
    pub fn into_mysql(self) -> Option<MySqlSet> {
        match self {
            GtidSet::MySql(set) => Some(set),
            GtidSet::Maria(set) => set.is_empty().then(MySqlSet::default),
        }
    }

    /// As a position of MariaDB; `None` when it holds identifiers of MySQL.
    pub fn into_maria(self) -> Option<MariaSet> {
        match self {
            GtidSet::Maria(set) => Some(set),
            GtidSet::MySql(set) => set.is_empty().then(MariaSet::default),
        }
    }

    /// Orders two sets by inclusion; `None` when neither holds the other.
    pub fn compare(&self, other: &GtidSet) -> Option<Ordering> {
        match (self, other) {
            (GtidSet::MySql(a), GtidSet::MySql(b)) => a.compare(b),
            (GtidSet::Maria(a), GtidSet::Maria(b)) => a.compare(b),
            _ => match (self.is_empty(), other.is_empty()) {
                (true, true) => Some(Ordering::Equal),
                (true, false) => Some(Ordering::Less),
                (false, true) => Some(Ordering::Greater),
                (false, false) => None,
            },
        }
    }

    /// Appends the text, on one line.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            GtidSet::MySql(set) => set.write(out),
            GtidSet::Maria(set) => set.write(out),
        }
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, |out| self.write(out))
    }
}

/// Shows what a writer of bytes writes.
fn show(f: &mut fmt::Formatter<'_>, write: impl FnOnce(&mut Vec<u8>)) -> fmt::Result {
    let mut out = Vec::new();
    write(&mut out);
    f.write_str(&String::from_utf8_lossy(&out))
}

/// Appends a number in decimal.
fn write_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests;
