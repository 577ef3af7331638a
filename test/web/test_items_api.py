"""Tests of the API: items, reading them by HTTP, and clients."""

from __future__ import annotations

import base64
import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.logger import capturedLogs

from darner.config.policies import Policies, QueueSettings
from darner.web.clients_api import MOST_BYTES
from darner.web.reads import MOST
from test.harness import EPOCH
from test.web.browser import Browser
from test.web.test_queues_api import API, ApiTestCase
from test.web.test_site import UsersTestCase

LARGE = bytes(range(256)) * 1000


class ItemsTestCase(ApiTestCase):
    def ids(self, query: str = "") -> list[str]:
        return [item["id"] for item in self.api("GET", f"/queues/q/items?{query}")["items"]]

    def memcache(self, address: int = 1) -> Any:
        """@return: a client of the memcache protocol, by a connection."""
        peer = IPv4Address("TCP", "10.0.0.1", address)
        transport = StringTransportWithDisconnection(peerAddress=peer)
        transport.abortConnection = transport.loseConnection
        protocol = self.web.queues_factory.buildProtocol(peer)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return protocol

    def say(self, protocol: Any, data: bytes) -> None:
        protocol.dataReceived(data)
        self.server.commit()


class BrowseTests(ItemsTestCase):
    def test_ready(self) -> None:
        self.put(b"q", b"text", b"\xff\x00", "ä".encode() * 200)
        page = self.api("GET", "/queues/q/items?preview=255")
        self.assertEqual((page["queue"], page["state"], page["total"], page["next"]), ("q", "ready", 3, None))
        text, binary, long = page["items"]
        self.assertEqual((text["id"], text["size"], text["time"]), ("0", 4, EPOCH * 1000))
        self.assertEqual(text["preview"], {"encoding": "utf-8", "data": "text", "truncated": False})
        self.assertEqual(binary["preview"]["encoding"], "base64")
        self.assertEqual(base64.b64decode(binary["preview"]["data"]), b"\xff\x00")
        self.assertEqual(long["preview"], {"encoding": "utf-8", "data": "ä" * 127, "truncated": True})
        self.assertEqual(self.server.figures(b"q"), (3, 406), "nothing is consumed")
        none = self.api("GET", "/queues/q/items?preview=0")["items"][0]["preview"]
        self.assertEqual(none, {"encoding": "utf-8", "data": "", "truncated": True})

    def test_pages(self) -> None:
        self.put(b"q", *[b"%d" % number for number in range(120)])
        found: list[str] = []
        after = ""
        while True:
            page = self.api("GET", f"/queues/q/items?limit=50{after}")
            found += [item["id"] for item in page["items"]]
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        self.assertEqual(found, [str(number) for number in range(120)])
        self.assertEqual(self.ids("after=117"), ["117", "118", "119"])
        self.assertEqual(self.ids("after=500"), [])

    def test_right_while_others_take(self) -> None:
        self.put(b"q", *[b"%d" % number for number in range(10)])
        page = self.api("GET", "/queues/q/items?limit=3")
        client = self.server.client()
        for _ in range(5):
            client.ask(b"get q")
        self.server.commit()
        self.assertEqual(self.ids(f"limit=3&after={page['next']}"), ["5", "6", "7"])

    def test_filter(self) -> None:
        self.put(b"q", b"alpha", b"beta", b"gamma" * 10)
        self.server.clock.advance(10)
        self.put(b"q", b"alphabet", LARGE)
        client = self.server.client()
        client.set(b"q", b"flagged", flags=7)
        self.server.commit()
        self.assertEqual(self.ids("contains=alpha"), ["0", "3"])
        self.assertEqual(self.ids("contains=%01%02%03"), ["4"])
        self.assertEqual(self.ids("min_size=9&max_size=100"), ["2"])
        self.assertEqual(self.ids("min_age_ms=5000"), ["0", "1", "2"])
        self.assertEqual(self.ids("max_age_ms=5000&max_size=8"), ["3", "5"])
        self.assertEqual(self.ids("flags=7"), ["5"])
        self.assertEqual(self.ids("flags=0&min_size=100"), ["4"])

    def test_patience(self) -> None:
        """Looking ends after a while, and says where to go on."""
        self.put(b"q", *[b"x"] * 10)

        class Passing(Clock):
            def seconds(self) -> float:
                self.rightNow += 1
                return self.rightNow

        # That of the handlers alone: what the others do again and again would always be due.
        self.patch(self.web.root.served, "clock", Passing())
        page = self.api("GET", "/queues/q/items?contains=y")
        self.assertEqual(page["items"], [])
        self.assertIsNotNone(page["next"])

    def test_open(self) -> None:
        """By whom, and since when."""
        self.put(b"q", b"0", b"1", b"2")
        client = self.memcache()
        self.say(client, b"get q/open\r\n")
        self.api("POST", "/queues/q/open")
        other = self.server.client()
        other.does(b"get q/open")
        self.server.clock.advance(1)
        page = self.api("GET", "/queues/q/items?state=open")
        self.assertEqual((page["total"], len(page["items"])), (3, 3))
        first, second, third = [item["opened"] for item in page["items"]]
        (connected,) = self.web.queues_factory.connections
        self.assertEqual(first, {
            "by": "client", "client": str(connected.number), "address": "10.0.0.1:1", "user": None,
            "since": EPOCH * 1000,
        })  # fmt: skip
        self.assertEqual((second["by"], second["address"]), ("http", "127.0.0.1:40000"))
        self.assertEqual(third["by"], "application")
        self.assertEqual(self.api("GET", "/queues/q/items/0?state=open")["opened"]["by"], "client")
        other.session.leave()

    def test_delayed(self) -> None:
        client = self.server.client()
        client.set(b"q/delay=5000", b"later")
        client.set(b"q/delay=1000", b"soon")
        self.server.commit()
        page = self.api("GET", "/queues/q/items?state=delayed")
        self.assertEqual([item["due"] for item in page["items"]], [(EPOCH + 1) * 1000, (EPOCH + 5) * 1000])
        self.assertEqual([item["preview"]["data"] for item in page["items"]], ["soon", "later"])
        last = page["items"][1]["id"]
        self.assertEqual(self.ids(f"state=delayed&after={last}"), [last])
        self.assertEqual(self.api("GET", f"/queues/q/items/{last}?state=delayed")["preview"]["data"], "later")
        self.assert_problem(self.browser.get(f"{API}/queues/q/items/1-1?state=delayed"), 404)
        self.assert_problem(self.browser.get(f"{API}/queues/q/items?state=delayed&after=1"), 400)
        self.assert_problem(self.browser.get(f"{API}/queues/q/items?after=1-1"), 400)
        self.server.clock.advance(10)
        self.server.commit()
        self.assert_problem(self.browser.get(f"{API}/queues/q/items/{last}?state=delayed"), 404)

    def test_retrying_and_dead(self) -> None:
        self.queues.apply(Policies(QueueSettings(), {
            "q": {"retry_delay": 10.0, "max_attempts": 2, "dead_letter_queue": "dead"},
        }))  # fmt: skip
        self.put(b"q", b"0", b"1")
        client = self.server.client()
        for _ in range(2):
            client.does(b"get q/open")
            client.does(b"get q/abort")
        page = self.api("GET", "/queues/q/items?state=retrying")
        self.assertEqual((page["total"], [item["attempts"] for item in page["items"]]), (2, [1, 1]))
        self.assertEqual(page["items"][0]["due"], (EPOCH + 10) * 1000)
        self.assert_problem(self.browser.get(f"{API}/queues/q/items?state=dead"), 404)
        self.server.clock.advance(10)
        client.does(b"get q/open")
        client.does(b"get q/abort")
        page = self.api("GET", "/queues/q/items?state=dead")
        self.assertEqual((page["queue"], page["state"], page["total"]), ("dead", "dead", 1))
        self.assertEqual(self.api("GET", "/queues/q/items/0?state=dead")["preview"]["data"], "0")
        self.assert_problem(self.browser.get(f"{API}/queues/dead/items?state=dead"), 409)

    def test_payload(self) -> None:
        client = self.server.client()
        client.set(b"q", LARGE, flags=9)
        self.put(b"q", b"small<script>")
        reply = self.browser.get(f"{API}/queues/q/items/0/payload")
        self.assertEqual((reply.status, reply.body, reply.headers["x-darner-flags"]), (200, LARGE, "9"))
        self.assertEqual(reply.headers["content-disposition"], 'attachment; filename="q-0.bin"')
        self.assertEqual(reply.headers["content-type"], "application/octet-stream")
        self.assertEqual(self.browser.get(f"{API}/queues/q/items/1/payload").body, b"small<script>")
        self.assert_problem(self.browser.get(f"{API}/queues/q/items/2/payload"), 404)
        self.assert_problem(self.browser.get(f"{API}/queues/none/items/2/payload"), 404)
        self.put(b'a"b', b"x")
        name = self.browser.get(f"{API}/queues/a%22b/items/0/payload").headers["content-disposition"]
        self.assertEqual(name, 'attachment; filename="a_b-0.bin"')

    def test_missing(self) -> None:
        self.assert_problem(self.browser.get(f"{API}/queues/none/items"), 404)
        self.put(b"q", b"0")
        self.assert_problem(self.browser.get(f"{API}/queues/q/items/7"), 404)
        self.assert_problem(self.browser.get(f"{API}/queues/q/items/0?state=open"), 404)
        self.assert_problem(self.browser.get(f"{API}/queues/q/items/x"), 400)

    def test_unreadable(self) -> None:
        self.put(b"q", b"0")
        self.server.store.unreadable = True
        self.assert_problem(self.browser.get(f"{API}/queues/q/items"), 503, "unreadable")

    def test_deleted_meanwhile(self) -> None:
        """What somebody looks at is the queue that was there at the beginning."""
        self.put(b"q", *[b"x" * 1000] * 100)
        look = self.web.root.served.owners

        async def delete(*_: Any) -> dict[int, Any]:
            self.queues.forget(b"q")
            return {}

        look.of = delete  # type: ignore[method-assign,assignment]
        client = self.server.client()
        client.does(b"get q/open")
        page = self.api("GET", "/queues/q/items?state=open")
        self.assertEqual([item["id"] for item in page["items"]], ["0"])


