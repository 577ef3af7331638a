"""
The password file, and ``darner-passwd``, which writes it.

A line is ``user:hash``, where the hash is scrypt's (RFC 7914) in the notation of the modular crypt format::

    $scrypt$ln=14,r=8,p=1$SALT$HASH

with salt and hash in base64.  A line ``user:password`` with the plain password is understood as well, as in the file
that memcached reads.  Empty lines and those that start with ``#`` mean nothing.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import getpass
import hashlib
import hmac
import os
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Optional, Union

from attrs import frozen

from darner.errors import SettingsError

LOG_COST: Final = 14
"""Base 2 logarithm of scrypt's cost: 16 MiB and about 50 ms a password."""
MAX_LOG_COST: Final = 20
SALT_BYTES: Final = 16
HASH_BYTES: Final = 32

_USER: Final = re.compile(rb"[!-9;-~]{1,250}")
_SCRYPT: Final = re.compile(
    rb"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,2}),p=([0-9]{1,2})\$([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+)"
)


@frozen
class _Scrypt:
    """A password's hash."""

    log_cost: int
    block: int
    lanes: int
    salt: bytes
    digest: bytes

    def matches(self, password: bytes) -> bool:
        return hmac.compare_digest(self.digest, self._hash(password))

    def _hash(self, password: bytes) -> bytes:
        cost = 2**self.log_cost
        memory = 128 * self.block * (cost + self.lanes + 2)
        return hashlib.scrypt(
            password, salt=self.salt, n=cost, r=self.block, p=self.lanes, maxmem=memory, dklen=len(self.digest)
        )


@frozen
class _Plain:
    """A password as it is."""

    password: bytes

    def matches(self, password: bytes) -> bool:
        # Digests, so that the time does not tell the length either.
        return hmac.compare_digest(hashlib.sha256(self.password).digest(), hashlib.sha256(password).digest())


Secret = Union[_Scrypt, _Plain]


def hash_password(password: bytes) -> bytes:
    """@return: what stands in the file behind the user."""
    salt = secrets.token_bytes(SALT_BYTES)
    digest = _Scrypt(LOG_COST, 8, 1, salt, bytes(HASH_BYTES))._hash(password)
    return b"$scrypt$ln=%d,r=8,p=1$%b$%b" % (LOG_COST, base64.b64encode(salt), base64.b64encode(digest))


def _parse_secret(text: bytes) -> Secret:
    """@raise ValueError: it looks like a hash and is none."""
    if not text:
        raise ValueError("there is no password")
    if not text.startswith(b"$scrypt$"):
        return _Plain(text)
    match = _SCRYPT.fullmatch(text)
    if match is None:
        raise ValueError("the hash is not complete")
    log_cost, block, lanes = (int(number) for number in match.groups()[:3])
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in match.groups()[3:])
    except binascii.Error as error:
        raise ValueError("the hash is not in base64") from error
    if not (1 <= log_cost <= MAX_LOG_COST and 1 <= block <= 32 and 1 <= lanes <= 16 and len(digest) >= 16):
        raise ValueError("the hash has parameters out of range")
    return _Scrypt(log_cost, block, lanes, salt, digest)


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip() and not line.startswith(b"#"):
            yield number, line


def parse_passwords(content: bytes, source: str) -> dict[bytes, Secret]:
    """
    Understand a password file.

    @raise SettingsError: a line is not understood, or a user stands there twice.
    """
    secrets_: dict[bytes, Secret] = {}
    for number, line in _lines(content):
        user, colon, text = line.partition(b":")
        try:
            if not colon or not _USER.fullmatch(user):
                raise ValueError("not of the form user:password")
            if user in secrets_:
                raise ValueError(f"user {user.decode()} stands there twice")
            secrets_[user] = _parse_secret(text)
        except ValueError as error:
            raise SettingsError(f"{source}, line {number}: {error}") from error
    return secrets_


class Passwords:
    """
    Users and their passwords, from a file that is read again when it changes.

    What was right once is known again at once, by a keyed digest that only this process can make: clients that connect
    often do not cost a hash each time.
    """

    _NOBODY: Final = _Scrypt(LOG_COST, 8, 1, bytes(SALT_BYTES), bytes(HASH_BYTES))

    def __init__(self, path: Path) -> None:
        """@raise SettingsError: the file cannot be read or understood."""
        self._path = path
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, bytes] = {}
        self._secrets: dict[bytes, Secret] = {}
        self._version: Optional[tuple[int, int, int]] = None
        self.refresh()

    def refresh(self) -> None:
        """
        Read the file again, if it is another one by now.

        @raise SettingsError: it cannot be read or understood; what was read before stays.
        """
        try:
            status = os.stat(self._path)
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version == self._version:
                return
            content = self._path.read_bytes()
        except OSError as error:
            raise SettingsError(f"cannot read {self._path}: {error.strerror}") from error
        # One whose contents are wrong is not looked at again before it changes.
        self._version = version
        self._secrets = parse_passwords(content, str(self._path))
        self._known = {}

    @property
    def users(self) -> set[bytes]:
        """Who is in the file."""
        return set(self._secrets)

    @property
    def exposed(self) -> bool:
        """Whether others than its owner may read the file."""
        return bool(os.stat(self._path).st_mode & 0o077)

    def _digest(self, user: bytes, password: bytes) -> bytes:
        return hmac.digest(self._key, b"%b:%b" % (user, password), "sha256")

    def is_known(self, user: bytes, password: bytes) -> bool:
        """@return: whether L{check} has found them to be right before.  Takes no time."""
        known = self._known.get(user)
        return known is not None and hmac.compare_digest(known, self._digest(user, password))

    def check(self, user: bytes, password: bytes) -> bool:
        """
        @return: whether this is the user's password.  Takes a while, and as long for a user that does not exist: to be
            called in a worker thread.
        """
        # Of the same file, whatever is read meanwhile.
        secret, known = self._secrets.get(user), self._known
        right = (secret or self._NOBODY).matches(password) and secret is not None
        if right:
            known[user] = self._digest(user, password)
        return right


def set_password(path: Path, user: bytes, secret: Optional[bytes]) -> bool:
    """
    Write a user's line, whole or not at all.

    @param secret: what L{hash_password} gave; C{None} takes the user out.
    @return: whether the user was there before.
    @raise OSError: the file cannot be read or written.
    """
    content = path.read_bytes() if path.exists() else b""
    lines = content.splitlines()
    kept = [line for line in lines if line.startswith(b"#") or line.partition(b":")[0] != user]
    there = len(kept) < len(lines)
    if secret is not None:
        kept.append(user + b":" + secret)
    new = path.with_name(path.name + ".new")
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "wb") as stream:
        if path.exists():
            os.fchmod(file, path.stat().st_mode & 0o777)
        stream.write(b"".join(line + b"\n" for line in kept))
        stream.flush()
        os.fsync(file)
    new.rename(path)
    return there


def _ask() -> bytes:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n").encode()
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise ValueError("the passwords differ")
    return password.encode()


def main(arguments: Optional[list[str]] = None) -> int:
    """
    ``darner-passwd FILE USER``: write a user's password, which is asked for or read from standard input.

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
        if not _USER.fullmatch(options.user):
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
        print(f"darner-passwd: {error}", file=sys.stderr)
        return 1
    return 0
