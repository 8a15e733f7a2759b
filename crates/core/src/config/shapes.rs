//! Shapes that several components share: secrets, sizes, TLS, retries, and the report of a check.

use super::{Fields, FindingClass};
use std::fmt;
use std::time::Duration;

/// A text that no log, error or answer shows.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Bytes from `1048576`, `1 MiB`, `1MB`; units of 1024 end in `iB`. `None` when it is no size.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit: u64 = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// Bytes for a message, in the largest unit that divides them: `4MiB`, `1000 bytes`.
pub fn size_text(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, bits)| bytes > 0 && bytes.is_multiple_of(1 << bits)) {
        Some((unit, bits)) => format!("{}{unit}", bytes >> bits),
        None => format!("{bytes} bytes"),
    }
}

/// How encryption is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// When the server offers it.
    Prefer,
    /// Always; nothing is checked.
    Require,
    /// Always; the certificate chain is checked.
    VerifyCa,
    /// Always; chain and host name are checked.
    VerifyFull,
}

const TLS_MODES: [(&str, TlsMode); 5] = [
    ("disable", TlsMode::Disable),
    ("prefer", TlsMode::Prefer),
    ("require", TlsMode::Require),
    ("verify-ca", TlsMode::VerifyCa),
    ("verify-full", TlsMode::VerifyFull),
];

impl TlsMode {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        TLS_MODES.iter().find(|(_, mode)| *mode == self).map_or("", |(word, _)| word)
    }

    /// The mode for a word.
    pub fn parse(word: &str) -> Option<TlsMode> {
        TLS_MODES.iter().find(|(known, _)| *known == word).map(|(_, mode)| *mode)
    }
}

/// The `tls` block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// As written; the component decides the default.
    pub mode: Option<TlsMode>,
    /// PEM bundle to trust instead of the system's roots.
    pub ca_file: Option<String>,
    /// PEM certificate of this client.
    pub cert_file: Option<String>,
    /// Its key.
    pub key_file: Option<String>,
}

impl Tls {
    /// Reads `tls: {mode, ca_file, cert_file, key_file}`.
    pub fn parse(fields: &mut Fields<'_>, prefer_allowed: bool) -> Tls {
        let words: Vec<&'static str> = TLS_MODES
            .iter()
            .filter(|(_, mode)| prefer_allowed || *mode != TlsMode::Prefer)
            .map(|(word, _)| *word)
            .collect();
        let tls = fields.map("tls", |f| {
            let mode = f.choice_if_set("mode", &words, &[]).and_then(TlsMode::parse);
            let tls = Tls {
                mode,
                ca_file: f.text("ca_file"),
                cert_file: f.text("cert_file"),
                key_file: f.text("key_file"),
            };
            if tls.cert_file.is_some() != tls.key_file.is_some() {
                let (written, other) = if tls.cert_file.is_some() {
                    ("cert_file", "key_file")
                } else {
                    ("key_file", "cert_file")
                };
                let message = format!("`{written}` and `{other}` are given together or not at all");
                f.error(written, FindingClass::Conflict, message, Some(format!("add `{other}`")));
            }
            if tls.mode == Some(TlsMode::Disable) && tls.ca_file.is_some() {
                let message = "`ca_file` has no use with `mode: disable`";
                f.error("ca_file", FindingClass::Conflict, message, Some("remove one of the two".into()));
            }
            tls
        });
        tls.unwrap_or_default()
    }
}

/// Exponential backoff with jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// First pause.
    pub initial_ms: u64,
    /// Longest pause.
    pub max_ms: u64,
    /// Share by which a pause varies, 0 to 1.
    pub jitter: f64,
    /// Attempts after which it is given up; 0: never.
    pub max_attempts: u32,
}

impl RetryPolicy {
    /// What sources use unless told otherwise.
    pub const SOURCE: RetryPolicy =
        RetryPolicy { initial_ms: 1000, max_ms: 60_000, jitter: 0.2, max_attempts: 0 };
    /// What sinks use that the checkpoint waits for.
    pub const REQUIRED_SINK: RetryPolicy =
        RetryPolicy { initial_ms: 100, max_ms: 10_000, jitter: 0.2, max_attempts: 0 };
    /// What other sinks use.
    pub const OPTIONAL_SINK: RetryPolicy =
        RetryPolicy { initial_ms: 100, max_ms: 10_000, jitter: 0.2, max_attempts: 5 };

