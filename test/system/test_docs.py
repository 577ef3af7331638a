"""
Tests of the documentation: its sessions are held with a real server, its links lead somewhere, and its table of
packages and modules is that of the tree.
"""

from __future__ import annotations

import doctest
import re
import socket
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from test.servers import MODULE, PATIENCE, ROOT, Server
from test.system.test_layout import PACKAGE, modules


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
        plain, stock = self.start(), self.start("--dialect=memcache")
        count = 0
        for session in self.sessions("docs/protocol.rst"):
            self.hold(stock if "S: VALUE jobs/t=500 0 5" in session else plain, session)
            count += 1
        self.assertGreater(count, 4)

    def test_by_hand(self) -> None:
        port = self.start()
        text = (ROOT / "docs" / "first_steps.rst").read_text()
        sessions = re.findall(r"    \$ printf '(.*)' \| nc 127.0.0.1 22133\n((?:    [^$].*\n)*)", text)
        self.assertEqual(len(sessions), 2)
        for request, reply in sessions:
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                client.sendall(request.replace(r"\r\n", "\r\n").encode())
                with client.makefile("r") as stream:
                    self.assertEqual(stream.read(), reply.replace("    ", ""))

    def test_with_a_memcache_client(self) -> None:
        port = self.start()
        text = (ROOT / "docs" / "first_steps.rst").read_text().replace("127.0.0.1:22133", f"127.0.0.1:{port}")
        session = doctest.DocTestParser().get_doctest(text, {}, "first_steps.rst", None, None)
        self.assertGreater(len(session.examples), 5)
        complaints: list[str] = []
        doctest.DocTestRunner(verbose=False).run(session, out=complaints.append, clear_globs=False)
        session.globs["client"].close()
        self.assertEqual(complaints, [])


class PagesTests(SynchronousTestCase):
    """The pages refer to each other and to the code by names that exist."""

    def setUp(self) -> None:
        self.pages = [ROOT / "README.rst", ROOT / "CONTRIBUTING.rst", *sorted((ROOT / "docs").rglob("*.rst"))]

    def test_every_place_is_named(self) -> None:
        """The overview names each package and each module once, and nothing else."""
        text = (ROOT / "docs" / "design" / "overview.rst").read_text()
        named = re.findall(r"^   ``([a-z0-9_/]+)``,", text, re.MULTILINE)
        packages = [path.parent.relative_to(PACKAGE).as_posix() + "/" for path in PACKAGE.glob("*/**/__init__.py")]
        places = [*packages, *(name.replace(".", "/") for name in modules())]
        self.assertEqual(sorted(named), sorted(places))

    def test_links(self) -> None:
        """Links to files lead to files, and those with a heading to a page that has it."""
        count = 0
        for page in self.pages:
            text = page.read_text()
            targets = [
                *re.findall(r"<([^<>]+)>`__", text), *re.findall(r"^\.\. _[^:]+: (\S+)$", text, re.MULTILINE),
            ]  # fmt: skip
            for target in targets:
                if "://" not in target and not target.endswith("_"):
                    self.assertTrue((page.parent / target).exists(), f"{page}: {target}")
                    count += 1
            for target, words in re.findall(r'<([\w./]+\.rst)>`__,\s+"([^"]+)"', text):
                heading = " ".join(words.split())
                self.assertIn(f"\n{heading}\n--", (page.parent / target).read_text(), f"{page}: {target}, {heading}")
        self.assertGreater(count, 20)

    def test_every_page_of_the_design_is_listed(self) -> None:
        design = ROOT / "docs" / "design"
        listed = re.findall(r"^\* `(\w+\.rst) <", (design / "index.rst").read_text(), re.MULTILINE)
        self.assertEqual(sorted(listed), sorted(path.name for path in design.glob("*.rst") if path.stem != "index"))

    def test_paths(self) -> None:
        """The code and the pages name no document, module or test that is not there."""
        sources = [path for place in ("darner", "test", "bench", "fuzz") for path in (ROOT / place).rglob("*.py")]
        pattern = re.compile(r"(?<![\w/.-])((?:darner|docs|test|bench|fuzz|examples)/[a-z0-9_/]+\.(?:py|rst|toml|tac))")
        count = 0
        for source in [*self.pages, *sources]:
            for path in pattern.findall(source.read_text()):
                self.assertTrue((ROOT / path).exists(), f"{source}: {path}")
                count += 1
        self.assertGreater(count, 30)
