//! The dashboard's files in memory.
//!
//! They are a few megabytes, and are read once: so a page and its policy belong
//! together, whatever happens to the directory, and no path of a request ever
//! reaches the file system. Whoever builds the dashboard again starts the
//! service again.

pub(super) mod policy;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use axum::http::HeaderValue;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// Most files of a website.
const FILES_MAX: usize = 4_096;
/// Most bytes of a website.
const BYTES_MAX: u64 = 64 << 20;
/// Most directories within each other.
const DEPTH_MAX: usize = 16;
/// Files below it have a hash in their names: they never change.
const HASHED: &str = "/_next/static/";
/// The value of the setting by which nothing is served.
const NONE: &str = "none";

/// Why the dashboard cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WebsiteError {
    /// The directory that is set cannot be read.
    #[error("dashboard_dir {} cannot be read: {source}", .path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is none that the dashboard was exported to.
    #[error("dashboard_dir {} has no index.html: build the dashboard with scripts/build-dashboard", .0.display())]
    NotAWebsite(PathBuf),
    /// It is beyond the bounds.
    #[error("dashboard_dir {} has more than {FILES_MAX} files or {BYTES_MAX} bytes", .0.display())]
    TooLarge(PathBuf),
}

/// A static website, as `next build` exports it.
#[derive(Debug)]
pub struct Website {
    /// By the path of their addresses.
    files: HashMap<String, File>,
}

/// A file as it is sent.
#[derive(Debug)]
pub(super) struct File {
    pub bytes: Bytes,
    /// The same, compressed, where the build has made that.
    pub gzip: Option<Bytes>,
    pub content_type: HeaderValue,
    pub etag: HeaderValue,
    pub cache_control: HeaderValue,
    /// Of pages: which scripts run.
    pub policy: Option<HeaderValue>,
}

impl Website {
    /// Reads the website that the setting `dashboard_dir` names. An empty one
    /// means the one beside the running binary or in its checkout, if there is
    /// one; `none` means none.
    ///
    /// # Errors
    /// When the directory that is set cannot be served.
    pub fn open(dashboard_dir: &str) -> Result<Option<Self>, WebsiteError> {
        match dashboard_dir {
            NONE => Ok(None),
            "" => {
                let found = std::env::current_exe().ok().and_then(|binary| find(&binary));
                // One that is just being built is left out.
                Ok(found.and_then(|dir| Self::read(&dir).inspect_err(|error| tracing::warn!(%error)).ok()))
            }
            dir => Self::read(Path::new(dir)).map(Some),
        }
    }

    fn read(dir: &Path) -> Result<Self, WebsiteError> {
        if !dir.join("index.html").is_file() {
            return Err(WebsiteError::NotAWebsite(dir.to_owned()));
        }
        let mut contents = HashMap::new();
        read_directory(dir, "/", DEPTH_MAX, &mut contents)?;
        let is_too_large = contents.values().map(|bytes| bytes.len() as u64).sum::<u64>() > BYTES_MAX;
        if contents.len() > FILES_MAX || is_too_large {
            return Err(WebsiteError::TooLarge(dir.to_owned()));
        }
        let files = contents.iter().filter(|(path, _)| !path.ends_with(".gz")).map(|(path, bytes)| {
            let gzip = contents.get(&format!("{path}.gz")).cloned();
            // The page of a directory has the directory's address.
            let address = path.strip_suffix("index.html").unwrap_or(path).to_owned();
            (address, file(path, bytes.clone(), gzip))
        });
        let files: HashMap<String, File> = files.collect();
        tracing::info!(files = files.len(), dir = %dir.display(), "serving the dashboard");
        Ok(Self { files })
    }

    /// The file at a path of an address.
    pub(super) fn file(&self, path: &str) -> Option<&File> {
        self.files.get(path)
    }
}

/// Where the dashboard lies that belongs to a binary: beside it, or, for one
/// that cargo has built, in its checkout.
fn find(binary: &Path) -> Option<PathBuf> {
    let dir = binary.parent()?;
    let in_checkout = dir.parent().filter(|target| target.ends_with("target")).and_then(Path::parent);
    let candidates = [Some(dir.join("dashboard")), in_checkout.map(|checkout| checkout.join("dashboard/out"))];
    candidates.into_iter().flatten().find(|dir| dir.join("index.html").is_file())
}

