//! Packets: three bytes of length, a running number, the payload; a payload of 16 MiB or more goes in several (MySQL source
//! documentation, "MySQL Packets").
//!
//! A length is checked against what may come at this place before anything is allocated for it.

use super::error;
use crate::shared::transport::{Transport, is_timeout};
use bytes::{Buf, BytesMut};
use deltaforge_core::Fault;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Payload of a packet that is followed by another of the same message, bytes.
const PART: usize = 0xff_ffff;
/// Length and number, bytes.
const HEADER: usize = 4;
/// How long the server may take to accept what is sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// First byte of an ERR packet.
const ERR: u8 = 0xff;

/// Packets over a transport.
#[derive(Debug)]
pub(super) struct Packets {
    transport: Transport,
    received: BytesMut,
    /// Number of the next packet, in either direction.
    number: u8,
    /// Longest wait for a part of an answer.
    pub(super) patience: Duration,
}

impl Packets {
    pub(super) fn new(transport: Transport, patience: Duration) -> Packets {
        Packets { transport, received: BytesMut::with_capacity(8192), number: 0, patience }
    }

    /// Whether what is sent cannot be read on the way: it is encrypted, or never leaves the machine.
    pub(super) fn is_local(&self) -> bool {
        self.transport.is_local()
    }

    /// Whether TLS is on.
    pub(super) fn is_encrypted(&self) -> bool {
        self.transport.is_encrypted()
    }

    /// Makes the TLS handshake.
    pub(super) fn encrypt(
        &mut self,
        config: Arc<rustls::ClientConfig>,
        host: &str,
        timeout: Duration,
    ) -> Result<(), Fault> {
        // Whoever sits in between could have put it there, to be taken for what the server said under TLS.
        if !self.received.is_empty() {
            return Err(error::protocol("bytes before the TLS handshake"));
        }
        self.transport.encrypt(config, host, timeout)
    }

    /// Sends the first message of an exchange.
    pub(super) fn command(&mut self, payload: &[u8]) -> Result<(), Fault> {
        self.number = 0;
        self.send(payload)
    }

    /// Sends the next message of an exchange.
    pub(super) fn send(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let mut out = Vec::with_capacity(payload.len() + HEADER);
        let mut rest = payload;
        loop {
            let (part, after) = rest.split_at(rest.len().min(PART));
            out.extend_from_slice(&(part.len() as u32).to_le_bytes()[..3]);
            out.push(self.number);
            out.extend_from_slice(part);
            self.number = self.number.wrapping_add(1);
            rest = after;
            // A whole number of full packets ends with an empty one.
            if part.len() < PART {
                break;
            }
        }
        self.transport.write_all(&out, SEND_TIMEOUT).map_err(|e| error::lost_connection("sending", &e))
    }

    /// Waits for a message of at most `limit` bytes.
    pub(super) fn message(&mut self, limit: usize) -> Result<BytesMut, Fault> {
        self.message_waiting(limit, &mut || Ok(()))
    }

    /// Like [`message`](Self::message); `tick` is called while nothing comes, and its fault ends the wait.
    pub(super) fn message_waiting(
        &mut self,
        limit: usize,
        tick: &mut dyn FnMut() -> Result<(), Fault>,
    ) -> Result<BytesMut, Fault> {
        let mut message = self.part(limit, tick)?;
        let mut last = message.len();
        while last == PART {
            let part = self.part(limit - message.len(), tick)?;
            last = part.len();
            message.extend_from_slice(&part);
        }
        Ok(message)
    }

    fn part(&mut self, limit: usize, tick: &mut dyn FnMut() -> Result<(), Fault>) -> Result<BytesMut, Fault> {
        self.fill(HEADER, tick)?;
        let (length, number) = (self.received.get_uint_le(3) as usize, self.received.get_u8());
        if length > limit {
            let message = format!("a packet of {length} bytes where at most {limit} are expected");
            return Err(error::protocol(&message));
        }
        self.fill(length, tick)?;
        let part = self.received.split_to(length);
        // An error may come unasked, for instance when the server is shut down; its number is then another.
        if number != self.number && part.first() != Some(&ERR) {
            return Err(error::protocol("packets out of order"));
        }
        self.number = number.wrapping_add(1);
        Ok(part)
    }

