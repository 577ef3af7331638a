"""
Three etcds and three nodes of a cluster on the loopback interface, to try: ``make cluster``.

They run until they are interrupted.  What ends is started again after a second, as a supervisor would do.
"""

from __future__ import annotations

import signal
import sys
import time

from bench.cluster_torture import Torture
from test.cluster.etcd_servers import ETCD


def main() -> None:
    """Run it."""
    if ETCD is None:
        sys.exit("there is no etcd: apt-get install etcd-server")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torture = Torture(0, 0)
    url = f"etcd://{','.join(torture.etcd.endpoints)}/torture"
    try:
        leader = torture.leader()
        print(f"\nThe cluster is at {url}, and its logs and data in {torture.directory}.")
        for node in torture.nodes:
            assert node.process is not None
            print(f"  {node.name}: port {node.port}, health and metrics http://127.0.0.1:{node.http}/health, "
                  f"pid {node.process.pid}{', leads' * (node is leader)}")  # fmt: skip
        servers = ",".join(f"127.0.0.1:{node.port}" for node in torture.nodes)
        print(
            f"\nTry (the program is in {sys.prefix}/bin):\n"
            f"  export DARNER_CLUSTER={url}\n"
            f"  darner -s 127.0.0.1:{leader.port} put jobs hello\n"
            "  darner cluster status\n"
            "  darner cluster step-down\n"
            "  kill -9 PID          of the leader; a second or two later another node listens\n"
            f"  darner -s PORT get jobs   at one of {servers}\n"
            "\nControl-C ends all of it, and removes the data.",
            flush=True,
        )
        while True:
            time.sleep(1)
            torture.tend()
    except KeyboardInterrupt:
        pass
    finally:
        torture.end()
        torture.remove()


if __name__ == "__main__":
    main()
