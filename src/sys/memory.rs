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

    /// Whether the mapping at `address` is locked (`lo` among the flags of smaps, proc_pid_smaps(5)).
    fn is_locked(address: usize) -> bool {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let bounds = |line: &str| {
            let (from, to) = line.split_whitespace().next()?.split_once('-')?;
            Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
        };
        let within = |line: &&str| bounds(line).is_some_and(|range| range.contains(&address));
        let flags = smaps.lines().skip_while(|line| !within(line)).find_map(|line| line.strip_prefix("VmFlags:"));
        flags.unwrap().split_whitespace().any(|flag| flag == "lo")
    }

    #[test]
    fn the_pages_of_a_value_are_locked() {
        let value = Box::new([1_u8; 8192]);
        lock(&*value).unwrap();
        let first = ptr::from_ref(&*value).addr();
        assert!(is_locked(first) && is_locked(first + 8191));
    }
}
