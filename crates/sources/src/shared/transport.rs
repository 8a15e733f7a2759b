//! Bytes to and from a server: TCP or a local socket, plain or encrypted.

use deltaforge_core::Fault;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a blocking read waits before its caller is asked whether to go on.
const READ_TICK: Duration = Duration::from_millis(250);

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A byte stream to a server.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: Socket,
    tls: Option<Box<rustls::ClientConnection>>,
}

impl Transport {
    /// Connects over TCP, to the first of the name's addresses that answers.
    pub(crate) fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<Transport> {
        let mut last = io::Error::other("the name has no address");
        let connected = (host, port)
            .to_socket_addrs()?
            .find_map(|address| TcpStream::connect_timeout(&address, timeout).map_err(|e| last = e).ok());
        let stream = connected.ok_or(last)?;
        // A peer that vanished without a word is noticed also while nothing is to be sent.
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(30))
            .with_interval(Duration::from_secs(10));
        stream.set_nodelay(true)?;
        socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Transport::over(Socket::Tcp(stream))
    }

    /// Connects to a local socket.
    pub(crate) fn connect_local(path: &str) -> io::Result<Transport> {
        Transport::over(Socket::Unix(UnixStream::connect(path)?))
    }

    fn over(socket: Socket) -> io::Result<Transport> {
        let transport = Transport { socket, tls: None };
        transport.read_timeout(Some(READ_TICK))?;
        Ok(transport)
    }

    /// Whether the server is reached without a network.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.socket, Socket::Unix(_))
    }

    /// Whether TLS is on.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    fn read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(s) => s.set_read_timeout(timeout),
            Socket::Unix(s) => s.set_read_timeout(timeout),
        }
    }

    /// Makes the TLS handshake.
    pub(crate) fn encrypt(
        &mut self,
        config: Arc<rustls::ClientConfig>,
        host: &str,
        timeout: Duration,
    ) -> Result<(), Fault> {
        let name = deltaforge_net::tls::server_name(host)?;
        let failed = |e: &io::Error| deltaforge_net::tls::handshake_fault(host, e);
        let mut tls =
            rustls::ClientConnection::new(config, name).map_err(|e| failed(&io::Error::other(e)))?;
        self.read_timeout(Some(timeout)).map_err(|e| failed(&e))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut self.socket).map_err(|e| failed(&e))?;
        }
        self.read_timeout(Some(READ_TICK)).map_err(|e| failed(&e))?;
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    /// Reads what is there. `WouldBlock` or `TimedOut` when nothing came.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.read(into),
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.socket).read(into),
        }
    }

    /// Reads one byte of the plain stream.
    pub(crate) fn read_byte(&mut self, timeout: Duration) -> io::Result<u8> {
        let begun = Instant::now();
        let mut byte = [0];
        loop {
            match self.socket.read(&mut byte) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(byte[0]),
                Err(e) if is_timeout(&e) && begun.elapsed() < timeout => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Writes everything, also on a socket that does not block.
    pub(crate) fn write_all(&mut self, bytes: &[u8], timeout: Duration) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = match &mut self.tls {
                None => self.socket.write(rest),
                // Takes nothing while what it has encrypted is not sent.
                Some(tls) => tls.writer().write(rest),
            };
            match written {
                Ok(n) => rest = &rest[n..],
                Err(e) if is_timeout(&e) => self.wait_writable(deadline)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            self.send_encrypted(deadline)?;
        }
        Ok(())
    }

    /// Sends what TLS has ready.
    fn send_encrypted(&mut self, deadline: Instant) -> io::Result<()> {
        while let Some(tls) = self.tls.as_mut().filter(|tls| tls.wants_write()) {
            match tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(e) if is_timeout(&e) => self.wait_writable(deadline)?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn wait_writable(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        poll(&mut [PollFd::new(self, PollFlags::OUT)], Some(&timespec(left)))?;
        Ok(())
    }

    /// From here on reads give `WouldBlock` at once when nothing is there.
    pub(crate) fn never_block(&self) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(s) => s.set_nonblocking(true),
            Socket::Unix(s) => s.set_nonblocking(true),
        }
    }

    /// Waits until the socket has something to read or `wake` was signalled. Decrypted bytes that lie in memory do not count:
    /// read until `WouldBlock` first.
    pub(crate) fn wait_readable(&self, wake: &OwnedFd, read: bool, timeout: Duration) -> io::Result<()> {
        let wanted = if read { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = [PollFd::new(wake, PollFlags::IN), PollFd::new(self, wanted)];
        match poll(&mut fds, Some(&timespec(timeout))) {
            // A reader would find out by reading; who does not read would be woken for it again and again.
            Ok(_) if !read && fds[1].revents().intersects(PollFlags::ERR | PollFlags::HUP) => {
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// The channel binding data `tls-server-end-point` (RFC 5929): a hash of the server's certificate. `None` without TLS and
    /// for signature algorithms that name no hash.
    pub(crate) fn end_point_hash(&self) -> Option<Vec<u8>> {
        let certificate = self.tls.as_ref()?.peer_certificates()?.first()?;
        end_point_hash(certificate)
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(s) => s.as_fd(),
            Socket::Unix(s) => s.as_fd(),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => s.read(buf),
            Socket::Unix(s) => s.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => s.write(buf),
            Socket::Unix(s) => s.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}

pub(crate) fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Hashes a DER certificate with the hash of its own signature algorithm, SHA-256 standing in for MD5 and SHA-1.
fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    use sha2::Digest;
    // Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OBJECT IDENTIFIER, … }, … }
    let (_, body, _) = der(certificate)?;
    let (_, _, after_tbs) = der(body)?;
    let (_, algorithm, _) = der(after_tbs)?;
    let (_, oid, _) = der(algorithm)?;
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    let bits = match (oid.strip_prefix(RSA), oid.strip_prefix(ECDSA)) {
        (Some([4 | 5 | 11]), _) | (_, Some([1] | [3, 2])) => 256,
        (Some([12]), _) | (_, Some([3, 3])) => 384,
        (Some([13]), _) | (_, Some([3, 4])) => 512,
        _ => return None,
    };
    Some(match bits {
        256 => sha2::Sha256::digest(certificate).to_vec(),
        384 => sha2::Sha384::digest(certificate).to_vec(),
        _ => sha2::Sha512::digest(certificate).to_vec(),
    })
}

/// Splits one DER element off: tag, content, rest.
pub(crate) fn der(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |n, b| n << 8 | usize::from(*b)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate's outer shape with a signature algorithm.
    fn certificate(oid: &[u8]) -> Vec<u8> {
        let mut algorithm = vec![0x06, oid.len() as u8];
        algorithm.extend_from_slice(oid);
        let mut body = vec![0x30, 0x82, 0x01, 0x00];
        body.extend(std::iter::repeat_n(7, 256));
        body.extend([0x30, algorithm.len() as u8]);
        body.extend(algorithm);
        let mut out = vec![0x30, 0x82, (body.len() >> 8) as u8, body.len() as u8];
        out.extend(body);
        out
    }

    #[test]
    fn the_end_point_hash_follows_the_signature_algorithm() {
        let rsa = |last| [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, last].to_vec();
        let ecdsa = |tail: &[u8]| [&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04], tail].concat();
        let cases = [
            (rsa(5), Some(32)),
            (rsa(11), Some(32)),
            (rsa(12), Some(48)),
            (rsa(13), Some(64)),
            (ecdsa(&[3, 2]), Some(32)),
            (ecdsa(&[3, 3]), Some(48)),
            (vec![0x2b, 0x65, 0x70], None),
        ];
        for (oid, length) in cases {
            assert_eq!(end_point_hash(&certificate(&oid)).map(|h| h.len()), length, "{oid:x?}");
        }
        assert_eq!(end_point_hash(&[0x30, 0x84, 0xff]), None);
        assert_eq!(end_point_hash(&[]), None);
    }
}
