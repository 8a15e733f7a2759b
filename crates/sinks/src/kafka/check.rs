//! Looks at the cluster before anything is written. Reads only.

use super::config::Settings;
use super::error::{fault, of};
use super::{Reports, asking};
use deltaforge_core::Fault;
use deltaforge_core::config::{Report, Severity};
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::{BaseProducer, Producer as _};
use std::time::Duration;

/// What metadata tells of a topic.
struct Topic {
    partitions: usize,
    /// The fewest replicas that a partition has.
    replicas: usize,
    /// Partitions without a leader.
    headless: usize,
}

/// Asks the cluster about all that the sink relies on.
pub(super) async fn check(settings: &Settings) -> Report {
    let mut report = Report::default();
    let mut names: Vec<String> = settings.topic.is_constant().map(str::to_owned).into_iter().collect();
    if settings.exactly_once {
        names.push(settings.positions_topic.clone());
    }
    let (asked, limit) = (names.clone(), settings.send_timeout);
    let answer = asking(settings, move |client| {
        let brokers = brokers(client, limit)?;
        let topics = asked.iter().map(|name| topic(client, name, limit)).collect::<Vec<_>>();
        Ok((brokers, topics))
    });
    let (brokers, topics) = match answer.await {
        Ok(answer) => answer,
        Err(fault) => {
            refused(&mut report, "connection", &fault);
            return report;
        }
    };
    report.add("connection", Severity::Ok, format!("{brokers} brokers answer"), None);
    for (name, topic) in names.iter().zip(topics) {
        let positions = settings.exactly_once && *name == settings.positions_topic;
        match topic {
            Err(fault) => refused(&mut report, if positions { "positions" } else { "topic" }, &fault),
            Ok(None) if positions => {
                let evidence = format!("`{name}` does not exist yet; the sink makes it");
                report.add("positions", Severity::Ok, evidence, None);
            }
            Ok(None) => missing(settings, name, &mut report),
            Ok(Some(topic)) => {
                let config = describe(settings, name).await;
                look(settings, name, &topic, brokers, positions, config, &mut report);
            }
        }
    }
    report
}

fn refused(report: &mut Report, name: &'static str, fault: &Fault) {
    let evidence = format!("{}: {}", fault.code(), fault.message());
    report.add(name, Severity::Error, evidence, fault.hint_text().map(str::to_owned));
}

fn missing(settings: &Settings, name: &str, report: &mut Report) {
    if settings.create_topics.is_some() {
        report.add("topic", Severity::Ok, format!("`{name}` does not exist yet; the sink makes it"), None);
        return;
    }
    let evidence = format!("`{name}` does not exist");
    let remedy = "make it (kafka-topics --create --topic NAME), or set create_topics: {partitions: 6, replication_factor: 3}";
    report.add("topic", Severity::Warning, evidence, Some(remedy.into()));
}

fn brokers(client: &BaseProducer<Reports>, limit: Duration) -> Result<usize, Fault> {
    // Of a topic that cannot exist nothing is told but the brokers.
    let metadata = client.client().fetch_metadata(Some("."), limit);
    metadata.map(|metadata| metadata.brokers().len()).map_err(|error| of(&error, "asking for the brokers"))
}

fn topic(client: &BaseProducer<Reports>, name: &str, limit: Duration) -> Result<Option<Topic>, Fault> {
    let what = format!("asking for the topic `{name}`");
    let metadata = client.client().fetch_metadata(Some(name), limit).map_err(|e| of(&e, &what))?;
    let Some(topic) = metadata.topics().first() else { return Ok(None) };
    match topic.error().map(Code::from) {
        None => {}
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::LeaderNotAvailable) => {
            return Ok(None);
        }
        Some(code) => return Err(fault(code, &what, "")),
    }
    let partitions = topic.partitions();
    Ok(Some(Topic {
        partitions: partitions.len(),
        replicas: partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or(0),
        headless: partitions.iter().filter(|partition| partition.leader() < 0).count(),
    }))
}

