//! A machine of its own kernel, under an emulator: Debian's, for its WireGuard. Commands go over its console.
//!
//! ```text
//!   sites ---- internet ---- "tap" 198.18.9.254/24, 2001:db8:9::fe/64 ---- eth0 of the machine: .1, ::1
//! ```

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::net::{Net, PORT};
use super::seconds;
use super::stock::{installed, peers};

/// Started, and not yet told anything but its addresses.
pub struct Machine {
    child: Child,
    console: ChildStdin,
    lines: Receiver<String>,
}

/// A site's number that no other site has.
pub const NUMBER: u8 = 9;

impl Machine {
    /// Boots it beside the sites of `net`; none if what it needs is not installed.
    pub fn boot(net: &Net) -> Option<Self> {
        if cfg!(not(target_arch = "x86_64")) {
            super::skipped("the emulated machine is an x86_64");
            return None;
        }
        let (kernel, initramfs) = (kernel()?, peers().join("initramfs"));
        if !installed(&initramfs) {
            return None;
        }
        net.internet.ip("tuntap add dev tap mode tap\nlink set tap up\naddress add 198.18.9.254/24 dev tap\n\
             address add 2001:db8:9::fe/64 dev tap nodad\n");
        let (kernel, initramfs) = (kernel.to_str().unwrap().to_owned(), initramfs.to_str().unwrap().to_owned());
        // Without a source of entropy its WireGuard drops every handshake.
        let words = format!(
            "-accel tcg -cpu qemu64,+rdrand -m 192 -smp 1 -nodefaults -no-reboot -display none -serial stdio -kernel {kernel} -initrd \
             {initramfs} -netdev tap,id=n,ifname=tap,script=no,downscript=no -device \
             virtio-net-pci,netdev=n,romfile="
        );
        let line = "console=ttyS0 loglevel=1 panic=-1 mitigations=off";
        let words: Vec<&str> = words.split(' ').chain(["-append", line]).collect();
        let mut command = net.internet.command("qemu-system-x86_64", &words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (console, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            for line in lines {
                let _ = send.send(line.trim_end().to_owned());
            }
        });
        let mut machine = Self { child, console, lines };
        machine.until(seconds(240), "ready");
        machine.run(
            "echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad; echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; \
             ip link set eth0 up; ip address add 198.18.9.1/24 dev eth0; ip address add 2001:db8:9::1/64 dev eth0; \
             ip route add default via 198.18.9.254; ip -6 route add default via 2001:db8:9::fe",
        );
        Some(machine)
    }

    /// The lines up to that which begins with this word, and that one.
    fn until(&mut self, within: Duration, word: &str) -> (Vec<String>, String) {
        let deadline = Instant::now() + within;
        let mut lines = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.starts_with(word) => return (lines, line),
                Ok(line) => lines.push(line),
                Err(error) => panic!("{error} while the machine should say {word:?}: {lines:#?}"),
            }
        }
    }

    /// Starts a command; [`Machine::end`] waits for it.
    pub fn begin(&mut self, command: &str) {
        assert!(!command.contains('\n'));
        writeln!(self.console, "{command}").unwrap();
    }

    /// What the command said. It must have succeeded.
    pub fn end(&mut self, within: Duration) -> String {
        let (lines, done) = self.until(within, "done ");
        assert_eq!(done, "done 0", "{lines:#?}");
        lines.join("\n")
    }

    /// A whole command, of 60 s at the most.
    pub fn run(&mut self, command: &str) -> String {
        self.begin(command);
        self.end(seconds(60))
    }

    pub fn endpoint4(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::from([198, 18, NUMBER, 1]), PORT)
    }

    pub fn endpoint6(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::from([0x2001, 0xdb8, NUMBER.into(), 0, 0, 0, 0, 1]), PORT)
    }

    /// Its address inside the tunnel.
    pub fn inside(&self) -> IpAddr {
        IpAddr::from([10, NUMBER, 0, 2])
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian's kernel, as unpacked.
fn kernel() -> Option<PathBuf> {
    let boot = peers().join("kernel/boot");
    if !installed(&boot) {
        return None;
    }
    let files = std::fs::read_dir(boot).unwrap().map(|entry| entry.unwrap().path());
    let is_kernel = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"));
    Some(only(files.filter(is_kernel).collect()))
}

fn only(mut files: Vec<PathBuf>) -> PathBuf {
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}
