"""Break one thing after the other under load: ``python -m benchmarks.serving.fault_drill --policy DIR``.

It starts a server and a controller, calls the server without pause, and prints a table of what clients saw and what the
server's metrics counted. Nothing may be unanswered, every fallback must be counted, and at the end of each fault the
server must use the policy under fresh prices again. The clock is simulated: a minute of the telemetry takes
``--minute`` seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.table import Table

from agents.policy.allocation_policy import DESCRIPTION, AllocationPolicy, policy_folder
from benchmarks.serving.drill_traffic import Load, Seen, TelemetrySender
from benchmarks.serving.plain_client import PlainClient, Samples
from benchmarks.serving.policy_watch import policy_version
from benchmarks.serving.processes import MarcaProcess, running_server, start_controller
from marca_env.scenario.scenario import Scenario
from marca_env.utils.console import make_console
from marca_env.utils.errors import InputError, one_line
from marca_env.utils.validation import as_number

FRESH_MINUTES, HOLD_MINUTES = 4, 12
"""Simulated minutes for which prices are fresh, and then the last good ones."""
SILENT_MINUTES = 30
_SLOWEST = 180.0  # seconds until a process has started again
_SHORT = 2.0  # seconds of a phase in which nothing has to be waited for


@dataclass
class Result:
    """One fault: what was seen, what was counted, and what is wrong."""

    fault: str
    seen: Seen
    counted: Counter[str]
    """Growth of ``marca_fallbacks_total`` by reason."""
    events: str = ""
    """What happened, for the table."""
    problems: list[str] = field(default_factory=list)


class Drill:
    """A server, its controller, the load and the telemetry.

    Args:
        url: address of the server.
        load: clients.
        telemetry: its sender.
        start_controller: starts a controller.
        server: the server's process, whose workers are killed.
        policy: link to the policy folder that the server watches.
        minute: seconds of a simulated minute.
    """

    def __init__(
        self,
        url: str,
        load: Load,
        telemetry: TelemetrySender,
        start_controller: Callable[[], MarcaProcess],
        server: MarcaProcess,
        policy: Path,
        minute: float,
    ) -> None:
        self.client, self.load, self.telemetry, self.minute = PlainClient(url), load, telemetry, minute
        self.server, self.policy, self._start_controller = server, policy, start_controller
        self.controller = start_controller()
        self.problems: list[str] = []

    def check(self, holds: bool, problem: str) -> None:
        """Note a problem unless something holds."""
        if not holds:
            self.problems.append(problem)

    def wait(self, holds: Callable[[Seen], bool], problem: str, seconds: float = _SLOWEST) -> None:
        """Wait until clients have seen something; note a problem if they do not."""
        self.check(self.load.look(holds, seconds), f"not seen within {seconds:g} s: {problem}")

    def wait_until_fresh(self) -> None:
        """Wait until the server answers with fresh prices."""
        end = time.monotonic() + _SLOWEST
        while time.monotonic() < end:
            if self.client.ask("GET", "/prices")["state"] == "fresh":
                return
            time.sleep(0.05)
        self.problems.append(f"prices are not fresh after {_SLOWEST:g} s")

    def sleep(self, minutes: float) -> None:
        """Wait for some simulated minutes."""
        time.sleep(minutes * self.minute)

    def run(self, fault: str, break_it: Callable[[Drill], str]) -> Result:
        """Break something under load, wait until it works again, and compare clients and metrics."""
        self.problems = []
        self.load.pause()
        before = self.client.metrics()
        self.load.resume()
        events = break_it(self)
        self.wait_until_fresh()
        seen = self.load.pause()
        counted = growth(before, self.client.metrics(), "marca_fallbacks_total")
        self.load.resume()
        result = Result(fault, seen, counted, events, self.problems)
        self._compare(result)
        return result

    def _compare(self, result: Result) -> None:
        seen = result.seen
        self.check(seen.unanswered == 0, f"{seen.unanswered} requests unanswered: {dict(seen.failures)}")
        self.check(seen.sent > 0, "nothing was sent")
        if seen.retried == 0:
            self.check(seen.fallbacks == result.counted, f"clients saw {dict(seen.fallbacks)}")
        else:  # a call that was sent again may have been counted by the process that died
            fewer = {k: n for k, n in seen.fallbacks.items() if result.counted[k] < n}
            self.check(not fewer, f"clients saw {fewer}, more than were counted")


def growth(before: Samples, after: Samples, name: str) -> Counter[str]:
    """Return by how much each sample of a metric with one label has grown, without those that have not."""
    grown = {k[1]: round(v - before.get(k, 0.0)) for k, v in after.items() if k[0] == name}
    return Counter({label: n for label, n in grown.items() if n})


# -- the faults --------------------------------------------------------------------------------------------------------
def nothing(drill: Drill) -> str:
    """Break nothing: the policy must decide every request."""
    time.sleep(_SHORT)
    return ""


def kill_controller(drill: Drill) -> str:
    """Kill the controller, wait for the static rule, and start it again."""
    before = drill.client.ask("GET", "/prices")["version"]
    drill.controller.kill()
    drill.wait(lambda seen: seen.states["last-good"] > 0, "last good prices")
    drill.wait(lambda seen: seen.statuses["stale-prices"] > 0, "the static rule")
    start = time.monotonic()
    drill.controller = drill._start_controller()
    drill.wait_until_fresh()
    after = drill.client.ask("GET", "/prices")["version"]
    drill.check(after > before, f"version {after} after {before}")
    return f"restarted in {time.monotonic() - start:.0f} s, version {before} → {after}"


def silence(drill: Drill) -> str:
    """Post no telemetry for half an hour, then garbage, then readings again."""
    drill.telemetry.take_counts()
    drill.telemetry.does = "silent"
    drill.sleep(SILENT_MINUTES)
    drill.wait(lambda seen: seen.states["last-good"] > 0, "last good prices")
    drill.wait(lambda seen: seen.statuses["stale-prices"] > 0, "the static rule")
    refused = drill.client.metrics()
    drill.telemetry.take_counts()
    drill.telemetry.does = "garbage"
    drill.sleep(10)
    is_stale = drill.client.ask("GET", "/prices")["state"] == "stale"
    drill.check(is_stale, "garbage made prices fresh")
    drill.telemetry.does = "silent"
    posted = drill.telemetry.take_counts()
    counted = drill.client.metrics()["marca_telemetry_refused_total",] - refused["marca_telemetry_refused_total",]
    drill.check(set(posted) == {"422"}, f"garbage was answered {dict(posted)}")
    drill.check(counted == posted["422"], f"{posted['422']} posts refused, {counted:g} counted")
    drill.telemetry.does = "value"
    return f"{posted['422']} posts of garbage refused"


def swap_policy(drill: Drill) -> str:
    """Replace the policy by a new version, then by a damaged one, which must be refused."""
    before = drill.client.metrics()
    old = policy_version(drill.policy)
    new = publish(drill.policy, "next")
    drill.wait(lambda seen: seen.versions[new] > 20, f"version {new}")
    damaged = publish(drill.policy, "damaged", damage=True)
    time.sleep(3 * _SHORT)
    publish(drill.policy, "next")
    after = drill.client.metrics()
    swaps = growth(before, after, "marca_policy_swaps_total")
    drill.check(swaps["loaded"] >= 1, "no version was loaded")
    drill.check(swaps["refused"] >= 1, f"damaged version {damaged} was not refused")
    return f"{old} → {new}; loaded {swaps['loaded']}, refused {swaps['refused']}"


def malformed(drill: Drill) -> str:
    """Let a tenth of the requests be malformed."""
    drill.load.malformed = 0.1
    time.sleep(3 * _SHORT)
    drill.load.malformed = 0.0
    n, bad = drill.load.totals()
    drill.check(abs(bad - 0.1 * n) <= 5 * (0.09 * n) ** 0.5, f"{bad} of {n} were malformed")
    return f"{bad / max(n, 1):.1%} fell back"


def kill_worker(drill: Drill) -> str:
    """Kill a worker or a replica of the server; another one takes its place."""
    workers = workers_of(drill.server.process.pid)
    if len(workers) < 2:
        return "left out: one process"
    workers[0].kill()
    start = time.monotonic()
    while len(alive := workers_of(drill.server.process.pid)) < len(workers) or workers[0] in alive:
        if time.monotonic() - start > _SLOWEST:
            drill.problems.append(f"{len(alive)} workers after {_SLOWEST:g} s")
            break
        time.sleep(0.1)
    time.sleep(_SHORT)
    return f"replaced after {time.monotonic() - start:.0f} s"


FAULTS: dict[str, Callable[[Drill], str]] = {
    "none": nothing,
    "controller killed, restarted": kill_controller,
    f"telemetry silent {SILENT_MINUTES} minutes, garbage, back": silence,
    "new policy, then a damaged one": swap_policy,
    "a tenth of the requests malformed": malformed,
    "worker killed": kill_worker,
}


def workers_of(pid: int) -> list[psutil.Process]:
    """Return the processes that serve, workers or replicas, of the server with a process id."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            line = process.cmdline()
            if any("spawn_main" in part for part in line) or "ServeReplica" in "".join(line[:1]):
                found.append(process)
    return found


