//! From commit to arrival at 500 transactions a second: through `pg_recvlogical` to a pipe, and through DeltaForge to a reader of
//! the Redis stream. Each row carries the server's clock at its statement, right before the commit; the reader subtracts it
//! from the same machine's clock when the row arrives.

use super::load::{self, DB};
use super::readers::Bench;
use crate::running::redis_sink;
use deltaforge_core::clock;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const RATE: u32 = 500;
const SECONDS: u32 = 15;

struct Percentiles {
    count: usize,
    p50_us: i64,
    p99_us: i64,
}

pub(crate) fn run(bench: &Bench<'_>, reps: usize) {
    load::prepare(bench.server);
    println!("\n## Commit to arrival at {RATE} transactions/s, {SECONDS} s a run");
    let (mut recv, mut redis) = (Vec::new(), Vec::new());
    for rep in 0..reps {
        let slot = format!("latency_recv_{rep}");
        load::make_slot(bench.server, &slot);
        let of_recv = recvlogical(bench, &slot);
        print_run(rep, "pg_recvlogical", &of_recv);
        let slot = format!("latency_redis_{rep}");
        load::make_slot(bench.server, &slot);
        let of_redis = deltaforge(bench, &slot);
        print_run(rep, "Redis", &of_redis);
        recv.push(of_recv.p99_us);
        redis.push(of_redis.p99_us);
    }
    let median = |values: &mut Vec<i64>| {
        values.sort_unstable();
        values[values.len() / 2] as f64 / 1000.0
    };
    let (recv, redis) = (median(&mut recv), median(&mut redis));
    println!("  median p99: pg_recvlogical {recv:.2} ms, Redis {redis:.2} ms, ratio {:.2}", redis / recv);
}

fn print_run(rep: usize, title: &str, p: &Percentiles) {
    let ms = |us: i64| us as f64 / 1000.0;
    println!(
        "  run {rep} {title:<14} {} rows, p50 {:.2} ms, p99 {:.2} ms",
        p.count,
        ms(p.p50_us),
        ms(p.p99_us)
    );
}

/// Writes rows at the rate, each marked with the server's clock in microseconds.
fn write_rows(bench: &Bench<'_>) {
    let script = std::env::temp_dir().join(format!("deltaforge-bench-{}.sql", std::process::id()));
    // One row, updated again and again, one statement a transaction.
    let once = "INSERT INTO orders VALUES (1, 1, 'open', 9.99, 'EUR', true, 1.5, 'a note', \
        'an address of some length, to make the row as long as usual rows are', now(), now(), \
        '00000000-0000-4000-8000-000000000001');";
    bench.server.psql(DB, &format!("TRUNCATE orders; {once}"));
    let update = "UPDATE orders SET note = '@@' || (extract(epoch FROM clock_timestamp()) * 1000000)::bigint || '@@' WHERE id = 1;\n";
    fs::write(&script, update).expect("the script is written");
    let status = bench
        .server
        .bin("pgbench")
        .args(["-n", "-c", "1", "-R", &RATE.to_string(), "-T", &SECONDS.to_string(), "-f"])
        .arg(&script)
        .arg(DB)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("pgbench runs");
    assert!(status.success(), "pgbench succeeds");
    let _removed = fs::remove_file(script);
}

/// Takes `@@<microseconds>@@` out of a byte stream and notes each one's age.
#[derive(Default)]
struct Marks {
    rest: Vec<u8>,
    ages_us: Vec<i64>,
}

impl Marks {
    fn take(&mut self, bytes: &[u8]) {
        let now = clock::unix_micros();
        self.rest.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(at) = find(&self.rest[from..], b"@@") {
            let start = from + at + 2;
            let Some(length) = find(&self.rest[start..], b"@@") else { break };
            let text = String::from_utf8_lossy(&self.rest[start..start + length]).into_owned();
            match text.parse::<i64>() {
                Ok(at_us) => {
                    self.ages_us.push(now - at_us);
                    from = start + length + 2;
                }
                Err(_) => from = start,
            }
        }
        self.rest.drain(..from);
    }

