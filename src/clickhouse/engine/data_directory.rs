//! The engine's directory: its configuration, its password, its data.
//!
//! ```text
//! DATA_DIR/clickhouse/
//!   etc/config.xml, etc/users.xml   written at every start
//!   etc/functions/                  likewise: replacements of ClickHouse's own functions
//!   password                        created once, readable by the owner only
//!   http-port                       the port of the running process, likewise
//!   data/                           ClickHouse's data
//!   log/clickhouse.log              warnings, rotated
//!   log/output.log                  output of the last process
//!   lock                            held by the process while it runs
//! ```

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::sandbox::SandboxStatus;
use super::users::{self, Analysts};
use crate::clickhouse::analysts::AnalystKey;
use crate::config::{Config, Secret};
use crate::private_files;
use crate::secret::read_or_make_secret;

/// As much of what the process printed is worth repeating.
const OUTPUT_TAIL_BYTES: u64 = 2 << 10;
/// Queries that come on top of those that the service counts: of analysts, of
/// people who look around, and the service's own small ones.
const OTHER_QUERIES_MAX: usize = 100;

/// The function `file` reads any file that the process can, without a privilege:
/// the data of every organization lies in such files. A function of the same name
/// that is defined by SQL stands in its way.
const NO_FILES: &str = "CREATE FUNCTION file AS (path) -> throwIf(true, 'files cannot be read here')";

/// How the engine is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The library: `clickhouse local`, which listens after its first query.
    Library,
    /// As `clickhouse server`.
    Server,
}

/// The settings of ClickHouse's configuration.
#[derive(Clone, Debug)]
pub(super) struct DataDirectorySettings {
    /// The database of the service.
    pub database: String,
    /// Memory the process may use.
    pub memory_bytes_max: u64,
    /// The process's nice value.
    pub nice: u8,
    /// Queries and look-ups that this service makes at a time.
    pub reads_in_flight_max: usize,
    /// Inserts that this service makes at a time.
    pub inserts_in_flight_max: usize,
    /// The analysts.
    pub analysts: Analysts,
}

impl DataDirectorySettings {
    pub(super) fn new(config: &Config, key: AnalystKey) -> Self {
        Self {
            database: config.clickhouse_database.clone(),
            memory_bytes_max: config.engine_memory_bytes_max,
            nice: config.engine_nice,
            reads_in_flight_max: config.queries_in_flight_max + config.look_ups_in_flight_max,
            inserts_in_flight_max: config.inserts_in_flight_max,
            analysts: Analysts::new(config, key),
        }
    }
}

/// The embedded engine's directory, with the settings that are written into its configuration.
#[derive(Clone, Debug)]
pub(super) struct DataDirectory {
    dir: PathBuf,
    settings: DataDirectorySettings,
    password: Secret,
}

