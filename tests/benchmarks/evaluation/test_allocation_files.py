"""Allocation from files: the published samples and tables with a header; faults are one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.evaluation.allocation_files import read_pairs, read_task, sample_returns
from marca_env.utils.errors import InputError
from tests.helpers.paths import SAMPLES

needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the published samples are not here")

SCORES = "city,channel,value\nrome,0,3\nrome,1,1\noslo,0,2\noslo,1,0.5\n"
QUOTA, COUNTS = "channel,quota\n0,3\n1,9\n", "city,requests\nrome,2\noslo,2\n"


def write_published(folder: Path) -> None:
    """Write files of the published layout."""
    (folder / "action_quota.csv").write_text("1,0,0,1,2,3,9\n0,0,0,1,1,10,9\n")
    (folder / "state_counts.csv").write_text("4,7,90,DC_0,2,1\n5,7,91,DC_1,2,7")
    keys = ["4_7_90_DC_0_1_0_0_1_2,3.0", "4_7_90_DC_0_0_0_0_1_1,1.0", "5_7_91_DC_1_1_0_0_1_2,2.0"]
    keys.append("5_7_91_DC_1_0_0_0_1_1,0.5")
    (folder / "expert_scores.csv").write_text("index,key,value\n" + "\n".join(f"{k},{x}" for k, x in enumerate(keys)))
    (folder / "allocation_rule.csv").write_text(
        "index,key,value\n0,4_7_90_DC_0_0_0_0_1_1,2\n1,5_7_91_DC_1_1_0_0_1_2,2\n"
    )


def write_own(folder: Path, scores: str = SCORES, quota: str = QUOTA, counts: str = COUNTS) -> tuple[Path, ...]:
    """Write three files with headers."""
    paths = folder / "scores.csv", folder / "quota.csv", folder / "counts.csv"
    for path, text in zip(paths, (scores, quota, counts), strict=True):
        path.write_text(text)
    return paths


def test_return_of_the_published_layout_by_hand(tmp_path: Path) -> None:
    """Greedy earns 3 + 3 + 2 and, the third action being used up, 0.5; the rule 1 + 1 + 2 + 2."""
    write_published(tmp_path)
    assert sample_returns(tmp_path) == {"rule": pytest.approx(100 * 6.0 / 8.5)}
    files = [tmp_path / name for name in ("expert_scores.csv", "action_quota.csv", "state_counts.csv")]
    assert read_task(*files).counts.tolist() == [2, 2]
    assert read_task(*files, requests_column="num").counts.tolist() == [1, 7]
    (tmp_path / "expert_scores.csv").write_text("index,key,value\n0,4_7,3.0\n")
    with pytest.raises(InputError, match="row 1, column 'key': '4_7' is malformed"):
        sample_returns(tmp_path)


def test_own_tables_give_the_same_allocation_as_the_published_layout(tmp_path: Path) -> None:
    task = read_task(*write_own(tmp_path))
    rows = task.allocation.to_dict("records")
    assert rows == [
        {"city": "rome", "channel": "0", "value": 3.0, "requests": 2},
        {"city": "oslo", "channel": "0", "value": 2.0, "requests": 1},
        {"city": "oslo", "channel": "1", "value": 0.5, "requests": 1},
    ]
    (tmp_path / "rule.csv").write_text("city,channel,requests\nrome,1,2\noslo,0,2\nbonn,0,5\n")
    rule = read_pairs(tmp_path / "rule.csv", ["city", "channel"], "requests")
    assert task.earned(rule).tolist() == [2.0, 4.0, 0.0]  # bonn has no values
    assert task.return_percent(rule) == pytest.approx(100 * 6.0 / 8.5)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"scores": "city,channel\nrome,0\n"}, "scores.csv: column 'value' is missing"),
        ({"scores": "city,value\nrome,0\n"}, "scores.csv: column 'channel' is missing"),
        ({"scores": SCORES + "rome,0,4\n"}, "scores.csv: row 5: city rome, channel 0 appears twice"),
        ({"scores": "city,channel,value\nbonn,0,1\n"}, "no row has both a state of .*counts.csv and an action of"),
        ({"quota": "channel,quota\n0,-3\n"}, "quota.csv: row 1, column 'quota': -3 is below 0"),
        ({"quota": "channel,quota\n0,1.5\n"}, "quota.csv: row 1, column 'quota': 1.5 must be a whole number"),
        ({"quota": "quota\n5\n"}, "quota.csv: only the column 'quota'"),
        ({"counts": "city,number\nrome,2\n"}, "counts.csv: column 'requests' is missing"),
        ({"counts": "city,requests\nrome,2\nrome,3\n"}, "counts.csv: row 2: city rome appears twice"),
        ({"counts": "channel,requests\n0,2\n"}, "both have the column 'channel'; rename it"),
        ({"counts": ""}, "counts.csv: the file is empty"),
    ],
)
def test_faults_are_one_line(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_task(*write_own(tmp_path, **files))
    assert "\n" not in str(caught.value)


@needs_samples
def test_the_published_samples_can_be_scored() -> None:
    files = [SAMPLES / name for name in ("expert_scores.csv", "action_quota.csv", "state_counts.csv")]
    task = read_task(*files)
    assert (task.values.shape, task.counts.sum()) == ((10, 25), 167)
    assert read_task(*files, requests_column="num").counts.sum() == 70
    assert task.quotas.sum() > 2 * 10**8
    returns = sample_returns(SAMPLES)
    assert set(returns) == {"dqn", "marca"}
    assert all(0 < value < 1000 for value in returns.values())
