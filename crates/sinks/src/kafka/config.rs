//! The settings of the Kafka sink, and the properties of librdkafka that they come to. No I/O.

use super::record::{TOPIC_LONGEST, is_topic};
use crate::shared::common::{Common, required_template, template};
use deltaforge_core::config::{Fields, FindingClass, Raw, Secret, Tls, TlsMode, is_secret_name};
use deltaforge_core::source::Names;
use deltaforge_encode::template::Template;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;
use std::time::Duration;

const POSITIONS_TOPIC: &str = "__deltaforge_positions";
/// A source transaction above the batch limits is staged at the target for as long as it takes to read it. Below the limit of
/// a broker's default `transaction.max.timeout.ms`, 15 minutes.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(600);
/// What librdkafka keeps of records on their way. A batch waits when it is full.
const QUEUE_KBYTES: usize = 64 * 1024;
/// librdkafka's default of `message.max.bytes`.
const MESSAGE_MAX_BYTES: usize = 1_000_000;

const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];

/// Makes topics that do not exist.
#[derive(Clone, Debug)]
pub(super) struct CreateTopics {
    pub(super) partitions: i32,
    pub(super) replication: i32,
    pub(super) config: Vec<(String, String)>,
}

/// A parsed `config`.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) common: Common,
    pub(super) topic: Template,
    /// `None`: the encoder's default.
    pub(super) key: Option<Template>,
    pub(super) headers: Vec<(String, Template)>,
    pub(super) exactly_once: bool,
    pub(super) positions_topic: String,
    pub(super) send_timeout: Duration,
    pub(super) transaction_timeout: Duration,
    pub(super) tombstones: bool,
    pub(super) create_topics: Option<CreateTopics>,
    /// Of every client: brokers, login, encryption, `client_conf`.
    client: ClientConfig,
    /// Of the producer, above that.
    producer: ClientConfig,
    pub(super) message_max_bytes: usize,
}

impl Settings {
    /// Reads `config`; `None` when a finding leaves nothing to go on with.
    pub(super) fn parse(
        fields: &mut Fields<'_>,
        names: &Names<'_>,
        required: Option<bool>,
    ) -> Option<Settings> {
        let common = Common::parse(fields, names, required);
        let brokers = brokers(fields);
        let topic = topic(fields);
        let key = template(fields, "key");
        let headers = headers(fields);
        let exactly_once = fields.bool("exactly_once", false);
        let positions_topic = positions_topic(fields, exactly_once);
        let send_timeout = Duration::from_secs(fields.int("send_timeout_secs", 30, 1..=3600) as u64);
        let tombstones = fields.bool("tombstones", false);
        let create_topics = create_topics(fields);
        let sasl = Sasl::parse(fields);
        let tls = Tls::parse(fields, false);
        let conf = client_conf(fields, exactly_once);
        let client = client_config(fields, &brokers.unwrap_or_default(), sasl.as_ref(), &tls, &conf);
        let transactional_id = exactly_once.then(|| format!("deltaforge-{}-{}", names.pipeline, common.id));
        let transaction_timeout = TRANSACTION_TIMEOUT.max(send_timeout);
        let producer = producer_config(&client, send_timeout, transactional_id, transaction_timeout, &conf);
        let number = |key: &str| producer.get(key).and_then(|value| value.parse::<usize>().ok());
        let message_max_bytes = number("message.max.bytes").unwrap_or(MESSAGE_MAX_BYTES);
        let queue = number("queue.buffering.max.kbytes").unwrap_or(QUEUE_KBYTES);
        if queue.saturating_mul(1024) < message_max_bytes {
            let message =
                format!("a record of message.max.bytes, {message_max_bytes}, finds no room in {queue} KiB");
            let hint = "remove it, or lower message.max.bytes";
            fields.error(
                "client_conf",
                FindingClass::Conflict,
                format!("queue.buffering.max.kbytes: {message}"),
                Some(hint.into()),
            );
        }
        let transaction_timeout = number("transaction.timeout.ms")
            .map_or(transaction_timeout, |ms| Duration::from_millis(ms as u64));
        Some(Settings {
            common,
            topic: topic?,
            key,
            headers,
            exactly_once,
            positions_topic,
            send_timeout,
            transaction_timeout,
            tombstones,
            create_topics,
            client,
            producer,
            message_max_bytes,
        })
    }

    /// The properties of a client that only asks.
    pub(super) fn client_config(&self) -> ClientConfig {
        self.client.clone()
    }

