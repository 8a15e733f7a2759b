//! The settings of the Redis sink. No I/O.

use super::exact::hash_tag;
use crate::shared::common::{Common, required_template, template};
use deltaforge_core::config::{Fields, FindingClass, Secret, Tls, TlsMode};
use deltaforge_core::source::Names;
use deltaforge_encode::template::Template;
use deltaforge_net::address::Address;
use deltaforge_net::url::Url;
use std::time::Duration;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Which servers there are and how the one to write to is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    /// `redis://`, `rediss://`: that one.
    Single(Address),
    /// `redis-sentinel://`: the one that the first sentinel that answers names.
    Sentinel { sentinels: Vec<Address>, master: String },
    /// `redis-cluster://`: the one that serves the stream's slot.
    Cluster(Vec<Address>),
}

/// A parsed `config`.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) common: Common,
    pub(super) topology: Topology,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) database: u32,
    pub(super) tls: Tls,
    pub(super) tls_mode: TlsMode,
    pub(super) stream: Template,
    /// `None`: the encoder's default.
    pub(super) key: Option<Template>,
    pub(super) field: String,
    /// 0: never trim.
    pub(super) maxlen: u64,
    pub(super) exactly_once: bool,
    pub(super) send_timeout: Duration,
    pub(super) batch_timeout: Duration,
    pub(super) connect_timeout: Duration,
}

impl Settings {
    /// Whether the servers share the slots.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster(_))
    }

    /// Reads `config`; `None` when a finding leaves nothing to go on with.
    pub(super) fn parse(
        fields: &mut Fields<'_>,
        names: &Names<'_>,
        required: Option<bool>,
    ) -> Option<Settings> {
        let common = Common::parse(fields, names, required);
        let uri = fields.required_text("uri").and_then(|text| Uri::parse(fields, &text));
        let stream = required_template(fields, "stream");
        let key = template(fields, "key");
        let field = field(fields);
        let maxlen = fields.int("maxlen", 0, 0..=i64::MAX) as u64;
        let exactly_once = fields.bool("exactly_once", false);
        let mut secs = |key, default| Duration::from_secs(fields.int(key, default, 1..=3600) as u64);
        let send_timeout = secs("send_timeout_secs", 5);
        let batch_timeout = secs("batch_timeout_secs", 30);
        let connect_timeout = secs("connect_timeout_secs", 10);
        let tls = Tls::parse(fields, false);
        let Uri { topology, user, password, database, encrypted } = uri?;
        let tls_mode = tls_mode(fields, &tls, encrypted);
        if let (true, Topology::Cluster(_), Some(stream)) = (exactly_once, &topology, &stream)
            && hash_tag(stream).is_none()
        {
            let message = "a transaction of a cluster has one slot, and these streams may lie in several";
            let hint = "begin `stream` with a constant hash tag: `{shop}:${source.table}`";
            fields.error("exactly_once", FindingClass::Conflict, message, Some(hint.into()));
        }
        Some(Settings {
            common,
            topology,
            user,
            password,
            database,
            tls,
            tls_mode,
            stream: stream?,
            key,
            field,
            maxlen,
            exactly_once,
            send_timeout,
            batch_timeout,
            connect_timeout,
        })
    }
}

fn field(fields: &mut Fields<'_>) -> String {
    if !fields.has("field") {
        fields.default("field", "df-event");
    }
    let field = fields.text("field").unwrap_or_else(|| "df-event".into());
    match field.as_str() {
        "" => fields.form("field", "expected a name, found an empty text", None),
        "event_id" | "df-key" | "df-old-key" => {
            let message = format!("`{field}` is the name of another field of each entry");
            fields.error("field", FindingClass::Conflict, message, Some("choose another name".into()));
        }
        _ => {}
    }
    field
}

fn tls_mode(fields: &mut Fields<'_>, tls: &Tls, encrypted: bool) -> TlsMode {
    let default = if encrypted || tls.ca_file.is_some() { TlsMode::VerifyFull } else { TlsMode::Disable };
    let mode = tls.mode.unwrap_or(default);
    if encrypted && mode == TlsMode::Disable {
        let message = format!("`mode: disable` contradicts `rediss://` in `{}`", fields.path_of("uri"));
        fields.error(
            "tls",
            FindingClass::Conflict,
            message,
            Some("write redis://, or choose another mode".into()),
        );
    }
    if mode == TlsMode::Disable && tls.cert_file.is_some() {
        let message = "a client certificate has no use without encryption";
        fields.error("tls", FindingClass::Conflict, message, Some("set tls.mode, or write rediss://".into()));
    }
    mode
}

struct Uri {
    topology: Topology,
    user: Option<String>,
    password: Option<Secret>,
    database: u32,
    encrypted: bool,
}

impl Uri {
    /// Findings never hold the text, as it may hold a password.
    fn parse(fields: &mut Fields<'_>, text: &str) -> Option<Uri> {
        let hint = || {
            Some("redis://HOST:PORT, rediss://…, redis-cluster://HOST:PORT,HOST:PORT or redis-sentinel://HOST:PORT?master=NAME".to_owned())
        };
        let sentinel = text.get(..17).is_some_and(|scheme| scheme.eq_ignore_ascii_case("redis-sentinel://"));
        let url = match Url::parse(text, if sentinel { SENTINEL_PORT } else { PORT }) {
            Ok(url) => url,
            Err(why) => {
                fields.form("uri", why, hint());
                return None;
            }
        };
        let mut wrong = |what: String| fields.form("uri", what, hint());
        let database = match url.path.as_str() {
            "" => 0,
            path => path.parse().unwrap_or_else(|_| {
                wrong("expected a database number after the `/`".into());
                0
            }),
        };
        let mut master = None;
        for (name, value) in url.query {
            match name.as_str() {
                "master" if sentinel && !value.is_empty() => master = Some(value),
                _ => wrong(format!("`{name}` is not a parameter of {}://", url.scheme)),
            }
        }
        let Some(first) = url.hosts.first().cloned() else {
            wrong("the host is missing".into());
            return None;
        };
        let topology = match url.scheme.as_str() {
            "redis" | "rediss" => {
                if url.hosts.len() > 1 {
                    wrong(format!("{}:// takes one host", url.scheme));
                }
                Topology::Single(first)
            }
            "redis-cluster" => {
                if database != 0 {
                    wrong("a cluster has only database 0".into());
                }
                Topology::Cluster(url.hosts)
            }
            "redis-sentinel" => match master {
                Some(master) => Topology::Sentinel { sentinels: url.hosts, master },
                None => {
                    wrong("`master` is missing: the name under which the sentinels know it".into());
                    return None;
                }
            },
            scheme => {
                wrong(format!("`{scheme}://` is not a scheme of Redis"));
                return None;
            }
        };
        let encrypted = url.scheme == "rediss";
        Some(Uri { topology, user: url.user, password: url.password, database, encrypted })
    }
}
