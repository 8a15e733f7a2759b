//! What must be true before the stream starts: the server's settings, the publication, the slot, and above all that the
//! place to go on from is still there.
//!
//! **Why the place is compared here.** Asked for a place behind the slot's `confirmed_flush_lsn`, the server streams from
//! `confirmed_flush_lsn` without a word. So a stored position behind the slot, on another server, ahead of the server's
//! log, or without a slot is a fault of class `Lost`, each with its own code, and the slot of a stored position is never
//! made anew.

use super::catalog::Catalog;
use super::config::{Settings, StartPosition};
use super::connection::{Connection, Purpose, Row};
use super::position::{Lsn, PgPosition, Server};
use super::{check, error};
use deltaforge_core::fault::Kind;
use deltaforge_core::source::SourceStats;
use deltaforge_core::{Fault, Position};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Tables without a replica identity are published by a second publication, for inserts and truncates only: publishing their
/// updates and deletes would make these fail for the application.
pub(super) const INSERT_ONLY_SUFFIX: &str = "_insert_only";

/// Everything is in place; the stream may start.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) replication: Connection,
    pub(super) catalog: Catalog,
    pub(super) start: Lsn,
    pub(super) server: Server,
    pub(super) publications: Vec<String>,
    pub(super) version: u32,
    pub(super) status_interval: Duration,
}

/// Prepares; blocking. `cancelled` ends a wait for other transactions.
pub(super) fn prepare(
    settings: &Settings,
    resume: Option<&Position>,
    stats: &SourceStats,
    cancelled: &AtomicBool,
) -> Result<Prepared, Fault> {
    let stored = resume.map(PgPosition::parse).transpose().map_err(|why| {
        Fault::config(
            "postgres.bad_checkpoint",
            format!("the checkpoint of `{}` is unreadable: {why}", settings.id),
        )
        .hint("restore the state store from a backup, or delete the checkpoint to start as configured")
    })?;
    let mut replication = Connection::open(&settings.target, Purpose::Replication)?;
    let mut catalog = Catalog::new(settings.target.clone());
    let version = server_version(&mut catalog)?;
    let wal_level = catalog.query_text("SHOW wal_level", "reading wal_level")?;
    if wal_level != "logical" {
        let message = format!("the server's wal_level is `{wal_level}`; logical replication needs `logical`");
        let hint = "ALTER SYSTEM SET wal_level = 'logical'; then restart the server";
        return Err(Fault::config("postgres.wal_level", message).hint(hint));
    }
    let server = identify(&mut replication)?;
    if let Some(stored) = &stored {
        same_server(settings, stored, &server)?;
    }
    let publications = publish(settings, &mut catalog, version, true)?;
    let slot = find_slot(settings, &mut catalog)?;
    let confirmed = match (slot, &stored) {
        (Some(slot), _) => usable(settings, slot)?,
        (None, Some(stored)) => return Err(slot_missing(settings, stored)),
        (None, None) => create_slot(settings, &mut replication, &mut catalog, stats, cancelled)?,
    };
    let head = catalog.observe(&settings.slot)?.head;
    let start = match stored {
        Some(stored) => resume_at(settings, stored.lsn, confirmed, head)?,
        None => first_start(settings.start_position, confirmed, head)?,
    };
    let status_interval = status_interval(settings, &mut replication)?;
    Ok(Prepared { replication, catalog, start, server, publications, version, status_interval })
}

pub(super) fn server_version(catalog: &mut Catalog) -> Result<u32, Fault> {
    let text = catalog.query_text("SHOW server_version_num", "reading the server's version")?;
    let version = text.parse().map_err(|_| error::protocol("the server's version is not a number"))?;
    if version < 130_000 {
        let message = format!("the server is PostgreSQL {}; 13 or later is needed", version / 10_000);
        return Err(Fault::config("postgres.version", message).hint("upgrade the server"));
    }
    Ok(version)
}

