//! What the server's and the network's errors mean for what happens next.
//!
//! An ERR packet has a number, a SQLSTATE and a sentence (MySQL reference manual, "Server Error Message Reference"; MariaDB
//! documentation, "MariaDB Error Codes"). The numbers of what both servers can say are the same. What is wrong with a place in
//! the log comes under one number, 1236, and only the sentence says what: the sentences here are those of MySQL 8.0 to 9.x and
//! MariaDB 10.5 to 12.

use deltaforge_core::fault::Kind;
use deltaforge_core::{Class, Fault};
use std::io;
use std::time::Duration;

/// Longest sentence of a server that is passed on, characters.
const SENTENCE_LIMIT: usize = 1000;

/// An ERR packet taken apart.
#[derive(Debug)]
struct ServerError {
    number: u16,
    sqlstate: String,
    message: String,
}

impl ServerError {
    /// Reads the payload of an ERR packet: `ff`, the number, from the login on `#` and five characters, the sentence.
    fn parse(payload: &[u8]) -> Option<ServerError> {
        let (head, rest) = payload.split_first_chunk::<3>().filter(|(head, _)| head[0] == 0xff)?;
        let (sqlstate, message) = match rest.split_first_chunk::<6>() {
            Some((state, message)) if state[0] == b'#' => (&state[1..], message),
            _ => (&b"HY000"[..], rest),
        };
        let message = String::from_utf8_lossy(message);
        Some(ServerError {
            number: u16::from_le_bytes([head[1], head[2]]),
            sqlstate: String::from_utf8_lossy(sqlstate).into_owned(),
            message: message.trim().chars().take(SENTENCE_LIMIT).collect(),
        })
    }
}

/// Classes the payload of an ERR packet that came after the login.
pub(super) fn from_packet(payload: &[u8], what: &str) -> Fault {
    match ServerError::parse(payload) {
        Some(error) => classify(&error, what),
        None => protocol("an error packet that is not whole"),
    }
}

/// Classes the payload of an ERR packet that came in place of the login's end. `tls_left_out`: the server offers TLS, and the
/// connection goes without it.
pub(super) fn from_login(payload: &[u8], tls_left_out: bool) -> Fault {
    const WHAT: &str = "logging in";
    let Some(error) = ServerError::parse(payload) else { return from_packet(payload, WHAT) };
    let said = said(&error, WHAT);
    let auth = |hint: &str| Fault::config("mysql.auth", said.clone()).kind(Kind::Auth).hint(hint);
    match error.number {
        // Access denied; with and without a password. Nothing else is said for an account that has `REQUIRE SSL`, and by MariaDB
        // with `require_secure_transport`.
        1044 | 1045 | 1698 if tls_left_out => auth(
            "check user and password of the DSN: SELECT user, host, plugin FROM mysql.user; or, if the server wants TLS for this \
             account, add `?ssl-mode=required` to the DSN",
        ),
        1044 | 1045 | 1698 => {
            auth("check user and password of the DSN: SELECT user, host, plugin FROM mysql.user;")
        }
        1130 => auth("let the user connect from this host: CREATE USER 'cdc'@'%' IDENTIFIED BY '…';"),
        // The account is locked: MySQL, MySQL after failed logins, MariaDB.
        3118 | 3955 | 4151 => auth("ALTER USER … ACCOUNT UNLOCK;"),
        // The account's login method is not there, or not wanted.
        1251 | 1524 | 1275 => auth(
            "ALTER USER … IDENTIFIED WITH caching_sha2_password BY '…'; on MariaDB: IDENTIFIED VIA ed25519 USING PASSWORD('…');",
        ),
        _ => classify(&error, WHAT),
    }
}

fn said(error: &ServerError, what: &str) -> String {
    format!("{what}: {} (error {}, SQLSTATE {})", error.message, error.number, error.sqlstate)
}

