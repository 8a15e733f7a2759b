//! JSON lines in files.
//!
//! `config` reads the settings, `route` says which file an event goes to, `writer` is one open file with everything that may go
//! wrong with it, `deliver` is the sink, `check` looks before anything is written.
//!
//! **A batch's lines are on the disk, or none of them count.** Lines are appended with one write per batch and file, then synced
//! (`sync: batch`); only then the receipt resolves. What a failed write left behind is cut off again, and what a crash left
//! behind (a last line without its end) is cut off when the file is opened, which the log tells.

mod check;
mod config;
mod deliver;
mod route;
mod writer;

use crate::shared::common::{Common, Plan, Planned, check_templates};
use async_trait::async_trait;
use config::Settings;
use deltaforge_core::Fault;
use deltaforge_core::config::{Fields, Report};
use deltaforge_core::sink::{Sink, SinkContext, SinkKind, SinkPlan};
use deltaforge_core::source::Names;
use std::sync::Arc;

/// `type: file`.
#[derive(Debug)]
pub struct FileKind;

impl SinkKind for FileKind {
    fn name(&self) -> &'static str {
        "file"
    }

    fn summary(&self) -> &'static str {
        "JSON lines in files, synced before they count as delivered, rotated by size and age"
    }

    fn parse(
        &self,
        fields: &mut Fields<'_>,
        names: &Names<'_>,
        required: Option<bool>,
    ) -> Option<Arc<dyn SinkPlan>> {
        let settings = Settings::parse(fields, names, required)?;
        Some(Arc::new(Planned(FilePlan { settings: Arc::new(settings), turn: Arc::default() })))
    }
}

/// A parsed sink.
struct FilePlan {
    settings: Arc<Settings>,
    /// Held by whoever writes: a write that is still under way when its sink was dropped ends before the next sink opens.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[async_trait]
impl Plan for FilePlan {
    fn common(&self) -> &Common {
        &self.settings.common
    }

    async fn check(&self) -> Report {
        check::check(&self.settings)
    }

    async fn open(&self, context: &SinkContext) -> Result<Box<dyn Sink>, Fault> {
        check_templates([("path", &self.settings.path)], &context.source)?;
        let turn = self.turn.clone().lock_owned().await;
        Ok(Box::new(deliver::FileSink::open(self.settings.clone(), context, turn).await?))
    }
}