fn identify(replication: &mut Connection) -> Result<Server, Fault> {
    let rows = replication.query("IDENTIFY_SYSTEM", "identifying the server")?;
    match rows.first().map(Vec::as_slice) {
        Some([Some(system_id), Some(timeline), ..]) => {
            Ok(Server { system_id: system_id.clone(), timeline: timeline.parse().unwrap_or(0) })
        }
        _ => Err(error::protocol("IDENTIFY_SYSTEM without an answer")),
    }
}

fn same_server(settings: &Settings, stored: &PgPosition, server: &Server) -> Result<(), Fault> {
    match &stored.server {
        Some(was) if was.system_id != server.system_id => {
            let message = format!(
                "the checkpoint {} belongs to the server with system identifier {}, but the DSN leads to {}",
                stored.lsn, was.system_id, server.system_id
            );
            Err(Fault::lost("postgres.other_server", message).hint(accept_gap(
                settings,
                "point the DSN at the former server or one of its standbys; to go on here",
            )))
        }
        _ => Ok(()),
    }
}

/// The way on when the gap is accepted.
fn accept_gap(settings: &Settings, first: &str) -> String {
    format!(
        "{first}, accepting the gap: stop the pipeline, delete its checkpoint (DELETE /checkpoints/<pipeline>), run \
         SELECT pg_drop_replication_slot({slot}) if the slot still exists, and resume; consumers need a fresh copy of the tables",
        slot = escape_literal(&settings.slot)
    )
}

/// A slot as the server lists it.
#[derive(Debug)]
pub(super) struct Slot {
    plugin: String,
    database: String,
    active_pid: Option<String>,
    confirmed: Option<Lsn>,
    wal_status: Option<String>,
}

pub(super) fn find_slot(settings: &Settings, catalog: &mut Catalog) -> Result<Option<Slot>, Fault> {
    let sql = format!(
        "SELECT COALESCE(plugin, slot_type), COALESCE(database, ''), active_pid, confirmed_flush_lsn, wal_status \
         FROM pg_replication_slots WHERE slot_name = {}",
        escape_literal(&settings.slot)
    );
    let rows = catalog.query(&sql, "looking for the slot")?;
    Ok(rows.into_iter().next().map(|row: Row| {
        let mut values = row.into_iter();
        let mut next = || values.next().flatten();
        Slot {
            plugin: next().unwrap_or_default(),
            database: next().unwrap_or_default(),
            active_pid: next(),
            confirmed: next().as_deref().and_then(Lsn::parse),
            wal_status: next(),
        }
    }))
}

/// A slot that exists must be ours to use; gives its `confirmed_flush_lsn`.
fn usable(settings: &Settings, slot: Slot) -> Result<Lsn, Fault> {
    let name = &settings.slot;
    if slot.plugin != "pgoutput" {
        let message = format!("the slot `{name}` uses `{}`, not the plugin `pgoutput`", slot.plugin);
        return Err(Fault::config("postgres.slot_plugin", message).hint("choose another `slot`"));
    }
    let database = &settings.target.dsn.database;
    if slot.database != *database {
        let message = format!(
            "the slot `{name}` belongs to the database `{}`, the DSN names `{database}`",
            slot.database
        );
        return Err(Fault::config("postgres.slot_database", message).hint("choose another `slot`"));
    }
    if slot.wal_status.as_deref() == Some("lost") {
        let message =
            format!("the slot `{name}` is lost: the server has removed log that it had not delivered");
        let hint = accept_gap(settings, "raise max_slot_wal_keep_size against the next time; to go on");
        return Err(Fault::lost("postgres.slot_lost", message).hint(hint));
    }
    if let Some(pid) = slot.active_pid {
        let message = format!("the slot `{name}` is in use by the server process {pid}");
        let hint = format!(
            "another process streams from it; it is taken over once that one is gone: SELECT pg_terminate_backend({pid})"
        );
        return Err(Fault::retry("postgres.slot_busy", message).hint(hint));
    }
    slot.confirmed.ok_or_else(|| {
        Fault::retry("postgres.slot_not_ready", format!("the slot `{name}` is still being made"))
            .kind(Kind::Target)
    })
}

