//! One connection: made, encrypted, logged in. It is never made again: whoever loses it opens another.

use super::config::{Login, Settings};
use super::error::{broken, malformed, spoken, timed_out};
use super::protocol::{self, Op};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use deltaforge_core::Fault;
use deltaforge_core::config::{Secret, TlsMode};
use deltaforge_core::fault::Kind;
use deltaforge_net::address::Address;
use nkeys::KeyPair;
use serde_json::{Value, json};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What the server tells of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerInfo {
    pub(super) version: String,
    /// Most bytes of a message, headers included.
    pub(super) max_payload: usize,
    pub(super) headers: bool,
    nonce: String,
    tls_required: bool,
    tls_available: bool,
}

impl ServerInfo {
    fn parse(text: &[u8]) -> Option<ServerInfo> {
        let info: Value = serde_json::from_slice(text).ok()?;
        let flag = |key: &str| info[key].as_bool().unwrap_or(false);
        let text = |key: &str| info[key].as_str().unwrap_or_default().to_owned();
        Some(ServerInfo {
            version: text("version"),
            max_payload: info["max_payload"].as_u64()? as usize,
            headers: flag("headers"),
            nonce: text("nonce"),
            tls_required: flag("tls_required"),
            tls_available: flag("tls_available"),
        })
    }
}

/// What a server's `INFO` says of `max_payload`: it is sent again when a user is logged in and when the configuration changes.
pub(super) fn max_payload(info: &[u8]) -> Option<usize> {
    ServerInfo::parse(info).map(|info| info.max_payload)
}

/// A stream of bytes either way.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A connection that is logged in.
pub(super) struct Connection {
    pub(super) address: Address,
    pub(super) info: ServerInfo,
    pub(super) socket: Box<dyn Socket>,
    /// Read, but not yet understood.
    pub(super) input: Vec<u8>,
}

/// Connects to the first server that lets us in.
///
/// # Errors
/// `Config` for refused credentials and certificates and unreadable files, `Retry` for everything that may pass: the last
/// server's fault.
pub(super) async fn connect(settings: &Settings, name: &str) -> Result<Connection, Fault> {
    let key = Key::read(&settings.login).await?;
    let mut last = Fault::bug("nats.no_servers", "no server is named");
    for address in &settings.servers {
        let limit = settings.connect_timeout;
        let connected = tokio::time::timeout(limit, dial(settings, address, &key, name)).await;
        match connected.unwrap_or_else(|_| Err(timed_out(address, "connect_timeout_secs", limit))) {
            Ok(connection) => return Ok(connection),
            Err(fault) if fault.is_retry() => last = fault,
            Err(fault) => return Err(fault),
        }
    }
    Err(last)
}

async fn dial(settings: &Settings, address: &Address, key: &Key, name: &str) -> Result<Connection, Fault> {
    let stream = address.connect(settings.connect_timeout, "nats.unreachable").await?;
    let mut connection = Connection {
        address: address.clone(),
        info: ServerInfo::default(),
        socket: Box::new(stream),
        input: Vec::new(),
    };
    connection.greeting().await?;
    let info = &connection.info;
    if settings.tls_mode == TlsMode::Disable {
        if info.tls_required {
            return Err(Fault::config(
                "nats.tls_required",
                format!("{address} takes only encrypted connections"),
            )
            .kind(Kind::Tls)
            .hint("write tls:// instead of nats://, or set tls.mode"));
        }
    } else {
        if !info.tls_required && !info.tls_available {
            return Err(Fault::config("tls.not_spoken", format!("{address} offers no encryption"))
                .kind(Kind::Tls)
                .hint("give the server a `tls` block, or write nats://"));
        }
        // What came unencrypted must not be taken for what the server says encrypted.
        if !connection.input.is_empty() {
            return Err(malformed(address, &protocol::Malformed("more than a greeting before encryption")));
        }
        // Read anew for each connection, so that renewed certificates are taken without a restart.
        let config = deltaforge_net::tls::client_config(&settings.tls, settings.tls_mode)?;
        let stream = deltaforge_net::tls::connect(&config, &address.host, connection.socket).await?;
        connection.socket = Box::new(stream);
    }
    if !connection.info.headers {
        let message = format!("{address} is version {} and takes no headers", connection.info.version);
        return Err(Fault::config("nats.unsupported", message).hint("upgrade to NATS 2.9 or later"));
    }
    let hello = key.hello(&connection.info, name)?;
    connection.send(format!("CONNECT {hello}\r\nPING\r\n").as_bytes()).await?;
    loop {
        match connection.next().await? {
            (Op::Pong, _) => return Ok(connection),
            (Op::Err(text), bytes) => return Err(spoken(address, &bytes[text])),
            _ => {}
        }
    }
}

impl Connection {
    async fn greeting(&mut self) -> Result<(), Fault> {
        let (op, bytes) = self.next().await?;
        let info = match op {
            Op::Info(text) => ServerInfo::parse(&bytes[text]),
            Op::Err(text) => return Err(spoken(&self.address, &bytes[text])),
            _ => None,
        };
        self.info = info.ok_or_else(|| malformed(&self.address, &protocol::Malformed("no greeting")))?;
        Ok(())
    }

