"""Generate a request log of any size: ``python -m benchmarks.training.generated_log --rows 20000000 --out DIR``.

Requests are drawn from the population of a scenario, joint actions uniformly, and outcomes from the fitted models with
sparse revenue, as in a real log. A file is written after the other, so that memory does not grow with the log.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from marca_env.logs.schema import OUTCOMES
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError, one_line
from marca_env.utils.files import atomic_path
from marca_env.utils.validation import as_seed, as_whole_number

FILE_ROWS = 1_000_000
"""Rows of a file."""
GROUP_ROWS = 50_000
"""Rows of a row group, the unit in which a streamed log is read; rows are drawn in groups, too."""
MOST_ROWS = 10_000_000_000


def write_log(folder: str | Path, rows: int, scenario: str | Scenario = "default", seed: int = 0) -> list[Path]:
    """Write a generated request log as Parquet files of :data:`FILE_ROWS` rows, and return them.

    Args:
        folder: folder of the files; it is made.
        rows: number of requests.
        scenario: scenario of the requests; its fitted models say what they earn.
        seed: seed of requests, actions and revenue. A longer log begins with a shorter one of the same seed.

    Raises:
        InputError: a number of rows or a seed out of range, or a scenario without fitted models.
    """
    rows = as_whole_number("--rows", rows, 1, MOST_ROWS)
    rng = np.random.default_rng(as_seed(seed, "--seed"))
    engine = Engine.load(Scenario.load(scenario), noise="gamma")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for start in range(0, rows, FILE_ROWS):
        path = folder / f"requests-{start // FILE_ROWS:05d}.parquet"
        with atomic_path(path) as partial:
            _write_file(partial, _groups(engine, rng, min(FILE_ROWS, rows - start)))
        files.append(path)
    return files


def _write_file(path: Path, groups: Iterator[pa.Table]) -> None:
    first = next(groups)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for table in groups:
            writer.write_table(table)


def _groups(engine: Engine, rng: np.random.Generator, rows: int) -> Iterator[pa.Table]:
    """Yield the row groups of a file, each drawn in full, so that a shorter log is the beginning of a longer one."""
    for start in range(0, rows, GROUP_ROWS):
        yield _group(engine, rng).slice(0, rows - start)


def _group(engine: Engine, rng: np.random.Generator) -> pa.Table:
    """Draw a row group in the columns of a request log; the models predict no other outcome than the revenue."""
    scenario = engine.scenario
    states = engine.sample_states(rng, GROUP_ROWS)
    actions = rng.integers(0, scenario.action_shape, (GROUP_ROWS, len(scenario.decisions)))
    outcome = engine.outcome(states, actions, rng)
    columns = dict(zip(scenario.state_columns, states.T, strict=True))
    columns |= dict(zip(scenario.decision_names, actions.T, strict=True))
    columns |= dict(zip(scenario.result_columns, outcome.all_results.T, strict=True))
    others = {name: np.zeros(GROUP_ROWS, np.float32) for name in OUTCOMES if name != "revenue"}
    return pa.table({name: np.ascontiguousarray(x) for name, x in (columns | others).items()}).append_column(
        "revenue", pa.array(outcome.revenue)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.generated_log", description=__doc__)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the log")
    parser.add_argument("--rows", type=int, default=FILE_ROWS, metavar="N", help="requests (default: %(default)s)")
    parser.add_argument("--scenario", default="default", metavar="NAME", help="scenario (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        files = write_log(args.out, args.rows, args.scenario, args.seed)
    except InputError as error:
        print(f"generated_log: error: {one_line(error)}", file=sys.stderr)
        return 2
    print(f"{args.rows:,} rows in {len(files)} files of {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
