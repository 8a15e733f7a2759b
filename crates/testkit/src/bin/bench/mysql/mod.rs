//! MySQL and MariaDB, against the server's own reader of a remote log: `mariadb-binlog` and `mysqlbinlog`.
//!
//! `--raw` copies the log to files and decodes nothing: the ceiling. With `--verbose` the same program prints the rows.

mod load;

use crate::process::{Snapshot, Usage};
use crate::running::{NULL_SINK, Running, redis_sink, run_to_end};
use crate::{Options, Shape, compare};
use deltaforge_testkit::servers::{Flavour, Mysqld, MysqldOptions, Redis, RedisOptions};
use load::DB;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// Copies the log to memory-backed files.
    Raw,
    /// Prints the rows to a null file.
    Rows,
    NullFile,
    Redis,
}

/// Where the log began before the backlog, and where it ends.
struct Span {
    from: (String, u64),
}

struct Bench<'a> {
    server: &'a Mysqld,
    redis: &'a Redis,
    binary: &'a Path,
}

pub(crate) fn run(options: &Options, binary: &Path) {
    let mut flavours = Flavour::available();
    let mut rest = options.rest.iter().map(String::as_str);
    while let Some(arg) = rest.next() {
        match (arg, rest.next()) {
            ("--server", Some("mysql")) => flavours = vec![Flavour::MySql],
            ("--server", Some("mariadb")) => flavours = vec![Flavour::MariaDb],
            (other, _) => panic!("unknown argument {other}; see the head of this program's source"),
        }
    }
    for flavour in flavours {
        for shape in &options.shapes {
            let (server, redis) = start(flavour);
            drain(options, *shape, &Bench { server: &server, redis: &redis, binary });
        }
        if options.million {
            let (server, redis) = start(flavour);
            million(&Bench { server: &server, redis: &redis, binary });
        }
    }
}

fn start(flavour: Flavour) -> (Mysqld, Redis) {
    let mut args =
        vec!["--innodb-buffer-pool-size=1G", "--innodb-flush-log-at-trx-commit=0", "--max-binlog-size=1G"];
    if flavour == Flavour::MariaDb {
        // As MariaDB comes: it writes them, and no reader here asks for them.
        args.push("--binlog-annotate-row-events=ON");
    }
    let args = args.into_iter().map(Into::into).collect();
    let server = Mysqld::start(flavour, &MysqldOptions { args, ..MysqldOptions::default() });
    let redis =
        RedisOptions { args: ["--appendonly", "no"].map(Into::into).to_vec(), ..RedisOptions::default() };
    (server.expect("the server starts"), Redis::start(&redis).expect("Redis starts"))
}

fn drain(options: &Options, shape: Shape, bench: &Bench<'_>) {
    let version = bench.server.version();
    println!(
        "\n## {version}: {} ({} changes: 50 % inserts, 40 % updates, 10 % deletes)",
        shape.title(),
        options.rows
    );
    load::prepare(bench.server);
    let span = Span { from: bench.server.binlog_end() };
    load::write(bench.server, options.rows, shape.rows());
    let tool = tool(bench.server.flavour());
    let (raw, rows) = (format!("{tool} --raw"), format!("{tool} --verbose"));
    let readers = [
        (raw.as_str(), Reader::Raw),
        (&rows, Reader::Rows),
        ("null file", Reader::NullFile),
        ("Redis", Reader::Redis),
    ];
    compare(shape.title(), options, &readers, options.rows, |reader, rep| {
        bench.drain(reader, rep, &span, options.rows)
    });
}

/// One transaction of a million rows: what memory it takes, and what the process holds when idle.
fn million(bench: &Bench<'_>) {
    const ROWS: u64 = 1_000_000;
    load::prepare(bench.server);
    let span = Span { from: bench.server.binlog_end() };
    load::write(bench.server, ROWS, ROWS + 1);
    let usage = bench.drain(Reader::NullFile, 0, &span, ROWS);
    println!(
        "\n## {}: one transaction of 1,000,000 rows, to a null file\n  {}",
        bench.server.version(),
        usage.line(ROWS)
    );
    let idle = bench.start("idle", &bench.server.binlog_end(), NULL_SINK);
    println!("  idle RSS after 5 s of streaming nothing: {:.1} MiB", idle.idle_rss());
}

fn tool(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::MySql => "mysqlbinlog",
        Flavour::MariaDb => "mariadb-binlog",
    }
}

impl Bench<'_> {
    /// Drains the backlog with a reader; from its start as a process until it has everything.
    fn drain(&self, reader: Reader, rep: usize, span: &Span, changes: u64) -> Usage {
        self.redis.cli(&["FLUSHALL"]);
        let load = Snapshot::take();
        let begun = Instant::now();
        let mut usage = match reader {
            Reader::Raw => self.raw(span, begun),
            Reader::Rows => self.rows(span, begun),
            Reader::NullFile => {
                self.start(&format!("null_{rep}"), &span.from, NULL_SINK).deliver(changes, begun)
            }
            Reader::Redis => {
                let sink = redis_sink(self.redis);
                self.start(&format!("redis_{rep}"), &span.from, &sink).deliver(changes, begun)
            }
        };
        usage.other_load = load.other_load();
        if reader == Reader::Redis {
            let length: u64 = self.redis.cli(&["XLEN", "bench"]).trim().parse().expect("a length");
            assert_eq!(length, changes, "every change is in the stream once");
        }
        usage
    }

    fn reader(&self, span: &Span) -> std::process::Command {
        let mut command = self.server.bin(tool(self.server.flavour()));
        command
            .args([
                "--read-from-remote-server",
                "--to-last-log",
                &format!("--start-position={}", span.from.1),
            ])
            .args([
                "--host=127.0.0.1",
                &format!("--port={}", self.server.port()),
                "--protocol=tcp",
                "--user=root",
            ]);
        if self.server.flavour() == Flavour::MariaDb {
            command.arg("--skip-annotate-row-events");
        }
        command
    }

    fn raw(&self, span: &Span, begun: Instant) -> Usage {
        let copies = Copies::new();
        let mut command = self.reader(span);
        command.arg("--raw").arg(format!("--result-file={}/", copies.0.display())).arg(&span.from.0);
        run_to_end(&mut command, begun)
    }

    fn rows(&self, span: &Span, begun: Instant) -> Usage {
        let mut command = self.reader(span);
        command.args(["--verbose", "--base64-output=DECODE-ROWS", &span.from.0]).stdout(Stdio::null());
        run_to_end(&mut command, begun)
    }

    fn start(&self, name: &str, from: &(String, u64), sink: &str) -> Running {
        let source = format!(
            "{{type: {}, config: {{id: bench-{name}, dsn: \"{}\", tables: [orders], \
             start_position: {{file: {}, pos: {}}}}}}}",
            self.server.flavour().name(),
            self.server.dsn(DB),
            from.0,
            from.1
        );
        Running::start(self.binary, name, &source, sink)
    }
}

/// A folder in memory for copies of the log, removed when dropped.
struct Copies(PathBuf);

impl Copies {
    fn new() -> Copies {
        use std::os::unix::fs::PermissionsExt;
        let dir = PathBuf::from(format!("/dev/shm/deltaforge-bench-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder in memory");
        // The reader may run as another user.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("a mode");
        Copies(dir)
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        let _removed = fs::remove_dir_all(&self.0);
    }
}