    /// The properties of the producer.
    pub(super) fn producer_config(&self) -> ClientConfig {
        self.producer.clone()
    }
}

fn brokers(fields: &mut Fields<'_>) -> Option<String> {
    let text = fields.required_text("brokers")?;
    for part in text.split(',').map(str::trim) {
        let (host, port) = part.rsplit_once(':').unwrap_or((part, ""));
        if host.is_empty() || host.contains("://") || !port.parse::<u16>().is_ok_and(|port| port > 0) {
            let message = "expected `HOST:PORT`, several separated by commas";
            fields.form("brokers", message, Some("brokers: kafka-1:9092,kafka-2:9092".into()));
            return None;
        }
    }
    Some(text)
}

fn topic(fields: &mut Fields<'_>) -> Option<Template> {
    let topic = required_template(fields, "topic")?;
    if let Some(name) = topic.is_constant()
        && !is_topic(name.as_bytes())
    {
        let message = format!(
            "a topic has 1 to {TOPIC_LONGEST} letters, digits, `.`, `_` or `-`, and is not `.` or `..`"
        );
        fields.form("topic", message, None);
        return None;
    }
    Some(topic)
}

fn positions_topic(fields: &mut Fields<'_>, exactly_once: bool) -> String {
    if !fields.has("positions_topic") {
        fields.default("positions_topic", POSITIONS_TOPIC);
    }
    let name = fields.text("positions_topic").unwrap_or_else(|| POSITIONS_TOPIC.into());
    if !exactly_once && name != POSITIONS_TOPIC {
        let why = "only an exactly-once sink keeps a position";
        fields.warn("positions_topic", why, Some("remove it, or set exactly_once: true".into()));
    }
    if !is_topic(name.as_bytes()) {
        fields.form("positions_topic", "expected the name of a topic", None);
    }
    name
}

fn headers(fields: &mut Fields<'_>) -> Vec<(String, Template)> {
    let mut headers = Vec::new();
    for (name, text) in fields.text_map("headers") {
        if name.is_empty() || ["df-event-id", "content-type", "df-old-key"].contains(&name.as_str()) {
            let message = format!(
                "`{name}` is not free: the sink itself writes `df-event-id`, `content-type`, `df-old-key`"
            );
            fields.error("headers", FindingClass::Conflict, message, Some("choose another name".into()));
            continue;
        }
        match Template::parse(&text) {
            Ok(template) => headers.push((name, template)),
            Err(why) => fields.form("headers", format!("`{name}`: {why}"), None),
        }
    }
    headers
}

fn create_topics(fields: &mut Fields<'_>) -> Option<CreateTopics> {
    fields.map("create_topics", |f| {
        let partitions = f.int("partitions", -1, -1..=100_000) as i32;
        let replication = f.int("replication_factor", -1, -1..=i64::from(i16::MAX)) as i32;
        for (key, value) in [("partitions", partitions), ("replication_factor", replication)] {
            if value == 0 {
                f.error(key, FindingClass::Range, "expected 1 or more, or -1 for the broker's default", None);
            }
        }
        CreateTopics { partitions, replication, config: f.text_map("config") }
    })
}

struct Sasl {
    mechanism: &'static str,
    login: Option<(String, Secret)>,
}

impl Sasl {
    fn parse(fields: &mut Fields<'_>) -> Option<Sasl> {
        let oidc =
            fields.node("client_conf").and_then(|conf| conf.get("sasl.oauthbearer.token.endpoint.url"));
        let oidc = oidc.is_some();
        fields.map("sasl", |f| {
            let mechanism = f.required_text("mechanism")?;
            let Some(mechanism) = MECHANISMS.iter().copied().find(|known| *known == mechanism) else {
                f.not_a_choice("mechanism", &mechanism, &MECHANISMS, &["GSSAPI"]);
                let _ = (f.text("username"), f.secret("password"));
                return None;
            };
            let (username, password) = (f.text("username"), f.secret("password"));
            if mechanism != "OAUTHBEARER" {
                for (key, given) in [("username", username.is_some()), ("password", password.is_some())] {
                    if !given {
                        f.error(key, FindingClass::Missing, format!("`{mechanism}` takes a {key}"), None);
                    }
                }
                return Some(Sasl { mechanism, login: username.zip(password) });
            }
            for (key, given) in [("username", username.is_some()), ("password", password.is_some())] {
                if given {
                    let message = "`OAUTHBEARER` takes a token, which it fetches by the settings in `client_conf`";
                    f.error(key, FindingClass::Conflict, message, Some(format!("remove `{key}`")));
                }
            }
            if !oidc {
                let hint = "client_conf: {sasl.oauthbearer.token.endpoint.url: URL, sasl.oauthbearer.client.id: ID, \
                            sasl.oauthbearer.client.secret: SECRET}";
                let message = "`OAUTHBEARER` needs `sasl.oauthbearer.token.endpoint.url` in `client_conf`";
                f.error("mechanism", FindingClass::Missing, message, Some(hint.into()));
            }
            Some(Sasl { mechanism, login: None })
        })?
    }
}

