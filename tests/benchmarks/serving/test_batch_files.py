"""Files of decisions: which input they belong to, what is decided again, and that they are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.serving.batch import BatchDecider
from benchmarks.serving.batch_files import FileTask, decide_file, is_decided, plan_files
from benchmarks.serving.request_states import RequestStates
from marca_env.utils.errors import InputError
from tests.helpers.batch_policies import TinyCosts, make_requests_table, make_varied_policy
from tests.helpers.factories import make_tiny_scenario

SETTINGS = {"policy": "p", "prices": [20.0, 10.0]}


@pytest.fixture(scope="module")
def decider() -> BatchDecider:
    scenario = make_tiny_scenario()
    policy = make_varied_policy(scenario, TinyCosts(scenario))
    return BatchDecider(policy, RequestStates(scenario), (20.0, 10.0), (0, 0, 0, 0), ["id"], with_values=True)


@pytest.fixture
def task(tmp_path: Path) -> FileTask:
    pq.write_table(make_requests_table(make_tiny_scenario(), 500), tmp_path / "log.parquet", row_group_size=120)
    return FileTask(tmp_path / "log.parquet", tmp_path / "out" / "log.parquet")


def test_a_file_in_several_batches_is_the_file_in_one(decider: BatchDecider, task: FileTask, tmp_path: Path) -> None:
    whole = FileTask(task.source, tmp_path / "whole.parquet")
    sizes: list[int] = []
    done = decide_file(decider, task, SETTINGS, 70, sizes.append)
    assert decide_file(decider, whole, SETTINGS, 10_000).status == done.status == {"ok": 500}
    assert len(sizes) == 8
    assert sum(sizes) == done.rows == 500
    assert pq.read_table(task.target).equals(pq.read_table(whole.target))
    assert pq.read_table(task.target).equals(decider.decide(pq.read_table(task.source)).cast(decider_schema(decider)))


def decider_schema(decider: BatchDecider) -> pa.Schema:
    return decider.schema(make_requests_table(decider.scenario, 1).schema, "requests")


def test_an_empty_file_has_an_empty_result(decider: BatchDecider, task: FileTask) -> None:
    pq.write_table(pq.read_table(task.source).slice(0, 0), task.source)
    assert decide_file(decider, task, SETTINGS, 70).rows == 0
    assert pq.read_table(task.target).schema.names == decider_schema(decider).names


def test_a_result_stands_until_its_input_or_the_settings_change(decider: BatchDecider, task: FileTask) -> None:
    assert is_decided(task, SETTINGS) == (False, "")
    decide_file(decider, task, SETTINGS, 1000)
    assert is_decided(task, SETTINGS) == (True, "")
    with pytest.raises(InputError, match=r"log.parquet: decided with other settings \(prices\); give another --out"):
        is_decided(task, {**SETTINGS, "prices": [20.0, 11.0]})
    pq.write_table(make_requests_table(decider.scenario, 500, seed=1), task.source)
    assert is_decided(task, SETTINGS) == (False, f"{task.source}: changed since it was decided; it is decided again")
    task.target.write_text("something else")
    with pytest.raises(InputError, match="not a result of marca decide, or damaged"):
        is_decided(task, SETTINGS)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[400:1200] = os.urandom(800)
    path.write_bytes(data)


def rewrite(path: Path) -> None:
    pq.write_table(make_requests_table(make_tiny_scenario(), 7), path)


@pytest.mark.parametrize(("change", "fault"), [(damage, "cannot be read"), (rewrite, "cannot be read|changed while")])
def test_a_fault_half_way_leaves_no_result(
    decider: BatchDecider, task: FileTask, change: Callable[[Path], None], fault: str
) -> None:
    if change is damage:
        change(task.source)
    with pytest.raises(InputError, match=fault):
        decide_file(decider, task, SETTINGS, 120, lambda rows: change(task.source))
    assert list(task.target.parent.iterdir()) == []


def test_an_interruption_leaves_no_result(decider: BatchDecider, task: FileTask) -> None:
    def interrupt(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decide_file(decider, task, SETTINGS, 120, interrupt)
    assert list(task.target.parent.iterdir()) == []


def test_results_keep_the_names_below_a_folder_or_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("logs/a/1.parquet", "logs/b/1.parquet", "one.parquet"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    names = [task.target.as_posix() for task in plan_files(["logs", "one.parquet"], Path("out"))]
    assert names == ["out/a/1.parquet", "out/b/1.parquet", "out/one.parquet"]
    names = [task.target.as_posix() for task in plan_files(["logs/*/1.parquet", "logs"], Path("out"))]
    assert names == ["out/a/1.parquet", "out/b/1.parquet"]
    with pytest.raises(InputError, match=r"logs/a/1.parquet and logs/b/1.parquet have the same result out/1.parquet"):
        plan_files(["logs/a", "logs/b"], Path("out"))
    with pytest.raises(InputError, match=r"logs/a/1.parquet: lies in --out logs"):
        plan_files(["logs"], Path("logs"))
    Path("logs/t.csv").touch()
    with pytest.raises(InputError, match=r"logs/t.csv: not a Parquet file"):
        plan_files(["logs"], Path("out"))
