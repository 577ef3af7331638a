"""
The password file: reading it, checking passwords by it, and writing it.

A line is ``user:hash``, where the hash is scrypt's (RFC 7914) in the notation of the modular crypt format::

    $scrypt$ln=14,r=8,p=1$SALT$HASH

with salt and hash in base64.  A line ``user:password`` with the plain password is accepted too, as in the file that
memcached reads.  Empty lines and lines that start with ``#`` are ignored.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final, Optional, Union

from attrs import evolve, frozen

from darner.errors import SettingsError

LOG_COST: Final = 14
"""Base 2 logarithm of scrypt's cost: 16 MiB and about 50 ms for a password."""
MAX_LOG_COST: Final = 20
SALT_BYTES: Final = 16
HASH_BYTES: Final = 32

USER: Final = re.compile(rb"[!-9;-~]{1,250}")
"""A valid user name."""
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

    @property
    def work(self) -> int:
        """The cost of checking a password, as a number of mixed blocks of 128 bytes."""
        cost: int = 2**self.log_cost * self.block * self.lanes
        return cost

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
    """A plain password."""

    password: bytes
    work: ClassVar[int] = 0

    def matches(self, password: bytes) -> bool:
        # Digests, so that the time does not depend on the length.
        return hmac.compare_digest(hashlib.sha256(self.password).digest(), hashlib.sha256(password).digest())


Secret = Union[_Scrypt, _Plain]

_NOBODY: Final[Secret] = _Plain(b"")
"""The secret that is used for a user who is not in the file."""


def hash_password(password: bytes) -> bytes:
    """@return: the hash, as written in the file after the user and the colon."""
    salt = secrets.token_bytes(SALT_BYTES)
    digest = _Scrypt(LOG_COST, 8, 1, salt, bytes(HASH_BYTES))._hash(password)
    return b"$scrypt$ln=%d,r=8,p=1$%b$%b" % (LOG_COST, base64.b64encode(salt), base64.b64encode(digest))


def _parse_secret(text: bytes) -> Secret:
    """@raise ValueError: it is empty, or starts like a hash but is invalid."""
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
    Parse a password file.

    @raise SettingsError: a line is invalid, or a user is listed twice.
    """
    secrets_: dict[bytes, Secret] = {}
    for number, line in _lines(content):
        user, colon, text = line.partition(b":")
        try:
            if not colon or not USER.fullmatch(user):
                raise ValueError("not of the form user:password")
            if user in secrets_:
                raise ValueError(f"user {user.decode()} is listed twice")
            secrets_[user] = _parse_secret(text)
        except ValueError as error:
            raise SettingsError(f"{source}, line {number}: {error}") from error
    return secrets_


def _fillers(secret: Secret, costliest: Secret) -> list[_Scrypt]:
    """@return: hashes to compute after a check of C{secret}, so that it costs as much as C{costliest}, within 4 %."""
    fillers: list[_Scrypt] = []
    if isinstance(costliest, _Plain):
        return fillers
    left = costliest.work - secret.work
    unit = costliest.block * costliest.lanes
    while left > max(2 * unit - 1, costliest.work // 32):
        filler = evolve(costliest, log_cost=(left // unit).bit_length() - 1)
        fillers.append(filler)
        left -= filler.work
    return fillers


class _File:
    """The contents of the password file when it was read."""

    def __init__(self, secrets: Mapping[bytes, Secret]) -> None:
        self.secrets = secrets
        self._costliest = max(secrets.values(), key=lambda secret: secret.work, default=_NOBODY)

    def matches(self, user: bytes, password: bytes) -> bool:
        """@return: whether this is the user's password.  It does the same work for every user, in the file or not."""
        secret = self.secrets.get(user, _NOBODY)
        right = secret.matches(password) and secret is not _NOBODY
        for filler in _fillers(secret, self._costliest):
            filler.matches(password)
        return right


class Passwords:
    """
    Users and their passwords, from a file that is read again when it changes.

    A correct password is remembered as a keyed digest that only this process can compute, so that clients that connect
    often do not cost a hash each time.
    """

    def __init__(self, path: Path) -> None:
        """@raise SettingsError: the file cannot be read, or is invalid."""
        self._path = path
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, tuple[Secret, bytes]] = {}
        self._file = _File({})
        self._version: Optional[tuple[int, int, int]] = None
        self.refresh()

    def refresh(self) -> None:
        """
        Read the file again if it has changed.

        @raise SettingsError: it cannot be read, or is invalid; the old users and passwords stay valid.
        """
        try:
            status = os.stat(self._path)
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version == self._version:
                return
            content = self._path.read_bytes()
        except OSError as error:
            raise SettingsError(f"cannot read {self._path}: {error.strerror}") from error
        # First, so that an invalid file is not read again before it changes.
        self._version = version
        self._file = _File(parse_passwords(content, str(self._path)))

    @property
    def users(self) -> set[bytes]:
        """The users in the file."""
        return set(self._file.secrets)

    def has(self, user: bytes) -> bool:
        """@return: whether this user is in the file."""
        return user in self._file.secrets

    def stamp(self, user: bytes) -> object:
        """@return: something that is another one once the user's line has changed; C{None} where there is none."""
        return self._file.secrets.get(user)

    @property
    def exposed(self) -> bool:
        """Whether users other than its owner may read the file."""
        return bool(os.stat(self._path).st_mode & 0o077)

    def _digest(self, user: bytes, password: bytes) -> bytes:
        return hmac.digest(self._key, b"%b:%b" % (user, password), "sha256")

    def is_known(self, user: bytes, password: bytes) -> bool:
        """
        @return: whether L{check} has accepted this password before, and the user's line is still the same.  It is fast.
        """
        secret, known = self._known.get(user, (None, b""))
        return (
            secret is not None
            and secret == self._file.secrets.get(user)
            and hmac.compare_digest(known, self._digest(user, password))
        )

    def check(self, user: bytes, password: bytes) -> bool:
        """
        Check a password.  This is slow, and takes equally long for every user, in the file or not: call it in a worker
        thread.

        @return: whether this is the user's password.
        """
        # Kept, as the file may be read again meanwhile.
        file = self._file
        right = file.matches(user, password)
        if right:
            self._known[user] = (file.secrets[user], self._digest(user, password))
        return right


def set_password(path: Path, user: bytes, secret: Optional[bytes]) -> bool:
    """
    Write a user's line.  The file is replaced in one step.

    @param secret: the result of L{hash_password}; C{None} removes the user.
    @return: whether the file had the user before.
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
