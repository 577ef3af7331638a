"""
Wait for an item, for so long or until something else happens.

    python wait.py DATA_DIR

A wait that is cancelled loses no item, not even when one was on its way to it.
"""

import sys

from twisted.internet.defer import CancelledError
from twisted.internet.task import react

from darner.errors import Stopped
from darner.service import QueueService


async def main(reactor, data_dir):
    queues = QueueService(data_dir)
    queues.startService()

    print("at once:", await queues.get(b"jobs"))
    print("after 50 ms:", await queues.get(b"jobs", timeout=0.05))

    waiting = queues.get(b"jobs", timeout=60)
    await queues.put(b"jobs", b"first")
    print("waited for:", (await waiting).payload.decode())

    waiting = queues.get(b"jobs", timeout=None)
    putting = queues.put(b"jobs", b"second")
    # The item is already handed to the wait, which changes its mind.
    waiting.cancel()
    try:
        await waiting
    except CancelledError:
        print("cancelled")
    await putting
    print("not lost:", (await queues.get(b"jobs")).payload.decode())

    waiting = queues.get(b"jobs", timeout=None)
    await queues.stopService()
    try:
        await waiting
    except Stopped as error:
        print("stopped:", error)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    react(main, sys.argv[1:])
