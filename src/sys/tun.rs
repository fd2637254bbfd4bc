//! A TUN device with one queue per worker, virtio-net headers and the kernel's offloads.
//!
//! What is read and written is a virtio-net header of [`HEADER`] bytes, then the IP packet: a super-packet of up to
//! 64 KiB when the header says so. Each queue is made by the `tun` crate around a descriptor that is opened here,
//! because that crate opens one queue only.

mod adopt;

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use thiserror::Error;

use super::remedy::remedy;

pub use adopt::{adopt, is_queue_of};

/// Bytes of virtio-net header before each packet.
pub const HEADER: usize = 10;

const PATH: &str = "/dev/net/tun";
/// The longest name of an interface, in bytes (IFNAMSIZ without the closing zero).
const NAME_MAX: usize = libc::IFNAMSIZ - 1;
const CHECKSUM: libc::c_uint = libc::TUN_F_CSUM;
const TCP: libc::c_uint = libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
const UDP: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// Which super-packets the kernel was told to hand over, and takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offloads {
    /// TCP segments (TSO), over IPv4 and IPv6. Without it, every packet comes single and with its checksum.
    pub tcp: bool,
    /// Equal-sized UDP packets (USO); Linux 6.2 and later.
    pub udp: bool,
}

/// A TUN interface. It exists as long as one of its queues does.
#[derive(Debug)]
pub struct Device {
    /// The interface's name.
    pub name: String,
    /// Its index in the network namespace where it was made.
    pub index: u32,
    /// One for each worker.
    pub queues: Vec<Queue>,
    /// What the kernel granted.
    pub offloads: Offloads,
}

/// Why there is no TUN device.
#[derive(Debug, Error)]
pub enum TunError {
    /// The kernel has no TUN driver, or the container hides it.
    #[error("{PATH} is missing: load it with: modprobe tun (in a container: pass the device in)")]
    NoDevice,
    /// There is something else in its place.
    #[error("{PATH} is not the TUN device: remove it, then: modprobe tun, or mknod {PATH} c 10 200")]
    NotTheDevice,
    /// The device's mode keeps this user out. With CAP_NET_ADMIN required anyway, it need not keep anybody out.
    #[error("{PATH} is closed to this user: open it, as udev does: chmod 666 {PATH}")]
    Closed,
    /// The process lacks CAP_NET_ADMIN.
    #[error("not permitted to create a TUN interface: start as root or give it CAP_NET_ADMIN")]
    NotPermitted,
    /// Another interface has this name.
    #[error("an interface named {0} exists already: remove it (ip link del {0}) or choose another name")]
    Exists(String),
    /// Linux takes no such name.
    #[error("{0:?} cannot be the name of an interface: use 1 to {NAME_MAX} bytes without '/', ':', '%' or spaces")]
    BadName(String),
    /// Anything else.
    #[error("could not create the TUN interface {name} ({step}; see dmesg for the kernel's reason{})", remedy(source))]
    Io {
        /// The interface's name.
        name: String,
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// One queue of a TUN device: non-blocking.
pub struct Queue(tun::Device);

/// Creates the interface `name` with `queues` queues (1 to 256), down and without addresses, in the calling
/// thread's network namespace. `offload` asks for super-packets; an older kernel may grant fewer or none.
///
/// # Errors
///
/// A [`TunError`]; no interface is left behind then.
pub fn open(name: &str, queues: usize, offload: bool) -> Result<Device, TunError> {
    check_name(name)?;
    let first = attach(name, libc::IFF_TUN_EXCL)?;
    let index = if_nametoindex(name).map_err(failed(name, "index"))?;
    request::set_header_size(&first, HEADER).map_err(failed(name, "header size"))?;
    let offloads = set_offloads(&first, offload).map_err(failed(name, "offloads"))?;
    let mut all = vec![Queue::new(first, name)?];
    for _ in 1..queues {
        all.push(Queue::new(attach(name, 0)?, name)?);
    }
    Ok(Device { name: name.to_owned(), index, queues: all, offloads })
}

/// What the kernel would refuse, and `%`, which it would read as a pattern ("tun%d").
fn check_name(name: &str) -> Result<(), TunError> {
    let bad = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > NAME_MAX || name == "." || name == ".." || name.contains(bad) {
        return Err(TunError::BadName(name.to_owned()));
    }
    Ok(())
}

/// Opens one more queue of `name`.
fn attach(name: &str, extra: libc::c_int) -> Result<File, TunError> {
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(PATH).map_err(no_file(name))?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE | extra;
    request::attach(&file, name, flags).map_err(|errno| not_attached(name, errno))?;
    Ok(file)
}

fn no_file(name: &str) -> impl FnOnce(io::Error) -> TunError {
    move |source| match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => TunError::NoDevice,
        Some(libc::EACCES) => TunError::Closed,
        Some(libc::EPERM) => TunError::NotPermitted,
        _ => TunError::Io { name: name.to_owned(), step: "open", source },
    }
}

fn not_attached(name: &str, errno: Errno) -> TunError {
    if matches!(errno, Errno::EPERM | Errno::EACCES) {
        TunError::NotPermitted
    } else if errno == Errno::EBUSY {
        TunError::Exists(name.to_owned())
    } else if errno == Errno::ENOTTY {
        TunError::NotTheDevice
    } else {
        failed(name, "attach")(errno)
    }
}

fn failed(name: &str, step: &'static str) -> impl FnOnce(Errno) -> TunError {
    move |errno| TunError::Io { name: name.to_owned(), step, source: errno.into() }
}

/// As much as the kernel has: USO is younger than TSO, and a kernel may have neither.
fn set_offloads(queue: &File, wanted: bool) -> Result<Offloads, Errno> {
    let wishes = [
        (CHECKSUM | TCP | UDP, Offloads { tcp: true, udp: true }),
        (CHECKSUM | TCP, Offloads { tcp: true, udp: false }),
        (0, Offloads::default()),
    ];
    let mut refusal = Errno::EINVAL;
    for (features, offloads) in wishes.into_iter().skip(if wanted { 0 } else { 2 }) {
        match request::set_offload(queue, features) {
            Ok(()) => return Ok(offloads),
            Err(errno) => refusal = errno,
        }
    }
    Err(refusal)
}

/// Asks the kernel about an interface, wherever it was moved to. The interface exists as long as this does, too.
#[derive(Debug)]
pub struct Handle(File);

impl Handle {
    /// Its name now.
    ///
    /// # Errors
    ///
    /// EBADFD when the interface was deleted.
    pub fn name(&self) -> io::Result<String> {
        Ok(request::name(&self.0)?)
    }

