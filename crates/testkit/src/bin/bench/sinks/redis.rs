//! Redis, and its ceiling: prebuilt `XADD`s in `MULTI`/`EXEC`, written one after the other without waiting for an answer.

use super::{SAMPLE, Target};
use crate::pg::redis_options;
use deltaforge_testkit::servers::{HOST, Redis};
use std::io::{Read, Write};
use std::net::TcpStream;

const STREAM: &str = "bench";
/// The last answer of all.
const DONE: &str = "deltaforge-bench-done";

pub(crate) struct IntoRedis {
    redis: Redis,
    /// `XADD`s as they go to the server.
    sample: Vec<Vec<u8>>,
}

impl IntoRedis {
    pub(crate) fn start() -> IntoRedis {
        IntoRedis { redis: Redis::start(&redis_options()).expect("Redis starts"), sample: Vec::new() }
    }

    /// `MULTI`, so many entries, `EXEC`.
    fn batch(&self, entries: u64) -> Vec<u8> {
        let mut out = Vec::new();
        command(&mut out, &["MULTI"]);
        let entries = self.sample.iter().cycle().take(entries as usize);
        entries.for_each(|entry| out.extend_from_slice(entry));
        command(&mut out, &["EXEC"]);
        out
    }
}

impl Target for IntoRedis {
    fn name(&self) -> String {
        "redis".into()
    }

    fn title(&self) -> String {
        "Redis".into()
    }

    fn about(&self) -> String {
        let version = self.redis.cli(&["INFO", "server"]);
        let version = version.lines().find_map(|l| l.strip_prefix("redis_version:")).unwrap_or("").trim();
        format!("Redis {version}, one stream, without append-only file and snapshots")
    }

    fn pid(&self) -> u32 {
        self.redis.pid()
    }

    fn prepare(&self, _: &str) {
        self.redis.cli(&["FLUSHALL"]);
    }

    fn sink(&self, run: &str, exactly_once: bool) -> String {
        let uri = self.redis.uri();
        format!(
            "{{type: redis, config: {{id: {run}, uri: \"{uri}\", stream: {STREAM}, exactly_once: {exactly_once}}}}}"
        )
    }

    fn held(&self, _: &str) -> u64 {
        self.redis.cli(&["XLEN", STREAM]).trim().parse().expect("a length")
    }

    fn clear(&self, _: &str) {
        self.redis.cli(&["FLUSHALL"]);
    }

    fn sample(&mut self, _: &str) {
        let entries = self.redis.cli(&["XRANGE", STREAM, "-", "+", "COUNT", &SAMPLE.to_string()]);
        // An entry is its id and then, in turn, names and values: one line each, as an event has no line breaks.
        let mut lines = entries.lines().peekable();
        self.sample.clear();
        while lines.next().is_some_and(is_id) {
            let mut words = vec!["XADD", STREAM, "*"];
            while let Some(name) = lines.next_if(|line| !is_id(line)) {
                words.extend([name, lines.next().expect("a field has a value")]);
            }
            let mut entry = Vec::new();
            command(&mut entry, &words);
            self.sample.push(entry);
        }
        assert!(!self.sample.is_empty(), "the stream holds entries");
    }

    fn filler(&self, _: &str, rows: u64, per_batch: u64) -> Box<dyn FnOnce() + '_> {
        let (batch, last) = (self.batch(per_batch), self.batch(rows % per_batch));
        let mut writer = TcpStream::connect((HOST, self.redis.port())).expect("Redis answers");
        let mut reader = writer.try_clone().expect("a second handle");
        Box::new(move || {
            let answers = std::thread::spawn(move || {
                let end = format!("{DONE}\r\n");
                let (mut buffer, mut tail) = (vec![0; 1 << 16], Vec::new());
                while !tail.ends_with(end.as_bytes()) {
                    let n = reader.read(&mut buffer).expect("Redis answers");
                    assert!(n > 0, "Redis keeps the connection");
                    tail.extend_from_slice(&buffer[..n]);
                    tail.drain(..tail.len().saturating_sub(end.len()));
                }
            });
            for _ in 0..rows / per_batch {
                writer.write_all(&batch).expect("Redis takes the commands");
            }
            let mut end = last;
            command(&mut end, &["ECHO", DONE]);
            writer.write_all(&end).expect("Redis takes the commands");
            answers.join().expect("the answers are read");
        })
    }
}

fn is_id(line: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    line.split_once('-').is_some_and(|(ms, number)| ms.len() == 13 && digits(ms) && digits(number))
}

fn command(out: &mut Vec<u8>, words: &[&str]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}
