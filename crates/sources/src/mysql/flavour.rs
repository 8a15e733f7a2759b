//! Which server this is: MySQL or MariaDB, and its version.

use std::fmt;

/// A family of servers. They share a protocol and differ in GTIDs, log events, statements and variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Flavour {
    /// MySQL, and what is built from it: Percona Server, Aurora.
    MySql,
    /// MariaDB.
    MariaDb,
}

impl Flavour {
    /// The product's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Flavour::MySql => "MySQL",
            Flavour::MariaDb => "MariaDB",
        }
    }
}

/// Flavour and version of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) flavour: Flavour,
    pub(crate) major: u16,
    pub(crate) minor: u16,
    pub(crate) patch: u16,
}

impl Version {
    /// Reads `VERSION()` or the version of the handshake. `comment` is `@@version_comment`, empty where it is not known: a
    /// server that was told to show another version still says there what it is.
    pub(crate) fn parse(text: &str, comment: &str) -> Version {
        let says_mariadb = |text: &str| text.to_ascii_lowercase().contains("mariadb");
        let maria = says_mariadb(text) || says_mariadb(comment);
        // MariaDB 10 puts this before its version in the handshake, for old replicas that expect one digit.
        let text = text.strip_prefix("5.5.5-").filter(|_| maria).unwrap_or(text);
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        let flavour = if maria { Flavour::MariaDb } else { Flavour::MySql };
        Version { flavour, major: next(), minor: next(), patch: next() }
    }

    /// Whether the version is this one or later.
    pub(crate) fn is_at_least(&self, major: u16, minor: u16, patch: u16) -> bool {
        (self.major, self.minor, self.patch) >= (major, minor, patch)
    }

    /// Whether this program was made for the server: MySQL from 8.0, MariaDB from 10.5.
    pub(crate) fn is_supported(&self) -> bool {
        match self.flavour {
            Flavour::MySql => self.is_at_least(8, 0, 0),
            Flavour::MariaDb => self.is_at_least(10, 5, 0),
        }
    }

    /// The statement that shows the log's present end: file, offset, databases logged, databases not logged.
    pub(crate) fn show_log_status(&self) -> &'static str {
        match self.flavour {
            Flavour::MySql if self.is_at_least(8, 2, 0) => "SHOW BINARY LOG STATUS",
            _ => "SHOW MASTER STATUS",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.{}.{}", self.flavour.name(), self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_told_apart() {
        let cases = [
            ("8.4.3", "MySQL Community Server - GPL", "MySQL 8.4.3"),
            ("9.7.0-0debian1", "(Debian)", "MySQL 9.7.0"),
            ("8.0.36-28", "Percona Server (GPL), Release 28", "MySQL 8.0.36"),
            ("8.0.mysql_aurora.3.05.2", "Source distribution", "MySQL 8.0.0"),
            ("5.5.5-10.11.6-MariaDB-0+deb12u1-log", "", "MariaDB 10.11.6"),
            ("10.11.6-MariaDB-0+deb12u1-log", "Debian 12", "MariaDB 10.11.6"),
            ("11.8.2-MariaDB", "mariadb.org binary distribution", "MariaDB 11.8.2"),
            ("10.6.14", "MariaDB Server", "MariaDB 10.6.14"),
            ("5.5.5", "", "MySQL 5.5.5"),
            ("", "", "MySQL 0.0.0"),
            ("99999.1.1", "", "MySQL 0.1.1"),
        ];
        for (text, comment, shown) in cases {
            assert_eq!(Version::parse(text, comment).to_string(), shown, "{text} {comment}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let version = Version::parse("8.0.10", "");
        assert!(
            version.is_at_least(8, 0, 9) && version.is_at_least(8, 0, 10) && !version.is_at_least(8, 0, 11)
        );
        let supported = |text| Version::parse(text, "").is_supported();
        assert!(supported("8.0.11") && supported("10.5.0-MariaDB") && supported("12.0.2-MariaDB"));
        assert!(!supported("5.7.44") && !supported("10.4.30-MariaDB"));
        assert_eq!(Version::parse("8.1.9", "").show_log_status(), "SHOW MASTER STATUS");
        assert_eq!(Version::parse("8.4.0", "").show_log_status(), "SHOW BINARY LOG STATUS");
        assert_eq!(Version::parse("12.0.0-MariaDB", "").show_log_status(), "SHOW MASTER STATUS");
    }
}
