"""Tests of `darner.config.passwords`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from darner.config.passwords import Passwords, hash_password, parse_passwords
from darner.errors import SettingsError

HASHED = b"$scrypt$ln=4,r=8,p=1$c2FsdHNhbHRzYWx0c2FsdA==$8fMVNQRIS3XNsc6gAOqWRDEoI09km9Ol5J49QfkUo8E="
"""Of ``secret``; of little cost."""


class ParseTests(SynchronousTestCase):
    """What a password file may hold."""

    def test_good(self) -> None:
        content = b"# users\n\nann:plain:with colon\n" + b"bob:" + HASHED + b"\n"
        found = parse_passwords(content, "file")
        self.assertEqual(set(found), {b"ann", b"bob"})
        self.assertTrue(found[b"ann"].matches(b"plain:with colon"))
        self.assertFalse(found[b"ann"].matches(b"plain"))
        self.assertTrue(found[b"bob"].matches(b"secret"))
        self.assertFalse(found[b"bob"].matches(b"Secret"))

    def test_a_hash_is_no_password(self) -> None:
        """The hash from the file is not accepted as a password."""
        found = parse_passwords(b"bob:" + HASHED, "file")
        self.assertFalse(found[b"bob"].matches(HASHED))

    def test_bad(self) -> None:
        for line, reason in (
            (b"ann", "not of the form user:password"),
            (b":x", "not of the form user:password"),
            (b"a b:x", "not of the form user:password"),
            (b"ann:", "there is no password"),
            (b"ann:x\nann:y", "user ann is listed twice"),
            (b"ann:$scrypt$ln=14", "the hash is not complete"),
            (b"ann:$scrypt$ln=4,r=8,p=1$A$A", "the hash is not in base64"),
            (b"ann:" + HASHED.replace(b"ln=4", b"ln=21"), "the hash has parameters out of range"),
            (b"ann:" + HASHED.replace(b"ln=4", b"ln=0"), "the hash has parameters out of range"),
        ):
            error = self.assertRaises(SettingsError, parse_passwords, b"#\n" + line, "file")
            self.assertEqual(str(error), f"file, line {line.count(b'ann:x') + 2}: {reason}")

    def test_hash(self) -> None:
        """A written hash can be read, and has a new salt each time."""
        one, other = hash_password(b"secret"), hash_password(b"secret")
        self.assertNotEqual(one, other)
        for secret in (one, other):
            found = parse_passwords(b"ann:" + secret, "file")[b"ann"]
            self.assertTrue(found.matches(b"secret"))
            self.assertFalse(found.matches(b"secres"))


class PasswordsTests(SynchronousTestCase):
    """Checking passwords, and a file that changes."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_bytes(b"ann:" + HASHED + b"\nbob:plain\n")
        self.passwords = Passwords(self.path)

    def test_check(self) -> None:
        for user, password, right in (
            (b"ann", b"secret", True),
            (b"ann", b"plain", False),
            (b"ann", b"", False),
            (b"bob", b"plain", True),
            (b"bob", b"secret", False),
            (b"eve", b"secret", False),
            (b"", b"", False),
        ):
            self.assertIs(self.passwords.check(user, password), right, (user, password))

    def test_known(self) -> None:
        """A correct password is remembered, and no other."""
        self.assertFalse(self.passwords.is_known(b"ann", b"secret"))
        self.assertFalse(self.passwords.check(b"ann", b"wrong"))
        self.assertFalse(self.passwords.is_known(b"ann", b"wrong"))
        self.assertTrue(self.passwords.check(b"ann", b"secret"))
        self.assertTrue(self.passwords.is_known(b"ann", b"secret"))
        self.assertFalse(self.passwords.is_known(b"ann", b"wrong"))
        self.assertFalse(self.passwords.is_known(b"bob", b"secret"))

    def test_refresh(self) -> None:
        self.assertTrue(self.passwords.check(b"bob", b"plain"))
        self.path.write_bytes(b"bob:other\n")
        self.passwords.refresh()
        self.assertFalse(self.passwords.is_known(b"bob", b"plain"))
        self.assertFalse(self.passwords.check(b"bob", b"plain"))
        self.assertTrue(self.passwords.check(b"bob", b"other"))
        self.assertEqual(self.passwords.users, {b"bob"})

    def test_refreshed_to_nonsense(self) -> None:
        """An invalid file leaves the old passwords valid, and is reported once."""
        self.path.write_bytes(b"nonsense\n")
        self.assertRaises(SettingsError, self.passwords.refresh)
        self.passwords.refresh()
        self.assertTrue(self.passwords.check(b"bob", b"plain"))

    def test_missing(self) -> None:
        error = self.assertRaises(SettingsError, Passwords, Path("nowhere"))
        self.assertEqual(str(error), "cannot read nowhere: No such file or directory")

    def test_exposed(self) -> None:
        self.path.chmod(0o600)
        self.assertFalse(self.passwords.exposed)
        self.path.chmod(0o640)
        self.assertTrue(self.passwords.exposed)

    def test_known_while_others_change(self) -> None:
        """A remembered password stays so while the user's own line is unchanged."""
        self.assertTrue(self.passwords.check(b"ann", b"secret") and self.passwords.check(b"bob", b"plain"))
        self.path.write_bytes(b"eve:new\nann:" + HASHED + b"\nbob:other\n")
        self.passwords.refresh()
        self.assertTrue(self.passwords.is_known(b"ann", b"secret"))
        self.assertFalse(self.passwords.is_known(b"bob", b"plain"))
        self.path.write_bytes(b"bob:plain\n")
        self.passwords.refresh()
        self.assertFalse(self.passwords.is_known(b"ann", b"secret"))

    def test_has(self) -> None:
        self.assertTrue(self.passwords.has(b"ann"))
        self.assertFalse(self.passwords.has(b"eve"))


