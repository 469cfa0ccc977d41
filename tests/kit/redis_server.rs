//! A real Redis for a test: on a free port of this machine, in a directory of its own, ended with the test.
#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::wait::PATIENCE;

/// How many free ports are tried: another process may take one before Redis does.
const PORTS_TRIED_MAX: usize = 20;

/// A Redis that keeps every write on disk before it answers. Dropping it kills it.
#[derive(Debug)]
pub struct TestRedis {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl TestRedis {
    /// Starts one, and waits until it answers. None where there is no `redis-server`.
    ///
    /// # Panics
    /// Where there is no `redis-server` and `CI` is set, so that nothing may be left out; and when it does not start.
    pub fn start() -> Option<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(std::env::var_os("CI").is_none(), "redis-server is missing: scripts/install-test-servers");
            eprintln!("left out: there is no redis-server");
            return None;
        }
        let started = (0..PORTS_TRIED_MAX).find_map(|_| {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let dir = tempfile::tempdir().unwrap();
            let mut redis = Self { child: spawn(port, dir.path()), port, dir };
            redis.is_up_in_time().then_some(redis)
        });
        assert!(started.is_some(), "no Redis could be started");
        started
    }

    /// False when it has ended by itself, as it does when another process has its port.
    fn is_up_in_time(&mut self) -> bool {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            let connection = redis::Client::open(self.url()).unwrap().get_connection();
            if connection.and_then(|mut redis| redis::cmd("PING").query::<String>(&mut redis)).is_ok() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Sends a command, and returns the answer.
    ///
    /// # Panics
    /// When Redis is down, refuses the command, or answers something of another type.
    pub fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        redis::cmd(command[0]).arg(&command[1..]).query(&mut connection).unwrap()
    }

    /// Kills it. What it has answered is on its disk.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on its port, with its data.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.child = spawn(self.port, self.dir.path());
        assert!(self.is_up_in_time(), "Redis does not come back");
    }
}

fn spawn(port: u16, dir: &Path) -> Child {
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
