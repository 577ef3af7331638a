"""
The command ``darner-passwd``, which writes the password file (`darner.config.passwords`).
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Optional

from darner.cli.output import ArgumentParser
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
    ``darner-passwd FILE USER``: write a user's password, which is read from the terminal or standard input.

    @param program: whose name errors begin with.
    @return: the exit status.
    """
    parser = ArgumentParser(
        prog="darner-passwd",
        description="Set a user's password in the password file of a darner server (its setting password_file).  "
        "Asks for the password on a terminal, otherwise reads it from standard input.",
    )
    parser.add_argument("file", type=Path, help="the password file; created if missing, readable by its owner only")
    parser.add_argument("user", type=os.fsencode)
    parser.add_argument("--delete", action="store_true", help="remove the user from the file instead")
    options = parser.parse_args(arguments)
    try:
        if not USER.fullmatch(options.user):
            raise ValueError("a user name must be 1 to 250 printable characters without white space and colon")
        secret = None
        if not options.delete:
            password = _ask()
            if not password or b" " in password:
                raise ValueError("a password must have at least one character and no space")
            secret = hash_password(password)
        there = set_password(options.file, options.user, secret)
        if options.delete and not there:
            raise ValueError(f"there is no user {os.fsdecode(options.user)} in {options.file}")
    except (ValueError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    return 0
