//! Every metric: name, help, labels, buckets. Nothing else in the program spells a name.

use prometheus::{
    CounterVec, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, Result,
};

const LATENCY: [f64; 13] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const EVENTS: [f64; 13] =
    [1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 50000.0];
const BYTES: [f64; 10] = [
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

fn made<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

macro_rules! families {
    ($(
        $field:ident: $kind:ident $name:literal [$($label:literal),*] $(in $buckets:ident)?, $help:literal;
    )*) => {
        /// The handles of all metrics, by field.
        #[derive(Clone, Debug)]
        pub(super) struct Families {
            $(pub(super) $field: families!(@type $kind),)*
        }

        impl Families {
            /// Makes and registers all of them.
            pub(super) fn register(registry: &Registry) -> Result<Families> {
                Ok(Families {
                    $($field: made(registry, families!(@new $kind $name $help [$($label),*] $($buckets)?)?)?,)*
                })
            }
        }
    };
    (@type counter) => { IntCounterVec };
    (@type seconds) => { CounterVec };
    (@type gauge) => { GaugeVec };
    (@type count) => { IntGaugeVec };
    (@type histogram) => { HistogramVec };
    (@type one_counter) => { IntCounter };
    (@type one_count) => { IntGauge };
    (@type one_gauge) => { Gauge };
    (@type one_seconds) => { prometheus::Counter };
    (@new counter $name:literal $help:literal [$($label:literal),*]) => { IntCounterVec::new(Opts::new($name, $help), &[$($label),*]) };
    (@new seconds $name:literal $help:literal [$($label:literal),*]) => { CounterVec::new(Opts::new($name, $help), &[$($label),*]) };
    (@new gauge $name:literal $help:literal [$($label:literal),*]) => { GaugeVec::new(Opts::new($name, $help), &[$($label),*]) };
    (@new count $name:literal $help:literal [$($label:literal),*]) => { IntGaugeVec::new(Opts::new($name, $help), &[$($label),*]) };
    (@new histogram $name:literal $help:literal [$($label:literal),*] $buckets:ident) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), &[$($label),*])
    };
    (@new one_counter $name:literal $help:literal []) => { IntCounter::new($name, $help) };
    (@new one_count $name:literal $help:literal []) => { IntGauge::new($name, $help) };
    (@new one_gauge $name:literal $help:literal []) => { Gauge::new($name, $help) };
    (@new one_seconds $name:literal $help:literal []) => { prometheus::Counter::new($name, $help) };
}