fn slot_missing(settings: &Settings, stored: &PgPosition) -> Fault {
    let message = format!(
        "the slot `{}` does not exist, though the checkpoint stands at {}: it was dropped, or the server was replaced",
        settings.slot, stored.lsn
    );
    Fault::lost("postgres.slot_missing", message)
        .hint(accept_gap(settings, "a new slot begins at the present; to go on"))
}

fn resume_at(settings: &Settings, stored: Lsn, confirmed: Lsn, head: Lsn) -> Result<Lsn, Fault> {
    if stored < confirmed {
        let message = format!(
            "the checkpoint {stored} is behind the slot `{}`, which was acknowledged up to {confirmed}: {} bytes of log between \
             them were not delivered by this pipeline",
            settings.slot,
            confirmed.0 - stored.0
        );
        let hint = accept_gap(
            settings,
            "somebody advanced or recreated the slot, or an old state store was restored; to go on",
        );
        return Err(Fault::lost("postgres.position_behind_slot", message).hint(hint));
    }
    if stored > head {
        let message = format!(
            "the checkpoint {stored} is ahead of the server's log, which ends at {head}: the server was restored from a backup, \
             or this is a standby that was promoted too early"
        );
        let hint = accept_gap(settings, "what the server lost stays delivered; to go on");
        return Err(Fault::lost("postgres.source_behind", message).hint(hint));
    }
    Ok(stored)
}

fn first_start(position: StartPosition, confirmed: Lsn, head: Lsn) -> Result<Lsn, Fault> {
    match position {
        StartPosition::Earliest => Ok(confirmed),
        StartPosition::Latest => Ok(head.max(confirmed)),
        StartPosition::At(lsn) if (confirmed..=head).contains(&lsn) => Ok(lsn),
        StartPosition::At(lsn) => {
            let message =
                format!("start_position {lsn} is outside what the slot holds, {confirmed} to {head}");
            Err(Fault::config("postgres.start_position", message)
                .hint("choose a place in that range, or `earliest`"))
        }
    }
}

/// Reports are due well within `wal_sender_timeout`: at a sixth of it, or as configured when that is sooner.
fn status_interval(settings: &Settings, replication: &mut Connection) -> Result<Duration, Fault> {
    let sql = "SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'";
    let timeout_ms: u64 =
        replication.query_text(sql, "reading wal_sender_timeout")?.and_then(|t| t.parse().ok()).unwrap_or(0);
    let sixth = Duration::from_millis(timeout_ms / 6).max(Duration::from_millis(50));
    Ok(if timeout_ms == 0 { settings.status_interval } else { settings.status_interval.min(sixth) })
}

fn create_slot(
    settings: &Settings,
    replication: &mut Connection,
    catalog: &mut Catalog,
    stats: &SourceStats,
    cancelled: &AtomicBool,
) -> Result<Lsn, Fault> {
    if !settings.create_slot {
        let message = format!("the slot `{}` does not exist and `create_slot` is false", settings.slot);
        let hint = format!(
            "SELECT pg_create_logical_replication_slot({}, 'pgoutput');",
            escape_literal(&settings.slot)
        );
        return Err(Fault::config("postgres.slot_missing", message).hint(hint));
    }
    // The server waits for every transaction that is open now; the status says for which.
    let begun = Instant::now();
    let mut asked = begun;
    let mut tick = || {
        if cancelled.load(Ordering::Relaxed) {
            return Err(Fault::retry("postgres.cancelled", "the start was cancelled"));
        }
        if asked.elapsed() > Duration::from_secs(1) {
            asked = Instant::now();
            stats.note(Some(blocked_by(catalog, begun.elapsed())));
        }
        Ok(())
    };
    replication.wait_without_end();
    let sql = format!(
        "CREATE_REPLICATION_SLOT {} LOGICAL pgoutput NOEXPORT_SNAPSHOT",
        escape_identifier(&settings.slot)
    );
    let rows = replication.query_waiting(&sql, "creating the slot", &mut tick);
    stats.note(None);
    let lsn = rows?.first().and_then(|row| row.get(1).cloned().flatten()).as_deref().and_then(Lsn::parse);
    let lsn = lsn.ok_or_else(|| error::protocol("CREATE_REPLICATION_SLOT without a consistent point"))?;
    tracing::info!(source_id = settings.id, slot = settings.slot, lsn = %lsn, "created the replication slot");
    if comment_of(catalog, &settings.publication).is_ok_and(|comment| comment.starts_with(MADE)) {
        // Without the right to comment the slot only stays when the pipeline is deleted.
        let _stays = mark_made(catalog, &settings.publication, &slot_mark(settings));
    }
    Ok(lsn)
}

