//! What an error reply of Redis means for a delivery.

use super::resp::Malformed;
use deltaforge_core::fault::{Class, Fault, Kind};
use deltaforge_net::address::Address;
use std::io;
use std::time::Duration;

/// A row of the table below: the first word of the reply, and what to do about it.
struct Meaning {
    word: &'static str,
    class: Class,
    kind: Kind,
    code: &'static str,
    hint: &'static str,
}

const fn retry(word: &'static str, code: &'static str, hint: &'static str) -> Meaning {
    Meaning { word, class: Class::Retry, kind: Kind::Target, code, hint }
}

const fn config(word: &'static str, kind: Kind, code: &'static str, hint: &'static str) -> Meaning {
    Meaning { word, class: Class::Config, kind, code, hint }
}

const MEANINGS: &[Meaning] = &[
    retry(
        "OOM",
        "redis.out_of_memory",
        "raise maxmemory, or trim streams that are read: XTRIM KEY MINID ~ ID",
    ),
    retry("LOADING", "redis.loading", "the server is reading its data after a start; nothing to do"),
    retry(
        "READONLY",
        "redis.read_only",
        "this is a replica: name the master, or use redis-sentinel://…?master=NAME",
    ),
    retry("MASTERDOWN", "redis.master_down", "the replica has lost its master"),
    retry("BUSY", "redis.busy", "a script occupies the server: SCRIPT KILL"),
    retry(
        "MISCONF",
        "redis.not_persisting",
        "the server cannot write its snapshot: see its log, free the disk",
    ),
    retry(
        "NOREPLICAS",
        "redis.too_few_replicas",
        "fewer replicas follow than min-replicas-to-write asks for",
    ),
    retry("CLUSTERDOWN", "redis.cluster_down", "some slots are not served: CLUSTER INFO"),
    retry("TRYAGAIN", "redis.resharding", "slots are being moved; nothing to do"),
    config(
        "NOAUTH",
        Kind::Auth,
        "redis.auth_refused",
        "put the password in the uri: redis://USER:PASSWORD@HOST:PORT",
    ),
    config("WRONGPASS", Kind::Auth, "redis.auth_refused", "check user and password in the uri"),
    config(
        "NOPERM",
        Kind::Auth,
        "redis.not_permitted",
        "ACL SETUSER USER ~STREAM +multi +exec +xadd +ping +type",
    ),
    config(
        "DENIED",
        Kind::Auth,
        "redis.auth_refused",
        "the server is in protected mode: set a password, and put it in the uri",
    ),
    config(
        "WRONGTYPE",
        Kind::Rejected,
        "redis.wrong_type",
        "the key holds something else than a stream: choose another stream, or DEL KEY",
    ),
    config(
        "MOVED",
        Kind::Rejected,
        "redis.is_cluster",
        "the server is part of a cluster: use redis-cluster://HOST:PORT",
    ),
    config(
        "ASK",
        Kind::Rejected,
        "redis.is_cluster",
        "the server is part of a cluster: use redis-cluster://HOST:PORT",
    ),
];

/// Errors that all begin with `ERR`, told apart by their text.
const GENERIC: &[Meaning] = &[
    retry(
        "max number of clients",
        "redis.too_many_clients",
        "raise maxclients, or close idle clients: CLIENT LIST",
    ),
    config("invalid password", Kind::Auth, "redis.auth_refused", "check the password in the uri"),
    config(
        "without any password",
        Kind::Auth,
        "redis.auth_refused",
        "the server wants no password: take it out of the uri",
    ),
    config(
        "wrong number of arguments for 'auth'",
        Kind::Auth,
        "redis.auth_refused",
        "a server before version 6 has no users: redis://:PASSWORD@HOST:PORT",
    ),
    config(
        "DB index",
        Kind::Rejected,
        "redis.no_such_database",
        "choose a database below the server's `databases`",
    ),
    config(
        "SELECT is not allowed",
        Kind::Rejected,
        "redis.no_such_database",
        "a cluster has only database 0",
    ),
    config(
        "unknown command",
        Kind::Rejected,
        "redis.unsupported",
        "streams need Redis 5 or later; check rename-command",
    ),
    config(
        "exhausted the last possible ID",
        Kind::Rejected,
        "redis.stream_exhausted",
        "the last id is the largest possible: write to another stream",
    ),
    config(
        "cluster support disabled",
        Kind::Rejected,
        "redis.not_cluster",
        "the server is not part of a cluster: use redis://",
    ),
];

