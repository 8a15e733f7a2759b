#![allow(
    clippy::unwrap_used,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

use super::*;

/// A greeting as MySQL 8 sends it, with a method and capabilities of the test's choice.
fn greeting(capabilities: u32, challenge: &[u8], method: &str) -> Vec<u8> {
    let mut out = vec![10];
    out.extend_from_slice(b"8.4.3\0");
    out.extend_from_slice(&77_u32.to_le_bytes());
    out.extend_from_slice(&challenge[..8]);
    out.push(0);
    out.extend_from_slice(&(capabilities as u16).to_le_bytes());
    out.extend_from_slice(&[255, 2, 0]);
    out.extend_from_slice(&((capabilities >> 16) as u16).to_le_bytes());
    out.push(challenge.len() as u8 + 1);
    out.extend_from_slice(&[0; 10]);
    out.extend_from_slice(&challenge[8..]);
    out.push(0);
    out.extend_from_slice(method.as_bytes());
    out.push(0);
    out
}

const ALL: u32 = 0xdfff_ffff;
const NONCE: &[u8; 20] = b"abcdefghijklmnopqrst";

#[test]
fn a_greeting_is_read() {
    let read = Greeting::parse(&greeting(ALL, NONCE, "caching_sha2_password")).unwrap();
    let expected = Greeting {
        version: "8.4.3".into(),
        capabilities: ALL,
        challenge: NONCE.to_vec(),
        method: b"caching_sha2_password".to_vec(),
    };
    assert_eq!(read, expected);
    // A challenge of 32 bytes, and a name without its end, as old servers send it.
    let long = [7; 32];
    let mut bytes = greeting(ALL, &long, "client_ed25519");
    bytes.pop();
    let read = Greeting::parse(&bytes).unwrap();
    assert_eq!((read.challenge.as_slice(), read.method.as_slice()), (&long[..], &b"client_ed25519"[..]));
}

#[test]
fn no_greeting_makes_it_panic() {
    let whole = greeting(ALL, NONCE, "caching_sha2_password");
    // The name at its end may be cut without harm.
    for end in 0..whole.len() - 22 {
        assert!(Greeting::parse(&whole[..end]).is_err(), "{end}");
    }
    for at in 0..whole.len() {
        for byte in 0..=255 {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            let _read_or_refused = Greeting::parse(&bytes);
        }
    }
    assert!(Greeting::parse(b"SSH-2.0-OpenSSH_9.2\r\n").is_err());
}

#[test]
fn the_response_is_laid_out_as_servers_read_it() {
    let out = response(0x0008_a205, "cdc", &[1, 2, 3], b"mysql_native_password");
    assert_eq!(out[..4], [0x05, 0xa2, 0x08, 0x00]);
    assert_eq!(out[8], COLLATION);
    assert_eq!(&out[9..32], [0; 23]);
    assert_eq!(&out[32..40], b"cdc\0\x03\x01\x02\x03");
    assert_eq!(&out[40..], b"mysql_native_password\0");
    let with = response(capability::CONNECT_ATTRS, "cdc", &[], b"x");
    let attributes = &with[32 + 4 + 1 + 2..];
    assert_eq!(usize::from(attributes[0]), attributes.len() - 1);
    assert!(attributes[1..].starts_with(b"\x0c_client_name\x0adeltaforge"));
}

#[test]
fn files_of_this_machine_are_never_offered() {
    const LOCAL_FILES: u32 = 1 << 7;
    const MULTI_STATEMENTS: u32 = 1 << 16;
    assert_eq!(capability::USED & (LOCAL_FILES | MULTI_STATEMENTS), 0);
}

// --- peers that are no honest server -----------------------------------------------------------------------------------

use crate::mysql::dsn::Dsn;
use crate::shared::transport::Transport;
use deltaforge_core::Class;
use deltaforge_core::config::{Secret, Tls};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

const PASSWORD: &str = "correct horse battery staple";
const SSL: u32 = capability::SSL;

fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_le_bytes()[..3], &[number], payload].concat()
}

/// A packet that the client sent.
fn read(peer: &mut TcpStream) -> Vec<u8> {
    let mut header = [0; 4];
    peer.read_exact(&mut header).unwrap();
    let mut payload = vec![0; usize::from(header[0]) + (usize::from(header[1]) << 8)];
    peer.read_exact(&mut payload).unwrap();
    payload
}

/// Logs in, over TCP, to a peer that does what the script says. Gives what came of it, and everything that the peer was sent
/// after the script was over.
fn log_in_to(
    mode: TlsMode,
    script: impl FnOnce(&mut TcpStream) + Send + 'static,
) -> (Result<Greeting, Fault>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let peer = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        script(&mut peer);
        let mut rest = Vec::new();
        let _reset = peer.read_to_end(&mut rest);
        rest
    });
    let timeout = Duration::from_secs(20);
    let mut packets =
        Packets::new(Transport::connect("127.0.0.1", address.port(), timeout).unwrap(), timeout);
    let mut dsn = Dsn::parse("mysql://cdc@h").unwrap();
    dsn.password = Some(Secret::new(PASSWORD));
    let target = Target { dsn, tls: Tls::default(), tls_mode: mode, connect_timeout: timeout };
    let result = log_in(&mut packets, &target, "127.0.0.1");
    drop(packets);
    (result, peer.join().unwrap())
}

#[track_caller]
fn refused(result: Result<Greeting, Fault>, class: Class, code: &str, words: &str) {
    let fault = result.unwrap_err();
    assert_eq!((fault.class(), fault.code()), (class, code), "{fault}");
    assert!(fault.message().contains(words), "{fault}");
    assert!(!fault.to_string().contains(PASSWORD), "{fault}");
}

