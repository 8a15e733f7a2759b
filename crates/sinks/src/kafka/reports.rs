//! What the client reports, and the receipts that wait for it.
//!
//! Each record carries its batch's number and its event's index as its opaque word, so that a report finds its batch without
//! an allocation. A batch is resolved once all its records are reported and, in a transaction, the commit is; batches
//! resolve in order. A failed record fails its batch and every later one (those before it may still succeed), and nothing is
//! taken any more.

use super::error::{fault, fenced_or_late, refusal};
use deltaforge_core::metrics::SinkMetrics;
use deltaforge_core::sink::Delivered;
use deltaforge_core::{Batch, Fault};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{NoCustomPartitioner, ProducerContext};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientContext, Timestamp};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// The index of a record that belongs to no event: the position.
pub(super) const NO_EVENT: u32 = u32::MAX;

const _: () = assert!(usize::BITS >= 64, "an opaque word holds two numbers of 32 bits");

/// The word that a record carries.
pub(super) fn opaque(batch: u32, event: u32) -> usize {
    ((batch as usize) << 32) | event as usize
}

/// A broker refused a set of records for its size, while it is not known which record is too large.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum SetLimit {
    /// Nothing was refused.
    #[default]
    Unknown,
    /// One of this topic was; its limit is not yet asked for.
    Refused(String),
    /// Sets are kept below the limit of this topic, so a set that is refused is one record.
    Bytes(String, usize),
    /// Each record is a set of its own.
    Single,
}

/// What the poll thread is told by librdkafka.
pub(super) struct Reports {
    window: Mutex<Window>,
    changed: Notify,
    metrics: Option<SinkMetrics>,
    retransmits: Mutex<u64>,
    /// The last trouble with a connection, for messages.
    trouble: Mutex<String>,
    /// The client has given up what it held; the thread asks why.
    pub(super) given_up: AtomicBool,
    limit: SetLimit,
    learned: Arc<Mutex<SetLimit>>,
    /// When the open transaction began, and how long one may be open.
    begun: Mutex<Option<Instant>>,
    allowed: Duration,
}

#[derive(Default)]
struct Window {
    /// The number of the first batch in `open`.
    first: u32,
    open: VecDeque<Open>,
    fault: Option<Fault>,
}

