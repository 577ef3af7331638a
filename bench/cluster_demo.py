"""
Three etcds and three nodes of a cluster on the loopback interface, to try: ``make cluster``; with ``SHARDS=2``, or
``--shards=2``, three nodes of each of two shards.

They run until they are interrupted.  What ends is started again after a second, as a supervisor would do.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence

from bench.cluster_shards import Shards
from bench.cluster_torture import Node
from test.cluster.etcd_servers import ETCD


def describe(shards: Shards, leaders: Sequence[Node]) -> str:
    """@return: what is there, and what to try."""
    lines = ["", f"The logs and data are in {shards.directory}."]
    for number, (url, nodes) in enumerate(zip(shards.urls, shards.nodes, strict=True), 1):
        lines.append(f"The cluster is at {url}:" if len(shards.urls) == 1 else f"Shard {number} is at {url}:")
        for node in nodes:
            assert node.process is not None
            lines.append(
                f"  {node.name}: port {node.port}, health and metrics http://127.0.0.1:{node.http}/health, "
                f"pid {node.process.pid}{', leads' * (node is leaders[number - 1])}"
            )
    lines += [
        "",
        f"Try (the program is in {sys.prefix}/bin):",
        f"  export DARNER_CLUSTER='{' '.join(shards.urls)}'",
        "  darner cluster status",
    ]
    if len(shards.urls) > 1:
        lines += [
            f"  darner cluster shard --shards={len(shards.urls)} jobs photos",
            "and, in Python:",
            "  from darner.client.blocking import Shards",
            f"  with Shards({shards.places}) as shards:",
            "      shards.put('jobs', b'hello')",
        ]
    else:
        lines += [
            f"  darner -s 127.0.0.1:{leaders[0].port} put jobs hello",
            "  darner cluster step-down",
            "  kill -9 PID          of the leader; a second or two later another node listens",
            f"  darner -s PORT get jobs   at one of {','.join(shards.places[0])}",
        ]
    return "\n".join([*lines, "", "Control-C ends all of it, and removes the data."])


def main(arguments: Sequence[str]) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster_demo", description="Start a cluster to try.")
    parser.add_argument("--shards", type=int, default=1, help="how many shards")
    options = parser.parse_args(arguments)
    if ETCD is None:
        sys.exit("there is no etcd: apt-get install etcd-server")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    shards = Shards(options.shards)
    try:
        leaders = [shards.leader(number) for number in range(1, options.shards + 1)]
        print(describe(shards, leaders), flush=True)
        while True:
            time.sleep(1)
            shards.tend()
    except KeyboardInterrupt:
        pass
    finally:
        shards.end()


if __name__ == "__main__":
    main(sys.argv[1:])
