"""Measures Linkspan side by side with other userspace WireGuards, in interleaved rounds. Needs root.

    cargo build --release --bin linkspan --example flood
    sudo python3 benches/compare --peer wireguard-go=/usr/bin/wireguard-go --peer boringtun=/usr/bin/boringtun-cli

Makes network namespaces of its own and removes them. A round measures each peer once, in turn, so that whatever else the
machine does disturbs all of them alike; the ratios are taken round by round.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import sys
import tempfile
import time

import report
from figures import FIGURES
from peers import Pair, Peer
from shell import Failed, require, run
from topology import MTU, WIRES, Network

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEEDED = ("ip", "wg", "iperf3", "ping", "ethtool", "taskset")


def options():
    parser = argparse.ArgumentParser(prog="python3 benches/compare", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--linkspan", type=Peer.parse, metavar="NAME=PATH[:ARGUMENTS]",
                        help="the subject; default linkspan=target/release/linkspan")
    parser.add_argument("--peer", action="append", type=Peer.parse, default=[], metavar="NAME=PATH[:ARGUMENTS]",
                        help="a program to compare with; may be given again. Limits are known for names that begin with "
                             "wireguard-go, boringtun and gotatun")
    parser.add_argument("--wire", action="append", choices=WIRES, help="default: all; may be given again")
    parser.add_argument("--figure", action="append", choices=FIGURES, help="default: all; may be given again")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write every number there")
    parser.add_argument("--check", action="store_true",
                        help="exit 1 where Linkspan falls short of what it must reach, or that was not measured")
    chosen = parser.parse_args()
    chosen.linkspan = chosen.linkspan or Peer("linkspan", str(ROOT / "target/release/linkspan"))
    if not os.access(chosen.linkspan.path, os.X_OK):
        parser.error(f"{chosen.linkspan.path} is missing: cargo build --release --bin linkspan --example flood")
    if chosen.check and not chosen.peer:
        parser.error("--check has nobody to compare with: give it a --peer, or several")
    names = [peer.name for peer in (chosen.linkspan, *chosen.peer)]
    if len(set(names)) < len(names):
        parser.error("each program needs a name of its own")
    return chosen


def measure(wire, peers, chosen, note):
    """All rounds on one wire: figure -> peer -> one result a round, None where it failed."""
    figures = {name: FIGURES[name] for name in chosen.figure or FIGURES}
    results = {figure: {peer.name: [] for peer in peers} for figure in figures}
    with contextlib.ExitStack() as stack:
        pairs = [build(stack, number, peer, wire) for number, peer in enumerate(peers)]
        for turn in range(chosen.rounds):
            for figure, function in figures.items():
                for pair in rotated(pairs, turn):
                    note(f"{wire} wire, round {turn + 1} of {chosen.rounds}: {figure}, {pair.peer.name}")
                    results[figure][pair.peer.name].append(attempt(function, pair, chosen.seconds, note))
    return results


def build(stack, number, peer, wire):
    folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="linkspan-compare-")))
    network = Network(str(number), wire)
    stack.callback(network.remove)
    pair = Pair(peer, network, folder, str(number), MTU)
    stack.callback(pair.stop)
    return pair


def rotated(pairs, turn):
    """Nobody is always first."""
    turn %= len(pairs)
    return pairs[turn:] + pairs[:turn]


def attempt(function, pair, seconds, note):
    try:
        return function(pair, seconds)
    except (Failed, OSError, ValueError, KeyError) as error:
        note(f"{pair.peer.name}: failed: {error}\n")
        return None


def machine():
    """What the numbers depend on."""
    cpu = next((line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(), "load before": load(),
            "iperf3": run("iperf3", "--version").splitlines()[0]}


def load():
    return float(pathlib.Path("/proc/loadavg").read_text().split()[0])


def noted():
    """Progress, on one line of the terminal."""
    def note(text):
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        elif text.endswith("\n"):
            print(text, end="", file=sys.stderr, flush=True)
    return note


def main():
    chosen = options()
    require(NEEDED)
    peers = [chosen.linkspan, *chosen.peer]
    about = {**machine(), "rounds": chosen.rounds, "seconds": chosen.seconds,
             "versions": {peer.name: peer.version() for peer in peers}, "time": time.strftime("%Y-%m-%d %H:%M")}
    note = noted()
    results = {}
    try:
        for wire in chosen.wire or WIRES:
            results[wire] = measure(wire, peers, chosen, note)
    except Failed as error:
        sys.exit(f"\n{error}")
    note("")
    about["load after"] = load()
    print(", ".join(f"{name} {value}" for name, value in about.items() if name != "versions"))
    print(", ".join(f"{name}: {version}" for name, version in about["versions"].items()), end="\n\n")
    print(report.table(results, chosen.linkspan.name))
    if chosen.json:
        chosen.json.write_text(json.dumps({"about": about, "results": results}, indent=1) + "\n")
    if chosen.check:
        lines, holds = report.verdicts(results, chosen.linkspan.name)
        print(lines)
        sys.exit(0 if holds else 1)


main()
