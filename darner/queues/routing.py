"""
The queues to which a put goes: the children of queues, and aliases.

A child (``parent+child``) is an ordinary queue, except that every put on its parent is put on it as well.
"""

from __future__ import annotations

from typing import Final, Optional

from attrs import frozen

from darner.config.policies import Policies, parent_of

ROUTES: Final = 1024
"""The number of cached routes."""


@frozen
class Route:
    """
    The queues to which a put on a name goes, each of them once.

    @ivar required: if one of these refuses the item, the put is refused.
    @ivar keeping: the required queues that keep the item; the others are C{fanout_only}.
    @ivar children: if one of these refuses the item, it is skipped: a slow reader must not block the others.
    """

    required: tuple[bytes, ...]
    keeping: tuple[bytes, ...]
    children: tuple[bytes, ...]


class Routing:
    """The routes of all names."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._children: dict[bytes, dict[bytes, None]] = {}
        self._routes: dict[bytes, Route] = {}

    def apply(self, policies: Policies) -> None:
        """Apply new settings."""
        self._policies = policies
        self._routes.clear()

    def born(self, name: bytes) -> Optional[bytes]:
        """
        Record that a queue of this name was created.

        @return: the parent, if it is a child.
        """
        parent = parent_of(name)
        if parent is not None:
            self._children.setdefault(parent, {})[name] = None
            self._routes.clear()
        return parent

    def gone(self, name: bytes) -> Optional[bytes]:
        """
        Record that the queue of this name was deleted.

        @return: the parent, if it was a child.
        """
        parent = parent_of(name)
        children = None if parent is None else self._children.get(parent)
        if parent is None or children is None or name not in children:
            return None
        self._routes.clear()
        del children[name]
        if not children:
            del self._children[parent]
        return parent

    def count(self, parent: bytes) -> int:
        """@return: the number of its children."""
        return len(self._children.get(parent, ()))

    def concerns(self, name: bytes) -> bool:
        """@return: whether a put on this name goes to other queues than the one of that name alone."""
        return name in self._policies.aliases or name in self._children or not self._keeps(name)

    def _keeps(self, name: bytes) -> bool:
        # Children have their parent's settings, but must keep items even if the parent is fanout_only.
        return parent_of(name) is not None or not self._policies.of(name).fanout_only

    def route(self, name: bytes) -> Route:
        route = self._routes.get(name)
        if route is None:
            if len(self._routes) >= ROUTES:
                self._routes.clear()
            route = self._routes[name] = self._find(name)
        return route

    def _find(self, name: bytes) -> Route:
        required = self._policies.aliases.get(name, (name,))
        children = {child: None for queue in required for child in self._children.get(queue, ())}
        return Route(
            required,
            tuple(queue for queue in required if self._keeps(queue)),
            tuple(child for child in children if child not in required),
        )
