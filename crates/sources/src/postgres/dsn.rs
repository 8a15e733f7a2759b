//! Connection strings: `postgres://…` URLs and libpq's `key=value` words (manual, "Connection Strings").

use deltaforge_core::config::{Secret, TlsMode};

/// Where and as whom to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dsn {
    /// Host names, addresses or socket directories, with ports; tried in order.
    pub(super) hosts: Vec<(String, u16)>,
    pub(super) user: String,
    pub(super) password: Option<Secret>,
    pub(super) database: String,
    pub(super) application_name: Option<String>,
    pub(super) connect_timeout_secs: Option<u64>,
    /// `sslmode`, if written.
    pub(super) tls_mode: Option<TlsMode>,
    pub(super) ca_file: Option<String>,
    pub(super) cert_file: Option<String>,
    pub(super) key_file: Option<String>,
}

#[derive(Default)]
struct Words {
    host: Option<String>,
    port: Option<String>,
    user: Option<String>,
    password: Option<String>,
    dbname: Option<String>,
    application_name: Option<String>,
    connect_timeout: Option<u64>,
    tls_mode: Option<TlsMode>,
    ca_file: Option<String>,
    cert_file: Option<String>,
    key_file: Option<String>,
}

impl Dsn {
    /// Parses either form.
    ///
    /// # Errors
    /// A sentence that says what is wrong and never holds the password.
    pub(super) fn parse(text: &str) -> Result<Dsn, String> {
        let text = text.trim();
        let url = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let words = match url {
            Some(rest) => parse_url(rest)?,
            None if text.split_once("://").is_some_and(|(scheme, _)| !scheme.contains(['=', ' '])) => {
                return Err("expected `postgres://…`, `postgresql://…` or `key=value` words".into());
            }
            None => parse_words(text)?,
        };
        words.into_dsn()
    }
}

impl Words {
    fn set(&mut self, key: &str, value: String) -> Result<(), String> {
        match key {
            "host" | "hostaddr" => self.host = Some(value),
            "port" => self.port = Some(value),
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "dbname" => self.dbname = Some(value),
            "application_name" => self.application_name = Some(value),
            "connect_timeout" => {
                let seconds =
                    value.parse().map_err(|_| format!("`connect_timeout` is not a number: `{value}`"))?;
                self.connect_timeout = Some(seconds).filter(|s| *s > 0);
            }
            "sslmode" => {
                // libpq's `allow` means: plain first. We offer TLS first, which is `prefer`.
                let word = if value == "allow" { "prefer" } else { &value };
                let known = "disable, allow, prefer, require, verify-ca, verify-full";
                self.tls_mode =
                    Some(TlsMode::parse(word).ok_or(format!("unknown `sslmode` `{value}`; one of {known}"))?);
            }
            "sslrootcert" if value == "system" => {}
            "sslrootcert" => self.ca_file = Some(value),
            "sslcert" => self.cert_file = Some(value),
            "sslkey" => self.key_file = Some(value),
            "replication" if matches!(value.as_str(), "database" | "true" | "on" | "yes" | "1") => {}
            "replication" => return Err(format!("`replication` can only be `database`, not `{value}`")),
            "client_encoding" if matches!(value.to_ascii_lowercase().as_str(), "utf8" | "utf-8" | "auto") => {
            }
            "gssencmode"
            | "target_session_attrs"
            | "fallback_application_name"
            | "channel_binding"
            | "client_encoding"
            | "options" => {
                return Err(format!("`{key}` cannot be set: DeltaForge pins what it depends on; remove it"));
            }
            other => return Err(format!("unknown parameter `{other}`")),
        }
        Ok(())
    }

    fn into_dsn(self) -> Result<Dsn, String> {
        let hosts: Vec<String> = match self.host.as_deref() {
            None | Some("") => vec!["localhost".into()],
            Some(list) => list.split(',').map(Into::into).collect(),
        };
        let ports: Vec<u16> = match self.port.as_deref() {
            None | Some("") => vec![5432],
            Some(list) => list
                .split(',')
                .map(|p| p.parse().ok().filter(|p| *p > 0).ok_or(format!("`{p}` is not a port number")))
                .collect::<Result<_, _>>()?,
        };
        if ports.len() != 1 && ports.len() != hosts.len() {
            return Err(format!("{} hosts but {} ports", hosts.len(), ports.len()));
        }
        let port_of = |i: usize| if ports.len() == 1 { ports[0] } else { ports[i] };
        let user = self.user.filter(|u| !u.is_empty()).ok_or("no user: add `user@` or `user=`")?;
        let hosts = hosts.into_iter().enumerate().map(|(i, host)| (host, port_of(i))).collect();
        Ok(Dsn {
            hosts,
            database: self.dbname.filter(|d| !d.is_empty()).unwrap_or_else(|| user.clone()),
            user,
            password: self.password.map(Secret::new),
            application_name: self.application_name,
            connect_timeout_secs: self.connect_timeout,
            tls_mode: self.tls_mode,
            ca_file: self.ca_file,
            cert_file: self.cert_file,
            key_file: self.key_file,
        })
    }
}

