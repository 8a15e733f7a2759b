//! The `envelope` and `encoding` keys of a sink's settings.

use deltaforge_core::config::{Fields, FindingClass, Raw};

/// Which structure and which bytes a sink sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvelopePlan {
    pub(crate) envelope: Envelope,
}

/// The structure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Envelope {
    #[default]
    Native,
    Debezium,
    CloudEvents {
        type_prefix: String,
    },
}

const ENVELOPES: [&str; 3] = ["native", "debezium", "cloudevents"];
const ENCODINGS: [&str; 1] = ["json"];
const PLANNED_ENCODINGS: [&str; 2] = ["avro", "protobuf"];
const REGISTRY_KEYS: [&str; 8] = [
    "schema_registry_url",
    "schema_registry",
    "username",
    "password",
    "tls",
    "subject_strategy",
    "auto_register",
    "encode_key",
];

/// An option of strict Debezium: both spellings, and its words when they are a closed list.
struct StrictOption {
    name: &'static str,
    dotted: &'static str,
    words: &'static [&'static str],
}

const fn option(name: &'static str, dotted: &'static str, words: &'static [&'static str]) -> StrictOption {
    StrictOption { name, dotted, words }
}

const STRICT_OPTIONS: [StrictOption; 12] = [
    option("topic_prefix", "topic.prefix", &[]),
    option("decimal_handling_mode", "decimal.handling.mode", &["precise", "double", "string"]),
    option("bigint_unsigned_handling_mode", "bigint.unsigned.handling.mode", &["long", "precise"]),
    option(
        "time_precision_mode",
        "time.precision.mode",
        &["adaptive", "adaptive_time_microseconds", "connect", "isostring", "microseconds", "nanoseconds"],
    ),
    option("binary_handling_mode", "binary.handling.mode", &["bytes", "base64", "base64-url-safe", "hex"]),
    option("hstore_handling_mode", "hstore.handling.mode", &["json", "map"]),
    option("interval_handling_mode", "interval.handling.mode", &["numeric", "string"]),
    option("money_fraction_digits", "money.fraction.digits", &[]),
    option("unavailable_value_placeholder", "unavailable.value.placeholder", &[]),
    option("tombstones_on_delete", "tombstones.on.delete", &[]),
    option("skipped_operations", "skipped.operations", &[]),
    option("provide_transaction_metadata", "provide.transaction.metadata", &[]),
];

impl EnvelopePlan {
    /// Reads `envelope` and `encoding` of a sink's `config`. Findings go to `fields`; with any, the plan is of no use.
    pub fn parse(fields: &mut Fields<'_>) -> EnvelopePlan {
        if !fields.has("envelope") {
            fields.default("envelope.type", "native");
        }
        if !fields.has("encoding") {
            fields.default("encoding", "json");
        }
        let envelope = fields.map("envelope", parse_envelope).unwrap_or_default();
        parse_encoding(fields, matches!(envelope, Envelope::CloudEvents { .. }));
        EnvelopePlan { envelope }
    }

    /// What payloads of this plan are made of, in a word: equal ones are made once for all sinks of a pipeline. The wrapper of
    /// `debezium` goes around the native event.
    pub fn encoding(&self) -> String {
        match &self.envelope {
            Envelope::Native | Envelope::Debezium => "native".into(),
            Envelope::CloudEvents { type_prefix } => format!("cloudevents:{type_prefix}"),
        }
    }

    /// The media type of a payload.
    pub fn content_type(&self) -> &'static str {
        match self.envelope {
            Envelope::Native | Envelope::Debezium => "application/json",
            Envelope::CloudEvents { .. } => "application/cloudevents+json",
        }
    }
}

fn parse_envelope(f: &mut Fields<'_>) -> Envelope {
    let written = f.choice("type", &ENVELOPES, &[], "native");
    let type_prefix = parse_type_prefix(f, written);
    let strict = parse_compat(f, written);
    parse_strict_options(f, strict);
    match written {
        "debezium" => Envelope::Debezium,
        "cloudevents" => Envelope::CloudEvents { type_prefix },
        _ => Envelope::Native,
    }
}

fn parse_type_prefix(f: &mut Fields<'_>, envelope: &str) -> String {
    let Some(prefix) = f.text("type_prefix") else { return "deltaforge".into() };
    if envelope != "cloudevents" {
        conflict(f, "type_prefix", "`type_prefix` applies to `type: cloudevents` only");
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if prefix.is_empty() || !prefix.chars().all(allowed) {
        let hint = Some("letters, digits, `.`, `-`, `_`, at least one".to_string());
        f.form(
            "type_prefix",
            "the prefix holds a character that an event type may not have, or nothing",
            hint,
        );
    }
    prefix
}

/// Whether strict Debezium is asked for, which this release refuses.
fn parse_compat(f: &mut Fields<'_>, envelope: &str) -> bool {
    let strict = f.node("compat").and_then(|node| node.as_text()) == Some("strict");
    if f.has("compat") && envelope != "debezium" {
        conflict(f, "compat", "`compat` applies to `type: debezium` only");
        return strict;
    }
    f.choice_if_set("compat", &["wrapper"], &["strict"]);
    strict
}

/// Checks what only strict Debezium takes. With `compat: strict` the refusal of that word is finding enough for options
/// whose values are right.
fn parse_strict_options(f: &mut Fields<'_>, strict: bool) {
    let schemas = option("schemas", "schemas", &["none", "inline"]);
    for StrictOption { name, dotted, words } in [schemas].iter().chain(&STRICT_OPTIONS) {
        let spellings = if name == dotted { &[*name][..] } else { &[*name, *dotted][..] };
        for key in spellings {
            if f.node(key).is_none() {
                continue;
            }
            if !strict {
                conflict(f, key, &format!("`{key}` applies to `type: debezium` with `compat: strict` only"));
            } else if !words.is_empty() {
                f.choice_if_set(key, words, &[]);
            }
        }
    }
}

fn parse_encoding(fields: &mut Fields<'_>, cloudevents: bool) {
    let Some(node) = fields.node("encoding") else { return };
    let is_word = node.as_text().is_some();
    let word = match &node.value {
        Raw::Map(_) => node.get("type").and_then(|t| t.as_text()),
        _ => node.as_text(),
    };
    let other_encoding = word.is_some_and(|word| PLANNED_ENCODINGS.contains(&word));
    if cloudevents && other_encoding {
        let key = if is_word { "encoding" } else { "encoding.type" };
        let message = "`envelope.type: cloudevents` is written as JSON only";
        fields.error(
            "encoding",
            FindingClass::Conflict,
            message,
            Some(format!("remove `{key}`, or set it to `json`")),
        );
        return;
    }
    if is_word {
        fields.choice("encoding", &ENCODINGS, &PLANNED_ENCODINGS, "json");
        return;
    }
    if !matches!(node.value, Raw::Map(_)) {
        let message = format!("expected `json` or a map, found {}", node.describe(true));
        fields.error("encoding", FindingClass::Type, message, None);
        return;
    }
    fields.map("encoding", |f| {
        f.choice("type", &ENCODINGS, &PLANNED_ENCODINGS, "json");
        if other_encoding {
            // The encoding itself is refused; its keys need no finding of their own.
            REGISTRY_KEYS.iter().for_each(|key| {
                f.node(key);
            });
        }
        f.planned(&REGISTRY_KEYS);
    });
}

fn conflict(f: &mut Fields<'_>, key: &str, message: &str) {
    f.error(key, FindingClass::Conflict, message, Some(format!("remove `{key}`")));
}
