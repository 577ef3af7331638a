"""
The performers of requests, except of plain reads and of requests with a payload.

A new command needs a request, which also says what rights it needs (`darner.values.requests`), a parser
(`darner.front.memcache_requests`), and a performer here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional, Union

from twisted.python.failure import Failure

import darner
from darner.errors import DarnerError, StoreError
from darner.front import reports
from darner.front.session import PERFORMERS, Session
from darner.queues.answers import Answers
from darner.queues.transfer import Transfer
from darner.values import requests

_Performer = Callable[[Session, Any], None]


def performs(*kinds: type[requests.Request]) -> Callable[[_Performer], _Performer]:
    """Decorates the performer of requests of these classes; a L{DarnerError} that it raises becomes the reply."""

    def register(performer: _Performer) -> _Performer:
        for kind in kinds:
            PERFORMERS[kind] = performer
        return performer

    return register


@performs(requests.GetFirst)
def get_first(session: Session, request: requests.GetFirst) -> None:
    session.reads.get_first(request)


@performs(requests.GetMany)
def get_many(session: Session, request: requests.GetMany) -> None:
    session.reads.get_many(request)


@performs(requests.Monitor)
def monitor(session: Session, request: requests.Monitor) -> None:
    session.reads.monitor(request)


@performs(requests.Confirm)
def confirm(session: Session, request: requests.Confirm) -> None:
    reads = session.reads.opens.first(request.queue, request.count)
    if reads:
        session.queues.reads.close(session.answers(), session.spelling.confirmed(len(reads)), reads)
    else:
        session.reply(session.spelling.confirmed(0))


@performs(requests.Touch)
def touch(session: Session, request: requests.Touch) -> None:
    touched = session.reads.opens.touch(request.queue)
    if not request.noreply:
        session.reply(session.spelling.touched(touched))


@performs(requests.Delete)
def delete(session: Session, request: requests.Delete) -> None:
    session.queues.status.check_writes()
    fifo = session.queues.find(request.queue)
    known = fifo is not None and fifo.exists
    deleted = session.spelling.deleted if known else session.spelling.not_found
    session.queues.delete(session.answers(), b"" if request.noreply else deleted, request.queue)


@performs(requests.Flush)
def flush(session: Session, request: requests.Flush) -> None:
    session.queues.status.check_writes()
    session.queues.flush(session.answers(), session.spelling.flushed, request.queue)


@performs(requests.FlushAll)
def flush_all(session: Session, request: requests.FlushAll) -> None:
    session.queues.status.check_writes()
    flushed = b"" if request.noreply else session.spelling.flushed_all(request.delayed)

    def done(error: Optional[StoreError]) -> None:
        session.flushing = False
        session.update_busy()
        answers = session.answers()  # even without a reply, so that the requests that were held back go on
        if flushed:
            answers.add(flushed if error is None else error)

    if not session.queues.flush_all(session.answers(), flushed, done):
        session.flushing = True
        session.update_busy()


@performs(requests.FlushExpired, requests.FlushAllExpired)
def flush_expired(session: Session, request: Union[requests.FlushExpired, requests.FlushAllExpired]) -> None:
    def flushed(count: int) -> tuple[Answers, bytes]:
        session.flushing = False
        session.update_busy()
        return session.answers(), session.spelling.number(count)

    def failed(failure: Failure) -> None:
        session.flushing = False
        session.update_busy()
        assert failure.value is not None
        session.reply(session.spelling.error(failure.value))

    session.queues.status.check_writes()
    session.flushing = True
    session.update_busy()
    name = request.queue if isinstance(request, requests.FlushExpired) else None
    session.queues.flush_expired(name, flushed).addErrback(failed)


@performs(requests.Requeue)
def requeue(session: Session, request: requests.Requeue) -> None:
    def done(error: Optional[DarnerError]) -> None:
        session.transfer = None
        session.update_busy()
        session.reply(session.spelling.number(transfer.moved) if error is None else session.spelling.error(error))

    session.queues.status.check_reads()
    session.queues.status.check_writes()
    session.queues.check_queue(request.target)
    transfer = Transfer(session.queues, request.origin, request.target, request.count, done)
    session.transfer = transfer
    session.update_busy()
    transfer.go_on()


@performs(requests.Stats)
def stats(session: Session, request: requests.Stats) -> None:
    session.report(reports.stats(session))


@performs(requests.DumpStats)
def dump_stats(session: Session, request: requests.DumpStats) -> None:
    session.report(reports.dump(session, request.queues, session.queues.queue_figures))


@performs(requests.DumpConfig)
def dump_config(session: Session, request: requests.DumpConfig) -> None:
    session.report(reports.dump_config(session, request.queues))


@performs(requests.Status)
def status(session: Session, request: requests.Status) -> None:
    session.reply(session.spelling.status(session.queues.status.name))


@performs(requests.SetStatus)
def set_status(session: Session, request: requests.SetStatus) -> None:
    session.queues.status.change(request.status)
    session.reply(session.spelling.status_changed)


@performs(requests.Reload)
def reload(session: Session, request: requests.Reload) -> None:
    def done() -> None:
        session.flushing = False
        session.update_busy()
        session.reply(session.spelling.reloaded())

    session.queues.control.reload()
    session.flushing = True
    session.update_busy()
    session.queues.adoption.when_done(done)


@performs(requests.Shutdown)
def shutdown(session: Session, request: requests.Shutdown) -> None:
    session.queues.control.shut_down()
    session.finish()


@performs(requests.Version)
def version(session: Session, request: requests.Version) -> None:
    session.reply(session.spelling.version(darner.__version__))


@performs(requests.Quit)
def quit(session: Session, request: requests.Quit) -> None:
    session.finish()


@performs(requests.Refused)
def refused(session: Session, request: requests.Refused) -> None:
    if not request.noreply:
        session.reply(request.reply)
    if request.close:
        session.close()
