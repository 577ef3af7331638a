"""
LevelDB's encoding of numbers, with seven bits in a byte, and of strings, which their length precedes.
"""

from __future__ import annotations


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """
    @return: the number at an offset, and the offset of its end.
    @raise IndexError: it is cut short.
    """
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def read_string(data: bytes, at: int) -> tuple[bytes, int]:
    """
    @return: the string at an offset, and the offset of its end.
    @raise IndexError: it is cut short.
    """
    length, at = read_varint(data, at)
    if at + length > len(data):
        raise IndexError
    return data[at : at + length], at + length
