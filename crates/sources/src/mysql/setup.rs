//! From settings and a stored position to a stream: which server it is, whether it still holds the place, what its tables look
//! like there.
//!
//! **Two readers, one id.** A server takes a second reader with the same server id for the first one come again and ends the
//! first, so two engines would throw each other out for ever. Hence a connection of its own holds a lock on the server under
//! the id's name for as long as the stream runs; whoever finds it taken waits. The server lets it go when that connection ends,
//! also by `kill -9`.

use super::check;
use super::config::{Settings, StartPosition, blocking};
use super::connection::Connection;
use super::decoder::{Seek, Start};
use super::dump::{DumpRequest, DumpStart};
use super::error;
use super::flavour::Flavour;
use super::gtid::reach::{self, Reach};
use super::gtid::{GtidSet, MariaSet, MariaState, MySqlSet};
use super::place::LogPlace;
use super::position::{self, FIRST_OFFSET, MySqlPosition, Server, numbered};
use super::quote::literal;
use super::schema::{Shape, TableRef, collations, database_charsets, defaults, lock_shapes};
use super::schemas::ServerFacts;
use deltaforge_core::fault::Kind;
use deltaforge_core::source::SourceStats;
use deltaforge_core::task::{Task, spawn};
use deltaforge_core::{Fault, Position};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// How often the server is asked how far it is.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long the server keeps the lock of a reader whose host has gone without a word.
const LOCK_SECONDS: u32 = 60;

/// Everything that a stream needs.
pub(super) struct Prepared {
    pub(super) start: Start,
    pub(super) request: DumpRequest,
    /// The connection that will stream.
    pub(super) stream: Connection,
    /// The connection that holds the lock.
    pub(super) control: Connection,
    pub(super) server: ServerFacts,
    /// Tables as they are at the start, on the first start.
    pub(super) seeds: Vec<(TableRef, Shape)>,
    pub(super) version: String,
    pub(super) from: String,
    /// It is the log that was read before.
    pub(super) same_log: bool,
}

/// Where the log is asked for.
struct Begin {
    dump: DumpStart,
    file: String,
    pos: u64,
    executed: Option<GtidSet>,
    seek: Option<Seek>,
}

/// Blocking.
pub(super) fn prepare(settings: &Settings, resume: Option<&Position>) -> Result<Prepared, Fault> {
    let mut control = Connection::open(&settings.target)?;
    let version = control.version();
    if !version.is_supported() {
        let message = format!("the server is {version}; MySQL from 8.0 and MariaDB from 10.5 are supported");
        return Err(Fault::config("mysql.version", message));
    }
    check::require(settings, &mut control)?;
    take_lock(settings, &mut control)?;
    check::warn(settings, &mut control);
    let server = ServerFacts {
        version,
        collations: collations(&mut control)?,
        defaults: defaults(&mut control)?,
        databases: database_charsets(&mut control)?,
        fold_names: number(
            &mut control,
            "SELECT @@global.lower_case_table_names",
            "reading the server's settings",
        )? != 0,
    };
    let identity = identity(&mut control)?;
    let stored = resume.map(parse).transpose()?;
    let (begin, seeds) = match &stored {
        Some(stored) => (resumed(stored, &identity, &mut control)?, Vec::new()),
        None => first(settings, &mut control)?,
    };
    let term = match stored.as_ref().and_then(|stored| stored.server.as_ref()) {
        Some(server) if server.uuid == identity => server.term,
        Some(server) => server.term + 1,
        None => 1,
    };
    let from = match &begin.dump {
        DumpStart::File { file, .. } => format!("{file}:{}", begin.pos),
        DumpStart::Gtids(_) => "the GTIDs that were not read".to_string(),
    };
    let request = DumpRequest {
        start: begin.dump,
        server_id: settings.server_id,
        heartbeat: settings.heartbeat,
        annotate: settings.include_query,
    };
    let is_other = stored.as_ref().and_then(|s| s.server.as_ref()).is_some_and(|s| s.uuid != identity);
    let place = match &request.start {
        DumpStart::File { .. } => LogPlace::new(&begin.file, begin.pos, term),
        // Another server's file of the same name is another file.
        DumpStart::Gtids(_) if is_other => LogPlace::unanchored("", FIRST_OFFSET, term),
        DumpStart::Gtids(_) => LogPlace::unanchored(&begin.file, begin.pos, term),
    };
    let start = Start {
        place,
        executed: begin.executed,
        server_tail: Server { uuid: identity, term }.json_tail(),
        seek: begin.seek,
    };
    let stream = Connection::open(&settings.target)?;
    let (version, same_log) = (version.to_string(), !is_other);
    Ok(Prepared { start, request, stream, control, server, seeds, version, from, same_log })
}

