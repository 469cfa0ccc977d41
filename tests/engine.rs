//! The embedded ClickHouse, the real one. The first run on a machine fetches
//! it, which takes half a minute.
#![allow(missing_docs, reason = "the names of the tests are their documentation")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tallyhouse::clickhouse::analysts::AnalystKey;
use tallyhouse::clickhouse::engine::{Endpoint, Engine, EngineError, EngineSettings, SandboxStatus};
use tallyhouse::clickhouse::ping::Pinger;
use tallyhouse::config::Config;
use tempfile::TempDir;

/// Longest anything may take: the machine may be busy with other tests.
const WAIT_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn config(data_dir: &Path) -> Config {
    Config { data_dir: data_dir.to_owned(), clickhouse_http_port: 0, ..Config::default() }
}

fn settings() -> EngineSettings {
    EngineSettings::with_executable(PathBuf::from(env!("CARGO_BIN_EXE_tallyhouse")))
}

async fn start(data_dir: &TempDir) -> Engine {
    Engine::start_with(&config(data_dir.path()), settings()).await.expect("an engine")
}

async fn query_as(endpoint: &Endpoint, user: &str, password: &str, sql: &str) -> Result<String, String> {
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let mut request = client.post(&endpoint.url).header("X-ClickHouse-User", user).body(sql.to_owned());
    if !password.is_empty() {
        request = request.header("X-ClickHouse-Key", password);
    }
    let response = request.send().await.map_err(|error| error.to_string())?;
    let is_answer = response.status().is_success();
    let text = response.text().await.map_err(|error| error.to_string())?;
    if is_answer { Ok(text.trim_end().to_owned()) } else { Err(text) }
}

async fn query(engine: &Engine, sql: &str) -> Result<String, String> {
    let endpoint = engine.endpoint();
    query_as(endpoint, &endpoint.user, endpoint.password.expose(), sql).await
}

