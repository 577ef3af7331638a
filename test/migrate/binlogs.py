"""
A writer of beanstalkd's binlog, in versions 7, 5 and 1.
"""

from __future__ import annotations

from struct import pack

from darner.migrate.beanstalkd_binlog import BURIED, DELAYED, INVALID, READY, RESERVED

__all__ = ["BURIED", "DELAYED", "INVALID", "READY", "RESERVED", "binlog", "change", "job"]

_NAME = {7: "<i", 5: "<Q", 1: "<Q"}
_JOB = {7: "<QI4xqqi4xqqIIIIIB3x", 5: "<QI4xQQi4xQQIIIIIB", 1: "<16xQIIIiqqIIII24xB23x"}


def _numbers(version: int, id: int, state: int, priority: int, size: int, created: int, deadline: int) -> bytes:
    if version == 1:
        return pack(_JOB[1], id, priority, 0, 60, size, created // 1000, deadline // 1000, 0, 0, 0, 0, state)
    scale = 1_000_000 if version == 7 else 1000
    times = (60_000 * scale, size, created * scale, deadline * scale)
    return pack(_JOB[version], id, priority, 0, *times, 0, 0, 0, 0, 0, state)


def job(
    id: int, body: bytes, tube: bytes = b"default", state: int = READY, priority: int = 1024, created: int = 7000,
    deadline: int = 0, version: int = 7,
) -> bytes:  # fmt: skip
    """@return: a record with a job; times are in ms."""
    numbers = _numbers(version, id, state, priority, len(body) + 2, created, deadline)
    return pack(_NAME[version], len(tube)) + tube + numbers + body + b"\r\n"


def change(
    id: int, state: int, priority: int = 1024, deadline: int = 0, version: int = 7, size: int = 3
) -> bytes:  # fmt: skip
    """@return: a record that changes a job."""
    return pack(_NAME[version], 0) + _numbers(version, id, state, priority, size, 7000, deadline)


def binlog(*records: bytes, version: int = 7) -> bytes:
    return pack("<i", version) + b"".join(records)
