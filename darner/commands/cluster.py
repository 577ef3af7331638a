"""
``darner cluster``: the nodes of a cluster, as their log knows them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Optional

import click

from darner.commands.client_settings import ClientSettings
from darner.commands.exits import USAGE, Failure
from darner.commands.output import Output
from darner.commands.program import Command
from darner.commands.shards import show_all, show_shards_of
from darner.commands.snapshots import take_snapshot
from darner.config.clusters import parse_cluster


@click.command("cluster", cls=Command)
@click.argument("action", type=click.Choice(["status", "step-down", "snapshot", "shard"]))
@click.option(
    "--cluster", "urls", metavar="URL", multiple=True, envvar="DARNER_CLUSTER", show_envvar=True,
    help="Where the log is: etcd://HOST:PORT,HOST:PORT/NAME; for status once for each shard.",
)  # fmt: skip
@click.argument("rest", metavar="[DIRECTORY | QUEUE...]", nargs=-1)
@click.option("--keep", type=click.IntRange(1), metavar="N", help="Remove the oldest backups, so that N stay.")
@click.option("--shards", type=int, metavar="N", help="How many shards there are.")
@click.pass_obj
def cluster_command(
    settings: ClientSettings, action: str, urls: tuple[str, ...], rest: tuple[str, ...], keep: Optional[int],
    shards: Optional[int],
) -> None:  # fmt: skip
    """
    Show who leads a cluster and how far its nodes are (status), have the leader step down, so that another node leads
    (step-down), or add a snapshot of a node to a DIRECTORY of backups (snapshot).

    With several URLs status shows a line for each shard.  The exit status is 1 where a shard has no leader.

    A snapshot is what backup makes, of any node that gives one (--cluster-port); it is read over the network, and -
    writes it to standard output as one stream.  restore makes a data directory of it for a node of this cluster.

    shard says in which of --shards=N shards QUEUEs are.

    --user, --password-file, --ca-file, --certificate and --key are for etcd here.
    """
    output = Output(settings)
    if action == "shard":
        show_shards_of(output, rest, shards)
        return
    if shards is not None:
        raise Failure("--shards is for shard", USAGE)
    if (action == "snapshot") != (len(rest) == 1) or len(rest) > 1 or (keep is not None and not rest):
        raise Failure("a directory of backups is for snapshot, and only for that", USAGE)
    if not urls:
        raise Failure("where is the log?  --cluster=etcd://HOST:PORT,HOST:PORT/NAME, or DARNER_CLUSTER", USAGE)
    if len(urls) > 1 and action != "status":
        raise Failure(f"{action} is for one log", USAGE)
    try:
        for url in urls:
            parse_cluster(url)
    except ValueError as error:
        raise Failure(str(error)) from None
    from darner.cluster.operating import ask, ask_all, find_givers, status, step_down

    credentials = (
        settings.user or None, settings.password_file or None, settings.ca_file or None,
        settings.certificate or None, settings.key or None,
    )  # fmt: skip
    if rest:
        take_snapshot(output, ask(urls[0], find_givers, settings.timeout, *credentials), Path(rest[0]), keep)
        return
    if action == "step-down":
        told = ask(urls[0], step_down, settings.timeout, *credentials)
        output.line(f"{told['leader']} is asked to step down")
        sys.stdout.flush()
    elif len(urls) > 1:
        show_all(output, urls, ask_all(urls, status, settings.timeout, *credentials))
    else:
        _show(output, ask(urls[0], status, settings.timeout, *credentials))


def _show(output: Output, told: dict[str, Any]) -> None:
    """@raise Failure: there is no leader."""
    if output.json:
        output.document(told)
    else:
        of = f"shard {told['shard']}, " if told["shard"] else ""
        output.line(f"{of}leader {told['leader'] or 'none'}, last record {told['last']}, trimmed to {told['trimmed']}")
        rows: list[Any] = [
            (node["name"], node["role"], node["position"], node["lag"], node["durable"], node["address"],
             node["version"])
            for node in told["nodes"]
        ]  # fmt: skip
        output.table(("node", "role", "position", "lag", "durable", "address", "version"), rows)
    if not told["leader"]:
        sys.stdout.flush()
        raise Failure("no node leads")
