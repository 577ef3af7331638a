"""
``darner browse`` and ``darner clients``, by the admin HTTP of a server.
"""

from __future__ import annotations

from typing import Any, Optional

import click

from darner.commands.admin import PAGE, STATES, Admin, BrowsedItem
from darner.commands.client_settings import ClientSettings
from darner.commands.completing import QUEUE
from darner.commands.exits import DONE, NOTHING
from darner.commands.output import Output, count, duration, payload_json, payload_text, size
from darner.commands.program import Command


@click.command("browse", cls=Command)
@click.argument("queue", type=QUEUE)
@click.option("--state", type=click.Choice(STATES), default="ready", show_default=True, help="Which items.")
@click.option("--from", "begin", metavar="ID", help="Begin with this one.  [default: at the head]")
@click.option("-n", "--count", "most", type=click.IntRange(1), default=20, show_default=True, metavar="N",
              help="How many at most.")
@click.option("--contains", metavar="TEXT", help="Only those whose payload contains it.")
@click.pass_obj
def browse_command(
    settings: ClientSettings, queue: str, state: str, begin: Optional[str], most: int, contains: Optional[str]
) -> int:
    """
    Show items of QUEUE and leave them there.  Needs --http.

    The exit status is 3 where there is none.
    """
    output = Output(settings)
    items: list[BrowsedItem] = []
    total = 0
    with Admin(settings, "browse") as admin:
        position = begin
        while len(items) < most:
            page, position, total = admin.page(
                queue, state, position, min(PAGE, most - len(items)), 256, contains=contains
            )
            items += page
            if position is None:
                break
    if output.json:
        output.document({"queue": queue, "state": state, "total": total, "next": position,
                         "items": [_plain(item) for item in items]})  # fmt: skip
    elif items:
        output.table(
            ("id", ">age", ">size", ">flags", "payload"),
            [
                (item.id, duration(item.facts["age_ms"] / 1000), size(item.size), item.flags, _preview(item))
                for item in items
            ],
        )  # fmt: skip
        if position is not None:
            output.note(f"{count(total)} items are {state}; go on with --from {position}")
    return DONE if items else NOTHING


def _plain(item: BrowsedItem) -> dict[str, Any]:
    facts = {name: value for name, value in item.facts.items() if name != "preview"}
    return {**facts, "truncated": len(item.beginning) < item.size, **payload_json(item.beginning)}


def _preview(item: BrowsedItem) -> str:
    text = payload_text(item.beginning).replace("\n", "\\n").replace("\t", "\\t")
    return text + ("..." if len(item.beginning) < item.size else "")


@click.command("clients", cls=Command)
@click.argument("text", required=False)
@click.pass_obj
def clients_command(settings: ClientSettings, text: Optional[str]) -> None:
    """
    Show who is connected, or those whose address or user contains TEXT.  Needs --http.
    """
    output = Output(settings)
    clients: list[dict[str, Any]] = []
    with Admin(settings, "clients") as admin:
        while True:
            page = admin.get("/clients", filter=text, offset=len(clients), limit=1000)
            clients += page["clients"]
            if not page["clients"] or len(clients) >= page["total"]:
                break
    if output.json:
        output.document(clients)
    elif clients:
        output.table(
            ("id", "address", "user", "protocol", ">idle", ">open", "waits for"),
            [
                (
                    client["id"], client["address"], client["user"] or "-",
                    client["protocol"] + (" (TLS)" if client["tls"] else ""),
                    duration((client["idle_ms"] or 0) / 1000), client["open_reads"], " ".join(client["waits_for"]),
                )
                for client in clients
            ],
        )  # fmt: skip
