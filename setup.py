"""
What setup.cfg cannot say: the modules that are compiled where C{DARNER_COMPILE=1} is in the environment.

They are those that run for each request, and mypyc makes C of them; the same files run without that.  See "Compiled" in
docs/design.rst.
"""

import os
import sys
from configparser import ConfigParser

from setuptools import setup

COMPILED = [
    "consumed", "items", "stats", "wire", "head", "retries", "delays", "seen", "contents", "ledger", "bounds",
    "fifo", "queues", "turn", "session", "outbox", "opens", "waits", "streams", "requeue", "space", "records",
    "batch", "framing", "guard", "text", "textport", "connection", "listen", "crowd",
]
COMPILER = ["mypy >= 2.4, < 2.5", "mypy-zope >= 1.0.17, < 1.1", "types-tqdm"]
"""What a later mypy finds fault with would not be compiled."""


def extensions():
    # A frontend runs this once to be told what is needed, and has not installed that yet.
    # An editable install is to run the source as it is edited.
    if {"egg_info", "dist_info", "editable_wheel", "develop"}.intersection(sys.argv):
        return []
    from mypyc.build import mypycify

    options = ["--config-file=pyproject.toml"]
    return mypycify(
        [*options, *(f"darner/{module}.py" for module in COMPILED)], opt_level="3", debug_level="0", strip_asserts=False
    )


if os.environ.get("DARNER_COMPILE") == "1":
    config = ConfigParser()
    config.read("setup.cfg")
    needed = config["options"]["install_requires"].split("\n")
    setup(ext_modules=extensions(), setup_requires=[*COMPILER, *filter(None, needed)])
else:
    setup()
