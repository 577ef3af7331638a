"""
The pictures of terminals in the documents, made by running what they show.

    python -m docs.site.pictures
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from contextlib import ExitStack
from typing import Final

from rich.console import Console
from rich.text import Text

from darner.commands.entry import main as darner
from docs.site.links import DOCS
from test.servers import MODULE, Server, make_directory

WIDTH: Final = 84
SCENES: Final = {
    "tutorial_queues": (
        ["put", "photos", "photo 1", "photo 2", "photo 3"], ["queues"], ["get", "photos"],
    ),
}  # fmt: skip
"""Commands of C{darner}, by the name of the picture."""


def typed(arguments: list[str]) -> str:
    """@return: a command, as it is typed."""
    return " ".join(["darner", *(f"'{argument}'" if " " in argument else argument for argument in arguments)])


def draw(name: str, commands: tuple[list[str], ...]) -> None:
    """Run the commands, and draw them with what they write."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    with ExitStack() as stack:
        stack.addCleanup = stack.callback  # type: ignore[attr-defined]
        directory = make_directory(stack)  # type: ignore[arg-type]
        server = Server(
            stack, "--port=0", f"--data-dir={directory / 'data'}", program=MODULE, directory=directory  # type: ignore[arg-type]
        )
        os.environ["DARNER_SERVERS"] = "{}:{}".format(*server.address)
        for arguments in commands:
            console.print(Text("$ ", "bold green") + Text(typed(arguments), "bold"))
            out = io.TextIOWrapper(io.BytesIO(), write_through=True)
            with contextlib.redirect_stdout(out):
                darner(arguments)
            console.print(Text(out.buffer.getvalue().decode().rstrip("\n")))  # type: ignore[attr-defined]
    picture = console.export_svg(title="Terminal", unique_id=name)
    # No fonts from other sites.
    picture = re.sub(r" *@font-face \{[^}]*\}\n*", "", picture)
    (DOCS / "images" / f"{name}.svg").write_text(picture)


def main() -> int:
    for name, commands in SCENES.items():
        draw(name, commands)
    print(f"{len(SCENES)} pictures are in {DOCS / 'images'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