class WorkTests(SynchronousTestCase):
    """The duration of a check does not depend on whether the user exists, or how the password is stored."""

    def work(self, passwords: Passwords, user: bytes, password: bytes) -> int:
        """@return: the work of all hashes of one check."""
        real, done = hashlib.scrypt, []

        def scrypt(password: bytes, *, salt: bytes, n: int, r: int, p: int, **sizes: int) -> Any:
            done.append(n * r * p)
            return real(password, salt=salt, n=n, r=r, p=p, **sizes)

        with patch("hashlib.scrypt", scrypt):
            passwords.check(user, password)
        return sum(done)

    def assert_equal_work(self, content: bytes) -> int:
        path = Path(self.mktemp())
        path.write_bytes(content)
        passwords = Passwords(path)
        found = [
            self.work(passwords, user, password)
            for user in [*passwords.users, b"nobody", b""] for password in (b"secret", b"wrong", b"")
        ]  # fmt: skip
        self.assertGreater(min(found) * 1.04, max(found), found)
        return max(found)

    def test_kinds(self) -> None:
        costlier = HASHED.replace(b"ln=4", b"ln=8")
        others = b"ann:" + costlier + b"\nbob:" + HASHED + b"\ncat:plain\n"
        self.assertEqual(self.assert_equal_work(others), 2**8 * 8)
        for other in (b"ln=7,r=8,p=1", b"ln=6,r=16,p=3", b"ln=3,r=1,p=1", b"ln=8,r=3,p=2"):
            self.assert_equal_work(others + b"eve:" + HASHED.replace(b"ln=4,r=8,p=1", other) + b"\n")

    def test_cheap(self) -> None:
        """Hashes with the lowest cost."""
        self.assert_equal_work(b"ann:" + HASHED.replace(b"ln=4,r=8,p=1", b"ln=1,r=1,p=1") + b"\nbob:plain\n")

    def test_plain_alone(self) -> None:
        """If no user has a hash, none is computed."""
        path = Path(self.mktemp())
        path.write_bytes(b"ann:x\nbob:y\n")
        for user in (b"ann", b"eve"):
            self.assertEqual(self.work(Passwords(path), user, b"z"), 0)
