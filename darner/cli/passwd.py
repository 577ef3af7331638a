"""
The command ``darner-passwd``, which writes the password file (`darner.config.passwords`).
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import Optional

from darner.config.passwords import USER, hash_password, set_password


def _ask() -> bytes:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n").encode()
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise ValueError("the passwords differ")
    return password.encode()


def main(arguments: Optional[list[str]] = None, program: str = "darner-passwd") -> int:
    """
    ``darner-passwd FILE USER``: write a user's password, which is asked for or read from standard input.

    @param program: whose name errors begin with.
    @return: the exit status.
    """
    parser = argparse.ArgumentParser(
        prog="darner-passwd",
        description="Set a user's password in the file that darner's setting password_file names.  "
        "It is asked for on a terminal, and else read from standard input.",
    )
    parser.add_argument("file", type=Path, help="the password file; made, for its owner alone, if it is missing")
    parser.add_argument("user", type=os.fsencode)
    parser.add_argument("--delete", action="store_true", help="take the user out instead")
    options = parser.parse_args(arguments)
    try:
        if not USER.fullmatch(options.user):
            raise ValueError("a user is 1 to 250 printable characters without white space and colon")
        secret = None
        if not options.delete:
            password = _ask()
            if not password or b" " in password:
                raise ValueError("a password has at least one character and no space")
            secret = hash_password(password)
        there = set_password(options.file, options.user, secret)
        if options.delete and not there:
            raise ValueError(f"there is no user {os.fsdecode(options.user)} in {options.file}")
    except (ValueError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    return 0
