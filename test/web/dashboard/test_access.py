"""
Tests of whether everybody can use the dashboard, on any screen, and whether it is there at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from test.servers import Server, until
from test.web.dashboard.chromium import PHONE, WIDE, BrowserTests, expect, faults_of, put

CONFIG = """
[queues.jobs]
max_items = 5
max_attempts = 1
dead_letter_queue = "jobs_dead"
[queues.cache]
durable = false
max_bytes = "1MiB"
"""
SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
        const moved = entry.sources.map(({node}) => node?.outerHTML?.slice(0, 90));
        if (!entry.hadRecentInput) window.shifts.push([entry.value, moved]);
    }
}).observe({type: "layout-shift", buffered: true});
"""


def pages(page: Any) -> Iterator[str]:
    """Go through all that the dashboard can show, and say where we are when it is there."""

    def go(where: str, shown: str) -> None:
        # The page that was shown before may have the same in it.
        page.evaluate(
            """where => new Promise((done) => {
                if (location.hash === where) return done();
                window.addEventListener("hashchange", () => setTimeout(done), {once: true});
                location.hash = where;
            })""",
            where,
        )
        expect(page.locator(shown).first).to_be_visible()

    def dialog(button: str) -> Iterator[str]:
        page.get_by_role("button", name=button).first.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        yield button
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)

    go("#/", "table.virtual.loaded tbody tr:not(.spacer)")
    yield "queues"
    page.get_by_role("searchbox").fill("nothing_of_this_name")
    expect(page.get_by_role("heading", name="No queue matches")).to_be_visible()
    yield "no queue"
    go("#/queue/jobs", ".items-table")
    yield "queue"
    for button in ("Put an item…", "Move items…", "Drop items…", "Delete all…"):
        yield from dialog(button)
    page.locator(".items-table tbody tr").first.get_by_role("button").click()
    expect(page.locator(".payload")).to_be_visible()
    yield "item"
    page.keyboard.press("Escape")
    for state in ("open", "delayed", "retrying", "dead"):
        page.get_by_role("tab", name=state.capitalize()).click()
        expect(page.locator(".browse .items-table, .browse .empty").first).to_be_visible()
        yield state
    go("#/queue/no_such_queue", "text=There is no such queue")
    yield "no such queue"
    go("#/clients", "table.virtual.loaded tbody tr:not(.spacer)")
    yield "clients"
    go("#/server", ".facts div")
    yield "server"
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    yield "keys"
    page.keyboard.press("Escape")


class AccessTests(BrowserTests):
    def serve_all(self) -> Server:
        """@return: a server that has something of everything."""
        server = self.serve(config=CONFIG)
        put(server, "jobs", b'{"a": 1}', b"text", b"\xff\x00", b"", b"x")
        put(server, "jobs_dead", b"dead")
        put(server, "cache", b"x")
        worker = server.client()
        self.addCleanup(worker.close)
        worker.get(b"jobs/open")
        return server

    def check(self, server: Server, size: dict[str, int], theme: str) -> None:
        page = self.open(server, size=size, theme=theme)
        faults = []
        for where in pages(page):
            faults += [f"{where}: {fault}" for fault in faults_of(page)]
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if wide > 0:
                faults.append(f"{where}: {wide} pixels to the right of the screen")
        self.assertEqual(faults, [])

    def test_wide_and_light(self) -> None:
        self.check(self.serve_all(), WIDE, "light")

    def test_phone_and_dark(self) -> None:
        self.check(self.serve_all(), PHONE, "dark")

    def test_log_in(self) -> None:
        page = self.open(self.serve(users="root"), theme="dark")
        expect(page.get_by_label("User")).to_be_visible()
        self.assertEqual(faults_of(page), [])

    def test_by_keyboard_alone(self) -> None:
        """From the filter to a queue, to its items and back, without a pointer."""
        server = self.serve_all()
        page = self.open(server)
        expect(page.get_by_role("link", name="jobs", exact=True)).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("/")
        expect(page.get_by_role("searchbox")).to_be_focused()
        page.keyboard.type("jobs")
        expect(page.get_by_text("2 of 3 queues")).to_be_visible()
        page.keyboard.press("ArrowDown")
        expect(page.get_by_role("link", name="jobs", exact=True)).to_be_focused()
        page.keyboard.press("ArrowDown")
        expect(page.get_by_role("link", name="jobs_dead")).to_be_focused()
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="jobs", exact=True)).to_be_visible()
        expect(page.locator("main")).to_be_focused()
        item = page.locator(".items-table tbody tr").first.get_by_role("button")
        item.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog", name="Item 1 of jobs")).to_be_visible()
        page.keyboard.press("Escape")
        expect(item).to_be_focused()
        # A chart is read point by point.
        chart = page.locator(".chart", has_text="Items").first
        expect(chart.locator(".plot")).to_have_attribute("aria-label", re.compile(r"Items, the last 5 min\. .*now 4"))
        chart.locator(".plot").focus()
        page.keyboard.press("Home")
        expect(chart.locator(".when")).to_contain_text("at ")
        page.keyboard.press("c")
        expect(page.get_by_role("heading", name="Clients")).to_be_visible()

    def test_theme(self) -> None:
        """It is the system's until another is chosen, and that one stays."""
        server = self.serve()
        page = self.open(server, theme="dark")
        html = page.locator("html")
        expect(html).to_have_attribute("data-theme", "dark")
        page.emulate_media(color_scheme="light")
        expect(html).to_have_attribute("data-theme", "light")
        page.get_by_role("button", name="Use the dark theme").click()
        page.reload()
        expect(html).to_have_attribute("data-theme", "dark")

    def test_there_at_once(self) -> None:
        """Everything is there soon, and stays where it is while figures come in."""
        server = self.serve_all()
        places = [("/", "table.virtual.loaded"), ("/#/queue/jobs", ".items-table"), ("/#/server", ".facts div")]
        for where, shown in places:
            page = self.open(server, where, script=SHIFTS)
            expect(page.locator(shown).first).to_be_visible()
            expect(page.locator("#health.good")).to_be_visible()
            moved = page.evaluate("window.shifts")
            self.assertLess(sum(value for value, _ in moved), 0.005, f"{where}: {moved}")

        self.check_first_paint(server)

    def check_first_paint(self, server: Server) -> None:
        """
        It takes two round trips and little to load: the page itself, and what that names.  Neither scripts nor figures
        have to be there.
        """
        page = self.open(server)
        expect(page.locator("table.virtual.loaded")).to_be_visible()
        loaded = page.evaluate(
            """() => performance.getEntriesByType("resource").filter(({name}) => name.includes("/static/"))
                .map(({name, encodedBodySize, renderBlockingStatus}) =>
                    [new URL(name).pathname, encodedBodySize, renderBlockingStatus === "blocking"])"""
        )
        self.assertLess(sum(size for _, size, _ in loaded), 200_000)
        blocking = {name: size for name, size, blocks in loaded if blocks}
        self.assertTrue(blocking)
        self.assertLess(sum(blocking.values()), 60_000)
        self.assertLessEqual(set(blocking), set(re.findall('"(/static/[^"]+)"', page.request.get(page.url).text())))
        page.route(re.compile("/api/|/static/main.js"), lambda route: None)
        page.reload(wait_until="commit")
        # Not wait_for_function: where that has to wait, the page's Content-Security-Policy refuses it.
        painted = "performance.getEntriesByName('first-contentful-paint').length"
        until(lambda: page.evaluate(painted), "the first paint")
        expect(page.get_by_role("link", name="Queues", exact=True)).to_be_visible()
        page.unroute_all(behavior="ignoreErrors")
