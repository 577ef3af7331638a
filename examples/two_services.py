"""
Two services with two data directories in one process.

    python two_services.py DATA_DIR

One keeps what must not be lost, each item on stable storage before anybody is told so; the other what would be no great
loss, on a faster disk perhaps.  They share nothing: a queue of one is unknown to the other.
"""

import sys
from pathlib import Path

from twisted.application.service import MultiService
from twisted.internet.task import react

from darner.service import QueueService


async def main(reactor, data_dir):
    parent = MultiService()
    orders = QueueService(Path(data_dir) / "orders")
    orders.setServiceParent(parent)
    hints = QueueService(Path(data_dir) / "hints")
    hints.setServiceParent(parent)
    parent.startService()

    await orders.put(b"queue", b"two lamps", sync=True)
    await hints.put(b"queue", b"likes lamps")
    await hints.put(b"others", b"likes books")

    print("orders:", orders.names(), (await orders.get(b"queue")).payload.decode())
    print("hints:", hints.names(), (await hints.get(b"queue")).payload.decode())
    await parent.stopService()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    react(main, sys.argv[1:])
