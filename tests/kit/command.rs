//! How a service is started.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Which command of the program runs the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `dev`: with an embedded ClickHouse, or the one that the settings name.
    Dev,
    /// `serve`: against the ClickHouse that the settings name.
    Serve,
}

/// How one service is started. It listens on ports that the system chooses, on 127.0.0.1.
#[derive(Clone, Debug)]
pub struct ServiceCommand {
    program: PathBuf,
    mode: Mode,
    data_dir: PathBuf,
    output_dir: PathBuf,
    wrapper: Vec<String>,
    settings: Vec<(String, String)>,
}

impl ServiceCommand {
    /// Starts `program` on this data directory, which is made if it is missing.
    pub fn new(program: impl Into<PathBuf>, mode: Mode, data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            program: program.into(),
            mode,
            output_dir: data_dir.clone(),
            data_dir,
            wrapper: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Adds settings, as names and values of environment variables. A later value of a name replaces an earlier one.
    #[must_use]
    pub fn with_settings<N: AsRef<str>, V: AsRef<str>>(mut self, settings: impl IntoIterator<Item = (N, V)>) -> Self {
        for (name, value) in settings {
            self.set(name.as_ref(), value.as_ref());
        }
        self
    }

    /// Runs the program through another one, whose words come before it: `["setpriv", "--pdeathsig", "KILL"]`, or
    /// `["sh", "-c", "ulimit -n 256 && exec \"$@\"", "sh"]`. To signal the service itself, the other program must become it
    /// (`exec`).
    #[must_use]
    pub fn wrapped_in<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.wrapper.extend(words.into_iter().map(Into::into));
        self
    }

    /// Writes standard output and the log to files in this directory instead of the data directory.
    #[must_use]
    pub fn with_output_in(mut self, dir: impl Into<PathBuf>) -> Self {
        self.output_dir = dir.into();
        self
    }

    /// Starts another program from the next start on.
    pub fn set_program(&mut self, program: impl Into<PathBuf>) {
        self.program = program.into();
    }

    /// Sets a setting for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(other, _)| other != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Which command of the program it is.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The directory of the log of events and of the embedded ClickHouse.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The file that standard output is appended to.
    pub fn stdout_path(&self) -> PathBuf {
        self.output_dir.join("stdout.log")
    }

    /// The file that the log of all runs is appended to.
    pub fn stderr_path(&self) -> PathBuf {
        self.output_dir.join("stderr.log")
    }

    /// The command, with its output going to the files.
    pub(crate) fn command(&self) -> io::Result<Command> {
        std::fs::create_dir_all(&self.data_dir)?;
        let mut command = match self.wrapper.split_first() {
            None => Command::new(&self.program),
            Some((first, others)) => {
                let mut command = Command::new(first);
                command.args(others).arg(&self.program);
                command
            }
        };
        match self.mode {
            Mode::Dev => command.args(["dev", "--clickhouse-http-port", "0"]),
            Mode::Serve => command.arg("serve"),
        };
        let append = |path: PathBuf| File::options().create(true).append(true).open(path);
        command
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&self.data_dir)
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            // Open for as long as this process has the child: what it is wrapped in can wait for its end.
            .stdin(Stdio::piped())
            .stdout(append(self.stdout_path())?)
            .stderr(append(self.stderr_path())?);
        Ok(command)
    }
}
