"""
A writer of beanstalkd's binlog, in versions 7 and 5.
"""

from __future__ import annotations

from struct import pack

from darner.migrate.beanstalkd_binlog import BURIED, DELAYED, INVALID, READY, RESERVED

__all__ = ["BURIED", "DELAYED", "INVALID", "READY", "RESERVED", "binlog", "change", "job"]

_NS = {7: 1, 5: 1000}
_NAME = {7: "<i", 5: "<Q"}
_JOB = {7: "<QI4xqqi4xqqIIIIIB3x", 5: "<QI4xQQi4xQQIIIIIB"}


def _numbers(version: int, id: int, state: int, priority: int, size: int, created: int, deadline: int) -> bytes:
    scale = 1_000_000 // _NS[version]
    return pack(
        _JOB[version], id, priority, 0, 60 * scale * 1000, size, created * scale, deadline * scale, 0, 0, 0, 0, 0, state
    )


def job(
    id: int, body: bytes, tube: bytes = b"default", state: int = READY, priority: int = 1024, created: int = 7,
    deadline: int = 0, version: int = 7,
) -> bytes:  # fmt: skip
    """@return: a record with a job; times are in ms."""
    numbers = _numbers(version, id, state, priority, len(body) + 2, created, deadline)
    return pack(_NAME[version], len(tube)) + tube + numbers + body + b"\r\n"


def change(
    id: int, state: int, priority: int = 1024, deadline: int = 0, version: int = 7, size: int = 3
) -> bytes:  # fmt: skip
    """@return: a record that changes a job."""
    return pack(_NAME[version], 0) + _numbers(version, id, state, priority, size, 7, deadline)


def binlog(*records: bytes, version: int = 7) -> bytes:
    return pack("<i", version) + b"".join(records)
