"""
The checks of `fuzz.client` without the fuzzer, and that they would see a fault.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from darner.client.protocol import Connection
from fuzz import client, seeds

INPUTS = st.tuples(
    st.binary(max_size=22),
    st.lists(st.sampled_from(b"".join(seeds.REPLIES).splitlines(keepends=True)) | st.binary(max_size=9)),
).map(lambda parts: parts[0] + b"".join(parts[1]))


class ClientTests(SynchronousTestCase):
    def test_seeds(self) -> None:
        paths = sorted((seeds.CORPUS / "client").iterdir())
        self.assertGreater(len(paths), 20)
        for path in paths:
            client.check(path.read_bytes())

    @given(INPUTS)
    @settings(deadline=None, max_examples=300)
    def test_any_input(self, data: bytes) -> None:
        client.check(data)

    def test_reply_that_depends_on_the_cut(self) -> None:
        data = bytes([1, 4, 0, 0]) + b"VALUE q 0 3\r\nabc\r\nEND\r\n"
        client.check(data)
        receive = Connection.receive

        def receive_and_forget(connection: Connection, piece: bytes) -> Any:
            events = receive(connection, piece)
            connection._data = b""
            return events

        self.patch(Connection, "receive", receive_and_forget)
        self.assertRaises(AssertionError, client.check, data)
