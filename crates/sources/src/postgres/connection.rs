//! One connection to a server: TLS, authentication, simple queries. Blocking; its users run it on threads of their own.
//!
//! Lengths that the server announces are checked before anything is allocated for them, a small limit holding until the
//! login is done. Settings that change how values print are pinned in the startup packet, where they win over what
//! `ALTER ROLE` or `ALTER DATABASE` say.

use super::dsn::Dsn;
use super::error;
use crate::shared::transport::{Transport, is_timeout};
use bytes::{Buf, BytesMut};
use deltaforge_core::Fault;
use deltaforge_core::config::{Tls, TlsMode};
use deltaforge_core::fault::Kind;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{self, sasl};
use postgres_protocol::escape::escape_identifier;
use postgres_protocol::message::backend::{Header, Message};
use postgres_protocol::message::frontend;
use std::io;
use std::time::{Duration, Instant};

/// Longest message before the login is done, bytes.
const LOGIN_MESSAGE_LIMIT: i32 = 64 << 10;
/// Longest message of a query's answer, bytes.
const QUERY_MESSAGE_LIMIT: i32 = 64 << 20;

/// How values print, whatever the role's or the database's settings say; and no timeout that would end a quiet stream.
const PINNED: [(&str, &str); 11] = [
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("search_path", "pg_catalog"),
    ("quote_all_identifiers", "off"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// SQL.
    Query,
    /// Replication commands, and SQL by the simple protocol.
    Replication,
}

/// Where and how to connect.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) dsn: Dsn,
    pub(super) tls: Tls,
    pub(super) tls_mode: TlsMode,
    pub(super) connect_timeout: Duration,
}

/// An authenticated connection, ready for a query.
#[derive(Debug)]
pub(super) struct Connection {
    transport: Transport,
    received: BytesMut,
    /// Longest wait for a part of an answer; `None`: for ever.
    patience: Option<Duration>,
    /// Of the server process, for cancelling.
    pub(super) backend_pid: i32,
}

/// One row of an answer: texts, `None` for NULL.
pub(super) type Row = Vec<Option<String>>;

impl Connection {
    /// Connects to the first host that answers and logs in.
    ///
    /// # Errors
    /// `Retry` when no host can be reached, `Config` when credentials, encryption or the database are refused.
    pub(super) fn open(target: &Target, purpose: Purpose) -> Result<Connection, Fault> {
        let mut last = None;
        for (host, port) in &target.dsn.hosts {
            match Self::open_host(target, purpose, host, *port) {
                Ok(connection) => return Ok(connection),
                Err(fault) if fault.is_retry() => last = Some(fault),
                Err(fault) => return Err(fault),
            }
        }
        Err(last.unwrap_or_else(|| Fault::config("postgres.dsn", "no host in the DSN")))
    }

    fn open_host(target: &Target, purpose: Purpose, host: &str, port: u16) -> Result<Connection, Fault> {
        // A host that begins with `/` is the directory of a local socket.
        let transport = if host.starts_with('/') {
            Transport::connect_local(&format!("{host}/.s.PGSQL.{port}"))
        } else {
            Transport::connect(host, port, target.connect_timeout)
        };
        let transport = transport.map_err(|e| error::unreachable(host, port, &e))?;
        let patience = Some(target.connect_timeout);
        let mut connection =
            Connection { transport, received: BytesMut::with_capacity(8192), patience, backend_pid: 0 };
        connection.encrypt(target, host)?;
        connection.log_in(&target.dsn, purpose)?;
        connection.patience = Some(Duration::from_secs(30));
        Ok(connection)
    }

    fn encrypt(&mut self, target: &Target, host: &str) -> Result<(), Fault> {
        let mode = target.tls_mode;
        if mode == TlsMode::Disable || (self.transport.is_local() && mode == TlsMode::Prefer) {
            return Ok(());
        }
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        self.send(&request)?;
        match self
            .transport
            .read_byte(target.connect_timeout)
            .map_err(|e| error::lost_connection("asking for TLS", &e))?
        {
            b'S' => {}
            b'N' if mode == TlsMode::Prefer => return Ok(()),
            _ => {
                let message =
                    format!("the server {host} does not offer TLS, and the mode is `{}`", mode.as_str());
                let hint = "set `ssl = on` with a certificate on the server, or choose `sslmode=prefer`";
                return Err(Fault::config("postgres.tls", message).kind(Kind::Tls).hint(hint));
            }
        }
        let config = deltaforge_net::tls::client_config(&target.tls, mode)?;
        self.transport.encrypt(config, host, target.connect_timeout)
    }

