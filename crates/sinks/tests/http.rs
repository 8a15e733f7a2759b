//! The HTTP sink against a web server on a real socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;
#[path = "common/web.rs"]
mod web;

use axum::body::Body;
use axum::http::Response;
use common::*;
use deltaforge_core::config::Severity;
use deltaforge_core::{Class, Op};
use deltaforge_testkit::servers::Tls;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use web::{Web, status};

fn event_ids(of: &[Value]) -> Vec<String> {
    of.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn one_request_for_each_event() {
    let web = Web::start().await;
    let headers = json!({ "Authorization": "Bearer hunter2", "x-table": "${source.table}", "x-none": "${after.nothing}" });
    let plan = plan("http", json!({ "url": web.url("in?a=b"), "method": "PUT", "headers": headers }));
    let mut sink = open(&plan).await;
    let rows = [
        Row { table: "t", op: Op::Create, id: 1, old_id: None, pad: "ü\"" },
        Row { table: "u", op: Op::Update, id: 3, old_id: Some(2), pad: "" },
    ];
    deliver(sink.as_mut(), batch_of(&rows)).await.unwrap();
    let seen = web.seen();
    assert_eq!(seen.len(), 2);
    let first = &seen[0];
    assert_eq!((first.method.as_str(), first.uri.to_string().as_str()), ("PUT", "/in?a=b"));
    let headers = ["content-type", "df-key", "df-old-key", "idempotency-key", "authorization", "x-table"];
    let id = event_id(1).to_string();
    let expected = ["application/json", r#"{"id":1}"#, "", &id, "Bearer hunter2", "t"];
    assert_eq!(headers.map(|name| first.header(name)), expected);
    assert!(!first.headers.contains_key("x-none"), "a header that the event does not fill is left out");
    assert_eq!(first.json()["after"], json!({ "id": 1, "pad": "ü\"" }));
    assert_eq!((seen[1].header("df-key"), seen[1].header("df-old-key")), (r#"{"id":3}"#, r#"{"id":2}"#));
    // One connection to look, one for the requests.
    deliver(sink.as_mut(), batch(10..60, 10)).await.unwrap();
    assert_eq!(web.connections(), 2, "the connection is kept");
}

#[tokio::test]
async fn a_batch_is_an_array_for_each_url() {
    let web = Web::start().await;
    let url = format!("{}${{source.table}}/${{after.pad}}", web.url(""));
    let plan = plan("http", json!({ "url": url, "batch_mode": true }));
    let mut sink = open(&plan).await;
    let row = |table, id, pad| Row { table, op: Op::Create, id, old_id: None, pad };
    let rows = [row("t", 1, "a/b"), row("t", 2, "a/b"), row("u", 3, "?x"), row("t", 4, "a/b")];
    let bytes = deliver(sink.as_mut(), batch_of(&rows)).await.unwrap().bytes;
    let seen = web.seen();
    let found: Vec<_> = seen.iter().map(|s| (s.uri.to_string(), ids(&s.events()))).collect();
    let expected = [("/t/a%2Fb", vec![1, 2]), ("/u/%3Fx", vec![3]), ("/t/a%2Fb", vec![4])]
        .map(|(u, i)| (u.to_string(), i));
    assert_eq!(found, expected, "in order, and no row chooses the path");
    let keys: Vec<_> = seen.iter().map(|s| s.header("idempotency-key").to_owned()).collect();
    let key = |a, b| format!("{}/{}", event_id(a), event_id(b));
    assert_eq!(keys, [key(1, 2), key(3, 3), key(4, 4)]);
    assert!(seen.iter().all(|s| s.header("df-key").is_empty()));
    let sizes: usize = seen.iter().flat_map(|s| s.events()).map(|e| e.to_string().len()).sum();
    assert_eq!(bytes, sizes as u64);
}

#[tokio::test]
async fn cloud_events_have_their_types() {
    let web = Web::start().await;
    for (batch_mode, expected) in
        [(false, "application/cloudevents+json"), (true, "application/cloudevents-batch+json")]
    {
        let envelope = json!({ "type": "cloudevents" });
        let plan =
            plan("http", json!({ "url": web.url("x"), "batch_mode": batch_mode, "envelope": envelope }));
        deliver(open(&plan).await.as_mut(), batch(0..1, 1)).await.unwrap();
        assert_eq!(web.seen().last().unwrap().header("content-type"), expected);
    }
}

#[tokio::test]
async fn statuses_have_their_classes() {
    let cases = [
        (301, Class::Config, "http.redirected"),
        (308, Class::Config, "http.redirected"),
        (400, Class::Data, "http.event_refused"),
        (401, Class::Config, "http.auth_refused"),
        (403, Class::Config, "http.auth_refused"),
        (404, Class::Data, "http.event_refused"),
        (407, Class::Config, "http.auth_refused"),
        (408, Class::Retry, "http.server_error"),
        (413, Class::Data, "http.event_too_large"),
        (422, Class::Data, "http.event_refused"),
        (425, Class::Retry, "http.server_error"),
        (429, Class::Retry, "http.throttled"),
        (500, Class::Retry, "http.server_error"),
        (503, Class::Retry, "http.server_error"),
    ];
    for (code, class, name) in cases {
        let web = Web::answering(move |seen, _| {
            // As many servers do: the answer repeats what it refuses.
            let mut response = Response::new(Body::from(seen.body.clone()));
            *response.status_mut() = axum::http::StatusCode::from_u16(code).unwrap();
            response.headers_mut().insert("location", "http://127.0.0.1:1/secret".parse().unwrap());
            response
        })
        .await;
        let headers = json!({ "x-api-key": "hunter2" });
        let config = json!({ "url": web.url("x?token=hunter2"), "headers": headers });
        let fault = deliver(open(&plan("http", config)).await.as_mut(), batch(7..8, 50)).await.unwrap_err();
        assert_eq!((fault.class(), fault.code()), (class, name), "{code}");
        let text = format!("{fault:?}");
        assert!(text.contains(&code.to_string()), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("xxx") && !text.contains("secret"), "{text}");
        let named = (class == Class::Data).then(|| event_id(7).to_string());
        assert_eq!(fault.event_id().map(str::to_owned), named, "{code}");
        assert_eq!(web.seen().len(), 1, "{code}: nothing is sent again or elsewhere by itself");
    }
}

/// A server that does not like some rows, whatever they come with.
async fn picky(code: u16, poison: &'static [i64]) -> Web {
    Web::answering(move |seen, _| {
        let bad = ids(&seen.events()).iter().any(|id| poison.contains(id));
        status(if bad { code } else { 200 })
    })
    .await
}

#[tokio::test]
async fn the_one_refused_event_of_an_array_is_named() {
    for code in [400, 413, 422] {
        for poison in [0, 1, 37, 98, 99] {
            let web = picky(code, Vec::leak(vec![poison])).await;
            let plan = plan("http", json!({ "url": web.url("x"), "batch_mode": true }));
            let mut sink = open(&plan).await;
            deliver(sink.as_mut(), batch(1000..1010, 5)).await.unwrap();
            let all = batch(0..100, 5);
            let fault = deliver(sink.as_mut(), all.clone()).await.unwrap_err();
            assert_eq!(fault.class(), Class::Data);
            assert_eq!(fault.event_id(), Some(event_id(poison).to_string().as_str()));
            let before: Vec<i64> = (1000..1010).chain(0..poison).collect();
            assert_eq!(ids(&web.taken("x")), before, "everything before it, in order, and nothing after it");
            // What a lane does with a fault that names an event.
            let rest = Arc::new(all.without(event_id(poison)));
            deliver(open(&plan).await.as_mut(), rest).await.unwrap();
            let taken = ids(&web.taken("x"));
            let rest: Vec<i64> = (0..100).filter(|id| *id != poison).collect();
            assert_eq!(taken[before.len()..], rest);
        }
    }
}

#[tokio::test]
async fn an_array_above_the_limit_goes_in_halves() {
    let web = Web::answering(|seen, _| status(if seen.body.len() > 3000 { 413 } else { 200 })).await;
    let plan = plan("http", json!({ "url": web.url("x"), "batch_mode": true }));
    deliver(open(&plan).await.as_mut(), batch(0..50, 100)).await.unwrap();
    assert_eq!(ids(&web.taken("x")), (0..50).collect::<Vec<_>>());
    for seen in web.seen().iter().filter(|s| s.status.is_success()) {
        let own = event_ids(&seen.events());
        let key = format!("{}/{}", own[0], own[own.len() - 1]);
        assert_eq!(seen.header("idempotency-key"), key, "the key is that of the half");
    }
}

#[tokio::test]
async fn a_repeated_request_has_the_key_of_the_first() {
    let web = Web::answering(|_, n| status(if n % 4 < 2 { 503 } else { 200 })).await;
    let retry = json!({ "initial_ms": 1, "max_ms": 2 });
    for batch_mode in [false, true] {
        let path = format!("{batch_mode}");
        let config = json!({ "url": web.url(&path), "batch_mode": batch_mode, "retry": retry });
        let batches: Vec<_> = (0..4).map(|n| batch(n * 2..n * 2 + 2, 5)).collect();
        let codes = deliver_all(&plan("http", config), &batches).await;
        assert!(codes.len() > 3 && codes.iter().all(|code| *code == "http.server_error"), "{codes:?}");
        assert_contiguous_replays(&ids(&web.taken(&path)), 8);
        for seen in web.seen().iter().filter(|s| s.uri.path() == format!("/{path}")) {
            let own = event_ids(&seen.events());
            let key = if batch_mode { format!("{}/{}", own[0], own[1]) } else { own[0].clone() };
            assert_eq!(seen.header("idempotency-key"), key);
        }
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_rest_has_it() {
    let web = Web::answering(|_, n| {
        let mut response = status(if n == 0 { 429 } else { 200 });
        response.headers_mut().insert("retry-after", "1".parse().unwrap());
        response
    })
    .await;
    let plan = plan("http", json!({ "url": web.url("x") }));
    let start = Instant::now();
    let fault = deliver(open(&plan).await.as_mut(), batch(0..1, 1)).await.unwrap_err();
    assert_eq!(fault.code(), "http.throttled");
    assert!(start.elapsed() < Duration::from_millis(900), "the fault is told at once");
    let mut sink = open(&plan).await;
    assert!(start.elapsed() >= Duration::from_millis(1000), "{:?}", start.elapsed());
    deliver(sink.as_mut(), batch(0..1, 1)).await.unwrap();
}

/// `HMAC(secret, timestamp "." body)`, as the guide tells receivers to compute it, by openssl.
fn openssl_hmac(secret: &str, message: &[u8]) -> String {
    use std::io::Write;
    let mut child = std::process::Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", secret])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(message).unwrap();
    let answer = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    answer.trim().rsplit(' ').next().unwrap().to_owned()
}

/// A row's value must not take the parts before it away.
#[tokio::test]
async fn a_path_that_a_row_would_shorten() {
    let web = Web::start().await;
    let config = json!({ "url": format!("{}/${{after.pad}}/end", web.url("a/b")) });
    let mut sink = open(&plan("http", config)).await;
    let row = |pad| batch_of(&[Row { table: "t", op: Op::Create, id: 7, old_id: None, pad }]);
    for pad in ["..", "."] {
        let fault = deliver(sink.as_mut(), row(pad)).await.unwrap_err();
        assert_eq!((fault.class(), fault.code()), (Class::Data, "http.bad_url"), "{pad}");
        assert_eq!(fault.event_id(), Some(event_id(7).to_string().as_str()));
    }
    for pad in ["...", ".a", "%2e", "../.."] {
        deliver(sink.as_mut(), row(pad)).await.unwrap();
    }
    let paths: Vec<String> = web.seen().iter().map(|seen| seen.uri.path().to_owned()).collect();
    assert_eq!(paths, ["/a/b/.../end", "/a/b/.a/end", "/a/b/%252e/end", "/a/b/..%2F../end"]);
}

/// `$${` is a plain `${`, which fills nothing in.
#[tokio::test]
async fn a_constant_url_with_a_plain_reference() {
    let web = Web::start().await;
    deliver(open(&plan("http", json!({ "url": web.url("a/$${b}/c") }))).await.as_mut(), batch(0..1, 9))
        .await
        .unwrap();
    assert_eq!(web.seen()[0].uri.path(), "/a/$%7Bb%7D/c");
}

#[tokio::test]
async fn signatures_verify() {
    let web = Web::start().await;
    let signature = json!({ "secret": "hunter2", "header": "X-Signed" });
    let config = json!({ "url": web.url("x"), "signature": signature, "batch_mode": true });
    deliver(open(&plan("http", config)).await.as_mut(), batch(0..3, 9)).await.unwrap();
    let seen = &web.seen()[0];
    let time = seen.header("x-signed-timestamp");
    let age = deltaforge_core::clock::unix_millis() / 1000 - time.parse::<i64>().unwrap();
    assert!((0..30).contains(&age), "{age}");
    let message = [time.as_bytes(), b".", &seen.body].concat();
    assert_eq!(seen.header("x-signed"), format!("sha256={}", openssl_hmac("hunter2", &message)));
}

#[tokio::test]
async fn faults_of_the_network() {
    // A port where nobody listens.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = plan("http", json!({ "url": format!("http://{free}/x") }));
    let fault = gone.open(&context()).await.err().unwrap();
    assert_eq!((fault.class(), fault.code()), (Class::Retry, "http.unreachable"));
    assert_eq!(gone.check().await.checks[0].severity, Severity::Error);

    // One that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://u:hunter2@{}/x", silent.local_addr().unwrap());
    let plan = plan("http", json!({ "url": url, "send_timeout_secs": 1 }));
    assert_eq!(plan.check().await.checks[0].severity, Severity::Ok);
    let fault = deliver(open(&plan).await.as_mut(), batch(0..1, 1)).await.unwrap_err();
    assert_eq!((fault.class(), fault.code()), (Class::Retry, "http.timeout"));

    // One that hangs up.
    let mut sink = open(&plan).await;
    // For good: a listener that goes away with the last connection it was to take refuses the next.
    std::thread::spawn(move || silent.incoming().for_each(drop));
    let fault = deliver(sink.as_mut(), batch(0..1, 1)).await.unwrap_err();
    assert_eq!((fault.class(), fault.code()), (Class::Retry, "http.connection_lost"));
    assert!(!fault.to_string().contains("hunter2"), "{fault}");
}

#[tokio::test]
async fn user_and_password_of_the_url_are_a_header() {
    let web = Web::start().await;
    let url = web.url("${source.table}").replace("http://", "http://us%40er:p%2Fw@");
    deliver(open(&plan("http", json!({ "url": url }))).await.as_mut(), batch(0..1, 1)).await.unwrap();
    let seen = &web.seen()[0];
    assert_eq!((seen.uri.path(), seen.header("authorization")), ("/t", "Basic dXNAZXI6cC93"));
}

#[tokio::test]
async fn answers_of_any_length() {
    let web = Web::answering(|_, _| Response::new(Body::from(vec![b'x'; 300_000]))).await;
    let plan = plan("http", json!({ "url": web.url("x"), "batch_mode": true }));
    let mut sink = open(&plan).await;
    for n in 0..3 {
        deliver(sink.as_mut(), batch(n..n + 1, 1)).await.unwrap();
    }
    assert_eq!(ids(&web.taken("x")), [0, 1, 2]);
}

fn server_config(tls: &Tls) -> rustls::ServerConfig {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificates =
        CertificateDer::pem_file_iter(tls.server_cert_file()).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(tls.server_key_file()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    builder.unwrap().with_no_client_auth().with_single_cert(certificates, key).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let tls = Tls::generate(dir.path().join("tls")).unwrap();
    let web = Web::encrypted(server_config(&tls)).await;
    let with = |tls: Value| plan("http", json!({ "url": web.url("x"), "tls": tls }));
    let trusted = with(json!({ "ca_file": tls.ca_file().display().to_string() }));
    assert_eq!(trusted.check().await.checks[0].severity, Severity::Ok);
    deliver(open(&trusted).await.as_mut(), batch(0..5, 1)).await.unwrap();
    assert_eq!(ids(&web.taken("x")), [0, 1, 2, 3, 4]);
    let other = with(json!({ "ca_file": tls.other_ca_file().display().to_string() }));
    let fault = other.open(&context()).await.err().unwrap();
    assert_eq!((fault.class(), fault.code()), (Class::Config, "tls.certificate_refused"));
    deliver(open(&with(json!({ "mode": "require" }))).await.as_mut(), batch(5..6, 1)).await.unwrap();
}