fn blocked_by(catalog: &mut Catalog, waited: Duration) -> String {
    let sql = "SELECT pid, xact_start FROM pg_stat_activity \
               WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 1";
    let oldest =
        catalog.query(sql, "looking for open transactions").ok().and_then(|rows| rows.into_iter().next());
    let for_whom = match oldest.as_deref() {
        Some([Some(pid), Some(since)]) => format!("; the oldest is of process {pid}, open since {since}"),
        _ => String::new(),
    };
    format!("creating the slot waits for open transactions, {} s so far{for_whom}", waited.as_secs())
}

/// A table that the patterns match.
#[derive(Debug)]
struct Candidate {
    oid: u32,
    schema: String,
    table: String,
    /// OIDs of the partitioned tables above it.
    ancestors: Vec<u32>,
    identity: String,
    /// Updates and deletes may be published: the server does not refuse to run them then.
    has_identity: bool,
    /// The table and its partitions, quoted, that could have the identity FULL and do not.
    not_full: Vec<String>,
}

impl Candidate {
    fn quoted(&self) -> String {
        format!("{}.{}", escape_identifier(&self.schema), escape_identifier(&self.table))
    }
}

/// What counts for a partitioned table is the identity of its partitions, where the rows are. A deferrable primary key is no
/// identity, and FULL is none with virtual generated columns (`attgenerated = 'v'`, PostgreSQL 18).
const CANDIDATES_SQL: &str = "WITH own AS (SELECT c.oid, n.nspname, c.relname, c.relkind, c.relreplident, \
      EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 'v' AND NOT a.attisdropped) AS virtual, \
      CASE c.relreplident WHEN 'n' THEN false WHEN 'f' THEN true \
        WHEN 'i' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid) \
        ELSE EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid) \
      END AS identified \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'), \
  usable AS (SELECT *, identified AND NOT (virtual AND relreplident = 'f') AS usable FROM own) \
  SELECT c.oid, c.nspname, c.relname, c.relreplident, \
    COALESCE((SELECT string_agg(a.relid::oid::text, ',') FROM pg_partition_ancestors(c.oid) a WHERE a.relid <> c.oid), ''), \
    COALESCE((SELECT bool_and(u.usable) FROM pg_partition_tree(c.oid) t JOIN usable u ON u.oid = t.relid \
      WHERE t.isleaf AND c.relkind = 'p'), c.usable), \
    (SELECT json_agg(format('%I.%I', u.nspname, u.relname)) FROM usable u WHERE u.relreplident <> 'f' AND NOT u.virtual \
      AND (u.oid = c.oid OR c.relkind = 'p' AND u.oid IN (SELECT t.relid FROM pg_partition_tree(c.oid) t))) \
  FROM usable c ORDER BY c.nspname, c.relname";

/// Schemas and names of tables.
type Names = Vec<(String, String)>;

