"""
The examples of ``docs/command_line.rst`` do what is said there, typed into a shell.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from darner.commands import archive, exits
from darner.commands.program import SECTIONS
from test.commands.harness import call, environment, program_on_path
from test.servers import PATIENCE, ROOT, Server, make_directory

PAGE = ROOT / "docs" / "command_line.rst"


_SESSION = re.compile(
    r"^    \$ (.*)\n((?:(?:    (?!\$ ).*)?\n(?=    |\n    ))*(?:    (?!\$ ).*\n)?)", re.MULTILINE
)  # fmt: skip
_PLAIN = re.compile(r"darner (?!.*--exec)[^|&;<>$`]*")
"""What needs no shell, and so no process."""


class ExamplesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.text = PAGE.read_text()
        self.directory = make_directory(self)

    def type(self, command: str, path: str, servers: str) -> str:
        """@return: what it writes."""
        if _PLAIN.fullmatch(command):
            done = call(*shlex.split(command)[1:], DARNER_SERVERS=servers)
            return done.text + done.errors
        return subprocess.run(
            ["bash", "-c", command], env=environment(PATH=path, DARNER_SERVERS=servers), text=True, timeout=PATIENCE,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ).stdout  # fmt: skip

    def test_examples(self) -> None:
        sessions = _SESSION.findall(self.text)
        self.assertEqual(len(sessions), self.text.count("\n    $ "))
        self.hold(sessions)

    def test_first_steps(self) -> None:
        page = (ROOT / "docs" / "first_steps.rst").read_text()
        text = page.partition("\nFrom a shell\n")[2].partition("\nWith a memcache")[0]
        sessions = [(command, output.replace(" 2.1s ", " ... ")) for command, output in _SESSION.findall(text)]
        self.assertEqual(len(sessions), 3)
        self.hold(sessions)

    def hold(self, sessions: list[tuple[str, str]]) -> None:
        """Type the commands, and expect what is said that they write."""
        places = {str(port): str(Server(self).address[1]) for port in (22133, 22134)}
        checker = doctest.OutputChecker()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(make_directory(self))
        with program_on_path(self.directory) as path:
            for command, output in sessions:
                expected = re.sub(r"^    ", "", output, flags=re.MULTILINE).strip("\n") + "\n"
                typed = command
                for port, place in places.items():
                    typed = typed.replace(f":{port}", f":{place}")
                written = self.type(typed, path, f"127.0.0.1:{places['22133']}").strip("\n") + "\n"
                for port, place in places.items():
                    written = written.replace(f":{place}", f":{port}")
                options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
                text = f"$ {command}\n{written}-- is expected to be\n{expected}"
                self.assertTrue(checker.check_output(expected, written, options), text)

    def test_every_command_is_there(self) -> None:
        headings = re.findall(r"^([a-z, -]+)\n~+$", self.text, re.MULTILINE)
        described = [name for heading in headings for name in heading.split(", ")]
        self.assertEqual(sorted(described), sorted(name for section in SECTIONS.values() for name in section))

    def test_every_status_is_there(self) -> None:
        listed = set(map(int, re.findall(r"^(\d+) +\S", self.text, re.MULTILINE)))
        self.assertEqual(listed, {value for value in vars(exits).values() if type(value) is int})

    def test_format(self) -> None:
        self.assertIn(f"the {len(archive.MAGIC)} bytes ``{archive.MAGIC.decode().strip()}`` and a line feed", self.text)
        kinds = re.findall(r"^``([A-Z])`` ", self.text, re.MULTILINE)
        self.assertEqual(
            [kind.encode() for kind in kinds],
            [archive.HEADER, archive.QUEUE, archive.ITEM, archive.PIECE, archive.END],
        )
        for state in archive.STATE_LETTERS.values():
            self.assertIn(f"``{state.decode()}`` ", self.text)
