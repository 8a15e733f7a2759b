//! The client of librdkafka with the thread that takes its reports, and its end.
//!
//! **A record that was given up must not arrive after its repetition.** A sink that failed is dropped, and what has no receipt
//! is delivered again by another producer. With transactions the cluster sees to it: the other producer's
//! `init_transactions` raises the epoch, and brokers refuse whatever still comes from the old one. Without, the old
//! producer is brought to an end first: what it has queued is thrown away, what it has sent is waited for, and only then the
//! next one is made ([`Ending`]). A request that is not answered within `send_timeout_secs` ends with its connection. What
//! remains is a request whose bytes lie in the network or unread at a broker for longer than that; it can only come from a
//! broker or a network that stood still, and would repeat a contiguous piece. `exactly_once` closes that gap, too.
//!
//! The thread holds the last reference: a producer is never destroyed on a thread of the runtime, which it would block.

use super::blocking;
use super::error::{fault, of};
use super::reports::Reports;
use deltaforge_core::Fault;
use deltaforge_core::fault::{Class, Kind};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, Producer as _, PurgeConfig};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long one call of `poll` takes; it comes back at the end of it only.
const POLL: Duration = Duration::from_millis(50);
/// How long the end of a transaction that nobody wants is tried: the coordinator ends it by itself later.
pub(super) const ABORT: Duration = Duration::from_secs(5);

/// Where the transaction stands, for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    Outside = 0,
    Open = 1,
    /// The outcome of a commit is not known.
    Committing = 2,
}

/// A producer that is polled.
pub(super) struct Producer {
    client: Arc<BaseProducer<Reports>>,
    shared: Arc<Shared>,
}

struct Shared {
    stage: AtomicU8,
    ending: watch::Sender<bool>,
    /// Nothing is sent any more, and no transaction is open.
    ended: watch::Sender<bool>,
}

/// Resolves when a producer is no more.
pub(super) type Ending = watch::Receiver<bool>;

impl Producer {
    /// Makes a client; it connects by itself. The second value turns true, or its sender goes, when the producer is no more.
    ///
    /// # Errors
    /// `Config` for settings that librdkafka refuses.
    pub(super) async fn start(
        config: ClientConfig,
        reports: Reports,
        patience: Duration,
    ) -> Result<(Producer, Ending), Fault> {
        blocking(move || {
            let what = "making a client";
            let client: BaseProducer<Reports> =
                config.create_with_context(reports).map_err(|e| of(&e, what))?;
            let client = Arc::new(client);
            let shared = Arc::new(Shared {
                stage: AtomicU8::new(Stage::Outside as u8),
                ending: watch::Sender::new(false),
                ended: watch::Sender::new(false),
            });
            let (ended, gone) = watch::channel(false);
            let (polled, state) = (client.clone(), shared.clone());
            let run = move || {
                poll(polled, &state, patience);
                ended.send_replace(true);
            };
            std::thread::Builder::new()
                .name("kafka reports".into())
                .spawn(run)
                .map_err(|e| Fault::retry("kafka.no_thread", format!("no thread for a client: {e}")))?;
            Ok((Producer { client, shared }, gone))
        })
        .await
    }

    pub(super) fn client(&self) -> &Arc<BaseProducer<Reports>> {
        &self.client
    }

    pub(super) fn reports(&self) -> &Reports {
        self.client.client().context()
    }

    pub(super) fn stage(&self, stage: Stage) {
        self.shared.stage.store(stage as u8, SeqCst);
    }

    /// Why the client takes nothing any more, where it can say so.
    pub(super) fn reason(&self) -> Option<Fault> {
        reason(&self.client, &self.shared)
    }

    /// Ends the producer. An open transaction is aborted before this comes back, or is left to the coordinator.
    pub(super) async fn closed(&self) {
        self.shared.ending.send_replace(true);
        if self.shared.is(Stage::Open) {
            let mut ended = self.shared.ended.subscribe();
            let _ = tokio::time::timeout(ABORT, ended.wait_for(|ended| *ended)).await; // It ends without us as well.
        }
    }

    /// Runs a blocking call on the client. A refusal that the client meets meanwhile ends the wait at once.
    ///
    /// # Errors
    /// The call's, or the refusal.
    pub(super) async fn call<R: Send + 'static>(
        &self,
        call: impl FnOnce(&BaseProducer<Reports>) -> Result<R, Fault> + Send + 'static,
    ) -> Result<R, Fault> {
        let client = self.client.clone();
        tokio::select! {
            biased;
            fault = self.reports().failed() => Err(fault),
            result = blocking(move || call(&client)) => result,
        }
    }

    /// Waits until a broker has answered.
    ///
    /// # Errors
    /// The refusal of a broker, or `Retry` after `limit`.
    pub(super) async fn connect(&self, limit: Duration) -> Result<(), Fault> {
        let answered = self.call(move |client| Ok(client.client().fetch_cluster_id(limit).is_some())).await?;
        if answered {
            return Ok(());
        }
        let message = format!("no broker answered within {} s{}", limit.as_secs(), self.reports().trouble());
        Err(Fault::retry("kafka.unreachable", message).kind(Kind::Connect).hint(
            "check that `brokers` and the listeners that the brokers advertise can be reached from here",
        ))
    }
}

impl Shared {
    fn is(&self, stage: Stage) -> bool {
        self.stage.load(SeqCst) == stage as u8
    }
}

/// What the client itself says of why it is at its end. That another owner has fenced it must not look like trouble that
/// passes: whoever opens again after that would fence the rightful owner.
fn reason(client: &BaseProducer<Reports>, shared: &Shared) -> Option<Fault> {
    let what = "the producer came to its end";
    if let Some((code, text)) = client.client().fatal_error() {
        return Some(fault(code, what, &text));
    }
    if !shared.is(Stage::Open) {
        return None;
    }
    // In an open transaction this is always refused, and where the transaction has failed with the cause of that.
    match client.begin_transaction() {
        Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
            // Which event a refusal means is only told by the record's own report.
            Some(fault(error.code(), what, &error.string())).filter(|fault| fault.class() != Class::Data)
        }
        _ => None,
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.ending.send_replace(true);
    }
}

fn poll(client: Arc<BaseProducer<Reports>>, shared: &Shared, patience: Duration) {
    while !*shared.ending.borrow() {
        client.poll(POLL);
        if client.context().given_up.swap(false, SeqCst) {
            match reason(&client, shared) {
                Some(fault) => client.context().fail(fault),
                // The transaction failed: the commit under way tells why.
                None if shared.is(Stage::Committing) => {}
                None => client.context().fail(fault(Code::PurgeQueue, "the producer came to its end", "")),
            }
        }
    }
    end(&client, shared, patience);
    shared.ended.send_replace(true);
    // A call that still runs holds the client as well.
    while Arc::strong_count(&client) > 1 {
        client.poll(POLL);
    }
}

fn end(client: &BaseProducer<Reports>, shared: &Shared, patience: Duration) {
    let open = shared.is(Stage::Open);
    let flags = || {
        let queue = PurgeConfig::default().queue();
        // Of an open transaction nothing counts, whatever has arrived.
        if open { queue.inflight() } else { queue }
    };
    let start = Instant::now();
    while client.in_flight_count() > 0 && start.elapsed() < patience {
        client.purge(flags());
        client.poll(Duration::from_millis(5));
    }
    if open && let Err(error) = client.abort_transaction(ABORT) {
        tracing::debug!("a transaction that is not wanted is left to the coordinator: {error}");
    }
}