class PutTests(ItemsTestCase):
    def test_text(self) -> None:
        with capturedLogs() as logs:
            stored = self.api("POST", "/queues/q/items", {"payload": "ä", "flags": 3}, 201)
        self.assertEqual(stored, {"queue": "q", "size": 2})
        (item,) = self.api("GET", "/queues/q/items")["items"]
        self.assertEqual((item["flags"], item["preview"]["data"]), (3, "ä"))
        (event,) = [event for event in logs if event["log_namespace"] == "darner.audit"]
        self.assertEqual(event["request"], "http put q (2 bytes)")

    def test_options(self) -> None:
        self.queues.apply(Policies(QueueSettings(dedupe_window=60.0)))
        for _ in range(2):
            self.api("POST", "/queues/q/items", {"payload": "/wA=", "encoding": "base64", "id": "a", "sync": True}, 201)
        self.assertEqual(self.server.figures(b"q"), (1, 2))
        self.assertTrue(any(self.server.store.writes))
        self.api("POST", "/queues/q/items", {"payload": "", "delay_ms": 1000, "expiry": 60}, 201)
        (item,) = self.api("GET", "/queues/q/items?state=delayed")["items"]
        self.assertEqual((item["due"], item["size"]), ((EPOCH + 1) * 1000, 0))
        self.assertEqual(item["expires"], (EPOCH + 60) * 1000)

    def test_raw(self) -> None:
        path = f"{API}/queues/q/items"
        reply = self.browser.post(path + "?flags=5", LARGE * 3, Content_Type="application/octet-stream")
        self.assertEqual(reply.status, 201, reply.raw)
        (item,) = self.api("GET", "/queues/q/items")["items"]
        self.assertEqual((item["size"], item["flags"]), (len(LARGE) * 3, 5))
        reply = self.browser.post(path, b"", Content_Type="application/octet-stream")
        self.assertEqual(reply.status, 201)
        self.assertEqual(self.server.figures(b"q")[0], 2)

    def test_bad(self) -> None:
        path = f"{API}/queues/q/items"
        self.assert_problem(self.browser.post(path, {}), 400, "payload: missing")
        self.assert_problem(self.browser.post(path, {"payload": "#", "encoding": "base64"}), 400, "Base64")
        self.assert_problem(self.browser.post(path, {"payload": "", "expiry": 3_000_000}), 400, "expiry")
        self.assert_problem(self.browser.post(path, {"payload": "", "id": "a b"}), 400)
        self.assert_problem(self.browser.post(path + "?flags=1", {"payload": ""}), 400, "octet-stream")
        self.assert_problem(
            self.browser.post(path + "?flags=x", b"", Content_Type="application/octet-stream"), 400, "flags"
        )
        self.queues.apply(Policies(QueueSettings(max_item_bytes=10, max_items=1)))
        self.assert_problem(self.browser.post(path, {"payload": "x" * 11}), 413)
        self.assert_problem(self.browser.post(path, b"x" * 11, Content_Type="application/octet-stream"), 413)
        self.assertEqual(self.server.figures(b"q"), (0, 0))
        self.put(b"q", b"0")
        self.assert_problem(self.browser.post(path, {"payload": "1"}), 409, "full")
        self.server.store.full = True
        self.assert_problem(self.browser.post(f"{API}/queues/r/items", {"payload": "1"}), 503)
        self.queues.status.change("readonly")
        self.assert_problem(self.browser.post(path, {"payload": "1"}), 503, "readonly")


