"""Balancers on public traces and generated days: utilisation, over-utilisation, revenue, the clairvoyant beside them.

Every run (day, method, seed) is a line of ``runs.jsonl`` in ``out``; a run that is there is not repeated, so that an
interrupted experiment goes on where it stopped. The public traces lie in the folder that the environment variable
``MARCA_TRACES`` names, else in ``shared/data/traces`` beside the checkout; without them the generated days remain.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.progress import progress
from marca_env.errors import InputError

if TYPE_CHECKING:
    from benchmarks.balancing import Commissioned

log = logging.getLogger(__name__)
SEEDS = (0, 1, 2, 3, 4)
TRACES = {
    "nyc_taxi": "nyc_taxi.csv",
    "twitter_amzn": "Twitter_volume_AMZN.csv",
    "twitter_goog": "Twitter_volume_GOOG.csv",
}
METHODS = ("clairvoyant", "mpc", "feedback", "bisection", "primal-dual", "static", "slices", "mpc-real-time")
DEAR = ("mpc", "mpc-lbfgsb", "mpc-slsqp", "mpc-gradient", "mpc-cem", "mpc-shooting")
"""On the hour around the start of a sale only, with one seed: the last take up to a tenth of a second a minute."""
SWEPT = ("flash-sale", "smooth")
SWEEP = {"alpha": (0.2, 0.4, 0.8), "beta": (0.0, 2.0, 8.0), "horizon": (5, 10, 20)}
SWEEP_MINUTES = 300
VALIDATION_SEED = 100
"""Of the days that settings are swept on: they judge nothing else."""
PUBLISHED = {"feedback": (0.9233, 0.0291), "mpc": (0.9529, 0.0064)}
"""μ and ν of the paper's table of balancers, on its own traffic."""
REQUESTS = 360


