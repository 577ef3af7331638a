"""
``python -m bench.clients``: compares darner's clients with others on the same work.

A put and a get of a small item make a pair.  Ours run with this server, redis-py's asyncio client with redis-server
(lists), pymemcache with this server.

32 deep
    one client sends 32 puts without waiting, then 32 gets.
50 concurrent
    50 tasks share a client, each with one request at a time.

The ratio is to the other client in the same mode.  It includes the work of the servers:
redis-server writes nothing to disk here.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

PAYLOAD: Final = b"x" * 100
DEPTH: Final = 32
TASKS: Final = 50
ROOT: Final = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(port: int) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the server does not listen")


# Each returns requests a second.


async def deep(
    put_many: Callable[[list[bytes]], Awaitable[Any]], get_many: Callable[[int], Awaitable[Any]], pairs: int
) -> float:
    batch = [PAYLOAD] * DEPTH
    began = time.perf_counter()
    for _ in range(pairs // DEPTH):
        await put_many(batch)
        await get_many(DEPTH)
    return 2 * (pairs // DEPTH) * DEPTH / (time.perf_counter() - began)


async def concurrent(
    put: Callable[[], Awaitable[Any]], get: Callable[[], Awaitable[Any]], pairs: int,
    gather: Callable[..., Awaitable[Any]],
) -> float:
    async def work() -> None:
        for _ in range(pairs // TASKS):
            await put()
            await get()

    began = time.perf_counter()
    await gather(*[work() for _ in range(TASKS)])
    return 2 * (pairs // TASKS) * TASKS / (time.perf_counter() - began)


def ours_asyncio(port: int, pairs: int) -> dict[str, float]:
    from darner.client.asyncio import Client

    async def main() -> dict[str, float]:
        async with Client(f"127.0.0.1:{port}") as client:
            return {
                "32 deep": await deep(
                    lambda batch: client.put_many("q", batch), lambda count: client.get_many("q", count), pairs
                ),
                "50 concurrent": await concurrent(
                    lambda: client.put("q", PAYLOAD), lambda: client.get("q"), pairs, asyncio.gather
                ),
            }

    return asyncio.run(main())


def ours_twisted(port: int, pairs: int) -> dict[str, float]:
    from twisted.internet import reactor
    from twisted.internet.defer import ensureDeferred, gatherResults

    from darner.client.twisted import Client

    found: dict[str, float] = {}

    async def main() -> None:
        client = Client(reactor, f"127.0.0.1:{port}")
        found["32 deep"] = await deep(
            lambda batch: client.put_many("q", batch), lambda count: client.get_many("q", count), pairs
        )
        found["50 concurrent"] = await concurrent(
            lambda: client.put("q", PAYLOAD), lambda: client.get("q"), pairs,
            lambda *calls: gatherResults([ensureDeferred(call) for call in calls]),
        )  # fmt: skip
        await client.close()

    run: Any = reactor
    ensureDeferred(main()).addBoth(lambda result: (run.stop(), result)[1]).addErrback(lambda failure: print(failure))
    run.run()
    return found


def ours_blocking(port: int, pairs: int) -> dict[str, float]:
    from darner.client.blocking import Client

    with Client(f"127.0.0.1:{port}") as client:
        began = time.perf_counter()
        for _ in range(pairs):
            client.put("q", PAYLOAD)
            client.get("q")
        return {"one by one": 2 * pairs / (time.perf_counter() - began)}


def redis_asyncio(port: int, pairs: int) -> dict[str, float]:
    import redis.asyncio

    async def main() -> dict[str, float]:
        client = redis.asyncio.Redis(port=port, max_connections=TASKS)

        async def put_many(batch: list[bytes]) -> None:
            pipeline = client.pipeline(transaction=False)
            for payload in batch:
                pipeline.rpush("q", payload)
            await pipeline.execute()

        async def get_many(count: int) -> None:
            pipeline = client.pipeline(transaction=False)
            for _ in range(count):
                pipeline.lpop("q")
            await pipeline.execute()

        found = {
            "32 deep": await deep(put_many, get_many, pairs),
            "50 concurrent": await concurrent(
                lambda: client.rpush("q", PAYLOAD), lambda: client.lpop("q"), pairs, asyncio.gather
            ),
        }
        await client.aclose()
        return found

    return asyncio.run(main())


def pymemcache_blocking(port: int, pairs: int) -> dict[str, float]:
    from pymemcache.client.base import Client

    client = Client(("127.0.0.1", port), default_noreply=False, no_delay=True)
    began = time.perf_counter()
    for _ in range(pairs):
        client.set("q", PAYLOAD)
        client.get("q")
    rate = 2 * pairs / (time.perf_counter() - began)
    client.close()
    return {"one by one": rate}


CLIENTS: Final = {
    "darner asyncio": ours_asyncio, "darner twisted": ours_twisted, "redis-py asyncio": redis_asyncio,
    "darner blocking": ours_blocking, "pymemcache": pymemcache_blocking,
}  # fmt: skip
AGAINST: Final = {
    "darner asyncio": "redis-py asyncio", "darner twisted": "redis-py asyncio", "darner blocking": "pymemcache",
}  # fmt: skip


def measure(name: str, port: int, pairs: int, rounds: int) -> dict[str, float]:
    """@return: the median of each mode; each round is a process of its own."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        program = f"from bench.clients import CLIENTS; print(CLIENTS[{name!r}]({port}, {pairs}))"
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{name}:\n{done.stderr}")
        for mode, rate in eval(done.stdout).items():
            found.setdefault(mode, []).append(rate)
    return {mode: statistics.median(rates) for mode, rates in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.clients", description="Compare client libraries.")
    parser.add_argument("--pairs", type=int, default=10_000, help="puts and gets a round [default: %(default)s]")
    parser.add_argument("--rounds", type=int, default=3, help="the median counts [default: %(default)s]")
    options = parser.parse_args()
    with_redis = shutil.which("redis-server") is not None and importlib.util.find_spec("redis") is not None
    servers = []
    with tempfile.TemporaryDirectory(prefix="darner-") as directory:
        port, redis_port = free_port(), free_port()
        try:
            command = [sys.executable, "-m", "darner", f"--data-dir={directory}/data", f"--port={port}"]
            servers.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL))
            wait_for(port)
            if with_redis:
                command = ["redis-server", f"--port {redis_port}", "--save", "", "--dir", directory]
                servers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
                wait_for(redis_port)
            else:
                print("there is no redis-server, or no redis-py: pip install 'darner[bench]'")
            rates = {}
            for name in CLIENTS:
                if with_redis or not name.startswith("redis"):
                    at = redis_port if name.startswith("redis") else port
                    rates[name] = measure(name, at, options.pairs, options.rounds)
        finally:
            for server in servers:
                server.terminate()
            for server in servers:
                server.wait()
    for name, modes in rates.items():
        for mode, rate in modes.items():
            other = rates.get(AGAINST.get(name, ""), {}).get(mode)
            ratio = f"{rate / other:.2f} times {AGAINST[name]}" if other else ""
            print(f"{name:18}{mode:15}{rate:10,.0f} requests/s  {ratio}".rstrip())


if __name__ == "__main__":
    main()
