"""
What a queue is told to do: its settings, inherited from the defaults, from patterns and from its parent.

`docs/operations.rst` describes each setting for those who run the server.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from typing import Any, Final, Optional, Union

import attrs
from attrs import field, frozen, validators
from attrs.validators import optional

from darner.config.units import LONGEST, duration_text, parse_duration, parse_size, size_text
from darner.errors import BadQueueName, SettingsError
from darner.values.vocabulary import check_queue_name

SYNC_WORDS: Final = ("never", "always")

_TARGETS: Final = ("dead_letter_queue", "expire_to_queue")
"""The settings that name a queue to which items are moved."""

_SPECIAL: Final = re.compile(r"[*?\[]")

_positive = validators.gt(0)
_whole: Any = (validators.instance_of(int), _positive)
_not_negative = validators.ge(0)


class _Kind:
    """How a setting is written."""

    SIZE = "size"
    DURATION = "duration"
    SYNC = "sync"
    QUEUE = "queue"


def _size() -> Any:
    return field(default=None, validator=optional(_whole), metadata={"kind": _Kind.SIZE})


def _duration() -> Any:
    longest: Any = validators.le(LONGEST)
    within = optional((_positive, longest))
    return field(default=None, validator=within, metadata={"kind": _Kind.DURATION})


def _count() -> Any:
    return field(default=None, validator=optional(_whole))


def _queue() -> Any:
    return field(default=None, metadata={"kind": _Kind.QUEUE})


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
    max_item_bytes: int = field(default=2**30, validator=_whole, metadata={"kind": _Kind.SIZE})
    """The largest item that is taken."""
    discard_old_when_full: bool = False
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
    fanout_only: bool = False
    """Whether items are put on the children alone."""
    max_open_reads: int = field(default=1, validator=_whole)
    """How many open reads a connection may have on the queue."""
    durable: bool = True
    """
    Whether the queue is kept on disk; else in memory, as long as the server runs.  Asked for when the queue is made.
    """
    sync: Union[str, float] = field(default="never", metadata={"kind": _Kind.SYNC})
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
        return {attribute.name: _text(attribute, getattr(self, attribute.name)) for attribute in _FIELDS.values()}


_FIELDS: Final[dict[str, Any]] = {attribute.name: attribute for attribute in attrs.fields(QueueSettings)}


def _text(attribute: Any, value: Any) -> str:
    kind = attribute.metadata.get("kind")
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if kind == _Kind.SIZE:
        return size_text(value)
    if isinstance(value, float):
        return duration_text(value)
    return str(value)


def _read(attribute: Any, value: Any) -> Any:
    """
    @param value: what stands in the file.
    @raise ValueError: it is not of this setting's type.
    """
    kind = attribute.metadata.get("kind")
    if value == "none" and attribute.default is None:
        return None
    if kind == _Kind.SIZE:
        return parse_size(value)
    if kind == _Kind.DURATION:
        return parse_duration(value)
    if kind == _Kind.SYNC:
        return value if value in SYNC_WORDS else _sync_interval(value)
    if kind == _Kind.QUEUE:
        return _queue_name(value).decode()
    expected: type = bool if isinstance(attribute.default, bool) else int
    if type(value) is not expected:
        raise ValueError(f"{value!r} is not of type {expected.__name__}")
    return value


def _sync_interval(value: Any) -> float:
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is neither never nor always nor a duration like 200ms") from error
    if seconds <= 0:
        raise ValueError(f"{value!r} is no time: say always")
    return seconds


def _queue_name(value: Any) -> bytes:
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

    def of(self, name: bytes) -> QueueSettings:
        """@return: the settings in force for a queue."""
        parent = parent_of(name)
        settings = self.defaults if parent is None else self.of(parent)
        text = name.decode("ascii")
        for pattern, changes in self.overrides.items():
            if pattern != text and _SPECIAL.search(pattern) and fnmatch.fnmatchcase(text, pattern):
                settings = attrs.evolve(settings, **changes)
        own = self.overrides.get(text)
        if own is not None:
            settings = attrs.evolve(settings, **own)
        return _without_itself(settings, text)


def _without_itself(settings: QueueSettings, name: str) -> QueueSettings:
    """The queue to which others send their items does not send its own to itself, though a pattern says so."""
    if settings.dead_letter_queue == name:
        settings = attrs.evolve(settings, dead_letter_queue=None, max_attempts=None)
    if settings.expire_to_queue == name:
        settings = attrs.evolve(settings, expire_to_queue=None)
    return settings


def _check(settings: QueueSettings, where: str) -> None:
    """@raise SettingsError: settings contradict each other."""
    reason = ""
    if (settings.max_attempts is None) != (settings.dead_letter_queue is None):
        reason = "max_attempts and dead_letter_queue go together"
    elif settings.max_bytes is not None and settings.max_bytes < 1:
        reason = "max_bytes holds nothing"
    elif not settings.durable and settings.max_bytes is None:
        reason = "durable = false needs max_bytes, which bounds its memory"
    if reason:
        raise SettingsError(f"{where}: {reason}")


def _check_bounded(changes: Mapping[str, Any], some_volatile: bool, where: str) -> None:
    """
    See that no pattern, whatever else matches the same name, makes a queue that is in memory and has no bound.

    @param changes: what the pattern says.
    @param some_volatile: whether any queue may be in memory.
    @raise SettingsError: it may.
    """
    durable = changes.get("durable")
    if durable is False and changes.get("max_bytes") is None:
        raise SettingsError(f"{where}.durable: a pattern that says false has to say max_bytes, which bounds the memory")
    if some_volatile and not durable and changes.get("max_bytes", 0) is None:
        raise SettingsError(f"{where}.max_bytes: none has to come with durable = true, as some queues are in memory")


def _check_targets(changes: Mapping[str, Any], policies: Policies, where: str) -> None:
    """@raise SettingsError: items are to be moved to where none can be kept."""
    for setting in _TARGETS:
        target = changes.get(setting)
        if target is not None and target.encode() in policies.aliases:
            raise SettingsError(f"{where}.{setting}: {target} is an alias")


def _changes(table: Any, where: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise SettingsError(f"{where}: not a table")
    unknown = sorted(set(table) - set(_FIELDS))
    if unknown:
        raise SettingsError(f"{where}: unknown setting {', '.join(unknown)}")
    changes = {}
    for name, value in table.items():
        try:
            changes[name] = _read(_FIELDS[name], value)
            attrs.evolve(QueueSettings(), **{name: changes[name]})
        except ValueError as error:
            # What attrs raises carries more than the text.
            raise SettingsError(f"{where}.{name}: {error.args[0]}") from error
    return changes


def _aliases(table: Any, overrides: Mapping[str, Any], source: str) -> dict[bytes, tuple[bytes, ...]]:
    if not isinstance(table, dict):
        raise SettingsError(f"{source}: aliases: not a table")
    aliases: dict[bytes, tuple[bytes, ...]] = {}
    for alias, queues in table.items():
        where = f"{source}: aliases.{alias}"
        if not isinstance(queues, list) or not queues:
            raise SettingsError(f"{where}: not a list of queues")
        try:
            aliases[_queue_name(alias)] = tuple(dict.fromkeys(_queue_name(queue) for queue in queues))
        except ValueError as error:
            raise SettingsError(f"{where}: {error}") from error
        nested = [queue for queue in queues if queue in table]
        if nested:
            raise SettingsError(f"{where}: {nested[0]} is an alias itself")
        if alias in overrides:
            raise SettingsError(f"{where}: there is a queue of that name with settings")
    return aliases


def make_policies(defaults: Any, queues: Any, aliases: Any, source: str) -> Policies:
    """
    Check the tables of a configuration file.

    @param defaults: the table ``defaults``.
    @param queues: the table ``queues``, of tables by name or pattern.
    @param aliases: the table ``aliases``, of lists of queues.
    @param source: where they come from, for the error.
    @raise SettingsError: a setting is unknown, of a wrong type or out of range, or some contradict each other.
    """
    common = _changes(defaults, f"{source}: defaults")
    basis = attrs.evolve(QueueSettings(), **common)
    _check(basis, f"{source}: defaults")
    if not isinstance(queues, dict):
        raise SettingsError(f"{source}: queues: not a table")
    overrides = {}
    for name, table in queues.items():
        where = f"{source}: queues.{name}"
        try:
            _queue_name(name)
        except ValueError as error:
            raise SettingsError(f"{where}: {error}") from error
        changes = overrides[name] = _changes(table, where)
        for setting in _TARGETS:
            if changes.get(setting) == name:
                raise SettingsError(f"{where}.{setting}: the queue itself")
    policies = Policies(basis, overrides, _aliases(aliases, overrides, source))
    _check_targets(common, policies, f"{source}: defaults")
    for name, changes in overrides.items():
        _check_targets(changes, policies, f"{source}: queues.{name}")
    some_volatile = not basis.durable or any(changes.get("durable") is False for changes in overrides.values())
    for name in overrides:
        if _SPECIAL.search(name):
            _check_bounded(overrides[name], some_volatile, f"{source}: queues.{name}")
            _check(attrs.evolve(basis, **overrides[name]), f"{source}: queues.{name}")
        else:
            _check(policies.of(name.encode()), f"{source}: queues.{name}")
    return policies
