//! A running Tallyhouse with its catalogue.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::client::Client;

/// Longest a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a service until standard input ends, as it does with the tests.
const SUPERVISE: &str = r#""$@" & pid=$!; cat > /dev/null; kill -TERM $pid; wait $pid"#;

/// A service of one test. Dropping it ends it.
pub(crate) struct Service {
    child: Option<Child>,
    settings: Vec<(String, String)>,
    dir: tempfile::TempDir,
    addresses: Addresses,
}

#[derive(Clone, Debug, Default)]
struct Addresses {
    main: String,
    ticketing: String,
    token: String,
}

impl Service {
    /// A new one with these settings.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let dir = tempfile::tempdir().unwrap();
        let mut service = Self { child: None, settings, dir, addresses: Addresses::default() };
        service.restart();
        service
    }

    /// Starts it (again) in the same directory.
    pub(crate) fn restart(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
        self.arguments(&mut command);
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        self.addresses = read_addresses(&mut child, || self.log());
        self.child = Some(child);
    }

    fn arguments(&self, command: &mut Command) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("stderr.log"));
        command
            .args(["dev", "--listen", "127.0.0.1:0", "--clickhouse-http-port", "0", "--data-dir"])
            .arg(self.dir.path())
            .env("TALLYHOUSE_TICKETING_LISTEN", "127.0.0.1:0")
            .env("TALLYHOUSE_TICKETING_SUMMARY_CHUNK_MS", "5")
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(log.unwrap());
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stderr.log")).unwrap_or_default()
    }

    /// Kills it without any warning.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Its port for everything.
    pub(crate) fn main_url(&self) -> &str {
        &self.addresses.main
    }

    /// A client of its catalogue, on the catalogue's own port.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.addresses.ticketing, &self.addresses.token)
    }

    /// A client of its catalogue, on the port that it shares.
    pub(crate) fn client_of_main_port(&self) -> Client {
        Client::new(&format!("{}/ticketing", self.addresses.main), &self.addresses.token)
    }

    /// The token of the catalogue's administrators.
    pub(crate) fn token(&self) -> &str {
        &self.addresses.token
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the service's log:\n{}", self.log());
        }
    }
}

/// Reads where a service listens from what it prints.
fn read_addresses(child: &mut Child, log: impl Fn() -> String) -> Addresses {
    let lines = lines(child);
    let mut addresses = Addresses::default();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = lines.recv_timeout(left).unwrap_or_else(|_| panic!("the service does not start: {}", log()));
        let last = || line.split_whitespace().last().unwrap_or_default().to_owned();
        if line.contains("gRPC, grpc-web, REST") {
            addresses.main = last();
        } else if line.contains("admin token") {
            addresses.token = last();
        } else if line.contains("ticketing port") {
            addresses.ticketing = last();
        } else if line.contains("Ctrl-C") {
            return addresses;
        }
    }
}

/// Reads on for as long as the service writes, so that it never blocks.
fn lines(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    let stdout = child.stdout.take().unwrap();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

/// The service that the tests of the contract share.
pub(crate) fn shared() -> Client {
    struct Shared {
        addresses: Addresses,
        /// Open until the tests end.
        _stdin: Option<ChildStdin>,
        _service: Service,
    }
    static SHARED: OnceLock<Shared> = OnceLock::new();
    if let Ok(url) = std::env::var("TICKETING_TEST_URL") {
        return Client::new(&url, &std::env::var("TICKETING_TEST_TOKEN").unwrap_or_default());
    }
    let shared = SHARED.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut service = Service { child: None, settings: Vec::new(), dir, addresses: Addresses::default() };
        let mut command = Command::new("sh");
        command.args(["-c", SUPERVISE, "sh", env!("CARGO_BIN_EXE_tallyhouse")]);
        service.arguments(&mut command);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let addresses = read_addresses(&mut child, || service.log());
        let stdin = child.stdin.take();
        service.child = Some(child);
        Shared { addresses, _stdin: stdin, _service: service }
    });
    Client::new(&shared.addresses.ticketing, &shared.addresses.token)
}

/// Waits for something to become true, asking often.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
