//! One connection to a server: login, statements, and the command that turns it into a stream of the log. Blocking; its users
//! run it on threads of their own.
//!
//! The session's settings are pinned after the login, whatever the server's configuration or `init_connect` say: how texts are
//! encoded and quoted, that no answer is cut, that times are UTC, and that no time-out ends a connection which merely waits.

use super::binlog::{self, reader::Bytes};
use super::dsn::Dsn;
use super::flavour::{Flavour, Version};
use super::packet::Packets;
use super::{error, login, quote};
use crate::shared::transport::Transport;
use deltaforge_core::Fault;
use deltaforge_core::config::{Tls, TlsMode};
use std::time::Duration;

/// Longest row or other message of an answer, bytes.
const MESSAGE_LIMIT: usize = 64 << 20;
/// Most that the rows of an answer hold, bytes.
const ANSWER_LIMIT: usize = 1 << 30;
/// Most columns of an answer: the servers' own limit.
const COLUMN_LIMIT: u64 = 4096;
/// How long the server may be silent while it answers.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest time-out that the servers take, seconds: a year.
const NO_TIMEOUT: u32 = 31_536_000;
/// How long a statement waits for a table that is being altered, seconds; below [`PATIENCE`], so that the server ends it.
const LOCK_WAIT: u32 = 20;

/// `COM_QUERY`.
const QUERY: u8 = 0x03;

/// Where and how to connect.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) dsn: Dsn,
    pub(super) tls: Tls,
    pub(super) tls_mode: TlsMode,
    pub(super) connect_timeout: Duration,
}

/// One row of an answer: the bytes of each column, `None` for NULL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row(Vec<Option<Vec<u8>>>);

impl Row {
    /// Reads "ProtocolText::ResultsetRow".
    fn parse(message: &[u8], columns: usize) -> binlog::Result<Row> {
        let mut bytes = Bytes::new(message);
        let mut row = Vec::with_capacity(columns);
        for _ in 0..columns {
            row.push(if bytes.peek().first() == Some(&0xfb) {
                bytes.take(1, "NULL")?;
                None
            } else {
                Some(bytes.lenenc_bytes("a column")?.to_vec())
            });
        }
        bytes.end("more than its columns")?;
        Ok(Row(row))
    }

    /// A column's bytes; `None` for NULL and for a column that is not there.
    pub(super) fn bytes(&self, column: usize) -> Option<&[u8]> {
        self.0.get(column)?.as_deref()
    }

    /// A column as text; `None` for NULL. Names and what the server itself says are UTF-8; a value that is not should be asked
    /// for as [`bytes`](Self::bytes).
    pub(super) fn maybe(&self, column: usize) -> Option<String> {
        self.bytes(column).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// A column as text, empty for NULL.
    pub(super) fn text(&self, column: usize) -> String {
        self.maybe(column).unwrap_or_default()
    }

    /// A column as a number; `None` for NULL and what is none.
    pub(super) fn number(&self, column: usize) -> Option<u64> {
        std::str::from_utf8(self.bytes(column)?).ok()?.parse().ok()
    }
}

/// An authenticated connection, ready for a statement.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) packets: Packets,
    version: Version,
    account: String,
}

impl Connection {
    /// Connects to the first host that answers, logs in and sets the session up.
    ///
    /// # Errors
    /// `Retry` when no host can be reached, `Config` when credentials, encryption or the server's version are refused.
    pub(super) fn open(target: &Target) -> Result<Connection, Fault> {
        let dsn = &target.dsn;
        if let Some(path) = &dsn.socket {
            let transport = Transport::connect_local(path).map_err(|e| error::unreachable(path, &e))?;
            return Connection::over(transport, target, "localhost");
        }
        let mut last = None;
        for address in &dsn.hosts {
            let opened = Transport::connect(&address.host, address.port, target.connect_timeout)
                .map_err(|e| error::unreachable(&address.to_string(), &e))
                .and_then(|transport| Connection::over(transport, target, &address.host));
            match opened {
                Ok(connection) => return Ok(connection),
                Err(fault) if fault.is_retry() => last = Some(fault),
                Err(fault) => return Err(fault),
            }
        }
        Err(last.unwrap_or_else(|| Fault::config("mysql.dsn", "no host in the DSN")))
    }