class ActTests(ItemsTestCase):
    def act(self, verb: str, **body: Any) -> int:
        items: int = self.api("POST", f"/queues/q/items/{verb}", body)["items"]
        return items

    def test_some(self) -> None:
        self.put(b"q", b"0", b"1", b"2", b"3")
        with capturedLogs() as logs:
            self.assertEqual(self.act("delete", ids=["1", "3", "9"]), 2)
        (event,) = [event for event in logs if event["log_namespace"] == "darner.audit"]
        self.assertEqual(event["request"], "http delete_items q ready (2 items)")
        self.assertEqual(self.act("move", ids=["2"], target="t"), 1)
        self.assertEqual(self.ids(), ["0"])
        self.assertEqual(self.server.figures(b"t"), (1, 1))

    def test_filter(self) -> None:
        self.put(b"q", *[b"even" if number % 2 == 0 else b"odd" for number in range(300)])
        self.assertEqual(self.act("delete", filter={"contains": "even"}), 150)
        self.assertEqual(self.act("move", filter={"max_size": 3}, target="t"), 150)
        self.assertEqual(self.server.figures(b"t"), (150, 450))

    def test_all(self) -> None:
        self.put(b"q", *[b"x"] * 300)
        self.server.clock.advance(1)
        self.assertEqual(self.act("delete"), 300)
        self.assertEqual(self.server.figures(b"q"), (0, 0))

    def test_not_what_came_meanwhile(self) -> None:
        self.put(b"q", *[b"x"] * 3)
        self.server.clock.advance(1)
        started = self.web.root.served.now
        self.put(b"q", b"new")
        self.server.set_by = -1
        self.assertEqual(self.web.root.served.now, started - 1000)
        self.assertEqual(self.act("delete"), 3)
        self.assertEqual(self.server.figures(b"q"), (1, 3))

    def test_open(self) -> None:
        self.put(b"q", b"0", b"1")
        client = self.memcache()
        self.say(client, b"get q/open\r\n")
        self.assertEqual(self.act("return", state="open", ids=["0"]), 1)
        self.assertEqual(self.ids(), ["0", "1"])
        self.say(client, b"get q/close\r\n")
        self.assertEqual(self.ids(), ["0", "1"])
        self.say(client, b"get q/open\r\n")
        self.assertEqual(self.act("delete", state="open"), 1)
        self.assertEqual(self.ids(), ["1"])

    def test_delayed(self) -> None:
        client = self.server.client()
        for number in range(60):
            client.set(b"q/delay=5000", b"%d" % number)
        self.server.commit()
        some = self.ids("state=delayed&limit=3")
        self.assertEqual(self.act("delete", state="delayed", ids=some[:1]), 1)
        self.assertEqual(self.act("return", state="delayed", ids=some[1:2]), 1)
        self.assertEqual(self.act("move", state="delayed", ids=some, target="t"), 1)
        self.assertEqual(self.ids(), ["0"])
        self.assertEqual(self.act("return", state="delayed"), 57)
        self.assertEqual(self.server.figures(b"q")[0], 58)

    def test_dead(self) -> None:
        self.queues.apply(Policies(QueueSettings(), {"q": {"max_attempts": 1, "dead_letter_queue": "dead"}}))
        self.put(b"q", b"0")
        self.put(b"dead", b"1", b"2")
        self.assertEqual(self.act("move", state="dead", target="q"), 2)
        self.assertEqual(self.server.figures(b"q"), (3, 3))

    def test_bad(self) -> None:
        self.put(b"q", b"0")
        self.queues.apply(Policies(aliases={b"all": (b"t",)}))
        for verb, body, status in (
            ("move", {"target": "q"}, 400), ("move", {"target": "all"}, 400), ("move", {}, 400),
            ("return", {"ids": ["0"]}, 400), ("delete", {"ids": ["0-1"]}, 400), ("delete", {"ids": ["x"]}, 400),
            ("delete", {"ids": []}, 400), ("delete", {"filter": {"x": 1}}, 400), ("delete", {"ids": [1]}, 400),
            ("delete", {"filter": {"min_size": -1}}, 400), ("delete", {"ids": "0"}, 400),
            ("delete", {"filter": []}, 400),
            ("delete", {"ids": ["0"] * 1001}, 400), ("delete", {"state": "dead"}, 409),
        ):  # fmt: skip
            self.assert_problem(self.browser.post(f"{API}/queues/q/items/{verb}", body), status)
        self.assertEqual(self.server.figures(b"q"), (1, 1))
        self.queues.status.change("readonly")
        self.assert_problem(self.browser.post(f"{API}/queues/q/items/delete", {"ids": ["0"]}), 503)

    def test_none(self) -> None:
        self.assertEqual(self.act("delete"), 0)
        self.assertEqual(self.act("delete", state="open"), 0)
        self.assertEqual(self.act("delete", state="delayed", ids=["1-1"]), 0)

    def test_refused_by_the_store(self) -> None:
        self.put(b"q", b"0")
        self.server.store.full = True
        self.assert_problem(self.browser.post(f"{API}/queues/q/items/move", {"target": "t"}), 503)
        self.server.store.full = False
        self.server.clock.advance(1)
        self.assertEqual(self.ids(), ["0"])


