"""
Tests of nodes and programs in front of an etcd that wants users, passwords and certificates.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from unittest import skipIf

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from darner.cluster.etcd.log import EtcdLog
from darner.cluster.etcd.settings import Credentials
from darner.cluster.opening import open_log
from darner.errors import SettingsError
from test.cluster.etcd_servers import ETCD, SETTINGS, EtcdServer, EtcdServers
from test.cluster.log_contract import Reading
from test.cluster.test_etcd_log import PATIENT
from test.servers import FOREGROUND, Owner, Server, environment, make_certificate, make_directory, until

PASSWORD = "a secret"


def add_users(server: EtcdServer, name: str) -> None:
    """Give the user C{darner} the rights that a log of this name needs, and C{guest} none."""
    start, end = (b64encode(b"darner/" + name.encode() + last).decode() for last in (b"/", b"0"))
    for path, body in (
        ("user/add", {"name": "root", "password": "r"}),
        ("role/add", {"name": "root"}),
        ("user/grant", {"user": "root", "role": "root"}),
        ("user/add", {"name": "darner", "password": PASSWORD}),
        ("user/add", {"name": "guest", "password": PASSWORD}),
        ("role/add", {"name": "log"}),
        ("role/grant", {"name": "log", "perm": {"permType": "READWRITE", "key": start, "range_end": end}}),
        ("user/grant", {"user": "darner", "role": "log"}),
        ("enable", {}),
    ):
        server.change(f"/v3/auth/{path}", body)


def knows_token(server: EtcdServer, token: str) -> bool:
    """@return: whether an etcd takes a token, which it remembers for longer then."""
    body = json.dumps({"key": b64encode(b"darner/jobs/").decode()}).encode()
    request = urllib.request.Request(f"{server.url}/v3/kv/range", body, {"Authorization": token})
    codes: list[int] = []

    def told() -> bool:
        try:
            urllib.request.urlopen(request, timeout=30).close()
            codes.append(200)
        except urllib.error.HTTPError as error:
            error.close()
            codes.append(error.code)
        except OSError:
            return False
        # Above that there is none that leads, say, or it was another one when it had the answer.
        return codes[-1] < 500

    until(told, f"{server.name} answers", 120)
    if codes[-1] not in (200, 401):
        raise AssertionError(f"{server.name} answers {codes[-1]}")
    return codes[-1] == 200


def without_key(certificate: Path) -> Path:
    """@return: a file that has the certificate alone."""
    alone = certificate.with_suffix(".crt")
    alone.write_text(certificate.read_text().partition("-----END PRIVATE KEY-----\n")[2])
    return alone


class Secured:
    """
    An etcd with users, that speaks TLS with those who show a certificate, and what is needed to reach it.

    @ivar url: of the log C{jobs} in it.
    """

    def __init__(self, case: Owner) -> None:
        self._case = case
        self.directory = make_directory(case)
        self.authority = make_certificate(self.directory, "localhost")
        self.certificate = make_certificate(self.directory, "node")
        self.password = self.directory / "password"
        self.password.write_text(PASSWORD + "\r\n")
        servers = EtcdServers(case, size=1)
        (self.etcd,) = servers.servers
        add_users(self.etcd, "jobs")
        self.etcd.stop()
        self.etcd.command = [part.replace("client-urls=http:", "client-urls=https:") for part in self.etcd.command]
        self.etcd.command += [
            f"--cert-file={self.authority}", f"--key-file={self.authority}", "--client-cert-auth",
            f"--trusted-ca-file={without_key(self.certificate)}",
        ]  # fmt: skip
        self.etcd.scheme = "https"
        servers.start()
        self.url = f"etcds://localhost:{self.etcd.port}/jobs"

    def settings(self, **changed: object) -> dict[str, str]:
        """@return: those of a node and its etcd.  @param changed: other ones."""
        values = {
            "user": "darner", "password_file": self.password, "ca_file": self.authority,
            "certificate": self.certificate, "key": self.certificate, **changed,
        }  # fmt: skip
        return {name: str(value) for name, value in values.items() if value is not None}

    def node(self, **changed: object) -> Server:
        """Start a node.  @param changed: as for L{settings}."""
        directory = make_directory(self._case)
        config = directory / "settings.toml"
        config.write_text("".join(f'cluster_{name} = "{value}"\n' for name, value in self.settings(**changed).items()))
        return Server(
            self._case, "--port=0", f"--data-dir={directory / 'data'}", f"--config={config}", f"--cluster={self.url}",
            "--cluster-node=a", directory=directory, ready=False,
        )  # fmt: skip

    def status(self, **changed: object) -> subprocess.CompletedProcess[str]:
        """Run C{darner cluster status}.  @param changed: as for L{settings}."""
        options = [f"--{name.replace('_', '-')}={value}" for name, value in self.settings(**changed).items()]
        command = [sys.executable, "-m", "darner.commands.entry", "cluster", "status", "--json"]
        return subprocess.run(
            [*command, f"--cluster={self.url}", *options], env=environment(), capture_output=True, text=True
        )


@skipIf(ETCD is None, "there is no etcd")
class SecuredTests(SynchronousTestCase):
    """Nodes and programs, with everything right, and with something wrong."""

    def test_secured(self) -> None:
        secured = Secured(self)
        wrong = secured.directory / "wrong"
        wrong.write_text("wrong\n")
        refused = {
            "authentication failed, invalid user ID or password": secured.node(password_file=wrong),
            "permission denied": secured.node(user="guest"),
            "CERTIFICATE_VERIFY_FAILED": secured.node(ca_file=secured.certificate),
        }
        node = secured.node()
        until(lambda: node.addresses, "the node serves")
        with node.client(node.addresses[0]) as client:
            self.assertEqual((client.set(b"jobs", b"hello"), client.get(b"jobs")), (b"STORED", b"hello"))
        # Its token goes with the process, its login does not.
        secured.etcd.kill()
        secured.etcd.start()
        with node.client(node.addresses[0]) as client:
            self.assertEqual((client.set(b"jobs", b"again"), client.get(b"jobs")), (b"STORED", b"again"))
        for text, other in refused.items():
            other.wait_for(text)
            # It goes on trying, as a right may be given, and does not repeat what it says.
            self.assertIsNone(other.process.poll())
            warnings = [line for line in other.text.splitlines() if "#warn]" in line and text in line]
            self.assertLessEqual(len(warnings), 2, other.text)
            self.assertEqual(other.stop(), 0)

        def known() -> bool:
            # On a machine that is very busy the node or etcd is too slow for it now and then.
            done = secured.status()
            if done.returncode:
                return False
            self.assertEqual((done.stderr, json.loads(done.stdout)["leader"]), ("", "a"))
            return True

        until(known, "the leader is known", 120)
        faults: tuple[tuple[str, dict[str, object]], ...] = (
            ("authentication failed, invalid user ID or password", {"password_file": wrong}),
            ("there is a key for etcd", {"certificate": None}),
        )
        for text, settings in faults:

            def refused(text: str = text, settings: dict[str, object] = settings) -> bool:
                done = secured.status(**settings)
                self.assertEqual((done.returncode, done.stdout), (1, ""))
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
                return text in done.stderr

            until(refused, text, 120)
        self.assertEqual(node.stop(), 0)

    def test_unusable_files(self) -> None:
        """A node does not start with files that it cannot use, and says which."""
        directory = make_directory(self)
        certificate, other = make_certificate(directory, "one"), make_certificate(directory, "other")
        (directory / "garbage").write_bytes(b"\xff")
        alone = without_key(certificate)

        def refused(text: str, **files: Path) -> None:
            error = self.assertRaises(SettingsError, open_log, reactor, "etcds://localhost:1/jobs", **files)
            self.assertIn(text, str(error))

        garbage = directory / "garbage"
        refused(f"cannot use {garbage} for etcd", ca_file=garbage)
        refused(f"cannot use {garbage} for etcd", certificate=garbage)
        refused(f"cannot use {alone} for etcd", certificate=alone)
        refused(f"cannot use {alone} with the key in {other} for etcd", certificate=alone, key=other)
        refused(f"cannot use {alone} with the key in {garbage} for etcd", certificate=alone, key=garbage)
        refused("and no certificate", key=other)
        refused("and no user", password_file=garbage)
        refused("is not UTF-8", user="darner", password_file=garbage)  # type: ignore[arg-type]
        open_log(reactor, "etcds://localhost:1/jobs", certificate=str(certificate), ca_file=str(other))
        started = subprocess.run(
            [*FOREGROUND, "--port=0", f"--data-dir={directory / 'data'}", "--cluster=etcds://localhost:1/jobs",
             f"--config={self._config(directory, garbage)}"],
            env=environment(), capture_output=True, text=True, cwd=directory,
        )  # fmt: skip
        self.assertEqual(started.returncode, 1)
        self.assertIn(f"darner: cannot use {garbage} for etcd", started.stderr)

    def _config(self, directory: Path, certificate: Path) -> Path:
        config = directory / "settings.toml"
        config.write_text(f'cluster_certificate = "{certificate}"\n')
        return config


@skipIf(ETCD is None, "there is no etcd")
class TokenTests(TestCase):
    """Tokens that etcd has forgotten."""

    timeout = 300

    async def test_expired(self) -> None:
        """An etcd that was not asked for some time has forgotten the token: the log gets another one, and goes on."""
        servers = EtcdServers(self, size=3, options=(*SETTINGS, "--auth-token-ttl=1"))
        add_users(servers.servers[0], "jobs")
        log = EtcdLog(reactor, servers.endpoints, "jobs", Credentials(user="darner", password=PASSWORD), PATIENT)
        self.addCleanup(log.close)
        reading = Reading(log)
        await log.append(1, b"x")
        last, forgotten = 1, False
        while not forgotten:
            # Meanwhile they are not asked, as that has them remember it for longer.
            for _ in range(7):
                await deferLater(reactor, 0.4, lambda: None)
                last += 1
                await log.append(last, b"x")
            token = log._client._token
            current = servers.servers[log._client._current]
            others = [server for server in servers.servers if server is not current]
            if token is None:
                continue  # It was so slow that the one that is asked has forgotten it, too.
            forgotten = not any([await deferToThread(knows_token, server, token) for server in others])
        current.kill()
        await gatherResults([log.append(number, b"x") for number in range(last + 1, last + 12)])
        await reading.until(last + 11)
        self.assertNotEqual(log._client._token, token)
