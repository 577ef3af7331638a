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
JOINING: Final = "joining"
"""The records that it needs are trimmed: it takes a snapshot of another node."""

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
    @ivar cluster: hexadecimal digits that name its cluster; empty while it knows none.
    @ivar snapshots: where it gives snapshots, C{HOST:PORT}; empty if it does not.
    @ivar secret: hexadecimal digits that prove there that somebody may read this note.
    @ivar holding: it needs the records behind this one: the log is kept for it; 0 if it does not ask for that.
    @ivar preferred: whether it is to lead rather than others.
    @ivar age: seconds since it told this, by the reckoning of the log.
    """

    role: str = FOLLOWER
    claim: int = 0
    position: int = 0
    durable: int = 0
    address: str = ""
    version: str = ""
    cluster: str = ""
    snapshots: str = ""
    secret: str = ""
    holding: int = 0
    preferred: bool = False
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
            known.update({name: int(known.get(name, 0)) for name in ("claim", "position", "durable", "holding")})
            known.update({name: str(known.get(name, "")) for name in ("cluster", "snapshots", "secret")})
            known["preferred"] = known.get("preferred") is True
        except (ValueError, TypeError):
            return None
        return Note(**{**known, "age": age})


def read_notes(values: dict[str, tuple[bytes, float]]) -> dict[str, Note]:
    """@return: the notes of nodes among those of a log."""
    found = {name: Note.from_bytes(*value) for name, value in values.items() if not name.startswith("!")}
    return {name: note for name, note in found.items() if note is not None}
