//! A connection that stays open, over the server's Unix socket.
//!
//! The servers' own command line clients cannot be used for this: none of their output formats tells null from the text
//! `NULL` and keeps every byte (`--xml` turns NUL into a space, `--batch` prints both as `NULL`). The text protocol does,
//! and what a test needs of it is little.

use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Rows as text, null as `None`; bytes that are not UTF-8 are replaced.
pub type Rows = Vec<Vec<Option<String>>>;

/// Rows as the server sends them.
pub type ByteRows = Vec<Vec<Option<Vec<u8>>>>;

/// What the server answers when a statement fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    /// The server's error number; 2013, as in the servers' own clients, when the connection is gone.
    pub code: u16,
    /// The five characters of SQLSTATE.
    pub state: String,
    /// The server's sentence.
    pub message: String,
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ERROR {} ({}): {}", self.code, self.state, self.message)
    }
}

impl std::error::Error for SqlError {}

impl From<io::Error> for SqlError {
    fn from(error: io::Error) -> SqlError {
        SqlError { code: 2013, state: "HY000".to_owned(), message: format!("lost connection: {error}") }
    }
}

const PACKET_LIMIT: usize = 0xFF_FFFF;
const MORE_RESULTS: u16 = 0x0008;
/// utf8mb4_general_ci: what is sent and received is UTF-8, on both servers.
const UTF8MB4: u8 = 45;
/// LONG_PASSWORD, PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION, MULTI_STATEMENTS, MULTI_RESULTS, PLUGIN_AUTH.
const CAPABILITIES: u32 = 0x1 | 0x200 | 0x2000 | 0x8000 | 0x1_0000 | 0x2_0000 | 0x8_0000;

/// One connection of `root`, for several statements in one transaction or with settings of their own.
pub struct Session {
    stream: BufReader<UnixStream>,
    sequence: u8,
    id: u32,
    columns: Vec<String>,
}

impl Session {
    /// Connects as `root`, who has no password on the socket; in no database when `db` is empty.
    pub(super) fn open(socket: &Path, db: &str) -> Result<Session, SqlError> {
        let stream = UnixStream::connect(socket)?;
        let stream = BufReader::with_capacity(1 << 16, stream);
        let mut session = Session { stream, sequence: 0, id: 0, columns: Vec::new() };
        session.log_in()?;
        if !db.is_empty() {
            // COM_INIT_DB
            session.command(2, db.as_bytes())?;
            session.results()?;
        }
        Ok(session)
    }

    fn log_in(&mut self) -> Result<(), SqlError> {
        let greeting = self.packet()?;
        let mut fields = Fields(&greeting);
        if fields.byte()? != 10 {
            return Err(server_error(&greeting));
        }
        let _version = fields.until_nul()?;
        self.id = u32::from_le_bytes(fields.array()?);
        // The nonce in two parts and the capabilities between, which a login without password does not need.
        fields.take(8 + 1 + 2 + 1 + 2 + 2 + 1 + 10 + 13)?;
        let plugin = fields.until_nul()?;

        let mut login = CAPABILITIES.to_le_bytes().to_vec();
        login.extend((1_u32 << 30).to_le_bytes());
        login.push(UTF8MB4);
        login.extend([0; 23]);
        login.extend(b"root\0");
        let empty = no_password(plugin);
        login.push(empty.len() as u8);
        login.extend(empty);
        login.extend(plugin);
        login.push(0);
        self.send_packet(&login)?;
        loop {
            let answer = self.packet()?;
            match answer.first() {
                Some(0) => return Ok(()),
                // Asked to log in by another plug-in.
                Some(0xFE) => self.send_packet(no_password(Fields(&answer[1..]).until_nul()?))?,
                // caching_sha2_password: "what you sent will do", then comes the end.
                Some(1) if answer.get(1) == Some(&3) => {}
                _ => return Err(server_error(&answer)),
            }
        }
    }

    /// The server's number for this connection, as `KILL` wants it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The names of the columns of the last rows.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Runs statements, separated by `;`, and returns the rows of all of them.
    ///
    /// # Panics
    /// When a statement fails, with the server's answer.
    #[track_caller]
    pub fn sql(&mut self, sql: &str) -> Rows {
        self.try_sql(sql).unwrap_or_else(|error| panic!("{error}\nwhile running: {sql}"))
    }

    /// [`Session::sql`] for statements that may fail. Those before the failing one have run, those after it have not.
    ///
    /// # Errors
    /// The server's answer. The connection can be used further unless the number is 2013.
    pub fn try_sql(&mut self, sql: &str) -> Result<Rows, SqlError> {
        self.send(sql);
        self.answer()
    }

    /// [`Session::try_sql`] in bytes: a statement may hold any, and so may its rows.
    ///
    /// # Errors
    /// As [`Session::try_sql`].
    pub fn bytes(&mut self, sql: &[u8]) -> Result<ByteRows, SqlError> {
        self.command(3, sql)?;
        self.results()
    }

    /// Sends statements without waiting for them, such as one that waits for a lock. [`Session::answer`] comes next.
    pub fn send(&mut self, sql: &str) {
        // A connection that is gone is reported by the answer, as it is when it goes a moment later.
        let _ = self.command(3, sql.as_bytes());
    }

    /// Waits for the statements that were sent.
    ///
    /// # Errors
    /// As [`Session::try_sql`].
    pub fn answer(&mut self) -> Result<Rows, SqlError> {
        let text = |cell: Option<Vec<u8>>| cell.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let rows = self.results()?.into_iter();
        Ok(rows.map(|row| row.into_iter().map(text).collect()).collect())
    }

