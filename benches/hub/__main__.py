"""One gateway with many sites: how it scales with its workers, side by side with other programs. Needs root.

    cargo build --release --bin linkspan-wg
    sudo python3 benches/hub --sites 8 --workers 1,2,4,8 --peer wireguard-go=/usr/bin/wireguard-go

Each site is a namespace with a daemon, a wire to the hub and a TCP stream of its own; all streams run at once. In
interleaved rounds: "out" is what the hub sends, "in" what it receives. Sites have one worker each. It says
something about workers only where there are more cores than workers.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches/compare"))

import ratios  # noqa: E402
from figures import GIB, PORT  # noqa: E402
from peers import Key, Peer, TICKS  # noqa: E402
from shell import Failed, run, start, stop  # noqa: E402
from topology import MTU, Machine  # noqa: E402

NEEDED = ("ip", "wg", "iperf3", "ping")
PATIENCE = 10
OUTER_PORT = 51820
DIRECTIONS = {"out": [], "in": ["-R"]}


def options():
    parser = argparse.ArgumentParser(prog="python3 benches/hub", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--linkspan", type=pathlib.Path, metavar="PATH", default=ROOT / "target/release/linkspan-wg")
    parser.add_argument("--workers", type=lambda text: [int(word) for word in text.split(",")], default=[1, 2],
                        metavar="N,N,...", help="Linkspan at the hub, with each of these numbers")
    parser.add_argument("--peer", action="append", type=Peer.parse, default=[], metavar="NAME=PATH[:ARGUMENTS]",
                        help="another program to compare with, that takes the place of wireguard-go")
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    chosen = parser.parse_args()
    if not os.access(chosen.linkspan, os.X_OK):
        parser.error(f"{chosen.linkspan} is missing: cargo build --release --bin linkspan-wg")
    if not 1 <= chosen.sites <= 200:
        parser.error("--sites: 1 to 200")
    return chosen


class Node:
    """A machine with a daemon on it."""

    def __init__(self, program, arguments, name, interface, folder):
        self.machine, self.interface = Machine(name), interface
        self._process = None
        self.key = Key(folder / f"{interface}.key")
        self._log = open(folder / f"{interface}.log", "w")
        command = self.machine.inside(program, *arguments, "-f", interface)
        self._process = start(*command, output=self._log)
        self._await()
        self.machine.run("wg", "set", interface, "listen-port", OUTER_PORT, "private-key", self.key.path)
        self.machine.run("ip", "link", "set", interface, "mtu", MTU, "up")

    def _await(self):
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(Failed):
                return self.machine.run("wg", "show", self.interface)
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{self.interface}: {pathlib.Path(self._log.name).read_text().strip()}")
            time.sleep(0.05)

    def peer(self, far, endpoint, networks):
        self.machine.run("wg", "set", self.interface, "peer", far.key.public,
                         "endpoint", f"{endpoint}:{OUTER_PORT}", "allowed-ips", networks)

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def stop(self):
        if self._process:
            stop(self._process)
        self._log.close()
        self.machine.remove()


class Hub:
    """A gateway, its sites, and a tunnel to each."""

    def __init__(self, stack, label, program, arguments, site_arguments, sites):
        self.label = label
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="linkspan-hub-")))
        prefix = f"lshub-{os.getpid()}-{label}"
        # Short, as names of interfaces must be.
        interface = f"h{os.getpid()}{label}"
        self._hub = self._node(stack, program, arguments, f"{prefix}-hub", f"{interface}h", folder)
        self._hub.machine.run("ip", "address", "add", "10.98.0.1/16", "dev", self._hub.interface)
        self._sites = []
        for number in range(1, sites + 1):
            site = self._node(stack, program, site_arguments, f"{prefix}-{number}", f"{interface}s{number}", folder)
            self._join(site, number)
            self._sites.append(site)
        for number, _ in enumerate(self._sites, 1):
            self._hub.machine.run("ping", "-qc1", "-w", PATIENCE, inner(number), timeout=2 * PATIENCE)

    def _node(self, stack, *what):
        node = Node(*what)
        stack.callback(node.stop)
        return node

    def _join(self, site, number):
        near, far = self._hub.machine, site.machine
        run("ip", "-n", near.name, "link", "add", f"wan{number}", "type", "veth", "peer", "name", "wan", "netns", far.name)
        near.address(f"wan{number}", f"192.0.{number}.1/24")
        far.address("wan", f"192.0.{number}.2/24")
        far.run("ip", "address", "add", f"{inner(number)}/16", "dev", site.interface)
        self._hub.peer(site, f"192.0.{number}.2", f"{inner(number)}/32")
        site.peer(self._hub, f"192.0.{number}.1", "10.98.0.1/32")

    def carry(self, seconds, *iperf_options):
        """A stream to each site at once: their sum in Gbit/s, and what it costs the hub."""
        servers = [start(*site.machine.inside("iperf3", "-s", "-1", "-p", PORT)) for site in self._sites]
        time.sleep(0.3)
        spent = self._hub.cpu_seconds()
        clients = []
        try:
            for number, _ in enumerate(self._sites, 1):
                said = tempfile.TemporaryFile("w+")
                command = self._hub.machine.inside("iperf3", "-J", "-c", inner(number), "-p", PORT, "-t", seconds, *iperf_options)
                clients.append((start(*command, output=said), said))
            for client, _ in clients:
                client.wait(seconds + 30)
            spent = self._hub.cpu_seconds() - spent
            ends = [received(said) for _, said in clients]
        finally:
            for process in (*servers, *(client for client, _ in clients)):
                stop(process)
        return {"Gbit/s": sum(end["bits_per_second"] for end in ends) / 1e9,
                "CPU s/GiB": spent * GIB / sum(end["bytes"] for end in ends)}


def received(said):
    said.seek(0)
    report = json.load(said)
    if "error" in report:
        raise Failed(report["error"])
    return report["end"]["sum_received"]


def inner(number):
    return f"10.98.{number}.1"


def hubs(stack, chosen):
    """name -> hub, all of them ready."""
    wanted = {f"{n} workers": (chosen.linkspan, ["-t", str(n)], ["-t", "1"]) for n in chosen.workers}
    wanted |= {peer.name: (peer.path, peer.arguments, peer.arguments) for peer in chosen.peer}
    return {name: Hub(stack, str(number), *what, chosen.sites) for number, (name, what) in enumerate(wanted.items())}


def measure(chosen):
    """(name, direction) -> one result a round."""
    with contextlib.ExitStack() as stack:
        ready = hubs(stack, chosen)
        found = {(name, direction): [] for name in ready for direction in DIRECTIONS}
        for turn in range(chosen.rounds):
            names = list(ready)[turn % len(ready):] + list(ready)[:turn % len(ready)]
            for direction, iperf_options in DIRECTIONS.items():
                for name in names:
                    found[name, direction].append(ready[name].carry(chosen.seconds, *iperf_options))
    return found


def report(found):
    for (name, direction), rounds in found.items():
        cells = []
        for metric in rounds[0]:
            low, middle, high = ratios.quartiles([each[metric] for each in rounds])
            cells.append(f"{middle:6.2f} {metric} ({low:.2f}-{high:.2f})")
        print(f"{name:>16}  {direction:>4}  {'  '.join(cells)}")


def main():
    chosen = options()
    if os.geteuid() != 0:
        sys.exit("needs root, for network namespaces")
    if missing := [program for program in NEEDED if not shutil.which(program)]:
        sys.exit(f"install these first: {', '.join(missing)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"{chosen.sites} sites, {os.cpu_count()} cores, {run('uname', '-r').strip()}", flush=True)
    try:
        report(measure(chosen))
    except Failed as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
