"""
``python -m fuzz TARGET``: has atheris look for inputs that break a promise.

It begins with the seeds in ``fuzz/corpus/TARGET``, and the inputs that earlier runs left in ``fuzz/found/TARGET``.
An input that breaks a promise is written to ``fuzz/found/TARGET-crash-...`` (or ``timeout``, or ``oom``), and
``python -m fuzz TARGET FILE`` tries it again.  Fix the bug, and move the input to the seeds, under another name.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, Optional

HERE: Final = Path(__file__).parent
MAX_LENGTH: Final = {
    "wire": 300, "protocol": 120, "stream": 300, "files": 1000, "client": 300, "http": 1000, "migrate": 400,
    "backup": 8192,
}  # fmt: skip
"""The maximum size of an input, in bytes, by target.  Code that short inputs do not reach needs a seed."""
SLOW: Final = 120
"""Seconds after which an input counts as an endless loop: longer than a busy machine stands still."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m fuzz", description="Look for inputs that break a promise.")
    add = parser.add_argument
    add("target", choices=list(MAX_LENGTH))
    add("inputs", nargs="*", type=Path, help="try only these, once each")
    add("--runs", type=int, default=-1, help="how many inputs to try [default: no end]")
    add("--seconds", type=int, default=0, help="how long to go on [default: no end]")
    add("--seed", type=int, default=0, help="seed, to generate the same inputs again [default: new ones each time]")
    add("--found", type=Path, default=HERE / "found", help="where to write inputs [default: %(default)s]")
    add("--quiet", action="store_true", help="print only the result")
    return parser


def main(arguments: Optional[Sequence[str]] = None) -> None:
    options = _parser().parse_args(arguments)
    if options.inputs:
        target = import_module(f"fuzz.{options.target}")
        for path in options.inputs:
            target.check(path.read_bytes())
        return
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not there: pip install -e '.[fuzz]' (for Python 3.11 to 3.14, on Linux on x86_64)")
    # The modules whose coverage guides the fuzzer must be imported here, not earlier.
    with atheris.instrument_imports(include=["darner"]):
        target = import_module(f"fuzz.{options.target}")
    found = options.found / options.target
    found.mkdir(parents=True, exist_ok=True)
    flags = {
        "runs": options.runs, "max_total_time": options.seconds, "seed": options.seed, "timeout": SLOW,
        "max_len": MAX_LENGTH[options.target], "artifact_prefix": f"{found}-", "print_final_stats": 1,
        "verbosity": int(not options.quiet),
    }  # fmt: skip
    spelt = [f"-{name}={value}" for name, value in flags.items()]
    atheris.Setup([sys.argv[0], *spelt, str(found), str(HERE / "corpus" / options.target)], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
