//! Restricts the engine's process to its own directory, the system's libraries and one port. ClickHouse
//! has functions that read files, open connections and run programs, and some of them require no
//! privilege; the sandbox makes them fail.
//!
//! It uses two facilities of Linux that require no privilege: Landlock (files, TCP ports, signals; Linux
//! 5.13 and later) and a seccomp filter (system calls). All threads inherit both, and neither can be
//! removed. An older kernel gives less protection, which [`enter`] reports.
//!
//! The process cannot read the password file beside the engine's data, the log of events, the file of
//! idempotency keys, the key of cursors, the service's configuration, or other files of its user.

use std::path::{Path, PathBuf};

/// What the process may access.
#[derive(Debug)]
pub(super) struct Allowed<'a> {
    /// Files and directories it may change.
    pub writable: &'a [PathBuf],
    /// Files and directories it may read, besides [`SYSTEM_PATHS`].
    pub readable: &'a [PathBuf],
    /// The program it becomes. Without one, it may start none at all.
    pub program: Option<&'a Path>,
    /// The one TCP port it may listen on. It may connect to none.
    pub port: u16,
}

/// The part of the sandbox that the kernel enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxStatus {
    /// All of it.
    Full,
    /// Files, but not all of ports, signals and system calls.
    Partial,
    /// Nothing: the process can read whatever its user can.
    None,
}

/// What the line of the process's output that tells its status begins with.
const REPORT: &str = "tallyhouse engine: sandbox ";

impl SandboxStatus {
    /// The name in health reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::None => "none",
        }
    }

    /// Prints it for the service, which reads the process's output.
    pub(super) fn report(self) {
        println!("{REPORT}{}", self.name());
    }

    /// The status that a process has reported in this output.
    pub(super) fn reported(output: &str) -> Self {
        let name = output.lines().find_map(|line| line.strip_prefix(REPORT));
        [Self::Full, Self::Partial].into_iter().find(|status| Some(status.name()) == name).unwrap_or(Self::None)
    }
}