def run(out: Path, *, quick: bool = False, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Judge what has not been judged yet; write ``runs.jsonl`` and the figures into ``out``.

    Args:
        out: folder of the runs and figures.
        quick: twenty minutes of each day with little commissioning, in ``out/quick``.
        seeds: of the arrivals, and of the generated days.

    Returns:
        ``days``: day → method → means over the seeds with 95 % bootstrap intervals of μ and ν; ``searches``,
        ``sweep``: rows; ``commissioned``: what was tuned on generated days; ``missing``: traces that were not found.

    Raises:
        InputError: ``out`` holds runs of other settings.
    """
    out = Path(out) / "quick" if quick else Path(out)
    bench = _Bench(out, quick)
    days, missing = bench.days()
    jobs = [(day, method, seed) for seed in seeds for day in days for method in METHODS]
    with progress("balancing", len(jobs) + 2) as advance:
        for day, method, seed in jobs:
            bench.judged(day, method, seed)
            advance()
        searches = bench.searches(seeds[0])
        advance()
        sweep = bench.sweep()
        advance()
    bench.draw(days, seeds[0])
    return {
        "days": {day: _methods([bench.rows[_key(day, m, s)] for m in METHODS for s in seeds]) for day in days},
        "searches": searches,
        "sweep": sweep,
        "commissioned": bench.told(),
        "missing": missing,
        "published": {name: {"mu": mu, "nu": nu} for name, (mu, nu) in PUBLISHED.items()},
    }


def _key(day: str, method: str, seed: int, **settings: Any) -> str:
    return json.dumps([day, method, seed, settings], sort_keys=True)


def trace_folder() -> Path:
    """Where the public traces lie."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data" / "traces"
    return Path(os.environ.get("MARCA_TRACES", beside))


def _commissioned(quick: bool) -> Commissioned:
    """The default scenario's, with little effort where it only has to work."""
    from benchmarks.balancing import Commissioned
    from marca_env.engine import Engine

    effort: dict[str, Any] = {"days": 1, "epochs": 5, "tuning": 10, "requests": 60} if quick else {}
    return Commissioned(Engine.load("default"), **effort)


class _Bench:
    """What all runs share: the commissioned methods, the requests that judge, and the lines that are written."""

    def __init__(self, out: Path, quick: bool) -> None:
        self.out, self.quick = out, quick
        self.known = _commissioned(quick)
        self.minutes = 20 if quick else 1440
        self.path = out / "runs.jsonl"
        self.settings = {"requests": REQUESTS, "minutes": self.minutes, "epochs": self.known.epochs}
        self.rows = self._read()
        self._judges: dict[tuple[str, int, int], Any] = {}
        self._pool: Any = None

    def _read(self) -> dict[str, dict[str, Any]]:
        """The runs that there are. A last line that was cut short by a kill does not count, and is taken away."""
        if not self.path.is_file():
            return {}
        whole, rows = [], {}
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["made_with"] != self.settings:
                raise InputError(f"{self.path}: made with other settings; move it away, or choose another folder")
            whole.append(line + "\n")
            rows[row["key"]] = row
        self.path.write_text("".join(whole), encoding="utf-8")
        return rows

    def days(self) -> tuple[list[str], list[str]]:
        """Names of the days that there are, and of the traces that there are not."""
        from benchmarks.courses import GENERATED

        missing = [name for name, file in TRACES.items() if not (trace_folder() / file).is_file()]
        if missing:
            log.warning("no traces %s in %s; set MARCA_TRACES", ", ".join(missing), trace_folder())
        return [*(name for name in TRACES if name not in missing), *GENERATED], missing

    def judge(self, day: str, seed: int, minutes: int | None = None) -> Any:
        """The day with its arrivals; one is kept at a time."""
        from benchmarks.balancing_judge import JUDGE_SEED, Judge
        from benchmarks.courses import from_trace, generated

        key = (day, seed, minutes or self.minutes)
        if key not in self._judges:
            scenario = self.known.scenario
            self._pool = self._pool or self.known.engine.pool(60 if self.quick else REQUESTS, seed=JUDGE_SEED)
            if day in TRACES:
                course = from_trace(trace_folder() / TRACES[day], scenario, key[2])
            else:
                course = generated(day, scenario, seed, key[2])
            self._judges = {key: Judge(self.known, course, self._pool, seed)}
        return self._judges[key]

    def judged(self, day: str, method: str, seed: int, minutes: int | None = None, **settings: Any) -> dict[str, Any]:
        """The score of a run, from the file or made now and appended to it."""
        key = _key(day, method, seed, **({"minutes": minutes} if minutes else {}), **settings)
        if key not in self.rows:
            frame, found = self.judge(day, seed, minutes).run(method, settings)
            row = {"key": key, "day": day, "method": method, "seed": seed, "settings": settings, **found}
            self.rows[key] = json.loads(json.dumps({**row, "made_with": self.settings}))
            self.out.mkdir(parents=True, exist_ok=True)
            if not minutes and not settings:
                frame.to_parquet(self.out / f"{day}-{method}-{seed}.parquet", index=False)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.rows[key]) + "\n")
        return self.rows[key]

    def searches(self, seed: int) -> list[dict[str, Any]]:
        """Every way to minimise Eq. 17 on a short day with a sale."""
        minutes = 12 if self.quick else 180
        return [self.judged("flash-sale", method, seed, minutes) for method in DEAR]

    def sweep(self) -> list[dict[str, Any]]:
        """α, β and N, one varied at a time, on days that judge nothing else."""
        chosen = [{name: value} for name, values in SWEEP.items() for value in values]
        minutes = 12 if self.quick else SWEEP_MINUTES
        return [
            self.judged(day, "mpc", VALIDATION_SEED, minutes, **settings)
            for day in SWEPT
            for settings in (chosen[::4] if self.quick else chosen)
        ]

    def draw(self, days: Sequence[str], seed: int) -> None:
        """``<day>.png``: feedback, MPC and the clairvoyant side by side."""
        import pandas as pd

        from benchmarks.balance_figures import side_by_side

        names = ("feedback", "mpc", "clairvoyant")
        for day in days:
            files = {m: self.out / f"{day}-{m}-{seed}.parquet" for m in names}
            if all(file.is_file() for file in files.values()):
                runs = {m: pd.read_parquet(file) for m, file in files.items()}
                scores = {m: self.rows[_key(day, m, seed)] for m in names}
                side_by_side(runs, self.known.scenario.cluster_names, day, self.out / f"{day}.png", scores)

    def told(self) -> dict[str, Any]:
        """What was tuned on generated days, and the errors of the system model."""
        from dataclasses import asdict

        known = self.known
        tuned = {"feedback": asdict(known.feedback), "rate": known.rate.tolist(), "margin": known.margin}
        return {**tuned, "system_model": known.model.report}


