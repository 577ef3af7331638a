"""
Look after queues: peek, count, names, flush, delete.

    python manage.py DATA_DIR
"""

import sys

from twisted.internet.task import react

from darner.errors import ClientError
from darner.service import QueueService


async def main(reactor, data_dir):
    queues = QueueService(data_dir)
    queues.startService()
    for queue in (b"red", b"red", b"blue"):
        await queues.put(queue, b"an item", flags=7)

    def show(title):
        print(f"{title}:", ", ".join(f"{name.decode()} {queues.count(name)}" for name in queues.names()))

    show("put")
    item = await queues.peek(b"red")
    print("peek:", item.queue.decode(), item.payload.decode(), item.flags)
    show("still there")
    await queues.flush(b"red")
    show("flushed")
    await queues.delete(b"red")
    show("deleted")
    print("unknown:", queues.count(b"green"), await queues.peek(b"green"))
    try:
        await queues.put(b"not a name", b"")
    except ClientError as error:
        print("refused:", error)
    await queues.stopService()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    react(main, sys.argv[1:])
