"""
A worker over several servers that are one queue to it, complete with retries, a stop by SIGTERM and figures.

    python -m darner --data-dir=DATA_DIR --port=22133
    python fleet_worker.py 127.0.0.1:22133[,HOST:PORT...] [--until-idle]

Each photo is closed when its handler returns.  When the handler raises, it goes back: the settings of the queue say
when it is had again and how often (``retry_delay``, ``max_attempts``, ``dead_letter_queue``).  SIGTERM lets the
handlers finish what they have begun, and gives back what they have not finished in 30 s.
"""

import asyncio
import sys

from darner.client.asyncio import Fleet, Worker
from darner.client.worker import Hooks


class Figures(Hooks):
    """Counts, for a monitoring system."""

    def __init__(self):
        self.succeeded_count = self.failed_count = 0

    def succeeded(self, read, seconds):
        self.succeeded_count += 1

    def failed(self, read, seconds, error):
        self.failed_count += 1
        print(f"{read.payload.decode()} failed: {error}")

    def unreachable(self, error):
        print(f"no server: {error}")


class Resizer:
    """The third photo fails the first time."""

    def __init__(self):
        self.tried = set()
        self.done = []
        self.all_done = asyncio.Event()

    async def handle(self, read):
        photo = read.payload.decode()
        await asyncio.sleep(0.01)
        if photo == "photo 3" and photo not in self.tried:
            self.tried.add(photo)
            raise RuntimeError("out of memory")
        self.done.append(photo)
        if len(self.done) == 5:
            self.all_done.set()


async def main(servers, until_idle=""):
    async with Fleet(servers) as fleet:
        for number in range(1, 6):
            await fleet.put("photos", b"photo %d" % number)
        figures, resizer = Figures(), Resizer()
        worker = Worker(fleet, "photos", resizer.handle, concurrency=2, heartbeat=10, hooks=figures)
        if until_idle:
            asyncio.get_running_loop().create_task(stop_when_idle(worker, resizer))
        await worker.run()
        print("resized:", ", ".join(sorted(resizer.done)))
        print(f"{figures.succeeded_count} succeeded, {figures.failed_count} failed")


async def stop_when_idle(worker, resizer):
    await resizer.all_done.wait()
    worker.stop()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:]))
