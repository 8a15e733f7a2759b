//! The settings of the HTTP sink. No I/O.

use crate::shared::common::{Common, template};
use base64::Engine;
use deltaforge_core::config::{Fields, FindingClass, Secret, Tls, TlsMode};
use deltaforge_core::source::Names;
use deltaforge_encode::template::Template;
use deltaforge_net::address::Address;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use std::time::Duration;

/// Headers that this sink writes itself.
const OURS: [&str; 4] = ["content-type", "idempotency-key", "df-key", "df-old-key"];
/// Headers that belong to the connection, not to the request.
const OF_THE_CONNECTION: [&str; 8] =
    ["connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"];

/// A parsed `config`.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) common: Common,
    pub(super) target: Target,
    pub(super) method: Method,
    /// Headers that are the same on every request; those that may be secrets are marked so.
    pub(super) constant: HeaderMap,
    /// Headers that are filled from each event.
    pub(super) filled: Vec<(HeaderName, Template)>,
    /// `None`: the encoder's default.
    pub(super) key: Option<Template>,
    pub(super) batch_mode: bool,
    pub(super) send_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) tls: Tls,
    pub(super) tls_mode: TlsMode,
    pub(super) signature: Option<Signature>,
}

/// Where requests go.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) template: Template,
    /// The server: no event chooses another one.
    pub(super) address: Address,
    /// The whole URL, when it is the same for every event. Without user information.
    pub(super) constant: Option<Url>,
}

/// `signature`.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    pub(super) secret: Secret,
    pub(super) header: HeaderName,
    /// `<header>-timestamp`.
    pub(super) timestamp: HeaderName,
}

impl Settings {
    /// Reads `config`; `None` when a finding leaves nothing to go on with.
    pub(super) fn parse(
        fields: &mut Fields<'_>,
        names: &Names<'_>,
        required: Option<bool>,
    ) -> Option<Settings> {
        let common = Common::parse(fields, names, required);
        let target = fields.required_text("url").and_then(|text| url(fields, &text));
        let method = match fields.choice("method", &["POST", "PUT", "PATCH"], &[], "POST") {
            "PUT" => Method::PUT,
            "PATCH" => Method::PATCH,
            _ => Method::POST,
        };
        let key = template(fields, "key");
        let batch_mode = fields.bool("batch_mode", false);
        if batch_mode && key.is_some() {
            let message = "`key` has no use with `batch_mode: true`: a request of many events has no key";
            fields.error("key", FindingClass::Conflict, message, Some("remove one of the two".into()));
        }
        let mut secs = |key, default| Duration::from_secs(fields.int(key, default, 1..=3600) as u64);
        let send_timeout = secs("send_timeout_secs", 10);
        let connect_timeout = secs("connect_timeout_secs", 5);
        let tls = Tls::parse(fields, false);
        let signature = fields.map("signature", signature).flatten();
        let (mut constant, filled) = headers(fields, signature.as_ref());
        let (target, encrypted, authorization) = target?;
        let tls_mode = tls_mode(fields, &tls, encrypted);
        if let Some(authorization) = authorization {
            if signature.as_ref().is_some_and(|s| s.header == header::AUTHORIZATION) {
                let message = "`signature.header: authorization` contradicts the user and password in `url`";
                fields.error(
                    "signature",
                    FindingClass::Conflict,
                    message,
                    Some("choose another name".into()),
                );
            }
            let given = filled.iter().any(|(name, _)| *name == header::AUTHORIZATION);
            if given || constant.contains_key(header::AUTHORIZATION) {
                let message = "`authorization` contradicts the user and password in `url`";
                fields.error("headers", FindingClass::Conflict, message, Some("write one of them".into()));
            }
            constant.insert(header::AUTHORIZATION, authorization);
        }
        Some(Settings {
            common,
            target,
            method,
            constant,
            filled,
            key,
            batch_mode,
            send_timeout,
            connect_timeout,
            tls,
            tls_mode,
            signature,
        })
    }
}

/// The target, whether it is encrypted, and what `user:password@` comes to. Findings never hold the text.
fn url(fields: &mut Fields<'_>, text: &str) -> Option<(Target, bool, Option<HeaderValue>)> {
    let mut wrong = |what: String| {
        fields.form("url", what, Some("https://HOST/PATH, where PATH may hold `${source.table}`".into()));
        None
    };
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(why) => return wrong(why),
    };
    // Not cut at the first `${` of the text: `$${` is a plain one.
    let literal = template.constant_prefix().unwrap_or_default();
    let after_scheme = literal.find("://").map_or(literal.len(), |at| at + 3);
    // What an event fills in must not choose the server: a row could send the stream to any host.
    if template.is_constant().is_none() && !literal[after_scheme..].contains(['/', '?']) {
        return wrong("the host must be written out: only what follows its `/` may be filled in".into());
    }
    if text.contains('#') {
        return wrong("`#` must be written as `%23`".into());
    }
    if template.is_constant().is_none() && has_dot_segment(text.as_bytes()) {
        return wrong("`.` and `..` are no parts of a path that is filled in".into());
    }
    let Ok(mut url) = Url::parse(literal) else {
        return wrong("expected `http://` or `https://`, a host and a path".into());
    };
    let encrypted = match url.scheme() {
        "https" => true,
        "http" => false,
        scheme => return wrong(format!("`{scheme}://` is not a scheme of this sink")),
    };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return wrong("the host is missing".into());
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = Address { host: host.to_owned(), port };
    let user = deltaforge_net::url::decode(url.username());
    let password = deltaforge_net::url::decode(url.password().unwrap_or_default());
    let (Ok(user), Ok(password)) = (user, password) else {
        return wrong("user or password are not percent-encoded UTF-8".into());
    };
    let authorization = (!user.is_empty() || !password.is_empty()).then(|| {
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    });
    without_user(&mut url);
    let constant = template.is_constant().is_some().then_some(url);
    Some((Target { template, address, constant }, encrypted, authorization.flatten()))
}