/// A peer that greets, reads the response and then sends these packets, reading an answer between them.
fn asks(method: &'static str, messages: Vec<Vec<u8>>) -> (Result<Greeting, Fault>, Vec<u8>) {
    log_in_to(TlsMode::Prefer, move |peer| {
        peer.write_all(&packet(0, &greeting(ALL & !SSL, NONCE, method))).unwrap();
        let response = read(peer);
        assert!(!response.windows(PASSWORD.len()).any(|w| w == PASSWORD.as_bytes()));
        let count = messages.len();
        for (i, message) in messages.into_iter().enumerate() {
            peer.write_all(&packet(2 + 2 * i as u8, &message)).unwrap();
            if i + 1 < count {
                read(peer);
            }
        }
    })
}

fn switch(method: &str, challenge: &[u8]) -> Vec<u8> {
    [&[0xfe], method.as_bytes(), &[0], challenge].concat()
}

#[test]
fn the_password_is_not_given_away() {
    use Class::{Config, Retry};
    let clear = |challenge: &[u8]| vec![switch("mysql_clear_password", challenge)];
    let full = vec![0x01, 0x04];
    let cases = [
        (asks("mysql_native_password", clear(&[])), Config, "mysql.auth", "not encrypted"),
        (asks("mysql_clear_password", clear(&[0; 20])), Config, "mysql.auth", "not encrypted"),
        (asks("mysql_native_password", vec![vec![0xfe]]), Config, "mysql.auth", "`mysql_old_password`"),
        (
            asks("mysql_native_password", vec![switch("dialog", b"\x04Password: ")]),
            Config,
            "mysql.auth",
            "`dialog`",
        ),
        (asks("caching_sha2_password", vec![vec![0x02]]), Config, "mysql.auth", "second factor"),
        (
            asks("caching_sha2_password", vec![full.clone(), b"\x01no key".to_vec()]),
            Retry,
            "mysql.protocol",
            "RSA key",
        ),
        (asks("caching_sha2_password", vec![full.clone(), full]), Retry, "mysql.protocol", "RSA key"),
        (
            asks("caching_sha2_password", vec![switch("sha256_password", NONCE), b"\x01-----".to_vec()]),
            Retry,
            "mysql.protocol",
            "RSA key",
        ),
    ];
    for ((result, rest), class, code, words) in cases {
        refused(result, class, code, words);
        assert!(rest.is_empty(), "{words}: {rest:x?}");
    }
}

#[test]
fn a_login_that_leads_nowhere_ends() {
    use Class::Retry;
    let cases = [
        (asks("mysql_native_password", vec![b"\x01more".to_vec()]), "nothing was left"),
        (asks("mysql_native_password", vec![vec![]]), "nothing was left"),
        (asks("caching_sha2_password", vec![b"\x01\x09".to_vec()]), "`caching_sha2_password`"),
        (asks("mysql_native_password", vec![switch("client_ed25519", &[1; 31])]), "`client_ed25519`"),
        (
            asks("mysql_native_password", vec![switch("caching_sha2_password", &[1; 19])]),
            "`caching_sha2_password`",
        ),
        (
            asks(
                "mysql_native_password",
                (0..ROUNDS).map(|_| switch("mysql_native_password", NONCE)).collect(),
            ),
            "without end",
        ),
    ];
    for ((result, _), words) in cases {
        refused(result, Retry, "mysql.protocol", words);
    }
}

#[test]
fn whoever_is_no_server_is_told_so() {
    use Class::{Config, Retry};
    let says = |bytes: Vec<u8>| log_in_to(TlsMode::Prefer, move |peer| peer.write_all(&bytes).unwrap()).0;
    refused(says(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), Retry, "mysql.protocol", "a packet of");
    refused(says(packet(0, b"hello")), Retry, "mysql.protocol", "greeting");
    refused(
        says(packet(0, b"\xff\x10\x04Too many connections")),
        Retry,
        "mysql.too_many_connections",
        "Too many",
    );
    refused(says(packet(0, b"\xff\x69\x04Host 'h' is blocked")), Retry, "mysql.host_blocked", "blocked");
    refused(
        says(packet(0, b"\xff\x6a\x04Host 'h' is not allowed to connect")),
        Config,
        "mysql.auth",
        "not allowed",
    );
    refused(says(packet(0, &greeting(0x0000_ffff, NONCE, ""))), Config, "mysql.version", "too old");
}

#[test]
fn nothing_is_sent_in_clear_where_tls_is_wanted() {
    for mode in [TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let (result, sent) = log_in_to(mode, |peer| {
            peer.write_all(&packet(0, &greeting(ALL & !SSL, NONCE, "caching_sha2_password"))).unwrap();
        });
        refused(result, Class::Config, "mysql.tls", mode.as_str());
        assert!(sent.is_empty(), "{mode:?}: {sent:x?}");
    }
}

/// What comes before the handshake is not what the server says under TLS.
#[test]
fn bytes_before_the_tls_handshake_are_refused() {
    let (result, sent) = log_in_to(TlsMode::Require, |peer| {
        let both =
            [packet(0, &greeting(ALL, NONCE, "caching_sha2_password")), packet(3, &[0, 0, 0, 2, 0])].concat();
        peer.write_all(&both).unwrap();
    });
    refused(result, Class::Retry, "mysql.protocol", "before the TLS handshake");
    // The request for TLS has no user yet.
    assert_eq!(sent.len(), 4 + 32);
}
