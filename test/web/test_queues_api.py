"""Tests of the API: queues, the server, and events."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from darner.config.policies import Policies, QueueSettings
from darner.config.settings import Settings
from darner.errors import SettingsError
from darner.queues.control import Control
from darner.web.endpoints import ENDPOINTS, HANDLERS, SORTS
from darner.web.figures import POINTS, SPARK, STEP, Ages, Course, Row
from darner.web.openapi import document
from darner.web.watch import COURSES, QUEUES_A_LOOK
from test.harness import EPOCH
from test.web.browser import Browser, WebTestCase
from test.web.schema import conforms
from test.web.test_site import UsersTestCase

API = "/api/v1"


class DocumentTests(SynchronousTestCase):
    """One table makes the document, the checks and the handlers."""

    def test_every_endpoint_is_handled(self) -> None:
        self.assertEqual(sorted(HANDLERS), sorted(endpoint.name for endpoint in ENDPOINTS))

    def test_document(self) -> None:
        paths = document()["paths"]
        self.assertEqual(sum(map(len, paths.values())), len(ENDPOINTS))
        json.dumps(document())


class ApiTestCase(WebTestCase):
    """Answers are as the document says."""

    def api(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        reply = self.browser.ask(method, API + path, body)
        self.assertEqual(reply.status, status, reply.raw)
        if status == 204:
            return None
        conforms(self, method, path, status, reply.json)
        return reply.json

    def look(self, seconds: float = 1.0) -> None:
        """Let time pass, and the server look at its queues."""
        self.server.clock.advance(seconds)
        for _ in range(1000):
            self.server.commit()
            if self.web.root.served.watch._look is None:
                break


class QueuesTests(ApiTestCase):
    def test_none(self) -> None:
        found = self.api("GET", "/queues")
        self.assertEqual((found["total"], found["queues"], found["totals"]["queues"]), (0, [], 0))

    def test_figures(self) -> None:
        self.put(b"q", b"123", b"4")
        self.look()
        client = self.server.client()
        client.ask(b"get q/open")
        self.server.commit()
        (row,) = self.api("GET", "/queues")["queues"]
        self.assertEqual((row["name"], row["items"], row["bytes"], row["open"]), ("q", 1, 1, 1))
        self.assertNotIn("sparkline", row)
        client.session.leave()

    def test_rates(self) -> None:
        self.put(b"q", b"1")
        self.look()
        self.put(b"q", *[b"x"] * 20)
        self.look(2)
        client = self.server.client()
        for _ in range(10):
            client.ask(b"get q")
        self.server.commit()
        row = self.api("GET", "/queues/q")
        self.assertEqual((row["in_rate"], row["out_rate"]), (10, 0))
        self.look()
        row = self.api("GET", "/queues/q")
        self.assertEqual((row["in_rate"], row["out_rate"]), (0, 10))
        self.assertEqual(self.api("GET", "/queues")["totals"]["out_rate"], 10)

    def test_deleted_and_made_again(self) -> None:
        """What another queue of that name had is not counted as gone."""
        self.put(b"q", *[b"x"] * 20)
        self.look()
        self.api("DELETE", "/queues/q")
        self.put(b"q", b"1")
        self.look()
        row = self.api("GET", "/queues/q")
        self.assertEqual((row["items"], row["out_rate"], row["in_rate"]), (1, 0, 1))

    def names(self, query: str) -> list[str]:
        return [row["name"] for row in self.api("GET", f"/queues?{query}")["queues"]]

    def test_filter(self) -> None:
        for name in (b"jobs_a", b"jobs_b", b"mail", b"Jobs_c"):
            self.put(name, b"1")
        self.assertEqual(self.names("filter=jobs"), ["Jobs_c", "jobs_a", "jobs_b"])
        self.assertEqual(self.names("filter=*a"), ["jobs_a"])
        self.assertEqual(self.names("filter=mai%3f"), ["mail"])
        self.assertEqual(self.names("filter=*"), ["Jobs_c", "jobs_a", "jobs_b", "mail"])
        self.assertEqual(self.names("filter=%C3%A4"), [])
        self.assertEqual(self.names("filter=%C3%A4*"), [])

    def test_pages(self) -> None:
        for number in range(10):
            self.put(b"q%d" % number, b"1")
        self.assertEqual(self.names("limit=3&offset=2"), ["q2", "q3", "q4"])
        self.assertEqual(self.names("limit=3&offset=9"), ["q9"])
        self.assertEqual(self.names("limit=3&offset=10"), [])
        self.assertEqual(self.names("limit=3&order=desc"), ["q9", "q8", "q7"])
        self.assertEqual(self.names("limit=3&order=desc&offset=8"), ["q1", "q0"])
        self.assertEqual(self.names("order=desc&offset=20"), [])

    def test_sort(self) -> None:
        for number in (3, 1, 2):
            self.put(b"q%d" % number, *[b"x"] * number)
        self.look()
        self.assertEqual(self.names("sort=items&order=desc"), ["q3", "q2", "q1"])
        self.assertEqual(self.names("sort=items&order=asc&limit=2"), ["q1", "q2"])
        for sort in SORTS:
            self.assertEqual(len(self.names(f"sort={sort}&order=desc")), 3, sort)

    def test_sort_by_age(self) -> None:
        self.put(b"old", b"1")
        self.server.clock.advance(5)
        self.put(b"a_new", b"1")
        self.assertEqual(self.names("sort=oldest_ms&order=desc"), ["old", "a_new"])

    def test_waited_for(self) -> None:
        """Also a queue that does not exist yet, where somebody waits for it."""
        client = self.server.client()
        client.ask(b"get q/t=5000")
        self.look()
        queue = self.api("GET", "/queues/q")
        self.assertEqual((queue["exists"], queue["waiters"]), (False, 1))
        self.assertEqual(self.names("sort=waiters"), ["q"])
        client.session.leave()
        self.look()
        self.assertEqual(self.names("sort=waiters"), [])

    def test_many(self) -> None:
        """In pieces, and each once, whatever they are sorted by."""
        total = 12_000
        for number in range(total):
            self.queues.make(b"q%05d" % number).put(0, 0, number % 7, b"x" * (number % 7))
        self.server.commit()
        for _ in range(3):
            self.look()
        self.assertEqual(self.api("GET", "/queues?limit=1")["totals"]["queues"], total)
        seen = []
        for offset in range(0, total, 1000):
            page = self.api("GET", f"/queues?sort=bytes&order=desc&limit=1000&offset={offset}")
            self.assertEqual(page["total"], total)
            seen += [(row["bytes"], row["name"]) for row in page["queues"]]
        self.assertEqual(seen, sorted(seen, key=lambda row: (-row[0], row[1])))
        self.assertEqual(len(set(seen)), total)
        self.assertEqual(self.names("sort=name&order=desc&limit=1"), ["q11999"])
        for index in range(9):
            self.names(f"filter={index}&limit=1&sort=items")
        self.assertLessEqual(len(self.web.root.served.rows._orders), 8)

    def test_delete_many(self) -> None:
        """What is gone is forgotten, also where no look takes in all of them."""
        for number in range(QUEUES_A_LOOK + 10):
            self.queues.make(b"q%05d" % number).put(0, 0, 1, b"x")
        self.server.commit()
        for _ in range(2):
            self.look()
        watch = self.web.root.served.watch
        self.assertEqual(len(watch.rows), QUEUES_A_LOOK + 10)
        for name in list(watch.rows):
            self.queues.forget(name)
        self.server.commit()
        for _ in range(3):
            self.look()
        self.assertEqual((watch.rows, self.api("GET", "/queues")["totals"]["items"]), ({}, 0))


class QueueTests(ApiTestCase):
    def test_missing(self) -> None:
        self.assert_problem(self.browser.get(f"{API}/queues/q"), 404)
        self.assert_problem(self.browser.get(f"{API}/queues/q/history"), 404)

    def test_settings(self) -> None:
        """Each with what decided."""
        built_in = QueueSettings()
        policies = Policies(
            evolve(built_in, max_items=7),
            {"jobs*": {"max_age": 60.0, "max_bytes": 1000}, "jobs": {"max_bytes": 2000}, "jobs+c": {"max_attempts": 3}},
            {b"all": (b"jobs", b"other")},
        )
        self.queues.apply(policies)
        self.put(b"jobs", b"1")
        self.put(b"jobs+c", b"1")
        queue = self.api("GET", "/queues/jobs")
        told = {setting["name"]: (setting["value"], setting["source"], setting["key"]) for setting in queue["settings"]}
        self.assertEqual(told["max_items"], ("7", "defaults", None))
        self.assertEqual(told["max_age"], ("1min", "pattern", "jobs*"))
        self.assertEqual(told["max_bytes"][1:], ("queue", "jobs"))
        self.assertEqual(told["durable"], ("true", "built-in", None))
        self.assertEqual((queue["children"], queue["aliases"], queue["parent"]), (["jobs+c"], ["all"], None))
        self.assertEqual(queue["used"], round(1 / 7, 4))
        child = self.api("GET", "/queues/jobs%2Bc")
        told = {setting["name"]: (setting["source"], setting["key"]) for setting in child["settings"]}
        self.assertEqual(told["max_age"], ("pattern", "jobs*"))
        self.assertEqual(told["max_attempts"], ("queue", "jobs+c"))
        self.assertEqual((child["parent"], child["children"]), ("jobs", []))
        self.assertEqual(Policies(overrides={"a": {"max_age": 1.0}}).origins(b"a+b")["max_age"], ("parent", "a"))

    def test_dead_letters(self) -> None:
        self.queues.apply(Policies(QueueSettings(), {"q": {"max_attempts": 1, "dead_letter_queue": "dead"}}))
        self.put(b"q", b"1")
        client = self.server.client()
        client.ask(b"get q/open")
        self.server.commit()
        client.session.leave()
        self.server.commit()
        queue = self.api("GET", "/queues/q")
        self.assertEqual((queue["items"], queue["dead"], queue["dead_letter_queue"]), (0, 1, "dead"))
        self.assertEqual(self.api("GET", "/queues?sort=dead&order=desc")["queues"][0]["name"], "q")

    def test_history(self) -> None:
        self.put(b"q", b"1")
        self.look()
        for _ in range(30):
            self.put(b"q", b"x")
            self.look()
        history = self.api("GET", "/queues/q/history")
        self.assertEqual(history["step_ms"], STEP * 1000)
        self.assertEqual(history["in_rate"][-2:], [1, 1])
        self.assertGreater(history["items"][-1], history["items"][-2])
        self.assertEqual(history["start"] % 10_000, 0)
        self.assertLessEqual(history["start"], (EPOCH + self.server.clock.seconds()) * 1000)
        self.assertEqual(self.api("GET", "/history")["in_rate"][-1], 1)
        (row,) = self.api("GET", "/queues?sparkline=true")["queues"]
        self.assertEqual(len(row["sparkline"]), SPARK)
        self.assertEqual(row["sparkline"][-1], history["items"][-1])

    def test_flush(self) -> None:
        self.put(b"q", b"1", b"2")
        with capturedLogs() as logs:
            self.assertEqual(self.api("POST", "/queues/q/flush"), {"items": 2})
        self.assertEqual(self.server.figures(b"q"), (0, 0))
        (event,) = [event for event in logs if event["log_namespace"] == "darner.audit"]
        self.assertEqual(event["request"], "http flush q (2 items)")
        self.assertEqual((event["user"], event["address"]), ("-", "127.0.0.1:40000"))
        self.assertEqual(self.api("POST", "/queues/none/flush"), {"items": 0})

    def test_delete(self) -> None:
        self.put(b"q", b"1")
        self.assertEqual(self.api("DELETE", "/queues/q"), {"deleted": True})
        self.assertEqual(self.api("DELETE", "/queues/q"), {"deleted": False})

    def test_requeue(self) -> None:
        self.put(b"q", b"1", b"2", b"3")
        self.assertEqual(self.api("POST", "/queues/q/requeue", {"target": "r", "count": 2}), {"items": 2})
        self.assertEqual(self.api("POST", "/queues/q/requeue", {"target": "r"}), {"items": 1})
        self.assertEqual(self.server.figures(b"r"), (3, 3))
        self.assert_problem(self.browser.post(f"{API}/queues/q/requeue", {"target": "q"}), 400)
        self.queues.apply(Policies(aliases={b"all": (b"r",)}))
        self.assert_problem(self.browser.post(f"{API}/queues/q/requeue", {"target": "all"}), 400, "alias")

    def test_refused_by_status(self) -> None:
        self.put(b"q", b"1")
        self.queues.status.change("readonly")
        for path in ("flush", "requeue"):
            body = {"target": "r"} if path == "requeue" else None
            self.assert_problem(self.browser.post(f"{API}/queues/q/{path}", body), 503, "readonly")
        self.assert_problem(self.browser.ask("DELETE", f"{API}/queues/q"), 503)
        self.assertEqual(self.server.figures(b"q"), (1, 1))

    def test_refused_by_the_store(self) -> None:
        """It is said, and nothing is logged as done."""
        self.put(b"q", b"1")
        self.server.store.broken = 2
        with capturedLogs() as logs:
            self.assert_problem(self.browser.post(f"{API}/queues/q/flush"), 503, "no room")
        self.assertEqual([event for event in logs if event["log_namespace"] == "darner.audit"], [])


class ServerApiTests(ApiTestCase):
    def test_server(self) -> None:
        self.put(b"q", b"1")
        self.look()
        server = self.api("GET", "/server")
        self.assertEqual((server["status"], server["health"]["ok"], server["totals"]["items"]), ("up", True, 1))
        self.assertEqual(server["listeners"], ["127.0.0.1:22133", "http://127.0.0.1:2223/"])
        self.assertEqual((server["connections"]["http"], server["counters"]["cmd_set"]), (1, 1))
        self.assertEqual((server["settings"]["password_file"], server["settings"]["stall_timeout"]), ("none", "60s"))
        self.assertEqual(server["uptime_ms"], 1000)

    def test_status(self) -> None:
        self.assertEqual(self.api("GET", "/status"), {"status": "up"})
        with capturedLogs() as logs:
            self.assertEqual(self.api("PUT", "/status", {"status": "readonly"}), {"status": "readonly"})
        (event,) = [event for event in logs if event["log_namespace"] == "darner.audit"]
        self.assertEqual(event["request"], "http set_status readonly")
        self.assert_problem(self.browser.ask("PUT", f"{API}/status", {"status": "down"}), 400)
        self.queues.status._grace = 10
        self.api("PUT", "/status", {"status": "quiescent"})
        self.api("PUT", "/status", {"status": "up"})
        self.api("PUT", "/status", {"status": "readonly"})
        self.assert_problem(self.browser.ask("PUT", f"{API}/status", {"status": "quiescent"}), 409, "under way")
        self.queues.status.stop()

    def test_reload(self) -> None:
        self.assert_problem(self.browser.post(f"{API}/reload"), 409, "not allowed here")
        reloaded = []

        def reload() -> None:
            reloaded.append(1)
            self.queues.apply(Policies(QueueSettings(max_items=1)))

        self.queues.control = Control(reload)
        self.put(b"q", b"1")
        self.assertEqual(self.api("POST", "/reload"), {"reloaded": True})
        self.assertEqual(self.queues.policy(b"q").max_items, 1)

        def fail() -> None:
            raise SettingsError("darner.toml: no")

        self.queues.control = Control(fail)
        self.assert_problem(self.browser.post(f"{API}/reload"), 409, "darner.toml: no")


class EventsTests(ApiTestCase):
    """Server-sent events."""

    def events(self, browser: Browser) -> list[tuple[str, Any]]:
        """@return: what came since the last call."""
        raw = browser.take()
        if raw.startswith(b"HTTP"):
            raw = raw.partition(b"\r\n\r\n")[2]
        text = b"".join(raw.split(b"\r\n")[1::2]).decode()
        found = []
        for block in text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            if "event" in fields:
                found.append((fields["event"], json.loads(fields["data"])))
        return found

    def listen(self, query: str = "") -> Browser:
        browser = self.web.browser()
        browser.send("GET", f"{API}/events{query}")
        self.server.commit()
        self.server.commit()
        return browser

    def test_course(self) -> None:
        self.put(b"q", b"1")
        self.look()
        browser = self.listen("?queues=q%20none")
        self.assertEqual([name for name, _ in self.events(browser)], ["hello", "status", "health", "rates"])
        self.look()
        ((name, tick),) = self.events(browser)
        self.assertEqual((name, tick["totals"]["items"], tick["queues"]["q"]["items"]), ("rates", 1, 1))
        self.assertIsNone(tick["queues"]["none"])
        conforms(self, "Tick", "", 0, tick)
        self.queues.status.change("readonly")
        self.look()
        told = self.events(browser)
        self.assertEqual([name for name, _ in told], ["status", "health", "rates"])
        self.assertEqual(told[0][1], {"status": "readonly"})
        browser.close()
        self.look()
        self.assertEqual(self.web.root.served.events.listening, 0)

    def test_ages(self) -> None:
        self.put(b"q", b"1")
        self.look()
        self.put(b"q", b"1")
        self.look()
        self.web.root.served.watch.note_age(b"q", 1000, 99)
        self.web.root.served.watch.note_age(b"q", 5000, 1)
        browser = self.listen("?queues=q")
        ages = self.events(browser)[-1][1]["queues"]["q"]
        self.assertLess(abs(ages["age_p50_ms"] - 1000), 250)
        browser.close()

    def test_slow(self) -> None:
        """Who reads nothing gets nothing more, then the newest, and in the end is cut off."""
        browser = self.listen()
        self.events(browser)
        browser.transport.producer.pauseProducing()
        for _ in range(20):
            self.look()
        self.assertEqual(len(self.events(browser)), 1)
        browser.transport.producer.resumeProducing()
        self.look()
        self.assertEqual(len(self.events(browser)), 1)
        browser.transport.producer.pauseProducing()
        self.look(61)
        self.assertTrue(browser.transport.disconnected)

    def test_bad(self) -> None:
        self.assert_problem(self.browser.get(f"{API}/events?queues=" + "+".join("abcdefghijklmnopqrstuvw")), 400)

    def test_the_end(self) -> None:
        """When the server stops, so does the stream."""
        browser = self.listen()
        done = self.web.factory.finish()
        self.web.root.close()
        self.server.commit()
        self.successResultOf(done)
        self.assertIn(b"0\r\n\r\n", browser.take())


class RightsTests(UsersTestCase):
    """Nobody sees more than the user may."""

    def test_see(self) -> None:
        for name in (b"jobs_a", b"jobs_b", b"other"):
            self.put(name, b"1")
        self.server.clock.advance(1)
        self.server.commit()
        bob = {"Authorization": "Basic Ym9iOndvcmQ="}
        found = self.browser.get(f"{API}/queues", **bob).json
        self.assertEqual([row["name"] for row in found["queues"]], ["jobs_a", "jobs_b"])
        self.assertEqual((found["total"], found["totals"]["items"]), (2, 2))
        self.assertEqual(self.browser.get(f"{API}/queues", **bob).json["totals"]["items"], 2)
        self.assertEqual(self.browser.get(f"{API}/history", **bob).json["items"], [])
        server = self.browser.get(f"{API}/server", **bob).json
        self.assertEqual((server["settings"], server["totals"]["items"]), ({}, 2))
        for path in ("queues/other", "queues/other/history", "events?queues=other"):
            self.assert_problem(self.browser.get(f"{API}/{path}", **bob), 403)
        self.assert_problem(self.browser.post(f"{API}/queues/jobs_a/requeue", {"target": "other"}, **bob), 403)
        self.assertEqual(self.browser.get(f"{API}/queues").json["total"], 3)


class FigureTests(SynchronousTestCase):
    def test_ages(self) -> None:
        ages = Ages()
        self.assertIsNone(ages.quantile(0.5))
        ages.add(0, 50)
        ages.add(100, 49)
        ages.add(10**12, 1)
        self.assertEqual(ages.quantile(0.5), 0)
        self.assertLess(abs((ages.quantile(0.99) or 0) - 100), 25)
        self.assertGreater(ages.quantile(1), 10**8)

    def test_course(self) -> None:
        """It is bounded, and knows when it began."""
        course = Course(100)
        for number in range(1000):
            course.add((number, 0, 0.5, 0, None, None))
        told = course.describe()
        self.assertEqual(told["items"], list(range(640, 1000)))
        self.assertEqual((told["age_p99_ms"][-1], told["in_rate"][-1]), (None, 0.5))
        self.assertEqual(course.since + course.length, 1100)
        self.assertEqual(course.spark()[-1], 999)
        self.assertLessEqual(course.length, POINTS + SPARK)

    def test_courses_are_bounded(self) -> None:
        class Case(WebTestCase):
            def runTest(self) -> None:
                watch = self.web.root.served.watch
                for number in range(COURSES + 10):
                    self.queues.make(b"q%d" % number).put(0, 0, 1, b"x")
                    watch.see(b"q%d" % number)
                    self.queues.make(b"q%d" % number).put(0, 0, 1, b"x")
                    self.server.clock.rightNow += 0.001
                    watch.see(b"q%d" % number)
                assert sum(row.course is not None for row in watch.rows.values()) == COURSES
                assert watch.rows[b"q0"].course is None

        result = Case().defaultTestResult()
        Case().run(result)
        self.assertTrue(result.wasSuccessful(), result.errors + result.failures)

    def test_row(self) -> None:
        row = Row()
        self.assertFalse(row.update((1, 10, 10, 0, 0, 0, 0, 0), 1.0))
        self.assertTrue(row.update((1, 15, 12, 0, 1, 0, 0, 0), 2.0))
        self.assertEqual((row.in_rate, row.out_rate), (5, 2))


class UsualSettingsTests(SynchronousTestCase):
    def test_off(self) -> None:
        """HTTP is off as it comes, and on loopback where it is on."""
        self.assertEqual((Settings().http_port, Settings().http_interface), (None, "127.0.0.1"))