    fn command(&mut self, command: u8, argument: &[u8]) -> io::Result<()> {
        self.sequence = 0;
        let mut payload = Vec::with_capacity(argument.len() + 1);
        payload.push(command);
        payload.extend(argument);
        self.send_packet(&payload)
    }

    fn send_packet(&mut self, payload: &[u8]) -> io::Result<()> {
        // A payload of an exact multiple of the limit ends with an empty packet.
        let mut rest = payload;
        loop {
            let (part, after) = rest.split_at(rest.len().min(PACKET_LIMIT));
            let [a, b, c, ..] = (part.len() as u32).to_le_bytes();
            let stream = self.stream.get_mut();
            stream.write_all(&[a, b, c, self.sequence])?;
            stream.write_all(part)?;
            self.sequence = self.sequence.wrapping_add(1);
            if part.len() < PACKET_LIMIT {
                return Ok(());
            }
            rest = after;
        }
    }

    fn packet(&mut self) -> io::Result<Vec<u8>> {
        let mut payload = Vec::new();
        loop {
            let mut header = [0; 4];
            self.stream.read_exact(&mut header)?;
            let [a, b, c, sequence] = header;
            self.sequence = sequence.wrapping_add(1);
            let length = u32::from_le_bytes([a, b, c, 0]) as usize;
            let from = payload.len();
            payload.resize(from + length, 0);
            self.stream.read_exact(&mut payload[from..])?;
            if length < PACKET_LIMIT {
                return Ok(payload);
            }
        }
    }

    /// The rows of all result sets of a command.
    fn results(&mut self) -> Result<ByteRows, SqlError> {
        let mut rows = Vec::new();
        loop {
            let first = self.packet()?;
            let mut fields = Fields(&first);
            let status = match first.first() {
                Some(0) => {
                    fields.byte()?;
                    let (_affected, _inserted) = (fields.number()?, fields.number()?);
                    u16::from_le_bytes(fields.array()?)
                }
                // The server must not ask for a file of this machine; it was not told that it may.
                None | Some(0xFF | 0xFB) => return Err(server_error(&first)),
                Some(_) => {
                    let columns = fields.number()?;
                    self.columns.clear();
                    for _ in 0..columns {
                        let definition = self.packet()?;
                        let mut fields = Fields(&definition);
                        // After the names of the catalog, the database, and the table as written and as it is.
                        let name = (0..5).try_fold(None, |_, _| fields.value())?.unwrap_or_default();
                        self.columns.push(String::from_utf8_lossy(&name).into_owned());
                    }
                    // The end of the definitions.
                    self.packet()?;
                    self.rows(columns, &mut rows)?
                }
            };
            if status & MORE_RESULTS == 0 {
                return Ok(rows);
            }
        }
    }

    /// The rows of one result set; returns the status flags that follow them.
    fn rows(&mut self, columns: usize, rows: &mut ByteRows) -> Result<u16, SqlError> {
        loop {
            let packet = self.packet()?;
            let mut fields = Fields(&packet);
            match packet.first() {
                Some(0xFF) => return Err(server_error(&packet)),
                // Longer, the byte announces a value of at least 16 MiB.
                Some(0xFE) if packet.len() < 9 => {
                    fields.take(3)?;
                    return Ok(u16::from_le_bytes(fields.array()?));
                }
                _ => {}
            }
            let mut row = Vec::with_capacity(columns);
            for _ in 0..columns {
                row.push(fields.value()?);
            }
            rows.push(row);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // COM_QUIT: without it the server's log is full of aborted connections.
        let _ = self.command(1, &[]);
    }
}

/// What a plug-in takes for "no password".
fn no_password(plugin: &[u8]) -> &'static [u8] {
    if plugin == b"caching_sha2_password" { b"\0" } else { b"" }
}

/// An ERR packet, which begins with 0xFF, or anything else that was not expected.
fn server_error(packet: &[u8]) -> SqlError {
    if let [0xFF, low, high, rest @ ..] = packet {
        // The state is missing where the server has not yet seen what the client can do.
        let (state, message) = match rest {
            [b'#', rest @ ..] if rest.len() >= 5 => rest.split_at(5),
            _ => (&b"HY000"[..], rest),
        };
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        return SqlError {
            code: u16::from_le_bytes([*low, *high]),
            state: text(state),
            message: text(message),
        };
    }
    let begin = &packet[..packet.len().min(16)];
    io::Error::new(io::ErrorKind::InvalidData, format!("unexpected packet {begin:02x?}…")).into()
}

/// The fields of a packet, from its front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (part, rest) = self.0.split_at_checked(length).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.0 = rest;
        Ok(part)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.take(N)?.try_into().map_err(io::Error::other)
    }

    fn byte(&mut self) -> io::Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn until_nul(&mut self) -> io::Result<&'a [u8]> {
        let length = self.0.iter().position(|byte| *byte == 0).ok_or(io::ErrorKind::UnexpectedEof)?;
        let text = self.take(length)?;
        self.take(1)?;
        Ok(text)
    }

    /// A length-encoded integer.
    fn number(&mut self) -> io::Result<usize> {
        let first = self.byte()?;
        let width = match first {
            0xFC => 2,
            0xFD => 3,
            0xFE => 8,
            _ => return Ok(first.into()),
        };
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(self.take(width)?);
        Ok(usize::from_le_bytes(bytes))
    }

    /// A cell of a row: null, or its text with the length in front.
    fn value(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.0.first() == Some(&0xFB) {
            self.0 = &self.0[1..];
            return Ok(None);
        }
        let length = self.number()?;
        Ok(Some(self.take(length)?.to_vec()))
    }
}