/// The tables that the filter matches, and the names of all; a partition whose partitioned table is matched is left to that one.
fn candidates(settings: &Settings, catalog: &mut Catalog) -> Result<(Vec<Candidate>, Names), Fault> {
    let mut all = Vec::new();
    let mut names = Vec::new();
    for row in catalog.query(CANDIDATES_SQL, "listing tables")? {
        let mut values = row.into_iter().map(Option::unwrap_or_default);
        let mut next = || values.next().unwrap_or_default();
        let oid = next().parse().unwrap_or(0);
        let (schema, table, identity) = (next(), next(), next());
        let ancestors = next().split(',').filter_map(|oid| oid.parse().ok()).collect();
        names.push((schema.clone(), table.clone()));
        if settings.tables.matches(&schema, &table) {
            let has_identity = next() == "t";
            let not_full = serde_json::from_str(&next()).unwrap_or_default();
            all.push(Candidate { oid, schema, table, ancestors, identity, has_identity, not_full });
        }
    }
    let matched: HashSet<u32> = all.iter().map(|c| c.oid).collect();
    all.retain(|c| !c.ancestors.iter().any(|a| matched.contains(a)));
    Ok((all, names))
}

/// Sets the identity FULL wherever that is possible; true when anything was changed.
fn set_full_identity(
    settings: &Settings,
    catalog: &mut Catalog,
    tables: &[Candidate],
) -> Result<bool, Fault> {
    let mut changed = false;
    for table in tables.iter().flat_map(|t| &t.not_full) {
        let sql = format!("ALTER TABLE {table} REPLICA IDENTITY FULL");
        catalog.query(&sql, &sql)?;
        tracing::info!(source_id = settings.id, table, "set the replica identity to FULL");
        changed = true;
    }
    Ok(changed)
}

/// Creates or extends the publications for the matching tables; gives those to stream from. With `first` it warns about what it
/// finds and refuses what must not start; later calls only add tables that have appeared.
pub(super) fn publish(
    settings: &Settings,
    catalog: &mut Catalog,
    version: u32,
    first: bool,
) -> Result<Vec<String>, Fault> {
    let (mut tables, names) = candidates(settings, catalog)?;
    if first {
        report_patterns(settings, &names)?;
    }
    if settings.full_identity && set_full_identity(settings, catalog, &tables)? {
        (tables, _) = candidates(settings, catalog)?;
    }
    if first && !settings.warned.swap(true, Ordering::Relaxed) {
        check::warn_identities(
            settings,
            tables.iter().map(|t| (t.quoted(), t.identity.as_str(), t.has_identity)),
        );
    }
    let (keyed, keyless): (Vec<_>, Vec<_>) = tables.iter().partition(|t| t.has_identity);
    let insert_only = format!("{}{INSERT_ONLY_SUFFIX}", settings.publication);
    let main =
        Wanted { name: &settings.publication, operations: "insert, update, delete, truncate", always: true };
    let main = publish_tables(settings, catalog, &main, &keyed, version, first)?;
    let rest: Vec<&Candidate> = keyless.into_iter().filter(|t| !main.covers(t)).collect();
    let companion = Wanted { name: &insert_only, operations: "insert, truncate", always: false };
    let companion = publish_tables(settings, catalog, &companion, &rest, version, first)?;
    let mut publications = vec![settings.publication.clone()];
    publications.extend(companion.exists.then_some(insert_only));
    Ok(publications)
}

fn report_patterns(settings: &Settings, names: &[(String, String)]) -> Result<(), Fault> {
    let unmatched: Vec<&str> = settings.tables.unmatched(names).collect();
    if unmatched.is_empty() {
        return Ok(());
    }
    let list = unmatched.join(", ");
    if settings.tables_must_exist {
        let message = format!("no table matches {list}, and `missing_tables` is `error`");
        return Err(Fault::config("postgres.missing_tables", message)
            .hint("correct the patterns, or create the tables"));
    }
    tracing::warn!(
        source_id = settings.id,
        patterns = list,
        "no table matches yet; captured once it appears"
    );
    Ok(())
}

