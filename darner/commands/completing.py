"""
Names of queues as arguments, which the shell can complete from what the servers have.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Optional

import click
from click.shell_completion import CompletionItem

from darner.client.requests import queue_name
from darner.commands.client_settings import ClientSettings
from darner.errors import BadQueueName

PATIENCE: Final = 1.0
"""Seconds for which a person waits for names."""
_MOST: Final = 200


class QueueName(click.ParamType):  # type: ignore[type-arg]
    """The name of a queue."""

    name = "queue"

    def convert(self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]) -> str:
        try:
            queue_name(value)
        except (BadQueueName, UnicodeEncodeError):
            self.fail(f"{value!r} is not the name of a queue: 1 to 250 printable characters without space and /")
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            names = asyncio.run(asyncio.wait_for(_names(ctx), PATIENCE))
        except Exception:
            return []  # a shell that completes is no place for errors
        return [CompletionItem(name) for name in names if name.startswith(incomplete)][:_MOST]


async def _names(context: click.Context) -> list[str]:
    from darner.commands.output import Output
    from darner.commands.servers import Servers

    values = dict((context.parent or context).params)
    known = ClientSettings.__dataclass_fields__
    settings = ClientSettings(**{name: value for name, value in values.items() if name in known and value is not None})
    async with Servers(settings, Output(settings)) as servers:
        answers = await servers.each(lambda client: client.stats(timeout=PATIENCE))
        return sorted({name for stats in answers.values() for name in stats.queues})


QUEUE: Final = QueueName()
