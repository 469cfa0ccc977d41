//! A service as a process: started, ready, stopped, killed, started again.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::addresses::Addresses;
use crate::command::ServiceCommand;
use crate::process::signal;
use crate::wait::PATIENCE;

/// Pause between two looks at what a service that is starting or ending has done.
const POLL_PAUSE: Duration = Duration::from_millis(5);

/// Why a service is not ready.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It ended before it was ready.
    #[error("the service ended by itself ({status}): {log}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// What this run logged.
        log: String,
    },
    /// It was not ready within [`PATIENCE`].
    #[error("the service did not say its address in time: {log}")]
    TooLate {
        /// What this run logged.
        log: String,
    },
    /// The process could not be started, or its output not be read.
    #[error("the service cannot be started: {0}")]
    Io(#[from] io::Error),
    /// It is not running.
    #[error("the service is down")]
    Down,
}

/// A service that is started from a [`ServiceCommand`]. Dropping it kills it; when that happens because a test failed, its log
/// is printed.
#[derive(Debug)]
pub struct Service {
    command: ServiceCommand,
    process: Option<Child>,
    addresses: Addresses,
    /// Where the output of the current run begins in the files, in bytes.
    stdout_begin: u64,
    stderr_begin: u64,
}

impl Service {
    /// A service that is not started yet.
    pub fn new(command: ServiceCommand) -> Self {
        Self { command, process: None, addresses: Addresses::default(), stdout_begin: 0, stderr_begin: 0 }
    }

    /// How it is started; what is changed applies to the next start.
    pub const fn command_mut(&mut self) -> &mut ServiceCommand {
        &mut self.command
    }

    /// The directory of the log of events and of the embedded ClickHouse.
    pub fn data_dir(&self) -> &Path {
        self.command.data_dir()
    }

    /// Starts the process, without waiting until it is ready.
    ///
    /// # Errors
    /// When the program cannot be run, or the files of its output not be written.
    pub fn launch(&mut self) -> io::Result<()> {
        self.stdout_begin = length(&self.command.stdout_path());
        self.stderr_begin = length(&self.command.stderr_path());
        self.process = Some(self.command.command()?.spawn()?);
        Ok(())
    }

    /// Says whether the service has printed its addresses since it was launched. From then on they are known.
    ///
    /// # Errors
    /// When it is down, or has ended by itself.
    pub fn is_ready(&mut self) -> Result<bool, StartError> {
        // Before what it printed is read: what ends may have said all that it was to say.
        let ended = self.exit_status()?;
        let stdout = read_from(&self.command.stdout_path(), self.stdout_begin);
        if let Some(addresses) = Addresses::read(self.command.mode(), &stdout, &self.stderr_of_run()) {
            self.addresses = addresses;
            return Ok(true);
        }
        match ended {
            Some(status) => Err(StartError::Ended { status, log: self.stderr_of_run() }),
            None => Ok(false),
        }
    }

    /// Starts the service, with the same directory as before, and returns when it is ready. It blocks the thread.
    ///
    /// # Errors
    /// When it ends by itself, or is not ready within [`PATIENCE`].
    pub fn start(&mut self) -> Result<(), StartError> {
        self.launch()?;
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready()? {
            if Instant::now() > deadline {
                return Err(StartError::TooLate { log: self.stderr_of_run() });
            }
            std::thread::sleep(POLL_PAUSE);
        }
        Ok(())
    }

