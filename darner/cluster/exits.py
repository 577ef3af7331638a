"""
The exit statuses by which the process of a node ends.
"""

from __future__ import annotations

from typing import Final

EXIT_FENCED: Final = 70
"""Another node leads: start this one again, and it follows."""
EXIT_BEHIND: Final = 71
"""The records that it needs are trimmed, and it takes no snapshots: it needs the data of another node."""
EXIT_DAMAGED: Final = 72
"""A record is damaged, of a newer version, or of another cluster: an operator has to look."""
EXIT_STORE: Final = 73
"""It cannot write what the log has: start it again when its disk is well."""
EXIT_LEAD: Final = 74
"""It leads by the log, and cannot serve: a port is taken, say."""