async fn run(engine: &Engine, statements: &[&str]) {
    for sql in statements {
        query(engine, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

async fn eventually<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let deadline = Instant::now() + WAIT_MAX;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn is_running(pid: u32) -> bool {
    // A process that has ended, but that nobody has asked about, is a zombie.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Writes a program from another process: a file that a thread of this one has
/// open, while another thread forks, is "busy" to whoever runs it.
fn write_program(path: &Path, text: &str) {
    let write = "printf %s \"$1\" > \"$2\" && chmod +x \"$2\"";
    assert!(Command::new("sh").args(["-c", write, "sh", text]).arg(path).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_its_service_and_nobody_without_the_password() {
    let data_dir = tempfile::tempdir().unwrap();
    let engine = start(&data_dir).await;
    assert_eq!(query(&engine, "SELECT 1").await.unwrap(), "1");
    for (user, password) in [("tallyhouse", "wrong"), ("tallyhouse", ""), ("default", ""), ("nobody", "")] {
        let refused = query_as(engine.endpoint(), user, password, "SELECT 1").await;
        assert!(refused.is_err(), "{user}: {refused:?}");
    }
    let pid = engine.pid().unwrap();
    engine.stop().await;
    assert!(!is_running(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analyst_reads_the_views_and_nothing_else() {
    let data_dir = tempfile::tempdir().unwrap();
    let engine = start(&data_dir).await;
    run(
        &engine,
        &[
            "CREATE DATABASE tallyhouse",
            "CREATE DATABASE tallyhouse_analytics",
            "CREATE TABLE tallyhouse.t (org String, n UInt64) ENGINE = ReplacingMergeTree ORDER BY org",
            "INSERT INTO tallyhouse.t VALUES ('a', 7), ('b', 8)",
            "CREATE VIEW tallyhouse_analytics.v DEFINER = tallyhouse SQL SECURITY DEFINER \
             AS SELECT n FROM tallyhouse.t WHERE org = {org:String}",
        ],
    )
    .await;
    let key = AnalystKey::open(&config(data_dir.path())).unwrap();
    let password = key.engine_password("analyst");
    let analyst = |sql: &'static str| query_as(engine.endpoint(), "analyst", password.expose(), sql);
    assert!(query_as(engine.endpoint(), "analyst", "", "SELECT 1").await.is_err());
    assert_eq!(analyst("SELECT n FROM tallyhouse_analytics.v(org = 'a')").await.unwrap(), "7");
    for (sql, refusal) in [
        ("SELECT * FROM tallyhouse.t", "ACCESS_DENIED"),
        ("INSERT INTO tallyhouse.t VALUES ('c', 9)", "ACCESS_DENIED"),
        ("CREATE TABLE tallyhouse_analytics.t (n UInt64) ENGINE = Memory", "ACCESS_DENIED"),
        ("DROP VIEW tallyhouse_analytics.v", "ACCESS_DENIED"),
        ("SET max_execution_time = 0", "SETTING_CONSTRAINT_VIOLATION"),
        ("SET max_rows_to_read = 1", "READONLY"),
        ("SELECT * FROM file('/etc/passwd', 'LineAsString')", "ACCESS_DENIED"),
        ("SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')", "ACCESS_DENIED"),
        ("SYSTEM STOP LISTEN HTTP", "ACCESS_DENIED"),
        ("SELECT query FROM system.processes", "ACCESS_DENIED"),
    ] {
        let error = analyst(sql).await.expect_err(sql);
        assert!(error.contains(refusal), "{sql}: {error}");
    }
    engine.stop().await;
}

/// ClickHouse notes a token before the rows under it have their final place.
/// Killed in between, it must not take the repeated insert for a duplicate.
#[tokio::test(flavor = "multi_thread")]
async fn an_insert_broken_off_behind_its_token_can_be_repeated() {
    let data_dir = tempfile::tempdir().unwrap();
    let insert = "INSERT INTO tallyhouse.t SETTINGS insert_deduplication_token = ";
    let engine = start(&data_dir).await;
    run(
        &engine,
        &[
            "CREATE DATABASE tallyhouse",
            "CREATE TABLE tallyhouse.t (n UInt64) ENGINE = MergeTree ORDER BY n \
             SETTINGS non_replicated_deduplication_window = 100",
            &format!("{insert} 'kept' VALUES (1)"),
            &format!("{insert} 'broken off' VALUES (2)"),
        ],
    )
    .await;
    let path = "SELECT path FROM system.parts WHERE table = 't' AND active ORDER BY name DESC LIMIT 1";
    let part = PathBuf::from(query(&engine, path).await.unwrap());
    engine.stop().await;

    let unfinished = part.with_file_name(format!("tmp_insert_{}", part.file_name().unwrap().to_string_lossy()));
    std::fs::rename(part, unfinished).unwrap();

    let engine = start(&data_dir).await;
    for token in ["kept", "broken off"] {
        run(&engine, &[&format!("{insert} '{token}' VALUES (3)")]).await;
    }
    assert_eq!(query(&engine, "SELECT n FROM tallyhouse.t ORDER BY n").await.unwrap(), "1\n3");
    engine.stop().await;
}

/// Runs a program in the engine's sandbox; whether it succeeded, and what it said.
#[cfg(target_os = "linux")]
fn in_the_sandbox(readable: &Path, writable: &Path, port: u16, program: &str, arguments: &[&str]) -> (bool, String) {
    let lock = writable.parent().unwrap().join("lock");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
    command.args(["engine", "--binary", program, "--parent", &std::process::id().to_string(), "--lock"]).arg(lock);
    command.arg("--port").arg(port.to_string()).arg("--readable").arg(readable).arg("--writable").arg(writable);
    let output = command.arg("--").arg(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

/// The sandbox alone, with programs that do nothing else to hold themselves back.
#[cfg(target_os = "linux")]
#[test]
fn the_sandbox_shows_only_its_own_directories() {
    let dir = tempfile::tempdir().unwrap();
    let [readable, writable, secret] = ["etc", "data", "password"].map(|name| dir.path().join(name));
    for made in [&readable, &writable] {
        std::fs::create_dir(made).unwrap();
    }
    std::fs::write(readable.join("config"), "to read").unwrap();
    std::fs::write(&secret, "for the service").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let run = |program: &str, arguments: &[&str]| in_the_sandbox(&readable, &writable, port, program, arguments);
    let (is_good, text) = run("/bin/cat", &[readable.join("config").to_str().unwrap()]);
    assert!(is_good && text.contains("to read"), "{text}");
    assert!(text.contains("tallyhouse engine: sandbox full"), "this kernel enforces less: {text}");
    let written = writable.join("new").display().to_string();
    assert!(run("/bin/cp", &[readable.join("config").to_str().unwrap(), &written]).0);

    let own_environment = format!("/proc/{}/environ", std::process::id());
    for file in [secret.to_str().unwrap(), "/etc/passwd", "/etc/hosts", &own_environment, "/proc/1/cmdline"] {
        let (is_good, text) = run("/bin/cat", &[file]);
        assert!(!is_good && text.contains("Permission denied"), "{file}: {text}");
    }
    let into_readable = readable.join("new").display().to_string();
    for file in [&*into_readable, "/tmp/tallyhouse-sandbox-test"] {
        let (is_good, text) = run("/bin/cp", &[&written, file]);
        assert!(!is_good, "{file}: {text}");
    }
    for attempt in [
        format!("exec 3<>/dev/tcp/127.0.0.1/{port}"),
        "exec 3<>/dev/udp/127.0.0.1/53".to_owned(),
        format!("kill -0 {}", std::process::id()),
    ] {
        let (is_good, text) = run("/bin/bash", &["-c", &attempt]);
        assert!(!is_good, "{attempt}: {text}");
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "it connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_held_to_its_databases() {
    let data_dir = tempfile::tempdir().unwrap();
    let engine = start(&data_dir).await;
    for sql in ["CREATE DATABASE other", "SELECT * FROM file('/etc/passwd', 'LineAsString')", "SYSTEM STOP LISTEN HTTP"]
    {
        let error = query(&engine, sql).await.expect_err(sql);
        assert!(error.contains("ACCESS_DENIED"), "{sql}: {error}");
    }
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_answers_again_at_the_same_url_with_its_data() {
    let data_dir = tempfile::tempdir().unwrap();
    let engine = start(&data_dir).await;
    let mut up = Pinger::new(&engine.endpoint().url).unwrap().watch();
    up.wait_for(|up| *up).await.unwrap();
    run(&engine, &["CREATE DATABASE tallyhouse", "CREATE TABLE tallyhouse.t (n UInt64) ENGINE = MergeTree ORDER BY n"])
        .await;
    for rows in 1..=3 {
        run(&engine, &["INSERT INTO tallyhouse.t VALUES (1)"]).await;
        let killed = engine.pid().unwrap();
        signal(killed, rustix::process::Signal::KILL);
        eventually("the rows are there", || async {
            query(&engine, "SELECT count() FROM tallyhouse.t").await == Ok(rows.to_string())
        })
        .await;
        eventually("it has another process", || async { engine.pid().is_some_and(|pid| pid != killed) }).await;
    }
    engine.stop().await;
    up.wait_for(|up| !*up).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_engine_starts_again_with_its_data_and_password() {
    let data_dir = tempfile::tempdir().unwrap();
    let engine = start(&data_dir).await;
    let password = engine.endpoint().password.expose().to_owned();
    run(
        &engine,
        &[
            "CREATE DATABASE tallyhouse",
            "CREATE TABLE tallyhouse.t ENGINE = MergeTree ORDER BY n AS SELECT number AS n FROM numbers(1000)",
        ],
    )
    .await;
    engine.stop().await;
    let engine = start(&data_dir).await;
    assert_eq!(engine.endpoint().password.expose(), password);
    assert_eq!(query(&engine, "SELECT sum(n) FROM tallyhouse.t").await.unwrap(), "499500");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_engine_leaves_no_process() {
    let data_dir = tempfile::tempdir().unwrap();
    let engine = start(&data_dir).await;
    let pid = engine.pid().unwrap();
    drop(engine);
    eventually("the process has gone", || async { !is_running(pid) }).await;
}

/// Not a test: what the tests below run as a process of its own, to kill it.
#[test]
#[ignore = "it is run by other tests"]
fn owner_of_an_engine() {
    let Some(data_dir) = std::env::var_os("OWNER_DATA_DIR") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let engine = Engine::start_with(&config(Path::new(&data_dir)), settings()).await.unwrap();
        println!("\nengine {}", engine.pid().unwrap());
        if std::env::var_os("OWNER_PANICS").is_some() {
            panic!("as asked");
        }
        std::future::pending::<()>().await;
    });
}

/// Starts the above, and returns it with its engine's process.
fn start_owner(data_dir: &TempDir, panics: bool) -> (std::process::Child, u32) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "owner_of_an_engine", "--ignored", "--nocapture"])
        .env("OWNER_DATA_DIR", data_dir.path())
        .stdout(Stdio::piped());
    if panics {
        command.env("OWNER_PANICS", "1").stderr(Stdio::null());
    }
    let mut owner = command.spawn().unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines().map(Result::unwrap);
    let pid = lines.find_map(|line| line.strip_prefix("engine ")?.parse().ok()).expect("the engine's process");
    (owner, pid)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_leaves_no_process() {
    let data_dir = tempfile::tempdir().unwrap();
    let (mut owner, pid) = start_owner(&data_dir, false);
    owner.kill().unwrap();
    owner.wait().unwrap();
    let engine = start(&data_dir).await;
    assert!(!is_running(pid));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_leaves_no_process_even_a_stopped_one() {
    let data_dir = tempfile::tempdir().unwrap();
    let (mut owner, pid) = start_owner(&data_dir, false);
    signal(pid, rustix::process::Signal::STOP);
    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("the process has gone", || async { !is_running(pid) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panicking_service_leaves_no_process() {
    let data_dir = tempfile::tempdir().unwrap();
    let (mut owner, pid) = start_owner(&data_dir, true);
    assert!(!owner.wait().unwrap().success());
    eventually("the process has gone", || async { !is_running(pid) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_has_one_engine() {
    let data_dir = tempfile::tempdir().unwrap();
    let engine = start(&data_dir).await;
    let hasty = EngineSettings { former_wait_max: Duration::from_millis(100), ..settings() };
    let error = Engine::start_with(&config(data_dir.path()), hasty).await.unwrap_err();
    assert!(matches!(error, EngineError::InUse { .. }), "{error}");
    assert_eq!(query(&engine, "SELECT 1").await.unwrap(), "1");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_hangs_at_its_start_is_killed_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("tallyhouse");
    let (tried, tallyhouse) = (dir.path().join("tried").display().to_string(), env!("CARGO_BIN_EXE_tallyhouse"));
    let text = format!("#!/bin/sh\n[ -e '{tried}' ] && exec '{tallyhouse}' \"$@\"\n: > '{tried}'\nexec sleep 1000\n");
    write_program(&program, &text);
    let hasty = EngineSettings { start_wait_max: Duration::from_secs(5), ..EngineSettings::with_executable(program) };
    let engine = Engine::start_with(&config(dir.path()), hasty).await.unwrap();
    assert_eq!(query(&engine, "SELECT 1").await.unwrap(), "1");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_does_not_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("tallyhouse");
    write_program(&program, "#!/bin/sh\necho 'no luck today' >&2\nexit 3\n");
    let error = Engine::start_with(&config(dir.path()), EngineSettings::with_executable(program)).await.unwrap_err();
    assert!(error.to_string().contains("no luck today"), "{error}");
}

/// A stand-in for the program `clickhouse`: it has its arguments, its user
/// without `default`, and ends when it is told to, not when its input ends.
fn write_clickhouse(path: &Path, library: &str) {
    let tallyhouse = env!("CARGO_BIN_EXE_tallyhouse");
    let text = format!(
        r#"#!/bin/sh
[ "$1 $2" = "local --version" ] && echo 'ClickHouse local version 26.7.2.1 (official build).' && exit
[ "$1 $2" = "server --config-file" ] || exit 64
etc=$(dirname "$3")
user='<default><no_password/><networks><ip>127.0.0.1</ip></networks><profile>starter</profile><quota>default</quota></default>'
port=$(sed -n 's|.*<http_port>\([0-9]*\)<.*|\1|p' "$3")
data=$(dirname "$etc")/data
sed "s|</users>|$user</users>|" "$etc/users.xml" > "$data/users-2.xml"
sed "s|$etc/users.xml|$data/users-2.xml|" "$3" > "$data/config-2.xml"
mkfifo "$data/never" 2> /dev/null
exec '{tallyhouse}' engine --library '{library}' --lock "$data/lock-2" --parent $PPID --port "$port" \
  --readable "$etc" --writable "$data" --writable "$(dirname "$etc")/log" -- clickhouse \
  --config-file "$data/config-2.xml" --log-level warning \
  --query "SYSTEM START LISTEN HTTP; SELECT count() FROM file('-', 'LineAsString', 'line String')" <> "$data/never"
"#
    );
    write_program(path, &text);
}

/// The library that a running engine has loaded.
fn library_of(engine: &Engine) -> String {
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", engine.pid().unwrap())).unwrap();
    let mut arguments = arguments.split('\0').skip_while(|argument| *argument != "--library");
    arguments.nth(1).unwrap().to_owned()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn it_stands_back_as_far_as_the_settings_say() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { engine_nice: 3, ..config(dir.path()) };
    let engine = Engine::start_with(&config, settings()).await.unwrap();
    // (proc(5): the 19th field of `stat`, the 17th behind the name.)
    let nice = |process: String| -> i32 {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap()
    };
    assert_eq!(nice(engine.pid().unwrap().to_string()), (nice("self".to_owned()) + 3).min(19));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clickhouse_program_is_run_as_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(&dir).await;
    let program = dir.path().join("clickhouse-program");
    let library = library_of(&engine);
    write_clickhouse(&program, &library);
    engine.stop().await;

    let config = Config { clickhouse_binary: program.display().to_string(), ..config(dir.path()) };
    // What this stand-in is made of.
    let readable_paths = vec![PathBuf::from(env!("CARGO_BIN_EXE_tallyhouse")), PathBuf::from(library)];
    let engine = Engine::start_with(&config, EngineSettings { readable_paths, ..settings() }).await.unwrap();
    assert_ne!(engine.sandbox(), SandboxStatus::None);
    assert_eq!(query(&engine, "SELECT currentUser()").await.unwrap(), "tallyhouse");
    let killed = engine.pid().unwrap();
    signal(killed, rustix::process::Signal::KILL);
    eventually("it answers again", || async { query(&engine, "SELECT 1").await.is_ok() }).await;
    eventually("it has a process", || async { engine.pid().is_some() }).await;
    let pid = engine.pid().unwrap();
    let begun = Instant::now();
    engine.stop().await;
    assert!(!is_running(pid));
    assert!(begun.elapsed() < settings().stop_wait_max, "it had to be killed");
}
