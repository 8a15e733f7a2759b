//! The readers: PostgreSQL's own, and DeltaForge into a null file and into Redis.

use crate::load::{self, DB};
use crate::process::{self, Snapshot, Usage};
use deltaforge_testkit::servers::{Postgres, Redis};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    PgRecvlogical,
    NullFile,
    Redis,
}

impl Reader {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Reader::PgRecvlogical => "pg_recvlogical",
            Reader::NullFile => "null file",
            Reader::Redis => "Redis",
        }
    }

    pub(crate) fn slot(self, rep: usize) -> String {
        let name = match self {
            Reader::PgRecvlogical => "recv",
            Reader::NullFile => "null",
            Reader::Redis => "redis",
        };
        format!("{name}_{rep}")
    }
}

pub(crate) struct Bench<'a> {
    pub(crate) server: &'a Postgres,
    pub(crate) redis: &'a Redis,
    pub(crate) binary: &'a Path,
}

/// A running DeltaForge with its folder; ended and removed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) metrics_port: u16,
    dir: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        let _removed = fs::remove_dir_all(&self.dir);
    }
}

impl Bench<'_> {
    /// Drains the backlog with a reader; from its start as a process until it has everything.
    pub(crate) fn drain(&self, reader: Reader, rep: usize, changes: u64) -> Usage {
        self.redis.cli(&["FLUSHALL"]);
        let load = Snapshot::take();
        let begun = Instant::now();
        let mut usage = match reader {
            Reader::PgRecvlogical => self.recvlogical(&reader.slot(rep), begun),
            Reader::NullFile => self.deltaforge(&reader.slot(rep), NULL_SINK, changes, begun),
            Reader::Redis => self.deltaforge(&reader.slot(rep), &redis_sink(self.redis), changes, begun),
        };
        usage.other_load = load.other_load();
        if reader == Reader::Redis {
            let length: u64 = self.redis.cli(&["XLEN", "bench"]).trim().parse().expect("a length");
            assert_eq!(length, changes, "every change is in the stream once");
        }
        usage
    }

    fn recvlogical(&self, slot: &str, begun: Instant) -> Usage {
        let end = load::end(self.server);
        let mut child = self
            .server
            .bin("pg_recvlogical")
            .args(["-d", DB, "-S", slot, "--start", "-n", "-f", "/dev/null", "-E", &end])
            .args(["-o", "proto_version=1", "-o", "publication_names=bench"])
            .spawn()
            .expect("pg_recvlogical starts");
        let pid = child.id();
        let mut peak_rss_mib: f64 = 0.0;
        while !process::has_ended(pid) {
            peak_rss_mib = peak_rss_mib.max(process::peak_rss_mib(pid));
            std::thread::sleep(Duration::from_millis(5));
        }
        let seconds = begun.elapsed().as_secs_f64();
        let cpu_seconds = process::cpu_seconds(pid);
        let status = child.wait().expect("pg_recvlogical ends");
        assert!(status.success(), "pg_recvlogical succeeds");
        Usage { seconds, cpu_seconds, peak_rss_mib, other_load: 0.0 }
    }

    fn deltaforge(&self, slot: &str, sink: &str, changes: u64, begun: Instant) -> Usage {
        let running = self.start(slot, sink);
        let pid = running.child.id();
        let deadline = begun + Duration::from_secs(600);
        while running.metric("deltaforge_sink_events_total") < changes as f64 {
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

    /// Starts DeltaForge on a slot with a sink.
    pub(crate) fn start(&self, slot: &str, sink: &str) -> Running {
        let dir = std::env::temp_dir().join(format!("deltaforge-bench-{}-{slot}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        let config = dir.join("bench.yaml");
        let document = format!(
            "metadata: {{name: bench}}\nspec:\n  source:\n    type: postgres\n    config: {{id: bench-{slot}, dsn: \"{}\", \
             slot: {slot}, publication: bench, tables: [public.orders]}}\n  sinks:\n    - {sink}\n",
            self.server.dsn(DB)
        );
        fs::write(&config, document).expect("the configuration is written");
        let metrics_port = free_port();
        let child = Command::new(self.binary)
            .arg("--config")
            .arg(&config)
            .arg("--state")
            .arg(format!("file:{}", dir.join("data").display()))
            .args([
                "--api-addr",
                "off",
                "--log-level",
                "warn",
                "--metrics-addr",
                &format!("127.0.0.1:{metrics_port}"),
            ])
            .stdin(Stdio::null())
            .spawn()
            .expect("deltaforge starts");
        Running { child, metrics_port, dir }
    }

    /// Resident memory of a pipeline that streams and has nothing to do.
    pub(crate) fn idle_rss(&self) -> f64 {
        load::make_slot(self.server, "idle_0");
        let running = self.start("idle_0", NULL_SINK);
        std::thread::sleep(Duration::from_secs(5));
        assert!(running.metric("deltaforge_running_pipelines") >= 1.0, "the pipeline runs");
        process::rss_mib(running.child.id())
    }
}

impl Running {
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

pub(crate) const NULL_SINK: &str = "{type: file, config: {path: /dev/null}}";

pub(crate) fn redis_sink(redis: &Redis) -> String {
    format!("{{type: redis, config: {{uri: \"{}\", stream: bench}}}}", redis.uri())
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