    /// Where it listens, or listened when it last was ready.
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The id of its process; none when it was not started, or has been stopped.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// How the process ended by itself; none while it runs.
    ///
    /// # Errors
    /// [`StartError::Down`] when it was not started, or has been stopped or killed here.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>, StartError> {
        Ok(self.process.as_mut().ok_or(StartError::Down)?.try_wait()?)
    }

    /// Sends a signal to its process.
    ///
    /// # Errors
    /// When it is down.
    pub fn signal(&self, wanted: Signal) -> io::Result<()> {
        signal(self.pid().ok_or_else(down)?, wanted)
    }

    /// Kills it without any warning, and returns when its process is gone.
    ///
    /// # Errors
    /// When it is down.
    pub fn kill(&mut self) -> io::Result<()> {
        let mut process = self.process.take().ok_or_else(down)?;
        process.kill()?;
        process.wait().map(drop)
    }

    /// Asks it to stop, as an operator would, and returns how it ended. It blocks the thread.
    ///
    /// # Errors
    /// When it is down, or runs on for longer than [`PATIENCE`]; then it is killed.
    pub fn stop(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait()
    }

    /// Waits until it ends by itself, and returns how it ended. It blocks the thread.
    ///
    /// # Errors
    /// When it is down, or runs on for longer than [`PATIENCE`]; then it is killed.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        let mut process = self.process.take().ok_or_else(down)?;
        loop {
            if let Some(status) = process.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                process.kill()?;
                process.wait()?;
                return Err(io::Error::other("the service does not stop"));
            }
            std::thread::sleep(POLL_PAUSE);
        }
    }

    /// What all its runs have logged.
    pub fn stderr(&self) -> String {
        read_from(&self.command.stderr_path(), 0)
    }

    /// What the current run has logged, or the last one.
    pub fn stderr_of_run(&self) -> String {
        read_from(&self.command.stderr_path(), self.stderr_begin)
    }

    /// The URL of the embedded ClickHouse itself, which only the service is meant to use. The user is `tallyhouse`.
    ///
    /// # Errors
    /// When the service has no embedded ClickHouse.
    pub fn engine_url(&self) -> io::Result<String> {
        let port = std::fs::read_to_string(self.engine_file("http-port"))?;
        Ok(format!("http://127.0.0.1:{}", port.trim()))
    }

    /// The password that the service uses for its embedded ClickHouse.
    ///
    /// # Errors
    /// When the service has no embedded ClickHouse.
    pub fn engine_password(&self) -> io::Result<String> {
        Ok(std::fs::read_to_string(self.engine_file("password"))?.trim().to_owned())
    }

    fn engine_file(&self, name: &str) -> PathBuf {
        self.data_dir().join("clickhouse").join(name)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.kill(); // It may have gone already.
        if std::thread::panicking() {
            eprintln!("the service's log:\n{}", self.stderr());
        }
    }
}

fn down() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the service is down")
}

/// The length of a file in bytes; 0 when there is none yet.
fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// The text of a file from this byte on, as far as it is there. Bytes that are no text are replaced.
fn read_from(path: &Path, begin: u64) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(begin))?;
        file.read_to_end(&mut bytes)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(), // Nothing has been written yet.
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::command::Mode;

    /// A program that does what the script says, with the service's arguments.
    fn service(dir: &Path, mode: Mode, script: &str) -> Service {
        let program = dir.join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        // Through a shell: a file that another thread has just had open is "busy" to whoever runs it.
        Service::new(ServiceCommand::new(program, mode, dir.join("data")).wrapped_in(["sh"]))
    }

    #[test]
    fn each_start_reads_its_own_output() {
        let dir = tempfile::tempdir().unwrap();
        let script = "echo \"serving gRPC, grpc-web and REST address=127.0.0.1:$PORT\" >&2; exec cat";
        let mut service = service(dir.path(), Mode::Serve, script);
        for port in ["1001", "1002"] {
            service.command_mut().set("PORT", port);
            service.start().unwrap();
            assert_eq!(service.addresses().main, format!("http://127.0.0.1:{port}"));
            assert_eq!(service.stderr_of_run().lines().count(), 1);
            service.kill().unwrap();
            assert!(matches!(service.is_ready(), Err(StartError::Down)));
        }
        assert_eq!(service.stderr().lines().count(), 2);
    }

    #[test]
    fn a_service_that_ends_by_itself_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let mut service = service(dir.path(), Mode::Dev, "echo no disk >&2; exit 3");
        let error = service.start().unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no disk"), "{error}");
    }

    #[test]
    fn a_stopped_service_has_an_exit_status() {
        let dir = tempfile::tempdir().unwrap();
        let script = "trap 'exit 7' TERM; echo ready >&2; while :; do sleep 0.02; done";
        let mut service = service(dir.path(), Mode::Serve, script);
        service.launch().unwrap();
        while !service.stderr_of_run().contains("ready") {
            std::thread::sleep(POLL_PAUSE);
        }
        assert_eq!(service.stop().unwrap().code(), Some(7));
        assert!(service.stop().is_err(), "it is down");
    }
}
