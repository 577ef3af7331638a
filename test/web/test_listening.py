"""A real server with HTTP: where it listens, what its log says, and how long it keeps others waiting."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from darner.cli.options import Options
from darner.cli.server import listeners
from darner.config.settings import Listener as Place
from darner.config.settings import Settings, make_settings
from darner.errors import SettingsError
from darner.net.listeners import HTTP, Listener, url_of
from test.servers import Server, make_certificate, make_directory, run


class SettingsTests(SynchronousTestCase):
    def test_options(self) -> None:
        options = Options()
        options.parseOptions(
            ["--http-port=1", "--http-interface=::1", "--http-listen=tcp:2", "--http-listen=unix:/x", "--port=0"]
        )
        settings = options.settings()
        self.assertEqual((settings.http_port, settings.http_interface), (1, "::1"))
        self.assertEqual(settings.http_listen, (Place("tcp:2"), Place("unix:/x")))

    def test_file(self) -> None:
        settings = make_settings(
            {"http_port": "none", "http_listen": ["tcp:2"], "http_hosts": ["queues.example.org"]}, "file"
        )
        self.assertEqual((settings.http_port, settings.http_hosts), (None, ("queues.example.org",)))

    def test_dialect(self) -> None:
        with self.assertRaises(SettingsError):
            make_settings({"http_listen": [{"endpoint": "tcp:1", "dialect": "memcache"}]}, "file")

    def test_listeners(self) -> None:
        settings = Settings(http_port=1, http_interface="::1", http_listen=(Place("tcp:2"),))
        found = [place for place in listeners(settings, Clock()) if place.protocol == HTTP]
        kinds = [type(place.endpoint).__name__ for place in found]
        self.assertEqual(kinds, ["TCP6ServerEndpoint", "TCP4ServerEndpoint"])

    def test_missing_package(self) -> None:
        """One line says what to install."""
        program = (
            "import sys; sys.modules['prometheus_client'] = None; sys.argv = ['darner', '--port=0', '--http-port=0'];"
            "import darner.__main__ as program; program.main()"
        )
        directory = make_directory(self)
        done = run(sys.executable, "-c", program, cwd=directory)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^darner: HTTP needs more packages: pip install 'darner\[web\]' \(.*\)\n$")

    def test_urls(self) -> None:
        for address, tls, url in (
            (IPv4Address("TCP", "127.0.0.1", 1), False, "http://127.0.0.1:1/"),
            (IPv6Address("TCP", "::1", 1), True, "https://[::1]:1/"),
            (IPv4Address("TCP", "0.0.0.0", 1), False, f"http://{socket.gethostname()}:1/"),
        ):
            self.assertEqual(url_of(address, tls), url)
        endpoint: Any = None
        self.assertEqual(Listener(endpoint).describe(IPv6Address("TCP", "::1", 1)), "[::1]:1")
        self.assertIn("/x", Listener(endpoint).describe(UNIXAddress("/x")))
        self.assertIn("/x", Listener(endpoint, HTTP).describe(UNIXAddress("/x")))
        self.assertEqual(str(Listener(endpoint, HTTP)), " (HTTP)")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


class RealTests(SynchronousTestCase):
    def get(self, connection: http.client.HTTPConnection, path: str) -> Any:
        connection.request("GET", path)
        reply = connection.getresponse()
        body = reply.read()
        connection.close()
        self.assertEqual(reply.status, 200, body)
        return json.loads(body) if body[:1] == b"{" else body

    def test_everywhere(self) -> None:
        """TCP, TLS and a unix socket, in one server."""
        directory = make_directory(self)
        pem = make_certificate(directory, "server")
        path = directory / "http.sock"
        server = Server(
            self, "--port=0", "--http-port=0", f"--http-listen=unix:{path}",
            f"--http-listen=ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}",
            f"--data-dir={directory / 'data'}", directory=directory,
        )  # fmt: skip
        urls = re.findall(r"dashboard, HTTP API and metrics: (\S+)", server.text)
        self.assertEqual(sorted(url.partition("127")[0] for url in urls)[1:], ["http://", "https://"])
        plain, secure = (int(re.search(rf"{kind}://127.0.0.1:(\d+)/", server.text)[1]) for kind in ("http", "https"))
        with server.client() as client:
            client.send(b"set jobs 0 0 1\r\nx\r\nget jobs/open\r\n")
            client.line(), client.line()
            told = self.get(http.client.HTTPConnection("127.0.0.1", plain), "/api/v1/clients")
            (found,) = [entry for entry in told["clients"] if entry["protocol"] == "memcache"]
            self.assertEqual((found["open"], found["tls"]), ({"jobs": 1}, False))
            page = self.get(http.client.HTTPConnection("127.0.0.1", plain), "/api/v1/queues/jobs/items?state=open")
            self.assertEqual(page["items"][0]["opened"]["client"], found["id"])
        self.assertEqual(self.get(UnixConnection(path), "/ping"), b"pong\n")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", secure, context=context)
        self.assertEqual(self.get(connection, "/health"), {"ok": True, "reasons": []})
        self.assertEqual(server.stop(), 0)

    def test_open_to_others(self) -> None:
        """The log says whom HTTP serves at an address that others reach."""
        directory = make_directory(self)
        server = Server(
            self, "--port=0", "--http-port=0", "--http-interface=0.0.0.0", f"--data-dir={directory / 'data'}",
            directory=directory,
        )  # fmt: skip
        server.allow("serves no other machine")
        server.wait_for("serves no other machine")
        server.stop()

    def test_stop_while_somebody_listens(self) -> None:
        """An open stream of events, and a read that waits, do not hold up the end."""
        directory = make_directory(self)
        server = Server(self, "--port=0", "--http-port=0", f"--data-dir={directory / 'data'}", directory=directory)
        match = re.search(r"metrics: http://127.0.0.1:(\d+)/", server.text)
        assert match is not None
        listening = http.client.HTTPConnection("127.0.0.1", int(match[1]))
        listening.request("GET", "/api/v1/events")
        reply = listening.getresponse()
        self.assertIn(b"retry", reply.readline())
        self.assertEqual(server.stop(), 0)
        listening.close()
