//! What an answer, or the want of one, means.
//!
//! Only the status is told, never the body: servers echo what they refuse, and that is a row.

use deltaforge_core::fault::{Class, Kind};
use deltaforge_core::{EventId, Fault, clock};
use deltaforge_net::address::Address;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::error::Error;
use std::io;
use std::time::Duration;

/// The longest that a server may ask us to wait.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// What to do next.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The server has the events.
    Taken,
    /// It will never have them, at least not together.
    Refused(StatusCode),
    /// The whole delivery ends here.
    Fault(Fault),
}

/// Reads a status.
pub(super) fn verdict(status: StatusCode, address: &Address) -> Verdict {
    let said = format!("{address} answered {status}");
    let fault = match status.as_u16() {
        200..=299 => return Verdict::Taken,
        300..=399 => Fault::config("http.redirected", format!("{said}, which names another address"))
            .hint("write the final address in url: `curl -sI -X POST URL` shows it as `location`"),
        401 | 403 | 407 => {
            Fault::config("http.auth_refused", said).kind(Kind::Auth).hint("check user, token and `headers`")
        }
        429 => Fault::retry("http.throttled", said).kind(Kind::Throttled),
        408 | 425 | 500..=599 => Fault::retry("http.server_error", said).kind(Kind::Target),
        400..=499 => return Verdict::Refused(status),
        _ => Fault::retry("http.protocol", format!("{said}, which answers no request")).kind(Kind::Protocol),
    };
    Verdict::Fault(fault)
}

/// One event alone was refused.
pub(super) fn poison(status: StatusCode, address: &Address, event: EventId) -> Fault {
    let message = format!("{address} refuses the event with {status}");
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Fault::new(Class::Data, "http.event_too_large", message)
            .kind(Kind::TooLarge)
            .hint("raise the server's limit on bodies"),
        _ => Fault::new(Class::Data, "http.event_refused", message)
            .kind(Kind::Rejected)
            .hint("the server's log says why; when it refuses every event, check `url` and `method`"),
    }
    .event(event)
}

/// How long the server asks to be left alone: seconds or a date, at most five minutes.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let rest = match text.parse::<u64>() {
        Ok(secs) => Duration::from_secs(secs),
        Err(_) => {
            let at = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
            let now = Duration::from_millis(clock::unix_millis().max(0).unsigned_abs());
            at.saturating_sub(now)
        }
    };
    Some(rest.min(LONGEST_REST))
}

/// There is no answer. The error's own text would hold the URL, which may hold a secret.
pub(super) fn no_answer(error: reqwest::Error, address: &Address, limit: Duration) -> Fault {
    if error.is_timeout() {
        let message = format!("{address} did not answer within {} s", limit.as_secs());
        return Fault::retry("http.timeout", message)
            .kind(Kind::Timeout)
            .hint("look at the server's load, or raise send_timeout_secs");
    }
    let error = error.without_url();
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        // With TLS 1.3 a client certificate is refused after the handshake, in what is read first.
        if let Some(io) = e.downcast_ref::<io::Error>()
            && io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
        {
            return deltaforge_net::tls::handshake_fault(&address.host, io);
        }
        why = e.to_string();
        cause = e.source();
    }
    let (code, what) = if error.is_connect() {
        ("http.unreachable", "cannot be reached")
    } else {
        ("http.connection_lost", "broke the connection")
    };
    Fault::retry(code, format!("{address} {what}: {why}")).kind(Kind::Connect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn wait(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
        retry_after(&headers)
    }

    #[test]
    fn retry_after_in_both_forms() {
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("86400"), Some(LONGEST_REST));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let now = std::time::UNIX_EPOCH + Duration::from_millis(clock::unix_millis().unsigned_abs());
        let date = httpdate::fmt_http_date(now + Duration::from_secs(60));
        let found = wait(&date).unwrap();
        assert!((58..=60).contains(&found.as_secs()), "{found:?}");
    }

    #[test]
    fn every_status_has_its_class() {
        let address = Address { host: "h".into(), port: 1 };
        for status in 100..=999 {
            let Ok(status) = StatusCode::from_u16(status) else { continue };
            let expected = match status.as_u16() {
                200..=299 => "taken",
                300..=399 => "http.redirected",
                401 | 403 | 407 => "http.auth_refused",
                408 | 425 => "http.server_error",
                429 => "http.throttled",
                400..=499 => "refused",
                500..=599 => "http.server_error",
                _ => "http.protocol",
            };
            let found = match verdict(status, &address) {
                Verdict::Taken => "taken",
                Verdict::Refused(_) => "refused",
                Verdict::Fault(fault) => fault.code(),
            };
            assert_eq!(found, expected, "{status}");
        }
    }
}
