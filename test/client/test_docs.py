"""
The samples of ``docs/client.rst`` do what is said there.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import textwrap

from twisted.trial.unittest import SynchronousTestCase

from darner.client.asyncio import Client, Fleet, Shards
from test.client.front_ends import LONG
from test.servers import ROOT, Server

_SAMPLE = re.compile(r"::\n\n((?:    .*\n|\n)+)\nprints ::\n\n((?:    .*\n)+)")


class SamplesTests(SynchronousTestCase):
    def test_samples(self) -> None:
        # The samples leave the time of a call as it is by default.
        for client in (Client, Fleet, Shards):
            more = {**(client.__init__.__kwdefaults__ or {}), "timeout": LONG, "connect_timeout": LONG}
            self.patch(client.__init__, "__kwdefaults__", more)
        places = {str(port): str(Server(self).address[1]) for port in (22133, 22134)}
        samples = _SAMPLE.findall((ROOT / "docs" / "client.rst").read_text())
        self.assertEqual(len(samples), 7)
        for program, output in samples:
            for port, place in places.items():
                program = program.replace(port, place)
            names: dict[str, object] = {}
            exec("async def main():\n" + program, names)
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                asyncio.run(names["main"]())  # type: ignore[operator]
            self.assertEqual(printed.getvalue(), textwrap.dedent(output))