    fn over(transport: Transport, target: &Target, host: &str) -> Result<Connection, Fault> {
        let mut packets = Packets::new(transport, target.connect_timeout);
        let greeting = login::log_in(&mut packets, target, host)?;
        packets.patience = PATIENCE;
        let mut connection =
            Connection { packets, version: Version::parse(&greeting.version, ""), account: String::new() };
        connection.set_up()?;
        Ok(connection)
    }

    fn set_up(&mut self) -> Result<(), Fault> {
        let sql = "SELECT VERSION(), @@version_comment, CURRENT_USER(), @@lc_messages";
        let rows = self.query(sql, "asking for the version")?;
        let row = rows.into_iter().next().unwrap_or_default();
        self.version = Version::parse(&row.text(0), &row.text(1));
        let account = row.text(2);
        let (user, host) = account.rsplit_once('@').unwrap_or((&account, "%"));
        self.account = format!("{}@{}", quote::literal(user), quote::literal(host));
        if !self.version.is_supported() {
            let message = format!("the server is {}", self.version);
            return Err(
                Fault::config("mysql.version", message).hint("MySQL from 8.0 and MariaDB from 10.5 are read")
            );
        }
        let no_limit = match self.version.flavour {
            Flavour::MySql => "max_execution_time = 0",
            Flavour::MariaDb => "max_statement_time = 0",
        };
        let sql = format!(
            "SET character_set_client = utf8mb4, character_set_connection = utf8mb4, character_set_results = utf8mb4, \
             sql_mode = '', autocommit = 1, time_zone = '+00:00', sql_select_limit = 18446744073709551615, \
             sql_big_selects = 1, {no_limit}, lock_wait_timeout = {LOCK_WAIT}, wait_timeout = {NO_TIMEOUT}, \
             net_read_timeout = {NO_TIMEOUT}, net_write_timeout = {NO_TIMEOUT}"
        );
        self.query(&sql, "setting the session up")?;
        if row.text(3) != "en_US" {
            // What is wrong with a place in the log is told by sentences only. A server without its English ones says no;
            // then such a fault is less exact, and nothing else.
            let _english = self.query("SET lc_messages = 'en_US'", "asking for English messages");
        }
        Ok(())
    }

    /// Which server this is.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// MySQL or MariaDB.
    pub(super) fn flavour(&self) -> Flavour {
        self.version.flavour
    }

    /// The account that the server took this user for, as statements name it: `'cdc'@'%'`.
    pub(super) fn account(&self) -> &str {
        &self.account
    }

    /// Runs one statement; gives the rows of its answer, none for a statement without.
    ///
    /// # Errors
    /// What the server answers, classed by its number; `what` says in the message what was being done.
    pub(super) fn query(&mut self, sql: &str, what: &str) -> Result<Vec<Row>, Fault> {
        self.query_waiting(sql, what, &mut || Ok(()))
    }

