//! What a process used, read from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

/// Clock ticks per second in `/proc`; the kernel's user interface fixes it at 100.
const TICKS: f64 = 100.0;

/// One run of a reader.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) seconds: f64,
    /// User and system time of the reader.
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_rss_mib: f64,
    /// Cores that neither the reader nor the servers of this bench used.
    pub(crate) other_load: f64,
}

impl Usage {
    pub(crate) fn rate(&self, rows: u64) -> f64 {
        rows as f64 / self.seconds
    }

    pub(crate) fn cpu_per_million(&self, rows: u64) -> f64 {
        self.cpu_seconds * 1e6 / rows as f64
    }

    pub(crate) fn line(&self, rows: u64) -> String {
        format!(
            "{:>7.0} rows/s  {:.2} CPU s per million  peak RSS {:.1} MiB  {:.2} s  other load {:.2}",
            self.rate(rows),
            self.cpu_per_million(rows),
            self.peak_rss_mib,
            self.seconds,
            self.other_load
        )
    }

    /// The median of each figure by itself.
    pub(crate) fn median(runs: &[Usage]) -> Usage {
        let of = |f: fn(&Usage) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(f).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Usage {
            seconds: of(|u| u.seconds),
            cpu_seconds: of(|u| u.cpu_seconds),
            peak_rss_mib: of(|u| u.peak_rss_mib),
            other_load: of(|u| u.other_load),
        }
    }
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// User and system seconds of a process, also of one that has ended and is not yet waited for.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    ticks_of(&stat, 11..13) / TICKS
}

/// The same, with that of its children that have ended and were waited for.
fn cpu_seconds_with_children(pid: u32) -> f64 {
    ticks_of(&fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default(), 11..15) / TICKS
}

/// The sum of some fields of a line of `/proc/PID/stat`, counted from the one after the name.
fn ticks_of(stat: &str, fields: std::ops::Range<usize>) -> f64 {
    // The name stands in parentheses and may hold blanks.
    let after_name = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    after_name.skip(fields.start).take(fields.len()).filter_map(|f| f.parse::<f64>().ok()).sum()
}

/// Whether a process has ended.
pub(crate) fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().unwrap_or("").trim_start().starts_with(['Z', 'X']) || stat.is_empty()
}

fn status_mib(pid: u32, key: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with(key)).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

pub(crate) fn peak_rss_mib(pid: u32) -> f64 {
    status_mib(pid, "VmHWM:")
}

pub(crate) fn rss_mib(pid: u32) -> f64 {
    status_mib(pid, "VmRSS:")
}

/// CPU seconds used so far by the whole machine, and by the processes of this bench: itself and all below it.
#[derive(Clone, Copy)]
pub(crate) struct Snapshot {
    at: Instant,
    machine: f64,
    ours: f64,
}

impl Snapshot {
    pub(crate) fn take() -> Snapshot {
        Snapshot { at: Instant::now(), machine: machine_seconds(), ours: our_seconds() }
    }

    /// Cores used by others since.
    pub(crate) fn other_load(&self) -> f64 {
        self.since().other_load()
    }

    /// What has been used since.
    pub(crate) fn since(&self) -> Spent {
        let now = Snapshot::take();
        Spent {
            seconds: (now.at - self.at).as_secs_f64(),
            machine: now.machine - self.machine,
            ours: now.ours - self.ours,
        }
    }
}

/// CPU seconds used in so many seconds of time.
pub(crate) struct Spent {
    pub(crate) seconds: f64,
    pub(crate) machine: f64,
    pub(crate) ours: f64,
}

impl Spent {
    pub(crate) fn other_load(&self) -> f64 {
        (self.machine - self.ours).max(0.0) / self.seconds
    }

    pub(crate) fn idle_cores(&self) -> f64 {
        (cores() as f64 - self.machine / self.seconds).max(0.0)
    }
}

fn machine_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or("");
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|t| t.parse().ok()).collect();
    // user, nice, system, (idle, iowait), irq, softirq, steal
    [0, 1, 2, 5, 6, 7].iter().filter_map(|i| ticks.get(*i)).sum::<f64>() / TICKS
}

/// This process and all below it, with the children that have ended: a reader or a walsender that is gone lives on in the figures of
/// whoever waited for it.
fn our_seconds() -> f64 {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        children.entry(ticks_of(&stat, 1..2) as u32).or_default().push(pid);
    }
    let (mut sum, mut of) = (0.0, vec![std::process::id()]);
    while let Some(pid) = of.pop() {
        sum += cpu_seconds_with_children(pid);
        of.extend(children.remove(&pid).unwrap_or_default());
    }
    sum
}

/// Cores used by others during the next two seconds, with nothing of ours at work.
pub(crate) fn other_load() -> f64 {
    let before = Snapshot::take();
    std::thread::sleep(Duration::from_secs(2));
    before.other_load()
}
