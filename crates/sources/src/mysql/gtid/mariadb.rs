//! GTIDs of MariaDB: in each domain the last transaction says it all.

use super::{show, write_number};
use std::cmp::Ordering;
use std::fmt;

/// The identifier of one transaction: `domain-server-n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MariaGtid {
    /// The stream of transactions it belongs to; numbers grow inside of one.
    pub domain: u32,
    /// `@@server_id` of the server that made it.
    pub server: u32,
    /// Its number in the domain.
    pub n: u64,
}

impl MariaGtid {
    /// Appends the text.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_number(out, self.domain);
        out.push(b'-');
        write_number(out, self.server);
        out.push(b'-');
        write_number(out, self.n);
    }

    fn parse(text: &str) -> Option<MariaGtid> {
        let mut parts = text.splitn(3, '-');
        // Digits only: Rust's `parse` would take a sign.
        let mut part = || parts.next().filter(|part| part.bytes().all(|b| b.is_ascii_digit()));
        Some(MariaGtid {
            domain: part()?.parse().ok()?,
            server: part()?.parse().ok()?,
            n: part()?.parse().ok()?,
        })
    }
}

impl fmt::Display for MariaGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, |out| self.write(out))
    }
}

/// Splits a list of identifiers.
fn list(text: &str) -> impl Iterator<Item = Result<MariaGtid, String>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.enumerate().map(|(i, part)| {
        let wrong =
            || format!("entry {} of the GTID position is not of the form `domain-server-number`", i + 1);
        MariaGtid::parse(part).ok_or_else(wrong)
    })
}

/// A position of MariaDB, as `@@gtid_binlog_pos` shows it: one transaction for each domain, which stands for itself and all
/// before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MariaSet {
    /// Sorted by domain, one for each.
    domains: Vec<MariaGtid>,
}

impl MariaSet {
    /// Reads a position's text. White space and empty entries count for nothing; a domain that comes twice is refused, as on
    /// the server.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<MariaSet, String> {
        let mut domains = list(text).collect::<Result<Vec<_>, _>>()?;
        domains.sort_by_key(|gtid| gtid.domain);
        match domains.windows(2).find(|pair| pair[0].domain == pair[1].domain) {
            Some(pair) => Err(format!("domain {} comes twice in the GTID position", pair[0].domain)),
            None => Ok(MariaSet { domains }),
        }
    }

    /// True without transactions.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// Moves a domain to a transaction that was read: what was read last counts, as on the server.
    pub fn advance(&mut self, gtid: &MariaGtid) {
        self.advanced(gtid);
    }

    /// The same; gives the entry's index, and whether the domain is new.
    pub(super) fn advanced(&mut self, gtid: &MariaGtid) -> (usize, bool) {
        match self.domains.binary_search_by_key(&gtid.domain, |gtid| gtid.domain) {
            Ok(found) => {
                self.domains[found] = *gtid;
                (found, false)
            }
            Err(at) => {
                self.domains.insert(at, *gtid);
                (at, true)
            }
        }
    }

    /// The last transaction of a domain.
    pub fn domain(&self, domain: u32) -> Option<&MariaGtid> {
        self.domains.binary_search_by_key(&domain, |gtid| gtid.domain).ok().map(|i| &self.domains[i])
    }

    /// The last transaction of each domain, by domain.
    pub fn iter(&self) -> impl Iterator<Item = &MariaGtid> {
        self.domains.iter()
    }

    /// Orders two positions; `None` when each is ahead in another domain, or when a domain's number is the same and its server
    /// another, which happens only after histories went apart. Numbers of a domain go on over a change of the server, so they
    /// are compared whatever server made them.
    pub fn compare(&self, other: &MariaSet) -> Option<Ordering> {
        let mut order = Ordering::Equal;
        let mut add = |next: Ordering| {
            let agrees = order == next || order.is_eq() || next.is_eq();
            order = order.then(next);
            agrees.then_some(())
        };
        for gtid in &self.domains {
            let Some(theirs) = other.domain(gtid.domain) else {
                add(Ordering::Greater)?;
                continue;
            };
            let next = gtid.n.cmp(&theirs.n);
            if next.is_eq() && gtid.server != theirs.server {
                return None;
            }
            add(next)?;
        }
        if other.domains.iter().any(|gtid| self.domain(gtid.domain).is_none()) {
            add(Ordering::Less)?;
        }
        Some(order)
    }

    /// Appends the text.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_noting(out, |_| ());
    }

    /// Appends the text; tells after each domain how long `out` is.
    pub(super) fn write_noting(&self, out: &mut Vec<u8>, mut note: impl FnMut(usize)) {
        for (i, gtid) in self.domains.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            gtid.write(out);
            note(out.len());
        }
    }
}

impl fmt::Display for MariaSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, |out| self.write(out))
    }
}

/// What a server has, or had at the start of a log file: for each domain the last transaction of every server.
///
/// `@@gtid_binlog_state` shows it, and the `Gtid_list` event at a file's start, which `SHOW BINLOG EVENTS` prints in brackets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MariaState {
    /// By domain; inside of a domain the newest comes last, as the server writes it.
    entries: Vec<MariaGtid>,
}

impl MariaState {
    /// Reads the text, with or without brackets.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<MariaState, String> {
        let text = text.trim();
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        Ok(list(inner.unwrap_or(text)).collect::<Result<Vec<_>, _>>()?.into_iter().collect())
    }

    /// The newest transaction of each domain.
    pub fn newest(&self) -> MariaSet {
        let mut set = MariaSet::default();
        self.entries.iter().for_each(|gtid| set.advance(gtid));
        set
    }

    /// The entries of one domain, the newest last.
    pub(super) fn domain(&self, domain: u32) -> &[MariaGtid] {
        let from = self.entries.partition_point(|gtid| gtid.domain < domain);
        let to = self.entries.partition_point(|gtid| gtid.domain <= domain);
        &self.entries[from..to]
    }
}

/// In the order in which the server lists them.
impl FromIterator<MariaGtid> for MariaState {
    fn from_iter<I: IntoIterator<Item = MariaGtid>>(gtids: I) -> MariaState {
        let mut entries: Vec<_> = gtids.into_iter().collect();
        // Stable: inside of a domain the server's order stays.
        entries.sort_by_key(|gtid| gtid.domain);
        MariaState { entries }
    }
}
