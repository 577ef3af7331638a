"""
``darner serve``, which runs a server, and ``darner completion``.
"""

from __future__ import annotations

import sys
from typing import Final

import click
from click.shell_completion import get_completion_class

from darner.commands.program import Command

_RAW: Final = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@click.command("serve", context_settings=_RAW, add_help_option=False, options_metavar="[options]")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def serve_command(options: tuple[str, ...]) -> None:
    """Run a server in the foreground, until it is told to stop."""
    from twisted.scripts.twistd import run

    from darner.cli.options import Options
    from darner.cli.output import say

    if "--help" in options or "-h" in options:
        described = Options()
        described.synopsis = "Usage: darner serve [options]"
        say(str(described))
        return
    # It ends the process by itself, with a status of its own.
    sys.argv = ["darner", "--nodaemon", "--pidfile=", "darner", *options]
    run()


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """
    Print what completes commands, options and names of queues in a shell.

    \b
    bash:  eval "$(darner completion bash)"    in ~/.bashrc
    zsh:   eval "$(darner completion zsh)"     in ~/.zshrc
    fish:  darner completion fish > ~/.config/fish/completions/darner.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(context.find_root().command, {}, "darner", "_DARNER_COMPLETE").source())
