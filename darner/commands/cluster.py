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
from darner.commands.snapshots import take_snapshot
from darner.config.clusters import parse_cluster


@click.command("cluster", cls=Command)
@click.argument("action", type=click.Choice(["status", "step-down", "snapshot"]))
@click.option(
    "--cluster", "url", metavar="URL", required=True, envvar="DARNER_CLUSTER", show_envvar=True,
    help="Where the log is: etcd://HOST:PORT,HOST:PORT/NAME.",
)  # fmt: skip
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@click.option("--keep", type=click.IntRange(1), metavar="N", help="Remove the oldest backups, so that N stay.")
@click.pass_obj
def cluster_command(
    settings: ClientSettings, action: str, url: str, directory: Optional[Path], keep: Optional[int]
) -> None:
    """
    Show who leads a cluster and how far its nodes are (status), have the leader step down, so that another node leads
    (step-down), or add a snapshot of a node to a DIRECTORY of backups (snapshot).

    A snapshot is what backup makes, of any node that gives one (--cluster-port); it is read over the network, and -
    writes it to standard output as one stream.  restore makes a data directory of it for a node of this cluster.

    --user, --password-file, --ca-file, --certificate and --key are for etcd here.
    """
    if (directory is not None) != (action == "snapshot") or (keep is not None and directory is None):
        raise Failure("a directory of backups is for snapshot, and only for that", USAGE)
    try:
        parse_cluster(url)
    except ValueError as error:
        raise Failure(str(error)) from None
    from darner.cluster.operating import ask, find_givers, status, step_down

    credentials = (
        settings.user or None, settings.password_file or None, settings.ca_file or None,
        settings.certificate or None, settings.key or None,
    )  # fmt: skip
    output = Output(settings)
    if directory is not None:
        take_snapshot(output, ask(url, find_givers, settings.timeout, *credentials), directory, keep)
        return
    told = ask(url, step_down if action == "step-down" else status, settings.timeout, *credentials)
    if action == "step-down":
        output.line(f"{told['leader']} is asked to step down")
        sys.stdout.flush()
        return
    if output.json:
        output.document(told)
        return
    output.line(f"leader {told['leader'] or 'none'}, last record {told['last']}, trimmed to {told['trimmed']}")
    rows: list[Any] = [
        (node["name"], node["role"], node["position"], node["lag"], node["durable"], node["address"], node["version"])
        for node in told["nodes"]
    ]
    output.table(("node", "role", "position", "lag", "durable", "address", "version"), rows)
