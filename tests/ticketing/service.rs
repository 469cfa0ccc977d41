//! A running Tallyhouse with its catalogue.

use std::sync::OnceLock;

use tallyhouse_testkit::{Addresses, Mode, ServiceCommand};
pub(crate) use tallyhouse_testkit::{PATIENCE, eventually};

use crate::client::Client;

/// Runs a service until standard input ends, as it does with the tests.
const SUPERVISE: &str = r#""$@" & pid=$!; cat > /dev/null; kill -TERM $pid; wait $pid"#;

/// A service of one test. Dropping it ends it.
pub(crate) struct Service {
    service: tallyhouse_testkit::Service,
    /// Deleted after the service has ended.
    _dir: tempfile::TempDir,
}

impl Service {
    /// A new one with these settings.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_with(|command| command.with_settings(settings.iter().copied()))
    }

    fn start_with(change: impl FnOnce(ServiceCommand) -> ServiceCommand) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let command = ServiceCommand::new(env!("CARGO_BIN_EXE_tallyhouse"), Mode::Dev, dir.path()).with_settings([
            ("TALLYHOUSE_TICKETING_LISTEN", "127.0.0.1:0"),
            ("TALLYHOUSE_TICKETING_SUMMARY_CHUNK_MS", "5"),
        ]);
        let mut service = Self { service: tallyhouse_testkit::Service::new(change(command)), _dir: dir };
        service.restart();
        service
    }

    /// Starts it (again) in the same directory.
    pub(crate) fn restart(&mut self) {
        self.service.start().unwrap_or_else(|error| panic!("{error}"));
    }

    fn addresses(&self) -> &Addresses {
        self.service.addresses()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        self.service.stderr()
    }

    /// Kills it without any warning.
    pub(crate) fn kill(&mut self) {
        self.service.kill().unwrap();
    }

    /// Its port for everything.
    pub(crate) fn main_url(&self) -> &str {
        &self.addresses().main
    }

    /// A client of its catalogue, on the catalogue's own port.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.addresses().ticketing.as_deref().unwrap(), self.token())
    }

    /// A client of its catalogue, on the port that it shares.
    pub(crate) fn client_of_main_port(&self) -> Client {
        Client::new(&format!("{}/ticketing", self.addresses().main), self.token())
    }

    /// The token of the catalogue's administrators; empty when the settings have their own.
    pub(crate) fn token(&self) -> &str {
        self.addresses().ticketing_token.as_deref().unwrap_or_default()
    }
}

/// The service that the tests of the contract share.
pub(crate) fn shared() -> Client {
    static SHARED: OnceLock<Service> = OnceLock::new();
    if let Ok(url) = std::env::var("TICKETING_TEST_URL") {
        return Client::new(&url, &std::env::var("TICKETING_TEST_TOKEN").unwrap_or_default());
    }
    // Nobody drops it: it ends when its standard input does, with this process.
    let start = || Service::start_with(|command| command.wrapped_in(["sh", "-c", SUPERVISE, "sh"]));
    SHARED.get_or_init(start).client()
}