struct Open {
    batch: Arc<Batch>,
    /// Records not yet reported.
    outstanding: usize,
    /// Whether a commit must come before it counts.
    uncommitted: bool,
    bytes: u64,
    /// A record of it was refused for the sake of another record, whose own report tells the reason.
    refused: bool,
    done: oneshot::Sender<Result<Delivered, Fault>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reports {
    pub(super) fn new(
        metrics: Option<SinkMetrics>,
        limit: SetLimit,
        learned: Arc<Mutex<SetLimit>>,
        allowed: Duration,
    ) -> Reports {
        Reports {
            window: Mutex::default(),
            changed: Notify::new(),
            metrics,
            retransmits: Mutex::default(),
            trouble: Mutex::default(),
            given_up: AtomicBool::new(false),
            limit,
            learned,
            begun: Mutex::default(),
            allowed,
        }
    }

    /// A transaction begins.
    pub(super) fn begun(&self) {
        *locked(&self.begun) = Some(Instant::now());
    }

    /// The transaction is committed.
    pub(super) fn ended(&self) {
        *locked(&self.begun) = None;
    }

    /// Tells being fenced from having been ended for the transaction's age.
    pub(super) fn judged(&self, fault: Fault) -> Fault {
        let open = locked(&self.begun).map(|begun| begun.elapsed());
        fenced_or_late(fault, open, self.allowed)
    }

    /// Adds a batch before its first record is produced.
    pub(super) fn open(
        &self,
        batch: Arc<Batch>,
        records: usize,
        commit: bool,
        bytes: u64,
    ) -> (u32, oneshot::Receiver<Result<Delivered, Fault>>) {
        let (done, receipt) = oneshot::channel();
        let mut window = locked(&self.window);
        let number = window.first.wrapping_add(window.open.len() as u32);
        if let Some(fault) = window.fault.clone() {
            let _ = done.send(Err(fault));
            return (number, receipt);
        }
        window.open.push_back(Open {
            batch,
            outstanding: records,
            uncommitted: commit,
            bytes,
            refused: false,
            done,
        });
        window.resolve();
        (number, receipt)
    }

    /// The batch's transaction was committed.
    pub(super) fn committed(&self, number: u32) {
        let mut window = locked(&self.window);
        // What comes before it took effect with it.
        let upto = number.wrapping_sub(window.first) as usize;
        window.open.iter_mut().take(upto + 1).for_each(|open| open.uncommitted = false);
        window.resolve();
        drop(window);
        self.changed.notify_waiters();
    }

    /// Everything that waits fails, and nothing more is taken.
    pub(super) fn fail(&self, fault: Fault) {
        let fault = self.judged(fault);
        let mut window = locked(&self.window);
        window.fail_from(0, fault);
        drop(window);
        self.changed.notify_waiters();
    }

    /// This batch and every later one fails, and nothing more is taken.
    pub(super) fn fail_from(&self, number: u32, fault: Fault) {
        let mut window = locked(&self.window);
        let at = number.wrapping_sub(window.first) as usize;
        window.fail_from(at, fault);
        drop(window);
        self.changed.notify_waiters();
    }

    /// What failed first.
    pub(super) fn fault(&self) -> Option<Fault> {
        locked(&self.window).fault.clone()
    }

    /// Waits for a fault.
    pub(super) async fn failed(&self) -> Fault {
        self.until(|window| window.fault.clone()).await
    }

    /// Waits until nothing is open any more.
    pub(super) async fn settled(&self) -> Result<(), Fault> {
        let settled = |window: &Window| match window.open.is_empty() {
            true => Some(window.fault.clone().map_or(Ok(()), Err)),
            false => None,
        };
        self.until(settled).await
    }

    /// Waits until `answer` has one.
    async fn until<T>(&self, answer: impl Fn(&Window) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(answer) = answer(&locked(&self.window)) {
                return answer;
            }
            changed.await;
        }
    }

    /// Resolves with the next report. To be enabled before what is waited for is looked at.
    pub(super) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// What is known of the connections' trouble: `: TEXT`, or nothing.
    pub(super) fn trouble(&self) -> String {
        let trouble = locked(&self.trouble);
        if trouble.is_empty() { String::new() } else { format!(": {trouble}") }
    }

    fn report(&self, message: &impl Message, error: Option<&KafkaError>, opaque: usize) {
        let (number, event) = ((opaque >> 32) as u32, opaque as u32);
        let mut window = locked(&self.window);
        let at = number.wrapping_sub(window.first) as usize;
        let Some(open) = window.open.get_mut(at) else { return };
        match error {
            None => {
                open.outstanding = open.outstanding.saturating_sub(1);
                if at == 0 && open.outstanding == 0 {
                    window.resolve();
                }
            }
            Some(error) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                // Only a consequence: the reason is asked for by the thread, or told by the commit, and fails all.
                if matches!(code, Code::Fatal | Code::PurgeQueue | Code::PurgeInflight) {
                    self.given_up.store(true, Relaxed);
                    return;
                }
                if code == Code::InvalidDifferentRecord {
                    open.refused = true;
                    // The culprit may have come first.
                    if let Some(fault) = window.fault.clone() {
                        window.fail_from(at, fault);
                    }
                } else {
                    let event = open.batch.event(event as usize).map(|event| event.id());
                    let fault = self.judged(self.refused(code, message, event));
                    let at = window.open.iter().take(at).position(|open| open.refused).unwrap_or(at);
                    window.fail_from(at, fault);
                }
            }
        }
        drop(window);
        self.changed.notify_waiters();
    }

    fn refused(&self, code: Code, message: &impl Message, event: Option<deltaforge_core::EventId>) -> Fault {
        let topic = message.topic();
        let too_large = matches!(code, Code::MessageSizeTooLarge | Code::MessageBatchTooLarge);
        let alone = match &self.limit {
            SetLimit::Single => true,
            SetLimit::Bytes(known, _) => known == topic,
            _ => false,
        };
        if too_large && !alone {
            *locked(&self.learned) = match self.limit {
                SetLimit::Unknown => SetLimit::Refused(topic.to_owned()),
                _ => SetLimit::Single,
            };
            let message = format!("topic `{topic}` refuses a set of records for its size");
            return Fault::retry("kafka.batch_too_large", message)
                .kind(deltaforge_core::fault::Kind::TooLarge)
                .hint("the records are sent again in smaller sets; nothing to do");
        }
        let what = format!("topic `{topic}` did not take a record");
        let reason = if code == Code::MessageTimedOut { self.timed_out() } else { String::new() };
        let fault = fault(code, &what, &reason);
        match (fault.class(), event) {
            (deltaforge_core::Class::Data, Some(event)) => fault.event(event),
            _ => fault,
        }
    }

    fn timed_out(&self) -> String {
        format!("no acknowledgement within send_timeout_secs{}", self.trouble())
    }
}

