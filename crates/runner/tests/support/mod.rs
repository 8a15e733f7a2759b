//! What the end-to-end tests share: the real binary with a folder of its own.
//!
//! ```text
//! let home = Home::new(&[("pipeline.yaml", &pipeline("p", &source(&dsn, "['public.%']"), &file_sink()))]);
//! let engine = home.start();            // returns when the API answers and every pipeline streams
//! …change something in the database…
//! let events = home.wait_events(3);     // lines of `events.jsonl`, parsed
//! engine.stop();                        // SIGTERM, drain, exit code 0
//! ```
//!
//! `$HOME` in a document stands for the folder. The state store is `state/` in it, the log `log`; a test that fails prints
//! the end of the log. Nothing here sleeps for a length of time: everything waits for its condition.
#![allow(dead_code, unreachable_pub, reason = "each test file is a crate of its own and uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

pub mod load;
pub mod random;
pub mod session;
pub mod streams;

use deltaforge_testkit::wait_for;
use serde_json::Value;
use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The longest that anything is waited for; a machine under load is slow, not wrong.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A pipeline document with one source and any sinks: blocks of YAML in flow form, see [`source`] and [`file_sink`].
pub fn pipeline(name: &str, source: &str, sinks: &[&str]) -> String {
    let sinks: String = sinks.iter().map(|sink| format!("    - {sink}\n")).collect();
    format!("metadata: {{ name: {name} }}\nspec:\n  source: {source}\n  sinks:\n{sinks}")
}

/// A `postgres` source, slot and publication called `df`; `tables` is a list such as `['public.%']`, which may be followed by
/// further settings: `['public.%'], replica_identity: full`.
pub fn source(dsn: &str, tables: &str) -> String {
    let named = "slot: df, publication: df, retry: { initial_ms: 100, max_ms: 500 }";
    format!("{{ type: postgres, config: {{ dsn: '{dsn}', {named}, tables: {tables} }} }}")
}

/// A file sink that writes `events.jsonl`, where [`Home::events`] looks.
pub fn file_sink() -> String {
    "{ type: file, config: { path: '$HOME/events.jsonl' } }".into()
}

/// A folder with documents, state, log and output; removed when dropped.
pub struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    /// Makes the folder with the files in `config/`.
    pub fn new(documents: &[(&str, &str)]) -> Home {
        let home = Home { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(home.path("config")).unwrap();
        for (name, text) in documents {
            home.write(name, text);
        }
        home
    }

    /// One pipeline called `p` that writes a database's tables to `events.jsonl`.
    pub fn to_file(dsn: &str, tables: &str) -> Home {
        Home::new(&[("pipeline.yaml", &pipeline("p", &source(dsn, tables), &[&file_sink()]))])
    }

    /// Writes or replaces a document, `$HOME` replaced by the folder.
    pub fn write(&self, name: &str, text: &str) {
        let text = text.replace("$HOME", &self.dir.path().display().to_string());
        fs::write(self.path("config").join(name), text).unwrap();
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the binary and returns when every pipeline streams.
    #[track_caller]
    pub fn start(&self) -> Engine {
        let engine = self.launch(&[]);
        engine.wait_ready();
        engine
    }

    /// Starts the binary with further arguments and returns when the API answers, whatever the pipelines do.
    #[track_caller]
    pub fn launch(&self, args: &[&str]) -> Engine {
        let mut engine = self.spawn(args);
        engine.wait_api();
        engine
    }

    /// Starts the binary and returns at once.
    pub fn spawn(&self, args: &[&str]) -> Engine {
        self.spawn_by(deltaforge(), args)
    }

    /// Starts the binary by a command that becomes it, and returns at once.
    pub fn spawn_by(&self, mut command: Command, args: &[&str]) -> Engine {
        let log = self.path("log");
        let start_of_log = fs::metadata(&log).map_or(0, |meta| meta.len());
        let stderr = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let stdout = OpenOptions::new().create(true).append(true).open(self.path("stdout")).unwrap();
        command.arg("--config").arg(self.path("config"));
        command.arg("--state").arg(format!("file:{}", self.path("state").display()));
        command.args(["--api-addr", "127.0.0.1:0", "--metrics-addr", "off"]).args(args);
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let child = command.spawn().unwrap();
        Engine { child: RefCell::new(child), log, start_of_log, api: None }
    }

    /// The events written to `events.jsonl` so far; a line that is not whole yet is left out.
    pub fn events(&self) -> Vec<Value> {
        self.lines("events.jsonl").iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until there are at least `count` events and returns all there are.
    #[track_caller]
    pub fn wait_events(&self, count: usize) -> Vec<Value> {
        self.wait_lines("events.jsonl", count);
        self.events()
    }

    /// The whole lines of a file in the folder; none while it does not exist.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.split('\n').filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// Waits until a file has at least `count` whole lines and returns them.
    #[track_caller]
    pub fn wait_lines(&self, name: &str, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        // Its own deadline, because its message says how far it came.
        wait_for(name, PATIENCE * 2, || {
            lines = self.lines(name);
            assert!(Instant::now() < deadline, "{name} has only {} lines of {count}", lines.len());
            lines.len() >= count
        });
        lines
    }
}

/// The binary under test, without arguments and without the variables that would stand for them.
pub fn deltaforge() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltaforge"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("DELTAFORGE_") || name == "RUST_LOG" || name == "SOURCE_URL" {
            command.env_remove(name.as_ref());
        }
    }
    command
}