/// Whether the source could go on from a place; blocking.
pub(super) fn reach(settings: &Settings, position: &Position) -> Result<(), Fault> {
    let mut connection = Connection::open(&settings.target)?;
    let identity = identity(&mut connection)?;
    resumed(&parse(position)?, &identity, &mut connection).map(drop)
}

fn parse(position: &Position) -> Result<MySqlPosition, Fault> {
    MySqlPosition::parse(position).map_err(|why| {
        Fault::config("mysql.position", format!("the checkpoint does not read: {why}"))
            .hint("roll the checkpoint back, or DELETE /checkpoints/NAME to begin as `start_position` says")
    })
}

fn number(connection: &mut Connection, sql: &str, what: &str) -> Result<u64, Fault> {
    Ok(connection.query_text(sql, what)?.and_then(|text| text.parse().ok()).unwrap_or(0))
}

fn text(connection: &mut Connection, sql: &str, what: &str) -> Result<String, Fault> {
    Ok(connection.query_text(sql, what)?.unwrap_or_default())
}

/// What tells the server from others.
fn identity(connection: &mut Connection) -> Result<String, Fault> {
    const WHAT: &str = "asking the server who it is";
    match connection.flavour() {
        Flavour::MySql => text(connection, "SELECT @@global.server_uuid", WHAT),
        // MariaDB has no identity that is kept with its data; a copy of a server is told by where it stands.
        Flavour::MariaDb => {
            text(connection, "SELECT CONCAT(@@hostname, ':', @@port, ':', @@server_id)", WHAT)
        }
    }
}

// --- one reader ---------------------------------------------------------------------------------------------------

fn lock_name(settings: &Settings) -> String {
    literal(&format!("deltaforge.replica.{}", settings.server_id))
}

fn take_lock(settings: &Settings, control: &mut Connection) -> Result<(), Fault> {
    const WHAT: &str = "taking the lock of this reader";
    control.query(&format!("SET SESSION wait_timeout = {LOCK_SECONDS}"), WHAT)?;
    let name = lock_name(settings);
    if number(control, &format!("SELECT GET_LOCK({name}, 0)"), WHAT)? == 1 {
        return Ok(());
    }
    let holder = text(control, &format!("SELECT IS_USED_LOCK({name})"), WHAT)?;
    let message =
        format!("another reader uses server id {} on this server (connection {holder})", settings.server_id);
    Err(Fault::retry("mysql.server_id_busy", message)
        .kind(Kind::Connect)
        .hint("it is taken over once that one is gone; a second pipeline on the server needs another `id` or `server_id`"))
}

/// Holds the lock, and asks how far the server is.
pub(super) struct Owner {
    lost: watch::Receiver<Option<Fault>>,
    _task: Task<()>,
}

impl Owner {
    pub(super) fn watch(settings: Arc<Settings>, control: Connection, stats: Arc<SourceStats>) -> Owner {
        let (sender, lost) = watch::channel(None);
        let task = spawn("mysql observer", async move {
            let mut control = Some(control);
            loop {
                let (settings, held) = (settings.clone(), control.take());
                let observed = blocking(move || observe(&settings, held)).await;
                match observed {
                    Ok((connection, head)) => {
                        control = Some(connection);
                        stats.head.store(head, Ordering::Relaxed);
                    }
                    Err(fault) => {
                        stats.head.store(0, Ordering::Relaxed);
                        sender.send_replace(Some(fault));
                        return;
                    }
                }
                tokio::time::sleep(OBSERVE_INTERVAL).await;
            }
        });
        Owner { lost, _task: task }
    }

