//! Connection strings: `mysql://user:password@host:port/database?name=value`; `mysqls://` wants TLS, `mariadb://` is another
//! word for `mysql://`.

use deltaforge_core::config::{Secret, TlsMode};
use deltaforge_net::address::Address;
use deltaforge_net::url::Url;

/// Port of both servers.
const PORT: u16 = 3306;

/// Where and as whom to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dsn {
    /// Host names or addresses with ports; tried in order.
    pub(super) hosts: Vec<Address>,
    /// The server's local socket, instead of the hosts.
    pub(super) socket: Option<String>,
    pub(super) user: String,
    pub(super) password: Option<Secret>,
    /// What a table pattern without a database means.
    pub(super) database: Option<String>,
    pub(super) connect_timeout_secs: Option<i64>,
    /// `mysqls://`.
    pub(super) wants_tls: bool,
    /// `ssl-mode`, if written.
    pub(super) tls_mode: Option<TlsMode>,
    pub(super) ca_file: Option<String>,
    pub(super) cert_file: Option<String>,
    pub(super) key_file: Option<String>,
}

impl Dsn {
    /// Parses a connection string.
    ///
    /// # Errors
    /// A sentence that says what is wrong and never holds the password.
    pub(super) fn parse(text: &str) -> Result<Dsn, String> {
        let url = Url::parse(text.trim(), PORT)?;
        let wants_tls = match url.scheme.as_str() {
            "mysql" | "mariadb" => false,
            "mysqls" => true,
            _ => return Err("expected `mysql://…`, `mysqls://…` or `mariadb://…`".into()),
        };
        let zero = |what: &str| format!("the {what} holds a zero byte");
        let user = url.user.ok_or("no user: add `user@`")?;
        if user.contains('\0') {
            return Err(zero("user"));
        }
        if url.password.as_ref().is_some_and(|p| p.expose().contains('\0')) {
            return Err(zero("password"));
        }
        if url.path.contains('/') {
            return Err("what follows the host is one database name; a `/` in it is written `%2F`".into());
        }
        let mut dsn = Dsn {
            hosts: url.hosts,
            socket: None,
            user,
            password: url.password,
            database: Some(url.path).filter(|path| !path.is_empty()),
            connect_timeout_secs: None,
            wants_tls,
            tls_mode: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
        };
        for (key, value) in url.query {
            dsn.set(&key, value)?;
        }
        dsn.finish()
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), String> {
        match key.to_ascii_lowercase().replace('_', "-").as_str() {
            "ssl-mode" | "sslmode" => self.tls_mode = Some(tls_mode(&value)?),
            "ssl-ca" | "sslca" | "sslrootcert" => self.ca_file = Some(value),
            "ssl-cert" | "sslcert" => self.cert_file = Some(value),
            "ssl-key" | "sslkey" => self.key_file = Some(value),
            "connect-timeout" => {
                let seconds = value.parse().ok().filter(|seconds| (1..=3600).contains(seconds));
                let expected = || format!("`{key}` is 1 to 3600 seconds, not `{value}`");
                self.connect_timeout_secs = Some(seconds.ok_or_else(expected)?);
            }
            "socket" | "unix-socket" if value.starts_with('/') => self.socket = Some(value),
            "socket" | "unix-socket" => return Err(format!("`{key}` is the whole path of a socket")),
            "charset" if matches!(value.to_ascii_lowercase().as_str(), "utf8mb4" | "utf8") => {}
            "charset" | "collation" | "time-zone" | "timezone" | "sql-mode" | "compress" | "compression"
            | "init-command" | "local-infile" | "allow-local-infile" => {
                return Err(format!("`{key}` cannot be set: DeltaForge pins what it depends on; remove it"));
            }
            _ => {
                let known = "ssl-mode, ssl-ca, ssl-cert, ssl-key, connect-timeout, socket";
                return Err(format!("unknown parameter `{key}`; known are {known}"));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Dsn, String> {
        match &self.socket {
            Some(_) if self.hosts.iter().any(|host| host.host != "localhost") => {
                return Err("a `socket` and a host: keep one of the two".into());
            }
            None if self.hosts.is_empty() => {
                self.hosts.push(Address { host: "localhost".into(), port: PORT })
            }
            _ => {}
        }
        if self.wants_tls && matches!(self.tls_mode, Some(TlsMode::Disable | TlsMode::Prefer)) {
            let mode = self.tls_mode.map_or("", TlsMode::as_str);
            return Err(format!("`mysqls://` wants TLS and `ssl-mode={mode}` does not"));
        }
        Ok(self)
    }
}

/// The words of MySQL's clients, and those of the `tls` block.
fn tls_mode(word: &str) -> Result<TlsMode, String> {
    let lower = word.to_ascii_lowercase().replace('_', "-");
    let mode = match lower.as_str() {
        "disabled" => Some(TlsMode::Disable),
        "preferred" => Some(TlsMode::Prefer),
        "required" => Some(TlsMode::Require),
        "verify-identity" => Some(TlsMode::VerifyFull),
        other => TlsMode::parse(other),
    };
    let known = "disabled, preferred, required, verify_ca, verify_identity";
    mode.ok_or_else(|| format!("unknown `ssl-mode` `{word}`; one of {known}"))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "in a test, a panic with a clear message is how a failure is reported"
    )]

    use super::*;

    #[test]
    fn every_part_is_read() {
        let dsn = Dsn::parse(
            "mysqls://al%40ice:p%3Aw@db1:3307,[::1]/shop?ssl-mode=VERIFY_CA&ssl-ca=/ca.pem&sslcert=/c.pem&ssl_key=/k.pem&connect_timeout=3&charset=utf8mb4",
        );
        let address = |host: &str, port| Address { host: host.into(), port };
        let expected = Dsn {
            hosts: vec![address("db1", 3307), address("::1", 3306)],
            socket: None,
            user: "al@ice".into(),
            password: Some(Secret::new("p:w")),
            database: Some("shop".into()),
            connect_timeout_secs: Some(3),
            wants_tls: true,
            tls_mode: Some(TlsMode::VerifyCa),
            ca_file: Some("/ca.pem".into()),
            cert_file: Some("/c.pem".into()),
            key_file: Some("/k.pem".into()),
        };
        assert_eq!(dsn, Ok(expected));
    }

    #[test]
    fn defaults() {
        let dsn = Dsn::parse("mariadb://me@").unwrap();
        assert_eq!(dsn.hosts, [Address { host: "localhost".into(), port: 3306 }]);
        assert_eq!((dsn.password, dsn.database, dsn.wants_tls, dsn.tls_mode), (None, None, false, None));
        let dsn = Dsn::parse("mysql://me:@localhost/?socket=%2Frun%2Fmysqld%2Fmysqld.sock").unwrap();
        assert_eq!(dsn.socket.as_deref(), Some("/run/mysqld/mysqld.sock"));
        assert_eq!(dsn.database, None);
    }

    #[test]
    fn the_words_of_both_worlds_name_the_tls_modes() {
        use TlsMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
        let cases = [
            ("DISABLED", Disable),
            ("disable", Disable),
            ("Preferred", Prefer),
            ("required", Require),
            ("verify_ca", VerifyCa),
            ("verify-ca", VerifyCa),
            ("VERIFY_IDENTITY", VerifyFull),
            ("verify-full", VerifyFull),
        ];
        for (word, mode) in cases {
            assert_eq!(tls_mode(word), Ok(mode), "{word}");
        }
    }

    #[test]
    fn bad_ones_say_what_is_wrong_and_not_the_password() {
        let cases = [
            ("postgres://u:hunter2@h/db", "mysql://"),
            ("u:hunter2@tcp(h:3306)/db", "scheme"),
            ("mysql://h/db", "no user"),
            ("mysql://u:hunter2@h:99999/db", "host:port"),
            ("mysql://u:hunter2%@h/db", "the password has a `%`"),
            ("mysql://u:hunter2%00@h/db", "the password holds a zero byte"),
            ("mysql://u%00:hunter2@h/db", "the user holds a zero byte"),
            ("mysql://u:hunter2@h/a/b", "one database name"),
            ("mysql://u:hunter2@h/db?ssl-mode=maybe", "unknown `ssl-mode` `maybe`"),
            ("mysql://u:hunter2@h/db?wat=1", "unknown parameter `wat`"),
            ("mysql://u:hunter2@h/db?connect_timeout=0", "1 to 3600"),
            ("mysql://u:hunter2@h/db?connect_timeout=soon", "1 to 3600"),
            ("mysql://u:hunter2@h/db?socket=/s", "keep one of the two"),
            ("mysql://u:hunter2@/db?socket=s", "whole path"),
            ("mysql://u:hunter2@h/db?charset=latin1", "cannot be set"),
            ("mysql://u:hunter2@h/db?sql_mode=ANSI", "cannot be set"),
            ("mysqls://u:hunter2@h/db?ssl-mode=prefer", "wants TLS"),
        ];
        for (dsn, expected) in cases {
            let error = Dsn::parse(dsn).err().unwrap_or_default();
            assert!(error.contains(expected), "{dsn}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
