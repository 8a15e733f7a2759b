//! Looks at server and stream before anything is written. Reads only.

use super::config::Settings;
use super::connection::{Connection, connect};
use super::error::timed_out;
use super::look_at_stream;
use super::stream::{self, Facts};
use super::subject::takes;
use deltaforge_core::Fault;
use deltaforge_core::config::{Report, Severity};

pub(super) async fn check(settings: &Settings) -> Report {
    let mut report = Report::default();
    let mut connection = match connect(settings, "deltaforge:check").await {
        Ok(connection) => connection,
        Err(fault) => {
            refused(&mut report, "connection", &fault);
            return report;
        }
    };
    let (address, info) = (connection.address.clone(), &connection.info);
    report.add("connection", Severity::Ok, format!("{address} answers"), None);
    report.add("version", Severity::Ok, info.version.clone(), None);
    let evidence = format!("max_payload is {} bytes: no event can be larger", info.max_payload);
    report.add("max_payload", Severity::Ok, evidence, None);
    let Some(name) = &settings.stream else {
        let evidence =
            "no stream is named: what nobody listens to at that moment is refused, nothing is kept";
        report.add("stream", Severity::Warning, evidence, Some("name a JetStream `stream`".into()));
        return report;
    };
    let limit = settings.connect_timeout;
    match tokio::time::timeout(limit, look(&mut connection, settings, name, &mut report)).await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => refused(&mut report, "stream", &fault),
        Err(_) => refused(&mut report, "stream", &timed_out(&address, "connect_timeout_secs", limit)),
    }
    report
}

fn refused(report: &mut Report, name: &'static str, fault: &Fault) {
    let evidence = format!("{}: {}", fault.code(), fault.message());
    report.add(name, Severity::Error, evidence, fault.hint_text().map(str::to_owned));
}

async fn look(
    connection: &mut Connection,
    settings: &Settings,
    name: &str,
    report: &mut Report,
) -> Result<(), Fault> {
    let Some(facts) = stream::info(connection, name).await? else {
        let evidence = format!("there is no stream `{name}`");
        if settings.create_stream.is_some() {
            report.add("stream", Severity::Ok, format!("{evidence} yet; it will be made"), None);
        } else {
            let remedy = format!("nats stream add {name} --subjects '{}'", settings.subject_filter);
            report.add("stream", Severity::Error, evidence, Some(remedy));
        }
        return Ok(());
    };
    match look_at_stream(settings, name, &facts) {
        Err(fault) => refused(report, "stream", &fault),
        Ok(()) => {
            report.add("stream", Severity::Ok, format!("`{name}` takes {}", facts.subjects.join(", ")), None)
        }
    }
    judge(settings, name, &facts, report);
    Ok(())
}

/// What may lose or double messages behind our back.
fn judge(settings: &Settings, name: &str, facts: &Facts, report: &mut Report) {
    let mut warn = |what, evidence: String, remedy: String| {
        report.add(what, Severity::Warning, evidence, Some(remedy));
    };
    let filter = &settings.subject_filter;
    if !facts.subjects.iter().any(|subject| takes(subject, filter, true)) {
        let evidence = format!("the stream takes some of the subjects `{filter}`, not all");
        warn("subjects", evidence, format!("nats stream edit {name} --subjects '{filter}'"));
    }
    if facts.storage == "memory" {
        let evidence = "the stream is in memory: a restart of the server loses it".to_owned();
        warn("storage", evidence, "make it with --storage file".into());
    }
    if facts.replicas < 3 {
        let evidence = format!("{} replica: what is acknowledged is lost with its server", facts.replicas);
        warn("replicas", evidence, format!("nats stream edit {name} --replicas 3"));
    }
    // The server does not tell its sync_interval to clients.
    if facts.storage == "file" {
        let evidence =
            "acknowledged messages are synced to disk every 2 minutes unless the server says otherwise"
                .to_owned();
        warn(
            "sync_interval",
            evidence,
            "in the server's configuration: jetstream { sync_interval: always }, or replicas in other racks"
                .into(),
        );
    }
    let limited = facts.max_age > 0.0 || facts.max_msgs > 0 || facts.max_bytes > 0;
    match (limited, facts.discard.as_str()) {
        (true, "old") => {
            let evidence =
                "limits with `discard: old`: the oldest messages are deleted, read or not".to_owned();
            warn("limits", evidence, "keep the limits above what the slowest consumer lags".into());
        }
        (true, _) => {
            let evidence =
                "limits with `discard: new`: a full stream stops the pipeline until there is room".to_owned();
            warn("limits", evidence, "alert on the stream's size".into());
        }
        _ => {}
    }
    if facts.retention != "limits" {
        let evidence = format!("retention is `{}`: messages are deleted once they are read", facts.retention);
        warn("retention", evidence, "intended? else make the stream with --retention limits".into());
    }
    let least = 2.0 * settings.batch_timeout.as_secs_f64();
    if !settings.exactly_once && facts.duplicate_window < least {
        let evidence = format!(
            "the deduplication window is {} s: what is delivered again later than that is doubled",
            facts.duplicate_window
        );
        warn("duplicate_window", evidence, format!("nats stream edit {name} --dupe-window 2m"));
    }
    if settings.exactly_once && !facts.allow_atomic {
        let evidence =
            "the stream takes no atomic batches: consumers may see a part of a transaction for a moment"
                .to_owned();
        warn("atomic", evidence, format!("NATS 2.12 or later: nats stream edit {name} --allow-batch"));
    }
    if settings.exactly_once && facts.max_age > 0.0 {
        let evidence = "max_age deletes the last message, too, once nothing came for that long, and the position with it".to_owned();
        warn("position", evidence, "without max_age the position stays".into());
    }
}