    /// A fault once this reader may no longer read.
    pub(super) fn check(&self) -> Result<(), Fault> {
        self.lost.borrow().clone().map_or(Ok(()), Err)
    }

    /// Waits for that. Cancel-safe.
    pub(super) async fn lost(&mut self) -> Fault {
        loop {
            if let Some(fault) = self.lost.borrow().clone() {
                return fault;
            }
            if self.lost.changed().await.is_err() {
                return Fault::bug("mysql.task_ended", "the observer of the source ended");
            }
        }
    }
}

/// How far the server is. A connection that was lost is made again, and the lock taken again, before anybody else has it.
fn observe(settings: &Settings, held: Option<Connection>) -> Result<(Connection, u64), Fault> {
    if let Some(mut control) = held
        && let Ok(head) = log_end(&mut control)
    {
        return Ok((control, head.number));
    }
    let mut control = Connection::open(&settings.target)?;
    take_lock(settings, &mut control)?;
    let head = log_end(&mut control)?;
    Ok((control, head.number))
}

// --- where the log is ---------------------------------------------------------------------------------------------

/// The log's present end.
struct LogEnd {
    file: String,
    pos: u64,
    number: u64,
}

fn log_end(connection: &mut Connection) -> Result<LogEnd, Fault> {
    let sql = connection.version().show_log_status();
    let rows = connection.query(sql, "asking where the log ends")?;
    let Some(row) = rows.first() else {
        return Err(error::binlog_off("the server keeps no binary log".into()));
    };
    let (file, pos) = (row.text(0), row.number(1).unwrap_or(FIRST_OFFSET));
    let number = position::number(numbered(&file).map_or(0, |(_, number)| number), pos);
    Ok(LogEnd { file, pos, number })
}

/// Number of the file and offset at which the log ends.
pub(super) fn log_place(connection: &mut Connection) -> Result<(u32, u64), Fault> {
    let end = log_end(connection)?;
    Ok((numbered(&end.file).map_or(0, |(_, number)| number), end.pos))
}

/// The log's files, oldest first, with their sizes.
fn log_files(connection: &mut Connection) -> Result<Vec<(String, u64)>, Fault> {
    let rows = connection.query("SHOW BINARY LOGS", "listing the log's files")?;
    Ok(rows.iter().map(|row| (row.text(0), row.number(1).unwrap_or(0))).collect())
}

fn gtids_are_on(connection: &mut Connection) -> Result<bool, Fault> {
    match connection.flavour() {
        Flavour::MariaDb => Ok(true),
        Flavour::MySql => Ok(text(connection, "SELECT @@global.gtid_mode", "reading gtid_mode")? == "ON"),
    }
}

fn mysql_set(connection: &mut Connection, variable: &str) -> Result<MySqlSet, Fault> {
    let said = text(connection, &format!("SELECT {variable}"), "reading GTID sets")?;
    MySqlSet::parse(&said).map_err(|why| error::protocol(&format!("{variable}: {why}")))
}

/// MariaDB: what was executed up to a place.
fn maria_set(connection: &mut Connection, file: &str, pos: u64) -> Result<MariaSet, Fault> {
    let sql = format!("SELECT BINLOG_GTID_POS({}, {pos})", literal(file));
    let said = text(connection, &sql, "reading GTIDs")?;
    MariaSet::parse(&said).map_err(|why| error::protocol(&format!("BINLOG_GTID_POS: {why}")))
}

// --- the first start ----------------------------------------------------------------------------------------------

type Seeds = Vec<(TableRef, Shape)>;

