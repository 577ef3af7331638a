"""
CRC-32C, the checksum of everything that LevelDB writes.

C{zlib} does not have it, and a loop over the bytes takes Python 100 ns a byte.  But a CRC is the remainder of a
polynomial over GF(2), and Python's integers are such polynomials with a fast exclusive or: so this folds the first half
of the message onto the second until little is left.
"""

from __future__ import annotations

from typing import Final

_POLYNOMIAL: Final = 0x82F63B78
"""Castagnoli's polynomial, without its highest term.  In all numbers here the lowest bit is the highest power."""
_ONES: Final = 0xFFFFFFFF
_MASK_DELTA: Final = 0xA282EAD8
_LAST: Final = 64
"""Bits that are left for the table."""


def _step(value: int) -> int:
    """@return: a remainder times x."""
    return value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = _step(byte)
        table.append(byte)
    return table


_TABLE: Final = _table()


def _product(one: int, other: int) -> int:
    """@return: the remainder of the product of two remainders."""
    result = 0
    for place in range(31, -1, -1):
        if one >> place & 1:
            result ^= other
        other = _step(other)
    return result


def _folds() -> list[tuple[int, list[int]]]:
    """
    @return: increasing lengths in bits, each with the remainder of x to that power as the places of its ones.  The part
        of a message before its last bits of that length is multiplied by that remainder.
    """
    power, bits = 1 << 31, 0  # x to the power of 0
    while bits < _LAST:
        power, bits = _step(power), bits + 1
    folds = []
    while bits < 1 << 40:
        folds.append((bits, [place for place in range(32) if power >> place & 1]))
        # The folded half is as long as the other, less the 31 bits by which the product is longer.
        power = _product(power, power)
        for _ in range(32):
            power = _step_back(power)
        bits = 2 * bits - 32
    return folds


def _step_back(value: int) -> int:
    """@return: the value from which L{_step} makes this one."""
    return (value ^ _POLYNOMIAL) << 1 | 1 if value >> 31 else value << 1


_FOLDS: Final = _folds()


def crc32c(data: bytes) -> int:
    bits = 8 * len(data)
    if bits <= 8 * _LAST:
        crc = _ONES
        for byte in data:
            crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 255]
        return crc ^ _ONES
    message = int.from_bytes(data, "little") ^ _ONES
    at = 0
    while _FOLDS[at][0] < bits:
        at += 1
    for length, places in reversed(_FOLDS[:at]):
        head = bits - length
        first = message & (1 << head) - 1
        message >>= head
        product = 0
        for place in places:
            product ^= first << place
        message ^= product << length - head - 31
        bits = length
    for _ in range(0, bits, 8):
        message = message >> 8 ^ _TABLE[message & 255]
    return message ^ _ONES


def masked(crc: int) -> int:
    """@return: a CRC as LevelDB stores it, so that it never computes the CRC of a CRC."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & _ONES
