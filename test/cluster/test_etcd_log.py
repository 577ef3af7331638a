"""
Tests of the log in etcd, with one real etcd.
"""

from __future__ import annotations

import atexit
from itertools import count
from typing import Any, ClassVar, Optional
from unittest import skipIf

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from darner.cluster.etcd.log import EtcdLog
from darner.cluster.etcd.settings import Timings
from test.cluster.etcd_servers import ETCD, EtcdServers
from test.cluster.log_contract import LogContract

PATIENT = Timings(attempt=10, patience=30, silence=10)
"""For a machine that is busy with other things."""

needs_etcd = skipIf(ETCD is None, "there is no etcd: apt-get install etcd-server")

_names = count()


class OneEtcd(TestCase):
    """There is one etcd for all of them; each test has a log of its own."""

    servers: ClassVar[Optional[EtcdServers]] = None

    def setUp(self) -> None:
        if OneEtcd.servers is None:
            OneEtcd.servers = EtcdServers(size=1)
            atexit.register(OneEtcd.servers.end)
        self.endpoints = OneEtcd.servers.endpoints
        self.name = f"test{next(_names)}"

    def member(self, **options: Any) -> EtcdLog:
        options.setdefault("timings", PATIENT)
        log = EtcdLog(reactor, self.endpoints, self.name, **options)
        self.addCleanup(log.close)
        return log


@needs_etcd
class EtcdLogContract(LogContract, OneEtcd):
    """It keeps the contract."""

    large = 700_000
