//! The fuzz targets' functions over mutated seeds: what a stable compiler can do in seconds.
//!
//! Always the same inputs; `SEED=n` gives others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

#[path = "../../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "a library elsewhere")]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// xorshift64*: enough to choose mutations.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 16) as usize % end.max(1)
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Bytes that mean something to one of the decoders.
const SPECIAL: &[u8] = b"\0\xff\x7f\x80{}()[]\",;\\=:-+. TZPtnuKONIUDR0123456789eEaf";

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(input.len());
        match random.below(8) {
            0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
            1 if !input.is_empty() => input[at] = SPECIAL[random.below(SPECIAL.len())],
            2 => input.insert(at, SPECIAL[random.below(SPECIAL.len())]),
            3 if !input.is_empty() => {
                input.remove(at);
            }
            4 => input.truncate(at),
            5 => {
                // A length, or a part of one, that lies.
                let lie = [0u32, 1, 0xff, 0xffff, 0x7fff_ffff, u32::MAX][random.below(6)].to_be_bytes();
                let end = (at + 4).min(input.len());
                input.splice(at..end, lie);
            }
            6 => {
                let run = input[at..(at + random.below(9)).min(input.len())].repeat(1 + random.below(40));
                input.splice(at..at, run);
            }
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                input.splice(at.., other[from..].iter().copied());
            }
        }
        input.truncate(4096);
    }
}

fn smoke(target: &str, count: usize, run: fn(&[u8])) {
    let seeds = seeds(target);
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1u64);
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    seeds.iter().for_each(|seed| run(seed));
    for i in 0..count {
        let mut input = seeds[random.below(seeds.len())].clone();
        mutate(&mut input, &seeds, &mut random);
        if catch_unwind(AssertUnwindSafe(|| run(&input))).is_err() {
            panic!("{target}: input {i} of SEED={seed} fails: {:?}", String::from_utf8_lossy(&input));
        }
    }
}

#[test]
fn pgoutput() {
    smoke("pgoutput", 60_000, targets::pgoutput);
}

#[test]
fn values() {
    smoke("values", 100_000, targets::values);
}

#[test]
fn positions() {
    smoke("positions", 60_000, targets::positions);
}

#[test]
fn dsn() {
    smoke("dsn", 40_000, targets::dsn);
}

#[test]
fn mysql_gtid() {
    smoke("mysql_gtid", 60_000, targets::mysql_gtid);
}

#[test]
fn mysql_values() {
    smoke("mysql_values", 100_000, targets::mysql_values);
}

#[test]
fn mysql_json() {
    smoke("mysql_json", 100_000, targets::mysql_json);
}

#[test]
fn binlog_events() {
    smoke("binlog_events", 100_000, targets::binlog_events);
}

#[test]
fn binlog_compressed() {
    smoke("binlog_compressed", 60_000, targets::binlog_compressed);
}
