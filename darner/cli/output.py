"""
Standard output, which nobody has to read to its end.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any


def say(text: str) -> None:
    """Print to standard output, whether or not somebody reads all of it."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # What is flushed at the end of the process is not to fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose help and version nobody has to read to their end."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if message and file is sys.stdout:
            say(message.rstrip("\n"))
        else:
            super()._print_message(message, file)
