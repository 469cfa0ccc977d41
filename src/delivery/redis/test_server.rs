//! Starts a real Redis for a test, on a free port and in a directory of its own, and stops it with the test.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest that a Redis may take to start.
const START_WAIT_MAX: Duration = Duration::from_secs(20);

pub(crate) struct TestRedis {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl TestRedis {
    /// None where there is no `redis-server`, unless the tests must not leave anything out.
    pub(crate) fn start() -> Option<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(std::env::var_os("CI").is_none(), "redis-server is missing: scripts/install-test-servers");
            eprintln!("left out: there is no redis-server");
            return None;
        }
        let mut dir = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut redis = Self { child: spawn(port, dir.path()), port, dir };
            if redis.wait_until_up() {
                return Some(redis);
            }
            // Another has taken the port in between.
            dir = std::mem::replace(&mut redis.dir, tempfile::tempdir().unwrap());
        }
        panic!("no Redis could be started");
    }

    fn wait_until_up(&mut self) -> bool {
        let since = Instant::now();
        while since.elapsed() < START_WAIT_MAX {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            let client = ::redis::Client::open(self.url()).unwrap();
            let answer = client.get_connection().and_then(|mut redis| ::redis::cmd("PING").query::<String>(&mut redis));
            if answer.is_ok() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Asks it something.
    pub(crate) fn ask<T: ::redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut connection = ::redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        ::redis::cmd(command[0]).arg(&command[1..]).query(&mut connection).unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on its port, with its data.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.port, self.dir.path());
        assert!(self.wait_until_up(), "Redis does not come back");
    }
}

fn spawn(port: u16, dir: &std::path::Path) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
        .args(["--appendfsync", "always", "--dir", &dir.display().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
