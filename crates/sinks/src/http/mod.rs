//! Requests to a web server.
//!
//! `config` reads the settings, `requests` writes the events of a batch as requests, `sign` signs them, `deliver` sends them and
//! holds the argument why nothing overtakes, `answer` says what each answer means, `check` looks before anything is sent.

mod answer;
mod check;
mod config;
mod deliver;
mod requests;
mod sign;

use crate::shared::common::{Common, Plan, Planned, check_templates};
use async_trait::async_trait;
use config::Settings;
use deltaforge_core::Fault;
use deltaforge_core::config::{Fields, Report};
use deltaforge_core::sink::{Sink, SinkContext, SinkKind, SinkPlan};
use deltaforge_core::source::Names;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// `type: http`.
#[derive(Debug)]
pub struct HttpKind;

impl SinkKind for HttpKind {
    fn name(&self) -> &'static str {
        "http"
    }

    fn summary(&self) -> &'static str {
        "HTTP requests: one event each, or a JSON array of a batch"
    }

    fn parse(
        &self,
        fields: &mut Fields<'_>,
        names: &Names<'_>,
        required: Option<bool>,
    ) -> Option<Arc<dyn SinkPlan>> {
        let settings = Arc::new(Settings::parse(fields, names, required)?);
        Some(Arc::new(Planned(HttpPlan { settings, rest: Arc::default() })))
    }
}

/// A parsed sink.
struct HttpPlan {
    settings: Arc<Settings>,
    rest: Arc<Rest>,
}

/// Until when the server wants to be left alone (`Retry-After`). Outlives the open sink, which a refused request ends.
#[derive(Debug, Default)]
struct Rest(Mutex<Option<Instant>>);

impl Rest {
    fn until(&self, at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    async fn over(&self) {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = until {
            tokio::time::sleep_until(at).await;
        }
    }
}

#[async_trait]
impl Plan for HttpPlan {
    fn common(&self) -> &Common {
        &self.settings.common
    }

    async fn check(&self) -> Report {
        check::check(&self.settings).await
    }

    /// Also makes a connection and closes it: what is wrong with the address or its certificate shows before the first event,
    /// and in words of its own.
    async fn open(&self, context: &SinkContext) -> Result<Box<dyn Sink>, Fault> {
        let settings = &self.settings;
        let filled = settings.filled.iter().map(|(_, template)| ("headers", template));
        let others = [("url", Some(&settings.target.template)), ("key", settings.key.as_ref())];
        let others = others.into_iter().filter_map(|(key, template)| Some((key, template?)));
        check_templates(others.chain(filled), &context.source)?;
        self.rest.over().await;
        check::connect(settings).await?;
        Ok(Box::new(deliver::HttpSink::new(settings.clone(), self.rest.clone(), context)?))
    }
}
