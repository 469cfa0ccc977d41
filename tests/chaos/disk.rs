//! A small disk of its own for the log, to be filled: a tmpfs that only the
//! service and this simulator see.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;

/// The disk lives as long as this.
pub(crate) struct Disk {
    /// Keeps the mount namespace, also while no service runs. It ends with its
    /// standard input.
    holder: Child,
    mount: PathBuf,
}

impl Disk {
    /// A disk of so many bytes at this directory.
    pub(crate) fn mount(mount: &Path, bytes: u64) -> Result<Self> {
        std::fs::create_dir_all(mount)?;
        let script = format!("mount -t tmpfs -o size={bytes} tmpfs {} && echo mounted && exec cat", mount.display());
        let mut holder = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("unshare does not start")?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().context("no output")?).read_line(&mut line)?;
        ensure!(line.trim() == "mounted", "no disk of its own for the log");
        Ok(Self { holder, mount: mount.to_owned() })
    }

    /// The words before a command that make it see the disk.
    pub(crate) fn entrance(&self) -> Vec<String> {
        let words = ["nsenter", "--preserve-credentials", "--user", "--mount", "--target"];
        words.into_iter().map(str::to_owned).chain([self.holder.id().to_string(), "--".to_owned()]).collect()
    }

    /// The disk as this process sees it.
    pub(crate) fn seen_from_outside(&self) -> PathBuf {
        let inside = self.mount.strip_prefix("/").unwrap_or(&self.mount);
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(inside)
    }

    /// Takes all but so many bytes, until the answer is dropped.
    pub(crate) fn fill(&self, left: u64) -> Result<Filling> {
        let path = self.seen_from_outside().join("filling");
        let file = File::create(&path)?;
        let filling = Filling { path };
        loop {
            let disk = rustix::fs::statvfs(self.seen_from_outside())?;
            let bytes = (disk.f_bavail * disk.f_frsize).saturating_sub(left);
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes.max(1)) {
                // The service has taken some of it meanwhile.
                Err(Errno::NOSPC) if bytes > 1 => {}
                filled => return Ok(filled.map(|()| filling)?),
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// What fills a disk.
pub(crate) struct Filling {
    path: PathBuf,
}

impl Drop for Filling {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
