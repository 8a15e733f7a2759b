//! NATS: JetStream, or core NATS without a stream.
//!
//! `config` reads the settings, `subject` is about names, `connection` makes a connection and logs in, `protocol` reads what a
//! server sends. `message` writes events as messages, `stream` asks JetStream. `pump` is the road of events and holds the
//! argument why nothing is lost, doubled or disordered; `exactly` is what an exactly-once sink leaves behind and finds again;
//! `deliver` puts them together. `error` says what each refusal means, `check` looks before anything is written.
//!
//! The client is our own, not the one of the ecosystem: `docs/src/internals/decisions/0008-nats-client.md`.

mod answer;
mod check;
mod config;
mod connection;
mod deliver;
mod error;
mod exactly;
mod message;
mod protocol;
mod pump;
mod stream;
mod subject;

use crate::shared::common::{Common, Plan, Planned, check_templates};
use answer::Acknowledgements;
use async_trait::async_trait;
use config::Settings;
use connection::Connection;
use deliver::{Exactly, Handle, NatsSink};
use deltaforge_core::config::{Fields, Report};
use deltaforge_core::fault::Kind;
use deltaforge_core::sink::{Held, Sink, SinkContext, SinkKind, SinkPlan};
use deltaforge_core::source::Names;
use deltaforge_core::task::spawn;
use deltaforge_core::{EventId, Fault};
use exactly::{Last, Memory, Writer};
use message::{Limit, Messages};
use pump::{Outcome, Patience, Pump, Style};
use std::sync::Arc;
use stream::Facts;
use tokio::sync::{mpsc, watch};

/// `type: nats`.
#[derive(Debug)]
pub struct NatsKind;

impl SinkKind for NatsKind {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn summary(&self) -> &'static str {
        "NATS: a JetStream stream, or core NATS without one"
    }

    fn templates(&self) -> &'static [&'static str] {
        &["subject", "key", "headers"]
    }

    fn parse(
        &self,
        fields: &mut Fields<'_>,
        names: &Names<'_>,
        required: Option<bool>,
    ) -> Option<Arc<dyn SinkPlan>> {
        let settings = Settings::parse(fields, names, required)?;
        Some(Arc::new(Planned(NatsPlan { settings, memory: Arc::default() })))
    }
}

/// A parsed sink.
struct NatsPlan {
    settings: Settings,
    memory: Arc<Memory>,
}

#[async_trait]
impl Plan for NatsPlan {
    fn common(&self) -> &Common {
        &self.settings.common
    }

    fn exactly_once(&self) -> bool {
        self.settings.exactly_once
    }

    /// A position travels in a message's headers.
    fn stores_ends_alone(&self) -> bool {
        false
    }

    async fn check(&self) -> Report {
        check::check(&self.settings).await
    }

    async fn open(&self, context: &SinkContext) -> Result<Box<dyn Sink>, Fault> {
        let settings = &self.settings;
        let templates = [("subject", Some(&settings.subject)), ("key", settings.key.as_ref())];
        let headers = settings.headers.iter().map(|(_, template)| ("headers", template));
        let named = templates.into_iter().filter_map(|(key, t)| Some((key, t?)));
        check_templates(named.chain(headers), &context.source)?;
        let limit = settings.connect_timeout;
        let name = format!("deltaforge:{}/{}", context.pipeline, self.common().id);
        let mut connection = connection::connect(settings, &name).await?;
        let address = connection.address.clone();
        let prepared = tokio::time::timeout(limit, self.prepare(&mut connection, context)).await;
        let (style, limit, exactly) =
            prepared.unwrap_or_else(|_| Err(error::timed_out(&address, "connect_timeout_secs", limit)))?;
        let messages = Messages::new(settings, context, exactly.as_ref().map(|e| e.writer.lines()));
        let patience = Patience { send: settings.send_timeout, batch: settings.batch_timeout };
        let (jobs, taken) = mpsc::channel(1);
        let (publish, outcome) = watch::channel(Outcome::default());
        let pump = Pump::new(connection, stream::new_inbox(), style, patience);
        let max_payload = pump.max_payload();
        let task = spawn("nats pump", pump.run(taken, publish));
        let handle = Handle { address, jobs, outcome, task, max_payload };
        Ok(Box::new(NatsSink { handle, messages, limit, exactly, begun: 0, midway: false }))
    }
}

