"""One gateway with many sites: how it scales with its workers, side by side with other programs. Needs root.

    cargo build --release --bin linkspan-wg
    sudo python3 benches/hub --sites 8 --workers 1,2,4,8 --peer wireguard-go=/usr/bin/wireguard-go

Each site is a namespace with a daemon, a wire to the hub and a TCP stream of its own; all streams run at once. In
interleaved rounds: "out" is what the hub sends, "in" what it receives. Linkspan has one worker at each site. It
says something about workers only where there are cores for the hub, the sites and both ends of the streams.
"""

import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches/compare"))

import ratios  # noqa: E402
from figures import GIB, Path, iperf  # noqa: E402
from peers import Key, Peer, Process  # noqa: E402
from shell import Failed, require, run  # noqa: E402
from topology import MTU, Machine  # noqa: E402

NEEDED = ("ip", "wg", "iperf3", "ping")
PATIENCE = 10
OUTER_PORT = 51820
DIRECTIONS = {"out": [], "in": ["-R"]}


def options():
    parser = argparse.ArgumentParser(prog="python3 benches/hub", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--linkspan", type=pathlib.Path, metavar="PATH", default=ROOT / "target/release/linkspan-wg")
    parser.add_argument("--workers", type=numbers, default=[1, 2], metavar="N,N,...",
                        help="Linkspan at the hub, with each of these numbers")
    parser.add_argument("--peer", action="append", type=Peer.parse, default=[], metavar="NAME=PATH[:ARGUMENTS]",
                        help="another program to compare with, that takes the place of wireguard-go; the same at hub and "
                             "sites. boringtun-cli has one thread, unless ARGUMENTS are given: -t 8 --disable-drop-privileges")
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    chosen = parser.parse_args()
    if not os.access(chosen.linkspan, os.X_OK):
        parser.error(f"{chosen.linkspan} is missing: cargo build --release --bin linkspan-wg")
    if any(peer.takes_file for peer in (Peer("linkspan", str(chosen.linkspan)), *chosen.peer)):
        parser.error("linkspan itself cannot be configured by `wg`: name linkspan-wg")
    if not 1 <= chosen.sites <= 64 or chosen.rounds < 1 or chosen.seconds < 1:
        parser.error("1 to 64 sites, at least one round, at least one second")
    names = [hub.name for hub, _ in programs(chosen)]
    if len(set(names)) < len(names):
        parser.error("each number of workers once, and each peer with a name of its own")
    return chosen


def numbers(text):
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: must be numbers, as in 1,2,4")


def programs(chosen):
    """What is measured at the hub, and what runs at its sites."""
    linkspan = [Peer(f"{n} workers", str(chosen.linkspan), ["-t", str(n)]) for n in chosen.workers]
    site = Peer("site", str(chosen.linkspan), ["-t", "1"])
    return [(hub, site) for hub in linkspan] + [(peer, peer) for peer in chosen.peer]


class Node(Process):
    """A daemon on a machine of its own, which knows nobody yet."""

    def __init__(self, program, machine, interface, folder):
        self.key = Key(folder / f"{interface}.key")
        super().__init__(machine, interface, folder, program.command(interface))

    def set_up(self, address):
        """Waits for it and configures it; apart, so that whoever made it can stop it when this fails."""
        self.wait(self.answers_wg)
        self.machine.run("wg", "set", self.interface, "listen-port", OUTER_PORT, "private-key", self.key.path)
        self.machine.run("ip", "address", "add", f"{address}/16", "dev", self.interface)
        self.machine.run("ip", "link", "set", self.interface, "mtu", MTU, "up")

    def add(self, far, endpoint, network):
        self.machine.run("wg", "set", self.interface, "peer", far.key.public,
                         "endpoint", f"{endpoint}:{OUTER_PORT}", "allowed-ips", network)


class Hub:
    """A gateway, its sites, and a tunnel to each."""

    def __init__(self, stack, label, program, site_program, sites):
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="linkspan-hub-")))

        def node(program, number):
            machine = Machine(f"lshub-{os.getpid()}-{label}-{number}")
            stack.callback(machine.remove)
            # Short, as names of interfaces must be.
            made = Node(program, machine, f"h{os.getpid()}{label}n{number}", folder)
            stack.callback(made.stop)
            made.set_up(inner(number))
            return made

        self._hub = node(program, 0)
        self._paths = [self._join(number, node(site_program, number)) for number in range(1, sites + 1)]
        for path in self._paths:
            path.near.run("ping", "-qc1", "-w", PATIENCE, path.address, timeout=2 * PATIENCE)

    def _join(self, number, site):
        """A wire and a tunnel to the site; the way through it."""
        near, far = self._hub.machine, site.machine
        run("ip", "-n", near.name, "link", "add", f"wan{number}", "type", "veth", "peer", "name", "wan", "netns", far.name)
        near.address(f"wan{number}", f"10.97.{number}.1/24")
        far.address("wan", f"10.97.{number}.2/24")
        self._hub.add(site, f"10.97.{number}.2", f"{inner(number)}/32")
        site.add(self._hub, f"10.97.{number}.1", f"{inner(0)}/32")
        return Path(near, far, inner(number))

    def carry(self, seconds, *iperf_options):
        """A stream to each site at once: their sum in Gbit/s, and what it costs the hub."""
        spent = self._hub.cpu_seconds()
        with concurrent.futures.ThreadPoolExecutor(len(self._paths)) as streams:
            ends = list(streams.map(lambda path: iperf(path, seconds, *iperf_options)["sum_received"], self._paths))
        spent, size = self._hub.cpu_seconds() - spent, sum(end["bytes"] for end in ends)
        if size == 0:
            raise Failed("iperf3 carried nothing")
        return {"Gbit/s": sum(end["bits_per_second"] for end in ends) / 1e9, "CPU s/GiB": spent * GIB / size}


def inner(number):
    """The inside address of a site; of the hub, which is number 0."""
    return f"10.98.{number}.1"


def measure(chosen):
    """(name, direction) -> one result a round, None where it failed."""
    with contextlib.ExitStack() as stack:
        hubs = {hub.name: Hub(stack, label, hub, site, chosen.sites) for label, (hub, site) in enumerate(programs(chosen))}
        found = {(name, direction): [] for name in hubs for direction in DIRECTIONS}
        for turn in range(chosen.rounds):
            # Nobody is always first.
            names = list(hubs)[turn % len(hubs):] + list(hubs)[:turn % len(hubs)]
            for direction, iperf_options in DIRECTIONS.items():
                for name in names:
                    found[name, direction].append(attempt(name, hubs[name], chosen.seconds, iperf_options))
    return found


def attempt(name, hub, seconds, iperf_options):
    try:
        return hub.carry(seconds, *iperf_options)
    except (Failed, OSError, ValueError, KeyError) as error:
        print(f"{name}: failed: {error}", file=sys.stderr)
        return None


def report(found):
    for (name, direction), rounds in found.items():
        cells = []
        for metric in ("Gbit/s", "CPU s/GiB"):
            known = [number for number in ratios.column(rounds, metric) if number is not None]
            low, middle, high = ratios.quartiles(known) if known else [float("nan")] * 3
            cells.append(f"{middle:6.2f} {metric} ({low:.2f}-{high:.2f})")
        print(f"{name:>16}  {direction:>4}  {'  '.join(cells)}")


def main():
    chosen = options()
    require(NEEDED)
    print(f"{chosen.sites} sites, {os.cpu_count()} cores, {run('uname', '-r').strip()}", flush=True)
    try:
        report(measure(chosen))
    except Failed as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
