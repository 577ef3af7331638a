"""
A worker that loses no item, whatever happens to it: open reads.

    python worker.py DATA_DIR

An item that is open belongs to the worker, but is not gone.  Leaving the block closes it, and only then it is gone for
good.  When an exception leaves the block the item goes back to the head of its queue; when the process dies it is there
after the next start.
"""

import sys

from twisted.internet.task import react

from darner.service import QueueService


class OutOfPaper(Exception):
    """The second page is one too many for the printer."""


def print_page(page, paper):
    if not paper:
        raise OutOfPaper
    print("printed", page.decode())


async def main(reactor, data_dir):
    queues = QueueService(data_dir)
    queues.startService()
    for page in (b"page 1", b"page 2"):
        await queues.put(b"pages", page)

    for paper in (True, False):
        try:
            async with await queues.open(b"pages") as read:
                print_page(read.payload, paper)
        except OutOfPaper:
            print("gave back", read.payload.decode())
    print("to be printed:", queues.count(b"pages"))

    # The same without a block: close or abort, as one sees fit.
    read = await queues.open(b"pages")
    await read.abort()
    read = await queues.open(b"pages")
    print_page(read.payload, True)
    await read.close()
    print("to be printed:", queues.count(b"pages"))

    await queues.stopService()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    react(main, sys.argv[1:])