    /// Like [`query`](Self::query) for a statement that may take long: `tick` is called while nothing comes, and its fault ends
    /// the wait (and leaves the connection unusable).
    pub(super) fn query_waiting(
        &mut self,
        sql: &str,
        what: &str,
        tick: &mut dyn FnMut() -> Result<(), Fault>,
    ) -> Result<Vec<Row>, Fault> {
        let mut command = Vec::with_capacity(sql.len() + 1);
        command.push(QUERY);
        command.extend_from_slice(sql.as_bytes());
        self.packets.command(&command)?;
        let first = self.packets.message_waiting(MESSAGE_LIMIT, tick)?;
        let columns = match first.first() {
            Some(0x00) => return Ok(Vec::new()),
            Some(0xff) => return Err(self.refused(&first, what)),
            Some(0xfb) => return Err(error::protocol("it asks for a file of this machine")),
            _ => Bytes::new(&first)
                .lenenc("columns")
                .ok()
                .filter(|columns| (1..=COLUMN_LIMIT).contains(columns)),
        };
        let columns = columns.ok_or_else(|| error::protocol("an answer that is none"))? as usize;
        for _ in 0..columns {
            self.packets.message_waiting(MESSAGE_LIMIT, tick)?;
        }
        if !is_end(&self.packets.message_waiting(MESSAGE_LIMIT, tick)?) {
            return Err(error::protocol("more columns than announced"));
        }
        let (mut rows, mut bytes) = (Vec::new(), 0);
        loop {
            let message = self.packets.message_waiting(MESSAGE_LIMIT, tick)?;
            if is_end(&message) {
                return Ok(rows);
            }
            if message.first() == Some(&0xff) {
                return Err(self.refused(&message, what));
            }
            bytes += message.len();
            if bytes > ANSWER_LIMIT {
                return Err(error::protocol("an answer without end"));
            }
            rows.push(
                Row::parse(&message, columns).map_err(|e| error::protocol(&format!("a row: {}", e.0)))?,
            );
        }
    }

    /// The first column of the first row.
    pub(super) fn query_text(&mut self, sql: &str, what: &str) -> Result<Option<String>, Fault> {
        Ok(self.query(sql, what)?.first().and_then(|row| row.maybe(0)))
    }

    /// Sends a command whose whole answer is OK or an error.
    pub(super) fn command(&mut self, payload: &[u8], what: &str) -> Result<(), Fault> {
        self.packets.command(payload)?;
        let answer = self.packets.message(MESSAGE_LIMIT)?;
        match answer.first() {
            Some(0x00) => Ok(()),
            Some(0xff) => Err(self.refused(&answer, what)),
            _ => Err(error::protocol("an answer that is neither OK nor an error")),
        }
    }

    /// Classes an ERR packet; a missing right comes with the statement that gives it.
    fn refused(&self, payload: &[u8], what: &str) -> Fault {
        let fault = error::from_packet(payload, what);
        if fault.code() == "mysql.no_rights" && fault.hint_text().is_none() {
            return fault.hint(self.grant_all());
        }
        fault
    }

    /// The statement that gives the account every right it needs.
    pub(super) fn grant_all(&self) -> String {
        format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO {};", self.account)
    }
}

/// "Protocol::EOF_Packet"; a row that begins with the same byte is longer than that.
fn is_end(message: &[u8]) -> bool {
    message.first() == Some(&0xfe) && message.len() < 9
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "in a test, a panic with a clear message is how a failure is reported"
    )]

    use super::*;

    #[test]
    fn a_row_keeps_every_byte_and_tells_null_from_nothing() {
        let row = Row::parse(b"\xfb\x00\x03a\xff\x00\x0242", 4).unwrap();
        assert_eq!(row.bytes(0), None);
        assert_eq!(row.bytes(1), Some(&b""[..]));
        assert_eq!(row.bytes(2), Some(&b"a\xff\x00"[..]));
        assert_eq!(row.bytes(9), None);
        assert_eq!((row.maybe(0), row.text(0), row.text(2)), (None, String::new(), "a\u{fffd}\0".into()));
        assert_eq!((row.number(3), row.number(2), row.number(0)), (Some(42), None, None));
        for (bytes, columns) in
            [(&b"\x05a"[..], 1), (b"", 1), (b"\x01a\x01b", 1), (b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff", 1)]
        {
            assert!(Row::parse(bytes, columns).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn the_end_of_an_answer_is_no_row() {
        assert!(
            is_end(&[0xfe, 0, 0, 2, 0])
                && !is_end(&[0xfe, 1, 0, 0, 0, 0, 0, 0, 0, 7])
                && !is_end(&[])
                && !is_end(&[0])
        );
    }
}
