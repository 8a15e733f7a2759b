//! The environment-only mode: one pipeline, `default`, described by variables instead of a file.
//!
//! The variables become an ordinary document. Addresses go into it as references, `${SOURCE_URL}`, so that the one
//! place that expands variables reads them and the API shows the reference instead of a password.

use crate::cli::planned;
use deltaforge_core::config::Node;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

const DEFAULT_SINK: &str = "starrocks";
/// Most bytes of a batch in this mode, where batches are large.
const MAX_BATCH_BYTES: u64 = 64 << 20;
/// Variables that only StarRocks needs.
const STARROCKS_ONLY: [&str; 8] = [
    "SINK_PORT",
    "STARROCKS_PORT",
    "SINK_DATABASE",
    "STARROCKS_DB",
    "SINK_USER",
    "STARROCKS_USER",
    "SINK_PASSWORD",
    "STARROCKS_PASS",
];

/// Variables: those of the process, then those of a `.env` file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variables {
    file: HashMap<String, String>,
}

impl Variables {
    /// Reads `.env` in the working directory, if there is one.
    ///
    /// # Errors
    /// A sentence naming the line that is no assignment.
    pub(crate) fn with_env_file(path: &Path) -> Result<Variables, String> {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                Ok(Variables { file: assignments(&text).map_err(|e| format!("{}: {e}", path.display()))? })
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Variables::default()),
            Err(e) => Err(format!("{} cannot be read: {e}", path.display())),
        }
    }

    /// A variable; the process's own wins.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().or_else(|| self.file.get(name).cloned())
    }
}

/// `NAME=value` lines; comments, blank lines, `export` and quotes as shells know them, nothing expanded.
fn assignments(text: &str) -> Result<HashMap<String, String>, String> {
    let mut variables = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!("line {} is not NAME=value", number + 1));
        };
        variables.insert(name.trim().to_string(), unquoted(value.trim()).to_string());
    }
    Ok(variables)
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote)
            && let Some(end) = rest.find(quote)
        {
            return &rest[..end];
        }
    }
    // A comment after a bare value begins with ` #`.
    value.split(" #").next().unwrap_or(value).trim_end()
}

/// What the variables come to.
#[derive(Debug, PartialEq)]
pub(crate) struct FromEnvironment {
    /// The document.
    pub(crate) document: Node,
    /// Sentences to log.
    pub(crate) warnings: Vec<String>,
}

/// Whether this mode is asked for: a source's address, or the older name of it together with a sink's.
pub(crate) fn is_asked_for(get: impl Fn(&str) -> Option<String>) -> bool {
    get("SOURCE_URL").is_some()
        || (get("DATABASE_URL").is_some() && (get("SINK_URL").is_some() || get("STARROCKS_URL").is_some()))
}

/// Makes the document.
///
/// # Errors
/// One sentence for each variable that is missing, unreadable, or asks for what a later release builds.
pub(crate) fn document(get: impl Fn(&str) -> Option<String>) -> Result<FromEnvironment, Vec<String>> {
    let mut reader = Reader { get, warnings: Vec::new(), errors: Vec::new() };
    let source = reader.source();
    let sink = reader.sink();
    let max_events = reader.number("FLUSH_SIZE", 10_000, 1, 1_000_000);
    let max_ms = reader.number("FLUSH_INTERVAL_MS", 5_000, 1, 3_600_000);
    match reader.set("GRPC_PORT") {
        Some(_) => reader.errors.push(planned("GRPC_PORT: gRPC")),
        None => reader.warnings.push(planned("gRPC, by default on port 50051 in this mode,")),
    }
    let document = json!({
        "apiVersion": "deltaforge/v1",
        "kind": "Pipeline",
        "metadata": { "name": "default" },
        "spec": {
            "source": source,
            "sinks": [sink],
            "batch": { "max_events": max_events, "max_bytes": MAX_BATCH_BYTES, "max_ms": max_ms },
        },
    });
    match reader.errors.is_empty() {
        true => Ok(FromEnvironment { document: Node::from_json(&document), warnings: reader.warnings }),
        false => Err(reader.errors),
    }
}

