//! Kafka.
//!
//! `config` reads the settings and makes librdkafka's properties of them; `record` writes events as records. `producer` owns
//! the client and the thread that takes its reports, `reports` counts them and resolves receipts, `deliver` is the road from
//! a batch to its receipt, with and without transactions, and holds the argument why nothing is lost, doubled or
//! disordered. `positions` reads back how far a transactional sink came. `error` says what each error means, `check` looks
//! before anything is written, `native` is one call that the safe interface lacks.

mod check;
mod config;
mod deliver;
mod error;
mod native;
mod positions;
mod producer;
mod record;
mod reports;

use crate::shared::common::{Common, Plan, Planned, check_templates};
use crate::shared::held::Identity;
use crate::shared::relay;
use async_trait::async_trait;
use config::Settings;
use deliver::{KafkaSink, make_topic, patience};
use deltaforge_core::Fault;
use deltaforge_core::config::{Fields, Report};
use deltaforge_core::sink::{Held, Sink, SinkContext, SinkKind, SinkPlan};
use deltaforge_core::source::Names;
use positions::{Look, Positions};
use producer::{Ending, Producer};
use rdkafka::ClientConfig;
use reports::{Reports, SetLimit};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Above the limit of the topic lies what a set of records takes besides them.
const SET_OVERHEAD: usize = 200;

/// The state store uses the same threads for what may block: clients whose brokers do not answer must leave it some.
static THREADS: Semaphore = Semaphore::const_new(8);

/// Runs what may block, such calls of all Kafka sinks together on at most half of the threads for that.
async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, Fault> + Send + 'static,
) -> Result<R, Fault> {
    let permit = THREADS.acquire().await;
    relay::blocking(move || {
        // It is the thread's: the work runs to its end also when nobody waits for it any more.
        let _permit = permit;
        work()
    })
    .await
}

/// `type: kafka`.
#[derive(Debug)]
pub struct KafkaKind;

impl SinkKind for KafkaKind {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn summary(&self) -> &'static str {
        "Kafka topics: at least once, or exactly once by transactions that hold the position"
    }

    fn parse(
        &self,
        fields: &mut Fields<'_>,
        names: &Names<'_>,
        required: Option<bool>,
    ) -> Option<Arc<dyn SinkPlan>> {
        let settings = Arc::new(Settings::parse(fields, names, required)?);
        Some(Arc::new(Planned(KafkaPlan { settings, limit: Arc::default(), before: Mutex::default() })))
    }
}

/// A parsed sink.
struct KafkaPlan {
    settings: Arc<Settings>,
    /// What refusals taught about the size of a set of records.
    limit: Arc<Mutex<SetLimit>>,
    /// The end of the producer made last.
    before: Mutex<Option<Ending>>,
}

#[async_trait]
impl Plan for KafkaPlan {
    fn common(&self) -> &Common {
        &self.settings.common
    }

    fn exactly_once(&self) -> bool {
        self.settings.exactly_once
    }

    async fn check(&self) -> Report {
        check::check(&self.settings).await
    }

    async fn open(&self, context: &SinkContext) -> Result<Box<dyn Sink>, Fault> {
        let settings = &self.settings;
        let templates = [("topic", Some(&settings.topic)), ("key", settings.key.as_ref())];
        let headers = settings.headers.iter().map(|(_, template)| ("headers", Some(template)));
        let templates = templates.into_iter().chain(headers);
        check_templates(templates.filter_map(|(key, t)| Some((key, t?))), &context.source)?;
        self.ended().await?;
        let mut config = settings.producer_config();
        let limit = self.set_limit(&mut config).await;
        let reports =
            Reports::new(context.metrics.clone(), limit, self.limit.clone(), settings.transaction_timeout);
        let (producer, ending) = Producer::start(config, reports, patience(settings)).await?;
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
        producer.connect(settings.send_timeout).await?;
        if let (Some(create), Some(name)) = (&settings.create_topics, settings.topic.is_constant()) {
            make_topic(settings, create, name).await?;
        }
        let once = match settings.exactly_once {
            true => Some(self.recover(&producer, context).await?),
            false => None,
        };
        Ok(Box::new(KafkaSink::new(producer, settings.clone(), context, once)))
    }
}

impl KafkaPlan {
    /// Waits until the producer before is no more, so that nothing of it can arrive after what comes now.
    async fn ended(&self) -> Result<(), Fault> {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(mut before) = before else { return Ok(()) };
        let ended = async { before.wait_for(|ended| *ended).await.is_ok() };
        match tokio::time::timeout(patience(&self.settings) * 2, ended).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Fault::retry("kafka.given_up", "the producer before has not yet come to its end")),
        }
    }

    /// Applies what is known of the size that a set of records may have.
    async fn set_limit(&self, config: &mut ClientConfig) -> SetLimit {
        let known = self.limit.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let limit = match known {
            SetLimit::Refused(topic) => {
                let limit = check::max_message_bytes(&self.settings, &topic).await;
                let limit = limit.map_or(SetLimit::Single, |bytes| SetLimit::Bytes(topic, bytes));
                *self.limit.lock().unwrap_or_else(PoisonError::into_inner) = limit.clone();
                limit
            }
            known => known,
        };
        match &limit {
            SetLimit::Bytes(_, bytes) => {
                let present =
                    config.get("batch.size").and_then(|size| size.parse().ok()).unwrap_or(1_000_000);
                let size = bytes.saturating_sub(SET_OVERHEAD).clamp(1, present);
                config.set("batch.size", size.to_string());
            }
            SetLimit::Single => {
                config.set("batch.num.messages", "1");
            }
            _ => {}
        }
        limit
    }

    async fn recover(
        &self,
        producer: &Producer,
        context: &SinkContext,
    ) -> Result<(Positions, Option<Held>), Fault> {
        let positions = Positions {
            config: self.settings.client_config(),
            topic: self.settings.positions_topic.clone(),
            identity: Identity { pipeline: context.pipeline.clone(), sink: self.settings.common.id.clone() },
            limit: self.settings.send_timeout,
        };
        let asked = positions.clone();
        let held = match producer.call(move |_| asked.look()).await? {
            Look::Held(held) => held,
            Look::NoTopic => {
                positions.create().await?;
                None
            }
        };
        Ok((positions, held))
    }
}

/// Runs `ask` with a client that is only asked, once a broker has answered it.
async fn asking<R: Send + 'static>(
    settings: &Settings,
    ask: impl FnOnce(&rdkafka::producer::BaseProducer<Reports>) -> Result<R, Fault> + Send + 'static,
) -> Result<R, Fault> {
    let mut config = settings.client_config();
    // Asking for a topic must not make it.
    config.set("enable.idempotence", "false").set("allow.auto.create.topics", "false");
    let reports = Reports::new(None, SetLimit::Unknown, Arc::default(), settings.transaction_timeout);
    let (producer, _) = Producer::start(config, reports, std::time::Duration::ZERO).await?;
    producer.connect(settings.send_timeout).await?;
    let client = producer.client().clone();
    blocking(move || ask(&client)).await
}