families! {
    source_events: counter "deltaforge_source_events_total" ["pipeline", "source", "table"],
        "Events handed on by the source.";
    source_reconnects: counter "deltaforge_source_reconnects_total" ["pipeline", "source"],
        "Connections made again after a loss.";
    source_lag: gauge "deltaforge_source_lag_seconds" ["pipeline", "source"],
        "Age of the oldest change the source has committed and the pipeline has not received.";
    source_idle: gauge "deltaforge_source_idle_seconds" ["pipeline", "source"],
        "Time since anything arrived from the source, heartbeats not counted.";
    source_bytes: counter "deltaforge_source_bytes_total" ["pipeline", "source"], "Log bytes read.";
    source_errors: counter "deltaforge_source_errors_total" ["pipeline", "source", "kind"], "Errors of the source.";
    source_transactions: counter "deltaforge_source_transactions_total" ["pipeline", "source"],
        "Transactions with captured changes.";
    largest_transaction: count "deltaforge_source_largest_transaction_events" ["pipeline", "source"],
        "Events of the largest transaction since start.";
    retained_bytes: count "deltaforge_source_retained_bytes" ["pipeline", "source"],
        "Log the server keeps for this pipeline.";
    value_fallbacks: counter "deltaforge_value_fallbacks_total" ["pipeline", "source", "kind"],
        "Values given in another form than their type's.";

    batch_events: histogram "deltaforge_batch_events" ["pipeline"] in EVENTS, "Events per batch.";
    batch_bytes: histogram "deltaforge_batch_bytes" ["pipeline"] in BYTES, "Serialized bytes per batch.";
    stage_latency: histogram "deltaforge_stage_latency_seconds" ["pipeline", "stage", "trigger"] in LATENCY,
        "Time of a batch in a stage.";
    channel_depth: count "deltaforge_pipeline_channel_depth" ["pipeline"],
        "Events waiting between source and batching.";
    batch_commits: counter "deltaforge_batch_commit_total" ["pipeline"], "Batches whose commit policy held.";
    batch_commit_failures: counter "deltaforge_batch_commit_failed_total" ["pipeline"],
        "Attempts after which the commit policy did not hold.";
    checkpoints: counter "deltaforge_checkpoint_success_total" ["pipeline"], "Checkpoints saved.";
    checkpoint_failures: counter "deltaforge_checkpoint_failure_total" ["pipeline"], "Attempts to save that failed.";
    checkpoint_lag: gauge "deltaforge_checkpoint_lag_seconds" ["pipeline"],
        "Time since the last checkpoint while changes wait for one.";
    checkpoint_bytes: count "deltaforge_checkpoint_bytes" ["pipeline"], "Size of the last checkpoint.";
    checkpoint_lag_events: count "deltaforge_checkpoint_lag_events" ["pipeline"],
        "Events delivered since the last checkpoint.";

    sink_events: counter "deltaforge_sink_events_total" ["pipeline", "sink"], "Events acknowledged by the target.";
    sink_batches: counter "deltaforge_sink_batch_total" ["pipeline", "sink"], "Batches acknowledged.";
    sink_bytes: counter "deltaforge_sink_bytes_total" ["pipeline", "sink"], "Payload bytes acknowledged.";
    sink_latency: histogram "deltaforge_sink_latency_seconds" ["pipeline", "sink"] in LATENCY,
        "Hand-over to acknowledgement, per batch, last attempt.";
    e2e_latency: histogram "deltaforge_e2e_latency_seconds" ["pipeline", "sink"] in LATENCY,
        "Commit at the source to acknowledgement by the sink.";
    sink_failures: counter "deltaforge_sink_failures_total" ["pipeline", "sink", "kind"], "Failed attempts.";
    sink_retries: counter "deltaforge_sink_retries_total" ["pipeline", "sink"], "Attempts after the first.";
    sink_reconnects: counter "deltaforge_sink_reconnects_total" ["pipeline", "sink"],
        "Connections made again after a loss.";
    sink_depth: count "deltaforge_sink_buffer_depth" ["pipeline", "sink"],
        "Requests sent or queued in the client and not yet acknowledged.";
    client_queue: count "deltaforge_sink_client_queue_records" ["pipeline", "sink"],
        "Records in the client's queue or sent and not yet acknowledged.";
    client_bytes: count "deltaforge_sink_client_queue_bytes" ["pipeline", "sink"], "Their size.";
    client_trip: gauge "deltaforge_sink_client_round_trip_seconds" ["pipeline", "sink"],
        "Mean time from a request to its answer, over the target's servers.";
    client_retransmits: counter "deltaforge_sink_client_retransmits_total" ["pipeline", "sink"],
        "Requests that the client sent again.";
    sink_position: gauge "deltaforge_sink_position" ["pipeline", "sink"],
        "End of the last transaction that the sink has acknowledged, as a number.";
    sink_lag_events: count "deltaforge_sink_lag_events" ["pipeline", "sink"],
        "Events handed to the sink and not acknowledged.";
    sink_lag_seconds: gauge "deltaforge_sink_lag_seconds" ["pipeline", "sink"],
        "Age of the oldest event handed to the sink and not acknowledged.";
    last_delivery: gauge "deltaforge_sink_last_delivery_timestamp_seconds" ["pipeline", "sink"],
        "When the target acknowledged last.";
    dropped: counter "deltaforge_dropped_events_total" ["pipeline", "component", "reason"], "Events not delivered.";

    position: gauge "deltaforge_position" ["pipeline", "rung"], "The position as a number.";
    lag_seconds: gauge "deltaforge_lag_seconds" ["pipeline", "rung"],
        "Age of the oldest commit that has not reached the rung.";
    lag_bytes: gauge "deltaforge_lag_bytes" ["pipeline", "rung"], "Bytes of source log between head and the rung.";
    lag_events: count "deltaforge_lag_events" ["pipeline", "rung"], "Events received that have not reached the rung.";

    build_info: count "deltaforge_build_info" ["version", "commit", "target"], "1.";
    pipeline_info: count "deltaforge_pipeline_info" ["pipeline", "tenant", "source_type"], "1.";
    pipeline_status: gauge "deltaforge_pipeline_status" ["pipeline"], "1 running, 0.5 paused, 0 stopped, -1 failed.";
    pipeline_phase: count "deltaforge_pipeline_phase" ["pipeline", "phase"],
        "1 for the present phase, 0 for the others.";
    pipelines: count "deltaforge_pipelines" ["status"], "Pipelines by status.";
    dlq_entries: count "deltaforge_dlq_entries" ["pipeline"], "Dead letters stored.";
    dlq_events: counter "deltaforge_dlq_events_total" ["pipeline", "sink", "kind"], "Dead letters added.";
    buffered_bytes: count "deltaforge_memory_buffered_bytes" ["pipeline"], "Event data held.";
    memory_limit: one_count "deltaforge_memory_limit_bytes" [], "The ceiling of the process on event data.";
    backpressure: seconds "deltaforge_backpressure_seconds_total" ["pipeline", "reason"], "Time the source waited.";
    state_latency: histogram "deltaforge_state_latency_seconds" ["operation"] in LATENCY, "State store calls.";

    panics: one_counter "deltaforge_panics_total" [], "Panics caught.";
    pipelines_started: one_counter "deltaforge_pipelines_total" [], "Pipelines started since the process began.";
    running_pipelines: one_count "deltaforge_running_pipelines" [], "Pipelines with status running.";
    api_requests: counter "deltaforge_api_requests_total" ["route", "method", "status"], "REST requests.";
    api_latency: histogram "deltaforge_api_latency_seconds" ["route", "method"] in LATENCY,
        "Duration of REST requests.";
    actions: counter "deltaforge_pipeline_actions_total" ["pipeline", "action", "outcome"],
        "Changes of pipelines asked for.";

    cdc_lag: gauge "cdc_lag_seconds" ["pipeline"], "The same as deltaforge_lag_seconds{rung=\"delivered\"}.";
    events_processed: counter "events_processed_total" ["pipeline"],
        "The same as deltaforge_source_events_total, summed.";
    checkpoint_lag_events_general: count "checkpoint_lag_events" ["pipeline"],
        "The same as deltaforge_checkpoint_lag_events.";
    sink_errors: counter "sink_errors_total" ["pipeline", "sink"],
        "The same as deltaforge_sink_failures_total, summed.";
    batch_size_avg: gauge "batch_size_avg" ["pipeline"], "Mean events per batch over the last minute.";

    process_cpu: one_seconds "process_cpu_seconds_total" [], "Total user and system CPU time spent in seconds.";
    process_memory: one_count "process_resident_memory_bytes" [], "Resident memory size in bytes.";
    process_fds: one_count "process_open_fds" [], "Number of open file descriptors.";
    process_start: one_gauge "process_start_time_seconds" [], "Start time of the process since unix epoch in seconds.";
}