    fn log_in(&mut self, dsn: &Dsn, purpose: Purpose) -> Result<(), Fault> {
        let name = dsn.application_name.as_deref().unwrap_or("deltaforge");
        let mut parameters =
            vec![("user", dsn.user.as_str()), ("database", &dsn.database), ("application_name", name)];
        parameters.extend(PINNED);
        if purpose == Purpose::Replication {
            parameters.push(("replication", "database"));
        }
        let mut out = BytesMut::new();
        frontend::startup_message(parameters, &mut out).map_err(|e| error::malformed("startup", &e))?;
        self.send(&out)?;
        self.authenticate(dsn)?;
        let mut without_encoding = false;
        loop {
            match self.message(LOGIN_MESSAGE_LIMIT)? {
                Message::BackendKeyData(body) => self.backend_pid = body.process_id(),
                Message::ParameterStatus(body) if matches!(body.name(), Ok("server_encoding")) => {
                    without_encoding = matches!(body.value(), Ok("SQL_ASCII"));
                }
                Message::ReadyForQuery(_) => break,
                Message::ErrorResponse(body) => {
                    return Err(not_allowed(error::from_server(&body, "logging in"), dsn, purpose));
                }
                _ => {}
            }
        }
        if without_encoding {
            // Such a database holds any bytes. Asked for UTF-8, the server would end the stream at the first that are none.
            self.query("SET client_encoding = 'SQL_ASCII'", "setting the encoding")?;
        }
        Ok(())
    }

    fn authenticate(&mut self, dsn: &Dsn) -> Result<(), Fault> {
        let password = || {
            let missing = || {
                Fault::config("postgres.auth", "the server asks for a password and the DSN has none")
                    .kind(Kind::Auth)
            };
            dsn.password.as_ref().map(|p| p.expose().as_bytes()).ok_or_else(missing)
        };
        let mut out = BytesMut::new();
        match self.message(LOGIN_MESSAGE_LIMIT)? {
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationCleartextPassword => {
                frontend::password_message(password()?, &mut out)
                    .map_err(|e| error::malformed("password", &e))?;
            }
            Message::AuthenticationMd5Password(body) => {
                let hash = authentication::md5_hash(dsn.user.as_bytes(), password()?, body.salt());
                frontend::password_message(hash.as_bytes(), &mut out)
                    .map_err(|e| error::malformed("password", &e))?;
            }
            Message::AuthenticationSasl(body) => {
                let mechanisms: Vec<String> = body
                    .mechanisms()
                    .map(|m| Ok(m.to_string()))
                    .collect()
                    .map_err(|e| error::malformed("mechanism list", &e))?;
                self.scram(&mechanisms, password()?)?;
            }
            Message::ErrorResponse(body) => return Err(error::from_server(&body, "logging in")),
            _ => {
                let message = "the server asks for a login method other than password, md5 or SCRAM-SHA-256";
                let hint = "use `scram-sha-256` for this role in pg_hba.conf";
                return Err(Fault::config("postgres.auth", message).kind(Kind::Auth).hint(hint));
            }
        }
        if !out.is_empty() {
            self.send(&out)?;
        }
        match self.message(LOGIN_MESSAGE_LIMIT)? {
            Message::AuthenticationOk => Ok(()),
            Message::ErrorResponse(body) => Err(error::from_server(&body, "logging in")),
            _ => Err(error::protocol("an unexpected message during the login")),
        }
    }

