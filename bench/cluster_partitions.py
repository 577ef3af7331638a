"""
Partitions of the network of a cluster (L{bench.cluster_network}): the shapes differ in who reaches whom.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import frozen

from bench.cluster_network import Network


@frozen
class Scene:
    """
    The network when it is cut.

    @ivar leader: the number of the machine whose node leads.
    @ivar etcd: the number of the machine whose etcd leads.
    """

    network: Network
    leader: int
    etcd: int

    def alone(self, number: int, with_clients: bool) -> None:
        """Cut a machine from the others, and from clients."""
        machine = self.network.machine(number)
        clients = [self.network.clients]
        self.network.part(machine, [
            place for place in self.network.places if place not in machine and (with_clients or place not in clients)
        ])  # fmt: skip

    @property
    def node(self) -> int:
        """The number of a machine whose node does not lead."""
        return (self.leader + 1) % len(self.network.nodes)


def _link_down(scene: Scene) -> None:
    scene.network.link(scene.leader, False)


def _leader_alone(scene: Scene) -> None:
    scene.alone(scene.leader, True)


def _leader_with_clients(scene: Scene) -> None:
    scene.alone(scene.leader, False)


def _etcd_alone(scene: Scene) -> None:
    etcd = scene.network.etcds[scene.etcd]
    scene.network.part([etcd], scene.network.places)


def _etcd_without_etcds(scene: Scene) -> None:
    scene.network.part([scene.network.etcds[scene.etcd]], scene.network.etcds)


def _node_without_etcds(scene: Scene) -> None:
    scene.network.part([scene.network.nodes[scene.leader]], scene.network.etcds)


def _node_asks_nobody(scene: Scene) -> None:
    for etcd in scene.network.etcds:
        scene.network.drop(scene.network.nodes[scene.leader], etcd)


def _node_hears_nobody(scene: Scene) -> None:
    for etcd in scene.network.etcds:
        scene.network.drop(etcd, scene.network.nodes[scene.leader])


def _etcd_speaks_to_nobody(scene: Scene) -> None:
    etcd = scene.network.etcds[scene.etcd]
    for place in scene.network.places:
        if place != etcd:
            scene.network.drop(etcd, place)


def _etcd_hears_nobody(scene: Scene) -> None:
    etcd = scene.network.etcds[scene.etcd]
    for other in scene.network.etcds:
        if other != etcd:
            scene.network.drop(other, etcd)


def _two_apart(scene: Scene) -> None:
    scene.network.part(scene.network.machine(scene.leader), scene.network.machine(scene.node))


def _follower_alone(scene: Scene) -> None:
    scene.alone(scene.node, True)


def _all_apart(scene: Scene) -> None:
    for number in range(len(scene.network.nodes)):
        scene.alone(number, False)


NO_QUORUM: Final = "every machine alone"

SHAPES: Final[dict[str, Callable[[Scene], None]]] = {
    "the leader hears no etcd": _node_hears_nobody,
    "the leader's link down": _link_down,
    "etcd's leader without the others": _etcd_without_etcds,
    NO_QUORUM: _all_apart,
    "the leader's machine alone": _leader_alone,
    "the leader without etcds": _node_without_etcds,
    "etcd's leader alone": _etcd_alone,
    "no etcd hears the leader": _node_asks_nobody,
    "nobody hears etcd's leader": _etcd_speaks_to_nobody,
    "etcd's leader hears no etcd": _etcd_hears_nobody,
    "the leader's machine alone with clients": _leader_with_clients,
    "two machines apart, both with the third": _two_apart,
    "a follower's machine alone": _follower_alone,
}
"""What cuts the network, by the name of its shape."""