fn parse_url(rest: &str) -> Result<Words, String> {
    let mut words = Words::default();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let hosts = match authority.rsplit_once('@') {
        Some((userinfo, hosts)) => {
            let (user, password) = match userinfo.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (userinfo, None),
            };
            words.user = Some(decode(user, "the user name")?);
            words.password = password.map(|p| decode(p, "the password")).transpose()?;
            hosts
        }
        None => authority,
    };
    if !hosts.is_empty() {
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for host in hosts.split(',') {
            let (name, port) = split_host(host)?;
            names.push(decode(name, "the host name")?);
            ports.push(if port.is_empty() { "5432".into() } else { port.to_string() });
        }
        words.host = Some(names.join(","));
        words.port = Some(ports.join(","));
    }
    if !path.is_empty() {
        words.dbname = Some(decode(path, "the database name")?);
    }
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| format!("the parameter `{pair}` has no value"))?;
        words.set(key, decode(value, key)?)?;
    }
    Ok(words)
}

/// `host`, `host:port`, `[::1]:port`.
fn split_host(host: &str) -> Result<(&str, &str), String> {
    if let Some(rest) = host.strip_prefix('[') {
        let (name, port) = rest.split_once(']').ok_or("an IPv6 address in `[` is not closed by `]`")?;
        return Ok((name, port.strip_prefix(':').unwrap_or(port)));
    }
    match host.split_once(':') {
        Some((_, port)) if port.contains(':') => {
            Err("write an IPv6 address in brackets: `[::1]:5432`".into())
        }
        Some(split) => Ok(split),
        None => Ok((host, "")),
    }
}

/// Percent-decoding. `what` names the part in errors, which never show it.
fn decode(text: &str, what: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let code = tail
            .get(..2)
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        bytes.push(code.ok_or(format!(
            "{what} holds a `%` that is not followed by two hexadecimal digits; write `%25`"
        ))?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8"))
}

fn parse_words(text: &str) -> Result<Words, String> {
    let mut words = Words::default();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(words);
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
            key.push(c);
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.next() != Some('=') {
            // What stands here may be a piece of a password: it is not shown.
            return Err("expected `key=value` words; a value with blanks stands in single quotes".into());
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if quoted => break,
                None if quoted => return Err(format!("the quote of `{key}` is not closed")),
                None => break,
                Some(c) if c.is_whitespace() && !quoted => break,
                Some(c) => value.push(c),
            }
        }
        words.set(&key, value)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let url = Dsn::parse(
            "postgres://al%40ice:p%3Aw@db1:6432,[::1]/shop?sslmode=verify-ca&sslrootcert=/ca.pem&connect_timeout=3",
        );
        let words = Dsn::parse(
            r"host=db1,::1 port=6432,5432 user='al@ice' password = 'p:w' dbname=shop sslmode=verify-ca sslrootcert=/ca.pem connect_timeout=3 replication=database",
        );
        let expected = Dsn {
            hosts: vec![("db1".into(), 6432), ("::1".into(), 5432)],
            user: "al@ice".into(),
            password: Some(Secret::new("p:w")),
            database: "shop".into(),
            application_name: None,
            connect_timeout_secs: Some(3),
            tls_mode: Some(TlsMode::VerifyCa),
            ca_file: Some("/ca.pem".into()),
            cert_file: None,
            key_file: None,
        };
        assert_eq!(url.as_ref(), Ok(&expected));
        assert_eq!(words.as_ref(), Ok(&expected));
    }

    #[test]
    fn defaults() {
        let dsn = Dsn::parse("postgresql://me@").expect("a DSN");
        assert_eq!(
            (dsn.hosts, dsn.database, dsn.password),
            (vec![("localhost".into(), 5432)], "me".into(), None)
        );
        let dsn = Dsn::parse(r"user=me host=/run/pg password='it\'s \\ x'").expect("a DSN");
        assert_eq!(dsn.password, Some(Secret::new(r"it's \ x")));
        assert_eq!(dsn.hosts, [("/run/pg".to_string(), 5432)]);
    }

    #[test]
    fn bad_ones_say_what_is_wrong_and_not_the_password() {
        let cases = [
            ("mysql://u:hunter2@h/db", "postgres://"),
            ("postgres://h/db", "no user"),
            ("postgres://u:hunter2@h:99999/db", "not a port"),
            ("postgres://u:hunter2@h:0/db", "not a port"),
            ("postgres://u:hunter2%@h/db", "the password holds a `%`"),
            ("postgres://u:hunter2@h/db?sslmode=maybe", "unknown `sslmode` `maybe`"),
            ("postgres://u:hunter2@h/db?wat=1", "unknown parameter `wat`"),
            ("postgres://u:hunter2@::1:5432/db", "brackets"),
            ("user=u password=hunter2 host", "key=value"),
            ("user=u password='hunter2", "not closed"),
            ("user=u password=hunter2 replication=physical", "can only be `database`"),
            ("user=u options=-cx=y", "cannot be set"),
            ("user=u host=a,b,c port=1,2", "3 hosts but 2 ports"),
        ];
        for (dsn, expected) in cases {
            let error = Dsn::parse(dsn).err().unwrap_or_default();
            assert!(error.contains(expected), "{dsn}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