def publish(link: Path, name: str, damage: bool = False) -> str:
    """Replace a link to the policy by one to a copy under another version; return that version.

    Args:
        link: the link that the server watches.
        name: folder of the copy, beside the link; one that exists is used again.
        damage: cut the weights of the copy short.
    """
    folder = link.parent / name
    if not folder.exists():
        shutil.copytree(link.resolve(), folder)
        text = json.loads((folder / DESCRIPTION).read_text())
        (folder / DESCRIPTION).write_text(json.dumps(text, indent=2 + damage))  # the same, under another sum
        if damage:
            (weights,) = folder.glob("*.safetensors")
            weights.write_bytes(weights.read_bytes()[:-100])
    new = link.with_name(f"{link.name}.new")
    new.symlink_to(folder.name)
    new.replace(link)
    return policy_version(link)


# -- the script --------------------------------------------------------------------------------------------------------
def run_drill(
    policy: str, minute: float, workers: int, ray_port: int | None = None, faults: Sequence[str] = tuple(FAULTS)
) -> list[Result]:
    """Run the faults one after the other on processes of their own.

    Args:
        policy: folder of a policy, a checkpoint or a run.
        minute: seconds of a simulated minute.
        workers: processes of the server, or replicas.
        ray_port: port of Ray Serve, whose replicas serve; ``None``: processes serve.
        faults: names of :data:`FAULTS`.

    Raises:
        InputError: no such policy, or a process that does not start.
    """
    scenario = Scenario.load(AllocationPolicy.load(policy).scenario.load_name)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marca-drill-")))
        shutil.copytree(policy_folder(policy), folder / "first")
        link = folder / "policy"
        link.symlink_to("first")
        state = ["--state", str(folder / "state")]
        ages = ["--fresh", str(FRESH_MINUTES * minute), "--hold", str(HOLD_MINUTES * minute)]
        options = ["--policy", str(link), "--warm", "--timeout", "10", *ages, *state]
        options += ["--workers", str(workers)] if ray_port is None else []
        options += ["--ray", "--replicas", str(workers), "--port", str(ray_port)] if ray_port is not None else []
        url, server = stack.enter_context(running_server(options, folder / "serve.log"))
        control = ["--scenario", scenario.load_name, "--period", str(minute), *state]
        load = stack.enter_context(Load(url, scenario))
        telemetry = stack.enter_context(TelemetrySender(url, scenario, minute))
        drill = Drill(
            url, load, telemetry, lambda: start_controller(control, folder / "control.log"), server, link, minute
        )
        stack.callback(lambda: drill.controller.stop())
        drill.wait_until_fresh()
        time.sleep(_SHORT)  # until every worker has the prices
        return [drill.run(fault, FAULTS[fault]) for fault in faults]


