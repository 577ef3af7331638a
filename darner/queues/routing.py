"""
Where a set goes: the children of queues, and aliases.

A child (``parent+child``) is a queue like others, but for one thing: what is set on its parent is set on it as well.
"""

from __future__ import annotations

from typing import Final, Optional

from attrs import frozen

from darner.config.policies import Policies, parent_of

ROUTES: Final = 1024
"""Of how many names it is remembered where a set on them goes."""


@frozen
class Route:
    """
    The queues that a set on a name is for, each of them once.

    @ivar required: those without which it is refused.
    @ivar keeping: those of them that keep it; the others are C{fanout_only}.
    @ivar children: those that are passed over where they refuse it: one reader that lags behind is no reason to keep
        the item from all the others.
    """

    required: tuple[bytes, ...]
    keeping: tuple[bytes, ...]
    children: tuple[bytes, ...]


class Routing:
    """Which names lead to several queues, or to none."""

    def __init__(self, policies: Policies) -> None:
        """@param policies: the settings of the queues."""
        self._policies = policies
        self._children: dict[bytes, dict[bytes, None]] = {}
        self._routes: dict[bytes, Route] = {}

    def apply(self, policies: Policies) -> None:
        """Have other settings from now on."""
        self._policies = policies
        self._routes.clear()

    def born(self, name: bytes) -> Optional[bytes]:
        """
        There is a queue of that name.

        @return: the parent, where it is a child.
        """
        parent = parent_of(name)
        if parent is not None:
            self._children.setdefault(parent, {})[name] = None
            self._routes.clear()
        return parent

    def gone(self, name: bytes) -> Optional[bytes]:
        """
        There is no queue of that name any more.

        @return: the parent, where it was a child.
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

    def concerns(self, name: bytes) -> bool:
        """@return: whether a set on this name is for other queues than the one of that name alone."""
        return name in self._policies.aliases or name in self._children or not self._keeps(name)

    def _keeps(self, name: bytes) -> bool:
        # Children have the settings of their parent, and would be no use if they kept nothing.
        return parent_of(name) is not None or not self._policies.of(name).fanout_only

    def route(self, name: bytes) -> Route:
        """@return: where a set on this name goes."""
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
