"""
Settings: frozen values with their defaults, and reading them from TOML.

`docs/operations.rst` describes each one for those who run the server.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final, Optional

import attrs
from attrs import frozen, validators
from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError, transform_error
from cattrs.gen import make_dict_structure_fn

from darner.config.checks import meant, of_type
from darner.config.clusters import check_cluster, check_shard, check_within
from darner.config.policies import Policies
from darner.config.policy_tables import check_together, make_policies
from darner.config.units import parse_duration, parse_size
from darner.errors import SettingsError
from darner.values.shards import Shard, parse_shard
from darner.values.vocabulary import DIALECTS, STATUSES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_PORT: Final = 22133

LOG_FORMATS: Final = ("text", "json")
LOG_LEVELS: Final = ("debug", "info", "warn", "error", "critical")

NO_PASSWORDS: Final = "set password_file too: without password_file nobody can log in, and anybody may do everything"

_dialect = validators.in_(DIALECTS)


def _all_of(kind: type) -> Any:
    return validators.deep_iterable(of_type(kind), of_type(tuple))


def _directory(_: object, __: Any, value: Any) -> None:
    """@raise ValueError: it is not a path, or empty."""
    of_type(str, Path)(_, __, value)
    if not str(value):
        raise ValueError("data_dir is empty; '.' is the directory that the server is started in")


def _absolute(_: object, __: Any, value: Any) -> None:
    """@raise ValueError: it is not an absolute path."""
    of_type(str, Path)(_, __, value)
    if not Path(value).is_absolute():
        raise ValueError(f"backup_dir is not an absolute path: {value}")


_port: Any = validators.optional(validators.and_(of_type(int), validators.ge(0), validators.le(65535)))
_optional_text: Any = validators.optional(of_type(str))
_not_negative: Any = validators.and_(of_type(float), validators.ge(0))


@frozen
class Listener:
    """An endpoint to listen on."""

    endpoint: str = attrs.field(validator=of_type(str))
    """A Twisted server endpoint string: ``tcp6:22133``, ``unix:/run/darner.sock``, ``ssl:...``, ``systemd:...``."""
    dialect: Optional[str] = attrs.field(default=None, validator=validators.optional(_dialect))
    """As L{Settings.dialect}, for this listener."""


@frozen
class Rights:
    """A user's rights, by patterns of queue names as in a shell: ``*``, ``jobs_*``, ``job?``, ``[a-f]*``."""

    read: tuple[str, ...] = attrs.field(default=("*",), validator=_all_of(str))
    """Queues that the user may read: take, open and peek at items."""
    write: tuple[str, ...] = attrs.field(default=("*",), validator=_all_of(str))
    """Queues that the user may put items on."""
    admin: tuple[str, ...] = attrs.field(default=(), validator=_all_of(str))
    """Queues that the user may flush and delete; with ``*`` among them also C{flush_all}."""