fn classify(error: &ServerError, what: &str) -> Fault {
    let said = said(error, what);
    match error.number {
        // `require_secure_transport`; the servers number it differently.
        _ if error.message.contains("insecure transport") => Fault::config("mysql.tls", said)
            .kind(Kind::Tls)
            .hint("add `?ssl-mode=required` to the DSN, or set tls.mode"),
        // The password has expired, or must be changed first; some servers say so only when asked for something.
        1820 | 1862 => Fault::config("mysql.auth", said).kind(Kind::Auth).hint(
            "ALTER USER CURRENT_USER() IDENTIFIED BY '…'; or let it never expire: ALTER USER … PASSWORD EXPIRE NEVER;",
        ),
        1040 | 1203 | 1226 => Fault::retry("mysql.too_many_connections", said)
            .kind(Kind::Connect)
            .hint("SET GLOBAL max_connections = 500; or raise what this user may have: ALTER USER … WITH MAX_USER_CONNECTIONS 10;"),
        1129 => Fault::retry("mysql.host_blocked", said)
            .kind(Kind::Connect)
            .hint("FLUSH HOSTS; from MySQL 8.0.23 on: TRUNCATE TABLE performance_schema.host_cache;"),
        1049 => Fault::config("mysql.no_database", said),
        // A right is missing: for a database, in general, for a statement, a table, a column, a routine.
        1044 | 1045 | 1142 | 1143 | 1227 | 1370 => Fault::config("mysql.no_rights", said).kind(Kind::Auth),
        1205 | 1213 => Fault::retry("mysql.lock_timeout", said).kind(Kind::Target),
        // Memory, disk, threads, shutdown, kill, inactivity, off-line mode.
        1021 | 1037 | 1038 | 1041 | 1053 | 1077 | 1079 | 1080 | 1135 | 1152 | 1184 | 1317 | 1927 | 3024 | 3032 | 3169
        | 4031 => Fault::retry("mysql.server_unavailable", said).kind(Kind::Connect),
        1381 => binlog_off(said),
        // Not known, not allowed: syntax, variable, value, statement, option, packet's size.
        // MariaDB has a number of its own for LOAD DATA LOCAL, 4166, without the SQLSTATE for such things.
        1064 | 1148 | 1153 | 1193 | 1231 | 1232 | 1235 | 1238 | 1289 | 1290 | 4166 => {
            Fault::config("mysql.refused", said).kind(Kind::Rejected)
        }
        _ => of_the_log(&error.message, &said).unwrap_or_else(|| {
            // Syntax error or access rule violation, by any number.
            if error.sqlstate == "42000" {
                Fault::config("mysql.refused", said).kind(Kind::Rejected)
            } else {
                Fault::retry("mysql.server_error", said).kind(Kind::Target)
            }
        }),
    }
}

/// What the sentence of a dump that has ended says, whatever its number.
fn of_the_log(message: &str, said: &str) -> Option<Fault> {
    let message = message.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| message.contains(w));
    let fault = if has(&["same server_uuid/server_id"]) {
        Fault::config("mysql.server_id_in_use", said)
            .hint("another reader has the same `server_id`: stop it, or set `server_id` of one of them to an unused number")
    } else if has(&[
        "purged required binary logs",
        "required binlog files have been purged",
        "could not find first log file name",
        "purged required gtids",
        "could not find target log",
        "purged binary logs containing gtids",
    ]) {
        Fault::lost("mysql.binlog_purged", said).hint(
            "keep the log for longer than the longest outage: SET GLOBAL binlog_expire_logs_seconds = 604800;",
        )
    } else if has(&[
        "more gtids than the",
        "start replication from position > file size",
        "start replication from impossible position",
        "start replication from position < 4",
        "which is not in the master's binlog",
        "is missing the gtid",
        "requested by the slave",
    ]) {
        Fault::lost("mysql.source_behind", said)
    } else if has(&["gtid_mode =", "anonymous transaction when auto_position", "when @@global.gtid_mode"]) {
        Fault::config("mysql.gtid_mode", said)
    } else if has(&["binary log is not open"]) {
        return Some(binlog_off(said.to_string()));
    } else if has(&["server_id was not set", "server_id is 0"]) {
        Fault::config("mysql.refused", said).hint("give the server an id: SET GLOBAL server_id = 1;")
    } else if has(&[
        "bogus data in log event",
        "could not find next log",
        "crc check",
        "did not pass checksum",
    ]) {
        Fault::lost("mysql.log_unreadable", said)
    } else {
        return None;
    };
    Some(fault)
}

/// The server keeps no log.
pub(super) fn binlog_off(said: String) -> Fault {
    Fault::config("mysql.binlog_off", said)
        .hint("add `log_bin = binlog` under [mysqld] in the server's configuration and restart the server")
}

/// No connection came about.
pub(super) fn unreachable(place: &str, e: &io::Error) -> Fault {
    Fault::retry("mysql.unreachable", format!("cannot connect to {place}: {e}")).kind(Kind::Connect)
}

/// A connection broke.
pub(super) fn lost_connection(doing: &str, e: &io::Error) -> Fault {
    Fault::retry("mysql.connection_lost", format!("the connection broke while {doing}: {e}"))
        .kind(Kind::Connect)
}

/// The server closed the connection.
pub(super) fn closed(doing: &str) -> Fault {
    Fault::retry("mysql.connection_lost", format!("the server closed the connection while {doing}"))
        .kind(Kind::Connect)
}

