//! The process of the engine, which runs `tallyhouse engine`.
//!
//! Only this process loads the library, so that a crash of ClickHouse is not a crash of the service. This
//! is the only module with unsafe code.
//!
//! The process ends when its standard input ends and, on Linux, when the thread that started it ends for
//! any reason. It therefore never outlives the service, even if it hangs or is stopped.

use std::ffi::{CStr, CString, OsString, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The arguments of the hidden command `engine`.
#[derive(Debug, clap::Args)]
pub struct ChildArgs {
    /// The library to load.
    #[arg(long, conflicts_with = "binary", required_unless_present = "binary")]
    pub library: Option<PathBuf>,
    /// The program to run, if there is no library.
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// The file to keep locked while running.
    #[arg(long)]
    pub lock: PathBuf,
    /// The id of the service's process.
    #[arg(long)]
    pub parent: u32,
    /// The process's nice value, on top of the service's.
    #[arg(long, default_value_t = 0)]
    pub nice: u8,
    /// The TCP port it may listen on.
    #[arg(long)]
    pub port: u16,
    /// A file or directory it may read.
    #[arg(long)]
    pub readable: Vec<PathBuf>,
    /// A file or directory it may change.
    #[arg(long)]
    pub writable: Vec<PathBuf>,
    /// ClickHouse's arguments, with its name in front.
    #[arg(last = true, required = true)]
    pub arguments: Vec<OsString>,
}

/// Why the process ended, other than by being asked to.
#[derive(Debug, thiserror::Error)]
enum ChildError {
    #[error("the service has gone")]
    Orphan,
    #[cfg(target_os = "linux")]
    #[error("the end of the service cannot be watched: {0}")]
    Watch(rustix::io::Errno),
    #[error("{path} is locked by another engine")]
    Locked { path: PathBuf },
    #[error("{path} cannot be locked: {source}")]
    Lock { path: PathBuf, source: io::Error },
    #[cfg(target_os = "linux")]
    #[error(transparent)]
    Sandbox(#[from] super::sandbox::SandboxError),
    #[error("an argument has a NUL in it")]
    Argument,
    #[error("{path} cannot be loaded: {source}")]
    Load { path: PathBuf, source: libloading::Error },
    #[error("{path} cannot be run: {source}")]
    Exec { path: PathBuf, source: io::Error },
    #[error("{0}")]
    ClickHouse(String),
}

/// Runs ClickHouse, and returns when it has shut down. Call it at the start of `main`, before there
/// are threads, and without a runtime.
pub fn run_child(args: ChildArgs) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tallyhouse engine: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: ChildArgs) -> Result<(), ChildError> {
    end_with(args.parent)?;
    name_process();
    let _locked = lock(args.lock.clone())?;
    // Before there are threads, which inherit it.
    let _ = rustix::process::nice(args.nice.into()); // Who may not be nice is as quick as the service.
    enter_sandbox(&args)?;
    match (args.library, args.binary) {
        (Some(library), _) => run_library(&library, args.arguments),
        (None, Some(binary)) => Err(become_binary(binary, &args.arguments)),
        (None, None) => Ok(()), // The parser does not let this through.
    }
}

/// Before ClickHouse's code is loaded, and before there are threads.
fn enter_sandbox(args: &ChildArgs) -> Result<(), ChildError> {
    #[cfg(target_os = "linux")]
    let status = {
        let readable: Vec<PathBuf> = args.readable.iter().chain(&args.library).cloned().collect();
        super::sandbox::enter(&super::sandbox::Allowed {
            writable: &args.writable,
            readable: &readable,
            program: args.binary.as_deref(),
            port: args.port,
        })?
    };
    #[cfg(not(target_os = "linux"))]
    let status = super::sandbox::SandboxStatus::None;
    status.report();
    Ok(())
}

/// Has the kernel kill this process when its parent goes.
fn end_with(parent: u32) -> Result<(), ChildError> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(ChildError::Watch)?;
    // The parent may have gone before that.
    if std::os::unix::process::parent_id() == parent { Ok(()) } else { Err(ChildError::Orphan) }
}

/// Names the process for `top` and its like. It was started from a file called
/// `exe`, see [`super::Engine::start`].
fn name_process() {
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/comm", "clickhouse"); // It is only a name.
}

/// Locks a file until this process ends, whatever it has become by then.
fn lock(path: PathBuf) -> Result<File, ChildError> {
    let locked = File::create(&path).and_then(|file| {
        // The lock must outlive `exec`.
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
        Ok(file)
    });
    let file = locked.map_err(|source| ChildError::Lock { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(ChildError::Locked { path }),
        Err(std::fs::TryLockError::Error(source)) => Err(ChildError::Lock { path, source }),
    }
}

/// Replaces this process by ClickHouse's own program, with the same id.
fn become_binary(binary: PathBuf, arguments: &[OsString]) -> ChildError {
    let mut command = Command::new(&binary);
    if let Some((name, arguments)) = arguments.split_first() {
        command.arg0(name).args(arguments);
    }
    ChildError::Exec { source: command.exec(), path: binary }
}

/// `struct chdb_result *chdb_query_cmdline(int argc, char **argv)`
type QueryCmdline = unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut c_void;
/// `const char *chdb_result_error(struct chdb_result *result)`
type ResultError = unsafe extern "C" fn(*mut c_void) -> *const c_char;

#[allow(unsafe_code, reason = "ClickHouse is a C library here")]
fn run_library(path: &Path, arguments: Vec<OsString>) -> Result<(), ChildError> {
    let load_error = |source| ChildError::Load { path: path.to_owned(), source };
    let arguments = c_strings(arguments)?;
    let argc = c_int::try_from(arguments.len()).map_err(|_| ChildError::Argument)?;
    let mut argv: Vec<*mut c_char> = arguments.into_iter().map(CString::into_raw).collect();
    argv.push(std::ptr::null_mut());

    // SAFETY: the library is the one whose digest was checked when it was
    // fetched; its initialisers expect nothing of the process.
    let library = unsafe { libloading::Library::new(path) }.map_err(load_error)?;
    // SAFETY: both types are those of the library's header, `chdb.h`.
    let (query_cmdline, result_error) = unsafe {
        (
            library.get::<QueryCmdline>(b"chdb_query_cmdline\0").map_err(load_error)?,
            library.get::<ResultError>(b"chdb_result_error\0").map_err(load_error)?,
        )
    };
    // SAFETY: `argv` is `argc` strings and a null, as `main` would get them.
    // It and they are writable and live to the end of the process.
    let result = unsafe { query_cmdline(argc, argv.as_mut_ptr()) };
    let error = if result.is_null() {
        std::ptr::null()
    } else {
        // SAFETY: `result` is what the library gave, and is not freed.
        unsafe { result_error(result) }
    };
    // The library's threads may still run its code: it must not be unloaded.
    std::mem::forget(library);
    std::mem::forget(argv);
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the error is a string that lives as long as the result.
    let error = unsafe { CStr::from_ptr(error) };
    Err(ChildError::ClickHouse(error.to_string_lossy().into_owned()))
}

fn c_strings(texts: Vec<OsString>) -> Result<Vec<CString>, ChildError> {
    texts.into_iter().map(|text| CString::new(text.into_vec()).map_err(|_| ChildError::Argument)).collect()
}
