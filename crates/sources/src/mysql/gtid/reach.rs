//! Whether a server still holds everything after a stored set, and nothing less than it.
//!
//! The server asks itself less: MySQL refuses a set that lacks purged transactions, but one with transactions that the server
//! never had only when they carry its own UUID. MariaDB serves a domain it knows nothing of. Both would go on with other
//! transactions than those that were read.

use super::{MariaSet, MariaState, MySqlSet};

/// What a server can serve of the transactions after a stored set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of them.
    Reachable,
    /// It has deleted some: which, for a message.
    Purged(String),
    /// It never had some that the set holds: it is another server, one that was reset, or one that is behind. Which, for a
    /// message.
    Ahead(String),
}

/// Compares a stored set with a MySQL server's `@@gtid_purged` and `@@gtid_executed`. The ranges are sets of GTIDs.
pub fn mysql(stored: &MySqlSet, purged: &MySqlSet, executed: &MySqlSet) -> Reach {
    // First: what a server purged says little when it is the wrong one.
    let ahead = stored.subtract(executed);
    if !ahead.is_empty() {
        return Reach::Ahead(ahead.to_string());
    }
    let missing = purged.subtract(stored);
    if !missing.is_empty() {
        return Reach::Purged(missing.to_string());
    }
    Reach::Reachable
}

/// Compares a stored position with a MariaDB server's logs: `oldest` is the `Gtid_list` at the start of the first log file that
/// it holds, `state` is `@@gtid_binlog_state`.
///
/// `BINLOG_GTID_POS(first file, 4)` serves as `oldest`, too, but names one server for each domain: with several in a domain a
/// purged transaction may then pass here, and the server refuses it.
pub fn maria(stored: &MariaSet, oldest: &MariaState, state: &MariaState) -> Reach {
    let mut ahead = Vec::new();
    for gtid in stored.iter() {
        let domain = state.domain(gtid.domain);
        if domain.iter().any(|has| has.server == gtid.server && has.n >= gtid.n) {
            continue;
        }
        ahead.push(match domain.last() {
            Some(newest) => format!("{gtid} where the server is at {newest}"),
            None => format!("{gtid} where the server has nothing of domain {}", gtid.domain),
        });
    }
    if !ahead.is_empty() {
        return Reach::Ahead(ahead.join(", "));
    }
    let mut missing = Vec::new();
    for newest in oldest.newest().iter() {
        match stored.domain(newest.domain) {
            None => missing.push(format!("everything up to {newest}")),
            Some(gtid) if gtid != newest => {
                // An entry of its server that is not lower says that it stands before the first file; `newest` came after it.
                let entries = oldest.domain(gtid.domain);
                if entries.iter().any(|old| old.server == gtid.server && old.n >= gtid.n) {
                    missing.push(format!("everything after {gtid} up to {newest}"));
                }
            }
            Some(_) => {}
        }
    }
    if missing.is_empty() { Reach::Reachable } else { Reach::Purged(missing.join(", ")) }
}
