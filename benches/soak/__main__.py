"""Minutes of TCP through one tunnel, Linkspan to itself or to another WireGuard, second by second. Needs root.

    cargo build --release --bin linkspan
    sudo python3 benches/soak --minutes 30
    sudo python3 benches/soak --minutes 30 --peer boringtun=/usr/bin/boringtun-cli
    sudo python3 benches/soak --minutes 30 --peer wireguard-go=/usr/bin/wireguard-go

Sessions are renewed about every two minutes, so thirty minutes see some fifteen of them. Traffic goes from gateway a, which
is Linkspan's, to gateway b, and is counted where it arrives. Exits 1 if a second carried nothing, or
sessions were not renewed.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches/compare"))

from figures import PORT, Path  # noqa: E402
from peers import Pair, Peer  # noqa: E402
from shell import Failed, require, run, start, stop  # noqa: E402
from topology import MTU, WIRES, Network  # noqa: E402

NEEDED = ("ip", "wg", "iperf3", "ping", "ethtool")
RENEWAL = 120  # seconds that a session lasts (WireGuard paper, section 6.1)
TRACED = 10  # seconds
SETTLED = 5  # seconds after which memory counts as that of the start


def options():
    parser = argparse.ArgumentParser(prog="python3 benches/soak", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--linkspan", type=pathlib.Path, metavar="PATH", default=ROOT / "target/release/linkspan")
    parser.add_argument("--peer", type=Peer.parse, metavar="NAME=PATH[:ARGUMENTS]",
                        help="the program of gateway b; default: linkspan, too")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--wire", choices=WIRES, default="plain")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--strace", action="store_true",
                        help=f"count the system calls of each daemon for {TRACED} s (they are slower meanwhile)")
    chosen = parser.parse_args()
    if not os.access(chosen.linkspan, os.X_OK):
        parser.error(f"{chosen.linkspan} is missing: cargo build --release --bin linkspan")
    if chosen.minutes * 60 < 2 * SETTLED + chosen.strace * 4 * TRACED:
        parser.error("that is too short")
    return chosen


class Memory:
    """Resident MiB of one daemon: at the start, at the end, at its highest."""

    def __init__(self, daemon):
        self._daemon, self._seen = daemon, []

    def look(self):
        self._seen.append(self._daemon.memory_mib()["VmRSS"])

    def line(self):
        return f"start {self._seen[0]:.1f}, end {self._seen[-1]:.1f}, highest {max(self._seen):.1f} MiB"


def soak(pair, chosen):
    """Runs the traffic; bytes of each second, the memories, a line about each traced daemon, times of handshakes."""
    # b asks for the traffic, so that its seconds are those of the receiver.
    near, far = pair.network.b.gateway, pair.network.a.gateway
    path = Path(near, far, pair.network.a.inner)
    seconds = int(chosen.minutes * 60)
    server = start(*path.far_command("iperf3", "-s", "-1", "-p", str(PORT)))
    time.sleep(0.5)
    said = tempfile.TemporaryFile("w+")
    client = start(*path.near_command("iperf3", "-J", "-R", "-c", path.address, "-p", str(PORT), "-t", str(seconds),
                                      "-i", "1", "-P", str(chosen.streams)), output=said)
    try:
        memories, traced, handshakes = watch(pair, client, seconds, chosen.strace)
    finally:
        stop(client)
        stop(server)
    said.seek(0)
    found = json.load(said)
    if "error" in found:
        raise Failed(found["error"])
    return [each["sum"] for each in found["intervals"]], memories, traced, handshakes


def watch(pair, client, seconds, strace):
    memories = [Memory(daemon) for daemon in pair.daemons]
    traced, handshakes = [], set()
    begun = time.monotonic()
    time.sleep(SETTLED)
    while client.poll() is None:
        for memory in memories:
            memory.look()
        handshakes.add(pair.daemons[0].last_handshake())
        if strace and not traced and time.monotonic() - begun > seconds / 2:
            traced = [trace(daemon, pair.daemons[0]) for daemon in pair.daemons]
        if time.monotonic() - begun > seconds + 30:
            raise Failed("iperf3 does not end")
        time.sleep(1)
    return memories, traced, handshakes


def trace(daemon, sender):
    """System calls in a while, beside the full packets that the tunnel carried then."""
    with tempfile.NamedTemporaryFile("r") as counts:
        before = sender.sent_bytes()
        tracer = start("strace", "-f", "-c", "-o", counts.name, "-p", daemon.pid)
        time.sleep(TRACED)
        tracer.send_signal(signal.SIGINT)
        tracer.wait(TRACED)
        packets = (sender.sent_bytes() - before) / MTU
        calls = total_calls(counts.read())
    return f"{calls} system calls for {packets:.0f} packets: {packets / max(calls, 1):.1f} packets a call"


def total_calls(summary):
    """The calls in the last line of `strace -c`: share, seconds, microseconds a call, calls, maybe errors, "total"."""
    line = next((line.split() for line in summary.splitlines() if line.endswith(" total")), None)
    if line is None:
        raise Failed("strace counted nothing")
    return int(line[3])


def report(pair, seconds, intervals, memories, traced, handshakes):
    # The last one may be a fraction of a second.
    rates = [each["bits_per_second"] / 1e9 for each in intervals if each["seconds"] > 0.5]
    empty = [f"{each['start']:.0f}" for each in intervals if each["seconds"] > 0.5 and each["bytes"] == 0]
    print(f"{len(rates)} seconds: median {statistics.median(rates):.2f}, lowest {min(rates):.2f} Gbit/s; "
          f"{len(empty)} at zero{': at ' + ', '.join(empty) if empty else ''}")
    # Short runs end before the first renewal.
    renewals, due = len(handshakes) - 1, seconds // RENEWAL - 1
    print(f"{renewals} renewals of the session")
    for site, daemon, memory in zip("ab", pair.daemons, memories):
        print(f"gateway {site}, {daemon.name}: memory {memory.line()}")
    for site, daemon, line in zip("ab", pair.daemons, traced):
        print(f"gateway {site}, {daemon.name}: {line}")
    return not empty and len(rates) >= seconds - 1 and renewals >= due


def main():
    chosen = options()
    require((*NEEDED, "strace") if chosen.strace else NEEDED)
    linkspan = Peer("linkspan", str(chosen.linkspan))
    try:
        with contextlib.ExitStack() as stack:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="linkspan-soak-")))
            network = Network("s", chosen.wire)
            stack.callback(network.remove)
            pair = Pair(linkspan, network, folder, "s", MTU, chosen.peer)
            stack.callback(pair.stop)
            print(f"{', '.join(daemon.name for daemon in pair.daemons)}: {linkspan.version()}, {chosen.minutes:g} minutes, "
                  f"{chosen.streams} streams, {chosen.wire} wire, {run('uname', '-r').strip()}", flush=True)
            holds = report(pair, int(chosen.minutes * 60), *soak(pair, chosen))
    except Failed as error:
        sys.exit(str(error))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
