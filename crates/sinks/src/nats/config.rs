//! The settings of the NATS sink. No I/O.

use super::subject;
use crate::shared::common::{Common, required_template, template};
use deltaforge_core::config::{Fields, FindingClass, Secret, Tls, TlsMode};
use deltaforge_core::source::Names;
use deltaforge_encode::template::Template;
use deltaforge_net::address::Address;
use deltaforge_net::url::Url;
use std::time::Duration;

const PORT: u16 = 4222;

/// How the sink shows who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// Not at all.
    None,
    /// A user with a password.
    User(String, Secret),
    /// A token.
    Token(Secret),
    /// The seed of a user's key, which signs the server's nonce.
    NKey(Secret),
    /// A file with such a seed.
    NKeyFile(String),
    /// A file with a user's JWT and seed.
    Credentials(String),
}

/// A stream as `create_stream` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewStream {
    /// Empty: what the template of the subject can come to.
    pub(super) subjects: Vec<String>,
    pub(super) replicas: u32,
    pub(super) memory: bool,
    pub(super) max_age: Duration,
    pub(super) max_bytes: u64,
    pub(super) max_msgs: u64,
    pub(super) discard_new: bool,
    pub(super) duplicate_window: Duration,
}

/// A parsed `config`.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) common: Common,
    pub(super) servers: Vec<Address>,
    pub(super) tls: Tls,
    pub(super) tls_mode: TlsMode,
    pub(super) login: Login,
    pub(super) subject: Template,
    /// What every subject matches, and, where possible, nothing else.
    pub(super) subject_filter: String,
    /// `None`: core NATS.
    pub(super) stream: Option<String>,
    pub(super) create_stream: Option<NewStream>,
    /// `None`: the encoder's default.
    pub(super) key: Option<Template>,
    pub(super) headers: Vec<(String, Template)>,
    pub(super) exactly_once: bool,
    pub(super) send_timeout: Duration,
    pub(super) batch_timeout: Duration,
    pub(super) connect_timeout: Duration,
}

impl Settings {
    /// Reads `config`; `None` when a finding leaves nothing to go on with.
    pub(super) fn parse(
        fields: &mut Fields<'_>,
        names: &Names<'_>,
        required: Option<bool>,
    ) -> Option<Settings> {
        let common = Common::parse(fields, names, required);
        let url = fields.required_text("url").and_then(|text| ServerUrls::parse(fields, &text));
        let subject_text = fields.node("subject").and_then(|node| node.as_text()).unwrap_or("").to_owned();
        let subject_template = required_template(fields, "subject");
        let subject_filter = match subject::filter(&subject_text) {
            Ok(filter) => filter,
            Err(why) if subject_template.is_some() => {
                fields.form("subject", why, Some("tokens separated by dots: orders.${source.table}".into()));
                String::new()
            }
            Err(_) => String::new(),
        };
        let stream = stream_name(fields);
        let create_stream = fields.map("create_stream", new_stream);
        check_taken(fields, create_stream.as_ref(), &subject_filter);
        let key = template(fields, "key");
        let headers = headers(fields);
        let exactly_once = fields.bool("exactly_once", false);
        for (key, written) in [("create_stream", create_stream.is_some()), ("exactly_once", exactly_once)] {
            if written && stream.is_none() {
                let message = format!("`{key}` needs JetStream, and no stream is named");
                fields.error(key, FindingClass::Conflict, message, Some("add `stream: NAME`".into()));
            }
        }
        let mut secs = |key, default| Duration::from_secs(fields.int(key, default, 1..=3600) as u64);
        let send_timeout = secs("send_timeout_secs", 5);
        let batch_timeout = secs("batch_timeout_secs", 30);
        let connect_timeout = secs("connect_timeout_secs", 10);
        let tls = Tls::parse(fields, false);
        let written = login(fields);
        let ServerUrls { servers, login: within, encrypted } = url?;
        let login = match (written, within) {
            (Login::None, within) => within,
            (written, Login::None) => written,
            (written, _) => {
                let message = "`url` holds a user or token, and there is another login beside it";
                fields.error("url", FindingClass::Conflict, message, Some("write it once".into()));
                written
            }
        };
        let tls_mode = tls_mode(fields, &tls, encrypted);
        Some(Settings {
            common,
            servers,
            tls,
            tls_mode,
            login,
            subject: subject_template?,
            subject_filter,
            stream,
            create_stream,
            key,
            headers,
            exactly_once,
            send_timeout,
            batch_timeout,
            connect_timeout,
        })
    }
}