/// Why the sandbox cannot be entered, on a kernel that has it.
#[cfg(target_os = "linux")]
#[derive(Debug, thiserror::Error)]
pub(super) enum SandboxError {
    #[error("the sandbox cannot be entered (Landlock): {0}")]
    Landlock(#[from] landlock::RulesetError),
    #[error("the sandbox cannot be entered (seccomp): {0}")]
    Seccomp(#[from] seccompiler::Error),
    #[error("the sandbox cannot be entered (seccomp): {0}")]
    Filter(#[from] seccompiler::BackendError),
}

/// Restricts this process permanently. Call it before there are threads.
#[cfg(target_os = "linux")]
pub(super) fn enter(allowed: &Allowed<'_>) -> Result<SandboxStatus, SandboxError> {
    let files = linux::restrict_files(allowed)?;
    let calls = linux::restrict_calls(allowed.program.is_none())?;
    Ok(match (files, calls) {
        (SandboxStatus::Full, false) => SandboxStatus::Partial,
        (files, _) => files,
    })
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeMap;
    use std::path::Path;

    use landlock::{
        ABI, Access as _, AccessFs, AccessNet, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
        RulesetCreatedAttr as _, RulesetStatus, Scope, path_beneath_rules,
    };
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
        TargetArch, apply_filter,
    };

    use super::{Allowed, SandboxError, SandboxStatus};

    /// The newest Landlock that is made use of: Linux 6.12 has all of it.
    const LANDLOCK: ABI = ABI::V6;

    /// What a program needs of the system. Files of the machine's state only, no
    /// configuration but that of libraries.
    const SYSTEM_PATHS: [&str; 19] = [
        "/dev/random",
        "/dev/urandom",
        "/dev/zero",
        "/etc/ld.so.cache",
        "/etc/localtime",
        "/lib",
        "/lib64",
        "/proc/cpuinfo",
        "/proc/filesystems",
        "/proc/loadavg",
        "/proc/meminfo",
        "/proc/stat",
        "/proc/sys/vm",
        "/proc/uptime",
        "/proc/version",
        "/sys/devices/system",
        "/sys/fs/cgroup",
        "/usr/lib",
        "/usr/share/zoneinfo",
    ];
    /// The process's own entries, for its memory and threads.
    const OWN_ENTRIES: &str = "/proc/self";
    /// What may be written to.
    const SINK: &str = "/dev/null";
    /// Programs of the system, which a program may be a script of.
    const PROGRAM_PATHS: [&str; 5] = ["/bin", "/usr/bin", "/lib", "/lib64", "/usr/lib"];

    pub(super) fn restrict_files(allowed: &Allowed<'_>) -> Result<SandboxStatus, SandboxError> {
        let (all, read) = (AccessFs::from_all(LANDLOCK), AccessFs::ReadFile | AccessFs::ReadDir);
        let run = read | AccessFs::Execute;
        let ruleset = Ruleset::default()
            .handle_access(all)?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .scope(Scope::from_all(LANDLOCK))?
            .create()?
            .add_rules(path_beneath_rules(SYSTEM_PATHS, read))?
            .add_rules(path_beneath_rules(allowed.readable, read))?
            .add_rules(path_beneath_rules(allowed.writable, all & !AccessFs::Execute))?
            .add_rules(path_beneath_rules([SINK], read | AccessFs::WriteFile))?
            .add_rule(NetPort::new(allowed.port, AccessNet::BindTcp))?;
        let mut ruleset = ruleset.add_rules(own_entries(read))?;
        if let Some(program) = allowed.program {
            let readable = allowed.readable.iter().map(std::path::PathBuf::as_path);
            let programs = PROGRAM_PATHS.map(Path::new).into_iter().chain([program]).chain(readable);
            ruleset = ruleset.add_rules(path_beneath_rules(programs, run))?;
        }
        let status = ruleset.restrict_self()?;
        Ok(match status.ruleset {
            RulesetStatus::FullyEnforced => SandboxStatus::Full,
            RulesetStatus::PartiallyEnforced => SandboxStatus::Partial,
            RulesetStatus::NotEnforced => SandboxStatus::None,
        })
    }

    /// A rule for the process's own entries in `/proc`. It holds for the inode,
    /// and the kernel would make another one after it has forgotten this: the
    /// descriptor that keeps it is left open on purpose.
    fn own_entries(read: landlock::BitFlags<AccessFs>) -> Option<Result<PathBeneath<&'static PathFd>, SandboxError>> {
        let entries: &'static PathFd = Box::leak(Box::new(PathFd::new(OWN_ENTRIES).ok()?));
        Some(Ok(PathBeneath::new(entries, read)))
    }

    /// System calls that neither the library nor a server needs: they reach other
    /// processes, the kernel or its configuration.
    const CALLS_REFUSED: [i64; 38] = [
        libc::SYS_acct,
        libc::SYS_add_key,
        libc::SYS_adjtimex,
        libc::SYS_bpf,
        libc::SYS_chroot,
        libc::SYS_clock_adjtime,
        libc::SYS_clock_settime,
        libc::SYS_delete_module,
        libc::SYS_finit_module,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fsopen,
        libc::SYS_init_module,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_io_uring_setup,
        libc::SYS_kcmp,
        libc::SYS_kexec_load,
        libc::SYS_keyctl,
        libc::SYS_mount,
        libc::SYS_move_mount,
        libc::SYS_open_by_handle_at,
        libc::SYS_open_tree,
        libc::SYS_perf_event_open,
        libc::SYS_personality,
        libc::SYS_pidfd_getfd,
        libc::SYS_pivot_root,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_ptrace,
        libc::SYS_reboot,
        libc::SYS_request_key,
        libc::SYS_setdomainname,
        libc::SYS_sethostname,
        libc::SYS_setns,
        libc::SYS_settimeofday,
        libc::SYS_swapon,
        libc::SYS_userfaultfd,
    ];

    /// Whether a filter is in force. There is none for other processors.
    pub(super) fn restrict_calls(is_to_stay_this_program: bool) -> Result<bool, SandboxError> {
        let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(false) };
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
            CALLS_REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
        rules.insert(libc::SYS_unshare, Vec::new());
        if is_to_stay_this_program {
            rules.insert(libc::SYS_execve, Vec::new());
            rules.insert(libc::SYS_execveat, Vec::new());
        }
        rules.insert(libc::SYS_socket, other_sockets()?);
        let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?;
        let program: BpfProgram = filter.try_into()?;
        apply_filter(&program)?;
        Ok(true)
    }

    /// Every socket but one that listens for TCP: none for datagrams (which
    /// Landlock does not see), none to other processes of the machine.
    fn other_sockets() -> Result<Vec<SeccompRule>, SandboxError> {
        /// The bits of a socket's type that say its kind (`SOCK_TYPE_MASK`).
        const KIND: u64 = 0xf;
        let argument = |index, op, value| SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value);
        let number = |value: i32| u64::from(value.unsigned_abs());
        let is_not = |family: i32| argument(0, SeccompCmpOp::Ne, number(family));
        let no_internet = SeccompRule::new(vec![is_not(libc::AF_INET)?, is_not(libc::AF_INET6)?])?;
        let datagram = argument(1, SeccompCmpOp::MaskedEq(KIND), number(libc::SOCK_DGRAM))?;
        let raw = argument(1, SeccompCmpOp::MaskedEq(KIND), number(libc::SOCK_RAW))?;
        Ok(vec![no_internet, SeccompRule::new(vec![datagram])?, SeccompRule::new(vec![raw])?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_reads_what_the_process_reports() {
        let check = |output: &str, expected| assert_eq!(SandboxStatus::reported(output), expected, "{output}");
        check("tallyhouse engine: sandbox full\nLogging warning to a file\n", SandboxStatus::Full);
        check("warning\ntallyhouse engine: sandbox partial\n", SandboxStatus::Partial);
        check("tallyhouse engine: sandbox none\n", SandboxStatus::None);
        check("", SandboxStatus::None);
    }
}