impl DataDirectory {
    /// Creates missing files and directories.
    pub(super) fn open(data_dir: &Path, settings: DataDirectorySettings) -> io::Result<Self> {
        private_files::create_dir(data_dir)?;
        let dir = data_dir.canonicalize()?.join("clickhouse");
        for dir in [dir.clone(), dir.join("etc"), dir.join("data"), dir.join("log")] {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let password = read_or_make_secret(&dir.join("password"))?;
        Ok(Self { dir, settings, password })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) const fn password(&self) -> &Secret {
        &self.password
    }

    /// A user's password.
    pub(super) fn password_of(&self, user: &str) -> Secret {
        users::password(user, &self.password)
    }

    /// ClickHouse's own directory.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The directories that the process may read.
    pub(super) fn readable_dirs(&self) -> [PathBuf; 1] {
        [self.dir.join("etc")]
    }

    /// The directories that the process may change. They do not contain the password and the users
    /// file.
    pub(super) fn writable_dirs(&self) -> [PathBuf; 2] {
        [self.data_dir(), self.dir.join("log")]
    }

    /// The process's nice value.
    pub(super) const fn nice(&self) -> u8 {
        self.settings.nice
    }

    pub(super) fn lock_path(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub(super) fn config_path(&self) -> PathBuf {
        self.dir.join("etc/config.xml")
    }

    /// Whether a process uses this directory, such as one that is still ending because its service
    /// was killed.
    pub(super) fn is_locked(&self) -> io::Result<bool> {
        match File::create(self.lock_path())?.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// A new file for the output of the process.
    pub(super) fn create_output(&self) -> io::Result<File> {
        File::create(self.output_path())
    }

    /// The last lines of the process's output.
    pub(super) fn output_tail(&self) -> String {
        let tail = File::open(self.output_path()).and_then(|mut file| {
            let start = file.metadata()?.len().saturating_sub(OUTPUT_TAIL_BYTES);
            file.seek(SeekFrom::Start(start))?;
            let mut tail = Vec::new();
            file.take(OUTPUT_TAIL_BYTES).read_to_end(&mut tail)?;
            Ok(String::from_utf8_lossy(&tail).trim().to_owned())
        });
        tail.unwrap_or_else(|error| format!("(its output cannot be read: {error})"))
    }

    /// Writes the port to a file for those who can read the password. It is different at every
    /// start.
    pub(super) fn write_port(&self, port: u16) -> io::Result<()> {
        let path = self.dir.join("http-port");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        writeln!(file?, "{port}")
    }

    /// The sandbox status that the last process reported.
    pub(super) fn sandbox_status(&self) -> SandboxStatus {
        let mut head = String::new();
        let read =
            File::open(self.output_path()).and_then(|file| file.take(OUTPUT_TAIL_BYTES).read_to_string(&mut head));
        read.map_or(SandboxStatus::None, |_| SandboxStatus::reported(&head))
    }

    fn output_path(&self) -> PathBuf {
        self.dir.join("log/output.log")
    }

    /// Writes the configuration for a process that listens on this port.
    pub(super) fn write_config(&self, form: Form, port: u16) -> io::Result<()> {
        let functions = self.dir.join("etc/functions");
        DirBuilder::new().recursive(true).mode(0o700).create(&functions)?;
        std::fs::write(functions.join("function_file.sql"), NO_FILES)?;
        std::fs::write(self.config_path(), self.config_xml(port))?;
        std::fs::write(self.dir.join("etc/users.xml"), users::xml(&self.settings, &self.password, form)?)
    }

    /// The server's settings. Only what differs from ClickHouse's defaults,
    /// which are made for big machines.
    fn config_xml(&self, port: u16) -> String {
        let dir = self.dir.to_string_lossy();
        let dir = quick_xml::escape::escape(&*dir);
        let selects_max = self.settings.reads_in_flight_max + OTHER_QUERIES_MAX;
        let queries_max = selects_max + self.settings.inserts_in_flight_max + OTHER_QUERIES_MAX;
        let memory_bytes_max = self.settings.memory_bytes_max;
        let mark_cache_bytes = memory_bytes_max / 16;
        format!(
            "<clickhouse>
  <!-- Written by tallyhouse at every start. -->
  <logger>
    <level>warning</level>
    <log>{dir}/log/clickhouse.log</log>
    <size>10M</size>
    <count>2</count>
  </logger>
  <path>{dir}/data/</path>
  <tmp_path>{dir}/data/tmp/</tmp_path>
  <user_files_path>{dir}/data/user_files/</user_files_path>
  <users_config>{dir}/etc/users.xml</users_config>
  <user_defined_path>{dir}/etc/functions/</user_defined_path>
  <!-- A profile can say which settings its users may change. -->
  <access_control_improvements>
    <settings_constraints_replace_previous>true</settings_constraints_replace_previous>
  </access_control_improvements>
  <default_profile>default</default_profile>
  <listen_host>127.0.0.1</listen_host>
  <http_port>{port}</http_port>
  <!-- Idle connections of the service's own are no reason to wait. -->
  <shutdown_wait_unfinished>1</shutdown_wait_unfinished>
  <max_connections>1024</max_connections>
  <!-- What reads can never take all places: inserts have some of their own. -->
  <max_concurrent_queries>{queries_max}</max_concurrent_queries>
  <max_concurrent_select_queries>{selects_max}</max_concurrent_select_queries>
  <max_server_memory_usage>{memory_bytes_max}</max_server_memory_usage>
  <mark_cache_size>{mark_cache_bytes}</mark_cache_size>
  <index_mark_cache_size>{mark_cache_bytes}</index_mark_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
  <background_pool_size>2</background_pool_size>
  <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
  <!-- Several threads that delete files wait for each other. -->
  <max_parts_cleaning_thread_pool_size>1</max_parts_cleaning_thread_pool_size>
  <background_common_pool_size>2</background_common_pool_size>
  <background_fetches_pool_size>1</background_fetches_pool_size>
  <background_move_pool_size>1</background_move_pool_size>
  <background_schedule_pool_size>8</background_schedule_pool_size>
  <background_buffer_flush_schedule_pool_size>1</background_buffer_flush_schedule_pool_size>
  <background_distributed_schedule_pool_size>1</background_distributed_schedule_pool_size>
  <background_message_broker_schedule_pool_size>1</background_message_broker_schedule_pool_size>
  <merge_tree>
    <!-- These must be less than the pool has room for: 2 times 2. -->
    <number_of_free_entries_in_pool_to_lower_max_size_of_merge>2</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
    <number_of_free_entries_in_pool_to_execute_mutation>2</number_of_free_entries_in_pool_to_execute_mutation>
    <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>2</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
  </merge_tree>
</clickhouse>
"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn home(dir: &Path) -> DataDirectory {
        let config = Config { data_dir: dir.to_owned(), ..Config::default() };
        let key = AnalystKey::open(&config).unwrap();
        DataDirectory::open(dir, DataDirectorySettings::new(&config, key)).unwrap()
    }

    #[test]
    fn the_password_is_made_once_and_is_nobody_elses_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let first = home(dir.path());
        assert_eq!(first.password().expose().len(), 64);
        assert_eq!(home(dir.path()).password().expose(), first.password().expose());
        let mode = first.dir().join("password").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(home(other.path()).password().expose(), first.password().expose());
    }

    #[test]
    fn the_password_is_in_no_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        home.write_config(Form::Library, 8123).unwrap();
        for file in ["etc/config.xml", "etc/users.xml"] {
            let text = std::fs::read_to_string(home.dir().join(file)).unwrap();
            assert!(!text.contains(home.password().expose()), "{file}");
        }
    }

    #[test]
    fn a_path_may_hold_any_character() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(&dir.path().join("R&D <1>"));
        assert!(home.config_xml(1).contains("/R&amp;D &lt;1&gt;/clickhouse/data/</path>"));
    }

    #[test]
    fn a_lock_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        assert!(!home.is_locked().unwrap());
        let lock = File::create(home.lock_path()).unwrap();
        lock.lock().unwrap();
        assert!(home.is_locked().unwrap());
        drop(lock);
        assert!(!home.is_locked().unwrap());
    }

    #[test]
    fn only_the_end_of_the_output_is_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        let mut output = home.create_output().unwrap();
        output.write_all(&vec![b'x'; 1 << 20]).unwrap();
        output.write_all(b"\nthe end\n").unwrap();
        let tail = home.output_tail();
        assert!(tail.ends_with("x\nthe end") && tail.len() as u64 <= OUTPUT_TAIL_BYTES);
    }
}