fn stream_name(fields: &mut Fields<'_>) -> Option<String> {
    let name = fields.text("stream")?;
    let bad = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
    if name.is_empty() || name.contains(bad) {
        let hint = Some("letters, digits, `-` and `_` are safe".to_owned());
        fields.form(
            "stream",
            "a stream's name has no blank, `.`, `*`, `>`, `/`, `\\`, and is not empty",
            hint,
        );
    }
    Some(name)
}

/// A stream that takes nothing of ours must not be made.
fn check_taken(fields: &mut Fields<'_>, new: Option<&NewStream>, filter: &str) {
    let Some(new) = new.filter(|new| !new.subjects.is_empty() && !filter.is_empty()) else { return };
    let wrong = new.subjects.iter().any(|taken| subject::check_pattern(taken).is_err());
    if !wrong && !new.subjects.iter().any(|taken| subject::takes(taken, filter, false)) {
        let message = format!("`create_stream.subjects` take none of the subjects `{filter}`");
        fields.error(
            "create_stream",
            FindingClass::Conflict,
            message,
            Some("leave `subjects` out, or add it".into()),
        );
    }
}

fn new_stream(f: &mut Fields<'_>) -> NewStream {
    let subjects = f.texts("subjects").unwrap_or_default();
    if let Some(why) = subjects.iter().find_map(|taken| subject::check_pattern(taken).err()) {
        f.form(
            "subjects",
            why,
            Some("tokens separated by dots, `*` for one, `>` for the rest: orders.>".into()),
        );
    }
    let replicas = f.int("replicas", 1, 1..=5) as u32;
    let memory = f.choice("storage", &["file", "memory"], &[], "file") == "memory";
    let max_age = Duration::from_secs(f.int("max_age_secs", 0, 0..=i64::from(u32::MAX)) as u64);
    let max_bytes = f.size("max_bytes", 0, 0..=i64::MAX as u64);
    let max_msgs = f.int("max_msgs", 0, 0..=i64::MAX) as u64;
    let discard_new = f.choice("discard", &["old", "new"], &[], "old") == "new";
    let window = f.int("duplicate_window_secs", 120, 1..=i64::from(u32::MAX)) as u64;
    let duplicate_window = Duration::from_secs(window);
    if !max_age.is_zero() && duplicate_window > max_age {
        let message = "`duplicate_window_secs` is longer than `max_age_secs`, which the server refuses";
        f.error("duplicate_window_secs", FindingClass::Conflict, message, Some("shorten it".into()));
    }
    NewStream { subjects, replicas, memory, max_age, max_bytes, max_msgs, discard_new, duplicate_window }
}

/// Headers are sent as text lines, so a name must not end the line or the name.
fn headers(fields: &mut Fields<'_>) -> Vec<(String, Template)> {
    let mut headers = Vec::new();
    for (name, text) in fields.text_map("headers") {
        let ours = ["nats-", "df-"].iter().any(|ours| name.to_ascii_lowercase().starts_with(ours));
        if ours || name.eq_ignore_ascii_case("content-type") {
            let message = format!("the header `{name}` is written by the server or by this sink");
            fields.error("headers", FindingClass::Conflict, message, Some("choose another name".into()));
        } else if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
            fields.form("headers", "a header's name is made of visible ASCII characters but `:`", None);
        } else {
            match Template::parse(&text) {
                Ok(template) => headers.push((name, template)),
                Err(why) => fields.form("headers", format!("{name}: {why}"), None),
            }
        }
    }
    headers
}

