"""
Pictures of each page of the dashboard, in both themes and as a phone shows it, of a server that has something to do.

    python -m test.web.dashboard.screenshots [--seconds=60] [DIRECTORY]

The longer it runs, the more the charts have to show.  The pictures are best with the font Inter (Debian: fonts-inter).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from typing import Any

from test.servers import MODULE, PATIENCE, Client, Server, make_directory
from test.web.dashboard.chromium import CHROMIUM, PHONE, WIDE, address, expect, sync_playwright

CONFIG = """
[defaults]
max_age = "7d"

[queues."mail_*"]
max_items = 5000

[queues.jobs]
max_items = 2000
open_timeout = "5min"
retry_delay = "2min"
max_attempts = 2
dead_letter_queue = "jobs_dead"

[queues.thumbnails]
durable = false
max_bytes = "8MiB"

[queues.orders]
dedupe_window = "1h"
"""
QUEUES = {
    "jobs": (40, 300), "orders": (25, 0), "orders+audit": (0, 900), "mail_welcome": (8, 20), "mail_invoice": (5, 4200),
    "thumbnails": (60, 150), "webhooks": (30, 1200), "search_index": (15, 60), "exports": (0.5, 3), "push": (50, 10),
}  # fmt: skip
"""Of each queue, items a second and about how many it has."""


class Load:
    """Clients that put and take."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self._server = server
        self._ended = Event()
        self._stack = stack

    def start(self) -> None:
        for number, (queue, (rate, items)) in enumerate(QUEUES.items()):
            self._run(self._work, queue.encode(), rate, items, number)
        self._run(self._wait)
        self._run(self._hold)

    def end(self) -> None:
        self._ended.set()

    def _run(self, call: Callable[..., None], *arguments: Any) -> None:
        thread = Thread(target=self._with_client, args=(call, *arguments))
        thread.start()
        self._stack.callback(thread.join)

    def _with_client(self, call: Callable[..., None], *arguments: Any) -> None:
        with self._server.client() as client:
            call(client, *arguments)

    def _work(self, client: Client, queue: bytes, rate: float, items: int, number: int) -> None:
        dice = random.Random(number)
        there = 0
        while not self._ended.is_set():
            wave = 1 + 0.4 * math.sin(time.time() / (20 + 7 * number) + number)
            while there < items * wave:
                self._put(client, queue, dice)
                there += 1
            if rate:
                self._put(client, queue, dice)
                client.get(queue)
                while there > items * wave * 1.05:
                    client.get(queue)
                    there -= 1
            self._ended.wait(1 / (rate * wave) if rate else 1)

    @staticmethod
    def _put(client: Client, queue: bytes, dice: random.Random) -> None:
        job = dice.choice(["resize", "render", "notify"])
        client.set(queue, json.dumps({"job": job, "id": dice.randrange(10**6), "sizes": [64, 256, 1024]}).encode())

    def _wait(self, client: Client) -> None:
        client.send(b"get mail_bounced invoices/t=3600000\r\n")
        self._ended.wait()

    def _hold(self, client: Client) -> None:
        """Have some items open, some that wait for another attempt, some delayed and some dead."""
        for at in range(12):
            client.send_set(b"reminders/delay=%d" % (600_000 + at * 50_000), b"remind user %d" % at)
            client.line()
        for at in range(7):
            client.set(b"jobs_dead", b'{"job": "render", "id": %d, "error": "no such file"}' % at)
        for _ in range(3):
            client.get(b"jobs/open")
            client.ask(b"get jobs/abort")
        for queue in (b"jobs", b"webhooks"):
            client.get(queue + b"/open")
        self._ended.wait()


def take(page: Any, where: str, size: str, theme: str, directory: Path) -> None:
    """Take the pictures of all pages."""

    def shoot(name: str) -> None:
        page.screenshot(path=str(directory / f"{name}-{size}-{theme}.png"))

    page.goto(where)
    expect(page.locator("table.virtual.loaded .sparkline path[d]").first).to_be_attached()
    expect(page.locator("#connection.good")).to_be_visible()
    shoot("queues")
    page.goto(f"{where}#/queue/jobs")
    expect(page.locator(".items-table")).to_be_visible()
    expect(page.locator(".chart .series .line").first).to_be_attached()
    page.wait_for_timeout(2000)
    shoot("queue")
    page.locator(".items-table tbody tr").first.get_by_role("button").click()
    expect(page.locator(".payload")).to_be_visible()
    shoot("item")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Drop items…").click()
    shoot("question")
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="Dead").click()
    expect(page.locator(".items-table, .browse .empty").first).to_be_visible()
    page.locator(".browse").scroll_into_view_if_needed()
    shoot("items")
    page.locator(".settings").scroll_into_view_if_needed()
    shoot("settings")
    page.goto(f"{where}#/clients")
    expect(page.locator("table.virtual.loaded")).to_be_visible()
    shoot("clients")
    page.goto(f"{where}#/server")
    expect(page.locator(".facts div").first).to_be_visible()
    page.wait_for_timeout(1500)
    shoot("server")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m test.web.dashboard.screenshots", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=Path("screenshots"))
    parser.add_argument("--seconds", type=float, default=60, help="how long the server works before; by default 60")
    given = parser.parse_args(arguments)
    given.directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.addCleanup = stack.callback  # type: ignore[attr-defined]
        directory = make_directory(stack)  # type: ignore[arg-type]
        (directory / "darner.toml").write_text(CONFIG)
        server = Server(
            stack, "--port=0", "--http-port=0", f"--data-dir={directory / 'data'}",  # type: ignore[arg-type]
            f"--config={directory / 'darner.toml'}", program=MODULE, directory=directory,
        )  # fmt: skip
        load = Load(server, stack)
        load.start()
        stack.callback(load.end)
        time.sleep(given.seconds)
        play = stack.enter_context(sync_playwright())
        expect.set_options(timeout=PATIENCE * 1000)
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--force-color-profile=srgb"])
        stack.callback(browser.close)
        for size, viewport in [("wide", WIDE), ("phone", PHONE)]:
            for theme in ("light", "dark"):
                page = browser.new_page(viewport=viewport, color_scheme=theme)
                take(page, f"{address(server)}/", size, theme, given.directory)
                page.close()
        print(f"{len(list(given.directory.glob('*.png')))} pictures are in {given.directory}")


if __name__ == "__main__":
    main(sys.argv[1:])
