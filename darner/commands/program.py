"""
The program's commands and what they share, and how a run ends.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Optional

import click

from darner.commands import client_settings
from darner.commands.client_settings import DEFAULT_SERVERS, ClientSettings
from darner.commands.exits import (
    BROKEN_PIPE,
    DONE,
    FAILED,
    INTERRUPTED,
    TERMINATED,
    USAGE,
    Failure,
    Terminated,
    explain,
    status_of,
)
from darner.commands.versions import describe
from darner.config.checks import meant
from darner.errors import DarnerError

SECTIONS: Final = {
    "Items": {
        "put": "putting", "get": "getting", "peek": "getting", "browse": "browsing", "touch": "executing",
    },
    "Queues": {
        "queues": "figures", "flush": "queues", "delete": "queues", "requeue": "queues", "move": "moving",
        "copy": "moving", "export": "exporting", "import": "importing",
    },
    "Servers": {
        "stats": "figures", "status": "states", "drain": "states", "clients": "browsing", "serve": "server",
        "check": "stores", "repair": "stores", "backup": "backing_up",
        "restore": "backing_up", "check-config": "configuration", "passwd": "configuration",
        "cluster": "cluster",
    },
    "Tools": {"bench": "measuring", "completion": "server"},
}  # fmt: skip
"""The commands as the help lists them, and the module that has each: only that of the one that is run is imported."""
_MODULES: Final = {name: module for section in SECTIONS.values() for name, module in section.items()}


def _options() -> list[click.Parameter]:
    """@return: the options that all commands share."""
    option = click.Option
    return [
        option(["-s", "--servers"], metavar="HOST:PORT,...", default=DEFAULT_SERVERS, show_default=True,
               envvar="DARNER_SERVERS", show_envvar=True,
               help="Servers, also unix:/PATH, file:/PATH, dns:HOST:PORT or srv:NAME."),
        option(["-u", "--user"], default="", envvar="DARNER_USER", show_envvar=True, help="User to log in as."),
        option(["--password-file"], metavar="FILE", default="", envvar="DARNER_PASSWORD_FILE", show_envvar=True,
               help="File whose first line is the password.  DARNER_PASSWORD may have it itself."),
        option(["--tls/--no-tls"], default=False, envvar="DARNER_TLS", show_envvar=True, help="Speak TLS."),
        option(["--ca-file"], metavar="FILE", default="", envvar="DARNER_CA_FILE", show_envvar=True,
               help="Certificates that vouch for servers, in place of the system's.  With --tls."),
        option(["--certificate"], metavar="FILE", default="", envvar="DARNER_CERTIFICATE", show_envvar=True,
               help="Certificate of this client, with its key unless --key names that."),
        option(["--key"], metavar="FILE", default="", envvar="DARNER_KEY", show_envvar=True,
               help="Key of that certificate."),
        option(["--server-hostname"], metavar="NAME", default="", envvar="DARNER_SERVER_HOSTNAME", show_envvar=True,
               help="Name that certificates of servers are to have, in place of HOST."),
        option(["--http"], metavar="URL", default="", envvar="DARNER_HTTP", show_envvar=True,
               help="A server's admin HTTP, for backup, browse, copy, export and clients."),
        option(["--timeout"], type=click.FloatRange(0, min_open=True), metavar="SECONDS", default=10.0,
               show_default=True, envvar="DARNER_TIMEOUT", show_envvar=True,
               help="How long a request may take, besides its wait for an item."),
        option(["--json"], is_flag=True, help="Write JSON."),
        option(["-q", "--quiet"], is_flag=True, help="Say nothing where all is well."),
    ]  # fmt: skip


def _override(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if isinstance(context.obj, ClientSettings) and parameter.name is not None:
        source = context.get_parameter_source(parameter.name)
        if source is click.core.ParameterSource.COMMANDLINE:
            setattr(context.obj, parameter.name, value)


class Command(click.Command):
    """A command; options that all share may stand behind its name as well."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        taken = {
            name for parameter in self.params for name in (parameter.name, *parameter.opts, *parameter.secondary_opts)
        }
        for option in _options():
            if not taken & {option.name, *option.opts, *option.secondary_opts}:
                option.expose_value, option.callback = False, _override
                option.hidden, option.envvar = True, None  # type: ignore[attr-defined]
                self.params.append(option)

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(context, formatter)
        formatter.write_paragraph()
        formatter.write_text("And the options that darner --help lists, such as --servers and --json.")


