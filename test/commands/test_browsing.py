"""
L{darner.commands.browsing} and L{darner.commands.admin}: what the admin HTTP of a server tells.
"""

from __future__ import annotations

import base64

from test.commands.admin_http import AdminHTTP
from test.commands.harness import Done, ProgramTestCase


class BrowseTests(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.admin = AdminHTTP(self)

    def browse(self, *arguments: str, **variables: str) -> Done:
        return self.call("--http", self.admin.url, *arguments, **variables)

    def test_items(self) -> None:
        self.admin.put("jobs", b"resize photo 1")
        self.admin.put("jobs", b"two\nlines \x1b[31m", flags=7)
        self.admin.put("jobs", b"\xff" + b"x" * 5000)
        done = self.browse("browse", "jobs")
        self.assertEqual((done.status, done.errors), (0, ""))
        self.assertEqual(done.text.splitlines(), [
            "id   age     size  flags  payload",
            "0   5.0s     14 B      0  resize photo 1",
            "1   5.0s     15 B      7  two\\nlines \\x1b[31m",
            f"2   5.0s  4.9 KiB      0  \\xff{'x' * 255}...",
        ])  # fmt: skip

    def test_pages(self) -> None:
        for number in range(250):
            self.admin.put("jobs", b"%d" % number)
        done = self.browse("browse", "jobs", "-n", "230", "--json")
        self.assertEqual([item["payload"] for item in done.json["items"]], [str(number) for number in range(230)])
        self.assertEqual((done.json["total"], done.json["next"]), (250, "230"))
        done = self.browse("browse", "jobs", "--from", "248", "--json")
        self.assertEqual([item["id"] for item in done.json["items"]], ["248", "249"])
        self.assertIsNone(done.json["next"])

    def test_what_is_asked(self) -> None:
        self.admin.put("a+b", b"x", "delayed", due=5)
        done = self.browse("browse", "a+b", "--state", "delayed", "--contains", "x", "--json")
        self.assertEqual(done.json["items"][0]["due"], 5)
        path, query, headers = self.admin.heard[-1]
        self.assertEqual(path, "/api/v1/queues/a%2Bb/items")
        self.assertEqual(query, {"state": "delayed", "limit": "20", "preview": "256", "contains": "x"})
        self.assertNotIn("Authorization", headers)

    def test_none(self) -> None:
        done = self.browse("browse", "none")
        self.assertEqual((done.status, done.text, done.errors), (3, "", ""))

    def test_log_in(self) -> None:
        self.browse("--user", "ann", "clients", DARNER_PASSWORD="secret")
        token = base64.b64encode(b"ann:secret").decode()
        self.assertEqual(self.admin.heard[-1][2]["Authorization"], f"Basic {token}")

    def test_clients(self) -> None:
        self.admin.clients = [
            {"id": str(number), "address": f"127.0.0.1:{number}", "user": None if number else "ann", "tls": not number,
             "protocol": "memcache", "idle_ms": number * 1000, "open_reads": number, "waits_for": ["jobs", "mail"]}
            for number in range(2)
        ]  # fmt: skip
        done = self.browse("clients", "127")
        self.assertEqual(done.text.splitlines(), [
            "id  address      user  protocol        idle  open  waits for",
            "0   127.0.0.1:0  ann   memcache (TLS)    0s     0  jobs mail",
            "1   127.0.0.1:1  -     memcache        1.0s     1  jobs mail",
        ])  # fmt: skip
        self.assertEqual(self.admin.heard[-1][1]["filter"], "127")
        self.assertEqual(self.browse("clients", "--json").json, self.admin.clients)

    def test_refused(self) -> None:
        for status, detail, ended in (
            (401, "log in", 6), (403, "not allowed", 6), (404, "there is no queue x", 3), (500, "it broke", 1),
        ):  # fmt: skip
            self.admin.problem = status, detail
            done = self.browse("browse", "jobs")
            self.assertEqual((done.status, done.errors), (ended, f"darner: {detail}\n"))

    def test_not_an_admin_http(self) -> None:
        for answer, text in (
            ((404, "text/html", b"<h1>"), "is not the admin HTTP of a darner: it answers 404"),
            ((200, "text/html", b"<h1>"), "is not the admin HTTP of a darner: its answer is no JSON"),
            ((500, "application/problem+json", b"x"), "is not the admin HTTP of a darner: it answers 500"),
        ):
            self.admin.raw = answer
            done = self.browse("clients")
            self.assertEqual((done.status, done.errors), (1, f"darner: {self.admin.url} {text}\n"))

    def test_without(self) -> None:
        self.fails(2, "browse needs the admin HTTP of the server: name its address by --http", "browse", "jobs")
        self.fails(2, "not the URL of an admin HTTP", "--http", "127.0.0.1:80", "clients")
        away = "http://127.0.0.1:1"
        self.fails(4, f"no answer from {away}: Connection refused", "--http", away, "clients")
