"""
Tests of `darner.migrate.beanstalkd` and `darner.migrate.beanstalkd_binlog`: over directories that beanstalkd wrote
(`test/data/README.rst`), and over binlogs that `test.migrate.binlogs` makes.
"""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from darner.migrate.beanstalkd import Beanstalkd
from darner.migrate.beanstalkd_binlog import read_binlog
from darner.migrate.sources import Findings, SourceError
from test.migrate.binlogs import BURIED, DELAYED, INVALID, READY, RESERVED, binlog, change, job
from test.migrate.reading import read, read_place, snapshot, unpacked

CENTURY = 3_000_000_000_000
"""Ms, for which jobs in the data are delayed at least."""


class BinlogCase(SynchronousTestCase):
    def directory(self, *files: bytes) -> Path:
        """@param files: the contents of binlog.1, binlog.2, ..."""
        directory = Path(self.mktemp())
        directory.mkdir()
        for number, contents in enumerate(files, 1):
            (directory / f"binlog.{number}").write_bytes(contents)
        return directory

    def read(self, *files: bytes) -> tuple[dict[bytes, list[bytes]], list[str], dict[str, int]]:
        return read_place(self.directory(*files))

    def unpacked(self, name: str) -> Path:
        return unpacked(f"beanstalkd-{name}", self.directory())


class RealTests(BinlogCase):
    def test_killed(self) -> None:
        directory = self.unpacked("killed")
        before = snapshot(directory)
        found, lost, notes = read_place(directory)
        self.assertEqual(lost, [])
        self.assertEqual(found, {
            b"big": [bytes(range(256)) * 10], b"churn": [b"churn %d " % i + b"c" * 200 for i in (58, 59)],
            b"empty-body": [b""], b"odd%2Fname+;.$_()": [b"in a tube with a slash"], b"mail.buried": [b"mail 0"],
            b"mail": [
                b"mail 1", *(b"mail %d" % i for i in range(3, 12)), b"later", b"soon", b"tomorrow",
            ],
        })  # fmt: skip
        self.assertEqual(notes, {
            "buried jobs come to a queue of their own, TUBE.buried": 1, "reserved jobs become ready items": 2,
            "priorities are not kept: ready jobs are put in the order of their priorities": 0,
            "times to run (TTR) are not kept: set open_timeout for the queue instead": 0,
        })  # fmt: skip
        self.assertEqual(snapshot(directory), before)

    def test_stopped(self) -> None:
        found, lost, _ = read_place(self.unpacked("stopped"))
        self.assertEqual(lost, [])
        self.assertEqual(found[b"mail"][-4:], [b"second run", b"later", b"soon", b"tomorrow"])
        self.assertEqual(sum(map(len, found.values())), 20)

    def test_times(self) -> None:
        """Those of jobs that are delayed are dates, and others have none."""
        source = Beanstalkd(self.unpacked("killed"))
        (mail,) = (queue for queue in source.queues(Findings()) if queue.name == b"mail")
        items = list(mail.items(Findings()))
        self.assertEqual({item.due for item in items[:-2]}, {0})
        for item in items:
            self.assertTrue(1_700_000_000_000 < item.time < 2_000_000_000_000, item.time)
        self.assertTrue(all(item.time + CENTURY <= item.due <= item.time + 2 * CENTURY for item in items[-2:]))
        source.close()


