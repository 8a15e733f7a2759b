//! Redis Streams.
//!
//! `config` reads the settings; [`connection`](self) makes connections and logs in; `topology` finds the server to write to
//! (given, named by a sentinel, or the one that serves a slot). `entry` writes events as `XADD` commands, `resp` and `replies`
//! are the protocol. `deliver` is the road of a single server, and holds the argument why nothing is lost or disordered;
//! `cluster` is that of a cluster, `exact` what exactly once adds. `error` says what each error reply means, `check` looks before anything is written.
//!
//! The client is our own: `docs/src/internals/decisions/0003-redis-client.md`.

mod check;
mod cluster;
mod config;
mod connection;
mod deliver;
mod entry;
mod error;
mod exact;
mod replies;
mod resp;
mod topology;

use crate::shared::common::{Common, Plan, Planned, check_templates};
use async_trait::async_trait;
use config::{Settings, Topology};
use connection::{Connection, Connector};
use deliver::{Patience, RedisSink, not_a_stream};
use deltaforge_core::Fault;
use deltaforge_core::config::{Fields, Report};
use deltaforge_core::sink::{Held, Sink, SinkContext, SinkKind, SinkPlan};
use deltaforge_core::source::Names;
use entry::Entries;
use exact::Exact;
use resp::Value;
use std::sync::Arc;

/// `type: redis`.
#[derive(Debug)]
pub struct RedisKind;

impl SinkKind for RedisKind {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn summary(&self) -> &'static str {
        "Redis Streams: one server, a master behind sentinels, or a cluster"
    }

    fn parse(
        &self,
        fields: &mut Fields<'_>,
        names: &Names<'_>,
        required: Option<bool>,
    ) -> Option<Arc<dyn SinkPlan>> {
        let settings = Arc::new(Settings::parse(fields, names, required)?);
        Some(Arc::new(Planned(RedisPlan { connector: Arc::new(Connector::new(settings)) })))
    }
}

/// A parsed sink.
struct RedisPlan {
    connector: Arc<Connector>,
}

impl RedisPlan {
    fn settings(&self) -> &Settings {
        &self.connector.settings
    }
}

#[async_trait]
impl Plan for RedisPlan {
    fn common(&self) -> &Common {
        &self.settings().common
    }

    fn exactly_once(&self) -> bool {
        self.settings().exactly_once
    }

    async fn check(&self) -> Report {
        check::check(&self.connector).await
    }

    async fn open(&self, context: &SinkContext) -> Result<Box<dyn Sink>, Fault> {
        let settings = self.settings();
        let templates = [("stream", Some(&settings.stream)), ("key", settings.key.as_ref())];
        check_templates(templates.into_iter().filter_map(|(key, t)| Some((key, t?))), &context.source)?;
        let entries = Entries::new(settings, context);
        let patience = Patience { send: settings.send_timeout, batch: settings.batch_timeout };
        let exact =
            settings.exactly_once.then(|| Exact::new(&context.pipeline, &self.common().id, &settings.stream));
        let mut connection = match &settings.topology {
            Topology::Cluster(seeds) => match &exact {
                // One slot, so one server.
                Some(exact) => topology::connect_to_slot(&self.connector, seeds, &exact.key).await?,
                None => {
                    let sink = cluster::open(self.connector.clone(), seeds, entries, patience).await?;
                    return Ok(Box::new(sink));
                }
            },
            Topology::Single(address) => self.connector.connect_for_events(address).await?,
            Topology::Sentinel { sentinels, master } => {
                let address = topology::master(&self.connector, sentinels, master).await?;
                let mut connection = self.connector.connect_for_events(&address).await?;
                topology::require_master(&mut connection, master).await?;
                connection
            }
        };
        look_at_stream(&mut connection, settings).await?;
        let exact = match exact {
            Some(exact) => {
                let held = look_at_position(&mut connection, &exact, settings.is_cluster()).await?;
                Some((exact, held))
            }
            None => None,
        };
        let name = format!("deltaforge:{}/{}", context.pipeline, self.common().id);
        Ok(Box::new(RedisSink::new(self.connector.clone(), connection, entries, name, exact)))
    }
}

/// What the position key holds. It is not written: a process that stands by opens its sinks, too.
async fn look_at_position(
    connection: &mut Connection,
    exact: &Exact,
    in_cluster: bool,
) -> Result<Option<Held>, Fault> {
    match connection.call(&[b"GET", &exact.key]).await? {
        Value::Error(error) => Err(error::reply_fault_of(in_cluster, &connection.address, &error)),
        answer => exact.read(answer.text().map(str::as_bytes), &connection.address),
    }
}

/// Looks at what a constant stream's key holds, before anything is written.
async fn look_at_stream(connection: &mut Connection, settings: &Settings) -> Result<(), Fault> {
    let Some(stream) = settings.stream.is_constant() else { return Ok(()) };
    let kind = connection.call(&[b"TYPE", stream.as_bytes()]).await?;
    not_a_stream(stream.as_bytes(), &kind)
}
