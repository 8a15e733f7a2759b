//! What the errors of NATS mean for a delivery.
//!
//! Three voices: the server's (`-ERR 'text'`), JetStream's (an error with a number in an answer), and silence.

use super::protocol::Malformed;
use deltaforge_core::EventId;
use deltaforge_core::fault::{Class, Fault, Kind};
use deltaforge_net::address::Address;
use std::io;
use std::time::Duration;

/// A row of the tables below.
struct Meaning<M> {
    mark: M,
    class: Class,
    kind: Kind,
    code: &'static str,
    hint: &'static str,
}

const fn row<M: Copy>(
    mark: M,
    class: Class,
    kind: Kind,
    code: &'static str,
    hint: &'static str,
) -> Meaning<M> {
    Meaning { mark, class, kind, code, hint }
}

use Class::{Config, Retry};

/// By a part of the text, in lower case; the first that fits.
const SPOKEN: &[Meaning<&str>] = &[
    row(
        "authentication timeout",
        Retry,
        Kind::Timeout,
        "nats.timeout",
        "the server is slow to let clients in: see its log",
    ),
    row(
        "authorization violation",
        Config,
        Kind::Auth,
        "nats.auth_refused",
        "check username and password, token, nkey or credentials_file",
    ),
    row(
        "authentication expired",
        Config,
        Kind::Auth,
        "nats.auth_refused",
        "the user's or account's JWT has expired: make new credentials",
    ),
    row(
        "authentication revoked",
        Config,
        Kind::Auth,
        "nats.auth_refused",
        "the user's credentials were revoked: make new ones",
    ),
    row(
        "maximum control line exceeded",
        Config,
        Kind::Rejected,
        "nats.line_too_long",
        "the server's max_control_line is below its default of 4096: raise it, or shorten `subject`",
    ),
    // The limit was lowered since the server told it; the next connection knows it, and which event it is.
    row(
        "maximum payload violation",
        Retry,
        Kind::TooLarge,
        "nats.limit_lowered",
        "nothing: the next connection takes the server's new max_payload",
    ),
    row(
        "permissions violation for publish",
        Config,
        Kind::Auth,
        "nats.not_permitted",
        "allow this user to publish to the sink's subjects and, with a stream, to $JS.API.>",
    ),
    row(
        "permissions violation for subscription",
        Config,
        Kind::Auth,
        "nats.not_permitted",
        "allow this user to subscribe to _INBOX.>",
    ),
    row(
        "maximum connections exceeded",
        Retry,
        Kind::Throttled,
        "nats.too_many_connections",
        "raise max_connections on the server, or close idle clients",
    ),
    row(
        "maximum account active connections",
        Retry,
        Kind::Throttled,
        "nats.too_many_connections",
        "raise the account's limit of connections",
    ),
    row("stale connection", Retry, Kind::Connect, "nats.connection_lost", ""),
    row("server shutdown", Retry, Kind::Connect, "nats.connection_lost", ""),
];

/// By JetStream's own number.
const NUMBERED: &[Meaning<u64>] = &[
    row(10002, Retry, Kind::Target, "nats.storage_full", "raise the account's JetStream limits"),
    row(
        10023,
        Retry,
        Kind::Target,
        "nats.storage_full",
        "raise max_file_store or max_memory_store, or free space",
    ),
    row(10028, Retry, Kind::Target, "nats.storage_full", "raise max_memory_store, or free memory"),
    row(10047, Retry, Kind::Target, "nats.storage_full", "raise max_file_store, or free space"),
    row(
        10077,
        Retry,
        Kind::Target,
        "nats.storage_full",
        "raise the stream's limits: nats stream edit NAME; or free the server's disk",
    ),
    row(
        10122,
        Retry,
        Kind::Target,
        "nats.storage_full",
        "raise the stream's max_bytes: nats stream edit NAME",
    ),
    row(
        10039,
        Config,
        Kind::Rejected,
        "nats.jetstream_disabled",
        "give the account JetStream limits, or leave `stream` out for core NATS",
    ),
    row(
        10076,
        Config,
        Kind::Rejected,
        "nats.jetstream_disabled",
        "start the server with -js, or leave `stream` out for core NATS",
    ),
    row(
        10059,
        Config,
        Kind::Rejected,
        "nats.stream_not_found",
        "nats stream add NAME --subjects …, or let `create_stream` do it",
    ),
    row(
        10060,
        Config,
        Kind::Rejected,
        "nats.subject_not_taken",
        "the subject belongs to another stream: change `stream` or `subject`",
    ),
    row(
        10065,
        Config,
        Kind::Rejected,
        "nats.subjects_overlap",
        "another stream takes these subjects: change create_stream.subjects",
    ),
    row(
        10109,
        Config,
        Kind::Rejected,
        "nats.stream_sealed",
        "the stream is sealed for ever: write to another one",
    ),
    row(
        10008,
        Retry,
        Kind::Target,
        "nats.no_leader",
        "nothing, while a leader is elected; if it lasts: nats server report jetstream",
    ),
    row(
        10009,
        Retry,
        Kind::Target,
        "nats.no_leader",
        "nothing, while a leader is elected; if it lasts: nats server report jetstream",
    ),
    row(10118, Retry, Kind::Target, "nats.no_leader", "the stream is offline: nats stream report"),
    row(10167, Retry, Kind::Throttled, "nats.throttled", "the stream takes no more for the moment"),
    row(
        10158,
        Retry,
        Kind::Target,
        "nats.duplicate",
        "an earlier connection has just sent the same event; nothing to do",
    ),
];

