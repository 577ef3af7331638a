"""
What the command line asks for: putting the parts of a server together.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

import attrs
from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import Logger

import darner
from darner.cli.options import Options
from darner.config.passwords import Passwords
from darner.config.settings import Settings
from darner.errors import SettingsError, StoreDamaged, StoreError, StoreUnusable
from darner.net.port import tcp_endpoint
from darner.queues.control import Control
from darner.rescue.repair import check, repair
from darner.service import QueueService
from darner.store.directory import check_directory


class CannotStart(SystemExit, Exception):
    """
    Ends twistd with one line of explanation.

    As a C{SystemExit} it leaves no traceback.  As an C{Exception} it has twistd remove its pid file, and tell the
    process that waits for its daemon to start.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.code = 1


class Server(Service):
    """The server that twistd runs: a L{QueueService} that logs what it does, and ends with one line when it cannot."""

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        queues: QueueService,
        reactor: Any = None,
        repair: bool = False,
        options: Optional[Options] = None,
    ) -> None:
        """
        @param repair: whether to repair the store, where it is damaged, before it is opened.
        @param options: where to read the settings again.
        """
        self._settings = settings
        self._repair = repair
        self.queues = queues
        self._reactor = reactor
        self._options = options
        self._on_hangup: Any = None

    def startService(self) -> None:
        # LevelDB makes its files readable for everybody.  A stricter umask of twistd's stays.
        os.umask(os.umask(0o077) | 0o077)
        self._log.info("darner: queue server, version {version}", version=darner.__version__)
        try:
            if self._repair:
                self._repair_store()
            self.queues.startService()
        except (StoreError, SettingsError) as error:
            raise self._cannot_start(str(error)) from error
        except (CannotListenError, OSError, OverflowError) as error:
            raise self._cannot_start(f"cannot listen: {error}") from error
        super().startService()
        self._on_hangup = signal.signal(signal.SIGHUP, self._hear_hangup)
        # What is loaded by now stays.  Left to itself, the collector walks all of it again and again, while everybody
        # waits: tens of milliseconds each time, and less than one when it is frozen.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        plain = len(self.queues.ports) - (self._settings.text_port is not None)
        for number, port in enumerate(self.queues.ports):
            how = "" if number < plain else ", for the text protocol"
            self._log.info("listening on {address}{how}", address=port.getHost(), how=how)
        self._log.info("data directory: {path}", path=Path(self._settings.data_dir).absolute())
        if self._settings.debug:
            self._log.info("debug logging is on")
        self._log.info("starting up")

    def _repair_store(self) -> None:
        self._log.info("looking for damage in {path}", path=self.queues.data_dir)
        report = repair(self.queues.data_dir)
        for line in report.lines():
            self._log.warn("{line}", line=line)
        self._log.info("nothing was to be repaired" if report.sound else "the store is repaired")

    def _cannot_start(self, reason: str) -> CannotStart:
        self._log.critical("cannot start: {reason}", reason=reason)
        # twistd has turned standard error into log messages by now.
        print(f"darner: {reason}", file=sys.__stderr__)
        return CannotStart(reason)

    # Settings

    def _hear_hangup(self, *_: object) -> None:
        # In the middle of anything.
        self._reactor.callFromThread(self._hang_up)

    def _hang_up(self) -> None:
        # What went wrong is in the log.
        with suppress(SettingsError):
            self.reload()

    def reload(self) -> None:
        """
        Read the settings again, and have those of queues and aliases from now on.

        @raise SettingsError: one is wrong, whatever it concerns, or there is no file; nothing is changed then.
        """
        try:
            settings = self._read_again()
        except SettingsError as error:
            self._log.error("cannot reload, nothing is changed: {error}", error=error)
            raise
        if self.queues.queues is not None:
            self.queues.queues.apply(settings.policies)
        self._log.info("reloaded the settings of queues")
        others = changes(self._settings, settings)
        if others:
            self._log.warn("these settings have changed and need a restart: {names}", names=", ".join(others))

    def _read_again(self) -> Settings:
        if self._options is None or self._options["config"] is None:
            raise SettingsError("there is no configuration file")
        return self._options.settings()

    def shut_down(self) -> None:
        """Begin to stop, as by a signal."""
        self._log.info("a client stops the server")
        with suppress(ReactorNotRunning):
            self._reactor.stop()

    # The end

    def stopService(self) -> Deferred[None]:
        self._log.info("stopping: finishing what is running")
        super().stopService()
        return self.queues.stopService().addCallback(self._stopped)

    def _stopped(self, _: None) -> None:
        self._log.info("stopped")
        if self._on_hangup is not None:
            signal.signal(signal.SIGHUP, self._on_hangup)
            self._on_hangup = None
        # twistd would end by the signal that stopped it; but a clean stop has status 0.
        if getattr(self._reactor, "_exitSignal", None) is not None:
            self._reactor._exitSignal = None


def changes(before: Settings, after: Settings) -> list[str]:
    """@return: the names of the settings that differ, but for those of queues."""
    return [
        field.name
        for field in attrs.fields(Settings)
        if field.name != "policies" and getattr(before, field.name) != getattr(after, field.name)
    ]


def _endpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except Exception as error:
        # Anything may come out of it, from an unknown kind of endpoint to a certificate that cannot be read.
        raise SettingsError(f"bad endpoint to listen at: {description}: {error}") from error
    return endpoint


def makeService(options: Options, reactor: Optional[Any] = None, settings: Optional[Settings] = None) -> Server:
    """
    Put a server together.

    @param settings: those of the options, where they were read already.
    @raise SystemExit: with one line of explanation, where it cannot run with these options.
    """
    if reactor is None:
        from twisted.internet import reactor
    try:
        if settings is None:
            settings = options.settings()
        endpoints = [
            (_endpoint(reactor, listener.endpoint), listener.dialect or settings.dialect)
            for listener in settings.listen
        ]
        if settings.tcp_port is not None:
            endpoints.insert(0, (tcp_endpoint(reactor, settings.tcp_port, settings.interface), settings.dialect))
        if settings.password_file is not None:
            Passwords(Path(settings.password_file))
        if options["check"]:
            report = check(Path(settings.data_dir))
            print("\n".join(report.lines()))
            sys.exit(0 if report.sound else 1)
        # Nothing is opened yet: twistd may still become a daemon.
        with contextlib.suppress(*([StoreDamaged] if options["repair"] else [])):
            check_directory(Path(settings.data_dir))
    except (SettingsError, StoreUnusable) as error:
        sys.exit(f"darner: {error}")
    # twistd may change the directory before it starts the service.
    data_dir = Path(settings.data_dir).absolute()
    if settings.password_file is not None:
        served = evolve(settings, password_file=str(Path(settings.password_file).absolute()))
    else:
        served = settings
    server: Server
    control = Control(lambda: server.reload(), (lambda: server.shut_down()) if settings.allow_shutdown else None)
    text_endpoints = []
    if settings.text_port is not None:
        text_endpoints.append(tcp_endpoint(reactor, settings.text_port, settings.interface))
    queues = QueueService(data_dir, endpoints, served, reactor, control=control, text_endpoints=text_endpoints)
    server = Server(settings, queues, reactor, bool(options["repair"]), options)
    return server
