"""
Tests of a queue's page: what it shows, and what can be done on it.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from test.servers import Server
from test.web.dashboard.chromium import BrowserTests, Error, count, expect, put, until_seen

ITEMS = ".items-table tbody tr"
CONFIG = """
[defaults]
max_age = "7d"

[queues."j*"]
max_items = 1000
retry_delay = "10min"

[queues.jobs]
max_attempts = 2
dead_letter_queue = "jobs_dead"
"""


def tab(page: Any, name: str) -> Any:
    return page.get_by_role("tab", name=name)


def confirm(page: Any, question: str, button: str) -> None:
    """Answer a question with this button."""
    dialog = page.get_by_role("dialog", name=question)
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name=button, exact=True).click()


class QueueTests(BrowserTests):
    def test_settings_and_why(self) -> None:
        server = self.serve(config=CONFIG)
        put(server, "jobs", b"x")
        page = self.open(server, "/#/queue/jobs")
        settings = page.locator(".settings-table tbody tr")
        for name, value, why in [
            ("max_age", "7d", "table [defaults]"), ("max_items", "1000", 'pattern [queues."j*"]'),
            ("max_attempts", "2", "its own table [queues.jobs]"), ("sync", "never", "default"),
        ]:  # fmt: skip
            row = settings.filter(has=page.get_by_role("rowheader", name=name, exact=True))
            expect(row.locator("td")).to_have_text([value, why])
        expect(settings.first).not_to_contain_text("default dead")
        expect(page.locator(".tile", has_text="Limit used").locator("dd")).to_have_text("<1 %")

    def test_states_of_items(self) -> None:
        """Each tab has the items of its state and says what there is to know of them."""
        server = self.serve(config=CONFIG)
        put(server, "jobs", b"retried", b"failed", b"taken", b"waiting", flags=7)
        put(server, "jobs", b"later", options="/delay=129600000")
        with server.client() as worker:
            self.assertEqual(worker.get(b"jobs/open"), b"retried")
            worker.ask(b"get jobs/abort")
            self.assertEqual(worker.get(b"jobs/open"), b"failed")
            page = self.open(server, "/#/queue/jobs")
            expect(tab(page, "Ready")).to_have_text("Ready2")
            expect(page.locator(f"{ITEMS} .preview")).to_have_text(["taken", "waiting"])
            tab(page, "Open").click()
            expect(page.locator(ITEMS)).to_have_count(1)
            expect(page.locator(ITEMS)).to_contain_text("127.0.0.1")
            expect(page.locator(ITEMS)).to_contain_text("failed")
            page.keyboard.press("ArrowRight")
            expect(tab(page, "Delayed")).to_be_focused()
            expect(page.locator(ITEMS)).to_contain_text("later")
            expect(page.locator(ITEMS)).to_contain_text(re.compile(r"1 d 1[12] h"))
            page.keyboard.press("ArrowRight")
            expect(page.locator(ITEMS)).to_contain_text("retried")
            tab(page, "Dead").click()
            expect(page.get_by_role("heading", name="No dead letters")).to_be_visible()
            # An address for each tab.
            page.reload()
            expect(tab(page, "Dead")).to_have_attribute("aria-selected", "true")

    def test_dead_letters_go_back(self) -> None:
        server = self.serve(config=CONFIG.replace("max_attempts = 2", "max_attempts = 1"))
        put(server, "jobs", b"one", b"two", b"three")
        with server.client() as worker:
            for _ in range(3):
                worker.get(b"jobs/open")
                worker.ask(b"get jobs/abort")
        page = self.open(server, "/#/queue/jobs?items=dead")
        expect(page.locator(f"{ITEMS} .preview")).to_have_text(["one", "two", "three"])
        page.locator(ITEMS).nth(1).get_by_role("checkbox").check()
        page.get_by_role("button", name="Send back 1…").click()
        confirm(page, "Send 1 dead letter back to jobs?", "Send back")
        expect(page.locator(f"{ITEMS} .preview")).to_have_text(["one", "three"])
        page.get_by_role("button", name="Send back all…").click()
        confirm(page, "Send all 2 dead letters back to jobs?", "Send back")
        expect(page.get_by_role("heading", name="No dead letters")).to_be_visible()
        self.assertEqual((count(server, "jobs"), count(server, "jobs_dead")), (3, 0))

    def test_payloads(self) -> None:
        """A payload is shown as text, JSON or hexadecimal digits, whatever it is, and comes down byte for byte."""
        large = bytes(range(256)) * 4000
        server = self.serve()
        put(server, "things", '{"name":"Zoë","big":12345678901234567890}'.encode(), b"\x00\xff", b"", large)
        page = self.open(server, "/#/queue/things", accept_downloads=True)
        payload = page.locator(".payload")

        def look(at: int) -> None:
            page.locator(ITEMS).nth(at).get_by_role("button").click()

        look(0)
        expect(payload).to_have_text('{\n  "name": "Zoë",\n  "big": 12345678901234567890\n}')
        tab(page, "Text").click()
        expect(payload).to_have_text('{"name":"Zoë","big":12345678901234567890}')
        page.keyboard.press("ArrowLeft")
        expect(payload).to_contain_text('00000000  7b 22 6e 61 6d 65 22 3a  22 5a 6f c3 ab 22 2c 22  {"name":"Zo..","')
        page.keyboard.press("Escape")
        look(1)
        expect(payload).to_contain_text("00 ff")
        expect(tab(page, "Text")).to_be_disabled()
        page.keyboard.press("Escape")
        look(2)
        expect(payload).to_have_text("The payload is empty.")
        page.keyboard.press("Escape")
        look(3)
        expect(page.get_by_text("The first 4.0 KiB of 1000 KiB. Download it to see all.")).to_be_visible()
        with page.expect_download() as download:
            page.get_by_role("link", name="Download").click()
        self.assertEqual(Path(download.value.path()).read_bytes(), large)

    def filled(self) -> tuple[Server, Any]:
        """@return: a server with items in a queue, and its page."""
        server = self.serve()
        put(server, "jobs", *[b"%s %d" % (word, number) for number in range(20) for word in (b"good", b"bad")])
        page = self.open(server, "/#/queue/jobs")
        expect(page.locator(ITEMS)).to_have_count(25)
        return server, page

    def test_one_or_many_items(self) -> None:
        server, page = self.filled()
        page.locator(ITEMS).nth(0).get_by_role("button").click()
        page.get_by_role("button", name="Delete…").click()
        confirm(page, "Delete 1 ready item of jobs?", "Cancel")
        self.assertEqual(count(server, "jobs"), 40)
        page.get_by_role("button", name="Delete…").click()
        confirm(page, "Delete 1 ready item of jobs?", "Delete 1 ready item")
        expect(page.locator(f"{ITEMS} .preview").first).to_have_text("bad 0")
        self.assertEqual(count(server, "jobs"), 39)
        for at in (0, 2):
            page.locator(ITEMS).nth(at).get_by_role("checkbox").check()
        page.get_by_role("button", name="Move 2…").click()
        page.get_by_label("To the end of the queue").fill("other")
        confirm(page, "Move 2 ready items of jobs", "Move")
        expect(page.get_by_text("2 items moved.").first).to_be_visible()
        with server.client() as client:
            self.assertEqual([client.get(b"other"), client.get(b"other")], [b"bad 0", b"bad 1"])

    def test_all_that_a_filter_selects(self) -> None:
        server, page = self.filled()
        page.get_by_label("Payload contains").fill("bad 1")
        expect(page.locator(ITEMS)).to_have_count(11)
        page.get_by_role("button", name="Delete all that match…").click()
        dialog = page.get_by_role("dialog", name="Delete all ready items that the filter selects of jobs?")
        expect(dialog).to_contain_text("the payload contains “bad 1”")
        dialog.get_by_role("button", name="Delete all ready items selected").click()
        expect(page.get_by_role("heading", name="No item matches")).to_be_visible()
        self.assertEqual(count(server, "jobs"), 29)

    def test_pages_of_items(self) -> None:
        _, page = self.filled()
        expect(page.get_by_role("button", name="Previous")).to_be_disabled()
        page.get_by_role("button", name="Next").click()
        expect(page.locator(ITEMS)).to_have_count(15)
        expect(page.locator(f"{ITEMS} .preview").last).to_have_text("bad 19")
        page.get_by_role("button", name="Previous").click()
        expect(page.locator(ITEMS)).to_have_count(25)
        page.get_by_label("Begin at the item with this id").fill("38")
        expect(page.locator(ITEMS)).to_have_count(2)

    def test_list_that_is_shown_anew(self) -> None:
        """Whoever is at an item stays there, also behind a question."""
        _, page = self.filled()
        item = page.locator(ITEMS).first.get_by_role("button")
        held: list[Any] = []
        holding = True

        def hold(route: Any) -> None:
            if holding:
                held.append(route)
            else:
                route.continue_()

        page.route("**/items?*", hold)
        for key in ("", "Enter"):
            holding = True
            until_seen(page, lambda: held, "the page asks for the items by itself")
            page.evaluate("document.querySelector('.items-table').id = 'old'")
            item.focus()
            if key:
                page.keyboard.press(key)
                expect(page.get_by_role("dialog", name="Item 0 of jobs")).to_be_visible()
            holding = False
            for route in held:
                with contextlib.suppress(Error):  # the page asks for the items once more where that takes long
                    route.continue_()
            held.clear()
            expect(page.locator("#old")).to_have_count(0)
            if key:
                page.keyboard.press("Escape")
            expect(item).to_be_focused()
            page.evaluate("document.activeElement.blur()")
        page.unroute_all(behavior="ignoreErrors")

    def test_items_of_others_are_given_back(self) -> None:
        server = self.serve()
        put(server, "jobs", b"stuck")
        with server.client() as worker:
            worker.get(b"jobs/open")
            page = self.open(server, "/#/queue/jobs?items=open")
            page.get_by_role("button", name="Give back all…").click()
            confirm(page, "Give back: the 1 open item of jobs?", "Give back")
            expect(page.get_by_role("heading", name="Nobody has an item open")).to_be_visible()
            self.assertEqual(count(server, "jobs"), 1)

    def test_whole_queue(self) -> None:
        """Move items, drop the rest, delete the queue: each asks, and says what it is about to do."""
        server, page = self.filled()
        page.get_by_role("button", name="Move items…").click()
        page.get_by_label("To the queue").fill("other")
        page.get_by_label("How many").fill("15")
        confirm(page, "Move items of jobs", "Move")
        expect(page.locator(".tile", has_text="Items").locator("dd")).to_have_text("25")
        self.assertEqual(count(server, "other"), 15)
        page.get_by_role("button", name="Drop items…").click()
        confirm(page, "Drop 25 items of jobs?", "Cancel")
        self.assertEqual(count(server, "jobs"), 25)
        page.get_by_role("button", name="Drop items…").click()
        confirm(page, "Drop 25 items of jobs?", "Drop 25 items")
        expect(page.get_by_role("heading", name="Nothing to take")).to_be_visible()
        self.assertEqual(count(server, "jobs"), 0)
        page.get_by_role("button", name="Delete queue…").click()
        confirm(page, "Delete the queue jobs?", "Delete the queue")
        expect(page.get_by_role("heading", name="Queues")).to_be_visible()
        expect(page.get_by_role("link", name="other")).to_be_visible()
        expect(page.get_by_role("link", name="jobs")).to_have_count(0)
        page.go_back()
        expect(page.get_by_role("heading", name="There is no such queue")).to_be_visible()

    def test_put(self) -> None:
        server = self.serve(config='[queues.jobs]\ndedupe_window = "1h"\nmax_items = 2\n')
        page = self.open(server, "/#/queue/jobs")
        dialog = page.get_by_role("dialog")

        def fill(payload: str, **fields: str) -> None:
            page.get_by_role("button", name="Put an item…").first.click()
            dialog.get_by_label("Payload").fill(payload)
            for label, value in fields.items():
                dialog.get_by_label(label.replace("_", " ")).fill(value)
            dialog.get_by_role("button", name="Put", exact=True).click()

        fill("later", Delay_in_seconds="3600", Flags="9")
        expect(tab(page, "Delayed")).to_have_text("Delayed1")
        fill("Zoë", Id="once")
        expect(page.locator(f"{ITEMS} .preview")).to_have_text("Zoë")
        fill("one too many")
        expect(dialog.get_by_role("alert")).to_have_text(re.compile("full", re.IGNORECASE))
        page.keyboard.press("Escape")
        with server.client() as client:
            self.assertEqual(client.get(b"jobs"), "Zoë".encode())
