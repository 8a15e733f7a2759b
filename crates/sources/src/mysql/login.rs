//! The login: the server's greeting, TLS, the login methods (MySQL source documentation, "Connection Phase"; MariaDB
//! documentation, "Connecting").
//!
//! What a method computes is `mysql_common`'s; the messages around it are read here, since a greeting comes from whoever
//! answers. Whatever a peer asks for, the password itself leaves only over TLS or a local socket, and otherwise only under the
//! server's RSA key.

use super::binlog::reader::Bytes;
use super::connection::Target;
use super::packet::Packets;
use super::{binlog, error, rsa_key};
use deltaforge_core::Fault;
use deltaforge_core::config::TlsMode;
use deltaforge_core::fault::Kind;
use mysql_common::auth::plugins::{AuthProc, ChallengeResponsePlugin, Context, Error as AuthError, Response};
use mysql_common::packets::AuthPlugin;

/// Longest message before the login is done, bytes.
const MESSAGE_LIMIT: usize = 64 << 10;
/// Most messages of a login; the longest method needs four.
const ROUNDS: usize = 16;
/// Largest packet that the server may send later: its own limit.
const MAX_PACKET: u32 = 1 << 30;
/// `utf8mb4_general_ci`, which every server knows; the session's settings follow.
const COLLATION: u8 = 45;
/// Length of the challenge of the usual methods, bytes.
const CHALLENGE: usize = 20;

/// What client and server can do (MySQL source documentation, "Capabilities Flags"). Not offered: LOCAL INFILE, with which a
/// server can ask for any file of the client's machine; several statements in one.
mod capability {
    pub(super) const LONG_PASSWORD: u32 = 1;
    pub(super) const LONG_FLAG: u32 = 1 << 2;
    pub(super) const PROTOCOL_41: u32 = 1 << 9;
    pub(super) const SSL: u32 = 1 << 11;
    pub(super) const TRANSACTIONS: u32 = 1 << 13;
    pub(super) const SECURE_CONNECTION: u32 = 1 << 15;
    pub(super) const PLUGIN_AUTH: u32 = 1 << 19;
    pub(super) const CONNECT_ATTRS: u32 = 1 << 20;
    /// Without these no login of today works.
    pub(super) const REQUIRED: u32 = PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH;
    /// What is used where the server has it.
    pub(super) const USED: u32 = LONG_PASSWORD | LONG_FLAG | TRANSACTIONS | CONNECT_ATTRS | REQUIRED;
}

/// The server's first message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    /// As the server shows it before the login.
    pub(super) version: String,
    capabilities: u32,
    challenge: Vec<u8>,
    method: Vec<u8>,
}

impl Greeting {
    /// Reads "Protocol::HandshakeV10".
    fn parse(payload: &[u8]) -> binlog::Result<Greeting> {
        let mut bytes = Bytes::new(payload);
        if bytes.u8("protocol version")? != 10 {
            return Err(binlog::Malformed("protocol version"));
        }
        let version = String::from_utf8_lossy(bytes.until_zero("server version")?).into_owned();
        bytes.take(4, "connection id")?;
        let mut challenge = bytes.take(8, "challenge")?.to_vec();
        bytes.take(1, "filler")?;
        let low = bytes.u16("capabilities")?;
        bytes.take(3, "character set and status")?;
        let high = bytes.u16("capabilities")?;
        let length = bytes.u8("length of the challenge")?;
        bytes.take(10, "reserved bytes")?;
        let capabilities = u32::from(high) << 16 | u32::from(low);
        let mut method = &[][..];
        if capabilities & capability::SECURE_CONNECTION != 0 {
            let rest = bytes.take(usize::from(length.saturating_sub(8)).max(13), "challenge")?;
            challenge.extend_from_slice(rest.strip_suffix(&[0]).unwrap_or(rest));
        }
        if capabilities & capability::PLUGIN_AUTH != 0 {
            let name = bytes.rest();
            method = name.strip_suffix(&[0]).unwrap_or(name);
        }
        Ok(Greeting { version, capabilities, challenge, method: method.to_vec() })
    }
}

