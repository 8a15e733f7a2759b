//! Host and port, and how to get there.

use deltaforge_core::Fault;
use deltaforge_core::fault::Kind;
use std::fmt;
use std::time::Duration;
use tokio::net::TcpStream;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// A DNS name or an IP address; IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Address {
    /// Reads `host`, `host:port`, `1.2.3.4:port`, `[::1]`, `[::1]:port`.
    ///
    /// # Errors
    /// One sentence saying what is wrong.
    pub fn parse(text: &str, default_port: u16) -> Result<Address, String> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or("`[` without `]`")?;
                let is_v6 = host.parse::<std::net::Ipv6Addr>().is_ok();
                if !is_v6 {
                    return Err(format!("`[{host}]` is no IPv6 address"));
                }
                match after.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if after.is_empty() => (host, None),
                    None => return Err(format!("expected `:port` after `[{host}]`")),
                }
            }
            None => match text.split_once(':') {
                Some((_, port)) if port.contains(':') => {
                    return Err("an IPv6 address is written in brackets: `[::1]:port`".into());
                }
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if host.is_empty() {
            return Err("the host is empty".into());
        }
        if let Some(bad) =
            host.chars().find(|c| c.is_whitespace() || c.is_control() || "/?#@%\\".contains(*c))
        {
            return Err(format!("`{}` cannot be in a host name", bad.escape_default()));
        }
        let port = match port {
            None => default_port,
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(format!("`{port}` is not a port (1 to 65535)")),
            },
        };
        Ok(Address { host: host.into(), port })
    }

    /// Connects within `timeout`, trying each address of the name. Small writes go out at once, and a peer that vanished
    /// without a word is noticed within about a minute.
    ///
    /// # Errors
    /// `Retry` with the given code: a name that does not resolve today may resolve tomorrow.
    pub async fn connect(&self, timeout: Duration, code: &'static str) -> Result<TcpStream, Fault> {
        let fault = |what: String| {
            Fault::retry(code, format!("{self} cannot be reached: {what}")).kind(Kind::Connect)
        };
        let target = (self.host.as_str(), self.port);
        let stream = match tokio::time::timeout(timeout, TcpStream::connect(target)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(fault(e.to_string())),
            Err(_) => return Err(fault(format!("no answer within {} s", timeout.as_secs_f32()))),
        };
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(30))
            .with_interval(Duration::from_secs(10))
            .with_retries(3);
        let socket = socket2::SockRef::from(&stream);
        stream.set_nodelay(true).map_err(|e| fault(e.to_string()))?;
        socket.set_tcp_keepalive(&keepalive).map_err(|e| fault(e.to_string()))?;
        Ok(stream)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let parse = |text: &str| Address::parse(text, 9).map(|a| (a.host.clone(), a.port, a.to_string()));
        let good = [
            ("h", "h", 9, "h:9"),
            ("h.example:1", "h.example", 1, "h.example:1"),
            ("1.2.3.4:65535", "1.2.3.4", 65535, "1.2.3.4:65535"),
            ("[::1]", "::1", 9, "[::1]:9"),
            ("[::1]:7", "::1", 7, "[::1]:7"),
        ];
        for (text, host, port, shown) in good {
            assert_eq!(parse(text), Ok((host.to_string(), port, shown.to_string())), "{text}");
        }
        for text in
            ["", ":1", "h:", "h:0", "h:65536", "h:x", "::1", "[::1", "[h]:1", "[::1]x", "a b:1", "a/b"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
