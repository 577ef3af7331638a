"""
How long a cluster with many queues has no leader, when the leader dies: the next one loads all queues before it serves.

::

    python -m bench.cluster_queues --queues=100000 --rounds=5

Three etcds and three nodes on the loopback interface.  The leader is killed (kill -9), again and again.  It prints how
long nobody served each time, and how many nodes claimed to lead: one, unless a leader was replaced while it loaded.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence

from bench.cluster_torture import Torture
from test.servers import Client

AT_ONCE = 500


def fill(port: int, count: int) -> None:
    """Put an item into each of so many queues."""
    with Client(("127.0.0.1", port)) as client:
        for first in range(0, count, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, count))
            client.send(b"".join(b"set q%d 0 0 1\r\nx\r\n" % number for number in numbers))
            for _ in numbers:
                if client.line() != b"STORED":
                    raise AssertionError("an item was refused")


def claims(torture: Torture) -> int:
    """@return: how many claims to lead the node has seen that has run for longest."""
    return max(node.output.read_text().count(" leads from record ") for node in torture.nodes)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster_queues")
    parser.add_argument("--queues", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    torture = Torture(0, 1)
    try:
        fill(torture.leader().port, options.queues)
        outages, claimed = [], []
        for _ in range(options.rounds):
            before = claims(torture)
            torture.leader().kill()
            began = time.monotonic()
            torture.leader(600)
            outages.append(time.monotonic() - began)
            time.sleep(5)
            torture.leader(600)
            claimed.append(claims(torture) - before)
            print(f"nobody served for {outages[-1]:.1f} s; nodes that claimed to lead: {claimed[-1]}", flush=True)
        print(
            f"{options.queues} queues: nobody served for {statistics.median(outages):.1f} s in the median, at most "
            f"{max(outages):.1f} s; nodes that claimed to lead: {max(claimed)} at most"
        )
    finally:
        torture.end()
        torture.remove()


if __name__ == "__main__":
    main(sys.argv[1:])
