"""
What setup.cfg cannot say: the modules that are compiled where C{DARNER_COMPILE=1} is in the environment, and the files
that go to C{share/}.

The modules are those that run for each request, and mypyc makes C of them; the same files run without that.
docs/design/compiled.rst says more.
"""

import os
import subprocess
import sys
import sysconfig
from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
COMPILED = ["values", "net", "store", "queues", "front", "cli"]
"""The packages of darner that are compiled, with what is below them..."""
EXCEPT = [
    # Twisted's interfaces and protocols, which are not made for it.
    "store/interfaces.py", "net/clock.py", "net/mtls.py", "front/protocol.py", "front/access.py", "front/messages.py",
    # What runs once, or rarely.
    "net/endpoints.py", "net/limits.py", "net/listeners.py", "net/processors.py", "net/refusal.py", "net/unix.py",
    "store/backup/*", "store/directory.py", "store/faults.py", "store/files/*",
    "store/inspection.py", "store/lost_payloads.py", "store/mapped_memory.py", "store/opening.py",
    "store/power_loss.py", "store/releasing.py", "store/renewal.py", "store/rollback.py",
    "store/status_file.py",
    "queues/backups.py", "queues/control.py", "queues/front_end.py", "queues/expiry.py", "queues/reclaiming.py",
    "queues/routing.py", "front/bytes_given.py", "front/login_queue.py", "front/shard_rights.py", "cli/bench.py",
    "cli/cluster_service.py", "cli/garbage.py", "cli/log_files.py", "cli/log_format.py", "cli/log_pipe.py",
    "cli/notify.py", "cli/options.py", "cli/output.py", "cli/passwd.py", "cli/plugin.py", "cli/reasons.py",
    "cli/server.py", "cli/workload.py",
    # What tests derive classes from.
    "store/database.py", "store/leveldb.py", "store/payloads.py", "store/segments.py", "store/memory.py",
    "queues/volatile.py",
]
"""...but for these modules."""
COMPILER = ["mypy >= 2.4, < 2.5", "mypy-zope >= 1.0.17, < 1.1", "types-tqdm"]
"""What a later mypy finds fault with would not be compiled."""


def compiled():
    """@return: the paths of the modules that are compiled."""
    found = [path for package in COMPILED for path in sorted((ROOT / "darner" / package).rglob("*.py"))]
    left_out = [path for pattern in ["**/__init__.py", *EXCEPT] for path in (ROOT / "darner").glob(pattern)]
    return [str(path.relative_to(ROOT)) for path in found if path not in left_out]


def data_files():
    """
    @return: what is installed below C{share/}: the sample of the settings, and the man pages and shell completions,
        where `make share` has made them.
    """
    found = {"share/doc/darner/examples": ["docs/darner.toml"]}
    for path in sorted((ROOT / "packaging" / "share").rglob("*")):
        if path.is_file():
            place = path.parent.relative_to(ROOT / "packaging")
            found.setdefault(str(place), []).append(str(path.relative_to(ROOT)))
    return list(found.items())


def extensions():
    # A frontend runs this once to be told what is needed, and has not installed that yet.
    # An editable install is to run the source as it is edited.
    if {"egg_info", "dist_info", "editable_wheel", "develop"}.intersection(sys.argv):
        return []
    from mypyc.build import mypycify

    options = ["--config-file=pyproject.toml"]
    # The compiler takes a third of the time at level 1, which is for trying what is compiled.
    level = os.environ.get("DARNER_OPTIMIZE", "3")
    return mypycify([*options, *compiled()], opt_level=level, debug_level="0", strip_asserts=False)


class BuildCompiled(build_py):
    """Says beside the compiled code what compiled it, for C{darner --version}."""

    def run(self):
        super().run()
        compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
        said = subprocess.run([os.environ.get("CC", compiler), "--version"], capture_output=True, text=True)
        note = f"mypyc {version('mypy')}" + (f" and {said.stdout.splitlines()[0]}" if said.stdout else "")
        Path(self.build_lib, "darner", "compiled_with.txt").write_text(note + "\n")


if __name__ != "__main__":
    pass  # it is only asked what is compiled
elif os.environ.get("DARNER_COMPILE") == "1":
    config = ConfigParser()
    config.read("setup.cfg")
    needed = config["options"]["install_requires"].split("\n")
    setup(
        ext_modules=extensions(), cmdclass={"build_py": BuildCompiled},
        setup_requires=[*COMPILER, *filter(None, needed)], data_files=data_files(),
    )  # fmt: skip
else:
    setup(data_files=data_files())
