//! Checks of the machine: data directory, disk, clock, memory, limits, ports.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::config::Config;
use crate::private_files;

/// Earliest time that is believed (2026-01-01), in seconds since 1970; as the service has it.
const EARLIEST_SECONDS: u64 = 1_767_225_600;
/// Memory of an id of the index, in bytes: `index_ids_max` says 22 to 25.
const ID_BYTES: u64 = 25;
/// Memory of the service beside the index and its buffers, in bytes; measured, see docs/performance.md.
const SERVICE_BYTES: u64 = 100 << 20;
/// A sync that takes longer than this makes acknowledgements slow.
const SYNC_SLOW: Duration = Duration::from_millis(50);
/// Files that are not connections.
const FILES_RESERVED: u64 = 1_024;
/// File systems that lose their files with the machine, or whose fdatasync is another machine's, by their magic numbers
/// (statfs(2)).
const UNSUITABLE: [(u64, &str); 4] =
    [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs"), (0x6969, "NFS"), (0xff53_4d42, "CIFS")];

/// The data directory and the log in it.
pub(super) fn data_dir(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "data directory";
    let dir = &config.data_dir;
    if !dir.exists() {
        let parent = dir.ancestors().find(|parent| parent.is_dir()).unwrap_or(Path::new("."));
        return match probe(parent) {
            Ok(_) => vec![Finding::ok(CHECK, format!("{} will be created", dir.display()))],
            Err(error) => vec![unwritable(dir, &error)],
        };
    }
    let mut findings = Vec::new();
    match probe(dir) {
        Ok(took) if took > SYNC_SLOW => findings.push(Finding::warning(
            CHECK,
            format!("a write to {} and its fdatasync took {took:?}", dir.display()),
            "every acknowledgement waits for such a sync: use a faster disk",
        )),
        Ok(took) => {
            findings.push(Finding::ok(CHECK, format!("{} can be written; fdatasync took {took:?}", dir.display())))
        }
        Err(error) => findings.push(unwritable(dir, &error)),
    }
    if let Ok(metadata) = dir.metadata()
        && metadata.mode() & 0o077 != 0
    {
        let advice = format!("chmod 0700 {}: it holds events and keys", dir.display());
        findings.push(Finding::warning(CHECK, "other users of this machine may enter it", advice));
    }
    if let Some(holder) = private_files::lock_holder(&dir.join("lock")) {
        findings.push(Finding::ok(CHECK, format!("in use by {holder}")));
    }
    findings
}

/// Writes and syncs a small file, deletes it, and says how long the sync took.
fn probe(dir: &Path) -> io::Result<Duration> {
    let path = dir.join(format!(".doctor-{}", std::process::id()));
    let tried = (|| {
        let mut file: File = private_files::create(&path)?;
        file.write_all(&[0; 4_096])?;
        let begun = Instant::now();
        file.sync_data()?;
        Ok(begun.elapsed())
    })();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound && tried.is_ok() => Err(error),
        _ => tried,
    }
}

fn unwritable(dir: &Path, error: &io::Error) -> Finding {
    let advice = "give the service's user the directory, or name another with data_dir";
    Finding::error("data directory", format!("{} cannot be written: {error}", dir.display()), advice)
}

/// Room for the log, and the kind of file system.
pub(super) fn disk(config: &Config) -> Finding {
    const CHECK: &str = "disk";
    let existing = config.data_dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    let kind = rustix::fs::statfs(existing).ok().and_then(|stat| {
        let magic = u64::from_ne_bytes(stat.f_type.to_ne_bytes());
        UNSUITABLE.iter().find(|(number, _)| *number == magic & 0xffff_ffff).map(|(_, name)| *name)
    });
    if let Some(kind) = kind {
        let advice = "what is acknowledged must survive a crash of the machine: use a local disk";
        return Finding::warning(CHECK, format!("{} is on {kind}", existing.display()), advice);
    }
    match rustix::fs::statvfs(existing) {
        Ok(stat) => room(stat.f_bavail.saturating_mul(stat.f_frsize), config),
        Err(error) => Finding::warning(CHECK, format!("its free space cannot be told: {error}"), "look with df(1)"),
    }
}

fn room(free_bytes: u64, config: &Config) -> Finding {
    const CHECK: &str = "disk";
    let (log, reserve) = (config.log_bytes_max, config.log_free_bytes_min);
    let found = format!("{free_bytes} bytes are free; the log may take {log} and leaves {reserve}");
    if free_bytes <= reserve {
        return Finding::error(CHECK, found, "every event is refused: enlarge the disk");
    }
    if free_bytes < log.saturating_add(reserve) {
        let advice = "a log at its bound would fill the disk: enlarge it, or lower log_bytes_max";
        return Finding::warning(CHECK, found, advice);
    }
    Finding::ok(CHECK, found)
}

/// The wall clock, as far as it can be judged without another one.
pub(super) fn clock() -> Finding {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if now < EARLIEST_SECONDS {
        let advice = "put it right (NTP): events are refused while it shows a time before 2026";
        return Finding::error("clock", format!("it shows {now} seconds since 1970"), advice);
    }
    Finding::ok("clock", "shows a time that can be right; it is compared with ClickHouse's below")
}

