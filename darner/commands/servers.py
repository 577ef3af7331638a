"""
The servers that a command talks to: one, or a fleet as one loosely ordered queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Final, Optional, TypeVar, Union

from darner.client.addresses import Address, address
from darner.client.asyncio import Fleet, Runtime
from darner.client.commands import Commands
from darner.client.errors import ConnectionFailed, InDoubt
from darner.client.requests import Request
from darner.client.servers import source
from darner.commands.client_settings import ClientSettings, reason
from darner.commands.exits import USAGE, Failure, explain, status_of
from darner.commands.output import Output
from darner.errors import ClientError, DarnerError

_T = TypeVar("_T")
_ATTEMPTS: Final = 3
CONNECT_TIMEOUT: Final = 5.0
"""Seconds that a connection may take, with TLS and log-in, where a request may take longer."""


class Client(Commands):
    """A client of one server that does not wait for one that is not there when it begins."""

    async def connect(self) -> None:
        """@raise ConnectionFailed: there is no server.  Later it is waited for, within the time of a call."""
        self._reconnect = False
        try:
            await self.version()
        finally:
            self._reconnect = True

    async def put_each(self, asked: Sequence[Request], again: bool = False) -> None:
        """
        Put items that differ in their options, without waiting for each reply.

        @param again: whether they have ids, so that those which are in doubt can be put again without harm.
        @raise DarnerError: why the first that was refused was; C{error.stored} says how many before it were put.
        """
        for attempt in range(_ATTEMPTS):
            results = await self._call_all(list(asked), None)
            refused = next((number for number, result in enumerate(results) if isinstance(result, DarnerError)), None)
            if refused is None:
                return
            error: DarnerError = results[refused]
            error.stored = refused  # type: ignore[attr-defined]
            if not again or not isinstance(error, InDoubt) or attempt == _ATTEMPTS - 1:
                raise error

    async def knows_ids(self, queue: str) -> bool:
        """@return: whether the queue has a dedupe_window, as far as this user may know."""
        try:
            settings = await self.dump_config(queue)
        except ClientError:
            return False
        return settings.get(queue, {}).get("dedupe_window", "none") != "none"


Reached = Union[Client, Fleet]
"""What puts and reads items."""


class Servers:
    """
    The servers of a command, for as long as it runs.

    What fails on some of them is told, and ends the command badly once the others have done it.

    @ivar clients: one for each server.
    @ivar silent: not to tell of those that fail.
    """

    silent = False

    def __init__(self, settings: ClientSettings, output: Output, places: Optional[str] = None) -> None:
        """@param places: by default those of the settings."""
        self._settings = settings
        self._output = output
        self._places = settings.servers if places is None else places
        self._runtime = Runtime(settings.context(), settings.server_hostname or None)
        self._login: dict[str, Any] = settings.login()
        self._fleet: Optional[Fleet] = None
        self._failed: dict[Client, DarnerError] = {}
        self.clients: list[Client] = []

    async def __aenter__(self) -> Servers:
        try:
            addresses = await source(self._places).look(self._runtime)
        except ValueError as error:
            raise Failure(str(error), USAGE) from None
        except OSError as error:
            raise ConnectionFailed(f"cannot find out the servers of {self._places}: {reason(error)}") from None
        if not addresses:
            raise Failure("no server is named", USAGE)
        self.clients = [self._client(place) for place in dict.fromkeys(addresses)]
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], raised: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._fleet is not None:
            await self._fleet.close()
        for client in self.clients:
            await client.close()
        if raised is None and self._failed:
            error = next(iter(self._failed.values()))
            raise Failure(f"{len(self._failed)} of {len(self.clients)} servers have not done it", status_of(error))

    def _client(self, place: Address) -> Client:
        settings = self._settings
        return Client(
            self._runtime, place, timeout=settings.timeout, connect_timeout=min(CONNECT_TIMEOUT, settings.timeout),
            **self._login,
        )

    @property
    def addresses(self) -> set[str]:
        return {str(client.address) for client in self.clients}

    @property
    def one(self) -> Client:
        """
        The only server.

        @raise Failure: there are several.
        """
        if len(self.clients) > 1:
            raise Failure("this is for one server: name one by --servers", USAGE)
        return self.clients[0]

    async def each(self, call: Callable[[Client], Awaitable[_T]], again: bool = False) -> dict[str, _T]:
        """
        Ask all servers the same, at the same time.

        @param again: whether this is asked again and again, so that a server which has failed may come back.
        @return: what those answered that could be asked, by address.
        @raise DarnerError: why the first failed, where all did.
        """

        async def ask(client: Client) -> Union[_T, DarnerError]:
            try:
                await client.connect()
                return await call(client)
            except DarnerError as error:
                return error

        results = await asyncio.gather(*map(ask, self.clients))
        errors = [result for result in results if isinstance(result, DarnerError)]
        if errors and len(errors) == len(results):
            raise errors[0]
        answers: dict[str, _T] = {}
        for client, result in zip(self.clients, results, strict=True):
            if not isinstance(result, DarnerError):
                answers[str(client.address)] = result
                if again:
                    self._failed.pop(client, None)
            elif client not in self._failed:
                self._failed[client] = result
                text = explain(result)
                if not self.silent:
                    self._output.warn(text if str(client.address) in text else f"{client.address}: {text}")
        return answers

    async def reach(self, again: bool = False) -> Reached:
        """
        @param again: whether a put that is in doubt is made again, so that there may be two of it.
        @return: what puts items to, and reads from, any of the servers.
        @raise DarnerError: none can be reached.
        """
        if len(self.clients) == 1:
            await self.clients[0].connect()
            return self.clients[0]
        await self.each(lambda client: client.version())
        self._failed.clear()  # it goes on without them
        settings = self._settings
        fleet: Any = Fleet(
            self._places, tls=settings.context(), server_hostname=settings.server_hostname or None,
            timeout=settings.timeout, again=again, **self._login,
        )  # fmt: skip
        await fleet.start()
        self._fleet = fleet
        return self._fleet

    async def any(self) -> Client:
        """@return: the first server that can be reached."""
        answers = await self.each(lambda client: client.version())
        self._failed.clear()
        return next(client for client in self.clients if str(client.address) in answers)


def first_address(places: str) -> Address:
    """
    @return: of the first server of a list.
    @raise Failure: there is no list, or none that can be told without looking elsewhere.
    """
    try:
        return address(places.split(",")[0].strip())
    except ValueError as error:
        raise Failure(str(error), USAGE) from None