class RecordTests(BinlogCase):
    def test_versions(self) -> None:
        for version in (7, 5, 1):
            def record(id: int, body: bytes, version: int = version, **options: int) -> bytes:
                return job(id, body, version=version, **options)  # type: ignore[arg-type]

            directory = self.directory(binlog(
                record(1, b"a"), record(2, b"deleted"), change(2, INVALID, version=version), record(3, b""),
                record(4, b"due", state=DELAYED, deadline=5_000_000), record(5, b"first", priority=0, created=99_000),
                change(1, RESERVED, version=version), record(6, b"dead", state=BURIED), version=version,
            ))  # fmt: skip
            source = Beanstalkd(directory)
            default, buried = source.queues(Findings())
            items = [(b"".join(i.pieces), i.time, i.due) for i in default.items(Findings())]
            expected = [(b"first", 99_000, 0), (b"a", 7000, 0), (b"", 7000, 0), (b"due", 7000, 5_000_000)]
            self.assertEqual(items, expected, version)
            self.assertEqual([b"".join(item.pieces) for item in buried.items(Findings())], [b"dead"])
            source.close()

    def test_unknown_version(self) -> None:
        """The other files are read."""
        found, lost, _ = self.read(binlog(job(1, b"a")), b"\5\0\0\1" + job(2, b"lost"), binlog(job(3, b"b")))
        self.assertEqual(found, {b"default": [b"a", b"b"]})
        self.assertEqual(len(lost), 1)
        self.assertIn("a binlog of version 16777221, which is unknown", lost[0])
        _, lost, _ = self.read(binlog(job(1, b"x"))[:2])
        self.assertEqual(lost, ["binlog.1, offset 0 of 2: a binlog of version -1, which is unknown"])

    def test_job_that_was_moved_on(self) -> None:
        """beanstalkd writes a job once more where the file with it would keep others from going."""
        found, lost, _ = self.read(
            binlog(change(9, READY), change(1, READY), job(2, b"old")),
            binlog(job(1, b"a"), job(2, b"old"), change(2, READY)),
        )  # fmt: skip
        self.assertEqual((found, lost), ({b"default": [b"a", b"old"]}, []))

    def test_order_of_files(self) -> None:
        directory = self.directory()
        (directory / "binlog.10").write_bytes(binlog(change(1, INVALID)))
        (directory / "binlog.9").write_bytes(binlog(job(1, b"a"), job(2, b"b")))
        (directory / "binlog.old").write_bytes(b"what")
        self.assertEqual(read_place(directory)[0], {b"default": [b"b"]})

    def test_unwritten(self) -> None:
        """The rest of a file is zeros until it is written; a file may be empty."""
        found, lost, _ = self.read(b"", binlog(job(1, b"a")) + bytes(5000), binlog(job(2, b"b")) + bytes(20), binlog())
        self.assertEqual((found, lost), ({b"default": [b"a", b"b"]}, []))

    def test_cut_end(self) -> None:
        last = job(2, b"last")
        first = binlog(job(1, b"a"))
        for length in range(5, len(last)):
            found, lost, _ = self.read(first + last[:length])
            self.assertEqual(found, {b"default": [b"a"]})
            self.assertEqual(len(lost), 1, length)
            self.assertTrue(lost[0].startswith(f"binlog.1, offset {len(first)} of {len(first) + length}: "), lost)
            self.assertIn("cut short", lost[0])

    def test_malformed(self) -> None:
        good = binlog(job(1, b"a"))
        for bad, reason in (
            (b"\xc9\0\0\0" + bytes(300), "the name of a tube has 201 bytes"),
            (b"\xff\xff\xff\xff" + bytes(300), "the name of a tube has -1 bytes"),
            (job(2, b"x", state=5), "job 2 has the state 5 and 3 bytes"),
            (change(3, READY, size=-1), "job 3 has the state 1 and -1 bytes"),
            (job(2**63, b"x"), f"job {2**63} has the state 1 and 3 bytes"),
        ):
            found, lost, _ = self.read(good + bad + job(5, b"lost"), binlog(job(6, b"b")))
            self.assertEqual(found, {b"default": [b"a", b"b"]})
            self.assertEqual([loss.partition(": ")[2] for loss in lost], [reason])

    def test_times_that_cannot_be(self) -> None:
        """They do no harm to the bodies."""
        late = 2**63 - 1
        directory = self.directory(binlog(
            job(1, b"a", state=DELAYED, created=late, deadline=late, version=1),
            job(2, b"b", created=-late, deadline=-late, version=1), version=1,
        ))  # fmt: skip
        source = Beanstalkd(directory)
        (queue,) = source.queues(Findings())
        self.assertEqual([item.time for item in queue.items(Findings())], [0, 2**62])
        source.close()

    def test_buried_and_a_tube_of_that_name(self) -> None:
        """Both come to one queue."""
        findings = Findings()
        source = Beanstalkd(self.directory(binlog(job(1, b"a", b"t", BURIED), job(2, b"b", b"t.buried"))))
        queues = source.queues(findings)
        self.assertEqual([queue.name for queue in queues], [b"t (buried)", b"t.buried"])
        self.assertEqual([queue.target for queue in queues], [b"t.buried", b"t.buried"])
        bodies = [[b"".join(item.pieces) for item in queue.items(findings)] for queue in queues]
        self.assertEqual(bodies, [[b"a"], [b"b"]])

    def test_file_that_cannot_be_read(self) -> None:
        directory = self.directory()
        (directory / "binlog.1").mkdir()
        error = self.assertRaises(SourceError, Beanstalkd(directory).queues, Findings())
        self.assertIn("binlog.1: Is a directory", str(error))
        error = self.assertRaises(SourceError, Beanstalkd(directory).fingerprint)
        self.assertIn("binlog.1: Is a directory", str(error))

    @given(st.lists(st.one_of(
        st.binary(max_size=100), st.sampled_from([job(1, b"a"), change(1, READY), change(1, INVALID), job(2, b"")])
    )).map(b"".join), st.sampled_from([7, 5, 1]))  # fmt: skip
    @settings(deadline=None, max_examples=200)
    def test_any_bytes(self, data: bytes, version: int) -> None:
        directory = self.directory(binlog(data, version=version))
        list(read_binlog(directory / "binlog.1", lambda place, reason: None))
        source = Beanstalkd(directory)
        read(source, Findings())
        source.close()
