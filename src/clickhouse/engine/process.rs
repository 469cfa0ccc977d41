//! Starts, awaits and ends one process of the engine.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use super::data_directory::{DataDirectory, Form};
use super::source::Source;

/// Makes ClickHouse listen, then read its standard input to the end: as long
/// as that is open, it runs.
const LISTEN_QUERY: &str =
    "SYSTEM START LISTEN HTTP; SELECT count() FROM file('-', 'LineAsString', 'line String') FORMAT Null";

/// Starts processes from a dedicated thread. A process asks the kernel to be killed when the
/// *thread* that started it ends (Linux counts threads, not processes), and the runtime's threads
/// come and go.
#[derive(Debug)]
pub(super) struct Launcher {
    orders: mpsc::Sender<Order>,
}

struct Order {
    command: Command,
    started: oneshot::Sender<io::Result<Child>>,
}

impl Launcher {
    pub(super) fn new() -> io::Result<Self> {
        let (orders, taken) = mpsc::channel::<Order>();
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new().name("engine-parent".to_owned()).spawn(move || {
            let _entered = runtime.enter();
            for mut order in taken {
                // A process that nobody waits for any more is killed at once.
                let _ = order.started.send(order.command.spawn());
            }
        })?;
        Ok(Self { orders })
    }

    async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (started, answer) = oneshot::channel();
        let ended = || io::Error::other("the thread that starts the engine has ended");
        self.orders.send(Order { command, started }).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

/// What a process may access beside its own directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProcessBounds<'a> {
    /// The TCP port it listens on.
    pub port: u16,
    /// Further files and directories that it may read, and run.
    pub readable_paths: &'a [PathBuf],
}

/// One running process. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// The other end of its standard input: the process ends when this is closed.
    /// A socket, which cannot be opened a second time by a path such as
    /// `/dev/stdin`.
    input: Option<UnixStream>,
    form: Form,
}

impl Process {
    /// Starts a process in a home whose configuration has been written.
    pub(super) async fn start(
        launcher: &Launcher,
        executable: &Path,
        source: &Source,
        home: &DataDirectory,
        bounds: &ProcessBounds<'_>,
    ) -> io::Result<Self> {
        let (input, far_end) = UnixStream::pair()?;
        let output = home.create_output()?;
        let mut command = Command::new(executable);
        command
            .arg0("tallyhouse")
            .args(child_arguments(source, home, bounds))
            // Secrets of the service are in its environment.
            .env_clear()
            // Times without a zone are UTC, wherever this machine is.
            .env("TZ", "UTC")
            // Else a server would make itself the child of a watchdog.
            .env("CLICKHOUSE_WATCHDOG_ENABLE", "0")
            .current_dir(home.dir())
            .stdin(OwnedFd::from(far_end))
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C in the terminal is for the service, which still needs its
            // database to finish.
            .process_group(0)
            .kill_on_drop(true);
        let child = launcher.spawn(command).await?;
        Ok(Self { child, input: Some(input), form: source.form() })
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Tells the process to end, and kills it if that takes too long.
    pub(super) async fn end(mut self, wait_max: Duration) {
        drop(self.input.take());
        if self.form == Form::Server {
            self.terminate();
        }
        if tokio::time::timeout(wait_max, self.child.wait()).await.is_err() {
            tracing::warn!(?wait_max, "ClickHouse did not shut down in time; killing it");
            self.kill().await;
        }
    }

    pub(super) async fn kill(mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "the ClickHouse process could not be killed");
        }
    }

    fn terminate(&self) {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may just have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
}

/// What `tallyhouse` is called with: see [`super::ChildArgs`].
fn child_arguments(source: &Source, home: &DataDirectory, bounds: &ProcessBounds<'_>) -> Vec<OsString> {
    let how = match source {
        Source::Library(_) => "--library",
        Source::Binary(_) => "--binary",
    };
    let parent = std::process::id().to_string();
    let mut arguments: Vec<OsString> = vec!["engine".into(), how.into(), source.path().into()];
    arguments.extend(["--lock".into(), home.lock_path().into(), "--parent".into(), parent.into()]);
    arguments.extend(["--nice".into(), home.nice().to_string().into()]);
    arguments.extend(["--port".into(), bounds.port.to_string().into()]);
    for path in home.readable_dirs().iter().chain(bounds.readable_paths) {
        arguments.extend(["--readable".into(), path.into()]);
    }
    for path in home.writable_dirs() {
        arguments.extend(["--writable".into(), path.into()]);
    }
    arguments.push("--".into());
    arguments.extend(clickhouse_arguments(source.form(), home));
    arguments
}

fn clickhouse_arguments(form: Form, home: &DataDirectory) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["clickhouse".into()];
    match form {
        Form::Library => arguments.extend([
            "--config-file".into(),
            home.config_path().into(),
            // Here, the configuration's level counts for nothing.
            "--log-level".into(),
            "warning".into(),
            "--query".into(),
            LISTEN_QUERY.into(),
        ]),
        Form::Server => arguments.extend(["server".into(), "--config-file".into(), home.config_path().into()]),
    }
    arguments
}