impl NatsPlan {
    /// Looks at the stream, and makes it if that is wanted.
    async fn prepare(
        &self,
        connection: &mut Connection,
        context: &SinkContext,
    ) -> Result<(Style, Option<Limit>, Option<Exactly>), Fault> {
        let settings = &self.settings;
        let Some(name) = &settings.stream else { return Ok((Style::Core, None, None)) };
        let facts = self.stream(connection, name).await?;
        look_at_stream(settings, name, &facts)?;
        self.memory.saw_stream();
        let limit = usize::try_from(facts.max_msg_size).ok();
        let limit = limit.map(|bytes| Limit { bytes, setting: "the stream's max_msg_size" });
        let acknowledgements = Acknowledgements::of(name);
        if !settings.exactly_once {
            return Ok((Style::Chained { acknowledgements }, limit, None));
        }
        let writer = Writer {
            stream: name.clone(),
            sink: format!("{}/{}", context.pipeline, self.settings.common.id),
            writer: uuid::Uuid::new_v4().simple().to_string(),
            memory: self.memory.clone(),
        };
        let recovered: Option<Held> = match writer.read(connection).await?.0 {
            Last::Ours { held, .. } | Last::Buried { held } => Some(held),
            Last::Nothing => None,
        };
        let atomic = facts.allow_atomic && self.memory.may_use_atomic_batches();
        let style = Style::Exactly { acknowledgements, writer: writer.clone(), atomic };
        let last = EventId::default();
        Ok((style, limit, Some(Exactly { writer, recovered, taken: false, before: None, inside: 0, last })))
    }

    async fn stream(&self, connection: &mut Connection, name: &str) -> Result<Facts, Fault> {
        let seen = self.memory.has_seen_stream();
        match stream::info(connection, name).await {
            Ok(Some(facts)) => return Ok(facts),
            // A stream that was there once and is not now: made anew by us it would be empty without a word.
            Ok(None) if seen => return Err(exactly::stream_gone(&connection.address, name)),
            Ok(None) => {}
            // Nobody answers, as the servers with JetStream are away: it was on.
            Err(fault) if seen && fault.code() == "nats.jetstream_disabled" => {
                return Err(exactly::stream_gone(&connection.address, name));
            }
            Err(fault) => return Err(fault),
        }
        if let Some(new) = &self.settings.create_stream {
            stream::create(connection, &self.settings, name, new).await?;
            if let Some(facts) = stream::info(connection, name).await? {
                return Ok(facts);
            }
        }
        let message = format!("{} has no stream `{name}`", connection.address);
        Err(Fault::config("nats.stream_not_found", message).kind(Kind::Rejected).hint(format!(
            "nats stream add {name} --subjects '{}', or let `create_stream` do it",
            self.settings.subject_filter
        )))
    }
}

/// Refuses a stream that cannot take what the sink will send.
fn look_at_stream(settings: &Settings, name: &str, facts: &Facts) -> Result<(), Fault> {
    let refuse = |code, what: String, hint: String| {
        Err(Fault::config(code, format!("the stream `{name}` {what}")).kind(Kind::Rejected).hint(hint))
    };
    if facts.mirror {
        return refuse(
            "nats.stream_is_mirror",
            "is a mirror and takes nothing itself".into(),
            "name the stream that it mirrors".into(),
        );
    }
    let filter = &settings.subject_filter;
    if !facts.subjects.iter().any(|subject| subject::takes(subject, filter, false)) {
        let what = format!("takes none of the subjects `{filter}`");
        let hint = format!("nats stream edit {name} --subjects '{filter}', or change `subject`");
        return refuse("nats.subject_not_taken", what, hint);
    }
    if settings.exactly_once && facts.retention != "limits" {
        let what =
            format!("has the retention `{}`: what is read is deleted, the position with it", facts.retention);
        return refuse(
            "nats.retention",
            what,
            "exactly_once needs a stream with `--retention limits`".into(),
        );
    }
    Ok(())
}
