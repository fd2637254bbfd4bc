//! Memory that stays out of the swap area.

use std::io;
use std::ptr;

/// Keeps the pages that `value` lies in from being swapped out. They stay locked after it, for mlock does not count:
/// a neighbour on the same page may need it, too.
///
/// # Errors
///
/// ENOMEM or EPERM beyond RLIMIT_MEMLOCK, unless with CAP_IPC_LOCK.
pub fn lock<T>(value: &T) -> io::Result<()> {
    // SAFETY: the range is that of `value`, which lives through the call and is not changed by it.
    let answer = unsafe { libc::mlock(ptr::from_ref(value).cast(), size_of::<T>()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn the_pages_of_a_value_are_locked() {
        let (value, before) = (Box::new([1_u8; 8192]), locked_kib());
        lock(&*value).unwrap();
        assert!(locked_kib() >= before + 8);
    }
}
