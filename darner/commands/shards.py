"""
The shards of a service: which queue is where, and how all of them are.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Optional, Union

from darner.commands.exits import USAGE, Failure
from darner.commands.output import Output, Row
from darner.config.clusters import parse_cluster
from darner.errors import BadQueueName, DarnerError
from darner.values.shards import MOST_SHARDS, parse_shard, shard_of
from darner.values.vocabulary import check_queue_name


def show_shards_of(output: Output, names: Sequence[str], count: Optional[int]) -> None:
    """Say in which of so many shards queues are."""
    if count is None or not names or not 1 <= count <= MOST_SHARDS:
        raise Failure(f"shard needs --shards=N, from 1 to {MOST_SHARDS}, and the names of queues", USAGE)
    found = []
    for name in names:
        try:
            found.append((name, shard_of(check_queue_name(name.encode()), count)))
        except BadQueueName as error:
            raise Failure(f"{name!r}: {error}", USAGE) from None
    if output.json:
        output.document(dict(found))
        return
    output.table(("queue", "shard"), found)


def show_all(output: Output, urls: Sequence[str], told: Sequence[Union[dict[str, Any], DarnerError]]) -> None:
    """
    Show how several logs are, a line each.

    @raise Failure: one of them has no leader or cannot be asked, or shards are missing or there twice.
    """
    rows: list[Row] = []
    wrong: list[str] = []
    for url, status in zip(urls, told, strict=True):
        name = parse_cluster(url).name
        if isinstance(status, DarnerError):
            wrong.append(f"{name}: {status}")
            rows.append((name, "?", "unknown", "", "?", "?", "?", "?"))
            continue
        if not status["leader"]:
            wrong.append(f"{name}: no node leads")
        nodes = status["nodes"]
        there = [node for node in nodes if node["role"] != "gone"]
        address = next((node["address"] for node in nodes if node["name"] == status["leader"]), "")
        rows.append(
            (
                name, status["shard"] or "all", status["leader"] or "none", address, status["last"],
                max((node["lag"] for node in there), default=0), f"{len(there)} of {len(nodes)}", status["trimmed"],
            )
        )  # fmt: skip
    wrong += _missing([status["shard"] for status in told if isinstance(status, dict) and status["shard"]])
    if output.json:
        output.document(
            {
                "logs": [
                    {"log": parse_cluster(url).name, **(status if isinstance(status, dict) else {"error": str(status)})}
                    for url, status in zip(urls, told, strict=True)
                ],
                "wrong": wrong,
            }
        )
    else:
        output.table(("log", "shard", "leader", "address", "last record", "lag", "nodes", "trimmed to"), rows)
    if wrong:
        sys.stdout.flush()
        raise Failure("; ".join(wrong))


def _missing(texts: Sequence[str]) -> list[str]:
    """@return: what is wrong with shards that are to be one service."""
    shards = [parse_shard(text) for text in texts]
    counts = sorted({shard.count for shard in shards})
    if len(counts) > 1:
        return [f"shards of different services: of {' and of '.join(map(str, counts))}"]
    wrong = []
    for count in counts:
        numbers = [shard.number for shard in shards]
        twice = [str(number) for number in sorted(set(numbers)) if numbers.count(number) > 1]
        if twice:
            wrong.append(f"there twice: shard {', '.join(twice)} of {count}")
        absent = [str(number) for number in range(1, count + 1) if number not in numbers]
        if absent:
            wrong.append(f"not named or unknown: shard {', '.join(absent)} of {count}")
    return wrong
