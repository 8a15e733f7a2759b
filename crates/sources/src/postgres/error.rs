//! What the server's and the network's errors mean for what happens next.

use deltaforge_core::fault::Kind;
use deltaforge_core::{Class, Fault};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorResponseBody;
use std::io;
use std::time::Duration;

/// What the server said, by its fields (manual, "Error and Notice Message Fields").
#[derive(Debug, Default)]
struct ServerError {
    sqlstate: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

/// Classes an error response by its SQLSTATE.
pub(super) fn from_server(body: &ErrorResponseBody, what: &str) -> Fault {
    let mut error = ServerError::default();
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        let text = || String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => error.sqlstate = text(),
            b'M' => error.message = text(),
            // The detail of a data error quotes the row.
            b'D' => error.detail = Some(text()),
            b'H' => error.hint = Some(text()),
            _ => {}
        }
    }
    classify(error, what)
}

/// Classes an error response of the stream, given as the body of its frame.
pub(super) fn from_stream(body: &[u8]) -> Fault {
    let mut error = ServerError::default();
    for field in body.split(|b| *b == 0).filter(|f| !f.is_empty()) {
        let text = || String::from_utf8_lossy(&field[1..]).into_owned();
        match field[0] {
            b'C' => error.sqlstate = text(),
            b'M' => error.message = text(),
            b'D' => error.detail = Some(text()),
            b'H' => error.hint = Some(text()),
            _ => {}
        }
    }
    classify(error, "streaming")
}

fn classify(error: ServerError, what: &str) -> Fault {
    let ServerError { sqlstate, message, detail, hint } = error;
    let said = format!("{what}: {message} (SQLSTATE {sqlstate})");
    let fault = match sqlstate.as_str() {
        "28P01" | "28000" => Fault::config("postgres.auth", said).kind(Kind::Auth).hint(
            "check user and password of the DSN, and that pg_hba.conf lets this role connect to the database and to `replication`",
        ),
        "25006" => Fault::config("postgres.read_only", said).kind(Kind::Rejected),
        "3D000" => Fault::config("postgres.no_database", said),
        "42501" => Fault::config("postgres.no_rights", said).kind(Kind::Auth),
        "55006" => {
            let detail = detail.map(|d| format!("; {d}")).unwrap_or_default();
            Fault::retry("postgres.slot_busy", format!("{said}{detail}"))
                .hint("another process streams from the slot; it is taken over once that one is gone")
        }
        "53400" | "53300" | "57P01" | "57P02" | "57P03" | "57014" | "40001" | "40P01" => {
            Fault::retry("postgres.server_unavailable", said).kind(Kind::Connect)
        }
        "55000" | "58P01" if is_lost_slot(&message) => Fault::lost("postgres.slot_lost", said),
        "42704" if message.contains("publication") => Fault::config("postgres.publication_missing", said),
        "0A000" | "42601" | "22023" => Fault::config("postgres.refused", said).kind(Kind::Rejected),
        _ => Fault::retry("postgres.server_error", said).kind(Kind::Target),
    };
    match hint {
        Some(hint) if fault.hint_text().is_none() => fault.hint(hint),
        _ => fault,
    }
}

/// The texts of an invalidated slot: 13–17 "can no longer get changes from replication slot", 18 "can no longer access
/// replication slot", and WAL files removed under it.
fn is_lost_slot(message: &str) -> bool {
    message.contains("can no longer")
        || message.contains("has been invalidated")
        || message.contains("has already been removed")
}

/// No connection came about.
pub(super) fn unreachable(host: &str, port: u16, e: &io::Error) -> Fault {
    Fault::retry("postgres.unreachable", format!("cannot connect to {host}:{port}: {e}")).kind(Kind::Connect)
}

/// A connection broke.
pub(super) fn lost_connection(doing: &str, e: &io::Error) -> Fault {
    Fault::retry("postgres.connection_lost", format!("the connection broke while {doing}: {e}"))
        .kind(Kind::Connect)
}

/// The server closed the connection.
pub(super) fn closed(doing: &str) -> Fault {
    Fault::retry("postgres.connection_lost", format!("the server closed the connection while {doing}"))
        .kind(Kind::Connect)
}

/// The server did not answer.
pub(super) fn timeout(doing: &str, after: Duration) -> Fault {
    let message = format!("no answer for {} s while {doing}", after.as_secs());
    Fault::retry("postgres.timeout", message).kind(Kind::Timeout)
}

/// The peer does not speak the protocol as its manual says; a new connection may.
pub(super) fn protocol(what: &str) -> Fault {
    Fault::retry("postgres.protocol", format!("the server broke the protocol: {what}")).kind(Kind::Protocol)
}

/// A library refused a message.
pub(super) fn malformed(what: &str, e: &io::Error) -> Fault {
    protocol(&format!("{what}: {e}"))
}

/// The stream holds something that this version does not decode. Trying again gives the same, and skipping it would lose it.
pub(super) fn undecodable(what: impl std::fmt::Display, lsn: super::Lsn) -> Fault {
    Fault::new(
        Class::Bug,
        "postgres.undecodable",
        format!("the log at {lsn} holds what cannot be decoded: {what}"),
    )
    .kind(Kind::Decode)
    .hint("nothing after this place was delivered; report it with the server's version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_say_what_happens_next() {
        let cases = [
            ("28P01", "password authentication failed", Class::Config, "postgres.auth"),
            ("55006", "replication slot \"s\" is active for PID 7", Class::Retry, "postgres.slot_busy"),
            (
                "55000",
                "can no longer get changes from replication slot \"s\"",
                Class::Lost,
                "postgres.slot_lost",
            ),
            (
                "58P01",
                "requested WAL segment 0001 has already been removed",
                Class::Lost,
                "postgres.slot_lost",
            ),
            ("55000", "something else", Class::Retry, "postgres.server_error"),
            ("57P01", "terminating connection", Class::Retry, "postgres.server_unavailable"),
            ("42501", "permission denied", Class::Config, "postgres.no_rights"),
            ("42704", "publication \"p\" does not exist", Class::Config, "postgres.publication_missing"),
            ("XX000", "oops", Class::Retry, "postgres.server_error"),
        ];
        for (sqlstate, message, class, code) in cases {
            let error =
                ServerError { sqlstate: sqlstate.into(), message: message.into(), ..ServerError::default() };
            let fault = classify(error, "testing");
            assert_eq!((fault.class(), fault.code()), (class, code), "{sqlstate} {message}");
        }
    }
}
