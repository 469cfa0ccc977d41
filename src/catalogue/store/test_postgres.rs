//! A PostgreSQL server for tests: Debian's programs on a free port of this machine, with a data directory
//! that is deleted when the tests end, however they end. It does not depend on the catalogue, so
//! black-box tests can use it as well.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest the server may take to start.
const START_WAIT: Duration = Duration::from_secs(60);
/// The port may be taken between being found and being used.
const START_ATTEMPTS: u32 = 5;
const PASSWORD: &str = "for tests";

/// Runs the server until standard input ends, which it does with the tests, and
/// removes its data.
const SUPERVISE: &str =
    r#"dir=$1; shift; "$@" >"$dir/log" 2>&1 & pid=$!; cat; kill -QUIT $pid; wait $pid; rm -rf "$dir""#;

/// A running PostgreSQL server for tests. Each test creates its own database in it. Dropping it
/// stops the server.
pub(crate) struct PostgresServer {
    bin: PathBuf,
    port: u16,
    databases: AtomicU32,
    /// Its standard input is open as long as these tests run.
    _server: Child,
}

impl PostgresServer {
    /// The shared server of these tests. None, with a message, if PostgreSQL is not installed; in
    /// continuous integration this is a failure.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<PostgresServer>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// The URL of a new, empty database.
    pub(crate) fn new_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let port = self.port.to_string();
        let mut command = Command::new(self.bin.join("createdb"));
        command.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", &name]).env("PGPASSWORD", PASSWORD);
        let made = command.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        format!("postgres://postgres:{}@127.0.0.1:{port}/{name}", PASSWORD.replace(' ', "%20"))
    }

    fn start() -> Option<Self> {
        let Some(bin) = find_programs() else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "PostgreSQL is not installed, and tests need it");
            // Past the harness, which keeps what tests print to itself.
            let _ = writeln!(
                std::io::stderr(),
                "left out: the tests on PostgreSQL, which is not installed (Debian: apt-get install postgresql)"
            );
            return None;
        };
        let server = (0..START_ATTEMPTS).find_map(|attempt| Self::start_once(&bin, attempt));
        Some(server.expect("PostgreSQL starts"))
    }

    /// None when the port was taken.
    fn start_once(bin: &Path, attempt: u32) -> Option<Self> {
        let dir = std::env::temp_dir().join(format!("tallyhouse-postgres-{}-{attempt}", std::process::id()));
        let is_root = run(Command::new("id").arg("-u")).trim() == "0";
        if is_root {
            run(Command::new("install").args(["-d", "-m", "700", "-o", "postgres"]).arg(&dir));
        } else {
            std::fs::create_dir(&dir).unwrap();
        }
        let as_user = |program: &Path| {
            let mut command = Command::new(if is_root { Path::new("setpriv") } else { program });
            if is_root {
                // The server refuses to run as root.
                command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            }
            command.current_dir("/");
            command
        };
        let data = dir.join("data");
        let write_password = format!("umask 077; printf '%s' '{PASSWORD}' > '{}'", dir.join("password").display());
        run(as_user(Path::new("sh")).args(["-c", &write_password]));
        let mut init = as_user(&bin.join("initdb"));
        init.args(["-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]);
        run(init.arg("--pwfile").arg(dir.join("password")).arg("-D").arg(&data));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = as_user(Path::new("sh"));
        server.args(["-c", SUPERVISE, "sh"]).arg(&dir).arg(bin.join("postgres")).arg("-D").arg(&data);
        server.args(["-p", &port.to_string(), "-h", "127.0.0.1", "-c", "max_connections=300", "-c", "fsync=off"]);
        server.arg("-k").arg(&dir);
        let mut server = server.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        if is_ready(bin, port, &dir) {
            return Some(Self { bin: bin.to_owned(), port, databases: AtomicU32::new(0), _server: server });
        }
        drop(server.stdin.take());
        server.wait().unwrap();
        None
    }
}

/// Where the server's programs are: the newest of Debian's, or else those on the
/// path.
fn find_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = versions.into_iter().rev().chain(std::env::split_paths(&path));
    folders.into_iter().find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_ready(bin: &Path, port: u16, dir: &Path) -> bool {
    let deadline = Instant::now() + START_WAIT;
    while Instant::now() < deadline {
        let asked =
            Command::new(bin.join("pg_isready")).args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]).status();
        if asked.is_ok_and(|status| status.success()) {
            return true;
        }
        let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        if log.contains("could not bind") {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}
