//! What an admin can do about a refusal that almost any call may meet.

use std::io;

/// Begins with "; ", to go behind what failed; empty where only the kernel knows.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => "; raise the limit on open files: ulimit -n, or LimitNOFILE= of a service",
        Some(libc::ENOMEM | libc::ENOBUFS) => "; memory is short: free some, or set fewer workers",
        Some(libc::E2BIG) => "; the kernel takes no more queues: set fewer workers",
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOPROTOOPT) => "; this kernel lacks it: a newer one is needed",
        _ => "",
    }
}
