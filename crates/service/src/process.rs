//! Figures of this process from `/proc`: processor time, memory, threads, files, disk and when it began.
//!
//! It reads at each scrape and keeps nothing; where `/proc` is missing or closed the figures are left out.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Ticks a second in `/proc/self/stat`: Linux shows user space 100 on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Encodes the figures anew at each scrape, under the names that every Prometheus client uses.
#[derive(Debug)]
pub(crate) struct ProcessCollector {
    started_at_seconds: Option<f64>,
}

/// Figures out of one line of `/proc/<pid>/stat`.
struct Stat {
    cpu_seconds: f64,
    started_after_boot_seconds: f64,
    threads: f64,
    virtual_bytes: f64,
    major_faults: f64,
}

impl ProcessCollector {
    pub(crate) fn new() -> Self {
        let booted = fs::read_to_string("/proc/stat")
            .ok()
            .and_then(|text| boot_time(&text));
        let stat = read_stat();
        let started_at_seconds = booted
            .zip(stat)
            .map(|(booted, stat)| booted + stat.started_after_boot_seconds);
        Self { started_at_seconds }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stat = read_stat();
        let stat = stat.as_ref();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Memory in use",
                resident_bytes(&status),
            ),
            (
                "process_virtual_memory_bytes",
                "Address space taken",
                stat.map(|stat| stat.virtual_bytes),
            ),
            ("process_threads", "Threads", stat.map(|stat| stat.threads)),
            ("process_open_fds", "Open files and sockets", open_files()),
            (
                "process_max_fds",
                "Most files and sockets that may be open at once",
                open_files_limit().and_then(|limit| u32::try_from(limit).ok().map(f64::from)),
            ),
            (
                "process_start_time_seconds",
                "When the process began, as Unix time",
                self.started_at_seconds,
            ),
        ];
        let counters = [
            (
                "process_cpu_seconds",
                "Processor time used, user and system",
                stat.map(|stat| stat.cpu_seconds),
            ),
            (
                "process_major_page_faults",
                "Times that memory had to be read from a disk; many of them mean that there is too little",
                stat.map(|stat| stat.major_faults),
            ),
            (
                "process_storage_read_bytes",
                "Bytes read from disks",
                io_bytes(&io, "read_bytes:"),
            ),
            (
                "process_storage_written_bytes",
                "Bytes written to disks",
                io_bytes(&io, "write_bytes:"),
            ),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                put(&mut encoder, name, help, &ConstGauge::new(value))?;
            }
        }
        for (name, help, value) in counters {
            if let Some(value) = value {
                put(&mut encoder, name, help, &ConstCounter::new(value))?;
            }
        }
        Ok(())
    }
}

fn put(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> Result<(), fmt::Error> {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn read_stat() -> Option<Stat> {
    parse_stat(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// The second field is the command's name in parentheses and may hold anything, so fields are counted after the last
/// one; from there the major faults are the 10th, user time the 12th, system time the 13th, the threads the 18th, the
/// start the 20th and the address space the 21st.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<f64>().ok();
    let seconds = |index: usize| Some(number(index)? / TICKS_PER_SECOND);
    Some(Stat {
        cpu_seconds: seconds(11)? + seconds(12)?,
        started_after_boot_seconds: seconds(19)?,
        threads: number(17)?,
        virtual_bytes: number(20)?,
        major_faults: number(9)?,
    })
}

fn boot_time(text: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn io_bytes(io: &str, name: &str) -> Option<f64> {
    io.lines()
        .find_map(|line| line.strip_prefix(name))?
        .trim()
        .parse()
        .ok()
}

/// How many files and sockets this process may have open at once, where the system says so.
pub fn open_files_limit() -> Option<usize> {
    open_files_limit_in(&fs::read_to_string("/proc/self/limits").ok()?)
}

/// The soft limit is the first figure after the name; `unlimited` is none.
fn open_files_limit_in(limits: &str) -> Option<usize> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn open_files() -> Option<f64> {
    let count = u32::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()?;
    // Listing opens one more.
    Some(f64::from(count.saturating_sub(1)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 1200 1 2 3";
        let stat = parse_stat(text).unwrap();
        assert!((stat.cpu_seconds - 3.0).abs() < 1e-9);
        assert!((stat.started_after_boot_seconds - 12.0).abs() < 1e-9);
        assert_eq!((stat.threads, stat.virtual_bytes), (4.0, 1.0));
    }

    #[test]
    fn bytes_of_disks_are_told_apart_from_bytes_of_calls() {
        let io = "rchar: 9\nwchar: 8\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 1\n";
        assert_eq!(io_bytes(io, "read_bytes:"), Some(4096.0));
        assert_eq!(io_bytes(io, "write_bytes:"), Some(8192.0));
        assert_eq!(io_bytes("", "read_bytes:"), None);
    }

    #[test]
    fn the_soft_limit_of_open_files_is_read() {
        let limits =
            "Limit   Soft Limit   Hard Limit\nMax open files            1024                 524288  files\n";
        assert_eq!(open_files_limit_in(limits), Some(1024));
        assert_eq!(
            open_files_limit_in("Max open files  unlimited  unlimited  files\n"),
            None
        );
    }

    #[test]
    fn this_process_has_all_figures() {
        let shown = crate::Metrics::new("0", "test").encode();
        for name in [
            "cpu_seconds_total",
            "resident_memory_bytes",
            "virtual_memory_bytes",
            "threads",
            "open_fds",
            "max_fds",
            "start_time_seconds",
            "major_page_faults_total",
        ] {
            assert!(
                shown
                    .lines()
                    .any(|line| line.starts_with(&format!("process_{name} "))),
                "{shown}"
            );
        }
    }
}
