"""
Ports for servers that are started later, or again at the same port.
"""

from __future__ import annotations

import atexit
import random
import socket
from typing import Final

_FIRST: Final = 12_000
_LAST: Final = 31_999
"""Below the ports that outgoing connections have, and that port 0 stands for."""


def reserve_port() -> int:
    """
    @return: a TCP port that is kept for this process until it ends.

    A socket holds it, which is bound and does not listen.  Connections to the port are refused until a server listens
    there, which it may with SO_REUSEADDR, as servers do, and again whenever it was stopped.  No other process is given
    the port meanwhile.
    """
    while True:
        port = random.SystemRandom().randint(_FIRST, _LAST)
        holder = socket.socket()
        try:
            holder.bind(("", port))
        except OSError:
            holder.close()
            continue
        # Not before: with it, another one's holder would not be in the way.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        atexit.register(holder.close)
        return port
