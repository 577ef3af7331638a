"""
The sessions in the documentation, held with a real server.
"""

from __future__ import annotations

import doctest
import re
import socket
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from test.servers import MODULE, PATIENCE, ROOT, Server


class SessionsTests(SynchronousTestCase):
    def start(self, *options: str) -> int:
        """@return: the port of a new server."""
        return Server(self, "--port=0", *options, program=MODULE).address[1]

    def hold(self, port: int, session: list[str]) -> None:
        """Send what the client says, and expect what the server says."""
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client, client.makefile("rwb") as stream:
            for line in session:
                who, text = line[:2], line[3:].encode() + b"\r\n"
                if who == "C:":
                    stream.write(text)
                else:
                    stream.flush()
                    self.assertEqual(stream.readline(), text, session)
            stream.write(b"version\r\n")
            stream.flush()
            self.assertTrue(stream.readline().startswith(b"VERSION "), f"too much was answered: {session}")

    def sessions(self, name: str) -> Iterator[list[str]]:
        """@return: the blocks of lines that begin with C: or S:."""
        for block in re.findall(r"(?:^    [CS]:.*\n)+", (ROOT / name).read_text(), re.MULTILINE):
            yield [line[4:] for line in block.splitlines()]

    def test_protocol(self) -> None:
        plain, whole = self.start(), self.start("--reply-key=request")
        self.hold(whole, ["C: set jobs 0 0 5", "C: hello", "S: STORED"])
        count = 0
        for session in self.sessions("docs/protocol.rst"):
            self.hold(whole if "S: VALUE jobs/t=500 0 5" in session else plain, session)
            count += 1
        self.assertGreater(count, 4)

    def test_by_hand(self) -> None:
        port = self.start()
        text = (ROOT / "README.rst").read_text()
        sessions = re.findall(r"    \$ printf '(.*)' \| nc 127.0.0.1 22133\n((?:    [^$].*\n)*)", text)
        self.assertEqual(len(sessions), 2)
        for request, reply in sessions:
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                client.sendall(request.replace(r"\r\n", "\r\n").encode())
                with client.makefile("r") as stream:
                    self.assertEqual(stream.read(), reply.replace("    ", ""))

    def test_with_a_memcache_client(self) -> None:
        port = self.start()
        text = (ROOT / "README.rst").read_text().replace("127.0.0.1:22133", f"127.0.0.1:{port}")
        session = doctest.DocTestParser().get_doctest(text, {}, "README.rst", None, None)
        self.assertGreater(len(session.examples), 5)
        complaints: list[str] = []
        doctest.DocTestRunner(verbose=False).run(session, out=complaints.append, clear_globs=False)
        session.globs["client"].close()
        self.assertEqual(complaints, [])
