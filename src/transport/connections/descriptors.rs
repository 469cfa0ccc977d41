//! File descriptors: raises the limit to what the system allows, and reserves some for other files than
//! connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are kept for the log, for ClickHouse and for files that are
/// read now and then: half of what the process may have, at most this many.
const RESERVE_MAX: u64 = 1_024;
/// What is taken for the limit when there is none.
const UNLIMITED: u64 = 1 << 20;

/// Raises the process's limit of open files to what the system allows it to
/// have. The usual default of 1,024 is for programs that use select(2).
pub fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        if let Err(error) = raised {
            tracing::debug!(%error, "could not raise the limit of open files");
        }
    }
}

/// How many descriptors connections may use.
pub(super) fn for_connections() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED);
    let reserve = (limit / 2).min(RESERVE_MAX);
    usize::try_from(limit - reserve).unwrap_or(usize::MAX)
}
