"""Tests of L{darner.web.backup_api}: what is refused.  `test/system/test_backup.py` has real backups."""

from __future__ import annotations

from attrs import evolve

from darner.store.backup.folder import PROOF
from test.servers import make_directory
from test.web.test_queues_api import API, ApiTestCase
from test.web.test_site import UsersTestCase

TOKEN = "0123456789abcdef" * 2


class BackupTests(ApiTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = make_directory(self)
        self.inside = self.directory / "backups"
        (self.inside / "host").mkdir(parents=True)

    def allow(self) -> None:
        served = self.web.root.served
        served.settings = evolve(served.settings, backup_dir=str(self.inside))

    def refused(self, directory: object, text: str, token: str = TOKEN, status: int = 409) -> None:
        reply = self.browser.ask("POST", f"{API}/backup", {"directory": str(directory), "proof": token})
        self.assertEqual(reply.status, status, reply.raw)
        self.assertIn(text, reply.json["detail"])

    def test_no_setting(self) -> None:
        (self.inside / f"{PROOF}{TOKEN}").touch()
        self.refused(self.inside, "backup_dir is not set")

    def test_outside(self) -> None:
        self.allow()
        (self.inside / "link").symlink_to(self.directory)
        (self.directory / f"{PROOF}{TOKEN}").touch()
        for place in (self.directory, self.inside / "..", self.inside / "link", "/", "relative", f"{self.inside}x"):
            self.refused(place, "only below")

    def test_no_proof(self) -> None:
        """Who cannot write there cannot have the server do it."""
        self.allow()
        for place in (self.inside, self.inside / "host", self.inside / "missing"):
            self.refused(place, "can both write to")
        self.refused(f"{self.inside}/a\0b", "", status=409)
        self.refused(self.inside, "proof", token="../x", status=400)

    def test_not_on_disk(self) -> None:
        """A store in memory has nothing to back up."""
        self.allow()
        (self.inside / "host" / f"{PROOF}{TOKEN}").touch()
        self.refused(self.inside / "host", "not on disk", status=503)
        reply = self.browser.ask("POST", f"{API}/backup/stream", {})
        self.assertEqual(reply.status, 503)


class RightsTests(UsersTestCase):
    def test_only_who_may_everything(self) -> None:
        for login, status in ((None, 401), ("Basic Ym9iOndvcmQ=", 403)):  # bob:word
            self.browser.headers.pop("Authorization", None)
            if login is not None:
                self.browser.headers["Authorization"] = login
            for path, body in (("/backup", {"directory": "/", "proof": TOKEN}), ("/backup/stream", {})):
                self.assertEqual(self.browser.ask("POST", API + path, body).status, status)
