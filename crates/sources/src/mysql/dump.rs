//! From a connection to a stream of the log: session variables, registration, the dump command (MySQL source documentation,
//! "COM_BINLOG_DUMP", "COM_BINLOG_DUMP_GTID", "COM_REGISTER_SLAVE"; MariaDB documentation, "Replica Registration").

use super::connection::Connection;
use super::flavour::Flavour;
use super::gtid::GtidSet;
use super::position::FIRST_OFFSET;
use super::quote;
use crate::shared::transport::Transport;
use deltaforge_core::Fault;
use sha2::{Digest, Sha256};
use std::time::Duration;

const COM_BINLOG_DUMP: u8 = 0x12;
const COM_REGISTER_SLAVE: u8 = 0x15;
const COM_BINLOG_DUMP_GTID: u8 = 0x1e;
/// MariaDB: the statements of row changes are wanted, too.
const SEND_ANNOTATE_ROWS: u16 = 0x02;
/// MariaDB: GTID events are understood. Without it the server sends what replicas before 10.0 take.
const MARIADB_CAPABILITY: u8 = 4;
/// What `SHOW REPLICAS` shows.
const REPORT_HOST: &[u8] = b"deltaforge";
/// Encoding of a set without GTIDs.
const EMPTY_SET: [u8; 8] = [0; 8];

/// From where the log is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DumpStart {
    /// A place in a file: an offset where an event begins.
    File { file: String, pos: u64 },
    /// Everything that is not in the set.
    Gtids(GtidSet),
}

/// What is asked of the server.
#[derive(Clone, Debug)]
pub(super) struct DumpRequest {
    pub(super) start: DumpStart,
    /// This reader's own, which no other reader and no replica has.
    pub(super) server_id: u32,
    /// How long the server may be silent.
    pub(super) heartbeat: Duration,
    /// MariaDB: send the statements of row changes, too.
    pub(super) annotate: bool,
}

impl Connection {
    /// Asks for the log. Gives the transport and what was read from it already; the first packet, an event or an error, is left
    /// for the stream.
    ///
    /// # Errors
    /// `Config` when rights are missing or the place cannot be asked for; otherwise as [`query`](Connection::query).
    pub(super) fn start_dump(mut self, request: &DumpRequest) -> Result<(Transport, Vec<u8>), Fault> {
        const WHAT: &str = "asking for the log";
        let flavour = self.flavour();
        let command = match &request.start {
            // Only the other command has room for an offset beyond 4 GiB, and the server takes it only with GTIDs.
            DumpStart::File { file, pos } if u32::try_from(*pos).is_err() => {
                let gtids = flavour == Flavour::MySql
                    && self.query_text("SELECT @@global.gtid_mode", WHAT)?.as_deref() == Some("ON");
                if !gtids {
                    return Err(beyond_limit(file, *pos));
                }
                dump_gtid(request.server_id, file, *pos, &EMPTY_SET)
            }
            DumpStart::File { file, pos } => dump(request, file, *pos as u32),
            DumpStart::Gtids(set) => match flavour {
                Flavour::MySql => {
                    let set = set.clone().into_mysql().ok_or_else(|| wrong_flavour(flavour))?;
                    dump_gtid(request.server_id, "", FIRST_OFFSET, &set.encode())
                }
                Flavour::MariaDb => dump(request, "", FIRST_OFFSET as u32),
            },
        };
        self.query(&variables(flavour, request)?, WHAT)?;
        self.register(request.server_id)?;
        self.packets.command(&command)?;
        Ok(self.packets.into_parts())
    }

    /// Enters this reader into the server's list of replicas, which is also the way to learn whether it may read the log.
    pub(super) fn register(&mut self, server_id: u32) -> Result<(), Fault> {
        self.command(&registration(server_id), "registering as a replica")
    }
}