impl Window {
    fn resolve(&mut self) {
        while self.open.front().is_some_and(|open| open.outstanding == 0 && !open.uncommitted) {
            if let Some(open) = self.open.pop_front() {
                let _ = open.done.send(Ok(Delivered { bytes: open.bytes })); // Nobody may be interested any more.
                self.first = self.first.wrapping_add(1);
            }
        }
    }

    fn fail_from(&mut self, at: usize, fault: Fault) {
        for open in self.open.drain(at.min(self.open.len())..) {
            let _ = open.done.send(Err(fault.clone()));
        }
        self.fault.get_or_insert(fault);
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::debug!(target: "librdkafka", "{fac}: {message}");
            }
            // What matters comes as a fault as well, with the pipeline's name.
            _ => tracing::info!(target: "librdkafka", "{fac}: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        if code == Code::Fatal {
            self.given_up.store(true, Relaxed);
            return;
        }
        if code != Code::AllBrokersDown {
            *locked(&self.trouble) = reason.chars().take(200).collect();
        }
        if let Some(fault) = refusal(code, reason) {
            self.fail(fault);
        }
    }

    fn stats(&self, statistics: Statistics) {
        let Some(metrics) = &self.metrics else { return };
        let trips = statistics.brokers.values().filter_map(|broker| broker.rtt.as_ref());
        let (mut sum, mut count) = (0, 0);
        for trip in trips.filter(|trip| trip.cnt > 0) {
            sum += trip.avg;
            count += 1;
        }
        let micros = if count > 0 { Some(sum as f64 / f64::from(count)) } else { None };
        let total = statistics.brokers.values().map(|broker| broker.txretries).sum::<u64>();
        let mut known = locked(&self.retransmits);
        let more = total.saturating_sub(*known);
        *known = total;
        metrics.client(statistics.msg_cnt, statistics.msg_size, micros.map(|us| us / 1e6), more);
    }
}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        match result {
            Ok(message) => self.report(message, None, opaque),
            Err((error, message)) => self.report(message, Some(error), opaque),
        }
    }
}