def table_of(results: Sequence[Result]) -> Table:
    """Return a row for each fault."""
    table = Table(title="faults under load")
    for name in (
        "fault",
        "requests",
        "unanswered",
        "retried calls",
        "ok",
        "fallbacks: client / metrics",
        "what happened",
    ):
        table.add_column(name, justify="left" if name in ("fault", "what happened") else "right")
    for result in results:
        seen, reasons = result.seen, sorted(result.seen.fallbacks | result.counted)
        pairs = ", ".join(f"{r} {seen.fallbacks[r]:,} / {result.counted[r]:,}" for r in reasons)
        numbers = (f"{n:,}" for n in (seen.sent, seen.unanswered, seen.retried, seen.statuses["ok"]))
        table.add_row(
            result.fault, *numbers, pairs or "0 / 0", "; ".join([result.events, *result.problems]).strip("; ")
        )
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return 1 if something was unanswered, not counted or not repaired, 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.fault_drill", description=__doc__)
    parser.add_argument("--policy", required=True, metavar="DIR", help="folder of a policy, a checkpoint or a run")
    parser.add_argument("--minute", type=float, default=0.5, metavar="S", help="seconds of a simulated minute")
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="processes of the server, or replicas (default: 2)"
    )
    parser.add_argument("--ray-port", type=int, metavar="N", help="serve with replicas of Ray Serve on this port")
    args = parser.parse_args(argv)
    try:
        results = run_drill(args.policy, as_number("--minute", args.minute, 0.05, 60.0), args.workers, args.ray_port)
    except (InputError, OSError) as error:
        print(f"fault_drill: error: {one_line(error)}", file=sys.stderr)
        return 2
    make_console().print(table_of(results))
    for result in results:
        for problem in result.problems:
            print(f"fault_drill: {result.fault}: {problem}", file=sys.stderr)
    return int(any(result.problems for result in results))


if __name__ == "__main__":
    sys.exit(main())
