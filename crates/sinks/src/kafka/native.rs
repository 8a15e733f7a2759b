//! The one call that the safe interface cannot make as it must be made.
//!
//! `BaseProducer::commit_transaction` first calls its own `flush`, which polls in steps of 100 ms and comes back only at the
//! end of a step: a commit would take a tenth of a second. librdkafka's function flushes by itself, and wakes at once
//! because a thread of its own takes the delivery reports (`producer`).
#![allow(unsafe_code, reason = "see above; one call and the reading of its answer")]

use rdkafka::bindings::{
    rd_kafka_commit_transaction, rd_kafka_error_code, rd_kafka_error_destroy, rd_kafka_error_string,
    rd_kafka_error_txn_requires_abort,
};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use std::ffi::CStr;
use std::time::Duration;

/// Why a commit failed.
pub(super) struct CommitError {
    pub(super) code: RDKafkaErrorCode,
    pub(super) text: String,
    /// The transaction is open still, and can only be aborted.
    pub(super) requires_abort: bool,
}

/// Flushes and commits.
///
/// # Errors
/// What librdkafka says.
pub(super) fn commit<C: ProducerContext>(
    producer: &BaseProducer<C>,
    limit: Duration,
) -> Result<(), CommitError> {
    let limit = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the pointer is that of a living producer, which outlives the call, and librdkafka may be called from any thread.
    // It answers null, or an error that is ours to read and to give back once, which is what happens to it here.
    unsafe {
        let error = rd_kafka_commit_transaction(producer.client().native_ptr(), limit);
        if error.is_null() {
            return Ok(());
        }
        let code = rd_kafka_error_code(error).into();
        let text = CStr::from_ptr(rd_kafka_error_string(error)).to_string_lossy().into_owned();
        let requires_abort = rd_kafka_error_txn_requires_abort(error) != 0;
        rd_kafka_error_destroy(error);
        Err(CommitError { code, text, requires_abort })
    }
}
