"""
The check of a client's requests where the server has the queues of one shard only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from darner.front.access import Access, Grant
from darner.front.audit import AuditTrail
from darner.front.log_in import LogIn
from darner.front.shard_rights import EVERYTHING, Here, ShardGrant
from darner.values.requests import Request


class ShardCheck(LogIn):
    """
    The log-in of a client that may name the queues of one shard only.

    Where the server has no users, the client is logged in from the beginning.
    """

    def __init__(self, here: Here, access: Optional[Access], trail: AuditTrail) -> None:
        super().__init__(access, trail)
        self._here = here
        if access is None:
            self.grant = ShardGrant(here, EVERYTHING)

    def check(self, request: Request) -> None:
        """
        As L{LogIn.check}.

        @raise darner.errors.WrongShard: the request names a queue of another shard.
        """
        if self.grant is not None and not request.for_all():
            request.allowed(self._here)
        super().check(request)

    def _logged_in(self, grant: Grant, credentials: bytes, ended: Callable[[Optional[BaseException]], None]) -> None:
        super()._logged_in(ShardGrant(self._here, grant), credentials, ended)