class _CutShort(Exception):
    """Ends a run where Click would have something to say about it, and another status for it."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__()
        self.reason = reason


class Program(click.Group):
    """The program itself."""

    def make_context(self, *arguments: Any, **named: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **named)
        except (BrokenPipeError, KeyboardInterrupt) as error:
            raise _CutShort(error) from None

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (BrokenPipeError, KeyboardInterrupt) as error:
            raise _CutShort(error) from None

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, context: click.Context, name: str) -> Optional[click.Command]:
        if name not in _MODULES:
            return None
        module = importlib.import_module(f"darner.commands.{_MODULES[name]}")
        command: click.Command = getattr(module, name.replace("-", "_") + "_command")
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[Optional[str], Optional[click.Command], list[str]]:
        """@raise click.UsageError: there is no such command, with what may have been meant."""
        if self.get_command(context, arguments[0]) is None and not arguments[0].startswith("-"):
            raise click.UsageError(f"no such command: {arguments[0]}{meant(arguments[0], list(_MODULES))}", context)
        return super().resolve_command(context, arguments)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        for section, names in SECTIONS.items():
            rows = [(name, self.get_command(context, name)) for name in names]
            with formatter.section(section):
                formatter.write_dl([(name, _in_short(command)) for name, command in rows if command is not None])


def _in_short(command: click.Command) -> str:
    """@return: what it is for, in a line."""
    return re.split("[;:.]", command.get_short_help_str(limit=1000))[0]


def _settings(context: click.Context, _: click.Parameter, value: Optional[str]) -> None:
    """Take defaults from the file."""
    path = Path(value) if value else client_settings.default_path()
    if value or path.is_file():
        context.default_map = client_settings.read(path)


def _version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(describe())
        context.exit()


def _begin(**values: Any) -> None:
    context = click.get_current_context()
    context.obj = ClientSettings(password=os.environ.get("DARNER_PASSWORD", ""), **values)


def make_program() -> Program:
    """@return: the program, as Click has it."""
    return Program(
        "darner",
        params=[
            *_options(),
            click.Option(
                ["--settings"], metavar="FILE", envvar="DARNER_SETTINGS", show_envvar=True, is_eager=True,
                expose_value=False, callback=_settings,
                help="TOML file with defaults for these options.  [default: ~/.config/darner/client.toml]",
            ),
            click.Option(
                ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version,
                help="Say which darner this is, whether it is compiled, and with what.",
            ),
        ],
        callback=_begin,
        help="Work with darner, the durable message queue server.",
        epilog="darner COMMAND --help explains each.  Exit statuses: 0 done, 1 failed, 2 usage, 3 no item, "
        "4 unreachable, 5 in doubt, 6 not allowed, 130 interrupted.",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )  # fmt: skip


def complain(text: str) -> None:
    """Write a line to standard error, as long as there is one."""
    with contextlib.suppress(OSError):
        print(f"darner: {text}", file=sys.stderr, flush=True)


def _usage(error: click.UsageError) -> str:
    """@return: what was wrong, and where to read on, in one line."""
    name = error.ctx.command_path if error.ctx is not None else "darner"
    text = " ".join(error.format_message().split()).rstrip(".")
    text = text[:1].lower() + text[1:]
    command = name.removeprefix("darner").strip()
    return f"{command + ': ' if command else ''}{text}; {name} --help explains"


def _close_output() -> None:
    """What is flushed at the end of the process is not to fail again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _cut_short(reason: BaseException) -> int:
    """@return: the exit status where it was not the program that has ended it."""
    if isinstance(reason, BrokenPipeError):
        _close_output()
        return BROKEN_PIPE
    if isinstance(reason, Terminated):
        return TERMINATED
    complain("interrupted")
    return INTERRUPTED


def run(arguments: Optional[Sequence[str]] = None) -> int:
    """
    Run the program.

    @return: the exit status; whatever went wrong was said in one line.
    """
    program = make_program()
    try:
        result = program.main(
            None if arguments is None else list(arguments), "darner", standalone_mode=False,
            complete_var="_DARNER_COMPLETE",
        )  # fmt: skip
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.UsageError as error:
        complain(_usage(error))
        return USAGE
    except click.ClickException as error:
        complain(error.format_message())
        return FAILED
    except Failure as error:
        complain(str(error))
        return error.status
    except DarnerError as error:
        complain(explain(error))
        return status_of(error)
    except _CutShort as error:
        return _cut_short(error.reason)
    except (KeyboardInterrupt, BrokenPipeError, click.Abort) as error:
        return _cut_short(error)
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else client_settings.reason(error))
        return FAILED
    except Exception as error:
        if os.environ.get("DARNER_DEBUG"):
            raise
        complain(f"this should not happen: {type(error).__name__}: {error} (DARNER_DEBUG=1 shows where)")
        return FAILED
    return result if isinstance(result, int) else DONE
