"""Tests of `darner.config.passwords`."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from darner.config.passwords import Passwords, hash_password, main, parse_passwords
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
        """Who has read the file cannot log in by what stands there."""
        found = parse_passwords(b"bob:" + HASHED, "file")
        self.assertFalse(found[b"bob"].matches(HASHED))

    def test_bad(self) -> None:
        for line, reason in (
            (b"ann", "not of the form user:password"),
            (b":x", "not of the form user:password"),
            (b"a b:x", "not of the form user:password"),
            (b"ann:", "there is no password"),
            (b"ann:x\nann:y", "user ann stands there twice"),
            (b"ann:$scrypt$ln=14", "the hash is not complete"),
            (b"ann:$scrypt$ln=4,r=8,p=1$A$A", "the hash is not in base64"),
            (b"ann:" + HASHED.replace(b"ln=4", b"ln=21"), "the hash has parameters out of range"),
            (b"ann:" + HASHED.replace(b"ln=4", b"ln=0"), "the hash has parameters out of range"),
        ):
            error = self.assertRaises(SettingsError, parse_passwords, b"#\n" + line, "file")
            self.assertEqual(str(error), f"file, line {line.count(b'ann:x') + 2}: {reason}")

    def test_hash(self) -> None:
        """What is written can be read, and differs each time."""
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
        """What was right is known from then on, and nothing else is."""
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
        """What was read before stays, and what is wrong is said once."""
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


class CommandTests(SynchronousTestCase):
    """``darner-passwd``."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def run_with(self, typed: str, *arguments: str) -> tuple[int, str]:
        with patch.object(sys, "stdin", io.StringIO(typed)), patch.object(sys, "stderr", io.StringIO()) as errors:
            status = main([str(self.path), *arguments])
        return status, errors.getvalue()

    def test_set(self) -> None:
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        self.assertEqual(self.run_with("secret\n", "ann"), (0, ""))
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertNotIn(b"secret", self.path.read_bytes())
        self.assertEqual(self.run_with("other\n", "bob"), (0, ""))
        passwords = Passwords(self.path)
        self.assertTrue(passwords.check(b"ann", b"secret"))
        self.assertTrue(passwords.check(b"bob", b"other"))

    def test_change(self) -> None:
        """The rest of the file stays, and so does its mode."""
        self.path.write_bytes(b"# ours\nann:old\nbob:plain\n")
        self.path.chmod(0o640)
        self.assertEqual(self.run_with("new\n", "ann"), (0, ""))
        self.assertEqual(self.path.read_bytes().splitlines()[:2], [b"# ours", b"bob:plain"])
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o640)
        self.assertFalse(Passwords(self.path).check(b"ann", b"old"))
        self.assertTrue(Passwords(self.path).check(b"ann", b"new"))

    def test_delete(self) -> None:
        self.path.write_bytes(b"ann:x\nbob:y\n")
        self.assertEqual(self.run_with("", "--delete", "ann"), (0, ""))
        self.assertEqual(self.path.read_bytes(), b"bob:y\n")
        status, errors = self.run_with("", "--delete", "ann")
        self.assertEqual((status, errors), (1, f"darner-passwd: there is no user ann in {self.path}\n"))

    def test_refusals(self) -> None:
        for typed, user, reason in (
            ("x\n", "a b", "a user is 1 to 250 printable characters without white space and colon"),
            ("x\n", "a:b", "a user is 1 to 250 printable characters without white space and colon"),
            ("\n", "ann", "a password has at least one character and no space"),
            ("a b\n", "ann", "a password has at least one character and no space"),
        ):
            self.assertEqual(self.run_with(typed, user), (1, f"darner-passwd: {reason}\n"))
            self.assertFalse(self.path.exists())

    def test_cannot_write(self) -> None:
        self.path = self.path / "below"
        status, errors = self.run_with("x\n", "ann")
        self.assertEqual(status, 1)
        self.assertIn("No such file or directory", errors)

    def test_terminal(self) -> None:
        """On a terminal the password is asked for twice, and not shown."""
        with patch.object(sys.stdin, "isatty", lambda: True, create=True):
            with patch("getpass.getpass", side_effect=["secret", "secret"]):
                self.assertEqual(main([str(self.path), "ann"]), 0)
            with patch("getpass.getpass", side_effect=["secret", "sekret"]), patch.object(sys, "stderr", io.StringIO()):
                self.assertEqual(main([str(self.path), "bob"]), 1)
        self.assertEqual(Passwords(self.path).users, {b"ann"})
