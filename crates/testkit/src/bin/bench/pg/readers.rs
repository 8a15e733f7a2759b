//! The readers: PostgreSQL's own, and DeltaForge into a null file and into Redis.

use super::load::{self, DB};
use crate::process::{Snapshot, Usage};
use crate::running::{NULL_SINK, Running, redis_sink, run_to_end};
use deltaforge_testkit::servers::{Postgres, Redis};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

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

impl Bench<'_> {
    /// Drains the backlog with a reader; from its start as a process until it has everything.
    pub(crate) fn drain(&self, reader: Reader, rep: usize, changes: u64) -> Usage {
        self.redis.cli(&["FLUSHALL"]);
        let end = load::end(self.server);
        let load = Snapshot::take();
        let begun = Instant::now();
        let slot = reader.slot(rep);
        let mut usage = match reader {
            Reader::PgRecvlogical => run_to_end(&mut recvlogical(self.server, &slot, &end), begun),
            Reader::NullFile => self.start(&slot, NULL_SINK).deliver(changes, begun),
            Reader::Redis => self.start(&slot, &redis_sink(self.redis)).deliver(changes, begun),
        };
        usage.other_load = load.other_load();
        if reader == Reader::Redis {
            let length: u64 = self.redis.cli(&["XLEN", "bench"]).trim().parse().expect("a length");
            assert_eq!(length, changes, "every change is in the stream once");
        }
        usage
    }

    /// Starts DeltaForge on a slot with a sink.
    pub(crate) fn start(&self, slot: &str, sink: &str) -> Running {
        Running::start(self.binary, slot, &source(self.server, slot), sink)
    }
}

/// PostgreSQL's own reader of a slot, up to `end`.
pub(crate) fn recvlogical(server: &Postgres, slot: &str, end: &str) -> Command {
    let mut command = server.bin("pg_recvlogical");
    command.args(["-d", DB, "-S", slot, "--start", "-n", "-f", "/dev/null", "-E", end]);
    command.args(["-o", "proto_version=1", "-o", "publication_names=bench"]);
    command
}

/// The slot as DeltaForge's source.
pub(crate) fn source(server: &Postgres, slot: &str) -> String {
    format!(
        "{{type: postgres, config: {{id: bench-{slot}, dsn: \"{}\", slot: {slot}, publication: bench, \
         tables: [public.orders]}}}}",
        server.dsn(DB)
    )
}