class ReadTests(ItemsTestCase):
    def test_take(self) -> None:
        self.put(b"q", b"0", b"\xff")
        taken = self.api("POST", "/queues/q/take")
        self.assertEqual((taken["payload"]["data"], taken["size"]), ("0", 1))
        self.assertEqual(self.api("POST", "/queues/q/take", {"timeout_ms": 0})["payload"]["encoding"], "base64")
        self.assertIsNone(self.api("POST", "/queues/q/take", status=204))
        self.assertEqual(self.server.figures(b"q"), (0, 0))

    def test_wait(self) -> None:
        self.browser.send("POST", f"{API}/queues/q/take", {"timeout_ms": 5000})
        self.server.commit()
        self.assertEqual(self.browser.take(), b"")
        self.put(b"q", b"0")
        self.assertIn(b'"data":"0"', self.browser.take())
        self.browser.send("POST", f"{API}/queues/q/take", {"timeout_ms": 5000})
        self.server.clock.advance(5)
        self.server.commit()
        self.assertIn(b"204 No Content", self.browser.take())

    def test_gone_while_waiting(self) -> None:
        """Nothing is lost."""
        self.browser.send("POST", f"{API}/queues/q/take", {"timeout_ms": 5000})
        self.server.commit()
        self.browser.close()
        self.put(b"q", b"0")
        self.assertEqual(self.server.figures(b"q"), (1, 1))

    def test_large(self) -> None:
        """It stays: it is too large for an answer."""
        self.put(b"q", b"x" * (MOST_BYTES + 1))
        self.assert_problem(self.browser.post(f"{API}/queues/q/take"), 413)
        self.server.commit()
        self.assertEqual(self.server.figures(b"q"), (1, MOST_BYTES + 1))

    def test_open(self) -> None:
        self.put(b"q", b"0")
        opened = self.api("POST", "/queues/q/open", {"open_ms": 5000})
        self.assertEqual(opened["expires"], (EPOCH + 5) * 1000)
        self.assertEqual(self.server.figures(b"q"), (0, 0))
        self.assertEqual(self.api("POST", f"/reads/{opened['token']}/abort"), {"ended": True})
        self.assertEqual(self.server.figures(b"q"), (1, 1))
        opened = self.api("POST", "/queues/q/open")
        self.assertEqual(self.api("POST", f"/reads/{opened['token']}/close"), {"ended": True})
        self.assert_problem(self.browser.post(f"{API}/reads/{opened['token']}/close"), 404)
        self.assertIsNone(self.api("POST", "/queues/q/open", status=204))

    def test_time_out(self) -> None:
        self.put(b"q", b"0")
        opened = self.api("POST", "/queues/q/open", {"open_ms": 5000})
        self.server.clock.advance(5)
        self.server.commit()
        self.assertEqual(self.server.figures(b"q"), (1, 1))
        self.assert_problem(self.browser.post(f"{API}/reads/{opened['token']}/close"), 404)

    def test_withdrawn(self) -> None:
        self.put(b"q", b"0")
        opened = self.api("POST", "/queues/q/open")
        self.api("POST", "/queues/q/items/return", {"state": "open"})
        self.assertEqual(self.api("POST", f"/reads/{opened['token']}/close"), {"ended": False})
        self.assertEqual(self.server.figures(b"q"), (1, 1))

    def test_the_end(self) -> None:
        """When the server stops, what is open goes back, and who waits is told."""
        self.put(b"q", b"0")
        self.api("POST", "/queues/q/open")
        self.browser.send("POST", f"{API}/queues/q/take", {"timeout_ms": 5000})
        self.server.commit()
        self.web.root.close()
        self.server.commit()
        self.assertIn(b"503", self.browser.take())
        self.assertEqual(self.server.figures(b"q"), (1, 1))

    def test_too_many(self) -> None:
        self.put(b"q", b"0")
        reads = self.web.root.served.reads
        reads._reads = dict.fromkeys(range(MOST))  # type: ignore[assignment]
        self.assert_problem(self.browser.post(f"{API}/queues/q/open"), 409, "too many")
        reads._reads = {}

    def test_refused(self) -> None:
        self.queues.status.change("quiescent")
        self.assert_problem(self.browser.post(f"{API}/queues/q/take"), 503)
        self.assert_problem(self.browser.post(f"{API}/queues/q/take", {"timeout_ms": 60_001}), 400)


