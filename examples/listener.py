"""
Queues for an application and for memcache clients at the same time, under the application's own parent service.

    python listener.py DATA_DIR

The queue service listens on a free port of the loopback interface.  A client puts an item there by the memcache
protocol; the application takes it and answers on another queue.
"""

import sys

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import react

from darner.service import QueueService


class Client(Protocol):
    """Sends what it is told to and collects the reply."""

    def ask(self, request, end):
        """Fires with the reply to C{request}, which ends with C{end}."""
        self.reply, self.end = b"", end
        self.answered = Deferred()
        self.transport.write(request)
        return self.answered

    def dataReceived(self, data):
        self.reply += data
        if self.reply.endswith(self.end):
            self.answered.callback(self.reply)


async def shout(queues):
    """What the application does with one item."""
    question = await queues.get(b"questions", timeout=None)
    await queues.put(b"answers", question.payload.upper())


async def main(reactor, data_dir):
    parent = MultiService()
    queues = QueueService(data_dir, [TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")])
    queues.setServiceParent(parent)
    parent.startService()
    address = queues.ports[0].getHost()

    working = Deferred.fromCoroutine(shout(queues))
    client = await connectProtocol(TCP4ClientEndpoint(reactor, address.host, address.port), Client())
    print((await client.ask(b"set questions 0 0 5\r\nhello\r\n", b"\r\n")).decode().strip())
    print((await client.ask(b"get answers/t=5000\r\n", b"END\r\n")).decode().split("\r\n")[1])
    await working

    # Ends the client's connection too, after its last reply.
    await parent.stopService()
    print("stopped")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    react(main, sys.argv[1:])