async fn describe(settings: &Settings, topic: &str) -> Result<ConfigResource, Fault> {
    let what = format!("asking for the settings of `{topic}`");
    let config = settings.client_config();
    let admin: AdminClient<DefaultClientContext> = config.create().map_err(|e| of(&e, &what))?;
    let options = AdminOptions::new().request_timeout(Some(settings.send_timeout));
    let answers = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
    match answers.map_err(|e| of(&e, &what))?.pop() {
        Some(Ok(resource)) => Ok(resource),
        Some(Err(code)) => Err(fault(code, &what, "")),
        None => Err(Fault::retry("kafka.refused", format!("{what}: no answer"))),
    }
}

/// The largest set of records that a topic takes, if the user may ask.
pub(super) async fn max_message_bytes(settings: &Settings, topic: &str) -> Option<usize> {
    let config = describe(settings, topic).await.ok()?;
    config.get("max.message.bytes")?.value.as_deref()?.parse().ok()
}

fn look(
    settings: &Settings,
    name: &str,
    topic: &Topic,
    brokers: usize,
    positions: bool,
    config: Result<ConfigResource, Fault>,
    report: &mut Report,
) {
    let row = if positions { "positions" } else { "topic" };
    let evidence = format!("`{name}`: {} partitions, {} replicas", topic.partitions, topic.replicas);
    report.add(row, Severity::Ok, evidence, None);
    let mut warn = |evidence: String, remedy: &str| {
        report.add(row, Severity::Warning, evidence, Some(remedy.into()));
    };
    if topic.headless > 0 {
        warn(format!("{} partitions of `{name}` have no leader", topic.headless), "bring their brokers back");
    }
    if topic.replicas < 2 && brokers > 1 {
        let evidence = format!("`{name}` has one replica: what it holds is lost with that broker");
        warn(evidence, "raise its replication factor to 3: kafka-reassign-partitions");
    }
    let config = match config {
        Ok(config) => config,
        Err(fault) => {
            let evidence = format!("the settings of `{name}` are not known: {}", fault.message());
            warn(
                evidence,
                "kafka-acls --add --operation DescribeConfigs --topic NAME --allow-principal User:USER",
            );
            return;
        }
    };
    let value = |key: &str| config.get(key).and_then(|entry| entry.value.clone()).unwrap_or_default();
    let number = |key: &str| value(key).parse::<usize>().unwrap_or(0);
    if topic.replicas > 1 && number("min.insync.replicas") < 2 {
        let evidence = format!(
            "min.insync.replicas of `{name}` is 1: a record may be acknowledged by its leader alone, and be lost with it"
        );
        warn(evidence, "kafka-configs --alter --topic NAME --add-config min.insync.replicas=2");
    }
    if value("unclean.leader.election.enable") == "true" {
        let evidence =
            format!("unclean leader elections are allowed for `{name}`: acknowledged records may vanish");
        warn(
            evidence,
            "kafka-configs --alter --topic NAME --add-config unclean.leader.election.enable=false",
        );
    }
    let compacted = value("cleanup.policy").contains("compact");
    if positions {
        if !compacted || value("cleanup.policy").contains("delete") {
            let evidence = format!(
                "cleanup.policy of `{name}` is `{}`: positions vanish with time",
                value("cleanup.policy")
            );
            let remedy = "kafka-configs --alter --topic NAME --add-config cleanup.policy=compact";
            report.add(row, Severity::Error, evidence, Some(remedy.into()));
        }
        return;
    }
    if compacted && !settings.tombstones {
        let evidence =
            format!("`{name}` is compacted, and without tombstones the last event of a deleted row stays");
        warn(evidence, "set tombstones: true");
    }
    let largest = number("max.message.bytes");
    if largest > 0 && largest < settings.message_max_bytes {
        let evidence = format!(
            "`{name}` takes records up to {largest} bytes, the sink sends up to {}",
            settings.message_max_bytes
        );
        warn(evidence, "raise max.message.bytes of the topic, or lower message.max.bytes in client_conf");
    }
}
