"""The daemons under test: started on both gateways, configured, watched, stopped.

`linkspan` is given a configuration file; every other program takes the place of wireguard-go: it is started with
the name of an interface and configured by `wg`.
"""

import argparse
import json
import os
import pathlib
import shlex
import time

from shell import Failed, run, start, stop

PORT = 51820
SOCKETS = pathlib.Path("/var/run/wireguard")
PATIENCE = 20  # seconds until a tunnel must carry its first ping
TICKS = os.sysconf("SC_CLK_TCK")

# The fair setting of each program, by how it or the name given to it begins, unless the command line names another.
DEFAULT_ARGUMENTS = {
    "boringtun": ["-t", "1", "--disable-drop-privileges"],
    "gotatun": ["--disable-drop-privileges"],
}

CONFIGURATION = """\
[interface]
private_key_file = "{key}"
listen_port = {port}
addresses = ["{inner}/24"]
mtu = {mtu}

[[connection]]
name = "compare"
networks = [{networks}]
routes = false

[[connection.tunnel]]
public_key = "{far_key}"
endpoint = "{far_outer}:{port}"
"""


class Peer:
    """A program by its path, with its arguments."""

    def __init__(self, name, path, arguments=None):
        self.name, self.path = name, path
        program = pathlib.Path(path).name
        self.takes_file = program == "linkspan"
        known = (words for begin, words in DEFAULT_ARGUMENTS.items() if name.startswith(begin) or program.startswith(begin))
        self.arguments = next(known, []) if arguments is None else arguments

    @classmethod
    def parse(cls, text):
        """`name=path` or `name=path:arguments`."""
        name, equals, rest = text.partition("=")
        path, colon, arguments = rest.partition(":")
        if not (name and equals and os.access(path, os.X_OK)):
            raise argparse.ArgumentTypeError(f"{text}: must be NAME=PATH or NAME=PATH:ARGUMENTS, with the path of a program")
        return cls(name, path, shlex.split(arguments) if colon else None)

    def command(self, interface):
        """Starts it in the foreground, to be configured by `wg`."""
        return [self.path, *self.arguments, "-f", interface]

    def version(self):
        """What it says about itself, in one line."""
        try:
            said = run(self.path, "--version").strip()
        except (Failed, OSError):
            return "unknown"
        return said.splitlines()[0] if said else "unknown"


class Key:
    """A key pair, in a file that only root can read."""

    def __init__(self, path):
        self.path = path
        private = run("wg", "genkey")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(private)
        self.public = run("wg", "pubkey", stdin=private).strip()


class Process:
    """A daemon of one interface, running on one machine; its log is in `folder`."""

    def __init__(self, machine, interface, folder, command):
        self.machine, self.interface = machine, interface
        self._log = open(folder / f"{interface}.log", "w")
        self._process = start(*machine.inside(*command), output=self._log)

    def wait(self, ready):
        """Until it is ready, for a while."""
        deadline = time.monotonic() + PATIENCE
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                said = pathlib.Path(self._log.name).read_text().strip()
                raise Failed(f"{' '.join(map(str, self._process.args[4:]))} did not start: {said}")
            time.sleep(0.05)

    def interface_is_there(self):
        return self._succeeds("ip", "link", "show", self.interface)

    def answers_wg(self):
        return self.interface_is_there() and self._succeeds("wg", "show", self.interface)

    def _succeeds(self, *command):
        try:
            self.machine.run(*command)
            return True
        except Failed:
            return False

    @property
    def pid(self):
        return self._process.pid

    def cpu_seconds(self):
        """User and system time of the whole process, dead threads included."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory_mib(self):
        """Resident now, and at its highest."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        lines = dict(line.split(":", 1) for line in status.splitlines())
        return {name: int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")}

    def pin(self, cpus):
        run("taskset", "-acp", cpus, self.pid)

    def stop(self):
        stop(self._process)
        self._log.close()
        # Some leave it there.
        (SOCKETS / f"{self.interface}.sock").unlink(missing_ok=True)


class Daemon(Process):
    """One running daemon, on one gateway, with its tunnel to the far one."""

    def __init__(self, peer, site, interface, key, far, mtu):
        self.name, self._takes_file = peer.name, peer.takes_file
        self._site, self._key, self._far = site, key, far
        command = _with_file(peer, site, interface, key, far, mtu) if peer.takes_file else peer.command(interface)
        super().__init__(site.gateway, interface, key.path.parent, command)

    def set_up(self):
        """Waits for it and configures it; apart, so that whoever made it can stop it when this fails."""
        self.wait(self.interface_is_there if self._takes_file else self.answers_wg)
        if not self._takes_file:
            self._tell()
        self._site.tunnel(self.interface)

    def _tell(self):
        """What `linkspan` reads in its file."""
        far_site, far_key = self._far
        self.machine.run(
            "wg", "set", self.interface, "listen-port", PORT, "private-key", self._key.path,
            "peer", far_key.public, "endpoint", f"{far_site.outer}:{PORT}",
            "allowed-ips", ",".join(self._site.far_networks),
        )

    def sent_bytes(self):
        """Of inner packets, by the counter of the tunnel's interface."""
        said = self.machine.run("ip", "-s", "-j", "link", "show", self.interface)
        return json.loads(said)[0]["stats64"]["tx"]["bytes"]

    def last_handshake(self):
        """When, in seconds of the epoch; 0 before the first."""
        said = self.machine.run("wg", "show", self.interface, "latest-handshakes")
        return int(said.split()[1])


def _with_file(peer, site, interface, key, far, mtu):
    """Writes the file of `linkspan`; the command that runs it."""
    (far_site, far_key), folder = far, key.path.parent
    file, socket, state = (folder / f"{interface}.{end}" for end in ("toml", "sock", "state"))
    file.write_text(CONFIGURATION.format(
        key=key.path, port=PORT, inner=site.inner, mtu=mtu,
        networks=", ".join(f'"{network}"' for network in site.far_networks),
        far_key=far_key.public, far_outer=far_site.outer,
    ))
    state.mkdir()
    return [peer.path, "run", *peer.arguments, "--config", file, "--socket", socket, "--state-dir", state]


class Pair:
    """Two daemons with a tunnel between them, ready for traffic: both a peer's, or gateway b's another's."""

    def __init__(self, peer, network, folder, label, mtu, far_peer=None):
        self.peer, self.network = peer, network
        self.daemons = []
        sites = (network.a, network.b)
        keys = [Key(folder / f"{label}{site.side}.key") for site in sites]
        try:
            for peer, site, key, far in zip((peer, far_peer or peer), sites, keys, reversed(list(zip(sites, keys)))):
                interface = f"ls{os.getpid()}{label}{site.side}"
                self.daemons.append(Daemon(peer, site, interface, key, far, mtu))
                self.daemons[-1].set_up()
            network.a.gateway.run("ping", "-qc1", "-w", PATIENCE, network.b.inner, timeout=2 * PATIENCE)
        except BaseException:
            self.stop()
            raise

    def cpu_seconds(self):
        """Of each gateway's daemon: a's, b's."""
        return [daemon.cpu_seconds() for daemon in self.daemons]

    def memory_mib(self):
        """Of the larger gateway."""
        both = [daemon.memory_mib() for daemon in self.daemons]
        return {name: max(one[name] for one in both) for name in both[0]}

    def stop(self):
        for daemon in self.daemons:
            daemon.stop()
