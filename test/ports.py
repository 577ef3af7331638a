"""
Ports for servers that a test starts later, or again at the same port.
"""

from __future__ import annotations

from bench.ports import reserve_port

__all__ = ["reserve_port"]
