//! What the operating system says of this process, read from `/proc` right before metrics are rendered.

use deltaforge_core::metrics::ProcessSample;

/// Reads the figures; what cannot be read stays 0.
pub(crate) fn sample() -> ProcessSample {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fds = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count());
    let times = times(&stat);
    ProcessSample {
        cpu_seconds: times.cpu_ticks / ticks,
        resident_bytes: resident_pages(&statm) * rustix::param::page_size() as u64,
        // The directory itself was open while it was counted.
        open_fds: (fds as u64).saturating_sub(1),
        start_seconds: boot_seconds(&boot) + times.start_ticks / ticks,
    }
}

#[derive(Default)]
struct Times {
    cpu_ticks: f64,
    start_ticks: f64,
}

/// `/proc/PID/stat`, proc(5): fields 14 and 15 are user and system time, 22 the start after boot. The second field, the
/// program's name in parentheses, may hold blanks and parentheses itself.
fn times(stat: &str) -> Times {
    let Some((_, rest)) = stat.rsplit_once(')') else { return Times::default() };
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field =
        |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    Times { cpu_ticks: field(14) + field(15), start_ticks: field(22) }
}

/// `/proc/PID/statm`: the second field is the resident size in pages.
fn resident_pages(statm: &str) -> u64 {
    statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default()
}

/// `/proc/stat`: the line `btime` is the time of boot in Unix seconds.
fn boot_seconds(stat: &str) -> f64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_process() {
        let sample = sample();
        assert!(sample.resident_bytes > 100_000, "{sample:?}");
        assert!(sample.open_fds >= 3, "{sample:?}");
        let now = deltaforge_core::clock::unix_millis() as f64 / 1000.0;
        assert!(sample.start_seconds > 1e9 && sample.start_seconds <= now + 1.0, "{sample:?}");
    }

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 9000 0";
        let times = times(stat);
        assert_eq!((times.cpu_ticks, times.start_ticks), (200.0, 9000.0));
    }
}
