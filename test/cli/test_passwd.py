"""Tests of `darner.cli.passwd`."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from darner.cli.passwd import main
from darner.config.passwords import Passwords


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
            ("x\n", "a b", "a user name must be 1 to 250 printable characters without white space and colon"),
            ("x\n", "a:b", "a user name must be 1 to 250 printable characters without white space and colon"),
            ("\n", "ann", "a password must have at least one character and no space"),
            ("a b\n", "ann", "a password must have at least one character and no space"),
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
