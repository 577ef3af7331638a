"""
The settings of queues, inherited from the defaults, from patterns and from parents.

`docs/operations.rst` describes each setting for those who run the server.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Mapping
from typing import Any, Final, Optional, Union

import attrs
from attrs import field, frozen, validators
from attrs.validators import optional

from darner.config.checks import meant, of_type
from darner.config.units import LONGEST, duration_text, parse_duration, size_text
from darner.errors import BadQueueName, SettingsError
from darner.values.vocabulary import check_queue_name

SYNC_WORDS: Final = ("never", "always")

TARGETS: Final = ("dead_letter_queue", "expire_to_queue")
"""The settings that name a queue to which items are moved."""

SPECIAL: Final = re.compile(r"[*?\[]")
_CLASS: Final = re.compile(r"\[!?\]?[^\]]*\]")
"""A set of characters in a pattern, as fnmatch reads it."""


def _whole(_: object, attribute: Any, value: Any) -> None:
    """@raise ValueError: it is not a whole number above 0."""
    of_type(int)(_, attribute, value)
    validators.gt(0)(_, attribute, value)


def _time(_: object, attribute: Any, value: Any) -> None:
    """@raise ValueError: it is not a number of seconds above 0 and up to L{LONGEST}."""
    of_type(float)(_, attribute, value)
    validators.gt(0)(_, attribute, value)
    validators.le(LONGEST)(_, attribute, value)


def _target(_: object, __: Any, value: Any) -> None:
    """@raise ValueError: it is not the name of a queue."""
    queue_name(value)


def _sync(_: object, __: Any, value: Any) -> None:
    """@raise ValueError: it is neither one of L{SYNC_WORDS} nor a duration."""
    if value not in SYNC_WORDS:
        sync_interval(value)


_flag = of_type(bool)


class Kind:
    """How a setting is written in the file."""

    SIZE = "size"
    DURATION = "duration"
    SYNC = "sync"
    QUEUE = "queue"


def _size() -> Any:
    return field(default=None, validator=optional(_whole), metadata={"kind": Kind.SIZE})


def _duration() -> Any:
    return field(default=None, validator=optional(_time), metadata={"kind": Kind.DURATION})


def _count() -> Any:
    return field(default=None, validator=optional(_whole))


def _queue() -> Any:
    return field(default=None, validator=optional(_target), metadata={"kind": Kind.QUEUE})


@frozen
class QueueSettings:
    """
    The settings of one queue.

    Where Kestrel has the same setting, it has Kestrel's name, in lower case with underscores.  Sizes are in bytes,
    durations in seconds.  C{None} means no limit, or that the feature is off.
    """

    max_items: Optional[int] = _count()
    """The maximum number of items in the queue; open ones do not count."""
    max_bytes: Optional[int] = _size()
    """The maximum payload bytes in the queue; open items do not count."""
    max_item_bytes: int = field(default=2**30, validator=_whole, metadata={"kind": Kind.SIZE})
    """The largest item that is accepted."""
    discard_old_when_full: bool = field(default=False, validator=_flag)
    """Whether a full queue drops its oldest items for a new one; otherwise it refuses the new one."""
    max_age: Optional[float] = _duration()
    """The time after which every item expires, even if its own expiry is later or none."""
    expire_to_queue: Optional[str] = _queue()
    """The queue to which expired items are moved; otherwise they are dropped."""
    max_expire_sweep: int = field(default=1000, validator=_whole)
    """The maximum number of expired items dropped in one go; other clients are served in between."""
    max_queue_age: Optional[float] = _duration()
    """The time since its creation after which an empty queue is deleted."""
    open_timeout: Optional[float] = _duration()
    """The time after which an open read is given back."""
    retry_delay: Optional[float] = _duration()
    """The time for which an item that was given back is unavailable."""
    max_attempts: Optional[int] = _count()
    """How often an item may be opened; given back for the last time it goes to the C{dead_letter_queue}."""
    dead_letter_queue: Optional[str] = _queue()
    """The queue to which an item goes that was opened C{max_attempts} times; the two go together."""
    default_delay: Optional[float] = _duration()
    """The delay of items whose C{set} has none."""
    dedupe_window: Optional[float] = _duration()
    """The time for which a second put with the same id stores nothing."""
    fanout_only: bool = field(default=False, validator=_flag)
    """Whether items are put on the children alone."""
    max_open_reads: int = field(default=1, validator=_whole)
    """The maximum number of open reads of a connection on the queue."""
    durable: bool = field(default=True, validator=_flag)
    """
    Whether the queue is kept on disk; otherwise in memory, until the server ends.  Applies when the queue is created.
    """
    sync: Union[str, float] = field(default="never", validator=_sync, metadata={"kind": Kind.SYNC})
    """
    When items whose C{set} has no C{/sync} are synced to stable storage: C{"never"}, C{"always"} before the reply, or
    within so many seconds.
    """

    @property
    def retries(self) -> bool:
        """Whether the queue must keep track of open items and of those that were given back."""
        return self.max_attempts is not None or self.retry_delay is not None or self.open_timeout is not None

    def as_text(self) -> dict[str, str]:
        """@return: every setting as written in the file, without quotation marks."""
        return {attribute.name: _text(attribute, getattr(self, attribute.name)) for attribute in FIELDS.values()}


_BUILT_IN: Final = QueueSettings()
FIELDS: Final[dict[str, Any]] = {attribute.name: attribute for attribute in attrs.fields(QueueSettings)}


def _text(attribute: Any, value: Any) -> str:
    kind = attribute.metadata.get("kind")
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if kind == Kind.SIZE:
        return size_text(value)
    if isinstance(value, float):
        return duration_text(value)
    return str(value)


def sync_interval(value: Any) -> float:
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is not never, always or a duration like 200ms") from error
    if seconds <= 0:
        raise ValueError(f"{value!r} is not above 0; use always")
    return seconds


def queue_name(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not of type str")
    try:
        return check_queue_name(value.encode())
    except BadQueueName as error:
        raise ValueError(f"{value!r} is not the name of a queue") from error


def parent_of(name: bytes) -> Optional[bytes]:
    """@return: the parent's name if this is the name of a fan-out child (``parent+child``), otherwise C{None}."""
    parent, plus, child = name.partition(b"+")
    return parent if plus and parent and child else None


