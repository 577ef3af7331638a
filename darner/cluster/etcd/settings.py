"""
How the log reaches etcd, and how long it waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional


@dataclass(frozen=True)
class Credentials:
    """
    How etcd knows the log, and the log etcd.

    @ivar authority: PEM of the certificates that vouch for etcd's; with it, or with a certificate, TLS is spoken.
    @ivar certificate: PEM of a client certificate and those that vouch for it; with its C{key}.
    @ivar key: PEM of its private key.
    @ivar user: a user of etcd; C{None} where it asks for none.
    @ivar password: its password.
    """

    authority: Optional[bytes] = None
    certificate: Optional[bytes] = None
    key: Optional[bytes] = field(default=None, repr=False)
    user: Optional[str] = None
    password: str = field(default="", repr=False)
    tls: bool = False

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken: it is asked for, or anything of it is there."""
        return self.tls or self.authority is not None or self.certificate is not None


@dataclass(frozen=True)
class Timings:
    """
    How long the log waits, in seconds.

    @ivar attempt: for the answer to one request; then another endpoint is tried, and an answer is waited for up to four
        times as long.  It is what an outage takes at least where a machine is cut off.
    @ivar patience: for all attempts of one operation together.
    @ivar silence: for any word of etcd on a watch; then another endpoint is tried.
    @ivar first_pause: before an operation is tried again; each pause is twice as long as the one before, up to
        C{longest_pause}, and a random half of it is left out.
    """

    attempt: float = 1.0
    patience: float = 10.0
    silence: float = 3.0
    first_pause: float = 0.05
    longest_pause: float = 1.0


@dataclass(frozen=True)
class Sizes:
    """
    What goes into one request, and how many are under way.

    etcd takes 1.5 MiB in a request by default, but keeps some 6,000 requests in memory (docs/cluster_etcd.rst).

    @ivar whole: the bytes of a record that goes with its transaction; one with more is cut.
    @ivar piece: the bytes of a piece.
    @ivar pieces: how many pieces are sent, or read, at once.
    @ivar transactions: how many transactions are under way at once.
    @ivar appends: how many records go into one.  etcd allows 128 operations by default.
    @ivar records: how many records are read at once.
    """

    whole: int = 128 << 10
    piece: int = 64 << 10
    pieces: int = 32
    transactions: int = 3
    appends: int = 100
    records: int = 64