    /// The network namespace that it is in now.
    ///
    /// # Errors
    ///
    /// EBADFD when the interface was deleted; EPERM without CAP_NET_ADMIN in that namespace.
    pub fn namespace(&self) -> io::Result<File> {
        Ok(request::namespace(&self.0)?)
    }

    /// Whether the interface was deleted: nothing else is told by EBADFD.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        request::name(&self.0).is_err_and(|errno| errno == Errno::EBADFD)
    }
}

impl Queue {
    /// A way to ask about the interface.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn handle(&self) -> io::Result<Handle> {
        Ok(Handle(self.as_fd().try_clone_to_owned()?.into()))
    }

    fn new(file: File, name: &str) -> Result<Self, TunError> {
        let mut configuration = tun::Configuration::default();
        // From here on the descriptor belongs to the device, which closes it.
        configuration.raw_fd(file.into_raw_fd()).tun_name(name);
        let device = tun::create(&configuration);
        device.map(Self).map_err(|error| TunError::Io {
            name: name.to_owned(),
            step: "wrap",
            source: io::Error::other(error),
        })
    }

    /// Reads the next header and packet; how many bytes. What does not fit `buffer` is lost: give it
    /// [`HEADER`] + 65,535 bytes.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is none; EBADFD when the interface was deleted.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }

    /// Writes one header and packet, gathered from `pieces` (at most 1,024). It is taken whole or not at all.
    ///
    /// # Errors
    ///
    /// EINVAL for a header or packet that the kernel does not understand; EBADFD when the interface was deleted;
    /// EIO while it is down.
    pub fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        nix::sys::uio::writev(self, pieces).map_err(io::Error::from)
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the device owns the descriptor and closes it only when dropped, and `self` borrows the device.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Queue").field(&self.0.as_raw_fd()).finish()
    }
}

