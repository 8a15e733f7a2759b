//! Read-only probes of a server, each finding with the statement that mends it.

use super::catalog::Catalog;
use super::config::Settings;
use super::connection::{Connection, Purpose};
use super::setup;
use deltaforge_core::Fault;
use deltaforge_core::config::{Report, Severity};
use postgres_protocol::escape::escape_literal;

/// Looks at everything that a start needs; blocking.
pub(super) fn run(settings: &Settings) -> Report {
    let mut report = Report::default();
    let mut catalog = Catalog::new(settings.target.clone());
    if let Err(fault) = probe(settings, &mut catalog, &mut report) {
        add_fault(&mut report, "connection", &fault);
    }
    report
}

fn add_fault(report: &mut Report, name: &'static str, fault: &Fault) {
    report.add(name, Severity::Error, fault.message(), fault.hint_text().map(Into::into));
}

fn probe(settings: &Settings, catalog: &mut Catalog, report: &mut Report) -> Result<(), Fault> {
    let version = setup::server_version(catalog)?;
    report.add(
        "version",
        Severity::Ok,
        format!("PostgreSQL {}.{}", version / 10_000, version % 10_000),
        None,
    );
    let wal_level = catalog.query_text("SHOW wal_level", "reading wal_level")?;
    let (severity, remedy) = match wal_level.as_str() {
        "logical" => (Severity::Ok, None),
        _ => (
            Severity::Error,
            Some("ALTER SYSTEM SET wal_level = 'logical'; then restart the server".to_string()),
        ),
    };
    report.add("wal_level", severity, wal_level, remedy);
    probe_rights(settings, catalog, report)?;
    probe_slot(settings, catalog, report)?;
    match Connection::open(&settings.target, Purpose::Replication) {
        Ok(_) => report.add("replication connection", Severity::Ok, "accepted", None),
        Err(fault) => add_fault(report, "replication connection", &fault),
    }
    Ok(())
}

fn probe_rights(settings: &Settings, catalog: &mut Catalog, report: &mut Report) -> Result<(), Fault> {
    let sql = "SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user";
    if catalog.query_text(sql, "reading the role's rights")? == "t" {
        report.add("role", Severity::Ok, "may replicate", None);
    } else {
        let role = postgres_protocol::escape::escape_identifier(&settings.target.dsn.user);
        report.add(
            "role",
            Severity::Error,
            "may not replicate",
            Some(format!("ALTER ROLE {role} REPLICATION;")),
        );
    }
    Ok(())
}

fn probe_slot(settings: &Settings, catalog: &mut Catalog, report: &mut Report) -> Result<(), Fault> {
    if setup::find_slot(settings, catalog)?.is_some() {
        report.add("slot", Severity::Ok, format!("`{}` exists", settings.slot), None);
        return Ok(());
    }
    let sql =
        "SELECT current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots)";
    let free: i64 = catalog.query_text(sql, "counting free slots")?.parse().unwrap_or(0);
    if free > 0 {
        report.add(
            "slot",
            Severity::Ok,
            format!("`{}` does not exist yet, {free} are free", settings.slot),
            None,
        );
    } else {
        let remedy = "drop an unused slot, or raise max_replication_slots and restart the server";
        report.add(
            "slot",
            Severity::Error,
            format!("`{}` does not exist and none is free", settings.slot),
            Some(remedy.into()),
        );
    }
    let sql = format!(
        "SELECT count(*) FROM pg_publication WHERE pubname = {}",
        escape_literal(&settings.publication)
    );
    if catalog.query_text(&sql, "looking for the publication")? == "0" && !settings.create_publication {
        let remedy = format!("CREATE PUBLICATION {} FOR TABLE …;", settings.publication);
        report.add(
            "publication",
            Severity::Error,
            format!("`{}` does not exist", settings.publication),
            Some(remedy),
        );
    }
    Ok(())
}

/// Says which tables give less than the whole old row, and which give no updates and deletes at all.
pub(super) fn warn_identities<'a>(
    settings: &Settings,
    tables: impl Iterator<Item = (String, &'a str, bool)>,
) {
    let (mut partial, mut none) = (Vec::new(), Vec::new());
    for (name, identity, has_identity) in tables {
        if !has_identity {
            none.push(name);
        } else if identity != "f" {
            partial.push(name);
        }
    }
    if !partial.is_empty() {
        tracing::warn!(
            source_id = settings.id,
            tables = partial.join(", "),
            "replica identity is not FULL: `before` holds only the key, and unchanged large values are marked; \
             `replica_identity: full` or ALTER TABLE … REPLICA IDENTITY FULL changes that"
        );
    }
    if !none.is_empty() {
        tracing::warn!(
            source_id = settings.id,
            tables = none.join(", "),
            "no replica identity: only inserts and truncates are captured, since publishing updates and deletes would make \
             them fail for the application; add a primary key or run ALTER TABLE … REPLICA IDENTITY FULL"
        );
    }
}
