"""What is measured. Each figure is a function from a pair of daemons to named numbers."""

import concurrent.futures
import json
import os
import pathlib
import re
import statistics
import time

from shell import Failed, run, start, stop

GIB = 1 << 30
ALL_CPUS = f"0-{os.cpu_count() - 1}"
PORT = 5201
# Seconds that ping waits for an answer.
PING_WAIT = 1


class Path:
    """Between whom traffic flows: two machines, the address of the far one, and the CPUs that each may use."""

    def __init__(self, near, far, address, cpus=(None, None)):
        self.near, self.far, self.address, self.cpus = near, far, address, cpus

    @classmethod
    def of_gateways(cls, pair, **more):
        a, b = pair.network.a, pair.network.b
        return cls(a.gateway, b.gateway, b.inner, **more)

    @classmethod
    def of_hosts(cls, pair):
        a, b = pair.network.a, pair.network.b
        return cls(a.host, b.host, b.lan_host)

    def near_command(self, *command):
        return self.near.inside(*pinned(self.cpus[0], command))

    def far_command(self, *command):
        return self.far.inside(*pinned(self.cpus[1], command))


def pinned(cpus, command):
    return ["taskset", "-c", cpus, *command] if cpus else command


def iperf(path, seconds, *options):
    """One run of iperf3; its report."""
    server = start(*path.far_command("iperf3", "-s", "-1", "-p", str(PORT)))
    client = path.near_command("iperf3", "-J", "-c", path.address, "-p", str(PORT), "-t", str(int(seconds)), *options)
    deadline = time.monotonic() + 3
    try:
        while "error" in (report := json.loads(run(*client, timeout=seconds + 30))):
            if time.monotonic() > deadline:
                raise Failed(report["error"])
            time.sleep(0.05)  # the server does not listen yet
        return report["end"]
    finally:
        stop(server)


def tcp(pair, path, seconds, *options):
    """Throughput of both directions together, and what it costs the daemons."""
    before = pair.cpu_seconds()
    end = iperf(path, seconds, *options)
    spent = since(before, pair)
    sums = [end[name] for name in ("sum_received", "sum_received_bidir_reverse") if name in end]
    received = sum(each["bytes"] for each in sums)
    if received == 0:
        raise Failed("iperf3 carried nothing")
    memory = pair.memory_mib()
    return {"Gbit/s": sum(each["bits_per_second"] for each in sums) / 1e9, **cost(spent, received),
            "RSS MiB": memory["VmRSS"], "peak RSS MiB": memory["VmHWM"]}


def since(before, pair):
    """CPU seconds of each daemon since then."""
    return [now - then for then, now in zip(before, pair.cpu_seconds())]


def cost(spent, size):
    """Of both daemons together, and of each."""
    each = {f"{side}: CPU s/GiB": seconds * GIB / size for side, seconds in zip("ab", spent)}
    return {"CPU s/GiB": sum(spent) * GIB / size, **each}


def tcp_1(pair, seconds):
    return tcp(pair, Path.of_gateways(pair), seconds)


def tcp_8(pair, seconds):
    return tcp(pair, Path.of_gateways(pair), seconds, "-P", "8")


def tcp_100(pair, seconds):
    """Of the two cores iperf3 itself takes a part that grows with the streams: it waits in select()."""
    return tcp(pair, Path.of_gateways(pair), seconds, "-P", "100")


def tcp_both(pair, seconds):
    return tcp(pair, Path.of_gateways(pair), seconds, "--bidir")


def tcp_pinned(pair, seconds):
    """One core a gateway, which its end of the traffic shares."""
    if os.cpu_count() < 2:
        raise Failed("needs two cores")
    for daemon, cpu in zip(pair.daemons, ("0", "1")):
        daemon.pin(cpu)
    try:
        return tcp(pair, Path.of_gateways(pair, cpus=("0", "1")), seconds)
    finally:
        for daemon in pair.daemons:
            daemon.pin(ALL_CPUS)


def lan_tcp_1(pair, seconds):
    return tcp(pair, Path.of_hosts(pair), seconds)


def lan_tcp_8(pair, seconds):
    return tcp(pair, Path.of_hosts(pair), seconds, "-P", "8")


