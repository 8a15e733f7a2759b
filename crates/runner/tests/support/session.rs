//! A `psql` that stays connected: for open transactions, and for many statements without a new process each.

use deltaforge_testkit::servers::Postgres;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

const DONE: &str = "<<done>>";

/// One connection. Statements that fail are passed over, as an interactive user would.
pub struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    /// Connects.
    pub fn open(postgres: &Postgres, database: &str) -> Session {
        let mut command = postgres.bin("psql");
        command.args(["-X", "-q", "-A", "-t", "-d", database]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Session { child, input, output }
    }

    /// Runs statements and returns their rows, one per line; nothing when the connection is gone.
    pub fn ask(&mut self, sql: &str) -> String {
        self.send(sql);
        self.answer()
    }

    /// Sends statements without waiting for them; [`answer`](Session::answer) does.
    pub fn send(&mut self, sql: &str) {
        let _gone = self.input.write_all(format!("{sql};\n\\echo {DONE}\n").as_bytes());
    }

    /// Waits for the statements that were sent.
    pub fn answer(&mut self) -> String {
        let mut answer = String::new();
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap_or(0) > 0 {
            if line.trim_end() == DONE {
                break;
            }
            answer.push_str(&line);
            line.clear();
        }
        answer.truncate(answer.trim_end().len());
        answer
    }

    /// The server process behind it.
    pub fn backend_pid(&mut self) -> String {
        self.ask("select pg_backend_pid()")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