/// Begins as `start_position` says.
fn first(settings: &Settings, control: &mut Connection) -> Result<(Begin, Seeds), Fault> {
    let gtids = gtids_are_on(control)?;
    match &settings.start_position {
        StartPosition::Latest => {
            let wanted = |db: &str, table: &str| settings.captures(db, table);
            // Where the log ends while the tables are held as they are. What MySQL says of its GTIDs beside is of another moment:
            // commits go on, so the set is made from the log.
            let (end, seeds) = lock_shapes(control, &wanted, &mut log_end)?;
            Ok((at_place(control, end.file, end.pos, gtids)?, seeds))
        }
        StartPosition::Earliest => {
            let files = log_files(control)?;
            let (file, _) =
                files.into_iter().next().ok_or_else(|| error::binlog_off("the log has no file".into()))?;
            Ok((at_place(control, file, FIRST_OFFSET, gtids)?, Vec::new()))
        }
        StartPosition::At { file, pos } => {
            let files = log_files(control)?;
            let Some((_, size)) = files.iter().find(|(name, _)| name == file) else {
                return Err(no_such_place(format!("the server has no log file {file}"), &files));
            };
            if pos > size {
                return Err(no_such_place(format!("{file} has {size} bytes, {pos} lies beyond"), &files));
            }
            Ok((at_place(control, file.clone(), *pos, gtids)?, Vec::new()))
        }
        StartPosition::After(set) => {
            let stored =
                MySqlPosition { file: String::new(), pos: 0, gtid_set: Some(set.clone()), server: None };
            Ok((by_gtids(&stored, set, control)?, Vec::new()))
        }
    }
}

fn no_such_place(why: String, files: &[(String, u64)]) -> Fault {
    let held = match (files.first(), files.last()) {
        (Some((first, _)), Some((last, size))) => format!("the server holds {first}:4 to {last}:{size}"),
        _ => "the server holds no log".into(),
    };
    Fault::config("mysql.start_position", format!("`start_position`: {why}; {held}"))
        .hint("choose a place that SHOW BINARY LOGS lists, or `earliest` or `latest`")
}

/// From a place of a file. What MySQL had executed before it is said at the head of the file, and followed from there.
fn at_place(control: &mut Connection, file: String, pos: u64, gtids: bool) -> Result<Begin, Fault> {
    let (from, executed, seek) = match control.flavour() {
        Flavour::MariaDb => (pos, Some(GtidSet::Maria(maria_set(control, &file, pos)?)), None),
        Flavour::MySql if gtids => (
            FIRST_OFFSET,
            None,
            Some(Seek { pos, never_logged: mysql_set(control, "@@global.gtid_purged")? }),
        ),
        Flavour::MySql => (pos, None, None),
    };
    let dump = DumpStart::File { file: file.clone(), pos: from };
    Ok(Begin { dump, file, pos: from, executed, seek })
}

// --- going on -----------------------------------------------------------------------------------------------------

/// From a stored position: by GTIDs where both sides have them, else by file and offset on the same server.
fn resumed(stored: &MySqlPosition, identity: &str, control: &mut Connection) -> Result<Begin, Fault> {
    if let Some(set) = &stored.gtid_set
        && gtids_are_on(control)?
    {
        return by_gtids(stored, set, control);
    }
    if let Some(server) = &stored.server
        && server.uuid != identity
    {
        let message = format!(
            "the checkpoint is a place in the log of server {}, and this is {identity}: places of one server mean nothing on another",
            server.uuid
        );
        return Err(Fault::lost("mysql.other_server", message).hint(
            "point the DSN at the former server; or, when this one is to be read from now on, stop the pipeline and DELETE /checkpoints/NAME (changes in between are lost); with GTIDs (gtid_mode = ON) a change of servers needs nothing",
        ));
    }
    if stored.file.is_empty() {
        let message = "the checkpoint has only a GTID set, and the server uses no GTIDs";
        return Err(Fault::lost("mysql.gtids_off", message)
            .hint("SET PERSIST gtid_mode = ON (step by step, see the manual)"));
    }
    let files = log_files(control)?;
    let held = match (files.first(), files.last()) {
        (Some((first, _)), Some((last, size))) => format!("it holds {first}:4 to {last}:{size}"),
        _ => "it holds nothing".into(),
    };
    match files.iter().find(|(name, _)| *name == stored.file) {
        None => Err(purged(format!("the log file {} is not on the server any more; {held}", stored.file))),
        Some((_, size)) if stored.pos > *size => {
            let message = format!(
                "{} has {size} bytes, and {} was read: the log began anew; {held}",
                stored.file, stored.pos
            );
            Err(Fault::lost("mysql.source_behind", message).hint(BEHIND))
        }
        // GTIDs were switched on since, or nothing was read yet: then the set is found again on the way.
        Some(_) if stored.gtid_set.is_none() => {
            let gtids = gtids_are_on(control)?;
            at_place(control, stored.file.clone(), stored.pos, gtids)
        }
        Some(_) => {
            let dump = DumpStart::File { file: stored.file.clone(), pos: stored.pos };
            let executed = stored.gtid_set.clone();
            Ok(Begin { dump, file: stored.file.clone(), pos: stored.pos, executed, seek: None })
        }
    }
}