fn login(fields: &mut Fields<'_>) -> Login {
    let user = fields.text("username");
    let password = fields.secret("password");
    let token = fields.secret("token");
    let seed = fields.secret("nkey");
    let seed_file = fields.text("nkey_file");
    let credentials = fields.text("credentials_file");
    let mut found: Vec<(&'static str, Login)> = Vec::new();
    match (user, password) {
        (Some(user), Some(password)) => found.push(("username", Login::User(user, password))),
        (None, None) => {}
        (user, _) => {
            let (written, other) =
                if user.is_some() { ("username", "password") } else { ("password", "username") };
            let message = format!("`{written}` and `{other}` are given together or not at all");
            fields.error(written, FindingClass::Conflict, message, Some(format!("add `{other}`")));
        }
    }
    found.extend(token.map(|token| ("token", Login::Token(token))));
    if let Some(seed) = seed {
        if nkeys::KeyPair::from_seed(seed.expose().trim()).is_err() {
            fields.form("nkey", "this is no seed of a user's key (`SU…`, 58 characters)", None);
        }
        found.push(("nkey", Login::NKey(seed)));
    }
    found.extend(seed_file.map(|file| ("nkey_file", Login::NKeyFile(file))));
    found.extend(credentials.map(|file| ("credentials_file", Login::Credentials(file))));
    if let [(first, _), (second, _), ..] = found.as_slice() {
        let message = format!("`{first}` and `{second}` are two ways to log in");
        fields.error(second, FindingClass::Conflict, message, Some("keep one of them".into()));
    }
    found.into_iter().next().map_or(Login::None, |(_, login)| login)
}

fn tls_mode(fields: &mut Fields<'_>, tls: &Tls, encrypted: bool) -> TlsMode {
    let default = if encrypted || tls.ca_file.is_some() { TlsMode::VerifyFull } else { TlsMode::Disable };
    let mode = tls.mode.unwrap_or(default);
    if mode == TlsMode::Disable && (encrypted || tls.cert_file.is_some()) {
        let (what, how) = if encrypted {
            let path = fields.path_of("url");
            (
                format!("`mode: disable` contradicts `tls://` in `{path}`"),
                "write nats://, or choose another mode",
            )
        } else {
            ("a client certificate has no use without encryption".into(), "set tls.mode, or write tls://")
        };
        fields.error("tls", FindingClass::Conflict, what, Some(how.into()));
    }
    mode
}

struct ServerUrls {
    servers: Vec<Address>,
    login: Login,
    encrypted: bool,
}

impl ServerUrls {
    /// `nats://a:4222,nats://b` or `nats://a,b`. Findings never hold the text, as it may hold a password.
    fn parse(fields: &mut Fields<'_>, text: &str) -> Option<ServerUrls> {
        let hint = || Some("nats://HOST:4222 or tls://HOST:4222, several separated by commas".to_owned());
        let mut urls = ServerUrls { servers: Vec::new(), login: Login::None, encrypted: false };
        // A comma may also separate hosts of one URL: only one before a scheme begins another URL.
        let mut parts: Vec<String> = Vec::new();
        for part in text.split(',').map(str::trim) {
            match parts.last_mut() {
                Some(last) if !part.contains("://") => {
                    last.push(',');
                    last.push_str(part);
                }
                _ => parts.push(part.to_owned()),
            }
        }
        for part in parts {
            let url = match Url::parse(&part, PORT) {
                Ok(url) => url,
                Err(why) => {
                    fields.form("url", why, hint());
                    return None;
                }
            };
            match url.scheme.as_str() {
                "nats" => {}
                "tls" => urls.encrypted = true,
                scheme => {
                    fields.form("url", format!("`{scheme}://` is not a scheme of NATS"), hint());
                    return None;
                }
            }
            if !url.path.is_empty() || !url.query.is_empty() || url.hosts.is_empty() {
                fields.form("url", "expected hosts and ports after the scheme, and nothing else", hint());
                return None;
            }
            urls.servers.extend(url.hosts);
            urls.login = match (url.user, url.password) {
                (Some(user), Some(password)) => Login::User(user, password),
                // As every client of NATS reads it: a user alone is a token.
                (Some(token), None) => Login::Token(Secret::new(token)),
                _ => continue,
            };
        }
        Some(urls)
    }
}