/// The ioctls.
mod request {
    use std::os::fd::FromRawFd as _;

    use super::{AsRawFd, Errno, File};

    /// `_IOR('T', 210, unsigned int)` and `_IO('T', 227)` (linux/if_tun.h).
    const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
    const TUNGETDEVNETNS: libc::c_ulong = 0x54e3;

    nix::ioctl_write_ptr_bad!(tunsetiff, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_ptr_bad!(tunsetqueue, libc::TUNSETQUEUE, libc::ifreq);
    nix::ioctl_write_ptr_bad!(tunsetvnethdrsz, libc::TUNSETVNETHDRSZ, libc::c_int);
    nix::ioctl_write_int_bad!(tunsetoffload, libc::TUNSETOFFLOAD);
    nix::ioctl_read_bad!(tungetiff, TUNGETIFF, libc::ifreq);
    nix::ioctl_none_bad!(tungetdevnetns, TUNGETDEVNETNS);

    /// Makes `file` a queue of the interface `name`, which has at most 15 bytes.
    pub(super) fn attach(file: &File, name: &str, flags: libc::c_int) -> Result<(), Errno> {
        let mut ifr_name = [0; libc::IFNAMSIZ];
        for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
            // Signed on some machines, unsigned on others.
            *to = libc::c_char::from_ne_bytes([from]);
        }
        // The flags fill 16 bits; IFF_MULTI_QUEUE and IFF_TUN_EXCL are above 8, EXCL is the sign bit.
        let ifru_flags = u16::try_from(flags).map_err(|_| Errno::EINVAL)?.cast_signed();
        let request = libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags } };
        // SAFETY: `request` is a whole ifreq and lives through the call; the descriptor is open.
        unsafe { tunsetiff(file.as_raw_fd(), &raw const request) }.map(drop)
    }

    /// Makes the kernel put no more packets into this queue.
    pub(super) fn detach(file: &File) -> Result<(), Errno> {
        let ifru_flags = i16::try_from(libc::IFF_DETACH_QUEUE).map_err(|_| Errno::EINVAL)?;
        let request =
            libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags } };
        // SAFETY: `request` is a whole ifreq and lives through the call; the descriptor is open.
        unsafe { tunsetqueue(file.as_raw_fd(), &raw const request) }.map(drop)
    }

    pub(super) fn name(file: &File) -> Result<String, Errno> {
        name_and_flags(file).map(|(name, _)| name)
    }

    pub(super) fn name_and_flags(file: &File) -> Result<(String, libc::c_int), Errno> {
        let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_flags: 0 };
        let mut request = libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru };
        // SAFETY: `request` is a whole ifreq and lives through the call; the descriptor is open.
        unsafe { tungetiff(file.as_raw_fd(), &raw mut request) }?;
        let bytes = request.ifr_name.iter().flat_map(|byte| byte.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
        // SAFETY: the kernel has filled in this member of the union; any 16 bits are a value of it.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        Ok((String::from_utf8(bytes).map_err(|_| Errno::EINVAL)?, flags.cast_unsigned().into()))
    }

    pub(super) fn namespace(file: &File) -> Result<File, Errno> {
        // SAFETY: the request has no argument; the descriptor is open.
        let namespace = unsafe { tungetdevnetns(file.as_raw_fd()) }?;
        // SAFETY: the kernel has just opened it for us, and nobody else knows it.
        Ok(unsafe { File::from_raw_fd(namespace) })
    }

    pub(super) fn set_header_size(file: &File, bytes: usize) -> Result<(), Errno> {
        let size = libc::c_int::try_from(bytes).map_err(|_| Errno::EINVAL)?;
        // SAFETY: `size` is an int and lives through the call; the descriptor is open.
        unsafe { tunsetvnethdrsz(file.as_raw_fd(), &raw const size) }.map(drop)
    }

    pub(super) fn set_offload(file: &File, features: libc::c_uint) -> Result<(), Errno> {
        // SAFETY: the argument is passed by value; the descriptor is open.
        unsafe { tunsetoffload(file.as_raw_fd(), features.cast_signed()) }.map(drop)
    }
}

#[cfg(test)]
mod tests;
