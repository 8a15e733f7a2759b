//! JSON lines on standard output, for a look at what happens and for pipes. Logs go to standard error.

mod pretty;

use crate::shared::common::{Common, Plan, Planned};
use crate::shared::relay::{Relay, blocking};
use async_trait::async_trait;
use deltaforge_core::config::{Fields, Report, Severity};
use deltaforge_core::fault::Kind;
use deltaforge_core::sink::{Delivered, Delivery, Receipt, Sink, SinkContext, SinkKind, SinkPlan};
use deltaforge_core::source::Names;
use deltaforge_core::{Batch, Fault};
use deltaforge_encode::Encoder;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;

/// `type: stdout`.
#[derive(Debug)]
pub struct StdoutKind;

impl SinkKind for StdoutKind {
    fn name(&self) -> &'static str {
        "stdout"
    }

    fn summary(&self) -> &'static str {
        "JSON lines on standard output"
    }

    fn parse(
        &self,
        fields: &mut Fields<'_>,
        names: &Names<'_>,
        required: Option<bool>,
    ) -> Option<Arc<dyn SinkPlan>> {
        let common = Common::parse(fields, names, required);
        let pretty = fields.bool("pretty", false);
        Some(Arc::new(Planned(StdoutPlan { common, pretty })))
    }
}

/// A parsed sink.
struct StdoutPlan {
    common: Common,
    pretty: bool,
}

#[async_trait]
impl Plan for StdoutPlan {
    fn common(&self) -> &Common {
        &self.common
    }

    async fn check(&self) -> Report {
        let mut report = Report::default();
        report.add("stdout", Severity::Ok, "standard output needs no preparation", None);
        report
    }

    async fn open(&self, context: &SinkContext) -> Result<Box<dyn Sink>, Fault> {
        let out: Box<dyn Write + Send> = Box::new(io::stdout());
        Ok(Box::new(StdoutSink::new(&self.common, self.pretty, context, out)))
    }
}

/// An open sink. The writer blocks while nobody reads, so it works in a thread of its own.
struct StdoutSink {
    encoder: Encoder,
    pretty: bool,
    scratch: Vec<u8>,
    relay: Relay<Box<dyn Write + Send>>,
}

impl StdoutSink {
    fn new(common: &Common, pretty: bool, context: &SinkContext, out: Box<dyn Write + Send>) -> StdoutSink {
        let encoder = Encoder::new(&common.envelope, context);
        let relay = Relay::new("stdout sink", out);
        StdoutSink { encoder, pretty, scratch: Vec::new(), relay }
    }

    fn encode(&mut self, batch: &Batch, lines: &mut Vec<u8>) -> u64 {
        self.encoder.prepare(batch);
        let mut bytes = 0;
        for event in batch.events() {
            if self.pretty {
                self.scratch.clear();
                self.encoder.event(&event, &mut self.scratch);
                bytes += self.scratch.len();
                pretty::indent(&self.scratch, lines);
            } else {
                let before = lines.len();
                self.encoder.event(&event, lines);
                bytes += lines.len() - before;
            }
            lines.push(b'\n');
        }
        bytes as u64
    }
}

#[async_trait]
impl Sink for StdoutSink {
    async fn deliver(&mut self, batch: Arc<Batch>, _: Delivery) -> Result<Receipt, Fault> {
        let mut lines = Vec::with_capacity(batch.estimated_bytes());
        let bytes = self.encode(&batch, &mut lines);
        self.relay
            .hand_over(move |mut out| {
                blocking(move || {
                    out.write_all(&lines).and_then(|()| out.flush()).map_err(|e| fault(&e))?;
                    Ok((out, Delivered { bytes }))
                })
            })
            .await
    }

    async fn close(mut self: Box<Self>) {
        let _ = self.relay.settled().await;
    }
}

fn fault(error: &io::Error) -> Fault {
    let message = format!("standard output cannot be written: {error}");
    match error.kind() {
        // It does not come back while this process lives.
        ErrorKind::BrokenPipe => Fault::config("stdout.closed", message)
            .kind(Kind::Target)
            .hint("nobody reads the pipe any more: start the reader and this program anew"),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Fault::retry("stdout.disk_full", message).kind(Kind::Target)
        }
        _ if error.raw_os_error() == Some(EBADF) => {
            Fault::config("stdout.closed", message).kind(Kind::Target)
        }
        _ => Fault::retry("stdout.io", message).kind(Kind::Target),
    }
}

/// Linux' number of "bad file descriptor": standard output was closed before the start.
const EBADF: i32 = 9;

#[cfg(test)]
mod tests;
