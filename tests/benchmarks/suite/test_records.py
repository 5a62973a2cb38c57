"""Records on disk: unfinished lines, damage, NumPy numbers, several writers."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.suite import records
from benchmarks.suite.api import Case, Row
from marca_env.utils.errors import InputError
from tests.helpers.paths import ROOT


def row(seed: int = 0, method: str = "λ", **numbers: float) -> Row:
    about = {"quick": False}
    return Row(Case(method, seed, config={"hidden": (32, 32)}), numbers or {"score": 1.5}, 0.25, about, 0.125)


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert records.read(tmp_path / "none") == []
    for seed in range(3):
        records.append(tmp_path / "made", row(seed, score=seed / 3))
    rows = records.read(tmp_path / "made")
    assert [r.case.key for r in rows] == [row(seed).case.key for seed in range(3)]
    assert [r.numbers["score"] for r in rows] == [0, 1 / 3, 2 / 3]
    assert (rows[0].seconds, rows[0].cpu_seconds, rows[0].about) == (0.25, 0.125, {"quick": False})


def test_the_newest_row_of_a_case_counts_and_older_rows_stay(tmp_path: Path) -> None:
    for seed, score in ((0, 1.0), (1, 2.0), (0, 3.0)):
        records.append(tmp_path, row(seed, score=score))
    rows = records.read(tmp_path)
    assert [r.numbers["score"] for r in rows] == [1, 2, 3]
    assert [r.numbers["score"] for r in records.newest(rows)] == [3, 2]


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(1, 1000))
def test_an_unfinished_last_line_is_ignored_and_removed(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """Wherever the line is cut, also within a character."""
    folder = tmp_path_factory.mktemp("torn")
    records.append(folder, row(0))
    torn = records.to_line(row(1, method="Lösung", score=2.0)).encode()
    torn = torn[: cut % (len(torn) - 1)]
    path = folder / records.FILE
    path.write_bytes(path.read_bytes() + torn[:-1])
    assert len(records.read(folder)) == 1
    records.append(folder, row(2))
    assert [r.case.seed for r in records.read(folder)] == [0, 2]


def test_a_complete_last_line_without_newline_stays(tmp_path: Path) -> None:
    records.append(tmp_path, row(0))
    path = tmp_path / records.FILE
    path.write_bytes(path.read_bytes().rstrip())
    assert len(records.read(tmp_path)) == 1
    records.append(tmp_path, row(1))
    assert [r.case.seed for r in records.read(tmp_path)] == [0, 1]


CASE = b'{"method": "m", "seed": 0, "budget": {"n": 1}}'
WHOLE = b'{"case": ' + CASE + b', "numbers": {}, "seconds": 1, "cpu_seconds": 1, "about": {}}'
FAULTS = {
    b'"seed": 0': b'"seed": "0"',
    b'"seconds": 1,': b'"seconds": "1",',
    b'"about": {}': b'"about": null',
    b'"n": 1': b'"n": NaN',
}
ABOUTS = (
    b'{"versions": null}',
    b'{"versions": {"numpy": 2}}',
    b'{"machine": null}',
    b'{"machine": {"cores": 2}}',
    b'{"when": null}',
    b'{"when": "lately"}',
    b'{"revision": 7}',
)


def test_a_line_without_faults_is_a_record() -> None:
    assert records.from_line(WHOLE).case.seed == 0


@pytest.mark.parametrize(
    "damage",
    [
        *(
            b'{"key": "torn',
            b"{}",
            b"null",
            b"7",
            b"",
            b"\xff\xfe",
            b'{"case": {"colour": 1}, "numbers": {}}',
            b"\0" * 9,
        ),
        *(WHOLE.replace(before, after) for before, after in FAULTS.items()),
        *(WHOLE.replace(b'"about": {}', b'"about": ' + about) for about in ABOUTS),
    ],
)
def test_damage_is_reported_with_file_and_line(tmp_path: Path, damage: bytes) -> None:
    records.append(tmp_path, row(0))
    path = tmp_path / records.FILE
    before = path.read_bytes() + damage + b"\n" + path.read_bytes()
    path.write_bytes(before)
    with pytest.raises(InputError, match=r"records\.jsonl, line 2: not a record"):
        records.read(tmp_path)
    assert path.read_bytes() == before


def test_numpy_values_become_json_data(tmp_path: Path) -> None:
    numbers = {"a": np.float32(0.5), "b": np.arange(3), "c": np.int64(4), "d": float("nan"), "e": np.bool_(True)}
    new = records.new_row(Case("m", 0), numbers, 1.0, 0.5, quick=True)
    assert {k: v for k, v in new.numbers.items() if k != "d"} == {"a": 0.5, "b": [0, 1, 2], "c": 4, "e": True}
    assert math.isnan(new.numbers["d"])
    assert new.about["quick"] is True
    assert new.about["machine"]["cores"] >= 1
    assert {"numpy", "torch", "marca-env"} <= set(new.about["versions"])
    assert new.about["revision"] or not (ROOT / ".git").exists()
    records.append(tmp_path, new)
    assert records.read(tmp_path)[0].about == new.about
    with pytest.raises(TypeError, match="is not JSON"):
        records.new_row(Case("m", 0), {"a": object()}, 1.0, 0.5, quick=True)


def test_several_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: records.append(tmp_path, row(seed, text="x" * 9000)), range(40)))
    assert sorted(r.case.seed for r in records.read(tmp_path)) == list(range(40))


def test_the_key_of_a_case_depends_on_every_field() -> None:
    base = Case("m", 0, "default", "t", {"updates": 1}, {"lr": 0.1})
    data = json.loads(json.dumps(base.to_dict()))
    assert Case(**data).key == base.key
    changed = [{"method": "n"}, {"seed": 1}, {"scenario": "s"}, {"task": "u"}, {"budget": {}}, {"config": {"lr": 0.2}}]
    assert len({base.key, *(Case(**{**data, **change}).key for change in changed)}) == 7
