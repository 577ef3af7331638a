"""
Tests of the page of all queues.
"""

from __future__ import annotations

import re
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from test.servers import Client, Server
from test.web.dashboard.chromium import BrowserTests, address, expect, put

MANY = [f"q{number:05d}" for number in range(100_000)]
ROWS = "table.virtual tbody tr:not(.spacer)"


def names(page: Any) -> list[str]:
    """@return: the queues that are shown, in their order."""
    return page.locator(f"{ROWS} th").all_inner_texts()


def cell(page: Any, queue: str, column: str) -> Any:
    """@return: a cell of the list, by the heading of its column."""
    expect(page.locator("table.virtual thead th").first).to_be_visible()
    headings = [re.sub(r"[↑↓]", "", text).strip() for text in page.locator("table.virtual thead th").all_inner_texts()]
    row = page.locator(ROWS).filter(has=page.get_by_role("link", name=queue, exact=True))
    return row.locator("th, td").nth(headings.index(column))


class OverviewTests(BrowserTests):
    def test_without_queues(self) -> None:
        """Who sees nothing learns how to put an item, and can put one right there."""
        page = self.open(self.serve())
        expect(page.get_by_role("heading", name="No queues yet")).to_be_visible()
        expect(page.get_by_text("printf 'set jobs 0 0 5\\r\\nhello\\r\\nquit\\r\\n' | nc 127.0.0.1")).to_be_visible()
        page.get_by_role("button", name="Put an item").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Queue", exact=True).fill("first")
        dialog.get_by_label("Payload").fill("hello\nworld")
        dialog.get_by_role("button", name="Put", exact=True).click()
        expect(page.get_by_role("heading", name="first")).to_be_visible()
        expect(page.locator(".items-table tbody tr")).to_have_count(1)
        expect(page.locator(".items-table td.preview")).to_have_text("hello world")
        page.get_by_role("link", name="Queues", exact=True).first.click()
        expect(cell(page, "first", "Items")).to_have_text("1")

    def test_figures(self) -> None:
        config = """
            [queues.small]
            max_items = 4
            [queues.jobs]
            max_attempts = 1
            dead_letter_queue = "jobs_dead"
        """
        server = self.serve(config=config)
        put(server, "small", b"1234", b"1234", b"1234")
        put(server, "jobs", b"bad", b"good", b"worse")
        put(server, "later", b"x", options="/delay=600000")
        page = self.open(server)
        with server.client() as worker, server.client() as waiter:
            self.assertEqual(worker.get(b"jobs/open"), b"bad")
            self.assertEqual(worker.ask(b"get jobs/abort"), b"END")
            self.assertEqual(worker.get(b"jobs/open"), b"good")
            waiter.send(b"get waited/t=600000\r\n")
            for queue, column, text in [
                ("small", "Items", "3"), ("small", "Bytes", "12 B"), ("small", "Limit used", "75 %"),
                ("jobs", "Items", "1"), ("jobs", "Open", "1"), ("jobs", "Dead", "1"), ("jobs", "Limit used", "–"),
                ("later", "Items", "0"), ("later", "Delayed", "1"), ("later", "Dead", "–"), ("waited", "Waiters", "1"),
            ]:  # fmt: skip
                expect(cell(page, queue, column)).to_have_text(text)
            expect(page.locator(".tile", has_text="Items").locator("dd")).to_have_text("5")
            expect(page.locator(".tile", has_text="Clients").locator("dd")).to_have_text("2")
            expect(page.get_by_text("Healthy")).to_be_visible()

    def test_filter_and_sort(self) -> None:
        server = self.serve()
        for queue, items in [("mail_in", 2), ("mail_out", 3), ("jobs", 1)]:
            put(server, queue, *[b"x"] * items)
        page = self.open(server)
        expect(page.locator(ROWS)).to_have_count(3)
        self.assertEqual(names(page), ["jobs", "mail_in", "mail_out"])
        page.get_by_role("button", name="Items").click()
        expect(page.locator("thead [aria-sort]")).to_have_attribute("aria-sort", "descending")
        expect(page.locator(ROWS).first).to_contain_text("mail_out")
        self.assertEqual(names(page), ["mail_out", "mail_in", "jobs"])
        page.get_by_role("button", name="Items").click()
        expect(page.locator(ROWS).first).to_contain_text("jobs")
        page.keyboard.press("/")
        page.keyboard.type("MAIL")
        expect(page.locator(ROWS)).to_have_count(2)
        expect(page.get_by_text("2 of 3 queues")).to_be_visible()
        page.keyboard.type("_*x")
        expect(page.get_by_text("0 of 3 queues")).to_be_visible()
        expect(page.get_by_role("heading", name="No queue matches")).to_be_visible()
        page.get_by_role("searchbox").fill("mail_?n")
        expect(page.locator(ROWS)).to_have_count(1)
        # What is shown has an address of its own.
        page.reload()
        expect(page.locator(ROWS)).to_have_count(1)
        expect(page.get_by_role("searchbox")).to_have_value("mail_?n")
        expect(page.locator("thead [aria-sort]")).to_have_attribute("aria-sort", "ascending")
        page.get_by_role("searchbox").fill("")
        expect(page.locator(ROWS)).to_have_count(3)

    def test_while_load_runs(self) -> None:
        """The list follows what clients do, and what is clicked works meanwhile."""
        server = self.serve()
        ended = Event()
        worker = Thread(target=work, args=(server, ended))
        worker.start()
        self.addCleanup(worker.join)
        self.addCleanup(ended.set)
        page = self.open(server)
        expect(cell(page, "busy", "In/s")).to_have_text(re.compile(r"^[1-9]"))
        expect(cell(page, "busy", "Out/s")).to_have_text(re.compile(r"^[1-9]"))
        expect(page.locator(".tile", has_text="In/s").locator("dd")).to_have_text(re.compile(r"^[1-9]"))
        page.get_by_role("link", name="busy").click()
        expect(page.locator(".tile", has_text="Out/s").locator("dd")).to_have_text(re.compile(r"^[1-9]"))
        expect(page.locator(".chart .series.in .line")).to_have_attribute("d", re.compile(r"^M.*L"))
        page.get_by_role("button", name="Put an item…").click()
        page.get_by_role("dialog").get_by_label("Payload").fill("by hand")
        page.get_by_role("button", name="Put", exact=True).click()
        expect(page.get_by_text("The item is on busy.").first).to_be_visible()
        ended.set()

    def test_100_000_queues(self) -> None:
        """Only rows in view exist, only pages in view are asked for, and each row can be reached."""
        server = self.serve()
        put(server, "q", b"x")
        page = self.open(server, "/#/server")
        asked: list[int] = []

        def answer(route: Any) -> None:
            """Say what the server would of its one queue, with 100,000 names."""
            query = parse_qs(urlsplit(route.request.url).query)
            names = [name for name in MANY if query.get("filter", [""])[0] in name]
            offset, limit = int(query["offset"][0]), int(query["limit"][0])
            asked.append(offset)
            rows = [{**row, "name": name} for name in names[offset : offset + limit]]
            route.fulfill(json={**one, "queues": rows, "total": len(names), "offset": offset, "totals": totals})

        one = page.request.get(f"{address(server)}/api/v1/queues?sparkline=true").json()
        row, totals = one["queues"][0], {**one["totals"], "queues": len(MANY)}
        page.route("**/api/v1/queues?*", answer)
        page.get_by_role("link", name="Queues", exact=True).first.click()
        expect(page.get_by_text("100,000 queues")).to_be_visible()
        expect(page.locator(ROWS).first).to_contain_text("q00000")
        expect(page.locator("table.virtual")).to_have_attribute("aria-rowcount", "100001")
        self.assertLess(page.locator(ROWS).count(), 60)
        page.evaluate(
            """async () => {
                // However long a frame takes, that is no pause in the dragging: timers wait until it is over.
                const { setTimeout, clearTimeout } = window;
                const waiting = new Map();
                window.setTimeout = (...timer) => {
                    const number = -1 - waiting.size;
                    waiting.set(number, timer);
                    return number;
                };
                window.clearTimeout = (number) => number < 0 ? waiting.set(number, null) : clearTimeout(number);
                const end = document.documentElement.scrollHeight;
                for (let at = 1; at <= 60; at++) {
                    window.scrollTo(0, end * at / 60);
                    await new Promise(requestAnimationFrame);
                }
                Object.assign(window, { setTimeout, clearTimeout });
                for (const timer of waiting.values()) if (timer) setTimeout(...timer);
            }"""
        )
        expect(page.get_by_role("link", name="q99999", exact=True)).to_be_in_viewport()
        self.assertLess(page.locator(ROWS).count(), 60)
        # What is in view is asked for again each 2 s.
        self.assertLess(len(set(asked)), 10, "pages that passed by were asked for")
        # By keyboard from row to row, also where the next one is out of view.
        last = page.get_by_role("link", name="q99999", exact=True)
        last.focus()
        for _ in range(30):
            page.keyboard.press("ArrowUp")
        expect(page.get_by_role("link", name="q99969", exact=True)).to_be_focused()
        expect(page.get_by_role("link", name="q99969", exact=True)).to_be_in_viewport()
        # Faster than the browser draws.
        page.evaluate(
            """() => {
                for (let key = 0; key < 30; key++) {
                    const event = new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true });
                    document.activeElement.dispatchEvent(event);
                }
            }"""
        )
        expect(last).to_be_focused()
        page.keyboard.press("/")
        page.keyboard.type("4242")
        expect(page.get_by_text("20 of 100,000 queues")).to_be_visible()
        expect(page.get_by_role("link", name="q04242", exact=True)).to_be_in_viewport()
        page.unroute_all(behavior="ignoreErrors")


def work(server: Server, ended: Event) -> None:
    """Put and take until told to stop."""
    with server.client() as client:
        while not ended.wait(0.005):
            produce(client)


def produce(client: Client) -> None:
    client.set(b"busy", b"one")
    client.set(b"busy", b"two")
    client.get(b"busy")
