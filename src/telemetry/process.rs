//! Metrics of the process, with the names of Prometheus's client libraries, so that common dashboards and
//! alerts find them. They come from Linux's `/proc`; other systems have few of them.

use std::time::SystemTime;

use rustix::process::{Resource, getrlimit};

use crate::instruments::Instruments;

/// Shows them from now on.
pub(super) fn observe(instruments: &Instruments) {
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs_f64()).ok();
    instruments.observed_seconds("process.start_time.seconds", move || started);
    instruments.counted_by("process.cpu.seconds", |show| {
        if let Some(stat) = Stat::read() {
            show(stat.user_seconds + stat.system_seconds, &[]);
        }
    });
    type Figure = (&'static str, fn() -> Option<u64>);
    let figures: [Figure; 5] = [
        ("process.threads", || Some(Stat::read()?.threads)),
        ("process.virtual_memory.bytes", || Some(Stat::read()?.virtual_bytes)),
        ("process.resident_memory.bytes", || Some(Stat::read()?.resident_bytes)),
        ("process.open_fds", || Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as u64)),
        ("process.max_fds", || getrlimit(Resource::Nofile).current),
    ];
    for (name, read) in figures {
        instruments.observed_by(name, move |show| {
            if let Some(value) = read() {
                show(value, &[]);
            }
        });
    }
}

/// Fields of `/proc/self/stat`; see proc_pid_stat(5).
#[derive(Debug, PartialEq)]
struct Stat {
    user_seconds: f64,
    system_seconds: f64,
    threads: u64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        Self::parse(&text, rustix::param::clock_ticks_per_second(), rustix::param::page_size() as u64)
    }

    #[allow(clippy::cast_precision_loss, reason = "centuries")]
    fn parse(text: &str, ticks_per_second: u64, page_bytes: u64) -> Option<Self> {
        // The name, in parentheses, may hold anything; the third field follows.
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let seconds = |number: usize| Some(field(number)? as f64 / ticks_per_second as f64);
        Some(Self {
            user_seconds: seconds(14)?,
            system_seconds: seconds(15)?,
            threads: field(20)?,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)?.saturating_mul(page_bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_the_name() {
        let text = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1000 8192 3 18446744073709551615";
        let stat =
            Stat { user_seconds: 2.5, system_seconds: 0.5, threads: 9, virtual_bytes: 8192, resident_bytes: 12288 };
        assert_eq!(Stat::parse(text, 100, 4_096), Some(stat));
        assert_eq!(Stat::parse("42 (a", 100, 4_096), None);
        assert_eq!(Stat::parse("42 (a) S 1", 100, 4_096), None);
    }
}
