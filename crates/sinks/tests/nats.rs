//! The NATS sink against real servers: messages, logging in, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::nats::{self, Stored, client, named, stored, stream};
use common::*;
use deltaforge_core::config::Severity;
use deltaforge_core::fault::Class;
use deltaforge_core::sink::SinkPlan;
use deltaforge_core::{Fault, Op};
use deltaforge_testkit::servers::{Nats, NatsAuth, NatsOptions, NatsVersion};
use deltaforge_testkit::wait_for_async;
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn start(options: NatsOptions) -> Nats {
    Nats::start(&options).unwrap()
}

async fn refused(plan: &Arc<dyn SinkPlan>) -> Fault {
    plan.open(&context()).await.err().expect("a sink that does not open")
}

fn shown(fault: &Fault) -> (Class, &'static str) {
    (fault.class(), fault.code())
}

fn with(mut config: Value, more: Value) -> Value {
    more.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_message_holds() {
    let server = start(NatsOptions::default());
    let headers = json!({ "region": "${after.pad}", "table": "${source.table}", "none": "${after.nothing}" });
    let plan = plan("nats", with(nats::config(&server, "m"), json!({ "headers": headers })));
    let row = |op, id, old_id, pad| Row { table: "t", op, id, old_id, pad };
    let rows = [row(Op::Create, 1, None, "a\r\nNats-Rollup: all"), row(Op::Update, 2, Some(1), "b")];
    let mut sink = open(&plan).await;
    deliver(sink.as_mut(), batch_of(&rows)).await.unwrap();
    sink.close().await;
    let found = stored(&client(&server).await, "m").await;
    let [first, second] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(first.subject, "m.events");
    assert_eq!(first.header("Nats-Msg-Id"), Some(event_id(1).to_string().as_str()));
    assert_eq!(first.header("Nats-Expected-Stream"), Some("m"));
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert_eq!((first.header("df-key"), first.header("df-old-key")), (Some("{\"id\":1}"), None));
    assert_eq!(
        (second.header("df-key"), second.header("df-old-key")),
        (Some("{\"id\":2}"), Some("{\"id\":1}"))
    );
    assert_eq!(first.header("table"), Some("t"));
    assert_eq!(first.header("none"), None);
    assert_eq!(first.header("region"), Some("a%0D%0ANats-Rollup: all"), "a value cannot make a header");
    assert_eq!(first.event()["event_id"], event_id(1).to_string());
    assert_eq!(first.header("df-sink"), None, "only exactly-once sinks sign");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subjects_named_by_the_events_are_one_token_each() {
    let server = start(NatsOptions::default());
    let reader = client(&server).await;
    stream(&reader, named("shop")).await;
    let config =
        with(nats::config(&server, "shop"), json!({ "subject": "shop.${source.table}.${event.op}" }));
    let plan = plan("nats", config);
    let mut sink = open(&plan).await;
    let tables = ["t", "a b", "x.*", "y>", "%41", "é"];
    let rows: Vec<Row<'_>> = (tables.iter().zip(1..))
        .map(|(table, id)| Row { table, op: Op::Create, id, old_id: None, pad: "" })
        .collect();
    deliver(sink.as_mut(), batch_of(&rows)).await.unwrap();
    let subjects: Vec<String> = stored(&reader, "shop").await.into_iter().map(|m| m.subject).collect();
    assert_eq!(
        subjects,
        ["shop.t.c", "shop.a%20b.c", "shop.x%2E%2A.c", "shop.y%3E.c", "shop.%2541.c", "shop.é.c"]
    );
    let names: Vec<String> = subjects.iter().map(|s| decoded(s.split('.').nth(1).unwrap())).collect();
    assert_eq!(names, tables, "reversible");
    sink.close().await;
}

/// Percent-decoding as any consumer would do it.
fn decoded(token: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = token.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap());
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_makes_no_subject_stops_before_anything_of_its_batch_is_sent() {
    let server = start(NatsOptions::default());
    let reader = client(&server).await;
    stream(&reader, named("s")).await;
    let row = |id, pad| Row { table: "t", op: Op::Create, id, old_id: None, pad };
    for (subject, code) in [("s.${after.pad}", "nats.subject"), ("s.${before.pad}", "sink.not_routable")] {
        let plan = plan("nats", with(nats::config(&server, "s"), json!({ "subject": subject })));
        let mut sink = open(&plan).await;
        let fault = deliver(sink.as_mut(), batch_of(&[row(1, "x"), row(2, "")])).await.unwrap_err();
        let event = if code == "nats.subject" { 2 } else { 1 };
        assert_eq!(
            (shown(&fault), fault.event_id()),
            ((Class::Data, code), Some(event_id(event).to_string().as_str()))
        );
    }
    assert!(stored(&reader, "s").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_log_in_good_and_bad() {
    let user = NatsAuth::User("df".into(), "hunter2".into());
    let forms = [user, NatsAuth::Token("hunter2".into()), NatsAuth::NKey, NatsAuth::Credentials];
    let other = start(NatsOptions { auth: NatsAuth::Credentials, ..Default::default() });
    let stranger = start(NatsOptions { auth: NatsAuth::NKey, ..Default::default() });
    for auth in forms {
        for version in [NatsVersion::Newest, NatsVersion::V2_9] {
            let server = start(NatsOptions { auth: auth.clone(), version, ..Default::default() });
            let good = nats::config(&server, "s");
            let mut sink = open(&plan("nats", good.clone())).await;
            deliver(sink.as_mut(), batch(0..10, 10)).await.unwrap();
            sink.close().await;
            assert_eq!(nats::row_ids(&client(&server).await, "s").await, (0..10).collect::<Vec<_>>());

            let mut bad = good.clone();
            match &auth {
                NatsAuth::User(..) => bad["password"] = "hunter3".into(),
                NatsAuth::Token(_) => bad["token"] = "hunter3".into(),
                NatsAuth::NKey => bad["nkey"] = stranger.nkey_seed().into(),
                _ => bad["credentials_file"] = other.credentials_file().display().to_string().into(),
            }
            let fault = refused(&plan("nats", bad)).await;
            assert_eq!(shown(&fault), (Class::Config, "nats.auth_refused"), "{auth:?}");
            assert!(!format!("{fault:?}").contains("hunter"), "{fault:?}");
            let nothing = json!({ "url": server.url(), "stream": "s", "subject": "s.events" });
            assert_eq!(refused(&plan("nats", nothing)).await.code(), "nats.auth_refused", "{auth:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_with_credentials() {
    let server = start(NatsOptions { auth: NatsAuth::NKey, ..Default::default() });
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("seed"), format!("{}\n", server.nkey_seed())).unwrap();
    std::fs::write(path("junk"), "-----BEGIN NATS USER JWT-----\nhunter2\n").unwrap();
    let config = |key: &str, file: &str| json!({ "url": server.url(), "stream": "s", "subject": "s.x", "create_stream": {}, key: path(file) });
    let sink = open(&plan("nats", config("nkey_file", "seed"))).await;
    sink.close().await;
    for (key, file) in [
        ("nkey_file", "none"),
        ("nkey_file", "junk"),
        ("credentials_file", "none"),
        ("credentials_file", "junk"),
    ] {
        let fault = refused(&plan("nats", config(key, file))).await;
        assert_eq!(shown(&fault), (Class::Config, "nats.credentials"), "{key} {file}");
        assert!(fault.message().contains(&path(file)) && !fault.to_string().contains("hunter2"), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_modes() {
    let server = start(NatsOptions { tls: true, ..Default::default() });
    let plain = start(NatsOptions::default());
    let config = |url: String, tls: Value| {
        plan("nats", json!({ "url": url, "stream": "s", "subject": "s.x", "create_stream": {}, "tls": tls }))
    };
    let (ca, other) =
        (server.tls().ca_file().display().to_string(), server.tls().other_ca_file().display().to_string());
    let nats_url = server.url().replace("tls://", "nats://");
    for (url, tls) in [
        (server.url(), json!({ "ca_file": ca })),
        (nats_url.clone(), json!({ "ca_file": ca })),
        (nats_url.clone(), json!({ "mode": "require" })),
        (nats_url.replace("127.0.0.1", "localhost"), json!({ "mode": "verify-full", "ca_file": ca })),
    ] {
        open(&config(url, tls)).await.close().await;
    }
    for (url, tls, code) in [
        (server.url(), json!({ "ca_file": other }), "tls.certificate_refused"),
        (server.url(), json!({ "ca_file": "/nonexistent" }), "tls.file_unreadable"),
        (nats_url, json!({}), "nats.tls_required"),
        (plain.url().replace("nats://", "tls://"), json!({ "mode": "require" }), "tls.not_spoken"),
    ] {
        assert_eq!(shown(&refused(&config(url, tls)).await), (Class::Config, code));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_cannot_be_written_to() {
    let server = start(NatsOptions::default());
    let reader = client(&server).await;
    let work = async_nats::jetstream::stream::RetentionPolicy::WorkQueue;
    stream(&reader, named("other")).await;
    let queue = async_nats::jetstream::stream::Config { retention: work, ..named("queue") };
    stream(&reader, queue).await;
    let config = |more: Value| plan("nats", with(json!({ "url": server.url() }), more));
    for (more, code) in [
        (json!({ "stream": "none", "subject": "none.x" }), "nats.stream_not_found"),
        (json!({ "stream": "other", "subject": "shop.x" }), "nats.subject_not_taken"),
        (json!({ "stream": "queue", "subject": "queue.x", "exactly_once": true }), "nats.retention"),
        (json!({ "stream": "mine", "subject": "other.x", "create_stream": {} }), "nats.subjects_overlap"),
        (
            json!({ "stream": "three", "subject": "three.x", "create_stream": { "replicas": 3 } }),
            "nats.create_stream",
        ),
    ] {
        assert_eq!(shown(&refused(&config(more)).await), (Class::Config, code));
    }
    let off = start(NatsOptions { no_jetstream: true, ..Default::default() });
    let fault = refused(&plan("nats", nats::config(&off, "s"))).await;
    assert_eq!(shown(&fault), (Class::Config, "nats.jetstream_disabled"));
    off.stop();
    let fault = refused(&plan("nats", nats::config(&off, "s"))).await;
    assert_eq!(shown(&fault), (Class::Retry, "nats.unreachable"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_the_right_to_publish_is_told_at_once() {
    let lines =
        "authorization { users: [ { user: df, password: x, permissions: { publish: [\"$JS.API.>\"] } } ] }";
    let server = start(NatsOptions { config: lines.into(), ..Default::default() });
    let config = with(
        nats::config(&server, "s"),
        json!({ "username": "df", "password": "x", "send_timeout_secs": 600, "batch_timeout_secs": 600 }),
    );
    let mut sink = open(&plan("nats", config)).await;
    let fault = deliver(sink.as_mut(), batch(0..10, 10)).await.unwrap_err();
    assert_eq!(shown(&fault), (Class::Config, "nats.not_permitted"));
    assert!(!fault.message().contains("s.events"), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_above_the_limits_between_good_ones() {
    let server = start(NatsOptions { config: "max_payload: 64KB".into(), ..Default::default() });
    let reader = client(&server).await;
    let small = async_nats::jetstream::stream::Config { max_message_size: 32 * 1024, ..named("small") };
    stream(&reader, small).await;
    for (name, limit) in [("large", 64 * 1024), ("small", 32 * 1024)] {
        let plan = plan("nats", nats::config(&server, name));
        let mut sink = open(&plan).await;
        let before = sink.deliver(batch(0..500, 100), DELIVERY).await.unwrap();
        let pad = "x".repeat(limit);
        let row = |id, pad| Row { table: "t", op: Op::Create, id, old_id: None, pad };
        let rows = [row(500, ""), row(501, pad.as_str()), row(502, "")];
        let fault = deliver(sink.as_mut(), batch_of(&rows)).await.unwrap_err();
        assert_eq!(shown(&fault), (Class::Data, "nats.event_too_large"));
        assert_eq!(fault.event_id(), Some(event_id(501).to_string().as_str()));
        futures_util::FutureExt::now_or_never(before).expect("batches before it are settled first").unwrap();
        assert_eq!(
            nats::row_ids(&reader, name).await,
            (0..500).collect::<Vec<_>>(),
            "nothing of its batch was sent"
        );
        let mut sink = open(&plan).await;
        deliver(sink.as_mut(), batch_of(&[row(500, ""), row(502, "")])).await.unwrap();
        let largest = "x".repeat(limit - 2048);
        deliver(sink.as_mut(), batch_of(&[row(503, largest.as_str())])).await.unwrap();
        sink.close().await;
    }
}

/// What the server would end the connection for, or JetStream refuse, names its event before anything is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subjects_and_headers_at_their_limits() {
    let server = start(NatsOptions::default());
    let reader = client(&server).await;
    let exactly = json!({ "exactly_once": true });
    for (name, more, code, most) in [
        ("s", json!({ "subject": "s.${after.pad}" }), "nats.subject", 3_900 - 2),
        ("t", json!({ "headers": { "big": "${after.pad}" } }), "nats.event_too_large", 65_535 - 1_024),
        (
            "u",
            with(json!({ "headers": { "big": "${after.pad}" } }), exactly),
            "nats.event_too_large",
            65_535 - 1_536,
        ),
    ] {
        stream(&reader, named(name)).await;
        let plan = plan("nats", with(nats::config(&server, name), more));
        let mut sink = open(&plan).await;
        sink.take_over(&origin()).await.unwrap();
        let pad = "x".repeat(most);
        let row = |id, pad| Row { table: "t", op: Op::Create, id, old_id: None, pad };
        deliver(sink.as_mut(), batch_of(&[row(1, pad.as_str())])).await.unwrap();
        let pad = "x".repeat(most + 1_536);
        let fault = deliver(sink.as_mut(), batch_of(&[row(2, "a"), row(3, pad.as_str())])).await.unwrap_err();
        assert_eq!(shown(&fault), (Class::Data, code));
        assert_eq!(fault.event_id(), Some(event_id(3).to_string().as_str()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn core_nats_reaches_who_listens_and_refuses_what_nobody_hears() {
    for version in [NatsVersion::Newest, NatsVersion::V2_9] {
        let server = start(NatsOptions { version, no_jetstream: true, ..Default::default() });
        let plan = plan("nats", json!({ "url": server.url(), "subject": "shop.${source.table}" }));
        let mut sink = open(&plan).await;
        let fault = deliver(sink.as_mut(), batch(0..10, 10)).await.unwrap_err();
        assert_eq!(shown(&fault), (Class::Retry, "nats.no_listeners"));
        let reader = client(&server).await;
        let mut heard = reader.subscribe("shop.>").await.unwrap();
        reader.flush().await.unwrap();
        let mut sink = open(&plan).await;
        let receipts: Vec<_> =
            [0..1000, 1000..1001, 1001..3000].into_iter().map(|ids| batch(ids, 200)).collect();
        let reading = deltaforge_core::task::spawn("test", async move {
            let mut events = Vec::new();
            while events.len() < 3000 {
                let message = heard.next().await.unwrap();
                events.push(
                    Stored {
                        subject: String::new(),
                        headers: Default::default(),
                        payload: message.payload.to_vec(),
                    }
                    .event(),
                );
            }
            (ids(&events), heard)
        });
        for batch in receipts {
            deliver(sink.as_mut(), batch).await.unwrap();
        }
        deliver(sink.as_mut(), empty_batch()).await.unwrap();
        let (found, heard) = reading.await.unwrap();
        assert_eq!(found, (0..3000).collect::<Vec<_>>());
        drop(heard);
        wait_for_async("the subscription to end", Duration::from_secs(10), async || {
            reader.flush().await.unwrap();
            let mut sink = open(&plan).await;
            deliver(sink.as_mut(), batch(0..1, 1)).await.is_err()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_check_tells() {
    let server = start(NatsOptions::default());
    let reader = client(&server).await;
    let found = async |config: Value| {
        let report = plan("nats", config).check().await;
        report.checks.iter().map(|c| (c.name, c.severity)).collect::<Vec<_>>()
    };
    let config = nats::config(&server, "s");
    let new = found(config.clone()).await;
    assert!(new.contains(&("stream", Severity::Ok)), "{new:?}");
    let mut without = config.clone();
    without.as_object_mut().unwrap().remove("create_stream");
    assert!(found(without.clone()).await.contains(&("stream", Severity::Error)));
    let weak = async_nats::jetstream::stream::Config {
        storage: async_nats::jetstream::stream::StorageType::Memory,
        duplicate_window: Duration::from_secs(1),
        max_messages: 10,
        ..named("s")
    };
    stream(&reader, weak).await;
    let warned = found(with(without.clone(), json!({ "exactly_once": false }))).await;
    for name in ["storage", "replicas", "limits", "duplicate_window"] {
        assert!(warned.contains(&(name, Severity::Warning)), "{name}: {warned:?}");
    }
    assert!(!warned.iter().any(|(_, severity)| *severity == Severity::Error), "{warned:?}");
    let warned = found(with(without, json!({ "exactly_once": true }))).await;
    assert!(warned.contains(&("atomic", Severity::Warning)), "{warned:?}");
    server.stop();
    assert_eq!(found(config).await, [("connection", Severity::Error)]);
}
