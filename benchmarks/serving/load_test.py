"""Load a decision server at fixed rates: ``python -m benchmarks.serving.load_test URL --rates 200``.

Calls start at fixed times, whether or not earlier ones were answered, and the time of a call runs from its due start. A
server that falls behind therefore shows in the quantiles (no coordinated omission).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.serving.plain_client import server_address
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError, one_line

MALFORMED: tuple[Any, ...] = ({}, None, "text", {"uv": -1}, {"uv": "many"}, [1, 2])
"""Requests that no server can decide for."""


@dataclass
class LoadResult:
    """What a client saw at one rate."""

    rate: float
    """Calls per second that were due."""
    seconds: list[float] = field(default_factory=list)
    """Time of each answered call, from its due start."""
    statuses: Counter[str] = field(default_factory=Counter)
    """Requests by status."""
    errors: Counter[str] = field(default_factory=Counter)
    """Calls without an answer, or with another code than 200."""
    wall: float = 0.0
    """Seconds from the first call to the last answer."""

    def row(self) -> dict[str, Any]:
        """Return the rates, the quantiles in milliseconds and the counts."""
        quantiles = np.quantile(self.seconds, (0.5, 0.95, 0.99)) * 1e3 if self.seconds else [float("nan")] * 3
        named = dict(zip(("p50_ms", "p95_ms", "p99_ms"), (round(float(q), 3) for q in quantiles), strict=True))
        counts = {"answered": len(self.seconds), "errors": sum(self.errors.values())}
        achieved = {"rate": self.rate, "achieved": round(len(self.seconds) / max(self.wall, 1e-9), 1)}
        return achieved | counts | named | {"statuses": dict(self.statuses), "error_kinds": dict(self.errors)}


class Connections:
    """Keep-alive connections to a server, each used by one call at a time.

    Args:
        url: address of the server.
        token: bearer token; ``None``: none.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.host, self.port = server_address(url)
        self._head = f"POST /decide HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\n"
        if token is not None:
            self._head += f"Authorization: Bearer {token}\r\n"
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Return status and body of an answer."""
        reader, writer = self._free.pop() if self._free else await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(head.partition("content-length:")[2].partition("\r\n")[0])
            answer = await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        if "connection: close" in head:
            writer.close()
        else:
            self._free.append((reader, writer))
        return int(head.split(" ", 2)[1]), answer

    def close(self) -> None:
        """Close what is open."""
        for _, writer in self._free:
            writer.close()
        self._free.clear()


async def run_rate(
    connections: Connections,
    make_body: Callable[[], bytes],
    rate: float,
    seconds: float,
    timeout: float = 5.0,
) -> LoadResult:
    """Send calls at a fixed rate and return what came back.

    Args:
        connections: to the server.
        make_body: returns the body of the next call.
        rate: calls per second.
        seconds: for how long.
        timeout: seconds after which a call counts as unanswered.
    """
    result = LoadResult(rate)
    start = time.perf_counter()

    async def one(due: float) -> None:
        try:
            code, answer = await asyncio.wait_for(connections.post(make_body()), timeout)
        except Exception as error:  # whatever happens to a call is a result
            result.errors[type(error).__name__] += 1
            return
        if code != 200:
            result.errors[str(code)] += 1
            return
        result.seconds.append(time.perf_counter() - due)
        result.statuses.update(d["status"] for d in json.loads(answer)["decisions"])

    tasks = set()
    for k in range(round(rate * seconds)):
        due = start + k / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    result.wall = time.perf_counter() - start
    return result


def request_maker(scenario: Scenario, batch: int, malformed: float, seed: int) -> Callable[[], bytes]:
    """Return a function that makes bodies of random requests in codes, some of them malformed.

    Args:
        scenario: a scenario of categories.
        batch: requests of a call.
        malformed: share of malformed requests.
        seed: seed of the requests.
    """
    rng = random.Random(seed)

    def request() -> Any:
        if rng.random() < malformed:
            return rng.choice(MALFORMED)
        values = {feature.name: rng.randrange(feature.size) for feature in scenario.features}
        return values | {"request_id": f"{rng.getrandbits(40):x}"}

    return lambda: json.dumps({"requests": [request() for _ in range(batch)]}).encode()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; a JSON object a line for each rate. Return 1 if a call had no answer."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.load_test", description=__doc__)
    parser.add_argument("url", metavar="URL", help="address of the server")
    parser.add_argument("--rates", nargs="+", type=float, default=[200.0], metavar="N", help="calls per second")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="length of each rate")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="requests of a call")
    parser.add_argument("--malformed", type=float, default=0.0, metavar="F", help="share of malformed requests")
    parser.add_argument("--scenario", default="default", metavar="NAME", help="scenario of the requests, in codes")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the requests")
    parser.add_argument("--token", metavar="TOKEN", help="bearer token")
    args = parser.parse_args(argv)
    try:
        results = asyncio.run(_run(args))
    except (InputError, OSError) as error:
        print(f"load_test: error: {one_line(error)}", file=sys.stderr)
        return 2
    return int(any(result.errors for result in results))


async def _run(args: argparse.Namespace) -> list[LoadResult]:
    make_body = request_maker(Scenario.load(args.scenario), args.batch, args.malformed, args.seed)
    results = []
    for rate in args.rates:
        connections = Connections(args.url, args.token)
        results.append(await run_rate(connections, make_body, rate, args.seconds))
        connections.close()
        print(json.dumps(results[-1].row()), flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
