//! Who may ask for what.
//!
//! With a token every route but the open ones wants it. Without one anybody may read, but only a peer on this machine may
//! see rows or change anything. A web page of another site runs in a browser on this machine too, so a changing request is refused when
//! its `Origin` is another site; and a page that has its own name resolve to this machine sends that name as `Host`, so
//! without a token the name must be a loopback one.

use crate::Api;
use crate::answer::Problem;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use deltaforge_core::config::Secret;
use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr};

/// Routes that need no token.
const OPEN: [&str; 5] = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/"];

/// Lets a request through or refuses it.
pub(crate) async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    match refused(api.token.as_ref(), &request) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

fn refused(token: Option<&Secret>, request: &Request) -> Option<Problem> {
    let headers = request.headers();
    let open = OPEN.contains(&request.uri().path());
    if let Some(token) = token
        && !open
        && !carries(headers, token)
    {
        let problem =
            Problem::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "this route needs the API token");
        return Some(problem.hint("send the header `Authorization: Bearer TOKEN`"));
    }
    if !is_changing(request) && !shows_rows(request.uri().path()) {
        return None;
    }
    let host = request.uri().authority().map(|a| a.as_str()).or_else(|| text(headers, header::HOST));
    if let Some(origin) = text(headers, header::ORIGIN)
        && !same_site(origin, host)
    {
        return Some(forbidden("the request comes from a page of another site", "send it without a browser"));
    }
    if token.is_none() {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        let hint = "start with --api-token to allow changes from elsewhere";
        if !peer.is_some_and(is_loopback) {
            return Some(forbidden("without a token, changes and rows are for this machine only", hint));
        }
        if !host.is_none_or(is_loopback_name) {
            return Some(forbidden("without a token, changes and rows are for a loopback name only", hint));
        }
    }
    None
}

/// Whether what is read there are rows. They are guarded as changes are, and a page of another site must not get them.
fn shows_rows(path: &str) -> bool {
    let of_pipeline = path.strip_prefix("/pipelines/").and_then(|rest| rest.split_once('/'));
    of_pipeline.is_some_and(|(_, route)| route == "dlq")
}

/// Everything but reading. `POST /validate` changes nothing, and no finding shows a variable's value.
fn is_changing(request: &Request) -> bool {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    !reads && request.uri().path() != "/validate"
}

fn forbidden(error: &str, hint: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "FORBIDDEN", error).hint(hint)
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    // What is no text is no name we would accept either.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// Whether the request carries the token.
pub(crate) fn carries(headers: &HeaderMap, token: &Secret) -> bool {
    let Some((scheme, sent)) = text(headers, header::AUTHORIZATION).and_then(|value| value.split_once(' '))
    else {
        return false;
    };
    scheme.eq_ignore_ascii_case("bearer") && same_secret(sent.trim(), token.expose())
}

/// Compares digests, so that neither the time taken nor where it ends depends on the token.
fn same_secret(sent: &str, token: &str) -> bool {
    let (sent, token) = (Sha256::digest(sent.as_bytes()), Sha256::digest(token.as_bytes()));
    let different = sent.iter().zip(token.iter()).fold(0, |different, (a, b)| different | (a ^ b));
    std::hint::black_box(different) == 0
}

fn same_site(origin: &str, host: Option<&str>) -> bool {
    match (origin.split_once("://"), host) {
        (Some((_, authority)), Some(host)) => authority.eq_ignore_ascii_case(host),
        _ => false,
    }
}

fn is_loopback(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}

fn is_loopback_name(host: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let name = without_port.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    match name.parse::<IpAddr>() {
        Ok(ip) => is_loopback(ip),
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::{is_loopback_name, same_secret, same_site};

    #[test]
    fn loopback_names() {
        for good in [
            "localhost",
            "LOCALHOST:8080",
            "api.localhost:1",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:8080",
            "[::1]",
        ] {
            assert!(is_loopback_name(good), "{good}");
        }
        for bad in [
            "evil.example:8080",
            "localhost.evil.example",
            "10.0.0.1",
            "127.0.0.1.evil.example",
            "",
            "[::2]:80",
        ] {
            assert!(!is_loopback_name(bad), "{bad}");
        }
    }

    #[test]
    fn sites() {
        assert!(same_site("http://localhost:8080", Some("localhost:8080")));
        for (origin, host) in
            [("null", Some("localhost")), ("http://evil.example", Some("localhost")), ("http://a", None)]
        {
            assert!(!same_site(origin, host), "{origin}");
        }
    }

    #[test]
    fn secrets() {
        assert!(same_secret("abc", "abc"));
        assert!(!same_secret("abc", "abd") && !same_secret("", "abc") && !same_secret("abcd", "abc"));
    }
}