    /// Reads `retry: {initial_ms, max_ms, jitter, max_attempts}` over defaults.
    pub fn parse(fields: &mut Fields<'_>, default: RetryPolicy) -> RetryPolicy {
        if !fields.has("retry") {
            fields.default("retry.initial_ms", default.initial_ms);
            fields.default("retry.max_ms", default.max_ms);
            fields.default("retry.jitter", default.jitter);
            fields.default("retry.max_attempts", default.max_attempts);
        }
        let parsed = fields.map("retry", |f| {
            let policy = RetryPolicy {
                initial_ms: f.int("initial_ms", default.initial_ms as i64, 1..=3_600_000) as u64,
                max_ms: f.int("max_ms", default.max_ms as i64, 1..=3_600_000) as u64,
                jitter: f.number("jitter", default.jitter, 0.0..=1.0),
                max_attempts: f.int("max_attempts", default.max_attempts.into(), 0..=1_000_000) as u32,
            };
            if policy.max_ms < policy.initial_ms {
                let message =
                    format!("`max_ms` {} is below `initial_ms` {}", policy.max_ms, policy.initial_ms);
                f.error("max_ms", FindingClass::Conflict, message, None);
            }
            policy
        });
        parsed.unwrap_or(default)
    }

    /// The pause before attempt `attempt` (the first retry is 1); `random` in 0..1 places it within the jitter.
    pub fn pause(&self, attempt: u32, random: f64) -> Duration {
        let doubled = self.initial_ms.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        let base = doubled.min(self.max_ms) as f64;
        let factor = 1.0 - self.jitter + 2.0 * self.jitter * random;
        Duration::from_micros((base * factor * 1000.0) as u64)
    }

    /// Whether another attempt is allowed after `failed` ones.
    pub fn allows_another(&self, failed: u32) -> bool {
        self.max_attempts == 0 || failed < self.max_attempts
    }
}

/// How much a finding of a check matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works, with a loss or a risk that the evidence names.
    Warning,
    /// Cannot work.
    Error,
}

/// One finding of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What was seen.
    pub evidence: String,
    /// The exact statement or setting that mends it.
    pub remedy: Option<String>,
}

/// What a plan's check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order looked at.
    pub checks: Vec<Check>,
}

impl Report {
    /// Adds a finding.
    pub fn add(
        &mut self,
        name: &'static str,
        severity: Severity,
        evidence: impl Into<String>,
        remedy: Option<String>,
    ) {
        self.checks.push(Check { name, severity, evidence: evidence.into(), remedy });
    }

    /// Findings that are not `Ok`.
    pub fn problems(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|c| c.severity > Severity::Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            ("1", Some(1)),
            ("4 KiB", Some(4096)),
            ("1MB", Some(1_000_000)),
            ("1 mib", None),
            ("", None),
            ("-1", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }

    #[test]
    fn sizes_for_messages() {
        let shown = [0, 1000, 1024, 4 << 20, 3 << 30, 1 << 40].map(size_text);
        assert_eq!(shown, ["0 bytes", "1000 bytes", "1KiB", "4MiB", "3GiB", "1024GiB"]);
    }

    #[test]
    fn pauses_double_up_to_the_cap_within_the_jitter() {
        let policy = RetryPolicy { initial_ms: 100, max_ms: 1000, jitter: 0.5, max_attempts: 3 };
        let pause = |attempt, random| policy.pause(attempt, random).as_millis();
        assert_eq!([pause(1, 0.5), pause(2, 0.5), pause(9, 0.5)], [100, 200, 1000]);
        assert_eq!([pause(1, 0.0), pause(1, 1.0)], [50, 150]);
        assert!(policy.allows_another(2) && !policy.allows_another(3));
        assert!(RetryPolicy::SOURCE.allows_another(u32::MAX));
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{0:?} {0}", Secret::new("hunter2")), "*** ***");
    }
}
