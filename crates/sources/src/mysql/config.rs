//! The settings of the sources `mysql` and `mariadb`, as `docs/src/guide/mysql.md` lists them.

use super::check;
use super::connection::Target;
use super::dsn::Dsn;
use super::gtid::GtidSet;
use super::position::{FIRST_OFFSET, MySqlPosition, numbered};
use super::setup;
use super::source::{FIELDS, MySqlSource};
use super::values::ZeroDate;
use async_trait::async_trait;
use deltaforge_core::config::{
    Fields, FindingClass, Raw, Report, RetryPolicy, TableFilter, TablePattern, Tls, TlsMode, is_name,
};
use deltaforge_core::source::{Names, Opened, SourceContext, SourceInfo, SourceKind, SourcePlan};
use deltaforge_core::{Fault, Position};
use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The source type `mysql`.
#[derive(Debug)]
pub struct MySqlKind;

/// The source type `mariadb`: the same, but for what `source.connector` says.
#[derive(Debug)]
pub struct MariaDbKind;

/// Where to begin without a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StartPosition {
    /// The present end of the log.
    Latest,
    /// The beginning of the oldest file.
    Earliest,
    /// This place.
    At { file: String, pos: u64 },
    /// Everything after this set.
    After(GtidSet),
}

/// Parsed settings.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) id: String,
    pub(super) target: Target,
    /// Use [`captures`](Self::captures), which knows the system's own databases.
    pub(super) tables: TableFilter,
    pub(super) tables_must_exist: bool,
    pub(super) start_position: StartPosition,
    /// This reader's own among the server's replicas.
    pub(super) server_id: u32,
    pub(super) zero_date: ZeroDate,
    /// Events bear the statement that made them, where the server logs it.
    pub(super) include_query: bool,
    /// How long the server may have nothing to say before it says so.
    pub(super) heartbeat: Duration,
    /// Longest wait for an event of the log.
    pub(super) read_timeout: Duration,
    /// Longest silence.
    pub(super) inactivity_timeout: Duration,
    pub(super) retry: RetryPolicy,
    /// What a start warns about was said; a reconnect does not repeat it.
    pub(super) warned: Arc<AtomicBool>,
}

impl Settings {
    /// Whether a table's rows are captured.
    pub(super) fn captures(&self, database: &str, table: &str) -> bool {
        !is_system(database) && self.tables.matches(database, table)
    }
}

/// Whether a database is the server's own; those are never captured.
pub(super) fn is_system(database: &str) -> bool {
    matches!(database, "mysql" | "sys")
        || database.eq_ignore_ascii_case("information_schema")
        || database.eq_ignore_ascii_case("performance_schema")
}

impl SourceKind for MySqlKind {
    fn name(&self) -> &'static str {
        "mysql"
    }

    fn summary(&self) -> &'static str {
        "MySQL from 8.0 and MariaDB from 10.5 by their binary log"
    }

    fn parse(&self, fields: &mut Fields<'_>, names: &Names<'_>) -> Option<Arc<dyn SourcePlan>> {
        plan(self.name(), fields, names)
    }
}

impl SourceKind for MariaDbKind {
    fn name(&self) -> &'static str {
        "mariadb"
    }

    fn summary(&self) -> &'static str {
        "MariaDB from 10.5 by its binary log"
    }

    fn parse(&self, fields: &mut Fields<'_>, names: &Names<'_>) -> Option<Arc<dyn SourcePlan>> {
        plan(self.name(), fields, names)
    }
}

fn plan(connector: &'static str, fields: &mut Fields<'_>, names: &Names<'_>) -> Option<Arc<dyn SourcePlan>> {
    let settings = parse(fields, names)?;
    let info = SourceInfo { connector, fields: FIELDS };
    Some(Arc::new(Plan { settings: Arc::new(settings), info }))
}

