"""Experiment files: ``{name: {run, env, stop, config}}`` in YAML, in the format of RLlib's former ``train file``.

``{grid_search: [a, b]}`` in place of a value runs every combination; ``num_samples`` repeats each with other seeds. Ray
Tune is not used to run them: a run here has the folder, the numbers and the resuming of ``marca train``, and Tune's
storage and its pickled state would be a second form of all three.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.training.trials import Trial
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.yaml import read_mapping

GRID = "grid_search"
SAMPLES = "num_samples"
FIELDS = {
    "run": (str, "the name of an algorithm"),
    "env": (str, "the id of an environment or a dotted path"),
    "offline": (str, "the path of a request log"),
    "scenario": (str, "a preset or the path of a YAML file"),
    "config": (dict, "an object of options"),
    "stop": (dict, "an object of limits"),
    "seed": (int, "an integer"),
    "checkpoint_freq": (int, "an integer, in iterations"),
    "evaluate_freq": (int, "an integer, in iterations"),
    "device": (str, "cpu or cuda"),
    SAMPLES: (int, "an integer"),
}
LONGEST = 100
"""Most characters of a variant's folder name."""


@dataclass(frozen=True)
class ExperimentEntry:
    """One run of an experiment file."""

    experiment: str
    variant: str
    """Combination and sample; empty if the experiment has only one."""
    trial: Trial

    @property
    def name(self) -> str:
        """Folder of the run within that of the file."""
        return f"{self.experiment}/{self.variant}" if self.variant else self.experiment


def read_experiments(path: str | Path) -> list[ExperimentEntry]:
    """Read the runs of an experiment file, in its order.

    Raises:
        InputError: no such file, or a fault in it; the message names file, experiment and field.
    """
    path = Path(path)
    data = read_mapping(path, "experiment")
    if not data:
        raise InputError(f"{path}: no experiments; give at least one as name: {{run: …, stop: …, config: …}}")
    entries: list[ExperimentEntry] = []
    for name, described in data.items():
        where = f"{path}: experiment {name!r}"
        if not re.fullmatch(r"[\w][\w .+-]*", name):
            raise InputError(f"{where}: the name becomes a folder; use letters, digits, spaces and . _ + -")
        if not isinstance(described, dict):
            raise InputError(f"{where}: expected run, env, stop and config, got {type(described).__name__}")
        _check_fields(described, where)
        entries += _entries(name, described, where, path.parent)
    return entries


def _check_fields(described: Mapping[str, Any], where: str) -> None:
    for name in described:
        if name not in FIELDS:
            raise InputError(f"{where}: {unknown_option('field', name, FIELDS)}")
    if "run" not in described:
        raise InputError(f"{where}: field 'run' is missing; give the name of an algorithm, such as QMIX")
    for name, value in described.items():
        kind, expected = FIELDS[name]
        if is_grid(value) and name != SAMPLES:
            continue
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{where}: field {name!r} is {value!r}; give {expected}")
    if described.get(SAMPLES, 1) < 1:
        raise InputError(f"{where}: field {SAMPLES!r} is {described[SAMPLES]}; give at least one")
    for limit, value in described.get("stop", {}).items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
            raise InputError(f"{where}: field 'stop': {limit} is {value!r}; give a number")


def _entries(name: str, described: Mapping[str, Any], where: str, home: Path) -> list[ExperimentEntry]:
    samples = described.get(SAMPLES, 1)
    try:
        variants = list(expand_grids({key: value for key, value in described.items() if key != SAMPLES}))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    entries = []
    for (values, fixed), sample in itertools.product(variants, range(samples)):
        options = dict(fixed.get("config", {}))
        if "seed" in options and "seed" in fixed:
            raise InputError(f"{where}: seed is given twice, in config and beside it; keep one of them")
        for inner in ("env", "seed"):  # the former format had them there, too
            if inner in options and inner not in fixed:
                fixed = {**fixed, inner: options.pop(inner)}
        seed = fixed.get("seed", 0)
        fields = {key: value for key, value in fixed.items() if key not in ("config", "seed")}
        if isinstance(fields.get("offline"), str) and not Path(fields["offline"]).is_absolute():
            beside = home / fields["offline"]
            fields["offline"] = str(beside) if beside.exists() else fields["offline"]
        try:
            trial = Trial(config=options, seed=seed + sample if isinstance(seed, int) else seed, **fields)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        label = ",".join(f"{path.rsplit('.', 1)[-1]}={_as_file_name(value)}" for path, value in values.items())
        label += f"{',' if label else ''}sample={sample}" if samples > 1 else ""
        entries.append(ExperimentEntry(name, label[:LONGEST], trial))
    if len({entry.name for entry in entries}) < len(entries):  # long or similar values: number them
        entries = [
            ExperimentEntry(e.experiment, f"{k:03d},{e.variant}"[:LONGEST], e.trial) for k, e in enumerate(entries)
        ]
    return entries


def is_grid(value: Any) -> bool:
    """Tell whether a value is a grid of several values."""
    return isinstance(value, Mapping) and GRID in value


def expand_grids(described: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield every combination of the grids, the first grid slowest.

    Yields:
        Dotted path → value of the combination, and the description with these values.

    Raises:
        InputError: a grid that is not a list of values, or has other keys beside it.
    """
    grids = dict(_grids(described, ()))
    for values in itertools.product(*grids.values()):
        fixed: Any = described
        for path, value in zip(grids, values, strict=True):
            fixed = _with(fixed, path, value)
        yield {".".join(path): value for path, value in zip(grids, values, strict=True)}, dict(fixed)


def _grids(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Sequence[Any]]]:
    if is_grid(value):
        where, choices = ".".join(path), value[GRID]
        if len(value) > 1:
            raise InputError(f"field {where!r}: {GRID} stands alone; remove {', '.join(k for k in value if k != GRID)}")
        if not isinstance(choices, list) or not choices:
            raise InputError(f"field {where!r}: {GRID} is {choices!r}; give a list of values")
        yield path, choices
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _grids(inner, (*path, str(key)))


def _with(described: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    key, *rest = path
    return {**described, key: _with(described[key], tuple(rest), value) if rest else value}


def _as_file_name(value: Any) -> str:
    return re.sub(r"[^\w.+-]+", "_", str(value)).strip("_")[:40]