@frozen
class Policies:
    """
    The settings of all queues.

    A queue has the defaults, overridden by each pattern that matches its name, in the order of the file, and then by
    its own table.  A fan-out child has its parent's settings in place of the defaults.

    @ivar defaults: the default settings.
    @ivar overrides: other settings, by queue name or pattern, in the order of the file.
    @ivar aliases: the queues that a put on an alias goes to, by alias.
    """

    defaults: QueueSettings = QueueSettings()
    overrides: Mapping[str, Mapping[str, Any]] = field(factory=dict)
    aliases: Mapping[bytes, tuple[bytes, ...]] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        """@raise SettingsError: a setting is invalid by itself; L{check_together} checks combinations."""
        if not isinstance(self.defaults, QueueSettings):
            raise SettingsError(f"defaults: {self.defaults!r} is not of type QueueSettings")
        for name, changes in self.overrides.items():
            _check_override(name, changes)
        _check_aliases(self.aliases, self.overrides)

    def of(self, name: bytes) -> QueueSettings:
        """@return: the settings of a queue."""
        parent = parent_of(name)
        settings = self.defaults if parent is None else self.of(parent)
        text = name.decode("ascii")
        for pattern, changes in self.overrides.items():
            if pattern != text and SPECIAL.search(pattern) and fnmatch.fnmatchcase(text, pattern):
                settings = attrs.evolve(settings, **changes)
        own = self.overrides.get(text)
        if own is not None:
            settings = attrs.evolve(settings, **own)
        return _without_itself(settings, text)


    def origins(self, name: bytes) -> dict[str, tuple[str, Optional[str]]]:
        """
        @return: where each setting in force for a queue comes from, and by what key: C{built-in} and C{defaults}
            without one, C{parent} by the parent's name, C{pattern}, and C{queue} by its own.
        """
        parent = parent_of(name)
        found: dict[str, tuple[str, Optional[str]]] = {
            setting: ("defaults" if value != getattr(_BUILT_IN, setting) else "built-in", None)
            for setting, value in attrs.asdict(self.defaults).items()
        }
        if parent is not None:
            for setting, (source, _) in self.origins(parent).items():
                if source not in ("built-in", "defaults"):
                    found[setting] = ("parent", parent.decode("ascii"))
        text = name.decode("ascii")
        for pattern, changes in self.overrides.items():
            if pattern != text and SPECIAL.search(pattern) and fnmatch.fnmatchcase(text, pattern):
                found.update(dict.fromkeys(changes, ("pattern", pattern)))
        found.update(dict.fromkeys(self.overrides.get(text, {}), ("queue", text)))
        return found


def _without_itself(settings: QueueSettings, name: str) -> QueueSettings:
    """Drop a target that is the queue itself, which a pattern may have set."""
    if settings.dead_letter_queue == name:
        settings = attrs.evolve(settings, dead_letter_queue=None, max_attempts=None)
    if settings.expire_to_queue == name:
        settings = attrs.evolve(settings, expire_to_queue=None)
    return settings


def unknown_names(names: Collection[str], known: Collection[str]) -> str:
    """@return: an error text for unknown settings, with the known ones that are most like them."""
    return "unknown setting " + ", ".join(name + meant(name, known) for name in sorted(names))


def check_values(changes: Mapping[str, Any], where: str) -> None:
    """@raise SettingsError: a setting is unknown, of a wrong type or out of range."""
    unknown = set(changes) - set(FIELDS)
    if unknown:
        raise SettingsError(f"{where}: {unknown_names(unknown, FIELDS)}")
    for name, value in changes.items():
        try:
            attrs.evolve(QueueSettings(), **{name: value})
        except ValueError as error:
            # The errors of attrs have further arguments after the text.
            raise SettingsError(f"{where}.{name}: {error.args[0]}") from error


def _check_override(name: str, changes: Mapping[str, Any]) -> None:
    """@raise SettingsError: a setting of this queue or pattern is invalid by itself."""
    where = f"queues.{name}"
    try:
        queue_name(name)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error
    if "[" in name and not _CLASS.search(name):
        raise SettingsError(f"{where}: the pattern's bracket is not closed; [[] matches a bracket itself")
    check_values(changes, where)
    for setting in TARGETS:
        if changes.get(setting) == name:
            raise SettingsError(f"{where}.{setting}: this is the queue itself")


def _check_aliases(aliases: Mapping[bytes, tuple[bytes, ...]], overrides: Mapping[str, Any]) -> None:
    for alias, queues in aliases.items():
        where = f"aliases.{alias.decode(errors='replace') if isinstance(alias, bytes) else alias}"
        for name in (alias, *queues):
            if not isinstance(name, bytes):
                raise SettingsError(f"{where}: {name!r} is not of type bytes")
            try:
                check_queue_name(name)
            except BadQueueName as error:
                raise SettingsError(f"{where}: {name!r} is not the name of a queue") from error
        nested = [queue.decode() for queue in queues if queue in aliases]
        if nested:
            raise SettingsError(f"{where}: {nested[0]} is an alias itself")
        if alias.decode() in overrides:
            raise SettingsError(f"{where}: [queues] has settings for a queue of that name")
