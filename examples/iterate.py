"""
Walk over a queue with `async for`, waiting for items as they come.

    python iterate.py DATA_DIR

Each item is an open read.  It is closed when the loop asks for the next one, and goes back to the queue when the loop
is left, by an error or by `break`: so close the last one yourself if you are done with it.
"""

import sys
from contextlib import aclosing

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from darner.service import QueueService


async def count_down(reactor, queues):
    for number in (3, 2, 1, 0):
        await queues.put(b"numbers", b"%d" % number)
        await deferLater(reactor, 0.01)
    await queues.put(b"numbers", b"left over")


async def main(reactor, data_dir):
    queues = QueueService(data_dir)
    queues.startService()
    counting = Deferred.fromCoroutine(count_down(reactor, queues))

    # `aclosing` ends the walk as soon as the loop is left, and not when Python gets round to it.
    async with aclosing(queues.items(b"numbers")) as items:
        async for read in items:
            print(read.payload.decode())
            if read.payload == b"0":
                await read.close()
                break

    await counting
    print("still there:", (await queues.peek(b"numbers")).payload.decode())
    await queues.stopService()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    react(main, sys.argv[1:])