/// Whether a part of the URL's path is `.` or `..`, however it is written: such a part, and the one before it, would vanish.
pub(super) fn has_dot_segment(url: &[u8]) -> bool {
    let end = url.iter().position(|byte| *byte == b'?').unwrap_or(url.len());
    url[..end].split(|byte| matches!(byte, b'/' | b'\\')).any(|part| {
        let (mut rest, mut dots) = (part, 0);
        while !rest.is_empty() {
            rest = match rest {
                [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
                _ => return false,
            };
            dots += 1;
        }
        matches!(dots, 1 | 2)
    })
}

/// A URL must not carry what is sent as a header, if only because it may be shown.
pub(super) fn without_user(url: &mut Url) {
    // Fails only for URLs that have no host.
    let _ = (url.set_username(""), url.set_password(None));
}

fn headers(
    fields: &mut Fields<'_>,
    signature: Option<&Signature>,
) -> (HeaderMap, Vec<(HeaderName, Template)>) {
    let (mut constant, mut filled) = (HeaderMap::new(), Vec::new());
    for (written, text) in fields.text_map("headers") {
        let mut wrong =
            |class, what: String, hint: Option<String>| fields.error("headers", class, what, hint);
        let Ok(name) = HeaderName::try_from(written.as_str()) else {
            let what = format!("`{}` is not a name of a header", written.escape_debug());
            wrong(FindingClass::Form, what, None);
            continue;
        };
        let signs = signature.is_some_and(|s| s.header == name || s.timestamp == name);
        if OURS.contains(&name.as_str()) || OF_THE_CONNECTION.contains(&name.as_str()) || signs {
            let what = format!("`{name}` is a header that the sink writes itself");
            wrong(FindingClass::Conflict, what, Some("remove it".into()));
            continue;
        }
        if constant.contains_key(&name) || filled.iter().any(|(known, _)| *known == name) {
            wrong(FindingClass::Conflict, format!("`{name}` stands there twice"), None);
            continue;
        }
        let template = match Template::parse(&text) {
            Ok(template) => template,
            Err(why) => {
                wrong(FindingClass::Form, format!("`{name}`: {why}"), None);
                continue;
            }
        };
        match template.is_constant().map(HeaderValue::from_str) {
            None => filled.push((name, template)),
            Some(Ok(mut value)) => {
                // Whatever it is called, it may be a credential.
                value.set_sensitive(true);
                constant.insert(name, value);
            }
            Some(Err(_)) => {
                let what = format!("the value of `{name}` holds a line break or another control character");
                wrong(FindingClass::Form, what, None);
            }
        }
    }
    (constant, filled)
}

fn signature(fields: &mut Fields<'_>) -> Option<Signature> {
    let secret = if fields.has("secret") {
        fields.secret("secret")
    } else {
        fields.required_text("secret").map(Secret::new)
    };
    if secret.as_ref().is_some_and(|secret| secret.expose().is_empty()) {
        fields.form("secret", "expected a text, found an empty one", None);
    }
    fields.choice("algorithm", &["sha256"], &[], "sha256");
    if !fields.has("header") {
        fields.default("header", "x-deltaforge-signature");
    }
    let name = fields.text("header").unwrap_or_else(|| "x-deltaforge-signature".into());
    let header = HeaderName::try_from(name.as_str()).ok();
    let timestamp = HeaderName::try_from(format!("{name}-timestamp")).ok();
    let (Some(header), Some(timestamp)) = (header, timestamp) else {
        fields.form("header", "expected the name of a header", None);
        return None;
    };
    if let Some(taken) = [&header, &timestamp]
        .into_iter()
        .find(|name| OURS.contains(&name.as_str()) || OF_THE_CONNECTION.contains(&name.as_str()))
    {
        let message = format!("`{taken}` is a header that the sink or the connection writes itself");
        fields.error("header", FindingClass::Conflict, message, Some("choose another name".into()));
        return None;
    }
    Some(Signature { secret: secret?, header, timestamp })
}

fn tls_mode(fields: &mut Fields<'_>, tls: &Tls, encrypted: bool) -> TlsMode {
    let conflict = |fields: &mut Fields<'_>, message: &str, hint: &str| {
        fields.error("tls", FindingClass::Conflict, message, Some(hint.into()));
    };
    match (encrypted, tls.mode) {
        (true, Some(TlsMode::Disable)) => {
            conflict(
                fields,
                "`mode: disable` contradicts `https://`",
                "write http://, or choose another mode",
            );
            TlsMode::Disable
        }
        (true, mode) => mode.unwrap_or(TlsMode::VerifyFull),
        (false, mode) => {
            let asked = mode.is_some_and(|mode| mode != TlsMode::Disable);
            if asked || tls.ca_file.is_some() || tls.cert_file.is_some() {
                conflict(fields, "`tls` contradicts `http://`", "write https://");
            }
            TlsMode::Disable
        }
    }
}
