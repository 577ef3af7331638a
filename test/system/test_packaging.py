"""
What packages install beside the program: man pages, completions, the sample of the settings.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from typing import Any
from unittest import skipUnless

from attrs import fields
from twisted.trial.unittest import SynchronousTestCase

from darner.cli.options import Options
from darner.commands.program import SECTIONS, make_program
from darner.config.policies import QueueSettings
from darner.config.settings import Settings
from test.servers import ROOT, environment, make_directory


def plain(page: str) -> str:
    """@return: a man page as text, without roff's escapes."""
    for escape, character in ((r"\-", "-"), (r"\(aq", "'"), (r"\(ti", "~"), (r"\&", ""), (r"\e", "\\")):
        page = page.replace(escape, character)
    return re.sub(r"\\f[BIR]", "", page)


class ShareTests(SynchronousTestCase):
    """The man pages and the completions, made as a package makes them."""

    def setUp(self) -> None:
        self.share = make_directory(self)
        subprocess.run(
            [sys.executable, ROOT / "packaging" / "man" / "generate.py", self.share], check=True, env=environment(),
            cwd=self.share,
        )  # fmt: skip

    def page(self, name: str) -> str:
        (path,) = self.share.glob(f"man/man*/{name}")
        return plain(path.read_text())

    @skipUnless(shutil.which("groff"), "there is no groff")
    def test_groff_has_no_complaint(self) -> None:
        pages = sorted(self.share.glob("man/man*/*"))
        self.assertEqual([page.name for page in pages], ["darner.1", "darner.toml.5", "darner-serve.8"])
        for page in pages:
            done = subprocess.run(["groff", "-man", "-ww", "-Tutf8", page], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""), page)
            self.assertIn("SEE ALSO", re.sub(r".\x08|\x1b\[\d*m", "", done.stdout))

    def test_commands(self) -> None:
        """Every command has a section, and every option a paragraph."""
        page = self.page("darner.1")
        program = make_program()
        context: Any = program.make_context("darner", ["get", "q"], resilient_parsing=True)
        sections = re.findall(r"^\.SS (.*)$", page, re.MULTILINE)
        self.assertEqual(sections, [name for names in SECTIONS.values() for name in names])
        for name in sections:
            command = program.get_command(context, name)
            assert command is not None
            (text,) = re.findall(rf"^\.SS {name}\n(.*?)(?=^\.S)", page, re.MULTILINE | re.DOTALL)
            for parameter in command.params:
                if not getattr(parameter, "hidden", False) and parameter.param_type_name == "option":
                    self.assertIn(parameter.opts[-1], text, name)
        for parameter in program.params:
            self.assertRegex(page, rf"\n\.TP\n[^\n]*{parameter.opts[0]}\b", parameter.name)
        self.assertIn("\nDARNER_SERVERS\n", page)

    def test_options_of_the_server(self) -> None:
        page = self.page("darner-serve.8")
        names = [name.rstrip("=") for name in Options().longOpt]
        self.assertGreater(len(names), 15)
        for name in names:
            self.assertRegex(page, rf"\n\.TP\n(-\w, )?--{name}(=VALUE)?\n\S", name)

    def test_settings(self) -> None:
        """Every setting is there, with its default."""
        page = self.page("darner.toml.5")
        names = [field.name for kind in (Settings, QueueSettings) for field in fields(kind) if field.name != "policies"]
        self.assertGreater(len(names), 40)
        for name in names:
            self.assertRegex(page, rf"\n\.T[PQ]\n{name} = \S", name)
        self.assertEqual(
            re.findall(r"^\.SH (.*)$", page, re.MULTILINE),
            ["NAME", "DESCRIPTION", "SERVER", "QUEUES", "DEFAULTS", "ALIASES", "SEE ALSO"],
        )

    def test_completions(self) -> None:
        """They are scripts of the shells, and ask the program."""
        bash = self.share / "bash-completion" / "completions" / "darner"
        subprocess.run(["bash", "-n", bash], check=True)
        loaded = subprocess.run(
            ["bash", "-c", '. "$1"; complete -p darner', "-", bash], check=True, capture_output=True, text=True
        )
        self.assertIn("darner", loaded.stdout)
        self.assertTrue((self.share / "zsh/vendor-completions/_darner").read_text().startswith("#compdef darner\n"))
        self.assertIn("complete --no-files --command darner", (
            self.share / "fish/vendor_completions.d/darner.fish"
        ).read_text())  # fmt: skip

    def test_data_files(self) -> None:
        """setup.py installs what was made, and the sample in any case."""
        root = make_directory(self)
        shutil.copy(ROOT / "setup.py", root)
        setup = run_path(str(root / "setup.py"), run_name="darner_setup")
        self.assertEqual(setup["data_files"](), [("share/doc/darner/examples", ["docs/darner.toml"])])
        shutil.copytree(self.share, root / "packaging" / "share")
        found = dict(setup["data_files"]())
        self.assertEqual(found["share/man/man1"], ["packaging/share/man/man1/darner.1"])
        self.assertEqual(len(found), 7)


class UnitsTests(SynchronousTestCase):
    """The units fit the server: what they name, it has."""

    def test_options(self) -> None:
        for path in (ROOT / "packaging" / "systemd").iterdir():
            for line in re.findall(r"^ExecStart=/usr/bin/darner serve (.*)$", path.read_text(), re.MULTILINE):
                options = Options()
                options.parseOptions(line.split())
                self.assertEqual(options["data-dir"], "/var/lib/darner")

    def test_settings_of_the_container(self) -> None:
        options = Options()
        options.parseOptions(["--config", str(ROOT / "packaging" / "container" / "darner.toml")])
        settings = options.settings()
        self.assertEqual((settings.data_dir, settings.http_port), ("/var/lib/darner", 2223))

    def test_settings_in_manifests(self) -> None:
        """The settings in the compose file and in the manifest are ones that the server takes."""
        for name, indentation in (("container/compose.yaml", 6), ("kubernetes/darner.yaml", 4)):
            text = (ROOT / "packaging" / name).read_text()
            (block,) = re.findall(rf"^ +[\w.]+: \|\n((?: {{{indentation}}}.*\n)+)", text, re.MULTILINE)
            path = Path(self.mktemp())
            path.write_text("\n".join(line[indentation:] for line in block.splitlines()))
            options = Options()
            options.parseOptions(["--config", str(path)])
            self.assertTrue(options.settings().trusted_network, name)
