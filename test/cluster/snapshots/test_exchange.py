"""
Tests of what giver and taker say, and of notes and trimming for snapshots.
"""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from darner.cluster.notes import JOINING, LEADER, Note, read_notes
from darner.cluster.snapshots.addresses import join_address, own_address, split_address
from darner.cluster.snapshots.exchange import (
    FRAME,
    HEAD,
    Frames,
    Header,
    SnapshotError,
    frame_key,
    greeting,
    read_greeting,
    read_request,
    request,
)
from darner.cluster.snapshots.giving import cut
from darner.cluster.snapshots.joining import givers
from darner.cluster.trimming import HELD, HELD_BYTES, KEPT_BYTES, trim_to

SECRET, ONE, OTHER = b"secret", b"1" * 16, b"2" * 16


class ExchangeTests(SynchronousTestCase):
    """What is said."""

    def test_there_and_back(self) -> None:
        self.assertEqual(read_greeting(greeting(ONE)), ONE)
        key = read_request(request(SECRET, ONE, OTHER), SECRET, ONE)
        self.assertEqual(key, frame_key(SECRET, ONE, OTHER))
        sender, receiver = Frames(key), Frames(key)
        for content in (Header("", "c", 3, 4, "1.0").to_bytes(), b"x" * 1000, b""):
            frame = sender.pack(content)
            length, tag = HEAD.unpack(frame[: HEAD.size])
            self.assertEqual((length, frame[HEAD.size :]), (len(content), content))
            receiver.check(content, tag)
        self.assertEqual(Header.from_bytes(Header("no", "c", 3, 4, "1.0").to_bytes()), Header("no", "c", 3, 4, "1.0"))

    def test_nonsense(self) -> None:
        for line in (b"", b"\n", b"x" * 300, greeting(ONE)[:-1], b"darner snapshot 2 " + b"0" * 32 + b"\n"):
            self.assertRaises(SnapshotError, read_greeting, line)
            self.assertRaises(SnapshotError, read_request, line, SECRET, ONE)
        for data in (b"", b"[]", b"{}", b'{"refused": "", "cluster": "", "position": [], "size": 1, "version": ""}'):
            self.assertRaises(SnapshotError, Header.from_bytes, data)

    def test_who_does_not_know_the_secret(self) -> None:
        """Nor does a request that was overheard help: the giver's random bytes are other ones each time."""
        self.assertRaises(SnapshotError, read_request, request(b"another", ONE, OTHER), SECRET, ONE)
        self.assertRaises(SnapshotError, read_request, request(SECRET, OTHER, OTHER), SECRET, ONE)

    def test_order(self) -> None:
        """Frames that are left out, changed, or come twice are noticed."""
        sender = Frames(b"key")
        first, second = (sender.pack(content)[4 : HEAD.size] for content in (b"first", b"second"))
        self.assertRaises(SnapshotError, Frames(b"key").check, b"second", second)
        self.assertRaises(SnapshotError, Frames(b"key").check, b"firsT", first)
        self.assertRaises(SnapshotError, Frames(b"other").check, b"first", first)
        receiver = Frames(b"key")
        receiver.check(b"first", first)
        self.assertRaises(SnapshotError, receiver.check, b"first", first)

    def test_long_pieces(self) -> None:
        pieces = list(cut([b"a", b"b" * (2 * FRAME + 1)]))
        self.assertEqual([len(piece) for piece in pieces], [1, FRAME, FRAME, 1])

    def test_addresses(self) -> None:
        for host in ("127.0.0.1", "::1", "a.example"):
            self.assertEqual(split_address(join_address(host, 7)), (host, 7))
        for text in ("", "a", "a:", ":1", "a:0", "a:65536", "a:x", "a:²"):
            self.assertRaises(SnapshotError, split_address, text)
        self.assertEqual(own_address(["nonsense", "127.0.0.1:2379"]), "127.0.0.1")
        self.assertEqual(own_address([]), socket.gethostname())


class NoteTests(SynchronousTestCase):
    """Who may give one, and how far the log is kept."""

    def test_givers(self) -> None:
        """Followers come first; who is behind the log, or of another cluster, or gives none, does not count."""
        notes = {
            "leads": Note(LEADER, 9, 20, cluster="c", snapshots="a:1"),
            "follows": Note(position=18, cluster="c", snapshots="a:2"),
            "more": Note(position=19, cluster="c", snapshots="a:3"),
            "behind": Note(position=8, cluster="c", snapshots="a:4"),
            "joins": Note(JOINING, position=20, cluster="c", snapshots="a:5"),
            "stranger": Note(position=20, cluster="d", snapshots="a:6"),
            "silent": Note(position=20, cluster="c"),
            "empty": Note(snapshots="a:7"),
        }
        for cluster in ("", "c"):
            self.assertEqual([name for name, _ in givers(notes, cluster, 10)], ["more", "follows", "leads"])
        self.assertEqual([name for name, _ in givers(notes, "d", 10)], ["stranger"])
        self.assertEqual([name for name, _ in givers(notes, "c", 22)], [])
        self.assertEqual(givers({"empty": Note(snapshots="a:7")}, "", 1), [])

    def test_old_and_wrong_notes(self) -> None:
        values = {"old": (b'{"position": 3}', 0.0), "odd": (b'{"snapshots": 3, "holding": "4"}', 0.0)}
        self.assertEqual(read_notes(values), {"old": Note(position=3), "odd": Note(snapshots="3", holding=4)})

    def test_held(self) -> None:
        """Who takes a snapshot has the log kept for longer, as long as it gives signs of life, up to a limit."""
        notes = {"a": Note(durable=9), "b": Note(durable=8), "c": Note(JOINING, holding=5)}
        self.assertEqual(trim_to(notes, 3, KEPT_BYTES + 1), 5)
        self.assertEqual(trim_to(notes, 3, HELD_BYTES + 1), 8)
        self.assertEqual(trim_to({**notes, "c": Note(JOINING, holding=5, age=HELD)}, 3, KEPT_BYTES + 1), 8)
        self.assertEqual(trim_to({**notes, "c": Note(JOINING)}, 3, KEPT_BYTES + 1), 8)