/// What `BaseRecord` takes; 0 stands for "now" there.
pub(super) fn timestamp(millis: i64) -> i64 {
    Timestamp::CreateTime(millis.max(1)).to_millis().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltaforge_core::batch::{BatchBuilder, Limits};
    use futures_util::FutureExt;
    use rdkafka::message::OwnedMessage;

    fn batch() -> Arc<Batch> {
        let limits = Limits { max_events: 1, max_bytes: usize::MAX, respect_source_tx: true };
        let mut builder = BatchBuilder::new(limits, None, 0);
        let name = deltaforge_core::schema::TableName::in_schema("d", "s", "t");
        let table = builder.schema(Arc::new(deltaforge_core::TableSchema::new(name, vec![], vec![], vec![])));
        builder.begin(
            deltaforge_core::batch::TransactionHead { id: "1", ts_us: 1, ts_exact: true },
            0,
            |_| {},
        );
        builder.event(deltaforge_core::Op::Create, table).finish(deltaforge_core::EventId([7; 16]));
        builder.commit(|out| out.extend_from_slice(b"{}"));
        Arc::new(builder.cut().unwrap())
    }

    fn reports() -> Reports {
        Reports::new(None, SetLimit::Single, Arc::default(), Duration::from_secs(600))
    }

    fn tell(reports: &Reports, number: u32, event: u32, error: Option<Code>) {
        let message = OwnedMessage::new(None, None, "t".into(), Timestamp::NotAvailable, 0, 0, None);
        let error = error.map(KafkaError::MessageProduction);
        reports.report(&message, error.as_ref(), opaque(number, event));
    }

    #[test]
    fn receipts_come_in_order_and_after_the_commit() {
        let reports = reports();
        let (first, mut one) = reports.open(batch(), 2, false, 5);
        let (second, mut two) = reports.open(batch(), 1, true, 6);
        let (_, mut three) = reports.open(batch(), 0, false, 0);
        tell(&reports, second, 0, None);
        tell(&reports, first, 0, None);
        assert!(one.try_recv().is_err() && two.try_recv().is_err(), "a record is missing");
        tell(&reports, first, 0, None);
        assert_eq!(one.try_recv().unwrap().unwrap().bytes, 5);
        assert!(two.try_recv().is_err() && three.try_recv().is_err(), "not committed");
        reports.committed(second);
        assert_eq!(two.try_recv().unwrap().unwrap().bytes, 6);
        assert_eq!(three.try_recv().unwrap().unwrap().bytes, 0);
        assert!(reports.settled().now_or_never().unwrap().is_ok());
    }

    #[test]
    fn a_failed_record_fails_its_batch_and_what_comes_after_it() {
        let reports = reports();
        let (first, mut one) = reports.open(batch(), 1, false, 0);
        let (second, mut two) = reports.open(batch(), 1, false, 0);
        let (third, mut three) = reports.open(batch(), 1, false, 0);
        tell(&reports, third, 0, None);
        tell(&reports, second, 0, Some(Code::MessageSizeTooLarge));
        for failed in [&mut two, &mut three] {
            let fault = failed.try_recv().unwrap().unwrap_err();
            assert_eq!(
                (fault.code(), fault.event_id()),
                ("kafka.event_too_large", Some("07070707-0707-0707-0707-070707070707"))
            );
        }
        assert!(one.try_recv().is_err(), "it may still succeed");
        tell(&reports, first, 0, None);
        assert!(one.try_recv().unwrap().is_ok());
        let (_, mut later) = reports.open(batch(), 0, false, 0);
        assert!(later.try_recv().unwrap().is_err(), "nothing is taken after a failure");
    }

    #[test]
    fn the_record_that_spoiled_its_set_is_blamed() {
        for culprit_first in [false, true] {
            let reports = reports();
            let (before, mut zero) = reports.open(batch(), 1, false, 0);
            let (first, mut one) = reports.open(batch(), 1, false, 0);
            let (second, mut two) = reports.open(batch(), 2, false, 0);
            let others = |reports: &Reports| {
                tell(reports, first, 0, Some(Code::InvalidDifferentRecord));
                tell(reports, second, 1, Some(Code::InvalidDifferentRecord));
            };
            if !culprit_first {
                others(&reports);
                assert!(one.try_recv().is_err() && two.try_recv().is_err(), "the reason follows");
            }
            tell(&reports, second, 0, Some(Code::InvalidRecord));
            if culprit_first {
                others(&reports);
            }
            for failed in [&mut one, &mut two] {
                let fault = failed.try_recv().unwrap().unwrap_err();
                assert_eq!(fault.code(), "kafka.record_refused");
                assert!(fault.event_id().is_some());
            }
            tell(&reports, before, 0, None);
            assert!(zero.try_recv().unwrap().is_ok(), "its records are stored");
        }
    }

    #[test]
    fn what_was_given_up_with_the_client_tells_no_reason() {
        let reports = reports();
        let (number, mut receipt) = reports.open(batch(), 1, false, 0);
        tell(&reports, number, 0, Some(Code::PurgeQueue));
        assert!(receipt.try_recv().is_err() && reports.given_up.load(Relaxed));
        reports.fail(fault(Code::ProducerFenced, "x", ""));
        assert_eq!(receipt.try_recv().unwrap().unwrap_err().class(), deltaforge_core::Class::Fenced);
    }
}
