//! What a server must have, and what works with a loss or a risk: probes for `doctor`, and the same at a start. Read-only; each
//! finding has the statement that mends it.

mod server;
mod tables;

use super::config::Settings;
use super::connection::Connection;
use super::error;
use deltaforge_core::Fault;
use deltaforge_core::config::{Report, Severity};
use server::Variables;
use std::sync::atomic::Ordering;

/// Looks at everything that a start needs; blocking.
pub(super) fn run(settings: &Settings) -> Report {
    let mut report = Report::default();
    let probed = Connection::open(&settings.target).and_then(|mut connection| {
        report.add("version", Severity::Ok, connection.version().to_string(), None);
        rights(&mut connection, settings, &mut report);
        let variables = Variables::read(&mut connection)?;
        server::variables(&mut report, connection.version(), &variables, settings.server_id);
        server::log_status(&mut report, &mut connection);
        server::replica(&mut report, &mut connection, &variables);
        tables::look(&mut report, &mut connection, &variables, settings)
    });
    if let Err(fault) = probed {
        add_fault(&mut report, "connection", &fault);
    }
    report
}

fn add_fault(report: &mut Report, name: &'static str, fault: &Fault) {
    report.add(name, Severity::Error, fault.message(), fault.hint_text().map(Into::into));
}

/// Whether the account may read the log: the server tells by taking it for a replica.
fn rights(connection: &mut Connection, settings: &Settings, report: &mut Report) {
    // Under another id, so that a reader under way keeps its entry in the server's list.
    match connection.register(settings.server_id ^ 1 << 31) {
        Ok(()) => {
            let evidence = format!("{} may read the log", connection.account());
            report.add("rights", Severity::Ok, evidence, None);
        }
        Err(fault) => add_fault(report, "rights", &fault),
    }
}

/// What no start can do without.
///
/// # Errors
/// `Config` when the server keeps no log, or none of rows, or when a table is missing that must exist.
pub(super) fn require(settings: &Settings, connection: &mut Connection) -> Result<(), Fault> {
    let variables = Variables::read(connection)?;
    if variables.is("log_bin", "OFF") {
        return Err(error::binlog_off("the server keeps no binary log".into()));
    }
    let mut report = Report::default();
    server::binlog_format(&mut report, connection.version(), &variables);
    if let Some(check) = report.problems().next() {
        let fault = Fault::config("mysql.binlog_format", check.evidence.clone());
        return Err(match &check.remedy {
            Some(remedy) => fault.hint(remedy.clone()),
            None => fault,
        });
    }
    if settings.tables_must_exist {
        tables::require(settings, connection)?;
    }
    Ok(())
}

/// Says once what works with a loss or a risk.
pub(super) fn warn(settings: &Settings, connection: &mut Connection) {
    if settings.warned.swap(true, Ordering::Relaxed) {
        return;
    }
    let mut report = Report::default();
    let looked = Variables::read(connection).and_then(|variables| {
        server::variables(&mut report, connection.version(), &variables, settings.server_id);
        server::log_status(&mut report, connection);
        server::replica(&mut report, connection, &variables);
        tables::look(&mut report, connection, &variables, settings)
    });
    for check in report.problems() {
        tracing::warn!(
            source_id = settings.id,
            check = check.name,
            remedy = check.remedy,
            "{}",
            check.evidence
        );
    }
    if let Err(fault) = looked {
        tracing::warn!(
            source_id = settings.id,
            code = fault.code(),
            "cannot look at the server's settings: {fault}"
        );
    }
}
