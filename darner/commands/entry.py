"""
Where the program ``darner`` begins: it says what to install where that is missing, and what it is.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from typing import Final, Optional

NEEDED: Final = ("click", "rich")
"""What the extra ``cli`` installs."""


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """
    Run the program.

    @param arguments: by default those of the process.
    @return: the exit status.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"darner: the command line needs {' and '.join(missing)}: pip install 'darner[cli]' "
            "(python -m darner runs the server without)",
            file=sys.stderr,
        )
        return 1
    from darner.commands.program import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