/// Properties that this sink sets itself, with the setting to use instead.
const OURS: [(&str, &str); 7] = [
    ("bootstrap.servers", "brokers"),
    ("metadata.broker.list", "brokers"),
    ("sasl.mechanism", "sasl.mechanism"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("sasl.username", "sasl.username"),
    ("sasl.password", "sasl.password"),
    // A key in the document would be shown with it.
    ("ssl.key.pem", "tls: { key_file: … }"),
];

/// What would make an acknowledgement mean less, or nothing.
fn breaks(key: &str, value: &str) -> Option<Breaks> {
    let off = |value: &str| matches!(value.to_ascii_lowercase().as_str(), "false" | "0" | "f");
    match key {
        "transactional.id" => Some(Breaks::Always(
            "it is the sink's identity and made from pipeline and sink: see `exactly_once`",
        )),
        "delivery.report.only.error" if !off(value) => {
            Some(Breaks::Always("without reports of success nothing would ever count as delivered"))
        }
        "test.mock.num.brokers" | "test.mock.broker.rtt" => {
            Some(Breaks::Always("a simulated broker keeps nothing"))
        }
        "enable.idempotence" if off(value) => {
            Some(Breaks::Promise("records may be doubled or change places when a request is sent again"))
        }
        "acks" | "request.required.acks" if !matches!(value, "all" | "-1") => {
            Some(Breaks::Promise("a record that a broker acknowledged alone is lost when that broker fails"))
        }
        _ => None,
    }
}

enum Breaks {
    Always(&'static str),
    /// Refused with `exactly_once`, a warning without.
    Promise(&'static str),
}

fn client_conf(fields: &mut Fields<'_>, exactly_once: bool) -> Vec<(String, String)> {
    let Some(node) = fields.node("client_conf") else { return Vec::new() };
    let Raw::Map(entries) = &node.value else {
        fields.error("client_conf", FindingClass::Type, "expected a map of librdkafka's properties", None);
        return Vec::new();
    };
    let mut conf = Vec::new();
    for (key, value) in entries {
        let (key, path) = (key.name.as_str(), format!("client_conf.{}", key.name));
        let value = match &value.value {
            Raw::Text(text) => text.clone(),
            Raw::Bool(on) => on.to_string(),
            Raw::Int(number) => number.to_string(),
            Raw::Float(number) => number.to_string(),
            _ => {
                fields.error(&path, FindingClass::Type, "expected a text, number or boolean", None);
                continue;
            }
        };
        if let Some((_, ours)) = OURS.iter().find(|(theirs, _)| *theirs == key) {
            let hint = Some(format!("write it as `{ours}`"));
            fields.error(&path, FindingClass::Conflict, "this property has a setting of its own", hint);
            continue;
        }
        if !known(fields, &path, key, &value) {
            continue;
        }
        match breaks(key, &value) {
            Some(Breaks::Always(why)) => {
                fields.error(&path, FindingClass::Conflict, why, Some("remove it".into()));
                continue;
            }
            Some(Breaks::Promise(why)) if exactly_once => {
                let message = format!("contradicts `exactly_once`: {why}");
                fields.error(&path, FindingClass::Conflict, message, Some("remove it".into()));
                continue;
            }
            Some(Breaks::Promise(why)) => fields.warn(&path, why, Some("remove it".into())),
            None => {}
        }
        conf.push((key.to_owned(), value));
    }
    conf
}

/// Asks librdkafka itself, without a connection.
fn known(fields: &mut Fields<'_>, path: &str, key: &str, value: &str) -> bool {
    let Err(error) = ClientConfig::new().set(key, value).create_native_config().map(drop) else {
        return true;
    };
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..) => {
            let hint = "the names are those of librdkafka's CONFIGURATION.md";
            fields.error(path, FindingClass::Unknown, "librdkafka has no such property", Some(hint.into()));
        }
        KafkaError::ClientConfig(_, why, ..) if !is_secret_name(key) => fields.form(path, why, None),
        _ => fields.form(path, "librdkafka refuses the value", None),
    }
    false
}

fn client_config(
    fields: &mut Fields<'_>,
    brokers: &str,
    sasl: Option<&Sasl>,
    tls: &Tls,
    conf: &[(String, String)],
) -> ClientConfig {
    let given =
        conf.iter().find(|(key, _)| key == "security.protocol").map(|(_, value)| value.to_lowercase());
    let asked = given.as_deref().map(|protocol| protocol.ends_with("ssl"));
    let default =
        if asked == Some(true) || tls.ca_file.is_some() { TlsMode::VerifyFull } else { TlsMode::Disable };
    let mode = tls.mode.unwrap_or(default);
    let encrypted = mode != TlsMode::Disable;
    if asked.is_some_and(|asked| asked != encrypted) {
        let message = format!("contradicts `{}`", fields.path_of("client_conf.security.protocol"));
        fields.error("tls", FindingClass::Conflict, message, Some("remove security.protocol".into()));
    }
    if given.is_some_and(|protocol| protocol.starts_with("sasl") != sasl.is_some()) {
        let message = format!("contradicts `{}`", fields.path_of("client_conf.security.protocol"));
        fields.error("sasl", FindingClass::Conflict, message, Some("remove security.protocol".into()));
    }
    if !encrypted && tls.cert_file.is_some() {
        let message = "a client certificate has no use without encryption";
        fields.error("tls", FindingClass::Conflict, message, Some("set tls.mode".into()));
    }
    let mut client = ClientConfig::new();
    client.set_log_level(RDKafkaLogLevel::Notice);
    let protocol = match (sasl.is_some(), encrypted) {
        (false, false) => "plaintext",
        (false, true) => "ssl",
        (true, false) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    };
    client
        .set("bootstrap.servers", brokers)
        .set("security.protocol", protocol)
        .set("client.id", "deltaforge");
    // Ten seconds by default: a broker that is back is to be found sooner.
    client.set("reconnect.backoff.max.ms", "1000");
    if let Some(sasl) = sasl {
        client.set("sasl.mechanisms", sasl.mechanism);
        match &sasl.login {
            Some((username, password)) => {
                client.set("sasl.username", username).set("sasl.password", password.expose());
            }
            None => {
                client.set("sasl.oauthbearer.method", "oidc");
            }
        }
    }
    match mode {
        TlsMode::Require => client.set("enable.ssl.certificate.verification", "false"),
        TlsMode::VerifyCa => client.set("ssl.endpoint.identification.algorithm", "none"),
        _ => &mut client,
    };
    let files = [
        ("ssl.ca.location", &tls.ca_file),
        ("ssl.certificate.location", &tls.cert_file),
        ("ssl.key.location", &tls.key_file),
    ];
    for (key, file) in files {
        if let Some(file) = file {
            client.set(key, file);
        }
    }
    client.extend(conf.iter().cloned());
    client
}

fn producer_config(
    client: &ClientConfig,
    send_timeout: Duration,
    transactional_id: Option<String>,
    transaction_timeout: Duration,
    conf: &[(String, String)],
) -> ClientConfig {
    let mut producer = client.clone();
    let defaults = [
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("retries", "2147483647"),
        ("compression.type", "lz4"),
        ("linger.ms", "5"),
        // As the Java client does it: one key, one partition, whoever writes.
        ("partitioner", "murmur2_random"),
        ("queue.buffering.max.messages", "1000000"),
        // A topic that is not there is found missing within this; the engine then tries again.
        ("topic.metadata.propagation.max.ms", "5000"),
        ("statistics.interval.ms", "5000"),
    ];
    for (key, value) in defaults {
        producer.set(key, value);
    }
    producer.set("message.timeout.ms", send_timeout.as_millis().to_string());
    if let Some(id) = transactional_id {
        producer.set("transactional.id", id);
        producer.set("transaction.timeout.ms", transaction_timeout.as_millis().to_string());
    }
    let largest = conf.iter().find(|(key, _)| key == "message.max.bytes");
    let largest = largest.and_then(|(_, value)| value.parse::<usize>().ok()).unwrap_or(MESSAGE_MAX_BYTES);
    // The queue takes some of the largest records, or one would wait for ever.
    producer.set("queue.buffering.max.kbytes", QUEUE_KBYTES.max(largest / 1024 * 4).to_string());
    producer.extend(conf.iter().cloned());
    producer
}