/// Reads the greeting, encrypts as the target wants it, and logs in. `host` is who the certificate is for.
///
/// # Errors
/// `Config` when credentials, methods or encryption are refused by either side; `Retry` for the rest.
pub(super) fn log_in(packets: &mut Packets, target: &Target, host: &str) -> Result<Greeting, Fault> {
    let first = packets.message(MESSAGE_LIMIT)?;
    if first.first() == Some(&0xff) {
        return Err(error::from_login(&first, false));
    }
    let greeting = Greeting::parse(&first).map_err(|e| {
        error::protocol(&format!("its greeting is none: {}", e.0))
            .hint("check host and port: does MySQL or MariaDB listen there?")
    })?;
    if greeting.capabilities & capability::REQUIRED != capability::REQUIRED {
        let message = format!("the server {} is too old for any login of today", greeting.version);
        return Err(Fault::config("mysql.version", message));
    }
    encrypt(packets, target, host, &greeting)?;
    let tls_left_out =
        greeting.capabilities & capability::SSL != 0 && !packets.is_encrypted() && !packets.is_local();
    let mut login = Login { target, scramble: greeting.challenge.clone(), method: None };
    let answer = login.first_answer(packets, &greeting)?;
    let capabilities = used(&greeting) | if packets.is_encrypted() { capability::SSL } else { 0 };
    packets.send(&response(capabilities, &target.dsn.user, &answer, login.method_name()))?;
    for _ in 0..ROUNDS {
        let message = packets.message(MESSAGE_LIMIT)?;
        let answer = match message.split_first() {
            Some((0x00, _)) => return Ok(greeting),
            Some((0xff, _)) => return Err(error::from_login(&message, tls_left_out)),
            Some((0xfe, request)) => login.switch(packets, request)?,
            Some((0x02, _)) => {
                let message = "the account wants a second factor, which nobody is there to give";
                return Err(Fault::config("mysql.auth", message)
                    .kind(Kind::Auth)
                    .hint("use an account with one factor: ALTER USER … DROP 2 FACTOR;"));
            }
            // The escape of data that would look like another message; MariaDB leaves it out where it is not needed.
            Some((0x01, data)) => login.step(packets, data)?,
            Some(_) => login.step(packets, &message)?,
            None => login.step(packets, &[])?,
        };
        if let Some(answer) = answer {
            packets.send(&answer)?;
        }
    }
    Err(error::protocol("a login without end"))
}

fn encrypt(packets: &mut Packets, target: &Target, host: &str, greeting: &Greeting) -> Result<(), Fault> {
    let mode = target.tls_mode;
    if mode == TlsMode::Disable || (packets.is_local() && mode == TlsMode::Prefer) {
        return Ok(());
    }
    if greeting.capabilities & capability::SSL == 0 {
        if mode == TlsMode::Prefer {
            return Ok(());
        }
        let message = format!("the server {host} does not offer TLS, and the mode is `{}`", mode.as_str());
        let hint = "give the server a certificate (ssl_cert, ssl_key), or choose `ssl-mode=preferred`";
        return Err(Fault::config("mysql.tls", message).kind(Kind::Tls).hint(hint));
    }
    let config = deltaforge_net::tls::client_config(&target.tls, mode)?;
    packets.send(&head(used(greeting) | capability::SSL))?;
    packets.encrypt(config, host, target.connect_timeout)
}

fn used(greeting: &Greeting) -> u32 {
    capability::USED & greeting.capabilities | capability::LONG_PASSWORD
}

/// What the TLS request and the answer to the greeting begin with.
fn head(capabilities: u32) -> Vec<u8> {
    let mut out = capabilities.to_le_bytes().to_vec();
    out.extend_from_slice(&MAX_PACKET.to_le_bytes());
    out.push(COLLATION);
    out.extend_from_slice(&[0; 23]);
    out
}

/// "Protocol::HandshakeResponse41". No database: names in statements are whole, and one that is missing is no reason not to
/// read the log.
fn response(capabilities: u32, user: &str, answer: &[u8], method: &[u8]) -> Vec<u8> {
    let mut out = head(capabilities);
    out.extend_from_slice(user.as_bytes());
    out.push(0);
    // One byte is enough for the methods that answer at once.
    out.push(answer.len() as u8);
    out.extend_from_slice(answer);
    out.extend_from_slice(method);
    out.push(0);
    if capabilities & capability::CONNECT_ATTRS != 0 {
        let mut attributes = Vec::new();
        let version = env!("CARGO_PKG_VERSION");
        for text in ["_client_name", "deltaforge", "_client_version", version, "program_name", "deltaforge"] {
            attributes.push(text.len() as u8);
            attributes.extend_from_slice(text.as_bytes());
        }
        out.push(attributes.len() as u8);
        out.extend_from_slice(&attributes);
    }
    out
}

/// A login under way.
struct Login<'a> {
    target: &'a Target,
    /// The challenge that the password is scrambled with.
    scramble: Vec<u8>,
    method: Option<Method>,
}

struct Method {
    plugin: AuthPlugin<'static>,
    steps: AuthProc,
    /// The server's RSA key was asked for.
    awaits_key: bool,
    done: bool,
}