/// Identity of a reader, by which MySQL knows one that comes again and ends what is left of its old connection. Derived from the
/// server id, so that two readers with one server id are noticed on MySQL as they are on MariaDB, which goes by that id itself.
fn replica_uuid(server_id: u32) -> String {
    let digest = Sha256::digest(format!("deltaforge replica {server_id}"));
    let mut bytes: [u8; 16] = std::array::from_fn(|i| digest[i]);
    // Version 8, variant 1: RFC 9562.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// The session variables that a dump is controlled by. Servers from 8.0.26 on know both spellings, older ones the first.
fn variables(flavour: Flavour, request: &DumpRequest) -> Result<String, Fault> {
    let heartbeat = request.heartbeat.as_nanos();
    let mut sql = format!(
        "SET @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum, \
         @master_heartbeat_period = {heartbeat}, @source_heartbeat_period = {heartbeat}"
    );
    match flavour {
        Flavour::MySql => {
            let uuid = quote::literal(&replica_uuid(request.server_id));
            sql.push_str(&format!(", @slave_uuid = {uuid}, @replica_uuid = {uuid}"));
        }
        Flavour::MariaDb => {
            sql.push_str(&format!(", @mariadb_slave_capability = {MARIADB_CAPABILITY}"));
            if let DumpStart::Gtids(set) = &request.start {
                let set = set.clone().into_maria().ok_or_else(|| wrong_flavour(flavour))?;
                let state = quote::literal(&GtidSet::Maria(set).to_string());
                // Strict: a server that lacks the very transaction is told from one that has it.
                sql.push_str(&format!(
                    ", @slave_connect_state = {state}, @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0"
                ));
            }
        }
    }
    Ok(sql)
}

fn registration(server_id: u32) -> Vec<u8> {
    let mut out = vec![COM_REGISTER_SLAVE];
    out.extend_from_slice(&server_id.to_le_bytes());
    out.push(REPORT_HOST.len() as u8);
    out.extend_from_slice(REPORT_HOST);
    // No user, no password, no port, rank and master 0.
    out.extend_from_slice(&[0; 2 + 2 + 4 + 4]);
    out
}

fn dump(request: &DumpRequest, file: &str, pos: u32) -> Vec<u8> {
    let flags = if request.annotate { SEND_ANNOTATE_ROWS } else { 0 };
    let mut out = vec![COM_BINLOG_DUMP];
    out.extend_from_slice(&pos.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&request.server_id.to_le_bytes());
    out.extend_from_slice(file.as_bytes());
    out
}

fn dump_gtid(server_id: u32, file: &str, pos: u64, set: &[u8]) -> Vec<u8> {
    let mut out = vec![COM_BINLOG_DUMP_GTID];
    out.extend_from_slice(&0_u16.to_le_bytes());
    out.extend_from_slice(&server_id.to_le_bytes());
    out.extend_from_slice(&(file.len() as u32).to_le_bytes());
    out.extend_from_slice(file.as_bytes());
    out.extend_from_slice(&pos.to_le_bytes());
    out.extend_from_slice(&(set.len() as u32).to_le_bytes());
    out.extend_from_slice(set);
    out
}

fn beyond_limit(file: &str, pos: u64) -> Fault {
    let message = format!(
        "{file}:{pos} lies beyond 4 GiB, and a server without GTIDs cannot be asked for such a place"
    );
    Fault::config("mysql.offset_limit", message).hint(
        "switch GTIDs on (gtid_mode = ON), or, when nothing follows that place in its file, set `start_position` to \
         the next file at 4 and delete the checkpoint",
    )
}

fn wrong_flavour(flavour: Flavour) -> Fault {
    Fault::config(
        "mysql.other_server",
        format!("the GTIDs of the position are not those of {}", flavour.name()),
    )
    .hint("point the DSN at the former server, or delete the checkpoint to begin as `start_position` says")
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "in a test, a panic with a clear message is how a failure is reported"
    )]

    use super::*;

    fn request(start: DumpStart, annotate: bool) -> DumpRequest {
        DumpRequest { start, server_id: 0x0102_0304, heartbeat: Duration::from_secs(15), annotate }
    }

    fn file(pos: u64) -> DumpStart {
        DumpStart::File { file: "b.7".into(), pos }
    }

    #[test]
    fn commands_are_laid_out_as_the_servers_read_them() {
        assert_eq!(
            dump(&request(file(260), true), "b.7", 260),
            [0x12, 4, 1, 0, 0, 2, 0, 4, 3, 2, 1, b'b', b'.', b'7']
        );
        assert_eq!(dump(&request(file(4), false), "", 4)[5..7], [0, 0]);
        assert_eq!(
            dump_gtid(1, "b.7", 1 << 32, &[9, 9]),
            [0x1e, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, b'b', b'.', b'7', 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 9, 9]
        );
        let registration = registration(7);
        assert_eq!(registration[..6], [0x15, 7, 0, 0, 0, 10]);
        assert_eq!(&registration[6..16], b"deltaforge");
        assert_eq!(registration.len(), 16 + 12);
    }

    #[test]
    fn variables_follow_the_flavour_and_the_start() {
        let maria = GtidSet::parse("0-1-100,7-2-5").unwrap();
        let mysql = GtidSet::parse("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5").unwrap();
        let sql = variables(Flavour::MySql, &request(DumpStart::Gtids(mysql.clone()), false)).unwrap();
        assert!(
            sql.contains("@master_heartbeat_period = 15000000000,") && sql.contains("@slave_uuid = '"),
            "{sql}"
        );
        assert!(!sql.contains("mariadb") && !sql.contains("connect_state"), "{sql}");
        let sql = variables(Flavour::MariaDb, &request(DumpStart::Gtids(maria), false)).unwrap();
        assert!(
            sql.contains("@mariadb_slave_capability = 4, @slave_connect_state = '0-1-100,7-2-5'"),
            "{sql}"
        );
        let sql = variables(Flavour::MariaDb, &request(file(4), false)).unwrap();
        assert!(!sql.contains("connect_state"), "{sql}");
        let fault = variables(Flavour::MariaDb, &request(DumpStart::Gtids(mysql), false)).unwrap_err();
        assert_eq!(fault.code(), "mysql.other_server");
    }

    #[test]
    fn a_server_id_has_one_uuid() {
        let uuid = replica_uuid(7);
        assert_eq!(uuid, replica_uuid(7));
        assert_ne!(uuid, replica_uuid(8));
        assert_eq!((uuid.len(), uuid.as_bytes()[14]), (36, b'8'));
        assert!(matches!(uuid.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{uuid}");
    }
}