class ClientsTests(ItemsTestCase):
    def clients(self, query: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api("GET", f"/clients?{query}")["clients"]
        return found

    def test_list(self) -> None:
        self.put(b"q", b"0")
        self.server.clock.advance(1)
        one, two, three = (self.memcache(port) for port in (1, 2, 3))
        self.say(one, b"get q/open\r\n")
        self.say(two, b"get r/t=5000\r\n")
        self.say(three, b"monitor s 5\r\n")
        told = {client["address"]: client for client in self.clients()}
        self.assertEqual(len(told), 4)
        self.assertEqual((told["10.0.0.1:1"]["open"], told["10.0.0.1:1"]["open_reads"]), ({"q": 1}, 1))
        self.assertEqual(told["10.0.0.1:2"]["waits_for"], ["r"])
        self.assertEqual(told["10.0.0.1:3"]["waits_for"], ["s"])
        self.assertEqual(told["10.0.0.1:1"]["since"], (EPOCH + 1) * 1000)
        self.assertEqual(told["10.0.0.1:1"]["listener"], "127.0.0.1:22133")
        self.assertEqual(told["127.0.0.1:40000"]["protocol"], "http")
        self.assertEqual([client["address"] for client in self.clients("filter=:2&limit=1")], ["10.0.0.1:2"])
        self.assertEqual(self.api("GET", "/clients?offset=9")["clients"], [])
        (held,) = [found for found in self.web.queues_factory.connections if found.session is one.session]
        held.active, held.quiet_since = False, self.server.clock.seconds() - 3
        self.say(two, b"")
        self.assertEqual(self.clients("filter=:1")[0]["idle_ms"], 3000)

    def test_cut_off(self) -> None:
        self.put(b"q", b"0")
        client = self.memcache()
        self.say(client, b"get q/open\r\n")
        (told,) = self.clients("filter=10.0.0.1")
        with capturedLogs() as logs:
            self.assertEqual(self.api("DELETE", f"/clients/{told['id']}"), {"closed": True})
        (event,) = [event for event in logs if event["log_namespace"] == "darner.audit"]
        self.assertIn("10.0.0.1:1", event["request"])
        self.assertEqual(self.server.figures(b"q"), (1, 1))
        self.assert_problem(self.browser.ask("DELETE", f"{API}/clients/{told['id']}"), 404)

    def test_cut_off_a_browser(self) -> None:
        other: Browser = self.web.browser(address=IPv4Address("TCP", "127.0.0.1", 5))
        (told,) = self.clients("filter=127.0.0.1:5")
        self.api("DELETE", f"/clients/{told['id']}")
        self.assertTrue(other.transport.disconnected)


class ItemRightsTests(UsersTestCase):
    """The rights by queue hold for items, targets and reads as well."""

    def test_rights(self) -> None:
        for queue in (b"jobs_a", b"jobs_x", b"other"):
            self.put(queue, b"0")
        bob = {"Authorization": "Basic Ym9iOndvcmQ="}
        for method, path, body, status in (
            ("GET", "queues/other/items", None, 403),
            ("GET", "queues/other/items/0/payload", None, 403),
            ("POST", "queues/other/items", {"payload": ""}, 403),
            ("POST", "queues/other/take", None, 403),
            ("POST", "queues/jobs_a/items/delete", {}, 403),
            ("POST", "queues/jobs_x/items/move", {"target": "other"}, 403),
            ("DELETE", "clients/1", None, 403),
            ("GET", "clients", None, 403),
            ("PUT", "status", {"status": "readonly"}, 403),
            ("GET", "queues/jobs_a/items", None, 200),
            ("POST", "queues/jobs_a/items", {"payload": ""}, 201),
            ("POST", "queues/jobs_x/items/move", {"target": "jobs_a"}, 200),
        ):
            reply = self.browser.ask(method, f"{API}/{path}", body, **bob)
            self.assertEqual(reply.status, status, (path, reply.raw))
        opened = self.browser.post(f"{API}/queues/jobs_a/open", **bob).json
        self.assert_problem(self.browser.post(f"{API}/reads/{opened['token']}/close"), 404)
        self.assertEqual(self.browser.post(f"{API}/reads/{opened['token']}/close", **bob).status, 200)

    def test_dead_letters(self) -> None:
        """Those of a queue may be another's business."""
        self.queues.apply(Policies(QueueSettings(), {"jobs_x": {"max_attempts": 1, "dead_letter_queue": "dead"}}))
        self.put(b"dead", b"0")
        self.put(b"jobs_x", b"0")
        bob = {"Authorization": "Basic Ym9iOndvcmQ="}
        self.assert_problem(self.browser.get(f"{API}/queues/jobs_x/items?state=dead", **bob), 403)
        body = {"state": "dead"}
        self.assert_problem(self.browser.post(f"{API}/queues/jobs_x/items/delete", body, **bob), 403)


class JsonTests(ItemsTestCase):
    def test_names_and_payloads_are_data(self) -> None:
        """Script in names and payloads stays text."""
        self.put(b"<script>alert(1)<&script>", b"</script><script>")
        raw = self.browser.get(f"{API}/queues").body
        self.assertEqual(json.loads(raw)["queues"][0]["name"], "<script>alert(1)<&script>")
        self.assertEqual(self.browser.get(f"{API}/queues").headers["content-type"], "application/json")
