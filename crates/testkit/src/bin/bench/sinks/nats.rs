//! NATS with JetStream, and its ceiling: prebuilt messages published with a window of acknowledgements.

use super::{SAMPLE, Target};
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context, stream};
use async_nats::{HeaderMap, HeaderName};
use bytes::Bytes;
use deltaforge_testkit::servers::{Nats, NatsOptions};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Messages not yet acknowledged.
const WINDOW: usize = 4096;
const ID: &str = "Nats-Msg-Id";
const STREAM: &str = "Nats-Expected-Stream";
/// What a message demands of the stream, which would be refused in another place.
const DEMANDS: [&str; 2] = ["Nats-Expected-Last", "Nats-Batch"];

pub(crate) struct IntoNats {
    nats: Nats,
    runtime: Runtime,
    context: Context,
    sample: Vec<(HeaderMap, Bytes)>,
}

impl IntoNats {
    pub(crate) fn start() -> IntoNats {
        let nats = Nats::start(&NatsOptions::default()).expect("NATS starts");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let client = runtime.block_on(async_nats::connect(nats.url())).expect("NATS answers");
        // The context starts a task.
        let entered = runtime.enter();
        let context = jetstream::context::ContextBuilder::new().timeout(Duration::from_secs(60));
        let context = context.max_ack_inflight(2 * WINDOW).build(client);
        drop(entered);
        IntoNats { nats, runtime, context, sample: Vec::new() }
    }

    async fn publish(&self, run: &str, rows: u64) {
        let mut window: VecDeque<PublishAckFuture> = VecDeque::with_capacity(WINDOW);
        let subject = subject(run);
        for (number, (headers, payload)) in (0..rows).zip(self.sample.iter().cycle()) {
            if window.len() == WINDOW
                && let Some(first) = window.pop_front()
            {
                first.await.expect("an acknowledgement");
            }
            let mut headers = headers.clone();
            // Each its own, as long as ours: JetStream drops what it has seen.
            headers.insert(ID, format!("{number:036}"));
            headers.insert(STREAM, run);
            let message = PublishMessage::build().headers(headers).payload(payload.clone());
            window.push_back(self.context.send_publish(subject.clone(), message).await.expect("published"));
        }
        for last in window {
            last.await.expect("an acknowledgement");
        }
    }
}

fn subject(run: &str) -> String {
    format!("{run}.events")
}

impl Target for IntoNats {
    fn name(&self) -> String {
        "nats".into()
    }

    fn title(&self) -> String {
        "NATS".into()
    }

    fn about(&self) -> String {
        let version = self.context.client().server_info().version;
        format!("NATS {version}, one server, a stream in files with the defaults, without atomic batches")
    }

    fn pid(&self) -> u32 {
        self.nats.pid()
    }

    fn prepare(&self, run: &str) {
        let config =
            stream::Config { name: run.into(), subjects: vec![subject(run)], ..stream::Config::default() };
        self.runtime.block_on(self.context.create_stream(config)).expect("the stream is made");
    }

    fn sink(&self, run: &str, exactly_once: bool) -> String {
        let (url, subject) = (self.nats.url(), subject(run));
        format!(
            "{{type: nats, config: {{id: {run}, url: \"{url}\", stream: {run}, subject: {subject}, \
             exactly_once: {exactly_once}}}}}"
        )
    }

    fn held(&self, run: &str) -> u64 {
        let stream = self.runtime.block_on(self.context.get_stream(run)).expect("the stream is there");
        stream.cached_info().state.messages
    }

    fn clear(&self, run: &str) {
        self.runtime.block_on(self.context.delete_stream(run)).expect("the stream is deleted");
    }

    fn sample(&mut self, run: &str) {
        self.sample = self.runtime.block_on(async {
            let stream = self.context.get_stream(run).await.expect("the stream is there");
            let count = stream.cached_info().state.messages.min(SAMPLE as u64);
            let mut sample = Vec::new();
            for sequence in 1..=count {
                let message = stream.get_raw_message(sequence).await.expect("the message is there");
                sample.push((kept(&message.headers), message.payload));
            }
            sample
        });
    }

    fn filler(&self, run: &str, rows: u64, _: u64) -> Box<dyn FnOnce() + '_> {
        let run = run.to_owned();
        Box::new(move || self.runtime.block_on(self.publish(&run, rows)))
    }
}

/// The headers without those that hold for one place in the stream only.
fn kept(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, values) in headers.iter() {
        let text: &str = name.as_ref();
        let demands = DEMANDS.iter().any(|demand| text.starts_with(demand));
        if demands {
            continue;
        }
        values.iter().for_each(|value| kept.append(HeaderName::clone(name), value.clone()));
    }
    kept
}
