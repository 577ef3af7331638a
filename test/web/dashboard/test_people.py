"""
Tests of who may see and do what, and of what happens when the connection or the session ends.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any
from urllib.parse import urlsplit

from bench.ports import reserve_port
from test.servers import Server
from test.web.dashboard.chromium import PASSWORD, BrowserTests, expect, put, until_seen

USERS = """
[users.root]
admin = ["*"]

[users.mailer]
read = ["mail_*"]
write = ["mail_*"]
"""


def put_as(server: Server, user: str, queue: str, payload: bytes) -> None:
    """Put an item as a user."""
    with server.client() as client:
        assert client.set(b"auth", f"{user} {PASSWORD}".encode()) == b"STORED"
        assert client.set(queue.encode(), payload) == b"STORED"


class UsersTests(BrowserTests):
    def log_in(self, page: Any, user: str, password: str = PASSWORD) -> None:
        page.get_by_label("User").fill(user)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Log in").click()

    def test_logging_in_and_out(self) -> None:
        server = self.serve(config=USERS, users="root mailer")
        put_as(server, "root", "jobs", b"hello")
        page = self.open(server, "/#/queue/jobs")
        expect(page.get_by_label("User")).to_be_focused()
        self.log_in(page, "root", "wrong")
        expect(page.get_by_role("alert")).to_have_text("User or password are wrong.")
        expect(page.get_by_label("Password")).to_have_value("")
        self.log_in(page, "root")
        # What was asked for is shown then, and still after the page was loaded again.
        expect(page.locator(".items-table .preview").last).to_have_text("hello")
        page.reload()
        expect(page.locator(".items-table .preview").last).to_have_text("hello")
        expect(page.locator("#user")).to_have_text("root")
        self.assertEqual(page.evaluate("document.cookie"), "")
        page.get_by_role("button", name="Drop items…").click()
        page.get_by_role("button", name="Drop 1 item").click()
        expect(page.get_by_role("heading", name="Nothing to take")).to_be_visible()
        server.wait_for("user root")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_text("You are logged out.")).to_be_visible()
        page.reload()
        expect(page.get_by_label("User")).to_be_visible()

    def test_what_a_user_may(self) -> None:
        """A page offers what its user has a right to, and nothing else."""
        server = self.serve(config=USERS, users="root mailer")
        put_as(server, "root", "mail_out", b"to you")
        put_as(server, "root", "secret", b"not to you")
        page = self.open(server)
        self.log_in(page, "mailer")
        expect(page.get_by_role("link", name="mail_out")).to_be_visible()
        expect(page.get_by_text("1 queue", exact=True)).to_be_visible()
        page.get_by_role("link", name="mail_out").click()
        expect(page.locator(".items-table .preview").last).to_have_text("to you")
        expect(page.get_by_role("button", name="Put an item…")).to_be_visible()
        expect(page.get_by_text("You may not administrate this queue.")).to_be_visible()
        for name in ("Drop items…", "Delete queue…", "Delete all…"):
            expect(page.get_by_role("button", name=name)).to_have_count(0)
        page.evaluate("location.hash = '#/queue/secret'")
        expect(page.get_by_role("heading", name="You may not see this queue")).to_be_visible()
        page.get_by_role("link", name="Clients").click()
        expect(page.get_by_role("heading", name="You may not see the clients")).to_be_visible()
        page.get_by_role("link", name="Server").click()
        expect(page.get_by_role("button", name="Quiescent")).to_be_disabled()

    def test_session_that_ends(self) -> None:
        """Whoever is logged out elsewhere is asked to log in again, and comes back to where they were."""
        server = self.serve(config=USERS, users="root")
        page = self.open(server, "/#/server")
        self.log_in(page, "root")
        expect(page.get_by_role("heading", name="Server", exact=True)).to_be_visible()
        page.context.clear_cookies()
        # By the address: the link is not there any more where the page found out by its next look at the server.
        page.evaluate("location.hash = '#/'")
        expect(page.get_by_text("The session is over. Please log in again.")).to_be_visible()
        self.log_in(page, "root")
        expect(page.get_by_role("heading", name="No queues yet")).to_be_visible()

    def test_session_whose_end_is_found_out_twice(self) -> None:
        """Whoever is logging in by then goes on with that."""
        server = self.serve(config=USERS, users="root")
        page = self.open(server, "/#/server")
        self.log_in(page, "root")
        expect(page.locator("#connection.good")).to_have_text("Live")
        held: dict[str, Any] = {}
        holding = True

        def hold(route: Any) -> None:
            if holding:
                held[urlsplit(route.request.url).path.rpartition("/")[2]] = route
            else:
                route.continue_()

        page.route(re.compile("/api/v1/(?!events)"), hold)
        page.context.clear_cookies()
        page.evaluate("location.hash = '#/queue/jobs'")
        # The events of the queue are refused, and the page asks why.
        until_seen(page, lambda: {"history", "session"} <= set(held), "requests of the page")
        holding = False
        held["history"].continue_()
        expect(page.get_by_text("The session is over. Please log in again.")).to_be_visible()
        page.get_by_label("User").fill("root")
        with page.expect_response("**/api/v1/session"):
            held["session"].continue_()
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="There is no such queue")).to_be_visible()
        page.unroute_all(behavior="ignoreErrors")


class ConnectionTests(BrowserTests):
    def test_server_that_goes_and_comes_back(self) -> None:
        server = self.serve(f"--http-port={reserve_port()}")
        put(server, "jobs", b"x")
        page = self.open(server, "/#/queue/jobs")
        expect(page.locator("#connection.good")).to_have_text("Live")
        expect(page.locator(".tile", has_text="Items").locator("dd")).to_have_text("1")
        server.kill()
        expect(page.get_by_role("alert")).to_contain_text("Connection lost. Connecting again… What you see is of ")
        expect(page.locator("#connection")).to_have_text("Connection lost")
        expect(page.locator(".tile", has_text="Items").locator("dd")).to_have_text("1")
        server.start()
        expect(page.get_by_text("The server was restarted at ")).to_be_visible()
        expect(page.locator("#connection.good")).to_have_text("Live")
        expect(page.get_by_text("Connection lost")).to_have_count(0)
        put(server, "jobs", b"y")
        expect(page.locator(".tile", has_text="Items").locator("dd")).to_have_text("2")
        page.get_by_role("button", name="Dismiss").first.click()
        expect(page.get_by_text("The server was restarted at ")).to_have_count(0)

    def test_server_that_stands_still(self) -> None:
        server = self.serve()
        page = self.open(server, patient=False)
        expect(page.locator("#connection.good")).to_have_text("Live")
        server.pause()
        self.addCleanup(server.resume)
        expect(page.get_by_role("alert")).to_contain_text("Connection lost.")
        server.resume()
        expect(page.locator("#connection.good")).to_have_text("Live")
        expect(page.get_by_role("alert")).to_have_count(0)

    def test_browser_that_is_offline(self) -> None:
        page = self.open(self.serve())
        expect(page.locator("#connection.good")).to_have_text("Live")
        page.context.set_offline(True)
        expect(page.get_by_role("alert")).to_contain_text("Connection lost.")
        page.context.set_offline(False)
        expect(page.locator("#connection.good")).to_have_text("Live")
        expect(page.get_by_role("alert")).to_have_count(0)


class ServerTests(BrowserTests):
    def test_clients(self) -> None:
        server = self.serve()
        put(server, "jobs", b"one")
        page = self.open(server, "/#/clients")
        with server.client() as worker, server.client() as waiter:
            worker.get(b"jobs/open")
            waiter.send(b"get other/t=600000\r\n")
            port = worker.socket.getsockname()[1]
            row = page.locator("table.virtual tbody tr", has_text=f"127.0.0.1:{port}")
            expect(row).to_contain_text("jobs")
            expect(page.locator("table.virtual tbody tr", has_text="other")).to_have_count(1)
            page.get_by_role("searchbox").fill(f":{port}")
            expect(page.get_by_text("1 client", exact=True)).to_be_visible()
            page.get_by_role("button", name=f"Cut off 127.0.0.1:{port}…").click()
            dialog = page.get_by_role("dialog")
            expect(dialog).to_contain_text("1 item that it has open goes back to the queue.")
            dialog.get_by_role("button", name="Cut off").click()
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(worker.rest(), b"")
            expect(page.get_by_role("heading", name="No client matches")).to_be_visible()
        page.get_by_role("link", name="Queues", exact=True).click()
        expect(page.locator(".tile", has_text="Items").locator("dd")).to_have_text("1")

    def test_status(self) -> None:
        server = self.serve()
        page = self.open(server, "/#/server")
        status = page.locator(".status")
        expect(status.nth(0)).to_have_attribute("aria-pressed", "true")
        status.nth(1).click()
        page.get_by_role("button", name="Set it to read-only").click()
        expect(status.nth(1)).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#health.warn")).to_be_visible()
        with server.client() as client:
            self.assertTrue(client.set(b"jobs", b"x").startswith(b"SERVER_ERROR"))
            # What others change is seen, too.
            client.ask(b"status up")
        expect(status.nth(0)).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#health.good")).to_be_visible()

    def test_about(self) -> None:
        server = self.serve(config="max_queues = 1234\n[queues.jobs]\nmax_items = 1\n")
        page = self.open(server, "/#/server")
        for label in ("Up for", "Memory", "Disk free"):
            expect(page.locator(".tile", has_text=label).locator("dd")).not_to_have_text("–")
        expect(page.locator(".facts div", has_text="max_queues").locator("dd")).to_have_text("1234")
        expect(page.locator(".facts div", has_text="Process").locator("dd")).to_have_text(str(server.pid))
        (server.directory / "darner.toml").write_text("[queues.jobs]\nmax_items = 2\n")
        page.get_by_role("button", name="Read settings of queues again…").click()
        page.get_by_role("button", name="Read it again").click()
        expect(page.get_by_text("are read again.").first).to_be_visible()
        (server.directory / "darner.toml").write_text("[queues.jobs]\nmax_items = 'many'\n")
        page.get_by_role("button", name="Read settings of queues again…").click()
        page.get_by_role("button", name="Read it again").click()
        expect(page.get_by_role("alert")).to_contain_text("max_items")
