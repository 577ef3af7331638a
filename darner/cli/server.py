"""
Builds a server from the command line.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Optional

import attrs
from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint, UNIXServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import ILogObserver, Logger, LogLevel

import darner
from darner.cli.garbage import permanent_objects
from darner.cli.notify import Notifier
from darner.cli.options import Options
from darner.cli.output import say
from darner.cli.reasons import cannot_listen, wrong_with_endpoint
from darner.config.passwords import Passwords
from darner.config.settings import Settings
from darner.errors import SettingsError, StoreDamaged, StoreError, StoreUnusable
from darner.net.endpoints import fastest, tcp_endpoint
from darner.net.listeners import HTTP, MEMCACHE, TEXT, Listener, is_reachable, url_of
from darner.net.log_limits import LimitedLog
from darner.net.unix import UnixEndpoint
from darner.queues.control import Control
from darner.rescue.repair import check, repair
from darner.service import QueueService
from darner.store.directory import check_directory
from darner.store.interfaces import IStore
from darner.store.leveldb import LevelStore


class CannotStart(SystemExit, Exception):
    """
    Ends twistd with one line of explanation.

    As it is a C{SystemExit}, there is no traceback.  As it is an C{Exception}, twistd removes its pid file and informs
    the process that waits for its daemon to start.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.code = 1


class Interrupted(CannotStart):
    """Ends twistd with status 0, if it is told to stop during the start."""

    def __init__(self) -> None:
        super().__init__("stopped during the start")
        self.code = 0


