"""
``darner check-config``, which reads a configuration file as the server would, and ``darner passwd``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import click

from darner.cli.passwd import main as passwd
from darner.commands.client_settings import ClientSettings
from darner.commands.completing import QUEUE
from darner.commands.exits import FAILED, Failure
from darner.commands.output import Output
from darner.commands.program import Command
from darner.config.passwords import Passwords
from darner.config.policies import SPECIAL, Policies, QueueSettings
from darner.config.settings import Settings, make_settings, read_toml
from darner.errors import SettingsError


@click.command("check-config", cls=Command)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.argument("queues", metavar="[QUEUE...]", nargs=-1, type=QUEUE)
@click.option("-a", "--all", "everything", is_flag=True, help="Also settings that are the default.")
@click.pass_obj
def check_config_command(settings: ClientSettings, path: Path, queues: tuple[str, ...], everything: bool) -> None:
    """
    Read a server's configuration FILE as the server would, and say what each queue gets.

    These are the queues that the file names, and QUEUEs.  The exit status is 1 where the server would not start with
    the file.
    """
    output = Output(settings)
    try:
        read = make_settings(read_toml(path), str(path))
        users = Passwords(Path(read.password_file)).users if read.password_file is not None else frozenset()
        _listen(read)
    except SettingsError as error:
        raise Failure(str(error), FAILED) from None
    policies = read.policies
    names = sorted({*queues, *(name for name in policies.overrides if not SPECIAL.search(name))})
    if output.json:
        output.document({
            "file": str(path), "server": _server(read, True), "defaults": policies.defaults.as_text(),
            "queues": {name: policies.of(name.encode()).as_text() for name in names},
            "patterns": [name for name in policies.overrides if SPECIAL.search(name)],
            "aliases": {name.decode(): [queue.decode() for queue in on] for name, on in policies.aliases.items()},
            "users": sorted(user.decode(errors="replace") for user in users),
        })  # fmt: skip
        return
    output.done(f"{path} is right")
    _section(output, "server", _server(read, everything))
    _section(output, "all queues, unless something else is said of them", _differing(policies.defaults, everything))
    for name in names:
        _section(output, f"queue {name}", _of_queue(policies, name, everything))
    for name, changes in policies.overrides.items():
        if SPECIAL.search(name):
            texts = attrs.evolve(QueueSettings(), **changes).as_text()
            _section(output, f"queues like {name}, besides", {setting: texts[setting] for setting in changes})
    for alias, on in policies.aliases.items():
        _section(output, f"alias {alias.decode()}", {"queues": ", ".join(queue.decode() for queue in on)})


def _listen(read: Settings) -> None:
    """@raise SettingsError: it cannot be listened where the settings say."""
    from twisted.internet.testing import MemoryReactorClock

    from darner.cli.server import listeners

    listeners(read, MemoryReactorClock())


def _section(output: Output, title: str, values: dict[str, str]) -> None:
    if values:
        output.line(f"\n{title}:")
        output.pairs({f"  {name}": value for name, value in values.items()})


def _server(read: Settings, everything: bool) -> dict[str, str]:
    """@return: the settings of the server."""
    plain = Settings()
    values: dict[str, str] = {}
    for field in attrs.fields(Settings):
        value: Any = getattr(read, field.name)
        if field.name == "policies" or (not everything and value == getattr(plain, field.name)):
            continue
        if field.name == "listen":
            value = ", ".join(place.endpoint for place in value)
        elif field.name == "users":
            value = ", ".join(sorted(value))
        values[field.name] = "none" if value is None else str(value)
    return values


def _differing(settings: QueueSettings, everything: bool) -> dict[str, str]:
    plain = QueueSettings().as_text()
    return {name: text for name, text in settings.as_text().items() if everything or text != plain[name]}


def _of_queue(policies: Policies, name: str, everything: bool) -> dict[str, str]:
    return _differing(policies.of(name.encode()), everything) or {"(nothing)": "all settings are the default"}


@click.command("passwd", cls=Command)
@click.argument("path", metavar="FILE", type=click.Path(dir_okay=False))
@click.argument("user")
@click.option("--delete", is_flag=True, help="Take the user out instead.")
def passwd_command(path: str, user: str, delete: bool) -> int:
    """
    Set the password of USER in the FILE that the server's setting password_file names.

    It is asked for on a terminal, and else read from standard input.
    """
    return passwd([path, user, *(["--delete"] if delete else [])], "darner")