/// A running process. Killed when dropped; a failing test then prints the end of its log.
pub struct Engine {
    child: RefCell<Child>,
    log: PathBuf,
    /// The log of this start begins here: a folder may see several.
    start_of_log: u64,
    api: Option<SocketAddr>,
}

impl Engine {
    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.borrow().id()
    }

    /// `VmHWM`: the most that was resident at any time, KiB.
    pub fn peak_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Waits until the API listens.
    #[track_caller]
    pub fn wait_api(&mut self) {
        let mut api = None;
        wait_for("the API's address in the log", PATIENCE, || {
            self.assert_runs();
            api = self.api_in_log();
            api.is_some()
        });
        self.api = api;
    }

    /// Where the API listens.
    pub fn api(&self) -> SocketAddr {
        self.api.unwrap()
    }

    /// `GET path`: the status code and the body.
    pub fn get(&self, path: &str) -> (u16, String) {
        http(self.api(), "GET", path, "").unwrap()
    }

    /// `POST path` with a JSON body (or an empty one).
    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        http(self.api(), "POST", path, body).unwrap()
    }

    /// What the API says of a pipeline.
    pub fn status(&self, pipeline: &str) -> Value {
        serde_json::from_str(&self.get(&format!("/pipelines/{pipeline}")).1).unwrap()
    }

    /// The stored checkpoint of a pipeline; null while there is none.
    pub fn checkpoint(&self, pipeline: &str) -> Value {
        match self.get(&format!("/checkpoints/{pipeline}")) {
            (200, body) => serde_json::from_str(&body).unwrap(),
            _ => Value::Null,
        }
    }

    /// Waits until every pipeline streams.
    #[track_caller]
    pub fn wait_ready(&self) {
        wait_for("/readyz to answer 200", PATIENCE, || {
            self.assert_runs();
            self.get("/readyz").0 == 200
        });
    }

    /// Waits until the API says something of a pipeline, and returns it.
    #[track_caller]
    pub fn wait_status(&self, pipeline: &str, what: &str, mut is: impl FnMut(&Value) -> bool) -> Value {
        let mut status = Value::Null;
        wait_for(what, PATIENCE, || {
            self.assert_runs();
            status = self.status(pipeline);
            is(&status)
        });
        status
    }

    /// Ends it as an operator does: SIGTERM, drain, exit code 0.
    #[track_caller]
    pub fn stop(self) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.wait_exit();
        assert!(status.success(), "the drain ended with {status}");
    }

    /// `kill -9`.
    pub fn kill(self) {}

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child.borrow());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until it ends.
    #[track_caller]
    pub fn wait_exit(&self) -> ExitStatus {
        let mut status = None;
        wait_for("the process to end", PATIENCE, || {
            status = self.child.borrow_mut().try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// What this process has logged so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let own = bytes.get(self.start_of_log as usize..).unwrap_or_default();
        String::from_utf8_lossy(own).into_owned()
    }

    /// Panics when the process has ended.
    #[track_caller]
    pub fn assert_runs(&self) {
        if let Some(status) = self.child.borrow_mut().try_wait().unwrap() {
            panic!("deltaforge ended with {status}");
        }
    }

    fn api_in_log(&self) -> Option<SocketAddr> {
        let log = self.log();
        log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|line| {
            let is_api = line["msg"] == "listening" && line["flag"] == "--api-addr";
            if is_api { line["address"].as_str()?.parse().ok() } else { None }
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let _gone = child.kill();
        let _reaped = child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(8000);
            let from = (from..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
            eprintln!("--- the end of deltaforge's log\n{}---", &log[from..]);
        }
    }
}

/// How long a process may live that is to be killed, between nothing at all and some seconds: one that starts, one that catches
/// up, one that follows.
pub fn lifetime(random: &mut random::Random) -> Duration {
    let most = match random.below(10) {
        0..=1 => 60,
        2..=6 => 800,
        _ => 2500,
    };
    Duration::from_millis(random.below(most))
}

/// One HTTP request on a connection of its own: status code and body.
pub fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    // A short answer has a length; a long one may come in chunks.
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((code, if chunked { unchunk(body) } else { body.to_owned() }))
}

fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        out.push_str(rest.get(..size).unwrap_or(rest));
        body = rest.get(size + 2..).unwrap_or("");
    }
    out
}

/// Waits until an event that `is` takes is in `events.jsonl`.
#[track_caller]
pub fn wait_for_event(home: &Home, mut is: impl FnMut(&Value) -> bool) {
    wait_for("an event", PATIENCE, || home.events().iter().any(&mut is));
}