/// Reads the files of a directory, and of those in it. Links are left out: they
/// may lead anywhere.
fn read_directory(
    dir: &Path,
    address: &str,
    depth_left: usize,
    contents: &mut HashMap<String, Bytes>,
) -> Result<(), WebsiteError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        |source| WebsiteError::Unreadable { path, source }
    };
    for entry in std::fs::read_dir(dir).map_err(unreadable(dir))? {
        let entry = entry.map_err(unreadable(dir))?;
        let (path, name) = (entry.path(), entry.file_name());
        // The build makes names in ASCII.
        let Some(name) = name.to_str() else { continue };
        let metadata = entry.metadata().map_err(unreadable(&path))?;
        if metadata.is_dir() && depth_left > 0 {
            read_directory(&path, &format!("{address}{name}/"), depth_left - 1, contents)?;
        } else if metadata.is_file() {
            if contents.len() >= FILES_MAX || metadata.len() > BYTES_MAX {
                return Err(WebsiteError::TooLarge(path));
            }
            let bytes = std::fs::read(&path).map_err(unreadable(&path))?;
            contents.insert(format!("{address}{name}"), bytes.into());
        }
    }
    Ok(())
}

fn file(path: &str, bytes: Bytes, gzip: Option<Bytes>) -> File {
    let content_type = content_type(path);
    let policy = content_type.starts_with("text/html").then(|| policy::of_page(&String::from_utf8_lossy(&bytes)));
    let digest: String = Sha256::digest(&bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let cache_control = if path.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let value =
        |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    File {
        content_type: value(&content_type),
        etag: HeaderValue::from_str(&format!("\"{digest}\"")).unwrap_or(HeaderValue::from_static("\"\"")),
        cache_control: HeaderValue::from_static(cache_control),
        policy: policy.flatten(),
        bytes,
        gzip,
    }
}

fn content_type(path: &str) -> String {
    let guessed = mime_guess::from_path(path).first_or_octet_stream();
    let is_text = guessed.type_() == "text" || guessed.subtype() == "javascript";
    if is_text { format!("{}; charset=utf-8", guessed.essence_str()) } else { guessed.essence_str().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn website(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Option<Website>, WebsiteError>) {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join("out").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let opened = Website::open(dir.path().join("out").to_str().unwrap());
        (dir, opened)
    }

    #[test]
    fn files_are_found_by_their_addresses_and_nothing_else_is() {
        let (_dir, opened) = website(&[
            ("index.html", "<script>1</script>"),
            ("sql/index.html", "sql"),
            ("_next/static/a.js", "let a"),
            ("_next/static/a.js.gz", "zipped"),
            ("../secret.html", "secret"),
        ]);
        let website = opened.unwrap().unwrap();
        let script = website.file("/_next/static/a.js").unwrap();
        assert_eq!((&*script.bytes, script.gzip.as_deref()), (&b"let a"[..], Some(&b"zipped"[..])));
        assert_eq!(script.content_type, "text/javascript; charset=utf-8");
        assert!(script.cache_control.to_str().unwrap().contains("immutable") && script.policy.is_none());
        let page = website.file("/").unwrap();
        assert_eq!(
            (&page.content_type, &page.cache_control),
            (&"text/html; charset=utf-8".parse().unwrap(), &"no-cache".parse().unwrap())
        );
        assert!(page.policy.as_ref().unwrap().to_str().unwrap().contains("'sha256-"));
        assert!(website.file("/sql/").is_some());
        for path in
            ["", "/sql", "/secret.html", "/../secret.html", "/sql/../../secret.html", "/_next/static/a.js.gz", "//"]
        {
            assert!(website.file(path).is_none(), "{path}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_left_out() {
        let (dir, _) = website(&[("index.html", "page"), ("../secret", "secret")]);
        std::os::unix::fs::symlink(dir.path().join("secret"), dir.path().join("out/link")).unwrap();
        let website = Website::open(dir.path().join("out").to_str().unwrap()).unwrap().unwrap();
        assert!(website.file("/link").is_none());
    }

    #[test]
    fn a_directory_that_is_no_website_is_refused_by_name() {
        let (_dir, opened) = website(&[("readme.txt", "text")]);
        let error = opened.unwrap_err().to_string();
        assert!(error.contains("dashboard_dir") && error.contains("index.html"), "{error}");
        assert!(Website::open(NONE).unwrap().is_none());
    }

    #[test]
    fn it_is_looked_for_beside_the_binary_and_in_the_checkout() {
        let dir = tempfile::tempdir().unwrap();
        let (installed, built) = (dir.path().join("bin/tallyhouse"), dir.path().join("target/debug/tallyhouse"));
        assert_eq!((find(&installed), find(&built)), (None, None));
        for site in ["bin/dashboard", "dashboard/out"] {
            std::fs::create_dir_all(dir.path().join(site)).unwrap();
            std::fs::write(dir.path().join(site).join("index.html"), "page").unwrap();
        }
        assert_eq!(find(&installed), Some(dir.path().join("bin/dashboard")));
        assert_eq!(find(&built), Some(dir.path().join("dashboard/out")));
    }
}
