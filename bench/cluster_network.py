"""
A network of machines for a cluster, of Linux network namespaces, whose links and ways can be cut.

Each machine has an etcd and a node, in namespaces of their own, behind one link: so a node can also be cut from the
etcd of its own machine.  Clients are outside::

    clients -- bridge --+-- link 0 -- bridge of machine 0 --+-- etcd
                        |                                   +-- node
                        +-- link 1 -- ...

A way is cut by a wrong hardware address in the sender's table of neighbours: packets vanish without a word, in that
direction alone.  It takes the program C{ip} (Debian: iproute2) and the right to make namespaces.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Optional

from attrs import frozen

IP: Final = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
"""The program; C{None} where there is none."""

_NAME: Final = "darner-net-"
_NOBODY: Final = "02:00:00:00:00:01"


@frozen
class Place:
    """
    Where a process of the cluster runs.

    @ivar address: the IP address at which others reach it.
    @ivar namespace: its network namespace; empty for the one of this process.
    @ivar device: its interface.
    """

    address: str = "127.0.0.1"
    namespace: str = ""
    device: str = "lo"

    @property
    def prefix(self) -> tuple[str, ...]:
        """What comes before a command that is to run there."""
        return (str(IP), "netns", "exec", self.namespace) if self.namespace else ()


HERE: Final = Place()


def _ip(*arguments: str, namespace: str = "") -> str:
    """@raise OSError: it cannot be done."""
    command = [str(IP), *(("-n", namespace) if namespace else ()), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _try(*arguments: str) -> None:
    with suppress(OSError):
        _ip(*arguments)


def missing() -> Optional[str]:
    """@return: why there can be no such network here; C{None} if there can."""
    if IP is None:
        return "there is no program ip: apt-get install iproute2"
    try:
        Network(1).end()
    except OSError as error:
        return f"network namespaces are not permitted here: {error}"
    return None


class Network:
    """
    All of it.

    @ivar etcds: the place of the etcd of each machine.
    @ivar nodes: the place of the node of each machine.
    @ivar clients: the place of all clients.
    """

    def __init__(self, machines: int = 3) -> None:
        """@raise OSError: it cannot be made."""
        _remove_leftovers()
        self._bridge = f"dn{os.getpid()}"
        used = _ip("-4", "addr")
        # Two that are made at the same moment begin elsewhere.
        nets = (f"198.18.{(os.getpid() + number) % 256}" for number in range(256))
        self._net = next(net for net in nets if f"{net}." not in used)
        self.clients = Place(f"{self._net}.1", "", self._bridge)
        self._machines = [f"{_NAME}{os.getpid()}-m{number}" for number in range(machines)]
        self.etcds = [Place(f"{self._net}.{10 + number}", name, "br0") for number, name in enumerate(self._machines)]
        self.nodes = [
            Place(f"{self._net}.{20 + number}", f"{_NAME}{os.getpid()}-n{number}", "eth0") for number in range(machines)
        ]
        self._cut: list[tuple[Place, Place]] = []
        try:
            self._make()
        except OSError:
            self.end()
            raise

    def _make(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.clients.address}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for number, (etcd, node) in enumerate(zip(self.etcds, self.nodes, strict=True)):
            machine = etcd.namespace
            for place in (etcd, node):
                _ip("netns", "add", place.namespace)
                _ip("link", "set", "lo", "up", namespace=place.namespace)
            outside = f"{self._bridge}m{number}"
            _ip("link", "add", outside, "type", "veth", "peer", "name", "uplink", "netns", machine)
            _ip("link", "set", outside, "master", self._bridge, "up")
            _ip("link", "add", "br0", "type", "bridge", namespace=machine)
            _ip("link", "set", "uplink", "master", "br0", "up", namespace=machine)
            _ip("link", "add", "node", "type", "veth", "peer", "name", "eth0", "netns", node.namespace,
                namespace=machine)  # fmt: skip
            _ip("link", "set", "node", "master", "br0", "up", namespace=machine)
            for place in (etcd, node):
                _ip("addr", "add", f"{place.address}/24", "dev", place.device, namespace=place.namespace)
                _ip("link", "set", place.device, "up", namespace=place.namespace)

    @property
    def places(self) -> list[Place]:
        """Those of all etcds and nodes, and that of the clients."""
        return [*self.etcds, *self.nodes, self.clients]

    def machine(self, number: int) -> list[Place]:
        """@return: what is on this machine."""
        return [self.etcds[number], self.nodes[number]]

    # Faults

    def drop(self, sender: Place, receiver: Place) -> None:
        """From now on, what one sends to the other vanishes."""
        _ip("neigh", "replace", receiver.address, "lladdr", _NOBODY, "dev", sender.device, "nud", "permanent",
            namespace=sender.namespace)  # fmt: skip
        self._cut.append((sender, receiver))

    def part(self, some: Sequence[Place], others: Sequence[Place]) -> None:
        """From now on these do not reach those, nor the other way round; who is in both is not cut from itself."""
        for one in some:
            for other in others:
                if one != other:
                    self.drop(one, other)
                    self.drop(other, one)

    def link(self, number: int, up: bool) -> None:
        """Take the link of a machine down, or up again."""
        _ip("link", "set", "uplink", "up" if up else "down", namespace=self._machines[number])

    def heal(self) -> None:
        """All reach each other again."""
        for number in range(len(self._machines)):
            self.link(number, True)
        for sender, receiver in dict.fromkeys(self._cut):
            _ip("neigh", "del", receiver.address, "dev", sender.device, namespace=sender.namespace)
        self._cut.clear()

    def end(self) -> None:
        """Remove it.  Processes in it must have ended.  Harmless when it is removed."""
        for number, (etcd, node) in enumerate(zip(self.etcds, self.nodes, strict=True)):
            # Those of a namespace go some time after it does.
            _try("link", "delete", f"{self._bridge}m{number}")
            _try("netns", "delete", node.namespace)
            _try("netns", "delete", etcd.namespace)
        _try("link", "delete", self._bridge)


def _remove_leftovers() -> None:
    """Remove what processes have left that were killed."""
    for name, pid in re.findall(rf"^({_NAME}(\d+)-\S+)", _ip("netns", "list"), re.MULTILINE):
        if not Path(f"/proc/{pid}").exists():
            _try("netns", "delete", name)
            _try("link", "delete", f"dn{pid}")
