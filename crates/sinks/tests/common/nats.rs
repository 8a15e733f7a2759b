//! What the tests of NATS share: the ecosystem's own client, which reads back what arrived.

use async_nats::jetstream::{self, consumer, stream};
use async_nats::{Client, ConnectOptions, HeaderMap};
use deltaforge_testkit::servers::{Nats, NatsAuth, NatsCluster};
use deltaforge_testkit::wait_for_async;
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::future::Future;
use std::time::Duration;

/// A message as it is stored.
#[derive(Debug)]
pub struct Stored {
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Vec<u8>,
}

impl Stored {
    pub fn event(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.as_str())
    }
}

/// The config of a sink to a stream of its own, which it makes.
pub fn config(nats: &Nats, stream: &str) -> Value {
    let mut config = json!({ "url": nats.url(), "stream": stream, "subject": format!("{stream}.events"), "create_stream": {} });
    match nats.auth() {
        NatsAuth::None => {}
        NatsAuth::User(user, password) => {
            config["username"] = user.as_str().into();
            config["password"] = password.as_str().into();
        }
        NatsAuth::Token(token) => config["token"] = token.as_str().into(),
        NatsAuth::NKey => config["nkey"] = nats.nkey_seed().into(),
        NatsAuth::Credentials => {
            config["credentials_file"] = nats.credentials_file().display().to_string().into()
        }
    }
    if nats.url().starts_with("tls") {
        config["tls"] = json!({ "ca_file": nats.tls().ca_file().display().to_string() });
    }
    config
}

/// A client of the ecosystem.
pub async fn client(nats: &Nats) -> Client {
    let mut options = ConnectOptions::new();
    match nats.auth() {
        NatsAuth::None => {}
        NatsAuth::User(user, password) => options = options.user_and_password(user.clone(), password.clone()),
        NatsAuth::Token(token) => options = options.token(token.clone()),
        NatsAuth::NKey => options = options.nkey(nats.nkey_seed().into()),
        NatsAuth::Credentials => options = options.credentials_file(nats.credentials_file()).await.unwrap(),
    }
    if nats.url().starts_with("tls") {
        options = options.add_root_certificates(nats.tls().ca_file());
    }
    options.connect(nats.url()).await.unwrap()
}

pub async fn cluster_client(cluster: &NatsCluster) -> Client {
    let urls: Vec<String> = cluster.url().split(',').map(str::to_owned).collect();
    async_nats::connect(urls).await.unwrap()
}

/// All messages of a stream, in order.
pub async fn stored(client: &Client, name: &str) -> Vec<Stored> {
    let context = jetstream::new(client.clone());
    // A cluster that has lost its leader may take a while to answer.
    let mut stream = None;
    wait_for_async("the stream", Duration::from_secs(60), async || {
        stream = context.get_stream(name).await.ok();
        stream.is_some()
    })
    .await;
    let mut stream = stream.unwrap();
    let count = stream.info().await.unwrap().state.messages as usize;
    let config = consumer::pull::OrderedConfig::default();
    let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
    let mut found = Vec::with_capacity(count);
    while found.len() < count {
        let (message, _) = messages.next().await.unwrap().unwrap().split();
        let (subject, payload) = (message.subject.to_string(), message.payload.to_vec());
        found.push(Stored { subject, headers: message.headers.unwrap_or_default(), payload });
    }
    found
}

/// The row ids of a stream's events.
pub async fn row_ids(client: &Client, name: &str) -> Vec<i64> {
    let stored = stored(client, name).await;
    super::ids(&stored.iter().map(Stored::event).collect::<Vec<_>>())
}

/// A stream made by hand. A server that has just deleted others now and then cannot make its store at once.
pub async fn stream(client: &Client, config: stream::Config) -> stream::Stream {
    let (context, mut made) = (jetstream::new(client.clone()), None);
    wait_for_async("the stream to be made", Duration::from_secs(30), async || {
        let answer = context.create_stream(config.clone()).await;
        if let Err(error) = &answer {
            let text = error.to_string();
            assert!(text.contains("10049") || text.contains("creating store"), "{text}");
        }
        made = answer.ok();
        made.is_some()
    })
    .await;
    made.unwrap()
}

pub fn named(name: &str) -> stream::Config {
    stream::Config { name: name.into(), subjects: vec![format!("{name}.>")], ..Default::default() }
}

/// Runs async work inside a test of several threads.
pub fn blocking<R>(work: impl Future<Output = R>) -> R {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work))
}