/// A publication as it is now.
struct Published {
    exists: bool,
    all_tables: bool,
    members: HashSet<u32>,
}

impl Published {
    fn covers(&self, table: &Candidate) -> bool {
        self.all_tables
            || self.members.contains(&table.oid)
            || table.ancestors.iter().any(|a| self.members.contains(a))
    }
}

fn published(catalog: &mut Catalog, name: &str, version: u32) -> Result<Published, Fault> {
    let literal = escape_literal(name);
    let sql = format!("SELECT puballtables FROM pg_publication WHERE pubname = {literal}");
    let rows = catalog.query(&sql, "looking for the publication")?;
    let Some(row) = rows.first() else {
        return Ok(Published { exists: false, all_tables: false, members: HashSet::new() });
    };
    let all_tables = row.first().cloned().flatten().as_deref() == Some("t");
    let mut sql = format!(
        "SELECT r.prrelid FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = {literal}"
    );
    if version >= 150_000 {
        sql.push_str(&format!(
            " UNION SELECT c.oid FROM pg_class c JOIN pg_publication_namespace s ON s.pnnspid = c.relnamespace \
             JOIN pg_publication p ON p.oid = s.pnpubid WHERE p.pubname = {literal}"
        ));
    }
    let rows = catalog.query(&sql, "reading the publication's tables")?;
    let members = rows.iter().filter_map(|row| row.first()?.as_ref()?.parse().ok()).collect();
    Ok(Published { exists: true, all_tables, members })
}

/// A publication that is to cover tables.
struct Wanted<'a> {
    name: &'a str,
    operations: &'static str,
    /// Made also when no table needs it.
    always: bool,
}

/// Makes sure that the publication covers the tables.
fn publish_tables(
    settings: &Settings,
    catalog: &mut Catalog,
    publication: &Wanted<'_>,
    tables: &[&Candidate],
    version: u32,
    first: bool,
) -> Result<Published, Fault> {
    let Wanted { name, operations, always: wanted } = *publication;
    let mut present = published(catalog, name, version)?;
    let missing: Vec<&&Candidate> = tables.iter().filter(|t| !present.covers(t)).collect();
    if present.exists && missing.is_empty() || !present.exists && !wanted && missing.is_empty() {
        return Ok(present);
    }
    // Without ONLY the server would add tables that inherit from it, whatever their identity is.
    let list = missing.iter().map(|t| format!("ONLY {}", t.quoted())).collect::<Vec<_>>().join(", ");
    let quoted = escape_identifier(name);
    let sql = match (present.exists, missing.is_empty()) {
        (true, _) => format!("ALTER PUBLICATION {quoted} ADD TABLE {list}"),
        (false, none) => {
            let tables = if none { String::new() } else { format!(" FOR TABLE {list}") };
            // Without them the server would refuse updates of a table with such columns and the identity FULL.
            let generated = if version >= 180_000 { ", publish_generated_columns = stored" } else { "" };
            format!(
                "CREATE PUBLICATION {quoted}{tables} WITH (publish = '{operations}', publish_via_partition_root = true{generated})"
            )
        }
    };
    if !settings.create_publication {
        if present.exists {
            warn_unpublished(settings, &sql, first);
            return Ok(present);
        }
        if !wanted {
            return Ok(present);
        }
        let message = format!("the publication `{name}` does not exist and `create_publication` is false");
        return Err(Fault::config("postgres.publication_missing", message).hint(format!("{sql};")));
    }
    match catalog.query(&sql, "publishing tables") {
        Ok(_) => {}
        Err(fault) if matches!(fault.code(), "postgres.no_rights" | "postgres.read_only") => {
            // What is published already goes on; only a publication that is not there at all stops the start.
            if present.exists || !wanted {
                warn_unpublished(settings, &sql, first);
                return Ok(present);
            }
            return Err(fault.hint(format!("let the tables' owner run, on the primary: {sql};")));
        }
        Err(fault) => return Err(fault),
    }
    if !present.exists {
        mark_made(catalog, name, "")?;
    }
    tracing::info!(source_id = settings.id, publication = name, tables = list, "published tables");
    present.exists = true;
    present.members.extend(missing.iter().map(|t| t.oid));
    Ok(present)
}

