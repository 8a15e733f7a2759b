//! The server's settings.

use crate::mysql::connection::Connection;
use crate::mysql::flavour::{Flavour, Version};
use crate::mysql::quote;
use deltaforge_core::Fault;
use deltaforge_core::config::{Report, Severity};
use std::collections::HashMap;

/// Least time that the server should keep its log, seconds: a day, so that a night is no loss.
const SHORT_RETENTION: f64 = 86_400.0;

/// Variables that are looked at. Some are known to one of the servers only.
const NAMES: [&str; 16] = [
    "binlog_expire_logs_seconds",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_metadata",
    "binlog_row_value_options",
    "enforce_gtid_consistency",
    "expire_logs_days",
    "gtid_mode",
    "gtid_strict_mode",
    "innodb_native_foreign_keys",
    "log_bin",
    "log_bin_compress",
    "log_replica_updates",
    "log_slave_updates",
    "max_binlog_total_size",
    "server_id",
];

/// Global variables by name.
#[derive(Debug, Default)]
pub(super) struct Variables(HashMap<String, String>);

impl Variables {
    pub(super) fn read(connection: &mut Connection) -> Result<Variables, Fault> {
        let names: Vec<String> = NAMES.iter().map(|name| quote::literal(name)).collect();
        let sql = format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({})", names.join(", "));
        let rows = connection.query(&sql, "reading the server's settings")?;
        Ok(Variables(rows.iter().map(|row| (row.text(0), row.text(1))).collect()))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn is(&self, name: &str, value: &str) -> bool {
        self.get(name).is_some_and(|found| found.eq_ignore_ascii_case(value))
    }
}

/// The statement that sets a variable for good.
fn set(version: Version, name: &str, value: &str) -> String {
    match version.flavour {
        Flavour::MySql => format!("SET PERSIST {name} = {value};"),
        Flavour::MariaDb => format!(
            "SET GLOBAL {name} = {value}; and `{name} = {value}` under [mariadbd] in the configuration"
        ),
    }
}

/// Looks at everything that the variables tell.
pub(super) fn variables(report: &mut Report, version: Version, variables: &Variables, server_id: u32) {
    log_bin(report, version, variables);
    binlog_format(report, version, variables);
    row_image(report, version, variables);
    row_metadata(report, version, variables);
    gtids(report, version, variables);
    retention(report, version, variables);
    server_ids(report, version, variables, server_id);
}

fn log_bin(report: &mut Report, version: Version, variables: &Variables) {
    if variables.is("log_bin", "ON") {
        report.add("log_bin", Severity::Ok, "ON", None);
        return;
    }
    let section = if version.flavour == Flavour::MySql { "mysqld" } else { "mariadbd" };
    let remedy =
        format!("`log_bin = binlog` under [{section}] in the configuration, then restart the server");
    report.add("log_bin", Severity::Error, "the server keeps no binary log", Some(remedy));
}

/// Only rows can be captured; statements cannot.
pub(super) fn binlog_format(report: &mut Report, version: Version, variables: &Variables) {
    let format = variables.get("binlog_format").unwrap_or("ROW");
    if format.eq_ignore_ascii_case("ROW") {
        let evidence =
            "ROW; a session that chooses another stops the pipeline at its first change of a captured table";
        report.add("binlog_format", Severity::Ok, evidence, None);
        return;
    }
    let evidence = format!("binlog_format is {format}: the log holds statements instead of rows");
    let remedy = format!(
        "{} Sessions that are open keep their own: close them",
        set(version, "binlog_format", "'ROW'")
    );
    report.add("binlog_format", Severity::Error, evidence, Some(remedy));
}

fn row_image(report: &mut Report, version: Version, variables: &Variables) {
    let image = variables.get("binlog_row_image").unwrap_or("FULL");
    if image.eq_ignore_ascii_case("FULL") {
        report.add("binlog_row_image", Severity::Ok, "FULL", None);
        return;
    }
    let evidence = format!(
        "binlog_row_image is {image}: `before` holds only the columns that are logged, and columns that an update \
         did not touch are marked in `after`"
    );
    let remedy = set(version, "binlog_row_image", "'FULL'");
    report.add("binlog_row_image", Severity::Warning, evidence, Some(remedy));
}

fn row_metadata(report: &mut Report, version: Version, variables: &Variables) {
    let metadata = variables.get("binlog_row_metadata").unwrap_or("absent");
    if metadata.eq_ignore_ascii_case("FULL") {
        report.add("binlog_row_metadata", Severity::Ok, "FULL", None);
        return;
    }
    let evidence = format!(
        "binlog_row_metadata is {metadata}: the log names no columns, so a table whose history is not known stops \
         instead of being guessed at"
    );
    let remedy = set(version, "binlog_row_metadata", "'FULL'");
    report.add("binlog_row_metadata", Severity::Warning, evidence, Some(remedy));
}

fn gtids(report: &mut Report, version: Version, variables: &Variables) {
    if version.flavour == Flavour::MariaDb {
        let strict = variables.get("gtid_strict_mode").unwrap_or("OFF");
        let evidence = format!("GTIDs are always on; gtid_strict_mode is {strict}");
        report.add("gtid", Severity::Ok, evidence, None);
        return;
    }
    let mode = variables.get("gtid_mode").unwrap_or("OFF");
    if mode.eq_ignore_ascii_case("ON") {
        report.add("gtid", Severity::Ok, "gtid_mode is ON", None);
        return;
    }
    let evidence = format!(
        "gtid_mode is {mode}: a place in the log is a file and an offset, which mean nothing on another server, so a \
         failover cannot be followed"
    );
    // Each step must be taken by itself; which come first depends on where the server is.
    let steps = [
        ("OFF", "SET PERSIST enforce_gtid_consistency = ON; SET PERSIST gtid_mode = OFF_PERMISSIVE;"),
        ("OFF_PERMISSIVE", "SET PERSIST gtid_mode = ON_PERMISSIVE;"),
        ("ON_PERMISSIVE", "SET PERSIST gtid_mode = ON;"),
    ];
    let from = steps.iter().position(|(from, _)| mode.eq_ignore_ascii_case(from)).unwrap_or(0);
    let remedy = steps[from..].iter().map(|(_, step)| *step).collect::<Vec<_>>().join(" ");
    report.add("gtid", Severity::Warning, evidence, Some(remedy));
}

fn retention(report: &mut Report, version: Version, variables: &Variables) {
    const NAME: &str = "retention";
    let number = |name| variables.get(name).and_then(|text| text.parse::<f64>().ok());
    let days = number("expire_logs_days").unwrap_or(0.0);
    let seconds =
        number("binlog_expire_logs_seconds").filter(|seconds| *seconds > 0.0).unwrap_or(days * 86_400.0);
    let total = number("max_binlog_total_size").unwrap_or(0.0);
    let lost = "an outage of the pipeline that lasts longer loses changes";
    let mut found = false;
    if seconds > 0.0 && seconds < SHORT_RETENTION {
        found = true;
        let evidence = format!("the server keeps its log for {seconds} s: {lost}");
        let remedy = match number("binlog_expire_logs_seconds") {
            Some(_) => set(version, "binlog_expire_logs_seconds", "604800"),
            None => set(version, "expire_logs_days", "7"),
        };
        report.add(NAME, Severity::Warning, evidence, Some(remedy));
    }
    if total > 0.0 {
        found = true;
        let evidence = format!(
            "the server keeps {total} bytes of log (max_binlog_total_size): {lost} than it takes to write them"
        );
        report.add(NAME, Severity::Warning, evidence, Some(set(version, "max_binlog_total_size", "0")));
    }
    match (found, seconds > 0.0) {
        (true, _) => {}
        (_, true) => report.add(
            NAME,
            Severity::Ok,
            format!("the log is kept for {} h", (seconds / 3600.0).floor()),
            None,
        ),
        (_, false) => report.add(NAME, Severity::Ok, "the log is kept until somebody purges it", None),
    }
}

fn server_ids(report: &mut Report, version: Version, variables: &Variables, ours: u32) {
    let theirs = variables.get("server_id").unwrap_or("0");
    if theirs == "0" {
        let evidence = "the server has no server_id and gives its log to nobody";
        report.add("server_id", Severity::Error, evidence, Some(set(version, "server_id", "1")));
    } else if theirs == ours.to_string() {
        let evidence = format!("server_id {ours} is the server's own");
        let remedy =
            "set the source's `server_id` to a number that no server and no other reader has".to_string();
        report.add("server_id", Severity::Error, evidence, Some(remedy));
    } else {
        report.add("server_id", Severity::Ok, format!("{ours} here, {theirs} the server's"), None);
    }
}

/// Which databases the log leaves out. Needs the right to see the log's end, which a start needs too.
pub(super) fn log_status(report: &mut Report, connection: &mut Connection) {
    const NAME: &str = "log";
    let sql = connection.version().show_log_status();
    let rows = match connection.query(sql, "asking for the log's end") {
        Ok(rows) => rows,
        Err(fault) => {
            report.add(NAME, Severity::Error, fault.message(), fault.hint_text().map(Into::into));
            return;
        }
    };
    // Without a log there is no row, and another finding.
    let Some(row) = rows.first() else { return };
    let (only, without) = (row.text(2), row.text(3));
    if only.is_empty() && without.is_empty() {
        report.add(NAME, Severity::Ok, format!("ends at {}:{}", row.text(0), row.text(1)), None);
        return;
    }
    let evidence = match only.is_empty() {
        true => format!("changes of these databases are not logged: {without}"),
        false => format!("only changes of these databases are logged: {only}"),
    };
    let remedy =
        "remove binlog_do_db and binlog_ignore_db from the configuration and restart the server".to_string();
    report.add(NAME, Severity::Warning, evidence, Some(remedy));
}

/// A replica logs what it replicates only when told to.
pub(super) fn replica(report: &mut Report, connection: &mut Connection, variables: &Variables) {
    const NAME: &str = "replica";
    let logs = |name| variables.is(name, "ON");
    if logs("log_replica_updates") || logs("log_slave_updates") {
        report.add(NAME, Severity::Ok, "what the server replicates is in its log", None);
        return;
    }
    match connection.query("SHOW REPLICA STATUS", "asking what the server replicates") {
        Ok(rows) if rows.is_empty() => report.add(NAME, Severity::Ok, "the server replicates nothing", None),
        Ok(_) => {
            let evidence = "the server is a replica, and what it replicates is not in its log";
            let remedy = "`log_slave_updates = ON` in the configuration, then restart the server".to_string();
            report.add(NAME, Severity::Error, evidence, Some(remedy));
        }
        Err(_) => {
            let evidence = "log_slave_updates is OFF, and whether the server is a replica cannot be seen";
            let remedy = format!("GRANT REPLICA MONITOR ON *.* TO {};", connection.account());
            report.add(NAME, Severity::Ok, evidence, Some(remedy));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltaforge_core::config::Check;

    fn look(version: &str, changed: &[(&str, &str)], ours: u32) -> Vec<Check> {
        let good = [
            ("log_bin", "ON"),
            ("binlog_format", "ROW"),
            ("binlog_row_image", "FULL"),
            ("binlog_row_metadata", "FULL"),
            ("gtid_mode", "ON"),
            ("binlog_expire_logs_seconds", "2592000"),
            ("server_id", "7"),
        ];
        let mut map: HashMap<String, String> = HashMap::new();
        for (name, value) in good.iter().chain(changed) {
            map.insert((*name).into(), (*value).into());
        }
        let mut report = Report::default();
        variables(&mut report, Version::parse(version, ""), &Variables(map), ours);
        report.checks
    }

    #[test]
    fn a_good_server_has_no_findings() {
        for version in ["8.0.30", "9.7.0", "10.11.6-MariaDB"] {
            let checks = look(version, &[], 1);
            assert_eq!(checks.len(), 7);
            assert!(checks.iter().all(|check| check.severity == Severity::Ok), "{checks:?}");
        }
    }

    #[test]
    fn each_finding_has_its_remedy() {
        use Severity::{Error, Warning};
        let (my, maria) = ("8.4.0", "10.11.6-MariaDB");
        let cases = [
            (my, "log_bin", "OFF", "log_bin", Error, "under [mysqld]"),
            (maria, "log_bin", "OFF", "log_bin", Error, "under [mariadbd]"),
            (my, "binlog_format", "MIXED", "binlog_format", Error, "SET PERSIST binlog_format = 'ROW';"),
            (
                maria,
                "binlog_format",
                "STATEMENT",
                "binlog_format",
                Error,
                "SET GLOBAL binlog_format = 'ROW';",
            ),
            (my, "binlog_row_image", "MINIMAL", "binlog_row_image", Warning, "binlog_row_image = 'FULL'"),
            (
                maria,
                "binlog_row_metadata",
                "NO_LOG",
                "binlog_row_metadata",
                Warning,
                "binlog_row_metadata = 'FULL'",
            ),
            (
                my,
                "gtid_mode",
                "OFF",
                "gtid",
                Warning,
                "enforce_gtid_consistency = ON; SET PERSIST gtid_mode = OFF_PERMISSIVE;",
            ),
            (my, "gtid_mode", "ON_PERMISSIVE", "gtid", Warning, "SET PERSIST gtid_mode = ON;"),
            (
                my,
                "binlog_expire_logs_seconds",
                "3600",
                "retention",
                Warning,
                "binlog_expire_logs_seconds = 604800",
            ),
            (maria, "max_binlog_total_size", "1000000", "retention", Warning, "max_binlog_total_size = 0"),
            (my, "server_id", "0", "server_id", Error, "server_id = 1"),
            (my, "server_id", "4711", "server_id", Error, "a number that no server"),
        ];
        for (version, name, value, check, severity, remedy) in cases {
            let found: Vec<Check> = look(version, &[(name, value)], 4711)
                .into_iter()
                .filter(|check| check.severity > Severity::Ok)
                .collect();
            let [found] = found.as_slice() else { panic!("{name} = {value}: {found:?}") };
            assert_eq!((found.name, found.severity), (check, severity), "{name} = {value}");
            let text = found.remedy.clone().unwrap_or_default();
            assert!(text.contains(remedy), "{name} = {value}: {text}");
        }
    }

    #[test]
    fn retention_is_seconds_else_days_else_for_ever() {
        let retention = |changed: &[(&str, &str)]| {
            let checks = look("10.5.1-MariaDB", changed, 1);
            checks
                .into_iter()
                .find(|c| c.name == "retention")
                .map(|c| (c.severity, c.evidence))
                .unwrap_or_else(|| panic!("none"))
        };
        let ok = |text: &str| (Severity::Ok, text.to_string());
        assert_eq!(retention(&[]), ok("the log is kept for 720 h"));
        let days = [("binlog_expire_logs_seconds", "0"), ("expire_logs_days", "10.000000")];
        assert_eq!(retention(&days), ok("the log is kept for 240 h"));
        assert_eq!(
            retention(&[("binlog_expire_logs_seconds", "0")]),
            ok("the log is kept until somebody purges it")
        );
        let short = [("binlog_expire_logs_seconds", "0"), ("expire_logs_days", "0.5")];
        assert_eq!(retention(&short).0, Severity::Warning);
    }
}