/// An error of JetStream in an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ApiError {
    /// `err_code`; 0 where an answer has none.
    pub(super) number: u64,
    /// `description`.
    pub(super) text: String,
}

impl ApiError {
    /// The expected last sequence or message id is not the last one.
    pub(super) fn is_wrong_last(&self) -> bool {
        matches!(self.number, 10070 | 10071 | 10164)
    }

    /// The stream holds an event already, or is about to.
    pub(super) fn is_duplicate(&self) -> bool {
        matches!(self.number, 10158 | 10201)
    }

    /// The stream or server does not take batches as this sink writes them.
    pub(super) fn is_no_atomic_batches(&self) -> bool {
        matches!(self.number, 10174 | 10177 | 10199 | 10205)
    }

    /// What it means for a stream that was to be made.
    pub(super) fn fault_of_create(&self, address: &Address) -> Fault {
        // 10052: an impossible setting; 10074: replicas without a cluster; 10113: the account wants max_bytes; 10122: more than
        // the account may have.
        if !matches!(self.number, 10052 | 10074 | 10113 | 10122) {
            return self.fault(address, None);
        }
        let text: String = self.text.chars().take(200).collect();
        Fault::config(
            "nats.create_stream",
            format!("{address} does not make the stream: {text} ({})", self.number),
        )
        .kind(Kind::Rejected)
        .hint("change `create_stream`, or make the stream by hand: nats stream add")
    }

    /// What it means. `event` is the one that was refused, if it is known.
    pub(super) fn fault(&self, address: &Address, event: Option<EventId>) -> Fault {
        let text: String = self.text.chars().take(200).collect();
        let message = format!("{address} answered: {text} ({})", self.number);
        // 10054: above the stream's max_msg_size; 10097: headers too large.
        if let (10054 | 10097, Some(event)) = (self.number, event) {
            return Fault::new(Class::Data, "nats.event_too_large", message)
                .kind(Kind::TooLarge)
                .event(event)
                .hint("raise the stream's max_msg_size: nats stream edit NAME");
        }
        match NUMBERED.iter().find(|row| row.mark == self.number) {
            Some(row) => Fault::new(row.class, row.code, message).kind(row.kind).hint(row.hint),
            None => Fault::retry("nats.refused", message).kind(Kind::Target),
        }
    }
}

/// What the server said before it closes the connection, or about one operation.
pub(super) fn spoken(address: &Address, text: &[u8]) -> Fault {
    let text = String::from_utf8_lossy(text);
    let text = text.trim().trim_matches('\'');
    let lower = text.to_ascii_lowercase();
    // `Permissions Violation for Publish to "subject"`: a subject may hold a row's values.
    let shown: String = text.split(" to \"").next().unwrap_or("").chars().take(120).collect();
    let message = format!("{address} answered: {shown}");
    match SPOKEN.iter().find(|row| lower.contains(row.mark)) {
        Some(row) if row.hint.is_empty() => Fault::new(row.class, row.code, message).kind(row.kind),
        Some(row) => Fault::new(row.class, row.code, message).kind(row.kind).hint(row.hint),
        None => Fault::retry("nats.refused", message).kind(Kind::Target),
    }
}

/// As [`spoken`], on a connection that was logged in: what has expired or was revoked may have been renewed in its file, which
/// the next connection reads.
pub(super) fn spoken_alive(address: &Address, text: &[u8]) -> Fault {
    let fault = spoken(address, text);
    if fault.code() != "nats.auth_refused" {
        return fault;
    }
    Fault::retry("nats.credentials_expired", fault.message().to_owned())
        .kind(Kind::Auth)
        .hint("renew the credentials; files are read anew for each connection")
}

