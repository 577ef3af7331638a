"""
``python -m darner``: as ``twistd --nodaemon darner``, with the same options.
"""

from __future__ import annotations

import sys

from twisted.scripts.twistd import run


def main() -> None:
    """Run the server in the foreground until it is told to stop."""
    sys.argv[0:1] = ["twistd", "--nodaemon", "--pidfile=", "darner"]
    run()


if __name__ == "__main__":
    main()