/// Memory of the bounds, all of them full.
pub(super) fn memory(config: &Config) -> Finding {
    const CHECK: &str = "memory";
    let index = config.index_ids_max as u64 * ID_BYTES;
    let buffers = u64::from(config.ingest_bytes_in_flight_max)
        + u64::from(config.request_bytes_in_flight_max)
        + config.response_bytes_in_flight_max
        + config.schema_bytes_max
        + config.cache_bytes_max;
    let engine = if config.clickhouse_url.is_empty() { config.engine_memory_bytes_max } else { 0 };
    let needed = index + buffers + engine + SERVICE_BYTES;
    let Some(available) = available_memory() else {
        return Finding::ok(
            CHECK,
            format!("all bounds together are {needed} bytes; this system does not tell what it has"),
        );
    };
    let found = format!("all bounds together are {needed} bytes; {available} are available");
    if available < needed {
        let advice = "lower index_ids_max, engine_memory_bytes_max or the bounds of bytes in flight, or add memory";
        return Finding::warning(CHECK, found, advice);
    }
    Finding::ok(CHECK, found)
}

/// What the machine and the control group leave.
fn available_memory() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let machine = line.split_whitespace().next()?.parse::<u64>().ok()? * 1_024;
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    Some(group.map_or(machine, |group: u64| group.min(machine)))
}

/// Open files.
pub(super) fn descriptors(config: &Config) -> Finding {
    const CHECK: &str = "open files";
    let limit = getrlimit(Resource::Nofile).maximum;
    let wanted = config.connections_max as u64 + FILES_RESERVED;
    match limit {
        Some(limit) if limit < wanted => {
            let advice = "raise the limit (ulimit -Hn, LimitNOFILE), or lower connections_max";
            Finding::warning(CHECK, format!("{limit} may be open, and connections_max wants {wanted}"), advice)
        }
        Some(limit) => Finding::ok(CHECK, format!("{limit} may be open")),
        None => Finding::ok(CHECK, "any number may be open"),
    }
}

/// The ports: free, or held by a service that is running already.
pub(super) fn ports(config: &Config) -> Vec<Finding> {
    let mut ports = vec![("listen", config.listen)];
    if let Some(address) = config.sql_address() {
        ports.push(("sql_listen", address));
    } else if config.clickhouse_url.is_empty() {
        ports.push(("clickhouse_http_port", SocketAddr::from(([127, 0, 0, 1], config.clickhouse_http_port))));
    }
    let is_running = private_files::lock_holder(&config.data_dir.join("lock")).is_some();
    ports.into_iter().map(|(setting, address)| port(setting, address, is_running)).collect()
}

fn port(setting: &'static str, address: SocketAddr, is_running: bool) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok("ports", format!("{address} ({setting}) is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_running => {
            Finding::ok("ports", format!("{address} ({setting}) is in use, and a service runs in the data directory"))
        }
        Err(error) => {
            let advice = format!("stop who holds it, or choose another with {setting}");
            Finding::error("ports", format!("{address} ({setting}) cannot be had: {error}"), advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_disk_is_judged_by_what_the_log_may_take() {
        let config = Config { log_bytes_max: 1_000, log_free_bytes_min: 100, ..Config::default() };
        for (free, level) in [(100, Level::Error), (101, Level::Warning), (1_099, Level::Warning), (1_100, Level::Ok)] {
            assert_eq!(room(free, &config).level, level, "{free}");
        }
    }

    #[test]
    fn a_directory_of_others_is_an_error_and_one_that_is_open_a_warning() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let set_mode = |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        set_mode(0o700);
        let config = |dir: &Path| Config { data_dir: dir.to_owned(), ..Config::default() };
        let is_open = |finding: &Finding| finding.found.contains("other users");
        // A slow disk is a warning, too.
        let found = data_dir(&config(dir.path()));
        assert!(found.iter().all(|finding| finding.level != Level::Error && !is_open(finding)), "{found:?}");
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing is left");
        assert_eq!(data_dir(&config(&dir.path().join("new/one")))[0].level, Level::Ok);
        set_mode(0o755);
        assert!(
            data_dir(&config(dir.path())).iter().any(|finding| finding.level == Level::Warning && is_open(finding))
        );
        assert_eq!(data_dir(&config(Path::new("/proc/tallyhouse")))[0].level, Level::Error);
    }

    #[test]
    fn a_port_that_is_taken_names_its_setting() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let finding = port("listen", address, false);
        assert_eq!(finding.level, Level::Error);
        assert!(finding.advice.contains("listen"), "{finding:?}");
        assert_eq!(port("listen", address, true).level, Level::Ok);
        drop(taken);
        assert_eq!(port("listen", address, false).level, Level::Ok);
    }

    #[test]
    fn memory_that_the_bounds_exceed_is_a_warning() {
        let config = Config { index_ids_max: 1 << 44, ..Config::default() };
        assert_eq!(memory(&config).level, Level::Warning);
    }
}
