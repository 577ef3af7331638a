"""Tests of `darner.web.site`, of what is served beside the API, and of what is checked of every request."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from darner.config.settings import Rights, Settings
from darner.queues.disk_space import KEPT
from darner.web.pages import KINDS, Pages
from darner.web.problems import Problem
from darner.web.site import IDLE, MOST_BODY, MOST_CONNECTIONS
from test.harness import EPOCH
from test.web.browser import ELSEWHERE, WebTestCase, access_for


class ProbeTests(WebTestCase):
    """What load balancers ask."""

    def test_ping(self) -> None:
        reply = self.browser.get("/ping")
        self.assertEqual((reply.status, reply.body), (200, b"pong\n"))
        self.assertEqual(self.browser.ask("HEAD", "/ping").body, b"")
        self.assert_problem(self.browser.post("/ping"), 405)

    def test_healthy(self) -> None:
        reply = self.browser.get("/health")
        self.assertEqual((reply.status, reply.json), (200, {"ok": True, "reasons": []}))

    def test_store_in_trouble(self) -> None:
        self.server.store.full = True
        self.put(b"q", b"1")
        reply = self.browser.get("/health")
        self.assertEqual(reply.status, 503)
        self.assertEqual(
            reply.json, {"ok": False, "reasons": [{"code": "store", "text": "no room", "since": EPOCH * 1000}]}
        )
        self.assertEqual(self.browser.get("/health?live").status, 200)

    def test_disk_full(self) -> None:
        """It is seen also where nobody puts anything."""
        self.server.store.room = (KEPT - 1, KEPT * 1000)
        reply = self.browser.get("/health")
        self.assertEqual(reply.status, 503)
        (reason,) = reply.json["reasons"]
        self.assertEqual(reason["code"], "disk")
        self.assertIn("disk almost full", reason["text"])
        self.queues.space.stop()

    def test_status(self) -> None:
        self.queues.status.change("readonly")
        self.assertEqual([why["code"] for why in self.browser.get("/health").json["reasons"]], ["status"])

    def test_stats(self) -> None:
        """In Kestrel's shape, with every queue."""
        self.put(b"b", b"12", b"3")
        self.put(b"a", b"1")
        stats = self.browser.get("/stats.json").json
        self.assertEqual(stats["labels"]["status"], "UP")
        self.assertEqual(stats["counters"]["cmd_set"], 3)
        self.assertEqual(stats["counters"]["q/b/total_items"], 2)
        self.assertEqual(stats["gauges"]["q/b/bytes"], 3)
        self.assertEqual(stats["gauges"]["curr_items"], 3)
        self.assertNotIn("q/b/items", stats["counters"])

    def test_stats_of_many(self) -> None:
        for number in range(1000):
            self.queues.make(b"q%03d" % number).put(0, 0, 1, b"x")
        stats = self.browser.get("/stats.json").json
        self.assertEqual(sum(name.endswith("/items") for name in stats["gauges"]), 1000)