/// Says once which tables would be captured and are not published.
fn warn_unpublished(settings: &Settings, sql: &str, first: bool) {
    if first {
        tracing::warn!(
            source_id = settings.id,
            "tables are matched but not published; let their owner run: {sql};"
        );
    }
}

/// What the comment of a publication says that was made here; the slot's name follows when that was made here, too. So a delete
/// that is asked to clean up drops what is ours, and nothing else.
const MADE: &str = "made by DeltaForge";

fn mark_made(catalog: &mut Catalog, publication: &str, rest: &str) -> Result<(), Fault> {
    let comment = escape_literal(&format!("{MADE}{rest}"));
    let sql = format!("COMMENT ON PUBLICATION {} IS {comment}", escape_identifier(publication));
    catalog.query(&sql, "noting who made the publication").map(drop)
}

fn comment_of(catalog: &mut Catalog, publication: &str) -> Result<String, Fault> {
    let sql = format!(
        "SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = {}",
        escape_literal(publication)
    );
    let rows = catalog.query(&sql, "reading who made the publication")?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten().unwrap_or_default())
}

fn slot_mark(settings: &Settings) -> String {
    format!("; slot {}", settings.slot)
}

/// Whether a place can still be streamed from; read-only.
pub(super) fn reach(settings: &Settings, position: &Position) -> Result<(), Fault> {
    let bad = |why| Fault::config("postgres.bad_checkpoint", format!("the position is unreadable: {why}"));
    let stored = PgPosition::parse(position).map_err(bad)?;
    let mut catalog = Catalog::new(settings.target.clone());
    let Some(slot) = find_slot(settings, &mut catalog)? else { return Err(slot_missing(settings, &stored)) };
    let head = catalog.observe(&settings.slot)?.head;
    resume_at(settings, stored.lsn, slot.confirmed.unwrap_or_default(), head).map(drop)
}

/// Drops the slot and the publications, as far as they were made here.
pub(super) fn remove(settings: &Settings) -> Result<(), Fault> {
    let mut catalog = Catalog::new(settings.target.clone());
    let comment = comment_of(&mut catalog, &settings.publication)?;
    if find_slot(settings, &mut catalog)?.is_some() {
        if comment.ends_with(&slot_mark(settings)) {
            let sql = format!("SELECT pg_drop_replication_slot({})", escape_literal(&settings.slot));
            catalog.query(&sql, "dropping the slot")?;
        } else {
            tracing::warn!(
                source_id = settings.id,
                slot = settings.slot,
                "the slot was not made here and stays; it keeps log"
            );
        }
    }
    for name in [settings.publication.clone(), format!("{}{INSERT_ONLY_SUFFIX}", settings.publication)] {
        if comment_of(&mut catalog, &name)?.starts_with(MADE) {
            catalog.query(
                &format!("DROP PUBLICATION {}", escape_identifier(&name)),
                "dropping the publication",
            )?;
        }
    }
    Ok(())
}

/// Set when the future that waits for [`prepare`] is dropped.
pub(super) struct CancelOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_start_stays_within_what_the_slot_holds() {
        let start = |p| first_start(p, Lsn(10), Lsn(20)).map_err(|f| f.code());
        assert_eq!(start(StartPosition::Earliest), Ok(Lsn(10)));
        assert_eq!(start(StartPosition::Latest), Ok(Lsn(20)));
        assert_eq!(start(StartPosition::At(Lsn(15))), Ok(Lsn(15)));
        for outside in [9, 21] {
            assert_eq!(start(StartPosition::At(Lsn(outside))), Err("postgres.start_position"));
        }
    }
}
