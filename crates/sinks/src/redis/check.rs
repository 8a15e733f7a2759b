//! Looks at the servers before anything is written. Reads only.

use super::config::Settings;
use super::connection::{Connection, Connector, info_field};
use super::deliver::not_a_stream;
use super::resp::Value;
use super::topology::targets;
use deltaforge_core::Fault;
use deltaforge_core::config::{Report, Severity};

const OLDEST_MAJOR: u32 = 5;

/// Asks every server that the sink would write to.
pub(super) async fn check(connector: &Connector) -> Report {
    let mut report = Report::default();
    let addresses = match targets(connector, &connector.settings).await {
        Ok(addresses) => addresses,
        Err(fault) => {
            refused(&mut report, "connection", &fault);
            return report;
        }
    };
    for address in addresses {
        match connector.connect(&address).await {
            Err(fault) => refused(&mut report, "connection", &fault),
            Ok(mut connection) => {
                report.add("connection", Severity::Ok, format!("{address} answers"), None);
                if let Err(fault) = ask(&mut connection, &connector.settings, &mut report).await {
                    refused(&mut report, "connection", &fault);
                }
            }
        }
    }
    report
}

fn refused(report: &mut Report, name: &'static str, fault: &Fault) {
    let evidence = format!("{}: {}", fault.code(), fault.message());
    report.add(name, Severity::Error, evidence, fault.hint_text().map(str::to_owned));
}

async fn ask(connection: &mut Connection, settings: &Settings, report: &mut Report) -> Result<(), Fault> {
    let mut commands: Vec<&[&[u8]]> = vec![&[b"INFO"]];
    let stream = settings.stream.is_constant();
    let kind = stream.map(|stream| [b"TYPE".as_slice(), stream.as_bytes()]);
    commands.extend(kind.as_ref().map(|command| command.as_slice()));
    let answers = connection.call_all(&commands).await?;
    match answers.first().and_then(Value::text) {
        Some(info) => read_info(info, settings, report),
        None => report.add(
            "info",
            Severity::Warning,
            "this user may not ask INFO, so version and memory are not known",
            Some("ACL SETUSER USER +info".into()),
        ),
    }
    if let (Some(stream), Some(kind)) = (stream, answers.get(1)) {
        match not_a_stream(stream.as_bytes(), kind) {
            Err(fault) => refused(report, "stream", &fault),
            // In a cluster only one node holds it; the others answer MOVED.
            Ok(()) if matches!(kind, Value::Error(_)) => {}
            Ok(()) => report.add(
                "stream",
                Severity::Ok,
                format!("`{stream}` is a stream or does not exist yet"),
                None,
            ),
        }
    }
    Ok(())
}

fn read_info(info: &str, settings: &Settings, report: &mut Report) {
    let field = |name| info_field(info, name).unwrap_or("");
    let version = field("redis_version");
    match version.split('.').next().and_then(|major| major.parse::<u32>().ok()) {
        Some(major) if major >= OLDEST_MAJOR => report.add("version", Severity::Ok, version, None),
        Some(_) => {
            let remedy = Some("upgrade to Redis 5 or later, the first with streams".into());
            report.add("version", Severity::Error, version, remedy);
        }
        None => report.add("version", Severity::Warning, "the server does not tell its version", None),
    }
    if field("role") == "slave" {
        let evidence =
            format!("a replica of {}:{}; it takes no writes", field("master_host"), field("master_port"));
        let remedy = Some("name the master in uri, or use redis-sentinel://…?master=NAME".into());
        report.add("role", Severity::Error, evidence, remedy);
    }
    eviction(field("maxmemory_policy"), field("maxmemory"), report);
    if field("aof_enabled") == "0" {
        let evidence =
            "no append-only file: entries since the last snapshot are lost when the server crashes";
        report.add("persistence", Severity::Warning, evidence, Some("CONFIG SET appendonly yes".into()));
    }
    if settings.maxlen > 0 {
        let evidence = format!("maxlen is {}: older entries are trimmed, read or not", settings.maxlen);
        report.add(
            "trimming",
            Severity::Warning,
            evidence,
            Some("keep maxlen above what the slowest reader lags".into()),
        );
    }
}

/// A policy that evicts any key may evict a stream that nobody has read yet. Those that evict keys with an expiry leave ours
/// alone, as it has none.
fn eviction(policy: &str, maxmemory: &str, report: &mut Report) {
    if !policy.starts_with("allkeys-") {
        if !policy.is_empty() {
            report.add("eviction", Severity::Ok, format!("maxmemory-policy is {policy}"), None);
        }
        return;
    }
    let limited = maxmemory != "0";
    let when = if limited { "at" } else { "once there is a" };
    let evidence = format!("maxmemory-policy is {policy}: {when} maxmemory, unread streams may be deleted");
    report.add(
        "eviction",
        Severity::Warning,
        evidence,
        Some("CONFIG SET maxmemory-policy noeviction".into()),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let cases = [
            ("noeviction", "0", Severity::Ok),
            ("volatile-lru", "100", Severity::Ok),
            ("allkeys-lru", "100", Severity::Warning),
            ("allkeys-random", "0", Severity::Warning),
        ];
        for (policy, maxmemory, severity) in cases {
            let mut report = Report::default();
            eviction(policy, maxmemory, &mut report);
            assert_eq!(report.checks[0].severity, severity, "{policy} {maxmemory}");
        }
    }
}
