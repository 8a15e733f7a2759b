//! A process that is measured: DeltaForge with a configuration of the bench, or a database's own reader.

use crate::process::{self, Usage};
use deltaforge_testkit::servers::Redis;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const NULL_SINK: &str = "{type: file, config: {path: /dev/null}}";

pub(crate) fn redis_sink(redis: &Redis) -> String {
    format!("{{type: redis, config: {{uri: \"{}\", stream: bench}}}}", redis.uri())
}

/// A running DeltaForge with its folder; ended and removed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    metrics_port: u16,
    dir: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        let _removed = fs::remove_dir_all(&self.dir);
    }
}

impl Running {
    /// Starts DeltaForge on a source, given as YAML in flow style.
    pub(crate) fn start(binary: &Path, name: &str, source: &str, sink: &str) -> Running {
        Running::start_with(binary, name, source, sink, "{}")
    }

    /// The same with settings of its batches.
    pub(crate) fn start_with(binary: &Path, name: &str, source: &str, sink: &str, batch: &str) -> Running {
        let dir = std::env::temp_dir().join(format!("deltaforge-bench-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        let config = dir.join("bench.yaml");
        let document = format!(
            "metadata: {{name: bench}}\nspec:\n  batch: {batch}\n  source: {source}\n  sinks:\n    - {sink}\n"
        );
        fs::write(&config, document).expect("the configuration is written");
        let metrics_port = free_port();
        let child = Command::new(binary)
            .arg("--config")
            .arg(&config)
            .arg("--state")
            .arg(format!("file:{}", dir.join("data").display()))
            .args(["--api-addr", "off", "--log-level", "error"])
            .args(["--metrics-addr", &format!("127.0.0.1:{metrics_port}")])
            .stdin(Stdio::null())
            .spawn()
            .expect("deltaforge starts");
        Running { child, metrics_port, dir }
    }

    /// Waits until so many events are delivered; what that took since `begun`.
    pub(crate) fn deliver(&self, changes: u64, begun: Instant) -> Usage {
        let pid = self.child.id();
        let deadline = begun + Duration::from_secs(600);
        while self.metric("deltaforge_sink_events_total") < changes as f64 {
            assert!(Instant::now() < deadline, "drained within ten minutes");
            assert!(!process::has_ended(pid), "deltaforge runs");
            // Rarely: rendering the metrics is work of the process that is measured.
            std::thread::sleep(Duration::from_millis(40));
        }
        Usage {
            seconds: begun.elapsed().as_secs_f64(),
            cpu_seconds: process::cpu_seconds(pid),
            peak_rss_mib: process::peak_rss_mib(pid),
            other_load: 0.0,
        }
    }

    /// Resident memory after some seconds of streaming nothing.
    pub(crate) fn idle_rss(&self) -> f64 {
        std::thread::sleep(Duration::from_secs(5));
        assert!(self.metric("deltaforge_running_pipelines") >= 1.0, "the pipeline runs");
        process::rss_mib(self.child.id())
    }

    /// The sum of a metric's series; 0 while the process does not answer.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.metrics_port)) else { return 0.0 };
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        if stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer)).is_err() {
            return 0.0;
        }
        let of_metric =
            |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        answer.lines().filter(of_metric).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// Runs a database's own reader up to its end; what that took since `begun`.
pub(crate) fn run_to_end(command: &mut Command, begun: Instant) -> Usage {
    let mut child = command.stdin(Stdio::null()).spawn().expect("the reader starts");
    let pid = child.id();
    let mut peak_rss_mib: f64 = 0.0;
    while !process::has_ended(pid) {
        peak_rss_mib = peak_rss_mib.max(process::peak_rss_mib(pid));
        std::thread::sleep(Duration::from_millis(5));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_seconds = process::cpu_seconds(pid);
    let status = child.wait().expect("the reader ends");
    assert!(status.success(), "the reader succeeds: {command:?}");
    Usage { seconds, cpu_seconds, peak_rss_mib, other_load: 0.0 }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
