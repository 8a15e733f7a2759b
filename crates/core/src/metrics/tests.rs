use super::*;
use crate::fault::Kind;
use crate::source::SourceStats;
use std::sync::atomic::Ordering::Relaxed;

const PHASES: &[&str] = &["starting", "streaming"];
const ABOUT: PipelineAbout<'_> = PipelineAbout {
    name: "p",
    tenant: "acme",
    source_type: "postgres",
    source: "p-postgres",
    sinks: &["p-redis", "p-stdout"],
    phases: PHASES,
};

fn metrics() -> Metrics {
    Metrics::new(BuildInfo { version: "1.0.0", commit: "abc", target: "t" }).unwrap()
}

/// The names, types and labels of the specification that this release feeds: `type name labels`.
const SPECIFIED: &str = "
c deltaforge_source_events_total pipeline source table
c deltaforge_source_reconnects_total pipeline source
g deltaforge_source_lag_seconds pipeline source
g deltaforge_source_idle_seconds pipeline source
h deltaforge_batch_events pipeline
h deltaforge_batch_bytes pipeline
h deltaforge_stage_latency_seconds pipeline stage trigger
g deltaforge_pipeline_channel_depth pipeline
c deltaforge_batch_commit_total pipeline
c deltaforge_batch_commit_failed_total pipeline
c deltaforge_checkpoint_success_total pipeline
c deltaforge_checkpoint_failure_total pipeline
g deltaforge_checkpoint_lag_seconds pipeline
g deltaforge_checkpoint_bytes pipeline
c deltaforge_sink_events_total pipeline sink
c deltaforge_sink_batch_total pipeline sink
h deltaforge_sink_latency_seconds pipeline sink
c deltaforge_sink_failures_total kind pipeline sink
g deltaforge_sink_buffer_depth pipeline sink
c deltaforge_dropped_events_total component pipeline reason
g deltaforge_dlq_entries pipeline
c deltaforge_dlq_events_total kind pipeline sink
c deltaforge_panics_total
c deltaforge_pipelines_total
g deltaforge_running_pipelines
c deltaforge_api_requests_total method route status
h deltaforge_api_latency_seconds method route
c deltaforge_pipeline_actions_total action outcome pipeline
g cdc_lag_seconds pipeline
c events_processed_total pipeline
g checkpoint_lag_events pipeline
c sink_errors_total pipeline sink
g batch_size_avg pipeline
g deltaforge_position pipeline rung
g deltaforge_lag_seconds pipeline rung
g deltaforge_lag_bytes pipeline rung
g deltaforge_lag_events pipeline rung
g deltaforge_build_info commit target version
g deltaforge_pipeline_info pipeline source_type tenant
g deltaforge_pipeline_status pipeline
g deltaforge_pipeline_phase phase pipeline
g deltaforge_pipelines status
h deltaforge_e2e_latency_seconds pipeline sink
c deltaforge_source_bytes_total pipeline source
c deltaforge_source_errors_total kind pipeline source
c deltaforge_source_transactions_total pipeline source
g deltaforge_source_largest_transaction_events pipeline source
g deltaforge_source_retained_bytes pipeline source
c deltaforge_value_fallbacks_total kind pipeline source
g deltaforge_checkpoint_lag_events pipeline
c deltaforge_sink_bytes_total pipeline sink
c deltaforge_sink_retries_total pipeline sink
c deltaforge_sink_reconnects_total pipeline sink
g deltaforge_sink_last_delivery_timestamp_seconds pipeline sink
g deltaforge_sink_client_queue_bytes pipeline sink
g deltaforge_sink_client_queue_records pipeline sink
c deltaforge_sink_client_retransmits_total pipeline sink
g deltaforge_sink_client_round_trip_seconds pipeline sink
g deltaforge_sink_lag_events pipeline sink
g deltaforge_sink_lag_seconds pipeline sink
g deltaforge_sink_position pipeline sink
g deltaforge_memory_buffered_bytes pipeline
g deltaforge_memory_limit_bytes
c deltaforge_backpressure_seconds_total pipeline reason
h deltaforge_state_latency_seconds operation
c process_cpu_seconds_total
g process_resident_memory_bytes
g process_open_fds
g process_start_time_seconds
";