class GuardTests(WebTestCase):
    """Other sites cannot use a visitor's browser."""

    settings = Settings(http_hosts=("queues.example.org",))

    def test_hosts(self) -> None:
        """DNS rebinding: a name that is not known may have been made to lead here by anybody."""
        for host, status in (
            ("localhost", 200), ("localhost:2223", 200), ("127.0.0.1:2223", 200), ("[::1]:2223", 200),
            ("queues.example.org", 200), ("QUEUES.example.org:80", 200), ("darner.localhost", 200),
            ("evil.example.com", 421), ("localhost.evil.example.com", 421), ("127.0.0.1.evil.com:2223", 421),
            ("a b", 400), ("", 400), (None, 400), ("user@localhost", 400),
        ):  # fmt: skip
            self.assertEqual(self.browser.get("/api/v1/session", Host=host).status, status, host)
        self.assertEqual(self.browser.get("/ping", Host="evil.example.com").status, 200)
        self.assertEqual(self.browser.get("/", Host="evil.example.com").status, 421)
        for header in (b"Host: \x80", b"Host: localhost\r\nOrigin: \x80", b"Host: localhost\r\nOrigin: http://[x"):
            self.browser.receive(b"GET /api/v1/session HTTP/1.1\r\n" + header + b"\r\n\r\n")
            self.server.commit()
            self.assertIn(self.browser.take()[9:12], (b"421", b"403", b"400"))
        self.browser.receive(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.com\r\n\r\n")
        self.assertIn(b"HTTP/1.1 400", self.browser.take())

    def test_other_sites(self) -> None:
        for site, status in (("same-origin", 200), ("none", 200), ("cross-site", 403), ("same-site", 403)):
            self.assertEqual(self.browser.get("/api/v1/session", Sec_Fetch_Site=site).status, status, site)
        for origin, status in (
            ("http://localhost:2223", 200), ("http://evil.example.com", 403), ("null", 403), ("http://localhost", 403),
        ):  # fmt: skip
            self.assertEqual(self.browser.get("/api/v1/session", Origin=origin).status, status, origin)

    def test_links(self) -> None:
        """The page may be linked to, and not framed nor fetched."""
        visit = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
        self.assertNotEqual(self.browser.get("/", **visit).status, 403)
        self.assertEqual(self.browser.get("/", **{**visit, "Sec_Fetch_Dest": "iframe"}).status, 403)
        self.assertEqual(self.browser.get("/", **{**visit, "Sec_Fetch_Mode": "no-cors"}).status, 403)
        self.assertEqual(self.browser.get("/api/v1/session", **visit).status, 403)

    def test_header_of_changes(self) -> None:
        """No form of another site can send it."""
        self.put(b"q", b"1")
        for value in (None, "0", ""):
            self.assert_problem(self.browser.ask("DELETE", "/api/v1/session", X_Darner_Request=value), 403, "header")
        self.assertEqual(self.browser.ask("DELETE", "/api/v1/session").status, 204)

    def test_refusals_are_logged(self) -> None:
        with capturedLogs() as logs:
            self.browser.post("/api/v1/reload", X_Darner_Request=None)
        (event,) = [event for event in logs if event["log_namespace"] == "darner.audit"]
        self.assertEqual((event["request"], event["address"]), ("http POST /api/v1/reload", "127.0.0.1:40000"))

    def test_headers(self) -> None:
        """Of every answer, also of errors: no script from elsewhere or within the page, no framing, no guessing."""
        for path in ("/", "/ping", "/nothing", "/api/v1/session", "/api/v1/nothing"):
            headers = self.browser.get(path).headers
            policy = headers["content-security-policy"]
            self.assertIn("default-src 'none'", policy)
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertNotIn("unsafe", policy)
            self.assertEqual(headers["x-frame-options"], "DENY")
            self.assertEqual(headers["x-content-type-options"], "nosniff")


class PlaceTests(WebTestCase):
    """Without users only this machine is served."""

    def test_elsewhere(self) -> None:
        self.assert_problem(self.web.browser(address=ELSEWHERE).get("/api/v1/session"), 403, "password_file")
        self.assertEqual(self.web.browser(address=ELSEWHERE, certified=True).get("/api/v1/session").status, 200)


class TrustingTests(WebTestCase):
    settings = Settings(trusted_network=True)

    def test_elsewhere(self) -> None:
        """Unless that is meant, in so many words."""
        self.assertEqual(self.web.browser(address=ELSEWHERE).get("/api/v1/session").status, 200)


class ConnectionTests(WebTestCase):
    """What clients may cost."""

    def test_too_many(self) -> None:
        browsers = [self.web.browser() for _ in range(MOST_CONNECTIONS - 1)]
        refused = self.web.browser()
        self.assertIn(b"503", refused.take())
        browsers.pop().close()
        self.assertEqual(self.web.browser().get("/ping").status, 200)

    def test_silence(self) -> None:
        self.server.clock.advance(IDLE + 1)
        self.assertTrue(self.browser.transport.disconnecting or not self.browser.transport.connected)

    def test_long_bodies(self) -> None:
        """They are refused before they are here."""
        self.browser.receive(
            b"POST /api/v1/queues/q/items HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (MOST_BODY + 1)
        )
        self.assertIn(b"HTTP/1.1 413", self.browser.take())
        browser = self.web.browser()
        browser.receive(
            b"POST /api/v1/queues/q/items HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        piece = b"100000\r\n" + bytes(0x100000) + b"\r\n"
        for _ in range(17):
            browser.receive(piece)
        self.assertIn(b"HTTP/1.1 413", browser.take())

    def test_nobody_reads(self) -> None:
        """Whoever asks again and again and reads nothing gets one answer, and is cut off in the end."""
        self.browser.receive(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.server.commit()
        self.assertEqual(self.browser.take().count(b"pong"), 1)
        write = self.browser.transport.write

        def choking(data: bytes) -> None:
            write(data)
            self.browser.transport.producer.pauseProducing()

        self.browser.transport.write = choking
        self.browser.receive(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        self.server.commit()
        self.assertEqual(self.browser.take().count(b"pong"), 1)
        self.browser.transport.producer.resumeProducing()
        self.server.commit()
        self.assertEqual(self.browser.take().count(b"pong"), 1)
        self.server.clock.advance(61)
        self.assertTrue(self.browser.transport.disconnected)

    def test_gone_meanwhile(self) -> None:
        """Work for somebody who has gone ends."""
        for number in range(1000):
            self.queues.make(b"q%03d" % number).put(0, 0, 1, b"x")
        self.browser.send("GET", "/stats.json")
        self.browser.close()
        self.server.commit()
        self.assertEqual(self.web.root.connections, 0)

    def test_finish(self) -> None:
        other = self.web.browser()
        other.send("GET", "/stats.json")
        done: Deferred[None] = self.web.factory.finish()
        self.server.commit()
        self.assertIn(b"200 OK", other.take())
        self.assertEqual((self.successResultOf(done), self.web.root.connections), (None, 0))
        self.successResultOf(self.web.factory.finish())
        last = self.web.browser()
        self.web.factory.abort()
        self.assertTrue(last.transport.disconnected)

    def test_fault(self) -> None:
        """A fault costs one answer."""
        self.web.root._pages = None
        self.assert_problem(self.browser.get("/"), 500)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertEqual(self.browser.get("/ping").status, 200)


class PagesTests(SynchronousTestCase):
    """The files of the dashboard."""

    class Request:
        def __init__(self, path: bytes, tag: str = "") -> None:
            self.path = path
            self._tag = tag

        def getHeader(self, name: bytes) -> object:
            return self._tag

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        for name in ("index.html", "app.js", "secret.py", "secret"):
            (self.directory / name).write_bytes(name.encode())
        self.pages = Pages(self.directory)

    def test_files(self) -> None:
        self.assertEqual(self.pages.answer(self.Request(b"/")).body, b"index.html")
        answer = self.pages.answer(self.Request(b"/static/app.js"))
        self.assertEqual((answer.body, answer.kind), (b"app.js", KINDS[".js"]))

    def test_nothing_else(self) -> None:
        for path in (
            b"/static/secret.py", b"/static/secret", b"/static/../app.js", b"/static/%2e%2e/app.js", b"/app.js",
            b"/static/", b"/static/no.js", b"//", b"/static//etc/passwd", b"/index.html",
        ):  # fmt: skip
            self.assertRaises(Problem, self.pages.answer, self.Request(path))

    def test_unchanged(self) -> None:
        tag = self.pages.answer(self.Request(b"/")).headers[b"ETag"]
        answer = self.pages.answer(self.Request(b"/", tag))
        self.assertEqual((answer.status, answer.body), (304, b""))


class UsersTestCase(WebTestCase):
    """Users with rights of their own."""

    settings = Settings(
        password_file="passwords",
        users={
            "ann": Rights(("*",), ("*",), ("*",)),
            "bob": Rights(("jobs_*",), ("jobs_*",), ("jobs_x",)),
        },
    )

    def setUp(self) -> None:
        super().setUp()
        self.browser.headers["Authorization"] = "Basic YW5uOnNlY3JldA=="  # ann:secret

    def make_access(self):  # type: ignore[no-untyped-def]
        from test.harness import Server

        server = Server()
        self.made = server
        self.access = access_for(self, server, b"ann:secret\nbob:word\n", self.settings)
        return self.access


class UsersTests(UsersTestCase):
    """The users of the protocols."""

    def test_basic(self) -> None:
        session = self.browser.get("/api/v1/session").json
        self.assertEqual((session["user"], session["authenticated"]), ("ann", True))
        self.assertEqual(session["rights"]["server"], True)

    def test_wrong(self) -> None:
        with capturedLogs() as logs:
            reply = self.browser.get("/stats.json", Authorization="Basic YW5uOndyb25n")
        self.assert_problem(reply, 401)
        self.assertIn("Basic", reply.headers["www-authenticate"])
        (event,) = [event for event in logs if event["log_namespace"] == "darner.audit"]
        self.assertEqual((event["user"], event["address"]), ("ann", "127.0.0.1:40000"))
        for header in ("Basic", "Basic ###", "Basic YQ==", "Bearer x", "Basic IDph"):
            self.assert_problem(self.browser.get("/stats.json", Authorization=header), 401)

    def test_nobody(self) -> None:
        """The page, and what it needs to log in, are there for everybody; nothing else is."""
        del self.browser.headers["Authorization"]
        session = self.browser.get("/api/v1/session").json
        self.assertEqual((session["user"], session["authenticated"], session["rights"]), (None, False, None))
        self.assertEqual(session["login_required"], True)
        for path in ("/ping", "/health", "/api/v1/openapi.json"):
            self.assertEqual(self.browser.get(path).status, 200, path)
        for path in ("/stats.json", "/api/v1/server", "/api/v1/queues", "/api/v1/events", "/api/v1/queues/q/items"):
            self.assert_problem(self.browser.get(path), 401)
        reply = self.browser.get("/stats.json", Sec_Fetch_Mode="cors")
        self.assertIn("Session", reply.headers["www-authenticate"], "no dialog of the browser's comes up")

    def log_in(self, user: str, password: str):  # type: ignore[no-untyped-def]
        self.browser.headers.pop("Authorization", None)
        return self.browser.post("/api/v1/session", {"user": user, "password": password})

    def test_session(self) -> None:
        reply = self.log_in("bob", "word")
        self.assertEqual((reply.status, reply.json["user"]), (200, "bob"))
        cookie = reply.headers["set-cookie"]
        self.assertRegex(cookie, r"^darner_session=[\w-]{43}; Path=/; Max-Age=\d+; HttpOnly; SameSite=Strict$")
        value = cookie.partition(";")[0]
        self.assertEqual(self.browser.get("/api/v1/session", Cookie=value).json["user"], "bob")
        self.assertEqual(self.browser.get("/stats.json", Cookie=value).status, 200)
        self.assertEqual(self.browser.get("/stats.json", Cookie=value[:-1] + "!").status, 401)
        out = self.browser.ask("DELETE", "/api/v1/session", Cookie=value)
        self.assertEqual(out.status, 204)
        self.assertIn("Max-Age=0", out.headers["set-cookie"])
        self.assertEqual(self.browser.get("/stats.json", Cookie=value).status, 401)

    def test_secure(self) -> None:
        browser = self.web.browser(tls=True)
        reply = browser.post("/api/v1/session", {"user": "bob", "password": "word"})
        self.assertIn("; Secure", reply.headers["set-cookie"])

    def test_wrong_password(self) -> None:
        reply = self.log_in("bob", "wrong")
        self.assert_problem(reply, 401)
        self.assertNotIn("set-cookie", reply.headers)
        self.assert_problem(self.log_in("bob", "x" * 1000), 401)
        self.assert_problem(self.log_in("a b", "x"), 400)

    def test_sessions_end(self) -> None:
        value = self.log_in("bob", "word").headers["set-cookie"].partition(";")[0]
        for _ in range(14):
            self.server.clock.advance(11 * 3600)
            self.assertEqual(self.web.browser().get("/stats.json", Cookie=value).status, 200)
        self.server.clock.advance(13 * 3600)
        self.assertEqual(self.web.browser().get("/stats.json", Cookie=value).status, 401)

    def test_a_new_password_ends_sessions(self) -> None:
        value = self.log_in("bob", "word").headers["set-cookie"].partition(";")[0]
        Path(str(self.access._passwords._path)).write_bytes(b"ann:secret\nbob:other\n")
        self.assertEqual(self.browser.get("/stats.json", Cookie=value).status, 401)

    def test_most_sessions(self) -> None:
        first = self.log_in("bob", "word").headers["set-cookie"].partition(";")[0]
        for _ in range(1000):
            self.web.root.served.reception.sessions.begin(b"bob", self.access.stamp(b"bob"))
        self.assertEqual(self.browser.get("/stats.json", Cookie=first).status, 401)

    def test_rights(self) -> None:
        """What somebody may not see is not in the figures, and what changes the server is refused and logged."""
        self.put(b"jobs_a", b"1")
        self.put(b"other", b"1")
        bob = "Basic Ym9iOndvcmQ="
        gauges = self.browser.get("/stats.json", Authorization=bob).json["gauges"]
        self.assertIn("q/jobs_a/items", gauges)
        self.assertNotIn("q/other/items", gauges)
        with capturedLogs() as logs:
            self.assert_problem(self.browser.post("/api/v1/reload", Authorization=bob), 403)
            self.assert_problem(self.browser.post("/api/v1/queues/other/flush", Authorization=bob), 403)
        told = [(event["user"], event["request"]) for event in logs if event["log_namespace"] == "darner.audit"]
        self.assertEqual(told, [("bob", "http reload"), ("bob", "http flush other")])

    def test_passwords_in_the_clear(self) -> None:
        """None are taken over a network without TLS."""
        self.assert_problem(self.web.browser(address=ELSEWHERE).get("/stats.json"), 403, "TLS")
        browser = self.web.browser(address=ELSEWHERE, tls=True)
        self.assertEqual(browser.get("/stats.json", Authorization="Basic YW5uOnNlY3JldA==").status, 200)

    def test_any_name_with_a_password(self) -> None:
        """Prometheus asks by whatever name; another site could not know the password."""
        self.assertEqual(self.browser.get("/stats.json", Host="darner-1.internal").status, 200)
        cookie = self.log_in("bob", "word").headers["set-cookie"].partition(";")[0]
        self.assertEqual(self.browser.get("/stats.json", Host="evil.com", Cookie=cookie).status, 421)


class FieldTests(WebTestCase):
    """Bad input is a clear error, and nothing is changed."""

    def test_paths(self) -> None:
        self.assert_problem(self.browser.get("/api/v1/"), 404)
        self.assert_problem(self.browser.get("/api/v1/%ff"), 404)
        reply = self.browser.ask("PUT", "/api/v1/session")
        self.assert_problem(reply, 405)
        self.assertEqual(reply.headers["allow"], "DELETE, GET, POST")
        for name in ("a%20b", "%00", "a%2fb", "%c3%a4", "", "x" * 251):
            self.assert_problem(self.browser.post(f"/api/v1/queues/{name}/flush"), 400, "queue name")

    def test_queries(self) -> None:
        for query, text in (
            ("limit=x", "limit: not a whole"), ("limit=0", "limit: at least 1"), ("limit=9999", "limit: at most"),
            ("what=1", "unknown parameter 'what'"), ("limit=1&limit=2", "more than once"), ("%ff=1", "not UTF-8"),
            ("sort=size", "sort: one of"), ("sparkline=yes", "sparkline: neither"),
            ("filter=" + "x" * 251, "at most 250"),
        ):  # fmt: skip
            self.assert_problem(self.browser.get(f"/api/v1/queues?{query}"), 400, text)

    def test_bodies(self) -> None:
        path = "/api/v1/session"
        for body, status, text in (
            (b"{", 400, "no JSON"), (b"[]", 400, "no object"), (b"NaN", 400, "no JSON"), (b"\xff", 400, "no JSON"),
            (b"[" * 100_000, 400, "no JSON"), (b'{"user":1}', 400, "user: not of type string"),
            (b'{"user":"a"}', 400, "password: missing"), (b'{"user":"","password":""}', 400, "at least 1"),
            (b'{"user":"a","password":"b","x":1}', 400, "unknown member 'x'"),
            (b'{"user":"\\ud800","password":""}', 400, "not Unicode"), (b" " * 300_000, 413, "JSON"),
        ):  # fmt: skip
            reply = self.browser.post(path, body, Content_Type="application/json; charset=utf-8")
            self.assert_problem(reply, status, text)
        self.assert_problem(self.browser.post(path, b"{}", Content_Type="text/plain"), 415)
        self.assert_problem(self.browser.post("/api/v1/reload", {}), 400, "no body")

    def test_forms_are_not_parsed(self) -> None:
        form = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'
        reply = self.browser.post("/api/v1/session", form, Content_Type="multipart/form-data; boundary=x")
        self.assert_problem(reply, 415)

    def test_no_users(self) -> None:
        self.assert_problem(self.browser.post("/api/v1/session", {"user": "a", "password": "b"}), 400, "no users")

    def test_every_status_is_json(self) -> None:
        self.assertTrue(re.match(r'\{"type":', self.browser.get("/nothing").body.decode()))
