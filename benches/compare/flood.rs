//! Sends or counts UDP datagrams, as fast as one thread can, each a packet of its own (no segmentation offload).
//!
//! `flood send ADDRESS:PORT SIZE SECONDS` and `flood receive ADDRESS:PORT`; one line of JSON each at the end.
//! The first eight bytes are a number that counts up; zero-length datagrams end it.

use std::env;
use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sys::socket::{self, MsgFlags, MultiHeaders, SockaddrStorage, setsockopt, sockopt};

/// Datagrams that go to the kernel with one call.
const BATCH: usize = 32;
/// A receiver that hears nothing for so long gives up.
const SILENCE: Duration = Duration::from_secs(5);
const RECEIVE_BUFFER: usize = 4 << 20;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let line = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["send", to, size, seconds] => send(to.parse()?, size.parse()?, Duration::from_secs_f64(seconds.parse()?))?,
        ["receive", at] => receive(at.parse()?)?,
        _ => bail!("usage: flood send ADDRESS:PORT SIZE SECONDS | flood receive ADDRESS:PORT"),
    };
    #[expect(clippy::print_stdout, reason = "the one line it is there for")]
    {
        println!("{line}");
    }
    Ok(())
}

fn send(to: SocketAddr, size: usize, time: Duration) -> anyhow::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    let mut datagrams = vec![vec![0; size.max(8)]; BATCH];
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let (mut number, mut refused) = (0_u64, 0_u64);
    let end = Instant::now() + time;
    while Instant::now() < end {
        for datagram in &mut datagrams {
            datagram[..8].copy_from_slice(&number.to_ne_bytes());
            number += 1;
        }
        let slices: Vec<_> = datagrams.iter().map(|datagram| [IoSlice::new(datagram)]).collect();
        let to = [None; BATCH];
        match socket::sendmmsg(socket.as_raw_fd(), &mut headers, &slices, to, [], MsgFlags::empty()) {
            Ok(_) => {}
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::ECONNREFUSED) => refused += 1,
            Err(error) => return Err(error).context("sendmmsg"),
        }
    }
    sleep(Duration::from_millis(200)); // what is queued arrives first
    for _ in 0..5 {
        let _ = socket.send(&[]); // refused once the receiver has ended
        sleep(Duration::from_millis(20));
    }
    Ok(format!("{{\"packets\": {number}, \"refused_calls\": {refused}}}"))
}

fn receive(at: SocketAddr) -> anyhow::Result<String> {
    let socket = UdpSocket::bind(at)?;
    socket.set_read_timeout(Some(SILENCE))?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    let mut buffers = vec![[0_u8; 2048]; BATCH];
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let (mut packets, mut late, mut next) = (0_u64, 0_u64, 0_u64);
    loop {
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| [std::io::IoSliceMut::new(buffer)]).collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        let lengths: Vec<usize> = socket::recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, flags, None)
            .context("nothing came")?
            .map(|message| message.bytes)
            .collect();
        for (buffer, length) in buffers.iter().zip(lengths) {
            if length == 0 {
                return Ok(format!("{{\"packets\": {packets}, \"late\": {late}}}"));
            }
            let number = buffer.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
            packets += 1;
            late += u64::from(number < next);
            next = next.max(number + 1);
        }
    }
}
