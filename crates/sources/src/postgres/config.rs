//! The `postgres` source's settings, as `docs/src/guide/postgres.md` lists them.

use super::check;
use super::connection::Target;
use super::dsn::Dsn;
use super::position::{Lsn, PgPosition};
use super::setup;
use super::source::{FIELDS, PostgresSource};
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

/// The source type `postgres`.
#[derive(Debug)]
pub struct PostgresKind;

/// Where to begin without a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartPosition {
    /// Everything that the slot holds.
    Earliest,
    /// The present end of the log.
    Latest,
    /// This place.
    At(Lsn),
}

/// Parsed settings.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) id: String,
    pub(super) target: Target,
    pub(super) slot: String,
    pub(super) publication: String,
    pub(super) tables: TableFilter,
    pub(super) tables_must_exist: bool,
    pub(super) start_position: StartPosition,
    pub(super) create_slot: bool,
    pub(super) create_publication: bool,
    pub(super) full_identity: bool,
    pub(super) status_interval: Duration,
    pub(super) retry: RetryPolicy,
    /// What a start warns about was said; a reconnect does not repeat it.
    pub(super) warned: Arc<AtomicBool>,
}

impl SourceKind for PostgresKind {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn summary(&self) -> &'static str {
        "PostgreSQL 13 to 18 by logical replication (pgoutput)"
    }

    fn parse(&self, fields: &mut Fields<'_>, names: &Names<'_>) -> Option<Arc<dyn SourcePlan>> {
        fields.planned(&["snapshot"]);
        let id = fields.text("id").unwrap_or_else(|| names.default_id.into());
        if !is_name(&id) {
            let what = "1 to 128 of letters, digits, `.`, `_`, `-`, the first a letter or digit";
            fields.form("id", format!("expected {what}"), None);
        }
        let target = parse_target(fields);
        let slot = parse_slot(fields);
        let publication = fields.required_text("publication").filter(|p| {
            let fits = p.len() <= 63 - setup::INSERT_ONLY_SUFFIX.len() && !p.contains('\0');
            if !fits {
                fields.form("publication", "expected a name of at most 51 bytes", None);
            }
            fits
        });
        let tables = parse_tables(fields);
        let start_position = parse_start(fields);
        let tables_must_exist = fields.choice("missing_tables", &["warn", "error"], &[], "warn") == "error";
        let create_slot = fields.bool("create_slot", true);
        let create_publication = fields.bool("create_publication", true);
        let full_identity = fields.choice("replica_identity", &["keep", "full"], &[], "keep") == "full";
        let status_interval = Duration::from_secs(fields.int("status_interval_secs", 5, 1..=30) as u64);
        let retry = RetryPolicy::parse(fields, RetryPolicy::SOURCE);
        // The other word, `snapshot`, comes with the snapshots.
        fields.choice("on_lost_position", &["fail"], &["snapshot"], "fail");
        // Every key is read before anything is given up: one that nobody asked for is reported as unknown.
        let settings = Settings {
            id,
            target: target?,
            slot: slot?,
            publication: publication?,
            tables: tables?,
            tables_must_exist,
            start_position,
            create_slot,
            create_publication,
            full_identity,
            status_interval,
            retry,
            warned: Arc::default(),
        };
        let info = SourceInfo { connector: "postgresql", fields: FIELDS };
        Some(Arc::new(Plan { settings: Arc::new(settings), info }))
    }
}

