"""What small requests suffer from large ones."""

from __future__ import annotations

from bench.conditions import Conditions
from bench.outcome import Outcome, Plot, Table
from bench.servers import Server
from darner.cli.bench import PERCENTILES, Result, Running, run

LARGE = 8 * 2**20


def fairness(conditions: Conditions) -> Outcome:
    """
    Sets of 64 bytes by 10 clients, while 10 other clients set items of 8 MiB as fast as they can, or set and get them
    in turn.
    """
    outcome = Outcome()
    with conditions.servers("darner", "cpp", "redis", "beanstalkd") as servers:
        for way, gets in (("sets", 0), ("sets and gets", 1)):
            results: dict[str, list[tuple[Result, Result]]] = {server.name: [] for server in servers}
            for _ in range(conditions.rounds):
                for server in servers:
                    results[server.name] += _mix(conditions, server, gets)
            middle = {name: _middle(pairs) for name, pairs in results.items() if pairs}
            _tell(outcome, middle, way)
    return outcome


def _mix(conditions: Conditions, server: Server, gets: int) -> list[tuple[Result, Result]]:
    """@return: what the small requests and the large ones came to; nothing where that failed."""
    try:
        large = Running(server.load(queue="large", sets=1, gets=gets, item_bytes=LARGE, seconds=600))
        try:
            small = run(server.load(queue="small", sets=1, gets=0, seconds=conditions.choose(5.0, 0.3)))
        finally:
            result = large.stop()
    except OSError as error:
        conditions.note(f"{server.name} failed: {error}")
        return []
    errors = small.tally.errors + result.tally.errors
    if errors:
        first = small.tally.first_error or result.tally.first_error
        conditions.note(f"{server.name} gave {errors} wrong replies, first {first}")
    conditions.log(f"  {server.name}: {small.rate:.0f}/s, 99 % within {small.percentile(99) / 1000:.1f} ms")
    return [(small, result)]


def _middle(pairs: list[tuple[Result, Result]]) -> tuple[Result, Result]:
    return sorted(pairs, key=lambda pair: pair[0].percentile(99))[(len(pairs) - 1) // 2]


def _tell(outcome: Outcome, results: dict[str, tuple[Result, Result]], way: str) -> None:
    percents = (*PERCENTILES, 100.0)
    rows = [
        [f"{percent:g} %", *(f"{small.percentile(percent) / 1000:.2f}" for small, _ in results.values())]
        for percent in percents
    ]
    rows.append(["small requests a second", *(f"{small.rate:,.0f}" for small, _ in results.values())])
    rows.append([
        "MiB a second of large ones",
        *(f"{(large.tally.bytes_in + large.tally.bytes_out) / 2**20 / large.seconds:,.0f}"
          for _, large in results.values()),
    ])  # fmt: skip
    title = f"Time within which small sets were served, in ms, beside {way} of 8 MiB"
    outcome.tables.append(Table(title, ["share", *results], rows))
    lines = {
        name: [(percent, small.percentile(percent) / 1000) for percent in percents]
        for name, (small, _) in results.items()
    }
    name = f"fairness_{way.replace(' ', '_')}"
    outcome.plots.append(Plot(name, f"Small sets beside {way} of 8 MiB", "% of requests", "ms", lines, log_x=False))
    if "darner" in results and way == "sets":
        p99 = results["darner"][0].percentile(99) / 1000
        outcome.at_most("99 % of small sets while 10 clients push items of 8 MiB", 20, "ms", p99)