fn by_gtids(stored: &MySqlPosition, set: &GtidSet, control: &mut Connection) -> Result<Begin, Fault> {
    let other = || {
        let message = format!("the GTIDs of the checkpoint are not those of {}", control_name(set));
        Fault::lost("mysql.other_server", message)
            .hint("point the DSN at the former server, or stop the pipeline and DELETE /checkpoints/NAME to begin as `start_position` says")
    };
    let reached = match control.flavour() {
        Flavour::MySql => {
            let set = set.clone().into_mysql().ok_or_else(other)?;
            // In this order: what is purged in between is missed by the server, not here.
            let purged = mysql_set(control, "@@global.gtid_purged")?;
            let executed = mysql_set(control, "@@global.gtid_executed")?;
            reach::mysql(&set, &purged, &executed)
        }
        Flavour::MariaDb => {
            let set = set.clone().into_maria().ok_or_else(other)?;
            let files = log_files(control)?;
            let oldest = match files.first() {
                Some((file, _)) => maria_set(control, file, FIRST_OFFSET)?,
                None => MariaSet::default(),
            };
            let state = text(control, "SELECT @@global.gtid_binlog_state", "reading GTIDs")?;
            let state = MariaState::parse(&state).map_err(|why| error::protocol(&why))?;
            reach::maria(&set, &oldest.iter().copied().collect(), &state)
        }
    };
    match reached {
        Reach::Reachable => {}
        Reach::Purged(missing) => {
            return Err(purged(format!("the server has deleted transactions that were not read: {missing}")));
        }
        Reach::Ahead(ahead) => {
            let message = format!("the server does not have transactions that were read already: {ahead}");
            return Err(Fault::lost("mysql.source_behind", message).hint(BEHIND));
        }
    }
    let (file, pos) = match stored.file.as_str() {
        "" => log_files(control)?
            .into_iter()
            .next()
            .map_or((String::new(), FIRST_OFFSET), |(file, _)| (file, FIRST_OFFSET)),
        file => (file.to_owned(), stored.pos),
    };
    Ok(Begin { dump: DumpStart::Gtids(set.clone()), file, pos, executed: Some(set.clone()), seek: None })
}

const BEHIND: &str = "it was restored, reset, or is another server; wait until it has caught up or point the DSN at one that has them; \
    or stop the pipeline and DELETE /checkpoints/NAME to begin as `start_position` says";

fn control_name(set: &GtidSet) -> &'static str {
    match set {
        GtidSet::MySql(_) => Flavour::MariaDb.name(),
        GtidSet::Maria(_) => Flavour::MySql.name(),
    }
}

fn purged(message: String) -> Fault {
    Fault::lost("mysql.binlog_purged", message).hint(
        "those changes are lost for this pipeline: stop it, DELETE /checkpoints/NAME, and start it to go on as `start_position` says; \
         SET GLOBAL binlog_expire_logs_seconds = 604800 keeps the log longer",
    )
}
