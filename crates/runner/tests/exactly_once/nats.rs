//! Into a JetStream stream, read by async-nats: as a chain of messages, and in atomic batches.

use super::support::random::Random;
use super::{Target, killed};
use async_nats::jetstream::{self, consumer};
use deltaforge_testkit::ledger::Ledger;
use deltaforge_testkit::servers::{Nats, NatsOptions, NatsVersion};
use futures_util::StreamExt;

const STREAM: &str = "CHANGES";

impl Target for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn sink(&self) -> String {
        format!(
            "{{ type: nats, config: {{ id: n, url: '{}', stream: {STREAM}, subject: 'changes.events', exactly_once: true, \
             create_stream: {{}}, send_timeout_secs: 2, connect_timeout_secs: 2, retry: {{ initial_ms: 50, max_ms: 500 }} }} }}",
            self.url()
        )
    }

    fn feed(&self, ledger: &mut Ledger) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = async_nats::connect(self.url()).await.unwrap();
            let mut stream = jetstream::new(client).get_stream(STREAM).await.unwrap();
            let count = stream.info().await.unwrap().state.messages;
            let config = consumer::pull::OrderedConfig::default();
            let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
            for _ in 0..count {
                let message = messages.next().await.unwrap().unwrap();
                let event_id = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id"));
                let payload = std::str::from_utf8(&message.payload).unwrap();
                ledger.take_entry(event_id.unwrap().as_str(), None, payload);
            }
        });
    }

    fn disturb(&self, random: &mut Random) {
        match random.below(4) {
            0..2 => self.pause(),
            2 => {
                self.kill();
                self.restart();
            }
            _ => self.restart(),
        }
    }

    fn calm(&self) {
        self.resume();
    }
}

#[test]
fn killed_again_and_again() {
    killed(&Nats::start(&NatsOptions::default()).unwrap(), 60, false);
}

#[test]
fn killed_without_atomic_batches() {
    let older = NatsOptions { version: NatsVersion::V2_9, ..NatsOptions::default() };
    killed(&Nats::start(&older).unwrap(), 30, false);
}

#[test]
fn the_state_is_forgotten() {
    killed(&Nats::start(&NatsOptions::default()).unwrap(), 16, true);
}
