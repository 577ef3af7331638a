"""
What a queue is told to do: its settings, inherited from the defaults, from patterns and from its parent.

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
    """@raise ValueError: it is no time in seconds, above 0 and up to L{LONGEST}."""
    of_type(float)(_, attribute, value)
    validators.gt(0)(_, attribute, value)
    validators.le(LONGEST)(_, attribute, value)


def _target(_: object, __: Any, value: Any) -> None:
    """@raise ValueError: it is not the name of a queue."""
    queue_name(value)


def _sync(_: object, __: Any, value: Any) -> None:
    """@raise ValueError: it is neither a word nor a time."""
    if value not in SYNC_WORDS:
        sync_interval(value)


_flag = of_type(bool)


class Kind:
    """How a setting is written."""

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

    Names are Kestrel's, in lower case with underscores, where it has one for the thing.  Sizes are in bytes, durations
    in seconds; C{None} is no limit, or not at all.
    """

    max_items: Optional[int] = _count()
    """How many items the queue may hold, open ones not counted."""
    max_bytes: Optional[int] = _size()
    """How many bytes of payload the queue may hold, open ones not counted."""
    max_item_bytes: int = field(default=2**30, validator=_whole, metadata={"kind": Kind.SIZE})
    """The largest item that is taken."""
    discard_old_when_full: bool = field(default=False, validator=_flag)
    """Whether a full queue drops its oldest items for a new one; else it refuses the new one."""
    max_age: Optional[float] = _duration()
    """After which time every item expires, whatever its own expiry."""
    expire_to_queue: Optional[str] = _queue()
    """Where items that expire are put; by default nowhere."""
    max_expire_sweep: int = field(default=1000, validator=_whole)
    """How many expired items are dropped in one go, so that a swarm of them stalls nobody."""
    max_queue_age: Optional[float] = _duration()
    """After which time since it was made an empty queue is deleted."""
    open_timeout: Optional[float] = _duration()
    """After which time an open read is given back."""
    retry_delay: Optional[float] = _duration()
    """How long an item that was given back is not to be had."""
    max_attempts: Optional[int] = _count()
    """How often an item may be opened; given back for the last time it goes to the C{dead_letter_queue}."""
    dead_letter_queue: Optional[str] = _queue()
    default_delay: Optional[float] = _duration()
    """After which time items are to be had whose C{set} does not say."""
    dedupe_window: Optional[float] = _duration()
    """For how long an item is not put again under the same id."""
    fanout_only: bool = field(default=False, validator=_flag)
    """Whether items are put on the children alone."""
    max_open_reads: int = field(default=1, validator=_whole)
    """How many open reads a connection may have on the queue."""
    durable: bool = field(default=True, validator=_flag)
    """
    Whether the queue is kept on disk; else in memory, as long as the server runs.  Asked for when the queue is made.
    """
    sync: Union[str, float] = field(default="never", validator=_sync, metadata={"kind": Kind.SYNC})
    """
    When items are brought to stable storage, besides those whose C{set} asks for it: C{"never"}, C{"always"} before
    they are answered, or within so many seconds.
    """

    @property
    def retries(self) -> bool:
        """Whether something is to be known of the items that are open, and of those that were given back."""
        return self.max_attempts is not None or self.retry_delay is not None or self.open_timeout is not None

    def as_text(self) -> dict[str, str]:
        """@return: every setting as it could stand in the file, without quotation marks."""
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
        raise ValueError(f"{value!r} is neither never nor always nor a duration like 200ms") from error
    if seconds <= 0:
        raise ValueError(f"{value!r} is no time: say always")
    return seconds


def queue_name(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not of type str")
    try:
        return check_queue_name(value.encode())
    except BadQueueName as error:
        raise ValueError(f"{value!r} is not the name of a queue") from error


def parent_of(name: bytes) -> Optional[bytes]:
    """@return: of the name of a fan-out child (``parent+child``) that of its parent; C{None} of any other."""
    parent, plus, child = name.partition(b"+")
    return parent if plus and parent and child else None


@frozen
class Policies:
    """
    The settings of all queues.

    A queue has the defaults, over them what patterns that match its name say, in the order of the file, and over them
    what its own table says.  A fan-out child has its parent's settings in place of the defaults.

    @ivar defaults: of queues that nothing else is said of.
    @ivar overrides: what is said of queues by name or pattern, in the order of the file.
    @ivar aliases: names that stand for queues to put items on.
    """

    defaults: QueueSettings = QueueSettings()
    overrides: Mapping[str, Mapping[str, Any]] = field(factory=dict)
    aliases: Mapping[bytes, tuple[bytes, ...]] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        """@raise SettingsError: settings are wrong, each by itself; L{check_together} sees the rest."""
        if not isinstance(self.defaults, QueueSettings):
            raise SettingsError(f"defaults: {self.defaults!r} is not of type QueueSettings")
        for name, changes in self.overrides.items():
            _check_override(name, changes)
        _check_aliases(self.aliases, self.overrides)

    def of(self, name: bytes) -> QueueSettings:
        """@return: the settings in force for a queue."""
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
    """The queue to which others send their items does not send its own to itself, though a pattern says so."""
    if settings.dead_letter_queue == name:
        settings = attrs.evolve(settings, dead_letter_queue=None, max_attempts=None)
    if settings.expire_to_queue == name:
        settings = attrs.evolve(settings, expire_to_queue=None)
    return settings


def unknown_names(names: Collection[str], known: Collection[str]) -> str:
    """@return: that these settings are not known, and what may have been meant."""
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
            # What attrs raises carries more than the text.
            raise SettingsError(f"{where}.{name}: {error.args[0]}") from error


def _check_override(name: str, changes: Mapping[str, Any]) -> None:
    """@raise SettingsError: what is said of a queue or pattern is wrong by itself."""
    where = f"queues.{name}"
    try:
        queue_name(name)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error
    if "[" in name and not _CLASS.search(name):
        raise SettingsError(f"{where}: the pattern's bracket is not closed; [[] stands for a bracket itself")
    check_values(changes, where)
    for setting in TARGETS:
        if changes.get(setting) == name:
            raise SettingsError(f"{where}.{setting}: the queue itself")


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
            raise SettingsError(f"{where}: there is a queue of that name with settings")