pub(super) fn parse(fields: &mut Fields<'_>, names: &Names<'_>) -> Option<Settings> {
    fields.planned(&["snapshot"]);
    let id = fields.text("id").unwrap_or_else(|| names.default_id.into());
    if !is_name(&id) {
        let what = "1 to 128 of letters, digits, `.`, `_`, `-`, the first a letter or digit";
        fields.form("id", format!("expected {what}"), None);
    }
    let target = parse_target(fields);
    let database = target.as_ref().and_then(|target| target.dsn.database.clone());
    // Without a DSN nothing can be said of patterns that leave the database out.
    let tables = parse_tables(fields, database.as_deref(), target.is_some());
    let start_position = parse_start(fields);
    let tables_must_exist = fields.choice("missing_tables", &["warn", "error"], &[], "warn") == "error";
    let server_id = parse_server_id(fields, &id);
    let zero_date = parse_zero_date(fields);
    let include_query = fields.bool("include_query", false);
    let heartbeat = fields.int("heartbeat_secs", 15, 1..=3600);
    let read_timeout = above_heartbeat(fields, "read_timeout_secs", 90, heartbeat);
    let inactivity_timeout = above_heartbeat(fields, "inactivity_timeout_secs", 60, heartbeat);
    let retry = RetryPolicy::parse(fields, RetryPolicy::SOURCE);
    // The other word, `snapshot`, comes with the snapshots.
    fields.choice("on_lost_position", &["fail"], &["snapshot"], "fail");
    // Every key is read before anything is given up: one that nobody asked for is reported as unknown.
    Some(Settings {
        id,
        target: target?,
        tables,
        tables_must_exist,
        start_position,
        server_id,
        zero_date,
        include_query,
        heartbeat: Duration::from_secs(heartbeat as u64),
        read_timeout,
        inactivity_timeout,
        retry,
        warned: Arc::default(),
    })
}

fn parse_target(fields: &mut Fields<'_>) -> Option<Target> {
    let dsn = fields.required_text("dsn").and_then(|text| {
        let parsed = Dsn::parse(&text);
        parsed
            .map_err(|why| fields.form("dsn", why, Some("mysql://user:password@host:3306/database".into())))
            .ok()
    });
    let mut tls = Tls::parse(fields, true);
    let of_dsn = dsn.as_ref().and_then(|dsn| dsn.connect_timeout_secs);
    let timeout = fields.int("connect_timeout_secs", of_dsn.unwrap_or(30), 1..=3600);
    if of_dsn.is_some_and(|of_dsn| of_dsn != timeout) {
        let message = "`connect-timeout` of the DSN contradicts `connect_timeout_secs`";
        let hint = Some("keep one of the two".into());
        fields.error("connect_timeout_secs", FindingClass::Conflict, message, hint);
    }
    let dsn = dsn?;
    let mut conflict = |key: &str, message: String| {
        fields.error(key, FindingClass::Conflict, message, Some("keep one of the two".into()));
    };
    match (dsn.tls_mode, tls.mode) {
        (Some(of_dsn), Some(of_block)) if of_dsn != of_block => {
            let (of_dsn, of_block) = (of_dsn.as_str(), of_block.as_str());
            conflict("tls", format!("`ssl-mode={of_dsn}` of the DSN contradicts `tls.mode: {of_block}`"));
        }
        (_, Some(mode @ (TlsMode::Disable | TlsMode::Prefer))) if dsn.wants_tls => {
            conflict("tls", format!("`mysqls://` of the DSN contradicts `tls.mode: {}`", mode.as_str()));
        }
        _ => {}
    }
    let files = [
        ("ssl-ca", &dsn.ca_file, &mut tls.ca_file),
        ("ssl-cert", &dsn.cert_file, &mut tls.cert_file),
        ("ssl-key", &dsn.key_file, &mut tls.key_file),
    ];
    for (word, of_dsn, of_block) in files {
        match (of_dsn, &of_block) {
            (Some(a), Some(b)) if a != b => {
                conflict("tls", format!("`{word}` of the DSN contradicts the `tls` block"));
            }
            (Some(a), _) => *of_block = Some(a.clone()),
            _ => {}
        }
    }
    if tls.cert_file.is_some() != tls.key_file.is_some()
        && (dsn.cert_file.is_some() || dsn.key_file.is_some())
    {
        conflict("dsn", "`ssl-cert` and `ssl-key` are given together or not at all".into());
    }
    let verify = dsn.wants_tls || tls.ca_file.is_some();
    let default = if verify { TlsMode::VerifyFull } else { TlsMode::Prefer };
    let tls_mode = dsn.tls_mode.or(tls.mode).unwrap_or(default);
    Some(Target { dsn, tls, tls_mode, connect_timeout: Duration::from_secs(timeout as u64) })
}

fn parse_tables(fields: &mut Fields<'_>, database: Option<&str>, dsn_is_known: bool) -> TableFilter {
    if !fields.has("tables") {
        fields.node("tables");
        fields.default("tables", Vec::<String>::new());
        return TableFilter::default();
    }
    let default = database.or((!dsn_is_known).then_some(""));
    let mut patterns = Vec::new();
    for (i, text) in fields.texts("tables").unwrap_or_default().iter().enumerate() {
        match TablePattern::parse(text, default) {
            Ok(pattern) => patterns.push(pattern),
            Err(why) => {
                let forms = "forms: `database.table`, `database.pre%`, `database.*`, `!database.table`, `/regex/`; \
                             `table` alone means the DSN's database";
                fields.form(&format!("tables[{i}]"), why, Some(forms.into()));
            }
        }
    }
    TableFilter::new(patterns)
}