impl Login<'_> {
    fn method_name(&self) -> &[u8] {
        self.method.as_ref().map_or(b"mysql_native_password", |m| m.plugin.as_bytes())
    }

    /// The answer that goes with the response to the greeting, so that the usual logins take one round less. Only methods that
    /// give nothing away are tried before the account's own is known.
    fn first_answer(&mut self, packets: &Packets, greeting: &Greeting) -> Result<Vec<u8>, Fault> {
        let usual = match AuthPlugin::from_bytes(&greeting.method) {
            AuthPlugin::CachingSha2Password => AuthPlugin::CachingSha2Password,
            _ => AuthPlugin::MysqlNativePassword,
        };
        if greeting.challenge.len() != CHALLENGE {
            return Ok(Vec::new());
        }
        self.begin(usual)?;
        Ok(self.step(packets, &greeting.challenge)?.unwrap_or_default())
    }

    fn begin(&mut self, plugin: AuthPlugin<'static>) -> Result<(), Fault> {
        let steps = plugin.init().map_err(|_| unknown_method(plugin.as_bytes()))?;
        self.method = Some(Method { plugin, steps, awaits_key: false, done: false });
        Ok(())
    }

    /// "Protocol::AuthSwitchRequest": the method's name, a zero byte, its challenge.
    fn switch(&mut self, packets: &Packets, request: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let mut bytes = Bytes::new(request);
        // Without a name: the method from before MySQL 4.1.
        let name = bytes.until_zero("method").unwrap_or(b"mysql_old_password");
        let plugin = AuthPlugin::from_bytes(name).into_owned();
        let secure = packets.is_encrypted() || packets.is_local();
        match plugin {
            AuthPlugin::MysqlClearPassword if !secure => {
                let message =
                    "the server asks for the password in clear, and the connection is not encrypted";
                return Err(Fault::config("mysql.auth", message)
                    .kind(Kind::Auth)
                    .hint("add `?ssl-mode=verify_identity` to the DSN"));
            }
            AuthPlugin::MysqlOldPassword | AuthPlugin::Other(_) => return Err(unknown_method(name)),
            _ => {}
        }
        let challenge = bytes.rest();
        // A text of C with its end, which is no part of it.
        let challenge = match challenge {
            [text @ .., 0] if text.len() == CHALLENGE => text,
            whole => whole,
        };
        self.scramble = challenge.to_vec();
        self.begin(plugin)?;
        self.step(packets, challenge)
    }

    /// Gives the method what the server sent; its answer, if it has one.
    fn step(&mut self, packets: &Packets, data: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let Some(method) = self.method.as_mut().filter(|m| !m.done) else {
            return Err(error::protocol("login data that nothing was left to do with"));
        };
        let password = self.target.dsn.password.as_ref().map_or(&[][..], |p| p.expose().as_bytes());
        let key;
        let data = if method.awaits_key {
            key = rsa_key::checked(data).ok_or_else(|| error::protocol("its RSA key is none"))?;
            // The password goes with a zero byte at its end.
            if password.len() >= key.capacity {
                let message = "the password is too long to be sent under the server's RSA key";
                let hint = "add `?ssl-mode=verify_identity` to the DSN";
                return Err(Fault::config("mysql.auth", message).kind(Kind::Auth).hint(hint));
            }
            &key.pem
        } else {
            data
        };
        let context = Known {
            password,
            scramble: &self.scramble,
            local: packets.is_local(),
            encrypted: packets.is_encrypted(),
        };
        let name = || String::from_utf8_lossy(method.plugin.as_bytes()).into_owned();
        let answer = match method.steps.run(context, data) {
            Ok(Response::Next { packet }) => packet,
            Ok(Response::Last { packet }) => {
                method.done = true;
                packet
            }
            Err(AuthError::FeatureRequired(_)) => return Err(unknown_method(method.plugin.as_bytes())),
            Err(AuthError::Challenge | AuthError::Logic) => {
                return Err(error::protocol(&format!("a challenge that is none of `{}`", name())));
            }
            Err(e) => {
                let message = format!("the login by `{}` failed: {e}", name());
                return Err(Fault::config("mysql.auth", message).kind(Kind::Auth));
            }
        };
        method.awaits_key = match (&method.plugin, answer.as_deref()) {
            (AuthPlugin::CachingSha2Password, Some([2])) | (AuthPlugin::Sha256Password, Some([1])) => {
                !method.done
            }
            _ => false,
        };
        Ok(answer)
    }
}

fn unknown_method(name: &[u8]) -> Fault {
    let name = String::from_utf8_lossy(&name[..name.len().min(64)]).into_owned();
    Fault::config("mysql.auth", format!("the account's login method `{name}` is not supported"))
        .kind(Kind::Auth)
        .hint("ALTER USER … IDENTIFIED WITH caching_sha2_password BY '…'; on MariaDB: IDENTIFIED VIA ed25519 USING PASSWORD('…');")
}

/// What a method may know.
struct Known<'a> {
    password: &'a [u8],
    scramble: &'a [u8],
    local: bool,
    encrypted: bool,
}

impl Context for Known<'_> {
    fn pass(&self) -> &[u8] {
        self.password
    }

    fn is_ipc_transport(&self) -> bool {
        self.local
    }

    fn is_tls_transport(&self) -> bool {
        self.encrypted
    }

    fn scramble(&self) -> &[u8] {
        self.scramble
    }

    fn server_key_pem(&self) -> Option<&[u8]> {
        None
    }
}

#[cfg(test)]
#[path = "login_tests.rs"]
mod tests;
