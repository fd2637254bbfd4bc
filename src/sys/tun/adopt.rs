//! Goes on with the queues of an interface that another process has left open: the interface, its addresses and its
//! routes never went away.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::net::if_::if_nametoindex;

use super::{Device, HEADER, Queue, TunError, attach, check_name, failed, request, set_offloads};
use crate::sys::netns;

/// What the kernel must say of a queue of ours (`TUNGETIFF`).
const SHAPE: libc::c_int = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;

/// Goes on with the interface `name` by `queues` of those that are `left`, all of them [its own](is_queue_of): others are
/// opened where they are too few, and those that are too many are detached, so that the kernel puts no packet into them.
/// None if there is none left.
///
/// # Errors
///
/// A [`TunError`]; the interface goes then, with its queues.
pub fn adopt(name: &str, left: Vec<OwnedFd>, queues: usize, offload: bool) -> Result<Option<Device>, TunError> {
    check_name(name)?;
    let mut files: Vec<File> = left.into_iter().map(File::from).collect();
    for surplus in files.drain(queues.min(files.len())..) {
        request::detach(&surplus).map_err(failed(name, "detach"))?;
    }
    let Some(first) = files.first() else { return Ok(None) };
    let index = if_nametoindex(name).map_err(failed(name, "index"))?;
    request::set_header_size(first, HEADER).map_err(failed(name, "header size"))?;
    let offloads = set_offloads(first, offload).map_err(failed(name, "offloads"))?;
    while files.len() < queues {
        files.push(attach(name, 0)?);
    }
    let queues = files.into_iter().map(|file| Queue::new(file, name)).collect::<Result<_, _>>()?;
    Ok(Some(Device { name: name.to_owned(), index, queues, offloads }))
}

/// Whether it is an attached queue of `name`, made as [`super::open`] does, in this network namespace.
#[must_use]
pub fn is_queue_of(queue: &OwnedFd, name: &str) -> bool {
    let Ok(file) = queue.try_clone().map(File::from) else { return false };
    let shaped = request::name_and_flags(&file)
        .is_ok_and(|(found, flags)| found == name && flags & SHAPE == SHAPE && flags & libc::IFF_DETACH_QUEUE == 0);
    let here = || request::namespace(&file).is_ok_and(|namespace| netns::is_here(&namespace).unwrap_or(false));
    shaped && here() && reads_without_waiting(&file).is_ok()
}

/// It was opened so; but who kept it may have changed that.
fn reads_without_waiting(file: &File) -> Result<(), Errno> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}