struct Reader<F> {
    get: F,
    warnings: Vec<String>,
    errors: Vec<String>,
}

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    /// A variable that is set and not blank.
    fn set(&self, name: &str) -> Option<String> {
        (self.get)(name).filter(|value| !value.trim().is_empty())
    }

    /// The name under which a variable is set: the newer one wins, an older one is warned of.
    fn name_of(&mut self, name: &'static str, older: &'static str) -> Option<&'static str> {
        if self.set(name).is_some() {
            return Some(name);
        }
        self.set(older)?;
        self.warnings.push(format!("{older} is the older name of {name}: please rename it"));
        Some(older)
    }

    fn missing(&mut self, name: &str, what: &str) {
        self.errors.push(format!("{name} is required: {what}"));
    }

    fn source(&mut self) -> Value {
        let kind = self.set("SOURCE_TYPE").unwrap_or_else(|| "postgres".into());
        if kind != "postgres" {
            self.errors.push(match deltaforge_sources::PLANNED.contains(&kind.as_str()) {
                true => planned(&format!("SOURCE_TYPE={kind}")),
                false => "SOURCE_TYPE: not a known type of source: use postgres".into(),
            });
        }
        let dsn = self.name_of("SOURCE_URL", "DATABASE_URL");
        if dsn.is_none() {
            self.missing("SOURCE_URL", "the address of the database");
        }
        let slot = self.literal("SOURCE_SLOT_NAME", "SLOT_NAME", "dbmazz_slot");
        let publication = self.literal("SOURCE_PUBLICATION_NAME", "PUBLICATION_NAME", "dbmazz_pub");
        let tables = self.set("TABLES").unwrap_or_default();
        let tables: Vec<String> =
            tables.split(',').map(str::trim).filter(|t| !t.is_empty()).map(escaped).collect();
        if tables.is_empty() {
            self.missing("TABLES", "the tables to capture, separated by commas");
        }
        json!({
            "type": "postgres",
            "config": {
                "dsn": reference(dsn.unwrap_or("SOURCE_URL")),
                "slot": slot,
                "publication": publication,
                "tables": tables,
                "replica_identity": "full",
            },
        })
    }

    fn sink(&mut self) -> Value {
        let kind = self.set("SINK_TYPE");
        let target = self.set("SINK_TARGET");
        let mut config = Map::new();
        let word = kind.clone().unwrap_or_else(|| DEFAULT_SINK.into());
        match word.as_str() {
            "redis" => {
                match self.name_of("SINK_URL", "STARROCKS_URL") {
                    Some(name) => drop(config.insert("uri".into(), reference(name).into())),
                    None => self.missing("SINK_URL", "the address of Redis"),
                }
                // A target is a template: its references to events are meant, so nothing is escaped.
                config.insert("stream".into(), target.unwrap_or_else(default_target).into());
            }
            "file" => {
                config.insert("path".into(), target.unwrap_or_else(default_target).into());
                self.useless("SINK_URL", &word);
            }
            "stdout" => {
                self.useless("SINK_URL", &word);
                self.useless("SINK_TARGET", &word);
            }
            _ => self.no_such_sink(kind.as_deref()),
        }
        for name in STARROCKS_ONLY {
            self.useless(name, &word);
        }
        json!({ "type": word, "config": config })
    }

    fn no_such_sink(&mut self, kind: Option<&str>) {
        let available = "set SINK_TYPE to redis, file or stdout";
        self.errors.push(match kind {
            None => format!("{}: {available}", planned(&format!("SINK_TYPE={DEFAULT_SINK}, the default,"))),
            Some(kind) if deltaforge_sinks::PLANNED.contains(&kind) => {
                format!("{}: {available}", planned(&format!("SINK_TYPE={kind}")))
            }
            Some(_) => format!("SINK_TYPE: not a known type of sink: {available}"),
        });
    }

    /// Says that a variable does nothing for this type of sink.
    fn useless(&mut self, name: &str, kind: &str) {
        if self.set(name).is_some() {
            self.warnings.push(format!("{name} has no use with SINK_TYPE={kind}"));
        }
    }

    fn literal(&mut self, name: &'static str, older: &'static str, default: &str) -> String {
        let set = self.name_of(name, older).and_then(|name| self.set(name));
        set.map_or_else(|| default.into(), |value| escaped(value.trim()))
    }

    fn number(&mut self, name: &str, default: u64, least: u64, most: u64) -> u64 {
        let Some(text) = self.set(name) else { return default };
        match text.trim().parse() {
            Ok(number) if (least..=most).contains(&number) => number,
            _ => {
                let mut message = String::new();
                let _cannot_fail = write!(message, "{name}: expected an integer from {least} to {most}");
                self.errors.push(message);
                default
            }
        }
    }
}