    /// Writes all of it.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let sent = async {
            self.socket.write_all(bytes).await?;
            self.socket.flush().await
        };
        sent.await.map_err(|e| broken(&self.address, &e))
    }

    /// The next operation, and the bytes it points into. For what is not on the road of events.
    pub(super) async fn next(&mut self) -> Result<(Op, Vec<u8>), Fault> {
        loop {
            if let Some((op, used)) =
                protocol::parse(&self.input).map_err(|what| malformed(&self.address, &what))?
            {
                let bytes: Vec<u8> = self.input.drain(..used).collect();
                if let Op::Info(text) = &op
                    && let Some(most) = max_payload(&bytes[text.clone()])
                {
                    self.info.max_payload = most;
                }
                return Ok((op, bytes));
            }
            let read = self.socket.read_buf(&mut self.input).await.map_err(|e| broken(&self.address, &e))?;
            if read == 0 {
                return Err(broken(&self.address, &io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

/// What is shown to the server.
enum Key {
    None,
    User(String, Secret),
    Token(Secret),
    Pair(KeyPair),
    Jwt(String, KeyPair),
}

impl Key {
    /// Reads files anew for each connection: credentials are renewed in place. No fault holds a part of a file.
    async fn read(login: &Login) -> Result<Key, Fault> {
        let unreadable = |file: &str, what: String| {
            Fault::config("nats.credentials", format!("{file} {what}")).kind(Kind::Auth)
        };
        let read = async |file: &str| match tokio::fs::read_to_string(file).await {
            Ok(text) => Ok(text),
            Err(e) => Err(unreadable(file, format!("cannot be read: {e}"))),
        };
        let pair = |file: &str, seed: Option<&str>| {
            let pair = seed.and_then(|seed| KeyPair::from_seed(seed.trim()).ok());
            pair.ok_or_else(|| unreadable(file, "holds no seed of a user's key".into()))
        };
        Ok(match login {
            Login::None => Key::None,
            Login::User(user, password) => Key::User(user.clone(), password.clone()),
            Login::Token(token) => Key::Token(token.clone()),
            Login::NKey(seed) => Key::Pair(pair("`nkey`", Some(seed.expose()))?),
            Login::NKeyFile(file) => {
                let text = read(file).await?;
                let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                Key::Pair(pair(file, lines.find(|line| !line.starts_with(['#', '-'])))?)
            }
            Login::Credentials(file) => {
                let text = read(file).await?;
                let jwt = armoured(&text, "USER JWT")
                    .ok_or_else(|| unreadable(file, "holds no JWT of a user".into()))?;
                Key::Jwt(jwt.to_owned(), pair(file, armoured(&text, "SEED"))?)
            }
        })
    }

    fn hello(&self, info: &ServerInfo, name: &str) -> Result<Value, Fault> {
        let mut hello = json!({ "verbose": false, "pedantic": false, "lang": "rust", "version": env!("CARGO_PKG_VERSION"),
            "protocol": 1, "headers": true, "no_responders": true, "echo": false, "name": name });
        let sign = |pair: &KeyPair| {
            let signature = pair.sign(info.nonce.as_bytes());
            let signature = signature.map_err(|_| {
                Fault::config("nats.credentials", "the key cannot sign: it is a public key").kind(Kind::Auth)
            })?;
            Ok::<_, Fault>(URL_SAFE_NO_PAD.encode(signature))
        };
        match self {
            Key::None => {}
            Key::User(user, password) => {
                hello["user"] = user.as_str().into();
                hello["pass"] = password.expose().into();
            }
            Key::Token(token) => hello["auth_token"] = token.expose().into(),
            Key::Pair(pair) => {
                hello["nkey"] = pair.public_key().into();
                hello["sig"] = sign(pair)?.into();
            }
            Key::Jwt(jwt, pair) => {
                hello["jwt"] = jwt.as_str().into();
                hello["sig"] = sign(pair)?.into();
            }
        }
        Ok(hello)
    }
}

/// The line between `-----BEGIN … WHAT-----` and the next line of dashes.
fn armoured<'a>(text: &'a str, what: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.starts_with("---") && line.contains("BEGIN") && line.contains(what))?;
    lines.find(|line| !line.is_empty()).filter(|line| !line.starts_with("---"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_between_their_dashes() {
        let text = "-----BEGIN NATS USER JWT-----\r\neyJ0\r\n------END NATS USER JWT------\r\n\r\n*** IMPORTANT ***\r\n\
                    -----BEGIN USER NKEY SEED-----\r\nSUA\r\n------END USER NKEY SEED------\r\n";
        assert_eq!((armoured(text, "USER JWT"), armoured(text, "SEED")), (Some("eyJ0"), Some("SUA")));
        assert_eq!(armoured("-----BEGIN NATS USER JWT-----\n-----END-----", "USER JWT"), None);
    }
}
