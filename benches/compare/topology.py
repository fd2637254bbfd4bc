"""The network that one peer is measured in: four machines, made of network namespaces.

    host a --- gateway a ======= gateway b --- host b
    10.99.1.2  10.99.1.1         10.99.2.1  10.99.2.2     LAN addresses
               192.0.2.1         192.0.2.2                outer addresses, on the wire under test
               10.99.0.1         10.99.0.2                inside addresses, on the tunnel
"""

import os

from shell import Failed, run

MTU = 1420

# What `ethtool -K` is told at both ends of the wire between the gateways.
WIRES = {
    # A super-packet crosses the wire whole, as between two virtual machines on one host.
    "plain": [],
    # Split by the sender, merged by the receiver: as with real network cards.
    "merged": ["tx-udp-segmentation", "off", "tso", "off", "rx-udp-gro-forwarding", "on", "gro", "on"],
    # Split by the sender and never merged: the worst wire.
    "split": ["tx-udp-segmentation", "off", "gro", "on"],
}


class Machine:
    """A network namespace."""

    def __init__(self, name):
        self.name = name
        run("ip", "netns", "add", name)
        self.run("ip", "link", "set", "lo", "up")

    def inside(self, *command):
        """The command, to be run on this machine."""
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, *command, **more):
        return run(*self.inside(*command), **more)

    def address(self, interface, address):
        self.run("ip", "address", "add", address, "dev", interface)
        self.run("ip", "link", "set", interface, "up")

    def remove(self):
        try:
            run("ip", "netns", "delete", self.name)
        except Failed:
            pass


class Site:
    """A gateway and a host on its LAN."""

    def __init__(self, network, side):
        number = {"a": 1, "b": 2}[side]
        far = 3 - number
        self.side = side
        self.outer = f"192.0.2.{number}"
        self.inner = f"10.99.0.{number}"
        self.lan = f"10.99.{number}.0/24"
        self.lan_host = f"10.99.{number}.2"
        self.far_networks = [f"10.99.0.{far}/32", f"10.99.{far}.0/24"]
        self.gateway = network.machine(f"gw-{side}")
        self.host = network.machine(f"host-{side}")
        self._lan(number)

    def _lan(self, number):
        run("ip", "-n", self.gateway.name, "link", "add", "lan", "type", "veth",
            "peer", "name", "eth0", "netns", self.host.name)
        self.gateway.address("lan", f"10.99.{number}.1/24")
        self.gateway.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.host.address("eth0", f"{self.lan_host}/24")
        self.host.run("ip", "route", "add", "default", "via", f"10.99.{number}.1")

    def tunnel(self, interface):
        """Gives the tunnel's interface its addresses and routes, whoever made it."""
        self.gateway.run("ip", "link", "set", interface, "mtu", MTU, "up")
        self.gateway.run("ip", "address", "replace", f"{self.inner}/32", "dev", interface)
        for network in self.far_networks:
            self.gateway.run("ip", "route", "replace", network, "dev", interface, "src", self.inner)


class Network:
    """Both sites and the wire between them."""

    def __init__(self, label, wire):
        self._prefix = f"lsbench-{os.getpid()}-{label}"
        self._machines = []
        try:
            self.a, self.b = Site(self, "a"), Site(self, "b")
            self._join(wire)
        except BaseException:
            self.remove()
            raise

    def machine(self, name):
        machine = Machine(f"{self._prefix}-{name}")
        self._machines.append(machine)
        return machine

    def _join(self, wire):
        run("ip", "-n", self.a.gateway.name, "link", "add", "wan", "type", "veth",
            "peer", "name", "wan", "netns", self.b.gateway.name)
        for site in (self.a, self.b):
            site.gateway.address("wan", f"{site.outer}/24")
            if WIRES[wire]:
                site.gateway.run("ethtool", "-K", "wan", *WIRES[wire])

    def remove(self):
        for machine in self._machines:
            machine.remove()