fn reference(name: &str) -> String {
    format!("${{{name}}}")
}

/// A text that expansion leaves as it is.
fn escaped(text: &str) -> String {
    text.replace("${", "$${")
}

fn default_target() -> String {
    "${source.table}".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(variables: &[(&str, &str)]) -> Result<FromEnvironment, Vec<String>> {
        document(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_string()))
    }

    const LEAST: [(&str, &str); 4] = [
        ("SOURCE_URL", "postgres://u:geheim@h/d"),
        ("TABLES", " public.a, b ,"),
        ("SINK_TYPE", "redis"),
        ("SINK_URL", "redis://r"),
    ];

    #[test]
    fn a_document_with_references() {
        let made = run(&LEAST).unwrap().document.to_json();
        let config = &made["spec"]["source"]["config"];
        assert_eq!(config["dsn"], "${SOURCE_URL}");
        assert_eq!(config["tables"], json!(["public.a", "b"]));
        assert_eq!((&config["slot"], &config["publication"]), (&json!("dbmazz_slot"), &json!("dbmazz_pub")));
        assert_eq!(config["replica_identity"], "full");
        assert_eq!(
            made["spec"]["sinks"][0]["config"],
            json!({"uri": "${SINK_URL}", "stream": "${source.table}"})
        );
        assert_eq!(
            made["spec"]["batch"],
            json!({"max_events": 10000, "max_bytes": 67_108_864, "max_ms": 5000})
        );
        assert!(!made.to_string().contains("geheim"));
    }

    #[test]
    fn older_names_work_and_warn() {
        let variables = [
            ("DATABASE_URL", "postgres://h/d"),
            ("SLOT_NAME", "s"),
            ("TABLES", "a"),
            ("SINK_TYPE", "redis"),
            ("STARROCKS_URL", "redis://r"),
        ];
        let made = run(&variables).unwrap();
        assert_eq!(made.document.to_json()["spec"]["source"]["config"]["dsn"], "${DATABASE_URL}");
        assert_eq!(made.document.to_json()["spec"]["source"]["config"]["slot"], "s");
        assert_eq!(
            made.warnings.iter().filter(|w| w.contains("older name")).count(),
            3,
            "{:?}",
            made.warnings
        );
        assert!(is_asked_for(|name| variables.iter().any(|(key, _)| *key == name).then(String::new)));
    }

    #[test]
    fn every_error_names_its_variable() {
        let cases: [(&str, &str, &str); 8] = [
            ("SOURCE_URL", "", "SOURCE_URL is required"),
            ("TABLES", " , ", "TABLES is required"),
            ("SINK_URL", "", "SINK_URL is required"),
            ("SINK_TYPE", "starrocks", "SINK_TYPE=starrocks is planned, not in this release"),
            ("SINK_TYPE", "", "SINK_TYPE=starrocks, the default, is planned, not in this release"),
            ("SINK_TYPE", "tape", "SINK_TYPE: not a known type of sink"),
            ("FLUSH_SIZE", "many", "FLUSH_SIZE: expected an integer"),
            ("GRPC_PORT", "50051", "GRPC_PORT: gRPC is planned"),
        ];
        for (name, value, part) in cases {
            let mut variables: Vec<_> = LEAST.iter().filter(|(key, _)| *key != name).copied().collect();
            variables.push((name, value));
            let errors = run(&variables).unwrap_err();
            assert!(errors.len() == 1 && errors[0].contains(part), "{name}={value}: {errors:?}");
        }
    }

    #[test]
    fn env_files() {
        let text = "# a comment\n\nexport A=1\nB=\"two # words\" # note\nC='x'\nD=bare # note\nE=\n";
        let read = assignments(text).unwrap();
        let of = |name: &str| read[name].clone();
        assert_eq!([of("A"), of("B"), of("C"), of("D"), of("E")], ["1", "two # words", "x", "bare", ""]);
        assert_eq!(assignments("A=1\nnonsense").unwrap_err(), "line 2 is not NAME=value");
    }
}