    /// Reads until `wanted` bytes are there.
    fn fill(&mut self, wanted: usize, tick: &mut dyn FnMut() -> Result<(), Fault>) -> Result<(), Fault> {
        let mut waited = Instant::now();
        while self.received.len() < wanted {
            let mut chunk = [0; 8192];
            match self.transport.read(&mut chunk) {
                Ok(0) => return Err(error::closed("waiting for an answer")),
                Ok(n) => {
                    self.received.extend_from_slice(&chunk[..n]);
                    waited = Instant::now();
                }
                Err(e) if is_timeout(&e) => {
                    tick()?;
                    if waited.elapsed() > self.patience {
                        return Err(error::timeout("waiting for an answer", waited.elapsed()));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(error::lost_connection("waiting for an answer", &e)),
            }
        }
        Ok(())
    }

    /// The transport, and what was read from it and not yet taken.
    pub(super) fn into_parts(self) -> (Transport, Vec<u8>) {
        (self.transport, self.received.to_vec())
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "in a test, a panic with a clear message is how a failure is reported"
    )]

    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    /// Packets to a peer that this test plays.
    fn pair() -> (Packets, UnixStream) {
        let path = std::env::temp_dir().join(format!(
            "deltaforge-packets-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let listener = UnixListener::bind(&path).unwrap();
        let transport = Transport::connect_local(&path.display().to_string()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        std::fs::remove_file(&path).unwrap();
        (Packets::new(transport, Duration::from_secs(10)), peer)
    }

    fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32).to_le_bytes()[..3], &[number], payload].concat()
    }

    #[test]
    fn messages_longer_than_a_packet_go_in_parts_both_ways() {
        for length in [0, 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 5] {
            let sent: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let (mut packets, mut peer) = pair();
            let expected = sent.clone();
            let echo = std::thread::spawn(move || {
                let (mut whole, mut number) = (Vec::new(), 0);
                loop {
                    let mut header = [0; 4];
                    peer.read_exact(&mut header).unwrap();
                    assert_eq!(header[3], number);
                    number += 1;
                    let part = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
                    let begin = whole.len();
                    whole.resize(begin + part, 0);
                    peer.read_exact(&mut whole[begin..]).unwrap();
                    if part < PART {
                        break;
                    }
                }
                assert!(whole == expected);
                for (i, part) in whole.chunks(PART).chain((length % PART == 0).then_some(&[][..])).enumerate()
                {
                    peer.write_all(&packet(number + i as u8, part)).unwrap();
                }
            });
            packets.command(&sent).unwrap();
            let back = packets.message(3 * PART).unwrap();
            assert!(back == sent, "{length}");
            echo.join().unwrap();
        }
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_its_bytes_come() {
        let (mut packets, mut peer) = pair();
        peer.write_all(&[0xff, 0xff, 0x7f, 0]).unwrap();
        let fault = packets.message(1000).unwrap_err();
        assert_eq!(fault.code(), "mysql.protocol");
        assert!(fault.message().contains("8388607 bytes"), "{fault}");
        // The sum of the parts counts.
        let (mut packets, mut peer) = pair();
        let write = std::thread::spawn(move || {
            peer.write_all(&packet(0, &vec![0; PART])).unwrap();
            peer.write_all(&packet(1, &[0; 11])).unwrap();
            peer
        });
        assert_eq!(packets.message(PART + 10).unwrap_err().code(), "mysql.protocol");
        drop(write.join().unwrap());
    }

    #[test]
    fn packets_come_in_order_and_errors_at_any_time() {
        let (mut packets, mut peer) = pair();
        peer.write_all(&[packet(0, b"a"), packet(1, b"b"), packet(0, &[ERR, 1]), packet(7, b"c")].concat())
            .unwrap();
        assert_eq!(&packets.message(10).unwrap()[..], b"a");
        assert_eq!(&packets.message(10).unwrap()[..], b"b");
        assert_eq!(&packets.message(10).unwrap()[..], [ERR, 1]);
        assert_eq!(
            packets.message(10).unwrap_err().message(),
            "the server broke the protocol: packets out of order"
        );
    }

    #[test]
    fn a_silent_or_gone_peer_is_noticed() {
        let (mut packets, mut peer) = pair();
        peer.write_all(&[5, 0, 0, 0, 1]).unwrap();
        packets.patience = Duration::from_millis(1);
        assert_eq!(packets.message(10).unwrap_err().code(), "mysql.timeout");
        drop(peer);
        assert_eq!(packets.message(10).unwrap_err().code(), "mysql.connection_lost");
        let (mut packets, _peer) = pair();
        let stop = || Err(Fault::retry("mysql.cancelled", "stopped"));
        assert_eq!(packets.message_waiting(10, &mut { stop }).unwrap_err().code(), "mysql.cancelled");
    }
}
