"""
What nodes tell one another beside the log.  Nothing that must hold rests on it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Optional

FOLLOWER: Final = "follower"
LEADER: Final = "leader"
RESIGNED: Final = "resigned"
"""It has led, and stopped in order: another may lead at once."""
FENCED: Final = "fenced"

STEP_DOWN: Final = "!step-down"
"""The name of the note by which an operator asks the leader to step down; it holds the number of the leader's claim."""


@dataclass(frozen=True)
class Note:
    """
    What a node tells.

    @ivar claim: the claim by which it leads; 0 if it does not.
    @ivar position: the last record that it has applied.
    @ivar durable: the last record that it has on stable storage.
    @ivar address: where it serves clients while it leads, for people.
    @ivar version: its version of darner.
    @ivar age: seconds since it told this, by the reckoning of the log.
    """

    role: str = FOLLOWER
    claim: int = 0
    position: int = 0
    durable: int = 0
    address: str = ""
    version: str = ""
    age: float = 0.0

    def to_bytes(self) -> bytes:
        """@return: the note for L{from_bytes}."""
        return json.dumps({name: value for name, value in asdict(self).items() if name != "age"}).encode()

    @staticmethod
    def from_bytes(data: bytes, age: float) -> Optional[Note]:
        """@return: a note of this version or another; C{None} if it is none."""
        try:
            told = json.loads(data)
            known: dict[str, Any] = {field.name: told[field.name] for field in fields(Note) if field.name in told}
            known.update({name: int(known.get(name, 0)) for name in ("claim", "position", "durable")})
        except (ValueError, TypeError):
            return None
        return Note(**{**known, "age": age})


def read_notes(values: dict[str, tuple[bytes, float]]) -> dict[str, Note]:
    """@return: the notes of nodes among those of a log."""
    found = {name: Note.from_bytes(*value) for name, value in values.items() if not name.startswith("!")}
    return {name: note for name, note in found.items() if note is not None}
