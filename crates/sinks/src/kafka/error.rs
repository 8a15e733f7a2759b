//! What an error of librdkafka or of a broker means for a delivery.

use deltaforge_core::fault::{Class, Fault, Kind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaErrorCode;
use std::time::Duration;

/// A row of the table below.
struct Meaning {
    codes: &'static [Code],
    class: Class,
    kind: Kind,
    code: &'static str,
    hint: &'static str,
}

const fn row(
    codes: &'static [Code],
    class: Class,
    kind: Kind,
    code: &'static str,
    hint: &'static str,
) -> Meaning {
    Meaning { codes, class, kind, code, hint }
}

const MEANINGS: &[Meaning] = &[
    row(
        &[Code::MessageTimedOut, Code::OperationTimedOut, Code::RequestTimedOut, Code::TimedOutQueue],
        Class::Retry,
        Kind::Timeout,
        "kafka.timeout",
        "see whether the brokers can be reached and have leaders for the partitions, or raise send_timeout_secs",
    ),
    row(
        &[
            Code::BrokerTransportFailure,
            Code::AllBrokersDown,
            Code::Resolve,
            Code::NetworkException,
            Code::BrokerNotAvailable,
            Code::NodeUpdate,
            Code::BrokerDestroy,
        ],
        Class::Retry,
        Kind::Connect,
        "kafka.unreachable",
        "check that `brokers` and the listeners that the brokers advertise can be reached from here",
    ),
    row(
        &[Code::UnknownTopicOrPartition, Code::UnknownTopic, Code::UnknownPartition, Code::UnknownTopicId],
        Class::Retry,
        Kind::Target,
        "kafka.unknown_topic",
        "make the topic, or let the sink make it: create_topics: {partitions: 6, replication_factor: 3}",
    ),
    row(
        &[
            Code::NotLeaderForPartition,
            Code::LeaderNotAvailable,
            Code::FencedLeaderEpoch,
            Code::UnknownLeaderEpoch,
            Code::ReplicaNotAvailable,
            Code::CoordinatorLoadInProgress,
            Code::CoordinatorNotAvailable,
            Code::NotCoordinator,
            Code::NotController,
            Code::ConcurrentTransactions,
        ],
        Class::Retry,
        Kind::Target,
        "kafka.no_leader",
        "the cluster is electing leaders; nothing to do unless it lasts",
    ),
    row(
        &[Code::NotEnoughReplicas, Code::NotEnoughReplicasAfterAppend, Code::ISRInsufficient],
        Class::Retry,
        Kind::Target,
        "kafka.not_enough_replicas",
        "fewer replicas are in step than min.insync.replicas asks for: bring the brokers back",
    ),
    row(
        &[Code::KafkaStorageError, Code::LogDirNotFound],
        Class::Retry,
        Kind::Target,
        "kafka.storage",
        "the broker cannot write its log: see its own log, free the disk",
    ),
    row(
        &[Code::ThrottlingQuotaExceeded],
        Class::Retry,
        Kind::Throttled,
        "kafka.throttled",
        "the quota of this client is used up",
    ),
    row(
        &[Code::OutOfOrderSequenceNumber, Code::UnknownProducerId, Code::InvalidProducerIdMapping],
        Class::Retry,
        Kind::Target,
        "kafka.sequence_lost",
        "the broker has lost this producer's sequence, as after an unclean election; a new one begins",
    ),
    row(
        &[Code::PurgeQueue, Code::PurgeInflight],
        Class::Retry,
        Kind::Other,
        "kafka.given_up",
        "nothing to do",
    ),
    row(
        &[Code::Authentication, Code::SaslAuthenticationFailed],
        Class::Config,
        Kind::Auth,
        "kafka.auth_refused",
        "check mechanism, username and password under `sasl`",
    ),
    row(
        &[Code::UnsupportedSASLMechanism, Code::IllegalSASLState, Code::SecurityDisabled],
        Class::Config,
        Kind::Auth,
        "kafka.auth_refused",
        "check sasl.mechanism against sasl.enabled.mechanisms of the broker's listener",
    ),
    row(
        &[
            Code::TopicAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
            Code::TransactionalIdAuthorizationFailed,
            Code::GroupAuthorizationFailed,
        ],
        Class::Config,
        Kind::Auth,
        "kafka.not_permitted",
        "give the user what the page on Kafka lists under rights: kafka-acls --add --allow-principal User:NAME …",
    ),
    row(
        &[Code::SSL],
        Class::Config,
        Kind::Tls,
        "kafka.tls",
        "check ca_file, cert_file and key_file under `tls`, and that the listener speaks TLS",
    ),
    row(
        &[
            Code::UnsupportedFeature,
            Code::UnsupportedVersion,
            Code::UnsupportedForMessageFormat,
            Code::UnsupportedCompressionType,
            Code::NotImplemented,
        ],
        Class::Config,
        Kind::Rejected,
        "kafka.unsupported",
        "brokers from version 2.5 on can do all that this sink asks for",
    ),
    row(
        &[Code::InvalidTransactionTimeout],
        Class::Config,
        Kind::Rejected,
        "kafka.transaction_timeout",
        "set transaction.timeout.ms in client_conf to at most transaction.max.timeout.ms of the brokers",
    ),
    row(
        &[
            Code::InvalidReplicationFactor,
            Code::InvalidPartitions,
            Code::PolicyViolation,
            Code::InvalidConfig,
            Code::InvalidTopic,
        ],
        Class::Config,
        Kind::Rejected,
        "kafka.topic_refused",
        "the brokers refuse such a topic: see `topic` and create_topics",
    ),
    row(
        &[Code::InvalidRecord, Code::InvalidTimestamp],
        Class::Data,
        Kind::Rejected,
        "kafka.record_refused",
        "see the topic's message.timestamp.* and cleanup.policy",
    ),
    row(
        &[Code::MessageSizeTooLarge, Code::MessageBatchTooLarge],
        Class::Data,
        Kind::TooLarge,
        "kafka.event_too_large",
        "raise max.message.bytes of the topic",
    ),
    row(
        &[Code::Fenced, Code::ProducerFenced, Code::InvalidProducerEpoch, Code::TransactionCoordinatorFenced],
        Class::Fenced,
        Kind::Rejected,
        "kafka.fenced",
        "another process runs a sink with the same pipeline name and sink id on this cluster: stop one of the two",
    ),
];

/// What an error code means; `what` says what was being done, `reason` what librdkafka adds.
pub(super) fn fault(code: RDKafkaErrorCode, what: &str, reason: &str) -> Fault {
    let text = if reason.is_empty() { code.to_string() } else { reason.to_owned() };
    let text: String = text.chars().take(300).collect();
    match MEANINGS.iter().find(|m| m.codes.contains(&code)) {
        Some(m) => Fault::new(m.class, m.code, format!("{what}: {text}")).kind(m.kind).hint(m.hint),
        None => Fault::retry("kafka.refused", format!("{what}: {text}")).kind(Kind::Target),
    }
}

/// What a failed call means.
pub(super) fn of(error: &KafkaError, what: &str) -> Fault {
    match error {
        KafkaError::ClientConfig(_, why, key, _) => client_conf(&format!("{key}: {why}")),
        KafkaError::ClientCreation(why) => client_conf(why),
        KafkaError::Transaction(error) => fault(error.code(), what, &error.string()),
        KafkaError::Canceled => Fault::retry("kafka.given_up", format!("{what}: the client was given up")),
        KafkaError::AdminOp(code) => fault(*code, what, ""),
        other => match other.rdkafka_error_code() {
            Some(code) => fault(code, what, ""),
            None => Fault::retry("kafka.refused", format!("{what}: {other}")).kind(Kind::Target),
        },
    }
}

fn client_conf(why: &str) -> Fault {
    // Files of certificates and keys are only read when a client is made.
    let (code, kind) = match why.contains("ssl.") || why.contains("SSL") {
        true => ("kafka.tls", Kind::Tls),
        false => ("kafka.client_conf", Kind::Rejected),
    };
    Fault::config(code, format!("librdkafka refuses the settings: {why}"))
        .kind(kind)
        .hint("check `tls` and client_conf against librdkafka's CONFIGURATION.md")
}

/// What an error that is no answer to anything means: only one that no waiting mends ends the sink.
///
/// A listener that goes away in the middle of a handshake looks like a refusal as well; the text tells.
pub(super) fn refusal(code: RDKafkaErrorCode, reason: &str) -> Option<Fault> {
    let passing =
        ["Disconnected", "timed out", "Timed out", "transport", "Connection reset", "Broken pipe", "Local:"];
    match code {
        Code::Authentication | Code::SSL if passing.iter().any(|word| reason.contains(word)) => None,
        Code::Authentication if reason.contains("mechanism handshake failed") => {
            Some(fault(Code::UnsupportedSASLMechanism, "a broker refuses the login", reason))
        }
        Code::Authentication => Some(fault(code, "a broker refuses the login", reason)),
        Code::SSL => Some(fault(code, "no encrypted connection to a broker", reason)),
        Code::ClusterAuthorizationFailed | Code::TransactionalIdAuthorizationFailed => {
            Some(fault(code, "a broker refuses this producer", reason))
        }
        Code::UnsupportedFeature => Some(fault(code, "the brokers cannot do what is asked for", reason)),
        Code::Fatal => {
            Some(Fault::retry("kafka.sequence_lost", format!("the producer came to its end: {reason}")))
        }
        _ => None,
    }
}

/// A transaction that was open longer than the coordinator allows was ended by it, which looks like being fenced.
pub(super) fn fenced_or_late(fault: Fault, open: Option<Duration>, limit: Duration) -> Fault {
    match open {
        Some(open) if fault.class() == Class::Fenced && open >= limit.mul_f64(0.9) => {
            let secs = limit.as_secs();
            let message =
                format!("the transaction was open for {} s, the coordinator allows {secs}", open.as_secs());
            Fault::retry("kafka.transaction_late", message).kind(Kind::Timeout).hint(
                "raise transaction.timeout.ms in client_conf, and transaction.max.timeout.ms of the brokers",
            )
        }
        _ => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_stands_twice() {
        let mut seen = Vec::new();
        for code in MEANINGS.iter().flat_map(|m| m.codes) {
            assert!(!seen.contains(code), "{code:?}");
            seen.push(*code);
        }
    }

    #[test]
    fn classes() {
        let class = |code| (fault(code, "x", "").class(), fault(code, "x", "").code());
        assert_eq!(class(Code::NotEnoughReplicas), (Class::Retry, "kafka.not_enough_replicas"));
        assert_eq!(class(Code::KafkaStorageError), (Class::Retry, "kafka.storage"));
        assert_eq!(class(Code::TopicAuthorizationFailed), (Class::Config, "kafka.not_permitted"));
        assert_eq!(class(Code::ProducerFenced), (Class::Fenced, "kafka.fenced"));
        assert_eq!(class(Code::MessageSizeTooLarge), (Class::Data, "kafka.event_too_large"));
        assert_eq!(class(Code::InvalidTopic), (Class::Config, "kafka.topic_refused"));
        assert_eq!(of(&KafkaError::AdminOp(Code::PolicyViolation), "x").code(), "kafka.topic_refused");
        assert_eq!(class(Code::RebalanceInProgress), (Class::Retry, "kafka.refused"));
    }

    #[test]
    fn a_listener_that_goes_away_refuses_nobody() {
        let gone = "ssl://h:1/bootstrap: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?";
        assert!(refusal(Code::SSL, gone).is_none());
        assert_eq!(refusal(Code::SSL, "certificate verify failed").unwrap().class(), Class::Config);
        let bad = "SASL authentication error: Authentication failed during authentication due to invalid credentials";
        assert_eq!(refusal(Code::Authentication, bad).unwrap().code(), "kafka.auth_refused");
        assert!(refusal(Code::BrokerTransportFailure, "x").is_none());
    }

    #[test]
    fn a_late_transaction_is_not_fenced() {
        let fenced = || fault(Code::Fenced, "commit", "");
        let limit = Duration::from_secs(10);
        assert_eq!(fenced_or_late(fenced(), Some(Duration::from_secs(11)), limit).class(), Class::Retry);
        assert_eq!(fenced_or_late(fenced(), Some(Duration::from_secs(1)), limit).class(), Class::Fenced);
        assert_eq!(fenced_or_late(fenced(), None, limit).class(), Class::Fenced);
    }
}