/// What an error reply means. Its text is shown up to the place where it could repeat what we sent.
pub(super) fn reply_fault(address: &Address, reply: &[u8]) -> Fault {
    let text = String::from_utf8_lossy(reply);
    let word = text.split_whitespace().next().unwrap_or("");
    // "EXECABORT Transaction discarded because of: OOM command not allowed …" names the reason when EXEC itself is refused.
    if word == "EXECABORT" {
        return match text.split_once("because of: ") {
            Some((_, reason)) => reply_fault(address, reason.as_bytes()),
            None => fault(Class::Retry, Kind::Target, "redis.transaction_refused", address, &text),
        };
    }
    let generic = || GENERIC.iter().find(|m| text.contains(m.word));
    match MEANINGS.iter().find(|m| m.word == word).or_else(generic) {
        Some(m) => fault(m.class, m.kind, m.code, address, &text).hint(m.hint),
        None => fault(Class::Retry, Kind::Target, "redis.refused", address, &text),
    }
}

/// The same of a server of a cluster: there redirections are no mistake of the settings, the slot has moved or is being moved.
pub(super) fn reply_fault_of(in_cluster: bool, address: &Address, reply: &[u8]) -> Fault {
    let is_redirection = reply.starts_with(b"MOVED ") || reply.starts_with(b"ASK ");
    match in_cluster && is_redirection {
        true => reply_fault(address, b"TRYAGAIN the slot is being moved, or has been"),
        false => reply_fault(address, reply),
    }
}

fn fault(class: Class, kind: Kind, code: &'static str, address: &Address, text: &str) -> Fault {
    // "unknown command `X`, with args beginning with: …" repeats the arguments, which hold values and passwords.
    let text = text.split(", with args").next().unwrap_or("");
    let text: String = text.chars().take(200).collect();
    Fault::new(class, code, format!("{address} answered: {text}")).kind(kind)
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
    Fault::retry("redis.connection_lost", format!("the connection to {address} is lost: {what}"))
        .kind(Kind::Connect)
}

/// No answer in time.
pub(super) fn timed_out(address: &Address, setting: &'static str, limit: Duration) -> Fault {
    let secs = limit.as_secs();
    Fault::retry("redis.timeout", format!("{address} gave no answer within {setting} = {secs}"))
        .kind(Kind::Timeout)
        .hint(format!("see what the server does (SLOWLOG GET, CLIENT LIST), or raise {setting}"))
}

/// The peer does not speak the protocol.
pub(super) fn malformed(address: &Address, what: Malformed) -> Fault {
    let Malformed(what) = what;
    Fault::retry("redis.protocol", format!("{address} does not answer as Redis does: {what}"))
        .kind(Kind::Protocol)
        .hint("check that host and port are those of a Redis; one that speaks only TLS is rediss://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reply_has_a_class_and_a_code() {
        let address = Address { host: "h".into(), port: 1 };
        let cases = [
            ("OOM command not allowed when used memory > 'maxmemory'.", Class::Retry, "redis.out_of_memory"),
            (
                "EXECABORT Transaction discarded because of: OOM command not allowed",
                Class::Retry,
                "redis.out_of_memory",
            ),
            (
                "EXECABORT Transaction discarded because of previous errors.",
                Class::Retry,
                "redis.transaction_refused",
            ),
            ("LOADING Redis is loading the dataset in memory", Class::Retry, "redis.loading"),
            ("READONLY You can't write against a read only replica.", Class::Retry, "redis.read_only"),
            ("NOAUTH Authentication required.", Class::Config, "redis.auth_refused"),
            (
                "WRONGPASS invalid username-password pair or user is disabled.",
                Class::Config,
                "redis.auth_refused",
            ),
            (
                "ERR AUTH <password> called without any password configured",
                Class::Config,
                "redis.auth_refused",
            ),
            (
                "NOPERM this user has no permissions to run the 'xadd' command",
                Class::Config,
                "redis.not_permitted",
            ),
            ("WRONGTYPE Operation against a key", Class::Config, "redis.wrong_type"),
            ("MOVED 3999 127.0.0.1:6381", Class::Config, "redis.is_cluster"),
            ("ERR DB index is out of range", Class::Config, "redis.no_such_database"),
            ("ERR something new", Class::Retry, "redis.refused"),
            ("", Class::Retry, "redis.refused"),
        ];
        for (reply, class, code) in cases {
            let fault = reply_fault(&address, reply.as_bytes());
            assert_eq!((fault.class(), fault.code()), (class, code), "{reply}");
        }
        let reply = b"ERR unknown command 'XADD', with args beginning with: 's' '*' 'df-event' 'secret' ";
        let fault = reply_fault(&address, reply);
        assert_eq!(fault.code(), "redis.unsupported");
        assert!(!fault.to_string().contains("secret"), "{fault}");
    }
}
