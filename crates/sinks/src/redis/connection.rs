//! One connection: made, logged in, and the few commands that are not on the road of events.

use super::config::Settings;
use super::error::{broken, malformed, reply_fault, timed_out};
use super::replies::Replies;
use super::resp::{self, Value};
use deltaforge_core::Fault;
use deltaforge_core::config::TlsMode;
use deltaforge_net::address::Address;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// What [`Connector`] makes.
pub(super) struct Connection {
    pub(super) address: Address,
    pub(super) replies: Replies,
    pub(super) writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// Largest word that the server takes (`proto-max-bulk-len`).
    pub(super) longest_bulk: usize,
    settings: Arc<Settings>,
}

/// What Redis takes unless it was configured otherwise: 512 MiB.
const DEFAULT_LONGEST_BULK: usize = 512 * 1024 * 1024;

/// Makes connections, and remembers the last one to each server, so that it can be put to rest.
pub(super) struct Connector {
    pub(super) settings: Arc<Settings>,
    last: Mutex<HashMap<Address, Last>>,
}

/// A connection as the server names it: the run of the server, and the client's number in it.
struct Last {
    run: String,
    client: i64,
}

impl Connector {
    pub(super) fn new(settings: Arc<Settings>) -> Connector {
        Connector { settings, last: Mutex::default() }
    }

    /// Connects, encrypts, logs in.
    ///
    /// # Errors
    /// `Config` for refused credentials and certificates, `Retry` for everything that may pass.
    pub(super) async fn connect(&self, address: &Address) -> Result<Connection, Fault> {
        let limit = self.settings.connect_timeout;
        let connected = async {
            let mut connection = dial(&self.settings, address).await?;
            connection.login().await?;
            Ok(connection)
        };
        match tokio::time::timeout(limit, connected).await {
            Ok(result) => result,
            Err(_) => Err(self.no_answer(address)),
        }
    }

    fn no_answer(&self, address: &Address) -> Fault {
        let fault = timed_out(address, "connect_timeout_secs", self.settings.connect_timeout);
        match self.settings.tls_mode {
            TlsMode::Disable => fault,
            // A Redis without TLS takes the greeting for the beginning of a command and waits for more.
            _ => fault.hint("the server may not speak TLS on this port: check port, scheme and tls.mode"),
        }
    }

    /// Connects without user, password and database: sentinels have their own.
    pub(super) async fn connect_sentinel(&self, address: &Address) -> Result<Connection, Fault> {
        let limit = self.settings.connect_timeout;
        match tokio::time::timeout(limit, dial(&self.settings, address)).await {
            Ok(result) => result,
            Err(_) => Err(self.no_answer(address)),
        }
    }

    /// A connection that events may be written to.
    ///
    /// **No ghost writes.** What an earlier connection has sent may still lie unread at the server (it was frozen, we gave up
    /// and connected anew); executed later, it would put old entries behind new ones. So the earlier connection is killed
    /// first, which drops what it has not executed. A server that does not allow that (`NOPERM`) is taken as it is.
    pub(super) async fn connect_for_events(&self, address: &Address) -> Result<Connection, Fault> {
        let mut connection = self.connect(address).await?;
        let commands: [&[&[u8]]; 5] = [
            &[b"CLIENT", b"ID"],
            &[b"INFO", b"server"],
            &[b"CONFIG", b"GET", b"proto-max-bulk-len"],
            // An empty transaction: where MULTI is refused, the commands after it would be executed one by one.
            &[b"MULTI"],
            &[b"EXEC"],
        ];
        let answers = connection.call_all(&commands).await?;
        for answer in &answers[3..] {
            if let Value::Error(error) = answer {
                return Err(reply_fault(address, error));
            }
        }
        let client = match answers.first() {
            Some(Value::Int(client)) => Some(*client),
            _ => None,
        };
        let run = answers
            .get(1)
            .and_then(Value::text)
            .and_then(|info| info_field(info, "run_id"))
            .map(str::to_owned);
        let longest = answers.get(2).and_then(|answer| answer.items().get(1)).and_then(Value::text);
        connection.longest_bulk = longest.and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_LONGEST_BULK);
        let (Some(client), Some(run)) = (client, run) else { return Ok(connection) };
        let before = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            last.insert(address.clone(), Last { run: run.clone(), client })
        };
        // Numbers begin anew with each run of the server: in another run it would be somebody else's connection.
        if let Some(before) = before.filter(|before| before.run == run) {
            let id = before.client.to_string();
            connection.call(&[b"CLIENT", b"KILL", b"ID", id.as_bytes()]).await?;
        }
        Ok(connection)
    }
}