@frozen
class Settings:
    """The settings of a server."""

    data_dir: str = attrs.field(default="data", validator=_directory)
    """The directory of the queues; created if missing."""
    port: Optional[int] = attrs.field(default=None, validator=_port)
    """TCP port to listen on; 0 takes a free one.  By default 22133, or none if there are others to listen on."""
    interface: str = attrs.field(default="127.0.0.1", validator=of_type(str))
    """Address to listen on with L{port}."""
    listen: tuple[Listener, ...] = attrs.field(default=(), validator=validators.deep_iterable(of_type(Listener)))
    """Further endpoints to listen on."""
    dialect: str = attrs.field(default="kestrel", validator=_dialect)
    """The clients that replies of the memcache protocol suit: those of ``kestrel`` or stock ones of ``memcache``."""
    policies: Policies = attrs.field(factory=Policies, validator=of_type(Policies))
    """The settings of the queues; in the file the tables ``defaults``, ``queues`` and ``aliases``."""
    max_connections: int = attrs.field(default=0, validator=validators.and_(of_type(int), validators.ge(0)))
    """The maximum number of clients, over all listeners; 0 is as many as there are descriptors."""
    idle_timeout: float = attrs.field(default=0.0, validator=_not_negative)
    """Seconds after which a client without a pending request is disconnected; 0 is never.  A wait is a request."""
    stall_timeout: float = attrs.field(default=60.0, validator=_not_negative)
    """
    Seconds after which a client is disconnected that stops in the middle of a request, does not read its replies, or
    does not log in; 0 is never.
    """
    keep_alive: float = attrs.field(default=60.0, validator=validators.and_(_not_negative, validators.le(32767)))
    """
    Seconds of silence after which TCP probes whether a client is still there; 0 is never.  Linux accepts no more than
    32,767.
    """
    password_file: Optional[str] = attrs.field(default=None, validator=validators.optional(of_type(str, Path)))
    """File with users and passwords; C{None}: everybody may do everything."""
    users: dict[str, Rights] = attrs.field(
        factory=dict, validator=validators.deep_mapping(of_type(str), of_type(Rights), of_type(dict))
    )
    """The rights of users; a user without an entry may read and write all queues."""
    debug: bool = attrs.field(default=False, validator=of_type(bool))
    """Whether connections and refused requests are logged."""
    min_free_bytes: Optional[int] = attrs.field(
        default=None, validator=validators.optional(validators.and_(of_type(int), validators.ge(0)))
    )
    """
    Free disk space below which sets are refused, in bytes; 0 for none.  By default 64 MiB, or 5 % of a file system that
    is smaller than 1.25 GiB.
    """
    allow_shutdown: bool = attrs.field(default=False, validator=of_type(bool))
    """Whether clients may stop the server; if there are users, only those that may administrate all queues."""
    default_status: str = attrs.field(default="up", validator=validators.in_(STATUSES))
    """The server's status if none is saved (`darner.queues.status`)."""
    status_change_grace_period: float = attrs.field(default=0.0, validator=_not_negative)
    """Seconds until a stricter status is enforced."""
    text_port: Optional[int] = attrs.field(default=None, validator=_port)
    """TCP port for Kestrel's text protocol, at L{interface}; C{None} for none."""
    trusted_network: bool = attrs.field(default=False, validator=of_type(bool))
    """Whether everybody who reaches the server may be trusted, so that there is no warning of being open to them."""
    http_port: Optional[int] = attrs.field(default=None, validator=_port)
    """TCP port for the dashboard, the HTTP API and metrics; 0 takes a free one, C{None} is none."""
    http_interface: str = attrs.field(default="127.0.0.1", validator=of_type(str))
    """Address to listen on with L{http_port}."""
    http_listen: tuple[Listener, ...] = attrs.field(default=(), validator=validators.deep_iterable(of_type(Listener)))
    """Further places to serve HTTP at; they have no dialect."""
    http_hosts: tuple[str, ...] = attrs.field(default=(), validator=_all_of(str))
    """
    Names by which browsers may reach the HTTP server, besides addresses, ``localhost`` and the machine's host name.
    """
    backup_dir: Optional[str] = attrs.field(default=None, validator=validators.optional(_absolute))
    """
    Directory below which the server may write backups for those who may administrate it; C{None}: it writes none, and
    backups are streams.
    """
    log_format: str = attrs.field(default="text", validator=validators.in_(LOG_FORMATS))
    """How twistd's log is written: as C{text}, or as C{json}, an object a line."""
    log_level: str = attrs.field(default="debug", validator=validators.in_(LOG_LEVELS))
    """The lowest level that is logged."""
    max_queues: int = attrs.field(default=1_000_000, validator=validators.and_(of_type(int), validators.ge(0)))
    """The maximum number of queues, including those that clients wait for; 0 is unlimited."""
    max_children: int = attrs.field(default=1000, validator=validators.and_(of_type(int), validators.ge(0)))
    """The maximum number of fan-out children of a queue; 0 is unlimited."""
    cluster: Optional[str] = attrs.field(
        default=None, validator=validators.and_(validators.optional(of_type(str)), check_cluster)
    )
    """Where the nodes of a cluster share their log: C{etcd://HOST:PORT,HOST:PORT/NAME}; C{None}: there is none."""
    cluster_node: Optional[str] = attrs.field(default=None, validator=_optional_text)
    """The name of this node; by default that of the machine."""
    cluster_shard: Optional[str] = attrs.field(
        default=None, validator=validators.and_(validators.optional(of_type(str)), check_shard)
    )
    """C{K/N}: this log has the queues of shard K of N; C{None}: it has all queues."""
    cluster_prefer: bool = attrs.field(default=False, validator=of_type(bool))
    """Whether this node leads rather than others, where it can."""
    cluster_size: int = attrs.field(default=3, validator=validators.and_(of_type(int), validators.ge(1)))
    """How many nodes the cluster has; a majority of them has on disk what is trimmed from the log."""
    cluster_http_port: Optional[int] = attrs.field(default=None, validator=_port)
    """TCP port for health and metrics of the node, whatever its role, at L{http_interface}."""
    cluster_port: Optional[int] = attrs.field(default=0, validator=_port)
    """
    TCP port at L{interface} where the node gives snapshots to other nodes; 0 takes a free one, C{None}: it gives none.
    """
    cluster_user: Optional[str] = attrs.field(default=None, validator=_optional_text)
    """The user of etcd as which the node logs in; C{None}: it does not."""
    cluster_password_file: Optional[str] = attrs.field(default=None, validator=_optional_text)
    """File whose first line is the password of that user."""
    cluster_ca_file: Optional[str] = attrs.field(default=None, validator=_optional_text)
    """Certificates that vouch for etcd."""
    cluster_certificate: Optional[str] = attrs.field(default=None, validator=_optional_text)
    """File with the certificate that this node shows etcd."""
    cluster_key: Optional[str] = attrs.field(default=None, validator=_optional_text)
    """File with the key of that certificate; C{None}: it is in the same file."""

    def __attrs_post_init__(self) -> None:
        """@raise SettingsError: settings contradict each other."""
        check_together(self.policies)
        if self.users and self.password_file is None:
            raise SettingsError(f"users: {NO_PASSWORDS}")
        if any(place.dialect is not None for place in self.http_listen):
            raise SettingsError("http_listen: HTTP has no dialects")
        if self.shard is not None:
            check_within(self.shard, self.policies)
            if self.cluster is None:
                raise SettingsError("cluster_shard: only a node of a cluster has a shard; set cluster too")

    @property
    def shard(self) -> Optional[Shard]:
        """What L{cluster_shard} says."""
        return None if self.cluster_shard is None else parse_shard(self.cluster_shard)

    @property
    def tcp_port(self) -> Optional[int]:
        """The TCP port to listen on; C{None} for none."""
        return DEFAULT_PORT if self.port is None and not self.listen else self.port


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
            raise ValueError(f"{value!r} is not a list of names")
        return tuple(converter.structure(value, list[str]))

    converter.register_structure_hook_func(lambda kind: kind == tuple[str, ...], patterns)
    rights = make_dict_structure_fn(Rights, converter, _cattrs_forbid_extra_keys=True)
    structure = make_dict_structure_fn(Listener, converter, _cattrs_forbid_extra_keys=True)

    def listener(value: Any, _: object) -> Listener:
        if isinstance(value, str):
            return Listener(value)
        if not isinstance(value, dict):
            raise ValueError(f"{value!r} is neither an endpoint string nor a table with one")
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
    # make_policies() reads these; the file has no such key.
    converter.register_structure_hook(Policies, lambda value, _: value)
    converter.register_structure_hook(Listener, listener)
    converter.register_structure_hook_func(lambda kind: kind == tuple[Listener, ...], listeners)
    return converter


