"""
Queues in an application's own service tree.

    DATA_DIR=/tmp/mails twistd --nodaemon --python mailer.tac

A service accepts mails and a second one sends them, some time later or after a restart.  The queue between them is an
ordinary child of the application, without any listener.
"""

import os

from twisted.application.service import Application, Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from darner.service import QueueService


class Acceptor(Service):
    """Takes mails and answers for them: once `put` has fired they outlive the process."""

    def __init__(self, queues):
        self.queues = queues

    def startService(self):
        super().startService()
        Deferred.fromCoroutine(self.accept()).addErrback(self.failed)

    async def accept(self):
        for recipient in (b"ann", b"bob", b"cid"):
            await self.queues.put(b"mails", b"Hello " + recipient)
            print("accepted a mail for", recipient.decode())
        await self.queues.put(b"mails", b"")

    def failed(self, failure):
        failure.printTraceback()
        reactor.stop()


class Sender(Service):
    """Takes mails from the queue as they come.  An empty one ends this example."""

    def __init__(self, queues):
        self.queues = queues

    def startService(self):
        super().startService()
        Deferred.fromCoroutine(self.send()).addBoth(lambda _: reactor.stop())

    async def send(self):
        while (mail := await self.queues.get(b"mails", timeout=None)).payload:
            print("sent:", mail.payload.decode())


application = Application("mailer")

# The queues come first: a parent starts its children in order.
queues = QueueService(os.environ["DATA_DIR"])
queues.setServiceParent(application)
Sender(queues).setServiceParent(application)
Acceptor(queues).setServiceParent(application)