fn parse_start(fields: &mut Fields<'_>) -> StartPosition {
    let Some(node) = fields.node("start_position") else {
        fields.default("start_position", "latest");
        return StartPosition::Latest;
    };
    match &node.value {
        Raw::Map(_) => fields.map("start_position", parse_place).flatten().unwrap_or(StartPosition::Latest),
        _ => match fields.choice("start_position", &["latest", "earliest"], &[], "latest") {
            "earliest" => StartPosition::Earliest,
            _ => StartPosition::Latest,
        },
    }
}

/// `{file, pos}` or `{gtid}`.
fn parse_place(fields: &mut Fields<'_>) -> Option<StartPosition> {
    let (by_file, by_gtid) = (fields.has("file") || fields.has("pos"), fields.has("gtid"));
    match (by_file, by_gtid) {
        (true, true) => {
            fields.node("file");
            fields.node("pos");
            fields.node("gtid");
            let hint = Some("keep one of the two".into());
            fields.error("gtid", FindingClass::Conflict, "`gtid` and a place in a file", hint);
            None
        }
        (_, true) => {
            let text = fields.required_text("gtid")?;
            match GtidSet::parse(&text) {
                Ok(set) => Some(StartPosition::After(set)),
                Err(why) => {
                    let hint = "MySQL: @@gtid_executed, `uuid:1-42`; MariaDB: @@gtid_binlog_pos, `0-1-42`";
                    fields.form("gtid", why, Some(hint.into()));
                    None
                }
            }
        }
        _ => {
            fields.node("gtid");
            let file = fields.required_text("file");
            let pos = fields.int("pos", FIRST_OFFSET as i64, FIRST_OFFSET as i64..=i64::MAX) as u64;
            let file = file?;
            if numbered(&file).is_none() {
                fields.form("file", "expected the name of a log file such as `binlog.000042`", None);
                return None;
            }
            Some(StartPosition::At { file, pos })
        }
    }
}

fn parse_server_id(fields: &mut Fields<'_>, id: &str) -> u32 {
    let derived = derived_server_id(id);
    fields.int("server_id", derived.into(), 1..=u32::MAX.into()) as u32
}

/// `1 + CRC32(id) mod 4000000000`.
fn derived_server_id(id: &str) -> u32 {
    1 + crc32fast::hash(id.as_bytes()) % 4_000_000_000
}

fn parse_zero_date(fields: &mut Fields<'_>) -> ZeroDate {
    // Whoever writes `zero_date: null` without quotes means the word.
    if fields.node_or_null("zero_date").is_none_or(|node| node.is_null()) {
        fields.default("zero_date", "null");
        return ZeroDate::Null;
    }
    match fields.choice("zero_date", &["null", "string", "error"], &[], "null") {
        "string" => ZeroDate::String,
        "error" => ZeroDate::Error,
        _ => ZeroDate::Null,
    }
}

/// A wait for something that comes at least once per heartbeat.
fn above_heartbeat(fields: &mut Fields<'_>, key: &'static str, default: i64, heartbeat: i64) -> Duration {
    let seconds = fields.int(key, default, 1..=3600);
    if seconds <= heartbeat {
        let message = format!("`{key}` {seconds} must be above `heartbeat_secs` {heartbeat}");
        let hint = "the server may say nothing for as long as `heartbeat_secs`".to_string();
        fields.error(key, FindingClass::Range, message, Some(hint));
    }
    Duration::from_secs(seconds as u64)
}

struct Plan {
    settings: Arc<Settings>,
    info: SourceInfo,
}

#[async_trait]
impl SourcePlan for Plan {
    fn id(&self) -> &str {
        &self.settings.id
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn retry(&self) -> RetryPolicy {
        self.settings.retry
    }

    async fn check(&self) -> Report {
        let settings = self.settings.clone();
        blocking(move || Ok(check::run(&settings))).await.unwrap_or_default()
    }

    async fn open(&self, context: SourceContext) -> Result<Opened, Fault> {
        MySqlSource::open(self.settings.clone(), context).await
    }

    async fn reach(&self, position: &Position) -> Result<(), Fault> {
        let (settings, position) = (self.settings.clone(), position.clone());
        blocking(move || setup::reach(&settings, &position)).await
    }

    fn compare(&self, a: &Position, b: &Position) -> Option<Ordering> {
        MySqlPosition::compare(a, b)
    }

    fn number(&self, position: &Position) -> Option<u64> {
        MySqlPosition::number(position)
    }
}

/// Runs what blocks on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Fault::bug("mysql.task_ended", "a blocking task of the source panicked")),
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