/// Nobody takes what is published to the stream's subjects.
pub(super) fn no_responders(address: &Address) -> Fault {
    Fault::retry("nats.no_stream", format!("no stream took the message that was sent to {address}"))
        .kind(Kind::Target)
        .hint("the stream was deleted, takes other subjects now, or has no leader: nats stream info NAME")
}

/// Core NATS: nobody is subscribed.
pub(super) fn no_listeners(address: &Address) -> Fault {
    Fault::retry("nats.no_listeners", format!("nobody is subscribed to a subject of the batch at {address}"))
        .kind(Kind::Target)
        .hint("start the subscriber; or name a `stream`, which keeps what nobody listens to yet")
}

/// The connection broke.
pub(super) fn broken(address: &Address, error: &io::Error) -> Fault {
    if error.get_ref().is_some_and(|e| e.is::<rustls::Error>()) {
        return deltaforge_net::tls::handshake_fault(&address.to_string(), error);
    }
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        _ => error.to_string(),
    };
    Fault::retry("nats.connection_lost", format!("the connection to {address} is lost: {what}"))
        .kind(Kind::Connect)
}

/// No answer in time.
pub(super) fn timed_out(address: &Address, setting: &'static str, limit: Duration) -> Fault {
    let secs = limit.as_secs();
    Fault::retry("nats.timeout", format!("{address} gave no answer within {setting} = {secs}"))
        .kind(Kind::Timeout)
        .hint(format!("see whether the stream has a leader (nats stream info NAME), or raise {setting}"))
}

/// The peer does not speak the protocol.
pub(super) fn malformed(address: &Address, what: &Malformed) -> Fault {
    Fault::retry("nats.protocol", format!("{address} does not answer as NATS does: {}", what.0))
        .kind(Kind::Protocol)
        .hint("check that host and port are those of a NATS server for clients")
}

/// An event with more headers than JetStream stores.
pub(super) fn too_many_headers(bytes: usize, limit: usize, event: EventId) -> Fault {
    let message = format!("the event's headers take {bytes} bytes, a message's can take {limit}");
    Fault::new(Class::Data, "nats.event_too_large", message)
        .kind(Kind::TooLarge)
        .event(event)
        .hint("leave large columns out of `key` and `headers`")
}

/// An event above the server's or stream's limit.
pub(super) fn too_large(bytes: usize, limit: usize, setting: &'static str, event: EventId) -> Fault {
    let message = format!("the event takes {bytes} bytes with its headers, {setting} is {limit}");
    Fault::new(Class::Data, "nats.event_too_large", message)
        .kind(Kind::TooLarge)
        .event(event)
        .hint(format!("raise {setting}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_voice_has_a_class_and_a_code() {
        let address = Address { host: "h".into(), port: 1 };
        let spoken = |text: &str| {
            let fault = spoken(&address, text.as_bytes());
            (fault.class(), fault.code(), fault.message().to_owned())
        };
        assert_eq!(spoken("'Authorization Violation'").1, "nats.auth_refused");
        assert_eq!(spoken("'User Authentication Expired'").0, Class::Config);
        assert_eq!(spoken("'Authentication Timeout'").0, Class::Retry);
        let (class, code, message) = spoken("'Permissions Violation for Publish to \"shop.secret\"'");
        assert_eq!((class, code), (Class::Config, "nats.not_permitted"));
        assert!(!message.contains("secret"), "{message}");
        assert_eq!(spoken("'Something New'").1, "nats.refused");
        assert_eq!(spoken("'maximum control line exceeded'").0, Class::Config);
        assert_eq!(spoken("'Maximum Payload Violation'").0, Class::Retry);
        let alive = |text: &str| spoken_alive(&address, text.as_bytes()).class();
        assert_eq!(alive("'User Authentication Expired'"), Class::Retry);
        assert_eq!(alive("'Permissions Violation for Publish to \"a\"'"), Class::Config);
        for number in [10052, 10074, 10113, 10122] {
            assert_eq!(
                ApiError { number, text: "x".into() }.fault_of_create(&address).class(),
                Class::Config
            );
        }
        let numbered =
            |number| ApiError { number, text: "x".into() }.fault(&address, Some(EventId::default()));
        for (number, class, code) in [
            (10077, Class::Retry, "nats.storage_full"),
            (10059, Class::Config, "nats.stream_not_found"),
            (10076, Class::Config, "nats.jetstream_disabled"),
            (10054, Class::Data, "nats.event_too_large"),
            (10008, Class::Retry, "nats.no_leader"),
            (10999, Class::Retry, "nats.refused"),
        ] {
            assert_eq!((numbered(number).class(), numbered(number).code()), (class, code), "{number}");
        }
    }
}
