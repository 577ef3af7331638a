"""
``python -m bench [benchmark ...]``: runs all benchmarks and writes the documentation's page, or runs and prints some.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Optional

from bench.conditions import Conditions
from bench.connections import connections
from bench.fairness import fairness
from bench.figures import figures
from bench.flood import flood
from bench.memory import memory
from bench.outcome import Outcome
from bench.packing import packing
from bench.pipelining import pipelining
from bench.policies import policies
from bench.queues import queues
from bench.report import Section, as_text, write_page
from bench.restart import restart
from bench.servers import KINDS, Server, at_address
from bench.shortages import shortages
from bench.sync import sync

BENCHMARKS: Final[dict[str, Callable[[Conditions], Outcome]]] = {
    "flood": flood,
    "pipelining": pipelining,
    "sync": sync,
    "connections": connections,
    "packing": packing,
    "memory": memory,
    "fairness": fairness,
    "queues": queues,
    "restart": restart,
    "shortages": shortages,
    "policies": policies,
}
"""The benchmarks of the page."""
PAGE: Final = Path(__file__).resolve().parent.parent / "docs/benchmarks.rst"


def _address(text: str) -> type[Server]:
    name, _, address = text.partition("=")
    host, _, port = address.rpartition(":")
    if not name or not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is not like NAME=HOST:PORT")
    return at_address(name, host, int(port))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench", description="Compare queue servers.")
    add = parser.add_argument
    add("names", nargs="*", metavar="benchmark", help=f"one of {', '.join(BENCHMARKS)}, figures; by default all")
    add("--rounds", type=int, default=3, help="how often to measure each rate; the median counts [default: 3]")
    add("--quick", action="store_true", help="measure briefly, only to check that everything works")
    add("--servers", default=",".join(KINDS), help="which servers to compare, if installed [default: %(default)s]")
    add("--server", type=_address, action="append", default=[], metavar="NAME=HOST:PORT",
        help="a running server with this protocol; for flood, pipelining, sync, connections and packing")
    add("--output", type=Path, help=f"where to write the page [default: {PAGE} for all benchmarks, else none]")
    return parser  # fmt: skip


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """@return: the exit status: 1 if a benchmark failed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    known = {**BENCHMARKS, "figures": figures}
    wanted = options.servers.split(",")
    for given, there in ((options.names, list(known)), (wanted, list(KINDS))):
        for name in given:
            if name not in there:
                parser.error(f"{name} is not one of {', '.join(there)}")
    conditions = Conditions(max(1, options.rounds), options.quick, wanted, options.server)
    sections = []
    failed = False
    for name in options.names or BENCHMARKS:
        conditions.log(f"{name} ...")
        conditions.notes.clear()
        try:
            outcome = known[name](conditions)
        except OSError as error:
            conditions.log(f"{name} failed: {error}")
            failed = True
            continue
        outcome.notes += conditions.notes
        sections.append(Section(name, known[name], outcome))
        print(as_text(sections[-1]), flush=True)
    if conditions.missing:
        print(f"missing: {', '.join(sorted(conditions.missing))}")
    output = options.output or (None if options.names else PAGE)
    if output is not None:
        write_page(output, sections, conditions)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