async fn dial(settings: &Arc<Settings>, address: &Address) -> Result<Connection, Fault> {
    let stream = address.connect(settings.connect_timeout, "redis.unreachable").await?;
    let (reader, writer): (Box<dyn tokio::io::AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>) =
        if settings.tls_mode == TlsMode::Disable {
            let (reader, writer) = stream.into_split();
            (Box::new(reader), Box::new(writer))
        } else {
            // Read anew for each connection, so that renewed certificates are taken without a restart.
            let config = deltaforge_net::tls::client_config(&settings.tls, settings.tls_mode)?;
            let stream = deltaforge_net::tls::connect(&config, &address.host, stream).await?;
            let (reader, writer) = tokio::io::split(stream);
            (Box::new(reader), Box::new(writer))
        };
    Ok(Connection {
        address: address.clone(),
        replies: Replies::new(reader),
        writer,
        longest_bulk: DEFAULT_LONGEST_BULK,
        settings: settings.clone(),
    })
}

impl Connection {
    async fn login(&mut self) -> Result<(), Fault> {
        let settings = self.settings.clone();
        let database = settings.database.to_string();
        let mut commands: Vec<Vec<&[u8]>> = Vec::new();
        match (&settings.user, &settings.password) {
            (Some(user), Some(password)) => {
                commands.push(vec![b"AUTH", user.as_bytes(), password.expose().as_bytes()]);
            }
            // A user without a password: the server decides whether that is enough.
            (Some(user), None) => commands.push(vec![b"AUTH", user.as_bytes(), b""]),
            (None, Some(password)) => commands.push(vec![b"AUTH", password.expose().as_bytes()]),
            (None, None) => {}
        }
        if settings.database != 0 {
            commands.push(vec![b"SELECT", database.as_bytes()]);
        }
        // Asks whether we are let in and whether the server has read its data.
        commands.push(vec![b"PING"]);
        let ping = commands.len() - 1;
        let commands: Vec<&[&[u8]]> = commands.iter().map(Vec::as_slice).collect();
        let answers = self.call_all(&commands).await?;
        for (at, answer) in answers.iter().enumerate() {
            match answer {
                // A user who may only write streams is let in, too.
                Value::Error(error) if at == ping && error.starts_with(b"NOPERM") => {}
                Value::Error(error) => return Err(reply_fault(&self.address, error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// One command and its reply, which may be an error reply.
    ///
    /// # Errors
    /// The connection broke, or gave no answer within `send_timeout_secs`.
    pub(super) async fn call(&mut self, command: &[&[u8]]) -> Result<Value, Fault> {
        let mut answers = self.call_all(&[command]).await?;
        Ok(answers.pop().unwrap_or(Value::Null))
    }

    /// Several commands in one go.
    pub(super) async fn call_all(&mut self, commands: &[&[&[u8]]]) -> Result<Vec<Value>, Fault> {
        let mut out = Vec::new();
        commands.iter().for_each(|command| resp::command(&mut out, command));
        let limit = self.settings.send_timeout;
        let exchange = async {
            self.writer.write_all(&out).await.map_err(|e| broken(&self.address, &e))?;
            self.writer.flush().await.map_err(|e| broken(&self.address, &e))?;
            let mut answers = Vec::with_capacity(commands.len());
            while answers.len() < commands.len() {
                match self.replies.value().map_err(|what| malformed(&self.address, what))? {
                    Some(answer) => answers.push(answer),
                    None => self.replies.more().await.map_err(|e| broken(&self.address, &e))?,
                }
            }
            Ok(answers)
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(result) => result,
            Err(_) => Err(timed_out(&self.address, "send_timeout_secs", limit)),
        }
    }
}

/// The value of `name:` in an answer to INFO.
pub(super) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