def _methods(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the seeds of each method, with intervals of μ and ν."""
    from benchmarks.balance import means
    from benchmarks.curves import band

    found: dict[str, Any] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        kept = [{k: v for k, v in r.items() if k not in ("key", "day", "made_with")} for r in mine]
        found[method] = means(kept)
        for name in ("mu", "nu", "priced_mu", "priced_nu"):
            values = np.array([list(row[name].values()) for row in mine])  # (seeds, G + 1)
            low, high = band(values)
            found[method][f"{name}_interval"] = {
                cluster: [float(low[k]), float(high[k])] for k, cluster in enumerate(mine[0][name])
            }
    return found


def tables(result: Mapping[str, Any]) -> Iterable[Any]:
    """Every method on every day, in priced minutes and all; then the searches and the sweep."""
    for day, methods in result["days"].items():
        yield _day_table(day, methods)
    yield _short_table("ways to a plan, three hours of a sale, one seed", result["searches"], ("method",))
    yield _short_table("α, β and N of the MPC on validation days", result["sweep"], ("day", "settings"))


def _day_table(day: str, methods: Mapping[str, Any]) -> Any:
    from rich.table import Table

    shares = methods["clairvoyant"]["priced_share"]
    clusters = [c for c in shares if c != "all"]
    table = Table(title=f"{day}: computation has a price in {shares['all']:.0%} of the minutes", title_justify="left")
    table.add_column("method", no_wrap=True)
    for column in ("μ", "ν", "μ, priced", "ν, priced", *(f"{c}, priced" for c in clusters), "of bound", "λ travel"):
        table.add_column(column, justify="right", no_wrap=True)
    for method, row in methods.items():
        cells = [f"{row['mu']['all']:.1%}", f"{row['nu']['all']:.2%}"]
        cells += [_interval(row, name) for name in ("priced_mu", "priced_nu")]
        cells += [f"{100 * row['priced_mu'][c]:.1f} / {100 * row['priced_nu'][c]:.2f}" for c in clusters]
        table.add_row(method, *cells, f"{row['bound_share']:.1%}", f"{row['travel']:.1%}")
    return table


def _interval(row: Mapping[str, Any], name: str) -> str:
    digits = 2 if name.endswith("nu") else 1
    low, high = (100 * x for x in row[f"{name}_interval"]["all"])
    return f"{100 * row[name]['all']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _short_table(title: str, rows: Sequence[Mapping[str, Any]], named: Sequence[str]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in (*named, "μ", "ν", "of the bound", "λ travel"):
        table.add_column(column, justify="left" if column in named else "right")
    for row in rows:
        labels = [", ".join(f"{k}={v}" for k, v in row[n].items()) if n == "settings" else row[n] for n in named]
        cells = [f"{row['mu']['all']:.2%}", f"{row['nu']['all']:.2%}", f"{row['bound_share']:.2%}"]
        table.add_row(*labels, *cells, f"{row['travel']:.1%}")
    return table
