"""Files of predictions: slices, errors and faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.evaluation.predictions import read_predictions_file
from marca_env.utils.errors import InputError
from tests.helpers.paths import SAMPLES

OWN = "uv,w,g,model,prediction,revenue\n0,1,0,a,1,2\n0,1,1,b,1,2\n1,2,0,a,3,1\n1,2,1,b,1,1\n"


def write(folder: Path, text: str = OWN) -> Path:
    path = folder / "predictions.csv"
    path.write_text(text)
    return path


def test_errors_by_hand(tmp_path: Path) -> None:
    found = read_predictions_file(write(tmp_path), slices=["uv", "w+g", "model"])
    errors = found.errors().set_index("slice")
    assert (found.label, list(found.predicted)) == ("revenue", ["prediction"])
    assert errors["groups"].to_dict() == {"all": 1, "uv": 2, "w×g": 4, "model": 2}
    assert errors.loc["all", "pe"] == pytest.approx(0.0)
    assert errors.loc["uv", "pe"] == pytest.approx((4 * 0.5 + 2 * 1.0) / 6)  # sums 2 for 4, and 4 for 2
    assert errors.loc["uv", "spearman"] == pytest.approx(-1.0)
    values = found.values().set_index(["slice", "group"])
    assert values.loc[("w×g", "2, 0"), "pe"] == pytest.approx(2.0)
    assert values.loc[("model", "a"), "requests"] == 2


def test_slices_that_a_file_has_are_found(tmp_path: Path) -> None:
    assert set(read_predictions_file(write(tmp_path)).slices) == {"all", "uv", "w×g"}
    text = OWN.replace("uv,w,g", "user,hour,place")
    assert set(read_predictions_file(write(tmp_path, text)).slices) == {"all", "user", "hour", "place", "model"}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (OWN, {"label": "revenu"}, "did you mean 'revenue'"),
        (OWN, {"predictions": ["predicion"]}, "did you mean 'prediction'"),
        (OWN, {"slices": ["uv×gg"]}, "slice 'uv×gg': unknown column 'gg'"),
        (OWN.replace("revenue", "money"), {}, "name the column of what requests earned with --label"),
        (OWN.replace("prediction", "value"), {}, "name those to judge with --predictions"),
        (OWN.replace("a,1,2", "a,,2"), {}, "row 1, column 'prediction': .* is empty"),
        (OWN.replace("a,1,2", "a,inf,2"), {}, "row 1, column 'prediction': inf is not a finite number"),
        ("prediction,revenue\n1,2\n", {}, "one row; a rank correlation needs at least two"),
    ],
)
def test_faults_are_one_line(tmp_path: Path, text: str, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_predictions_file(write(tmp_path, text), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the published samples are not here")
def test_the_published_sample_is_read() -> None:
    found = read_predictions_file(SAMPLES / "predictions.tsv")
    assert found.label == "consumption"
    assert list(found.predicted) == [
        *(f"a{k}_output" for k in range(1, 6)),
        "q_re_output",
        "q_pre_output",
        "q_final_output",
    ]
    assert set(found.slices) == {"all", "uv", "w×g", "a1", "a2", "a3", "a4", "a5"}
    assert len(found.errors()) == 8 * 8
    table = pd.read_csv(SAMPLES / "predictions.tsv", sep="\t", header=None)
    np.testing.assert_allclose(found.predicted["q_final_output"], table[17])