/// The server did not answer.
pub(super) fn timeout(doing: &str, after: Duration) -> Fault {
    let message = format!("no answer for {} s while {doing}", after.as_secs());
    Fault::retry("mysql.timeout", message).kind(Kind::Timeout)
}

/// The peer does not speak the protocol as its manual says; a new connection may.
pub(super) fn protocol(what: &str) -> Fault {
    Fault::retry("mysql.protocol", format!("the server broke the protocol: {what}")).kind(Kind::Protocol)
}

/// The log holds something that this version does not decode. Trying again gives the same, and skipping it would lose it.
pub(super) fn undecodable(what: impl std::fmt::Display, file: &str, pos: u64) -> Fault {
    let message = format!("the log at {file}:{pos} holds what cannot be decoded: {what}");
    Fault::new(Class::Bug, "mysql.undecodable", message)
        .kind(Kind::Decode)
        .hint("nothing after this place was delivered; report it with the server's version")
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "in a test, a panic with a clear message is how a failure is reported"
    )]

    use super::*;

    fn packet(number: u16, state: &str, message: &str) -> Vec<u8> {
        let mut out = vec![0xff];
        out.extend(number.to_le_bytes());
        out.extend_from_slice(state.as_bytes());
        out.extend_from_slice(message.as_bytes());
        out
    }

    #[test]
    fn an_error_packet_is_taken_apart() {
        let fault = from_packet(&packet(1146, "#42S02", "Table 'a.b' doesn't exist"), "reading the catalog");
        let said = "reading the catalog: Table 'a.b' doesn't exist (error 1146, SQLSTATE 42S02)";
        assert_eq!((fault.message(), fault.code()), (said, "mysql.server_error"));
        // Before the login there is no SQLSTATE.
        let fault = from_login(&packet(1040, "", "Too many connections"), false);
        assert_eq!(fault.message(), "logging in: Too many connections (error 1040, SQLSTATE HY000)");
        assert!(fault.hint_text().is_some());
        for cut in [&b""[..], b"\xff", b"\xff\x01", b"\x00\x01\x02"] {
            assert_eq!(from_packet(cut, "x").code(), "mysql.protocol");
            assert_eq!(from_login(cut, false).code(), "mysql.protocol");
        }
        let long = from_packet(&packet(1, "#HY000", &"ä".repeat(70_000)), "x");
        assert!(long.message().chars().count() < SENTENCE_LIMIT + 100);
    }

    #[test]
    fn the_same_number_means_another_thing_before_the_login() {
        let denied = packet(1045, "#28000", "Access denied for user 'u'@'h' (using password: YES)");
        for tls_left_out in [false, true] {
            let fault = from_login(&denied, tls_left_out);
            assert_eq!(fault.code(), "mysql.auth");
            assert_eq!(fault.hint_text().unwrap().contains("ssl-mode=required"), tls_left_out);
        }
        assert_eq!(from_packet(&denied, "registering").code(), "mysql.no_rights");
        assert_eq!(
            from_login(&packet(1053, "#08S01", "Server shutdown in progress"), true).class(),
            Class::Retry
        );
    }

    #[test]
    fn numbers_say_what_happens_next() {
        use Class::{Config, Retry};
        let cases: [(u16, &str, Class, &str); 20] = [
            (1040, "Too many connections", Retry, "mysql.too_many_connections"),
            (1129, "Host 'h' is blocked because of many connection errors", Retry, "mysql.host_blocked"),
            (1049, "Unknown database 'd'", Config, "mysql.no_database"),
            (1044, "Access denied for user 'u'@'h' to database 'd'", Config, "mysql.no_rights"),
            (1142, "SELECT command denied to user 'u'@'h' for table 't'", Config, "mysql.no_rights"),
            (
                1227,
                "Access denied; you need (at least one of) the REPLICATION SLAVE privilege(s)",
                Config,
                "mysql.no_rights",
            ),
            (
                3159,
                "Connections using insecure transport are prohibited while --require_secure_transport=ON.",
                Config,
                "mysql.tls",
            ),
            (
                4031,
                "Connections using insecure transport are prohibited while --require_secure_transport=ON.",
                Config,
                "mysql.tls",
            ),
            (
                4031,
                "The client was disconnected by the server because of inactivity.",
                Retry,
                "mysql.server_unavailable",
            ),
            (1205, "Lock wait timeout exceeded; try restarting transaction", Retry, "mysql.lock_timeout"),
            (1053, "Server shutdown in progress", Retry, "mysql.server_unavailable"),
            (1927, "Connection was killed", Retry, "mysql.server_unavailable"),
            (1317, "Query execution was interrupted", Retry, "mysql.server_unavailable"),
            (1381, "You are not using binary logging", Config, "mysql.binlog_off"),
            (1193, "Unknown system variable 'x'", Config, "mysql.refused"),
            (1064, "You have an error in your SQL syntax", Config, "mysql.refused"),
            (1290, "The MySQL server is running with the --x option", Config, "mysql.refused"),
            (
                4166,
                "The used command is not allowed because the MariaDB server or client has disabled the local infile capability",
                Config,
                "mysql.refused",
            ),
            (1146, "Table 'a.b' doesn't exist", Retry, "mysql.server_error"),
            (9999, "oops", Retry, "mysql.server_error"),
        ];
        for (number, message, class, code) in cases {
            let fault = from_packet(&packet(number, "#HY000", message), "testing");
            assert_eq!((fault.class(), fault.code()), (class, code), "{number} {message}");
        }
    }

    #[test]
    fn sentences_of_a_dump_say_what_happens_next() {
        use Class::{Config, Lost, Retry};
        let cases = [
            // MySQL 8.0, 8.4 and later, MariaDB.
            (
                "A slave with the same server_uuid/server_id as this slave has connected to the master; the first event 'b.1' at 4",
                Config,
                "mysql.server_id_in_use",
            ),
            (
                "A replica with the same server_uuid/server_id as this replica has connected to the source; the first event 'b.1' at 4",
                Config,
                "mysql.server_id_in_use",
            ),
            (
                "Cannot replicate because the master purged required binary logs. Replicate the missing transactions from elsewhere",
                Lost,
                "mysql.binlog_purged",
            ),
            (
                "Cannot replicate because the source purged required binary logs. The GTID set sent by the replica is 'a:1'",
                Lost,
                "mysql.binlog_purged",
            ),
            ("Could not find first log file name in binary log index file", Lost, "mysql.binlog_purged"),
            (
                "Could not find GTID state requested by slave in any binlog files. Probably the slave state is too old and required binlog files have been purged.",
                Lost,
                "mysql.binlog_purged",
            ),
            (
                "Slave has more GTIDs than the master has, using the master's SERVER_UUID.",
                Lost,
                "mysql.source_behind",
            ),
            (
                "Replica has more GTIDs than the source has, using the source's SERVER_UUID.",
                Lost,
                "mysql.source_behind",
            ),
            (
                "Client requested master to start replication from position > file size; the first event 'b.1' at 9",
                Lost,
                "mysql.source_behind",
            ),
            (
                "Client requested source to start replication from position > file size",
                Lost,
                "mysql.source_behind",
            ),
            (
                "Client requested master to start replication from impossible position",
                Lost,
                "mysql.source_behind",
            ),
            (
                "Error: connecting slave requested to start from GTID 0-1-3, which is not in the master's binlog",
                Lost,
                "mysql.source_behind",
            ),
            (
                "The binlog on the master is missing the GTID 0-1-3 requested by the slave (even though both a prior and a subsequent sequence number does exist), and GTID strict mode is enabled",
                Lost,
                "mysql.source_behind",
            ),
            (
                "The replication sender thread cannot start in AUTO_POSITION mode: this server has GTID_MODE = OFF_PERMISSIVE instead of ON.",
                Config,
                "mysql.gtid_mode",
            ),
            (
                "Cannot replicate anonymous transaction when AUTO_POSITION = 1, at file b.1, position 4",
                Config,
                "mysql.gtid_mode",
            ),
            ("Binary log is not open", Config, "mysql.binlog_off"),
            ("Misconfigured master - server_id was not set", Config, "mysql.refused"),
            ("bogus data in log event; the first event 'b.1' at 5", Lost, "mysql.log_unreadable"),
            ("could not find next log; the first event 'b.1' at 5", Lost, "mysql.log_unreadable"),
            ("I/O error reading log event; the first event 'b.1' at 5", Retry, "mysql.server_error"),
            (
                "binlog truncated in the middle of event; consider out of disk space on master",
                Retry,
                "mysql.server_error",
            ),
        ];
        for (message, class, code) in cases {
            // MariaDB has a number of its own for the first of them.
            for number in [1236, 1965] {
                let fault = from_packet(&packet(number, "#HY000", message), "streaming");
                assert_eq!((fault.class(), fault.code()), (class, code), "{message}");
            }
        }
    }

    #[test]
    fn undecodable_names_the_place() {
        let fault = undecodable("event type 200", "binlog.000007", 1234);
        assert_eq!(fault.class(), Class::Bug);
        assert!(fault.message().contains("binlog.000007:1234"), "{fault}");
    }
}
