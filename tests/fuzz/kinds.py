"""Kinds of hostile inputs: how an input of the corpus, plain data, becomes a file, a call or a command line."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from agents.policy.allocation_policy import AllocationPolicy
from benchmarks.cli.arguments import parse_pairs
from benchmarks.cli.main import main
from benchmarks.evaluation.allocation_files import read_task
from benchmarks.evaluation.predictions import read_predictions_file
from benchmarks.training.experiment_files import read_experiments
from benchmarks.training.trials import Trial
from marca_env.integration.feature_coding import FeatureCoder
from marca_env.integration.mapping import Mapping
from marca_env.logs.log_files import read_cost_log, read_request_log, read_system_log
from marca_env.models.cost_model import CostModel
from marca_env.models.revenue_model import RevenueModel
from marca_env.scenario.scenario import Scenario
from marca_env.testbench.target_config import load_target
from marca_env.traffic.workload import read_trace
from marca_env.utils.errors import InputError
from tests.helpers.factories import OWN_MAPPING, make_cost_log, make_requests, make_tiny_scenario

SECONDS = 10
"""No input may take longer."""
ACCEPTED = "accepted"
SCENARIO = make_tiny_scenario()

TARGET: dict[str, Any] = {
    "http": {"url": "http://127.0.0.1:9", "pid": 1, "connections": 2},
    "cores": 1,
    "buckets": [
        {
            "stage": "rank",
            "cluster": "rank",
            "component": "queue",
            "queue_length": 200,
            "request": {"path": "/rank?n=200"},
            "against": {"path": "/rank?n=1"},
        }
    ],
}
EXPERIMENTS: dict[str, Any] = {
    "first": {
        "run": "QMIX",
        "env": "games/two_step-v0",
        "stop": {"env_steps": 1000},
        "config": {"gru": None, "lr": {"grid_search": [0.001, 0.01]}},
        "num_samples": 2,
        "seed": 1,
    }
}
OPTIONS: dict[str, Any] = {"gru": 64, "hidden": [64], "lr": [[0, 0.1], [10, 0.01]]}
CODING: dict[str, Any] = {"features": [{"name": "spend", "size": 2, "column": "spend", "coding": "quantile"}]}
TRACE = "timestamp,value\n2024-01-01 00:00,5\n2024-01-01 00:05,6\n2024-01-01 00:10,7\n"

Reader = Callable[[Path], object]


def _experiments(path: Path) -> object:
    return [entry.trial.build() for entry in read_experiments(path)]


def _options(path: Path) -> object:
    return Trial(run="QMIX", env="games/two_step-v0", config=parse_pairs([str(path)], "--config")).build()


DOCUMENTS: dict[str, tuple[str, Any, Reader]] = {
    "scenario": ("scenario.yaml", SCENARIO.to_dict(), Scenario.load),
    "mapping": ("mapping.yaml", OWN_MAPPING, Mapping.load),
    "target": ("target.yaml", TARGET, load_target),
    "experiments": ("experiments.yaml", EXPERIMENTS, _experiments),
    "options": ("options.yaml", OPTIONS, _options),
    "coding": ("features.json", CODING, FeatureCoder.load),
}
"""Reader of a document → file name, a valid document, and the function that reads it."""

REQUESTS, COSTS = make_requests(SCENARIO, 12), make_cost_log(SCENARIO)
MINUTES = pd.DataFrame(
    {"day": [0, 0], "minute": [0, 1], "qps": 1.0, "load_a": 1.0, "price_a": 0.0, "degradation_a": 0, "backlog_a": 0.0}
).assign(revenue=1.0)
PREDICTIONS = pd.DataFrame({"city": list("abab"), "prediction": [1.0, 2.0, 3.0, 4.0], "revenue": [0.0, 1.0, 2.0, 3.0]})
SERIES = pd.DataFrame({"timestamp": pd.date_range("2024-01-01", periods=288, freq="5min").astype(str), "value": 5.0})


def _allocation(path: Path) -> object:
    (path.parent / "quotas.csv").write_text("channel,quota\n0,3\n1,1\n")
    (path.parent / "counts.csv").write_text("city,requests\nrome,2\noslo,3\n")
    return read_task(path, path.parent / "quotas.csv", path.parent / "counts.csv")


TABLES: dict[str, tuple[str, pd.DataFrame, Reader]] = {
    "requests": ("requests.csv", REQUESTS, lambda path: read_request_log(path, SCENARIO)),
    "costs": ("costs.csv", COSTS, read_cost_log),
    "system": ("system.csv", MINUTES, read_system_log),
    "trace": ("trace.csv", SERIES, read_trace),
    "predictions": ("predictions.csv", PREDICTIONS, read_predictions_file),
    "values": (
        "values.csv",
        pd.DataFrame({"city": ["rome", "rome", "oslo"], "channel": [0, 1, 0], "value": [3.0, 1.0, 2.0]}),
        _allocation,
    ),
}
"""Reader of a table → file name, a valid table, and the function that reads it."""

ARTEFACTS: dict[str, tuple[str, str, Reader]] = {
    "policy": ("policy.json", "weights.safetensors", AllocationPolicy.load),
    "cost_model": ("model.json", "model.safetensors", CostModel.load),
    "revenue_model": ("model.json", "model.safetensors", RevenueModel.load),
}
"""Folder → its description, its weights, and the function that reads it."""


@dataclass(frozen=True)
class Input:
    """An input of the corpus."""

    kind: str
    data: dict[str, Any]

    def run(self, folder: Path, artefacts: Path) -> str:
        """Use the input in an empty folder; return ``accepted`` or the message.

        What stands in parentheses is left out: reasons of other libraries, which differ between their versions, and
        lists of valid names.
        """
        try:
            with _alarm(), contextlib.chdir(folder):
                message = KINDS[self.kind](self.data, artefacts)
        except InputError as error:
            message = str(error)
        while (shorter := re.sub(r" ?\([^()]*\)", "", message)) != message:
            message = shorter
        return message


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    """Raise TimeoutError in the main thread after the longest time that an input may take."""

    def stop(signum: int, frame: Any) -> None:
        raise TimeoutError(f"still running after {SECONDS} seconds")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# -- kinds -----------------------------------------------------------------------------------------------------------
def document(data: dict[str, Any], artefacts: Path) -> str:
    """Read a valid document with one place changed: ``{reader, path, yaml}``; without ``yaml`` the place is removed."""
    name, valid, read = DOCUMENTS[data["reader"]]
    Path(name).write_text(_changed(valid, data["path"], data.get("yaml")), encoding="utf-8")
    read(Path(name))
    return ACCEPTED


def _changed(valid: Any, path: str, text: str | None) -> str:
    """Return a document as JSON, which is YAML too, with the value at a path such as ``a.0.b`` replaced or removed."""
    marker = "PLACE-OF-THE-CHANGE"
    valid = json.loads(json.dumps(valid))
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    node = valid
    for key in parents:
        node = node[key]
    if text is None:
        del node[last]
        return json.dumps(valid, ensure_ascii=False)
    node[last] = marker
    return json.dumps(valid, ensure_ascii=False).replace(f'"{marker}"', text)


def text(data: dict[str, Any], artefacts: Path) -> str:
    """Read a file of this content: ``{reader, text | hex}``, or ``{reader, before, unit, times, after}``."""
    name, _, read = {**DOCUMENTS, **TABLES}[data["reader"]]
    if "hex" in data:
        content = bytes.fromhex(data["hex"])
    elif "unit" in data:
        content = (data.get("before", "") + data["unit"] * data["times"] + data.get("after", "")).encode()
    else:
        content = data["text"].encode()
    path = Path(data.get("name", name))
    path.write_bytes(content)
    read(path)
    return ACCEPTED


def table(data: dict[str, Any], artefacts: Path) -> str:
    """Read a valid table with a cell, a header or a column changed: ``{reader, column, row, cell | header | drop}``."""
    name, valid, read = TABLES[data["reader"]]
    frame = valid.copy()
    if "cell" in data:
        frame = frame.astype({data["column"]: object})
        frame.iloc[data["row"], frame.columns.get_loc(data["column"])] = data["cell"]
    elif "header" in data:
        frame = frame.rename(columns={data["column"]: data["header"]})
    else:
        frame = frame.drop(columns=data["column"])
    frame.to_csv(name, index=False)
    read(Path(name))
    return ACCEPTED


def artefact(data: dict[str, Any], artefacts: Path) -> str:
    """Load a damaged artefact.

    Its description is changed by ``{artefact, path, json | remove}``, a file by ``{artefact, file, cut}`` or
    ``{artefact, file, hex, times}``, the weights by ``{artefact, tensor, damage}``.
    """
    description, weights, load = ARTEFACTS[data["artefact"]]
    home = Path(data["artefact"])
    shutil.copytree(artefacts / data["artefact"], home)
    if "path" in data:
        plain = json.loads((home / description).read_text())
        *parents, last = (int(part) if part.isdigit() else part for part in data["path"].split("."))
        node = plain
        for key in parents:
            node = node[key]
        if data.get("remove"):
            del node[last]
        else:
            node[last] = data["json"]
        (home / description).write_text(json.dumps(plain))
    elif "tensor" in data:
        tensors = load_file(home / weights)
        name = sorted(tensors)[data["tensor"] % len(tensors)]
        tensors[name] = _damaged(tensors[name], data["damage"])
        if data["damage"] == "missing":
            del tensors[name]
        save_file(tensors, home / weights)
    else:
        file = home / {"description": description, "weights": weights}[data["file"]]
        content = file.read_bytes()
        is_cut = "cut" in data
        file.write_bytes(content[: int(len(content) * data["cut"])] if is_cut else _repeated(data))
    load(home)
    return ACCEPTED


def _repeated(data: dict[str, Any]) -> bytes:
    return bytes.fromhex(data["hex"]) * data["times"]


def _damaged(tensor: np.ndarray, damage: str) -> np.ndarray:
    tensor = tensor.copy()
    if damage == "shape":
        return np.zeros((*tensor.shape, 2), tensor.dtype)
    if damage == "type":
        return np.zeros(tensor.shape, np.int64)
    if damage in ("nan", "inf"):
        tensor = tensor.astype(np.float32)
        tensor.reshape(-1)[-1] = float(damage)
    return tensor


def arguments(data: dict[str, Any], artefacts: Path) -> str:
    """Run a command line: ``{argv}``; its message is the line on the error stream."""
    PREDICTIONS.to_csv("predictions.csv", index=False)
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = main(list(data["argv"]))
        except SystemExit as exit_:  # --help and --version
            status = int(exit_.code or 0)
    if status == 0:
        return ACCEPTED
    lines = errors.getvalue().strip().splitlines()
    assert status in (1, 2), f"exit status {status}"
    assert lines, "no message"
    return lines[-1]


KINDS: dict[str, Callable[[dict[str, Any], Path], str]] = {
    "document": document,
    "text": text,
    "table": table,
    "artefact": artefact,
    "arguments": arguments,
}
