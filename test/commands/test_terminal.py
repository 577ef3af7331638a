"""
What a person sees: tables, progress and questions at a terminal.
"""

from __future__ import annotations

import re

from darner.client.blocking import Client
from darner.commands.output import size
from test.commands.harness import ProgramTestCase, Terminal
from test.servers import PATIENCE, Server


class TerminalTests(ProgramTestCase):
    def test_table_fits(self) -> None:
        """However narrow the terminal is, a row is a line; it is the names that are cut."""
        name = self.queue + "_" + "long" * 30
        self.client.put_many(name, [b"x"] * 1234)
        terminal = self.terminal("queues", self.queue + "*", columns=72)
        self.assertEqual(terminal.wait(), 0)
        header, row = terminal.lines
        self.assertRegex(header, r"^ ?queue +items +bytes +open +delayed +aside +waiters +oldest +put$")
        self.assertLessEqual(max(map(len, terminal.lines)), 72)
        self.assertRegex(row, r"^Ter\S*… +1,234 +1\.2 KiB +0 ")

    def test_narrow_table(self) -> None:
        """Where even that does not fit, the last columns are left out, and the others are whole."""
        self.client.put_many(self.queue, [b"x"] * 1234)
        terminal = self.terminal("queues", self.queue, columns=36)
        self.assertEqual(terminal.wait(), 0)
        self.assertEqual(terminal.lines[0].split(), ["queue", "items", "bytes", "open"])
        self.assertIn(" 1,234 ", terminal.lines[1])

    def test_wide_table(self) -> None:
        """Nothing is cut where there is room."""
        self.client.put(self.queue, b"x")
        terminal = self.terminal("queues", self.queue, columns=140)
        self.assertEqual(terminal.wait(), 0)
        self.assertIn(self.queue, terminal.lines[-1])

    def test_items_do_nothing_to_the_terminal(self) -> None:
        self.client.put_many(self.queue, [b"\x1b[2J\x1b]0;title\x07evil\xff", b"plain"])
        terminal = self.terminal("get", self.queue, "-n", "2")
        self.assertEqual(terminal.wait(), 0)
        self.assertEqual(terminal.lines, ["\\x1b[2J\\x1b]0;title\\x07evil\\xff", "plain"])

    def test_progress(self) -> None:
        """What is long shows count, rate, share and the time left, and leaves nothing behind."""
        path = self.directory / "film"
        path.write_bytes(b"x" * 30_000_000)
        terminal = self.terminal("put", self.queue, "-f", str(path), columns=100)
        self.assertEqual(terminal.wait(), 0)
        self.assertEqual(terminal.lines, [f"1 item put on {self.queue}"])
        drawn = terminal.raw.decode()
        self.assertRegex(drawn, rf"[\d.]+ [KM]iB of {re.escape(size(30_000_000))}")
        self.assertRegex(drawn, r"\d+ %")
        self.assertRegex(drawn, r"[\d.]+ \w+/s")
        self.assertRegex(drawn, r"\d\d:\d\d|--:--")
        self.assertIn("left", drawn)

    def test_progress_without_a_total(self) -> None:
        """Lines of which nobody knows how many come."""
        terminal = self.terminal("put", self.queue, "-")
        for number in range(3):
            terminal.type(f"line {number}\n")
        terminal.sees(lambda lines: any(" items" in line for line in lines))
        terminal.type("\x04")
        self.assertEqual(terminal.wait(), 0)
        self.assertEqual(terminal.lines[-1], f"3 items put on {self.queue}")
        self.assertEqual(self.items(), [b"line 0", b"line 1", b"line 2"])

    def test_quiet(self) -> None:
        path = self.directory / "film"
        path.write_bytes(b"x" * 3_000_000)
        terminal = self.terminal("put", self.queue, "-q", "-f", str(path))
        self.assertEqual((terminal.wait(), terminal.raw), (0, b""))

    def test_question(self) -> None:
        """What drops items asks, and says how many."""
        self.client.put_many(self.queue, [b"x"] * 1200)
        question = f"Drop the 1,200 items of {self.queue}? [y/N]"

        def asked() -> Terminal:
            terminal = self.terminal("flush", self.queue)
            terminal.sees(lambda lines: question in lines)
            return terminal

        for answer in ("n\n", "\n"):
            terminal = asked()
            terminal.type(answer)
            self.assertEqual(terminal.wait(), 1)
            self.assertEqual(terminal.lines[-1], "darner: nothing was done")
        terminal = asked()
        terminal.type("\x03")
        self.assertEqual(terminal.wait(), 130)
        terminal = asked()
        terminal.type("y\n")
        self.assertEqual(terminal.wait(), 0)
        self.assertEqual(terminal.lines[-1], "dropped 1,200 items")
        self.client.put(self.queue, b"x")
        terminal = self.terminal("flush", self.queue, "--yes")
        self.assertEqual((terminal.wait(), terminal.lines), (0, ["dropped 1 item"]))

    def test_watch(self) -> None:
        """Figures stand in one place and change; the screen is as before when it is over."""
        # One that has nothing but this queue, so that it is on the screen.
        server = Server(self)
        self.address = "{}:{}".format(*server.address)
        self.client = Client(self.address, timeout=PATIENCE)
        self.addCleanup(self.client.close)
        self.client.put(self.queue, b"x")
        terminal = self.terminal("stats", "--watch", "--interval", "0.1", columns=110, rows=40)

        def shown(items: int) -> None:
            terminal.sees(lambda lines: any(re.match(rf" ?{self.queue} +{items} ", line) for line in lines))

        shown(1)
        self.client.put_many(self.queue, [b"x", b"y"])
        shown(3)
        self.assertTrue(any(self.address in line for line in terminal.lines))
        terminal.type("\x03")
        self.assertEqual(terminal.wait(), 130)
        self.assertIn(b"\x1b[?1049l", terminal.raw)

    def test_interrupted(self) -> None:
        """Ctrl-C ends the command that handles an item, and the item goes back."""
        self.client.put(self.queue, b"x")
        terminal = self.terminal("get", self.queue, "--follow", "-x", "echo begun; exec sleep 60")
        terminal.sees(lambda lines: "begun" in lines)
        terminal.type("\x03")
        self.assertEqual(terminal.wait(), 130)
        self.assertEqual(self.items(), [b"x"])

    def test_binary_to_a_terminal(self) -> None:
        terminal = self.terminal("export", self.queue, "--take", "-o", "-")
        self.assertEqual(terminal.wait(), 2)
        self.assertIn("a terminal is no place for an export", " ".join(terminal.lines))
