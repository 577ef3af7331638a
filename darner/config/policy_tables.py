"""
Reads the settings of queues from the tables of a configuration file, and checks combinations of settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from darner.config.policies import (
    FIELDS,
    SPECIAL,
    SYNC_WORDS,
    TARGETS,
    Kind,
    Policies,
    QueueSettings,
    check_values,
    queue_name,
    sync_interval,
    unknown_names,
)
from darner.config.units import parse_duration, parse_size
from darner.errors import SettingsError


def _read(attribute: Any, value: Any) -> Any:
    """
    @param value: the value in the file.
    @raise ValueError: it is not of this setting's type.
    """
    kind = attribute.metadata.get("kind")
    if value == "none" and attribute.default is None:
        return None
    if kind == Kind.SIZE:
        return parse_size(value)
    if kind == Kind.DURATION:
        return parse_duration(value)
    if kind == Kind.SYNC:
        return value if value in SYNC_WORDS else sync_interval(value)
    if kind == Kind.QUEUE:
        return queue_name(value).decode()
    expected: type = bool if isinstance(attribute.default, bool) else int
    if type(value) is not expected:
        raise ValueError(f"{value!r} is not of type {expected.__name__}")
    return value


def _check(settings: QueueSettings, where: str) -> None:
    """@raise SettingsError: settings contradict each other."""
    reason = ""
    if (settings.max_attempts is None) != (settings.dead_letter_queue is None):
        reason = "max_attempts and dead_letter_queue must be set together"
    elif settings.max_bytes is not None and settings.max_bytes < 1:
        reason = "max_bytes must be at least 1"
    elif not settings.durable and settings.max_bytes is None:
        reason = "durable = false needs max_bytes, which bounds its memory"
    if reason:
        raise SettingsError(f"{where}: {reason}")


def _check_bounded(changes: Mapping[str, Any], some_volatile: bool, where: str) -> None:
    """
    Check that no pattern, together with others that match the same name, can make a volatile queue without a limit.

    @param changes: the settings of the pattern.
    @param some_volatile: whether any queue may be volatile.
    @raise SettingsError: it can.
    """
    durable = changes.get("durable")
    if durable is False and changes.get("max_bytes") is None:
        raise SettingsError(f"{where}.durable: a pattern with false must also set max_bytes, which bounds the memory")
    if some_volatile and not durable and changes.get("max_bytes", 0) is None:
        raise SettingsError(f"{where}.max_bytes: none needs durable = true beside it, as some queues are in memory")


def _check_targets(changes: Mapping[str, Any], policies: Policies, where: str) -> None:
    """@raise SettingsError: items would be moved to an alias."""
    for setting in TARGETS:
        target = changes.get(setting)
        if target is not None and target.encode() in policies.aliases:
            raise SettingsError(f"{where}.{setting}: {target} is an alias, not a queue")


def check_together(policies: Policies) -> None:
    """@raise SettingsError: settings contradict each other."""
    basis, overrides = policies.defaults, policies.overrides
    _check(basis, "defaults")
    _check_targets(attrs.asdict(basis, recurse=False), policies, "defaults")
    for name, changes in overrides.items():
        _check_targets(changes, policies, f"queues.{name}")
    some_volatile = not basis.durable or any(changes.get("durable") is False for changes in overrides.values())
    for name, changes in overrides.items():
        where = f"queues.{name}"
        if SPECIAL.search(name):
            _check_bounded(changes, some_volatile, where)
            _check(attrs.evolve(basis, **changes), where)
        else:
            _check(policies.of(name.encode()), where)


def _read_all(table: Any, where: str) -> dict[str, Any]:
    """@return: the settings of a table, as values."""
    if not isinstance(table, dict):
        raise SettingsError(f"{where}: not a table")
    unknown = set(table) - set(FIELDS)
    if unknown:
        raise SettingsError(f"{where}: {unknown_names(unknown, FIELDS)}")
    changes = {}
    for name, value in table.items():
        try:
            changes[name] = _read(FIELDS[name], value)
        except ValueError as error:
            raise SettingsError(f"{where}.{name}: {error.args[0]}") from error
    return changes


def _read_aliases(table: Any) -> dict[bytes, tuple[bytes, ...]]:
    if not isinstance(table, dict):
        raise SettingsError("aliases: not a table")
    aliases: dict[bytes, tuple[bytes, ...]] = {}
    for alias, queues in table.items():
        if not isinstance(queues, list) or not queues:
            raise SettingsError(f"aliases.{alias}: not a list of queues")
        try:
            aliases[queue_name(alias)] = tuple(dict.fromkeys(queue_name(queue) for queue in queues))
        except ValueError as error:
            raise SettingsError(f"aliases.{alias}: {error}") from error
    return aliases


def make_policies(defaults: Any, queues: Any, aliases: Any, source: str) -> Policies:
    """
    Check the tables of a configuration file.

    @param defaults: the table ``defaults``.
    @param queues: the table ``queues``, of tables by name or pattern.
    @param aliases: the table ``aliases``, of lists of queues.
    @param source: their source, for the error.
    @raise SettingsError: a setting is unknown, of a wrong type or out of range, or some contradict each other.
    """
    try:
        common = _read_all(defaults, "defaults")
        check_values(common, "defaults")
        if not isinstance(queues, dict):
            raise SettingsError("queues: not a table")
        overrides = {name: _read_all(table, f"queues.{name}") for name, table in queues.items()}
        policies = Policies(attrs.evolve(QueueSettings(), **common), overrides, _read_aliases(aliases))
        check_together(policies)
        return policies
    except SettingsError as error:
        raise SettingsError(f"{source}: {error}") from error