/// What is rendered, in the form of [`SPECIFIED`].
fn families(text: &str) -> Vec<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut families: Vec<String> = types
        .map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            let of_family = |line: &&str| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']) || rest.starts_with("_count"))
            };
            let series = text.lines().find(of_family).unwrap_or_else(|| panic!("{name} has no series"));
            let labels = series.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
            let mut names: Vec<_> =
                labels.split(',').filter_map(|label| label.split_once('=')).map(|(n, _)| n).collect();
            names.sort_unstable();
            [&kind[..1], name].into_iter().chain(names).collect::<Vec<_>>().join(" ")
        })
        .collect();
    families.sort();
    families
}

fn known_sample() -> Sample<'static> {
    let rung = |position, lag_events| Rung { position: Some(position), lag_seconds: Some(1.5), lag_events };
    Sample {
        now_ms: 10_000,
        head: Some(1000),
        received: rung(900, 0),
        delivered: rung(800, 3),
        durable: rung(500, 7),
        checkpoint_lag_seconds: 2.0,
        checkpoint_lag_events: 4,
        waiting_events: 5,
        buffered_bytes: 6,
        sinks: &[
            SinkSample { in_flight: 1, position: Some(800), lag_events: 3, lag_seconds: 1.5 },
            SinkSample { in_flight: 2, position: Some(700), lag_events: 4, lag_seconds: 2.5 },
        ],
    }
}

fn value(text: &str, series: &str) -> Option<f64> {
    let line =
        text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit_once(' ').unwrap().1.parse().ok()
}

#[test]
fn names_types_and_labels_are_the_specified_ones() {
    let metrics = metrics();
    let pipeline = metrics.pipeline(&ABOUT);
    let stats = SourceStats::default();
    stats.retained_bytes.store(1, Relaxed);
    pipeline.sample(&known_sample(), &stats);
    pipeline.table("public.orders").add(1);
    pipeline.dead_letter_stored("p-stdout", "route", 1);
    metrics.api_request("/pipelines", "GET", 200, Duration::from_millis(2));
    metrics.action("p", Action::Pause, true);
    let mut specified: Vec<_> =
        SPECIFIED.lines().filter(|line| !line.is_empty()).map(str::to_string).collect();
    specified.sort();
    assert_eq!(families(&metrics.render()), specified);
}

#[test]
fn buckets_are_the_specified_ones() {
    let metrics = metrics();
    metrics.pipeline(&ABOUT);
    let text = metrics.render();
    let buckets = |series: &str| {
        let of =
            text.lines().filter_map(|line| line.strip_prefix(series)?.split_once("le=\"")?.1.split_once('"'));
        of.map(|(le, _)| le).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        buckets("deltaforge_sink_latency_seconds_bucket{pipeline=\"p\",sink=\"p-redis\","),
        "0.001 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 30 +Inf"
    );
    assert_eq!(
        buckets("deltaforge_batch_events_bucket{"),
        "1 5 10 25 50 100 250 500 1000 2500 5000 10000 50000 +Inf"
    );
    assert_eq!(
        buckets("deltaforge_batch_bytes_bucket{"),
        "256 1024 4096 16384 65536 262144 1048576 4194304 16777216 67108864 +Inf"
    );
}