class Server(Service):
    """
    The server that twistd runs: a L{QueueService} with a log, which ends with one line if it cannot start.

    @ivar log_observer: the log observer for twistd; C{None}: the one that twistd's own options ask for.
    """

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
        @param repair: whether to repair the store, if it is damaged, before opening it.
        @param options: the command line, for reloads.
        """
        self._settings = settings
        self._repair = repair
        self.queues = queues
        self._reactor = reactor
        self._options = options
        self._handlers: dict[int, Any] = {}
        self._limited = LimitedLog(self._log, reactor)
        self._told_to_stop = False
        self.log_observer: Optional[ILogObserver] = None
        self._notifier = Notifier()

    def setServiceParent(self, parent: Any) -> None:
        super().setServiceParent(parent)
        if self.log_observer is not None:
            parent.setComponent(ILogObserver, self.log_observer)

    def startService(self) -> None:
        self._hear(signal.SIGTERM, self._hear_stop, signal.SIG_DFL)
        self._hear(signal.SIGINT, self._hear_stop, signal.default_int_handler)
        # With a log file twistd rotates it on SIGUSR1; without one the signal must not end the process.
        self._hear(signal.SIGUSR1, signal.SIG_IGN, signal.SIG_DFL)
        try:
            self._start()
        except BaseException:
            self._hear_no_more()
            raise

    def _start(self) -> None:
        # LevelDB would create files that everybody can read.  A stricter umask is kept.
        os.umask(os.umask(0o077) | 0o077)
        self._log.info("darner: queue server, version {version}", version=darner.__version__)
        try:
            with permanent_objects():
                self.queues.startService()
        except (StoreError, SettingsError) as error:
            raise self._cannot_start(str(error)) from error
        except CannotListenError as error:
            raise self._cannot_start(cannot_listen(error)) from error
        except (OSError, OverflowError) as error:
            raise self._cannot_start(f"cannot listen: {error}") from error
        super().startService()
        self._handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hear_hangup)
        for listener, port in zip(self.queues.listeners, self.queues.ports, strict=False):
            if listener.protocol == HTTP:
                self._log.info("dashboard, HTTP API and metrics: {url}", url=url_of(port.getHost(), listener.tls))
            else:
                self._log.info("listening on {address}{listener}", address=port.getHost(), listener=listener)
        self._warn_of_strangers()
        self._log.info("data directory: {path}", path=Path(self._settings.data_dir).absolute())
        if self._settings.debug:
            self._log.info("debug logging is on")
        self._log.info("starting up")
        if self._notifier.wanted:
            self._reactor.callWhenRunning(self._notify_ready)

    def _notify_ready(self) -> None:
        if self.queues.queues is not None:
            self._notifier.ready(self.queues.queues)

    def _hear(self, number: int, handler: Any, unless_other_than: Any) -> None:
        """Handle a signal from now on, unless other code already handles it."""
        if signal.getsignal(number) is unless_other_than:
            self._handlers[number] = signal.signal(number, handler)

    def _hear_no_more(self) -> None:
        """Restore the earlier signal handlers, except where the reactor has installed its own."""
        handlers, self._handlers = self._handlers, {}
        for number, before in handlers.items():
            if signal.getsignal(number) in (self._hear_stop, self._hear_hangup, signal.SIG_IGN):
                signal.signal(number, before)

    def _hear_stop(self, *_: object) -> None:
        """
        Handle SIGTERM and SIGINT until the reactor, once it runs, installs its own handlers.

        @raise Interrupted: the server is still starting.
        """
        if not self.queues.running:
            raise Interrupted()
        self._reactor.callFromThread(self._stop_reactor)

    def _stop_reactor(self) -> None:
        with suppress(ReactorNotRunning):
            self._reactor.stop()

    def _warn_of_strangers(self) -> None:
        """Warn if other machines can reach the server without a log-in, or send passwords without encryption."""
        if self._settings.trusted_network:
            return
        users = self._settings.password_file is not None
        for listener, port in zip(self.queues.listeners, self.queues.ports, strict=False):
            address: Any = port.getHost()
            if not is_reachable(address) or listener.client_certificates or (users and listener.tls):
                continue
            if listener.protocol == HTTP:
                text = (
                    "HTTP at {host}:{port} takes no passwords from other machines, as it has no TLS" if users
                    else "HTTP at {host}:{port} serves no other machine, as there is no password_file"
                )
            elif users:
                text = "passwords are sent to {host}:{port} without encryption: use TLS there"
            else:
                text = (
                    "everybody who reaches {host}:{port} can read, change and delete all queues: set password_file, "
                    "require client certificates (mtls:), or listen on 127.0.0.1 only"
                )
            text += "; if this is intended, trusted_network = true turns this warning off"
            self._log.critical("WARNING: " + text, host=address.host, port=address.port)
            print(f"darner: WARNING: {text.format(host=address.host, port=address.port)}", file=sys.__stderr__)

    def open_store(self, path: Path) -> IStore:
        """
        Open the store for the service; with C{--repair}, repair it first.

        @raise StoreError: it cannot be opened.
        """
        if self._repair:
            self._repair_store()
        return LevelStore(path)

    def _repair_store(self) -> None:
        self._log.info("looking for damage in {path}", path=self.queues.data_dir)
        report = repair(self.queues.data_dir)
        for line in report.lines():
            self._log.warn("{line}", line=line)
        self._log.info("found no damage" if report.sound else "the store is repaired")

    def _cannot_start(self, reason: str) -> CannotStart:
        self._log.critical("cannot start: {reason}", reason=reason)
        # sys.stderr would go to the log: twistd has redirected it.
        print(f"darner: {reason}", file=sys.__stderr__)
        return CannotStart(reason)

    # Settings

    def _hear_hangup(self, *_: object) -> None:
        # Later, as a signal interrupts any code.
        self._reactor.callFromThread(self._hang_up)

    def _hang_up(self) -> None:
        # reload() has logged the error.
        with suppress(SettingsError):
            self.reload()

    def reload(self, for_client: bool = False) -> None:
        """
        Read the settings again, and apply those of queues and aliases.

        @param for_client: whether a client asks for it, who may do so as often as it likes.
        @raise SettingsError: any setting is wrong, or there is no file; nothing is changed.
        """
        log: Any = self._limited if for_client else self._log
        self._notifier.reloading()
        try:
            settings = self._read_again()
            self.queues.apply(settings.policies)
        except SettingsError as error:
            self._notifier.reloaded(str(error))
            log.emit(
                LogLevel.error, "cannot reload the settings, nothing is changed: {error}",
                kind=("reload", str(error)), error=str(error),
            )  # fmt: skip
            raise
        log.emit(LogLevel.info, "reloaded the settings of queues")
        others = changes(self._settings, settings)
        if others:
            log.emit(
                LogLevel.warn, "these settings have changed and need a restart: {names}", names=", ".join(others)
            )
        self._notifier.reloaded()

    def _read_again(self) -> Settings:
        if self._options is None or self._options["config"] is None:
            raise SettingsError("there is no configuration file")
        return self._options.settings()

    def shut_down(self) -> None:
        """Begin to stop, as after SIGTERM."""
        if not self._told_to_stop:
            self._told_to_stop = True
            self._log.info("a client has requested shutdown")
        self._stop_reactor()

    # The end

    def stopService(self) -> Deferred[None]:
        self._log.info("stopping: finishing running requests")
        self._notifier.stopping()
        super().stopService()
        return self.queues.stopService().addCallback(self._stopped)

    def _stopped(self, _: None) -> None:
        self._limited.close()
        self._log.info("stopped")
        self._hear_no_more()
        # twistd would kill itself with the signal that stopped it; the status of a clean stop must be 0.
        if getattr(self._reactor, "_exitSignal", None) is not None:
            self._reactor._exitSignal = None


def changes(before: Settings, after: Settings) -> list[str]:
    """@return: the names of the settings that differ, except those of queues."""
    return [
        field.name
        for field in attrs.fields(Settings)
        if field.name != "policies" and getattr(before, field.name) != getattr(after, field.name)
    ]


def _endpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except Exception as error:
        # It raises errors of any type, from an unknown kind of endpoint to a certificate that cannot be read.
        reason = wrong_with_endpoint(description, error)
        raise SettingsError(f"bad endpoint to listen at: {description}: {reason}") from error
    if isinstance(endpoint, UNIXServerEndpoint):
        return UnixEndpoint(reactor, endpoint._address, endpoint._backlog, endpoint._mode)
    return endpoint


_TLS = re.compile(r"(?:haproxy:)?(?:ssl|tls|mtls):")
"""The beginning of endpoints with TLS."""


def listeners(settings: Settings, reactor: Any) -> list[Listener]:
    """
    @return: where a server with these settings listens: first at its port, last at that of the text protocol, and then
        where it serves HTTP.
    @raise SettingsError: an endpoint is wrong.
    """
    found = []
    if settings.tcp_port is not None:
        found.append(Listener(tcp_endpoint(reactor, settings.tcp_port, settings.interface)))
    for place in settings.listen:
        tls, mtls = bool(_TLS.match(place.endpoint)), "mtls:" in place.endpoint[:13]
        endpoint = fastest(reactor, _endpoint(reactor, place.endpoint))
        found.append(Listener(endpoint, MEMCACHE, place.dialect, tls, mtls))
    if settings.text_port is not None:
        found.append(Listener(tcp_endpoint(reactor, settings.text_port, settings.interface), TEXT))
    return found + _http_listeners(settings, reactor)


def _http_listeners(settings: Settings, reactor: Any) -> list[Listener]:
    found = []
    if settings.http_port is not None:
        kind = TCP6ServerEndpoint if ":" in settings.http_interface else TCP4ServerEndpoint
        found.append(Listener(kind(reactor, settings.http_port, interface=settings.http_interface), HTTP))
    for place in settings.http_listen:
        tls, mtls = bool(_TLS.match(place.endpoint)), "mtls:" in place.endpoint[:13]
        found.append(Listener(_endpoint(reactor, place.endpoint), HTTP, None, tls, mtls))
    if found:
        try:
            import_module("darner.web.site")  # whether all it needs is there
        except ImportError as error:
            raise SettingsError(f"HTTP needs more packages: pip install 'darner[web]' ({error})") from error
    return found


def makeService(options: Options, reactor: Optional[Any] = None, settings: Optional[Settings] = None) -> Server:
    """
    Build a server.

    @param settings: the settings, if they were already read from the options.
    @raise SystemExit: with one line of explanation, if it cannot run with these options.
    """
    if reactor is None:
        from twisted.internet import reactor
    try:
        if settings is None:
            settings = options.settings()
        places = listeners(settings, reactor)
        if settings.password_file is not None:
            Passwords(Path(settings.password_file))
        if options["check"]:
            report = check(Path(settings.data_dir))
            say("\n".join(report.lines()))
            sys.exit(0 if report.sound else 1)
        # Do not open the store yet: twistd may still fork to become a daemon.
        with contextlib.suppress(*([StoreDamaged] if options["repair"] else [])):
            check_directory(Path(settings.data_dir))
    except (SettingsError, StoreUnusable) as error:
        sys.exit(f"darner: {error}")
    # Absolute, as twistd may change the working directory before it starts the service.
    data_dir = Path(settings.data_dir).absolute()
    served = settings
    if settings.password_file is not None:
        served = evolve(settings, password_file=str(Path(settings.password_file).absolute()))
    server: Server
    shut_down = (lambda: server.shut_down()) if settings.allow_shutdown else None
    control = Control(lambda: server.reload(for_client=True), shut_down)
    kind: Any = QueueService if settings.cluster is None else import_module("darner.cli.cluster_service").ClusterService
    queues = kind(data_dir, places, served, reactor, lambda path: server.open_store(path), control)
    server = Server(settings, queues, reactor, bool(options["repair"]), options)
    return server