    fn percentiles(mut self) -> Percentiles {
        // The first second belongs to the start.
        let skip = (RATE as usize).min(self.ages_us.len() / 10);
        let ages = &mut self.ages_us[skip..];
        ages.sort_unstable();
        assert!(!ages.is_empty(), "rows arrived");
        let at = |share: f64| ages[((ages.len() - 1) as f64 * share) as usize];
        Percentiles { count: ages.len(), p50_us: at(0.5), p99_us: at(0.99) }
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|w| w == needle)
}

fn recvlogical(bench: &Bench<'_>, slot: &str) -> Percentiles {
    let mut command: Command = bench.server.bin("pg_recvlogical");
    command.args([
        "-d",
        DB,
        "-S",
        slot,
        "--start",
        "-n",
        "-f",
        "-",
        "-o",
        "proto_version=1",
        "-o",
        "publication_names=bench",
    ]);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("pg_recvlogical starts");
    let mut out = child.stdout.take().expect("its output");
    let reader = std::thread::spawn(move || {
        let (mut marks, mut buffer) = (Marks::default(), vec![0; 1 << 16]);
        while let Ok(n @ 1..) = out.read(&mut buffer) {
            marks.take(&buffer[..n]);
        }
        marks
    });
    write_rows(bench);
    std::thread::sleep(Duration::from_millis(500));
    let _ended = child.kill();
    let _reaped = child.wait();
    reader.join().expect("the reader ends").percentiles()
}

fn deltaforge(bench: &Bench<'_>, slot: &str) -> Percentiles {
    bench.redis.cli(&["FLUSHALL"]);
    let running = bench.start(slot, &redis_sink(bench.redis));
    let stop = Arc::new(AtomicBool::new(false));
    let (port, until) = (bench.redis.port(), stop.clone());
    let reader = std::thread::spawn(move || read_stream(port, &until));
    write_rows(bench);
    std::thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    drop(running);
    reader.join().expect("the reader ends").percentiles()
}

/// Follows the stream with blocking reads.
fn read_stream(port: u16, stop: &AtomicBool) -> Marks {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("Redis answers");
    stream.set_nodelay(true).expect("an option");
    let (mut marks, mut last) = (Marks::default(), "0-0".to_string());
    while !stop.load(Ordering::Relaxed) {
        let request = format!("XREAD BLOCK 200 STREAMS bench {last}\r\n");
        stream.write_all(request.as_bytes()).expect("Redis takes the request");
        let reply = read_reply(&mut stream);
        marks.take(&reply);
        if let Some(id) = last_id(&reply) {
            last = id;
        }
    }
    marks
}

/// One reply of the protocol, RESP2: read until it is whole.
fn read_reply(stream: &mut TcpStream) -> Vec<u8> {
    let (mut reply, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let n = stream.read(&mut buffer).expect("Redis answers");
        reply.extend_from_slice(&buffer[..n]);
        if whole(&reply).is_some() {
            return reply;
        }
    }
}

/// The rest after one whole value; `None` while a part is missing.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let line_end = find(bytes, b"\r\n")?;
    let number: i64 = std::str::from_utf8(&bytes[1..line_end]).ok()?.parse().unwrap_or(0);
    let mut rest = &bytes[line_end + 2..];
    match bytes[0] {
        b'$' if number >= 0 => rest.get(number as usize + 2..),
        b'*' => {
            for _ in 0..number.max(0) {
                rest = whole(rest)?;
            }
            Some(rest)
        }
        _ => Some(rest),
    }
}

/// The last `milliseconds-sequence` of a reply that stands alone as a value.
fn last_id(reply: &[u8]) -> Option<String> {
    let is_id = |part: &&[u8]| {
        let text = std::str::from_utf8(part).unwrap_or("");
        text.split_once('-').is_some_and(|(ms, seq)| {
            ms.len() == 13 && !seq.is_empty() && (ms.to_string() + seq).bytes().all(|b| b.is_ascii_digit())
        })
    };
    let lines: Vec<&[u8]> =
        reply.split(|b| *b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l)).collect();
    lines.iter().rev().find(|l| is_id(l)).map(|l| String::from_utf8_lossy(l).into_owned())
}
