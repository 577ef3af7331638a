"""
The dashboard in a real Chromium, as a person sees and uses it.

Playwright keeps an event loop of asyncio running in its thread.  So it has a thread of its own, in which one browser
serves all tests of the process, and each test's body runs there.
"""

from __future__ import annotations

import atexit
import re
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache, partial, wraps
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Optional
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

try:
    from playwright.sync_api import Error, expect, sync_playwright
except ImportError:  # the tests are skipped then
    Error = expect = sync_playwright = None

from test.servers import MODULE, PATIENCE, Server, make_directory, until

CHROMIUM = shutil.which("chromium")
AXE = Path(sys.prefix) / "node" / "node_modules" / "axe-core" / "axe.min.js"
"""Where C{.ci/setup} puts what checks whether everybody can use a page."""
WIDE = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
PASSWORD = "open sesame"

_PATIENT = """{
    // The page looks each second whether the server has been silent for too long.
    const every = window.setInterval;
    window.setInterval = (call, pause, ...more) => every(call, pause === 1000 ? 2 ** 31 - 1 : pause, ...more);
}"""
"""Has a page not say that the connection is lost only because server or browser stood still for some seconds."""

_WORDS_OF_LOADING = "Failed to load resource"
"""Chromium's console has a line for each answer that is an error; the page shows those that matter."""


class BrowserThread:
    """A thread with a browser in it, which does what it is given."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Optional[tuple[Future[Any], Callable[[], Any]]]] = SimpleQueue()
        self._browser: Any = None
        self._thread = Thread(target=self._run, name="browser", daemon=True)
        self._thread.start()
        atexit.register(self._end)

    def do(self, call: Callable[[], Any]) -> Any:
        """Call something in the thread, and wait for it."""
        done: Future[Any] = Future()
        self._work.put((done, call))
        return done.result()

    @property
    def browser(self) -> Any:
        """The browser; for the thread alone."""
        if self._browser is None:
            expect.set_options(timeout=PATIENCE * 1000)
            self._playwright = sync_playwright().start()
            # As root, and in containers, Chromium's own sandbox cannot be made.
            self._browser = self._playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        return self._browser

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            done, call = work
            try:
                done.set_result(call())
            except BaseException as error:
                done.set_exception(error)
        if self._browser is not None:
            self._browser.close()
            self._playwright.stop()

    def _end(self) -> None:
        self._work.put(None)
        self._thread.join(PATIENCE)


@cache
def browser_thread() -> BrowserThread:
    """@return: the one of this process."""
    return BrowserThread()


def in_browser_thread(test: Callable[[BrowserTests], None]) -> Callable[[BrowserTests], None]:
    """Have a test's method run there."""

    @wraps(test)
    def run(self: BrowserTests) -> None:
        browser_thread().do(partial(self.run_in_browser, partial(test, self)))

    return run


class BrowserTests(SynchronousTestCase):
    """
    Tests whose methods run in the browser's thread.

    A script that throws, an error on the console, and what the Content-Security-Policy refuses fail a test.

    @ivar allowed: texts that errors on the console may have.
    """

    def __init_subclass__(cls) -> None:
        for name, test in list(vars(cls).items()):
            if name.startswith("test"):
                setattr(cls, name, in_browser_thread(test))

    def __init__(self, method: str = "runTest") -> None:
        super().__init__(method)
        self.allowed: list[str] = [_WORDS_OF_LOADING]
        self._contexts: list[Any] = []
        self._complaints: list[str] = []

    def run_in_browser(self, body: Callable[[], None]) -> None:
        """Run the body of a test, in the browser's thread."""
        if CHROMIUM is None or sync_playwright is None:
            raise SkipTest("there is no Chromium, or no Playwright")
        self.browser = browser_thread().browser
        try:
            body()
        finally:
            for context in self._contexts:
                context.close()
        self.assertEqual(self._complaints, [])

    def serve(self, *options: str, config: str = "", users: str = "") -> Server:
        """
        Start a server.

        @param config: its configuration file.
        @param users: names of users; the password of each is L{PASSWORD}.
        """
        directory = make_directory(self)
        (directory / "darner.toml").write_text(config)
        more = [f"--config={directory / 'darner.toml'}"]
        if users:
            file = directory / "passwords"
            file.write_text("".join(f"{user}:{PASSWORD}\n" for user in users.split()))
            file.chmod(0o600)
            more.append(f"--password-file={file}")
        return Server(
            self, "--port=0", "--http-port=0", f"--data-dir={directory / 'data'}", *more, *options, program=MODULE,
            directory=directory,
        )  # fmt: skip

    def open(
        self, server: Server, path: str = "/", size: dict[str, int] = WIDE, theme: str = "light", script: str = "",
        patient: bool = True, **more: Any,
    ) -> Any:  # fmt: skip
        """
        Open a page of a server's in a browser that knows nothing of others.

        @param script: what to run before the scripts of the page.
        @param patient: whether the page waits for a server that is silent.
        """
        context = self.browser.new_context(
            viewport=size, color_scheme=theme, timezone_id="UTC", locale="en-GB", reduced_motion="reduce", **more
        )
        self._contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        if script:
            context.add_init_script(script)
        if patient:
            context.add_init_script(_PATIENT)
        page = context.new_page()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self._complaints.append(f"{error}"))
        page.goto(address(server) + path)
        return page

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning") and not any(text in message.text for text in self.allowed):
            self._complaints.append(message.text)


def address(server: Server) -> str:
    """@return: where the dashboard of a server is, without a slash at the end."""
    found = re.search(r"(http://127\.0\.0\.1:\d+)/", server.text)
    if found is None:
        raise AssertionError(f"no dashboard: {server.text}")
    return found[1]


def put(server: Server, queue: str, *payloads: bytes, options: str = "", flags: int = 0) -> None:
    """Put items by the server's own protocol, where it has no users."""
    with server.client() as client:
        for payload in payloads:
            client.send_set((queue + options).encode(), payload, flags)
        for _ in payloads:
            answer = client.line()
            if answer != b"STORED":
                raise AssertionError(f"not stored: {answer!r}")


def count(server: Server, queue: str) -> int:
    """@return: how many items a queue has, where the server has no users."""
    with server.client() as client:
        return client.count(queue.encode())


def until_seen(page: Any, condition: Callable[[], object], what: str) -> None:
    """Wait until handlers of a page's events have seen something: they are called while a call to the page runs."""
    until(lambda: condition() or page.wait_for_timeout(20), what)


def faults_of(page: Any) -> list[str]:
    """@return: what axe-core finds wrong with a page as it is now, or with the question in front of it."""
    if not AXE.exists():
        raise SkipTest("there is no axe-core: .ci/setup installs it by npm")
    if page.evaluate("typeof axe") == "undefined":
        page.evaluate(AXE.read_text())
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate(
        """values => axe.run(
            document.querySelector("dialog[open]") || document,
            {runOnly: {type: "tag", values}, resultTypes: ["violations"], preload: false},
        )""",
        tags,
    )
    return [
        f"{fault['id']}: {fault['help']}: {node['html'][:120]}"
        for fault in found["violations"]
        for node in fault["nodes"]
    ]
