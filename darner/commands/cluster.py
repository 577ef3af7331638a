"""
``darner cluster``: the nodes of a cluster, as their log knows them.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from darner.commands.client_settings import ClientSettings
from darner.commands.exits import Failure
from darner.commands.output import Output
from darner.commands.program import Command
from darner.config.clusters import parse_cluster

_SNAPSHOT = (
    "a snapshot is not taken over the network yet: stop a follower that is not behind, copy its data directory to the "
    "new node, and start both; the new node follows from where the copy was"
)


@click.command("cluster", cls=Command)
@click.argument("action", type=click.Choice(["status", "step-down", "snapshot"]))
@click.option(
    "--cluster", "url", metavar="URL", required=True, envvar="DARNER_CLUSTER", show_envvar=True,
    help="Where the log is: etcd://HOST:PORT,HOST:PORT/NAME.",
)  # fmt: skip
@click.pass_obj
def cluster_command(settings: ClientSettings, action: str, url: str) -> None:
    """
    Show who leads a cluster and how far its nodes are, or have the leader step down, so that another node leads.

    --user, --password-file, --ca-file, --certificate and --key are for etcd here.
    """
    if action == "snapshot":
        raise Failure(_SNAPSHOT)
    try:
        parse_cluster(url)
    except ValueError as error:
        raise Failure(str(error)) from None
    from darner.cluster.operating import ask

    told = ask(
        url, action == "step-down", settings.timeout, settings.user or None, settings.password_file or None,
        settings.ca_file or None, settings.certificate or None, settings.key or None,
    )  # fmt: skip
    output = Output(settings)
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
