"""The few figures by which a change is judged."""

from __future__ import annotations

from bench.conditions import Conditions, Sample, mib
from bench.outcome import Outcome, Table
from bench.restart import restarted


def figures(conditions: Conditions) -> Outcome:
    """
    This server alone: its rates, its memory when idle and with a million items of 1 KiB, and its start with those.
    """
    rows = []
    with conditions.servers("darner") as servers:
        (server,) = servers
        idle = server.memory().resident
        conditions.measure(server, sets=1024, gets=0, in_flight=16)
        for clients, in_flight in ((1, 1), (10, 1), (50, 1), (1, 32), (10, 32)):
            seconds = conditions.choose(3.0, 0.1)
            samples = conditions.compare(servers, clients=clients, in_flight=in_flight, seconds=seconds)
            rows.append([f"{clients} x {in_flight}", *_cells(samples[server.name])])
        peak = server.memory().peak
        count = conditions.choose(1_000_000, 1000)
        _, stop, start, _, _ = restarted(conditions, server, count)
        conditions.measure(server, queue="backlog", sets=0, gets=count, item_bytes=1024, in_flight=16)
        loaded = server.memory()
    head = ["clients x in flight", "requests a second", "CPU a request, us", "99 % within, ms", "longest, ms"]
    state = [
        ["resident when idle, MiB", mib(idle)],
        ["peak after the flood, MiB", mib(peak)],
        [f"resident after {count:,} items, MiB", mib(loaded.resident)],
        ["peak then, MiB", mib(loaded.peak)],
        [f"stop with {count:,} items, s", f"{stop:.2f}"],
        [f"start with {count:,} items, s", f"{start:.2f}"],
    ]
    return Outcome([Table("Flood", head, rows), Table("Memory and restart", ["figure", ""], state)])


def _cells(sample: Sample) -> list[str]:
    result = sample.result
    rate = f"{result.rate:,.0f}" + ("*" if result.limited_by_tool else "")
    tail, longest = result.percentile(99) / 1000, result.percentile(100) / 1000
    return [rate, f"{sample.cpu:.1f}", f"{tail:.2f}", f"{longest:.1f}"]