fn parse_target(fields: &mut Fields<'_>) -> Option<Target> {
    let text = fields.required_text("dsn");
    let mut tls = Tls::parse(fields, true);
    let dsn = match Dsn::parse(&text?) {
        Ok(dsn) => dsn,
        Err(why) => {
            let hint = "postgres://user:password@host:5432/database";
            fields.form("dsn", why, Some(hint.into()));
            return None;
        }
    };
    if let (Some(of_dsn), Some(of_block)) = (dsn.tls_mode, tls.mode)
        && of_dsn != of_block
    {
        let message =
            format!("`sslmode={}` of the DSN contradicts `tls.mode: {}`", of_dsn.as_str(), of_block.as_str());
        fields.error("tls", FindingClass::Conflict, message, Some("keep one of the two".into()));
    }
    let both = [
        ("sslrootcert", &dsn.ca_file, &mut tls.ca_file),
        ("sslcert", &dsn.cert_file, &mut tls.cert_file),
        ("sslkey", &dsn.key_file, &mut tls.key_file),
    ];
    for (word, of_dsn, of_block) in both {
        match (of_dsn, &of_block) {
            (Some(a), Some(b)) if a != b => {
                let message = format!("`{word}` of the DSN contradicts the `tls` block");
                fields.error("tls", FindingClass::Conflict, message, Some("keep one of the two".into()));
            }
            (Some(a), _) => *of_block = Some(a.clone()),
            _ => {}
        }
    }
    let default = if tls.ca_file.is_some() { TlsMode::VerifyFull } else { TlsMode::Prefer };
    let tls_mode = dsn.tls_mode.or(tls.mode).unwrap_or(default);
    let connect_timeout = Duration::from_secs(dsn.connect_timeout_secs.unwrap_or(30).clamp(2, 3600));
    Some(Target { dsn, tls, tls_mode, connect_timeout })
}

fn parse_slot(fields: &mut Fields<'_>) -> Option<String> {
    let slot = fields.required_text("slot")?;
    let allowed = slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if allowed && slot.len() <= 63 {
        return Some(slot);
    }
    let hint = slot.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let message = "expected lower-case letters, digits and `_`, at most 63";
    fields.form(
        "slot",
        message,
        Some(format!("for instance `{}`", hint.chars().take(63).collect::<String>())),
    );
    None
}

fn parse_tables(fields: &mut Fields<'_>) -> Option<TableFilter> {
    if !fields.has("tables") {
        fields.node("tables");
        let hint = "list patterns such as `public.orders`; an empty list means every user table";
        fields.error(
            "tables",
            FindingClass::Missing,
            "a list of table patterns is required",
            Some(hint.into()),
        );
        return None;
    }
    let mut patterns = Vec::new();
    for (i, text) in fields.texts("tables")?.iter().enumerate() {
        match TablePattern::parse(text, Some("public")) {
            Ok(pattern) => patterns.push(pattern),
            Err(why) => {
                let key = format!("tables[{i}]");
                fields.form(
                    &key,
                    why,
                    Some(
                        "forms: `schema.table`, `schema.pre%`, `schema.*`, `!schema.table`, `/regex/`".into(),
                    ),
                );
            }
        }
    }
    Some(TableFilter::new(patterns))
}

fn parse_start(fields: &mut Fields<'_>) -> StartPosition {
    let default = StartPosition::Earliest;
    let Some(node) = fields.node("start_position") else {
        fields.default("start_position", "earliest");
        return default;
    };
    match &node.value {
        Raw::Map(_) => {
            let lsn = fields.map("start_position", |f| {
                let text = f.required_text("lsn")?;
                let lsn = Lsn::parse(&text);
                if lsn.is_none() {
                    f.form("lsn", format!("expected an LSN such as `0/16B6C50`, found `{text}`"), None);
                }
                lsn
            });
            lsn.flatten().map_or(default, StartPosition::At)
        }
        _ => match fields.choice("start_position", &["earliest", "latest"], &[], "earliest") {
            "latest" => StartPosition::Latest,
            _ => default,
        },
    }
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
        PostgresSource::open(self.settings.clone(), context).await
    }

    async fn remove(&self) -> Result<(), Fault> {
        let settings = self.settings.clone();
        blocking(move || setup::remove(&settings)).await
    }

    async fn reach(&self, position: &Position) -> Result<(), Fault> {
        let (settings, position) = (self.settings.clone(), position.clone());
        blocking(move || setup::reach(&settings, &position)).await
    }

    fn compare(&self, a: &Position, b: &Position) -> Option<Ordering> {
        PgPosition::compare(a, b)
    }

    fn number(&self, position: &Position) -> Option<u64> {
        PgPosition::parse(position).ok().map(|p| p.lsn.0)
    }
}

/// Runs what blocks on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Fault::bug("postgres.task_ended", "a blocking task of the source panicked")),
    }
}
