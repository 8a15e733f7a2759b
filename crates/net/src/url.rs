//! URLs of servers: `scheme://user:password@host:port,host:port/path?key=value`.
//!
//! Several hosts are usual among database URLs and unknown to the general standard, so this is a parser of its own. No error
//! holds any part of the user information.

use crate::address::Address;
use deltaforge_core::config::Secret;

/// A parsed URL; every part is percent-decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Lower case.
    pub scheme: String,
    /// Before the colon of the user information; `None` when absent or empty.
    pub user: Option<String>,
    /// After it.
    pub password: Option<Secret>,
    /// At least one unless the text names none.
    pub hosts: Vec<Address>,
    /// Without the first slash.
    pub path: String,
    /// In the order written.
    pub query: Vec<(String, String)>,
}

impl Url {
    /// Parses a URL; a host without a port gets `default_port`.
    ///
    /// # Errors
    /// One sentence saying what is wrong; it never holds user or password.
    pub fn parse(text: &str, default_port: u16) -> Result<Url, String> {
        let (scheme, rest) = text.split_once("://").ok_or("expected `scheme://…`")?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        if !is_scheme {
            return Err("what stands before `://` is no scheme".into());
        }
        if rest.contains('#') {
            return Err("`#` must be written as `%23`".into());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if query.contains('@') && !rest.contains('@') {
            return Err("`?` in a user or password is written `%3F`".into());
        }
        // The last `@` ends the user information, as a password may hold one unescaped.
        let authority_end = match rest.rfind('@') {
            Some(at) => at + rest[at..].find('/').unwrap_or(rest.len() - at),
            None => rest.find('/').unwrap_or(rest.len()),
        };
        let (authority, path) = rest.split_at(authority_end);
        let (user_info, hosts) = match authority.rsplit_once('@') {
            Some((user_info, hosts)) => (Some(user_info), hosts),
            None => (None, authority),
        };
        let hidden = |what: &'static str| {
            move |_| format!("the {what} has a `%` that is not followed by two hexadecimal digits")
        };
        let (mut user, mut password) = (None, None);
        if let Some(user_info) = user_info {
            let (name, secret) = match user_info.split_once(':') {
                Some((name, secret)) => (name, Some(secret)),
                None => (user_info, None),
            };
            user = (!name.is_empty()).then(|| decode(name)).transpose().map_err(hidden("user"))?;
            password = secret.map(|s| decode(s).map(Secret::new)).transpose().map_err(hidden("password"))?;
        }
        let hosts = match hosts {
            "" => Vec::new(),
            // The parser of addresses quotes what it refuses, and `scheme://user:password` without a host looks like one.
            hosts => hosts
                .split(',')
                .map(|host| Address::parse(host.trim(), default_port))
                .collect::<Result<_, _>>()
                .map_err(
                    |_| "expected `host:port` (or several, separated by commas) after the user information",
                )?,
        };
        let path = decode(path.strip_prefix('/').unwrap_or(path))?;
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or("expected `key=value` after `?`")?;
            pairs.push((decode(key)?, decode(value)?));
        }
        Ok(Url { scheme: scheme.to_ascii_lowercase(), user, password, hosts, path, query: pairs })
    }

    /// The URL without its password and query, to show to people.
    pub fn shown(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(ToString::to_string).collect();
        let user = match (&self.user, &self.password) {
            (None, None) => String::new(),
            (user, None) => format!("{}@", user.as_deref().unwrap_or("")),
            (user, Some(_)) => format!("{}:***@", user.as_deref().unwrap_or("")),
        };
        let path = if self.path.is_empty() { String::new() } else { format!("/{}", self.path) };
        format!("{}://{user}{}{path}", self.scheme, hosts.join(","))
    }
}

/// Decodes `%41`; `+` stays a plus.
///
/// # Errors
/// A sentence when `%` is not followed by two hexadecimal digits, or the result is not UTF-8. It holds no part of the text.
pub fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |at: usize| after.get(at).and_then(|d| (*d as char).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(
                "a `%` is not followed by two hexadecimal digits (a plain `%` is written `%25`)".into()
            );
        };
        bytes.push((high * 16 + low) as u8);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| "the percent-encoded text is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part() {
        let url = Url::parse("REDISS://us%40er:p%2Fa:s@h1:1,[::1]:2,h3/4%20?a=b&c=%26", 9).unwrap();
        assert_eq!(url.scheme, "rediss");
        assert_eq!(url.user.as_deref(), Some("us@er"));
        assert_eq!(url.password.as_ref().map(Secret::expose), Some("p/a:s"));
        let hosts: Vec<String> = url.hosts.iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["h1:1", "[::1]:2", "h3:9"]);
        assert_eq!(url.path, "4 ");
        assert_eq!(url.query, [("a".to_string(), "b".to_string()), ("c".to_string(), "&".to_string())]);
        assert_eq!(url.shown(), "rediss://us@er:***@h1:1,[::1]:2,h3:9/4 ");
    }

    #[test]
    fn user_information_in_all_its_forms() {
        let parts = |text: &str| {
            let url = Url::parse(text, 9).unwrap();
            (url.user, url.password.map(|p| p.expose().to_string()), url.hosts[0].host.clone())
        };
        let some = |text: &str| Some(text.to_string());
        assert_eq!(parts("x://h"), (None, None, "h".into()));
        assert_eq!(parts("x://:p@h/0"), (None, some("p"), "h".into()));
        assert_eq!(parts("x://u@h"), (some("u"), None, "h".into()));
        assert_eq!(parts("x://u:a@b/c@h/1"), (some("u"), some("a@b/c"), "h".into()));
    }

    #[test]
    fn errors_say_what_but_no_secret() {
        for text in [
            "",
            "h:1",
            "1x://h",
            "x://h:99999",
            "x://u:hunter2%zz@h",
            "x://h?a",
            "x://h#hunter2",
            "x://u:hunter2@h:x/",
            "x://u:hunter2",
            "x://u:hunter2?x@h",
            "x://u:hunter2?x@h?@",
        ] {
            let error = Url::parse(text, 9).unwrap_err();
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }
}