def lan_tcp_both(pair, seconds):
    return tcp(pair, Path.of_hosts(pair), seconds, "--bidir")


def udp(pair, path, seconds, size):
    """Datagrams that arrive when as many are sent as the sender can, without segmentation offload."""
    flood = flood_program()
    before = pair.cpu_seconds()
    receiver = start(*path.far_command(flood, "receive", f"{path.address}:{PORT}"), output=-1)
    time.sleep(0.2)
    try:
        sent = json.loads(run(*path.near_command(flood, "send", f"{path.address}:{PORT}", str(size), str(seconds)),
                              timeout=seconds + 30))
        said, _ = receiver.communicate(timeout=10)
    finally:
        stop(receiver)
    spent, got = since(before, pair), json.loads(said)
    if got["packets"] == 0:
        raise Failed("no datagram arrived")
    return {
        "packets/s": got["packets"] / seconds,
        "offered/s": sent["packets"] / seconds,
        "late %": 100 * got["late"] / got["packets"],
        "CPU us/packet": sum(spent) * 1e6 / got["packets"],
        **cost(spent, got["packets"] * size),
    }


def flood_program():
    """The sender and receiver of datagrams: cargo build --release --example flood."""
    root = pathlib.Path(__file__).resolve().parents[2]
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    program = target / "release/examples/flood"
    if not program.exists():
        raise Failed(f"{program} is missing: cargo build --release --example flood")
    return str(program)


def udp_64(pair, seconds):
    return udp(pair, Path.of_gateways(pair), seconds, 64)


def udp_1300(pair, seconds):
    return udp(pair, Path.of_gateways(pair), seconds, 1300)


def lan_udp_64(pair, seconds):
    return udp(pair, Path.of_hosts(pair), seconds, 64)


def lan_udp_1300(pair, seconds):
    return udp(pair, Path.of_hosts(pair), seconds, 1300)


def ping(path, seconds):
    """A ping each 10 ms."""
    count = max(10, int(seconds * 100))
    command = path.near_command("ping", "-n", "-i", "0.01", "-c", str(count), "-W", str(PING_WAIT), path.address)
    said = run(*command, timeout=seconds + 30)
    return round_trips([float(ms) for ms in re.findall(r"time=([\d.]+) ms", said)], count)


def round_trips(times, sent):
    """Of the milliseconds of pings that were answered. Among the slowest, a lost one is as slow as was waited for it."""
    if not times:
        raise Failed(f"none of {sent} pings was answered")
    lost = sent - len(times)
    return {
        "median ms": statistics.median(times),
        "mean ms": statistics.fmean(times),
        "p99 ms": (sorted(times) + lost * [PING_WAIT * 1000])[int(sent * 0.99)],
        "sent": sent,
        "lost": lost,
    }


def ping_idle(pair, seconds):
    return ping(Path.of_gateways(pair), seconds)


def lan_ping_idle(pair, seconds):
    return ping(Path.of_hosts(pair), seconds)


def ping_loaded(pair, seconds):
    return ping_beside_streams(Path.of_gateways(pair), seconds)


def lan_ping_loaded(pair, seconds):
    return ping_beside_streams(Path.of_hosts(pair), seconds)


def ping_beside_streams(path, seconds):
    """Beside eight TCP streams, which begin half a second before and end after it."""
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        load = beside.submit(iperf, path, seconds + 2, "-P", "8")
        time.sleep(0.7)
        result = ping(path, seconds)
        end = load.result()
    return {**result, "load Gbit/s": end["sum_received"]["bits_per_second"] / 1e9}


FIGURES = {
    "tcp-1": tcp_1,
    "tcp-8": tcp_8,
    "tcp-100": tcp_100,
    "tcp-both": tcp_both,
    "tcp-pinned": tcp_pinned,
    "udp-64": udp_64,
    "udp-1300": udp_1300,
    "ping-idle": ping_idle,
    "ping-loaded": ping_loaded,
    "lan-tcp-1": lan_tcp_1,
    "lan-tcp-8": lan_tcp_8,
    "lan-tcp-both": lan_tcp_both,
    "lan-udp-64": lan_udp_64,
    "lan-udp-1300": lan_udp_1300,
    "lan-ping-idle": lan_ping_idle,
    "lan-ping-loaded": lan_ping_loaded,
}
