//! Running the binary in a folder of its own, without the variables of whoever runs the tests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that goes away with the test.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A program to be run to its end.
pub(crate) struct Program(Command);

impl Program {
    pub(crate) fn new(args: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_deltaforge"));
        command.args(args).env_clear().stdin(Stdio::null());
        Program(command)
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Program {
        self.0.current_dir(dir);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Program {
        self.0.env(name, value);
        self
    }

    pub(crate) fn envs(mut self, variables: &[(&str, &str)]) -> Program {
        self.0.envs(variables.iter().copied());
        self
    }

    pub(crate) fn run(mut self) -> Done {
        let Output { status, stdout, stderr } = self.0.output().unwrap();
        Done {
            code: status.code().unwrap_or(-1),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }
}

/// A program that serves; killed when dropped.
pub(crate) struct Running {
    child: Option<Child>,
    /// `HOST:PORT` of the API.
    pub(crate) api: String,
    /// `HOST:PORT` of the metrics.
    pub(crate) metrics: String,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts it with free ports and waits until it listens.
    pub(crate) fn start(dir: &Path, args: &[&str]) -> Running {
        Running::start_with(dir, args, &[])
    }

    pub(crate) fn start_with(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Running {
        let mut program = Program::new(args).dir(dir).envs(env).0;
        program.args(["--api-addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0"]);
        let mut child = program.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, writer) = (child.stderr.take().unwrap(), log.clone());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let mut log = writer.lock().unwrap();
                *log += &line.unwrap();
                *log += "\n";
            }
        });
        let mut running = Running {
            child: Some(child),
            api: String::new(),
            metrics: String::new(),
            log,
            reader: Some(reader),
        };
        running.api = running.address_of("--api-addr");
        running.metrics = running.address_of("--metrics-addr");
        running
    }

    /// The address of the line that says where it listens, JSON or text.
    fn address_of(&self, flag: &str) -> String {
        let find = || {
            let log = self.log.lock().unwrap();
            let line = log.lines().find(|line| line.contains("listening") && line.contains(flag))?;
            let at = line.find("127.0.0.1:")?;
            Some(line[at..].chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect())
        };
        self.wait(flag, find)
    }

    fn wait<T>(&self, what: &str, find: impl Fn() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = find() {
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "no {what} in: {}", self.log.lock().unwrap());
            std::thread::yield_now();
        }
    }

    /// Asks the API until the answer is as wanted; gives it.
    pub(crate) fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait(path, || {
            let (_, body) = http(&self.api, "GET", path, "");
            serde_json::from_str(&body).ok().filter(|json| wanted(json))
        })
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end(mut self, signal: Signal) -> Done {
        let mut child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let stderr = self.log.lock().unwrap().clone();
        Done { code: status.code().unwrap_or(-1), stdout: String::new(), stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ended_already = child.kill();
            let _ended_already = child.wait();
        }
    }
}

/// One request; gives status and body. A body is sent as YAML.
pub(crate) fn http(address: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/yaml\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    (status, body.to_string())
}