_CONVERTER: Final = _converter()


def _explain(error: BaseException, kind: object) -> str:
    if isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in attrs.fields(error.cl)] + ["defaults", "queues", "aliases"]
        return "unknown setting " + ", ".join(name + meant(name, known) for name in sorted(error.extra_fields))
    if isinstance(error, KeyError):
        return "missing"
    if isinstance(error, AttributeError):
        return "not a table"
    # The errors of attrs have further arguments after the text.
    return str(error.args[0])


def make_settings(values: dict[str, Any], source: str) -> Settings:
    """
    Check settings.

    @param values: settings by name.
    @param source: their source, for the error.
    @raise SettingsError: one is unknown, of a wrong type or out of range.
    """
    values = dict(values)
    defaults, queues, aliases = (values.pop(name, {}) for name in ("defaults", "queues", "aliases"))
    if "policies" in values:
        raise SettingsError(f"{source}: unknown setting policies")
    of_cluster = [name for name in values if name.startswith("cluster")]
    for name in ("text_port", "password_file", "http_port", "backup_dir", *of_cluster):
        if values.get(name) == "none":
            values[name] = None
    try:
        if "min_free_bytes" in values:
            values["min_free_bytes"] = parse_size(values["min_free_bytes"])
    except ValueError as error:
        raise SettingsError(f"{source}: min_free_bytes: {error}") from error
    try:
        settings = _CONVERTER.structure(values, Settings)
    except ClassValidationError as error:
        reasons = transform_error(error, path="", format_exception=_explain)
        raise SettingsError(f"{source}: " + "; ".join(_plainly(reason) for reason in reasons)) from error
    policies = make_policies(defaults, queues, aliases, source)
    try:
        return attrs.evolve(settings, policies=policies)
    except SettingsError as error:
        raise SettingsError(f"{source}: {error}") from None


def _plainly(reason: str) -> str:
    """Turn cattrs' ``reason @ path`` into ``path: reason``."""
    text, _, path = reason.rpartition(" @ ")
    path = path.lstrip(".")
    return f"{path}: {text}" if path else text


def read_toml(path: Path, name: str = "") -> dict[str, Any]:
    """
    @param name: the name of the file in errors; by default the path.
    @return: the settings in a TOML file, by name, unchecked.
    @raise SettingsError: the file cannot be read, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"cannot read {name or path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name or path} is not TOML: {error}") from error