#[test]
fn what_happened_is_counted_where_it_belongs() {
    let metrics = metrics();
    let pipeline = metrics.pipeline(&ABOUT);
    let before = metrics.render();
    assert_eq!(
        value(&before, "deltaforge_sink_failures_total{kind=\"auth\",pipeline=\"p\",sink=\"p-stdout\"}"),
        Some(0.0)
    );
    assert_eq!(
        value(&before, "deltaforge_position{pipeline=\"p\",rung=\"head\"}"),
        None,
        "unknown is absent"
    );

    pipeline.condition("paused", "streaming");
    pipeline.source_error(Kind::Throttled);
    pipeline.source_reconnected();
    pipeline.transaction_ended(9);
    pipeline.transaction_ended(3);
    pipeline.batch_cut(4, 100);
    pipeline.stage(Stage::Commit, Trigger::TxPart, Duration::from_millis(20));
    pipeline.batch_committed();
    pipeline.checkpoint_saved(64);
    pipeline.source_waited(Reason::Pause, Duration::from_millis(500));
    let sink = pipeline.sink(1).unwrap();
    sink.batch_delivered(4, 90, Duration::from_millis(3));
    sink.failed(Kind::Timeout);
    sink.failed(Kind::Decode);
    sink.given_up(2);
    let events = pipeline.table("public.orders");
    events.add(3);
    pipeline.table("public.orders").add(1);
    let text = metrics.render();
    let expected = [
        ("deltaforge_pipeline_status{pipeline=\"p\"}", 0.5),
        ("deltaforge_pipeline_phase{phase=\"streaming\",pipeline=\"p\"}", 1.0),
        ("deltaforge_pipeline_phase{phase=\"starting\",pipeline=\"p\"}", 0.0),
        ("deltaforge_pipelines{status=\"paused\"}", 1.0),
        ("deltaforge_running_pipelines", 0.0),
        ("deltaforge_source_errors_total{kind=\"other\",pipeline=\"p\",source=\"p-postgres\"}", 1.0),
        ("deltaforge_source_largest_transaction_events{pipeline=\"p\",source=\"p-postgres\"}", 9.0),
        ("deltaforge_batch_bytes_sum{pipeline=\"p\"}", 100.0),
        ("deltaforge_stage_latency_seconds_count{pipeline=\"p\",stage=\"commit\",trigger=\"tx_part\"}", 1.0),
        ("deltaforge_stage_latency_seconds_count{pipeline=\"p\",stage=\"sink\",trigger=\"tx_part\"}", 0.0),
        ("deltaforge_checkpoint_bytes{pipeline=\"p\"}", 64.0),
        ("deltaforge_backpressure_seconds_total{pipeline=\"p\",reason=\"pause\"}", 0.5),
        ("deltaforge_sink_events_total{pipeline=\"p\",sink=\"p-stdout\"}", 4.0),
        ("deltaforge_sink_events_total{pipeline=\"p\",sink=\"p-redis\"}", 0.0),
        ("deltaforge_sink_failures_total{kind=\"timeout\",pipeline=\"p\",sink=\"p-stdout\"}", 1.0),
        ("deltaforge_sink_failures_total{kind=\"other\",pipeline=\"p\",sink=\"p-stdout\"}", 1.0),
        ("sink_errors_total{pipeline=\"p\",sink=\"p-stdout\"}", 2.0),
        (
            "deltaforge_dropped_events_total{component=\"p-stdout\",pipeline=\"p\",reason=\"best_effort\"}",
            2.0,
        ),
        ("deltaforge_source_events_total{pipeline=\"p\",source=\"p-postgres\",table=\"public.orders\"}", 4.0),
        ("events_processed_total{pipeline=\"p\"}", 4.0),
    ];
    for (series, number) in expected {
        assert_eq!(value(&text, series), Some(number), "{series}");
    }
}

#[test]
fn a_sample_sets_gauges_and_unknown_ones_are_absent() {
    let metrics = metrics();
    let pipeline = metrics.pipeline(&ABOUT);
    let stats = SourceStats::default();
    stats.bytes.store(100, Relaxed);
    stats.retained_bytes.store(77, Relaxed);
    stats.last_data_ms.store(9_000, Relaxed);
    pipeline.batch_cut(10, 1);
    pipeline.sample(&known_sample(), &stats);
    pipeline.batch_cut(30, 1);
    // The source was opened anew and its counts began again.
    stats.bytes.store(40, Relaxed);
    stats.retained_bytes.store(-1, Relaxed);
    pipeline.sample(&Sample { now_ms: 10_500, ..known_sample() }, &stats);
    let text = metrics.render();
    let expected = [
        ("deltaforge_source_bytes_total{pipeline=\"p\",source=\"p-postgres\"}", Some(140.0)),
        ("deltaforge_source_retained_bytes{pipeline=\"p\",source=\"p-postgres\"}", None),
        ("deltaforge_source_idle_seconds{pipeline=\"p\",source=\"p-postgres\"}", Some(0.5)),
        ("deltaforge_source_lag_seconds{pipeline=\"p\",source=\"p-postgres\"}", Some(1.5)),
        ("deltaforge_position{pipeline=\"p\",rung=\"head\"}", Some(1000.0)),
        ("deltaforge_lag_bytes{pipeline=\"p\",rung=\"durable\"}", Some(500.0)),
        ("deltaforge_lag_events{pipeline=\"p\",rung=\"durable\"}", Some(7.0)),
        ("cdc_lag_seconds{pipeline=\"p\"}", Some(1.5)),
        ("checkpoint_lag_events{pipeline=\"p\"}", Some(4.0)),
        ("deltaforge_sink_buffer_depth{pipeline=\"p\",sink=\"p-stdout\"}", Some(2.0)),
        ("batch_size_avg{pipeline=\"p\"}", Some(30.0)),
    ];
    for (series, number) in expected {
        assert_eq!(value(&text, series), number, "{series}");
    }
    pipeline.sample(&Sample { now_ms: 11_000, ..Sample::default() }, &stats);
    let text = metrics.render();
    assert!(!text.contains("deltaforge_position{") && !text.contains("deltaforge_lag_bytes{"), "{text}");
}

