"""
Settings: frozen values with their defaults, and reading them from TOML.

`docs/operations.rst` describes each one for those who run the server.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final, Optional, Union

import attrs
from attrs import frozen, validators
from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError, transform_error
from cattrs.gen import make_dict_structure_fn

from darner.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_PORT: Final = 22133

_UNITS: Final = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}

REPLY_KEYS: Final = ("queue", "request")

_reply_key = validators.in_(REPLY_KEYS)


@frozen
class Listener:
    """One place to listen at."""

    endpoint: str
    """A Twisted server endpoint string: ``tcp6:22133``, ``unix:/run/darner.sock``, ``ssl:...``, ``systemd:...``."""
    reply_key: Optional[str] = attrs.field(default=None, validator=validators.optional(_reply_key))
    """As L{Settings.reply_key}, for this listener."""


@frozen
class Rights:
    """What a user may do, by patterns of queue names as in a shell: ``*``, ``jobs_*``, ``job?``, ``[a-f]*``."""

    read: tuple[str, ...] = ("*",)
    """Queues that may be read: taken from, opened, peeked at."""
    write: tuple[str, ...] = ("*",)
    """Queues on which items may be put."""
    admin: tuple[str, ...] = ()
    """Queues that may be flushed and deleted; with ``*`` among them also C{flush_all}."""


@frozen
class Settings:
    """What a server runs with."""

    data_dir: str = "data"
    """Where the queues are kept; made if it is missing."""
    port: Optional[int] = attrs.field(
        default=None, validator=validators.optional(validators.and_(validators.ge(0), validators.le(65535)))
    )
    """TCP port to listen on; 0 takes a free one.  By default 22133 where nothing else is listened at, else none."""
    interface: str = "127.0.0.1"
    """Address to listen on with L{port}."""
    listen: tuple[Listener, ...] = ()
    """Further places to listen at."""
    reply_key: str = attrs.field(default="queue", validator=_reply_key)
    """
    What C{VALUE} names: the bare ``queue``, as clients of Kestrel expect it, or the key of the ``request`` as it was
    sent, options and all, as some stock memcache clients do.
    """
    max_item_bytes: int = attrs.field(default=2**30, validator=validators.gt(0))
    """The largest item that is taken, in bytes."""
    max_open_reads: int = attrs.field(default=1, validator=validators.gt(0))
    """How many open reads a connection may have on one queue."""
    max_connections: int = attrs.field(default=0, validator=validators.ge(0))
    """How many clients may be connected, over all listeners; 0 is as many as there are descriptors."""
    idle_timeout: float = attrs.field(default=0.0, validator=validators.ge(0))
    """Seconds after which a client that asks for nothing is disconnected; 0 is never.  To wait for items is to ask."""
    stall_timeout: float = attrs.field(default=60.0, validator=validators.ge(0))
    """
    Seconds after which a client is disconnected that stops in the middle of a request, does not read its replies, or
    does not log in; 0 is never.
    """
    keep_alive: float = attrs.field(default=60.0, validator=validators.ge(0))
    """Seconds of silence after which TCP asks whether a client is still there; 0 is never."""
    password_file: Optional[str] = None
    """File with users and passwords; C{None}: everybody may do everything."""
    users: dict[str, Rights] = attrs.field(factory=dict)
    """The rights of users; who is not in here may read and write all queues."""
    debug: bool = False
    """Whether connections and refused requests are logged."""
    min_free_bytes: Optional[int] = attrs.field(default=None, validator=validators.optional(validators.ge(0)))
    """
    Room on the disk below which sets are refused, in bytes; 0 for none.  By default 64 MiB, or 5 % of a file system
    that is smaller than 1.25 GiB.
    """

    @property
    def tcp_port(self) -> Optional[int]:
        """The TCP port to listen on; C{None} for none."""
        return DEFAULT_PORT if self.port is None and not self.listen else self.port


def parse_size(value: Union[int, str]) -> int:
    """
    @param value: a number of bytes, or text like ``64KiB``, ``16 MiB``, ``1GB``.
    @raise ValueError: it is neither.
    """
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", value.strip())
        if match is None or match[2].upper() not in _UNITS:
            raise ValueError(f"{value!r} is not a size like 64KiB, 16MiB or 1000000")
        return int(match[1]) * _UNITS[match[2].upper()]
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("not a size")
    return value


_SECONDS: Final = {"MS": 0.001, "S": 1, "M": 60, "MIN": 60, "H": 3600, "D": 86400}


def parse_duration(value: Union[float, int, str]) -> float:
    """
    @param value: a number of seconds, or text like ``250ms``, ``30s``, ``5min``, ``2h``, ``1d``.
    @return: seconds.
    @raise ValueError: it is neither.
    """
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", value.strip())
        if match is None or match[2].upper() not in _SECONDS:
            raise ValueError(f"{value!r} is not a duration like 250ms, 30s, 5min, 2h or a number of seconds")
        return float(match[1]) * _SECONDS[match[2].upper()]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("not a duration")
    return float(value)


def _strictly(kind: type) -> Any:
    def structure(value: object, _: object) -> object:
        if type(value) is not kind:
            raise ValueError(f"{value!r} is not of type {kind.__name__}")
        return value

    return structure


def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    for kind in (int, str, bool):
        converter.register_structure_hook(kind, _strictly(kind))
    converter.register_structure_hook(float, lambda value, _: parse_duration(value))

    def patterns(value: object, _: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{value!r} is not a list of patterns of queue names")
        return tuple(converter.structure(value, list[str]))

    converter.register_structure_hook_func(lambda kind: kind == tuple[str, ...], patterns)
    rights = make_dict_structure_fn(Rights, converter, _cattrs_forbid_extra_keys=True)
    structure = make_dict_structure_fn(Listener, converter, _cattrs_forbid_extra_keys=True)

    def listener(value: Any, _: object) -> Listener:
        if isinstance(value, str):
            return Listener(value)
        if not isinstance(value, dict):
            raise ValueError(f"{value!r} is neither an endpoint nor a table with one")
        return structure(value, Listener)

    def listeners(value: object, _: object) -> tuple[Listener, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{value!r} is not a list of endpoints")
        return tuple(converter.structure(value, list[Listener]))

    def table(value: object, _: object) -> Rights:
        if not isinstance(value, dict):
            raise ValueError(f"{value!r} is not a table of rights")
        return rights(value, Rights)

    converter.register_structure_hook(Rights, table)
    converter.register_structure_hook(Listener, listener)
    converter.register_structure_hook_func(lambda kind: kind == tuple[Listener, ...], listeners)
    return converter


_CONVERTER: Final = _converter()


def _explain(error: BaseException, kind: object) -> str:
    if isinstance(error, ForbiddenExtraKeysError):
        return "unknown setting " + ", ".join(sorted(error.extra_fields))
    if isinstance(error, KeyError):
        return "missing"
    if isinstance(error, AttributeError):
        return "not a table"
    # What attrs raises carries more than the text.
    return str(error.args[0])


def make_settings(values: dict[str, Any], source: str) -> Settings:
    """
    Check settings.

    @param values: settings by name.
    @param source: where they come from, for the error.
    @raise SettingsError: one is unknown, of a wrong type or out of range.
    """
    values = dict(values)
    for name in ("max_item_bytes", "min_free_bytes"):
        try:
            if name in values:
                values[name] = parse_size(values[name])
        except ValueError as error:
            raise SettingsError(f"{source}: {name}: {error}") from error
    try:
        return _CONVERTER.structure(values, Settings)
    except ClassValidationError as error:
        reasons = transform_error(error, path="", format_exception=_explain)
        raise SettingsError(f"{source}: " + "; ".join(_plainly(reason) for reason in reasons)) from error


def _plainly(reason: str) -> str:
    """cattrs says ``reason @ path``; people read the path first."""
    text, _, path = reason.rpartition(" @ ")
    path = path.lstrip(".")
    return f"{path}: {text}" if path else text


def read_toml(path: Path) -> dict[str, Any]:
    """
    @return: the settings in a TOML file, by name, unchecked.
    @raise SettingsError: it cannot be read, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
