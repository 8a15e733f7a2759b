//! A source and a sink that only parse.

use async_trait::async_trait;
use deltaforge_core::config::{Fields, Report, RetryPolicy};
use deltaforge_core::sink::{Sink, SinkContext, SinkKind, SinkPlan};
use deltaforge_core::source::{Names, Opened, SourceContext, SourceInfo, SourceKind, SourcePlan};
use deltaforge_core::{Fault, Position};
use std::cmp::Ordering;
use std::sync::Arc;

pub(super) struct TestSourceKind;

struct TestSource {
    id: String,
    info: SourceInfo,
}

impl SourceKind for TestSourceKind {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn summary(&self) -> &'static str {
        ""
    }

    fn parse(&self, fields: &mut Fields<'_>, names: &Names<'_>) -> Option<Arc<dyn SourcePlan>> {
        fields.planned(&["snapshot"]);
        let id = fields.text("id").unwrap_or_else(|| names.default_id.into());
        let dsn = fields.required_text("dsn");
        if dsn.as_ref().is_some_and(|dsn| !dsn.contains("://") && !dsn.contains('=')) {
            fields.form("dsn", format!("`{}` is no DSN", dsn.as_deref().unwrap_or_default()), None);
        }
        fields.texts("tables");
        fields.int("port", 5432, 1..=65535);
        RetryPolicy::parse(fields, RetryPolicy::SOURCE);
        dsn?;
        Some(Arc::new(TestSource { id, info: SourceInfo { connector: "test", fields: &[] } }))
    }
}

#[async_trait]
impl SourcePlan for TestSource {
    fn id(&self) -> &str {
        &self.id
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn retry(&self) -> RetryPolicy {
        RetryPolicy::SOURCE
    }

    async fn check(&self) -> Report {
        Report::default()
    }

    async fn open(&self, _: SourceContext) -> Result<Opened, Fault> {
        Err(Fault::bug("test.closed", "never opened"))
    }

    fn number(&self, _: &Position) -> Option<u64> {
        None
    }

    fn compare(&self, _: &Position, _: &Position) -> Option<Ordering> {
        None
    }
}

pub(super) struct TestSinkKind {
    pub(super) name: &'static str,
}

struct TestSink {
    id: String,
    required: bool,
}

impl SinkKind for TestSinkKind {
    fn name(&self) -> &'static str {
        self.name
    }

    fn summary(&self) -> &'static str {
        ""
    }

    fn parse(
        &self,
        fields: &mut Fields<'_>,
        names: &Names<'_>,
        required: Option<bool>,
    ) -> Option<Arc<dyn SinkPlan>> {
        let id = fields.text("id").unwrap_or_else(|| names.default_id.into());
        let uri = fields.required_text("uri");
        fields.text("stream");
        fields.secret("password");
        fields.text_map("headers");
        let required = required.unwrap_or_else(|| fields.bool("required", true));
        uri?;
        Some(Arc::new(TestSink { id, required }))
    }
}

#[async_trait]
impl SinkPlan for TestSink {
    fn id(&self) -> &str {
        &self.id
    }

    fn required(&self) -> bool {
        self.required
    }

    fn retry(&self, _: bool) -> RetryPolicy {
        RetryPolicy::REQUIRED_SINK
    }

    async fn check(&self) -> Report {
        Report::default()
    }

    async fn open(&self, _: &SinkContext) -> Result<Box<dyn Sink>, Fault> {
        Err(Fault::bug("test.closed", "never opened"))
    }
}