    /// RFC 5802, RFC 7677; with channel binding (`tls-server-end-point`) where the server offers it.
    fn scram(&mut self, mechanisms: &[String], password: &[u8]) -> Result<(), Fault> {
        let offers = |name: &str| mechanisms.iter().any(|m| m == name);
        if !offers(sasl::SCRAM_SHA_256) && !offers(sasl::SCRAM_SHA_256_PLUS) {
            let message = format!("the server offers only these SASL mechanisms: {}", mechanisms.join(", "));
            return Err(Fault::config("postgres.auth", message).kind(Kind::Auth));
        }
        let end_point = self.transport.end_point_hash();
        let (mechanism, binding) = match end_point {
            Some(hash) if offers(sasl::SCRAM_SHA_256_PLUS) => {
                (sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash))
            }
            Some(_) => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        };
        let refused = |e: io::Error| {
            Fault::config("postgres.auth", format!("the SCRAM login failed: {e}")).kind(Kind::Auth)
        };
        let mut scram = sasl::ScramSha256::new(password, binding);
        let mut out = BytesMut::new();
        frontend::sasl_initial_response(mechanism, scram.message(), &mut out).map_err(refused)?;
        self.send(&out)?;
        match self.message(LOGIN_MESSAGE_LIMIT)? {
            Message::AuthenticationSaslContinue(body) => scram.update(body.data()).map_err(refused)?,
            Message::ErrorResponse(body) => return Err(error::from_server(&body, "logging in")),
            _ => return Err(error::protocol("no SCRAM challenge")),
        }
        out.clear();
        frontend::sasl_response(scram.message(), &mut out).map_err(refused)?;
        self.send(&out)?;
        match self.message(LOGIN_MESSAGE_LIMIT)? {
            // Checked before the login counts: the server, too, must have known the password.
            Message::AuthenticationSaslFinal(body) => scram.finish(body.data()).map_err(refused),
            Message::ErrorResponse(body) => Err(error::from_server(&body, "logging in")),
            _ => Err(error::protocol("no SCRAM verdict")),
        }
    }

    /// Runs one statement by the simple protocol; gives the rows of its last answer.
    ///
    /// # Errors
    /// What the server answers, classed by SQLSTATE; `what` says in the message what was being done.
    pub(super) fn query(&mut self, sql: &str, what: &str) -> Result<Vec<Row>, Fault> {
        self.query_waiting(sql, what, &mut || Ok(()))
    }

    /// Like [`query`](Self::query) for a statement that may take long: `tick` is called while nothing comes, and its fault
    /// ends the wait (and leaves the connection unusable).
    pub(super) fn query_waiting(
        &mut self,
        sql: &str,
        what: &str,
        tick: &mut dyn FnMut() -> Result<(), Fault>,
    ) -> Result<Vec<Row>, Fault> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(|e| error::malformed(what, &e))?;
        self.send(&out)?;
        let mut rows = Vec::new();
        let mut failed = None;
        loop {
            match self.message_waiting(QUERY_MESSAGE_LIMIT, tick)? {
                Message::RowDescription(_) => rows.clear(),
                Message::DataRow(body) => {
                    let buffer = body.buffer();
                    let mut row = Row::new();
                    let mut ranges = body.ranges();
                    while let Some(range) = ranges.next().map_err(|e| error::malformed("row", &e))? {
                        row.push(range.map(|r| String::from_utf8_lossy(&buffer[r]).into_owned()));
                    }
                    rows.push(row);
                }
                Message::ErrorResponse(body) => failed = Some(error::from_server(&body, what)),
                Message::ReadyForQuery(_) => return failed.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    /// The first column of the first row.
    pub(super) fn query_text(&mut self, sql: &str, what: &str) -> Result<Option<String>, Fault> {
        Ok(self.query(sql, what)?.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
    }

    /// Sends a command that turns the connection into a copy in both directions; gives the transport and what was read beyond
    /// the server's consent.
    pub(super) fn start_copy(mut self, command: &str, what: &str) -> Result<(Transport, BytesMut), Fault> {
        let mut out = BytesMut::new();
        frontend::query(command, &mut out).map_err(|e| error::malformed(what, &e))?;
        self.send(&out)?;
        loop {
            // CopyBothResponse is not among the library's messages.
            let header = self.header(LOGIN_MESSAGE_LIMIT, &mut || Ok(()))?;
            if header.tag() == b'W' {
                self.received.advance(1 + header.len() as usize);
                return Ok((self.transport, self.received));
            }
            match self.message(LOGIN_MESSAGE_LIMIT)? {
                Message::ErrorResponse(body) => return Err(error::from_server(&body, what)),
                Message::ReadyForQuery(_) => {
                    return Err(error::protocol("the server did not start the stream"));
                }
                _ => {}
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.transport
            .write_all(bytes, Duration::from_secs(30))
            .map_err(|e| error::lost_connection("sending", &e))
    }

    fn message(&mut self, limit: i32) -> Result<Message, Fault> {
        self.message_waiting(limit, &mut || Ok(()))
    }

    fn message_waiting(
        &mut self,
        limit: i32,
        tick: &mut dyn FnMut() -> Result<(), Fault>,
    ) -> Result<Message, Fault> {
        self.header(limit, tick)?;
        match Message::parse(&mut self.received) {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(error::protocol("a message that is not whole")),
            Err(e) => Err(error::malformed("message", &e)),
        }
    }

    /// Reads until the next message is whole; its length is checked before it is waited for.
    fn header(&mut self, limit: i32, tick: &mut dyn FnMut() -> Result<(), Fault>) -> Result<Header, Fault> {
        let mut waited = Instant::now();
        loop {
            let header = Header::parse(&self.received).map_err(|e| error::malformed("message header", &e))?;
            if let Some(header) = header {
                if header.len() > limit {
                    let message =
                        format!("a message of {} bytes where at most {limit} are expected", header.len());
                    return Err(error::protocol(&message));
                }
                if self.received.len() > header.len() as usize {
                    return Ok(header);
                }
            }
            let mut chunk = [0; 8192];
            match self.transport.read(&mut chunk) {
                Ok(0) => return Err(error::closed("waiting for an answer")),
                Ok(n) => {
                    self.received.extend_from_slice(&chunk[..n]);
                    waited = Instant::now();
                }
                Err(e) if is_timeout(&e) => {
                    tick()?;
                    if self.patience.is_some_and(|patience| waited.elapsed() > patience) {
                        return Err(error::timeout("waiting for an answer", waited.elapsed()));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(error::lost_connection("waiting for an answer", &e)),
            }
        }
    }

    /// For statements that wait on others: there is no last moment.
    pub(super) fn wait_without_end(&mut self) {
        self.patience = None;
    }
}

/// A role that may log in and not replicate is refused after the password; the server does not say how to mend it.
fn not_allowed(fault: Fault, dsn: &Dsn, purpose: Purpose) -> Fault {
    match fault.code() {
        "postgres.no_rights" if purpose == Purpose::Replication => {
            fault.hint(format!("ALTER ROLE {} REPLICATION;", escape_identifier(&dsn.user)))
        }
        _ => fault,
    }
}