#[test]
fn tables_beyond_the_thousandth_share_a_series() {
    let metrics = metrics();
    let pipeline = metrics.pipeline(&ABOUT);
    for i in 0..1003 {
        pipeline.table(&format!("public.t{i}")).add(1);
    }
    let text = metrics.render();
    assert_eq!(text.lines().filter(|line| line.starts_with("deltaforge_source_events_total{")).count(), 1001);
    let other = "deltaforge_source_events_total{pipeline=\"p\",source=\"p-postgres\",table=\"_other\"}";
    assert_eq!(value(&text, other), Some(3.0));
}

#[test]
fn a_deleted_pipeline_leaves_no_series() {
    let metrics = metrics();
    let pipeline = metrics.pipeline(&ABOUT);
    let stats = SourceStats::default();
    pipeline.table("public.orders").add(1);
    pipeline.sample(&known_sample(), &stats);
    metrics.action("p", Action::Stop, true);
    metrics.remove("p");
    // What is still running for a moment makes nothing new.
    pipeline.sample(&known_sample(), &stats);
    pipeline.table("public.late").add(1);
    metrics.action("p", Action::Delete, true);
    let text = metrics.render();
    assert!(!text.contains("pipeline=\"p\""), "{text}");
    assert_eq!(
        value(
            &text,
            "deltaforge_pipeline_actions_total{action=\"delete\",outcome=\"ok\",pipeline=\"_other\"}"
        ),
        Some(1.0)
    );
}

#[test]
fn a_changed_pipeline_goes_on_counting_without_its_old_sinks() {
    let metrics = metrics();
    let before = metrics.pipeline(&ABOUT);
    before.condition("paused", "streaming");
    before.batch_committed();
    before.table("public.orders").add(2);
    before.sink(0).unwrap().retried();
    metrics.action("p", Action::Patch, false);
    let after = metrics.pipeline(&PipelineAbout { sinks: &["p-redis", "p-file"], ..ABOUT });
    after.batch_committed();
    after.table("public.orders").add(1);
    before.table("public.old").add(1);
    let text = metrics.render();
    assert_eq!(value(&text, "deltaforge_batch_commit_total{pipeline=\"p\"}"), Some(2.0));
    let orders =
        "deltaforge_source_events_total{pipeline=\"p\",source=\"p-postgres\",table=\"public.orders\"}";
    assert_eq!(value(&text, orders), Some(3.0));
    assert_eq!(value(&text, "deltaforge_sink_retries_total{pipeline=\"p\",sink=\"p-redis\"}"), Some(1.0));
    assert_eq!(value(&text, "deltaforge_sink_retries_total{pipeline=\"p\",sink=\"p-file\"}"), Some(0.0));
    let patches = "deltaforge_pipeline_actions_total{action=\"patch\",outcome=\"error\",pipeline=\"p\"}";
    assert_eq!(value(&text, patches), Some(1.0));
    assert_eq!(value(&text, "deltaforge_pipeline_status{pipeline=\"p\"}"), Some(0.5));
    assert!(!text.contains("p-stdout") && !text.contains("public.old"), "{text}");
    metrics.remove("p");
    assert!(!metrics.render().contains("pipeline=\"p\""));
}

#[test]
fn the_process_counts_up() {
    let metrics = metrics();
    metrics.memory_limit(256 << 20);
    metrics.process(&ProcessSample { cpu_seconds: 1.5, resident_bytes: 5, open_fds: 6, start_seconds: 7.5 });
    metrics.process(&ProcessSample { cpu_seconds: 2.5, resident_bytes: 4, open_fds: 3, start_seconds: 7.5 });
    let text = metrics.render();
    assert_eq!(value(&text, "process_cpu_seconds_total"), Some(2.5));
    assert_eq!(value(&text, "process_resident_memory_bytes"), Some(4.0));
    assert_eq!(value(&text, "process_start_time_seconds"), Some(7.5));
    assert_eq!(value(&text, "deltaforge_memory_limit_bytes"), Some(268_435_456.0));
}
